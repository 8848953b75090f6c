//! Groups that are published before they are durable: for a program that copies a database into the file, and begins
//! again behind what the file has if the machine fails.
//!
//! Groups are synced together when there are [`LEN_MAX`] bytes of them, before the index is saved, and when the storage
//! closes. What the note says stays true: it learns of groups when they are synced, and a start after a crash reads
//! what is behind that with suspicion.

use std::sync::atomic::Ordering;

use super::Core;
use super::volume::Volume;
use crate::storage::{Result, StorageError};

/// Bytes that are not durable, at most.
const LEN_MAX: u64 = 32 << 20;

impl Core {
    /// Whether a group may be synced later. `len`: the bytes that would then not be durable.
    pub fn may_sync_later(&self, len: u64) -> bool {
        // What other servers are to confirm is durable here first.
        len < LEN_MAX && self.gate.get().is_none() && self.sync_later.load(Ordering::Relaxed)
    }

    /// Makes durable what is written. Without [`Storage::sync_later`](crate::storage::Storage::sync_later) everything
    /// is.
    pub fn sync_written(&self, volume: &Volume) -> Result<()> {
        if !self.sync_later.load(Ordering::Relaxed) {
            return Ok(());
        }
        volume.log.file().sync().map_err(|error| {
            self.set_broken(format!("a sync failed: {error}"));
            StorageError::io(format!("syncing {}", self.path.display()))(error)
        })
    }
}
