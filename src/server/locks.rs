//! Locks on oids. All or nothing, so no deadlock. Fair: a waiter is passed only by those who share with it.
//!
//! A request queues up for all its keys in one step; it is granted once it stands in front in all of these queues,
//! or shares the front with others. A transaction that wants the whole storage (its tid is assigned at vote)
//! takes the *gate* exclusively; every other takes it shared, so both kinds mix in the order of arrival.

use std::collections::{HashMap, VecDeque};

use crate::base::ids::Oid;
use crate::base::sync::{Mutex, rank};

/// What a transaction needs to hold from vote until it ends.
#[derive(Clone, Debug, Default)]
pub struct LockSet {
    /// Objects that it writes.
    pub exclusive: Vec<Oid>,
    /// Objects that must not change: `checkCurrentSerialInTransaction`.
    pub shared: Vec<Oid>,
    /// Nobody else may be between vote and publishing.
    pub whole_storage: bool,
}

/// Names a request; the number of the connection.
pub type Owner = u64;

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Key {
    Gate,
    Object(Oid),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mode {
    Shared,
    Exclusive,
}

/// The lock table of one storage.
#[derive(Debug, Default)]
pub struct Locks {
    table: Mutex<Table, rank::OidLocks>,
}

#[derive(Debug, Default)]
struct Table {
    queues: HashMap<Key, Queue>,
    requests: HashMap<Owner, Request>,
    waiting: usize,
    /// Requests so far: the number of the last one.
    number: u64,
}

/// Who holds one key, and who waits for it.
#[derive(Debug, Default)]
struct Queue {
    /// In the order of the requests.
    entries: VecDeque<Entry>,
    /// How many share the front: one exclusive, or the leading shared ones.
    front_len: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Of the request.
    number: u64,
    owner: Owner,
    mode: Mode,
}

#[derive(Debug)]
struct Request {
    number: u64,
    keys: Vec<Key>,
    /// In how many queues it does not stand in front yet.
    blocked: usize,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    Granted,
    /// The request waits; some `release` will name its owner.
    Queued,
}

/// Who may go on, and how many still wait.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Released {
    /// In the order of their requests.
    pub granted: Vec<Owner>,
    pub waiting: usize,
    /// The released request had not been granted yet.
    pub had_waited: bool,
    pub existed: bool,
}

impl Locks {
    /// Ask for all of `set` at once. One request per owner. Also returns how many requests wait now.
    pub fn request(&self, owner: Owner, set: &LockSet) -> (Outcome, usize) {
        self.table.lock().request(owner, &keys_of(set))
    }

    /// Give up a request, granted or not.
    pub fn release(&self, owner: Owner) -> Released {
        self.table.lock().release(owner)
    }

    /// Has this owner what it asked for?
    pub fn is_granted(&self, owner: Owner) -> bool {
        self.table.lock().requests.get(&owner).is_some_and(|request| request.blocked == 0)
    }

    /// How many requests wait.
    pub fn waiting(&self) -> usize {
        self.table.lock().waiting
    }
}

/// Each key once: an object that is both written and checked is locked exclusively.
fn keys_of(set: &LockSet) -> Vec<(Key, Mode)> {
    if set.whole_storage {
        return vec![(Key::Gate, Mode::Exclusive)];
    }
    let each_once = |oids: &[Oid]| {
        let mut oids = oids.to_vec();
        oids.sort_unstable();
        oids.dedup();
        oids
    };
    let exclusive = each_once(&set.exclusive);
    let shared = each_once(&set.shared).into_iter().filter(|oid| exclusive.binary_search(oid).is_err());
    let mut keys = Vec::with_capacity(1 + exclusive.len() + set.shared.len());
    keys.push((Key::Gate, Mode::Shared));
    keys.extend(shared.map(|oid| (Key::Object(oid), Mode::Shared)));
    keys.extend(exclusive.iter().map(|&oid| (Key::Object(oid), Mode::Exclusive)));
    keys
}

