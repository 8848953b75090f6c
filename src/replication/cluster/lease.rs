//! The right of a primary to answer commits, which most servers of the cluster have to confirm again and again: a
//! primary that is cut off from them stops by itself, before another one can have been promoted with their knowledge.

use std::time::Duration;

use crate::base::clock::Stopwatch;
use crate::base::sync::{AtomicU64, Ordering};

/// See the module.
pub struct Lease {
    /// `None`: no confirmation is needed.
    length: Option<Duration>,
    watch: Stopwatch,
    /// In milliseconds since the start.
    until: AtomicU64,
}

impl Lease {
    /// One that has not been confirmed yet.
    pub fn new(length: Option<Duration>) -> Lease {
        Lease { length, watch: Stopwatch::start(), until: AtomicU64::new(0) }
    }

    /// The present time, for [`Lease::confirm`].
    pub fn now(&self) -> Duration {
        self.watch.passed()
    }

    /// Most servers have answered a question that was asked at `asked`.
    pub fn confirm(&self, asked: Duration) {
        let until = asked.saturating_add(self.length.unwrap_or_default());
        self.until.fetch_max(u64::try_from(until.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// Whether commits may be answered. A process that was stopped finds out by this that its time is over.
    pub fn is_valid(&self) -> bool {
        let until = Duration::from_millis(self.until.load(Ordering::SeqCst));
        self.length.is_none() || self.now() < until
    }
}
