//! A transaction between its vote and its finish.

use std::collections::HashMap;
use std::sync::Arc;

use super::draft::{StagedObject, StagedRecord, distinct, head_len};
use super::format::TRAILER_LEN;
use super::pins::Pin;
use super::space::Reservation;
use super::volume::Volume;
use crate::base::ids::{Oid, Tid};
use crate::storage::staged::Staged;
use crate::storage::{Result, Ticket, Undone, Voted};

/// Bytes of transactions in one group, if it has more than one.
pub(super) const GROUP_LEN_MAX: u64 = 16 << 20;

/// A transaction that has passed its vote.
pub struct VotedTxn {
    pub staged: Staged,
    pub tid: Option<Tid>,
    pub records: Vec<StagedRecord>,
    /// Each object once, with its last record, which is the one that counts.
    pub objects: Vec<StagedObject>,
    /// The payloads are not in the order of the file: some became back-pointers, or were added later.
    pub rearranged: bool,
    /// An earlier transaction with the same objects may be in the queue of the finish: the writer sets `prev` of the
    /// records, and if one transaction of the group fails, those that link late fail, too.
    pub links_late: bool,
    /// Bytes of all records.
    pub records_len: u64,
    /// The volume that `prev` and `back` of the records are offsets into.
    pub volume: Arc<Volume>,
    /// Data by record number, for records whose back-pointer lost its target to a pack.
    pub fetched: HashMap<usize, Vec<u8>>,
    /// Given back when this is dropped.
    pub reservation: Reservation,
    pub _pin: Option<Pin>,
    pub resolved: Vec<Oid>,
    pub undone: Vec<Undone>,
}

/// A voted transaction in the queue of the finish.
pub struct Job {
    pub txn: VotedTxn,
    pub ticket: Ticket,
}

impl VotedTxn {
    /// Bytes from the tid to the first record.
    pub fn head_len(&self) -> u64 {
        head_len(&self.staged.meta)
    }

    /// Bytes of the whole transaction in the file.
    pub fn len(&self) -> u64 {
        self.head_len() + self.records_len + TRAILER_LEN as u64
    }

    /// Adapts the records to `to`, the volume with which a pack has replaced the one of the vote. It has the same
    /// objects at other positions. Their current revisions are the same, because the locks on the oids are held since
    /// the vote.
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
}