impl Queue {
    /// A new request; whether it stands in front.
    fn push(&mut self, entry: Entry) -> bool {
        let all_in_front = self.front_len == self.entries.len();
        let shares =
            self.entries.front().is_none_or(|first| first.mode == Mode::Shared && entry.mode == Mode::Shared);
        self.entries.push_back(entry);
        let in_front = all_in_front && shares;
        self.front_len += usize::from(in_front);
        in_front
    }

    /// A request is given up; calls `unblocked` for each that stands in front now and did not before.
    fn remove(&mut self, number: u64, mut unblocked: impl FnMut(Owner)) {
        let Ok(at) = self.entries.binary_search_by_key(&number, |entry| entry.number) else { return };
        self.entries.remove(at);
        self.front_len -= usize::from(at < self.front_len);
        while let Some(next) = self.entries.get(self.front_len) {
            let first = self.entries.front().filter(|_| self.front_len > 0);
            if first.is_some_and(|first| first.mode == Mode::Exclusive || next.mode == Mode::Exclusive) {
                return;
            }
            unblocked(next.owner);
            self.front_len += 1;
        }
    }
}

impl Table {
    fn request(&mut self, owner: Owner, keys: &[(Key, Mode)]) -> (Outcome, usize) {
        debug_assert!(!self.requests.contains_key(&owner), "one request per owner");
        self.number += 1;
        let number = self.number;
        let mut request = Request { number, keys: Vec::with_capacity(keys.len()), blocked: 0 };
        for &(key, mode) in keys {
            let in_front = self.queues.entry(key).or_default().push(Entry { number, owner, mode });
            request.blocked += usize::from(!in_front);
            request.keys.push(key);
        }
        let outcome = if request.blocked == 0 { Outcome::Granted } else { Outcome::Queued };
        self.waiting += usize::from(outcome == Outcome::Queued);
        self.requests.insert(owner, request);
        (outcome, self.waiting)
    }

