//! Transactions: stores that were staged here are sent to the server, voted and finished there.
//!
//! A server has one open transaction for each link, so transactions take turns, from the first store that is sent until
//! the finish is answered. The stores of a transaction leave at once, after all were staged: a slow caller does not
//! keep others waiting.
//!
//! A transaction belongs to the link on which it was begun, and fails with it. If the link ends while the finish is
//! under way, nobody knows the outcome ([`StorageError::OutcomeUnknown`]).

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};
use std::mem;

use super::ask::{AskError, ask, understood};
use super::commit_blobs::CommitBlobs;
use super::link::{Link, LinkError};
use super::recent::Change;
use super::turns::Turn;
use super::upstream::{InUse, LOG, Upstream};
use crate::base::ids::{Oid, Tid};
use crate::base::sync::Arc;
use crate::conflict::{Conflict, ThreeStates};
use crate::exceptions::meaning::to_storage_error;
use crate::storage::{
    Merging, NotVoted, Op, OpKind, Result, Staged, StorageError, Ticket, TidAt, Undone, VoteResult, Voted,
};
use crate::wire::answers::{Answer, Serialno};
use crate::wire::availability::Method;
use crate::wire::calls::Call;
use crate::wire::protocol::UndoCall;
use crate::wire::results::UnresolvedObject;
use crate::wire::undo_id::undo_id;
use crate::wire::value::extension_dict;

/// Rounds of votes in one transaction: each may find conflicts that have come since the last. As in Python's client.
const ROUNDS_MAX: usize = 10;

/// A transaction on the server, which has it aborted unless it is finished.
struct Begun {
    in_use: InUse,
    txn: i64,
    is_open: bool,
    /// Given back last: the abort is sent before anybody else begins.
    _turn: Turn,
}

impl Drop for Begun {
    fn drop(&mut self) {
        if !mem::take(&mut self.is_open) {
            return;
        }
        let call = Call::TpcAbort { txn: self.txn };
        if self.in_use.link.wire().is_one_way(Method::TpcAbort) {
            self.in_use.link.send(&call);
        } else {
            // What comes after it is handled after it.
            self.in_use.link.start(&call, |_, _| ());
        }
    }
}

/// A transaction that the server has voted for.
pub struct ServerVoted {
    begun: Begun,
    staged: Staged,
    /// See [`Voted::resolved`]. Ascending.
    resolved: Vec<Oid>,
    undone: Vec<Undone>,
}

impl Voted for ServerVoted {
    /// The server assigns it at finish.
    fn tid(&self) -> Option<Tid> {
        None
    }

    fn resolved(&self) -> &[Oid] {
        &self.resolved
    }

    fn undone(&self) -> &[Undone] {
        &self.undone
    }
}

/// What the server changed of what was sent.
#[derive(Default)]
struct ServerChanges {
    resolved: BTreeSet<Oid>,
    undone: BTreeSet<Oid>,
}

impl Upstream {
    /// Sends a transaction and has the server vote. The result is a [`ServerVoted`].
    ///
    /// The server assigns the tid at finish. With [`TidAt::Vote`] all stored objects are reported as merged: a client
    /// that needs the tid at vote then loads them again, with their tid.
    pub fn vote(self: &Arc<Self>, mut staged: Staged, tid_at: TidAt) -> VoteResult {
        if staged.merging() == Merging::AtOnce {
            return Err(NotVoted::Postponed(Box::new(staged)));
        }
        let begun = self.begin(&staged)?;
        self.check_that_it_can(&begun, &staged)?;
        let mut outcome = ServerChanges::default();
        let blobs = CommitBlobs::of(&mut staged, self.blobs.as_ref())?;
        self.send_operations(&begun, &staged, &blobs, &mut outcome)?;
        let mut rounds = 0;
        loop {
            let conflicts = self.vote_once(&begun, &staged, &mut outcome)?;
            if conflicts.is_empty() {
                break;
            }
            rounds += 1;
            if staged.merging() == Merging::ByClient {
                return Err(NotVoted::Unmerged { conflicts, staged: Box::new(staged) });
            }
            for conflict in conflicts {
                if rounds == ROUNDS_MAX || !blobs.can_be_sent_again() {
                    return Err(conflict.into());
                }
                self.merge(&begun, &mut staged, conflict, &mut outcome)?;
            }
            blobs.send_again(&begun.in_use.link, &staged, begun.txn)?;
        }
        self.check_reads(&begun, &staged)?;
        let undone = outcome.undone.into_iter().map(|oid| Undone { oid, restored: None }).collect();
        if tid_at == TidAt::Vote {
            let stored = staged.ops().iter().filter(|op| matches!(op.kind, OpKind::Store { .. }));
            outcome.resolved.extend(stored.map(|op| op.oid));
        }
        Ok(Box::new(ServerVoted { begun, staged, resolved: outcome.resolved.into_iter().collect(), undone }))
    }

