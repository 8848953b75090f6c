//! What making and sending backups have in common: the lock of the repository, and errors in the log.

use std::path::Path;
use std::time::Duration;

use crate::backup::lock::{Exclusion, Locked, RepositoryLock, lock};
use crate::backup::repository::error::BackupError;
use crate::backup::repository::{ProgressListener, Repository};
use crate::base::clock::{Stopwatch, TimeSource};
use crate::server::stop_signal::StopSignal;

pub(super) const TARGET: &str = "runzeo";
/// Time until what has failed is tried again.
pub(super) const RETRY: Duration = Duration::from_secs(10 * 60);
/// An error that stays the same is logged again after this time, another one after the other.
const REMIND: Duration = Duration::from_secs(3600);
const REMIND_OF_OTHER: Duration = Duration::from_secs(60);
/// Longest wait for another run to leave the repository, and the interval of the attempts.
pub(super) const LOCK_WAIT: Duration = Duration::from_secs(10);
const LOCK_LOOK: Duration = Duration::from_millis(50);

/// What was logged of an error that may last.
#[derive(Default)]
pub(super) struct Complaint {
    /// The last error, and when it was logged.
    last: Option<(String, Stopwatch)>,
}

impl Complaint {
    /// Whether the error is to be logged.
    pub(super) fn is_new(&mut self, what: &str) -> bool {
        if let Some((last, since)) = &self.last
            && since.passed() < if last == what { REMIND } else { REMIND_OF_OTHER }
        {
            return false;
        }
        self.last = Some((what.into(), Stopwatch::start()));
        true
    }

    /// Whether there was an error that is over now.
    pub(super) fn is_over(&mut self) -> bool {
        self.last.take().is_some()
    }
}

/// The lock of a repository. `None` in it: the file system has none.
pub(super) struct RepositoryHold {
    _lock: Option<RepositoryLock>,
}

/// Takes the lock of a repository. Other runs are often short, so they are waited for, up to `limit`. `None`: the
/// server stops.
pub(super) fn hold(
    repository: &Path,
    exclusion: Exclusion,
    limit: Option<Duration>,
    time: &TimeSource,
    stop: &StopSignal,
) -> Result<Option<RepositoryHold>, Reason> {
    let begun = Stopwatch::start();
    loop {
        match lock(&Repository::lock_path(repository), exclusion) {
            Ok(Locked::Held(lock)) => return Ok(Some(RepositoryHold { _lock: Some(lock) })),
            Ok(Locked::Impossible(_)) => return Ok(Some(RepositoryHold { _lock: None })),
            Ok(Locked::Busy { holder }) if limit.is_some_and(|limit| begun.passed() >= limit) => {
                return Err(Reason(format!("the repository is in use by another run of zeobackup {holder}")));
            }
            Ok(Locked::Busy { .. }) => {}
            Err(error) => return Err(Reason(format!("the repository cannot be locked: {error}"))),
        }
        if stop.wait(time, LOCK_LOOK) {
            return Ok(None);
        }
    }
}

/// Why a backup was not made, or not sent.
pub(super) struct Reason(pub(super) String);

impl From<BackupError> for Reason {
    fn from(error: BackupError) -> Reason {
        Reason(error.to_string())
    }
}

/// Warnings go to the log.
pub(super) struct LogListener<'a> {
    pub(super) stop: &'a StopSignal,
}

impl ProgressListener for LogListener<'_> {
    fn warning(&self, what: &str) {
        log::warn!(target: TARGET, "backup: {what}");
    }

    fn is_cancelled(&self) -> bool {
        self.stop.is_stopped()
    }
}
