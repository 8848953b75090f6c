//! Copies of another storage's transactions, a batch of them with one write and one sync.
//!
//! The transactions of a batch are all voted before the first is written. So where the object's last record will be may
//! not be known at the vote: the writer sets it ([`VotedTxn::links_late`](super::voted::VotedTxn)). A batch goes into
//! the queue of the group commit as a whole, and is short enough for one group: it is committed as a whole, too.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::draft::distinct;
use super::volume::Volume;
use super::voted::{GROUP_LEN_MAX, Job, VotedTxn};
use super::{Core, FileStorage};
use crate::base::ids::{Oid, Tid};
use crate::storage::staged::{OpKind, Staged};
use crate::storage::{Bulk, BulkWriter, Commit, Result, StorageError, TidAt};

/// Bytes of the transactions of a batch, if it has more than one. As a group may have: a replica stores a group of its
/// primary as a whole.
const BATCH_LEN_MAX: u64 = GROUP_LEN_MAX;
/// Transactions of a batch, for the same reason more than clients commit at once.
const BATCH_MAX: usize = 10_000;

/// A copy that goes on.
struct Copy<'a> {
    storage: &'a FileStorage,
    batch: Vec<VotedTxn>,
    len: u64,
    /// The objects of the batch.
    oids: HashSet<Oid>,
    /// The last transaction that was added.
    last: Tid,
}

/// In the place of a client's ticket. The receiver ends when all tickets of a batch are gone.
pub(super) struct CopyTicket(Sender<StorageError>);

impl CopyTicket {
    /// The transaction is not committed.
    pub(super) fn failed(&self, error: StorageError) {
        // An error means that the copy was given up.
        _ = self.0.send(error);
    }
}

impl Bulk for FileStorage {
    fn begin(&self) -> Result<Box<dyn BulkWriter + '_>> {
        self.check_writable()?;
        let last = self.core.last_tid();
        Ok(Box::new(Copy { storage: self, batch: Vec::new(), len: 0, oids: HashSet::new(), last }))
    }
}

impl BulkWriter for Copy<'_> {
    fn add(&mut self, staged: Staged) -> Result<()> {
        let Some(tid) = staged.tid.filter(|tid| *tid > self.last) else {
            let last = self.last;
            return Err(StorageError::Transaction(format!("a copied transaction is not later than {last}")));
        };
        let mut points_into_batch = false;
        for op in staged.ops() {
            let OpKind::Restore { prev_txn, .. } = op.kind else {
                return Err(StorageError::Unsupported("a copy has nothing but copied records".into()));
            };
            points_into_batch |= prev_txn.is_some() && self.oids.contains(&op.oid);
        }
        // The vote looks for the record that a back-pointer leads to.
        if points_into_batch {
            self.write()?;
        }
        let mut voted = self.storage.vote(staged, TidAt::Vote)?.into_own::<VotedTxn>();
        if self.len + voted.len() > BATCH_LEN_MAX || self.batch.len() >= BATCH_MAX {
            self.write()?;
        }
        voted.links_late = true;
        self.len += voted.len();
        self.oids.extend(voted.objects.iter().map(|object| object.oid));
        self.batch.push(voted);
        self.last = tid;
        Ok(())
    }

    fn complete(mut self: Box<Self>) -> Result<()> {
        self.write()
    }
}

impl Copy<'_> {
    /// Commits the batch. Returns when it is published.
    fn write(&mut self) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let (ticket, failures) = channel();
        let jobs = self.batch.drain(..).map(|txn| Job { txn, ticket: Box::new(CopyTicket(ticket.clone())) });
        let jobs = jobs.collect();
        drop(ticket);
        self.len = 0;
        self.oids.clear();
        let core = &self.storage.core;
        core.finish_all(jobs);
        outcome(core, &failures, self.last)
    }
}

/// Waits until a batch that ends with `last` is committed or refused.
fn outcome(core: &Arc<Core>, failures: &Receiver<StorageError>, last: Tid) -> Result<()> {
    let first = failures.iter().fold(None, |first, error| Some(first.unwrap_or(error)));
    match first {
        Some(error) => Err(error),
        None if core.last_tid() >= last => Ok(()),
        None => Err(StorageError::Closed(core.broken().unwrap_or("a copy has not ended").into())),
    }
}

/// Where the objects of a group were written last.
#[derive(Default)]
pub(super) struct Links(HashMap<Oid, u64>);

impl Links {
    /// Links a transaction that is about to be written at `pos`.
    pub(super) fn set(&mut self, volume: &Volume, txn: &mut VotedTxn, pos: u64) {
        if !txn.links_late {
            return;
        }
        for record in &mut txn.records {
            record.prev = self.0.get(&record.oid).copied().unwrap_or_else(|| volume.index.pos(record.oid));
        }
        txn.objects = distinct(&txn.records);
        let first = pos + txn.head_len();
        self.0.extend(txn.objects.iter().map(|object| (object.oid, first + object.file_at)));
    }
}
