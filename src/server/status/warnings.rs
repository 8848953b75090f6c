//! What an operator should look at, and what to do about it.

use serde::Serialize;

use super::lag::LAG_SECONDS_MAX;
use super::storage::{DiskReport, StorageReport};
use super::work::{AttemptsReport, BackupReport, ScrubReport};
use crate::base::numbers::span;

/// Locks that are held for longer than this while others wait.
const HOLD_SECONDS_MAX: f64 = 10.0;
/// A disk with less free space than this part of it.
const FREE_PART_MIN: u64 = 20;
/// A disk that is full sooner than this, by what it has lost in at least [`TREND_SECONDS_MIN`].
const FULL_SECONDS_MIN: f64 = 86400.0;
const TREND_SECONDS_MIN: f64 = 6.0 * 3600.0;

/// What is not as it should be.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Warning {
    /// What there is, in a sentence without its end.
    pub what: String,
    /// What to do about it: a sentence.
    pub advice: String,
}

impl Warning {
    pub(super) fn new(what: String, advice: impl Into<String>) -> Warning {
        Warning { what, advice: advice.into() }
    }
}

/// What is wrong with a storage.
pub(super) fn of_storage(storage: &StorageReport) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mut warn = |what: String, advice: &str| {
        warnings.push(Warning::new(format!("storage '{}': {what}", storage.name), advice));
    };
    if let Some(failure) = &storage.failure {
        let is_away = storage.remote.as_ref().is_some_and(|remote| !remote.connected);
        let (what, advice) = if is_away {
            (
                "cannot be used",
                "The server connects again by itself when it can: look at the other one, and at the network.",
            )
        } else {
            (
                "cannot be written any more",
                "Look at the log and the disk, and restart the server when the disk is whole. What was committed can \
                 still be read.",
            )
        };
        warn(format!("{what}: {failure}"), advice);
    }
    if let Some(scrub) = &storage.scrub {
        of_scrub(scrub, &mut warn);
    }
    if let Some(last) = storage.pack.last.as_ref().filter(|last| !last.is_cancelled)
        && let Some(error) = &last.error
    {
        warn(
            format!("the last pack has failed: {error}"),
            "The file is as it was. Mend the cause, and pack again.",
        );
    }
    for one in storage.secondaries.iter().flatten().filter(|one| one.behind.seconds > LAG_SECONDS_MAX) {
        warn(
            format!("the secondary at {} is {} behind", one.peer, span(one.behind.seconds)),
            "Look at the network, and at the disk of the secondary.",
        );
    }
    let waiting = storage.locks.waiters.len();
    let holder = storage
        .locks
        .holders
        .iter()
        .find(|holder| holder.seconds.is_some_and(|seconds| seconds > HOLD_SECONDS_MAX) && waiting > 0);
    if let Some(holder) = holder {
        let seconds = holder.seconds.unwrap_or_default();
        let waiting = if waiting == 1 { "1 waits".into() } else { format!("{waiting} wait") };
        let what = format!(
            "client {} ({}) has held locks for {seconds:.0} s, and {waiting}",
            holder.client, holder.label
        );
        let advice =
            format!("If it does not go on by itself, zeoadmin kill {} ends its connection.", holder.client);
        warn(what, &advice);
    }
    storage.disks.iter().filter_map(of_disk).for_each(|Warning { what, advice }| warn(what, &advice));
    warnings
}

fn of_scrub(scrub: &ScrubReport, warn: &mut dyn FnMut(String, &str)) {
    if scrub.damaged > 0 {
        let advice = "zeofs test says where. Restore a backup, or copy what is whole with zeofs recover.";
        warn(format!("the check of its files has found {} damaged places", scrub.damaged), advice);
    }
    if scrub.missing_blobs > 0 {
        let advice = "The log names them. Put their files back from a backup.";
        warn(format!("{} blobs have no file", scrub.missing_blobs), advice);
    }
    if let Some(error) = scrub.last.as_ref().and_then(|last| last.error.as_ref()) {
        warn(
            format!("its files cannot be checked: {error}"),
            "Look at the permissions of the files, and at the disk.",
        );
    }
}

/// Whether a disk is nearly full, or will be.
pub(super) fn of_disk(disk: &DiskReport) -> Option<Warning> {
    let (free, total) = (disk.free_bytes?, disk.total_bytes?);
    let advice = "Pack the storages, remove what is not needed, or enlarge the disk.";
    if free < total / FREE_PART_MIN {
        let what = format!("{} has {} MB of {} MB left", disk.directory, free >> 20, total >> 20);
        return Some(Warning::new(what, advice));
    }
    let is_sure = disk.change_seconds.is_some_and(|seconds| seconds >= TREND_SECONDS_MIN);
    let full_in = disk.full_in_seconds.filter(|seconds| is_sure && *seconds < FULL_SECONDS_MIN)?;
    let what = format!("{} is full in {:.0} hours if it goes on like this", disk.directory, full_in / 3600.0);
    Some(Warning::new(what, advice))
}

/// What is wrong with backups.
pub(super) fn of_backup(backup: &BackupReport) -> Vec<Warning> {
    let failing = |what: &str, attempts: &AttemptsReport, advice: &str| {
        let error = attempts.last_error.as_deref().unwrap_or("the log says why");
        let what = format!("backups to {}: {what}: {error}", backup.repository);
        attempts.is_failing.then(|| Warning::new(what, advice))
    };
    let making = failing(
        "the last one has failed",
        &backup.making,
        "Mend the cause; the server tries again by itself.",
    );
    let sending = backup.sending.as_ref().and_then(|sending| {
        let advice = "Try the command of <backup> by hand; the server tries again by itself.";
        failing("the last one was not sent", sending, advice)
    });
    making.into_iter().chain(sending).collect()
}
