//! Objects that become reachable again are not packed away.
//!
//! During a pack (to now) the deletion of an object was undone: undo and pack succeeded, the root referred to the
//! object, and the object was gone. Reachability was computed once, as of the beginning of the pack; the undo's record
//! was copied, the objects that it referred to were not. The same happened with an undo that had voted before the pack
//! replaced the file and was finished after it, with restored records, and with a client's new reference to an object
//! that it had read earlier. Two objects that one undo restored, one reachable through the other, were lost even with a
//! later pack. Now everything after the pack time is searched for references: the transactions that come during a pack
//! as they are copied, and the voted ones before the switch.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::storage::*;
use runzeo::ids::{Oid, Tid};
use runzeo::internal::pickle::refs::references;
use runzeo::storage::file::FileStorage;
use runzeo::storage::prelude::*;
use runzeo::storage::{PackProgress, PackRequest, Removals, Result, Staged, StorageError, TidAt};
use runzeo::storage::{Resolver, ThreeStates, Unresolved};

/// Does something once, when the pack leaves out the first record: then the search is done, and the copy is not.
struct WhileCopying<'a>(Mutex<Option<Box<dyn FnOnce() + Send + 'a>>>);

impl<'a> WhileCopying<'a> {
    fn new(work: impl FnOnce() + Send + 'a) -> WhileCopying<'a> {
        WhileCopying(Mutex::new(Some(Box::new(work))))
    }
}

impl Removals for WhileCopying<'_> {
    fn left_out(&self, _: Oid, _: Option<Tid>, _: &[u8]) -> Result<()> {
        if let Some(work) = self.0.lock().unwrap().take() {
            work();
        }
        Ok(())
    }

    fn packed(&self) -> Result<()> {
        Ok(())
    }
}

fn pack(storage: &FileStorage, time: f64, removals: Option<&dyn Removals>) -> Result<()> {
    let progress = PackProgress::default();
    storage.pack(&PackRequest { time, gc: None, references: &references, progress: &progress, removals })
}

fn now() -> f64 {
    Tid::now().to_unix() + 1.0
}

fn undoing(tid: Tid) -> Staged {
    let mut txn = staged();
    txn.undo(tid);
    txn
}

/// root -> 1 -> 2, then the reference to 1 is removed. Returns the tids.
fn linked_and_cut(storage: &FileStorage) -> [Tid; 2] {
    let linked = commit(
        storage,
        &[
            (0, Tid::ZERO, &referring_to(&[1])),
            (1, Tid::ZERO, &referring_to(&[2])),
            (2, Tid::ZERO, &referring_to(&[])),
        ],
    )
    .unwrap();
    [linked, commit(storage, &[(0, linked, &referring_to(&[]))]).unwrap()]
}

fn check_all_there(path: &Path, storage: FileStorage) {
    let check = |storage: &FileStorage| {
        assert_eq!(load(storage, 0).unwrap().0, referring_to(&[1]));
        assert_eq!(load(storage, 1).unwrap().0, referring_to(&[2]));
        assert_eq!(load(storage, 2).unwrap().0, referring_to(&[]));
    };
    check(&storage);
    storage.close().unwrap();
    std::fs::remove_file(path.with_extension("fs.index")).unwrap();
    check(&open(path));
}

#[test]
fn an_undo_during_a_pack() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let storage = open(&path);
    let [_, cut] = linked_and_cut(&storage);
    let undo = WhileCopying::new(|| _ = commit_staged(&storage, undoing(cut)).unwrap());
    pack(&storage, now(), Some(&undo)).unwrap();
    assert!(undo.0.lock().unwrap().is_none(), "it was undone during the pack");
    drop(undo);
    check_all_there(&path, storage);
}

#[test]
fn an_undo_that_has_voted_before_the_pack() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let storage = open(&path);
    let [_, cut] = linked_and_cut(&storage);
    let voted = storage.vote(undoing(cut), TidAt::Finish).unwrap();
    pack(&storage, now(), None).unwrap();
    let (answer, from) = std::sync::mpsc::channel::<Outcome>();
    storage.finish(voted, Box::new(answer));
    assert!(matches!(from.recv().unwrap(), Outcome::Done { .. }));
    check_all_there(&path, storage);
}

