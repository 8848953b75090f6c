//! Reads of objects, of their history, and of transactions. Lists are read in pages.

use std::cell::RefCell;
use std::ops::ControlFlow;

use super::PostgresStorage;
use super::ahead::{Ahead, AheadRecords};
use super::shared::{append, data_record, number, oid, tid};
use super::snapshot::ListSource;
use super::sql::{PAGE, RECORDS, RECORDS_AHEAD, RECORDS_PAGE};
use crate::base::ids::{Oid, Tid};
use crate::base::memory;
use crate::postgres::Row;
use crate::storage::{
    DataRecord, History, HistoryEntry, Iterate, IternextRecord, LastInvalidations, Load, Loaded,
    RecordIterator, Result, StorageError, TransactionIterator, TransactionMeta, TransactionRecord,
};

impl Load for PostgresStorage {
    fn load_before(
        &self,
        oid: Oid,
        before: Tid,
        headroom: usize,
        out: &mut Vec<u8>,
    ) -> Result<Option<Loaded>> {
        self.check_open()?;
        self.shared.load_before(oid, before, headroom, out)
    }

    fn load_before_now(
        &self,
        oid: Oid,
        before: Tid,
        headroom: usize,
        out: &mut Vec<u8>,
    ) -> Option<Result<Option<Loaded>>> {
        match self.check_open() {
            Ok(()) => self.shared.load_from_memory(oid, before, headroom, out),
            Err(error) => Some(Err(error)),
        }
    }

    fn load_serial(&self, oid: Oid, serial: Tid, headroom: usize, out: &mut Vec<u8>) -> Result<Loaded> {
        self.check_open()?;
        let data = self.shared.revision(oid, serial)?;
        Ok(Loaded { start: append(&data, headroom, out)?, serial, end: None })
    }

    fn get_tid(&self, oid: Oid) -> Result<Tid> {
        self.check_open()?;
        self.shared.current(oid)
    }
}

impl History for PostgresStorage {
    fn revisions(&self, oid: Oid, each: &mut dyn FnMut(HistoryEntry) -> ControlFlow<()>) -> Result<()> {
        self.check_open()?;
        let number = number(oid)?;
        let mut before = self.shared.last().0.saturating_add(1) as i64;
        let mut is_known = false;
        loop {
            let rows = self.shared.ask(&self.shared.sql.history, &[number, before])?;
            for row in rows.iter() {
                is_known = true;
                let entry = HistoryEntry {
                    tid: tid(&row, 0)?,
                    meta: meta(&row, 1)?,
                    size: row.required_int8(4)? as u64,
                };
                before = entry.tid.0 as i64;
                if each(entry).is_break() {
                    return Ok(());
                }
            }
            if !is_known {
                // Without history the only revision may be one that had to be published first.
                let serial = self.shared.current(oid)?;
                if serial.0 as i64 >= before {
                    before = serial.0.saturating_add(1) as i64;
                    continue;
                }
                return Err(StorageError::PosKey(oid));
            }
            if rows.len() < PAGE {
                return Ok(());
            }
        }
    }

    /// Objects that were created after the last published transaction are passed over.
    fn record_iternext(&self, next: Option<Oid>) -> Result<Option<IternextRecord>> {
        self.check_open()?;
        let Ok(mut next) = number(next.unwrap_or(Oid::ZERO)) else { return Ok(None) };
        loop {
            let rows = self.shared.ask(&self.shared.sql.objects, &[next])?;
            let mut oids = rows.iter().map(|row| oid(&row, 0));
            let Some(found) = oids.next().transpose()? else { return Ok(None) };
            let following = oids.next().transpose()?;
            let mut data = Vec::new();
            match self.shared.load_before(found, Tid::MAX, 0, &mut data) {
                Ok(Some(loaded)) => {
                    let record = IternextRecord { oid: found, tid: loaded.serial, data, next: following };
                    return Ok(Some(record));
                }
                Ok(None) => {}
                Err(StorageError::PosKey(oid)) => {
                    if self.shared.exists(number(oid)?, self.shared.last())? {
                        return Err(StorageError::PosKey(oid));
                    }
                }
                Err(error) => return Err(error),
            }
            let Some(following) = following else { return Ok(None) };
            next = number(following)?;
        }
    }

    fn last_invalidations(&self, count: usize) -> Result<LastInvalidations> {
        self.check_open()?;
        let last = self.shared.last();
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let rows = self.shared.ask(&self.shared.sql.newest, &[count, last.0 as i64])?;
        let mut transactions: Vec<(Tid, Vec<Oid>)> = Vec::new();
        for row in rows.iter() {
            let tid = tid(&row, 0)?;
            if transactions.last().is_none_or(|(newest, _)| *newest != tid) {
                transactions.push((tid, Vec::new()));
            }
            if let (Some((_, oids)), Some(oid)) = (transactions.last_mut(), row.int8(1)?) {
                oids.push(Oid(oid as u64));
            }
        }
        Ok(LastInvalidations::new(transactions, last))
    }
}

