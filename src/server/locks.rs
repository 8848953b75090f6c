//! The table of locks on oids. All or nothing, so there is no deadlock. Fair: a request is passed only by requests
//! that share with it.
//!
//! A request queues up for all its keys in one step; it is granted once it stands in front in all of these queues,
//! or shares the front with others. A transaction that wants the whole storage (its tid is assigned at vote)
//! takes the *gate* exclusively; every other takes it shared, so both kinds mix in the order of arrival.

use std::collections::{HashMap, VecDeque};

use crate::base::ids::Oid;
use crate::base::sync::{Mutex, rank};

/// The locks that a transaction holds from vote until it ends.
#[derive(Clone, Debug, Default)]
pub struct LockSet {
    /// Objects that it writes.
    pub exclusive: Vec<Oid>,
    /// Objects that must not change: `checkCurrentSerialInTransaction`.
    pub shared: Vec<Oid>,
    /// No other transaction may be between vote and publishing.
    pub whole_storage: bool,
}

/// Identifies a request: the number of the connection.
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

/// The lock table of one storage. `W` is kept for each waiting request, and returned when the request is granted.
#[derive(Debug)]
pub struct Locks<W> {
    table: Mutex<Table<W>, rank::OidLocks>,
}

impl<W> Default for Locks<W> {
    fn default() -> Locks<W> {
        let table = Table { queues: HashMap::new(), requests: HashMap::new(), waiting: 0, number: 0 };
        Locks { table: Mutex::new(table) }
    }
}

#[derive(Debug)]
struct Table<W> {
    queues: HashMap<Key, Queue>,
    requests: HashMap<Owner, Request<W>>,
    waiting: usize,
    /// Requests so far: the number of the last one.
    number: u64,
}

/// The requests for one key: those that hold it, then those that wait.
#[derive(Debug, Default)]
struct Queue {
    /// In the order of the requests.
    entries: VecDeque<Claim>,
    /// Number of entries that hold the key: one exclusive one, or the leading shared ones.
    front_len: usize,
}

#[derive(Clone, Copy, Debug)]
struct Claim {
    /// Number of the request.
    number: u64,
    owner: Owner,
    mode: Mode,
}

#[derive(Debug)]
struct Request<W> {
    number: u64,
    keys: Vec<Key>,
    /// Number of queues in which it does not stand in front yet.
    blocked: usize,
    /// Set while the request waits.
    waiter: Option<W>,
}

/// The outcome of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    Granted,
    /// The request waits; some `release` will return its waiter.
    Queued,
}

/// The outcome of a release.
#[derive(Debug, Eq, PartialEq)]
pub struct Released<W> {
    /// The waiters of the requests that it has granted, in the order of the requests.
    pub granted: Vec<W>,
    /// Number of requests that still wait.
    pub waiting: usize,
    /// The released request had not been granted yet.
    pub had_waited: bool,
    pub existed: bool,
}

/// What a request has to wait for first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Behind {
    /// It holds the lock, or waits for it.
    pub owner: Owner,
    /// The object; `None`: the whole storage.
    pub oid: Option<Oid>,
}

/// A request as monitoring sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RequestSeen<T> {
    pub owner: Owner,
    /// Number of objects; 0 for the whole storage.
    pub objects: usize,
    /// What was made of the waiter, if the request waits.
    pub waiter: Option<T>,
    /// The owners of the requests that it waits for, as far as they were looked for.
    pub behind: Vec<Owner>,
}

/// Keys that are looked at in all, to find what requests wait for: commits wait for the table.
const LOOKS_MAX: usize = 10_000;

impl<W> Locks<W> {
    /// All requests in their order, granted or not. `of_waiter` is called with the table locked.
    pub fn seen<T>(&self, of_waiter: impl Fn(&W) -> T) -> Vec<RequestSeen<T>> {
        let table = self.table.lock();
        let mut requests: Vec<_> = table.requests.iter().collect();
        requests.sort_unstable_by_key(|(_, request)| request.number);
        let mut looks = LOOKS_MAX;
        let seen = |(owner, request): (&Owner, &Request<W>)| RequestSeen {
            owner: *owner,
            // All keys but the gate.
            objects: request.keys.len().saturating_sub(1),
            waiter: request.waiter.as_ref().map(&of_waiter),
            behind: table.behind(request, &mut looks),
        };
        requests.into_iter().map(seen).collect()
    }

