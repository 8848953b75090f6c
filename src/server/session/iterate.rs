//! Iterators over the storage's transactions, as copiers use them. They belong to the connection and end with it.

use std::collections::BTreeMap;

use crate::base::ids::Tid;
use crate::exceptions;
use crate::server::record_memory::MemoryShare;
use crate::server::registered::Registered;
use crate::server::session::large::with_share;
use crate::storage::{RecordIterator, Storage, TransactionIterator};
use crate::wire::exception::PyException;
use crate::wire::value::{Value, extension_dict};

/// Iterators over records, for each iterator over transactions that a client may have.
const RECORDS_PER_TRANSACTION: usize = 4;

/// The iterators of one connection. Both kinds are numbered together, from 0.
///
/// Clients tell which they have dropped at the end of their next transaction, so one that only reads may gather many;
/// beyond `max-iterators` the oldest are forgotten, which no client will ask for again.
#[derive(Default)]
pub struct Iterators {
    next_id: i64,
    transactions: BTreeMap<i64, Transactions>,
    records: BTreeMap<i64, Box<dyn RecordIterator>>,
}

struct Transactions {
    iterator: Box<dyn TransactionIterator>,
    /// The transaction that was handed out last: a record iterator can be had of this one only.
    last: Option<Tid>,
}

type Result = std::result::Result<Value, PyException>;

impl Iterators {
    fn new_id(&mut self) -> i64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// `iterator_start(start, stop)` -> number of the iterator
    pub fn start(
        &mut self,
        storage: &dyn Storage,
        start: Option<Tid>,
        stop: Option<Tid>,
        count_max: usize,
    ) -> Result {
        let iterator = storage
            .require_iteration()
            .and_then(|storage| storage.iterate(start, stop))
            .map_err(|e| exceptions::of_storage_error(&e))?;
        let id = self.new_id();
        // Several, if a reload has lowered the limit.
        while self.transactions.len() >= count_max.max(1) {
            self.transactions.pop_first();
        }
        self.transactions.insert(id, Transactions { iterator, last: None });
        Ok(Value::Int(id))
    }

    /// `iterator_next(iterator)` -> (tid, status, user, description, extension dict), `None` at the end
    pub fn next(&mut self, id: i64) -> Result {
        let transactions = self.transactions.get_mut(&id).ok_or_else(|| key_error(id))?;
        let next = transactions.iterator.next_transaction().map_err(|e| exceptions::of_storage_error(&e))?;
        let Some(next) = next else {
            self.transactions.remove(&id);
            return Ok(Value::None);
        };
        transactions.last = Some(next.tid);
        Ok(Value::Tuple(vec![
            next.tid.into(),
            Value::Text(char::from(next.status).to_string()),
            Value::Bytes(next.meta.user),
            Value::Bytes(next.meta.description),
            extension_dict(&next.meta.extension).unwrap_or_else(|| Value::Dict(Vec::new())),
        ]))
    }

    /// `iterator_record_start(iterator, tid)` -> number of the record iterator
    pub fn record_start(&mut self, id: i64, tid: Tid, count_max: usize) -> Result {
        // As in Python's server, a refused call uses up a number too.
        let number = self.new_id();
        let transactions = self.transactions.get(&id).ok_or_else(|| key_error(id))?;
        if transactions.last.ok_or_else(|| key_error(id))? != tid {
            let message = format!("Out-of-order request for record iterator for transaction {tid}");
            return Err(PyException::builtin("Exception", message));
        }
        let records = transactions.iterator.records().map_err(|e| exceptions::of_storage_error(&e))?;
        while self.records.len() >= count_max.saturating_mul(RECORDS_PER_TRANSACTION).max(1) {
            self.records.pop_first();
        }
        self.records.insert(number, records);
        Ok(Value::Int(number))
    }

    /// `iterator_record_next(iterator)` -> (oid, tid, data, data_txn), `None` at the end. A large record has its
    /// share of the memory for such until it was sent.
    pub fn record_next(&mut self, registered: &Registered, id: i64) -> (Result, Option<MemoryShare>) {
        let Some(records) = self.records.get_mut(&id) else { return (Err(key_error(id)), None) };
        let (next, share) = with_share(registered, || records.next_record());
        let next = match next {
            Ok(Some(next)) => next,
            Ok(None) => {
                self.records.remove(&id);
                return (Ok(Value::None), None);
            }
            Err(error) => return (Err(exceptions::of_storage_error(&error)), None),
        };
        let value = Value::Tuple(vec![
            next.oid.into(),
            next.tid.into(),
            next.data.map_or(Value::None, Value::Bytes),
            next.data_txn.map_or(Value::None, Value::from),
        ]);
        (Ok(value), share)
    }

    /// `iterator_gc(iterators)`: the client has dropped them.
    pub fn forget(&mut self, ids: &[i64]) {
        for id in ids {
            self.transactions.remove(id);
            self.records.remove(id);
        }
    }
}

fn key_error(id: i64) -> PyException {
    PyException::new(crate::wire::exception::BUILTINS, "KeyError", vec![Value::Int(id)])
}
