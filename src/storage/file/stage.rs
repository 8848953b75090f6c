//! Vote: everything that can be checked is checked here, and the disk space is reserved, so that `finish` has only to
//! write and sync.
//!
//! Nothing is written yet: where the transaction will stand in the file is not known before it has its tid. Many
//! votes run at once; the server's locks see to it that they touch different objects.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use super::FileStorage;
use super::format::{BACK_LEN, DATA_HEADER_LEN, DataHeader, POS_MAX, TRAILER_LEN, TXN_HEADER_LEN};
use super::pins::Pin;
use super::space::Reservation;
use super::volume::Volume;
use crate::base::ids::{Oid, Tid};
use crate::base::log_rate::LogRate;
use crate::conflict::Conflict;
use crate::storage::conflicts::{Conflicts, Settled};
use crate::storage::staged::{Op, OpKind, Staged};
use crate::storage::{Result, StorageError, TidAt, Undone, Voted};

/// What those who copy a database can bring about.
static MISMATCHES: LogRate = LogRate::new("mismatches between data and backpointers", 60, 60);

/// A transaction that has passed its checks.
pub struct VotedTxn {
    pub staged: Staged,
    pub tid: Option<Tid>,
    pub records: Vec<StagedRecord>,
    /// Each object once, with the record that counts: the last.
    pub objects: Vec<StagedObject>,
    /// The payloads do not lie one after another as in the file: some became a back-pointer, or came later.
    pub rearranged: bool,
    /// Bytes of all records.
    pub records_len: u64,
    /// What positions are about.
    pub volume: Arc<Volume>,
    /// Data of records that were to be back-pointers, by number, after a pack took away what they were to point to.
    pub fetched: HashMap<usize, Vec<u8>>,
    /// Given back when this is dropped.
    reservation: Reservation,
    _pin: Option<Pin>,
    resolved: Vec<Oid>,
    undone: Vec<Undone>,
}

/// The records of a transaction whose operations are being gone through.
pub struct Draft {
    pub records: Vec<StagedRecord>,
    /// Bytes of the records.
    pub len: u64,
    pub undone: Vec<Undone>,
    /// Each object's last record among the first `settled` of `records`.
    latest: HashMap<Oid, usize>,
    settled: usize,
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

impl Draft {
    fn new(capacity: usize) -> Draft {
        Draft {
            records: Vec::with_capacity(capacity),
            len: 0,
            undone: Vec::new(),
            latest: HashMap::new(),
            settled: 0,
        }
    }

    pub fn push(&mut self, record: StagedRecord) {
        self.len += record.len();
        self.records.push(record);
    }

    /// From here on [`Draft::latest`] knows the records that there are now: those of the operations before an undo, but not
    /// the undo's own.
    pub fn settle(&mut self) {
        let new = self.records.iter().enumerate().skip(self.settled);
        self.latest.extend(new.map(|(at, record)| (record.oid, at)));
        self.settled = self.records.len();
    }

    /// The object's last record in this transaction.
    pub fn latest(&self, oid: Oid) -> Option<StagedRecord> {
        self.latest.get(&oid).and_then(|&at| self.records.get(at)).copied()
    }
}

impl StagedRecord {
    /// The header and what follows it.
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

impl VotedTxn {
    /// A pack has put `to` in the place of the file that this was voted for: the same objects, elsewhere. Their current
    /// revisions are the same, for nobody else may change them since.
    pub fn relocate(&mut self, to: &Arc<Volume>) -> Result<()> {
        if Arc::ptr_eq(&self.volume, to) {
            return Ok(());
        }
        let mut file_at = 0;
        for (no, record) in self.records.iter_mut().enumerate() {
            record.prev = to.index.pos(record.oid);
            if record.back != 0 {
                let from = &self.volume.log;
                let tid = from.read_record(record.back, Some(record.oid))?.header.tid;
                let old = std::mem::replace(&mut record.back, to.revision(record.oid, tid)?);
                if record.back == 0
                    && let Some((pos, header)) = from.follow(record.oid, old)?
                {
                    let mut data = Vec::new();
                    from.read_data(pos, &header, &mut data)?;
                    record.data_len = header.data_len;
                    self.fetched.insert(no, data);
                }
                self.rearranged = true;
            }
            record.file_at = file_at;
            file_at += record.header(Tid::ZERO, 0).record_len();
        }
        self.records_len = file_at;
        self.objects = distinct(&self.records);
        self.volume = to.clone();
        self.reservation.grow_to(self.len());
        Ok(())
    }
}

impl Voted for VotedTxn {
    fn tid(&self) -> Option<Tid> {
        self.tid
    }

