//! Vote and finish.

use std::sync::Arc;

use super::{Data, MappingStorage, OBJECT_SIZE, Transaction, revision_size};
use crate::base::ids::{Oid, Tid};
use crate::conflict::ResolverSlot;
use crate::storage::blob::StagedBlob;
use crate::storage::in_memory::{Pending, Totals};
use crate::storage::staged::{Op, OpKind};
use crate::storage::vote::{VoteSteps, check_delete, walk};
use crate::storage::{
    Commit, Publisher, Result, Staged, Storage, StorageError, Ticket, TidAt, TransactionMeta, VoteResult,
    Voted,
};

/// A transaction that has passed its vote.
struct VotedTxn {
    tid: Option<Tid>,
    status: u8,
    meta: TransactionMeta,
    records: Vec<Record>,
    blobs: Vec<(Oid, StagedBlob)>,
}

struct Record {
    oid: Oid,
    /// A restored record has its own tid; otherwise it is the transaction's.
    tid: Option<Tid>,
    data: Data,
}

impl Voted for VotedTxn {
    fn tid(&self) -> Option<Tid> {
        self.tid
    }
}

/// The steps of one vote.
struct MappingSteps<'a> {
    storage: &'a MappingStorage,
    records: Vec<Record>,
}

impl VoteSteps for MappingSteps<'_> {
    fn committed(&mut self, oid: Oid) -> Result<Option<Tid>> {
        Ok(self.storage.read()?.newest(oid).map(|(tid, _)| *tid))
    }

    fn add(&mut self, staged: &mut Staged, _index: usize, op: Op) -> Result<()> {
        let (tid, has_data) = match op.kind {
            OpKind::Store { .. } => (None, true),
            OpKind::Delete { serial } => {
                check_delete(op.oid, serial, self.committed(op.oid)?)?;
                (None, false)
            }
            OpKind::Restore { serial, has_data, .. } => (Some(serial), has_data),
            OpKind::Undo { .. } => {
                return Err(StorageError::Unsupported(format!("{} cannot undo", self.storage.name())));
            }
            OpKind::CheckCurrent { .. } => return Ok(()),
        };
        let data: Data = if has_data { Some(staged.payload(&op)?.into()) } else { None };
        self.records.push(Record { oid: op.oid, tid, data });
        Ok(())
    }
}

impl Commit for MappingStorage {
    fn tids_after(&self, tid: Tid) {
        self.commits.tids.not_before(tid);
    }

    fn set_publisher(&self, publisher: Arc<dyn Publisher>) {
        self.commits.set_publisher(publisher, &self.name);
    }

    fn vote(&self, staged: Staged, tid_at: TidAt) -> VoteResult {
        drop(self.read()?);
        let mut steps = MappingSteps { storage: self, records: Vec::with_capacity(staged.ops().len()) };
        // There is no resolver, as in Python. Only clients that want to merge can do so.
        let (mut staged, _) = walk(self, &ResolverSlot::default(), staged, &mut steps)?;
        let blobs = staged.take_blobs();
        if self.blobs.is_none() && !blobs.is_empty() {
            return Err(StorageError::no_blobs().into());
        }
        let tid = self.commits.tids.for_vote(tid_at, staged.tid)?;
        let (status, meta) = (staged.status, staged.meta);
        Ok(Box::new(VotedTxn { tid, status, meta, records: steps.records, blobs }))
    }

    fn finish(&self, voted: Box<dyn Voted>, ticket: Ticket) {
        let txn: VotedTxn = voted.into_own();
        self.commits.finish(&self.name, ticket, txn.tid, Finishing { storage: self, txn });
    }
}

struct Finishing<'a> {
    storage: &'a MappingStorage,
    txn: VotedTxn,
}

impl Pending for Finishing<'_> {
    fn oids(&self) -> Vec<Oid> {
        self.txn.records.iter().map(|record| record.oid).collect()
    }

    fn prepare(&mut self, tid: Tid, oids: &[Oid]) -> Result<Totals> {
        let Finishing { storage, txn } = self;
        let totals = {
            let state = storage.read()?;
            let new = oids.iter().filter(|oid| !state.objects.contains_key(oid)).count() as u64;
            let revisions: u64 = txn.records.iter().map(|record| revision_size(&record.data)).sum();
            let size = state.size + new * OBJECT_SIZE + revisions;
            Totals { object_count: state.objects.len() as u64 + new, size }
        };
        if let Some(dir) = &storage.blobs {
            dir.place(txn.blobs.iter_mut().map(|(oid, blob)| (*oid, tid, blob)))?.keep();
        }
        // Removes the temporary names.
        txn.blobs.clear();
        Ok(totals)
    }

    fn install(self, tid: Tid) {
        let Finishing { storage, txn } = self;
        let mut state = storage.state.write();
        let mut records = Vec::with_capacity(txn.records.len());
        for record in txn.records {
            state.insert(record.oid, record.tid.unwrap_or(tid), record.data.clone());
            records.push((record.oid, record.data));
        }
        let transaction = Transaction { status: txn.status, meta: txn.meta, records };
        state.transactions.insert(tid, transaction);
        state.last = state.last.max(tid);
    }
}
