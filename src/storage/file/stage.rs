//! Vote: checks all that can be checked and reserves disk space, so that `finish` only has to write and sync.
//!
//! Nothing is written to the file yet: the position of the transaction is not known before it has its tid. Many votes
//! run at once; the server's locks ensure that they touch different objects.

use std::collections::HashMap;
use std::sync::Arc;

use super::FileStorage;
use super::draft::{Draft, StagedRecord, distinct, head_len};
use super::format::{DATA_HEADER_LEN, POS_MAX, TRAILER_LEN};
use super::volume::Volume;
use super::voted::{Job, VotedTxn};
use crate::base::ids::{Oid, Tid};
use crate::base::log_rate::LogRate;
use crate::conflict::Resolver;
use crate::storage::staged::{Op, OpKind, Staged};
use crate::storage::vote::{VoteSteps, check_delete, walk};
use crate::storage::{
    Commit, Publisher, Refusal, Result, Storage, StorageError, Ticket, TidAt, VoteResult, Voted,
};

/// Clients that copy a database can cause these lines.
static MISMATCHES: LogRate = LogRate::new("mismatches between data and backpointers", 60, 60);

impl Commit for FileStorage {
    fn tids_after(&self, tid: Tid) {
        self.core.tids.not_before(tid);
    }

    fn set_resolver(&self, resolver: Arc<dyn Resolver>) {
        self.resolver.set(resolver);
    }

    fn set_publisher(&self, publisher: Arc<dyn Publisher>) {
        self.core.publisher.set(publisher, super::log::TARGET, &self.name());
    }

    fn vote(&self, staged: Staged, tid_at: TidAt) -> VoteResult {
        self.check_writable()?;
        check_meta(&staged)?;
        let core = &self.core;
        if core.blobs.is_none() && !staged.blobs().is_empty() {
            return Err(StorageError::no_blobs().into());
        }
        let points_back =
            |op: &Op| matches!(op.kind, OpKind::Undo { .. } | OpKind::Restore { prev_txn: Some(_), .. });
        // Before the volume is taken, see `pins`.
        let pin = staged.ops().iter().any(points_back).then(|| core.pins.begin());
        let volume = core.volume.get_owned();
        let mut steps = FileSteps {
            storage: self,
            volume: &volume,
            begin: core.space.likely_end(),
            head_len: head_len(&staged.meta),
            draft: Draft::new(staged.ops().len()),
        };
        let (mut staged, resolved) = walk(self, &self.resolver, staged, &mut steps)?;
        let draft = steps.finish()?;
        let objects = distinct(&draft.records);
        if let Some(blobs) = &core.blobs {
            self.undo_blobs(blobs, &draft.undone, &objects, &mut staged)?;
        }
        core.will_write();
        let len = head_len(&staged.meta) + draft.len + TRAILER_LEN as u64;
        let reservation = core.space.reserve(&core.path, len)?;
        let tid = core.tids.for_vote(tid_at, staged.tid)?;
        if let Some(pin) = &pin {
            let backs = draft.records.iter().filter(|record| record.back != 0);
            pin.voted(&volume, backs.map(|record| (record.oid, record.back)).collect());
        }
        Ok(Box::new(VotedTxn {
            staged,
            tid,
            records: draft.records,
            objects,
            rearranged: draft.rearranged,
            links_late: false,
            records_len: draft.len,
            volume,
            fetched: HashMap::new(),
            reservation,
            _pin: pin,
            resolved,
            undone: draft.undone,
        }))
    }

    fn finish(&self, voted: Box<dyn Voted>, ticket: Ticket) {
        self.core.finish(Job { txn: voted.into_own(), ticket });
    }
}

/// The steps of one vote.
struct FileSteps<'a> {
    storage: &'a FileStorage,
    volume: &'a Volume,
    /// Where the transaction will probably begin in the file.
    begin: u64,
    head_len: u64,
    draft: Draft,
}

