//! What storages return.

use super::Result;
use crate::base::ids::{Oid, Tid};

/// A revision that was read: where its data is in the caller's buffer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Loaded {
    /// Offset of the data in `out`; it ends where `out` ends.
    pub start: usize,
    pub serial: Tid,
    /// The tid of the next revision; `None` if this one is current (always so for `load_serial`).
    pub end: Option<Tid>,
}

/// Who did a transaction and why, as it stands in the file.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TransactionMeta {
    pub user: Vec<u8>,
    pub description: Vec<u8>,
    /// The pickled extension dict; empty for an empty one.
    pub extension: Vec<u8>,
}

/// One revision in an object's history.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HistoryEntry {
    pub tid: Tid,
    pub meta: TransactionMeta,
    /// Bytes of data, as Python's history has it.
    pub size: u64,
}

/// An object in oid order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IternextRecord {
    pub oid: Oid,
    pub tid: Tid,
    pub data: Vec<u8>,
    pub next: Option<Oid>,
}

/// One transaction of an iteration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TransactionRecord {
    pub tid: Tid,
    /// `b' '`, or `b'p'` if packed
    pub status: u8,
    pub meta: TransactionMeta,
}

/// One data record of a transaction.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DataRecord {
    pub oid: Oid,
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
