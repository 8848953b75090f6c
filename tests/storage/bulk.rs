//! Copies of many transactions (`Bulk`): the same bytes as one commit after the other, and after a fault the first
//! ones.

use std::path::Path;
use std::sync::Arc;

use crate::support::dice::Dice;
use crate::support::faulty::{Fault, Faulty};
use crate::support::storage::{commit_staged, load, meta, open, open_with};
use runzeo::ids::{Oid, Tid};
use runzeo::storage::file::{FileStorage, FileStorageOptions};
use runzeo::storage::prelude::*;
use runzeo::storage::{PackProgress, PackRequest, Result, Staged, StorageError};

const BLOB_RECORD: &[u8] = b"\x80\x03cZODB.blob\nBlob\nq\x00.\x80\x03N.";

/// What a record of a copy has: its object, its data, and a transaction that may have the same data.
struct Record {
    oid: u64,
    data: Option<Vec<u8>>,
    prev_txn: Option<Tid>,
    blob: Option<Vec<u8>>,
}

/// A history of few objects, so that most transactions of a batch change one that is in the batch already.
fn history(seed: u64, count: u64) -> Vec<(Tid, Vec<Record>)> {
    let mut dice = Dice::new(seed, 1);
    let mut states: Vec<Vec<(Tid, Option<Vec<u8>>)>> = vec![Vec::new(); 8];
    let mut transactions = Vec::new();
    for number in 0..count {
        let tid = Tid((1 << 56) + number * 1000);
        let mut records = Vec::new();
        for (oid, states) in states.iter_mut().enumerate() {
            if !dice.one_in(3) && number > 0 {
                continue;
            }
            let fill = dice.below(200) as u8 + 1;
            let new = vec![fill; dice.of(&[1, 300, 9000])];
            let old = states.get(dice.below(states.len() as u64 + 1) as usize).cloned();
            let (data, prev_txn) = match (dice.below(5), old) {
                // Data that is there already, or that an undo has taken away.
                (0 | 1, Some((tid, data))) => (data, Some(tid)),
                // A hint that is wrong.
                (2, Some((tid, _))) => (Some(new), Some(tid)),
                (3, _) if !states.is_empty() => (None, None),
                _ => (Some(new), None),
            };
            let blob = (oid == 7).then(|| vec![fill; 5000]);
            let data = if blob.is_some() { Some(BLOB_RECORD.to_vec()) } else { data };
            let prev_txn = prev_txn.filter(|_| blob.is_none());
            states.push((tid, data.clone()));
            records.push(Record { oid: oid as u64, data, prev_txn, blob });
        }
        transactions.push((tid, records));
    }
    transactions
}

fn staged(storage: &FileStorage, (tid, records): &(Tid, Vec<Record>)) -> Result<Staged> {
    let mut staged = Staged::new(meta("user", "copied"), Some(*tid), b' ', 20_000);
    for Record { oid, data, prev_txn, blob } in records {
        staged.restore(Oid(*oid), *tid, data.as_deref(), *prev_txn).expect("a temporary file");
        if let Some(blob) = blob {
            let mut upload = storage.blobs().and_then(|blobs| blobs.dir()).expect("it has one").begin()?;
            upload.write(blob).map_err(StorageError::io("test"))?;
            staged.add_blob(Oid(*oid), upload.end(Oid(*oid))?);
        }
    }
    Ok(staged)
}

/// Copies the transactions that the storage does not have.
fn copy(storage: &FileStorage, history: &[(Tid, Vec<Record>)]) -> Result<()> {
    let last = storage.last_transaction();
    let mut bulk = storage.bulk().expect("a file has it").begin()?;
    for transaction in history.iter().filter(|(tid, _)| *tid > last) {
        bulk.add(staged(storage, transaction)?)?;
    }
    bulk.complete()
}

fn options(dir: &Path) -> FileStorageOptions {
    FileStorageOptions { blob_dir: Some(dir.join("blobs")), ..FileStorageOptions::new(dir.join("Data.fs")) }
}

/// The bytes of the file that one commit after the other makes.
fn expected(dir: &Path, history: &[(Tid, Vec<Record>)]) -> Vec<u8> {
    let storage = open_with(options(dir)).unwrap();
    for transaction in history {
        commit_staged(&storage, staged(&storage, transaction).unwrap()).unwrap();
    }
    storage.close().unwrap();
    std::fs::read(dir.join("Data.fs")).unwrap()
}

fn check_objects(storage: &FileStorage, history: &[(Tid, Vec<Record>)]) {
    let mut count = 0;
    for oid in 0..8 {
        let of_object = |(tid, records): &(Tid, Vec<Record>)| {
            let record = records.iter().find(|record| record.oid == oid)?;
            Some((*tid, record.data.clone(), record.blob.clone()))
        };
        let Some((tid, data, blob)) = history.iter().rev().find_map(of_object) else { continue };
        count += 1;
        match data {
            Some(data) => assert_eq!(load(storage, oid).unwrap(), (data, tid)),
            None => assert!(matches!(load(storage, oid), Err(StorageError::PosKey(_)))),
        }
        if let Some(blob) = blob {
            let file = storage.blobs().unwrap().load_blob(Oid(oid), tid).unwrap();
            assert_eq!(std::fs::read(&file.path).unwrap(), blob);
        }
    }
    assert_eq!(storage.object_count(), count);
}

