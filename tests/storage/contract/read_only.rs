//! Read-only storages, and abilities of single layers.

use std::sync::Arc;

use runzeo::ids::{Oid, Tid};
use runzeo::internal::storage::before::Before;
use runzeo::internal::storage::demo::DemoStorage;
use runzeo::internal::storage::mapping::MappingStorage;
use runzeo::internal::storage::transform::zlib::Zlib;
use runzeo::storage::file::FileStorageOptions;
use runzeo::storage::prelude::*;
use runzeo::storage::{NotVoted, StorageError, TidAt, Transform};

use crate::support::storage::*;

fn refuses_to_write(storage: &dyn Storage) {
    assert!(storage.is_read_only());
    let mut txn = staged();
    txn.store(Oid(1), Tid::ZERO, b"x").unwrap();
    assert!(matches!(storage.vote(txn, TidAt::Finish), Err(NotVoted::Failed(StorageError::ReadOnly))));
    assert!(matches!(storage.new_oids(1), Err(StorageError::ReadOnly)));
}

#[test]
fn a_storage_as_it_was() {
    let base = Arc::new(MappingStorage::new("base".into()));
    base.set_publisher(Arc::new(Answers));
    let t1 = commit(base.as_ref(), &[(1, Tid::ZERO, b"one"), (2, Tid::ZERO, b"two")]).unwrap();
    let t2 = commit(base.as_ref(), &[(1, t1, b"changed")]).unwrap();
    let t3 = commit(base.as_ref(), &[(1, t2, b"too late"), (3, Tid::ZERO, b"too late")]).unwrap();
    let mut delete = staged();
    delete.delete(Oid(2), t1).unwrap();
    let t4 = commit_staged(base.as_ref(), delete).unwrap();
    let storage = Before::new(base, t3);
    refuses_to_write(&storage);
    assert_eq!(storage.name(), format!("base before {}", t3.to_text()));
    assert_eq!(storage.last_transaction(), Tid(t3.0 - 1));
    assert_eq!(load(&storage, 1).unwrap(), (b"changed".to_vec(), t2));
    assert_eq!(load_before(&storage, 1, t2).unwrap(), Some((b"one".to_vec(), t1, Some(t2))));
    assert_eq!(load(&storage, 2).unwrap(), (b"two".to_vec(), t1));
    assert_eq!(load_before(&storage, 3, Tid::MAX).unwrap(), None);
    assert!(matches!(storage.get_tid(Oid(3)), Err(StorageError::PosKey(_))));
    assert_eq!(storage.get_tid(Oid(1)).unwrap(), t2);
    assert!(matches!(storage.load_serial(Oid(1), t3, 0, &mut Vec::new()), Err(StorageError::PosKey(_))));
    let history = |count| storage.history(Oid(1), count).unwrap().iter().map(|h| h.tid).collect::<Vec<_>>();
    assert_eq!((history(1), history(9)), (vec![t2], vec![t2, t1]));
    let first = storage.record_iternext(None).unwrap().unwrap();
    assert_eq!((first.oid, first.tid, first.next), (Oid(1), t2, Some(Oid(2))));
    let second = storage.record_iternext(first.next).unwrap().unwrap();
    assert_eq!((second.oid, &second.data[..], second.next), (Oid(2), &b"two"[..], None));
    assert!(storage.record_iternext(Some(Oid(3))).unwrap().is_none());
    let mut transactions = storage.iterate(None, Some(t4)).unwrap();
    assert_eq!(transactions.next_transaction().unwrap().unwrap().tid, t1);
    assert_eq!(transactions.next_transaction().unwrap().unwrap().tid, t2);
    assert!(transactions.next_transaction().unwrap().is_none());
}

