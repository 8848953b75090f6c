//! Which process has a cache file or a `Data.fs` open.

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

fn major(device: u64) -> u64 {
    u64::from(libc::major(device))
}

fn minor(device: u64) -> u64 {
    u64::from(libc::minor(device))
}