#[test]
fn the_bytes_are_those_of_single_commits() {
    for seed in 0..4 {
        let [one, many] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let history = history(seed, 200);
        let expected = expected(one.path(), &history);
        let storage = open_with(options(many.path())).unwrap();
        // In pieces, so that a copy also begins where there are objects.
        for end in [1, 2, 90, 200] {
            copy(&storage, &history[..end]).unwrap();
            check_objects(&storage, &history[..end]);
        }
        storage.close().unwrap();
        assert!(std::fs::read(many.path().join("Data.fs")).unwrap() == expected, "seed {seed}");
        let again = open_with(options(many.path())).unwrap();
        check_objects(&again, &history);
    }
}

#[test]
fn one_write_and_one_sync_for_a_batch() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&dir.path().join("Data.fs"));
    let mut bulk = storage.bulk().unwrap().begin().unwrap();
    for number in 1..=500 {
        let mut txn = Staged::new(meta("", ""), Some(Tid(number)), b' ', 1000);
        txn.restore(Oid(1), Tid(number), Some(b"again and again"), None).unwrap();
        bulk.add(txn).unwrap();
    }
    bulk.complete().unwrap();
    assert_eq!(storage.last_transaction(), Tid(500));
    let groups = storage.sync_counts().unwrap().group_sizes;
    assert_eq!((groups.counts.iter().sum::<u64>(), groups.sum), (1, 500));
    assert_eq!(storage.history(Oid(1), 1000).unwrap().len(), 500);
}

#[test]
fn what_is_no_copy_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&dir.path().join("Data.fs"));
    let copied = |tid| {
        let mut txn = Staged::new(meta("", ""), Some(Tid(tid)), b' ', 1000);
        txn.restore(Oid(1), Tid(tid), Some(b"data"), None).unwrap();
        txn
    };
    let mut bulk = storage.bulk().unwrap().begin().unwrap();
    bulk.add(copied(1000)).unwrap();
    assert!(bulk.add(copied(1000)).unwrap_err().to_string().contains("not later"));
    let mut stored = Staged::new(meta("", ""), Some(Tid(2000)), b' ', 1000);
    stored.store(Oid(2), Tid::ZERO, b"data").unwrap();
    assert!(bulk.add(stored).unwrap_err().to_string().contains("copied records"));
    // Given up: nothing of the batch was written.
    drop(bulk);
    assert_eq!(storage.last_transaction(), Tid::ZERO);
    let mut bulk = storage.bulk().unwrap().begin().unwrap();
    bulk.add(copied(1000)).unwrap();
    storage.close().unwrap();
    assert!(matches!(bulk.complete(), Err(StorageError::Closed(_))));
}

/// A pack replaces the file between the votes of a batch and its write.
#[test]
fn a_pack_between() {
    let dir = tempfile::tempdir().unwrap();
    let history = history(9, 60);
    let storage = open_with(options(dir.path())).unwrap();
    copy(&storage, &history[..30]).unwrap();
    let mut bulk = storage.bulk().unwrap().begin().unwrap();
    for transaction in &history[30..] {
        bulk.add(staged(&storage, transaction).unwrap()).unwrap();
    }
    assert!(storage.last_transaction() < history[58].0, "the batch is not written yet");
    let keep_all = |_: &[u8], _: &mut Vec<Oid>| Ok(());
    let request = PackRequest {
        time: history[29].0.to_unix() + 1e-5,
        gc: Some(false),
        references: &keep_all,
        progress: &PackProgress::default(),
        removals: None,
    };
    let size = storage.size();
    storage.pack(&request).unwrap();
    assert!(storage.size() < size);
    bulk.complete().unwrap();
    check_objects(&storage, &history);
    storage.close().unwrap();
    std::fs::remove_file(dir.path().join("Data.fs.index")).unwrap();
    check_objects(&open_with(options(dir.path())).unwrap(), &history);
}

#[test]
fn after_a_fault_at_any_call_the_first_ones_are_there() {
    let whole = tempfile::tempdir().unwrap();
    let history = history(5, 12);
    let expected = expected(whole.path(), &history);
    for n in 1.. {
        let mut fired = false;
        for fault in [Fault::PowerCut, Fault::Error] {
            let dir = tempfile::tempdir().unwrap();
            let media = Faulty::new(n, Some((n, fault)));
            let options =
                |media: &Faulty| FileStorageOptions { media: Arc::new(media.clone()), ..options(dir.path()) };
            let mut acknowledged = Tid::ZERO;
            if let Ok(storage) = open_with(options(&media)) {
                for end in [5, 12] {
                    if copy(&storage, &history[..end]).is_err() {
                        break;
                    }
                    acknowledged = storage.last_transaction();
                }
                let _ = storage.close();
            }
            fired |= media.fired();
            let media = if fault == Fault::PowerCut { media.after_power_cut() } else { media.after_kill() };
            let storage =
                open_with(options(&media)).unwrap_or_else(|error| panic!("{n}, {fault:?}: {error}"));
            assert!(storage.last_transaction() >= acknowledged, "{n}, {fault:?}");
            let kept = storage.size() as usize;
            assert!(
                media.bytes(&dir.path().join("Data.fs")).unwrap()[..kept] == expected[..kept],
                "{n}, {fault:?}"
            );
            copy(&storage, &history).unwrap();
            storage.close().unwrap();
            assert!(media.bytes(&dir.path().join("Data.fs")).unwrap() == expected, "{n}, {fault:?}");
        }
        if !fired {
            assert!(n > 20, "the copy makes calls");
            break;
        }
    }
}