    fn begin(self: &Arc<Self>, staged: &Staged) -> Result<Begun> {
        let cancelled = || StorageError::Transaction("the transaction was given up".into());
        let waiting = Arc::clone(&self.turns);
        let cancel = staged.cancel.on_cancel(move || waiting.wake());
        let turn = self.turns.take(|| staged.cancel.is_cancelled() || self.is_closed());
        drop(cancel);
        let turn = turn.ok_or_else(cancelled)?;
        let in_use = self.in_use()?;
        if in_use.is_read_only {
            return Err(StorageError::ReadOnly);
        }
        in_use.serialnos.lock().clear();
        let txn = self.next_transaction();
        let begun = Begun { in_use, txn, is_open: true, _turn: turn };
        let extension = extension_dict(&staged.meta.extension).ok_or_else(|| {
            StorageError::Transaction("the extension of the transaction is no dict of plain values".into())
        })?;
        let call = Call::TpcBegin {
            txn,
            user: &staged.meta.user,
            description: &staged.meta.description,
            extension: &extension,
            tid: staged.tid,
            status: char::from(staged.status),
        };
        self.tell(&begun, &call)?;
        Ok(begun)
    }

    /// Sends a call that has no result, and waits for the answer of a server that gives one.
    fn tell(&self, begun: &Begun, call: &Call<'_>) -> Result<()> {
        let link = &begun.in_use.link;
        if call.method(link.wire()).is_some_and(|method| link.wire().is_one_way(method)) {
            link.send(call);
            return Ok(());
        }
        Ok(ask(link, call, None, |answer| answer.done())?)
    }

    /// Refuses what this generation of servers has no method for.
    fn check_that_it_can(&self, begun: &Begun, staged: &Staged) -> Result<()> {
        let wire = begun.in_use.link.wire();
        for op in staged.ops() {
            let method = match op.kind {
                OpKind::Delete { .. } => Method::DeleteObject,
                OpKind::Restore { .. } => Method::Restore,
                OpKind::Store { .. } | OpKind::CheckCurrent { .. } | OpKind::Undo { .. } => continue,
            };
            if !wire.knows(method) {
                let message = format!(
                    "{}: servers of protocol {} have no {}",
                    self.name(),
                    wire.generation,
                    method.name()
                );
                return Err(StorageError::Unsupported(message));
            }
        }
        Ok(())
    }

