//! Packs that are cancelled: at every call for the disk, and at every record that is searched for references, with and
//! without a failure of the disk right after it. The storage is as before, or packed as if nothing had happened.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::blob_packs::check_pack;
use crate::blobs::{data_of, faulty_options, read, stage};
use crate::support::faulty::{Fault, Faulty};
use crate::support::storage::{commit, commit_staged, open_with};
use runzeo::ids::{Oid, Tid};
use runzeo::storage::file::{FileStorage, FileStorageOptions};
use runzeo::storage::prelude::*;
use runzeo::storage::{PackProgress, PackRequest, Refusal, Result, StorageError};

/// When the pack is cancelled.
#[derive(Clone, Copy, Debug)]
enum At {
    Never,
    Start,
    /// The n-th call for the disk.
    Call(u64),
    /// The n-th record that is searched for references.
    Record(usize),
}

struct World {
    dir: tempfile::TempDir,
    media: Faulty,
    storage: FileStorage,
    /// Time of the pack.
    time: f64,
    /// The blobs that there are.
    blobs: Vec<(u64, Tid)>,
    /// All files before the pack.
    before: BTreeMap<PathBuf, Vec<u8>>,
}

fn files(media: &Faulty) -> BTreeMap<PathBuf, Vec<u8>> {
    let all = media.paths().into_iter();
    all.filter_map(|path| media.bytes(&path).map(|bytes| (path, bytes))).collect()
}

