//! Vote and finish.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::TemporaryStorage;
use crate::base::ids::{Oid, Tid};
use crate::conflict::Resolver;
use crate::pickle::refs;
use crate::storage::in_memory::{Pending, Totals};
use crate::storage::staged::{Op, OpKind};
use crate::storage::vote::{VoteSteps, walk};
use crate::storage::{
    Commit, Publisher, Refusal, Result, Staged, StorageError, Ticket, TidAt, VoteResult, Voted,
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

/// The steps of one vote.
struct TemporarySteps<'a> {
    storage: &'a TemporaryStorage,
    records: Vec<Record>,
}

impl VoteSteps for TemporarySteps<'_> {
    fn committed(&mut self, oid: Oid) -> Result<Option<Tid>> {
        Ok(self.storage.read()?.serial(oid))
    }

    fn add(&mut self, staged: &mut Staged, _index: usize, op: Op) -> Result<()> {
        match op.kind {
            OpKind::Store { .. } => {
                self.records.push(record(op.oid, staged.payload(&op)?)?);
                Ok(())
            }
            OpKind::CheckCurrent { .. } => Ok(()),
            OpKind::Delete { .. } => Err(self.storage.unsupported("objects cannot be deleted")),
            OpKind::Undo { .. } => Err(self.storage.unsupported("nothing can be undone")),
            OpKind::Restore { .. } => Err(self.storage.unsupported("nothing can be copied to it")),
        }
    }
}

impl Commit for TemporaryStorage {
    fn tids_after(&self, tid: Tid) {
        self.commits.tids.not_before(tid);
    }

    fn set_publisher(&self, publisher: Arc<dyn Publisher>) {
        self.commits.set_publisher(publisher, &self.name);
    }

    fn set_resolver(&self, resolver: Arc<dyn Resolver>) {
        self.resolver.set(resolver);
    }

    fn vote(&self, staged: Staged, tid_at: TidAt) -> VoteResult {
        let mut steps = TemporarySteps { storage: self, records: Vec::with_capacity(staged.ops().len()) };
        let (staged, resolved) = walk(self, &self.resolver, staged, &mut steps)?;
        let tid = self.commits.tids.for_vote(tid_at, staged.tid)?;
        Ok(Box::new(VotedTxn { tid, records: steps.records, resolved }))
    }

    fn finish(&self, voted: Box<dyn Voted>, ticket: Ticket) {
        let VotedTxn { tid, records, .. } = voted.into_own();
        self.commits.finish(&self.name, ticket, tid, Finishing { storage: self, records });
    }
}

struct Finishing<'a> {
    storage: &'a TemporaryStorage,
    records: Vec<Record>,
}

impl Pending for Finishing<'_> {
    fn oids(&self) -> Vec<Oid> {
        self.records.iter().map(|record| record.oid).collect()
    }

    /// Objects that will be collected are still counted.
    fn prepare(&mut self, _tid: Tid, oids: &[Oid]) -> Result<Totals> {
        let state = self.storage.read()?;
        let new = oids.iter().filter(|oid| !state.objects.contains_key(oid)).count();
        Ok(Totals { object_count: (state.objects.len() + new) as u64, size: 0 })
    }

    fn install(self, tid: Tid) {
        let mut state = self.storage.state.write();
        let mut zeros = BTreeSet::new();
        for Record { oid, data, references } in self.records {
            state.put(oid, tid, data, references, &mut zeros);
        }
        state.collect(zeros);
        state.forget_former();
        state.last = tid;
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
