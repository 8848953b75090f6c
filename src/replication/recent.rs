//! The ends of the last groups of transactions of a storage: how far one is behind that has less.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::clock::Stopwatch;
use crate::base::ids::Tid;
use crate::storage::Lag;

/// The number of groups whose end is known. For one that is further behind, the length of the file and the number of
/// transactions since the start are reported.
pub const RECENT_MAX: usize = 10_000;

/// The last groups, in the order of the file.
pub struct RecentGroups {
    groups: VecDeque<Group>,
    /// The last transaction.
    last: Tid,
    /// Length of the file, and transactions since the start.
    end: u64,
    count: u64,
}

/// The end of a group of transactions.
struct Group {
    last: Tid,
    end: u64,
    count: u64,
    watch: Stopwatch,
}

impl RecentGroups {
    /// At the start: `last` is the last transaction of the file, `end` its length.
    pub fn new(last: Tid, end: u64) -> RecentGroups {
        let first = Group { last, end, count: 0, watch: Stopwatch::start() };
        RecentGroups { groups: [first].into(), last, end, count: 0 }
    }

    /// A group was written.
    pub fn add(&mut self, last: Tid, end: u64, count: u64) {
        (self.last, self.end) = (last, end);
        self.count += count;
        self.groups.push_back(Group { last, end, count: self.count, watch: Stopwatch::start() });
        if self.groups.len() > RECENT_MAX {
            self.groups.pop_front();
        }
    }

    /// What is later than `last` is not there any more.
    pub fn take_back(&mut self, last: Tid) {
        self.last = last;
        while self.groups.len() > 1 && self.groups.back().is_some_and(|group| group.last > last) {
            self.groups.pop_back();
        }
        if let Some(group) = self.groups.back() {
            (self.end, self.count) = (group.end, group.count);
        }
    }

    /// Length of the file.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The file has this length now.
    pub fn set_end(&mut self, end: u64) {
        self.end = end;
    }

    /// What is missing at one that has everything up to `has`.
    pub fn lag(&self, has: Tid) -> Lag {
        if has >= self.last {
            return Lag::default();
        }
        // The first group that it lacks.
        let at = self.groups.partition_point(|group| group.last <= has);
        let before = at.checked_sub(1).and_then(|at| self.groups.get(at));
        let (end, count) = before.map_or((0, 0), |group| (group.end, group.count));
        let time = match before {
            Some(_) => self.groups.get(at).map_or(Duration::ZERO, |group| group.watch.passed()),
            // By its transaction's own time.
            None => Duration::from_secs_f64((Tid::now().to_unix() - has.to_unix()).max(0.0)),
        };
        Lag {
            bytes: self.end.saturating_sub(end),
            transactions: self.count.saturating_sub(count).max(1),
            time,
        }
    }
}
