//! vote, tpc_finish, tpc_abort: from the client's buffered stores to the published transaction.
//!
//! A transaction goes `Open -> Waiting -> Voting -> Voted -> Finishing`. Vote may happen in another thread
//! than the session's: that of whoever released the locks it waited for hands it to a worker. What the client
//! does meanwhile (abort, disconnect) is left in `Transaction::Voting::aborted` for the voter to find.

use crate::base::ids::Oid;
use crate::base::sync::Arc;
use crate::exceptions;
use crate::server::connection::{Connection, OpenTransaction, Transaction};
use crate::server::hosted::{Hosted, HostedPublisher, LOG, lock_set, size_info};
use crate::server::locks::Outcome;
use crate::server::publish::Announcement;
use crate::server::stats::{count, uncount};
use crate::server::timeout::Running;
use crate::storage::staged::OpKind;
use crate::storage::{Committed, Delivery, Publisher, StorageError, Ticket, TidAt, Voted};
use crate::wire::exception::PyException;
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
        let label = self.connection.label();
        crate::critical!(target: LOG, "({label}) a transaction was lost while it was being finished");
        self.connection.outbox.close("its transaction was lost while it was being finished");
        release(&self.hosted, &self.connection, self.running);
        *self.connection.transaction.lock() = Transaction::None;
    }
}

/// `vote(id)`: queue for the locks and vote as soon as they are granted. `Err` is the reply.
pub fn vote(
    hosted: &Arc<Hosted>,
    connection: &Arc<Connection>,
    id: &[u8],
    reply_to: OwnedMsgId,
) -> Result<(), PyException> {
    let set = {
        let mut transaction = connection.transaction.lock();
        check_id(connection, &transaction, id, "vote")?;
        match transaction.take() {
            Transaction::Open(OpenTransaction { refused: Some(exception), .. }) => {
                uncount(&hosted.stats.active_txns);
                return Err(exception);
            }
            Transaction::Open(open) => {
                let set = lock_set(&open.staged, needs_tid_at_vote(connection, &open));
                *transaction = Transaction::Waiting { open, reply_to };
                set
            }
            other => {
                let state = if matches!(other, Transaction::Waiting { .. }) { "waiting" } else { "locked" };
                *transaction = other;
                return Err(exceptions::transaction_error(&format!("Already voting ({state})")));
            }
        }
    };
    if hosted.request_locks(connection, &set) == Outcome::Granted {
        vote_with_locks(hosted, connection);
    }
    Ok(())
}

/// Serials at vote, a tid that a copier brings, a transaction status: all need the end of the log for themselves.
fn needs_tid_at_vote(connection: &Connection, open: &OpenTransaction) -> bool {
    let staged = &open.staged;
    connection.wire().sends_serialnos()
        || staged.tid.is_some()
        || staged.status != b' '
        || staged.ops().iter().any(|op| matches!(op.kind, OpKind::Restore { .. }))
}

/// The locks were granted, in whichever thread: let the storage vote, and answer.
fn vote_with_locks(hosted: &Arc<Hosted>, connection: &Arc<Connection>) {
    let (open, reply_to) = {
        let mut transaction = connection.transaction.lock();
        match transaction.take() {
            Transaction::Waiting { open, reply_to } if hosted.holds_locks(connection) => {
                *transaction = Transaction::Voting { id: open.id.clone(), aborted: false };
                (open, reply_to)
            }
            // Aborted between the grant and now, and perhaps waiting again: whoever aborted gave up the locks.
            other => {
                *transaction = other;
                return;
            }
        }
    };
    let running = hosted.locks_granted(connection);

    let tid_at = if needs_tid_at_vote(connection, &open) { TidAt::Vote } else { TidAt::Finish };
    crate::blather!(
        target: LOG,
        "({}) Preparing to commit transaction: {} objects, {} bytes",
        connection.label(), open.staged.ops().len(), open.staged.payload_len()
    );
    let id = open.id;
    let stored: Vec<_> = match tid_at {
        TidAt::Vote => stored_oids(&open.staged),
        TidAt::Finish => Vec::new(),
    };
    let result = hosted.storage.vote(open.staged, tid_at);

    let mut frames = Vec::new();
    let wire = connection.wire();
    // Until its locks are released a transaction stays `Voting`, so that the client's next one cannot ask for any.
    let voted = match result {
        Ok(voted) => voted,
        Err(error) => {
            let exception = vote_error(hosted, connection, &error);
            release(hosted, connection, running);
            let mut transaction = connection.transaction.lock();
            let aborted = matches!(*transaction, Transaction::Voting { aborted: true, .. });
            match conflicting_oid(&error) {
                Some(oid) if wire.sends_serialnos() && !aborted => {
                    let failed = Value::Exception(Box::new(exception));
                    wire.push(&Push::Serialnos(vec![(oid, failed)]), &mut frames);
                    wire.none_reply(reply_to.get(), &mut frames);
                    *transaction = Transaction::Failed { id };
                }
                _ => {
                    wire.error_reply(reply_to.get(), &exception, &mut frames);
                    *transaction = Transaction::None;
                    if !aborted {
                        uncount(&hosted.stats.active_txns);
                    }
                }
            }
            drop(transaction);
            return connection.post(frames);
        }
    };
    {
        let mut transaction = connection.transaction.lock();
        if !matches!(*transaction, Transaction::Voting { aborted: true, .. }) {
            if wire.sends_serialnos() {
                // A client before Z5 reads serialnos before the reply to vote, so they are queued in this order.
                wire.push(&Push::Serialnos(serialnos(&stored, voted.as_ref())), &mut frames);
                wire.none_reply(reply_to.get(), &mut frames);
            } else {
                let resolved = voted.resolved().iter().map(|&oid| oid.into()).collect();
                wire.reply(reply_to.get(), &Value::List(resolved), &mut frames);
            }
            *transaction = Transaction::Voted { id, voted, running };
            drop(transaction);
            return connection.post(frames);
        }
    }
    hosted.storage.abort(voted);
    release(hosted, connection, running);
    *connection.transaction.lock() = Transaction::None;
}

