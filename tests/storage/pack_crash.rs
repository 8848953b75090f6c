//! The disk or the power fails at every single call of packs with commits beside them. Afterwards the file is complete,
//! the old one or the new one, and has every acknowledged transaction that a pack had to keep.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::support::faulty::{Fault, Faulty};
use crate::support::storage::*;
use runzeo::ids::{Oid, Tid};
use runzeo::internal::base::clock::ManualClock;
use runzeo::internal::storage::media::Media;
use runzeo::storage::file::{FileStorage, FileStorageOptions};
use runzeo::storage::prelude::*;
use runzeo::storage::{PackProgress, PackRequest, Result, Staged, StorageError, TidAt};

/// The attempts in order: the tid if it was acknowledged, and the stored data.
type Tried = Vec<(Option<Tid>, BTreeMap<u64, Vec<u8>>)>;

/// Objects from this one on have no references to them.
const GARBAGE: u64 = 5;

/// Begins with the oids that it refers to, up to a zero byte.
fn data(refs: &[u8], fill: u8, len: usize) -> Vec<u8> {
    [refs, &[0], &vec![fill; len][..]].concat()
}

fn references(record: &[u8], oids: &mut Vec<Oid>) -> std::result::Result<(), String> {
    oids.extend(record.iter().take_while(|&&oid| oid != 0).map(|&oid| Oid(oid.into())));
    Ok(())
}

fn options(path: &Path, media: &Faulty, keep_old: bool) -> FileStorageOptions {
    FileStorageOptions {
        media: Arc::new(media.clone()),
        clock: Arc::new(ManualClock::new(Tid(1 << 56))),
        pack_keep_old: keep_old,
        ..FileStorageOptions::new(path)
    }
}

/// Commits, and records the outcome.
struct Committer<'a> {
    storage: &'a FileStorage,
    tried: Mutex<Tried>,
}

impl Committer<'_> {
    fn staged(&self, objects: &BTreeMap<u64, Vec<u8>>) -> Staged {
        let mut staged = staged();
        for (&oid, data) in objects {
            let serial = self.storage.get_tid(Oid(oid)).unwrap_or(Tid::ZERO);
            staged.store(Oid(oid), serial, data).unwrap();
        }
        staged
    }

    fn commit(&self, objects: &[(u64, Vec<u8>)]) {
        let objects: BTreeMap<_, _> = objects.iter().cloned().collect();
        let tid = commit_staged(self.storage, self.staged(&objects)).ok();
        self.tried.lock().unwrap().push((tid, objects));
    }

    fn last(&self) -> Tid {
        self.tried.lock().unwrap().iter().filter_map(|(tid, _)| *tid).next_back().unwrap_or(Tid::ZERO)
    }
}

/// Two packs, each with commits before, during and after it. Also returns the latest pack time.
fn run(path: &Path, media: &Faulty, keep_old: bool) -> Result<(Tried, Tid)> {
    let storage = Arc::new(open_with(options(path, media, keep_old))?);
    let committer = Committer { storage: &storage, tried: Mutex::default() };
    let mut stop = Tid::ZERO;
    committer.commit(&[(0, data(&[1, 2, 3, 4], 1, 40)), (1, data(&[], 1, 9000)), (2, data(&[3], 1, 50))]);
    committer.commit(&[(3, data(&[], 1, 70)), (4, data(&[1], 1, 100)), (GARBAGE, data(&[1], 1, 5000))]);
    for round in 0..2u8 {
        let fill = 10 * round + 2;
        committer.commit(&[(1, [data(&[], fill, 4000), vec![0; 9000]].concat()), (3, data(&[], fill, 70))]);
        committer.commit(&[(1, data(&[2], fill, 300))]);
        let last = committer.last();
        committer.commit(&[(2, data(&[3], fill, 3))]);
        // Voted before the pack, finished after it; a restored one that points back.
        let objects =
            BTreeMap::from([(3, data(&[], fill + 1, 60)), (6 + u64::from(round), data(&[], fill, 10))]);
        let voted = storage.vote(committer.staged(&objects), TidAt::Finish);
        stop = stop.max(last);
        let count = Mutex::new(0);
        let meanwhile = |record: &[u8], oids: &mut Vec<Oid>| {
            let n = std::mem::replace(&mut *count.lock().unwrap(), 100);
            if n == 0 {
                committer.commit(&[(2, data(&[4], fill + 2, 20)), (4, data(&[], fill + 2, 10_000))]);
            }
            references(record, oids)
        };
        let progress = PackProgress::default();
        let request = PackRequest {
            time: last.to_unix() + 1e-5,
            gc: None,
            references: &meanwhile,
            progress: &progress,
            removals: None,
        };
        let _ = storage.pack(&request);
        if let Ok(voted) = voted {
            let (to, from) = std::sync::mpsc::channel::<Outcome>();
            storage.finish(voted, Box::new(to));
            let tid = match from.recv() {
                Ok(Outcome::Done { tid, .. }) => Some(tid),
                _ => None,
            };
            committer.tried.lock().unwrap().push((tid, objects));
        }
        committer.commit(&[(4, data(&[3], fill + 3, 30))]);
    }
    let _ = storage.close();
    Ok((committer.tried.into_inner().unwrap(), stop))
}

