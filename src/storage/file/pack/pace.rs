//! Long work that leaves the disk and the processor to others: `pack-max-rate`, the limits of scrubs and backups, and
//! gentle backups.
//!
//! Of a pack only what was there when the pack began is paced. The transactions that are committed during it are copied
//! as fast as the disk allows, so that a pack always catches up.

use std::thread;
use std::time::Duration;

use crate::base::clock::Stopwatch;

/// Shorter pauses are left out.
const PAUSE_MIN: Duration = Duration::from_millis(5);
/// A pause is made of pauses of this length, so that a storage that is closed does not wait for it.
const PAUSE_MAX: Duration = Duration::from_millis(100);
/// A pack that could not keep its pace, because the disk was slow, does not hurry for longer than this.
const LAG_MAX: Duration = Duration::from_secs(1);

/// Work that is done at once, at least; the shortest and the longest pause behind it.
const WORK: Duration = Duration::from_micros(400);
const REST_MIN: Duration = Duration::from_millis(1);
const REST_MAX: Duration = Duration::from_millis(20);

/// Short pieces of work, with pauses that are twice as long. A program that wants the processor waits for the end of a
/// piece at most: the system lets even the least important thread run for some milliseconds once it has begun.
pub struct ShortPieces {
    since: Stopwatch,
}

impl ShortPieces {
    pub fn begin() -> ShortPieces {
        ShortPieces { since: Stopwatch::start() }
    }

    /// Pauses if it is time. To be called often.
    pub fn rest(&mut self) {
        let worked = self.since.passed();
        if worked >= WORK {
            thread::sleep((worked * 2).clamp(REST_MIN, REST_MAX));
            self.since = Stopwatch::start();
        }
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_rest_behind_each_piece_of_work() {
        let mut pieces = ShortPieces::begin();
        let all = Stopwatch::start();
        for _ in 0..20 {
            let work = Stopwatch::start();
            while work.passed() < WORK {}
            pieces.rest();
        }
        // At least; on a busy machine it takes longer.
        assert!(all.passed() >= (WORK + REST_MIN) * 20);
    }

    #[test]
    fn a_pace_is_not_exceeded() {
        let (mut pace, all) = (Pace::new(1 << 20), Stopwatch::start());
        for part in 1..=4 {
            pace.keep(part << 16, || false);
        }
        assert!(all.passed() >= Duration::from_millis(240));
    }
}
