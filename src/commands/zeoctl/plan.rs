//! When a program is started, killed and given up: zdaemon's rules.
//!
//! A program that ends within the limit after its start has crashed at its start. Before the first restart there is a
//! pause of a second, before each further one it is a second longer. When the pause reaches the limit, the program is
//! given up, or, with `forever`, is restarted with this pause.

use std::time::{Duration, Instant};

use crate::config::Runner;

/// Pause before SIGKILL is sent again.
const KILL_PAUSE_MIN: Duration = Duration::from_secs(1);

/// What is to happen to the program.
pub(super) struct Plan {
    limit: Duration,
    forever: bool,
    stop_timeout: Option<Duration>,
    pub should_be_up: bool,
    /// The last pause before a restart, in seconds.
    pub backoff: u64,
    /// Nothing is started before this time; if the program is to end, it is killed then.
    pub due: Option<Instant>,
    /// SIGTERM has been sent.
    is_ending: bool,
    started: Option<Instant>,
}

/// What follows the end of the program.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Next {
    /// It was told to end: it is started again at once if it should be up.
    AsTold,
    /// It is started again at once.
    Again,
    /// It is started again after this pause.
    After(Duration),
    /// It ends too often.
    GiveUp,
}

impl Plan {
    pub(super) fn new(runner: &Runner) -> Plan {
        Plan {
            limit: runner.backoff_limit,
            forever: runner.forever,
            stop_timeout: runner.stop_timeout,
            should_be_up: true,
            backoff: 0,
            due: None,
            is_ending: false,
            started: None,
        }
    }

    /// The program should be up from now on, or not, whatever was before.
    pub(super) fn begin(&mut self, should_be_up: bool) {
        self.should_be_up = should_be_up;
        (self.backoff, self.due, self.is_ending) = (0, None, false);
    }

    /// SIGTERM was sent.
    pub(super) fn asked_to_end(&mut self, now: Instant) {
        self.is_ending = true;
        self.due = self.stop_timeout.map(|time| now + time);
    }

    /// The program was started.
    pub(super) fn started(&mut self, now: Instant) {
        self.started = Some(now);
        self.due = None;
    }

    /// Whether a program that does not run is to be started now.
    pub(super) fn starts(&mut self, now: Instant) -> bool {
        self.should_be_up && self.due.is_none_or(|due| due <= now)
    }

    /// Whether a program that runs is to be killed now.
    pub(super) fn kills(&mut self, now: Instant) -> bool {
        let kills = self.is_ending && self.due.is_some_and(|due| due <= now);
        if kills {
            self.due = Some(now + self.limit.max(KILL_PAUSE_MIN));
        }
        kills
    }

    /// The program has ended.
    pub(super) fn ended(&mut self, now: Instant) -> Next {
        if self.is_ending {
            (self.is_ending, self.due) = (false, None);
            return Next::AsTold;
        }
        let is_early = self.started.is_some_and(|started| now.duration_since(started) < self.limit);
        if !is_early {
            (self.backoff, self.due) = (0, None);
            return Next::Again;
        }
        self.backoff += 1;
        if Duration::from_secs(self.backoff) >= self.limit {
            if !self.forever {
                return Next::GiveUp;
            }
            self.backoff = self.limit.as_secs();
        }
        let pause = Duration::from_secs(self.backoff);
        self.due = Some(now + pause);
        Next::After(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::TimeSource;

    const SECOND: Duration = Duration::from_secs(1);

    fn plan(forever: bool) -> Plan {
        Plan::new(&Runner { backoff_limit: SECOND * 3, forever, ..Runner::default() })
    }

    #[test]
    fn what_ends_at_its_start_is_restarted_ever_later_and_given_up() {
        let now = TimeSource::SYSTEM.now();
        let mut plan = plan(false);
        plan.started(now);
        assert_eq!(plan.ended(now), Next::After(SECOND));
        assert!(!plan.starts(now));
        assert!(plan.starts(now + SECOND));
        plan.started(now);
        assert_eq!(plan.ended(now), Next::After(SECOND * 2));
        plan.started(now);
        assert_eq!(plan.ended(now + SECOND * 3), Next::Again, "it ran for the limit");
        for expected in [Next::After(SECOND), Next::After(SECOND * 2), Next::GiveUp] {
            plan.started(now);
            assert_eq!(plan.ended(now), expected);
        }
    }

    #[test]
    fn forever_is_with_the_longest_pause() {
        let now = TimeSource::SYSTEM.now();
        let mut plan = plan(true);
        for pause in [1, 2, 3, 3, 3] {
            plan.started(now);
            assert_eq!(plan.ended(now), Next::After(SECOND * pause));
        }
    }

    #[test]
    fn what_does_not_end_is_killed() {
        let now = TimeSource::SYSTEM.now();
        let mut plan = plan(false);
        plan.started(now);
        assert!(!plan.kills(now + SECOND * 9999));
        plan.begin(false);
        plan.asked_to_end(now);
        assert!(!plan.kills(now + SECOND * 299));
        assert!(plan.kills(now + SECOND * 300));
        assert!(!plan.kills(now + SECOND * 301), "not in a loop");
        assert!(plan.kills(now + SECOND * 303));
        assert_eq!(plan.ended(now + SECOND * 304), Next::AsTold);
        assert!(!plan.starts(now + SECOND * 304));
        plan.begin(true);
        assert!(plan.starts(now + SECOND * 304));
    }
}
