//! vote, tpc_finish, tpc_abort: from the client's buffered stores to the published transaction.
//!
//! A transaction goes `Open -> Waiting -> Voting -> Voted -> Finishing`. Vote may happen in another thread
//! than the session's: that of whoever released the locks it waited for hands it to a worker, and so does the session's
//! itself if a conflict takes long to merge. What the client does meanwhile (abort, disconnect) is left in
//! `Transaction::Voting::aborted` for the voter to find, and ends a helper's merge that the voter waits for.
//!
//! An undo must be looked up before it is known which objects to lock: see [`super::undo`].

use std::collections::HashSet;
use std::fmt::Arguments;

use crate::base::ids::Oid;
use crate::base::sync::Arc;
use crate::base::untrusted::UntrustedBytes;
use crate::conflict::Conflict;
use crate::exceptions;
use crate::logging::level::{CRITICAL, ERROR, WARNING};
use crate::server::client_log;
use crate::server::connection::{Connection, OpenTransaction, Then, Transaction, TransactionId};
use crate::server::hosted::{Hosted, HostedPublisher, LOG, Requested, lock_set, size_info};
use crate::server::publish::Announcement;
use crate::server::session::contain::contained_vote;
use crate::server::session::undo;
use crate::server::stats::count;
use crate::server::timeout::Running;
use crate::storage::staged::OpKind;
use crate::storage::{Committed, Delivery, Publisher, StorageError, Ticket, TidAt, Voted};
use crate::wire::exception::PyException;
use crate::wire::protocol::UndoCall;
use crate::wire::push::Push;
use crate::wire::request::OwnedMsgId;
use crate::wire::value::Value;

/// Who gets the answer to a finish.
struct FinishTicket {
    hosted: Arc<Hosted>,
    connection: Arc<Connection>,
    reply_to: OwnedMsgId,
    running: Running,
    answered: bool,
}

/// A storage that drops a ticket has met a bug in the midst of a commit, and is read-only from now on. What became of the
/// transaction is unknown: the client must not take it for either.
impl Drop for FinishTicket {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        let message = format_args!("a transaction was lost while it was being finished");
        self.connection.log(&client_log::TRANSACTIONS, CRITICAL, message);
        self.connection.outbox.close("its transaction was lost while it was being finished");
        release(&self.hosted, &self.connection, self.running);
        self.connection.end_transaction(self.connection.transaction.lock());
    }
}

/// `vote(id)`: queue for the locks and vote as soon as they are granted. `Err` is the reply.
pub fn vote(
    hosted: &Arc<Hosted>,
    connection: &Arc<Connection>,
    id: &[u8],
    reply_to: OwnedMsgId,
) -> Result<(), PyException> {
    let mut transaction = connection.transaction.lock();
    if let Err(wrong) = check_id(&transaction, id) {
        drop(transaction);
        return Err(wrong.log(connection, "vote"));
    }
    match transaction.take() {
        Transaction::Open(OpenTransaction { refused: Some(exception), locked, .. }) => {
            drop(transaction);
            if let Some(running) = locked {
                release(hosted, connection, running);
            }
            Err(exception)
        }
        Transaction::Open(OpenTransaction { id, staged, blob_len, locked: Some(running), .. }) => {
            // An undo may have to be merged.
            let open = OpenTransaction { id, staged, blob_len, refused: None, locked: None };
            *transaction = open.voting();
            drop(transaction);
            vote_in_worker(hosted, connection, open, reply_to, running);
            Ok(())
        }
        Transaction::Open(open) if open.staged.has_undo() => {
            *transaction = open.voting();
            drop(transaction);
            undo::look_up(hosted, connection, open, reply_to, Then::Vote);
            Ok(())
        }
        Transaction::Open(mut open) => {
            // The same client's loads are read by this thread.
            open.staged.may_wait = false;
            let requested =
                wait_for_locks(hosted, connection, &mut transaction, open, reply_to, Then::Vote, Vec::new());
            drop(transaction);
            if requested.log(hosted, connection) {
                go_on_with_locks(hosted, connection);
            }
            Ok(())
        }
        // Two undos in one transaction are two resources to the databases of ZODB 3.8 and 3.9, and each votes.
        voted @ Transaction::Voted { .. } if connection.wire().undo_call() == UndoCall::Answered => {
            *transaction = voted;
            drop(transaction);
            let mut reply = Vec::new();
            connection.wire().none_reply(reply_to.get(), &mut reply);
            connection.post(reply);
            Ok(())
        }
        other => {
            let state = if matches!(other, Transaction::Waiting { .. }) { "waiting" } else { "locked" };
            *transaction = other;
            Err(exceptions::transaction_error(&format!("Already voting ({state})")))
        }
    }
}

