//! vote: locks on the objects, then the storage's own vote, then the reply.
//!
//! The storage votes in the session's thread if the locks are granted at once; in a worker's if the transaction had
//! to wait for them, or if a conflict takes long to merge.

use std::time::SystemTime;

use crate::base::ids::Oid;
use crate::base::sync::Arc;
use crate::conflict::merge_time;
use crate::exceptions;
use crate::server::audit::Event;
use crate::server::audit::commit::CommitFacts;
use crate::server::client_log::LOG;
use crate::server::connection::Connection;
use crate::server::hosted::Hosted;
use crate::server::job_panic::contained_vote;
use crate::server::locks::LockSet;
use crate::server::oid_locks::OidLocks;
use crate::server::registered::Registered;
use crate::server::slow::Step;
use crate::server::transaction::locking::{lock_set, whole_storage, with_locks};
use crate::server::transaction::state::{OpenTransaction, StorageVote, Transaction, TransactionId};
use crate::server::transaction::undone;
use crate::server::transaction::vote_reply::{
    failed_oid, failed_reply, note_failed, note_resolved, stored_oids, unmerged_reply, voted_reply,
};
use crate::server::transaction::wrong_id::check_id;
use crate::storage::staged::OpKind;
use crate::storage::{Merging, NotVoted, Staged, StorageError, TidAt};
use crate::wire::exception::PyException;
use crate::wire::protocol::UndoCall;
use crate::wire::request::OwnedMsgId;

/// `vote(id)`: asks for the locks, and votes as soon as they are granted. `Err` is the reply.
pub fn vote(registered: &Registered, id: &[u8], reply_to: OwnedMsgId) -> Result<(), PyException> {
    let connection = &registered.connection;
    let mut transaction = connection.transaction.lock();
    if let Err(wrong) = check_id(&transaction, id) {
        drop(transaction);
        return Err(wrong.log(&connection.peer, "vote"));
    }
    match transaction.take() {
        Transaction::Open(mut open) if open.refused.is_some() => {
            drop(transaction);
            return open.refused.take().map_or(Ok(()), Err);
        }
        Transaction::Open(mut open) if open.locks.is_some() => {
            open.call = Some(registered.begin_call("vote"));
            *transaction = open.voting();
            drop(transaction);
            // An undo may have to be merged.
            vote_in_worker(registered, open, reply_to);
        }
        Transaction::Open(mut open) if open.staged.has_undo() => {
            open.call = Some(registered.begin_call("vote"));
            *transaction = open.voting();
            drop(transaction);
            undone::look_up(registered, open, reply_to, vote_with_undone);
        }
        Transaction::Open(mut open) => {
            // The same client's loads are read by this thread.
            if open.staged.merging() == Merging::Waiting {
                open.staged.set_merging(Merging::AtOnce);
            }
            open.call = Some(registered.begin_call("vote"));
            let set = locks_of(connection, &open, Vec::new());
            with_locks(registered, transaction, open, reply_to, &set, vote_in_storage);
        }
        // Two undos in one transaction are two resources to the databases of ZODB 3.8 and 3.9, and each votes.
        voted @ Transaction::Voted { .. } if connection.wire().undo_call() == UndoCall::Answered => {
            *transaction = voted;
            drop(transaction);
            let mut reply = Vec::new();
            connection.wire().none_reply(reply_to.get(), &mut reply);
            connection.post(reply);
        }
        other => {
            let state = if matches!(other, Transaction::Waiting { .. }) { "waiting" } else { "locked" };
            *transaction = other;
            return Err(exceptions::transaction_error(&format!("Already voting ({state})")));
        }
    }
    Ok(())
}

/// Requests the locks, after the undone objects were looked up.
fn vote_with_undone(
    registered: &Registered,
    open: OpenTransaction,
    reply_to: OwnedMsgId,
    undone: Result<Vec<Oid>, StorageError>,
) {
    let undone = match undone {
        Ok(undone) => undone,
        Err(error) => return refuse(registered, open.id, open.locks, &reply_to, &error),
    };
    let connection = &registered.connection;
    let set = locks_of(connection, &open, undone);
    let Some((transaction, open)) = connection.transaction.lock_unless_aborted(open) else { return };
    with_locks(registered, transaction, open, reply_to, &set, vote_in_storage);
}

fn locks_of(connection: &Connection, open: &OpenTransaction, undone: Vec<Oid>) -> LockSet {
    if needs_tid_at_vote(connection, open) { whole_storage() } else { lock_set(&open.staged, undone) }
}

