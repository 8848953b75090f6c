//! The blobs of one transaction, from its vote to its commit.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::super::PostgresStorage;
use super::super::shared::number;
use super::PostgresBlobs;
use super::upload::Uploaded;
use crate::base::ids::{Oid, Tid};
use crate::pickle::record::is_blob;
use crate::storage::blob::cache::BlobCache;
use crate::storage::blob::{Placement, StagedBlob};
use crate::storage::{BlobDir, Result, Staged, StorageError};

/// The blobs of a transaction. Dropping this removes what is not committed.
#[derive(Default)]
pub struct VotedBlobs {
    /// The rows of `blob_chunk`: the large object of each object.
    pub chunks: Vec<(Oid, u32)>,
    /// Those among them that are not committed yet.
    uploaded: Option<Uploaded>,
    /// The files: copies of large objects, or the blobs themselves.
    files: Vec<(Oid, StagedBlob)>,
    home: Home,
}

/// Where the files are going.
#[derive(Default)]
enum Home {
    #[default]
    Nowhere,
    /// Copies of what is in the database.
    Cache(Arc<BlobCache>),
    Directory {
        dir: Arc<BlobDir>,
        placed: Option<(Tid, Placement)>,
    },
}

impl PostgresStorage {
    /// Uploads the blobs of a transaction that is to be voted for.
    ///
    /// Errors: the storage has no blobs.
    pub(in super::super) fn upload(&self, staged: &Staged) -> Result<Option<Uploaded>> {
        if staged.blobs().is_empty() {
            return Ok(None);
        }
        match self.blobs.as_deref().ok_or_else(StorageError::no_blobs)? {
            PostgresBlobs::Database(database) => {
                database.uploads.upload(staged.blobs(), &staged.cancel).map(Some)
            }
            PostgresBlobs::Directory(_) => Ok(None),
        }
    }

    /// The blobs of a transaction that has passed its vote. `restored`: the objects whose last change is an undo, and
    /// the revision that each gets back; `None` if it was merged, or is not created any more.
    ///
    /// Errors: `NoBlob` if an object of class Blob gets a revision back whose blob is missing.
    pub(in super::super) fn voted_blobs(
        &self,
        mut staged: Staged,
        uploaded: Option<Uploaded>,
        restored: HashMap<Oid, Option<Tid>>,
        has_record: &dyn Fn(Oid) -> bool,
    ) -> Result<VotedBlobs> {
        let mut shared_chunks = Vec::new();
        for (oid, from) in restored {
            staged.remove_blob(oid);
            let Some(from) = from else { continue };
            match self.blobs.as_deref() {
                Some(PostgresBlobs::Directory(dir)) => match dir.again(oid, from) {
                    Ok(blob) => staged.add_blob(oid, blob),
                    Err(missing @ StorageError::NoBlob { .. }) => {
                        self.check_is_no_blob(oid, from, missing)?
                    }
                    Err(error) => return Err(error),
                },
                in_database => match *self.shared.chunks(number(oid)?, from)?.as_slice() {
                    [] if in_database.is_some() => {
                        let path = std::path::PathBuf::from(format!("blob_chunk of object 0x{oid}, {from}"));
                        self.check_is_no_blob(oid, from, StorageError::NoBlob { oid, serial: from, path })?;
                    }
                    [] => {}
                    [chunk] => shared_chunks.push((oid, chunk)),
                    _ => {
                        let reason =
                            "its blob has several parts: open the database once with RelStorage 3.5 or later";
                        return Err(StorageError::Undo { reason: reason.into(), oid: Some(oid) });
                    }
                },
            }
        }
        let mut files = staged.take_blobs();
        files.retain(|(oid, _)| has_record(*oid));
        let mut chunks = shared_chunks;
        if let Some(uploaded) = &uploaded {
            let kept: HashSet<Oid> = files.iter().map(|(oid, _)| *oid).collect();
            chunks.extend(uploaded.blobs.iter().filter(|(oid, _)| kept.contains(oid)));
        }
        let home = match self.blobs.as_deref() {
            None => Home::Nowhere,
            Some(PostgresBlobs::Database(database)) => Home::Cache(Arc::clone(&database.cache)),
            Some(PostgresBlobs::Directory(dir)) => Home::Directory { dir: Arc::clone(dir), placed: None },
        };
        Ok(VotedBlobs { chunks, uploaded, files, home })
    }

    /// Other objects have no blob.
    fn check_is_no_blob(&self, oid: Oid, serial: Tid, missing: StorageError) -> Result<()> {
        if is_blob(&self.shared.revision(oid, serial)?) { Err(missing) } else { Ok(()) }
    }
}

impl VotedBlobs {
    /// Whether there are files whose names contain the tid, which must be there before the transaction is committed.
    pub fn must_be_placed(&self) -> bool {
        matches!(self.home, Home::Directory { .. }) && !self.files.is_empty()
    }

    /// The tid in the names of the files.
    pub fn placed_at(&self) -> Option<Tid> {
        match &self.home {
            Home::Directory { placed: Some((tid, _)), .. } => Some(*tid),
            _ => None,
        }
    }

    /// Gives these files their names, durably. Those of an earlier attempt are removed.
    pub fn place(&mut self, tid: Tid) -> Result<()> {
        if let Home::Directory { dir, placed } = &mut self.home {
            drop(placed.take());
            *placed = Some((tid, dir.place(self.files.iter_mut().map(|(oid, blob)| (*oid, tid, blob)))?));
        }
        Ok(())
    }

    /// The transaction is committed.
    pub fn committed(&mut self, tid: Tid) {
        if let Some(mut uploaded) = self.uploaded.take() {
            uploaded.committed(&self.chunks);
        }
        match &mut self.home {
            Home::Nowhere => {}
            Home::Cache(cache) => {
                for (oid, blob) in self.files.drain(..) {
                    cache.keep_committed(oid, tid, blob);
                }
            }
            Home::Directory { placed, .. } => {
                if let Some((_, placement)) = placed.take() {
                    placement.keep();
                }
                // Removes the temporary names.
                self.files.clear();
            }
        }
    }

    /// It is not known whether the transaction is committed: its files stay. Large objects are removed only if they
    /// are not committed.
    pub fn leave(&mut self) {
        if let Home::Directory { placed, .. } = &mut self.home
            && let Some((_, placement)) = placed.take()
        {
            placement.leave(self.files.iter_mut());
        }
    }
}
