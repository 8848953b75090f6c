//! Undo writes the same as Python's FileStorage, byte for byte, and fails where and as Python does.
//!
//! `python-fixtures/undo` has random transactions that Python has undone, with several undos in one, undos of undos, of
//! creations and deletions, merged states, and undos that fail.

mod replay;

use std::ops::ControlFlow;

use crate::support::storage::*;
use replay::{Way, fixtures, replay};
use runzeo::ids::{Oid, Tid};
use runzeo::storage::prelude::*;
use runzeo::storage::{PackProgress, PackRequest, Staged, StorageError, TidAt, UndoEntry};

#[test]
fn undo_writes_what_python_writes() {
    let fixtures = fixtures();
    assert_eq!(fixtures.len(), 2);
    for fixture in &fixtures {
        replay(fixture, Way { preview: false, memory_max: 1 << 20 });
        // Spilled to a temporary file
        replay(fixture, Way { preview: false, memory_max: 10 });
    }
}

#[test]
fn the_outcome_is_known_before_the_vote() {
    for fixture in fixtures() {
        replay(&fixture, Way { preview: true, memory_max: 1 << 20 });
    }
}

fn undo_log(storage: &dyn Storage) -> Vec<UndoEntry> {
    let mut entries = Vec::new();
    let mut add = |entry| {
        entries.push(entry);
        ControlFlow::Continue(())
    };
    storage.require_undo().unwrap().undo_log(&mut add).unwrap();
    entries
}

/// An undo of a transaction far back read all later ones, and so did the next undo.
#[test]
fn transactions_far_back_are_found_whatever_was_looked_up_before() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&dir.path().join("Data.fs"));
    let mut serial = Tid::ZERO;
    let mut tids = Vec::new();
    for n in 0..300u16 {
        serial = commit(&storage, &[(1, serial, &n.to_be_bytes())]).unwrap();
        tids.push(serial);
    }
    for at in [299, 0, 150, 1, 298, 64, 63, 65, 0, 200] {
        assert_eq!(storage.undo_oids(tids[at]).unwrap(), [Oid(1)], "{at}");
        let none = Tid(tids[at].0 + 1);
        assert!(matches!(storage.undo_oids(none), Err(StorageError::Undo { .. })), "{at}");
    }
}

#[test]
fn undo_log_has_what_python_counts() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&dir.path().join("Data.fs"));
    let mut serial = Tid::ZERO;
    let mut tids = Vec::new();
    for n in 0..30u8 {
        let mut staged = Staged::new(meta(&format!("user {}", n % 3), "d"), None, b' ', 1 << 20);
        staged.store(Oid(1), serial, &[n; 9]).unwrap();
        serial = commit_staged(&storage, staged).unwrap();
        tids.push(serial);
    }
    tids.reverse();
    assert_eq!(undo_log(&storage).iter().map(|entry| entry.tid).collect::<Vec<_>>(), tids);
    // It ends when enough entries are found.
    let mut seen = Vec::new();
    storage
        .undo_log(&mut |entry| {
            seen.push(entry.tid);
            if seen.len() < 5 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
        .unwrap();
    assert_eq!(seen, tids[..5]);
    let newest = undo_log(&storage).remove(0);
    assert_eq!((newest.size, newest.meta), (23 + 6 + 1 + 42 + 9, meta("user 2", "d")));
}

#[test]
fn undos_of_different_objects_are_voted_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&dir.path().join("Data.fs"));
    let old = commit(&storage, &[(1, Tid::ZERO, b"one"), (2, Tid::ZERO, b"two")]).unwrap();
    let first = commit(&storage, &[(1, old, b"one changed")]).unwrap();
    let second = commit(&storage, &[(2, old, b"two changed")]).unwrap();
    assert_eq!(storage.undo_oids(first).unwrap(), [Oid(1)]);
    let undo = |tid| {
        let mut staged = staged();
        staged.undo(tid);
        storage.vote(staged, TidAt::Finish).unwrap()
    };
    let (a, b) = (undo(first), undo(second));
    assert_eq!(a.tid(), None);
    let answers: Vec<_> = [b, a]
        .into_iter()
        .map(|voted| {
            let (to, from) = std::sync::mpsc::channel::<Outcome>();
            storage.finish(voted, Box::new(to));
            from.recv().unwrap()
        })
        .collect();
    assert!(matches!(&answers[..], [Outcome::Done { oids: b, .. }, Outcome::Done { oids: a, .. }]
        if *a == [Oid(1)] && *b == [Oid(2)]));
    assert_eq!(load(&storage, 1).unwrap().0, b"one");
    assert_eq!(load(&storage, 2).unwrap().0, b"two");
    assert!(matches!(storage.undo_oids(Tid(5)), Err(StorageError::Undo { .. })));
}

#[test]
fn a_pack_may_come_between_vote_and_finish() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let storage = open(&path);
    let first = commit(&storage, &[(1, Tid::ZERO, b"one"), (2, Tid::ZERO, b"two")]).unwrap();
    let second = commit(&storage, &[(1, first, b"one changed")]).unwrap();
    let third = commit(&storage, &[(2, first, b"two changed")]).unwrap();
    // Results from the old file must not be used for the new one.
    assert_eq!(storage.undo_oids(third).unwrap(), [Oid(2)]);
    let mut undo = staged();
    undo.undo(second);
    let voted = storage.vote(undo, TidAt::Finish).unwrap();
    let progress = PackProgress::default();
    let references = |_: &[u8], _: &mut Vec<Oid>| Ok(());
    let time = third.to_unix() + 0.001;
    let request =
        PackRequest { time, gc: Some(false), references: &references, progress: &progress, removals: None };
    storage.pack(&request).unwrap();
    let (to, from) = std::sync::mpsc::channel::<Outcome>();
    storage.finish(voted, Box::new(to));
    assert!(matches!(from.recv(), Ok(Outcome::Done { .. })));
    // The data for the undo's back-pointer is gone from the file, so the undo wrote it in full.
    assert_eq!(load(&storage, 1).unwrap().0, b"one");
    assert!(matches!(storage.undo_oids(second), Err(StorageError::Undo { .. })));
    assert!(matches!(storage.undo_oids(third), Err(StorageError::Undo { .. })));
    let log = undo_log(&storage);
    assert_eq!(log.len(), 1);
    let mut again = staged();
    again.undo(log[0].tid);
    commit_staged(&storage, again).unwrap();
    storage.close().unwrap();
    std::fs::remove_file(dir.path().join("Data.fs.index")).unwrap();
    let storage = open(&path);
    assert_eq!(load(&storage, 1).unwrap().0, b"one changed");
    assert_eq!(load(&storage, 2).unwrap().0, b"two changed");
}
