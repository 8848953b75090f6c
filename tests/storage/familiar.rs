//! Whether a file is the one that was served before, and the actions if it is not.
//!
//! After an older `Data.fs` was restored, clients with a cache continued with states of the lost time, or could not
//! connect; and object ids that they had were given out again. The note of a crash, beside another file, made the start
//! cut off transactions of that file (`a_note_says_nothing_about_a_file_that_ran_on_elsewhere`).

use std::fs;
use std::path::Path;

use crate::support::disk::{Disk, Hand};
use crate::support::faulty;
use crate::support::faulty::Faulty;
use crate::support::storage::*;
use runzeo::ids::{Oid, Tid};
use runzeo::internal::pickle::refs::references;
use runzeo::internal::storage::media::{Access, Media};
use runzeo::storage::file::{FileStorage, FileStorageOptions};
use runzeo::storage::prelude::*;
use runzeo::storage::{PackProgress, PackRequest};

const STRIDE: u64 = 1 << 20;

/// A process that dies: nothing is closed. The lock stays with the old directory, so the file is copied to a new one.
fn died(storage: FileStorage) {
    std::mem::forget(storage);
}

fn descriptions(storage: &FileStorage) -> Vec<String> {
    let mut it = storage.iterate(None, None).unwrap();
    let mut found = Vec::new();
    while let Some(txn) = it.next_transaction().unwrap() {
        found.push(String::from_utf8(txn.meta.description).unwrap());
    }
    found
}

fn has_marker(storage: &FileStorage) -> bool {
    descriptions(storage).iter().any(|text| text.starts_with("runzeo: this file was restored"))
}

fn next_oid(storage: &FileStorage) -> u64 {
    storage.new_oids(1).unwrap()[0].0
}

/// Makes three transactions; returns the serial of the last.
fn filled(path: &Path) -> Tid {
    let storage = open(path);
    let mut serial = Tid::ZERO;
    for n in 0..3u8 {
        serial = commit(&storage, &[(0, serial, &[n; 100])]).unwrap();
    }
    assert_eq!(next_oid(&storage), 1);
    storage.close().unwrap();
    serial
}

/// A filled file with one more transaction. Returns the file before that, the tid of its last transaction, and the new
/// one.
fn filled_and_continued(path: &Path) -> (Vec<u8>, Tid, Tid) {
    let serial = filled(path);
    let before = fs::read(path).unwrap();
    let storage = open(path);
    let last = commit(&storage, &[(0, serial, b"lost")]).unwrap();
    storage.close().unwrap();
    (before, serial, last)
}

#[test]
fn a_file_that_nobody_touched_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let last = filled(&path);
    let before = fs::read(&path).unwrap();
    for n in 2..5 {
        let storage = open(&path);
        assert_eq!((next_oid(&storage), storage.last_transaction()), (n, last));
        storage.close().unwrap();
    }
    assert!(fs::read(&path).unwrap() == before);
}

#[test]
fn an_older_file_gets_a_marker_later_than_all_that_was_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    filled(&path);
    let backup = fs::read(&path).unwrap();
    let storage = open(&path);
    let (_, serial) = load(&storage, 0).unwrap();
    let lost = commit(&storage, &[(0, serial, b"lost"), (50, Tid::ZERO, b"lost")]).unwrap();
    let told = next_oid(&storage);
    storage.close().unwrap();
    for without_index in [false, true] {
        fs::write(&path, &backup).unwrap();
        if without_index {
            fs::remove_file(dir.path().join("Data.fs.index")).unwrap();
        }
        let storage = open(&path);
        assert!(storage.last_transaction() > lost && has_marker(&storage));
        assert!(next_oid(&storage) > told + STRIDE - 10);
        assert_eq!(load(&storage, 0).unwrap(), (vec![2; 100], serial));
        assert!(load(&storage, 50).is_err());
        // The next start logs nothing.
        let size = storage.size();
        storage.close().unwrap();
        let again = open(&path);
        assert_eq!(again.size(), size);
        again.close().unwrap();
        assert!(fs::read(&path).unwrap().starts_with(&backup));
    }
}