/// Serials at vote, a tid that a copier brings, a transaction status: all need the end of the log for themselves.
fn needs_tid_at_vote(connection: &Connection, open: &OpenTransaction) -> bool {
    let staged = &open.staged;
    connection.wire().sends_serialnos()
        || staged.tid.is_some()
        || staged.status != b' '
        || staged.ops().iter().any(|op| matches!(op.kind, OpKind::Restore { .. }))
}

/// [`vote_in_storage`] in another thread.
fn vote_in_worker(registered: &Registered, open: OpenTransaction, reply_to: OwnedMsgId) {
    let registered = registered.clone();
    registered.hosted.workers.merges.clone().run(move || {
        contained_vote(&registered.connection, || vote_in_storage(&registered, open, reply_to));
    });
}

/// Lets the storage vote, and answers. The transaction is `Voting`, and has its locks.
fn vote_in_storage(registered: &Registered, open: OpenTransaction, reply_to: OwnedMsgId) {
    let Registered { hosted, connection, .. } = registered;
    let wire = connection.wire();
    let tid_at = if needs_tid_at_vote(connection, &open) { TidAt::Vote } else { TidAt::Finish };
    crate::blather!(
        target: LOG,
        "({}) Preparing to commit transaction: {} objects, {} bytes",
        connection.peer.label(), open.staged.ops().len(), open.staged.payload_len()
    );
    let OpenTransaction { id, staged, blob_len, locks, mut call, .. } = open;
    let stored = stored_oids(&staged);
    let facts = commit_facts(hosted, id.since, &staged);
    merge_time::take();
    let voted = hosted.storage.vote(staged, tid_at);
    let slow = call.as_mut().and_then(|call| {
        call.mark_parts(Step::Check, &[(Step::Merge, merge_time::take())], hosted.clock.now());
        Some(registered.end_call(call)?.of_transaction(&id))
    });
    match voted {
        Ok(voted) => {
            note_resolved(registered, &stored, voted.as_ref());
            let reply = voted_reply(wire, &reply_to, &stored, voted.as_ref());
            let vote = StorageVote::new(&hosted.storage, voted, facts);
            if connection.transaction.leave_voting(Transaction::Voted { id, vote, locks }) {
                connection.post(reply);
            }
        }
        // The client merges them, and votes again.
        Err(NotVoted::Unmerged { conflicts, staged }) if wire.can_resolve_conflicts() => {
            drop(locks);
            let open =
                OpenTransaction { id, staged: *staged, blob_len, refused: None, locks: None, call: None };
            let _is_open = connection.transaction.leave_voting(Transaction::Open(open));
            connection.post(unmerged_reply(wire, &reply_to, conflicts));
        }
        Err(NotVoted::Postponed(mut staged)) if staged.merging() == Merging::AtOnce => {
            staged.set_merging(Merging::Waiting);
            let open = OpenTransaction { id, staged: *staged, blob_len, refused: None, locks, call };
            return vote_in_worker(registered, open, reply_to);
        }
        Err(not_voted) => refuse(registered, id, locks, &reply_to, &not_voted.into()),
    }
    registered.note_slow(slow);
}

/// What the audit log will have of the transaction, if it is committed and such lines are wanted. May read the
/// transaction's temporary file.
pub fn commit_facts(hosted: &Hosted, began: SystemTime, staged: &Staged) -> Option<Box<CommitFacts>> {
    hosted.audit(Event::Commit).map(|_| Box::new(CommitFacts::of(staged, began)))
}

/// The vote has failed: gives back the locks, answers, and ends the transaction or leaves that to the client.
fn refuse(
    registered: &Registered,
    id: Arc<TransactionId>,
    locks: Option<OidLocks>,
    reply_to: &OwnedMsgId,
    error: &StorageError,
) {
    let connection = &registered.connection;
    let wire = connection.wire();
    let exception = note_failed(registered, error);
    drop(locks);
    let failed = failed_oid(error).filter(|_| wire.sends_serialnos());
    if let Some(oid) = failed
        && connection.transaction.leave_voting(Transaction::Failed { id: Arc::clone(&id) })
    {
        return connection.post(failed_reply(wire, reply_to, oid, exception));
    }
    if failed.is_none() {
        connection.transaction.end();
    }
    // When the client has the reply, the number of active transactions is one less.
    drop(id);
    let mut frames = Vec::new();
    connection.put_error(reply_to.get(), &exception, &mut frames);
    connection.post(frames);
}
