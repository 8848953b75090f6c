//! Looking back: an object's revisions, the newest transactions, and all objects in oid order.

use super::FileStorage;
use super::log::Records;
use crate::base::ids::{Oid, Tid};
use crate::storage::{HistoryEntry, IternextRecord, Result, StorageError};

impl FileStorage {
    pub(super) fn revisions(&self, oid: Oid, count: usize) -> Result<Vec<HistoryEntry>> {
        self.check_open()?;
        let log = &self.core.log;
        let mut pos = self.core.index.get(oid).ok_or(StorageError::PosKey(oid))?.pos;
        let mut entries = Vec::new();
        while entries.len() < count && pos != 0 {
            let record = log.read_record(pos, Some(oid))?.header;
            let txn = log.read_txn_header(record.tloc)?;
            let meta = log.read_meta(record.tloc, &txn)?;
            entries.push(HistoryEntry { tid: record.tid, meta, size: record.data_len });
            pos = record.prev;
        }
        Ok(entries)
    }

    pub(super) fn newest_transactions(&self, count: usize) -> Result<Vec<(Tid, Vec<Oid>)>> {
        self.check_open()?;
        let log = &self.core.log;
        let mut end = self.core.published_end();
        let mut newest = Vec::new();
        while newest.len() < count
            && let Some((tpos, header)) = log.txn_before(end)?
        {
            end = tpos;
            if header.status == b'u' {
                continue;
            }
            let mut oids = Vec::new();
            let mut records = Records::new(log, tpos, &header);
            while let Some((_, record)) = records.next_record()? {
                oids.push(record.header.oid);
            }
            newest.push((header.tid, oids));
        }
        Ok(newest)
    }

    /// `PosKey` if the object at hand is gone, as Python has it.
    pub(super) fn next_object(&self, next: Option<Oid>) -> Result<Option<IternextRecord>> {
        self.check_open()?;
        let Some((oid, _)) = self.core.index.next(next.unwrap_or(Oid::ZERO)) else { return Ok(None) };
        let mut data = Vec::new();
        let loaded = self.read_before(oid, Tid::MAX, 0, &mut data)?.ok_or(StorageError::PosKey(oid))?;
        data.drain(..loaded.start);
        let following = oid.0.checked_add(1).and_then(|from| self.core.index.next(Oid(from)));
        Ok(Some(IternextRecord { oid, tid: loaded.serial, data, next: following.map(|(oid, _)| oid) }))
    }
}
