//! FileStorage through the Storage trait: stored data can be loaded, even after a restart.

use crate::support::storage::*;
use runzeo::ids::{Oid, Tid};
use runzeo::storage::file::{FileFormat, FileStorageOptions, NewFileFormat};
use runzeo::storage::prelude::*;
use runzeo::storage::{Refusal, Staged, StorageError, TidAt};

#[test]
fn what_is_stored_is_loaded_now_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let storage = open(&path);
    assert_eq!((storage.size(), storage.object_count(), storage.last_transaction()), (4, 0, Tid::ZERO));
    let t1 = commit(&storage, &[(0, Tid::ZERO, b"root"), (1, Tid::ZERO, b"one")]).unwrap();
    let t2 = commit(&storage, &[(1, t1, &[7; 100_000])]).unwrap();
    let check = |storage: &dyn Storage| {
        assert_eq!(load(storage, 0).unwrap(), (b"root".to_vec(), t1));
        assert_eq!(load(storage, 1).unwrap(), (vec![7; 100_000], t2));
        assert_eq!(load_before(storage, 1, t2).unwrap(), Some((b"one".to_vec(), t1, Some(t2))));
        assert_eq!(load_before(storage, 1, t1).unwrap(), None);
        assert!(matches!(load(storage, 2), Err(StorageError::PosKey(Oid(2)))));
        assert_eq!(storage.get_tid(Oid(1)).unwrap(), t2);
        assert_eq!(storage.last_transaction(), t2);
        assert_eq!(storage.object_count(), 2);
        let mut out = Vec::new();
        let loaded = storage.load_serial(Oid(1), t1, 5, &mut out).unwrap();
        assert_eq!((&out[loaded.start..], loaded.serial), (&b"one"[..], t1));
        assert!(storage.load_serial(Oid(1), Tid(t1.0 + 1), 0, &mut out).is_err());
        let history = storage.history(Oid(1), 10).unwrap();
        assert_eq!(history.iter().map(|h| (h.tid, h.size)).collect::<Vec<_>>(), [(t2, 100_000), (t1, 3)]);
        assert_eq!(history[0].meta, meta("user", "description"));
        assert_eq!(storage.history(Oid(1), 1).unwrap().len(), 1);
        assert_eq!(
            storage.last_invalidations(10).unwrap().transactions,
            [(t2, vec![Oid(1)]), (t1, vec![Oid(0), Oid(1)])]
        );
        let first = storage.record_iternext(None).unwrap().unwrap();
        assert_eq!((first.oid, first.tid, first.next), (Oid(0), t1, Some(Oid(1))));
        let last = storage.record_iternext(first.next).unwrap().unwrap();
        assert_eq!((last.oid, last.data.len(), last.next), (Oid(1), 100_000, None));
        assert!(storage.record_iternext(Some(Oid(2))).unwrap().is_none());
    };
    check(&storage);
    storage.close().unwrap();
    assert!(matches!(load(&storage, 0), Err(StorageError::Closed(_))));
    let again = open(&path);
    assert!(again.used_index());
    check(&again);
    drop(again);
    std::fs::remove_file(dir.path().join("Data.fs.index")).unwrap();
    let rebuilt = open(&path);
    assert!(!rebuilt.used_index());
    check(&rebuilt);
    assert!(dir.path().join("Data.fs.index").exists());
}

#[test]
fn conflicts_are_found_at_vote() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&dir.path().join("Data.fs"));
    let t1 = commit(&storage, &[(1, Tid::ZERO, b"one")]).unwrap();
    let t2 = commit(&storage, &[(1, t1, b"two")]).unwrap();
    match commit(&storage, &[(1, t1, b"three")]) {
        Err(StorageError::Conflict(c)) => {
            assert_eq!((c.oid, c.committed, c.read, &c.data[..]), (Oid(1), t2, t1, &b"three"[..]));
        }
        other => panic!("{other:?}"),
    }
    let mut reads = staged();
    reads.check_current(Oid(1), t1);
    assert!(matches!(commit_staged(&storage, reads), Err(StorageError::ReadConflict(_))));
    let mut reads = staged();
    reads.check_current(Oid(1), t2);
    reads.store(Oid(2), Tid::ZERO, b"x").unwrap();
    let t3 = commit_staged(&storage, reads).unwrap();
    // An object that is new to the storage may have any serial.
    commit(&storage, &[(9, t1, b"nine")]).unwrap();
    let mut unknown = staged();
    unknown.check_current(Oid(77), t1);
    assert!(matches!(commit_staged(&storage, unknown), Err(StorageError::PosKey(Oid(77)))));
    assert!(t3 > t2);
}

