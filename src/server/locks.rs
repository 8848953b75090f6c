//! Locks on oids. All or nothing, so no deadlock. Fair: a waiter is passed only by those who share with it.
//!
//! A request queues up for all its keys in one step; it is granted once it stands in front in all of these queues,
//! or shares the front with others. A transaction that wants the whole storage (its tid is assigned at vote)
//! takes the *gate* exclusively; every other takes it shared, so both kinds mix in the order of arrival.

use std::collections::{HashMap, VecDeque};

use crate::base::ids::Oid;
use crate::base::sync::Mutex;

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
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    queues: HashMap<Key, VecDeque<(Owner, Mode)>>,
    requests: HashMap<Owner, Request>,
    waiting: usize,
}

#[derive(Debug)]
struct Request {
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
        let mut keys: Vec<(Key, Mode)> = Vec::with_capacity(1 + set.exclusive.len() + set.shared.len());
        if set.whole_storage {
            keys.push((Key::Gate, Mode::Exclusive));
        } else {
            keys.push((Key::Gate, Mode::Shared));
            let exclusive = set.exclusive.iter().map(|&oid| (Key::Object(oid), Mode::Exclusive));
            let shared = set.shared.iter().map(|&oid| (Key::Object(oid), Mode::Shared));
            keys.extend(exclusive.chain(shared));
        }
        self.table.lock().request(owner, &keys)
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

impl Table {
    fn request(&mut self, owner: Owner, keys: &[(Key, Mode)]) -> (Outcome, usize) {
        debug_assert!(!self.requests.contains_key(&owner), "one request per owner");
        let mut request = Request { keys: Vec::with_capacity(keys.len()), blocked: 0 };
        for &(key, mode) in keys {
            let queue = self.queues.entry(key).or_default();
            // An object both written and checked, or stored twice: the first (exclusive) entry stands.
            if matches!(key, Key::Object(_)) && queue.iter().any(|(other, _)| *other == owner) {
                continue;
            }
            queue.push_back((owner, mode));
            if front_len(queue) < queue.len() {
                request.blocked += 1;
            }
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
            let before = front_len(queue);
            let Some(at) = queue.iter().position(|(other, _)| *other == owner) else { continue };
            queue.remove(at);
            let was_in_front = before - usize::from(at < before);
            unblocked.extend(
                queue.range(was_in_front..front_len(queue).max(was_in_front)).map(|(other, _)| *other),
            );
            if queue.is_empty() {
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

/// How many requests share the front of a queue: one exclusive, or the leading shared ones.
fn front_len(queue: &VecDeque<(Owner, Mode)>) -> usize {
    match queue.front() {
        None => 0,
        Some((_, Mode::Exclusive)) => 1,
        Some((_, Mode::Shared)) => queue.iter().take_while(|(_, mode)| *mode == Mode::Shared).count(),
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
