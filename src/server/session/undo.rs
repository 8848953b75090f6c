//! Undo: what can be undone (undoLog, undoInfo), and undoing it.
//!
//! The undone transaction is looked up in the log before locks are asked for, by a worker: it tells which objects
//! to lock, and may lie far back. The vote then finds it at once.
//!
//! ZODB 3.10 and later buffer an undo like a store, and vote tells what it changed. Older clients want to know that at
//! once, and the tid too: they hold the whole storage from their first undo on, as they did with their own servers.

use crate::base::ids::{Oid, Tid};
use crate::base::sync::Arc;
use crate::exceptions;
use crate::server::connection::{Connection, OpenTransaction, Then, Transaction};
use crate::server::hosted::Hosted;
use crate::server::session::commit::{self, check_id};
use crate::server::session::load::{frame, reply_published};
use crate::server::session::{Registered, Session};
use crate::server::timeout::Running;
use crate::storage::staged::OpKind;
use crate::storage::{StorageError, UndoEntry};
use crate::wire::exception::PyException;
use crate::wire::request::OwnedMsgId;
use crate::wire::value::{Value, extension_dict};

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
        let first = index(first);
        let last = index(last).min(first.saturating_add(self.server.limits().undo_log));
        let (hosted, connection, id) = (on.hosted.clone(), Arc::clone(&self.connection), id.clone());
        self.run_errand(on, move || {
            let fits = |entry: &UndoEntry| specification.as_ref().is_none_or(|wanted| wanted.fits(entry));
            let found = hosted.storage.undo_log(first, last, &fits);
            let answer = found
                .map(|entries| Value::List(entries.iter().map(|e| Value::Dict(description(e))).collect()))
                .map_err(|error| exceptions::of_storage_error(&error));
            // Read only once, however long the log is: what was committed meanwhile may be in it or not.
            reply_published(&hosted, &connection, &frame(&connection, &id, &answer));
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

/// Find what is to be undone, in another thread, and go on from there. The transaction is `Voting`, and not locked: without
/// another thread it is done in this one.
pub(super) fn look_up(
    hosted: &Arc<Hosted>,
    connection: &Arc<Connection>,
    open: OpenTransaction,
    reply_to: OwnedMsgId,
    then: Then,
) {
    let (hosted, connection) = (Arc::clone(hosted), Arc::clone(connection));
    hosted.workers.errands.clone().run(move || looked_up(&hosted, &connection, open, reply_to, then));
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
            *transaction = Transaction::None;
            return;
        }
        commit::wait_for_locks(hosted, connection, &mut transaction, open, reply_to, then, undone)
    };
    if requested.log(hosted, connection) {
        commit::go_on_with_locks(hosted, connection);
    }
}

/// The objects that the undos of a transaction will change.
fn undone_oids(hosted: &Hosted, open: &OpenTransaction) -> Result<Vec<Oid>, StorageError> {
    let mut oids = Vec::new();
    for op in open.staged.ops() {
        if let OpKind::Undo { tid } = op.kind {
            oids.extend(hosted.storage.undo_oids(tid)?);
        }
    }
    Ok(oids)
}

/// With the whole storage locked: what does the undo come to?
pub(super) fn undo_in_storage(
    hosted: &Arc<Hosted>,
    connection: &Arc<Connection>,
    mut open: OpenTransaction,
    reply_to: &OwnedMsgId,
    running: Running,
) {
    let result = hosted.storage.undo_now(&mut open.staged);
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
        *connection.transaction.lock() = Transaction::None;
        return;
    }
    *transaction = Transaction::Open(open);
    drop(transaction);
    connection.post(frame(connection, reply_to, &answer));
}

/// What undoLog says of a transaction. The keys of the extension stand beside, and in front of, its own.
fn description(entry: &UndoEntry) -> Vec<(Value, Value)> {
    let mut items = vec![
        (Value::text("id"), Value::bytes(undo_id(entry.tid))),
        (Value::text("time"), Value::Float(entry.tid.to_unix())),
        (Value::text("user_name"), Value::bytes(&entry.meta.user)),
        (Value::text("size"), Value::Int(i64::try_from(entry.size).unwrap_or(i64::MAX))),
        (Value::text("description"), Value::bytes(&entry.meta.description)),
    ];
    if let Some(Value::Dict(extension)) = extension_dict(&entry.meta.extension) {
        for (key, value) in extension {
            match items.iter_mut().find(|(known, _)| equal(known, &key)) {
                Some((_, own)) => *own = value,
                None => items.push((key, value)),
            }
        }
    }
    items
}

/// What undoInfo's transactions must have in their descriptions.
pub(super) struct Specification(Vec<(Value, Value)>);

impl Specification {
    /// `None` if nothing is asked for.
    pub fn new(specification: Value) -> Result<Option<Specification>, PyException> {
        let kind = match specification {
            Value::Dict(items) if items.is_empty() => return Ok(None),
            Value::Dict(items) => return Ok(Some(Specification(items))),
            Value::None | Value::Bool(false) | Value::Int(0) => return Ok(None),
            Value::Tuple(items) | Value::List(items) if items.is_empty() => return Ok(None),
            Value::Bytes(bytes) | Value::Str(bytes) if bytes.is_empty() => return Ok(None),
            Value::Text(text) | Value::Unicode(text) if text.is_empty() => return Ok(None),
            Value::Bool(_) => "bool",
            Value::Int(_) | Value::BigInt(_) => "int",
            Value::Float(_) => "float",
            Value::Tuple(_) => "tuple",
            Value::List(_) => "list",
            _ => "str",
        };
        let message = format!("'{kind}' object has no attribute 'items'");
        Err(PyException::builtin("AttributeError", message))
    }

