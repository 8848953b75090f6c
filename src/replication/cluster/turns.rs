//! Two threads that take turns: one receives, one stores, and which of them does what changes.
//!
//! A thread that has received a group while none stores stores it itself, and leaves the receiving to the other one: so
//! a commit that waits for this replica waits for no change of threads. What is received while the other one stores is
//! queued for it.
//!
//! Invariants: one thread receives at a time, and one stores; groups are stored in the order in which they were
//! received, and each of them, unless storing has failed. `tests/model/turns.rs` checks every interleaving.

use std::collections::VecDeque;

use crate::base::sync::{Condvar, Mutex, rank};

/// Who receives, who stores, and what was received and not stored yet. `R` is what the receiving thread has, `S` what
/// the storing thread has, `G` a group.
pub struct Turns<R, S, G> {
    state: Mutex<TurnsState<R, S, G>, rank::ClusterTurns>,
    /// For the thread that waits for its turn, or for room.
    changed: Condvar,
    /// Groups that may be queued.
    room: usize,
}

struct TurnsState<R, S, G> {
    /// `None`: a thread receives.
    receiver: Option<R>,
    /// `None`: a thread stores, or storing has failed.
    storer: Option<S>,
    groups: VecDeque<G>,
    /// Nothing more is received.
    is_over: bool,
}

impl<R, S, G> Turns<R, S, G> {
    pub fn new(receiver: R, storer: S, room: usize) -> Turns<R, S, G> {
        let (receiver, storer) = (Some(receiver), Some(storer));
        let state = Mutex::new(TurnsState { receiver, storer, groups: VecDeque::new(), is_over: false });
        Turns { state, changed: Condvar::new(), room }
    }

    /// Waits until no other thread receives. `None`: nothing more is to be received.
    pub fn wait_for_receiver(&self) -> Option<R> {
        let mut state = self.state.lock();
        loop {
            if state.is_over {
                return None;
            }
            if let Some(receiver) = state.receiver.take() {
                return Some(receiver);
            }
            state = self.changed.wait(state);
        }
    }

    /// Queues a group, as soon as there is room. `Some`: no other thread stores, so the caller is to do it, when it has
    /// put the receiver down.
    pub fn add(&self, group: G) -> Option<S> {
        let mut state = self.state.lock();
        // Without room there is a thread that stores.
        while state.groups.len() >= self.room && !state.is_over {
            state = self.changed.wait(state);
        }
        state.groups.push_back(group);
        state.storer.take()
    }

    /// The other thread may receive.
    pub fn put_receiver_down(&self, receiver: R) {
        self.state.lock().receiver = Some(receiver);
        self.changed.notify_all();
    }

    /// For the thread that stores: the next group, or the end of its turn.
    pub fn next_group(&self, storer: S) -> Option<(S, G)> {
        let mut state = self.state.lock();
        let Some(group) = state.groups.pop_front() else {
            state.storer = Some(storer);
            return None;
        };
        self.has_taken(state.groups.len());
        Some((storer, group))
    }

    /// For the thread that stores: the next group, if it is there and `is_wanted`.
    pub fn next_group_if(&self, is_wanted: impl FnOnce(&G) -> bool) -> Option<G> {
        let mut state = self.state.lock();
        if !state.groups.front().is_some_and(is_wanted) {
            return None;
        }
        let group = state.groups.pop_front();
        self.has_taken(state.groups.len());
        group
    }

    /// One group was taken, `left` are queued.
    fn has_taken(&self, left: usize) {
        if left + 1 == self.room {
            self.changed.notify_all();
        }
    }

    /// Nothing more is received. What is queued will be stored, if storing has not failed.
    pub fn end(&self) {
        self.state.lock().is_over = true;
        self.changed.notify_all();
    }
}