impl Iterate for PostgresStorage {
    fn iterate(&self, start: Option<Tid>, stop: Option<Tid>) -> Result<Box<dyn TransactionIterator>> {
        self.check_open()?;
        let (source, newest) = self.snapshots.source(&self.shared)?;
        let stop = stop.map_or(newest, |stop| stop.min(newest));
        let next = start.unwrap_or(Tid::ZERO);
        Ok(Box::new(Transactions {
            source,
            next,
            stop,
            page: Vec::new().into_iter(),
            is_last: false,
            current: None,
            ahead: RefCell::default(),
        }))
    }
}

/// An iterator over transactions.
struct Transactions {
    source: ListSource,
    /// The first that is not in `page`.
    next: Tid,
    stop: Tid,
    page: std::vec::IntoIter<TransactionRecord>,
    /// Nothing follows the page.
    is_last: bool,
    /// The transaction that was returned last.
    current: Option<Tid>,
    ahead: RefCell<Ahead>,
}

impl Transactions {
    fn read_page(&mut self) -> Result<()> {
        let limits = [self.next.0.min(Tid::MAX.0) as i64, self.stop.0.min(Tid::MAX.0) as i64];
        let rows = self.source.ask(&self.source.sql().transactions, &limits)?;
        let mut page = Vec::with_capacity(rows.len());
        for row in rows.iter() {
            let tid = tid(&row, 0)?;
            let status = if row.required_bool(1)? { b'p' } else { b' ' };
            page.push(TransactionRecord { tid, status, meta: meta(&row, 2)? });
            self.next = Tid(tid.0 + 1);
        }
        self.is_last = page.len() < PAGE;
        self.page = page.into_iter();
        Ok(())
    }
}

impl TransactionIterator for Transactions {
    fn next_transaction(&mut self) -> Result<Option<TransactionRecord>> {
        self.current = None;
        if self.page.as_slice().is_empty() && !self.is_last {
            self.read_page()?;
        }
        let found = self.page.next();
        self.current = found.as_ref().map(|transaction| transaction.tid);
        Ok(found)
    }

    fn records(&self) -> Result<Box<dyn RecordIterator>> {
        let Some(tid) = self.current else {
            return Err(StorageError::Transaction("no transaction has been read yet".into()));
        };
        let limits = [tid.0 as i64, self.stop.0.min(Tid::MAX.0) as i64];
        let read = || self.source.ask(&RECORDS_AHEAD, &limits);
        if let Some(part) = self.ahead.borrow_mut().records(tid, self.stop, read)? {
            return Ok(Box::new(part));
        }
        let source = self.source.clone();
        Ok(Box::new(TransactionRecords { source, tid, page: Vec::new().into_iter(), next: Some(0) }))
    }
}

/// The records of one transaction, in the order of oids.
struct TransactionRecords {
    source: ListSource,
    tid: Tid,
    page: std::vec::IntoIter<DataRecord>,
    /// The first oid that is not in `page`; `None`: there are no more.
    next: Option<i64>,
}

impl RecordIterator for TransactionRecords {
    fn next_record(&mut self) -> Result<Option<DataRecord>> {
        if let (true, Some(next)) = (self.page.as_slice().is_empty(), self.next) {
            let rows = self.source.ask(&RECORDS, &[self.tid.0 as i64, next])?;
            let mut page = Vec::with_capacity(rows.len());
            for row in rows.iter() {
                let record = data_record(&row, 0, self.tid)?;
                self.next = number(record.oid)?.checked_add(1);
                page.push(record);
            }
            if page.len() < RECORDS_PAGE {
                self.next = None;
            }
            self.page = page.into_iter();
        }
        Ok(self.page.next())
    }
}

impl RecordIterator for AheadRecords {
    fn next_record(&mut self) -> Result<Option<DataRecord>> {
        self.next().transpose()
    }
}

/// User, description and extension, which are three columns from `column` on.
pub fn meta(row: &Row<'_>, column: usize) -> Result<TransactionMeta> {
    let part = |offset| {
        let part = row.bytes(column + offset)?.unwrap_or_default();
        memory::copy(part).map_err(StorageError::io("reading a transaction"))
    };
    Ok(TransactionMeta { user: part(0)?, description: part(1)?, extension: part(2)? })
}
