//! Rewinds: published transactions are taken back while the file is served.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::support::dice::Dice;
use crate::support::faulty::{Fault, Faulty};
use crate::support::pythons::python;
use crate::support::storage::{
    commit, commit_staged, finish_voted, load, load_before, open, open_with, staged,
};
use runzeo::ids::{Oid, Tid};
use runzeo::internal::storage::media::Media;
use runzeo::storage::file::{FileStorage, FileStorageOptions};
use runzeo::storage::prelude::*;
use runzeo::storage::{
    Cut, PackProgress, PackRequest, Refusal, Result, Staged, StorageError, TidAt, TransactionIterator,
};

const BLOB_RECORD: &[u8] = b"\x80\x03cZODB.blob\nBlob\nq\x00.\x80\x03N.";

/// The transactions, with the data of their records.
type Listed = Vec<Txn>;
type Txn = (Tid, Vec<(Oid, Option<Vec<u8>>)>);

/// Objects with their data and serial, if they have any.
type Objects = Vec<(u64, Option<(Vec<u8>, Tid)>)>;

fn listed_by(mut transactions: Box<dyn TransactionIterator>) -> Result<Listed> {
    let mut listed = Vec::new();
    while let Some(txn) = transactions.next_transaction()? {
        let (mut records, mut found) = (transactions.records()?, Vec::new());
        while let Some(record) = records.next_record()? {
            found.push((record.oid, record.data));
        }
        listed.push((txn.tid, found));
    }
    Ok(listed)
}

fn listed(storage: &FileStorage) -> Listed {
    listed_by(storage.iterate(None, None).unwrap()).unwrap()
}

fn rewind(storage: &FileStorage, to: Tid) -> Result<Option<Cut>> {
    storage.replicable().unwrap().rewind(to)
}

fn data_fs(dir: &Path) -> PathBuf {
    dir.join("Data.fs")
}

fn with_blobs(dir: &Path) -> FileStorageOptions {
    FileStorageOptions { blob_dir: Some(dir.join("blobs")), ..FileStorageOptions::new(data_fs(dir)) }
}

/// All that clients see of the objects up to 40.
fn objects(storage: &FileStorage) -> Objects {
    (0..40)
        .map(|oid| match load(storage, oid) {
            Ok(found) => (oid, Some(found)),
            Err(StorageError::PosKey(_)) => (oid, None),
            Err(error) => panic!("{oid}: {error}"),
        })
        .collect()
}

/// The last transaction of an object, also of one that is gone.
fn serial(storage: &FileStorage, oid: u64) -> Tid {
    let of_object =
        |(tid, records): &Txn| records.iter().any(|(found, _)| *found == Oid(oid)).then_some(*tid);
    listed(storage).iter().rev().find_map(of_object).unwrap_or(Tid::ZERO)
}

fn add_blob(storage: &FileStorage, txn: &mut Staged, oid: u64, data: &[u8]) {
    let mut upload = storage.blobs().unwrap().dir().unwrap().begin().unwrap();
    upload.write(data).unwrap();
    let blob = upload.end(Oid(oid)).unwrap();
    txn.store_blob(Oid(oid), serial(storage, oid), BLOB_RECORD, blob).unwrap();
}

/// One more transaction of the kind that `number` says: new objects, changes, a deletion, an undo.
fn commit_one(storage: &FileStorage, number: u64) -> Tid {
    let mut txn = staged();
    let data = [&number.to_be_bytes()[..], &vec![number as u8; 50 + 7 * number as usize]].concat();
    match number % 5 {
        3 => {
            let last = storage.last_transaction();
            txn.undo(last);
        }
        4 => {
            let oid = number % 7;
            if load(storage, oid).is_ok() {
                txn.delete(Oid(oid), serial(storage, oid)).unwrap();
            } else {
                txn.store(Oid(oid), serial(storage, oid), &data).unwrap();
            }
        }
        _ => {
            for oid in [number % 7, 10 + number % 30] {
                txn.store(Oid(oid), serial(storage, oid), &data).unwrap();
            }
        }
    }
    if storage.blobs().is_some() && number % 5 == 2 {
        add_blob(storage, &mut txn, 9, &data);
    }
    commit_staged(storage, txn).unwrap()
}

