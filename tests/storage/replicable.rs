//! What replication needs of a file: the gate between writing and publishing a group. `rewind` tests how groups that
//! were published are taken back.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use crate::support::faulty::{Fault, Faulty};
use crate::support::storage::{Outcome, commit, finish, finish_voted, load, meta, open, open_with, staged};
use runzeo::ids::{Oid, Tid};
use runzeo::storage::file::{FileStorage, FileStorageOptions};
use runzeo::storage::prelude::*;
use runzeo::storage::{GroupGate, Pulse, Refusal, Replicable, Staged, StorageError, TidAt, Withdrawn};

/// What a gate was told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Told {
    Written(Tid),
    Durable(Tid),
    TakenBack(Tid),
}

/// A gate that tells the test everything, and waits in `durable` for the test's word.
struct Gate {
    told: Mutex<Sender<Told>>,
    answers: Mutex<Receiver<Result<(), Withdrawn>>>,
    waiting: Mutex<bool>,
}

/// The test's side of it.
struct Keeper {
    told: Receiver<Told>,
    answers: Sender<Result<(), Withdrawn>>,
}

impl Keeper {
    fn set(storage: &FileStorage) -> Keeper {
        let ((told_to, told), (answers, answered)) = (channel(), channel());
        storage.replicable().unwrap().set_gate(Arc::new(Gate {
            told: Mutex::new(told_to),
            answers: Mutex::new(answered),
            waiting: Mutex::new(false),
        }));
        Keeper { told, answers }
    }

    /// All groups that come are published.
    fn open(&self) {
        (0..1000).for_each(|_| self.answers.send(Ok(())).unwrap());
    }

    fn next(&self) -> Told {
        self.told.recv().unwrap()
    }

    fn all(&self) -> Vec<Told> {
        self.told.try_iter().collect()
    }
}

impl Gate {
    fn tell(&self, told: Told) {
        _ = self.told.lock().unwrap().send(told);
    }
}

impl GroupGate for Gate {
    fn written(&self, last: Tid, _: u64, _: usize) {
        self.tell(Told::Written(last));
    }

    fn durable(&self, last: Tid) -> Result<(), Withdrawn> {
        *self.waiting.lock().unwrap() = true;
        self.tell(Told::Durable(last));
        // The test has ended: the group must not wait for ever.
        let answer = self.answers.lock().unwrap().recv().unwrap_or(Err(Withdrawn));
        *self.waiting.lock().unwrap() = false;
        answer
    }

    fn taken_back(&self, last: Tid) {
        self.tell(Told::TakenBack(last));
    }

    fn is_waiting(&self) -> bool {
        *self.waiting.lock().unwrap()
    }
}

fn replicable(storage: &FileStorage) -> &dyn Replicable {
    storage.replicable().unwrap()
}

/// The transactions of a storage, with their records, and whether published ones only.
type Listed = Vec<(Tid, Vec<(Oid, Option<Vec<u8>>)>)>;

fn list_from(
    mut transactions: Box<dyn runzeo::storage::TransactionIterator>,
) -> Result<Listed, StorageError> {
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

fn published(storage: &FileStorage) -> Listed {
    list_from(storage.iterate(None, None).unwrap()).unwrap()
}

fn written(storage: &FileStorage) -> Listed {
    list_from(replicable(storage).iterate_written(None).unwrap()).unwrap()
}

fn tids(listed: &Listed) -> Vec<Tid> {
    listed.iter().map(|(tid, _)| *tid).collect()
}

fn stored(oid: u64, serial: Tid, data: &[u8]) -> Staged {
    let mut txn = staged();
    txn.store(Oid(oid), serial, data).unwrap();
    txn
}

/// Begins a commit on another thread: the one that commits waits in the gate.
fn finish_beside(storage: &Arc<FileStorage>, txn: Staged) -> std::thread::JoinHandle<Receiver<Outcome>> {
    let storage = Arc::clone(storage);
    std::thread::spawn(move || finish(&*storage, txn, TidAt::Finish).unwrap())
}

#[test]
fn a_group_is_offered_before_it_is_durable_and_seen_when_the_gate_lets_it_through() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Arc::new(open(&dir.path().join("Data.fs")));
    let gate = Keeper::set(&storage);
    gate.answers.send(Ok(())).unwrap();
    let first = commit(&*storage, &[(1, Tid::ZERO, b"first")]).unwrap();
    assert_eq!(gate.all(), [Told::Written(first), Told::Durable(first)]);
    assert_eq!(replicable(&storage).last_written(), first);

    let long = vec![7; 300_000];
    let waiting = finish_beside(&storage, stored(1, first, &long));
    let Told::Written(second) = gate.next() else { panic!() };
    assert_eq!(gate.next(), Told::Durable(second));
    assert_eq!(load(&*storage, 1).unwrap(), (b"first".to_vec(), first));
    assert_eq!((storage.last_transaction(), replicable(&storage).last_written()), (first, second));
    assert_eq!(tids(&published(&storage)), [first]);
    let all = written(&storage);
    assert_eq!(tids(&all), [first, second]);
    assert_eq!(all[1].1, [(Oid(1), Some(long.clone()))]);
    assert_eq!(storage.pulse(), Pulse::Beats);
    // Votes and saves of the index go on.
    let voted = storage.vote(stored(2, Tid::ZERO, b"other"), TidAt::Finish).unwrap();
    assert!(storage.save_index().unwrap());
    let late = replicable(&storage).iterate_written(Some(second)).unwrap();

    gate.answers.send(Ok(())).unwrap();
    assert!(matches!(waiting.join().unwrap().recv().unwrap(), Outcome::Done { tid, .. } if tid == second));
    assert_eq!(load(&*storage, 1).unwrap(), (long, second));
    assert_eq!(tids(&list_from(late).unwrap()), [second], "it was published");
    gate.open();
    let third = finish_voted(&*storage, voted);
    assert!(matches!(third.recv().unwrap(), Outcome::Done { .. }));
    storage.close().unwrap();
}