impl World {
    /// Two revisions of blob 1, and blob 2, which nothing refers to at the end. There was a pack before.
    fn new(seed: u64, keep_old: bool) -> World {
        let dir = tempfile::tempdir().unwrap();
        let media = Faulty::new(seed, None);
        let options = FileStorageOptions { pack_keep_old: keep_old, ..faulty_options(dir.path(), &media) };
        let storage = open_with(options).unwrap();
        let blob = |oid, serial, number| {
            commit_staged(&storage, stage(&storage, oid, serial, &data_of(number)).unwrap()).unwrap()
        };
        let mut root = commit(&storage, &[(0, Tid::ZERO, b"root ")]).unwrap();
        root = commit(&storage, &[(0, root, b"root ")]).unwrap();
        pack(&storage, root.to_unix() + 1e-5, &PackProgress::default(), &|| ()).unwrap();
        let first = blob(1, Tid::ZERO, 0);
        let second = blob(1, first, 1);
        let garbage = blob(2, Tid::ZERO, 2);
        root = commit(&storage, &[(0, root, b"root \x01\x02")]).unwrap();
        let last = commit(&storage, &[(0, root, b"root \x01")]).unwrap();
        let blobs = vec![(1, first), (1, second), (2, garbage)];
        let before = files(&media);
        World { dir, media, storage, time: last.to_unix() + 1e-5, blobs, before }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Commits a new blob.
    fn commit_blob(&self, oid: u64) -> Result<Tid> {
        commit_staged(&self.storage, stage(&self.storage, oid, Tid::ZERO, &data_of(3))?)
    }

    /// Packs, with a commit beside it, and cancels.
    fn pack(&self, at: At) -> (Result<()>, bool) {
        let progress = Arc::new(PackProgress::default());
        let records = AtomicUsize::new(0);
        let beside = || {
            let n = records.fetch_add(1, Ordering::Relaxed) + 1;
            if matches!(at, At::Record(wanted) if wanted == n) {
                progress.cancel();
            }
            if n == 1 {
                // It fails if the disk does.
                let _ = self.commit_blob(9);
            }
        };
        match at {
            At::Start => progress.cancel(),
            At::Call(n) => {
                let progress = Arc::clone(&progress);
                // In another thread, as a client would: the one that makes the call may hold any lock.
                let cancel = move || progress.cancel();
                self.media.call_at(n, || std::thread::spawn(cancel).join().expect("no panic"));
            }
            At::Never | At::Record(_) => {}
        }
        let packed = pack(&self.storage, self.time, &progress, &beside);
        (packed, progress.is_cancelled())
    }

    /// All is as before the pack, except for what was committed beside it, and for what the pack before has kept.
    fn check_unchanged(&self, what: &str) {
        let after = files(&self.media);
        let file = self.path("Data.fs");
        assert!(after[&file].starts_with(&self.before[&file]), "{what}: Data.fs");
        assert!(!after.contains_key(&self.path("Data.fs.pack")), "{what}: Data.fs.pack is left");
        assert!(!after.contains_key(&self.path("blobs/.removed")), "{what}: the list of blobs is left");
        for (number, (oid, tid)) in self.blobs.iter().enumerate() {
            assert_eq!(
                read(&self.storage, *oid, *tid).unwrap(),
                data_of(number as u64),
                "{what}: blob {oid}"
            );
        }
    }
}

fn pack(
    storage: &FileStorage,
    time: f64,
    progress: &PackProgress,
    beside: &(dyn Fn() + Sync + Send),
) -> Result<()> {
    let references = |record: &[u8], oids: &mut Vec<Oid>| {
        beside();
        if let Some(list) = record.strip_prefix(b"root ") {
            oids.extend(list.iter().map(|oid| Oid(u64::from(*oid))));
        }
        Ok(())
    };
    storage.pack(&PackRequest { time, gc: Some(true), references: &references, progress, removals: None })
}

/// Runs a pack that is cancelled then. Returns whether that had an effect; `None`: it did not come to that.
fn run(seed: u64, at: At, keep_old: bool) -> Option<bool> {
    let world = World::new(seed, keep_old);
    let what = format!("{at:?}, pack-keep-old {keep_old}");
    let (packed, was_cancelled) = world.pack(at);
    let has_effect = match packed {
        Ok(()) => {
            assert!(read(&world.storage, 1, world.blobs[0].1).is_err(), "{what}: packed");
            false
        }
        Err(StorageError::Refused { what: Refusal::PackCancelled, .. }) if was_cancelled => {
            world.check_unchanged(&what);
            // The next one is another pack.
            let (packed, _) = world.pack(At::Never);
            packed.unwrap_or_else(|error| panic!("{what}: the next pack: {error}"));
            true
        }
        Err(error) => panic!("{what}: {error}"),
    };
    world.commit_blob(7).unwrap_or_else(|error| panic!("{what}: {error}"));
    world.storage.close().unwrap();
    check_pack(world.dir.path(), &world.media.after_kill(), false, &what);
    was_cancelled.then_some(has_effect)
}

#[test]
fn cancelled_at_every_call_for_the_disk() {
    let (mut stopped, mut too_late) = (0, 0);
    for n in 1.. {
        let runs = [true, false].map(|keep_old| run(n, At::Call(n), keep_old));
        stopped += runs.iter().filter(|run| **run == Some(true)).count();
        too_late += runs.iter().filter(|run| **run == Some(false)).count();
        if runs == [None, None] {
            break;
        }
    }
    // Before the file is replaced, and after it.
    assert!(stopped > 20 && too_late > 20, "{stopped} and {too_late}");
}

#[test]
fn cancelled_at_every_record() {
    assert_eq!(run(1, At::Start, true), Some(true));
    let mut stopped = 0;
    for n in 1.. {
        match run(n as u64, At::Record(n), n % 2 == 0) {
            Some(has_effect) => stopped += usize::from(has_effect),
            None => break,
        }
    }
    assert!(stopped >= 3, "{stopped}");
}

#[test]
fn cancelled_and_then_killed_or_failing() {
    for n in 1.. {
        let mut came_to_it = false;
        for (seed, fault) in [Fault::Error, Fault::PowerCut].into_iter().enumerate() {
            for later in 0..6 {
                let world = World::new(n * 20 + later * 2 + seed as u64, n % 2 == 0);
                world.media.fail_at(n + later, fault);
                let (packed, was_cancelled) = world.pack(At::Call(n));
                came_to_it |= was_cancelled;
                let what =
                    format!("{fault:?} {later} calls after call {n}, at which it is cancelled: {packed:?}");
                let _ = world.storage.close();
                check_pack(world.dir.path(), &world.media.after_kill(), false, &what);
                check_pack(world.dir.path(), &world.media.after_power_cut(), true, &what);
            }
        }
        if !came_to_it {
            assert!(n > 20, "{n}");
            break;
        }
    }
}

/// It sleeps most of the time.
#[test]
fn a_slow_pack_is_cancelled_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path: &Path = &dir.path().join("Data.fs");
    let options = FileStorageOptions { pack_max_rate: Some(1), ..FileStorageOptions::new(path) };
    let storage = open_with(options).unwrap();
    let root = commit(&storage, &[(0, Tid::ZERO, b"root ")]).unwrap();
    let before = storage.size();
    let progress = PackProgress::default();
    std::thread::scope(|scope| {
        let packing = scope.spawn(|| pack(&storage, Tid::now().to_unix() + 1.0, &progress, &|| ()));
        while progress.total.load(Ordering::Relaxed) == 0 {
            std::thread::yield_now();
        }
        progress.cancel();
        match packing.join().expect("no panic") {
            Err(StorageError::Refused { what: Refusal::PackCancelled, .. }) => {}
            other => panic!("{other:?}"),
        }
    });
    assert_eq!(storage.size(), before);
    commit(&storage, &[(0, root, b"root ")]).unwrap();
}
