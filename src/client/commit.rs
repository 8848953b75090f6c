//! Transactions: stores that were staged here are sent to the server and voted for there.
//!
//! A server has one open transaction for each link. A transaction takes a link from its first store that is sent until
//! its finish is answered: see [`lanes`](super::lanes). The stores of a transaction leave at once, after all were
//! staged: a slow caller does not keep others waiting.
//!
//! A transaction belongs to the link on which it was begun. If that ends before the vote is answered, the transaction
//! is sent again on the next link; if it ends afterwards, the transaction fails with it. Its place in the order comes
//! from the main link: see [`awaited`](super::awaited).
//!
//! [`commit_undo`](super::commit_undo) begins a transaction before its vote, [`commit_finish`](super::commit_finish)
//! ends it.

use std::collections::{BTreeSet, HashSet};
use std::mem;

use super::ask::{AskError, ask};
use super::commit_blobs::CommitBlobs;
use super::lanes::{HeldLane, LaneKind, Take};
use super::link::Link;
use super::upstream::{LOG, Upstream};
use crate::base::ids::{Oid, Tid};
use crate::base::sync::Arc;
use crate::conflict::{Conflict, ThreeStates};
use crate::storage::{
    Merging, NotVoted, Op, OpKind, Result, Staged, StorageError, TidAt, Undone, VoteResult, Voted,
};
use crate::wire::answers::Serialno;
use crate::wire::availability::Method;
use crate::wire::calls::Call;
use crate::wire::protocol::{Generation, UndoCall};
use crate::wire::results::UnresolvedObject;
use crate::wire::undo_id::undo_id;
use crate::wire::value::extension_dict;

/// Rounds of votes in one transaction: each may find conflicts that have come since the last. As in Python's client.
const ROUNDS_MAX: usize = 10;

/// How often a transaction is sent again because its link has ended before the vote was answered. A server may end a
/// connection because of the transaction itself, so there is a bound.
const LOST_MAX: usize = 2;

/// A transaction on the server, which has it aborted unless it is finished.
pub(super) struct Begun {
    pub txn: i64,
    pub is_open: bool,
    /// Whether the server is Python's.
    pub is_of_python: bool,
    /// The link. Given back after the abort was sent.
    pub taken: HeldLane,
}

impl Begun {
    pub fn link(&self) -> &Link {
        &self.taken.lane.link
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if !mem::take(&mut self.is_open) {
            return;
        }
        let call = Call::TpcAbort { txn: self.txn };
        if self.link().wire().is_one_way(Method::TpcAbort) {
            self.link().send(&call);
        } else {
            // What comes after it is handled after it.
            self.link().start(&call, |_, _| ());
        }
    }
}

/// A transaction that was begun before its vote, because an undo had to be answered.
pub(super) struct BegunEarly {
    pub begun: Begun,
    /// The tid that the transaction will have.
    pub tid: Option<Tid>,
    /// The objects that its undos change, in their order.
    pub undone: Vec<Oid>,
}

/// A transaction that the server has voted for.
pub struct ServerVoted {
    pub(super) begun: Begun,
    pub(super) staged: Staged,
    tid: Option<Tid>,
    /// See [`Voted::resolved`]. Ascending.
    pub(super) resolved: Vec<Oid>,
    pub(super) undone: Vec<Undone>,
}

