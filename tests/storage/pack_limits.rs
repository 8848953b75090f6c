//! What a pack may take of the machine: the room on the disk, and `pack-max-rate`.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::disk::{Disk, Hand};
use crate::support::storage::*;
use runzeo::ids::Tid;
use runzeo::internal::pickle::refs::references;
use runzeo::storage::file::{FileStorage, FileStorageOptions};
use runzeo::storage::prelude::*;
use runzeo::storage::{PackProgress, PackRequest, Refusal, Result, StorageError};

const OBJECTS: u64 = 100;
const LEN: usize = 1000;

/// A hundred objects of a thousand bytes, each of which was changed once.
fn filled(options: FileStorageOptions) -> FileStorage {
    let storage = open_with(options).unwrap();
    let oids: Vec<u64> = (1..OBJECTS).collect();
    let mut data = referring_to(&[]);
    let end = data.pop().unwrap();
    // A text that is no part of the state: the two pickles are followed by it.
    data.push(end);
    data.extend_from_slice(&vec![b'x'; LEN]);
    let root = referring_to(&oids);
    let mut serial = Tid::ZERO;
    for _ in 0..2 {
        let mut objects = vec![(0, serial, &root[..])];
        objects.extend(oids.iter().map(|&oid| (oid, serial, &data[..])));
        serial = commit(&storage, &objects).unwrap();
    }
    storage
}

fn pack(storage: &FileStorage) -> Result<()> {
    let (time, progress) = (Tid::now().to_unix() + 1.0, PackProgress::default());
    let request =
        PackRequest { time, gc: None, references: &references, progress: &progress, removals: None };
    storage.pack(&request)
}

#[test]
fn a_pack_that_cannot_fit_is_refused_before_it_fills_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let hand = Hand::default();
    hand.order(|orders| orders.free = Some(50_000));
    let storage =
        filled(FileStorageOptions { media: Arc::new(Disk(hand)), ..FileStorageOptions::new(&path) });
    let before = std::fs::read(&path).unwrap();
    match pack(&storage) {
        Err(StorageError::Refused { what: Refusal::Pack, message }) => {
            assert!(
                message.contains("bytes or more beside the present one, and 50000 are free"),
                "{message}"
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert!(!dir.path().join("Data.fs.pack").exists());

    // What the pack will remove counts as free, and is not removed in vain.
    let old = dir.path().join("Data.fs.old");
    std::fs::write(&old, vec![0; 40_000]).unwrap();
    assert!(matches!(pack(&storage), Err(StorageError::Refused { what: Refusal::Pack, .. })));
    assert!(old.exists());
    std::fs::write(&old, vec![0; 100_000]).unwrap();
    pack(&storage).unwrap();
    let packed = std::fs::metadata(&path).unwrap().len();
    assert!(packed < before.len() as u64 * 6 / 10 && packed > OBJECTS * LEN as u64, "{packed}");
}

#[test]
fn a_pack_keeps_its_rate() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let rate = 500_000;
    let storage = filled(FileStorageOptions { pack_max_rate: Some(rate), ..FileStorageOptions::new(&path) });
    let len = std::fs::metadata(&path).unwrap().len();
    let begun = Instant::now();
    pack(&storage).unwrap();
    // It reads the file at least twice, but for the last pause, which may be left out.
    let least = Duration::from_secs_f64(1.9 * len as f64 / rate as f64);
    assert!(begun.elapsed() > least, "{:?} for {len} bytes", begun.elapsed());
    assert!(std::fs::metadata(&path).unwrap().len() < len * 6 / 10);
}

#[test]
fn a_slow_pack_ends_when_its_storage_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let options = FileStorageOptions { pack_max_rate: Some(1), ..FileStorageOptions::new(&path) };
    let storage = filled(options);
    thread::scope(|scope| {
        // Days at this rate.
        let packing = scope.spawn(|| pack(&storage));
        thread::sleep(Duration::from_millis(50));
        storage.close().unwrap();
        assert!(matches!(packing.join().expect("no panic"), Err(StorageError::Closed(_))));
    });
}
