//! One turn of the sequencer: what it takes from the desk, what it waits for, and what it sends.

use std::time::Duration;

use super::desk::{Finish, Requests};
use super::group;
use super::writer::SequencerThread;
use crate::base::clock::Stopwatch;
use crate::postgres::Lost;

/// How often transactions of others are looked for.
const SEARCH: Duration = Duration::from_millis(100);
/// How long locks that are not needed any more wait for a message that takes them along.
const GIVE_BACK: Duration = Duration::from_micros(500);
/// How often the number of objects and the size are looked up.
const ESTIMATE: Duration = Duration::from_secs(10);

impl SequencerThread {
    /// Takes what is there, or waits for something to do.
    pub fn turn(&mut self, is_closed: &mut bool) -> std::result::Result<(), Lost> {
        self.mind_servers()?;
        let mut has_voted = self.take_requests(is_closed);
        let since = Stopwatch::start();
        let ready = self.waiting.len();
        let mut has_waited = false;
        while let Some(left) = self.time_to_gather(since) {
            has_waited = true;
            self.wait(left)?;
            has_voted |= self.take_requests(is_closed);
        }
        if has_waited {
            self.gathering.learn(self.waiting.len() > ready);
        }
        if !self.free.is_empty() && !self.has_more_than_locks() && !*is_closed {
            self.wait(GIVE_BACK)?;
            has_voted |= self.take_requests(is_closed);
        }
        if !self.free.is_empty() || self.has_more_than_locks() {
            return self.work();
        }
        if has_voted || *is_closed { Ok(()) } else { self.idle() }
    }

    /// Whether there is something to do besides giving locks back.
    fn has_more_than_locks(&self) -> bool {
        let has_requests = !self.waiting.is_empty() || !self.catch_ups.is_empty() || !self.ahead.is_empty();
        has_requests || self.is_search_due()
    }

    /// How much longer the group that is ready waits for others.
    fn time_to_gather(&mut self, since: Stopwatch) -> Option<Duration> {
        if self.waiting.front().is_none_or(Finish::is_alone) || self.waiting.len() >= group::COUNT_MAX {
            return None;
        }
        self.gathering.left(since)
    }

    /// Takes what is there, and lets the votes have their locks. Returns whether there were any.
    fn take_requests(&mut self, is_closed: &mut bool) -> bool {
        let Requests { locks, mut finishes, releases, mut catch_ups, is_closed: closed, .. } =
            self.desk.take();
        *is_closed = closed;
        self.catch_ups.append(&mut catch_ups);
        for finish in &finishes {
            self.gathering.ended(&finish.locks);
        }
        self.waiting.append(&mut finishes);
        self.gathering.ended(&releases);
        for id in releases {
            self.free.extend(self.held.remove(&id));
        }
        if locks.is_empty() {
            return false;
        }
        self.lock(locks);
        true
    }

    pub fn is_search_due(&self) -> bool {
        self.is_notified || self.last_search.passed() >= SEARCH
    }

    pub fn searched(&mut self) {
        self.is_notified = false;
        self.was_kept_waiting = false;
        self.last_search = Stopwatch::start();
    }

    fn idle(&mut self) -> std::result::Result<(), Lost> {
        if self.last_estimate.is_none_or(|at| at.passed() >= ESTIMATE) {
            self.estimate()?;
        }
        self.wait(SEARCH.saturating_sub(self.last_search.passed()))
    }

    /// Waits for a request, or for a word from another server. (Each notification of this server comes back to it,
    /// and does not end the wait.)
    fn wait(&mut self, time: Duration) -> std::result::Result<(), Lost> {
        let since = Stopwatch::start();
        loop {
            let left = time.saturating_sub(since.passed());
            let notifications = self.session.wait(left, &self.desk.wake)?;
            self.take_notifications(notifications.iter().map(|one| one.payload.as_str()));
            if notifications.is_empty() || self.is_notified {
                return Ok(());
            }
        }
    }
}
