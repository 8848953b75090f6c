//! Loads that are under way to the server. Callers that want the same revision share one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::timeline::LinkId;
use crate::base::ids::{Oid, Tid};
use crate::base::sync::{Arc, Condvar, Mutex, rank};
use crate::wire::exception::PyException;

/// A revision of an object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Revision {
    /// The record.
    pub data: Arc<[u8]>,
    /// The transaction that stored it.
    pub serial: Tid,
    /// The transaction that stored the next revision; `None`: it was current when it was loaded.
    pub end: Option<Tid>,
}

/// How a load ended.
#[derive(Clone, Debug)]
pub enum Landed {
    /// `None`: the object exists, but was created later.
    Found(Option<Revision>),
    /// There is no such object.
    NoSuchObject,
    /// The server raised another exception.
    Raised(Arc<PyException>),
    /// The link ended, or does not count any more.
    LinkEnded,
}

/// One load.
#[derive(Debug)]
pub struct Flight {
    /// The link that it was sent on.
    link: LinkId,
    /// The last transaction that views saw when it was sent.
    last: Tid,
    state: Mutex<FlightState, rank::Flight>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct FlightState {
    landed: Option<Landed>,
    /// A thread waits: most flights land before any does.
    is_awaited: bool,
}

/// The loads of one client.
#[derive(Default)]
pub struct Flights(Mutex<HashMap<(Oid, Tid), Arc<Flight>>, rank::Flights>);

impl Flights {
    /// The load of `oid` before `before`: one that is under way, or a new one that the caller sends (`true`). `last`:
    /// the last transaction that views see.
    pub fn join(&self, link: LinkId, oid: Oid, before: Tid, last: Tid) -> (Arc<Flight>, bool) {
        let new = || Arc::new(Flight { link, last, state: Mutex::default(), changed: Condvar::new() });
        match self.0.lock().entry((oid, before)) {
            // An answer about the past does not depend on the moment; one about the newest state does.
            Entry::Occupied(entry)
                if entry.get().link == link
                    && (before <= Tid(entry.get().last.0 + 1) || entry.get().last == last) =>
            {
                (Arc::clone(entry.get()), false)
            }
            Entry::Occupied(mut entry) => {
                entry.insert(new());
                (Arc::clone(entry.get()), true)
            }
            Entry::Vacant(entry) => (Arc::clone(entry.insert(new())), true),
        }
    }

    /// The load has ended: wakes all that wait for it.
    pub fn land(&self, oid: Oid, before: Tid, flight: &Arc<Flight>, landed: Landed) {
        if let Entry::Occupied(entry) = self.0.lock().entry((oid, before))
            && Arc::ptr_eq(entry.get(), flight)
        {
            entry.remove();
        }
        let mut state = flight.state.lock();
        state.landed = Some(landed);
        let is_awaited = state.is_awaited;
        drop(state);
        if is_awaited {
            flight.changed.notify_all();
        }
    }
}

impl Flight {
    /// Waits for the end, which comes at the latest when the link ends.
    pub fn wait(&self) -> Landed {
        let mut state = self.state.lock();
        loop {
            match &state.landed {
                Some(landed) => return landed.clone(),
                None => {
                    state.is_awaited = true;
                    state = self.changed.wait(state);
                }
            }
        }
    }

    #[cfg(test)]
    fn has_landed(&self) -> bool {
        self.state.lock().landed.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(serial: u64) -> Landed {
        Landed::Found(Some(Revision { data: Arc::from(&b"x"[..]), serial: Tid(serial), end: None }))
    }

    #[test]
    fn the_same_load_is_sent_once() {
        let flights = Flights::default();
        let (first, is_new) = flights.join(1, Oid(1), Tid(11), Tid(10));
        assert!(is_new);
        let (second, is_new) = flights.join(1, Oid(1), Tid(11), Tid(20));
        assert!(!is_new && Arc::ptr_eq(&first, &second), "what was before 11 does not change");
        assert!(flights.join(1, Oid(1), Tid(12), Tid(20)).1);
        assert!(flights.join(1, Oid(2), Tid(11), Tid(20)).1);
        assert!(!first.has_landed());
        flights.land(Oid(1), Tid(11), &first, revision(5));
        assert!(matches!(second.wait(), Landed::Found(Some(Revision { serial: Tid(5), .. }))));
        assert!(flights.join(1, Oid(1), Tid(11), Tid(20)).1, "it has landed");
    }

    /// A view that knows of transaction 20 must not get an answer that was computed before it.
    #[test]
    fn a_load_of_the_newest_state_is_shared_until_something_arrives() {
        let flights = Flights::default();
        let (first, _) = flights.join(1, Oid(1), Tid::MAX, Tid(10));
        assert!(!flights.join(1, Oid(1), Tid::MAX, Tid(10)).1);
        let (later, is_new) = flights.join(1, Oid(1), Tid::MAX, Tid(20));
        assert!(is_new);
        flights.land(Oid(1), Tid::MAX, &first, revision(5));
        assert!(!later.has_landed());
        assert!(!flights.join(1, Oid(1), Tid::MAX, Tid(20)).1, "the later one is still under way");
    }

    #[test]
    fn a_load_on_a_lost_link_is_not_shared() {
        let flights = Flights::default();
        let (_first, _) = flights.join(1, Oid(1), Tid(11), Tid(10));
        assert!(flights.join(2, Oid(1), Tid(11), Tid(10)).1);
    }
}