    fn send_operations(
        &self,
        begun: &Begun,
        staged: &Staged,
        blobs: &CommitBlobs,
        outcome: &mut ServerChanges,
    ) -> Result<()> {
        let Begun { in_use: InUse { link, .. }, txn, .. } = begun;
        let (wire, txn) = (link.wire(), *txn);
        for (at, op) in staged.ops().iter().enumerate() {
            let oid = op.oid;
            match op.kind {
                OpKind::Store { .. } if blobs.goes_with(oid, at) => blobs.send(link, staged, oid, txn)?,
                OpKind::Store { serial } => {
                    link.send(&Call::Store { oid, serial, data: &staged.payload(op)?, txn });
                }
                OpKind::Delete { serial } => link.send(&Call::DeleteObject { oid, serial, txn }),
                OpKind::Restore { serial, prev_txn, has_data } => {
                    let data = has_data.then(|| staged.payload(op)).transpose()?;
                    link.send(&Call::Restore { oid, serial, data: data.as_deref(), prev_txn, txn });
                }
                // Others are checked after the vote.
                OpKind::CheckCurrent { serial } if wire.knows(Method::CheckCurrentSerial) => {
                    link.send(&Call::CheckCurrentSerial { oid, serial, txn });
                }
                OpKind::CheckCurrent { .. } => {}
                OpKind::Undo { tid } => {
                    let call = Call::Undo { undone: &undo_id(tid), txn };
                    match wire.undo_call() {
                        UndoCall::Buffered => link.send(&call),
                        UndoCall::Answered => {
                            let undone = ask(link, &call, None, |answer| answer.invalidations())?;
                            outcome.undone.extend(undone.into_iter().flat_map(|(_, oids)| oids));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Calls vote. Returns the conflicts that this client is to merge.
    fn vote_once(
        &self,
        begun: &Begun,
        staged: &Staged,
        outcome: &mut ServerChanges,
    ) -> Result<Vec<Conflict>> {
        let in_use = &begun.in_use;
        let wire = in_use.link.wire();
        let voted = ask(&in_use.link, &Call::Vote { txn: begun.txn }, None, |answer| answer.vote());
        let voted = voted.map_err(|error| self.vote_refused(error, staged))?;
        let mut changed: BTreeSet<Oid> = voted.resolved.into_iter().collect();
        if wire.sends_serialnos() {
            let serialnos = mem::take(&mut *in_use.serialnos.lock());
            for (oid, serialno) in serialnos {
                match serialno {
                    Serialno::Stored(_) => {}
                    Serialno::Resolved => drop(changed.insert(oid)),
                    Serialno::Raised(exception) => {
                        return Err(self.vote_refused(AskError::Raised(exception), staged));
                    }
                }
            }
        }
        if !changed.is_empty() {
            let stores = staged.ops().iter().filter(|op| matches!(op.kind, OpKind::Store { .. }));
            let stored: HashSet<Oid> = stores.map(|op| op.oid).collect();
            let (resolved, undone): (BTreeSet<_>, BTreeSet<_>) =
                changed.into_iter().partition(|oid| stored.contains(oid));
            outcome.resolved.extend(resolved);
            outcome.undone.extend(undone);
        }
        let conflict = |object: UnresolvedObject| {
            let UnresolvedObject { oid, committed, read, data } = object;
            Conflict { oid, committed, read, data }
        };
        Ok(voted.conflicts.into_iter().map(conflict).collect())
    }

    /// The error of a vote. The cache may be wrong about an object that conflicts: the next transaction loads it again.
    fn vote_refused(&self, error: AskError, staged: &Staged) -> StorageError {
        let mut error = StorageError::from(error);
        if let StorageError::Conflict(conflict) | StorageError::ReadConflict(conflict) = &mut error {
            self.timeline.forget(conflict.oid);
            // For the name of the class in the message.
            let stored = |op: &&Op| op.oid == conflict.oid && matches!(op.kind, OpKind::Store { .. });
            if let Some(op) = staged.ops().iter().rev().find(stored) {
                conflict.data = staged.payload(op).unwrap_or_default();
            }
        }
        error
    }

    /// Merges a conflict here and stores the result.
    fn merge(
        self: &Arc<Self>,
        begun: &Begun,
        staged: &mut Staged,
        conflict: Conflict,
        outcome: &mut ServerChanges,
    ) -> Result<()> {
        let Conflict { oid, committed, read, .. } = conflict;
        self.timeline.forget(oid);
        let state = |serial| {
            let call = Call::LoadSerial { oid, serial };
            ask(&begun.in_use.link, &call, None, |answer| Ok(answer.bytes()?.to_vec()))
        };
        let (old, current) = (state(read)?, state(committed)?);
        let merged = self.resolver.merge(&ThreeStates {
            oid,
            read,
            committed_serial: committed,
            old: &old,
            committed: &current,
            new: &conflict.data,
            cancel: &staged.cancel,
        })?;
        let call = Call::Store { oid, serial: committed, data: &merged, txn: begun.txn };
        begun.in_use.link.send(&call);
        outcome.resolved.insert(oid);
        Ok(())
    }

    /// The checks of objects that were only read, with servers that have no method for it: after the vote, which locks
    /// the storage of these servers until the finish, so nothing can change any more.
    fn check_reads(&self, begun: &Begun, staged: &Staged) -> Result<()> {
        let link = &begun.in_use.link;
        if link.wire().knows(Method::CheckCurrentSerial) {
            return Ok(());
        }
        for op in staged.ops() {
            let OpKind::CheckCurrent { serial: read } = op.kind else { continue };
            let committed = ask(link, &Call::GetTid { oid: op.oid }, None, |answer| answer.tid())?;
            if committed != read {
                let conflict = Conflict { oid: op.oid, committed, read, data: Vec::new() };
                self.timeline.forget(op.oid);
                return Err(StorageError::ReadConflict(Box::new(conflict)));
            }
        }
        Ok(())
    }

    /// Finishes a transaction. The outcome goes to the publisher, with the ticket, from the thread of the link.
    pub fn finish(self: &Arc<Self>, voted: ServerVoted, ticket: Ticket) {
        let ServerVoted { mut begun, mut staged, resolved, undone } = voted;
        // From here on it cannot be aborted.
        begun.is_open = false;
        let upstream = Arc::clone(self);
        let (link, txn) = (begun.in_use.link.clone(), begun.txn);
        if link.has_ended() {
            // Nothing was finished on it.
            let why = format!("{}: the connection was lost before a transaction was finished", self.name());
            return self.publisher.failed(ticket, StorageError::Disconnected(why), LOG, &self.name());
        }
        link.start(&Call::TpcFinish { txn }, move |link, answer| {
            let outcome =
                upstream.finished(link, &begun.in_use, answer, &mut staged, &resolved, &undone, ticket);
            drop(begun);
            if let Err((ticket, error)) = outcome {
                upstream.publisher.failed(ticket, error, LOG, &upstream.name());
            }
        });
    }

    /// The answer to a finish. `Err`: the ticket's transaction is not committed, or nobody knows.
    #[allow(clippy::too_many_arguments)] // the parts of one transaction
    fn finished(
        &self,
        link: &Link,
        in_use: &InUse,
        answer: std::result::Result<Answer<'_>, LinkError>,
        staged: &mut Staged,
        resolved: &[Oid],
        undone: &[Undone],
        ticket: Ticket,
    ) -> std::result::Result<(), (Ticket, StorageError)> {
        let unknown = |why: &dyn std::fmt::Display| {
            let text = "the connection was lost while a transaction was being finished; nobody knows whether it is committed";
            StorageError::OutcomeUnknown(format!("{}: {text}: {why}", self.name()))
        };
        let tid = match answer.map(|answer| answer.tid()) {
            Ok(Ok(tid)) => tid,
            Ok(Err(error)) => {
                return Err((
                    ticket,
                    match understood(link, error) {
                        AskError::Raised(exception) => to_storage_error(&exception),
                        broken => unknown(&broken),
                    },
                ));
            }
            Err(error) => return Err((ticket, unknown(&error))),
        };
        if let Some(blobs) = &self.blobs {
            staged.take_blobs().into_iter().for_each(|(oid, blob)| blobs.committed(oid, tid, blob));
        }
        let mut oids: BTreeSet<Oid> = undone.iter().map(|undone| undone.oid).collect();
        oids.extend(staged.ops().iter().filter(|op| changes(op.kind)).map(|op| op.oid));
        oids.extend(resolved);
        let stored = staged.ops().iter().filter_map(|op| {
            let is_known =
                matches!(op.kind, OpKind::Store { .. }) && resolved.binary_search(&op.oid).is_err();
            // What cannot be read back is not cached.
            is_known.then(|| Some((op.oid, Cow::Owned(staged.payload(op).ok()?))))?
        });
        let change = Change { tid, oids: oids.into_iter().collect() };
        self.timeline
            .finished(in_use.id, change, stored, ticket)
            .map_err(|ticket| (ticket, unknown(&"another connection has taken its place")))
    }
}

/// Whether an operation changes its object.
fn changes(kind: OpKind) -> bool {
    match kind {
        OpKind::Store { .. } | OpKind::Delete { .. } | OpKind::Restore { .. } => true,
        OpKind::CheckCurrent { .. } | OpKind::Undo { .. } => false,
    }
}
