//! Cancelling what another thread is waiting for.

use std::fmt;

use super::sync::{Arc, AtomicBool, Mutex, Ordering, rank};

/// Wakes the waiting thread.
type Action = Box<dyn FnOnce() + Send>;

/// A handle that the working thread shares with the threads that may cancel. Stays cancelled.
#[derive(Clone, Default)]
pub struct Cancel(Arc<Shared>);

#[derive(Default)]
struct Shared {
    cancelled: AtomicBool,
    action: Mutex<Option<Action>, rank::Cancel>,
}

impl Cancel {
    /// Cancels, and wakes the thread that waits, if it has said how ([`Cancel::on_cancel`]). May be called repeatedly.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::SeqCst);
        // Called under the lock, so that it does not run after its guard is gone.
        let mut action = self.0.action.lock();
        if let Some(action) = action.take() {
            action();
        }
    }

    /// Whether [`Cancel::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst)
    }

    /// [`Cancel::cancel`] calls `action`, in its thread, until the guard is dropped. If it was called before, `action`
    /// is called here. There is at most one action at a time. The action must not wait, and not use this handle.
    #[must_use]
    pub fn on_cancel(&self, action: impl FnOnce() + Send + 'static) -> OnCancel<'_> {
        let mut place = self.0.action.lock();
        if self.is_cancelled() {
            drop(place);
            action();
        } else {
            debug_assert!(place.is_none(), "two actions for one cancellation");
            *place = Some(Box::new(action));
        }
        OnCancel(self)
    }
}

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cancel").field(&self.is_cancelled()).finish()
    }
}

/// As long as this exists, a cancellation runs the action of [`Cancel::on_cancel`].
pub struct OnCancel<'a>(&'a Cancel);

impl Drop for OnCancel<'_> {
    fn drop(&mut self) {
        let action = self.0.0.action.lock().take();
        drop(action);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::base::sync::AtomicUsize;

    #[test]
    fn the_action_runs_once_and_only_while_its_guard_lives() {
        let cancel = Cancel::default();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = |count: &Arc<AtomicUsize>| {
            let count = Arc::clone(count);
            move || {
                count.fetch_add(1, Ordering::SeqCst);
            }
        };
        drop(cancel.on_cancel(counted(&count)));
        let _guard = cancel.on_cancel(counted(&count));
        cancel.clone().cancel();
        cancel.cancel();
        assert_eq!(count.load(Ordering::SeqCst), 1);
        assert!(cancel.is_cancelled());
        let _late = cancel.on_cancel(counted(&count));
        assert_eq!(count.load(Ordering::SeqCst), 2);
    }
}
