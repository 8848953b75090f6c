//! Backups while the storage commits and packs: every one is a state that the storage was in, and is whole.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use crate::support::dice::Dice;
use crate::support::storage::{commit, load, open, open_with, referring_to};
use crate::world::Heard;
use runzeo::ids::{Oid, Tid};
use runzeo::internal::backup::repozo::{BackupOptions, Repository, RestoreOptions, backup, restore, verify};
use runzeo::internal::base::clock::TimeSource;
use runzeo::internal::pickle::refs::references;
use runzeo::internal::storage::media::RealMedia;
use runzeo::storage::file::{FileStorage, FileStorageOptions};
use runzeo::storage::prelude::*;
use runzeo::storage::{PackProgress, PackRequest};

const OBJECTS: u64 = 20;
const BACKUPS: u32 = 30;
/// Number of transactions for each backup. They take about as long.
const COMMITS: u32 = 20;

/// Stops the other threads, also after a failure.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Makes a transaction for each word: two objects get the same content, at most 50 KB.
fn commit_on(storage: &FileStorage, words: &Receiver<()>) {
    let mut dice = Dice::new(7, 0);
    let mut serials = vec![Tid::ZERO; OBJECTS as usize + 1];
    let root: Vec<u64> = (1..=OBJECTS).collect();
    commit(storage, &[(0, Tid::ZERO, &referring_to(&root))]).unwrap();
    for () in words {
        let oid = 1 + dice.below(OBJECTS / 2) * 2;
        let len = if dice.below(10) == 0 { 25_000 } else { 300 };
        let data = referring_to(&vec![0; dice.below(len) as usize / 10]);
        let serial = serials[oid as usize];
        let tid = commit(storage, &[(oid, serial, &data), (oid + 1, serial, &data)]).unwrap();
        serials[oid as usize] = tid;
        serials[oid as usize + 1] = tid;
    }
}

fn pack(storage: &FileStorage) {
    let progress = PackProgress::default();
    // All revisions that are not current.
    let time = Tid::now().to_unix();
    let request =
        PackRequest { time, gc: Some(false), references: &references, progress: &progress, removals: None };
    storage.packing().unwrap().pack(&request).unwrap();
}

/// The restored file is one that the storage had: whole, and the objects of a pair are the same.
fn check(restored: &Path) {
    let storage =
        open_with(FileStorageOptions { read_only: true, ..FileStorageOptions::new(restored) }).unwrap();
    // The index of a nearly empty file is never used.
    assert!(storage.used_index() || storage.size() < 200);
    for oid in (1..OBJECTS).step_by(2) {
        if storage.get_tid(Oid(oid)).is_ok() {
            assert!(load(&storage, oid).unwrap() == load(&storage, oid + 1).unwrap());
        }
    }
}

fn beside(packs: bool) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let repo = dir.path().join("repo");
    std::fs::create_dir(&repo).unwrap();
    let repository = Repository::new(Arc::new(RealMedia), &repo);
    let (storage, stop, time) = (open(&path), AtomicBool::new(false), TimeSource::manual());
    let mut moments: Vec<Vec<u8>> = Vec::new();
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        let (words, to_commit) = channel();
        let storage = &storage;
        scope.spawn(move || commit_on(storage, &to_commit));
        if packs {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    pack(storage);
                }
            });
        }
        for n in 0..BACKUPS {
            time.advance(Duration::from_secs(1));
            (0..COMMITS).for_each(|_| words.send(()).unwrap());
            let options = BackupOptions {
                file: path.clone(),
                full: n % 7 == 6,
                quick: n % 2 == 0,
                gzip: n % 3 == 0,
                kill_old: false,
            };
            let heard = Heard::default();
            backup(&repository, &options, &time, &heard).unwrap();
            let restored = dir.path().join(format!("restored-{n}.fs"));
            let options = RestoreOptions { date: None, output: Some(restored.clone()), with_verify: true };
            restore(&repository, &options, &time, &mut Vec::new(), &heard).unwrap();
            assert_eq!(heard.warnings.into_inner().unwrap(), [""; 0]);
            check(&restored);
            moments.push(std::fs::read(&restored).unwrap());
            std::fs::remove_file(&restored).unwrap();
        }
    });
    storage.close().unwrap();
    verify(&repository, false, &time, &Heard::default()).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    if !packs {
        assert!(moments.iter().all(|moment| bytes.starts_with(moment)));
        assert!(moments.is_sorted_by_key(Vec::len) && moments[0].len() < bytes.len());
    }
}

#[test]
fn backups_beside_commits_are_states_of_the_storage() {
    beside(false);
}

#[test]
fn backups_beside_packs_are_states_of_the_storage() {
    beside(true);
}
