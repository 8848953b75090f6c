//! The database that the clients of a history change.

use std::collections::BTreeMap;

use crate::check::{Oid, Value as Written};
use crate::driver::data_of;

pub type Record = (Oid, Vec<u8>);

/// The root, which refers to all other objects, so that no pack removes them.
fn root(oids: &[Oid]) -> Vec<u8> {
    let mut data = b"cpersistent.mapping\nPersistentMapping\nq\x01.](".to_vec();
    for oid in oids {
        data.extend_from_slice(b"U\x08");
        data.extend_from_slice(&oid.to_be_bytes());
        data.push(b'Q');
    }
    data.extend_from_slice(b"e.");
    data
}

/// The first transaction: the root, which refers to all objects, and the values of those in `there`.
pub fn first_records(oids: &[Oid], there: &[Oid]) -> (Vec<Record>, BTreeMap<Oid, Written>) {
    let mut records = vec![(0, root(oids))];
    records.extend(there.iter().map(|oid| (*oid, data_of(*oid, 10))));
    (records, there.iter().map(|oid| (*oid, *oid)).collect())
}