/// The file has this content, however it is looked at, now and after a restart, without a marker.
fn check(storage: FileStorage, options: impl Fn() -> FileStorageOptions, expected: &Listed, states: &State) {
    assert_eq!(&State::of(&storage), states);
    assert_eq!(&listed(&storage), expected);
    let last = expected.last().map_or(Tid::ZERO, |(tid, _)| *tid);
    assert_eq!(storage.last_transaction(), last);
    storage.close().unwrap();
    drop(storage);
    let again = open_with(options()).unwrap();
    assert!(again.used_index() || expected.is_empty());
    assert_eq!((&listed(&again), &State::of(&again)), (expected, states));
    again.close().unwrap();
    drop(again);
    std::fs::remove_file(options().path.with_extension("fs.index")).unwrap();
    let scanned = open_with(options()).unwrap();
    assert!(!scanned.used_index());
    assert_eq!((&listed(&scanned), &State::of(&scanned)), (expected, states));
}

/// What clients see.
#[derive(Debug, PartialEq)]
struct State {
    objects: Objects,
    count: u64,
    size: u64,
    blobs: Vec<Tid>,
}

impl State {
    fn of(storage: &FileStorage) -> State {
        let dir = storage.blobs().and_then(|blobs| blobs.dir());
        State {
            objects: objects(storage),
            count: storage.object_count(),
            size: storage.size(),
            blobs: dir.map_or(Vec::new(), |dir| {
                let mut found = dir.revisions(Oid(9));
                found.sort_unstable();
                found
            }),
        }
    }
}

const COUNT: u64 = 21;

#[test]
fn what_is_taken_back_is_kept_and_gone() {
    for back in [1, 2, 3, 5, 8, 20, 21] {
        let dir = tempfile::tempdir().unwrap();
        let options = || with_blobs(dir.path());
        let storage = open_with(options()).unwrap();
        let (mut states, mut tids) = (vec![State::of(&storage)], vec![Tid::ZERO]);
        for number in 0..COUNT {
            tids.push(commit_one(&storage, number));
            states.push(State::of(&storage));
        }
        let all = listed(&storage);
        let left = (COUNT - back) as usize;
        let cut = rewind(&storage, tids[left]).unwrap().unwrap();
        let (first, last) = (tids[left + 1], tids[COUNT as usize]);
        assert_eq!((cut.transactions, cut.first, cut.last), (back, first, last));
        let kept_path = dir.path().join(format!("Data.fs.lost-{first}"));
        assert_eq!(cut.kept, Some(kept_path.clone()));
        check(storage, options, &all[..left].to_vec(), &states[left]);

        // What is kept has all data, also what back-pointers before the cut have led to.
        let kept_blobs = dir.path().join(format!("blobs.lost-{first}"));
        let kept = open_with(FileStorageOptions {
            blob_dir: Some(kept_blobs.clone()),
            ..FileStorageOptions::new(&kept_path)
        })
        .unwrap();
        assert_eq!(listed(&kept), all[left..]);
        let (before, after) = (&states[left].blobs, &states[COUNT as usize].blobs);
        let lost: Vec<Tid> = after.iter().filter(|tid| !before.contains(tid)).copied().collect();
        let mut kept_revisions = kept.blobs().unwrap().dir().unwrap().revisions(Oid(9));
        kept_revisions.sort_unstable();
        assert_eq!(kept_revisions, lost);
        for tid in lost {
            let blob = kept.blobs().unwrap().load_blob(Oid(9), tid).unwrap();
            assert!(blob.len > 0);
        }
        kept.close().unwrap();
        assert!(kept_blobs.exists());
    }
}

