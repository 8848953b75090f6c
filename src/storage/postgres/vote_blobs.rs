//! The blobs of a vote: those that a client has stored are uploaded, and an undo gets those of earlier revisions.

use std::collections::HashMap;
use std::path::PathBuf;

use super::PostgresStorage;
use super::blobs::{PostgresBlobs, Uploaded, VotedBlobs, VotedHome};
use super::shared::number;
use crate::base::ids::{Oid, Tid};
use crate::pickle::record::is_blob;
use crate::storage::{Result, Staged, StorageError};

impl PostgresStorage {
    /// Uploads the blobs of a transaction that is to be voted for.
    ///
    /// Errors: the storage has no blobs.
    pub(super) fn upload(&self, staged: &Staged) -> Result<Option<Uploaded>> {
        if staged.blobs().is_empty() {
            return Ok(None);
        }
        let blobs = self.blobs.as_deref().ok_or_else(StorageError::no_blobs)?;
        blobs.upload(staged.blobs(), &staged.cancel)
    }

    /// The blobs of a transaction that has passed its vote. `restored`: the objects whose last change is an undo, and
    /// the revision that each gets back; `None` if it was merged, or is not created any more.
    ///
    /// Errors: `NoBlob` if an object of class Blob gets a revision back whose blob is missing.
    pub(super) fn voted_blobs(
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
                        let path = PathBuf::from(format!("blob_chunk of object 0x{oid}, {from}"));
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
        let home = self.blobs.as_ref().map_or(VotedHome::Nowhere, |blobs| blobs.home());
        Ok(VotedBlobs::new(home, shared_chunks, uploaded, files))
    }

    /// Other objects have no blob.
    fn check_is_no_blob(&self, oid: Oid, serial: Tid, missing: StorageError) -> Result<()> {
        if is_blob(&self.shared.revision(oid, serial)?) { Err(missing) } else { Ok(()) }
    }
}
