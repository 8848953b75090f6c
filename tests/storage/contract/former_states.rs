//! Storages without history: objects that lose their last reference, and former states that are dropped.

use std::sync::Arc;
use std::time::Duration;

use runzeo::ids::{Oid, Tid};
use runzeo::internal::base::clock::TimeSource;
use runzeo::internal::pickle::refs::references;
use runzeo::internal::storage::temporary::TemporaryStorage;
use runzeo::storage::prelude::*;
use runzeo::storage::{PackProgress, PackRequest, StorageError};

use crate::support::storage::{Answers, commit, load, load_before};

/// A record that refers to these objects.
fn refers_to(oids: &[u64]) -> Vec<u8> {
    let mut record = b"cpersistent.mapping\nPersistentMapping\n.(".to_vec();
    for oid in oids {
        record.extend(b"U\x08");
        record.extend(oid.to_be_bytes());
        record.push(b'Q');
    }
    record.extend(b"t.");
    record
}

fn storage(clock: &TimeSource) -> TemporaryStorage {
    let storage = TemporaryStorage::with_time("temporary".into(), clock.clone());
    storage.set_publisher(Arc::new(Answers));
    storage
}

fn oids(storage: &dyn Storage) -> Vec<u64> {
    let mut oids = Vec::new();
    let mut next = None;
    while let Some(record) = storage.record_iternext(next).unwrap() {
        oids.push(record.oid.0);
        next = record.next;
        if next.is_none() {
            break;
        }
    }
    oids
}

#[test]
fn what_loses_its_last_reference_is_gone() {
    let storage = storage(&TimeSource::SYSTEM);
    let t1 = commit(
        &storage,
        &[
            (0, Tid::ZERO, &refers_to(&[1, 2, 2])),
            (1, Tid::ZERO, &refers_to(&[3])),
            (2, Tid::ZERO, &refers_to(&[4])),
            (3, Tid::ZERO, &refers_to(&[4])),
            (4, Tid::ZERO, &refers_to(&[])),
            (5, Tid::ZERO, &refers_to(&[])),
        ],
    )
    .unwrap();
    assert_eq!(oids(&storage), [0, 1, 2, 3, 4, 5]);
    let t2 = commit(&storage, &[(0, t1, &refers_to(&[2]))]).unwrap();
    // 5 never had a reference, so it could lose none.
    assert_eq!(oids(&storage), [0, 2, 4, 5]);
    assert_eq!(storage.object_count(), 4);
    assert!(matches!(load(&storage, 1), Err(StorageError::Conflict(c)) if c.oid == Oid(1)));
    // Clients of ZEO 5 and 6 only request revisions before their transaction: they got POSKeyError, for which no client
    // retries a transaction.
    assert!(matches!(load_before(&storage, 1, t2), Err(StorageError::Conflict(c)) if c.oid == Oid(1)));
    assert!(matches!(load_before(&storage, 3, t2), Err(StorageError::Conflict(c)) if c.oid == Oid(3)));
    for unknown in [6, 77] {
        assert!(matches!(load(&storage, unknown), Err(StorageError::PosKey(_))));
        assert!(matches!(load_before(&storage, unknown, t2), Err(StorageError::PosKey(_))));
    }
    // The reference moves within one transaction.
    commit(&storage, &[(2, t1, &refers_to(&[])), (0, t2, &refers_to(&[2, 4]))]).unwrap();
    assert_eq!(oids(&storage), [0, 2, 4, 5]);
}

#[test]
fn circles_are_collected_by_a_pack() {
    let storage = storage(&TimeSource::SYSTEM);
    let request = PackRequest {
        time: 0.0,
        gc: None,
        references: &references,
        progress: &PackProgress::default(),
        removals: None,
    };
    storage.pack(&request).unwrap();
    let t1 = commit(
        &storage,
        &[
            (0, Tid::ZERO, &refers_to(&[1])),
            (1, Tid::ZERO, &refers_to(&[2])),
            (2, Tid::ZERO, &refers_to(&[1])),
        ],
    )
    .unwrap();
    let t2 = commit(&storage, &[(0, t1, &refers_to(&[3])), (3, Tid::ZERO, &refers_to(&[]))]).unwrap();
    assert_eq!(oids(&storage), [0, 1, 2, 3]);
    storage.pack(&request).unwrap();
    assert_eq!(oids(&storage), [0, 3]);
    assert_eq!(load(&storage, 3).unwrap().1, t2);
}

#[test]
fn former_states_are_kept_for_a_while() {
    let clock = TimeSource::manual();
    let storage = storage(&clock);
    let [one, two, changed] = [&[10][..], &[11], &[12]].map(refers_to);
    let t1 = commit(&storage, &[(1, Tid::ZERO, &one), (2, Tid::ZERO, &two)]).unwrap();
    let t2 = commit(&storage, &[(1, t1, &changed)]).unwrap();
    assert_eq!(load_before(&storage, 1, t2).unwrap(), Some((one, t1, Some(t2))));
    clock.advance(Duration::from_secs(61));
    commit(&storage, &[(3, Tid::ZERO, &refers_to(&[]))]).unwrap();
    assert_eq!(load_before(&storage, 1, t2).unwrap(), None);
    assert!(storage.load_serial(Oid(1), t1, 0, &mut Vec::new()).is_err());
    assert_eq!(load(&storage, 1).unwrap(), (changed, t2));
    assert_eq!(load(&storage, 2).unwrap(), (two, t1));
}
