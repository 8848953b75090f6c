//! Vote and finish.

use std::sync::Arc;

use super::{Data, MappingStorage, OBJECT_SIZE, Transaction, revision_size};
use crate::base::ids::{Oid, Tid};
use crate::conflict::{Conflict, ResolverSlot};
use crate::storage::blob::StagedBlob;
use crate::storage::conflicts::{Conflicts, Settled, check_current};
use crate::storage::staged::OpKind;
use crate::storage::{
    Commit, Committed, Delivery, Publisher, Staged, Storage, StorageError, Ticket, TidAt, TransactionMeta,
    VoteResult, Voted,
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

/// The log target: Python's MappingStorage logs nothing.
const TARGET: &str = "ZODB.MappingStorage";

impl Commit for MappingStorage {
    fn tids_after(&self, tid: Tid) {
        self.tids.not_before(tid);
    }

    fn set_publisher(&self, publisher: Arc<dyn Publisher>) {
        self.publisher.set(publisher, TARGET, &self.name);
    }

    fn vote(&self, mut staged: Staged, tid_at: TidAt) -> VoteResult {
        let mut conflicts = Conflicts::default();
        let mut records = Vec::with_capacity(staged.ops().len());
        for index in 0..staged.ops().len() {
            let Some(op) = staged.ops().get(index).copied() else { break };
            let oid = op.oid;
            let newest = self.read()?.newest(oid).map(|(tid, data)| (*tid, data.is_some()));
            let (tid, has_data) = match op.kind {
                OpKind::CheckCurrent { serial } => {
                    check_current(self, oid, serial)?;
                    continue;
                }
                OpKind::Store { serial } => {
                    let committed = newest.map(|(tid, _)| tid);
                    // There is no resolver, as in Python. Only clients that want to merge can do so.
                    let nobody = ResolverSlot::default();
                    match conflicts.settle(self, &nobody, &mut staged, index, serial, committed)? {
                        Settled::Write(_) => (None, true),
                        Settled::Skip => continue,
                        Settled::Postponed => break,
                    }
                }
                OpKind::Delete { serial } => {
                    let (committed, _) = newest.ok_or(StorageError::PosKey(oid))?;
                    if committed != serial {
                        return Err(Conflict { oid, committed, read: serial, data: Vec::new() }.into());
                    }
                    (None, false)
                }
                OpKind::Restore { serial, has_data, .. } => (Some(serial), has_data),
                OpKind::Undo { .. } => {
                    return Err(StorageError::Unsupported(format!("{} cannot undo", self.name())).into());
                }
            };
            let data: Data = if has_data { Some(staged.payload(&op)?.into()) } else { None };
            records.push(Record { oid, tid, data });
        }
        let (mut staged, _) = conflicts.finish(staged)?;
        let blobs = staged.take_blobs();
        if self.blobs.is_none() && !blobs.is_empty() {
            return Err(StorageError::no_blobs().into());
        }
        let tid = match tid_at {
            TidAt::Finish => None,
            TidAt::Vote => Some(self.tids.at_vote(staged.tid)?),
        };
        Ok(Box::new(VotedTxn { tid, status: staged.status, meta: staged.meta, records, blobs }))
    }

    fn finish(&self, voted: Box<dyn Voted>, ticket: Ticket) {
        match self.publish(voted.into_own(), ticket) {
            Ok(delivery) => delivery.into_iter().for_each(|deliver| deliver()),
            Err((ticket, error)) => self.publisher.failed(ticket, error, TARGET, &self.name),
        }
    }
}

impl MappingStorage {
    /// On an error, if the storage is closed or a blob cannot be placed, returns the ticket.
    fn publish(
        &self,
        mut txn: VotedTxn,
        ticket: Ticket,
    ) -> std::result::Result<Option<Delivery>, (Ticket, StorageError)> {
        let _committing = self.committing();
        let tid = self.tids.at_finish(txn.tid);
        let mut oids: Vec<Oid> = txn.records.iter().map(|record| record.oid).collect();
        oids.sort_unstable();
        oids.dedup();
        let (object_count, size) = match self.read() {
            Ok(state) => {
                let new = oids.iter().filter(|oid| !state.objects.contains_key(oid)).count() as u64;
                let revisions: u64 = txn.records.iter().map(|record| revision_size(&record.data)).sum();
                (state.objects.len() as u64 + new, state.size + new * OBJECT_SIZE + revisions)
            }
            Err(error) => return Err((ticket, error)),
        };
        match self
            .blobs
            .as_ref()
            .map(|dir| dir.place(txn.blobs.iter_mut().map(|(oid, blob)| (*oid, tid, blob))))
        {
            Some(Ok(placement)) => placement.keep(),
            Some(Err(error)) => return Err((ticket, error)),
            None => {}
        }
        // Removes the temporary names.
        txn.blobs.clear();
        let mut txn = Some(txn);
        let state = &self.state;
        let mut install = || {
            let Some(txn) = txn.take() else { return };
            let mut state = state.write();
            let mut records = Vec::with_capacity(txn.records.len());
            for record in txn.records {
                state.insert(record.oid, record.tid.unwrap_or(tid), record.data.clone());
                records.push((record.oid, record.data));
            }
            let transaction = Transaction { status: txn.status, meta: txn.meta, records };
            state.transactions.insert(tid, transaction);
            state.last = state.last.max(tid);
        };
        let group = vec![Committed { tid, oids, object_count, size, ticket }];
        Ok(self.publisher.publish(group, &mut install))
    }
}
