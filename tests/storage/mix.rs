//! Everything at once on a disk that fails, or loses power, at every single call in turn: stores, blobs, deletions,
//! undos, copies and packs. Acknowledged transactions are complete afterwards, for this server and for Python's
//! FileStorage.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::support::faulty::{Fault, Faulty};
use crate::support::pythons::python;
use crate::support::storage as helpers;
use crate::support::storage::{commit_staged, load, load_before, meta, open_with};
use runzeo::ids::{Oid, Tid};
use runzeo::internal::base::clock::ManualClock;
use runzeo::storage::file::{FileStorage, FileStorageOptions};
use runzeo::storage::prelude::*;
use runzeo::storage::{PackProgress, PackRequest, Result, Staged, StorageError};

/// A record that Python treats as a blob.
const BLOB_RECORD: &[u8] = b"\x80\x03cZODB.blob\nBlob\nq\x00.\x80\x03N.";

/// The state of an object after a transaction: its record, and its blob if it has one. `None`: it is gone.
type State = Option<(Vec<u8>, Option<Vec<u8>>)>;

/// An attempted transaction: its tid if it was acknowledged, and the new states of objects.
#[derive(Clone, Default)]
struct Tried {
    tid: Option<Tid>,
    objects: BTreeMap<u64, State>,
}

struct World {
    storage: FileStorage,
    tried: Vec<Tried>,
    /// Up to here a pack may have removed replaced revisions.
    packed: Tid,
    random: u64,
}

impl World {
    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    fn staged(&self, tid: Option<Tid>) -> Staged {
        Staged::new(meta("user", &self.tried.len().to_string()), tid, b' ', 1 << 16)
    }

    /// The state of an object after the acknowledged transactions up to `tid`.
    fn state(&self, oid: u64, tid: Tid) -> State {
        let before = self.tried.iter().filter(|tried| tried.tid.is_some_and(|t| t <= tid));
        before.filter_map(|tried| tried.objects.get(&oid)).next_back().cloned().flatten()
    }

    /// The serial, even of an object that is gone: a new store starts from it.
    fn serial(&self, oid: u64) -> Tid {
        let changes = self.tried.iter().filter(|tried| tried.objects.contains_key(&oid));
        changes.filter_map(|tried| tried.tid).next_back().unwrap_or(Tid::ZERO)
    }

    fn commit(&mut self, staged: Staged, objects: BTreeMap<u64, State>) {
        let tid = commit_staged(&self.storage, staged).ok();
        self.tried.push(Tried { tid, objects });
    }

    /// New states of some objects, of which number 6 and 7 have blobs.
    fn store(&mut self) {
        let mut staged = self.staged(None);
        let mut objects = BTreeMap::new();
        for oid in 0..8 {
            if self.random(3) == 0 {
                continue;
            }
            let fill = self.random(200) as u8 + 1;
            let len = [10, 300, 5000][self.random(3) as usize];
            let data = [vec![fill; len], vec![0; len / 2]].concat();
            if oid < 6 {
                staged.store(Oid(oid), self.serial(oid), &data).unwrap();
                objects.insert(oid, Some((data, None)));
                continue;
            }
            let upload = || -> Result<_> {
                let mut upload =
                    self.storage.blobs().and_then(|blobs| blobs.dir()).expect("it has one").begin()?;
                upload.write(&data).map_err(StorageError::io("test"))?;
                upload.end(Oid(oid))
            };
            let Ok(blob) = upload() else { return };
            staged.store_blob(Oid(oid), self.serial(oid), BLOB_RECORD, blob).unwrap();
            objects.insert(oid, Some((BLOB_RECORD.to_vec(), Some(data))));
        }
        self.commit(staged, objects);
    }

    fn delete(&mut self) {
        let oid = self.random(6);
        if self.state(oid, Tid::MAX).is_none() {
            return;
        }
        let mut staged = self.staged(None);
        staged.delete(Oid(oid), self.serial(oid)).unwrap();
        self.commit(staged, BTreeMap::from([(oid, None)]));
    }

    /// Undoes the last transaction.
    fn undo(&mut self) {
        let Some(Tried { tid: Some(last), objects }) = self.tried.iter().rfind(|t| t.tid.is_some()).cloned()
        else {
            return;
        };
        if last <= self.packed {
            return;
        }
        let mut staged = self.staged(None);
        staged.undo(last);
        let before = objects.into_keys().map(|oid| (oid, self.state(oid, Tid(last.0 - 1)))).collect();
        self.commit(staged, before);
    }

    /// Writes as copyTransactionsFrom does: a tid of its own, and a hint at equal data.
    fn restore(&mut self) {
        let oid = self.random(6);
        let tid = Tid(self.storage.last_transaction().0 + 1000);
        let state = self.state(oid, Tid::MAX);
        let prev = Some(self.serial(oid)).filter(|_| state.is_some());
        let mut staged = self.staged(Some(tid));
        staged.restore(Oid(oid), tid, state.as_ref().map(|(data, _)| data.as_slice()), prev).unwrap();
        self.commit(staged, BTreeMap::from([(oid, state)]));
    }

