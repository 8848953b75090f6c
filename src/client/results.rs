//! Results of servers as storages have them.

use crate::base::ids::Tid;
use crate::storage::{
    DataRecord, HistoryEntry, IternextRecord, TransactionMeta, TransactionRecord, UndoEntry,
};
use crate::wire::encoder::pickled;
use crate::wire::results::{IteratedObject, IteratedRecord, IteratedTransaction, LogEntry};
use crate::wire::undo_id;
use crate::wire::value::Value;

/// The extension of a transaction: an empty one is stored as nothing.
fn extension(dict: &Value) -> Vec<u8> {
    match dict {
        Value::Dict(items) if !items.is_empty() => pickled(dict),
        // Servers of Python 2 before ZEO 5 may send the pickle itself.
        Value::Bytes(pickle) | Value::Str(pickle) => pickle.clone(),
        _ => Vec::new(),
    }
}

/// A transaction of an iteration.
pub fn transaction(iterated: IteratedTransaction) -> TransactionRecord {
    let IteratedTransaction { tid, status, user, description, extension: dict } = iterated;
    TransactionRecord {
        tid,
        status,
        meta: TransactionMeta { user, description, extension: extension(&dict) },
    }
}

/// A record of an iteration.
pub fn record(iterated: IteratedRecord) -> DataRecord {
    let IteratedRecord { oid, tid, data, data_txn } = iterated;
    DataRecord { oid, tid, data, data_txn }
}

/// An object of a walk through all objects.
pub fn object(iterated: IteratedObject) -> IternextRecord {
    let IteratedObject { oid, tid, data, next } = iterated;
    IternextRecord { oid, tid, data, next }
}

/// A revision of an object. `None`: it has no tid.
pub fn revision(entry: LogEntry) -> Option<HistoryEntry> {
    // Repeats of the tid, and versions, of older servers.
    const NOT_EXTENSION: [&[u8]; 2] = [b"serial", b"version"];
    let tid = Tid::from_slice(&entry.id)?;
    let size = entry.size.unwrap_or_default();
    Some(HistoryEntry { tid, meta: meta(entry, &NOT_EXTENSION), size })
}

/// A transaction that can be undone. `None`: its name is none.
pub fn undoable(entry: LogEntry) -> Option<UndoEntry> {
    let tid = undo_id::tid_of(&Value::bytes(&entry.id))?;
    let size = entry.size.unwrap_or_default();
    Some(UndoEntry { tid, meta: meta(entry, &[]), size })
}

fn meta(entry: LogEntry, left_out: &[&[u8]]) -> TransactionMeta {
    let LogEntry { user_name, description, mut rest, .. } = entry;
    rest.retain(|(key, _)| key.string().is_none_or(|key| !left_out.contains(&key)));
    TransactionMeta { user: user_name, description, extension: extension(&Value::Dict(rest)) }
}
