//! The locks that a thread holds: checks [`Rank`]s and [`Action`]s in debug builds.
//!
//! Not in models of `loom`, which run all their threads in one thread.

use super::{Action, Rank};

/// To be called before an action that may take long. Debug builds panic if the thread holds a lock that forbids it.
/// `doing`: the action, for the message.
#[inline]
#[track_caller]
pub fn assert_permitted(action: Action, doing: &str) {
    imp::assert_permitted(action, doing);
}

pub use imp::Held;

#[cfg(all(debug_assertions, not(loom)))]
mod imp {
    use super::{Action, Rank};
    use std::cell::RefCell;
    use std::thread;

    thread_local! {
        /// The ranks of the locks that this thread holds, in the order in which it took them.
        static HELD: RefCell<Vec<Rank>> = const { RefCell::new(Vec::new()) };
    }

    /// A lock that this thread holds.
    #[derive(Debug)]
    pub struct Held(Rank);

    impl Held {
        /// To be called before a thread waits for the lock, so that a wrong order is found even if no other thread
        /// holds the lock.
        #[track_caller]
        pub fn new(rank: Rank) -> Held {
            let innermost = HELD.with_borrow(|held| held.iter().max().copied());
            if let Some(innermost) = innermost {
                assert!(
                    innermost < rank || thread::panicking(),
                    "takes the lock {rank:?} while it holds {innermost:?}, which comes after it or is it"
                );
            }
            HELD.with_borrow_mut(|held| held.push(rank));
            Held(rank)
        }

        /// For a wait at a condition variable, which gives back this lock only.
        #[track_caller]
        pub fn waiting(self) -> Waiting {
            let rank = self.0;
            drop(self);
            assert_permitted(Action::Wait, "waiting for a condition");
            Waiting(rank)
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            HELD.with_borrow_mut(|held| {
                if let Some(place) = held.iter().rposition(|rank| *rank == self.0) {
                    held.remove(place);
                }
            });
        }
    }

    /// A lock that a condition variable will take again.
    pub struct Waiting(Rank);

    impl Waiting {
        #[track_caller]
        pub fn over(self) -> Held {
            Held::new(self.0)
        }
    }

    #[track_caller]
    pub fn assert_permitted(action: Action, doing: &str) {
        let forbids = HELD.with_borrow(|held| held.iter().find(|rank| !rank.permits(action)).copied());
        if let Some(rank) = forbids {
            // The message of a panic is logged under any lock.
            assert!(thread::panicking(), "{doing} while the lock {rank:?} is held, which forbids it");
        }
    }
}

#[cfg(not(all(debug_assertions, not(loom))))]
mod imp {
    use super::{Action, Rank};

    #[derive(Debug)]
    pub struct Held;

    impl Held {
        #[inline]
        pub fn new(_rank: Rank) -> Held {
            Held
        }

        #[inline]
        pub fn waiting(self) -> Waiting {
            Waiting
        }
    }

    pub struct Waiting;

    impl Waiting {
        #[inline]
        pub fn over(self) -> Held {
            Held
        }
    }

    #[inline]
    pub fn assert_permitted(_action: Action, _doing: &str) {}
}

#[cfg(all(test, debug_assertions, not(loom)))]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::time::Duration;

    use super::*;
    use crate::base::sync::{Condvar, Mutex, RwLock, rank};

    fn panics(what: impl FnOnce()) -> bool {
        catch_unwind(AssertUnwindSafe(what)).is_err()
    }

    #[test]
    fn ranks_go_up() {
        let outer: Mutex<u8, rank::Members> = Mutex::default();
        let (inner, other): (Mutex<u8, rank::Outbox>, Mutex<u8, rank::Outbox>) = Default::default();
        let page: RwLock<u8, rank::IndexPage> = RwLock::default();
        drop((outer.lock(), page.read(), inner.lock()));
        let held = inner.lock();
        assert!(panics(|| drop(outer.lock())), "before it");
        assert!(panics(|| drop(other.lock())), "of the same rank");
        assert!(panics(|| drop(page.write())), "before it, exclusive");
        drop(held);
        drop(outer.lock());
    }

    #[test]
    fn guards_are_dropped_in_any_order() {
        let outer: Mutex<u8, rank::Members> = Mutex::default();
        let inner: Mutex<u8, rank::Outbox> = Mutex::default();
        let (first, second) = (outer.lock(), inner.lock());
        drop(first);
        assert!(panics(|| drop(outer.lock())), "the inner one is still held");
        drop(second);
        drop(outer.lock());
    }

    #[test]
    fn what_a_lock_forbids() {
        let note: Mutex<u8, rank::Note> = Mutex::default();
        let _note = note.lock();
        assert_permitted(Action::File, "writing");
        assert!(panics(|| assert_permitted(Action::Log, "logging")));
        let outbox: Mutex<u8, rank::Outbox> = Mutex::default();
        let outbox = outbox.lock();
        assert!(panics(|| assert_permitted(Action::File, "writing")), "one that is held forbids it");
        drop(outbox);
        assert_permitted(Action::File, "writing");
    }

    #[test]
    fn a_wait_gives_back_its_own_lock_only() {
        let condition = Condvar::new();
        let (queue, members): (Mutex<u8, rank::Outbox>, Mutex<u8, rank::Members>) = Default::default();
        let guard = condition.wait_timeout(queue.lock(), Duration::from_millis(1));
        assert!(panics(|| drop(members.lock())), "it is held again");
        drop(guard);
        let _members = members.lock();
        assert!(panics(|| drop(condition.wait_timeout(queue.lock(), Duration::from_millis(1)))));
    }
}
