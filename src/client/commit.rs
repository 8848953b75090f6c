//! Transactions: stores that were staged here are sent to the server, voted and finished there.
//!
//! A server has one open transaction for each link. A transaction takes a link from its first store that is sent until
//! its finish is answered: see [`lanes`](super::lanes). The stores of a transaction leave at once, after all were
//! staged: a slow caller does not keep others waiting.
//!
//! A transaction belongs to the link on which it was begun, and fails with it. If the link ends while the finish is
//! under way, nobody knows the outcome ([`StorageError::OutcomeUnknown`]). Its place in the order comes
//! from the main link: see [`awaited`](super::awaited).
//!
//! [`commit_undo`](super::commit_undo) begins a transaction before its vote.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};
use std::mem;

use super::ask::{AskError, ask, understood};
use super::awaited::{FinishId, OwnFinish};
use super::commit_blobs::CommitBlobs;
use super::lanes::{HeldLane, LaneKind, Take};
use super::link::{Link, LinkError};
use super::recent::Change;
use super::upstream::{LOG, Upstream};
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
use crate::wire::protocol::{Generation, UndoCall};
use crate::wire::results::UnresolvedObject;
use crate::wire::undo_id::undo_id;
use crate::wire::value::extension_dict;

/// Rounds of votes in one transaction: each may find conflicts that have come since the last. As in Python's client.
const ROUNDS_MAX: usize = 10;

/// A transaction on the server, which has it aborted unless it is finished.
pub(super) struct Begun {
    pub txn: i64,
    is_open: bool,
    /// Whether the server is Python's.
    is_of_python: bool,
    /// The link. Given back after the abort was sent.
    taken: HeldLane,
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
    begun: Begun,
    staged: Staged,
    tid: Option<Tid>,
    /// See [`Voted::resolved`]. Ascending.
    resolved: Vec<Oid>,
    undone: Vec<Undone>,
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

impl Upstream {
    /// Sends a transaction and has the server vote. The result is a [`ServerVoted`].
    ///
    /// With [`TidAt::Vote`] it goes to the server on a link whose votes give serials. If the server has no such
    /// protocol, it assigns the tid at finish, and all stored objects are reported as merged: a client that needs the
    /// tid at vote then loads them again, with their tid. When this returns, all transactions before this one have been
    /// published, and no other will be until the finish.
    pub fn vote(self: &Arc<Self>, mut staged: Staged, tid_at: TidAt) -> VoteResult {
        if staged.merging() == Merging::AtOnce {
            return Err(NotVoted::Postponed(Box::new(staged)));
        }
        let early = staged.begun.take().and_then(|begun| begun.downcast::<BegunEarly>().ok());
        let mut outcome = ServerChanges::default();
        let is_early = early.is_some();
        let begun = match early {
            Some(early) => {
                (outcome.tid, outcome.undone) = (early.tid, early.undone);
                early.begun
            }
            None => self.begin(&staged, lane_kind(tid_at))?,
        };
        self.check_that_it_can(&begun, &staged)?;
        let blobs = CommitBlobs::of(&mut staged, self.blobs.as_ref())?;
        self.send_operations(&begun, &staged, &blobs, is_early, &mut outcome)?;
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
            blobs.send_again(begun.link(), &staged, begun.txn)?;
        }
        self.check_reads(&begun, &staged)?;
        let undone = outcome.undone.into_iter().map(|oid| Undone { oid, restored: None }).collect();
        if tid_at == TidAt::Vote && (!begun.taken.is_main() || begun.link().wire().knows(Method::Ping)) {
            // Clients of ZEO 4 and older take nothing of other transactions between vote and finish. No other can be
            // committed from here on; what was committed before may be told behind the answer to this vote.
            self.catch_up()?;
        }
        let resolved = outcome.resolved.into_iter().collect();
        Ok(Box::new(ServerVoted { begun, staged, tid: outcome.tid, resolved, undone }))
    }

