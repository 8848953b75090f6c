//! The times of one call that may wait: for the locks of others, for the disk, for a thread. A few reads of the clock
//! for a commit; loads that are answered from memory have none.

use std::time::{Duration, Instant};

use crate::server::locks::Behind;

/// What a call was doing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// Waiting for a thread, or for the commits of others before it.
    Queue,
    /// Waiting for the locks of other transactions.
    Locks,
    /// Reading: an object, the log, a blob.
    Read,
    /// The storage's checks of a transaction, without merging.
    Check,
    /// Merging conflicts.
    Merge,
    /// Writing to the file, together with the transactions of the same group.
    Write,
    /// Syncing it.
    Sync,
    /// Waiting for the client to take what was sent before.
    Send,
}

/// All steps, in the order in which they are shown.
const STEPS: [Step; 8] =
    [Step::Queue, Step::Locks, Step::Read, Step::Check, Step::Merge, Step::Write, Step::Sync, Step::Send];

impl Step {
    /// Its name in the log and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Step::Queue => "queue",
            Step::Locks => "locks",
            Step::Read => "read",
            Step::Check => "check",
            Step::Merge => "merge",
            Step::Write => "write",
            Step::Sync => "sync",
            Step::Send => "send",
        }
    }
}

/// How long the steps of a call have taken so far.
#[derive(Clone, Debug)]
pub struct CallTimes {
    /// The method of the protocol.
    pub method: &'static str,
    /// The transaction whose locks it had to wait for.
    pub behind: Option<Behind>,
    began: Instant,
    /// When the last step ended.
    marked: Instant,
    steps: [Duration; STEPS.len()],
}

impl CallTimes {
    /// A call that begins now.
    pub fn begin(method: &'static str, now: Instant) -> CallTimes {
        CallTimes { method, behind: None, began: now, marked: now, steps: Default::default() }
    }

    /// The time since the last step has gone into this one.
    pub fn mark(&mut self, step: Step, now: Instant) {
        let passed = now.saturating_duration_since(self.marked);
        self.add(step, passed);
        self.marked = now;
    }

    /// The same, but for what is known of its parts.
    pub fn mark_parts(&mut self, step: Step, parts: &[(Step, Duration)], now: Instant) {
        let known = parts.iter().map(|&(_, took)| took).sum();
        let rest = now.saturating_duration_since(self.marked).saturating_sub(known);
        parts.iter().for_each(|&(part, took)| self.add(part, took));
        self.add(step, rest);
        self.marked = now;
    }

    fn add(&mut self, step: Step, took: Duration) {
        if let Some(sum) = self.steps.get_mut(step as usize) {
            *sum += took;
        }
    }

    /// From its beginning to the end of the last step.
    pub fn total(&self) -> Duration {
        self.marked.saturating_duration_since(self.began)
    }

    /// The steps that took any time worth showing: a thousandth of the whole, or more.
    pub fn steps(&self) -> Vec<(Step, Duration)> {
        let least = (self.total() / 1000).max(Duration::from_millis(1));
        STEPS.into_iter().zip(self.steps).filter(|&(_, took)| took >= least).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_moment_belongs_to_one_step() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut call = CallTimes::begin("vote", start);
        call.mark(Step::Locks, at(2000));
        call.mark_parts(Step::Check, &[(Step::Merge, Duration::from_millis(400))], at(2500));
        call.mark(Step::Send, at(2500));
        let shown: Vec<_> = call.steps().iter().map(|(step, took)| (step.name(), took.as_millis())).collect();
        assert_eq!(shown, [("locks", 2000), ("check", 100), ("merge", 400)]);
        assert_eq!(call.total(), Duration::from_millis(2500));
    }

    /// The parts are measured by another clock.
    #[test]
    fn parts_that_are_longer_than_the_whole_leave_nothing() {
        let start = Instant::now();
        let mut call = CallTimes::begin("tpc_finish", start);
        let parts = [(Step::Write, Duration::from_millis(3)), (Step::Sync, Duration::from_secs(1))];
        call.mark_parts(Step::Queue, &parts, start);
        assert_eq!(call.steps(), [(Step::Write, parts[0].1), (Step::Sync, parts[1].1)]);
        assert_eq!(call.total(), Duration::ZERO);
    }

    #[test]
    fn the_order_is_that_of_the_numbers() {
        assert!(STEPS.iter().enumerate().all(|(at, &step)| step as usize == at));
    }
}
