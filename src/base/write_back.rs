//! The one call to the C library that writing needs and rustix lacks, with a safe face.

#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::AsRawFd;

/// Tells the disk to begin writing a part of a file, without waiting for it. What is written stays in memory: the other
/// call with that effect, `POSIX_FADV_DONTNEED`, drops what a fast disk has written before the call returns.
pub fn write_back(file: &File, pos: u64, len: u64) {
    // A length of 0 would mean all that follows.
    if let (Ok(pos), Ok(len @ 1..)) = (pos.try_into(), len.try_into()) {
        // SAFETY: takes a descriptor, which `file` keeps open, and numbers; touches no memory of ours. A hint: where it
        // is not understood, the sync at the end takes longer. Errors of the disk are told by that, too.
        let _ = unsafe { libc::sync_file_range(file.as_raw_fd(), pos, len, libc::SYNC_FILE_RANGE_WRITE) };
    }
}
