//! The line of the log about a cache: how much of what was asked it has answered, and how full it is.

use std::fmt;
use std::time::{Duration, Instant};

use super::{CacheStats, SizeEstimate};
use crate::base::clock::TimeSource;

/// Time between two lines.
pub const INTERVAL: Duration = Duration::from_secs(900);
/// Loads of an estimate below which nothing is said about other sizes.
const WATCHED_MIN: u64 = 200;

/// What was reported last.
pub struct CacheReporter {
    time: TimeSource,
    since: Instant,
    last: CacheStats,
}

/// What a cache has done since the last report. Its display is the line of the log.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CacheReport {
    now: CacheStats,
    before: CacheStats,
    passed: Duration,
}

impl CacheReporter {
    /// A reporter that begins now with a cache that was just opened.
    pub fn new(time: TimeSource) -> CacheReporter {
        CacheReporter { since: time.now(), time, last: CacheStats::default() }
    }

    /// The next report, if it is time for it.
    pub fn due(&mut self, stats: impl FnOnce() -> CacheStats) -> Option<CacheReport> {
        if self.time.elapsed(self.since) < INTERVAL { None } else { self.report(stats()) }
    }

    /// The report of the time since the last one. `None`: there was no load.
    pub fn report(&mut self, now: CacheStats) -> Option<CacheReport> {
        let report = CacheReport { now, before: self.last, passed: self.time.elapsed(self.since) };
        (self.since, self.last) = (self.time.now(), now);
        (now.loads > report.before.loads).then_some(report)
    }
}

impl fmt::Display for CacheReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CacheReport { now, before, passed } = self;
        let loads = now.loads.saturating_sub(before.loads);
        let hits = now.hits.saturating_sub(before.hits);
        write!(
            f,
            "cache: {:.1} % of {loads} loads were hits, {} stored, {} evicted, in {} s; {} MB of {} MB are used, by {} \
             revisions",
            100.0 * hits as f64 / loads.max(1) as f64,
            now.stores.saturating_sub(before.stores),
            now.evictions.saturating_sub(before.evictions),
            passed.as_secs(),
            megabytes(now.used),
            megabytes(now.size),
            now.revisions,
        )?;
        self.estimates(f)
    }
}

impl CacheReport {
    /// What other sizes would be good for, if this one has evicted something.
    fn estimates(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CacheReport { now, before, .. } = self;
        let mut separator = "; by estimate ";
        for (now_there, before_there) in now.estimates.iter().zip(&before.estimates) {
            // After a change of the size the counters begin anew.
            let is_same = before_there.size == now_there.size && before_there.loads <= now_there.loads;
            let before_there = if is_same { *before_there } else { SizeEstimate::default() };
            let loads = now_there.loads - before_there.loads;
            if now.evictions == 0 || loads < WATCHED_MIN {
                continue;
            }
            let hits = now_there.hits.saturating_sub(before_there.hits);
            let rate = 100.0 * hits as f64 / loads as f64;
            write!(f, "{separator}{rate:.0} % with {} MB", megabytes(now_there.size))?;
            separator = ", ";
        }
        Ok(())
    }
}

/// Three digits at least, for small caches.
fn megabytes(bytes: u64) -> String {
    let megabytes = bytes as f64 / (1 << 20) as f64;
    if megabytes < 100.0 { format!("{megabytes:.1}") } else { format!("{megabytes:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(loads: u64, hits: u64) -> CacheStats {
        CacheStats {
            loads,
            hits,
            stores: loads - hits,
            evictions: hits / 100,
            revisions: 10,
            used: 1 << 20,
            size: 300 << 20,
            ..CacheStats::default()
        }
    }

    #[test]
    fn other_sizes_are_named_where_something_was_evicted() {
        let mut reporter = CacheReporter::new(TimeSource::manual());
        let mut now = stats(100_000, 80_000);
        let estimate = |halves, hits| SizeEstimate { size: now.size / 2 * halves, loads: 1500, hits };
        now.estimates = [estimate(1, 900), estimate(4, 1351)];
        let estimated = |report: Option<CacheReport>| {
            report
                .unwrap()
                .to_string()
                .split_once("; by estimate ")
                .map(|(_, estimated)| estimated.to_string())
        };
        let expected = "60 % with 150 MB, 90 % with 600 MB";
        assert_eq!(estimated(reporter.report(now)).as_deref(), Some(expected));
        // Since then.
        now.loads += 1;
        now.estimates.iter_mut().for_each(|there| (there.loads, there.hits) = (2500, there.hits + 500));
        let expected = "50 % with 150 MB, 50 % with 600 MB";
        assert_eq!(estimated(reporter.report(now)).as_deref(), Some(expected));
        now.loads += 1;
        assert_eq!(estimated(reporter.report(now)), None, "too few");
        // The size was changed.
        (now.loads, now.size) = (now.loads + 1, now.size / 2);
        now.estimates =
            [1, 4].map(|halves| SizeEstimate { size: now.size / 2 * halves, loads: 300, hits: 150 });
        let expected = "50 % with 75.0 MB, 50 % with 300 MB";
        assert_eq!(estimated(reporter.report(now)).as_deref(), Some(expected));
        (now.loads, now.evictions) = (now.loads + 1, 0);
        now.estimates.iter_mut().for_each(|there| there.loads += 1000);
        assert_eq!(estimated(reporter.report(now)), None, "all has room");
    }

    #[test]
    fn a_line_every_interval_with_loads() {
        let time = TimeSource::manual();
        let mut reporter = CacheReporter::new(time.clone());
        assert_eq!(reporter.due(|| stats(10, 5)), None);
        time.advance(INTERVAL);
        let line = |report: Option<CacheReport>| report.map(|report| report.to_string());
        assert_eq!(
            line(reporter.due(|| stats(1000, 800))).as_deref(),
            Some(
                "cache: 80.0 % of 1000 loads were hits, 200 stored, 8 evicted, in 900 s; 1.0 MB of 300 MB are used, by \
                 10 revisions"
            )
        );
        assert_eq!(reporter.due(|| stats(1100, 800)), None);
        time.advance(INTERVAL + Duration::from_secs(3));
        assert_eq!(
            line(reporter.due(|| stats(1200, 999))).as_deref(),
            Some(
                "cache: 99.5 % of 200 loads were hits, 1 stored, 1 evicted, in 903 s; 1.0 MB of 300 MB are used, by 10 \
                 revisions"
            )
        );
        time.advance(INTERVAL);
        assert_eq!(reporter.due(|| stats(1200, 999)), None, "no load");
        assert_eq!(
            line(reporter.report(stats(1201, 1000))).as_deref(),
            Some(
                "cache: 100.0 % of 1 loads were hits, 0 stored, 1 evicted, in 0 s; 1.0 MB of 300 MB are used, by 10 \
                 revisions"
            )
        );
    }
}