impl VoteSteps for FileSteps<'_> {
    fn committed(&mut self, oid: Oid) -> Result<Option<Tid>> {
        committed(self.volume, oid, self.volume.index.pos(oid))
    }

    fn add(&mut self, staged: &mut Staged, _index: usize, op: Op) -> Result<()> {
        let FileSteps { storage, volume, ref mut draft, .. } = *self;
        if let OpKind::Undo { tid } = op.kind {
            draft.rearranged = true;
            return storage.undo_transaction(volume, staged, tid, draft);
        }
        let Some(record) = check_op(volume, staged, &op, draft.len)? else { return Ok(()) };
        let pos = self.begin + self.head_len + draft.len;
        // As in Python: the record may begin at the quota and extend beyond it.
        let restored = matches!(op.kind, OpKind::Restore { .. });
        if !restored && storage.options.quota.is_some_and(|quota| pos > quota) {
            return Err(StorageError::Quota);
        }
        // A back-pointer may be as long as the data that it replaces. (A merged record changes the order too; the
        // staged transaction notes that itself.)
        draft.rearranged |= record.len() != DATA_HEADER_LEN as u64 + op.len || record.back != 0;
        draft.push(record);
        Ok(())
    }

    fn leave_out(&mut self, _index: usize, op: &Op) {
        // A check has no payload.
        self.draft.rearranged |= matches!(op.kind, OpKind::Store { .. });
    }
}

impl FileSteps<'_> {
    fn finish(self) -> Result<Draft> {
        if self.begin + self.draft.len > POS_MAX {
            return Err(StorageError::Refused {
                what: Refusal::FileLimit,
                message: "the file would exceed 256 TiB".into(),
            });
        }
        Ok(self.draft)
    }
}

/// Checks one operation as Python's `store`, `deleteObject` and `restore` do.
/// Returns the record to write, if there is one.
pub(super) fn check_op(
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
        // Without a record of their own: those of an undo are made in `undo_records`.
        OpKind::Undo { .. } | OpKind::CheckCurrent { .. } => return Ok(None),
        OpKind::Store { .. } => {
            if op.len == 0 {
                return Err(StorageError::Refused {
                    what: Refusal::Record,
                    message: format!("the record of object 0x{oid} is empty"),
                });
            }
        }
        OpKind::Delete { serial } => {
            check_delete(oid, serial, committed(volume, oid, prev)?)?;
            record.data_len = 0;
        }
        OpKind::Restore { serial, prev_txn, has_data } => {
            record.tid = Some(serial);
            if !has_data {
                record.data_len = 0;
            } else if op.len == 0 {
                return Err(StorageError::Refused {
                    what: Refusal::Record,
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

/// The tid of the current record, also of a deleted or un-created object; `None` if the object never existed.
fn committed(volume: &Volume, oid: Oid, pos: u64) -> Result<Option<Tid>> {
    if pos == 0 {
        return Ok(None);
    }
    Ok(Some(volume.log.read_record(pos, Some(oid))?.header.tid))
}

/// The record that a restored record may point back to instead of repeating the data: the object's last one in
/// transaction `prev_txn`, if its data is the same. `prev_txn` is only a hint; 0 if no record fits.
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
            // If the hinted record is a back-pointer itself, Python trusts the hint. Here the data are compared in this
            // case too.
            let found = match record.header.data_len {
                0 => log.follow(op.oid, record.back)?,
                _ => Some((pos, record.header)),
            };
            let same = match found {
                Some((at, header)) if has_data && header.data_len == op.len => {
                    let mut data = Vec::new();
                    log.read_data(at, &header, &mut data)?;
                    data == staged.payload(op)?
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

/// Checks that the lengths fit into two bytes, and that the status is valid in the file.
fn check_meta(staged: &Staged) -> Result<()> {
    let refused =
        |message: &str| Err(StorageError::Refused { what: Refusal::FileLimit, message: message.into() });
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
