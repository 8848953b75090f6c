//! Histograms for monitoring: how often a value was within which bounds. To count a value takes a few atomic additions
//! and no lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Bounds for waits on disks and for locks, in nanoseconds: from 100 µs to a minute.
pub const TIME_BOUNDS: &[u64] = &[
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    60_000_000_000,
];

/// Counts values by size.
#[derive(Debug)]
pub struct Histogram {
    /// Greatest value of each bucket, ascending. The last bucket has no bound.
    bounds: &'static [u64],
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// The content of a [`Histogram`] at some time.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Distribution {
    /// Greatest value of each bucket, ascending; times are in nanoseconds. The last bucket has no bound.
    pub bounds: &'static [u64],
    /// Number of values in each bucket: one more than there are bounds.
    pub counts: Vec<u64>,
    /// Sum of all values.
    pub sum: u64,
}

impl Histogram {
    /// A histogram without values. `bounds` are ascending.
    pub fn new(bounds: &'static [u64]) -> Histogram {
        Histogram {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        }
    }

    /// Counts a value.
    pub fn count(&self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        // The sum of waits of no time need not be touched.
        if value > 0 {
            self.sum.fetch_add(value, Ordering::Relaxed);
        }
    }

    /// Counts a duration, in nanoseconds.
    pub fn count_time(&self, time: Duration) {
        self.count(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// What was counted so far. Values that are counted at the same time may be missing in the sum.
    pub fn read(&self) -> Distribution {
        Distribution {
            bounds: self.bounds,
            counts: self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect(),
            sum: self.sum.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let histogram = Histogram::new(&[1, 10]);
        for value in [0, 1, 2, 10, 11, u64::from(u32::MAX)] {
            histogram.count(value);
        }
        let read = histogram.read();
        assert_eq!(read.counts, [2, 2, 2]);
        assert_eq!(read.sum, 24 + u64::from(u32::MAX));
    }

    #[test]
    fn times_are_counted_in_nanoseconds() {
        let histogram = Histogram::new(TIME_BOUNDS);
        histogram.count_time(Duration::from_micros(100));
        histogram.count_time(Duration::from_secs(3600));
        let read = histogram.read();
        assert_eq!((read.counts.first(), read.counts.last()), (Some(&1), Some(&1)));
        assert_eq!(read.sum, 100_000 + 3_600_000_000_000);
    }
}
