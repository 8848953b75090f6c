//! The signal that ends a thread of the server: those of `watch`, `pack_schedule`, the scrubs and the backups.

use std::time::Duration;

use crate::base::clock::TimeSource;
use crate::base::sync::{AtomicU64, Condvar, Mutex, Ordering, rank};

/// Set once, by the stop of the server; the thread waits for it when it has nothing to do.
#[derive(Debug, Default)]
pub struct StopSignal {
    pub stopped: Mutex<bool, rank::Watch>,
    pub stop_noted: Condvar,
    /// How often what the threads are to do was changed.
    changes: AtomicU64,
}

impl StopSignal {
    pub fn stop(&self) {
        *self.stopped.lock() = true;
        self.stop_noted.notify_all();
    }

    /// What the threads are to do has changed: ends their waits.
    pub fn wake(&self) {
        let _stopped = self.stopped.lock();
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.stop_noted.notify_all();
    }

    /// How often that was. Asked before a thread looks at what it is to do, and told to [`StopSignal::wait_unchanged`].
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    /// [`StopSignal::wait`], but returns early, too, if there was a change since `seen`.
    pub fn wait_unchanged(&self, time: &TimeSource, pause: Duration, seen: u64) -> bool {
        let until = time.now() + pause;
        let mut stopped = self.stopped.lock();
        while !*stopped && self.changes() == seen && time.now() < until {
            stopped = time.wait_until(&self.stop_noted, stopped, until);
        }
        *stopped
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