#[test]
fn deleted_objects_are_gone_but_not_their_past() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&dir.path().join("Data.fs"));
    let t1 = commit(&storage, &[(1, Tid::ZERO, b"one")]).unwrap();
    let mut wrong = staged();
    wrong.delete(Oid(1), Tid(5)).unwrap();
    assert!(matches!(commit_staged(&storage, wrong), Err(StorageError::Conflict(_))));
    let mut unknown = staged();
    unknown.delete(Oid(2), Tid(5)).unwrap();
    assert!(matches!(commit_staged(&storage, unknown), Err(StorageError::PosKey(Oid(2)))));
    let mut delete = staged();
    delete.delete(Oid(1), t1).unwrap();
    let t2 = commit_staged(&storage, delete).unwrap();
    assert!(matches!(load(&storage, 1), Err(StorageError::PosKey(_))));
    assert!(matches!(storage.get_tid(Oid(1)), Err(StorageError::PosKey(_))));
    assert_eq!(load_before(&storage, 1, t2).unwrap(), Some((b"one".to_vec(), t1, Some(t2))));
    assert_eq!(storage.object_count(), 1);
    // It may be stored again.
    commit(&storage, &[(1, t2, b"again")]).unwrap();
    assert_eq!(load(&storage, 1).unwrap().0, b"again");
}

/// Oid, data, and the transaction that may already have the data.
type Restored<'a> = (u64, Option<&'a [u8]>, Option<u64>);

#[test]
fn restored_records_point_back_to_equal_data() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&dir.path().join("Data.fs"));
    let restore = |tid: u64, records: &[Restored<'_>], memory_max| {
        let mut txn = Staged::new(meta("u", "d"), Some(Tid(tid)), b' ', memory_max);
        for (oid, data, prev_txn) in records {
            txn.restore(Oid(*oid), Tid(tid), *data, prev_txn.map(Tid)).unwrap();
        }
        commit_staged(&storage, txn)
    };
    let twice: [Restored<'_>; 2] = [(1, Some(b"a"), None), (1, Some(b"b"), None)];
    assert_eq!(restore(1000, &twice, 1000).unwrap(), Tid(1000));
    restore(2000, &[(1, Some(b"other"), None)], 1000).unwrap();
    let size = storage.size();
    // The last record of the object in that transaction counts.
    restore(3000, &[(1, Some(b"b"), Some(1000)), (2, Some(b"two"), None)], 1000).unwrap();
    assert_eq!(storage.size() - size, 23 + 2 + 42 + 8 + 42 + 3 + 8);
    assert_eq!(load(&storage, 1).unwrap(), (b"b".to_vec(), Tid(3000)));
    assert_eq!(load(&storage, 2).unwrap(), (b"two".to_vec(), Tid(3000)));
    // Different data: the hint is ignored. Spilled to disk, to test that path too.
    restore(4000, &[(1, Some(b"a"), Some(1000)), (2, Some(b"two"), Some(3000))], 0).unwrap();
    assert_eq!(load(&storage, 1).unwrap(), (b"a".to_vec(), Tid(4000)));
    assert_eq!(load(&storage, 2).unwrap(), (b"two".to_vec(), Tid(4000)));
    // Un-created.
    restore(5000, &[(1, None, None)], 1000).unwrap();
    assert!(matches!(load(&storage, 1), Err(StorageError::PosKey(_))));
    // A copy cannot be older than the last transaction.
    assert!(matches!(restore(5000, &[(3, Some(b"x"), None)], 1000), Err(StorageError::Refused { .. })));

    let mut it = storage.iterate(Some(Tid(2500)), Some(Tid(4000))).unwrap();
    let mut seen = Vec::new();
    while let Some(txn) = it.next_transaction().unwrap() {
        let mut records = it.records().unwrap();
        while let Some(r) = records.next_record().unwrap() {
            seen.push((txn.tid.0, r.oid.0, r.data.unwrap(), r.data_txn.map(|t| t.0)));
        }
    }
    assert_eq!(
        seen,
        [
            (3000, 1, b"b".to_vec(), Some(1000)),
            (3000, 2, b"two".to_vec(), None),
            (4000, 1, b"a".to_vec(), None),
            (4000, 2, b"two".to_vec(), Some(3000)),
        ]
    );
}

