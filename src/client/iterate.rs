//! Iteration over a server's transactions. The iterators are the server's: they end with the link.

use std::collections::VecDeque;

use super::ask::ask;
use super::link::Link;
use super::results;
use super::upstream::Upstream;
use crate::base::ids::{Oid, Tid};
use crate::base::sync::Arc;
use crate::storage::{
    DataRecord, RecordIterator, Result, StorageError, TransactionIterator, TransactionRecord,
};
use crate::wire::availability::Method;
use crate::wire::calls::Call;

/// An iterator of a server.
pub struct ServerIterator {
    link: Link,
    /// `None`: it is at its end.
    iterator: Option<i64>,
    last: Option<Tid>,
}

impl Upstream {
    /// The transactions from `start` to `stop`, both inclusive.
    pub fn iterate(self: &Arc<Self>, start: Option<Tid>, stop: Option<Tid>) -> Result<ServerIterator> {
        iterate_on(&self.in_use()?.link, start, stop)
    }
}

/// Iterates over a link that need not be in use yet.
pub fn iterate_on(link: &Link, start: Option<Tid>, stop: Option<Tid>) -> Result<ServerIterator> {
    let wire = link.wire();
    if !wire.knows(Method::IteratorStart) {
        let message = format!("servers of protocol {} do not list their transactions", wire.generation);
        return Err(StorageError::Unsupported(message));
    }
    let iterator = ask(link, &Call::IteratorStart { start, stop }, None, |answer| answer.int())?;
    Ok(ServerIterator { link: link.clone(), iterator: Some(iterator), last: None })
}

impl TransactionIterator for ServerIterator {
    fn next_transaction(&mut self) -> Result<Option<TransactionRecord>> {
        let Some(iterator) = self.iterator else { return Ok(None) };
        let next =
            ask(&self.link, &Call::IteratorNext { iterator }, None, |answer| answer.iterated_transaction())?;
        let next = next.map(results::transaction);
        if next.is_none() {
            // The server has forgotten it.
            self.iterator = None;
        }
        self.last = next.as_ref().map(|transaction| transaction.tid);
        Ok(next)
    }

    fn records(&self) -> Result<Box<dyn RecordIterator>> {
        let (Some(iterator), Some(tid)) = (self.iterator, self.last) else {
            return Err(StorageError::Transaction("the iterator has no current transaction".into()));
        };
        let call = Call::IteratorRecordStart { iterator, tid };
        let records = ask(&self.link, &call, None, |answer| answer.int())?;
        Ok(Box::new(ServerRecords { link: self.link.clone(), iterator: Some(records) }))
    }
}

impl Drop for ServerIterator {
    fn drop(&mut self) {
        forget(&self.link, self.iterator);
    }
}

struct ServerRecords {
    link: Link,
    iterator: Option<i64>,
}

impl RecordIterator for ServerRecords {
    fn next_record(&mut self) -> Result<Option<DataRecord>> {
        let Some(iterator) = self.iterator else { return Ok(None) };
        let call = Call::IteratorRecordNext { iterator };
        let next = ask(&self.link, &call, None, |answer| answer.iterated_record())?;
        if next.is_none() {
            self.iterator = None;
        }
        Ok(next.map(results::record))
    }
}

impl Drop for ServerRecords {
    fn drop(&mut self) {
        forget(&self.link, self.iterator);
    }
}

fn forget(link: &Link, iterator: Option<i64>) {
    if let Some(iterator) = iterator {
        link.send(&Call::IteratorGc { iterators: &[iterator] });
    }
}

/// Object ids that the server has given to this client. They are of no use after a reconnect: a restarted server may
/// give them to another client.
#[derive(Default)]
pub struct OidPool {
    link: u64,
    oids: VecDeque<Oid>,
}

impl OidPool {
    /// Takes up to `count` of those that were given over link `link`.
    pub fn take(&mut self, link: u64, count: usize) -> Vec<Oid> {
        if self.link != link {
            *self = OidPool { link, oids: VecDeque::new() };
        }
        self.oids.drain(..count.min(self.oids.len())).collect()
    }

    /// Adds what link `link` has given.
    pub fn add(&mut self, link: u64, oids: Vec<Oid>) {
        if self.link == link {
            self.oids.extend(oids);
        }
    }
}
