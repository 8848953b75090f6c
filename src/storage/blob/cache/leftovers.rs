//! Files that killed processes have left in the directories of a cache. Python removes none of them.

use std::ffi::{OsStr, OsString};
use std::io;
use std::time::Duration;

use rustix::fs::Stat;

use super::lock::DirLocks;
use crate::base::clock::since_1970;
use crate::base::sync::Arc;

/// Python's logger of the check.
pub(super) const LOG: &str = "ZEO.ClientStorage.check_blob_cache";
/// Suffix of blobs that are being downloaded, in Python too.
pub(super) const DOWNLOAD_SUFFIX: &str = ".dl";
/// A download holds the lock of its directory. But a client of Python gives the lock back if the server pauses for
/// long, and goes on writing.
const DOWNLOAD_AGE: Duration = Duration::from_secs(3600);
/// Blobs of an open transaction wait without a lock.
const UPLOAD_AGE: Duration = Duration::from_secs(7 * 24 * 3600);
/// The names of blobs in an open transaction of a Python client.
const UPLOAD_SUFFIXES: [&str; 2] = [".tmp", ".tmp-"];

/// Whether this program gives such names to its downloads: `BLOB.PID-NUMBER.dl`.
fn is_own_download(name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unique =
        name.strip_suffix(DOWNLOAD_SUFFIX).and_then(|rest| rest.rsplit_once('.')).map(|(_, last)| last);
    unique
        .and_then(|unique| unique.split_once('-'))
        .is_some_and(|(pid, number)| is_number(pid) && is_number(number))
}

/// The age at which a file is left over; `None` if it is no temporary file. It is removed under the lock of its
/// directory.
fn age_of_leftover(name: &OsStr) -> Option<Duration> {
    let name = name.to_str()?;
    if is_own_download(name) {
        // A download of this program has the lock until its file is gone.
        return Some(Duration::ZERO);
    }
    if name.ends_with(DOWNLOAD_SUFFIX) {
        return Some(DOWNLOAD_AGE);
    }
    UPLOAD_SUFFIXES.iter().any(|suffix| name.ends_with(suffix)).then_some(UPLOAD_AGE)
}

/// Whether the file is older than any upload or download takes.
pub(super) fn is_leftover(name: &OsStr, stat: &Stat) -> bool {
    // A blob that is moved into the cache keeps its times, except for the change of its name.
    let changed = u64::try_from(stat.st_ctime).unwrap_or(0);
    let age = since_1970().saturating_sub(Duration::from_secs(changed));
    age_of_leftover(name).is_some_and(|age_min| age >= age_min)
}

/// Removes files from one directory, unless a process has locked it: then `false`.
pub(super) fn remove(locks: &Arc<DirLocks>, number: u64, names: &[OsString]) -> bool {
    let removed = locks.try_exclusive(number).and_then(|lock| {
        let Some(_lock) = lock else { return Ok(false) };
        let dir = locks.base().dir(number.to_string().as_ref())?;
        for name in names {
            match dir.remove(name) {
                // It was a download, which has ended since.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                removed => removed?,
            }
            log::info!(target: LOG, "removed {}, which was left over", dir.path().join(name).display());
        }
        Ok(true)
    });
    removed.unwrap_or_else(|error| {
        let dir = locks.base().path().join(number.to_string());
        log::warn!(target: LOG, "files that are left over in {} cannot be removed: {error}", dir.display());
        true
    })
}
