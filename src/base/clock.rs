//! The time of the computer or of a test: for tids ([`Clock`]), and for decisions that depend on the time
//! ([`TimeSource`]). Two types always have the computer's time, because a test could not move it: [`Stopwatch`], for a
//! duration that is only shown, and [`IoDeadline`], for waits in the operating system.
//!
//! No other file reads a clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::ids::Tid;
use super::sync::{Arc, Condvar, MutexGuard};

/// The time as a tid.
pub trait Clock: Send + Sync {
    fn now(&self) -> Tid;
}

impl Tid {
    /// The tid of the present time.
    pub fn now() -> Tid {
        Tid::from_unix(since_1970().as_secs_f64())
    }
}

/// The time of day of the computer's clock. Zero before 1970.
pub fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The computer's clock.
#[derive(Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Tid {
        Tid::now()
    }
}

/// A clock that stands still until it is set, also backwards, as a bad clock would be.
#[derive(Debug)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// A clock that stands at `now`.
    pub fn new(now: Tid) -> ManualClock {
        ManualClock(AtomicU64::new(now.0))
    }

    /// Sets the clock.
    pub fn set(&self, now: Tid) {
        self.0.store(now.0, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Tid {
        Tid(self.0.load(Ordering::Relaxed))
    }
}

/// Interval in which a wait checks a time that a test moves.
const MANUAL_PAUSE: Duration = Duration::from_millis(5);

/// The time for the server's timeouts and time stamps: of the computer's clocks, or a time that stands still until a
/// test moves it. Clones have the same time.
#[derive(Clone, Debug, Default)]
pub struct TimeSource(Option<Arc<ManualTime>>);

#[derive(Debug)]
struct ManualTime {
    start: (Instant, SystemTime),
    /// Nanoseconds since the start.
    passed: AtomicU64,
}

impl TimeSource {
    /// The time of the computer's clocks.
    pub const SYSTEM: TimeSource = TimeSource(None);

    /// A time that stands still until [`TimeSource::advance`].
    pub fn manual() -> TimeSource {
        let start = (Instant::now(), SystemTime::now());
        TimeSource(Some(Arc::new(ManualTime { start, passed: AtomicU64::new(0) })))
    }

    /// Moves a manual time forwards. No effect on the computer's clocks.
    pub fn advance(&self, by: Duration) {
        if let Some(time) = &self.0 {
            let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
            time.passed.fetch_add(nanos, Ordering::SeqCst);
        }
    }

    /// Monotonic time.
    pub fn now(&self) -> Instant {
        match &self.0 {
            None => Instant::now(),
            Some(time) => time.start.0 + time.passed(),
        }
    }

    /// Time of day.
    pub fn system_time(&self) -> SystemTime {
        match &self.0 {
            None => SystemTime::now(),
            Some(time) => time.start.1 + time.passed(),
        }
    }

    /// Monotonic time since `since`; zero if `since` is in the future.
    pub fn elapsed(&self, since: Instant) -> Duration {
        self.now().saturating_duration_since(since)
    }

    /// Waits for a notice, or until `until`. May return earlier, as waits may.
    pub fn wait_until<'a, T>(
        &self,
        condvar: &Condvar,
        guard: MutexGuard<'a, T>,
        until: Instant,
    ) -> MutexGuard<'a, T> {
        let left = until.saturating_duration_since(self.now());
        let left = if self.0.is_some() { left.min(MANUAL_PAUSE) } else { left };
        condvar.wait_timeout(guard, left)
    }
}

impl ManualTime {
    fn passed(&self) -> Duration {
        Duration::from_nanos(self.passed.load(Ordering::SeqCst))
    }
}

/// Measures a duration.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    pub fn start() -> Stopwatch {
        Stopwatch(Instant::now())
    }

    /// The time since the start.
    pub fn passed(self) -> Duration {
        self.0.elapsed()
    }
}

/// The end of a wait in the operating system, for a socket or a pipe.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct IoDeadline(Instant);

impl IoDeadline {
    /// So much later than now.
    pub fn after(time: Duration) -> IoDeadline {
        IoDeadline(Instant::now() + time)
    }

    /// The time until the deadline; zero after it.
    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether it has passed.
    pub fn is_over(self) -> bool {
        self.left().is_zero()
    }
}