fn check(path: &Path, media: &Faulty, (tried, stop): &(Tried, Tid), what: &str) {
    let storage = match open_with(options(path, media, true)) {
        Ok(storage) => storage,
        Err(error) => panic!("{what}: cannot be opened: {error}"),
    };
    let mut found = BTreeMap::new();
    let mut it = storage.iterate(None, None).unwrap();
    while let Some(txn) = it.next_transaction().unwrap() {
        let mut records = it.records().unwrap();
        while let Some(record) = records.next_record().unwrap() {
            found.insert((txn.tid, record.oid.0), record.data.unwrap());
        }
    }
    let mut current: BTreeMap<u64, Vec<&Vec<u8>>> = BTreeMap::new();
    for (tid, objects) in tried {
        for (&oid, data) in objects {
            let may_be = current.entry(oid).or_default();
            if tid.is_some() {
                may_be.clear();
            }
            may_be.push(data);
            if let Some(tid) = tid.filter(|tid| tid > stop) {
                assert_eq!(found.get(&(tid, oid)), Some(data), "{what}: object {oid} of {tid}");
            }
        }
        if let Some(tid) = tid {
            assert!(storage.last_transaction() >= *tid || tid <= stop, "{what}: {tid} was acknowledged");
        }
    }
    for (oid, may_be) in current {
        let acknowledged = tried.iter().any(|(tid, objects)| tid.is_some() && objects.contains_key(&oid));
        match load(&storage, oid) {
            Ok((data, _)) => assert!(may_be.contains(&&data), "{what}: object {oid}"),
            Err(StorageError::PosKey(_)) if oid >= GARBAGE || !acknowledged => {}
            Err(error) => panic!("{what}: object {oid}: {error}"),
        }
    }
    // The storage continues to work, and the index matches the file.
    let serial = load(&storage, 0).map_or(Tid::ZERO, |(_, serial)| serial);
    commit(&storage, &[(0, serial, b"\0later")]).unwrap();
    let oid = storage.new_oids(1).unwrap_or_else(|error| panic!("{what}: {error}"))[0];
    assert!(tried.iter().all(|(tid, objects)| tid.is_none() || objects.keys().all(|&used| used < oid.0)));
    storage.close().unwrap();
    let with_index = open_with(options(path, media, true)).unwrap();
    let objects = |storage: &FileStorage| {
        (0..20).map(|oid| format!("{oid} {:?}\n", load(storage, oid))).collect::<String>()
    };
    assert!(with_index.used_index() || with_index.size() < 500, "{what}");
    let by_index = format!("{} {}", with_index.object_count(), objects(&with_index));
    with_index.close().unwrap();
    media.remove(&index_of(path)).unwrap();
    let scanned = open_with(options(path, media, true)).unwrap();
    assert_eq!(by_index, format!("{} {}", scanned.object_count(), objects(&scanned)), "{what}");
    scanned.close().unwrap();
}

fn index_of(path: &Path) -> PathBuf {
    path.with_file_name("Data.fs.index")
}

fn path(dir: &tempfile::TempDir) -> PathBuf {
    // The lock file is a real one; all else is in memory.
    dir.path().join("Data.fs")
}

/// Number of seeds, more on request: `RUNZEO_CRASH_SEEDS=1000`.
fn seeds() -> u64 {
    std::env::var("RUNZEO_CRASH_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(4)
}

#[test]
fn power_cut_or_kill_at_every_call() {
    let dir = tempfile::tempdir().unwrap();
    let path = path(&dir);
    for n in 1.. {
        let mut fired = false;
        for seed in 0..seeds() {
            let media = Faulty::new(n * 100 + seed, Some((n, Fault::PowerCut)));
            let result = run(&path, &media, seed % 2 == 0).unwrap_or_default();
            fired = media.fired();
            check(&path, &media.after_kill(), &result, &format!("killed at call {n}, seed {seed}"));
            for again in 0..2 {
                let after = media.after_power_cut();
                check(&path, &after, &result, &format!("power cut at call {n}, seed {seed}.{again}"));
            }
        }
        if !fired {
            assert!(n > 80, "the workload makes {n} calls");
            break;
        }
    }
}

#[test]
fn error_at_every_call() {
    let dir = tempfile::tempdir().unwrap();
    let path = path(&dir);
    for n in 1.. {
        let media = Faulty::new(n, Some((n, Fault::Error)));
        let result = run(&path, &media, n % 2 == 0).unwrap_or_default();
        let what = format!("error at call {n}");
        // The process is killed, or the power is cut, some time after the error.
        check(&path, &media.after_kill(), &result, &what);
        check(&path, &media.after_power_cut(), &result, &what);
        if !media.fired() {
            break;
        }
    }
}
