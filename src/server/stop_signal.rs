//! The signal that ends the thread of `watch`.

use crate::base::sync::{Condvar, Mutex, rank};

/// Set once, by the stop of the server; the thread waits for it between two looks.
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
