//! Transactions of one client take turns: a server has one open transaction for each link.

use crate::base::sync::{Arc, Condvar, Mutex, rank};

/// Whose turn it is to have a transaction.
#[derive(Default)]
pub struct Turns {
    is_taken: Mutex<bool, rank::CommitTurn>,
    freed: Condvar,
}

/// The right to have a transaction, until it is dropped.
pub struct Turn(Arc<Turns>);

impl Turns {
    /// Waits for the turn. `None`: `is_over` says that it is not wanted any more.
    pub fn take(self: &Arc<Self>, is_over: impl Fn() -> bool) -> Option<Turn> {
        let mut is_taken = self.is_taken.lock();
        while *is_taken {
            if is_over() {
                return None;
            }
            is_taken = self.freed.wait(is_taken);
        }
        *is_taken = true;
        Some(Turn(Arc::clone(self)))
    }

    /// Those who wait look again whether they still want their turn.
    pub fn wake(&self) {
        let _is_taken = self.is_taken.lock();
        self.freed.notify_all();
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *self.0.is_taken.lock() = false;
        self.0.freed.notify_all();
    }
}
