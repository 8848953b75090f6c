//! The blobs of a transaction that is sent to a server.

use std::collections::HashMap;

use super::blobs::{BlobRecord, ClientBlobs, OutgoingBlob, send};
use super::link::Link;
use crate::base::ids::{Oid, Tid};
use crate::storage::{OpKind, Result, Staged, StorageError};

/// The blobs that belong to stores of a transaction.
#[derive(Default)]
pub struct CommitBlobs {
    /// By object: the last of its stores, with which the blob is sent.
    with: HashMap<Oid, StoreWithBlob>,
}

struct StoreWithBlob {
    /// The index of the operation.
    at: usize,
    serial: Tid,
    outgoing: OutgoingBlob,
}

impl CommitBlobs {
    /// Finds the blobs of a transaction and prepares them for sending.
    ///
    /// Errors: there is no `blob-dir`, or a blob cannot be read.
    pub fn of(staged: &mut Staged, blobs: Option<&ClientBlobs>) -> Result<CommitBlobs> {
        if staged.blobs().is_empty() {
            return Ok(CommitBlobs::default());
        }
        let blobs = blobs.ok_or_else(StorageError::no_blobs)?;
        let mut stores = HashMap::new();
        for (at, op) in staged.ops().iter().enumerate() {
            if let OpKind::Store { serial } = op.kind {
                stores.insert(op.oid, (at, serial));
            }
        }
        let mut with = HashMap::new();
        for (oid, blob) in staged.blobs_mut() {
            if let Some((at, serial)) = stores.get(oid).copied() {
                with.insert(*oid, StoreWithBlob { at, serial, outgoing: blobs.outgoing(blob, serial)? });
            }
        }
        Ok(CommitBlobs { with })
    }

    /// Whether the blob of the object goes with this operation.
    pub fn goes_with(&self, oid: Oid, at: usize) -> bool {
        !self.with.is_empty() && self.with.get(&oid).is_some_and(|with| with.at == at)
    }

    /// Sends the blob of an object with its record.
    pub fn send(&self, link: &Link, staged: &Staged, oid: Oid, txn: i64) -> Result<()> {
        let Some(with) = self.with.get(&oid) else { return Ok(()) };
        let Some(op) = staged.ops().get(with.at) else { return Ok(()) };
        let data = staged.payload(op)?;
        send(link, &with.outgoing, BlobRecord { oid, serial: with.serial, data: &data }, txn, &staged.cancel)
    }

    /// Whether they can be sent once more. The server has taken over those that were shared.
    pub fn can_be_sent_again(&self) -> bool {
        !self.with.values().any(|with| matches!(with.outgoing, OutgoingBlob::Shared(_)))
    }

    /// Sends all of them once more, for another vote: servers of Python have forgotten them.
    pub fn send_again(&self, link: &Link, staged: &Staged, txn: i64) -> Result<()> {
        self.with.keys().try_for_each(|oid| self.send(link, staged, *oid, txn))
    }
}
