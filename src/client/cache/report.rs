//! The line of the log about a cache: how much of what was asked it has answered, and how full it is.

use std::fmt;
use std::time::{Duration, Instant};

use super::CacheStats;
use crate::base::clock::TimeSource;

/// Time between two lines.
pub const INTERVAL: Duration = Duration::from_secs(900);

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
        )
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