    fn resolved(&self) -> &[Oid] {
        &self.resolved
    }

    fn undone(&self) -> &[Undone] {
        &self.undone
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

impl FileStorage {
    pub(super) fn stage(&self, mut staged: Staged, tid_at: TidAt) -> Result<VotedTxn> {
        self.check_writable()?;
        check_meta(&staged)?;
        let core = &self.core;
        if core.blobs.is_none() && !staged.blobs().is_empty() {
            return Err(StorageError::no_blobs());
        }
        let points_back =
            |op: &Op| matches!(op.kind, OpKind::Undo { .. } | OpKind::Restore { prev_txn: Some(_), .. });
        // Before the volume is taken.
        let pin = staged.ops().iter().any(points_back).then(|| core.pins.begin());
        let volume = core.volume.get_owned();
        let head_len = (TXN_HEADER_LEN
            + staged.meta.user.len()
            + staged.meta.description.len()
            + staged.meta.extension.len()) as u64;
        let begin = core.space.likely_end();
        let mut draft = Draft::new(staged.ops().len());
        let mut rearranged = false;
        let mut conflicts = Conflicts::default();
        for index in 0..staged.ops().len() {
            let op = staged.ops()[index];
            let op = match op.kind {
                OpKind::Store { serial } => {
                    let committed = committed(&volume, op.oid, volume.index.pos(op.oid))?;
                    match conflicts.settle(self, &self.resolver, &mut staged, index, serial, committed)? {
                        Settled::Write(settled) => {
                            rearranged |= settled != op;
                            settled
                        }
                        Settled::Skip => {
                            rearranged = true;
                            continue;
                        }
                        Settled::Postponed => break,
                    }
                }
                OpKind::Undo { tid } => {
                    rearranged = true;
                    self.undo(&volume, &mut staged, tid, &mut draft)?;
                    continue;
                }
                _ => op,
            };
            let Some(record) = self.check_op(&volume, &staged, &op, draft.len)? else { continue };
            let pos = begin + head_len + draft.len;
            // As Python counts: the record may begin at the quota, and reach beyond it.
            let restored = matches!(op.kind, OpKind::Restore { .. });
            if !restored && self.options.quota.is_some_and(|quota| pos > quota) {
                return Err(StorageError::Quota);
            }
            // A back-pointer may be as long as the data that it stands for.
            rearranged |= record.len() != DATA_HEADER_LEN as u64 + op.len || record.back != 0;
            draft.push(record);
        }
        if begin + draft.len > POS_MAX {
            return Err(StorageError::Refused {
                class: ("ZODB.FileStorage.FileStorage", "FileStorageError"),
                message: "the file would exceed 256 TiB".into(),
            });
        }
        let (mut staged, resolved) = conflicts.finish(staged)?;
        let objects = distinct(&draft.records);
        if let Some(blobs) = &core.blobs {
            self.undo_blobs(blobs, &draft.undone, &objects, &mut staged)?;
        }
        core.will_write();
        let reservation = core.space.reserve(&core.path, head_len + draft.len + TRAILER_LEN as u64)?;
        let tid = match tid_at {
            TidAt::Finish => None,
            TidAt::Vote => Some(core.tids.at_vote(staged.tid)?),
        };
        if let Some(pin) = &pin {
            let backs = draft.records.iter().filter(|record| record.back != 0);
            pin.voted(&volume, backs.map(|record| (record.oid, record.back)).collect());
        }
        Ok(VotedTxn {
            staged,
            tid,
            records: draft.records,
            objects,
            rearranged,
            records_len: draft.len,
            volume,
            fetched: HashMap::new(),
            reservation,
            _pin: pin,
            resolved,
            undone: draft.undone,
        })
    }

    /// See [`Storage::undo_now`](crate::storage::Storage::undo_now). Vote goes through all of it again. What may be merged
    /// there before it is stored is taken as it came.
    pub(super) fn preview_undo(&self, staged: &mut Staged) -> Result<(Tid, Vec<Oid>)> {
        self.check_writable()?;
        let tid = self.core.tids.at_vote(staged.tid)?;
        staged.tid = Some(tid);
        let volume = self.core.volume.get_owned();
        let mut draft = Draft::new(staged.ops().len());
        let mut told = 0;
        for index in 0..staged.ops().len() {
            let op = staged.ops()[index];
            told = draft.undone.len();
            if let OpKind::Undo { tid } = op.kind {
                self.undo(&volume, staged, tid, &mut draft)?;
            } else if let Some(record) = self.check_op(&volume, staged, &op, draft.len)? {
                draft.push(record);
            }
        }
        Ok((tid, draft.undone.iter().skip(told).map(|undone| undone.oid).collect()))
    }

    /// Checks one operation as Python's `store`, `deleteObject`, `restore` and `checkCurrentSerialInTransaction` do;
    /// the record to write, if it writes one.
    fn check_op(
        &self,
        volume: &Volume,
        staged: &Staged,
        op: &Op,
        file_at: u64,
    ) -> Result<Option<StagedRecord>> {
        let oid = op.oid;
        let prev = volume.index.pos(oid);
        let mut record =
            StagedRecord { oid, tid: None, prev, data_len: op.len, back: 0, staged_at: op.start, file_at };
        match op.kind {
            // Has records of its own.
            OpKind::Undo { .. } => return Ok(None),
            OpKind::CheckCurrent { serial } => {
                let committed = self.current_tid(oid)?;
                if committed != serial {
                    let conflict = conflict(oid, committed, serial, Vec::new());
                    return Err(StorageError::ReadConflict(conflict));
                }
                return Ok(None);
            }
            OpKind::Store { .. } => {
                if op.len == 0 {
                    return Err(StorageError::Refused {
                        class: ("ZODB.POSException", "StorageError"),
                        message: format!("the record of object 0x{oid} is empty"),
                    });
                }
            }
            OpKind::Delete { serial } => {
                let committed = committed(volume, oid, prev)?.ok_or(StorageError::PosKey(oid))?;
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
                    record.back = back_pointer(volume, staged, op, prev, prev_txn, has_data)?;
                    if record.back != 0 {
                        record.data_len = 0;
                    }
                }
            }
        }
        Ok(Some(record))
    }
}

/// The tid of the current record, of an object that is gone too; `None` if there never was one.
fn committed(volume: &Volume, oid: Oid, pos: u64) -> Result<Option<Tid>> {
    if pos == 0 {
        return Ok(None);
    }
    Ok(Some(volume.log.read_record(pos, Some(oid))?.header.tid))
}

/// The record that a restored record may point back to instead of repeating its data: the last one of the object in
/// transaction `prev_txn`, if its data is the same. It is only a hint, and 0 if there is nothing fitting.
fn back_pointer(
    volume: &Volume,
    staged: &Staged,
    op: &Op,
    mut pos: u64,
    prev_txn: Tid,
    has_data: bool,
) -> Result<u64> {
    let log = &volume.log;
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
            if !same && MISMATCHES.admits(None, "") {
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

fn conflict(oid: Oid, committed: Tid, read: Tid, data: Vec<u8>) -> Box<Conflict> {
    Box::new(Conflict { oid, committed, read, data })
}

/// What the client sent with one operation.
fn payload(staged: &Staged, op: &Op) -> Result<Vec<u8>> {
    staged.payload(op).map_err(StorageError::io("reading back a transaction's temporary file"))
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
