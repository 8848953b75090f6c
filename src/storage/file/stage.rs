//! Vote: everything that can be checked is checked here, and the disk space is reserved, so that `finish` has only to
//! write and sync.
//!
//! Nothing is written yet: where the transaction will stand in the file is not known before it has its tid. Many
//! votes run at once; the server's locks see to it that they touch different objects.

use std::any::Any;

use super::FileStorage;
use super::format::{BACK_LEN, DATA_HEADER_LEN, DataHeader, POS_MAX, TRAILER_LEN, TXN_HEADER_LEN};
use super::space::Reservation;
use crate::base::ids::{Oid, Tid};
use crate::storage::error::Conflict;
use crate::storage::staged::{Op, OpKind, Staged};
use crate::storage::{Result, StorageError, TidAt, Voted};

/// A transaction that has passed its checks.
pub struct VotedTxn {
    pub staged: Staged,
    pub tid: Option<Tid>,
    pub records: Vec<StagedRecord>,
    /// Each object once, with the record that counts: the last.
    pub objects: Vec<StagedObject>,
    /// A record became a back-pointer, so payloads do not lie one after another any more.
    pub rearranged: bool,
    /// Bytes of all records.
    pub records_len: u64,
    /// Given back when this is dropped.
    _reservation: Reservation,
    resolved: Vec<Oid>,
}

/// One record, but for its place.
#[derive(Clone, Copy, Debug)]
pub struct StagedRecord {
    pub oid: Oid,
    /// `restore` brings its own; else it is the transaction's.
    pub tid: Option<Tid>,
    pub prev: u64,
    pub data_len: u64,
    /// The back-pointer, if `data_len` is 0.
    pub back: u64,
    /// Where its headroom begins in the staged area, and relative to the first record in the file.
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

impl StagedRecord {
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

impl VotedTxn {
    /// From the tid to the first record.
    pub fn head_len(&self) -> u64 {
        let meta = &self.staged.meta;
        (TXN_HEADER_LEN + meta.user.len() + meta.description.len() + meta.extension.len()) as u64
    }

    /// The whole transaction in the file.
    pub fn len(&self) -> u64 {
        self.head_len() + self.records_len + TRAILER_LEN as u64
    }
}

impl Voted for VotedTxn {
    fn tid(&self) -> Option<Tid> {
        self.tid
    }

