//! Vote: conflicts are detected against base and changes together; the changes then vote.

use std::sync::Arc;

use super::{DemoStorage, known};
use crate::base::ids::{Oid, Tid};
use crate::conflict::Resolver;
use crate::storage::forward::forward;
use crate::storage::staged::{Op, OpKind};
use crate::storage::vote::{VoteSteps, walk};
use crate::storage::{Commit, Result, Staged, StorageError, Ticket, TidAt, Undone, VoteResult, Voted};

/// A transaction that the changes have voted.
struct VotedTxn {
    inner: Box<dyn Voted>,
    resolved: Vec<Oid>,
}

impl Voted for VotedTxn {
    fn tid(&self) -> Option<Tid> {
        self.inner.tid()
    }

    fn resolved(&self) -> &[Oid] {
        &self.resolved
    }

    fn undone(&self) -> &[Undone] {
        self.inner.undone()
    }
}

/// How an operation is changed before the changes see it.
enum Change {
    Kind(OpKind),
    Drop,
}

/// The steps of one vote.
struct DemoSteps<'a> {
    storage: &'a DemoStorage,
    /// The operations that are changed, in their order. Applied when no conflict is left: a transaction that is
    /// returned to the client must be unchanged.
    changes: Vec<(usize, Change)>,
    /// [`Current::in_changes`] of the last object that was asked for.
    in_changes: Option<Tid>,
}

impl VoteSteps for DemoSteps<'_> {
    fn committed(&mut self, oid: Oid) -> Result<Option<Tid>> {
        let current = self.storage.current(oid)?;
        self.in_changes = current.in_changes;
        Ok(current.seen)
    }

    fn add(&mut self, _staged: &mut Staged, index: usize, op: Op) -> Result<()> {
        match op.kind {
            OpKind::Store { serial } => {
                let serial = self.in_changes.unwrap_or(serial);
                self.changes.push((index, Change::Kind(OpKind::Store { serial })));
                Ok(())
            }
            OpKind::Delete { .. } => {
                let message = "objects cannot be deleted: the base would show through".into();
                Err(StorageError::Unsupported(message))
            }
            OpKind::CheckCurrent { .. } | OpKind::Restore { .. } | OpKind::Undo { .. } => Ok(()),
        }
    }

    fn leave_out(&mut self, index: usize, _op: &Op) {
        self.changes.push((index, Change::Drop));
    }
}

/// An object's serials.
struct Current {
    /// The serial that clients see.
    seen: Option<Tid>,
    /// The serial of the newest record in the changes, also if it is a deletion or an un-creation.
    in_changes: Option<Tid>,
}

impl Commit for DemoStorage {
    forward!(changes: tids_after, set_publisher);

    fn vote(&self, staged: Staged, tid_at: TidAt) -> VoteResult {
        let mut steps = DemoSteps { storage: self, changes: Vec::new(), in_changes: None };
        let (mut staged, mut resolved) = walk(self, &self.resolver, staged, &mut steps)?;
        let mut changes = steps.changes.into_iter().peekable();
        staged.change_ops(|index, kind| match changes.next_if(|(changed, _)| *changed == index) {
            Some((_, Change::Kind(kind))) => Some(kind),
            Some((_, Change::Drop)) => None,
            None => Some(kind),
        });
        let inner = self.changes.vote(staged, tid_at)?;
        resolved.extend(inner.resolved());
        Ok(Box::new(VotedTxn { inner, resolved }))
    }

    fn finish(&self, voted: Box<dyn Voted>, ticket: Ticket) {
        self.changes.finish(voted.into_own::<VotedTxn>().inner, ticket);
    }

    fn abort(&self, voted: Box<dyn Voted>) {
        self.changes.abort(voted.into_own::<VotedTxn>().inner);
    }

    fn set_resolver(&self, resolver: Arc<dyn Resolver>) {
        // The changes need it for undo.
        self.changes.set_resolver(Arc::clone(&resolver));
        self.resolver.set(resolver);
    }
}

impl DemoStorage {
    fn current(&self, oid: Oid) -> Result<Current> {
        if let Some(tid) = known(self.changes.get_tid(oid))? {
            return Ok(Current { seen: Some(tid), in_changes: Some(tid) });
        }
        let in_changes = known(self.changes.history(oid, 1))?.and_then(|entries| Some(entries.first()?.tid));
        let seen = known(self.base.get_tid(oid))?.or(in_changes);
        Ok(Current { seen, in_changes })
    }
}
