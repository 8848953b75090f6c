//! Locks and atomics, from `std` or, under `--cfg loom`, from the model checker.
//!
//! Every lock has a rank in its type: `Mutex<Queue, rank::Outbox>`; [`rank`] has the table. Debug builds check at each
//! lock that ranks ascend, and at each [`Action`] that may take long that no held lock forbids it. Release builds have
//! no checks.
//!
//! Locks here do not poison. If a panic may leave data inconsistent, its owner reacts (a session ends, a storage goes
//! read-only), not the next thread that takes the lock.

mod answer;
mod held;
pub mod rank;

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
#[cfg(not(loom))]
use std::sync as imp;
use std::sync::PoisonError;

#[cfg(loom)]
use loom::sync as imp;

use held::Held;

pub use self::answer::{Answerer, Awaited, answer};
pub use self::held::assert_permitted;
pub use self::rank::{Action, Rank, Ranked};
pub use imp::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
/// Reference counting is not part of the models.
pub use std::sync::Arc;

/// A mutual exclusion lock.
pub struct Mutex<T, R> {
    rank: PhantomData<fn() -> R>,
    lock: imp::Mutex<T>,
}

/// Access to the data of a [`Mutex`], until it is dropped.
#[derive(Debug)]
pub struct MutexGuard<'a, T> {
    guard: imp::MutexGuard<'a, T>,
    /// Dropped last.
    held: Held,
}

impl<T, R: Ranked> Mutex<T, R> {
    /// A lock that guards `value`.
    #[cfg(not(loom))]
    pub const fn new(value: T) -> Mutex<T, R> {
        Mutex { rank: PhantomData, lock: imp::Mutex::new(value) }
    }

    /// A lock that guards `value`.
    #[cfg(loom)]
    pub fn new(value: T) -> Mutex<T, R> {
        Mutex { rank: PhantomData, lock: imp::Mutex::new(value) }
    }

    /// Waits for the lock. Debug builds panic if the thread holds a lock whose rank does not permit it.
    #[track_caller]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        let held = Held::new(R::RANK);
        MutexGuard { guard: self.lock.lock().unwrap_or_else(PoisonError::into_inner), held }
    }

    /// The lock, unless it is held.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let guard = match self.lock.try_lock() {
            Ok(guard) => guard,
            Err(std::sync::TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(std::sync::TryLockError::WouldBlock) => return None,
        };
        Some(MutexGuard { guard, held: Held::new(R::RANK) })
    }

    /// For tests that the lock is not held. True also if another thread holds it.
    #[cfg(all(test, not(loom)))]
    pub fn is_locked(&self) -> bool {
        matches!(self.lock.try_lock(), Err(std::sync::TryLockError::WouldBlock))
    }

    /// The data, without locking: there is no other reference.
    pub fn get_mut(&mut self) -> &mut T {
        self.lock.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// The data; the lock is gone.
    pub fn into_inner(self) -> T {
        self.lock.into_inner().unwrap_or_else(PoisonError::into_inner)
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

/// A lock for many readers or one writer.
pub struct RwLock<T, R> {
    rank: PhantomData<fn() -> R>,
    lock: imp::RwLock<T>,
}

/// Shared access to the data of a [`RwLock`].
#[derive(Debug)]
pub struct RwLockReadGuard<'a, T> {
    guard: imp::RwLockReadGuard<'a, T>,
    _held: Held,
}

/// Exclusive access to the data of a [`RwLock`].
#[derive(Debug)]
pub struct RwLockWriteGuard<'a, T> {
    guard: imp::RwLockWriteGuard<'a, T>,
    _held: Held,
}

impl<T, R: Ranked> RwLock<T, R> {
    #[cfg(not(loom))]
    pub const fn new(value: T) -> RwLock<T, R> {
        RwLock { rank: PhantomData, lock: imp::RwLock::new(value) }
    }

    #[cfg(loom)]
    pub fn new(value: T) -> RwLock<T, R> {
        RwLock { rank: PhantomData, lock: imp::RwLock::new(value) }
    }

    #[track_caller]
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        let _held = Held::new(R::RANK);
        RwLockReadGuard { guard: self.lock.read().unwrap_or_else(PoisonError::into_inner), _held }
    }

    #[track_caller]
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        let _held = Held::new(R::RANK);
        RwLockWriteGuard { guard: self.lock.write().unwrap_or_else(PoisonError::into_inner), _held }
    }
}

impl<T> Deref for RwLockReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for RwLockWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

/// A condition variable for [`Mutex`].
#[derive(Debug, Default)]
pub struct Condvar(imp::Condvar);

impl Condvar {
    /// A condition for which no thread waits.
    pub fn new() -> Condvar {
        Condvar(imp::Condvar::new())
    }

    /// Waits for a notice. May return without one: the caller checks its condition again.
    #[track_caller]
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        let MutexGuard { guard, held } = guard;
        let waiting = held.waiting();
        let guard = self.0.wait(guard).unwrap_or_else(PoisonError::into_inner);
        MutexGuard { guard, held: waiting.over() }
    }

    /// Waits for a notice or for `timeout`.
    #[cfg(not(loom))]
    #[track_caller]
    pub fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: std::time::Duration,
    ) -> MutexGuard<'a, T> {
        let MutexGuard { guard, held } = guard;
        let waiting = held.waiting();
        let guard = self.0.wait_timeout(guard, timeout).unwrap_or_else(PoisonError::into_inner).0;
        MutexGuard { guard, held: waiting.over() }
    }

    /// Waits while `condition` holds, at most for `timeout`.
    #[cfg(not(loom))]
    #[track_caller]
    pub fn wait_timeout_while<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: std::time::Duration,
        condition: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'a, T> {
        let MutexGuard { guard, held } = guard;
        let waiting = held.waiting();
        let result = self.0.wait_timeout_while(guard, timeout, condition);
        MutexGuard { guard: result.unwrap_or_else(PoisonError::into_inner).0, held: waiting.over() }
    }

    /// Waits while `condition` holds, without timeout: models have no clock.
    #[cfg(loom)]
    pub fn wait_timeout_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        _: std::time::Duration,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'a, T> {
        while condition(&mut guard) {
            guard = self.wait(guard);
        }
        guard
    }

    /// Waits for a notice, without timeout: models have no clock.
    #[cfg(loom)]
    pub fn wait_timeout<'a, T>(&self, guard: MutexGuard<'a, T>, _: std::time::Duration) -> MutexGuard<'a, T> {
        self.wait(guard)
    }

    /// Wakes all threads that wait.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }

    /// Wakes one of the threads that wait.
    pub fn notify_one(&self) {
        self.0.notify_one();
    }
}

impl<T: Default, R: Ranked> Default for Mutex<T, R> {
    fn default() -> Mutex<T, R> {
        Mutex::new(T::default())
    }
}

impl<T: fmt::Debug, R: Ranked> fmt::Debug for Mutex<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lock.fmt(f)
    }
}

impl<T: Default, R: Ranked> Default for RwLock<T, R> {
    fn default() -> RwLock<T, R> {
        RwLock::new(T::default())
    }
}

impl<T: fmt::Debug, R: Ranked> fmt::Debug for RwLock<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lock.fmt(f)
    }
}
