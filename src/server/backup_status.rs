//! How the backups of one `<backup>` section have ended, for monitoring. The backups themselves are made by
//! `commands::backups`.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::base::sync::{AtomicU64, Mutex, Ordering, rank};

/// The backups of one section.
#[derive(Debug)]
pub struct BackupStatus {
    pub repository: PathBuf,
    /// Making them.
    pub making: Attempts,
    /// Sending them to another place; `None` if they are not sent.
    pub sending: Option<Attempts>,
    /// Unix time of the next one by schedule, in seconds. 0: there is none.
    next: AtomicU64,
}

/// What was tried again and again, and how it ended.
#[derive(Debug, Default)]
pub struct Attempts {
    facts: Mutex<AttemptFacts, rank::BackupFacts>,
}

/// The outcomes of attempts.
#[derive(Clone, Debug, Default)]
pub struct AttemptFacts {
    /// When the attempt that is under way began.
    pub running: Option<SystemTime>,
    pub successes: u64,
    pub failures: u64,
    pub last_success: Option<Success>,
    /// When the last attempt that has failed ended, and why it did.
    pub last_failure: Option<(SystemTime, String)>,
}

/// An attempt that has succeeded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Success {
    pub at: SystemTime,
    /// `None`: it was before the server started.
    pub work: Option<Work>,
}

/// What an attempt did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Work {
    pub took: Duration,
    /// Bytes that were added to the repository, or sent.
    pub bytes: u64,
}

/// An attempt that is under way, until this is dropped.
pub struct Attempting<'a> {
    attempts: &'a Attempts,
}

impl BackupStatus {
    pub fn new(repository: PathBuf, is_sent: bool) -> BackupStatus {
        BackupStatus {
            repository,
            making: Attempts::default(),
            sending: is_sent.then(Attempts::default),
            next: AtomicU64::new(0),
        }
    }

    /// When the next backup by schedule is due; `None`: at no time.
    pub fn set_next(&self, at: Option<SystemTime>) {
        let seconds = at.map_or(0, |at| at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs());
        self.next.store(seconds, Ordering::Relaxed);
    }

    /// Unix time of the next backup by schedule, in seconds.
    pub fn next(&self) -> Option<u64> {
        let next = self.next.load(Ordering::Relaxed);
        (next > 0).then_some(next)
    }
}

impl Attempts {
    /// An attempt begins.
    pub fn begin(&self, now: SystemTime) -> Attempting<'_> {
        self.facts.lock().running = Some(now);
        Attempting { attempts: self }
    }

    /// The last success was before the server started.
    pub fn succeeded_before(&self, at: SystemTime) {
        self.facts.lock().last_success = Some(Success { at, work: None });
    }

    pub fn facts(&self) -> AttemptFacts {
        self.facts.lock().clone()
    }
}

impl Attempting<'_> {
    /// It has succeeded.
    pub fn succeed(self, at: SystemTime, work: Work) {
        let mut facts = self.attempts.facts.lock();
        facts.successes += 1;
        facts.last_success = Some(Success { at, work: Some(work) });
    }

    /// It has failed.
    pub fn fail(self, at: SystemTime, why: String) {
        let mut facts = self.attempts.facts.lock();
        facts.failures += 1;
        facts.last_failure = Some((at, why));
    }
}

impl Drop for Attempting<'_> {
    fn drop(&mut self) {
        self.attempts.facts.lock().running = None;
    }
}
