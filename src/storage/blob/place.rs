//! From temporary to final names, atomic with the transaction:
//!
//! 1. The file gets its final name and keeps its temporary one, which names the object.
//! 2. Its directory is synced.
//! 3. The storage makes the transaction durable.
//! 4. The temporary name is removed, which need not be durable.
//!
//! A crash between 1 and 3 leaves a file that no record refers to: no client can see it, and the next start finds it by
//! its temporary name. No step can fail for want of a file descriptor (see `descriptors`). On a file system without
//! hard links the file is renamed instead, and after such a crash it stays.

use std::collections::BTreeMap;
use std::sync::Arc;

use log::{debug, error};

use super::StagedBlob;
use super::dir::BlobDir;
use super::home::Home;
use super::names::TARGET;
use crate::base::ids::{Oid, Tid};
use crate::storage::{Result, StorageError};

/// Blobs that have their final names, and whose transactions are not durable yet. Dropping this removes them.
pub struct Placement {
    dir: Arc<BlobDir>,
    placed: Vec<Placed>,
}

/// A blob that has its final name.
struct Placed {
    oid: Oid,
    tid: Tid,
    home: Home,
}

impl BlobDir {
    /// Gives staged blobs their final names, durably: steps 1 and 2 of the module's list. After an error everything is
    /// as before.
    pub fn place<'a>(
        self: &Arc<Self>,
        blobs: impl IntoIterator<Item = (Oid, Tid, &'a mut StagedBlob)>,
    ) -> Result<Placement> {
        let mut placement = Placement { dir: Arc::clone(self), placed: Vec::new() };
        for (oid, tid, blob) in blobs {
            let placed = blob.place(tid);
            let doing = || StorageError::io(format!("placing the blob {}", self.path(oid, tid).display()));
            placement.placed.push(Placed { oid, tid, home: placed.map_err(doing())? });
        }
        // After all of them: the first sync makes the file system write most of it, and the others cost little.
        let homes: BTreeMap<Oid, &Placed> =
            placement.placed.iter().map(|placed| (placed.oid, placed)).collect();
        for (oid, placed) in homes {
            let synced = placed.home.open(self).and_then(|home| home.sync());
            synced.map_err(StorageError::io(format!("syncing {}", self.oid_dir(oid).display())))?;
        }
        if let Err(error) = self.fill_reserve() {
            // The next staged blob tries again.
            debug!(target: TARGET, "{}: no spare file descriptor can be opened: {error}", self.base().display());
        }
        Ok(placement)
    }
}

impl Placement {
    /// Keeps the blobs: the transactions are durable.
    pub fn keep(mut self) {
        self.placed.clear();
    }

    /// Leaves the blobs and their temporary names: it is unknown whether the transactions are durable. The next start
    /// finds out.
    pub fn leave<'a>(mut self, blobs: impl Iterator<Item = &'a mut (Oid, StagedBlob)>) {
        self.placed.clear();
        blobs.for_each(|(_, blob)| blob.leave());
    }
}

impl Drop for Placement {
    fn drop(&mut self) {
        for placed in std::mem::take(&mut self.placed) {
            let name = self.dir.layout().file_name(placed.oid, placed.tid);
            let removed = placed.home.open(&self.dir).and_then(|home| home.remove(name.as_ref()));
            if let Err(error) = removed {
                let path = self.dir.path(placed.oid, placed.tid);
                error!(target: TARGET, "cannot remove {}, which nothing refers to: {error}", path.display());
            }
        }
    }
}
