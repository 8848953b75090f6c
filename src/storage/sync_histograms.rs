//! How large the groups of transactions are, and how long their syncs take: the first thing to look at if commits are
//! slow.

use std::time::Duration;

use super::SyncCounts;
use crate::base::histogram::{Histogram, TIME_BOUNDS};

/// Bounds of the sizes of groups.
const GROUP_BOUNDS: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128];

/// Counted by the thread that commits a group, once for each group.
#[derive(Debug)]
pub struct SyncHistograms {
    group_sizes: Histogram,
    sync_times: Histogram,
}

impl Default for SyncHistograms {
    fn default() -> SyncHistograms {
        SyncHistograms { group_sizes: Histogram::new(GROUP_BOUNDS), sync_times: Histogram::new(TIME_BOUNDS) }
    }
}

impl SyncHistograms {
    /// A group was synced, or its sync has failed.
    pub fn count(&self, transactions: usize, took: Duration) {
        self.group_sizes.count(transactions as u64);
        self.sync_times.count_time(took);
    }

    pub fn read(&self) -> SyncCounts {
        SyncCounts { group_sizes: self.group_sizes.read(), sync_times: self.sync_times.read() }
    }
}
