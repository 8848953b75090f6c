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
    pub fn ended(&self, last: LastScrub) {
        let mut all = self.last.lock();
        all.retain(|before| before.file != last.file);
        all.push(last);
    }

    /// Number of places that are damaged, as far as it is known. A blob without a file is none: a pack does not make it
    /// worse.
    pub fn damaged_places(&self) -> u64 {
        self.sum(|last| last.findings.saturating_sub(last.missing_blobs))
    }

    fn sum(&self, of: impl Fn(&LastScrub) -> u64) -> u64 {
        self.last.lock().iter().map(of).sum()
    }

    pub fn set_next(&self, at: SystemTime) {
        self.next.store(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(), Ordering::Relaxed);
    }

    /// The keys of `ruok`; none if the storage is not scrubbed.
    pub fn values(&self) -> Vec<(&'static str, Value)> {
        let int = |number: u64| Value::Int(i64::try_from(number).unwrap_or(i64::MAX));
        let (findings, missing_blobs) = (self.sum(|last| last.findings), self.sum(|last| last.missing_blobs));
        let last = self.last.lock().last().cloned();
        let last = last.map(|last| {
            let began = last.began.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
            let value = Value::dict([
                ("began", Value::Float(began)),
                ("seconds", Value::Float(last.took.as_secs_f64())),
                ("bytes", int(last.bytes)),
                ("compared", int(last.compared)),
                ("findings", int(findings)),
                ("missing-blobs", int(missing_blobs)),
                ("error", last.error.map_or(Value::None, Value::text)),
            ]);
            ("last-scrub", value)
        });
        let next = self.next.load(Ordering::Relaxed);
        let next = (next > 0).then_some(("next-scrub", Value::Float(next as f64)));
        last.into_iter().chain(next).collect()
    }
}