#[test]
fn commits_undos_packs_and_further_rewinds_go_on_from_there() {
    let dir = tempfile::tempdir().unwrap();
    let options = || with_blobs(dir.path());
    let storage = open_with(options()).unwrap();
    let mut tids: Vec<Tid> = (0..9).map(|number| commit_one(&storage, number)).collect();
    assert_eq!(rewind(&storage, tids[8]).unwrap(), None);
    rewind(&storage, tids[4]).unwrap().unwrap();
    tids.truncate(5);
    for number in 20..25 {
        tids.push(commit_one(&storage, number));
    }
    // The same number of transactions with other contents, and the places of the old ones are not used.
    let expected = listed(&storage);
    assert_eq!(expected.iter().map(|(tid, _)| *tid).collect::<Vec<_>>(), tids);
    let mut undoable = Vec::new();
    storage
        .undo()
        .unwrap()
        .undo_log(&mut |entry| {
            undoable.push(entry.tid);
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    undoable.reverse();
    assert_eq!(undoable, tids);
    let keep_all = |_: &[u8], _: &mut Vec<Oid>| Ok(());
    let request = PackRequest {
        time: tids[6].to_unix() + 1e-5,
        gc: Some(false),
        references: &keep_all,
        progress: &PackProgress::default(),
        removals: None,
    };
    let before = objects(&storage);
    storage.pack(&request).unwrap();
    assert_eq!(objects(&storage), before);
    // Across a pack: the last transactions are still there.
    rewind(&storage, tids[7]).unwrap().unwrap();
    tids.truncate(8);
    assert_eq!(storage.last_transaction(), tids[7]);
    tids.push(commit_one(&storage, 30));
    let (expected, state) = (listed(&storage), State::of(&storage));
    check(storage, options, &expected, &state);
}

#[test]
fn what_is_not_in_the_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&data_fs(dir.path()));
    assert_eq!(rewind(&storage, Tid::ZERO).unwrap(), None);
    let tids: Vec<Tid> = (0..3).map(|number| commit_one(&storage, number)).collect();
    for wrong in [Tid(1), Tid(tids[0].0 + 1), Tid(tids[2].0 + 1), Tid::MAX] {
        assert!(matches!(rewind(&storage, wrong), Err(StorageError::Transaction(_))), "{wrong}");
    }
    assert_eq!(listed(&storage).len(), 3);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().filter(is_lost).count(), 0);
}

fn is_lost(entry: &std::io::Result<std::fs::DirEntry>) -> bool {
    entry.as_ref().unwrap().file_name().to_string_lossy().contains(".lost-")
}

#[test]
fn names_that_are_taken_are_left() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&data_fs(dir.path()));
    let first = commit_one(&storage, 0);
    for number in 0..3 {
        let name = format!("Data.fs.lost-{first}{}", ["", ".1", ".2"][number]);
        let path = dir.path().join(name);
        if number < 2 {
            std::fs::write(&path, b"another").unwrap();
        } else {
            assert_eq!(rewind(&storage, Tid::ZERO).unwrap().unwrap().kept, Some(path));
        }
    }
}

/// Markers, for one: there is nothing to keep.
#[test]
fn transactions_without_records_are_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&data_fs(dir.path()));
    let first = commit_one(&storage, 0);
    for _ in 0..2 {
        commit_staged(&storage, staged()).unwrap();
    }
    let cut = rewind(&storage, first).unwrap().unwrap();
    assert_eq!((cut.kept, cut.transactions, storage.last_transaction()), (None, 2, first));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().filter(is_lost).count(), 0);
}

/// What began before the rewind does not go on with what is not there.
#[test]
fn iterators_votes_and_tids_of_before() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&data_fs(dir.path()));
    let tids: Vec<Tid> = (0..6).map(|number| commit_one(&storage, number)).collect();
    let mut transactions = storage.iterate(None, None).unwrap();
    transactions.next_transaction().unwrap().unwrap();
    let mut records = transactions.records().unwrap();
    let mut txn = staged();
    txn.store(Oid(1), serial(&storage, 1), b"voted before").unwrap();
    let voted = storage.vote(txn, TidAt::Finish).unwrap();
    rewind(&storage, tids[2]).unwrap().unwrap();
    for ended in [records.next_record().map(|_| ()), transactions.next_transaction().map(|_| ())] {
        assert!(
            matches!(ended, Err(StorageError::Refused { what: Refusal::IterationEnded, .. })),
            "{ended:?}"
        );
    }
    let outcome = finish_voted(&storage, voted).recv().unwrap();
    assert!(format!("{outcome:?}").contains("taken back after its vote"), "{outcome:?}");
    assert_eq!(storage.last_transaction(), tids[2]);
    // Later than all that was seen, but a copy may bring an earlier one.
    let mut copied = Staged::new(Default::default(), Some(Tid(tids[2].0 + 1)), b' ', 1000);
    copied.restore(Oid(1), Tid(tids[2].0 + 1), Some(b"copied"), None).unwrap();
    commit_staged(&storage, copied).unwrap();
    assert!(commit_one(&storage, 7) > tids[5]);
    assert_eq!(load_before(&storage, 1, Tid(tids[2].0 + 2)).unwrap().unwrap().0, b"copied");
}

