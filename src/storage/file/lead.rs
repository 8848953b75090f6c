//! Which thread commits the next group: the *lead*, which one thread has at a time.
//!
//! A thread that queues a job while no thread leads takes the lead; the jobs that are queued then are its group. Jobs
//! that are queued during this wait. When the leader is done, it hands the lead to a pack that waits for it, or to a
//! committer thread if there are jobs, or gives it up.
//!
//! Invariants: there is at most one leader; each queued job is led by some thread, unless the queue was closed before.
//! `tests/model/group.rs` checks every interleaving.

use crate::base::sync::{Condvar, Mutex, rank};

/// The queue of jobs, and the state of the lead.
#[derive(Debug)]
pub struct Lead<J> {
    state: Mutex<LeadQueue<J>, rank::Lead>,
    /// There is a group for a committer thread, or the queue is closed.
    work: Condvar,
    /// No thread leads.
    idle: Condvar,
    /// The thread that waits in `alone` may go on.
    turn: Condvar,
}

#[derive(Debug)]
struct LeadQueue<J> {
    jobs: Vec<J>,
    leading: bool,
    /// The lead waits for a committer thread.
    handed_over: bool,
    /// A thread waits in `alone`, and is next.
    wanted: bool,
    /// The thread in `alone` has the lead.
    granted: bool,
    closed: bool,
    /// How often the lead was passed on.
    passed: u64,
}

/// The result of queueing a job.
#[derive(Debug, Eq, PartialEq)]
pub enum Joined<J> {
    /// A leader will take it.
    Queued,
    /// The caller has the lead now, and must call [`Lead::pass_on`].
    Leads,
    /// The queue is closed.
    Refused(J),
}

/// The result of asking for the lead without waiting.
#[derive(Debug, Eq, PartialEq)]
pub enum Tried {
    /// The caller has the lead now, and must call [`Lead::pass_on`].
    Leads,
    /// Another thread has it, or is about to take it. The number changes each time the lead is passed on.
    Led(u64),
    /// The queue is closed.
    Closed,
}

impl<J> Default for Lead<J> {
    fn default() -> Lead<J> {
        Lead {
            state: Mutex::new(LeadQueue {
                jobs: Vec::new(),
                leading: false,
                handed_over: false,
                wanted: false,
                granted: false,
                closed: false,
                passed: 0,
            }),
            work: Condvar::new(),
            idle: Condvar::new(),
            turn: Condvar::new(),
        }
    }
}

impl<J> Lead<J> {
    /// Queues a job.
    pub fn join(&self, job: J) -> Joined<J> {
        let mut state = self.state.lock();
        if state.closed {
            return Joined::Refused(job);
        }
        state.jobs.push(job);
        take_lead(&mut state)
    }

    /// Queues jobs behind one another.
    pub fn join_all(&self, mut jobs: Vec<J>) -> Joined<Vec<J>> {
        let mut state = self.state.lock();
        if state.closed {
            return Joined::Refused(jobs);
        }
        state.jobs.append(&mut jobs);
        take_lead(&mut state)
    }

    /// For the leader: takes the first `count(jobs)` jobs of the queue.
    pub fn take(&self, count: impl FnOnce(&[J]) -> usize) -> Vec<J> {
        let mut state = self.state.lock();
        let count = count(&state.jobs);
        let rest = state.jobs.split_off(count);
        std::mem::replace(&mut state.jobs, rest)
    }

    /// Called by the leader when it is done: hands the lead on, or gives it up.
    pub fn pass_on(&self) {
        let mut state = self.state.lock();
        state.passed += 1;
        if state.wanted {
            state.wanted = false;
            state.granted = true;
            self.turn.notify_all();
        } else if state.jobs.is_empty() {
            state.leading = false;
            // Without this check each single commit would make a system call to notify no thread.
            if state.closed {
                self.idle.notify_all();
            }
        } else {
            state.handed_over = true;
            self.work.notify_one();
        }
    }

    /// Waits for the lead until the current group is done; no other group comes first. For one thread at a time. True:
    /// the caller has the lead, and must call [`Lead::pass_on`]. False: the queue is closed.
    pub fn alone(&self) -> bool {
        let mut state = self.state.lock();
        if state.leading {
            state.wanted = true;
            while !state.granted {
                state = self.turn.wait(state);
            }
            state.granted = false;
            if state.closed {
                drop(state);
                self.pass_on();
                return false;
            }
        } else if state.closed {
            // `leading` must not be set even for a moment: a committer that was notified of the close would see it, and
            // wait for a notice that never comes.
            return false;
        }
        state.leading = true;
        true
    }

    /// Takes the lead if no thread has it.
    pub fn try_alone(&self) -> Tried {
        let mut state = self.state.lock();
        if state.closed {
            return Tried::Closed;
        }
        if state.leading {
            return Tried::Led(state.passed);
        }
        state.leading = true;
        Tried::Leads
    }

    /// For a committer thread: waits until it has the lead (true), or until the queue is closed and no thread leads
    /// (false).
    pub fn next_turn(&self) -> bool {
        let mut state = self.state.lock();
        while !state.handed_over {
            if state.closed && !state.leading {
                return false;
            }
            state = self.work.wait(state);
        }
        state.handed_over = false;
        true
    }

    /// Closes the queue and waits until all queued jobs are done.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        self.work.notify_all();
        while state.leading {
            state = self.idle.wait(state);
        }
        self.work.notify_all();
    }
}

/// Of a caller that has queued something.
fn take_lead<J, R>(state: &mut LeadQueue<J>) -> Joined<R> {
    if state.leading {
        return Joined::Queued;
    }
    state.leading = true;
    Joined::Leads
}
