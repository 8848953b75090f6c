//! What a storage has done in the last hour, a sample every ten seconds, for the plots of the status page and
//! `/status.json`. The thread of [`watch`](super::watch) takes the samples, from counters that exist anyway, if
//! [`Server::record_history`](super::Server::record_history) was called: clients pay nothing for it.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

use crate::base::sync::{Mutex, rank};

/// Time between two samples.
pub const INTERVAL: Duration = Duration::from_secs(10);
/// Samples that are kept: those of an hour.
pub const SAMPLES_MAX: usize = 360;

/// Counters since the start of the server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Totals {
    pub loads: u64,
    pub stored_bytes: u64,
    pub commits: u64,
    /// Conflicts that were refused.
    pub conflicts: u64,
}

/// What happened between two looks, and what there was at the second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// The time of the second look.
    pub at: SystemTime,
    /// Between the looks, a second.
    pub loads: f32,
    pub stored_bytes: f32,
    pub commits: f32,
    pub conflicts: f32,
    pub clients: u32,
    /// Transactions that wait for locks.
    pub waiting: u32,
}

/// The samples of a storage.
#[derive(Debug, Default)]
pub struct History {
    state: Mutex<Samples, rank::History>,
}

#[derive(Debug, Default)]
struct Samples {
    last_look: Option<(Instant, Totals)>,
    newest_last: VecDeque<Sample>,
}

impl History {
    /// The samples, the newest last.
    pub fn samples(&self) -> Vec<Sample> {
        self.state.lock().newest_last.iter().copied().collect()
    }

    /// Takes a sample; the first look has nothing to compare with and takes none. `present`: numbers of clients, and of
    /// transactions that wait.
    pub fn note(&self, now: Instant, at: SystemTime, totals: Totals, present: [usize; 2]) {
        let mut state = self.state.lock();
        if let Some((then, before)) = state.last_look.replace((now, totals)) {
            let seconds = now.saturating_duration_since(then).as_secs_f64().max(1e-3);
            let rate =
                |of: fn(&Totals) -> u64| (of(&totals).saturating_sub(of(&before)) as f64 / seconds) as f32;
            let [clients, waiting] = present.map(|count| u32::try_from(count).unwrap_or(u32::MAX));
            let sample = Sample {
                at,
                loads: rate(|totals| totals.loads),
                stored_bytes: rate(|totals| totals.stored_bytes),
                commits: rate(|totals| totals.commits),
                conflicts: rate(|totals| totals.conflicts),
                clients,
                waiting,
            };
            if state.newest_last.len() >= SAMPLES_MAX {
                state.newest_last.pop_front();
            }
            state.newest_last.push_back(sample);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn samples_are_rates_and_the_oldest_go() {
        let history = History::default();
        let start = Instant::now();
        let look = |second: u64, loads: u64| {
            let (now, at) = (start + Duration::from_secs(second), UNIX_EPOCH + Duration::from_secs(second));
            history.note(now, at, Totals { loads, commits: 3 * second, ..Totals::default() }, [2, 1]);
        };
        look(0, 100);
        assert_eq!(history.samples(), []);
        look(10, 125);
        look(60, 125);
        let [first, second] = history.samples()[..] else { panic!("{:?}", history.samples()) };
        assert_eq!((first.loads, first.commits, first.clients, first.waiting), (2.5, 3.0, 2, 1));
        assert_eq!((second.loads, second.commits), (0.0, 3.0), "over a gap, too");
        for n in 0..1000 {
            look(100 + 10 * n, 200);
        }
        let samples = history.samples();
        assert_eq!(samples.len(), SAMPLES_MAX);
        assert_eq!(samples.last().map(|sample| sample.at), Some(UNIX_EPOCH + Duration::from_secs(10_090)));
        assert!(size_of::<Sample>() * SAMPLES_MAX <= 16 << 10);
    }
}
