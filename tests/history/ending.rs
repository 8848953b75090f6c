//! What a storage has when the clients are gone: each object's state, and the log.

use std::io;
use std::path::Path;

use crate::check::{Changes, Oid, Tid, Value as Written};
use crate::driver::value_of;
use crate::support::client::RawClient;
use crate::support::pickle::{Value, id};
use runzeo::storage::file::{FileStorage, FileStorageOptions};
use runzeo::storage::prelude::*;

/// `None` if the object does not exist.
pub fn current(client: &mut RawClient, oid: Oid) -> Option<(Tid, Written)> {
    let load = client.queue_load(oid);
    client.flush().expect("send");
    let found = client.answer(load).expect("connection").ok()?;
    (!found.is_none()).then(|| (found.tuple()[1].id(), value_of(found.tuple()[0].bytes())))
}

/// The log of a closed file.
pub fn log_of_file(path: &Path) -> Vec<(Tid, Changes)> {
    let storage = FileStorage::open(FileStorageOptions::new(path)).expect("Data.fs");
    let mut transactions = storage.iterate(None, None).expect("iterate");
    let mut log = Vec::new();
    while let Some(transaction) = transactions.next_transaction().expect("a transaction") {
        let mut records = transactions.records().expect("records");
        let mut changes = Changes::new();
        while let Some(record) = records.next_record().expect("a record") {
            if record.oid.0 != 0 {
                changes.insert(record.oid.0, record.data.map(|data| value_of(&data)));
            }
        }
        log.push((transaction.tid.0, changes));
    }
    log
}

/// The log, read with a client's iterator.
pub fn log(client: &mut RawClient) -> io::Result<Vec<(Tid, Changes)>> {
    let call = |client: &mut RawClient, method: &str, args| {
        client.call(method, args).map(|answer| answer.unwrap_or_else(|error| panic!("{method}: {error:?}")))
    };
    let transactions = call(client, "iterator_start", vec![Value::None, Value::None])?;
    let mut log = Vec::new();
    loop {
        let next = call(client, "iterator_next", vec![transactions.clone()])?;
        if next.is_none() {
            return Ok(log);
        }
        let tid = next.tuple()[0].id();
        let records = call(client, "iterator_record_start", vec![transactions.clone(), id(tid)])?;
        let mut changes = Changes::new();
        loop {
            let record = call(client, "iterator_record_next", vec![records.clone()])?;
            if record.is_none() {
                break;
            }
            let (oid, data) = (record.tuple()[0].id(), &record.tuple()[2]);
            // The root has no value.
            if oid != 0 {
                changes.insert(oid, (!data.is_none()).then(|| value_of(data.bytes())));
            }
        }
        log.push((tid, changes));
    }
}