#[test]
fn changes_to_a_file_that_is_read_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let file = open(&path);
    let t1 = commit(&file, &[(0, Tid::ZERO, b"root"), (1, Tid::ZERO, b"one")]).unwrap();
    let t2 = commit(&file, &[(1, t1, b"two")]).unwrap();
    drop(file);
    let before = std::fs::read(&path).unwrap();
    let base = Arc::new(
        open_with(FileStorageOptions { read_only: true, ..FileStorageOptions::new(&path) }).unwrap(),
    );
    refuses_to_write(base.as_ref());
    let demo = DemoStorage::new(None, base, Arc::new(MappingStorage::new("changes".into())), true);
    demo.set_publisher(Arc::new(Answers));
    assert!(!demo.is_read_only());
    assert_eq!(demo.name(), format!("DemoStorage('{}', 'changes')", path.display()));
    assert_eq!(demo.last_transaction(), t2);
    assert_eq!(load(&demo, 1).unwrap(), (b"two".to_vec(), t2));
    assert!(
        matches!(commit(&demo, &[(1, t1, b"late")]), Err(StorageError::Conflict(c)) if c.committed == t2)
    );
    let t3 = commit(&demo, &[(1, t2, b"changed"), (7, Tid::ZERO, b"new")]).unwrap();
    assert!(t3 > t2);
    assert_eq!(load(&demo, 1).unwrap(), (b"changed".to_vec(), t3));
    assert_eq!(load(&demo, 0).unwrap(), (b"root".to_vec(), t1));
    assert_eq!(load_before(&demo, 1, t3).unwrap(), Some((b"two".to_vec(), t2, Some(t3))));
    assert_eq!(load_before(&demo, 1, t2).unwrap(), Some((b"one".to_vec(), t1, Some(t2))));
    assert_eq!(load_before(&demo, 1, t1).unwrap(), None);
    let tids: Vec<Tid> = demo.history(Oid(1), 5).unwrap().iter().map(|entry| entry.tid).collect();
    assert_eq!(tids, [t3, t2, t1]);
    let tids: Vec<Tid> =
        demo.last_invalidations(5).unwrap().transactions.iter().map(|(tid, _)| *tid).collect();
    assert_eq!(tids, [t3, t2, t1]);
    // A check of an object in the base.
    let mut depends = staged();
    depends.check_current(Oid(0), t1);
    depends.store(Oid(8), Tid::ZERO, b"x").unwrap();
    let t4 = commit_staged(&demo, depends).unwrap();
    assert_eq!(demo.last_transaction(), t4);
    let mut depends = staged();
    depends.check_current(Oid(0), t2);
    assert!(matches!(commit_staged(&demo, depends), Err(StorageError::ReadConflict(_))));
    let mut oids = Vec::new();
    let mut next = None;
    while let Some(record) = demo.record_iternext(next).unwrap() {
        oids.push((record.oid.0, record.tid));
        next = record.next;
        if next.is_none() {
            break;
        }
    }
    assert_eq!(oids, [(0, t1), (1, t3), (7, t3), (8, t4)]);
    demo.close().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn a_record_that_cannot_be_decoded_is_an_error_and_no_more() {
    let base: Arc<dyn Storage> = Arc::new(MappingStorage::new("base".into()));
    base.set_publisher(Arc::new(Answers));
    let t1 = commit(base.as_ref(), &[(1, Tid::ZERO, b".z no zlib stream"), (2, Tid::ZERO, b"two")]).unwrap();
    let storage = Transform::new(base, Arc::new(Zlib { compress: true }), false);
    let mut out = b"kept".to_vec();
    let refused = storage.load_before(Oid(1), Tid::MAX, 9, &mut out);
    assert!(
        matches!(&refused, Err(StorageError::Refused { message, .. }) if message.contains("0000000000000001"))
    );
    assert!(storage.load_serial(Oid(1), t1, 9, &mut out).is_err());
    assert_eq!(out, b"kept");
    assert_eq!(load(&storage, 2).unwrap(), (b"two".to_vec(), t1));
    assert_eq!(
        commit(&storage, &[(1, t1, b"better")])
            .map(|tid| load(&storage, 1).unwrap() == (b"better".to_vec(), tid))
            .ok(),
        Some(true)
    );
}