#[test]
fn tids_at_vote_and_at_finish() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&dir.path().join("Data.fs"));
    let mut txn = staged();
    txn.store(Oid(1), Tid::ZERO, b"x").unwrap();
    let voted = storage.vote(txn, TidAt::Vote).unwrap();
    let tid = voted.tid().unwrap();
    storage.abort(voted);
    let later = commit(&storage, &[(1, Tid::ZERO, b"x")]).unwrap();
    assert!(later > tid);
}

#[test]
fn the_first_client_decides_who_can_read_a_new_file() {
    let dir = tempfile::tempdir().unwrap();
    for (python2, format, magic) in [
        (true, NewFileFormat::Auto, FileFormat::FS21),
        (false, NewFileFormat::Auto, FileFormat::FS30),
        (true, NewFileFormat::FS30, FileFormat::FS30),
        (false, NewFileFormat::FS21, FileFormat::FS21),
    ] {
        let path = dir.path().join(format!("{python2}{format:?}"));
        let options = FileStorageOptions { new_file_format: format, ..FileStorageOptions::new(&path) };
        // The format of an empty file is still open after a restart.
        drop(open_with(options.clone()).unwrap());
        let storage = open_with(options.clone()).unwrap();
        let mut txn = staged();
        txn.set_python2(python2);
        txn.store(Oid(0), Tid::ZERO, b"x").unwrap();
        commit_staged(&storage, txn).unwrap();
        drop(storage);
        assert_eq!(&std::fs::read(&path).unwrap()[..4], magic.magic());
        // Then it is determined.
        let storage = open_with(FileStorageOptions::new(&path)).unwrap();
        let mut txn = staged();
        txn.set_python2(!python2);
        txn.store(Oid(1), Tid::ZERO, b"x").unwrap();
        commit_staged(&storage, txn).unwrap();
        assert_eq!(&std::fs::read(&path).unwrap()[..4], magic.magic());
    }
}

#[test]
fn quota_limits_and_meta_limits() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let storage =
        open_with(FileStorageOptions { quota: Some(300), ..FileStorageOptions::new(&path) }).unwrap();
    let t1 = commit(&storage, &[(1, Tid::ZERO, &[1; 400])]).unwrap();
    assert!(matches!(commit(&storage, &[(1, t1, b"x")]), Err(StorageError::Quota)));
    for (field, message) in
        [(0, "user name too long"), (1, "description too long"), (2, "too much extension data")]
    {
        let mut txn = staged();
        let long = vec![b'x'; 65536];
        match field {
            0 => txn.meta.user = long,
            1 => txn.meta.description = long,
            _ => txn.meta.extension = long,
        }
        match commit_staged(&storage, txn) {
            Err(StorageError::Refused { what, message: m }) => {
                assert_eq!((what, m.as_str()), (Refusal::FileLimit, message));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn oids_never_repeat() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let storage = open(&path);
    assert_eq!(storage.new_oids(3).unwrap(), [Oid(1), Oid(2), Oid(3)]);
    commit(&storage, &[(100, Tid::ZERO, b"x")]).unwrap();
    assert_eq!(storage.new_oids(1).unwrap(), [Oid(101)]);
    drop(storage);
    let storage = open(&path);
    assert_eq!(storage.new_oids(1).unwrap(), [Oid(102)]);
    // A crash: nothing is closed, and the lock ends with the process.
    std::mem::forget(storage);
    let copy = dir.path().join("Copy.fs");
    for suffix in ["", ".tmp", ".index"] {
        std::fs::copy(format!("{}{suffix}", path.display()), format!("{}{suffix}", copy.display())).unwrap();
    }
    assert!(open(&copy).new_oids(1).unwrap()[0] > Oid(102));
}

#[test]
fn read_only_and_time_travel() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let read_only = |stop| FileStorageOptions { read_only: true, stop, ..FileStorageOptions::new(&path) };
    assert!(open_with(read_only(None)).is_err());
    assert!(!path.exists());
    let storage = open(&path);
    let t1 = commit(&storage, &[(1, Tid::ZERO, b"one")]).unwrap();
    let t2 = commit(&storage, &[(1, t1, b"two"), (2, Tid::ZERO, b"x")]).unwrap();
    // Beside a writer.
    let reader = open_with(read_only(None)).unwrap();
    assert_eq!(load(&reader, 1).unwrap(), (b"two".to_vec(), t2));
    assert!(matches!(commit(&reader, &[(1, t2, b"x")]), Err(StorageError::ReadOnly)));
    assert!(matches!(reader.new_oids(1), Err(StorageError::ReadOnly)));
    let past = open_with(read_only(Some(t2))).unwrap();
    assert_eq!(load(&past, 1).unwrap(), (b"one".to_vec(), t1));
    assert_eq!(past.object_count(), 1);
    drop(storage);
    let past = open_with(read_only(Some(t2))).unwrap();
    assert_eq!(load(&past, 1).unwrap(), (b"one".to_vec(), t1));
    let refused = FileStorageOptions { stop: Some(t1), ..FileStorageOptions::new(&path) };
    assert!(open_with(refused).is_err());
}

#[test]
fn a_second_process_is_kept_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let storage = open(&path);
    match open_with(FileStorageOptions::new(&path)) {
        Err(StorageError::Refused { what: Refusal::FileInUse, .. }) => {}
        other => panic!("{:?}", other.err()),
    }
    storage.close().unwrap();
    open(&path);
}