    fn resolved(&self) -> &[Oid] {
        &self.resolved
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

impl FileStorage {
    pub(super) fn stage(&self, staged: Staged, tid_at: TidAt) -> Result<VotedTxn> {
        self.check_writable()?;
        check_meta(&staged)?;
        let core = &self.core;
        let head_len = (TXN_HEADER_LEN
            + staged.meta.user.len()
            + staged.meta.description.len()
            + staged.meta.extension.len()) as u64;
        let begin = core.space.likely_end();
        let mut records = Vec::with_capacity(staged.ops().len());
        let (mut file_at, mut rearranged) = (0, false);
        for op in staged.ops() {
            let Some(record) = self.check_op(&staged, op, file_at)? else { continue };
            let pos = begin + head_len + file_at;
            // As Python counts: the record may begin at the quota, and reach beyond it.
            let restored = matches!(op.kind, OpKind::Restore { .. });
            if !restored && self.options.quota.is_some_and(|quota| pos > quota) {
                return Err(StorageError::Quota);
            }
            let payload_len = if record.data_len == 0 { BACK_LEN as u64 } else { record.data_len };
            // A back-pointer may be as long as the data that it stands for.
            rearranged |= payload_len != op.len || record.back != 0;
            file_at += DATA_HEADER_LEN as u64 + payload_len;
            records.push(record);
        }
        if begin + file_at > POS_MAX {
            return Err(StorageError::Refused {
                class: ("ZODB.FileStorage.FileStorage", "FileStorageError"),
                message: "the file would exceed 256 TiB".into(),
            });
        }
        let objects = distinct(&records);
        let reservation = core.space.reserve(&core.log, head_len + file_at + TRAILER_LEN as u64)?;
        let tid = match tid_at {
            TidAt::Finish => None,
            TidAt::Vote => Some(core.tids.at_vote(staged.tid)?),
        };
        Ok(VotedTxn {
            staged,
            tid,
            records,
            objects,
            rearranged,
            records_len: file_at,
            _reservation: reservation,
            resolved: Vec::new(),
        })
    }

    /// Checks one operation as Python's `store`, `deleteObject`, `restore` and `checkCurrentSerialInTransaction` do;
    /// the record to write, if it writes one.
    fn check_op(&self, staged: &Staged, op: &Op, file_at: u64) -> Result<Option<StagedRecord>> {
        let oid = op.oid;
        let prev = self.core.index.pos(oid);
        let mut record =
            StagedRecord { oid, tid: None, prev, data_len: op.len, back: 0, staged_at: op.start, file_at };
        match op.kind {
            OpKind::CheckCurrent { serial } => {
                let committed = self.current_tid(oid)?;
                if committed != serial {
                    let conflict = conflict(oid, committed, serial, Vec::new());
                    return Err(StorageError::ReadConflict(conflict));
                }
                return Ok(None);
            }
            OpKind::Store { serial } => {
                if op.len == 0 {
                    return Err(StorageError::Refused {
                        class: ("ZODB.POSException", "StorageError"),
                        message: format!("the record of object 0x{oid} is empty"),
                    });
                }
                if let Some(committed) = self.committed(oid, prev)?
                    && committed != serial
                {
                    let data = payload(staged, op)?;
                    return Err(StorageError::Conflict(conflict(oid, committed, serial, data)));
                }
            }
            OpKind::Delete { serial } => {
                let committed = self.committed(oid, prev)?.ok_or(StorageError::PosKey(oid))?;
                if committed != serial {
                    return Err(StorageError::Conflict(conflict(oid, committed, serial, Vec::new())));
                }
                record.data_len = 0;
            }
            OpKind::Restore { serial, prev_txn, has_data } => {
                record.tid = Some(serial);
                if !has_data {
                    record.data_len = 0;
                } else if op.len == 0 {
                    return Err(StorageError::Refused {
                        class: ("ZODB.POSException", "StorageError"),
                        message: format!("the record of object 0x{oid} is empty"),
                    });
                }
                if let Some(prev_txn) = prev_txn {
                    record.back = self.back_pointer(staged, op, prev, prev_txn, has_data)?;
                    if record.back != 0 {
                        record.data_len = 0;
                    }
                }
            }
        }
        Ok(Some(record))
    }

    /// The tid of the current record, of an object that is gone too; `None` if there never was one.
    fn committed(&self, oid: Oid, pos: u64) -> Result<Option<Tid>> {
        if pos == 0 {
            return Ok(None);
        }
        Ok(Some(self.core.log.read_record(pos, Some(oid))?.header.tid))
    }

    /// The record that a restored record may point back to instead of repeating its data: the last one of the object in
    /// transaction `prev_txn`, if its data is the same. It is only a hint, and 0 if there is nothing fitting.
    fn back_pointer(
        &self,
        staged: &Staged,
        op: &Op,
        mut pos: u64,
        prev_txn: Tid,
        has_data: bool,
    ) -> Result<u64> {
        let log = &self.core.log;
        while pos != 0 {
            let record = log.read_record(pos, Some(op.oid))?;
            if record.header.tid < prev_txn {
                return Ok(0);
            }
            if record.header.tid == prev_txn {
                // Where the hinted record is a back-pointer itself, Python trusts the hint; the data are compared here
                // all the same.
                let found = match record.header.data_len {
                    0 => log.follow(op.oid, record.back)?,
                    _ => Some((pos, record.header)),
                };
                let same = match found {
                    Some((at, header)) if has_data && header.data_len == op.len => {
                        let mut data = Vec::new();
                        log.read_data(at, &header, &mut data)?;
                        data == payload(staged, op)?
                    }
                    Some(_) => false,
                    None => !has_data,
                };
                if !same {
                    log::error!(
                        target: super::log::TARGET,
                        "Mismatch between data and backpointer at {pos}"
                    );
                }
                return Ok(if same { pos } else { 0 });
            }
            pos = record.header.prev;
        }
        Ok(0)
    }
}

fn conflict(oid: Oid, committed: Tid, read: Tid, data: Vec<u8>) -> Box<Conflict> {
    Box::new(Conflict { oid, committed, read, data })
}

/// What the client sent with one operation.
fn payload(staged: &Staged, op: &Op) -> Result<Vec<u8>> {
    let mut data = vec![0; op.len as usize];
    staged
        .read_at(&mut data, op.start + DATA_HEADER_LEN as u64)
        .map_err(StorageError::io("reading back a transaction's temporary file"))?;
    Ok(data)
}

/// Lengths that the file has two bytes for, and a status that may stand in it.
fn check_meta(staged: &Staged) -> Result<()> {
    let refused = |message: &str| {
        let class = ("ZODB.FileStorage.FileStorage", "FileStorageError");
        Err(StorageError::Refused { class, message: message.into() })
    };
    let meta = &staged.meta;
    if u16::try_from(meta.user.len()).is_err() {
        return refused("user name too long");
    }
    if u16::try_from(meta.description.len()).is_err() {
        return refused("description too long");
    }
    if u16::try_from(meta.extension.len()).is_err() {
        return refused("too much extension data");
    }
    if !matches!(staged.status, b' ' | b'p') {
        return refused("a transaction's status is ' ', or 'p' if it is packed");
    }
    Ok(())
}

/// Each object once, with its last record.
fn distinct(records: &[StagedRecord]) -> Vec<StagedObject> {
    let mut objects: Vec<StagedObject> = records
        .iter()
        .map(|r| StagedObject { oid: r.oid, file_at: r.file_at, data_len: r.data_len, is_new: r.prev == 0 })
        .collect();
    objects.sort_unstable_by_key(|object| (object.oid, std::cmp::Reverse(object.file_at)));
    objects.dedup_by_key(|object| object.oid);
    objects
}
