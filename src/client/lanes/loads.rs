//! Lanes for loads. One link is used by one thread at a time best: the thread that waits for an answer reads it, and
//! none is woken. So a load that finds the main link busy takes a free lane.
//!
//! It never waits for one, leaves them to transactions that wait, and does not open one for a short rush: lanes are
//! opened while loads find none again and again.
//!
//! Which link answers a load makes no difference for the cache (see [`timeline`](crate::client::timeline)): the servers
//! that have lanes make a transaction visible to all loads before they tell any client of it.

use super::{HeldLane, Lanes, Seat, Sibling};
use crate::base::sync::Arc;
use crate::client::awaited::LinkId;
use crate::client::link::Link;

/// One more lane is opened after this many loads have found none, between two calls of [`Lanes::close_unused`].
const CROWD: u32 = 100;

impl Lanes {
    /// A lane for one load beside the main link, if one is free.
    pub fn take_for_load(self: &Arc<Self>, main: LinkId, sibling: &Arc<Sibling>) -> Option<HeldLane> {
        let mut state = self.state.lock();
        if main <= state.lost || main < state.main {
            return None;
        }
        if main > state.main {
            let links = state.renew(main);
            drop(state);
            links.iter().for_each(Link::close);
            return None;
        }
        // A transaction that wakes up would find that loads have taken the free lanes, again and again.
        if state.waiting > 0 {
            return None;
        }
        if let Some(lane) = state.take_idle() {
            return Some(HeldLane { lanes: Arc::clone(self), seat: Seat::Lane, main, lane });
        }
        state.crowd += 1;
        if state.crowd >= CROWD && state.opening == 0 && state.has_room() {
            state.crowd = 0;
            self.open(&mut state, main, sibling, Seat::Lane);
        }
        None
    }
}
