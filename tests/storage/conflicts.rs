//! FileStorage and the resolver: merged records are in the file, other conflicts are reported with all their data.

use std::sync::{Arc, Mutex};

use crate::support::storage::*;
use runzeo::ids::{Oid, Tid};
use runzeo::storage::prelude::*;
use runzeo::storage::{Merging, NotVoted, Resolver, Staged, StorageError, ThreeStates, TidAt, Unresolved};

/// Joins the states; refuses if one of them says so. Records its calls.
#[derive(Default)]
struct Joins(Mutex<Vec<(u64, Tid, Tid)>>);

impl Resolver for Joins {
    fn resolve(&self, states: &ThreeStates<'_>) -> Result<Vec<u8>, Unresolved> {
        self.0.lock().unwrap().push((states.oid.0, states.read, states.committed_serial));
        if states.new == b"refuse" {
            return Err(Unresolved { reason: "told to".into() });
        }
        Ok([states.old, states.committed, states.new].join(&b"+"[..]))
    }
}

#[test]
fn merged_records_take_the_place_of_the_clients() {
    for memory_max in [10, 1 << 20] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("Data.fs");
        let storage = open(&path);
        let joins = Arc::new(Joins::default());
        storage.set_resolver(joins.clone());
        let t1 = commit(&storage, &[(1, Tid::ZERO, b"one"), (2, Tid::ZERO, b"two"), (3, Tid::ZERO, b"3")])
            .unwrap();
        let t2 = commit(&storage, &[(2, t1, b"TWO")]).unwrap();

        let mut txn = Staged::new(meta("", ""), None, b' ', memory_max);
        for (oid, data) in [(1, &b"first"[..]), (2, b"second"), (3, b"third")] {
            txn.store(Oid(oid), t1, data).unwrap();
        }
        let voted = storage.vote(txn, TidAt::Finish).unwrap();
        assert_eq!(voted.resolved(), [Oid(2)]);
        storage.abort(voted);

        let mut txn = Staged::new(meta("", ""), None, b' ', memory_max);
        for (oid, data) in [(1, &b"first"[..]), (2, b"second"), (3, b"third")] {
            txn.store(Oid(oid), t1, data).unwrap();
        }
        let t3 = commit_staged(&storage, txn).unwrap();
        let check = |storage: &dyn Storage| {
            assert_eq!(load(storage, 1).unwrap(), (b"first".to_vec(), t3));
            assert_eq!(load(storage, 2).unwrap(), (b"two+TWO+second".to_vec(), t3));
            assert_eq!(load(storage, 3).unwrap(), (b"third".to_vec(), t3));
            assert_eq!(load_before(storage, 2, t3).unwrap(), Some((b"TWO".to_vec(), t2, Some(t3))));
        };
        check(&storage);
        assert_eq!(*joins.0.lock().unwrap(), [(2, t1, t2); 2]);
        storage.close().unwrap();
        std::fs::remove_file(dir.path().join("Data.fs.index")).unwrap();
        check(&open(&path));
    }
}

#[test]
fn what_is_not_merged_is_a_conflict() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&dir.path().join("Data.fs"));
    let joins = Arc::new(Joins::default());
    storage.set_resolver(joins.clone());
    let t1 = commit(&storage, &[(1, Tid::ZERO, b"one"), (2, Tid::ZERO, b"two")]).unwrap();
    let t2 = commit(&storage, &[(1, t1, b"ONE")]).unwrap();
    let conflict = |result: runzeo::storage::Result<Tid>| match result {
        Err(StorageError::Conflict(conflict)) => *conflict,
        other => panic!("{other:?}"),
    };
    let facts = conflict(commit(&storage, &[(1, t1, b"refuse")]));
    assert_eq!((facts.oid, facts.committed, facts.read, facts.data), (Oid(1), t2, t1, b"refuse".to_vec()));
    assert_eq!(joins.0.lock().unwrap().len(), 1);

    // A state that is gone, as after a pack: the resolver is not called.
    conflict(commit(&storage, &[(1, Tid(t1.0 - 1), b"new")]));
    let mut deletion = staged();
    deletion.delete(Oid(2), t1).unwrap();
    let t3 = commit_staged(&storage, deletion).unwrap();
    let facts = conflict(commit(&storage, &[(2, t1, b"new")]));
    assert_eq!((facts.committed, facts.read), (t3, t1));
    // Deletions are not merged.
    let mut deletion = staged();
    deletion.delete(Oid(1), t1).unwrap();
    conflict(commit_staged(&storage, deletion));
    assert_eq!(joins.0.lock().unwrap().len(), 1);
    assert_eq!(load(&storage, 1).unwrap(), (b"ONE".to_vec(), t2));
}

#[test]
fn a_client_that_merges_is_told_all_conflicts_and_votes_again() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&dir.path().join("Data.fs"));
    let joins = Arc::new(Joins::default());
    storage.set_resolver(joins.clone());
    let t1 = commit(&storage, &[(1, Tid::ZERO, b"1"), (2, Tid::ZERO, b"2"), (3, Tid::ZERO, b"3")]).unwrap();
    let t2 = commit(&storage, &[(1, t1, b"1a"), (3, t1, b"3a")]).unwrap();
    let mut txn = staged();
    txn.set_merging(Merging::ByClient);
    for (oid, data) in [(1, &b"one"[..]), (2, b"two"), (3, b"three")] {
        txn.store(Oid(oid), t1, data).unwrap();
    }
    let (conflicts, mut txn) = match storage.vote(txn, TidAt::Finish).map(|_| ()) {
        Err(NotVoted::Unmerged { conflicts, staged }) => (conflicts, *staged),
        other => panic!("{other:?}"),
    };
    let facts: Vec<_> = conflicts.iter().map(|c| (c.oid.0, c.committed, c.read, c.data.as_slice())).collect();
    assert_eq!(facts, [(1, t2, t1, &b"one"[..]), (3, t2, t1, b"three")]);

    // In between one of them changes again.
    let t3 = commit(&storage, &[(3, t2, b"3b")]).unwrap();
    txn.store(Oid(1), t2, b"one merged").unwrap();
    txn.store(Oid(3), t2, b"three merged").unwrap();
    let (conflicts, mut txn) = match storage.vote(txn, TidAt::Finish).map(|_| ()) {
        Err(NotVoted::Unmerged { conflicts, staged }) => (conflicts, *staged),
        other => panic!("{other:?}"),
    };
    let facts: Vec<_> = conflicts.iter().map(|c| (c.oid.0, c.committed, c.read, c.data.as_slice())).collect();
    assert_eq!(facts, [(3, t3, t2, &b"three merged"[..])]);

    txn.store(Oid(3), t3, b"three merged twice").unwrap();
    let t4 = commit_staged(&storage, txn).unwrap();
    assert_eq!(load(&storage, 1).unwrap(), (b"one merged".to_vec(), t4));
    assert_eq!(load(&storage, 2).unwrap(), (b"two".to_vec(), t4));
    assert_eq!(load(&storage, 3).unwrap(), (b"three merged twice".to_vec(), t4));
    // Each object is in the transaction once.
    let mut transactions = storage.iterate(Some(t4), None).unwrap();
    transactions.next_transaction().unwrap().unwrap();
    let mut records = transactions.records().unwrap();
    let mut oids = Vec::new();
    while let Some(record) = records.next_record().unwrap() {
        oids.push(record.oid.0);
    }
    assert_eq!(oids, [2, 1, 3]);
    assert!(joins.0.lock().unwrap().is_empty());
}