#[test]
fn python_reads_what_is_kept_and_what_is_left() {
    let Some(python) = python("zeo6-py311") else { return };
    let dir = tempfile::tempdir().unwrap();
    let storage = open_with(with_blobs(dir.path())).unwrap();
    let tids: Vec<Tid> = (0..12).map(|number| commit_one(&storage, number)).collect();
    let cut = rewind(&storage, tids[6]).unwrap().unwrap();
    storage.close().unwrap();
    let script = "import sys\nfrom ZODB.FileStorage import FileStorage\n\
                  s = FileStorage(sys.argv[1], blob_dir=sys.argv[2])\n\
                  for t in s.iterator():\n    list(t)\n    print(t.tid.hex())\n\
                  s.close()\n";
    for (path, blobs, expected) in [
        (data_fs(dir.path()), dir.path().join("blobs"), &tids[..7]),
        (cut.kept.clone().unwrap(), dir.path().join(format!("blobs.lost-{}", cut.first)), &tids[7..]),
    ] {
        let output =
            std::process::Command::new(&python).args(["-c", script]).args([path, blobs]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let expected: String = expected.iter().map(|tid| format!("{tid}\n")).collect();
        assert_eq!(said, expected, "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// A fault at every call of the disk, and a power cut: afterwards the file is whole, and as before or cut off.
#[test]
fn a_fault_or_a_power_cut_at_every_call() {
    let mut outcomes = [0; 2];
    for n in 1.. {
        let mut fired = false;
        for (fault, seed) in
            [(Fault::Error, 0), (Fault::PowerCut, 1), (Fault::PowerCut, 2), (Fault::PowerCut, 3)]
        {
            let dir = tempfile::tempdir().unwrap();
            let media = Faulty::new(n * 7 + seed, None);
            let blob_dir = (n % 2 == 0).then(|| dir.path().join("blobs"));
            let options = |media: &Faulty| FileStorageOptions {
                media: Arc::new(media.clone()),
                blob_dir: blob_dir.clone(),
                ..FileStorageOptions::new(data_fs(dir.path()))
            };
            let storage = open_with(options(&media)).unwrap();
            let tids: Vec<Tid> = (0..9).map(|number| commit_one(&storage, number)).collect();
            let all = listed(&storage);
            media.fail_at(n, fault);
            let done = rewind(&storage, tids[3]);
            fired |= media.fired();
            if !media.fired() {
                media.fail_at(1 << 40, fault);
            }
            let what = format!("{n}, {fault:?}, {seed}: {done:?}");
            if storage.failure().is_none() && fault == Fault::Error {
                // It goes on with one of the two.
                let now = listed(&storage);
                assert_eq!(now.len(), if done.is_ok() { 4 } else { 9 }, "{what}");
                commit_one(&storage, 10);
            }
            _ = storage.close();
            drop(storage);
            let media = if fault == Fault::PowerCut { media.after_power_cut() } else { media.after_kill() };
            let storage = open_with(options(&media)).unwrap_or_else(|error| panic!("{what}: {error}"));
            let mut found = listed(&storage);
            check_kept(&storage, &media, dir.path(), &all[4..], found.len() > 8, &what);
            // A marker, or the commit above.
            found.truncate(if found.len() > 8 { 9 } else { 4 });
            assert!(found == all || found == all[..4], "{what}: {}", found.len());
            outcomes[usize::from(found.len() == 4)] += 1;
            assert!(done.is_err() || found.len() == 4, "{what}");
            commit_one(&storage, 11);
            let before = listed(&storage);
            storage.close().unwrap();
            drop(storage);
            assert_eq!(listed(&open_with(options(&media)).unwrap()), before, "{what}");
        }
        if !fired {
            assert!(n > 30, "the rewind makes calls");
            break;
        }
    }
    assert!(outcomes[0] > 10 && outcomes[1] > 5, "{outcomes:?}");
}

/// What was taken back is kept, whole and once, and no blob of it is left. What was not is not kept.
fn check_kept(storage: &FileStorage, media: &Faulty, dir: &Path, lost: &[Txn], is_whole: bool, what: &str) {
    let media: Arc<dyn Media> = Arc::new(media.clone());
    let mut names = media.dir(dir).unwrap().list().unwrap();
    names.retain(|name| name.to_string_lossy().contains(".lost-"));
    if is_whole {
        assert!(names.is_empty(), "{what}: {names:?}");
        return;
    }
    let first = lost[0].0;
    let (path, blobs) = (dir.join(format!("Data.fs.lost-{first}")), dir.join(format!("blobs.lost-{first}")));
    assert!(names.iter().all(|name| [&path, &blobs].contains(&&dir.join(name))), "{what}: {names:?}");
    let has_blobs = storage.blobs().is_some_and(|blobs| blobs.dir().is_some());
    let options = FileStorageOptions {
        read_only: true,
        media,
        blob_dir: has_blobs.then_some(blobs),
        ..FileStorageOptions::new(&path)
    };
    let kept = open_with(options).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(listed(&kept), lost, "{what}");
    if has_blobs {
        let revisions = |storage: &FileStorage| storage.blobs().unwrap().dir().unwrap().revisions(Oid(9));
        assert!(!revisions(&kept).is_empty(), "{what}");
        assert!(revisions(storage).iter().all(|tid| *tid < first), "{what}: {:?}", revisions(storage));
    }
}

/// Commits, rewinds and restarts in any order, against a list.
#[test]
fn as_a_list() {
    for seed in 0..6 {
        let mut dice = Dice::new(seed, 3);
        let dir = tempfile::tempdir().unwrap();
        let options = || with_blobs(dir.path());
        let mut storage = open_with(options()).unwrap();
        let mut model: Vec<(Tid, State)> = vec![(Tid::ZERO, State::of(&storage))];
        for step in 0..60 {
            match dice.below(8) {
                0 => {
                    let left = model.len() - 1 - dice.below(model.len().min(5) as u64) as usize;
                    let done = rewind(&storage, model[left].0).unwrap();
                    assert_eq!(done.is_some(), left + 1 < model.len());
                    model.truncate(left + 1);
                }
                1 => {
                    storage.close().unwrap();
                    drop(storage);
                    storage = open_with(options()).unwrap();
                }
                _ => {
                    let number = if storage.last_transaction() == Tid::ZERO { 0 } else { dice.below(50) };
                    let tid = commit_one(&storage, number);
                    model.push((tid, State::of(&storage)));
                }
            }
            let (last, state) = model.last().unwrap();
            assert_eq!(storage.last_transaction(), *last, "{seed}, {step}");
            assert_eq!(&State::of(&storage), state, "{seed}, {step}");
            let tids: Vec<Tid> = listed(&storage).iter().map(|(tid, _)| *tid).collect();
            assert_eq!(tids, model[1..].iter().map(|(tid, _)| *tid).collect::<Vec<_>>(), "{seed}, {step}");
        }
    }
}

/// A copied transaction whose data is its tid, again and again.
fn copy_of_tid(storage: &FileStorage, tid: Tid) {
    let mut txn = Staged::new(Default::default(), Some(tid), b' ', 1 << 20);
    for oid in 0..1 + tid.0 % 3 {
        // Of different lengths, so that other transactions begin at other places.
        let data = tid.0.to_be_bytes().repeat(10 + (tid.0 % 700) as usize);
        txn.restore(Oid(oid), tid, Some(&data), None).unwrap();
    }
    let mut bulk = storage.bulk().unwrap().begin().unwrap();
    bulk.add(txn).unwrap();
    bulk.complete().unwrap();
}

/// Iterators that run while transactions are taken back, and others take their places, see no mixture.
#[test]
fn iterators_beside() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&data_fs(dir.path()));
    let is_over = AtomicBool::new(false);
    let (ended, whole) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    // Those of before the rewind that were there already, and later ones.
                    let counter = match storage.iterate(None, None).and_then(listed_by) {
                        Ok(listed) => {
                            for (tid, records) in &listed {
                                let is_own = |data: &[u8]| data.chunks(8).all(|part| part == tid.to_bytes());
                                assert!(
                                    records.iter().all(|(_, data)| is_own(data.as_ref().unwrap())),
                                    "{tid}"
                                );
                            }
                            assert!(listed.is_sorted_by_key(|(tid, _)| *tid));
                            &whole
                        }
                        Err(StorageError::Refused { what: Refusal::IterationEnded, .. }) => &ended,
                        Err(error) => panic!("{error}"),
                    };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let _over = Over(&is_over);
        let mut tids = vec![Tid::ZERO];
        for number in 1..=400 {
            tids.push(Tid((1 << 56) + number * 17));
            copy_of_tid(&storage, tids[tids.len() - 1]);
            if number % 20 == 0 {
                tids.truncate(tids.len() - 11);
                rewind(&storage, tids[tids.len() - 1]).unwrap().unwrap();
            }
        }
        // On a busy machine they may have seen nothing yet.
        while whole.load(Ordering::Relaxed) == 0 {
            std::thread::yield_now();
        }
    });
}