    fn fits(&self, entry: &UndoEntry) -> bool {
        let has = description(entry);
        self.0.iter().all(|(key, wanted)| {
            let value = has.iter().find(|(known, _)| equal(key, known)).map(|(_, value)| value);
            value.map_or(*wanted == Value::None, |value| equal(wanted, value))
        })
    }
}

/// Whether Python has `wanted == value`. Texts and bytes are compared as Python 2 does, whatever the peer: the file
/// does not tell them apart.
fn equal(wanted: &Value, value: &Value) -> bool {
    if let (Some(wanted), Some(value)) = (string(wanted), string(value)) {
        return wanted == value;
    }
    if let (Some(wanted), Some(value)) = (number(wanted), number(value)) {
        return wanted == value;
    }
    match (wanted, value) {
        (Value::Prefix(path), value) => match (string(path), string(value)) {
            (Some(path), Some(value)) => is_path_prefix(path, value),
            _ => false,
        },
        (Value::Tuple(a), Value::Tuple(b)) | (Value::List(a), Value::List(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b))
        }
        (Value::Dict(a), Value::Dict(b)) => {
            a.len() == b.len()
                && a.iter().all(|(key, a)| b.iter().any(|(known, b)| equal(key, known) && equal(a, b)))
        }
        (wanted, value) => wanted == value,
    }
}

fn string(value: &Value) -> Option<&[u8]> {
    match value {
        Value::Bytes(bytes) | Value::Str(bytes) => Some(bytes),
        Value::Text(text) | Value::Unicode(text) => Some(text.as_bytes()),
        _ => None,
    }
}

#[allow(clippy::cast_precision_loss)] // Python's comparison of large integers and floats is of no use here
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(value) => Some(f64::from(u8::from(*value))),
        Value::Int(value) => Some(*value as f64),
        Value::Float(value) => Some(*value),
        _ => None,
    }
}

/// As ZopeUndo.Prefix compares: element by element; what follows the last blank of the last element is a user's name and
/// does not count.
fn is_path_prefix(path: &[u8], value: &[u8]) -> bool {
    let mut elements: Vec<&[u8]> = value.split(|&byte| byte == b'/').collect();
    if let Some(last) = elements.last_mut()
        && let Some(blank) = last.iter().rposition(|&byte| byte == b' ')
    {
        *last = last.get(..blank).unwrap_or_default();
    }
    let wanted: Vec<&[u8]> = path.split(|&byte| byte == b'/').collect();
    elements.starts_with(&wanted)
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The name of a transaction in undoLog: its tid in base64.
fn undo_id(tid: Tid) -> [u8; 12] {
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
    let bytes = string(undo_id).and_then(decode_base64);
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
    use crate::storage::TransactionMeta;

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

    fn entry(user: &str, description: &str, extension: &[u8]) -> UndoEntry {
        let meta = TransactionMeta {
            user: user.into(),
            description: description.into(),
            extension: extension.to_vec(),
        };
        UndoEntry { tid: Tid(7), meta, size: 99 }
    }

    #[test]
    fn descriptions_give_way_to_extensions() {
        let items = description(&entry("me", "what", b"(dU\x04sizeK\x05sU\x03newI01\ns."));
        let names: Vec<_> = items.iter().map(|(key, _)| string(key).unwrap()).collect();
        assert_eq!(names, [&b"id"[..], b"time", b"user_name", b"size", b"description", b"new"]);
        assert_eq!(items[3].1, Value::Int(5));
        assert_eq!(description(&entry("me", "what", b"broken")).len(), 5);
    }

    #[test]
    fn specifications() {
        let fits = |items: &[(&str, Value)], entry: &UndoEntry| {
            let items = items.iter().map(|(key, value)| (Value::text(*key), value.clone())).collect();
            Specification::new(Value::Dict(items)).unwrap().is_none_or(|s| s.fits(entry))
        };
        let prefix = |path: &str| Value::Prefix(Box::new(Value::bytes(path)));
        let e = entry("/acl users/jim", "/a/b/c", b"}U\x01xF1\ns.");
        assert!(fits(&[], &e));
        assert!(fits(&[("description", Value::text("/a/b/c"))], &e));
        assert!(fits(&[("description", Value::bytes("/a/b/c")), ("x", Value::Int(1))], &e));
        assert!(!fits(&[("description", Value::bytes("/a/b"))], &e));
        assert!(!fits(&[("y", Value::bytes("/a/b"))], &e));
        assert!(fits(&[("y", Value::None)], &e));
        for (path, expected) in
            [("/a", true), ("/a/b/c", true), ("/a/b/c/d", false), ("/a/x", false), ("/", false)]
        {
            assert_eq!(fits(&[("description", prefix(path))], &e), expected, "{path}");
        }
        // The name of the user that follows a blank is left out, in the last element only.
        assert!(fits(&[("user_name", prefix("/acl users"))], &e));
        assert!(fits(
            &[("user_name", prefix("/folder/acl_users"))],
            &entry("/folder/acl_users jim", "", b"")
        ));
        assert!(fits(&[("user_name", prefix(""))], &entry("/folder jim", "", b"")));
        assert!(!fits(&[("time", prefix(""))], &e));
        assert!(Specification::new(Value::List(vec![Value::None])).is_err());
        assert!(Specification::new(Value::Tuple(Vec::new())).unwrap().is_none());
    }
}
