//! What a storage has done in the last hour.

use serde::Serialize;

use super::time::unix;
use crate::server::history::{INTERVAL, Sample};
use crate::server::hosted::Hosted;

/// Samples of the last hour. The lists are equally long, the newest last. Rates are those since the sample before.
#[derive(Clone, Debug, Default, Serialize)]
pub struct HistoryReport {
    /// Time between two samples, if nothing stands still.
    pub interval_seconds: u64,
    /// When the samples were taken.
    pub times: Vec<u64>,
    /// Loads a second.
    pub loads: Vec<f32>,
    /// Bytes of stored records a second.
    pub stored_bytes: Vec<f32>,
    /// Commits a second.
    pub commits: Vec<f32>,
    /// Conflicts that were refused, a second.
    pub conflicts: Vec<f32>,
    /// Registered clients.
    pub clients: Vec<u32>,
    /// Transactions that waited for locks.
    pub waiting: Vec<u32>,
}

impl HistoryReport {
    pub(super) fn of(hosted: &Hosted) -> HistoryReport {
        let mut history = HistoryReport { interval_seconds: INTERVAL.as_secs(), ..HistoryReport::default() };
        for Sample { at, loads, stored_bytes, commits, conflicts, clients, waiting } in
            hosted.history.samples()
        {
            history.times.push(unix(at).round() as u64);
            history.loads.push(rounded(loads));
            history.stored_bytes.push(rounded(stored_bytes));
            history.commits.push(rounded(commits));
            history.conflicts.push(rounded(conflicts));
            history.clients.push(clients);
            history.waiting.push(waiting);
        }
        history
    }
}

/// Two digits behind the point are enough for people, and short for programs.
fn rounded(rate: f32) -> f32 {
    (rate * 100.0).round() / 100.0
}