#[test]
fn create_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    commit(&open(&path), &[(1, Tid::ZERO, &[1; 500])]).unwrap();
    let storage = open_with(FileStorageOptions { create: true, ..FileStorageOptions::new(&path) }).unwrap();
    assert_eq!((storage.size(), storage.object_count()), (4, 0));
    assert_eq!(storage.last_transaction(), Tid::ZERO);
}

#[test]
fn many_committers_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let storage = open(&path);
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let storage = &storage;
            scope.spawn(move || {
                let mut serial = Tid::ZERO;
                for n in 0..40u64 {
                    let data = format!("{thread} {n}");
                    serial = commit(storage, &[(thread + 1, serial, data.as_bytes())]).unwrap();
                    assert_eq!(load(storage, thread + 1).unwrap(), (data.into_bytes(), serial));
                }
            });
        }
    });
    assert_eq!(storage.object_count(), 8);
    let mut it = storage.iterate(None, None).unwrap();
    let (mut count, mut last) = (0, Tid::ZERO);
    while let Some(txn) = it.next_transaction().unwrap() {
        assert!(txn.tid > last);
        last = txn.tid;
        count += 1;
    }
    assert_eq!((count, last), (320, storage.last_transaction()));
    drop(storage);
    std::fs::remove_file(dir.path().join("Data.fs.index")).unwrap();
    let storage = open(&path);
    for thread in 1..=8 {
        assert_eq!(load(&storage, thread).unwrap().0, format!("{} 39", thread - 1).into_bytes());
    }
}

/// If the last transactions are long, an object is listed with the newest one that changed it: the changes after any of
/// the tids are exact.
#[test]
fn the_last_invalidations_of_long_transactions_are_complete() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&dir.path().join("Data.fs"));
    let long = vec![7; 400_000];
    let t1 =
        commit(&storage, &[(0, Tid::ZERO, &long), (1, Tid::ZERO, &long), (2, Tid::ZERO, &long)]).unwrap();
    let t2 = commit(&storage, &[(1, t1, &long), (2, t1, &long), (3, Tid::ZERO, &long)]).unwrap();
    let t3 = commit(&storage, &[(2, t2, &long), (4, Tid::ZERO, &long)]).unwrap();
    let all = storage.last_invalidations(10).unwrap().transactions;
    assert_eq!(all, [(t3, vec![Oid(2), Oid(4)]), (t2, vec![Oid(1), Oid(3)]), (t1, vec![Oid(0)])]);
    assert_eq!(storage.last_invalidations(2).unwrap().transactions, all[..2]);
}

/// A restored record of eight bytes, the length of its back-pointer, was written as data: as a pointer to an arbitrary
/// place, or to nothing. Its length had been mistaken for a sign that it was already rearranged.
#[test]
fn a_restored_record_as_long_as_a_back_pointer() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&dir.path().join("Data.fs"));
    for (oid, data) in [(1, [0; 8]), (2, *b"12345678")] {
        let first = commit(&storage, &[(oid, Tid::ZERO, &data)]).unwrap();
        let second = Tid(first.0 + 1);
        let mut txn = Staged::new(meta("", ""), Some(second), b' ', 1 << 20);
        txn.restore(Oid(oid), second, Some(&data), Some(first)).unwrap();
        commit_staged(&storage, txn).unwrap();
        assert_eq!(load(&storage, oid).unwrap(), (data.to_vec(), second));
    }
}