    /// Waits for a link, and begins the transaction on it.
    pub(super) fn begin(self: &Arc<Self>, staged: &Staged, kind: LaneKind) -> Result<Begun> {
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
        let txn = self.next_transaction();
        let begun = Begun { txn, is_open: true, is_of_python, taken };
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
        staged: &mut Staged,
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

    /// Finishes a transaction. The outcome goes to the publisher, with the ticket, from the thread of a link.
    pub fn finish(self: &Arc<Self>, voted: ServerVoted, ticket: Ticket) {
        let link = voted.begun.link().clone();
        let call = Call::TpcFinish { txn: voted.begun.txn };
        let not_sent = || {
            let why = format!("{}: the connection was lost before a transaction was finished", self.name());
            StorageError::Disconnected(why)
        };
        if link.has_ended() {
            // Nothing was finished on it.
            return self.publisher.failed(ticket, not_sent(), LOG, &self.name());
        }
        let mut finishing = Finishing::of(voted);
        let awaited = if finishing.begun.taken.is_main() {
            None
        } else {
            let (owing, oids) = (link.clone(), Arc::clone(&finishing.oids));
            let give_up = Box::new(move || owing.close());
            match self.timeline.finishing_elsewhere(finishing.begun.taken.main, oids, give_up) {
                Some(id) => Some(id),
                None => return self.publisher.failed(ticket, not_sent(), LOG, &self.name()),
            }
        };
        // Servers of Python may tell of transactions in another order than they answer.
        let main = finishing.begun.taken.main;
        let holds = awaited.is_none() && finishing.begun.is_of_python;
        if holds {
            self.timeline.hold(main);
        }
        // From here on it cannot be aborted.
        finishing.begun.is_open = false;
        let upstream = Arc::clone(self);
        link.start(&call, move |link, answer| {
            let outcome = match (upstream.outcome(link, answer), awaited) {
                (Ok(tid), None) if holds && !link.wire().sends_serialnos() => {
                    return upstream.finished_behind_others(link, tid, finishing, ticket);
                }
                (Ok(tid), None) => upstream.finished(tid, finishing, ticket),
                (Ok(tid), Some(id)) => upstream.finished_elsewhere(id, tid, finishing, ticket),
                (Err(error), awaited) => {
                    awaited.into_iter().for_each(|id| upstream.timeline.not_finished_elsewhere(id));
                    if holds {
                        upstream.timeline.release(main);
                    }
                    drop(finishing);
                    Err((ticket, error))
                }
            };
            if let Err((ticket, error)) = outcome {
                upstream.publisher.failed(ticket, error, LOG, &upstream.name());
            }
        });
    }

    fn unknown(&self, why: &dyn std::fmt::Display) -> StorageError {
        let text = "the connection was lost while a transaction was being finished; nobody knows whether it is committed";
        StorageError::OutcomeUnknown(format!("{}: {text}: {why}", self.name()))
    }

    /// The answer to a finish. `Err`: the transaction is not committed, or nobody knows.
    fn outcome(&self, link: &Link, answer: std::result::Result<Answer<'_>, LinkError>) -> Result<Tid> {
        match answer.map(|answer| answer.tid()) {
            Ok(Ok(tid)) => Ok(tid),
            Ok(Err(error)) => Err(match understood(link, error) {
                AskError::Raised(exception) => to_storage_error(&exception),
                broken => self.unknown(&broken),
            }),
            Err(error) => Err(self.unknown(&error)),
        }
    }

    /// The finish was answered on the main link.
    fn finished(&self, tid: Tid, mut finishing: Finishing, ticket: Ticket) -> FinishResult {
        finishing.keep_blobs(self, tid);
        let change = Change { tid, oids: Arc::clone(&finishing.oids) };
        let stored = finishing.stored().map(|(oid, data)| (oid, Cow::Owned(data)));
        self.timeline
            .finished(finishing.begun.taken.main, change, stored, ticket)
            .map_err(|ticket| (ticket, self.unknown(&"another connection has taken its place")))
    }

    /// The finish was answered by a server since ZEO 5 of Python, which may tell of earlier transactions only now. They
    /// have arrived when it answers another call.
    fn finished_behind_others(self: &Arc<Self>, link: &Link, tid: Tid, finishing: Finishing, ticket: Ticket) {
        let upstream = Arc::clone(self);
        link.start(&Call::LastTransaction, move |_, answer| {
            let outcome = match answer {
                Ok(_) => upstream.finished(tid, finishing, ticket),
                Err(error) => Err((ticket, upstream.unknown(&error))),
            };
            if let Err((ticket, error)) = outcome {
                upstream.publisher.failed(ticket, error, LOG, &upstream.name());
            }
        });
    }

    /// The finish was answered on another link.
    fn finished_elsewhere(
        &self,
        id: FinishId,
        tid: Tid,
        mut finishing: Finishing,
        ticket: Ticket,
    ) -> FinishResult {
        finishing.keep_blobs(self, tid);
        let own = OwnFinish { stored: finishing.stored().collect(), ticket };
        // The link is free before the transaction is published: its client may begin the next one at once.
        drop(finishing);
        self.timeline
            .finished_elsewhere(id, tid, own)
            .map_err(|own| (own.ticket, self.unknown(&"its place in the order is not known")))
    }
}

/// `Err`: the transaction is not committed, or nobody knows.
type FinishResult = std::result::Result<(), (Ticket, StorageError)>;

/// A transaction whose finish is under way.
struct Finishing {
    begun: Begun,
    staged: Staged,
    /// The objects that the server merged. Ascending.
    resolved: Vec<Oid>,
    /// All objects that change. Ascending.
    oids: Arc<[Oid]>,
}

impl Finishing {
    fn of(voted: ServerVoted) -> Finishing {
        let ServerVoted { begun, staged, resolved, undone, .. } = voted;
        let mut oids: BTreeSet<Oid> = undone.iter().map(|undone| undone.oid).collect();
        oids.extend(staged.ops().iter().filter(|op| changes(op.kind)).map(|op| op.oid));
        oids.extend(&resolved);
        Finishing { begun, staged, resolved, oids: oids.into_iter().collect() }
    }

    fn keep_blobs(&mut self, upstream: &Upstream, tid: Tid) {
        if let Some(blobs) = &upstream.blobs {
            self.staged.take_blobs().into_iter().for_each(|(oid, blob)| blobs.committed(oid, tid, blob));
        }
    }

    /// The new revisions whose data is known.
    fn stored(&self) -> impl Iterator<Item = (Oid, Vec<u8>)> {
        self.staged.ops().iter().filter_map(|op| {
            let is_known =
                matches!(op.kind, OpKind::Store { .. }) && self.resolved.binary_search(&op.oid).is_err();
            // What cannot be read back is not cached.
            is_known.then(|| Some((op.oid, self.staged.payload(op).ok()?)))?
        })
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

/// Whether an operation changes its object.
fn changes(kind: OpKind) -> bool {
    match kind {
        OpKind::Store { .. } | OpKind::Delete { .. } | OpKind::Restore { .. } => true,
        OpKind::CheckCurrent { .. } | OpKind::Undo { .. } => false,
    }
}
