//! From temporary to final names, atomic with the transaction.
//!
//! 1. the file gets its final name and keeps its temporary one, which tells the object;
//! 2. its directory is synced;
//! 3. the storage makes the transaction durable;
//! 4. the temporary name is removed, which need not be durable.
//!
//! A crash between 1 and 3 leaves a file that no record refers to: nobody sees it, and the next start finds it by its
//! temporary name. A file system without hard links renames instead; there such a file stays.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use log::error;

use super::StagedBlob;
use super::dir::{BlobDir, TARGET};
use crate::base::fs::dir_of;
use crate::base::ids::{Oid, Tid};
use crate::storage::{Result, StorageError};

/// Blobs that have their names, and whose transactions are not durable yet. If it is dropped they are removed.
pub struct Placement {
    dir: Arc<BlobDir>,
    paths: Vec<PathBuf>,
}

/// See the module. On an error all is as it was.
pub(super) fn place(dir: &Arc<BlobDir>, blobs: Vec<(Oid, Tid, &mut StagedBlob)>) -> Result<Placement> {
    let mut placement = Placement { dir: Arc::clone(dir), paths: Vec::with_capacity(blobs.len()) };
    let mut dirs = BTreeSet::new();
    for (oid, tid, blob) in blobs {
        let path = dir.path(oid, tid);
        blob.place(&path).map_err(StorageError::io(format!("placing the blob {}", path.display())))?;
        dirs.insert(dir_of(&path).to_owned());
        placement.paths.push(path);
    }
    for dir in dirs {
        let synced = placement.dir.media.sync_dir(&dir);
        synced.map_err(StorageError::io(format!("syncing {}", dir.display())))?;
    }
    Ok(placement)
}

impl Placement {
    /// The transactions are durable.
    pub fn keep(mut self) {
        self.paths.clear();
    }

    /// Whether the transactions are durable is not known: the next start will find out, from the temporary names.
    pub fn leave<'a>(mut self, blobs: impl Iterator<Item = &'a mut (Oid, StagedBlob)>) {
        self.paths.clear();
        blobs.for_each(|(_, blob)| blob.leave());
    }
}

impl Drop for Placement {
    fn drop(&mut self) {
        for path in self.paths.drain(..) {
            if let Err(error) = self.dir.media.remove(&path) {
                error!(target: TARGET, "cannot remove {}, which nothing refers to: {error}", path.display());
            }
        }
    }
}