    fn release(&mut self, owner: Owner) -> Released {
        let Some(request) = self.requests.remove(&owner) else {
            return Released { waiting: self.waiting, ..Released::default() };
        };
        let had_waited = request.blocked > 0;
        self.waiting -= usize::from(had_waited);
        let mut unblocked = Vec::new();
        for key in request.keys {
            let Some(queue) = self.queues.get_mut(&key) else { continue };
            queue.remove(request.number, |other| unblocked.push(other));
            if queue.entries.is_empty() {
                self.queues.remove(&key);
            }
        }
        let mut granted = Vec::new();
        for other in unblocked {
            if let Some(request) = self.requests.get_mut(&other) {
                request.blocked -= 1;
                if request.blocked == 0 {
                    granted.push(other);
                }
            }
        }
        self.waiting -= granted.len();
        Released { granted, waiting: self.waiting, had_waited, existed: true }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn writes(oids: &[u64]) -> LockSet {
        LockSet { exclusive: oids.iter().map(|&oid| Oid(oid)).collect(), ..LockSet::default() }
    }

    fn reads(oids: &[u64]) -> LockSet {
        LockSet { shared: oids.iter().map(|&oid| Oid(oid)).collect(), ..LockSet::default() }
    }

    const WHOLE: LockSet = LockSet { exclusive: vec![], shared: vec![], whole_storage: true };

    #[test]
    fn disjoint_writers_do_not_meet() {
        let locks = Locks::default();
        assert_eq!(locks.request(1, &writes(&[1, 2])).0, Outcome::Granted);
        assert_eq!(locks.request(2, &writes(&[3])).0, Outcome::Granted);
        assert_eq!(locks.request(3, &writes(&[2, 3])), (Outcome::Queued, 1));
        assert!(locks.release(1).granted.is_empty());
        assert_eq!(locks.release(2).granted, [3]);
    }

    #[test]
    fn readers_share_and_do_not_pass_a_writer() {
        let locks = Locks::default();
        assert_eq!(locks.request(1, &reads(&[1])).0, Outcome::Granted);
        assert_eq!(locks.request(2, &reads(&[1])).0, Outcome::Granted);
        assert_eq!(locks.request(3, &writes(&[1])).0, Outcome::Queued);
        assert_eq!(locks.request(4, &reads(&[1])).0, Outcome::Queued);
        assert!(locks.release(1).granted.is_empty());
        assert_eq!(locks.release(2).granted, [3]);
        assert_eq!(locks.release(3).granted, [4]);
    }

    #[test]
    fn the_whole_storage_waits_for_all_and_holds_up_all() {
        let locks = Locks::default();
        assert_eq!(locks.request(1, &writes(&[1])).0, Outcome::Granted);
        assert_eq!(locks.request(2, &WHOLE).0, Outcome::Queued);
        assert_eq!(locks.request(3, &writes(&[3])), (Outcome::Queued, 2));
        assert_eq!(locks.release(1).granted, [2]);
        assert_eq!(locks.release(2).granted, [3]);
    }

    #[test]
    fn a_waiter_that_gives_up_lets_those_behind_it_pass() {
        let locks = Locks::default();
        locks.request(1, &writes(&[1]));
        locks.request(2, &writes(&[1, 2]));
        assert_eq!(locks.request(3, &writes(&[2])).0, Outcome::Queued);
        let released = locks.release(2);
        assert!(released.had_waited);
        assert_eq!((released.granted, released.waiting), (vec![3], 0));
    }

    #[test]
    fn an_object_written_and_checked_is_locked_once() {
        let locks = Locks::default();
        let set = LockSet { exclusive: vec![Oid(1), Oid(1)], shared: vec![Oid(1)], whole_storage: false };
        assert_eq!(locks.request(1, &set).0, Outcome::Granted);
        assert_eq!(locks.request(2, &reads(&[1])).0, Outcome::Queued);
        assert_eq!(locks.release(1).granted, [2]);
        assert!(locks.release(2).granted.is_empty());
        assert!(locks.table.lock().queues.is_empty());
    }

    proptest! {
        /// Holders never conflict; nobody holds who came after a waiter that it conflicts with (so none starves); and
        /// everybody is granted in the end.
        #[test]
        fn holders_never_conflict(steps in prop::collection::vec((0u64..6, 0u8..4, prop::collection::vec(0u64..4, 0..3)), 1..80)) {
            let locks = Locks::default();
            let mut sets: HashMap<Owner, LockSet> = HashMap::new();
            let mut holds: HashSet<Owner> = HashSet::new();
            let mut order: Vec<Owner> = Vec::new();
            for (owner, kind, oids) in steps {
                if sets.remove(&owner).is_some() {
                    holds.remove(&owner);
                    order.retain(|o| *o != owner);
                    holds.extend(locks.release(owner).granted);
                } else {
                    let set = match kind { 0 => WHOLE, 1 => reads(&oids), _ => writes(&oids) };
                    if locks.request(owner, &set).0 == Outcome::Granted {
                        holds.insert(owner);
                    }
                    order.push(owner);
                    sets.insert(owner, set);
                }
                let conflict = |a: &Owner, b: &Owner| {
                    let (x, y) = (&sets[a], &sets[b]);
                    let meets = |x: &LockSet, y: &LockSet| {
                        x.whole_storage || x.exclusive.iter().any(|o| y.exclusive.contains(o) || y.shared.contains(o))
                    };
                    meets(x, y) || meets(y, x)
                };
                for (at, a) in order.iter().enumerate() {
                    for later in order.iter().skip(at + 1) {
                        // Whether the first holds or waits.
                        prop_assert!(!(holds.contains(later) && conflict(a, later)), "{later} passed {a}");
                    }
                }
                // The oldest request of all always holds.
                prop_assert!(order.first().is_none_or(|first| holds.contains(first)));
            }
        }
    }
}
