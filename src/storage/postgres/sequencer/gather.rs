//! How long a group waits for transactions that have just been voted for, and will be finished in a moment.
//!
//! A call for a larger group costs little more than one for a smaller group: it waits once for the commit lock and
//! once for the disk. Without this wait the clients of a server would take turns: half of them would vote while the
//! group of the other half is committed. A client that commits alone never waits: there is no other vote.

use std::time::Duration;

use crate::base::clock::Stopwatch;

/// The longest wait of a group.
const PATIENCE_MAX: Duration = Duration::from_millis(2);
/// The shortest one after waits that were in vain; they get longer again when one was not.
const PATIENCE_MIN: Duration = Duration::from_micros(50);

/// The votes of late, and how long it is worth waiting for their finishes.
#[derive(Debug)]
pub struct Gathering {
    /// Ids of locks, in the order in which they were granted.
    voted: Vec<(u64, Stopwatch)>,
    patience: Duration,
    /// Never longer than this part of what the last group has taken.
    bound: Duration,
}

impl Gathering {
    pub fn new() -> Gathering {
        Gathering { voted: Vec::new(), patience: PATIENCE_MAX, bound: Duration::ZERO }
    }

    /// A vote is answered: its transaction has its locks.
    pub fn voted(&mut self, id: u64) {
        self.voted.push((id, Stopwatch::start()));
    }

    /// Transactions are finished, or were given up.
    pub fn ended(&mut self, ids: &[u64]) {
        self.voted.retain(|(id, _)| !ids.contains(id));
    }

    /// A group has taken this time.
    pub fn committed(&mut self, took: Duration) {
        self.bound = took / 2;
    }

    /// How much longer a group waits that is ready since `since`. `None`: not at all, because nothing was voted for a
    /// short while ago, or because the time is over.
    pub fn left(&mut self, since: Stopwatch) -> Option<Duration> {
        let patience = self.patience.min(self.bound);
        self.voted.retain(|(_, at)| at.passed() < PATIENCE_MAX);
        if self.voted.is_empty() {
            return None;
        }
        patience.checked_sub(since.passed()).filter(|left| !left.is_zero())
    }

    /// A wait is over. `got`: whether others have come in it.
    pub fn learn(&mut self, got: bool) {
        self.patience = if got { self.patience * 2 } else { self.patience / 2 };
        self.patience = self.patience.clamp(PATIENCE_MIN, PATIENCE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_waits_for_those_that_have_voted_and_for_nothing_else() {
        let mut gathering = Gathering::new();
        gathering.committed(Duration::from_secs(1));
        assert_eq!(gathering.left(Stopwatch::start()), None, "nothing was voted");
        gathering.voted(1);
        gathering.voted(2);
        assert!(gathering.left(Stopwatch::start()).is_some());
        gathering.ended(&[1]);
        assert!(gathering.left(Stopwatch::start()).is_some(), "the other one is missing");
        gathering.ended(&[2]);
        assert_eq!(gathering.left(Stopwatch::start()), None);
    }

    #[test]
    fn a_vote_of_long_ago_is_not_waited_for() {
        let mut gathering = Gathering::new();
        gathering.committed(Duration::from_secs(1));
        gathering.voted(1);
        std::thread::sleep(PATIENCE_MAX);
        assert_eq!(gathering.left(Stopwatch::start()), None);
    }

    #[test]
    fn a_wait_is_bounded_by_half_of_what_a_group_takes() {
        let mut gathering = Gathering::new();
        gathering.voted(1);
        assert_eq!(gathering.left(Stopwatch::start()), None, "no group yet");
        gathering.committed(Duration::from_micros(400));
        assert!(gathering.left(Stopwatch::start()).is_none_or(|left| left <= Duration::from_micros(200)));
    }

    #[test]
    fn waits_in_vain_get_shorter_and_others_longer_again() {
        let mut gathering = Gathering::new();
        for _ in 0..100 {
            gathering.learn(false);
        }
        assert_eq!(gathering.patience, PATIENCE_MIN);
        for _ in 0..100 {
            gathering.learn(true);
        }
        assert_eq!(gathering.patience, PATIENCE_MAX);
    }
}