/// A backup of a running server's whole directory, restored within the minute for which its note lets the file be
/// changed. The new file may have the inode number of the lost one.
#[test]
fn a_file_with_the_inode_of_the_one_before_is_another_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let note = dir.path().join("Data.fs.tmp");
    let disk = Faulty::new(3, None);
    let options = |disk: &Faulty| FileStorageOptions {
        media: std::sync::Arc::new(disk.clone()),
        ..FileStorageOptions::new(&path)
    };
    let storage = open_with(options(&disk)).unwrap();
    let serial = commit(&storage, &[(0, Tid::ZERO, b"kept")]).unwrap();
    let backup = [&path, &note].map(|path| disk.bytes(path).unwrap());
    let lost = commit(&storage, &[(0, serial, b"lost")]).unwrap();
    drop(storage);
    let after = disk.after_kill();
    after.set_now(faulty::NOW + 5_000_000_000);
    after.put_in_place(&path, &backup[0]);
    after.put_in_place(&note, &backup[1]);
    let storage = open_with(options(&after)).unwrap();
    assert!(storage.last_transaction() > lost && has_marker(&storage));
    assert_eq!(load(&storage, 0).unwrap(), (b"kept".to_vec(), serial));
}

/// With its note, as in a backup of the whole directory: the note is correct, but for another file.
#[test]
fn a_directory_that_was_put_back_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    filled(&path);
    let names = ["Data.fs", "Data.fs.index", "Data.fs.tmp"];
    let backup = names.map(|name| fs::read(dir.path().join(name)).unwrap());
    let storage = open(&path);
    let (_, serial) = load(&storage, 0).unwrap();
    let lost = commit(&storage, &[(0, serial, b"lost")]).unwrap();
    storage.close().unwrap();
    for (name, bytes) in names.iter().zip(&backup) {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    let storage = open(&path);
    assert!(has_marker(&storage) && storage.last_transaction() > lost);
    assert!(next_oid(&storage) > STRIDE);
}

/// The note says until when the file may be changed. A server that ran for long and was killed left a file that was
/// changed later than the note of its start allowed: it is still the same file.
#[test]
fn a_server_that_ran_for_long_and_was_killed_left_its_own_file() {
    const SECOND: u64 = 1_000_000_000;
    let dir = tempfile::tempdir().unwrap();
    // The lock file is a real one; all else is in memory.
    let path = dir.path().join("Data.fs");
    let media = Faulty::new(1, None);
    let options = |media: &Faulty| FileStorageOptions {
        media: std::sync::Arc::new(media.clone()),
        ..FileStorageOptions::new(&path)
    };
    let storage = open_with(options(&media)).unwrap();
    let mut serial = Tid::ZERO;
    for n in 1..5 {
        media.set_now(n * 1000 * SECOND);
        serial = commit(&storage, &[(0, serial, b"data")]).unwrap();
    }
    let [killed, cut] = [media.after_kill(), media.after_power_cut()];
    died(storage);
    fs::remove_file(dir.path().join("Data.fs.lock")).unwrap();
    for after in [&killed, &cut] {
        let storage = open_with(options(after)).unwrap();
        assert_eq!((storage.last_transaction(), has_marker(&storage)), (serial, false));
        storage.close().unwrap();
    }
    // The file was touched long after.
    killed.set_now(10_000 * SECOND);
    let bytes = killed.bytes(&path).unwrap();
    killed.open(&path, Access::ReadWrite).unwrap().write_at(&bytes, 0).unwrap();
    assert!(has_marker(&open_with(options(&killed)).unwrap()));
}

/// Python's server empties the note, and may have given out ids that are not in the file: a hundred to each client.
#[test]
fn what_another_program_has_continued_is_not_written_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let last = filled(&path);
    fs::write(dir.path().join("Data.fs.tmp"), b"").unwrap();
    let before = fs::read(&path).unwrap();
    let storage = open(&path);
    assert_eq!(storage.last_transaction(), last);
    assert!(next_oid(&storage) > STRIDE);
    storage.close().unwrap();
    assert!(fs::read(&path).unwrap() == before);
    // The stride is added only once.
    assert!(next_oid(&open(&path)) < 2 * STRIDE);
}

