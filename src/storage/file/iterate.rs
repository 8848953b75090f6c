//! Transactions in file order, from a start to a stop. Works beside commits: it sees what was published when it was
//! made, as Python's does.

use std::sync::Arc;

use log::warn;

use super::Core;
use super::format::{MAGIC_LEN, TRAILER_LEN, TxnHeader};
use super::log::{Log, Records, TARGET};
use crate::base::ids::Tid;
use crate::storage::{
    DataRecord, RecordIterator, Result, StorageError, TransactionIterator, TransactionRecord,
};

/// See the module.
pub struct Transactions {
    core: Arc<Core>,
    pos: u64,
    /// Where the published part of the file ended when the iterator was made.
    end: u64,
    last_tid: Tid,
    stop: Option<Tid>,
    /// The transaction that was returned last.
    current: Option<(u64, TxnHeader)>,
}

impl Transactions {
    pub fn new(core: Arc<Core>, start: Option<Tid>, stop: Option<Tid>) -> Result<Transactions> {
        let end = core.published_end();
        let pos = match start {
            Some(start) => find(&core, start)?,
            None => MAGIC_LEN,
        };
        Ok(Transactions { core, pos, end, last_tid: Tid::ZERO, stop, current: None })
    }
}

impl TransactionIterator for Transactions {
    fn next_transaction(&mut self) -> Result<Option<TransactionRecord>> {
        let log = &self.core.log;
        loop {
            self.current = None;
            let Some((pos, header)) = txn_at(&self.core, self.pos, self.end)? else { return Ok(None) };
            if header.tid <= self.last_tid {
                warn!(target: TARGET, "{} time-stamp reduction at {pos}", log.path().display());
            }
            self.last_tid = header.tid;
            if self.stop.is_some_and(|stop| header.tid > stop) {
                return Ok(None);
            }
            self.pos = pos + header.len + TRAILER_LEN as u64;
            if header.status == b'u' {
                continue;
            }
            self.current = Some((pos, header));
            let meta = log.read_meta(pos, &header)?;
            return Ok(Some(TransactionRecord { tid: header.tid, status: header.status, meta }));
        }
    }

    fn records(&self) -> Result<Box<dyn RecordIterator>> {
        let Some((tpos, header)) = self.current else {
            return Err(StorageError::Transaction("there is no transaction to look into".into()));
        };
        Ok(Box::new(DataRecords { core: self.core.clone(), tpos, header, done: 0 }))
    }
}

struct DataRecords {
    core: Arc<Core>,
    tpos: u64,
    header: TxnHeader,
    /// Bytes of records that were returned.
    done: u64,
}

impl RecordIterator for DataRecords {
    fn next_record(&mut self) -> Result<Option<DataRecord>> {
        let log = &self.core.log;
        let Some((pos, record)) = Records::new_at(log, self.tpos, &self.header, self.done).next_record()?
        else {
            return Ok(None);
        };
        let header = record.header;
        self.done += header.record_len();
        let (data, data_txn) = data_of(log, pos, &record)?;
        Ok(Some(DataRecord { oid: header.oid, tid: header.tid, data, data_txn }))
    }
}

/// A record's data, and where a back-pointer leads: to the transaction one step back, while the data is the one at the
/// chain's end.
fn data_of(log: &Log, pos: u64, record: &super::log::Record) -> Result<(Option<Vec<u8>>, Option<Tid>)> {
    let oid = record.header.oid;
    let mut data = Vec::new();
    if record.header.data_len > 0 {
        log.read_data(pos, &record.header, &mut data)?;
        return Ok((Some(data), None));
    }
    if record.back == 0 {
        return Ok((None, None));
    }
    let data_txn = log.read_record(record.back, Some(oid))?.header.tid;
    match log.follow(oid, record.back)? {
        Some((pos, header)) => {
            log.read_data(pos, &header, &mut data)?;
            Ok((Some(data), Some(data_txn)))
        }
        None => Ok((None, Some(data_txn))),
    }
}

/// The transaction at `pos`, if it is before `end`.
fn txn_at(core: &Core, pos: u64, end: u64) -> Result<Option<(u64, TxnHeader)>> {
    if pos >= end {
        return Ok(None);
    }
    let header = core.log.read_txn_header(pos)?;
    let next = pos.saturating_add(header.len).saturating_add(TRAILER_LEN as u64);
    if header.len < header.head_len() || next > end {
        return Err(core.log.corrupt(pos, "invalid transaction header"));
    }
    if core.log.read_u64(pos + header.len)? != header.len {
        return Err(core.log.corrupt(pos + header.len, "redundant transaction length check failed"));
    }
    Ok(Some((pos, header)))
}

/// Where the first transaction at or after `start` begins: from the nearer end, by the time that the tids stand for.
fn find(core: &Core, start: Tid) -> Result<u64> {
    let end = core.published_end();
    let Some((_, first)) = txn_at(core, MAGIC_LEN, end)? else { return Ok(MAGIC_LEN) };
    let last = core.last_tid();
    if start <= first.tid {
        return Ok(MAGIC_LEN);
    }
    if start > last {
        return Ok(end);
    }
    let since_first = start.to_unix() - first.tid.to_unix();
    if since_first < last.to_unix() - start.to_unix() {
        let mut pos = MAGIC_LEN;
        while let Some((at, header)) = txn_at(core, pos, end)? {
            if header.tid >= start {
                break;
            }
            pos = at + header.len + TRAILER_LEN as u64;
        }
        return Ok(pos);
    }
    let mut pos = end;
    while let Some((before, header)) = core.log.txn_before(pos)? {
        if header.tid < start {
            break;
        }
        pos = before;
    }
    Ok(pos)
}
