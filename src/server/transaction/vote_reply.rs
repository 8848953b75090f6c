//! The reply to vote in the form of each generation, and the counters and log lines of a vote.

use std::collections::HashSet;

use crate::base::ids::Oid;
use crate::base::level::ERROR;
use crate::conflict::Conflict;
use crate::exceptions;
use crate::server::client_log::{self, LOG};
use crate::server::registered::Registered;
use crate::server::stats::count;
use crate::storage::staged::OpKind;
use crate::storage::{Staged, StorageError, Voted};
use crate::wire::exception::PyException;
use crate::wire::protocol::{UndoCall, Wire};
use crate::wire::push::Push;
use crate::wire::request::OwnedMsgId;
use crate::wire::value::Value;

/// The reply to a vote that has succeeded. `stored`: see [`stored_oids`].
pub fn voted_reply(wire: Wire, reply_to: &OwnedMsgId, stored: &[Oid], voted: &dyn Voted) -> Vec<u8> {
    let mut frames = Vec::new();
    if wire.sends_serialnos() {
        // A client before Z5 reads serialnos before the reply to vote, so they are queued in this order.
        let undone = wire.undo_call() == UndoCall::Buffered;
        wire.push(&Push::Serialnos(serialnos(stored, voted, undone)), &mut frames);
        wire.none_reply(reply_to.get(), &mut frames);
    } else {
        let undone = voted.undone().iter().map(|undone| undone.oid);
        let changed = undone.chain(voted.resolved().iter().copied()).map(Value::from).collect();
        wire.reply(reply_to.get(), &Value::List(changed), &mut frames);
    }
    frames
}

/// The reply to a vote in which the store of object `oid` has failed, for clients that read it from serialnos.
pub fn failed_reply(wire: Wire, reply_to: &OwnedMsgId, oid: Oid, exception: PyException) -> Vec<u8> {
    let mut frames = Vec::new();
    let failed = Value::Exception(Box::new(exception));
    wire.push(&Push::Serialnos(vec![(oid, failed)]), &mut frames);
    wire.none_reply(reply_to.get(), &mut frames);
    frames
}

/// The conflicts that a client is to merge, as ZEO 5 and 6 read them: a list of dicts.
pub fn unmerged_reply(wire: Wire, reply_to: &OwnedMsgId, conflicts: Vec<Conflict>) -> Vec<u8> {
    let conflict = |conflict: Conflict| {
        Value::dict([
            ("oid", conflict.oid.into()),
            ("serials", Value::Tuple(vec![conflict.committed.into(), conflict.read.into()])),
            ("data", Value::Bytes(conflict.data)),
        ])
    };
    let mut frames = Vec::new();
    wire.reply(reply_to.get(), &Value::List(conflicts.into_iter().map(conflict).collect()), &mut frames);
    frames
}

/// The objects of a transaction in the order in which they were stored.
pub fn stored_oids(staged: &Staged) -> Vec<Oid> {
    staged.ops().iter().filter(|op| matches!(op.kind, OpKind::Store { .. })).map(|op| op.oid).collect()
}

/// (oid, serial) for each store. Merged objects, and undone ones if the client wants them, have the mark that makes
/// clients drop their copy; so have all, if the storage has no tid before the finish (a root of Python).
fn serialnos(stored: &[Oid], voted: &dyn Voted, undone: bool) -> Vec<(Oid, Value)> {
    const RESOLVED: &[u8] = b"rs";
    let tid = voted.tid().map_or_else(|| Value::bytes(RESOLVED), Value::from);
    let resolved: HashSet<Oid> = voted.resolved().iter().copied().collect();
    let stored = stored
        .iter()
        .map(|oid| (*oid, if resolved.contains(oid) { Value::bytes(RESOLVED) } else { tid.clone() }));
    let undone = voted.undone().iter().filter(|_| undone).map(|undone| (undone.oid, Value::bytes(RESOLVED)));
    stored.chain(undone).collect()
}

/// The object whose store failed, if the error is about one; for an undo it is the oid of no object.
pub fn failed_oid(error: &StorageError) -> Option<Oid> {
    match error {
        StorageError::Conflict(conflict) | StorageError::ReadConflict(conflict) => Some(conflict.oid),
        StorageError::PosKey(oid) => Some(*oid),
        StorageError::Undo { .. } | StorageError::MultipleUndo(_) => Some(Oid::ZERO),
        _ => None,
    }
}

/// Counts and logs the stores that were merged. Undone objects are among the resolved ones of the reply, but were no
/// conflicts.
pub fn note_resolved(registered: &Registered, stored: &[Oid], voted: &dyn Voted) {
    if voted.resolved().is_empty() {
        return;
    }
    let stored: HashSet<Oid> = stored.iter().copied().collect();
    for oid in voted.resolved().iter().filter(|oid| stored.contains(oid)) {
        count(&registered.hosted.stats.conflicts_resolved);
        crate::blather!(target: LOG, "({}) conflict resolved oid=0x{oid}", registered.connection.peer.label());
    }
}

/// Counts and logs a failed vote. Returns the exception for the client.
pub fn note_failed(registered: &Registered, error: &StorageError) -> PyException {
    let peer = &registered.connection.peer;
    match error {
        StorageError::Conflict(conflict) | StorageError::ReadConflict(conflict) => {
            let hosted = &registered.hosted;
            count(&hosted.stats.conflicts);
            hosted.conflicts.note(hosted.clock.system_time(), conflict, peer);
            crate::blather!(target: LOG, "({}) conflict error oid=0x{} msg={error}", peer.label(), conflict.oid);
        }
        StorageError::PosKey(_)
        | StorageError::Transaction(_)
        | StorageError::ReadOnly
        | StorageError::Undo { .. }
        | StorageError::MultipleUndo(_) => {}
        _ => peer.log(&client_log::TRANSACTIONS, ERROR, format_args!("While voting: {error}")),
    }
    exceptions::of_storage_error(error)
}
