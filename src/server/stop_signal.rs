//! The signal that ends a thread of the server: those of `watch`, `pack_schedule`, the scrubs and the backups.

use std::time::Duration;

use crate::base::clock::TimeSource;
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

    /// Ends the waits of those that wait by [`StopSignal::stop_noted`] themselves: what they wait for has changed.
    pub fn wake(&self) {
        let _stopped = self.stopped.lock();
        self.stop_noted.notify_all();
    }

    /// Whether the server stops.
    pub fn is_stopped(&self) -> bool {
        *self.stopped.lock()
    }

    /// Waits for this long. Returns early if the server stops, and whether it does.
    pub fn wait(&self, time: &TimeSource, pause: Duration) -> bool {
        let until = time.now() + pause;
        let mut stopped = self.stopped.lock();
        while !*stopped && time.now() < until {
            stopped = time.wait_until(&self.stop_noted, stopped, until);
        }
        *stopped
    }
}
