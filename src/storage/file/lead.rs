//! Who commits the next group: the *lead*, which one thread has at a time.
//!
//! Whoever queues a job while nobody leads takes the lead, and the jobs that are queued then are its group. What is
//! queued meanwhile waits; when the leader is through, it hands the lead to whoever wants it alone (a pack), or else to
//! a committer thread if there are jobs, or to nobody.
//!
//! Invariants: one leader at a time; a queued job is led by somebody, unless the queue is closed before it gets in.
//! `tests/model/group.rs` checks every interleaving.

use crate::base::sync::{Condvar, Mutex, rank};

/// The queue of jobs, and who leads.
#[derive(Debug)]
pub struct Lead<J> {
    state: Mutex<State<J>, rank::Lead>,
    /// There is a group that a committer thread is to lead, or the queue is closed.
    work: Condvar,
    /// Nobody leads.
    idle: Condvar,
    /// The one who wants to lead alone may.
    turn: Condvar,
}

#[derive(Debug)]
struct State<J> {
    jobs: Vec<J>,
    leading: bool,
    /// The lead waits for a committer thread.
    handed_over: bool,
    /// Somebody waits to lead alone, and is next.
    wanted: bool,
    /// It is that one's turn.
    granted: bool,
    closed: bool,
}

/// What became of a job.
#[derive(Debug, Eq, PartialEq)]
pub enum Joined<J> {
    /// Some leader will take it.
    Queued,
    /// The caller has the lead now, and must [`Lead::pass_on`].
    Leads,
    /// The queue is closed.
    Refused(J),
}

impl<J> Default for Lead<J> {
    fn default() -> Lead<J> {
        Lead {
            state: Mutex::new(State {
                jobs: Vec::new(),
                leading: false,
                handed_over: false,
                wanted: false,
                granted: false,
                closed: false,
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
        if state.leading {
            return Joined::Queued;
        }
        state.leading = true;
        Joined::Leads
    }

    /// For the leader: the first `count(jobs)` of what is queued.
    pub fn take(&self, count: impl FnOnce(&[J]) -> usize) -> Vec<J> {
        let mut state = self.state.lock();
        let count = count(&state.jobs);
        let rest = state.jobs.split_off(count);
        std::mem::replace(&mut state.jobs, rest)
    }

    /// The leader is through: whose turn is it?
    pub fn pass_on(&self) {
        let mut state = self.state.lock();
        if state.wanted {
            state.wanted = false;
            state.granted = true;
            self.turn.notify_all();
        } else if state.jobs.is_empty() {
            state.leading = false;
            // A notice to nobody would be a system call in every lone commit.
            if state.closed {
                self.idle.notify_all();
            }
        } else {
            state.handed_over = true;
            self.work.notify_one();
        }
    }

    /// Waits for the lead, after the group at hand: no other group can pass. For one thread at a time. True: the
    /// caller has it, and must [`Lead::pass_on`]. False: the queue is closed.
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
            // Not even for a moment: a committer that was told of the close would see a leader, and wait for its
            // notice.
            return false;
        }
        state.leading = true;
        true
    }

    /// For a committer thread: waits until it has the lead (true), or nobody will need it again (false).
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

    /// Lets no more in and waits until all that are in are through.
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