/// Ask for the locks. Under the lock of the transaction: an abort must find the request.
pub(super) fn wait_for_locks(
    hosted: &Hosted,
    connection: &Connection,
    transaction: &mut Transaction,
    open: OpenTransaction,
    reply_to: OwnedMsgId,
    then: Then,
    undone: Vec<Oid>,
) -> Requested {
    let whole_storage = then == Then::Undo || needs_tid_at_vote(connection, &open);
    let set = lock_set(&open.staged, whole_storage, undone);
    *transaction = Transaction::Waiting { open, reply_to, then };
    hosted.request_locks(connection, &set)
}

/// Serials at vote, a tid that a copier brings, a transaction status: all need the end of the log for themselves.
fn needs_tid_at_vote(connection: &Connection, open: &OpenTransaction) -> bool {
    let staged = &open.staged;
    connection.wire().sends_serialnos()
        || staged.tid.is_some()
        || staged.status != b' '
        || staged.ops().iter().any(|op| matches!(op.kind, OpKind::Restore { .. }))
}

/// The locks were granted, in whichever thread.
pub(super) fn go_on_with_locks(hosted: &Arc<Hosted>, connection: &Arc<Connection>) {
    contained_vote(hosted, connection, || with_locks(hosted, connection));
}

fn with_locks(hosted: &Arc<Hosted>, connection: &Arc<Connection>) {
    let (open, reply_to, then) = {
        let mut transaction = connection.transaction.lock();
        match transaction.take() {
            Transaction::Waiting { open, reply_to, then } if hosted.holds_locks(connection) => {
                *transaction = open.voting();
                (open, reply_to, then)
            }
            // Aborted between the grant and now, and perhaps waiting again: whoever aborted gave up the locks.
            other => {
                *transaction = other;
                return;
            }
        }
    };
    let running = hosted.locks_granted(connection);
    match then {
        Then::Vote => vote_in_storage(hosted, connection, open, &reply_to, running),
        Then::Undo => undo::undo_in_storage(hosted, connection, open, &reply_to, running),
    }
}

/// The same in another thread.
fn vote_in_worker(
    hosted: &Arc<Hosted>,
    connection: &Arc<Connection>,
    open: OpenTransaction,
    reply_to: OwnedMsgId,
    running: Running,
) {
    let (hosted, connection) = (Arc::clone(hosted), Arc::clone(connection));
    hosted.workers.merges.clone().run(move || {
        contained_vote(&hosted, &connection, || {
            vote_in_storage(&hosted, &connection, open, &reply_to, running)
        });
    });
}

/// Let the storage vote, and answer.
fn vote_in_storage(
    hosted: &Arc<Hosted>,
    connection: &Arc<Connection>,
    open: OpenTransaction,
    reply_to: &OwnedMsgId,
    running: Running,
) {
    let tid_at = if needs_tid_at_vote(connection, &open) { TidAt::Vote } else { TidAt::Finish };
    crate::blather!(
        target: LOG,
        "({}) Preparing to commit transaction: {} objects, {} bytes",
        connection.label(), open.staged.ops().len(), open.staged.payload_len()
    );
    let (id, blob_len) = (open.id, open.blob_len);
    let stored = stored_oids(&open.staged);
    let result = hosted.storage.vote(open.staged, tid_at);

    let mut frames = Vec::new();
    let wire = connection.wire();
    // Until its locks are released a transaction stays `Voting`, so that the client's next one cannot ask for any.
    let voted = match result {
        Ok(voted) => voted,
        Err(StorageError::Unmerged { conflicts, staged }) if wire.can_resolve_conflicts() => {
            release(hosted, connection, running);
            let mut transaction = connection.transaction.lock();
            match *transaction {
                // Whoever aborted has answered for it.
                Transaction::Voting { aborted: true, .. } => connection.end_transaction(transaction),
                _ => {
                    let open = OpenTransaction { id, staged: *staged, blob_len, refused: None, locked: None };
                    *transaction = Transaction::Open(open);
                    drop(transaction);
                }
            }
            wire.reply(reply_to.get(), &unmerged(conflicts), &mut frames);
            return connection.post(frames);
        }
        Err(StorageError::Postponed(mut staged)) if !staged.may_wait => {
            staged.may_wait = true;
            let open = OpenTransaction { id, staged: *staged, blob_len, refused: None, locked: None };
            return vote_in_worker(hosted, connection, open, reply_to.clone(), running);
        }
        Err(error) => return refuse(hosted, connection, id, reply_to, &error, Some(running)),
    };
    note_resolved(hosted, connection, &stored, voted.as_ref());
    {
        let mut transaction = connection.transaction.lock();
        if !matches!(*transaction, Transaction::Voting { aborted: true, .. }) {
            if wire.sends_serialnos() {
                // A client before Z5 reads serialnos before the reply to vote, so they are queued in this order.
                let undone = wire.undo_call() == UndoCall::Buffered;
                wire.push(&Push::Serialnos(serialnos(&stored, voted.as_ref(), undone)), &mut frames);
                wire.none_reply(reply_to.get(), &mut frames);
            } else {
                let undone = voted.undone().iter().map(|undone| undone.oid);
                let changed = undone.chain(voted.resolved().iter().copied()).map(Value::from).collect();
                wire.reply(reply_to.get(), &Value::List(changed), &mut frames);
            }
            *transaction = Transaction::Voted { id, voted, running };
            drop(transaction);
            return connection.post(frames);
        }
    }
    hosted.storage.abort(voted);
    release(hosted, connection, running);
    connection.end_transaction(connection.transaction.lock());
}

