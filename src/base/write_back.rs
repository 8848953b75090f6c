//! A safe wrapper of the one call to the C library that writing needs and rustix does not have.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Tells the disk to begin writing a part of a file, without waiting. The data stays in the cache. The alternative
/// `POSIX_FADV_DONTNEED` drops what a fast disk has written before the call returns.
pub fn write_back(file: &File, pos: u64, len: u64) {
    // Length 0 would mean everything from `pos` on.
    if let (Ok(pos), Ok(len @ 1..)) = (pos.try_into(), len.try_into()) {
        // SAFETY: takes numbers and a descriptor that `file` keeps open; accesses no memory of this process. It is a
        // hint: without it the final sync takes longer. That sync also reports errors of the disk.
        let _ = unsafe { libc::sync_file_range(file.as_raw_fd(), pos, len, libc::SYNC_FILE_RANGE_WRITE) };
    }
}

/// Waits until a part of a file is written that [`write_back`] has begun with.
///
/// Errors: those of the disk, which a later sync does not report again.
pub fn wait_for_write_back(file: &File, pos: u64, len: u64) -> io::Result<()> {
    const FLAGS: u32 =
        libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    let (Ok(pos), Ok(len @ 1..)) = (pos.try_into(), len.try_into()) else { return Ok(()) };
    // SAFETY: as above.
    if unsafe { libc::sync_file_range(file.as_raw_fd(), pos, len, FLAGS) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        // A file system without the call: the final sync does it all.
        Some(libc::ENOSYS | libc::EINVAL | libc::ESPIPE | libc::EOPNOTSUPP) => Ok(()),
        _ => Err(error),
    }
}
