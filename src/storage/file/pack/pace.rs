//! `pack-max-rate`: a pack that leaves the disk to others.
//!
//! Only what was there when the pack began is paced. The transactions that are committed during it are copied as fast
//! as the disk allows, so that a pack always catches up.

use std::thread;
use std::time::Duration;

use crate::base::clock::Stopwatch;

/// Shorter pauses are left out.
const PAUSE_MIN: Duration = Duration::from_millis(5);
/// A pause is made of pauses of this length, so that a storage that is closed does not wait for it.
const PAUSE_MAX: Duration = Duration::from_millis(100);
/// A pack that could not keep its pace, because the disk was slow, does not hurry for longer than this.
const LAG_MAX: Duration = Duration::from_secs(1);

/// Bytes for each second.
pub struct Pace {
    rate: u64,
    since: Stopwatch,
    /// What was done then.
    from: u64,
}

impl Pace {
    /// `rate` is not zero.
    pub fn new(rate: u64) -> Pace {
        Pace { rate, since: Stopwatch::start(), from: 0 }
    }

    /// Waits until `done` bytes may be done, or until `is_over`.
    pub fn keep(&mut self, done: u64, is_over: impl Fn() -> bool) {
        loop {
            let due = match done.checked_sub(self.from) {
                Some(len) => {
                    Duration::try_from_secs_f64(len as f64 / self.rate as f64).unwrap_or(Duration::MAX)
                }
                // The pack has begun anew.
                None => return self.restart(done),
            };
            let passed = self.since.passed();
            if passed > due.saturating_add(LAG_MAX) {
                return self.restart(done);
            }
            let pause = due.saturating_sub(passed).min(PAUSE_MAX);
            if pause < PAUSE_MIN || is_over() {
                return;
            }
            thread::sleep(pause);
        }
    }

    fn restart(&mut self, done: u64) {
        (self.since, self.from) = (Stopwatch::start(), done);
    }
}