/// The vote has failed: answer, and end the transaction or leave that to the client.
pub(super) fn refuse(
    hosted: &Arc<Hosted>,
    connection: &Arc<Connection>,
    id: Arc<TransactionId>,
    reply_to: &OwnedMsgId,
    error: &StorageError,
    running: Option<Running>,
) {
    let wire = connection.wire();
    let mut frames = Vec::new();
    let exception = vote_error(hosted, connection, error);
    if let Some(running) = running {
        release(hosted, connection, running);
    }
    let mut transaction = connection.transaction.lock();
    let aborted = matches!(*transaction, Transaction::Voting { aborted: true, .. });
    match failed_oid(error) {
        Some(oid) if wire.sends_serialnos() && !aborted => {
            let failed = Value::Exception(Box::new(exception));
            wire.push(&Push::Serialnos(vec![(oid, failed)]), &mut frames);
            wire.none_reply(reply_to.get(), &mut frames);
            *transaction = Transaction::Failed { id };
            drop(transaction);
        }
        _ => {
            wire.error_reply(reply_to.get(), &exception, &mut frames);
            connection.end_transaction(transaction);
            // Whoever has the reply finds one active transaction less.
            drop(id);
        }
    }
    connection.post(frames);
}

/// The objects of a transaction in the order in which they were stored.
fn stored_oids(staged: &crate::storage::Staged) -> Vec<Oid> {
    staged.ops().iter().filter(|op| matches!(op.kind, OpKind::Store { .. })).map(|op| op.oid).collect()
}

/// (oid, serial) for each store; a resolved conflict, and if the client wants it what was undone, has the mark that makes
/// clients drop their copy.
fn serialnos(stored: &[Oid], voted: &dyn Voted, undone: bool) -> Vec<(Oid, Value)> {
    const RESOLVED: &[u8] = b"rs";
    let tid = voted.tid().map_or(Value::None, Value::from);
    let resolved: HashSet<Oid> = voted.resolved().iter().copied().collect();
    let stored = stored
        .iter()
        .map(|oid| (*oid, if resolved.contains(oid) { Value::bytes(RESOLVED) } else { tid.clone() }));
    let undone = voted.undone().iter().filter(|_| undone).map(|undone| (undone.oid, Value::bytes(RESOLVED)));
    stored.chain(undone).collect()
}

/// What a client is to merge, as ZEO 5 and 6 read it: a list of dicts.
fn unmerged(conflicts: Vec<Conflict>) -> Value {
    let conflict = |conflict: Conflict| {
        Value::dict([
            ("oid", conflict.oid.into()),
            ("serials", Value::Tuple(vec![conflict.committed.into(), conflict.read.into()])),
            ("data", Value::Bytes(conflict.data)),
        ])
    };
    Value::List(conflicts.into_iter().map(conflict).collect())
}

/// Count and log the stores that were merged. An undone object is told to the client likewise, but was none.
fn note_resolved(hosted: &Hosted, connection: &Connection, stored: &[Oid], voted: &dyn Voted) {
    if voted.resolved().is_empty() {
        return;
    }
    let stored: HashSet<Oid> = stored.iter().copied().collect();
    for oid in voted.resolved().iter().filter(|oid| stored.contains(oid)) {
        count(&hosted.stats.conflicts_resolved);
        crate::blather!(target: LOG, "({}) conflict resolved oid=0x{oid}", connection.label());
    }
}

