//! Long work: packs, checks of files, backups.

use serde::Serialize;

use super::time::unix;
use crate::server::backup_status::{AttemptFacts, Attempts, BackupStatus, Success};
use crate::server::hosted::Hosted;
use crate::server::scrub_status::{LastScrub, ScrubResults};
use crate::server::stats::{LastPack, PackResults};

/// The packs of a storage.
#[derive(Clone, Debug, Serialize)]
pub struct PackReport {
    /// The one that is under way.
    pub running: Option<PackRun>,
    /// The last one, since the start.
    pub last: Option<LastPackReport>,
    /// When the last one that has succeeded ended, since the start.
    pub last_success: Option<f64>,
    pub successes: u64,
    /// Those that failed or were cancelled.
    pub failures: u64,
    /// When the next one by `pack-schedule` is due.
    pub next: Option<u64>,
}

/// How far a pack has come.
#[derive(Clone, Debug, Serialize)]
pub struct PackRun {
    pub done_bytes: u64,
    pub total_bytes: u64,
}

/// How a pack ended.
#[derive(Clone, Debug, Serialize)]
pub struct LastPackReport {
    pub began: f64,
    pub seconds: f64,
    pub size_before: u64,
    pub size_after: u64,
    /// Why it failed; `None`: it succeeded.
    pub error: Option<String>,
    pub is_cancelled: bool,
}

/// The checks of a storage's files by `scrub-schedule`.
#[derive(Clone, Debug, Serialize)]
pub struct ScrubReport {
    pub is_running: bool,
    /// The last one, since the start.
    pub last: Option<LastScrubReport>,
    /// What the last checks of all files have found: damaged places, and blobs whose files are missing.
    pub damaged: u64,
    pub missing_blobs: u64,
    /// Checks that could not read their file.
    pub failures: u64,
    /// When the next one is due.
    pub next: u64,
}

/// How a check ended.
#[derive(Clone, Debug, Serialize)]
pub struct LastScrubReport {
    pub file: String,
    pub began: f64,
    pub seconds: f64,
    pub bytes: u64,
    /// Bytes that were compared with their checksums.
    pub compared_bytes: u64,
    /// Why the file could not be read; `None`: it could.
    pub error: Option<String>,
}

/// The backups of a `<backup>` section.
#[derive(Clone, Debug, Serialize)]
pub struct BackupReport {
    /// The directory.
    pub repository: String,
    pub making: AttemptsReport,
    /// Sending them to another place; `None` if they are not sent.
    pub sending: Option<AttemptsReport>,
    /// When the next one by `schedule` is due.
    pub next: Option<u64>,
}

/// What is tried again and again.
#[derive(Clone, Debug, Serialize)]
pub struct AttemptsReport {
    /// Since when an attempt is under way.
    pub running_since: Option<f64>,
    pub successes: u64,
    pub failures: u64,
    /// The last success may have been before the start; then it has no `last_seconds` and `last_bytes`.
    pub last_success: Option<f64>,
    pub last_seconds: Option<f64>,
    pub last_bytes: Option<u64>,
    pub last_failure: Option<f64>,
    pub last_error: Option<String>,
    /// Whether the last attempt has failed.
    pub is_failing: bool,
}

impl PackReport {
    pub(super) fn of(hosted: &Hosted) -> PackReport {
        let running = hosted.pack.progress();
        let PackResults { last: last_pack, last_success, successes, failures } = hosted.pack.results();
        let last = |LastPack { began, took, sizes: [size_before, size_after], error, is_cancelled }| {
            let (began, seconds) = (unix(began), took.as_secs_f64());
            LastPackReport { began, seconds, size_before, size_after, error, is_cancelled }
        };
        PackReport {
            running: running.map(|(done_bytes, total_bytes)| PackRun { done_bytes, total_bytes }),
            last: last_pack.map(last),
            last_success: last_success.map(unix),
            successes,
            failures,
            next: hosted.pack.next(),
        }
    }
}

impl ScrubReport {
    /// `None`: the storage's files are not checked.
    pub(super) fn of(hosted: &Hosted) -> Option<ScrubReport> {
        let next = hosted.scrub.next()?;
        let ScrubResults { last: last_scrub, damaged, missing_blobs, failures } = hosted.scrub.results();
        let last = |LastScrub { file, began, took, bytes, compared, error, .. }| LastScrubReport {
            file: file.display().to_string(),
            began: unix(began),
            seconds: took.as_secs_f64(),
            bytes,
            compared_bytes: compared,
            error,
        };
        Some(ScrubReport {
            is_running: hosted.scrub.is_running(),
            last: last_scrub.map(last),
            damaged,
            missing_blobs,
            failures,
            next,
        })
    }
}

impl BackupReport {
    pub(super) fn of(backup: &BackupStatus) -> BackupReport {
        BackupReport {
            repository: backup.repository.display().to_string(),
            making: AttemptsReport::of(&backup.making),
            sending: backup.sending.as_ref().map(AttemptsReport::of),
            next: backup.next(),
        }
    }
}

impl AttemptsReport {
    fn of(attempts: &Attempts) -> AttemptsReport {
        let AttemptFacts { running, successes, failures, last_success, last_failure } = attempts.facts();
        let work = last_success.and_then(|Success { work, .. }| work);
        let last_success = last_success.map(|Success { at, .. }| unix(at));
        let (failed_at, last_error) = last_failure.unzip();
        let last_failure = failed_at.map(unix);
        AttemptsReport {
            running_since: running.map(unix),
            successes,
            failures,
            last_success,
            last_seconds: work.map(|work| work.took.as_secs_f64()),
            last_bytes: work.map(|work| work.bytes),
            last_failure,
            last_error,
            is_failing: last_failure.is_some_and(|failed| last_success.is_none_or(|at| at <= failed)),
        }
    }
}
