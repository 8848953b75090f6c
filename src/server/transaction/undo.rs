//! An undo that is answered before vote.
//!
//! ZODB 3.10 and later buffer an undo like a store, and the reply to vote has its changes. Older clients expect the tid
//! and the objects in the reply to the undo: they hold the whole storage from their first undo on, as in their own
//! servers.

use crate::base::ids::{Oid, Tid};
use crate::exceptions;
use crate::server::registered::Registered;
use crate::server::replies::reply_frame;
use crate::server::slow::Step;
use crate::server::transaction::locking::{whole_storage, with_locks};
use crate::server::transaction::state::{OpenTransaction, Transaction};
use crate::server::transaction::undone;
use crate::server::transaction::wrong_id::check_id;
use crate::storage::StorageError;
use crate::wire::exception::PyException;
use crate::wire::request::OwnedMsgId;
use crate::wire::value::Value;

/// `undo(trans_id, id)` -> (tid, oids), as soon as the storage is free. `tid` is what `trans_id` names. `Err` is the
/// reply.
pub fn undo(
    registered: &Registered,
    id: &[u8],
    tid: impl FnOnce() -> Result<Tid, PyException>,
    reply_to: OwnedMsgId,
) -> Result<(), PyException> {
    let connection = &registered.connection;
    let mut transaction = connection.transaction.lock();
    if let Err(wrong) = check_id(&transaction, id) {
        drop(transaction);
        return Err(wrong.log(&connection.peer, "undo"));
    }
    let tid = tid()?;
    match transaction.take() {
        Transaction::Open(mut open) => {
            open.call = Some(registered.begin_call("undo"));
            open.staged.undo(tid);
            *transaction = open.voting();
            drop(transaction);
            undone::look_up(registered, open, reply_to, undo_with_undone);
            Ok(())
        }
        other => {
            *transaction = other;
            Err(exceptions::transaction_error("The transaction has been voted for already."))
        }
    }
}

/// The undone transaction exists: asks for the lock on the storage, unless an earlier undo has done so.
fn undo_with_undone(
    registered: &Registered,
    open: OpenTransaction,
    reply_to: OwnedMsgId,
    undone: Result<Vec<Oid>, StorageError>,
) {
    if let Err(error) = undone {
        return answer(registered, open, &reply_to, Err(error));
    }
    if open.locks.is_some() {
        return undo_in_storage(registered, open, reply_to);
    }
    let Some((transaction, open)) = registered.connection.transaction.lock_unless_aborted(open) else {
        return;
    };
    with_locks(registered, transaction, open, reply_to, &whole_storage(), undo_in_storage);
}

/// Looks up the objects of the undo, with the whole storage locked.
fn undo_in_storage(registered: &Registered, mut open: OpenTransaction, reply_to: OwnedMsgId) {
    let result = registered.hosted.storage.require_undo().and_then(|undo| undo.undo_now(&mut open.staged));
    answer(registered, open, &reply_to, result);
}

/// Answers an undo and leaves the transaction open, unless the client has aborted it. An undo that fails leaves no
/// trace; the locks stay, as with the client's own server.
fn answer(
    registered: &Registered,
    mut open: OpenTransaction,
    reply_to: &OwnedMsgId,
    result: Result<(Tid, Vec<Oid>), StorageError>,
) {
    match &result {
        Ok(_) => {}
        Err(StorageError::Undo { .. } | StorageError::MultipleUndo(_)) => open.staged.forget_undo(),
        // Buffered operations may be lost: the vote must fail.
        Err(error) => open.refused = Some(exceptions::of_storage_error(error)),
    }
    let answer = result
        .map(|(tid, oids)| {
            let oids = oids.into_iter().map(Value::from).collect();
            Value::Tuple(vec![tid.into(), Value::List(oids)])
        })
        .map_err(|error| exceptions::of_storage_error(&error));
    let slow = open.call.take().and_then(|mut call| {
        call.mark(Step::Check, registered.hosted.clock.now());
        Some(registered.end_call(&call)?.of_transaction(&open.id))
    });
    let connection = &registered.connection;
    if connection.transaction.leave_voting(Transaction::Open(open)) {
        connection.post(reply_frame(connection, reply_to, &answer));
    }
    registered.note_slow(slow);
}
