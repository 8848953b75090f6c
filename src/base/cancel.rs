//! Giving up what another thread is waiting for.

use std::fmt;

use super::sync::{Arc, AtomicBool, Mutex, Ordering, rank};

/// Wakes the thread that waits.
type Action = Box<dyn FnOnce() + Send>;

/// A handle that is shared by the threads that may give up and the one that does the work. It stays cancelled.
#[derive(Clone, Default)]
pub struct Cancel(Arc<Shared>);

#[derive(Default)]
struct Shared {
    cancelled: AtomicBool,
    action: Mutex<Option<Action>, rank::Cancel>,
}

impl Cancel {
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::SeqCst);
        // Under the lock, so that it does not run once its guard is gone.
        let mut action = self.0.action.lock();
        if let Some(action) = action.take() {
            action();
        }
    }

    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst)
    }

    /// Has `action` run by [`Cancel::cancel`], in that thread, until the guard is dropped; or here, if it was called
    /// before. The work has one such action at a time. The action must not wait, nor use this handle.
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

/// While it lives a cancellation runs the action of [`Cancel::on_cancel`].
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
