//! File system calls that the standard library does not have: durable directories, reserved space, cache hints.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::num::NonZeroU64;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, FallocateFlags, fadvise, fallocate};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use rustix::process::{Resource, geteuid, getrlimit};

/// Makes created, renamed and removed entries of a directory durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The directory of a file; `.` for a bare name.
pub fn dir_of(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// `path` with a suffix appended to its last component: `Data.fs` and `.lock` give `Data.fs.lock`.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Reserves disk space for `len` bytes at `pos` without changing the file's length, so that writing there cannot fail
/// because of a full disk. `Ok(false)`: the file system cannot reserve.
pub fn reserve(file: &File, pos: u64, len: u64) -> io::Result<bool> {
    // Space beyond the maximal length of a file (`ulimit -f`) could be reserved but not written.
    if getrlimit(Resource::Fsize).current.is_some_and(|limit| pos.saturating_add(len) > limit) {
        return Err(Errno::FBIG.into());
    }
    loop {
        return match fallocate(file, FallocateFlags::KEEP_SIZE, pos, len) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::NODEV) => Ok(false),
            Err(Errno::INTR) => continue,
            Err(error) => Err(error.into()),
        };
    }
}

/// Reads from the system's cache until `buf` is full or the file ends. Errors: `WouldBlock` if the data is not in the
/// cache; `Unsupported` if the file system or the kernel cannot tell.
pub fn read_at_now(file: &File, buf: &mut [u8], pos: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..)
        && !rest.is_empty()
    {
        match preadv2(file, &mut [IoSliceMut::new(rest)], pos + done as u64, ReadWriteFlags::NOWAIT) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                return Err(io::ErrorKind::Unsupported.into());
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(done)
}

/// Gives files the mode and the owner of `model`; no effect if that does not exist. Another owner can be given by root
/// only.
pub fn like(model: &Path, files: &[&Path]) -> io::Result<()> {
    let Ok(model) = model.metadata() else { return Ok(()) };
    for file in files {
        let own = file.metadata()?;
        if (own.uid(), own.gid()) != (model.uid(), model.gid()) {
            std::os::unix::fs::chown(file, Some(model.uid()), Some(model.gid()))?;
        }
        std::fs::set_permissions(file, model.permissions())?;
    }
    Ok(())
}

/// Gives files and directories the owner of `model`; no effect if that does not exist, or if this is not root: others
/// cannot.
pub fn give_owner_of(model: &Path, paths: &[&Path]) -> io::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let Ok(model) = model.metadata() else { return Ok(()) };
    for path in paths {
        let own = path.metadata()?;
        if (own.uid(), own.gid()) != (model.uid(), model.gid()) {
            std::os::unix::fs::chown(path, Some(model.uid()), Some(model.gid()))?;
        }
    }
    Ok(())
}

/// Lets the system drop a part of a file that was written back from its cache.
pub fn forget(file: &File, pos: u64, len: u64) {
    if let Some(len) = NonZeroU64::new(len) {
        // It is a hint: without it the memory is in use longer.
        let _ = fadvise(file, pos, Some(len), Advice::DontNeed);
    }
}

/// Bytes of memory that the system has for use without taking any from programs: `MemAvailable` of Linux. `None` if
/// unknown.
pub fn memory_available() -> Option<u64> {
    available_of(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn available_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kb: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kb.checked_mul(1024)
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
    fn available_memory_is_found() {
        let meminfo =
            "MemTotal:       24684288 kB\nMemFree:        17609216 kB\nMemAvailable:   23750508 kB\n";
        assert_eq!(available_of(meminfo), Some(23_750_508 << 10));
        assert_eq!(available_of("MemTotal: 1 kB\n"), None);
        assert_eq!(available_of("MemAvailable: lots\n"), None);
    }

    #[test]
    fn reserving_keeps_the_length() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(10).unwrap();
        reserve(&file, 10, 1 << 20).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 10);
    }
}
