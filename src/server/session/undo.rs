//! Undo: what can be undone (undoLog, undoInfo; see [`super::description`]), and undoing it.
//!
//! The undone transaction is looked up in the log before locks are asked for, by a worker: it tells which objects
//! to lock, and may lie far back. The vote then finds it at once.
//!
//! ZODB 3.10 and later buffer an undo like a store, and vote tells what it changed. Older clients want to know that at
//! once, and the tid too: they hold the whole storage from their first undo on, as they did with their own servers.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use crate::base::ids::{Oid, Tid};
use crate::base::sync::Arc;
use crate::exceptions;
use crate::server::connection::{Connection, OpenTransaction, Then, Transaction};
use crate::server::hosted::Hosted;
use crate::server::session::commit::{self, check_id};
use crate::server::session::contain::contained_vote;
use crate::server::session::description::{Description, Specification};
use crate::server::session::entries::Entries;
use crate::server::session::load::{frame, post_published};
use crate::server::session::{Registered, Session};
use crate::server::timeout::Running;
use crate::storage::StorageError;
use crate::storage::staged::OpKind;
use crate::wire::exception::PyException;
use crate::wire::request::OwnedMsgId;
use crate::wire::value::Value;

impl Session {
    /// `undoLog(first, last)` and `undoInfo(first, last, specification)`: a list of dicts, newest first. A negative
    /// `last` is how many are wanted.
    pub(super) fn undo_log(
        &self,
        on: &Registered,
        id: &OwnedMsgId,
        first: i64,
        last: i64,
        specification: Option<Specification>,
    ) {
        let last = if last < 0 { first.saturating_sub(last) } else { last };
        let index = |at: i64| usize::try_from(at.max(0)).unwrap_or(usize::MAX);
        let (first, last) = (index(first), index(last));
        let count_max = last.saturating_sub(first).min(self.server.limits().undo_log);
        let (hosted, connection, id) = (on.hosted.clone(), Arc::clone(&self.connection), id.clone());
        // A client that does not read its undo logs must not keep the threads that make them.
        self.connection.wait_for_room();
        self.run_errand(&on.hosted.workers.errands, move || {
            let mut entries = Entries::new(&connection, count_max);
            let mut to_skip = first;
            let found = if entries.is_full() {
                Ok(())
            } else {
                hosted.storage.require_undo().and_then(|undo| {
                    undo.undo_log(&mut |entry| {
                        if to_skip > 0 && specification.is_none() {
                            to_skip -= 1;
                            return ControlFlow::Continue(());
                        }
                        let described = Description::new(&entry);
                        if specification.as_ref().is_some_and(|wanted| !wanted.fits(&described)) {
                            return go_on_unless(connection.outbox.is_closed());
                        }
                        match to_skip.checked_sub(1) {
                            Some(left) => to_skip = left,
                            None => entries.push(&described.into_value()),
                        }
                        go_on_unless(entries.is_full())
                    })
                })
            };
            let frame = match found {
                Ok(()) => entries.frame(&id),
                Err(error) => frame(&connection, &id, &Err(exceptions::of_storage_error(&error))),
            };
            // Read only once, however long the log is: what was committed meanwhile may be in it or not.
            post_published(&hosted, &connection, frame);
        });
    }

    /// `undoa(trans_id, id)`: undone at vote. What is wrong with `trans_id` is vote's to say.
    pub(super) fn undo_buffered(
        &self,
        on: &Registered,
        transaction: &[u8],
        undo_id: &Value,
    ) -> Result<(), PyException> {
        let tid = tid_of(undo_id);
        self.stage(on, transaction, "undoa", |staged| {
            if let Ok(tid) = &tid {
                staged.undo(*tid);
            }
            Ok(())
        })?;
        if let Err(exception) = tid {
            self.refuse_vote(&exception);
        }
        Ok(())
    }