/// The object whose store failed, if the error is about one; for an undo it is the oid of no object.
fn failed_oid(error: &StorageError) -> Option<Oid> {
    match error {
        StorageError::Conflict(conflict) | StorageError::ReadConflict(conflict) => Some(conflict.oid),
        StorageError::PosKey(oid) => Some(*oid),
        StorageError::Undo { .. } | StorageError::MultipleUndo(_) => Some(Oid::ZERO),
        _ => None,
    }
}

/// Count and log a failed vote.
fn vote_error(hosted: &Hosted, connection: &Connection, error: &StorageError) -> PyException {
    match error {
        StorageError::Conflict(conflict) | StorageError::ReadConflict(conflict) => {
            count(&hosted.stats.conflicts);
            crate::blather!(target: LOG, "({}) conflict error oid=0x{} msg={error}", connection.label(), conflict.oid);
        }
        StorageError::PosKey(_)
        | StorageError::Transaction(_)
        | StorageError::ReadOnly
        | StorageError::Undo { .. }
        | StorageError::MultipleUndo(_) => {}
        _ => connection.log(&client_log::TRANSACTIONS, ERROR, format_args!("While voting: {error}")),
    }
    exceptions::of_storage_error(error)
}

/// `tpc_finish(id)`: the answer comes when the transaction is durable and published.
pub fn finish(
    hosted: &Arc<Hosted>,
    connection: &Arc<Connection>,
    id: &[u8],
    reply_to: OwnedMsgId,
) -> Result<(), FinishRefused> {
    let (voted, running) = {
        let mut transaction = connection.transaction.lock();
        if let Err(wrong) = check_id(&transaction, id) {
            drop(transaction);
            wrong.log(connection, "tpc_finish");
            return Err(FinishRefused::Ignored);
        }
        match transaction.take() {
            Transaction::Voted { id, voted, running } => {
                *transaction = Transaction::Finishing { id };
                (voted, running)
            }
            // An undo that was answered has been checked: such clients may leave out the vote.
            Transaction::Open(OpenTransaction {
                id, staged, locked: Some(running), refused: None, ..
            }) => {
                *transaction = Transaction::Finishing { id };
                drop(transaction);
                match hosted.storage.vote(staged, TidAt::Vote) {
                    Ok(voted) => (voted, running),
                    Err(error) => {
                        let exception = vote_error(hosted, connection, &error);
                        release(hosted, connection, running);
                        connection.end_transaction(connection.transaction.lock());
                        return Err(FinishRefused::Error(exception));
                    }
                }
            }
            other => {
                *transaction = other;
                let message = "finished called wo lock";
                return Err(FinishRefused::Error(PyException::builtin("AssertionError", message)));
            }
        }
    };
    let ticket = FinishTicket {
        hosted: Arc::clone(hosted),
        connection: Arc::clone(connection),
        reply_to,
        running,
        answered: false,
    };
    hosted.storage.finish(voted, Box::new(ticket));
    Ok(())
}

/// A finish that does not happen.
pub enum FinishRefused {
    /// Not the open transaction: Python's server returns `None`.
    Ignored,
    Error(PyException),
}

/// Forget the open transaction, whatever its state; one that is being finished is finished.
pub fn abort(hosted: &Arc<Hosted>, connection: &Arc<Connection>) {
    let mut guard = connection.transaction.lock();
    let transaction = guard.take();
    match transaction {
        Transaction::None => return,
        Transaction::Finishing { .. } => {
            *guard = transaction;
            return;
        }
        Transaction::Voting { id, cancel, .. } => {
            *guard = Transaction::Voting { id, aborted: true, cancel: cancel.clone() };
            drop(guard);
            cancel.cancel();
        }
        Transaction::Open(OpenTransaction { locked: Some(running), .. }) => {
            drop(guard);
            release(hosted, connection, running);
        }
        Transaction::Open(_) | Transaction::Failed { .. } => drop(guard),
        Transaction::Waiting { .. } => {
            drop(guard);
            let granted = hosted.release_locks(connection, None);
            hosted.wake(granted, go_on_with_locks);
        }
        Transaction::Voted { voted, running, .. } => {
            drop(guard);
            hosted.storage.abort(voted);
            release(hosted, connection, running);
        }
    }
    count(&hosted.stats.aborts);
}