impl Voted for ServerVoted {
    /// Known if the link speaks a protocol in which votes give serials.
    fn tid(&self) -> Option<Tid> {
        self.tid
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
    /// The serial of what was stored.
    tid: Option<Tid>,
    resolved: BTreeSet<Oid>,
    /// In the order of the undos, so an object may be there more than once.
    undone: Vec<Oid>,
}

/// What a server has said to a vote.
enum Round {
    Voted(ServerChanges),
    /// The client is to merge these.
    Unmerged(Vec<Conflict>),
}

impl Upstream {
    /// Sends a transaction and has the server vote. The result is a [`ServerVoted`].
    ///
    /// With [`TidAt::Vote`] it goes to the server on a link whose votes give serials. If the server has no such
    /// protocol, it assigns the tid at finish, and all stored objects are reported as merged: a client that needs the
    /// tid at vote then loads them again, with their tid. When this returns, all transactions before this one have been
    /// published, and no other will be until the finish.
    ///
    /// If the link ends before the vote is answered, the server aborts the transaction, and all of it is sent once more
    /// on the next link, except with undos that were answered, and with blobs that the server may have taken over.
    pub fn vote(self: &Arc<Self>, mut staged: Staged, tid_at: TidAt) -> VoteResult {
        if staged.merging() == Merging::AtOnce {
            return Err(NotVoted::Postponed(Box::new(staged)));
        }
        let mut early = staged.begun.take().and_then(|begun| begun.downcast::<BegunEarly>().ok());
        let blobs = CommitBlobs::of(&mut staged, self.blobs.as_ref())?;
        let mut lost = 0;
        loop {
            let (begun, round) = match early.take() {
                Some(early) => {
                    let BegunEarly { begun, tid, undone } = *early;
                    let changes = ServerChanges { tid, undone, ..ServerChanges::default() };
                    let round = self.vote_on(&begun, &staged, &blobs, Some(changes), tid_at);
                    // The caller knows what the undos have answered, which holds for this link only.
                    lost = LOST_MAX;
                    (begun, round)
                }
                None => {
                    let begun = self.take_link(&staged, lane_kind(tid_at))?;
                    let sent = self.send_begin(&begun, &staged);
                    let round = sent.and_then(|()| self.vote_on(&begun, &staged, &blobs, None, tid_at));
                    (begun, round)
                }
            };
            match round {
                Ok(Round::Voted(ServerChanges { tid, resolved, undone })) => {
                    let resolved = resolved.into_iter().collect();
                    let undone = undone.into_iter().map(|oid| Undone { oid, restored: None }).collect();
                    return Ok(Box::new(ServerVoted { begun, staged, tid, resolved, undone }));
                }
                Ok(Round::Unmerged(conflicts)) => {
                    return Err(NotVoted::Unmerged { conflicts, staged: Box::new(staged) });
                }
                Err(StorageError::Disconnected(why))
                    if lost < LOST_MAX && begun.link().has_ended() && blobs.can_be_sent_again() =>
                {
                    lost += 1;
                    log::info!(target: LOG, "{}: a vote goes to the server once more: {why}", self.name());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends the operations of a transaction that has begun on a link, and has the server vote. `undone`: what the
    /// undos, which were sent before, have changed.
    fn vote_on(
        self: &Arc<Self>,
        begun: &Begun,
        staged: &Staged,
        blobs: &CommitBlobs,
        undone: Option<ServerChanges>,
        tid_at: TidAt,
    ) -> Result<Round> {
        let is_undone = undone.is_some();
        let mut changes = undone.unwrap_or_default();
        self.check_that_it_can(begun, staged)?;
        self.send_operations(begun, staged, blobs, is_undone, &mut changes)?;
        let mut rounds = 0;
        loop {
            let conflicts = self.vote_once(begun, staged, &mut changes)?;
            if conflicts.is_empty() {
                break;
            }
            rounds += 1;
            if staged.merging() == Merging::ByClient {
                return Ok(Round::Unmerged(conflicts));
            }
            for conflict in conflicts {
                if rounds == ROUNDS_MAX || !blobs.can_be_sent_again() {
                    return Err(conflict.into());
                }
                self.merge(begun, staged, conflict, &mut changes)?;
            }
            blobs.send_again(begun.link(), staged, begun.txn)?;
        }
        self.check_reads(begun, staged)?;
        if tid_at == TidAt::Vote && (!begun.taken.is_main() || begun.link().wire().knows(Method::Ping)) {
            // Clients of ZEO 4 and older take nothing of other transactions between vote and finish. No other can be
            // committed from here on; what was committed before may be told behind the answer to this vote.
            self.catch_up()?;
        }
        Ok(Round::Voted(changes))
    }

    /// Waits for a link, and begins the transaction on it.
    pub(super) fn begin(self: &Arc<Self>, staged: &Staged, kind: LaneKind) -> Result<Begun> {
        let begun = self.take_link(staged, kind)?;
        self.send_begin(&begun, staged)?;
        Ok(begun)
    }

    /// Waits for a link for the transaction.
    fn take_link(self: &Arc<Self>, staged: &Staged, kind: LaneKind) -> Result<Begun> {
        let waiting = Arc::clone(&self.lanes);
        let cancel = staged.cancel.on_cancel(move || waiting.wake());
        let is_over = || staged.cancel.is_cancelled() || self.is_closed();
        let (taken, is_of_python) = loop {
            let in_use = self.in_use()?;
            if in_use.is_read_only {
                return Err(StorageError::ReadOnly);
            }
            match self.lanes.take(&in_use.main(), kind, is_over) {
                Take::Taken(taken) => break (taken, in_use.sibling.is_none()),
                Take::Over => {
                    return Err(StorageError::Transaction("the transaction was given up".into()));
                }
                Take::Unavailable => {
                    let why =
                        format!("{}: no further connection for transactions of old clients", self.name());
                    return Err(StorageError::Disconnected(why));
                }
                Take::Lost => {}
            }
        };
        drop(cancel);
        taken.lane.serialnos.lock().clear();
        Ok(Begun { txn: self.next_transaction(), is_open: true, is_of_python, taken })
    }

    fn send_begin(&self, begun: &Begun, staged: &Staged) -> Result<()> {
        let extension = extension_dict(&staged.meta.extension).ok_or_else(|| {
            StorageError::Transaction("the extension of the transaction is no dict of plain values".into())
        })?;
        let call = Call::TpcBegin {
            txn: begun.txn,
            user: &staged.meta.user,
            description: &staged.meta.description,
            extension: &extension,
            tid: staged.tid,
            status: char::from(staged.status),
        };
        self.tell(begun, &call)
    }

    /// Sends a call that has no result, and waits for the answer of a server that gives one.
    fn tell(&self, begun: &Begun, call: &Call<'_>) -> Result<()> {
        let link = begun.link();
        if call.method(link.wire()).is_some_and(|method| link.wire().is_one_way(method)) {
            link.send(call);
            return Ok(());
        }
        Ok(ask(link, call, None, |answer| answer.done())?)
    }

    /// Refuses what this generation of servers has no method for.
    fn check_that_it_can(&self, begun: &Begun, staged: &Staged) -> Result<()> {
        let wire = begun.link().wire();
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

    /// `is_undone`: undos were sent before.
    fn send_operations(
        &self,
        begun: &Begun,
        staged: &Staged,
        blobs: &CommitBlobs,
        is_undone: bool,
        outcome: &mut ServerChanges,
    ) -> Result<()> {
        let (link, txn) = (begun.link(), begun.txn);
        let wire = link.wire();
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
                OpKind::Undo { .. } if is_undone => {}
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
        let wire = begun.link().wire();
        let voted = ask(begun.link(), &Call::Vote { txn: begun.txn }, None, |answer| answer.vote());
        let voted = voted.map_err(|error| self.vote_refused(error, staged))?;
        let mut changed: Vec<Oid> = voted.resolved;
        if wire.sends_serialnos() {
            let serialnos = mem::take(&mut *begun.taken.lane.serialnos.lock());
            for (oid, serialno) in serialnos {
                match serialno {
                    Serialno::Stored(tid) => outcome.tid = Some(tid),
                    Serialno::Resolved => changed.push(oid),
                    Serialno::Raised(exception) => {
                        return Err(self.vote_refused(AskError::Raised(exception), staged));
                    }
                }
            }
        }
        if !changed.is_empty() {
            let stores = staged.ops().iter().filter(|op| matches!(op.kind, OpKind::Store { .. }));
            let stored: HashSet<Oid> = stores.map(|op| op.oid).collect();
            let (resolved, undone): (Vec<_>, Vec<_>) =
                changed.into_iter().partition(|oid| stored.contains(oid));
            outcome.resolved.extend(resolved);
            if wire.undo_call() == UndoCall::Buffered {
                // A vote names all of them, the next one of the transaction again.
                outcome.undone = undone;
            }
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
        staged: &Staged,
        conflict: Conflict,
        outcome: &mut ServerChanges,
    ) -> Result<()> {
        let Conflict { oid, committed, read, .. } = conflict;
        self.timeline.forget(oid);
        let state = |serial| {
            let call = Call::LoadSerial { oid, serial };
            ask(begun.link(), &call, None, |answer| Ok(answer.bytes()?.to_vec()))
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
        begun.link().send(&call);
        outcome.resolved.insert(oid);
        Ok(())
    }

    /// The checks of objects that were only read, with servers that have no method for it: after the vote, which locks
    /// the storage of these servers until the finish, so nothing can change any more.
    fn check_reads(&self, begun: &Begun, staged: &Staged) -> Result<()> {
        let link = begun.link();
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
}

/// The link that a transaction needs. One whose votes give serials also keeps others from being committed until the
/// finish.
fn lane_kind(tid_at: TidAt) -> LaneKind {
    match tid_at {
        TidAt::Vote => LaneKind::Serials(Generation::Z4),
        TidAt::Finish => LaneKind::Any,
    }
}
