//! Latencies of many operations, and their percentiles.

use crate::outcome::Outcome;
use std::time::Duration;

/// In units of 0.1 µs, to keep millions of them small.
#[derive(Default)]
pub struct Latencies(Vec<u32>);

impl Latencies {
    pub fn add(&mut self, latency: Duration) {
        self.0.push(u32::try_from(latency.as_nanos() / 100).unwrap_or(u32::MAX));
    }

    pub fn merge(&mut self, other: Latencies) {
        self.0.extend(other.0);
    }

    /// Median, 99th percentile and maximum, in microseconds, as `PREFIXp50_us` and so on.
    pub fn report(mut self, outcome: &mut Outcome, prefix: &str) {
        self.0.sort_unstable();
        for (name, percent) in [("p50", 50), ("p99", 99), ("max", 100)] {
            let rank = (self.0.len() * percent).div_ceil(100).max(1) - 1;
            if let Some(tenths) = self.0.get(rank) {
                outcome.set(&format!("{prefix}{name}_us"), f64::from(*tenths) / 10.0);
            }
        }
    }
}
