//! Times as in reports.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point in time as in reports.
pub fn unix(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// The time since `since`; zero if the clock was set back.
pub fn passed(since: SystemTime, now: SystemTime) -> f64 {
    now.duration_since(since).unwrap_or(Duration::ZERO).as_secs_f64()
}
