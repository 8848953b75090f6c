//! Vote and finish.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::TemporaryStorage;
use crate::base::ids::{Oid, Tid};
use crate::conflict::Resolver;
use crate::pickle::refs;
use crate::storage::conflicts::{Conflicts, Settled, check_current};
use crate::storage::staged::OpKind;
use crate::storage::{
    Commit, Committed, Delivery, Publisher, Refusal, Result, Staged, StorageError, Ticket, TidAt, VoteResult,
    Voted,
};

/// A transaction that has passed its vote.
struct VotedTxn {
    tid: Option<Tid>,
    records: Vec<Record>,
    resolved: Vec<Oid>,
}

struct Record {
    oid: Oid,
    data: Arc<[u8]>,
    /// Each once, ascending.
    references: Vec<Oid>,
}

impl Voted for VotedTxn {
    fn tid(&self) -> Option<Tid> {
        self.tid
    }

    fn resolved(&self) -> &[Oid] {
        &self.resolved
    }
}

/// The log target: Python's tempstorage logs nothing.
const TARGET: &str = "tempstorage";

impl Commit for TemporaryStorage {
    fn tids_after(&self, tid: Tid) {
        self.tids.not_before(tid);
    }

    fn set_publisher(&self, publisher: Arc<dyn Publisher>) {
        self.publisher.set(publisher, TARGET, &self.name);
    }

    fn set_resolver(&self, resolver: Arc<dyn Resolver>) {
        self.resolver.set(resolver);
    }

    fn vote(&self, mut staged: Staged, tid_at: TidAt) -> VoteResult {
        let mut conflicts = Conflicts::default();
        let mut records = Vec::with_capacity(staged.ops().len());
        for index in 0..staged.ops().len() {
            let Some(op) = staged.ops().get(index).copied() else { break };
            match op.kind {
                OpKind::CheckCurrent { serial } => check_current(self, op.oid, serial)?,
                OpKind::Store { serial } => {
                    let committed = self.read()?.serial(op.oid);
                    let settled =
                        conflicts.settle(self, &self.resolver, &mut staged, index, serial, committed)?;
                    match settled {
                        Settled::Write(op) => {
                            records.push(record(op.oid, staged.payload(&op)?)?);
                        }
                        Settled::Skip => {}
                        Settled::Postponed => break,
                    }
                }
                OpKind::Delete { .. } => return Err(self.unsupported("objects cannot be deleted").into()),
                OpKind::Undo { .. } => return Err(self.unsupported("nothing can be undone").into()),
                OpKind::Restore { .. } => return Err(self.unsupported("nothing can be copied to it").into()),
            }
        }
        let (staged, resolved) = conflicts.finish(staged)?;
        let tid = match tid_at {
            TidAt::Finish => None,
            TidAt::Vote => Some(self.tids.at_vote(staged.tid)?),
        };
        Ok(Box::new(VotedTxn { tid, records, resolved }))
    }

    fn finish(&self, voted: Box<dyn Voted>, ticket: Ticket) {
        match self.publish(voted.into_own(), ticket) {
            Ok(delivery) => delivery.into_iter().for_each(|deliver| deliver()),
            Err(ticket) => self.publisher.failed(ticket, self.closed(), TARGET, &self.name),
        }
    }
}

impl TemporaryStorage {
    /// Returns the ticket if the storage is closed.
    fn publish(&self, txn: VotedTxn, ticket: Ticket) -> std::result::Result<Option<Delivery>, Ticket> {
        let _committing = self.committing();
        let tid = self.tids.at_finish(txn.tid);
        let mut oids: Vec<Oid> = txn.records.iter().map(|record| record.oid).collect();
        oids.sort_unstable();
        oids.dedup();
        // Objects that will be collected are still counted.
        let object_count = match self.read() {
            Ok(state) => {
                let new = oids.iter().filter(|oid| !state.objects.contains_key(oid)).count();
                (state.objects.len() + new) as u64
            }
            Err(_) => return Err(ticket),
        };
        let mut records = Some(txn.records);
        let mut install = || {
            let mut state = self.state.write();
            let mut zeros = BTreeSet::new();
            for Record { oid, data, references } in records.take().into_iter().flatten() {
                state.put(oid, tid, data, references, &mut zeros);
            }
            state.collect(zeros);
            state.forget_former();
            state.last = tid;
        };
        let group = vec![Committed { tid, oids, object_count, size: 0, ticket }];
        Ok(self.publisher.publish(group, &mut install))
    }
}

fn record(oid: Oid, data: Vec<u8>) -> Result<Record> {
    let mut references = Vec::new();
    refs::references(&data, &mut references).map_err(|reason| StorageError::Refused {
        what: Refusal::Record,
        message: format!("the references in the record of object 0x{oid} cannot be found: {reason}"),
    })?;
    references.sort_unstable();
    references.dedup();
    Ok(Record { oid, data: data.into(), references })
}
