//! Where tids come from: the time of day, or what a test says it is.

use std::sync::atomic::{AtomicU64, Ordering};

use super::ids::Tid;

/// Tells the time as a tid.
pub trait Clock: Send + Sync {
    fn now(&self) -> Tid;
}

/// The computer's clock.
#[derive(Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Tid {
        Tid::now()
    }
}

/// A clock that stands still until it is set: forwards, backwards, as a bad clock would.
#[derive(Debug)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    pub fn new(now: Tid) -> ManualClock {
        ManualClock(AtomicU64::new(now.0))
    }

    pub fn set(&self, now: Tid) {
        self.0.store(now.0, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Tid {
        Tid(self.0.load(Ordering::Relaxed))
    }
}
