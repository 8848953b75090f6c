//! Locks and atomics, from `std` or, under `--cfg loom`, from the model checker.
//!
//! Locks here do not poison: what a panic may leave half done is guarded by its owner (a session ends, a
//! storage goes read-only), not by the next one who wants the lock.

use std::ops::{Deref, DerefMut};
#[cfg(not(loom))]
use std::sync as imp;

#[cfg(loom)]
use loom::sync as imp;

pub use imp::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
/// Shared ownership is not what the model checker is asked about.
pub use std::sync::Arc;

/// A mutual exclusion lock.
#[derive(Debug, Default)]
pub struct Mutex<T> {
    lock: imp::Mutex<T>,
    is_brief: bool,
}

/// Access to what a [`Mutex`] guards, until it is dropped.
#[derive(Debug)]
pub struct MutexGuard<'a, T> {
    guard: imp::MutexGuard<'a, T>,
    /// Of a brief lock. Dropped last.
    brief: Option<brief::Held>,
}

impl<T> Mutex<T> {
    pub fn new(value: T) -> Mutex<T> {
        Mutex { lock: imp::Mutex::new(value), is_brief: false }
    }

    /// A lock that commits wait for: nothing that may wait for the outside (a log line, a socket) is done while it is held.
    /// Debug builds check it, see [`assert_no_brief_lock`].
    pub fn brief(value: T) -> Mutex<T> {
        Mutex { lock: imp::Mutex::new(value), is_brief: true }
    }

    pub fn lock(&self) -> MutexGuard<'_, T> {
        let guard = self.lock.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        MutexGuard { guard, brief: self.is_brief.then(brief::Held::new) }
    }

    /// For tests of what is done without this lock. True also if another thread has it.
    #[cfg(test)]
    pub fn is_locked(&self) -> bool {
        matches!(self.lock.try_lock(), Err(std::sync::TryLockError::WouldBlock))
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

/// To be called where a thread may have to wait for the outside: in debug builds this panics if the thread holds a lock made by
/// [`Mutex::brief`]. `doing` is what it is about to do.
#[inline]
pub fn assert_no_brief_lock(doing: &str) {
    brief::assert_none(doing);
}

/// Counts the brief locks that a thread holds. The models of `loom` run all of their threads in one, so not there.
#[cfg(all(debug_assertions, not(loom)))]
mod brief {
    use std::cell::Cell;

    thread_local! {
        static HELD: Cell<usize> = const { Cell::new(0) };
    }

    /// A brief lock of this thread.
    #[derive(Debug)]
    pub struct Held(());

    impl Held {
        pub fn new() -> Held {
            HELD.with(|held| held.set(held.get() + 1));
            Held(())
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            HELD.with(|held| held.set(held.get().saturating_sub(1)));
        }
    }

    pub fn assert_none(doing: &str) {
        // The line about a panic is written wherever it happens.
        let held = HELD.with(Cell::get);
        assert!(held == 0 || std::thread::panicking(), "{doing} while {held} brief locks are held");
    }
}

#[cfg(not(all(debug_assertions, not(loom))))]
mod brief {
    /// A brief lock, which this build does not count.
    #[derive(Debug)]
    pub struct Held;

    impl Held {
        pub fn new() -> Held {
            Held
        }
    }

    pub fn assert_none(_doing: &str) {}
}

/// A condition variable for [`Mutex`].
#[derive(Debug, Default)]
pub struct Condvar(imp::Condvar);

impl Condvar {
    pub fn new() -> Condvar {
        Condvar(imp::Condvar::new())
    }

    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        let MutexGuard { guard, brief } = guard;
        let guard = self.0.wait(guard).unwrap_or_else(|poisoned| poisoned.into_inner());
        MutexGuard { guard, brief }
    }

    /// Waits for a notice or for `timeout`.
    #[cfg(not(loom))]
    pub fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: std::time::Duration,
    ) -> MutexGuard<'a, T> {
        let MutexGuard { guard, brief } = guard;
        let guard = self.0.wait_timeout(guard, timeout).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        MutexGuard { guard, brief }
    }

    /// Models have no clock: waits for a notice.
    #[cfg(loom)]
    pub fn wait_timeout<'a, T>(&self, guard: MutexGuard<'a, T>, _: std::time::Duration) -> MutexGuard<'a, T> {
        self.wait(guard)
    }

    pub fn notify_all(&self) {
        self.0.notify_all();
    }

    pub fn notify_one(&self) {
        self.0.notify_one();
    }
}

#[cfg(all(test, debug_assertions, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_brief_lock_that_is_held_is_noticed() {
        let (brief, other) = (Mutex::brief(1), Mutex::new(2));
        let guards = (other.lock(), brief.lock());
        assert!(std::panic::catch_unwind(|| assert_no_brief_lock("logging")).is_err());
        drop(guards);
        let _other = other.lock();
        assert_no_brief_lock("logging");
    }
}
