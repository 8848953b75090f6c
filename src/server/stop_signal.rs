//! The signal that ends a thread of the server: those of `watch`, `pack_schedule` and the scrubs.

use crate::base::sync::{Condvar, Mutex, rank};

/// Set once, by the stop of the server; the thread waits for it when it has nothing to do.
#[derive(Debug, Default)]
pub struct StopSignal {
    pub stopped: Mutex<bool, rank::Watch>,
    pub stop_noted: Condvar,
}

impl StopSignal {
    pub fn stop(&self) {
        *self.stopped.lock() = true;
        self.stop_noted.notify_all();
    }
}