/// The objects of a transaction in the order in which they were stored.
fn stored_oids(staged: &crate::storage::Staged) -> Vec<Oid> {
    staged.ops().iter().filter(|op| matches!(op.kind, OpKind::Store { .. })).map(|op| op.oid).collect()
}

/// (oid, serial) for each store; a resolved conflict has the mark that makes clients drop their copy.
fn serialnos(stored: &[Oid], voted: &dyn Voted) -> Vec<(Oid, Value)> {
    let tid = voted.tid().map_or(Value::None, Value::from);
    stored
        .iter()
        .map(|oid| {
            let resolved = voted.resolved().contains(oid);
            (*oid, if resolved { Value::bytes(b"rs") } else { tid.clone() })
        })
        .collect()
}

/// The object whose store failed, if the error is about one.
fn conflicting_oid(error: &StorageError) -> Option<Oid> {
    match error {
        StorageError::Conflict(conflict) | StorageError::ReadConflict(conflict) => Some(conflict.oid),
        StorageError::PosKey(oid) => Some(*oid),
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
        StorageError::PosKey(_) | StorageError::Transaction(_) | StorageError::ReadOnly => {}
        _ => log::error!(target: LOG, "({}) While voting: {error}", connection.label()),
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
        if check_id(connection, &transaction, id, "tpc_finish").is_err() {
            return Err(FinishRefused::Ignored);
        }
        match transaction.take() {
            Transaction::Voted { id, voted, running } => {
                *transaction = Transaction::Finishing { id };
                (voted, running)
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
        Transaction::Voting { id, .. } => {
            *guard = Transaction::Voting { id, aborted: true };
            drop(guard);
        }
        Transaction::Open(_) | Transaction::Failed { .. } => drop(guard),
        Transaction::Waiting { .. } => {
            drop(guard);
            let granted = hosted.release_locks(connection, None);
            hosted.wake(granted, vote_with_locks);
        }
        Transaction::Voted { voted, running, .. } => {
            drop(guard);
            hosted.storage.abort(voted);
            release(hosted, connection, running);
        }
    }
    count(&hosted.stats.aborts);
    uncount(&hosted.stats.active_txns);
}

fn release(hosted: &Arc<Hosted>, connection: &Connection, running: Running) {
    let granted = hosted.release_locks(connection, Some(running));
    hosted.wake(granted, vote_with_locks);
}

/// Is `id` the open transaction? The error is what vote and the stores raise.
pub fn check_id(
    connection: &Connection,
    transaction: &Transaction,
    id: &[u8],
    method: &str,
) -> Result<(), PyException> {
    match transaction.id() {
        Some(current) if current == id => Ok(()),
        Some(current) => {
            log::warn!(
                target: LOG,
                "({}) {method}({}) invalid; current transaction = {}",
                connection.label(), id.escape_ascii(), current.escape_ascii()
            );
            Err(exceptions::wrong_transaction(Value::bytes(current), Value::bytes(id)))
        }
        None => {
            log::warn!(target: LOG, "({}) no current transaction: {method}()", connection.label());
            Err(exceptions::wrong_transaction(Value::None, Value::bytes(id)))
        }
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
                if wire.finish_sends_info() {
                    wire.push(&Push::Info(size_info(count, size)), &mut announcement.reply);
                }
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
                    *ticket.connection.transaction.lock() = Transaction::None;
                }
            },
        );
        let mut granted = Vec::new();
        for (ticket, released) in tickets.iter().zip(released) {
            count(&hosted.stats.commits);
            uncount(&hosted.stats.active_txns);
            hosted.log_released(&ticket.connection, &released);
            granted.extend(released.granted);
        }
        Box::new(move || {
            hosted.wake(granted, vote_with_locks);
            outboxes.iter().for_each(|outbox| outbox.flush());
        })
    }

    fn failed(&self, ticket: Ticket, error: StorageError) {
        let Ok(mut ticket) = ticket.downcast::<FinishTicket>() else { return };
        ticket.answered = true;
        let FinishTicket { hosted, connection, reply_to, running, .. } = &*ticket;
        log::error!(target: LOG, "({}) Error finishing a transaction: {error}", connection.label());
        uncount(&hosted.stats.active_txns);
        let mut frame = Vec::new();
        connection.wire().error_reply(reply_to.get(), &exceptions::of_storage_error(&error), &mut frame);
        // Before the reply: what the client does next must find no locks of its own.
        release(hosted, connection, *running);
        *connection.transaction.lock() = Transaction::None;
        connection.post(frame);
    }
}
