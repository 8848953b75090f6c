//! What storages take and return.

#![warn(missing_docs)]

use std::sync::atomic::AtomicU64;

use super::{Result, StorageError};
use crate::base::ids::{Oid, Tid};

/// A revision that was read: where its data is in the caller's buffer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Loaded {
    /// Offset of the data in `out`; it ends where `out` ends.
    pub start: usize,
    /// The transaction that stored it.
    pub serial: Tid,
    /// The tid of the next revision; `None` if this one is current (always so for `load_serial`).
    pub end: Option<Tid>,
}

/// Who did a transaction and why, as it stands in the file.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TransactionMeta {
    /// The user's name, as the client encoded it.
    pub user: Vec<u8>,
    /// What was done, as the client encoded it.
    pub description: Vec<u8>,
    /// The pickled extension dict; empty for an empty one.
    pub extension: Vec<u8>,
}

/// One revision in an object's history.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HistoryEntry {
    /// The transaction that stored it.
    pub tid: Tid,
    /// Who stored it and why.
    pub meta: TransactionMeta,
    /// Bytes of data, as Python's history has it.
    pub size: u64,
}

/// One object of a walk in the order of oids.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IternextRecord {
    /// The object.
    pub oid: Oid,
    /// The transaction that stored its current state.
    pub tid: Tid,
    /// Its current record.
    pub data: Vec<u8>,
    /// The next object; `None`: this was the last one.
    pub next: Option<Oid>,
}

/// The newest transactions of a storage: what clients may have missed.
#[derive(Debug)]
pub struct LastInvalidations {
    /// Their tids and oids, newest first. An object that several of them changed may be listed with the newest only.
    pub transactions: Vec<(Tid, Vec<Oid>)>,
    /// Every object that changed after this is listed.
    pub complete_after: Tid,
    /// Damage that kept the storage from looking further back.
    pub cut_short: Option<StorageError>,
}

impl LastInvalidations {
    /// What is listed in `transactions` is complete. `last`: the last transaction of the storage, which counts if none
    /// is listed.
    pub fn new(transactions: Vec<(Tid, Vec<Oid>)>, last: Tid) -> LastInvalidations {
        let oldest = transactions.last().map(|(tid, _)| Tid(tid.0.saturating_sub(1)));
        LastInvalidations { transactions, complete_after: oldest.unwrap_or(last), cut_short: None }
    }
}

/// One transaction of an iteration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TransactionRecord {
    /// Its id.
    pub tid: Tid,
    /// `b' '`, or `b'p'` if a pack has removed records of it.
    pub status: u8,
    /// Who did it and why.
    pub meta: TransactionMeta,
}

/// One data record of a transaction.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DataRecord {
    /// The object.
    pub oid: Oid,
    /// The serial of the record: its transaction, but for restored ones.
    pub tid: Tid,
    /// `None` for an object that was un-created or deleted.
    pub data: Option<Vec<u8>>,
    /// The transaction that holds the data, if the record is a back-pointer to it.
    pub data_txn: Option<Tid>,
}

/// Iterates over the transactions that were published when it was made.
pub trait TransactionIterator: Send {
    /// The next transaction, `None` at the end.
    fn next_transaction(&mut self) -> Result<Option<TransactionRecord>>;
    /// The data records of the transaction that `next_transaction` returned last.
    fn records(&self) -> Result<Box<dyn RecordIterator>>;
}

/// Iterates over the data records of one transaction.
pub trait RecordIterator: Send {
    /// The next record, `None` at the end.
    fn next_record(&mut self) -> Result<Option<DataRecord>>;
}

/// A transaction that can be undone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UndoEntry {
    /// Its id.
    pub tid: Tid,
    /// Who did it and why.
    pub meta: TransactionMeta,
    /// Bytes of the transaction, as Python's undoLog has it.
    pub size: u64,
}

/// An object that an undo changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Undone {
    /// The object.
    pub oid: Oid,
    /// The transaction whose data the object has again. `None` if it is gone now, or its states were merged.
    pub restored: Option<Tid>,
}

/// What is to be packed, and how.
pub struct PackRequest<'a> {
    /// Seconds since 1970; may be in the future.
    pub time: f64,
    /// Whether to remove what nothing refers to; `None`: as the storage is configured.
    pub gc: Option<bool>,
    /// Finds the oids that a record refers to. A storage that keeps records in another format than clients send hands
    /// on one that translates.
    pub references: &'a References<'a>,
    /// Where readers of `server_status` see how far it is.
    pub progress: &'a PackProgress,
    /// Who must hear of what was removed: `None` if nobody keeps anything beside the records.
    pub removals: Option<&'a dyn Removals>,
}

/// Hears of revisions that a pack leaves out, to remove the blobs that belong to them.
pub trait Removals: Sync {
    /// A revision with data is not kept: `tid` is its transaction, or `None` if nothing is kept of the object. Nothing
    /// has happened yet, and nothing will if the pack fails later.
    fn left_out(&self, oid: Oid, tid: Option<Tid>, data: &[u8]) -> Result<()>;
    /// The packed storage has taken the place of the old one. Not called if there was nothing to remove.
    fn packed(&self) -> Result<()>;
}

/// Appends the oids that a record refers to, each as often as it stands there; the error says why it is no record.
pub type References<'a> = dyn Fn(&[u8], &mut Vec<Oid>) -> std::result::Result<(), String> + Send + Sync + 'a;

/// How far a pack is. Bytes of the file, or objects where there is none.
#[derive(Debug, Default)]
pub struct PackProgress {
    /// What has been looked at.
    pub done: AtomicU64,
    /// What there is.
    pub total: AtomicU64,
}
