//! Only one pack at a time, and the close of the storage waits for it.

use crate::base::sync::{Condvar, Mutex, rank};
use crate::storage::{Refusal, Result, StorageError};

/// Whether a pack is running.
#[derive(Default)]
pub struct Packing {
    active: Mutex<bool, rank::PackActive>,
    ended: Condvar,
}

/// A pack is running as long as this exists.
pub struct PackGuard<'a>(&'a Packing);

impl Packing {
    /// Error: another pack is running.
    pub fn begin(&self) -> Result<PackGuard<'_>> {
        let mut active = self.active.lock();
        if *active {
            return Err(StorageError::Refused {
                what: Refusal::PackRunning,
                message: "Already packing".into(),
            });
        }
        *active = true;
        Ok(PackGuard(self))
    }

    /// Waits for the end of the pack, which comes soon once the storage is marked as closed.
    pub fn wait(&self) {
        let mut active = self.active.lock();
        while *active {
            active = self.ended.wait(active);
        }
    }
}

impl Drop for PackGuard<'_> {
    fn drop(&mut self) {
        *self.0.active.lock() = false;
        self.0.ended.notify_all();
    }
}
