//! Makes a database through the server itself: data objects, objects that refer to them, and the root.

use crate::client::{Client, Result, Target, transaction_id};
use crate::records;
use crate::wire::Id8;

const OBJECTS_PER_TRANSACTION: usize = 1000;
const ROOT: Id8 = [0; 8];

/// Stores `objects` records of `object_len` bytes, all reachable from the root. Returns their oids.
pub fn fill(target: &Target, objects: usize, object_len: usize) -> Result<Vec<Id8>> {
    let mut client = Client::open(target)?;
    let is_python2 = client.dialect.is_python2();
    let mut oids = vec![];
    let mut sequence = 0;
    while oids.len() < objects {
        let new = client.new_oids(OBJECTS_PER_TRANSACTION.min(objects - oids.len()))?;
        sequence += 1;
        let transaction = transaction_id(sequence);
        client.queue_begin(transaction);
        for (i, oid) in new.iter().enumerate() {
            let record = records::mapping(is_python2, object_len, (oids.len() + i) as u64 + 1);
            client.queue_store(oid, &[0; 8], &record, transaction);
            client.flush_if_large()?;
        }
        commit(&mut client, transaction)?;
        oids.extend(new);
    }
    let groups: Vec<&[Id8]> = oids.chunks(OBJECTS_PER_TRANSACTION).collect();
    let directories = client.new_oids(groups.len())?;
    let root_serial = client.load_serial(&ROOT)?.unwrap_or([0; 8]);
    let transaction = transaction_id(sequence + 1);
    client.queue_begin(transaction);
    for (oid, group) in directories.iter().zip(&groups) {
        client.queue_store(oid, &[0; 8], &records::references(is_python2, group), transaction);
        client.flush_if_large()?;
    }
    client.queue_store(&ROOT, &root_serial, &records::references(is_python2, &directories), transaction);
    commit(&mut client, transaction)?;
    Ok(oids)
}

/// Stores every object of [`fill`] again, so that the first revisions are garbage.
pub fn age(target: &Target, oids: &[Id8], object_len: usize) -> Result<()> {
    let mut client = Client::open(target)?;
    let is_python2 = client.dialect.is_python2();
    for (number, group) in oids.chunks(OBJECTS_PER_TRANSACTION).enumerate() {
        let first = group.first().ok_or("nothing to store")?;
        let serial = client.load_serial(first)?.ok_or("an object has gone")?;
        let transaction = transaction_id(number as u64 + 1);
        client.queue_begin(transaction);
        for oid in group {
            let record = records::mapping(is_python2, object_len, u64::from_be_bytes(*oid) + 7);
            client.queue_store(oid, &serial, &record, transaction);
            client.flush_if_large()?;
        }
        commit(&mut client, transaction)?;
    }
    Ok(())
}

fn commit(client: &mut Client, transaction: i64) -> Result<()> {
    if !client.vote(transaction)? {
        return Err("a conflict while filling a new database".into());
    }
    client.finish(transaction).map(drop)
}