#[test]
fn an_undo_that_votes_during_the_pack_and_is_finished_later() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let storage = open(&path);
    let [_, cut] = linked_and_cut(&storage);
    let voted = Mutex::new(None);
    let vote = || {
        let txn = storage.vote(undoing(cut), TidAt::Finish).unwrap();
        *voted.lock().unwrap() = Some(txn);
    };
    pack(&storage, now(), Some(&WhileCopying::new(vote))).unwrap();
    // Another pack, which starts from another file.
    commit(&storage, &[(5, Tid::ZERO, &referring_to(&[]))]).unwrap();
    pack(&storage, now(), None).unwrap();
    let (answer, from) = std::sync::mpsc::channel::<Outcome>();
    storage.finish(voted.into_inner().unwrap().unwrap(), Box::new(answer));
    assert!(matches!(from.recv().unwrap(), Outcome::Done { .. }));
    check_all_there(&path, storage);
}

#[test]
fn a_vote_that_was_given_up_holds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&dir.path().join("Data.fs"));
    let [_, cut] = linked_and_cut(&storage);
    storage.abort(storage.vote(undoing(cut), TidAt::Finish).unwrap());
    pack(&storage, now(), None).unwrap();
    assert!(matches!(load(&storage, 1), Err(StorageError::PosKey(_))));
}

#[test]
fn a_restored_record_during_a_pack() {
    for hint in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("Data.fs");
        let storage = open(&path);
        let [linked, _] = linked_and_cut(&storage);
        let restore = || {
            let tid = Tid(Tid::now().0 + (1 << 34));
            let mut txn = Staged::new(meta("", ""), Some(tid), b' ', 1 << 20);
            txn.restore(Oid(0), tid, Some(&referring_to(&[1])), hint.then_some(linked)).unwrap();
            commit_staged(&storage, txn).unwrap();
        };
        pack(&storage, now(), Some(&WhileCopying::new(restore))).unwrap();
        check_all_there(&path, storage);
    }
}

#[test]
fn a_reference_that_is_stored_during_a_pack() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let storage = open(&path);
    let [_, cut] = linked_and_cut(&storage);
    let link = || _ = commit(&storage, &[(0, cut, &referring_to(&[1]))]).unwrap();
    pack(&storage, now(), Some(&WhileCopying::new(link))).unwrap();
    check_all_there(&path, storage);
}

