//! What the standard library leaves to the operating system: directories made durable, space reserved.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// Makes created, renamed and removed entries of a directory durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The directory that a file is in; `.` for a bare name.
pub fn dir_of(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// `path` with something appended to its last component: `Data.fs` and `.lock` give `Data.fs.lock`.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Reserves disk space for `len` bytes at `pos` without changing the file's length, so that writing there cannot
/// find the disk full. `Ok(false)`: this file system cannot reserve.
#[allow(unsafe_code)]
pub fn reserve(file: &File, pos: u64, len: u64) -> io::Result<bool> {
    let (Ok(pos), Ok(len)) = (libc::off_t::try_from(pos), libc::off_t::try_from(len)) else {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    };
    // SAFETY: a system call on a descriptor that `file` keeps open; no memory is passed.
    let failed = unsafe { libc::fallocate(file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, pos, len) } != 0;
    if !failed {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL | libc::ENODEV) => Ok(false),
        Some(libc::EINTR) => Ok(true),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_are_appended_not_swapped() {
        assert_eq!(with_suffix(Path::new("a/Data.fs"), ".lock"), Path::new("a/Data.fs.lock"));
        assert_eq!(dir_of(Path::new("Data.fs")), Path::new("."));
        assert_eq!(dir_of(Path::new("a/Data.fs")), Path::new("a"));
    }

    #[test]
    fn reserving_keeps_the_length() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(10).unwrap();
        reserve(&file, 10, 1 << 20).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 10);
    }
}