pub(super) fn release(hosted: &Arc<Hosted>, connection: &Connection, running: Running) {
    let granted = hosted.release_locks(connection, Some(running));
    hosted.wake(granted, go_on_with_locks);
}

/// A call named a transaction that is not the open one.
#[must_use]
pub struct WrongTransaction {
    current: Option<Box<[u8]>>,
    id: Box<[u8]>,
}

/// Is `id` the open transaction?
pub fn check_id(transaction: &Transaction, id: &[u8]) -> Result<(), WrongTransaction> {
    match transaction.id() {
        Some(current) if current == id => Ok(()),
        current => Err(WrongTransaction { current: current.map(Into::into), id: id.into() }),
    }
}

impl WrongTransaction {
    /// Logs it, with the transaction not locked any more. Returns what vote and the stores raise.
    pub fn log(self, connection: &Connection, method: &str) -> PyException {
        let log = |message: Arguments<'_>| connection.log(&client_log::WRONG_STATE, WARNING, message);
        match &self.current {
            Some(current) => log(format_args!(
                "{method}({}) invalid; current transaction = {}",
                UntrustedBytes(&self.id),
                UntrustedBytes(current)
            )),
            None => log(format_args!("no current transaction: {method}()")),
        }
        let current = self.current.as_deref().map_or(Value::None, Value::bytes);
        exceptions::wrong_transaction(current, Value::bytes(&self.id))
    }
}

impl Publisher for HostedPublisher {
    fn publish(&self, group: Vec<Committed>, install: &mut dyn FnMut()) -> Delivery {
        let Some(hosted) = self.0.upgrade() else {
            install();
            return Box::new(|| ());
        };
        let mut tickets = Vec::with_capacity(group.len());
        let mut announcements = Vec::with_capacity(group.len());
        for committed in group {
            let (tid, count, size) = (committed.tid, committed.object_count, committed.size);
            let mut announcement =
                Announcement { tid, oids: committed.oids.into(), committer: 0, reply: Vec::new() };
            if let Ok(mut ticket) = committed.ticket.downcast::<FinishTicket>() {
                ticket.answered = true;
                let wire = ticket.connection.wire();
                announcement.committer = ticket.connection.id;
                wire.push(&Push::Info(size_info(count, size)), &mut announcement.reply);
                wire.tid_reply(ticket.reply_to.get(), tid, &mut announcement.reply);
                tickets.push(ticket);
            }
            announcements.push(announcement);
        }
        let mut released = Vec::with_capacity(tickets.len());
        let outboxes = hosted.publication.publish(
            &announcements,
            |announcement, wire| {
                let mut frame = Vec::new();
                wire.push(&Push::Invalidate { tid: announcement.tid, oids: &announcement.oids }, &mut frame);
                frame
            },
            &mut || {
                install();
                for ticket in &tickets {
                    released.push(hosted.unlock(&ticket.connection, Some(ticket.running)));
                    // Its next transaction may ask for locks from now on, and before the reply can reach the client.
                    ticket.connection.end_transaction(ticket.connection.transaction.lock());
                }
            },
        );
        let mut granted = Vec::new();
        for released in &mut released {
            count(&hosted.stats.commits);
            granted.extend(std::mem::take(&mut released.granted));
        }
        Box::new(move || {
            // Not before the next group can be written: the log may be slow.
            for (ticket, released) in tickets.iter().zip(&released) {
                hosted.log_released(&ticket.connection, released);
            }
            hosted.wake(granted, go_on_with_locks);
            outboxes.iter().for_each(|outbox| outbox.flush());
        })
    }

    fn failed(&self, ticket: Ticket, error: StorageError) {
        let Ok(mut ticket) = ticket.downcast::<FinishTicket>() else { return };
        ticket.answered = true;
        let FinishTicket { hosted, connection, reply_to, running, .. } = &*ticket;
        match &error {
            // The storage has said why, once for all clients whose transactions were in the group.
            StorageError::Io { .. } | StorageError::Closed(_) => {
                let message = format_args!("A transaction was not finished: the storage failed");
                connection.log(&client_log::TRANSACTIONS, ERROR, message);
            }
            _ => {
                let message = format_args!("Error finishing a transaction: {error}");
                connection.log(&client_log::TRANSACTIONS, ERROR, message);
            }
        }
        let mut frame = Vec::new();
        connection.wire().error_reply(reply_to.get(), &exceptions::of_storage_error(&error), &mut frame);
        // Before the reply: what the client does next must find no locks of its own.
        release(hosted, connection, *running);
        connection.end_transaction(connection.transaction.lock());
        connection.post(frame);
    }
}
