//! Blobs of a group of transactions: they get their names before anything of the group is written.

use std::sync::Arc;

use super::draft::StagedObject;
use super::format::DATA_HEADER_LEN;
use super::voted::Job;
use super::{Core, FileStorage};
use crate::base::ids::{Oid, Tid};
use crate::pickle::record::is_blob;
use crate::storage::blob::Placement;
use crate::storage::error::copy_of_io;
use crate::storage::{BlobDir, Load, Result, Staged, StorageError, Ticket, Undone};

/// A group before it is written.
pub struct Prepared {
    pub jobs: Vec<Job>,
    /// The tid of each job.
    pub tids: Vec<Tid>,
    pub blobs: Option<Placement>,
    /// Transactions whose blobs could not be placed.
    pub failed: Vec<(Ticket, StorageError)>,
}

impl Core {
    /// Assigns the tids, and gives the blobs their names. If that fails, the transactions without blobs continue.
    pub fn prepare(&self, jobs: Vec<Job>, failed: Vec<(Ticket, StorageError)>) -> Prepared {
        let mut prepared = Prepared { tids: Vec::with_capacity(jobs.len()), jobs, blobs: None, failed };
        prepared.tids.extend(prepared.jobs.iter().map(|job| self.tids.at_finish(job.txn.tid)));
        if prepared.jobs.iter().all(|job| job.txn.staged.blobs().is_empty()) {
            return prepared;
        }
        match self.place_blobs(&mut prepared) {
            Ok(placement) => prepared.blobs = placement,
            Err(error) => {
                log::error!(target: super::log::TARGET, "{}: {error}", self.path.display());
                let jobs = std::mem::take(&mut prepared.jobs).into_iter();
                let tids = std::mem::take(&mut prepared.tids);
                for (job, tid) in jobs.zip(tids) {
                    // A copy goes no further than to the first that has failed.
                    if job.txn.staged.blobs().is_empty() && !job.txn.links_late {
                        prepared.jobs.push(job);
                        prepared.tids.push(tid);
                    } else {
                        prepared.failed.push((job.ticket, again(&error)));
                    }
                }
            }
        }
        prepared
    }

    fn place_blobs(&self, prepared: &mut Prepared) -> Result<Option<Placement>> {
        let Some(dir) = &self.blobs else { return Err(StorageError::no_blobs()) };
        let mut blobs = Vec::new();
        for (job, tid) in prepared.jobs.iter_mut().zip(&prepared.tids) {
            blobs.extend(job.txn.staged.blobs_mut().iter_mut().map(|(oid, blob)| (*oid, *tid, blob)));
        }
        dir.place(blobs).map(Some)
    }
}

/// A copy of the error for another client.
fn again(error: &StorageError) -> StorageError {
    match error {
        StorageError::Io { doing, error } => {
            StorageError::Io { doing: doing.clone(), error: copy_of_io(error) }
        }
        _ => StorageError::no_blobs(),
    }
}

impl FileStorage {
    /// An object that gets earlier data back also gets its earlier blob back, under the new name. Python copies the
    /// file; here it gets a second name, because blob files are never written again.
    pub(super) fn undo_blobs(
        &self,
        blobs: &Arc<BlobDir>,
        undone: &[Undone],
        objects: &[StagedObject],
        staged: &mut Staged,
    ) -> Result<()> {
        for Undone { oid, restored } in undone {
            // The object may have been stored again after the undo.
            let last =
                objects.binary_search_by_key(oid, |object| object.oid).ok().and_then(|at| objects.get(at));
            if last.is_some_and(|last| last.data_len > 0) {
                continue;
            }
            staged.remove_blob(*oid);
            let Some(restored) = *restored else { continue };
            match blobs.again(*oid, restored) {
                Ok(blob) => staged.add_blob(*oid, blob),
                Err(missing @ StorageError::NoBlob { .. }) => {
                    let mut data = Vec::new();
                    self.load_serial(*oid, restored, DATA_HEADER_LEN, &mut data)?;
                    if is_blob(data.get(DATA_HEADER_LEN..).unwrap_or_default()) {
                        return Err(missing);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether the object has a revision of exactly this transaction.
    pub(super) fn has_revision(&self, oid: Oid, tid: Tid) -> Result<bool> {
        let volume = self.core.volume.get_owned();
        let log = &volume.log;
        let mut pos = volume.index.pos(oid);
        while pos != 0 {
            let header = log.read_record(pos, Some(oid))?.header;
            if header.tid <= tid {
                return Ok(header.tid == tid);
            }
            pos = header.prev;
        }
        Ok(false)
    }
}