/// The rewind comes between the look at the volume and the read, which then finds what is new there.
#[test]
fn a_read_that_comes_too_late_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let media = Faulty::new(1, None);
    let options =
        FileStorageOptions { media: Arc::new(media.clone()), ..FileStorageOptions::new(data_fs(dir.path())) };
    let storage = Arc::new(open_with(options).unwrap());
    // All are of the same length, and too long for the buffer of the iterator.
    let long = |storage: &FileStorage, fill: u8| {
        commit(storage, &[(1, serial(storage, 1), &[fill; 100_000])]).unwrap();
    };
    (0..6).for_each(|fill| long(&storage, fill));
    let first = storage.iterate(None, None).unwrap().next_transaction().unwrap().unwrap().tid;
    let mut transactions = storage.iterate(None, None).unwrap();
    let at = (0..4).map(|_| transactions.next_transaction().unwrap().unwrap().tid).last();
    let mut records = transactions.records().unwrap();
    let beside = Arc::clone(&storage);
    media.call_before_read(move || {
        rewind(&beside, first).unwrap().unwrap();
        (10..16).for_each(|fill| long(&beside, fill));
    });
    let read = records.next_record();
    let Err(StorageError::Refused { what, .. }) = read else { panic!("{at:?}: {:?}", read.map(drop)) };
    assert_eq!(what, Refusal::IterationEnded);
}

/// Ends the other threads, also after a failure.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_pack_that_runs_refuses_it() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&data_fs(dir.path()));
    let first = commit(&storage, &[(0, Tid::ZERO, b"one")]).unwrap();
    let last = commit(&storage, &[(0, first, b"two")]).unwrap();
    let refused = std::sync::Mutex::new(None);
    let references = |_: &[u8], _: &mut Vec<Oid>| {
        *refused.lock().unwrap() = Some(rewind(&storage, first));
        Ok(())
    };
    let request = PackRequest {
        time: last.to_unix() + 1.0,
        gc: Some(true),
        references: &references,
        progress: &PackProgress::default(),
        removals: None,
    };
    storage.pack(&request).unwrap();
    let refused = refused.into_inner().unwrap().expect("the pack looks at references");
    assert!(matches!(refused, Err(StorageError::Refused { what: Refusal::PackRunning, .. })), "{refused:?}");
}
