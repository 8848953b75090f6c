//! Former revisions of an object, the newest transactions, and all objects in oid order.

#![cfg_attr(not(test), deny(clippy::cast_possible_truncation))]

use std::convert::Infallible;
use std::ops::ControlFlow;

use super::FileStorage;
use super::format::TxnHeader;
use super::log::{Log, Records};
use super::volume::Volume;
use crate::base::ids::{Oid, Tid};
use crate::storage::{History, HistoryEntry, IternextRecord, LastInvalidations, Load, Result, StorageError};

/// Up to this many bytes, the records of the last transactions are read. Beyond that the index is searched: a million
/// of its objects take as long as reading this many bytes.
const READ_LEN_MAX: u64 = 1 << 20;

impl History for FileStorage {
    fn revisions(&self, oid: Oid, each: &mut dyn FnMut(HistoryEntry) -> ControlFlow<()>) -> Result<()> {
        self.check_open()?;
        let volume = self.core.volume.get_owned();
        let log = &volume.log;
        let mut pos = volume.index.get(oid).ok_or(StorageError::PosKey(oid))?.pos;
        while pos != 0 {
            let record = log.read_record(pos, Some(oid))?.header;
            let txn = log.read_txn_header(record.tloc)?;
            let meta = log.read_meta(record.tloc, &txn)?;
            if each(HistoryEntry { tid: record.tid, meta, size: record.data_len }).is_break() {
                break;
            }
            pos = record.prev;
        }
        Ok(())
    }

    /// `PosKey` if the found object is deleted or un-created, as in Python.
    fn record_iternext(&self, next: Option<Oid>) -> Result<Option<IternextRecord>> {
        self.check_open()?;
        // Held throughout, so that both positions are of the same file. A pack between the two reads changes neither.
        let volume = self.core.volume.get_owned();
        let Some((oid, _)) = volume.index.next(next.unwrap_or(Oid::ZERO)) else { return Ok(None) };
        let mut data = Vec::new();
        let loaded = self.load_before(oid, Tid::MAX, 0, &mut data)?.ok_or(StorageError::PosKey(oid))?;
        data.drain(..loaded.start);
        let following = oid.0.checked_add(1).and_then(|from| volume.index.next(Oid(from)));
        Ok(Some(IternextRecord { oid, tid: loaded.serial, data, next: following.map(|(oid, _)| oid) }))
    }

    /// Tids and oids of the last transactions, newest first. If they are long, an object that several of them changed
    /// is listed with the newest only. Stops at the first damage.
    fn last_invalidations(&self, count: usize) -> Result<LastInvalidations> {
        self.check_open()?;
        let volume = self.core.volume.get_owned();
        let log = &volume.log;
        let published_end = volume.published_end();
        let (mut end, mut newest, mut damage) = (published_end, Vec::new(), None);
        while newest.len() < count {
            match log.txn_before(end) {
                Ok(None) => break,
                Ok(Some((tpos, header))) => {
                    end = tpos;
                    if header.status != b'u' {
                        newest.push((tpos, header));
                    }
                }
                Err(error) => {
                    damage = Some(error);
                    break;
                }
            }
        }
        let found = if published_end - end > READ_LEN_MAX {
            newest_from_index(&volume, &newest, published_end)
        } else {
            let mut found = Vec::with_capacity(newest.len());
            for (tpos, header) in newest {
                match oids_of(log, tpos, &header) {
                    Ok(oids) => found.push((header.tid, oids)),
                    Err(error) => {
                        damage = Some(error);
                        break;
                    }
                }
            }
            found
        };
        Ok(LastInvalidations { cut_short: damage, ..LastInvalidations::new(found, self.core.last_tid()) })
    }
}

fn oids_of(log: &Log, tpos: u64, header: &TxnHeader) -> Result<Vec<Oid>> {
    let mut oids = Vec::new();
    let mut records = Records::new(log, tpos, header);
    while let Some((_, record)) = records.next_record()? {
        oids.push(record.header.oid);
    }
    Ok(oids)
}

/// The same without reading the records: an object's current record is in the last transaction that changed it.
fn newest_from_index(volume: &Volume, newest: &[(u64, TxnHeader)], end: u64) -> Vec<(Tid, Vec<Oid>)> {
    let mut found: Vec<(Tid, Vec<Oid>)> = newest.iter().map(|(_, header)| (header.tid, Vec::new())).collect();
    let whole: std::result::Result<(), Infallible> = volume.index.for_each(|oid, pos| {
        // `newest` begins with the newest: the first transaction that begins before the record contains it.
        let at = newest.partition_point(|(tpos, _)| *tpos > pos);
        if pos < end
            && let Some((_, oids)) = found.get_mut(at)
        {
            oids.push(oid);
        }
        Ok(())
    });
    match whole {
        Ok(()) => found,
    }
}
