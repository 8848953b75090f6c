//! The table of locks under the model checker: every interleaving of requests, waits, cancellations and releases.
//!
//! Run by `scripts/model`, which builds with `--cfg loom`; without that flag there is nothing here. A lost wake-up is a
//! deadlock of the model, which loom reports. Properties of any sequence of calls, such as fairness, are tested beside
//! the code (`src/server/locks.rs`).

use loom::thread;
use runzeo::ids::Oid;
use runzeo::internal::base::sync::{Arc, AtomicUsize, Condvar, Ordering};
use runzeo::internal::server::locks::{LockSet, Locks, Outcome, Owner};

use crate::Mutex;

fn writes(oids: &[u64]) -> LockSet {
    LockSet { exclusive: oids.iter().map(|&oid| Oid(oid)).collect(), ..LockSet::default() }
}

fn checks(oids: &[u64]) -> LockSet {
    LockSet { shared: oids.iter().map(|&oid| Oid(oid)).collect(), ..LockSet::default() }
}

const WHOLE: LockSet = LockSet { exclusive: Vec::new(), shared: Vec::new(), whole_storage: true };

/// A storage of two objects; each transaction uses some of them.
struct Model {
    locks: Locks<Owner>,
    /// Current users of each object: a writer counts 1, a reader 100.
    inside: [AtomicUsize; 2],
    /// The owners that were woken.
    woken: Mutex<Vec<Owner>>,
    wake: Condvar,
    done: AtomicUsize,
}

impl Model {
    fn new() -> Arc<Model> {
        Arc::new(Model {
            locks: Locks::default(),
            inside: [AtomicUsize::new(0), AtomicUsize::new(0)],
            woken: Mutex::new(Vec::new()),
            wake: Condvar::new(),
            done: AtomicUsize::new(0),
        })
    }

    /// As in the server: vote at once, or when a release returns the owner.
    fn transaction(&self, owner: Owner, set: &LockSet) {
        if self.locks.request(owner, set, || owner).0 == Outcome::Queued {
            self.wait(owner);
        }
        assert!(self.locks.is_granted(owner));
        self.work(set);
        self.release(owner);
    }

    fn wait(&self, owner: Owner) {
        let mut woken = self.woken.lock();
        while !woken.contains(&owner) {
            woken = self.wake.wait(woken);
        }
        woken.retain(|other| *other != owner);
        assert!(!woken.contains(&owner), "woken twice");
    }

    fn release(&self, owner: Owner) {
        let released = self.locks.release(owner);
        assert!(released.existed);
        let mut woken = self.woken.lock();
        woken.extend(released.granted);
        self.wake.notify_all();
    }

    /// Checks that writers exclude all others.
    fn work(&self, set: &LockSet) {
        let all = [Oid(0), Oid(1)];
        let exclusive = if set.whole_storage { &all[..] } else { &set.exclusive[..] };
        for oid in exclusive {
            assert_eq!(self.inside[oid.0 as usize].fetch_add(1, Ordering::SeqCst), 0, "two in one place");
        }
        for oid in &set.shared {
            let others = self.inside[oid.0 as usize].fetch_add(100, Ordering::SeqCst);
            assert_eq!(others % 100, 0, "a reader beside a writer");
        }
        for oid in exclusive {
            self.inside[oid.0 as usize].fetch_sub(1, Ordering::SeqCst);
        }
        for oid in &set.shared {
            self.inside[oid.0 as usize].fetch_sub(100, Ordering::SeqCst);
        }
        self.done.fetch_add(1, Ordering::SeqCst);
    }

    fn check_end(&self, done: usize) {
        assert_eq!(self.done.load(Ordering::SeqCst), done);
        assert_eq!(self.locks.waiting(), 0);
        assert_eq!(self.locks.request(99, &WHOLE, || 99).0, Outcome::Granted, "something stayed locked");
    }
}

/// Runs these transactions in parallel, in every interleaving.
fn side_by_side(sets: impl Fn() -> Vec<LockSet> + Send + Sync + 'static) {
    loom::model(move || {
        let model = Model::new();
        let sets = sets();
        let count = sets.len();
        let threads: Vec<_> = sets
            .into_iter()
            .enumerate()
            .map(|(owner, set)| {
                let model = Arc::clone(&model);
                thread::spawn(move || model.transaction(owner as Owner, &set))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        model.check_end(count);
    });
}

#[test]
fn writers_that_meet_in_a_circle() {
    side_by_side(|| vec![writes(&[0, 1]), writes(&[1, 0]), writes(&[1])]);
}

#[test]
fn writers_and_readers() {
    side_by_side(|| vec![writes(&[0]), checks(&[0, 1]), checks(&[0])]);
}

#[test]
fn old_clients_between_new_ones() {
    side_by_side(|| vec![writes(&[0]), WHOLE, checks(&[1])]);
}

#[test]
fn two_old_clients_and_a_new_one() {
    side_by_side(|| vec![WHOLE, writes(&[0, 1]), WHOLE]);
}

/// A waiting client leaves while the one before it finishes: one of both must wake the next.
#[test]
fn a_waiter_gives_up_while_it_is_granted() {
    for given_up in [writes(&[0, 1]), WHOLE] {
        loom::model(move || {
            let model = Model::new();
            assert_eq!(model.locks.request(1, &writes(&[0]), || 1).0, Outcome::Granted);
            assert_eq!(model.locks.request(2, &given_up, || 2).0, Outcome::Queued);
            assert_eq!(model.locks.request(3, &writes(&[0]), || 3).0, Outcome::Queued);
            let finishing = {
                let model = Arc::clone(&model);
                thread::spawn(move || model.release(1))
            };
            let leaving = {
                let model = Arc::clone(&model);
                thread::spawn(move || model.release(2))
            };
            model.wait(3);
            model.work(&writes(&[0]));
            model.release(3);
            finishing.join().unwrap();
            leaving.join().unwrap();
            model.check_end(1);
        });
    }
}

/// A client with locks leaves, by time-out or abort, while others request them.
#[test]
fn a_holder_goes_away_while_others_ask() {
    loom::model(|| {
        let model = Model::new();
        assert_eq!(model.locks.request(1, &writes(&[0, 1]), || 1).0, Outcome::Granted);
        let asking: Vec<_> = [(2, writes(&[0])), (3, WHOLE)]
            .into_iter()
            .map(|(owner, set)| {
                let model = Arc::clone(&model);
                thread::spawn(move || model.transaction(owner, &set))
            })
            .collect();
        model.release(1);
        asking.into_iter().for_each(|thread| thread.join().unwrap());
        model.check_end(2);
    });
}
