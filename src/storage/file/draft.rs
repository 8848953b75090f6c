//! The records of a transaction that is being voted. Their positions in the file are not known yet.

use std::collections::HashMap;

use super::format::{BACK_LEN, DATA_HEADER_LEN, DataHeader, TXN_HEADER_LEN};
use crate::base::ids::{Oid, Tid};
use crate::storage::{TransactionMeta, Undone};

/// The records of a transaction during its vote.
pub struct Draft {
    pub records: Vec<StagedRecord>,
    /// Bytes of the records.
    pub len: u64,
    pub undone: Vec<Undone>,
    /// The payloads of `staged` are not in the order that the records will have in the file.
    pub rearranged: bool,
    /// Each object's last record among the first `settled` of `records`.
    latest: HashMap<Oid, usize>,
    settled: usize,
}

/// One record, without its position in the file.
#[derive(Clone, Copy, Debug)]
pub struct StagedRecord {
    pub oid: Oid,
    /// A restored record has its own tid; otherwise it is the transaction's.
    pub tid: Option<Tid>,
    pub prev: u64,
    pub data_len: u64,
    /// The back-pointer, if `data_len` is 0.
    pub back: u64,
    /// Where its headroom begins in the staged area. `file_at`: its offset from the first record in the file.
    pub staged_at: u64,
    pub file_at: u64,
}

/// An object that the transaction changes.
#[derive(Clone, Copy, Debug)]
pub struct StagedObject {
    pub oid: Oid,
    pub file_at: u64,
    pub data_len: u64,
    pub is_new: bool,
}

impl Draft {
    pub fn new(capacity: usize) -> Draft {
        Draft {
            records: Vec::with_capacity(capacity),
            len: 0,
            undone: Vec::new(),
            rearranged: false,
            latest: HashMap::new(),
            settled: 0,
        }
    }

    pub fn push(&mut self, record: StagedRecord) {
        self.len += record.len();
        self.records.push(record);
    }

    /// Makes [`Draft::latest`] include all present records. Called before an undo, whose own records are then not
    /// included.
    pub fn settle(&mut self) {
        let new = self.records.iter().enumerate().skip(self.settled);
        self.latest.extend(new.map(|(at, record)| (record.oid, at)));
        self.settled = self.records.len();
    }

    /// The object's last record among the settled ones.
    pub fn latest(&self, oid: Oid) -> Option<StagedRecord> {
        self.latest.get(&oid).and_then(|&at| self.records.get(at)).copied()
    }
}

impl StagedRecord {
    /// Bytes of the header and of what follows it.
    pub fn len(&self) -> u64 {
        let payload_len = if self.data_len == 0 { BACK_LEN as u64 } else { self.data_len };
        DATA_HEADER_LEN as u64 + payload_len
    }

    pub fn header(&self, tid: Tid, tloc: u64) -> DataHeader {
        DataHeader {
            oid: self.oid,
            tid: self.tid.unwrap_or(tid),
            prev: self.prev,
            tloc,
            version_len: 0,
            data_len: self.data_len,
        }
    }
}

/// Each object once, with its last record.
pub fn distinct(records: &[StagedRecord]) -> Vec<StagedObject> {
    let mut objects: Vec<StagedObject> = records
        .iter()
        .map(|r| StagedObject { oid: r.oid, file_at: r.file_at, data_len: r.data_len, is_new: r.prev == 0 })
        .collect();
    objects.sort_unstable_by_key(|object| (object.oid, std::cmp::Reverse(object.file_at)));
    objects.dedup_by_key(|object| object.oid);
    objects
}

/// The length in bytes of a transaction's head: from its tid to the first record.
pub fn head_len(meta: &TransactionMeta) -> u64 {
    (TXN_HEADER_LEN + meta.user.len() + meta.description.len() + meta.extension.len()) as u64
}