    fn pack(&mut self) {
        let last = self.storage.last_transaction();
        let refers_to_all = |_: &[u8], oids: &mut Vec<Oid>| {
            oids.extend((0..8).map(Oid).filter(|oid| self.storage.get_tid(*oid).is_ok()));
            Ok(())
        };
        let progress = PackProgress::default();
        let request = PackRequest {
            time: last.to_unix() + 1e-5,
            gc: Some(false),
            references: &refers_to_all,
            progress: &progress,
            removals: None,
        };
        let _ = self.storage.pack(&request);
        self.packed = self.packed.max(last);
    }
}

fn options(dir: &Path, media: &Faulty) -> FileStorageOptions {
    FileStorageOptions {
        media: Arc::new(media.clone()),
        clock: Arc::new(ManualClock::new(Tid(1 << 56))),
        blob_dir: Some(dir.join("blobs")),
        ..FileStorageOptions::new(dir.join("Data.fs"))
    }
}

/// The same work for the same seed, until the disk fails: returns the attempts, and the pack time.
fn run(dir: &Path, media: &Faulty, seed: u64) -> (Vec<Tried>, Tid) {
    let mut tried = Vec::new();
    let mut packed = Tid::ZERO;
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    // Closed and opened again in between.
    for _ in 0..2 {
        let Ok(storage) = open_with(options(dir, media)) else { break };
        let mut world = World { storage, tried, packed, random };
        for step in 0..9 {
            match world.random(9) {
                _ if step < 2 => world.store(),
                0..=2 => world.store(),
                3 => world.delete(),
                4 | 5 => world.undo(),
                6 => world.restore(),
                _ => world.pack(),
            }
        }
        let _ = world.storage.close();
        (tried, packed, random) = (world.tried, world.packed, world.random);
    }
    (tried, packed)
}

fn blob(storage: &FileStorage, oid: u64, tid: Tid) -> Result<Vec<u8>> {
    let blob = storage.blobs().unwrap().load_blob(Oid(oid), tid)?;
    let mut data = vec![0; blob.len as usize];
    blob.read_at(&mut data, 0).map_err(StorageError::io("test"))?;
    Ok(data)
}

/// Opens the remaining files and compares; returns what Python must see: the number of transactions and the last tid.
/// `None`: not known, because this or an earlier start has added a marker.
fn check(dir: &Path, media: &Faulty, (tried, packed): &(Vec<Tried>, Tid), what: &str) -> Option<String> {
    let storage = open_with(options(dir, media)).unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut found: BTreeMap<Tid, (usize, BTreeMap<u64, State>)> = BTreeMap::new();
    let (mut last, mut has_marker) = (Tid::ZERO, false);
    let mut it = storage.iterate(None, None).unwrap();
    while let Some(txn) = it.next_transaction().unwrap() {
        assert!(txn.tid > last, "{what}: tids grow");
        last = txn.tid;
        let Ok(number) = String::from_utf8(txn.meta.description).unwrap().parse() else {
            has_marker = true;
            continue;
        };
        let mut objects = BTreeMap::new();
        let mut records = it.records().unwrap();
        while let Some(record) = records.next_record().unwrap() {
            let oid = record.oid.0;
            let with_blob = |data: Vec<u8>| {
                let blob = (data == BLOB_RECORD)
                    .then(|| blob(&storage, oid, txn.tid).unwrap_or_else(|error| panic!("{what}: {error}")));
                (data, blob)
            };
            objects.insert(oid, record.data.map(with_blob));
        }
        found.insert(txn.tid, (number, objects));
    }
    // A marker is for clients that know a transaction that a pack has dropped.
    let is_dropped = |tid: Tid| tid <= *packed && !found.contains_key(&tid);
    assert!(!has_marker || tried.iter().filter_map(|tried| tried.tid).any(is_dropped), "{what}: a marker");
    for (tid, (number, objects)) in &found {
        let sent = &tried[*number].objects;
        let is_whole = if tid <= packed { objects.len() <= sent.len() } else { objects.len() == sent.len() };
        assert!(is_whole, "{what}: transaction {tid} has {} of {} objects", objects.len(), sent.len());
        for (oid, state) in objects {
            assert_eq!(Some(state), sent.get(oid), "{what}: object {oid} in transaction {tid}");
        }
    }
    let mut current: BTreeMap<u64, Vec<&State>> = BTreeMap::new();
    for Tried { tid, objects } in tried {
        if let Some(tid) = tid.filter(|tid| tid > packed) {
            assert!(found.contains_key(&tid), "{what}: transaction {tid} was acknowledged");
        }
        for (oid, state) in objects {
            let may_be = current.entry(*oid).or_default();
            if tid.is_some() {
                may_be.clear();
            }
            may_be.push(state);
        }
    }
    for (oid, may_be) in current {
        let state = match load(&storage, oid) {
            Ok((data, tid)) => {
                let blob = (data == BLOB_RECORD).then(|| blob(&storage, oid, tid).unwrap());
                Some((data, blob))
            }
            Err(StorageError::PosKey(_)) => None,
            Err(error) => panic!("{what}: object {oid}: {error}"),
        };
        let never_acknowledged = !tried.iter().any(|t| t.tid.is_some() && t.objects.contains_key(&oid));
        let is_known = may_be.contains(&&state) || (never_acknowledged && state.is_none());
        assert!(is_known, "{what}: object {oid} is none of what it may be");
    }
    // The storage continues to work.
    let serial = storage.get_tid(Oid(9)).unwrap_or(Tid::ZERO);
    let tid = helpers::commit(&storage, &[(9, serial, b"later")]).unwrap();
    assert!(tid > last, "{what}");
    assert_eq!(load_before(&storage, 9, Tid(tid.0 + 1)).unwrap().unwrap().0, b"later");
    storage.close().unwrap();
    (!has_marker).then(|| format!("{} {tid}", found.len() + 1))
}

