//! Transactions in order. Each is looked up separately, so that no lock is held in between.

use std::sync::Arc;

use super::{Contents, Data, MappingStorage};
use crate::base::ids::{Oid, Tid};
use crate::base::memory;
use crate::base::sync::{RwLock, rank};
use crate::storage::{
    DataRecord, Iterate, RecordIterator, Result, StorageError, TransactionIterator, TransactionRecord,
};

impl Iterate for MappingStorage {
    fn iterate(&self, start: Option<Tid>, stop: Option<Tid>) -> Result<Box<dyn TransactionIterator>> {
        let newest = self.read()?.last;
        let stop = stop.map_or(newest, |stop| stop.min(newest));
        let (state, next) = (Arc::clone(&self.state), start.unwrap_or(Tid::ZERO));
        Ok(Box::new(Transactions { state, next, stop, current: None }))
    }
}

/// An iterator over transactions.
struct Transactions {
    state: Arc<RwLock<Contents, rank::MemoryState>>,
    next: Tid,
    stop: Tid,
    /// The transaction that was returned last.
    current: Option<(Tid, Vec<(Oid, Data)>)>,
}

impl TransactionIterator for Transactions {
    fn next_transaction(&mut self) -> Result<Option<TransactionRecord>> {
        self.current = None;
        if self.next > self.stop {
            return Ok(None);
        }
        let state = self.state.read();
        let Some((&tid, txn)) = state.transactions.range(self.next..=self.stop).next() else {
            return Ok(None);
        };
        self.next = Tid(tid.0 + 1);
        self.current = Some((tid, txn.records.clone()));
        Ok(Some(TransactionRecord { tid, status: txn.status, meta: txn.meta.clone() }))
    }

    fn records(&self) -> Result<Box<dyn RecordIterator>> {
        let Some((tid, records)) = self.current.clone() else {
            return Err(StorageError::Transaction("no transaction has been read yet".into()));
        };
        Ok(Box::new(Records { tid, records: records.into_iter() }))
    }
}

struct Records {
    tid: Tid,
    records: std::vec::IntoIter<(Oid, Data)>,
}

impl RecordIterator for Records {
    fn next_record(&mut self) -> Result<Option<DataRecord>> {
        let Some((oid, data)) = self.records.as_slice().first() else { return Ok(None) };
        let data = data.as_deref().map(memory::copy).transpose();
        let data = data.map_err(StorageError::io("reading an object"))?;
        let record = DataRecord { oid: *oid, tid: self.tid, data, data_txn: None };
        self.records.next();
        Ok(Some(record))
    }
}
