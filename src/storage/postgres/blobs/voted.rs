//! The blobs of one transaction, from its vote to its commit.

use std::collections::HashSet;
use std::sync::Arc;

use super::upload::Uploaded;
use crate::base::ids::{Oid, Tid};
use crate::storage::blob::cache::BlobCache;
use crate::storage::blob::{Placement, StagedBlob};
use crate::storage::{BlobDir, Result};

/// The blobs of a transaction. Dropping this removes what is not committed.
#[derive(Default)]
pub struct VotedBlobs {
    /// The rows of `blob_chunk`: the large object of each object.
    pub chunks: Vec<(Oid, u32)>,
    /// Those among them that are not committed yet.
    uploaded: Option<Uploaded>,
    /// The files: copies of large objects, or the blobs themselves.
    files: Vec<(Oid, StagedBlob)>,
    home: VotedHome,
}

/// Where the files of a transaction are going.
#[derive(Default)]
pub enum VotedHome {
    #[default]
    Nowhere,
    /// Copies of what is in the database.
    Cache(Arc<BlobCache>),
    Directory {
        dir: Arc<BlobDir>,
        placed: Option<(Tid, Placement)>,
    },
}

impl VotedBlobs {
    /// `shared`: large objects of other revisions, too. `files`: the staged blobs.
    pub fn new(
        home: VotedHome,
        shared: Vec<(Oid, u32)>,
        uploaded: Option<Uploaded>,
        files: Vec<(Oid, StagedBlob)>,
    ) -> VotedBlobs {
        let mut chunks = shared;
        if let Some(uploaded) = &uploaded {
            let kept: HashSet<Oid> = files.iter().map(|(oid, _)| *oid).collect();
            chunks.extend(uploaded.blobs.iter().filter(|(oid, _)| kept.contains(oid)));
        }
        VotedBlobs { chunks, uploaded, files, home }
    }

    /// Whether there are files whose names contain the tid, which must be there before the transaction is committed.
    pub fn must_be_placed(&self) -> bool {
        matches!(self.home, VotedHome::Directory { .. }) && !self.files.is_empty()
    }

    /// The tid in the names of the files.
    pub fn placed_at(&self) -> Option<Tid> {
        match &self.home {
            VotedHome::Directory { placed: Some((tid, _)), .. } => Some(*tid),
            _ => None,
        }
    }

    /// Gives these files their names, durably. Those of an earlier attempt are removed.
    pub fn place(&mut self, tid: Tid) -> Result<()> {
        if let VotedHome::Directory { dir, placed } = &mut self.home {
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
            VotedHome::Nowhere => {}
            VotedHome::Cache(cache) => {
                for (oid, blob) in self.files.drain(..) {
                    cache.keep_committed(oid, tid, blob);
                }
            }
            VotedHome::Directory { placed, .. } => {
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
        if let VotedHome::Directory { placed, .. } = &mut self.home
            && let Some((_, placement)) = placed.take()
        {
            placement.leave(self.files.iter_mut());
        }
    }
}
