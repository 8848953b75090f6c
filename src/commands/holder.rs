//! Which process has a cache file, a `Data.fs` or a directory open.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::base::fs::with_suffix;

/// The process that has the lock on `PATH.lock`, as the system lists it. `None`: none, or one that this process may not
/// see. The lock itself is not tried: a client or server that starts at this moment would find it taken.
pub(super) fn holder(path: &Path) -> Option<u32> {
    let lock = fs::metadata(with_suffix(path, ".lock")).ok()?;
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let device = lock.dev();
    let wanted = format!("{:02x}:{:02x}:{}", major(device), minor(device), lock.ino());
    locks.lines().find_map(|line| {
        // 5: FLOCK  ADVISORY  WRITE 4711 08:01:654321 0 EOF
        let words: Vec<&str> = line.split_whitespace().filter(|word| *word != "->").collect();
        match words.as_slice() {
            [_, "FLOCK", _, "WRITE", pid, file, ..] if *file == wanted => pid.parse().ok(),
            _ => None,
        }
    })
}

/// A process that has something in this directory open, as the system lists it; not this one. `None`: none, or one that
/// this process may not see.
pub(super) fn user_of(dir: &Path) -> Option<u32> {
    let dir = fs::canonicalize(dir).ok()?;
    let numbers =
        fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.filter(|pid| *pid != std::process::id()).find(|pid: &u32| {
        let open = fs::read_dir(format!("/proc/{pid}/fd"));
        let mut paths = open.into_iter().flatten().filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        paths.any(|path| path.starts_with(&dir))
    })
}

fn major(device: u64) -> u64 {
    u64::from(libc::major(device))
}

fn minor(device: u64) -> u64 {
    u64::from(libc::minor(device))
}