    /// `undo(trans_id, id)` -> (tid, oids), as soon as the storage is free.
    pub(super) fn undo_answered(
        &self,
        on: &Registered,
        transaction_id: &[u8],
        undo_id: &Value,
        reply_to: &OwnedMsgId,
    ) -> Result<(), PyException> {
        if on.read_only {
            return Err(exceptions::read_only_error());
        }
        let (hosted, connection) = (&on.hosted, &self.connection);
        let mut transaction = connection.transaction.lock();
        if let Err(wrong) = check_id(&transaction, transaction_id) {
            drop(transaction);
            return Err(wrong.log(connection, "undo"));
        }
        let tid = tid_of(undo_id)?;
        match transaction.take() {
            Transaction::Open(mut open) => {
                open.staged.undo(tid);
                *transaction = open.voting();
                drop(transaction);
                look_up(hosted, connection, open, reply_to.clone(), Then::Undo);
                Ok(())
            }
            other => {
                *transaction = other;
                Err(exceptions::transaction_error("The transaction has been voted for already."))
            }
        }
    }
}

/// For a walk that ends when it has found enough.
fn go_on_unless(ended: bool) -> ControlFlow<()> {
    if ended { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// Find what is to be undone, in another thread, and go on from there. The transaction is `Voting`.
pub(super) fn look_up(
    hosted: &Arc<Hosted>,
    connection: &Arc<Connection>,
    open: OpenTransaction,
    reply_to: OwnedMsgId,
    then: Then,
) {
    let (hosted, connection) = (Arc::clone(hosted), Arc::clone(connection));
    hosted.workers.undos.clone().run(move || {
        contained_vote(&hosted, &connection, || looked_up(&hosted, &connection, open, reply_to, then));
    });
}

fn looked_up(
    hosted: &Arc<Hosted>,
    connection: &Arc<Connection>,
    mut open: OpenTransaction,
    reply_to: OwnedMsgId,
    then: Then,
) {
    let undone = match undone_oids(hosted, &open) {
        Ok(undone) => undone,
        Err(error) => {
            return match then {
                Then::Vote => commit::refuse(hosted, connection, open.id, &reply_to, &error, None),
                Then::Undo => answer_undo(hosted, connection, open, &reply_to, Err(error)),
            };
        }
    };
    if let Some(running) = open.locked.take() {
        return undo_in_storage(hosted, connection, open, &reply_to, running);
    }
    let requested = {
        let mut transaction = connection.transaction.lock();
        if matches!(*transaction, Transaction::Voting { aborted: true, .. }) {
            return connection.end_transaction(transaction);
        }
        commit::wait_for_locks(hosted, connection, &mut transaction, open, reply_to, then, undone)
    };
    if requested.log(hosted, connection) {
        commit::go_on_with_locks(hosted, connection);
    }
}

/// The objects that the undos of a transaction will change. Each transaction is looked up once, however often it is undone; the
/// storage writes a record for each time, so all of them count for `max-transaction-objects`.
fn undone_oids(hosted: &Hosted, open: &OpenTransaction) -> Result<Vec<Oid>, StorageError> {
    let mut oids = HashSet::new();
    let mut counts: HashMap<Tid, usize> = HashMap::new();
    let mut total = open.staged.ops().len() as u64;
    for op in open.staged.ops() {
        let OpKind::Undo { tid } = op.kind else { continue };
        let count = match counts.get(&tid) {
            Some(count) => *count,
            None => {
                let found = hosted.storage.require_undo()?.undo_oids(tid)?;
                counts.insert(tid, found.len());
                let count = found.len();
                oids.extend(found);
                count
            }
        };
        total = total.saturating_add(count as u64);
        if let Some(max) = hosted.options.transaction_objects.filter(|max| total > *max) {
            return Err(StorageError::Refused {
                class: ("ZODB.POSException", "StorageError"),
                message: format!(
                    "the transaction is larger than the server permits: with what its undos change, max-transaction-objects is {max}"
                ),
            });
        }
    }
    Ok(oids.into_iter().collect())
}

/// With the whole storage locked: what does the undo come to?
pub(super) fn undo_in_storage(
    hosted: &Arc<Hosted>,
    connection: &Arc<Connection>,
    mut open: OpenTransaction,
    reply_to: &OwnedMsgId,
    running: Running,
) {
    let result = hosted.storage.require_undo().and_then(|undo| undo.undo_now(&mut open.staged));
    open.locked = Some(running);
    answer_undo(hosted, connection, open, reply_to, result);
}

/// Answer an undo and leave the transaction open, unless the client has given it up. An undo that fails leaves no trace;
/// the locks stay, as with the client's own server.
fn answer_undo(
    hosted: &Arc<Hosted>,
    connection: &Arc<Connection>,
    mut open: OpenTransaction,
    reply_to: &OwnedMsgId,
    result: Result<(Tid, Vec<Oid>), StorageError>,
) {
    match &result {
        Ok(_) => {}
        Err(StorageError::Undo { .. } | StorageError::MultipleUndo(_)) => open.staged.forget_undo(),
        // What was buffered may be lost: it must not be voted for.
        Err(error) => open.refused = Some(exceptions::of_storage_error(error)),
    }
    let answer = result
        .map(|(tid, oids)| {
            let oids = oids.into_iter().map(Value::from).collect();
            Value::Tuple(vec![tid.into(), Value::List(oids)])
        })
        .map_err(|error| exceptions::of_storage_error(&error));
    let mut transaction = connection.transaction.lock();
    if matches!(*transaction, Transaction::Voting { aborted: true, .. }) {
        drop(transaction);
        if let Some(running) = open.locked {
            commit::release(hosted, connection, running);
        }
        return connection.end_transaction(connection.transaction.lock());
    }
    *transaction = Transaction::Open(open);
    drop(transaction);
    connection.post(frame(connection, reply_to, &answer));
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The name of a transaction in undoLog: its tid in base64.
pub(super) fn undo_id(tid: Tid) -> [u8; 12] {
    // 64 bits and two of fill are 11 digits of 6 bits; then one `=`.
    let bits = u128::from(tid.0) << 2;
    let mut id = [b'='; 12];
    for (at, digit) in id.iter_mut().take(11).enumerate() {
        *digit = BASE64[(bits >> (60 - 6 * at)) as usize & 63];
    }
    id
}

/// The tid that an undo's argument names.
fn tid_of(undo_id: &Value) -> Result<Tid, PyException> {
    let bytes = undo_id.string().and_then(decode_base64);
    let tid = bytes.and_then(|bytes| <[u8; 8]>::try_from(bytes.as_slice()).ok()).map(Tid::from_bytes);
    tid.ok_or_else(|| {
        let reason = "this is no transaction id: it must be an 'id' of undoLog, 8 bytes in base64";
        exceptions::of_storage_error(&StorageError::Undo { reason, oid: None })
    })
}

/// As Python does it: what is no digit is passed over. `None` if digits are missing.
fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut digits, mut pads) = (Vec::new(), 0u32, 0, 0);
    for &byte in text {
        if byte == b'=' {
            pads += 1;
            if digits >= 2 && digits + pads >= 4 {
                return Some(bytes);
            }
            continue;
        }
        let Some(digit) = BASE64.iter().position(|&known| known == byte) else { continue };
        pads = 0;
        bits = bits << 6 | digit as u32;
        digits = (digits + 1) % 4;
        match digits {
            1 => {}
            2 => bytes.push((bits >> 4) as u8),
            3 => bytes.push((bits >> 2) as u8),
            _ => bytes.push(bits as u8),
        }
    }
    (digits == 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undo_ids_are_base64_of_tids() {
        for (tid, id) in [
            (0x0102_0304_0506_0708, "AQIDBAUGBwg="),
            (0, "AAAAAAAAAAA="),
            (u64::MAX, "//////////8="),
            (0x03e8_9f4b_5c6d_7e8f, "A+ifS1xtfo8="),
        ] {
            assert_eq!(undo_id(Tid(tid)), id.as_bytes());
            assert_eq!(tid_of(&Value::bytes(id)), Ok(Tid(tid)));
            assert_eq!(tid_of(&Value::text(format!("{id}\n"))), Ok(Tid(tid)));
        }
        let name = |value: Value| tid_of(&value).unwrap_err().name;
        // Not a ValueError or an AssertionError without a word, which look like bugs of the server.
        for wrong in [Value::bytes("AQIDBAUGBwg"), Value::bytes("AQIDBAUG"), Value::bytes(""), Value::None] {
            assert_eq!(name(wrong), "UndoError");
        }
    }
}