#[test]
fn a_group_that_is_withdrawn_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let options =
        || FileStorageOptions { blob_dir: Some(dir.path().join("blobs")), ..FileStorageOptions::new(&path) };
    let storage = Arc::new(open_with(options()).unwrap());
    let gate = Keeper::set(&storage);
    gate.answers.send(Ok(())).unwrap();
    let first = commit(&*storage, &[(1, Tid::ZERO, b"first")]).unwrap();
    gate.all();
    let mut txn = stored(1, first, &[5; 9000]);
    let mut upload = storage.blobs().unwrap().dir().unwrap().begin().unwrap();
    upload.write(b"blob").unwrap();
    txn.store_blob(Oid(2), Tid::ZERO, BLOB_RECORD, upload.end(Oid(2)).unwrap()).unwrap();
    let waiting = finish_beside(&storage, txn);
    let Told::Written(second) = gate.next() else { panic!() };
    assert_eq!(gate.next(), Told::Durable(second));
    // One has read it, one is about to.
    let mut reading = replicable(&storage).iterate_written(Some(second)).unwrap();
    assert_eq!(reading.next_transaction().unwrap().unwrap().tid, second);
    let mut records = reading.records().unwrap();
    let mut beginning = replicable(&storage).iterate_written(None).unwrap();
    assert_eq!(beginning.next_transaction().unwrap().unwrap().tid, first);
    gate.answers.send(Err(Withdrawn)).unwrap();
    assert!(waiting.join().unwrap().recv().is_err(), "the client gets no answer");
    assert_eq!(gate.next(), Told::TakenBack(first));
    for ended in [records.next_record().map(|_| ()), beginning.next_transaction().map(|_| ())] {
        assert!(
            matches!(ended, Err(StorageError::Refused { what: Refusal::IterationEnded, .. })),
            "{ended:?}"
        );
    }
    assert_eq!((storage.last_transaction(), replicable(&storage).last_written()), (first, first));
    assert_eq!(tids(&written(&storage)), [first]);
    assert_eq!(load(&*storage, 1).unwrap(), (b"first".to_vec(), first));
    assert_eq!(storage.failure(), None);
    assert!(storage.blobs().unwrap().dir().unwrap().revisions(Oid(2)).is_empty());

    // A copy learns of it, and may bring the same transaction again.
    let copied = |tid: Tid| {
        let mut txn = Staged::new(meta("", ""), Some(tid), b' ', 1000);
        txn.restore(Oid(1), tid, Some(b"copied"), None).unwrap();
        txn
    };
    gate.answers.send(Err(Withdrawn)).unwrap();
    let mut bulk = storage.bulk().unwrap().begin().unwrap();
    bulk.add(copied(second)).unwrap();
    let error = bulk.complete().unwrap_err();
    assert!(matches!(&error, StorageError::OutcomeUnknown(_)), "{error}");
    gate.open();
    let mut bulk = storage.bulk().unwrap().begin().unwrap();
    bulk.add(copied(second)).unwrap();
    bulk.complete().unwrap();
    let third = commit(&*storage, &[(1, second, b"third")]).unwrap();
    let expected = published(&storage);
    assert_eq!(tids(&expected), [first, second, third]);
    storage.close().unwrap();
    drop(storage);
    let again = open_with(options()).unwrap();
    assert_eq!(published(&again), expected);
}

const BLOB_RECORD: &[u8] = b"\x80\x03cZODB.blob\nBlob\nq\x00.\x80\x03N.";