/// A vote that is under way when the pack is about to end, and whose back-pointers are still unknown: it merges the
/// states of another object, which takes time. The pack waits for it.
#[test]
fn an_undo_that_still_votes_when_the_pack_is_through() {
    struct Slow(std::sync::mpsc::Sender<()>, Mutex<std::sync::mpsc::Receiver<()>>);
    impl Resolver for Slow {
        fn resolve(&self, states: &ThreeStates<'_>) -> std::result::Result<Vec<u8>, Unresolved> {
            self.0.send(()).unwrap();
            self.1.lock().unwrap().recv().unwrap();
            Ok(states.committed.to_vec())
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let storage = open(&path);
    let (asked, is_asked) = std::sync::mpsc::channel();
    let (go_on, waits) = std::sync::mpsc::channel();
    storage.set_resolver(std::sync::Arc::new(Slow(asked, Mutex::new(waits))));
    let [first, second, third] = [&[5][..], &[5, 5], &[5, 5, 5]].map(referring_to);
    let linked = commit(
        &storage,
        &[
            (0, Tid::ZERO, &referring_to(&[1, 5])),
            (1, Tid::ZERO, &referring_to(&[2])),
            (2, Tid::ZERO, &referring_to(&[])),
            (5, Tid::ZERO, &first),
        ],
    )
    .unwrap();
    let cut = commit(&storage, &[(0, linked, &referring_to(&[5])), (5, linked, &second)]).unwrap();
    commit(&storage, &[(5, cut, &third)]).unwrap();
    std::thread::scope(|scope| {
        let (storage, path) = (&storage, &path);
        let vote = scope.spawn(|| storage.vote(undoing(cut), TidAt::Finish).unwrap());
        is_asked.recv().unwrap();
        let packing = scope.spawn(|| pack(storage, now(), None));
        // Everything is copied, but the new file does not take the name.
        while !path.with_extension("fs.pack").exists() {
            assert!(!packing.is_finished());
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(!packing.is_finished() && path.with_extension("fs.pack").exists());
        go_on.send(()).unwrap();
        let voted = vote.join().unwrap();
        packing.join().unwrap().unwrap();
        let (answer, from) = std::sync::mpsc::channel::<Outcome>();
        storage.finish(voted, Box::new(answer));
        assert!(matches!(from.recv().unwrap(), Outcome::Done { .. }));
    });
    assert_eq!(load(&storage, 0).unwrap().0, referring_to(&[1, 5]));
    assert_eq!(load(&storage, 1).unwrap().0, referring_to(&[2]));
    assert_eq!(load(&storage, 2).unwrap().0, referring_to(&[]));
}

/// Before the pack begins, and after the pack time: the object is kept in its state of then, for readers of the time
/// between.
#[test]
fn a_reference_that_was_stored_after_the_pack_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let storage = open(&path);
    let [linked, cut] = linked_and_cut(&storage);
    std::thread::sleep(std::time::Duration::from_millis(2));
    let time = Tid::now().to_unix();
    std::thread::sleep(std::time::Duration::from_millis(2));
    let again = commit(&storage, &[(0, cut, &referring_to(&[1]))]).unwrap();
    let changed = commit(&storage, &[(1, linked, &referring_to(&[2, 2]))]).unwrap();
    pack(&storage, time, None).unwrap();
    assert_eq!(load(&storage, 1).unwrap(), (referring_to(&[2, 2]), changed));
    assert_eq!(load_before(&storage, 1, Tid(again.0 + 1)).unwrap().unwrap().0, referring_to(&[2]));
    assert_eq!(load(&storage, 2).unwrap().0, referring_to(&[]));
}

/// root -> 1 -> 2; one transaction cuts both links, and is undone after the pack time.
#[test]
fn two_objects_that_one_undo_restored() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let storage = open(&path);
    let [linked, cut] = linked_and_cut(&storage);
    let back = commit_staged(&storage, undoing(cut)).unwrap();
    let cut_both =
        commit(&storage, &[(0, back, &referring_to(&[])), (1, linked, &referring_to(&[]))]).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(2));
    let time = Tid::now().to_unix();
    std::thread::sleep(std::time::Duration::from_millis(2));
    commit_staged(&storage, undoing(cut_both)).unwrap();
    pack(&storage, time, None).unwrap();
    check_all_there(&path, storage);
}

/// A client that undoes and deletes repeatedly cannot keep a pack from ending: the pack fails, and removes nothing.
#[test]
fn undoes_without_end() {
    struct EachTime<'a>(&'a FileStorage, AtomicUsize, Mutex<Tid>);
    impl Removals for EachTime<'_> {
        fn left_out(&self, oid: Oid, _: Option<Tid>, _: &[u8]) -> Result<()> {
            // A new object is linked and cut each time, so that the next attempt finds garbage too.
            if oid == Oid(1) || oid.0 >= 100 {
                let n = 100 + self.1.fetch_add(1, Ordering::Relaxed) as u64;
                let mut root = self.2.lock().unwrap();
                for refers_to in [vec![oid.0, n], vec![]] {
                    let data = referring_to(&refers_to);
                    let mut objects = vec![(0, *root, &data[..])];
                    let new = referring_to(&[]);
                    if !refers_to.is_empty() {
                        objects.push((n, Tid::ZERO, &new));
                    }
                    *root = commit(self.0, &objects).unwrap();
                }
            }
            Ok(())
        }

        fn packed(&self) -> Result<()> {
            Ok(())
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let storage = open(&path);
    let [_, cut] = linked_and_cut(&storage);
    let each_time = EachTime(&storage, AtomicUsize::new(0), Mutex::new(cut));
    let failed = (0..10).find_map(|_| {
        // To a pack time before the links.
        pack(&storage, now() + 1000.0, Some(&each_time)).err()
    });
    let Some(StorageError::Refused { message, .. }) = failed else { panic!("{failed:?}") };
    assert!(message.contains("The database is unchanged"), "{message}");
    assert!(load(&storage, 1).is_ok() && load(&storage, 2).is_ok());
    assert!(!path.with_extension("fs.pack").exists());
}
