//! Vote, finish, abort.

use std::collections::BTreeSet;

use runzeo::ids::{Oid, Tid};
use runzeo::storage::{Staged, StorageError, TidAt};

use super::kinds::Kind;
use super::lists::records_of_last;
use crate::support::storage::{Outcome, commit, commit_staged, finish, load, load_before, meta, staged};

pub fn conflicts_are_found_at_vote(kind: &Kind) {
    let storage = kind.storage.as_ref();
    let t1 = commit(storage, &[(1, Tid::ZERO, b"one")]).unwrap();
    let t2 = commit(storage, &[(1, t1, b"two")]).unwrap();
    for read in [t1, Tid::ZERO, Tid(t2.0 + 1)] {
        match commit(storage, &[(2, Tid::ZERO, b"beside"), (1, read, b"three")]) {
            Err(StorageError::Conflict(c)) => {
                assert_eq!((c.oid, c.committed, c.read, &c.data[..]), (Oid(1), t2, read, &b"three"[..]));
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(load(storage, 2), Err(StorageError::PosKey(_))));
    assert_eq!(load(storage, 1).unwrap(), (b"two".to_vec(), t2));
    // An object that is new to the storage may have any serial.
    commit(storage, &[(9, t1, b"nine")]).unwrap();
}

pub fn dependencies_are_checked(kind: &Kind) {
    let storage = kind.storage.as_ref();
    let t1 = commit(storage, &[(1, Tid::ZERO, b"one")]).unwrap();
    let t2 = commit(storage, &[(1, t1, b"two")]).unwrap();
    let with = |oid, serial| {
        let mut staged = staged();
        staged.store(Oid(2), Tid::ZERO, b"depends").unwrap();
        staged.check_current(Oid(oid), serial);
        commit_staged(storage, staged)
    };
    match with(1, t1) {
        Err(StorageError::ReadConflict(c)) => assert_eq!((c.oid, c.committed, c.read), (Oid(1), t2, t1)),
        other => panic!("{other:?}"),
    }
    assert!(matches!(with(77, t1), Err(StorageError::PosKey(Oid(77)))));
    let t3 = with(1, t2).unwrap();
    assert_eq!(load(storage, 2).unwrap(), (b"depends".to_vec(), t3));
    assert_eq!(load(storage, 1).unwrap().1, t2);
}

pub fn an_aborted_transaction_leaves_nothing(kind: &Kind) {
    let storage = kind.storage.as_ref();
    let t1 = commit(storage, &[(1, Tid::ZERO, b"one")]).unwrap();
    let (count, size) = (storage.object_count(), storage.size());
    for at in [TidAt::Finish, TidAt::Vote] {
        let mut staged = staged();
        staged.store(Oid(1), t1, b"two").unwrap();
        staged.store(Oid(2), Tid::ZERO, b"new").unwrap();
        storage.abort(storage.vote(staged, at).unwrap());
    }
    assert_eq!((storage.object_count(), storage.size(), storage.last_transaction()), (count, size, t1));
    assert_eq!(load(storage, 1).unwrap(), (b"one".to_vec(), t1));
    assert!(matches!(load(storage, 2), Err(StorageError::PosKey(_))));
    assert_eq!(storage.history(Oid(1), 9).unwrap().len(), usize::from(kind.logs));
}

/// Also for a transaction that is too large for the memory.
pub fn a_transaction_of_many_records(kind: &Kind) {
    let storage = kind.storage.as_ref();
    for memory_max in [0, 1000, 1 << 20] {
        let start = 1000 + memory_max as u64;
        let mut staged = Staged::new(meta("user", "many"), None, b' ', memory_max);
        let data = |n: u64| format!("{n} ").repeat(n as usize + 1).into_bytes();
        for n in 0..60 {
            staged.store(Oid(start + n), Tid::ZERO, &data(n)).unwrap();
        }
        // Twice in one transaction: the last counts.
        staged.store(Oid(start), Tid::ZERO, b"again").unwrap();
        let tid = commit_staged(storage, staged).unwrap();
        assert_eq!(load(storage, start).unwrap(), (b"again".to_vec(), tid));
        for n in 1..60 {
            assert_eq!(load(storage, start + n).unwrap(), (data(n), tid));
        }
        assert!(!kind.logs || records_of_last(kind).len() >= 60);
    }
}

pub fn tids_at_vote(kind: &Kind) {
    let storage = kind.storage.as_ref();
    let one = || {
        let mut staged = staged();
        staged.store(Oid(1), storage.get_tid(Oid(1)).unwrap_or_default(), b"one").unwrap();
        staged
    };
    assert_eq!(storage.vote(one(), TidAt::Finish).unwrap().tid(), None);
    let voted = storage.vote(one(), TidAt::Vote).unwrap();
    let told = voted.tid().unwrap();
    assert!(told > storage.last_transaction());
    storage.abort(voted);
    let voted = storage.vote(one(), TidAt::Vote).unwrap();
    let second = voted.tid().unwrap();
    assert!(second > told, "no tid is told twice");
    storage.abort(voted);
    assert!(commit_staged(storage, one()).unwrap() > second);
    let (to, from) = std::sync::mpsc::channel::<Outcome>();
    let voted = storage.vote(one(), TidAt::Vote).unwrap();
    let told = voted.tid().unwrap();
    storage.finish(voted, Box::new(to));
    assert!(matches!(from.recv().unwrap(), Outcome::Done { tid, .. } if tid == told));
    assert_eq!(storage.last_transaction(), told);
}

pub fn what_is_told_when_it_is_published(kind: &Kind) {
    let storage = kind.storage.as_ref();
    let t1 = commit(storage, &[(3, Tid::ZERO, b"three")]).unwrap();
    let mut staged = staged();
    for (oid, serial) in [(3, t1), (1, Tid::ZERO), (2, Tid::ZERO), (1, Tid::ZERO)] {
        staged.store(Oid(oid), serial, b"data").unwrap();
    }
    match finish(storage, staged, TidAt::Finish).unwrap().recv().unwrap() {
        Outcome::Done { tid, oids, object_count, size } => {
            assert_eq!(oids, [Oid(1), Oid(2), Oid(3)]);
            assert_eq!(tid, storage.last_transaction());
            assert_eq!(object_count, storage.object_count());
            assert!(size <= storage.size() + 1000 && (size > 0 || !kind.logs));
        }
        other => panic!("{other:?}"),
    }
}

pub fn deleted_objects(kind: &Kind) {
    let storage = kind.storage.as_ref();
    let t1 = commit(storage, &[(1, Tid::ZERO, b"one")]).unwrap();
    let delete = |oid, serial| {
        let mut staged = staged();
        staged.delete(Oid(oid), serial).unwrap();
        commit_staged(storage, staged)
    };
    if !kind.deletes {
        assert!(matches!(delete(1, t1), Err(StorageError::Unsupported(_))));
        return;
    }
    assert!(matches!(delete(1, Tid(5)), Err(StorageError::Conflict(_))));
    assert!(matches!(delete(2, Tid(5)), Err(StorageError::PosKey(Oid(2)))));
    let t2 = delete(1, t1).unwrap();
    assert!(matches!(load(storage, 1), Err(StorageError::PosKey(_))));
    assert!(matches!(storage.get_tid(Oid(1)), Err(StorageError::PosKey(_))));
    assert_eq!(load_before(storage, 1, t2).unwrap(), Some((b"one".to_vec(), t1, Some(t2))));
    // It may be stored again.
    // Where nothing is kept of it, it is a new one.
    let before = if kind.forgets { Tid::ZERO } else { t2 };
    let t3 = commit(storage, &[(1, before, b"again")]).unwrap();
    assert_eq!(load(storage, 1).unwrap(), (b"again".to_vec(), t3));
}

pub fn restored_records(kind: &Kind) {
    let storage = kind.storage.as_ref();
    let last = storage.last_transaction().0;
    let restore = |tid: u64, records: &[(u64, Option<&[u8]>)]| {
        let mut staged = Staged::new(meta("user", "copied"), Some(Tid(tid)), b' ', 1 << 20);
        for (oid, data) in records {
            staged.restore(Oid(*oid), Tid(tid), *data, None).unwrap();
        }
        commit_staged(storage, staged)
    };
    if !kind.logs {
        assert!(matches!(restore(last + 1000, &[(1, Some(b"one"))]), Err(StorageError::Unsupported(_))));
        return;
    }
    let long = b"a longer record ".repeat(9);
    let t1 = restore(last + 1000, &[(1, Some(&long)), (2, Some(b"two"))]).unwrap();
    assert_eq!(t1, Tid(last + 1000));
    let t2 = restore(last + 2000, &[(1, Some(b"one")), (2, None)]).unwrap();
    assert_eq!(load(storage, 1).unwrap(), (b"one".to_vec(), t2));
    assert_eq!(load_before(storage, 1, t2).unwrap(), Some((long, t1, Some(t2))));
    assert!(matches!(load(storage, 2), Err(StorageError::PosKey(_))));
    assert!(matches!(restore(last + 2000, &[(1, Some(b"late"))]), Err(StorageError::Refused { .. })));
    assert!(commit(storage, &[(1, t2, b"on")]).unwrap() > t2);
}

pub fn oids_are_given_out_once(kind: &Kind) {
    let storage = kind.storage.as_ref();
    commit(storage, &[(3, Tid::ZERO, b"came with its oid")]).unwrap();
    let mut given = BTreeSet::new();
    let results: Vec<Vec<Oid>> = std::thread::scope(|scope| {
        let ask = || (0..10).flat_map(|_| storage.new_oids(7).unwrap()).collect();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for oids in &results {
        assert!(oids.chunks(7).all(|chunk| chunk.is_sorted()));
        given.extend(oids.iter().copied());
    }
    assert_eq!(given.len(), 280);
    assert!(!given.contains(&Oid(3)) && !given.contains(&Oid::ZERO));
    assert!(storage.new_oids(0).unwrap().is_empty());
    assert!(given.iter().all(|oid| *oid < Oid::MAX));
}

pub fn after_close_nothing_works(kind: &Kind) {
    let storage = kind.storage.as_ref();
    let t1 = commit(storage, &[(1, Tid::ZERO, b"one")]).unwrap();
    let mut late = staged();
    late.store(Oid(1), t1, b"two").unwrap();
    let voted = storage.vote(late, TidAt::Finish).unwrap();
    storage.close().unwrap();
    let (to, from) = std::sync::mpsc::channel::<Outcome>();
    storage.finish(voted, Box::new(to));
    assert!(matches!(from.recv().unwrap(), Outcome::Failed(StorageError::Closed(_))));
    assert!(matches!(load(storage, 1), Err(StorageError::Closed(_))));
    assert!(matches!(commit(storage, &[(1, t1, b"two")]), Err(StorageError::Closed(_))));
    assert!(storage.require_iteration().and_then(|listed| listed.iterate(None, None)).is_err());
    storage.close().unwrap();
}
