//! Whether a file system becomes full: its free space over up to a week, and the straight line that fits it best. A
//! pack that needs space for a while, or a backup that is removed, bends that line less than it would bend one through
//! the first and the last value.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

/// Time between two values that are kept.
const INTERVAL: Duration = Duration::from_secs(600);
/// Values that are kept: those of a week.
const VALUES_MAX: usize = 7 * 24 * 6;
/// Shorter times say nothing.
const TIME_MIN: Duration = Duration::from_secs(3600);

/// The free space of a file system over time.
#[derive(Debug, Default)]
pub struct DiskTrend {
    /// Of another size than this: it was enlarged, and what was before counts no more.
    total: u64,
    newest_last: VecDeque<(SystemTime, u64)>,
}

/// How the free space changes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FreeChange {
    pub bytes_per_second: f64,
    /// The time that was looked at.
    pub over: Duration,
}

impl DiskTrend {
    /// Notes what was found, if that is worth a value.
    pub fn note(&mut self, at: SystemTime, free: u64, total: u64) {
        let last = self.newest_last.back().map(|(then, _)| *then);
        let is_set_back = last.is_some_and(|then| at < then);
        if total != self.total || is_set_back {
            self.newest_last.clear();
            self.total = total;
        }
        let is_early =
            last.and_then(|then| at.duration_since(then).ok()).is_some_and(|passed| passed < INTERVAL);
        if is_early && !self.newest_last.is_empty() {
            return;
        }
        if self.newest_last.len() >= VALUES_MAX {
            self.newest_last.pop_front();
        }
        self.newest_last.push_back((at, free));
    }

    /// `None`: it is too early.
    pub fn change(&self) -> Option<FreeChange> {
        let (first, base) = *self.newest_last.front()?;
        let (last, _) = *self.newest_last.back()?;
        let over = last.duration_since(first).ok().filter(|over| *over >= TIME_MIN)?;
        let points = self.newest_last.iter().filter_map(|&(at, free)| {
            Some((at.duration_since(first).ok()?.as_secs_f64(), free as f64 - base as f64))
        });
        let points: Vec<(f64, f64)> = points.collect();
        let count = points.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
        let (mean_time, mean_free) = (mean(|point| point.0), mean(|point| point.1));
        let sum = |of: &dyn Fn(f64, f64) -> f64| -> f64 {
            points.iter().map(|&(time, free)| of(time - mean_time, free - mean_free)).sum()
        };
        let bytes_per_second = sum(&|time, free| time * free) / sum(&|time, _| time * time);
        bytes_per_second.is_finite().then_some(FreeChange { bytes_per_second, over })
    }
}

impl FreeChange {
    /// In how many seconds nothing is left, if it goes on like this. `None`: not within ten years.
    pub fn seconds_left(&self, free: u64) -> Option<f64> {
        let seconds = free as f64 / -self.bytes_per_second;
        (self.bytes_per_second < 0.0 && seconds < 10.0 * 365.0 * 86400.0).then_some(seconds)
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const GB: u64 = 1_000_000_000;

    fn trend(values: impl IntoIterator<Item = (u64, u64)>) -> DiskTrend {
        let mut trend = DiskTrend::default();
        for (minute, free) in values {
            trend.note(UNIX_EPOCH + Duration::from_secs(60 * minute), free, 100 * GB);
        }
        trend
    }

    #[test]
    fn too_early_nothing_is_said() {
        assert_eq!(DiskTrend::default().change(), None);
        assert_eq!(trend([(0, GB)]).change(), None);
        assert_eq!(trend((0..60).map(|minute| (minute, GB))).change(), None);
        assert!(trend((0..=60).map(|minute| (minute, GB))).change().is_some());
    }

    #[test]
    fn a_disk_that_shrinks_is_full_some_day() {
        let change = trend((0..=600).map(|minute| (minute, 50 * GB - minute * 1_000_000))).change();
        let change = change.expect("ten hours are enough");
        assert_eq!(change.over, Duration::from_secs(36_000));
        assert!((change.bytes_per_second * 60.0 + 1e6).abs() < 1.0, "{change:?}");
        let days = change.seconds_left(50 * GB).expect("some day") / 86400.0;
        assert!((days - 50_000.0 / 1440.0).abs() < 0.1, "{days}");
        let still = trend((0..=600).map(|minute| (minute, GB))).change().expect("a change");
        assert_eq!((still.bytes_per_second, still.seconds_left(GB)), (0.0, None));
        let grows = trend((0..=600).map(|minute| (minute, GB + minute))).change().expect("a change");
        assert_eq!(grows.seconds_left(GB), None);
    }

    /// A pack needs a second file for an hour.
    #[test]
    fn a_dip_is_no_trend() {
        let free = |minute| if (300..360).contains(&minute) { 20 * GB } else { 50 * GB };
        let change = trend((0..=660).map(|minute| (minute, free(minute)))).change().expect("a change");
        assert!(change.seconds_left(50 * GB).is_none_or(|seconds| seconds > 30.0 * 86400.0), "{change:?}");
    }

    #[test]
    fn an_enlarged_disk_and_a_clock_set_back_begin_anew() {
        let mut disk = trend((0..=600).map(|minute| (minute, GB)));
        disk.note(UNIX_EPOCH + Duration::from_secs(36_100), 30 * GB, 200 * GB);
        assert_eq!(disk.newest_last.len(), 1);
        let mut disk = trend((100..=600).map(|minute| (minute, GB)));
        disk.note(UNIX_EPOCH, GB, 100 * GB);
        assert_eq!(disk.newest_last.len(), 1);
        let disk = trend((0..100_000).map(|minute| (minute, GB)));
        assert_eq!(disk.newest_last.len(), VALUES_MAX);
    }
}
