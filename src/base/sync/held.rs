//! What a thread holds: the check of [`Rank`]s and [`Action`]s, in debug builds.
//!
//! Not in the models of `loom`, which run all of their threads in one.

use super::{Action, Rank};

/// To be called where an action begins that may take long. Debug builds panic if the thread holds a lock that forbids it. `doing` is
/// what it is about to do.
#[inline]
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

    /// A lock of this thread.
    #[derive(Debug)]
    pub struct Held(Rank);

    impl Held {
        /// To be called before a thread waits for the lock: then a wrong order is found even where nobody else holds it.
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

        /// A condition variable gives the lock back while it waits, and only this one.
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
            // The line about a panic is written wherever it happens.
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
