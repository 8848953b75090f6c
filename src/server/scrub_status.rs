//! How the last scrub of a storage ended, for `ruok`. The scrubs themselves are made by `commands::scrubs`.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::base::sync::{AtomicU64, Mutex, Ordering, rank};
use crate::wire::value::Value;

/// The scrubs of a storage.
#[derive(Debug, Default)]
pub struct ScrubStatus {
    /// The last one of each file of the storage (a demo storage may have two), the latest behind.
    last: Mutex<Vec<LastScrub>, rank::LastScrub>,
    /// Unix time of the next one, in seconds. 0: there is none.
    next: AtomicU64,
    /// Number of files that are being scrubbed.
    running: AtomicU64,
    /// Number of scrubs that could not read their file.
    failures: AtomicU64,
}

/// A scrub is under way until this is dropped.
pub struct ScrubShown<'a>(&'a ScrubStatus);

impl Drop for ScrubShown<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the last scrubs of all files of a storage have found.
#[derive(Clone, Debug, Default)]
pub struct ScrubResults {
    /// The latest one; `None`: there was none since the server started.
    pub last: Option<LastScrub>,
    /// Places of the files that are damaged, and files of blobs that are missing.
    pub damaged: u64,
    pub missing_blobs: u64,
    /// Scrubs that could not read their file.
    pub failures: u64,
}

/// How the scrub of a file ended.
#[derive(Clone, Debug)]
pub struct LastScrub {
    pub file: PathBuf,
    pub began: SystemTime,
    pub took: Duration,
    /// Bytes of the file.
    pub bytes: u64,
    /// Those that were compared with their checksums.
    pub compared: u64,
    /// Things that are wrong.
    pub findings: u64,
    /// Those of them that are files of blobs which are missing.
    pub missing_blobs: u64,
    /// `None`: the file could be read.
    pub error: Option<String>,
}

impl ScrubStatus {
    /// The scrub of a file begins.
    pub fn begin(&self) -> ScrubShown<'_> {
        self.running.fetch_add(1, Ordering::Relaxed);
        ScrubShown(self)
    }

    /// Whether a file is being scrubbed.
    pub fn is_running(&self) -> bool {
        self.running.load(Ordering::Relaxed) > 0
    }

    /// What was found.
    pub fn results(&self) -> ScrubResults {
        let all = self.last.lock();
        let missing_blobs = all.iter().map(|last| last.missing_blobs).sum();
        let findings: u64 = all.iter().map(|last| last.findings).sum();
        ScrubResults {
            last: all.last().cloned(),
            damaged: findings.saturating_sub(missing_blobs),
            missing_blobs,
            failures: self.failures.load(Ordering::Relaxed),
        }
    }

    /// Unix time of the next one, in seconds.
    pub fn next(&self) -> Option<u64> {
        let next = self.next.load(Ordering::Relaxed);
        (next > 0).then_some(next)
    }

    /// The scrub of a file has ended.
    pub fn ended(&self, last: LastScrub) {
        if last.error.is_some() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        let mut all = self.last.lock();
        all.retain(|before| before.file != last.file);
        all.push(last);
    }

    /// Number of places that are damaged, as far as it is known. A blob without a file is none: a pack does not make it
    /// worse.
    pub fn damaged_places(&self) -> u64 {
        self.results().damaged
    }

    pub fn set_next(&self, at: SystemTime) {
        self.next.store(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(), Ordering::Relaxed);
    }

    /// The keys of `ruok`; none if the storage is not scrubbed.
    pub fn values(&self) -> Vec<(&'static str, Value)> {
        let int = |number: u64| Value::Int(i64::try_from(number).unwrap_or(i64::MAX));
        let ScrubResults { last, damaged, missing_blobs, .. } = self.results();
        let last = last.map(|last| {
            let began = last.began.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
            let value = Value::dict([
                ("began", Value::Float(began)),
                ("seconds", Value::Float(last.took.as_secs_f64())),
                ("bytes", int(last.bytes)),
                ("compared", int(last.compared)),
                ("findings", int(damaged.saturating_add(missing_blobs))),
                ("missing-blobs", int(missing_blobs)),
                ("error", last.error.map_or(Value::None, Value::text)),
            ]);
            ("last-scrub", value)
        });
        let next = self.next().map(|next| ("next-scrub", Value::Float(next as f64)));
        last.into_iter().chain(next).collect()
    }
}