    /// Asks for all of `set` at once. One request per owner. Also returns the number of requests that wait now.
    /// `waiter` is called only if this one does, with the table locked.
    pub fn request(&self, owner: Owner, set: &LockSet, waiter: impl FnOnce() -> W) -> (Outcome, usize) {
        self.table.lock().request(owner, &keys_of(set), waiter)
    }

    /// Releases a request, granted or not.
    pub fn release(&self, owner: Owner) -> Released<W> {
        self.table.lock().release(owner)
    }

    /// What the request of this owner has to wait for first; `None`: it is granted.
    pub fn behind(&self, owner: Owner) -> Option<Behind> {
        self.table.lock().first_behind(owner)
    }

    /// Whether this owner's request is granted.
    pub fn is_granted(&self, owner: Owner) -> bool {
        self.table.lock().requests.get(&owner).is_some_and(|request| request.blocked == 0)
    }

    /// Number of requests that wait.
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
    /// Adds a request. True: it stands in front.
    fn push(&mut self, entry: Claim) -> bool {
        let all_in_front = self.front_len == self.entries.len();
        let shares =
            self.entries.front().is_none_or(|first| first.mode == Mode::Shared && entry.mode == Mode::Shared);
        self.entries.push_back(entry);
        let in_front = all_in_front && shares;
        self.front_len += usize::from(in_front);
        in_front
    }

    /// Removes a request; calls `unblocked` for each that stands in front now and did not before.
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

impl<W> Table<W> {
    /// The owners that hold what a request waits for. `looks`: how many keys may still be looked at.
    fn behind(&self, request: &Request<W>, looks: &mut usize) -> Vec<Owner> {
        let mut behind = Vec::new();
        if request.blocked == 0 {
            return behind;
        }
        for key in &request.keys {
            let Some(left) = looks.checked_sub(1) else { break };
            *looks = left;
            let Some(queue) = self.queues.get(key) else { continue };
            // In front, it waits for no other.
            let place = queue.entries.binary_search_by_key(&request.number, |claim| claim.number);
            if place.is_ok_and(|place| place < queue.front_len) {
                continue;
            }
            for claim in queue.entries.iter().take(queue.front_len.min(*looks)) {
                *looks -= 1;
                if !behind.contains(&claim.owner) {
                    behind.push(claim.owner);
                }
            }
        }
        behind
    }

    fn first_behind(&self, owner: Owner) -> Option<Behind> {
        let request = self.requests.get(&owner).filter(|request| request.blocked > 0)?;
        request.keys.iter().find_map(|key| {
            let queue = self.queues.get(key)?;
            let place = queue.entries.binary_search_by_key(&request.number, |claim| claim.number).ok()?;
            let first = queue.entries.front().filter(|_| place >= queue.front_len)?;
            let oid = match key {
                Key::Gate => None,
                Key::Object(oid) => Some(*oid),
            };
            Some(Behind { owner: first.owner, oid })
        })
    }

    fn request(
        &mut self,
        owner: Owner,
        keys: &[(Key, Mode)],
        waiter: impl FnOnce() -> W,
    ) -> (Outcome, usize) {
        debug_assert!(!self.requests.contains_key(&owner), "one request per owner");
        self.number += 1;
        let number = self.number;
        let mut request = Request { number, keys: Vec::with_capacity(keys.len()), blocked: 0, waiter: None };
        for &(key, mode) in keys {
            let in_front = self.queues.entry(key).or_default().push(Claim { number, owner, mode });
            request.blocked += usize::from(!in_front);
            request.keys.push(key);
        }
        let outcome = if request.blocked == 0 { Outcome::Granted } else { Outcome::Queued };
        if outcome == Outcome::Queued {
            self.waiting += 1;
            request.waiter = Some(waiter());
        }
        self.requests.insert(owner, request);
        (outcome, self.waiting)
    }

