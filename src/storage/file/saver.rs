//! The state of the thread that saves the index (see `save`).

use std::time::Instant;

use crate::base::clock::TimeSource;
use crate::base::sync::{Condvar, Mutex, MutexGuard, rank};

/// When the index was saved, and when it has to be saved again.
pub struct Saver {
    /// The saved index was usable when the storage was opened.
    pub used_index: bool,
    pub clock: TimeSource,
    state: Mutex<SavedIndex, rank::Saver>,
    pub wake: Condvar,
    /// Held while the index is saved.
    pub saving: Mutex<(), rank::Saving>,
}

/// What the thread decides by.
pub struct SavedIndex {
    /// The position of the saved index.
    pub saved_end: u64,
    pub saved_at: Instant,
    /// It has to be saved at once.
    pub wanted: bool,
    pub stopping: bool,
}

impl Saver {
    pub fn new(saved_end: u64, used_index: bool, clock: TimeSource) -> Saver {
        let state = SavedIndex { saved_end, saved_at: clock.now(), wanted: false, stopping: false };
        Saver { used_index, clock, state: Mutex::new(state), wake: Condvar::new(), saving: Mutex::default() }
    }

    pub fn stop(&self) {
        self.lock().stopping = true;
        self.wake.notify_all();
    }

    pub fn lock(&self) -> MutexGuard<'_, SavedIndex> {
        self.state.lock()
    }
}