/// Host A dies. The file goes to host B, which continues and stores 9 kB of zeros, and comes back to A, where the note
/// of the crash still is: the transaction with the zeros "did not reach the disk", and everything from it on was cut
/// off.
#[test]
fn a_note_says_nothing_about_a_file_that_ran_on_elsewhere() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let [on_a, on_b] = [&a, &b].map(|dir| dir.path().join("Data.fs"));
    let storage = open(&on_a);
    let first = commit(&storage, &[(0, Tid::ZERO, b"on A")]).unwrap();
    died(storage);
    fs::copy(&on_a, &on_b).unwrap();
    let storage = open(&on_b);
    let zeros = [&b"head"[..], &[0; 9000], b"tail"].concat();
    commit(&storage, &[(1, Tid::ZERO, &zeros)]).unwrap();
    let second = commit(&storage, &[(0, first, b"on B")]).unwrap();
    storage.close().unwrap();
    fs::remove_file(a.path().join("Data.fs.lock")).unwrap();
    fs::copy(&on_b, &on_a).unwrap();
    let storage = open(&on_a);
    assert_eq!(load(&storage, 0).unwrap(), (b"on B".to_vec(), second));
    assert_eq!(load(&storage, 1).unwrap().0, zeros);
    assert!(!a.path().join("Data.fs.tr0").exists());
}

/// A pack drops transactions of garbage. If these were the last, clients have seen later ones than the file has.
#[test]
fn what_a_pack_has_dropped_at_the_end_was_told_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let storage = open(&path);
    let root = b"cm\nC\n.N.";
    let kept = commit(&storage, &[(0, Tid::ZERO, root)]).unwrap();
    let garbage = commit(&storage, &[(1, Tid::ZERO, root)]).unwrap();
    let progress = PackProgress::default();
    let time = Tid::now().to_unix() + 1.0;
    let request =
        PackRequest { time, gc: None, references: &references, progress: &progress, removals: None };
    storage.pack(&request).unwrap();
    assert_eq!(storage.last_transaction(), garbage);
    storage.close().unwrap();
    let storage = open(&path);
    assert!(storage.last_transaction() > garbage);
    assert_eq!(load(&storage, 0).unwrap().1, kept);
    assert_eq!(next_oid(&storage), 2, "nobody else wrote to it");
    let size = storage.size();
    storage.close().unwrap();
    assert_eq!(open(&path).size(), size);
}

/// Only the file's content is known: a new machine.
#[test]
fn a_file_without_a_note_is_taken_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let last = filled(&path);
    let elsewhere = tempfile::tempdir().unwrap();
    let copy = elsewhere.path().join("Data.fs");
    fs::copy(&path, &copy).unwrap();
    let storage = open(&copy);
    assert_eq!((storage.last_transaction(), has_marker(&storage)), (last, false));
    assert!(Oid(next_oid(&storage)) > Oid(STRIDE));
}

/// A disk without room for the marker does not prevent serving; the marker is written at the next start.
#[test]
fn a_full_disk_does_not_stop_the_start_of_a_restored_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let (backup, serial, lost) = filled_and_continued(&path);
    fs::write(&path, &backup).unwrap();
    let hand = Hand::default();
    hand.order(|orders| orders.fail_writes = true);
    let media = std::sync::Arc::new(Disk(hand.clone()));
    let storage = open_with(FileStorageOptions { media, ..FileStorageOptions::new(&path) }).unwrap();
    assert_eq!(load(&storage, 0).unwrap(), (vec![2; 100], serial));
    assert!(next_oid(&storage) > STRIDE);
    storage.close().unwrap();
    assert!(fs::read(&path).unwrap() == backup);
    let storage = open(&path);
    assert!(has_marker(&storage) && storage.last_transaction() > lost);
}

/// The saved index describes more than the file has.
#[test]
fn an_index_tells_that_a_file_is_older() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let (backup, _, lost) = filled_and_continued(&path);
    fs::write(dir.path().join("Data.fs.tmp"), b"").unwrap();
    fs::write(&path, &backup).unwrap();
    let storage = open(&path);
    assert!(has_marker(&storage) && storage.last_transaction() > lost);
}
