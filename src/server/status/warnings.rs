//! What an operator should look at, in sentences.

use super::storage::{DiskReport, StorageReport};
use super::work::{AttemptsReport, BackupReport};

/// Locks that are held for longer than this while others wait.
const HOLD_SECONDS_MAX: f64 = 10.0;
/// A disk with less free space than this part of it.
const FREE_PART_MIN: u64 = 20;

/// What is wrong with a storage.
pub(super) fn of_storage(storage: &StorageReport) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut warn = |what: String| warnings.push(format!("storage '{}': {what}", storage.name));
    if let Some(failure) = &storage.failure {
        warn(format!("cannot be written any more: {failure}"));
    }
    if let Some(scrub) = &storage.scrub {
        if scrub.damaged > 0 {
            warn(format!("the check of its files has found {} damaged places", scrub.damaged));
        }
        if scrub.missing_blobs > 0 {
            warn(format!("{} blobs have no file", scrub.missing_blobs));
        }
        if let Some(error) = scrub.last.as_ref().and_then(|last| last.error.as_ref()) {
            warn(format!("its files cannot be checked: {error}"));
        }
    }
    if let Some(last) = storage.pack.last.as_ref().filter(|last| !last.is_cancelled)
        && let Some(error) = &last.error
    {
        warn(format!("the last pack has failed: {error}"));
    }
    let waiting = storage.locks.waiters.len();
    let holder = storage
        .locks
        .holders
        .iter()
        .find(|holder| holder.seconds.is_some_and(|seconds| seconds > HOLD_SECONDS_MAX) && waiting > 0);
    if let Some(holder) = holder {
        let seconds = holder.seconds.unwrap_or_default();
        warn(format!(
            "client {} ({}) has held locks for {seconds:.0} s, and {waiting} wait",
            holder.client, holder.label
        ));
    }
    storage.disks.iter().filter_map(of_disk).for_each(warn);
    warnings
}

/// Whether a disk is nearly full.
pub(super) fn of_disk(disk: &DiskReport) -> Option<String> {
    let (free, total) = (disk.free_bytes?, disk.total_bytes?);
    let is_little = free < total / FREE_PART_MIN;
    is_little.then(|| format!("{} has {} MB of {} MB left", disk.directory, free >> 20, total >> 20))
}

/// What is wrong with backups.
pub(super) fn of_backup(backup: &BackupReport) -> Vec<String> {
    let failing = |what: &str, attempts: &AttemptsReport| {
        let error = attempts.last_error.as_deref().unwrap_or("the log says why");
        attempts.is_failing.then(|| format!("backups to {}: {what}: {error}", backup.repository))
    };
    let making = failing("the last one has failed", &backup.making);
    let sending = backup.sending.as_ref().and_then(|sending| failing("the last one was not sent", sending));
    making.into_iter().chain(sending).collect()
}