/// Files to be checked by Python, all at once at the end, because starting it takes long.
struct ForPython {
    python: Option<PathBuf>,
    dir: tempfile::TempDir,
    expected: String,
    count: usize,
}

impl ForPython {
    fn new() -> ForPython {
        let python = python("zeo6-py311");
        ForPython { python, dir: tempfile::tempdir().unwrap(), expected: String::new(), count: 0 }
    }

    /// Adds the files after the failure (Python repairs them itself), and after this server's repair, with `seen`.
    fn add(&mut self, dir: &Path, before: Option<Vec<u8>>, after: &Faulty, seen: &str) {
        if self.python.is_none() {
            return;
        }
        self.count += 1;
        let repaired = after.bytes(&dir.join("Data.fs")).unwrap();
        let index = after.bytes(&dir.join("Data.fs.index")).unwrap();
        std::fs::write(self.dir.path().join(format!("{}.ours", self.count)), repaired).unwrap();
        std::fs::write(self.dir.path().join(format!("{}.ours.index", self.count)), index).unwrap();
        self.expected += &format!("{}.ours {seen}\n", self.count);
        // Python opens no file without its magic.
        if let Some(before) = before.filter(|bytes| bytes.len() > 4) {
            std::fs::write(self.dir.path().join(format!("{}.left", self.count)), before).unwrap();
            let count: usize = seen.split(' ').next().unwrap().parse().unwrap();
            self.expected += &format!("{}.left {}\n", self.count, count - 1);
        }
    }

    fn look(self) {
        let Some(python) = self.python else { return };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python-fixtures/data-fs/count.py");
        let output = Command::new(python).arg(script).arg(self.dir.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let sorted = |text: &str| {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&String::from_utf8(output.stdout).unwrap()), sorted(&self.expected));
    }
}

/// Number of seeds, more on request: `RUNZEO_CRASH_SEEDS=100`.
fn seeds() -> u64 {
    std::env::var("RUNZEO_CRASH_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(2)
}

#[test]
fn a_fault_at_every_call_of_everything() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut for_python = ForPython::new();
    let mut most = 0;
    for seed in 0..seeds() {
        for n in 1.. {
            let mut fired = false;
            for fault in [Fault::PowerCut, Fault::Error] {
                let media = Faulty::new(n * 100 + seed, Some((n, fault)));
                let result = run(dir, &media, seed);
                fired |= media.fired();
                let what = format!("{fault:?} at call {n}, seed {seed}");
                for (after, is_kill) in [(media.after_kill(), true), (media.after_power_cut(), false)] {
                    // Python cannot repair a tail that has its length but not its bytes.
                    let before = after.bytes(&dir.join("Data.fs")).filter(|_| is_kill);
                    let seen = check(dir, &after, &result, &what);
                    if let Some(seen) = seen.filter(|_| n % 17 == seed % 17) {
                        for_python.add(dir, before, &after, &seen);
                    }
                }
            }
            if !fired {
                most = most.max(n);
                break;
            }
        }
    }
    assert!(most > 100, "the workload makes {most} calls");
    for_python.look();
}

#[test]
fn the_workload_does_everything() {
    let dir = tempfile::tempdir().unwrap();
    let (mut has_packed, mut has_removed, mut has_undone) = (false, false, false);
    for seed in 0..seeds() {
        let media = Faulty::new(1, None);
        let (tried, packed) = run(dir.path(), &media, seed);
        assert!(tried.iter().all(|t| t.tid.is_some()), "seed {seed}");
        has_packed |= packed > Tid::ZERO;
        has_removed |= tried.iter().any(|t| t.objects.values().any(Option::is_none));
        // Only an undo restores the states of all objects of a transaction.
        has_undone |= tried.windows(3).any(|t| t[0].objects.len() > 1 && t[0].objects == t[2].objects);
        check(dir.path(), &media.after_kill(), &(tried, packed), &format!("seed {seed}"));
    }
    assert!(has_packed && has_removed && has_undone, "{has_packed} {has_removed} {has_undone}");
}