    fn release(&mut self, owner: Owner) -> Released<W> {
        let Some(request) = self.requests.remove(&owner) else {
            let (granted, waiting) = (Vec::new(), self.waiting);
            return Released { granted, waiting, had_waited: false, existed: false };
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
            let Some(request) = self.requests.get_mut(&other) else { continue };
            request.blocked -= 1;
            if request.blocked == 0 {
                self.waiting -= 1;
                granted.extend(request.waiter.take());
            }
        }
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

    /// Requests with the owner as the waiter.
    fn request(locks: &Locks<Owner>, owner: Owner, set: &LockSet) -> (Outcome, usize) {
        locks.request(owner, set, || owner)
    }

    #[test]
    fn disjoint_writers_do_not_meet() {
        let locks = Locks::default();
        assert_eq!(request(&locks, 1, &writes(&[1, 2])).0, Outcome::Granted);
        assert_eq!(request(&locks, 2, &writes(&[3])).0, Outcome::Granted);
        assert_eq!(request(&locks, 3, &writes(&[2, 3])), (Outcome::Queued, 1));
        assert!(locks.release(1).granted.is_empty());
        assert_eq!(locks.release(2).granted, [3]);
    }

    #[test]
    fn readers_share_and_do_not_pass_a_writer() {
        let locks = Locks::default();
        assert_eq!(request(&locks, 1, &reads(&[1])).0, Outcome::Granted);
        assert_eq!(request(&locks, 2, &reads(&[1])).0, Outcome::Granted);
        assert_eq!(request(&locks, 3, &writes(&[1])).0, Outcome::Queued);
        assert_eq!(request(&locks, 4, &reads(&[1])).0, Outcome::Queued);
        assert!(locks.release(1).granted.is_empty());
        assert_eq!(locks.release(2).granted, [3]);
        assert_eq!(locks.release(3).granted, [4]);
    }

    #[test]
    fn the_whole_storage_waits_for_all_and_holds_up_all() {
        let locks = Locks::default();
        assert_eq!(request(&locks, 1, &writes(&[1])).0, Outcome::Granted);
        assert_eq!(request(&locks, 2, &WHOLE).0, Outcome::Queued);
        assert_eq!(request(&locks, 3, &writes(&[3])), (Outcome::Queued, 2));
        assert_eq!(locks.release(1).granted, [2]);
        assert_eq!(locks.release(2).granted, [3]);
    }

    #[test]
    fn a_waiter_that_gives_up_lets_those_behind_it_pass() {
        let locks = Locks::default();
        request(&locks, 1, &writes(&[1]));
        request(&locks, 2, &writes(&[1, 2]));
        assert_eq!(request(&locks, 3, &writes(&[2])).0, Outcome::Queued);
        let released = locks.release(2);
        assert!(released.had_waited);
        assert_eq!((released.granted, released.waiting), (vec![3], 0));
    }

    #[test]
    fn what_a_request_waits_for_is_seen() {
        let locks = Locks::default();
        request(&locks, 1, &reads(&[1, 2]));
        request(&locks, 2, &reads(&[1]));
        request(&locks, 3, &writes(&[1, 3]));
        request(&locks, 4, &WHOLE);
        request(&locks, 5, &reads(&[9]));
        let seen = locks.seen(|owner| owner * 10);
        let expected = [(1, 2, None), (2, 1, None), (3, 2, Some(30)), (4, 0, Some(40)), (5, 1, Some(50))];
        let found: Vec<_> = seen.iter().map(|seen| (seen.owner, seen.objects, seen.waiter)).collect();
        assert_eq!(found, expected);
        let behind: Vec<&[Owner]> = seen.iter().map(|seen| seen.behind.as_slice()).collect();
        // The whole storage waits for the third one, too, which shares the gate with the holders.
        let expected: [&[Owner]; 5] = [&[], &[], &[1, 2], &[1, 2, 3], &[1, 2, 3]];
        assert_eq!(behind, expected);
    }

    #[test]
    fn an_object_written_and_checked_is_locked_once() {
        let locks = Locks::default();
        let set = LockSet { exclusive: vec![Oid(1), Oid(1)], shared: vec![Oid(1)], whole_storage: false };
        assert_eq!(request(&locks, 1, &set).0, Outcome::Granted);
        assert_eq!(request(&locks, 2, &reads(&[1])).0, Outcome::Queued);
        assert_eq!(locks.release(1).granted, [2]);
        assert!(locks.release(2).granted.is_empty());
        assert!(locks.table.lock().queues.is_empty());
    }

    proptest! {
        /// Holders never conflict; no request overtakes a conflicting earlier one (so none starves); and every request
        /// is granted in the end.
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
                    if request(&locks, owner, &set).0 == Outcome::Granted {
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
                        // Both if the first holds and if it waits.
                        prop_assert!(!(holds.contains(later) && conflict(a, later)), "{later} passed {a}");
                    }
                }
                // The oldest request of all always holds.
                prop_assert!(order.first().is_none_or(|first| holds.contains(first)));
            }
        }
    }
}