#[test]
fn a_failed_write_or_sync_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let mut seen = [false; 2];
    for n in 1..8 {
        let media = Faulty::new(n, None);
        let options = FileStorageOptions { media: Arc::new(media.clone()), ..FileStorageOptions::new(&path) };
        let storage = open_with(options).unwrap();
        let gate = Keeper::set(&storage);
        gate.open();
        let first = commit(&storage, &[(1, Tid::ZERO, b"first")]).unwrap();
        gate.all();
        let voted = storage.vote(stored(1, first, b"second"), TidAt::Finish).unwrap();
        media.fail_at(n, Fault::Error);
        let outcome = finish_voted(&storage, voted).recv().unwrap();
        let told = gate.all();
        match outcome {
            Outcome::Failed(_) => {
                assert_eq!(storage.last_transaction(), first);
                assert_eq!(tids(&written(&storage)), [first]);
                // The write fails before the gate hears of it, the sync after that.
                match &told[..] {
                    [] => seen[0] = true,
                    [Told::Written(tid), Told::TakenBack(last)] => {
                        assert!(*tid > first && *last == first);
                        seen[1] = true;
                    }
                    _ => panic!("{told:?}"),
                }
            }
            Outcome::Done { tid, .. } => assert_eq!(told, [Told::Written(tid), Told::Durable(tid)]),
        }
        drop(storage);
    }
    assert_eq!(seen, [true, true]);
}

#[test]
fn syncs_are_not_put_off_with_a_gate() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&dir.path().join("Data.fs"));
    Keeper::set(&storage).open();
    assert!(storage.sync_later());
    for number in 0..3 {
        let serial = storage.get_tid(Oid(1)).unwrap_or(Tid::ZERO);
        commit(&storage, &[(1, serial, &[number; 10])]).unwrap();
    }
    assert_eq!(storage.sync_counts().unwrap().group_sizes.sum, 3);
}

#[test]
fn skipped_oids_stay_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let storage = open(&path);
    let before = storage.new_oids(1).unwrap()[0];
    let skipped = replicable(&storage).skip_oids().unwrap();
    assert!(skipped.0 > before.0 + 1_000_000);
    assert_eq!(storage.new_oids(1).unwrap(), [Oid(skipped.0 + 1)]);
    storage.close().unwrap();
    drop(storage);
    assert!(open(&path).new_oids(1).unwrap()[0] > skipped);
}

/// A fault or a power cut at every call while a group is taken back: it is there, or not, and the file is whole.
#[test]
fn a_fault_at_every_call_of_a_withdrawal() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    for n in 1.. {
        let mut fired = false;
        for (fault, seed) in [(Fault::Error, 0), (Fault::PowerCut, 1), (Fault::PowerCut, 2)] {
            let media = Faulty::new(n * 5 + seed, None);
            let options = |media: &Faulty| FileStorageOptions {
                media: Arc::new(media.clone()),
                ..FileStorageOptions::new(&path)
            };
            let storage = open_with(options(&media)).unwrap();
            let gate = Keeper::set(&storage);
            gate.answers.send(Ok(())).unwrap();
            let first = commit(&storage, &[(1, Tid::ZERO, b"first")]).unwrap();
            gate.answers.send(Err(Withdrawn)).unwrap();
            // Zeros, so that the note has to know of them.
            let voted = storage.vote(stored(1, first, &[0; 20_000]), TidAt::Finish).unwrap();
            media.fail_at(n, fault);
            let outcome = finish_voted(&storage, voted).recv();
            fired |= media.fired();
            let what = format!("{n}, {fault:?}, {seed}: {outcome:?}");
            assert!(!matches!(outcome, Ok(Outcome::Done { .. })), "{what}");
            assert_eq!(tids(&published(&storage)), [first], "{what}");
            if storage.failure().is_none() && fault == Fault::Error {
                // If the group never came to the gate, the answer still waits there.
                let came = gate.all().iter().filter(|told| matches!(told, Told::Durable(_))).count() == 2;
                gate.answers.send(Ok(())).unwrap();
                if came {
                    commit(&storage, &[(1, first, b"third")]).unwrap();
                }
            }
            _ = storage.close();
            drop(storage);
            let media = if fault == Fault::PowerCut { media.after_power_cut() } else { media.after_kill() };
            let storage = open_with(options(&media)).unwrap_or_else(|error| panic!("{what}: {error}"));
            let found = published(&storage);
            assert_eq!(found[0].1, [(Oid(1), Some(b"first".to_vec()))], "{what}");
            if let Some((_, records)) = found.get(1) {
                let second = records.first().and_then(|(_, data)| data.clone());
                let known = [None, Some(vec![0; 20_000]), Some(b"third".to_vec())];
                assert!(known.contains(&second), "{what}");
            }
        }
        if !fired {
            assert!(n > 6, "a withdrawal makes calls");
            break;
        }
    }
}
