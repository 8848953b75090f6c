//! Packing: the result equals Python's byte for byte, unless Python loses objects; and operations during a pack.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::pythons::python;
use crate::support::storage::*;
use runzeo::ids::{Oid, Tid};
use runzeo::internal::pickle::refs::references;
use runzeo::storage::file::{FileStorage, FileStorageOptions};
use runzeo::storage::prelude::*;
use runzeo::storage::{
    PackPlan, PackProgress, PackRequest, References, Removals, Result, Staged, StorageError, TidAt,
};

pub fn pack(storage: &FileStorage, time: f64, gc: Option<bool>) -> Result<()> {
    pack_with(storage, time, gc, &references, None)
}

fn pack_with(
    storage: &FileStorage,
    time: f64,
    gc: Option<bool>,
    references: &References<'_>,
    removals: Option<&dyn Removals>,
) -> Result<()> {
    let progress = PackProgress::default();
    storage.pack(&PackRequest { time, gc, references, progress: &progress, removals })
}

pub fn now() -> f64 {
    Tid::now().to_unix() + 1.0
}

/// A record that refers to `oids` and has some text.
pub fn record(oids: &[u64], text: &str) -> Vec<u8> {
    let mut record = b"cm\nC\n.(".to_vec();
    for oid in oids {
        record.extend_from_slice(b"U\x08");
        record.extend_from_slice(&Oid(*oid).to_bytes());
        record.push(b'Q');
    }
    record.push(b'T');
    record.extend_from_slice(&(text.len() as u32).to_le_bytes());
    record.extend_from_slice(text.as_bytes());
    record.extend_from_slice(b"t.");
    record
}

/// The text of such a record.
pub fn text(record: &[u8]) -> &str {
    let at = record.iter().rposition(|&byte| byte == b'>').unwrap();
    std::str::from_utf8(&record[at + 1..record.len() - 2]).unwrap()
}

/// A directory in memory, if possible: syncs are not tested here and cost nothing there.
fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

#[test]
fn packs_to_the_same_bytes_as_python() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python-fixtures/data-fs/pack.py");
    let count = std::env::var("RUNZEO_PACK_FILES").unwrap_or("12".into());
    for (seed, name) in ["zeo6-py311", "zeo4-py27", "zodb310-py27"].into_iter().enumerate() {
        let Some(python) = python(name) else { continue };
        let mut compared = 0;
        let dir = in_memory();
        let output = Command::new(&python)
            .arg(&script)
            .arg(dir.path())
            .args([&(seed + 7).to_string(), &count])
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {stderr}", python.display());
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert!(stdout.lines().count() > 30);
        for line in stdout.lines() {
            let [number, time, gc, outcome] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{line}")
            };
            let path = dir.path().join(format!("{number}.before"));
            let before = std::fs::read(&path).unwrap();
            let storage = open(&path);
            let plan = planned(&path, time.parse().unwrap(), gc == "1");
            let packed = pack(&storage, time.parse().unwrap(), Some(gc == "1"));
            // The index has the same objects as a scan.
            let objects = storage.object_count();
            storage.close().unwrap();
            let ours = std::fs::read(&path).unwrap();
            check_plan(&plan, &packed, &before, &ours, objects, line);
            std::fs::remove_file(dir.path().join(format!("{number}.before.index"))).unwrap();
            let scanned = open(&path);
            assert_eq!(scanned.object_count(), objects, "{line}");
            scanned.close().unwrap();
            let pythons = std::fs::read(dir.path().join(format!("{number}.after"))).unwrap();
            let stop = Tid::from_unix(time.parse().unwrap());
            match (outcome, packed) {
                ("ok", Ok(())) if gc == "0" || !leads_back(&before, stop) => {
                    compared += 1;
                    assert!(
                        ours == pythons,
                        "{}: {line}: {} and {} bytes",
                        python.display(),
                        ours.len(),
                        pythons.len()
                    );
                }
                ("ok" | "KeyError" | "PackError" | "AssertionError", Ok(())) => {
                    assert_eq!(lost(&before, &ours, stop), [], "{line}");
                }
                ("KeyError", Err(StorageError::Missing(_))) => assert!(ours == before, "{line}"),
                (_, packed) => panic!("{}: {line}: {packed:?}", python.display()),
            }
            assert!(!dir.path().join(format!("{number}.before.pack")).exists(), "{line}");
        }
        assert!(compared > 5, "{name}: {compared} compared");
    }
}

/// The plan of a pack of the file, which another storage has open.
fn planned(path: &Path, time: f64, gc: bool) -> PackPlan {
    let options = FileStorageOptions { read_only: true, ..FileStorageOptions::new(path) };
    let progress = PackProgress::default();
    let request =
        PackRequest { time, gc: Some(gc), references: &references, progress: &progress, removals: None };
    open_with(options).unwrap().plan_pack(&request).unwrap()
}

/// What a plan says is what the pack then does.
fn check_plan(
    plan: &PackPlan,
    packed: &Result<()>,
    before: &[u8],
    after: &[u8],
    objects_after: u64,
    line: &str,
) {
    let dangling = plan.dangling.iter().map(|dangling| dangling.to).collect::<Vec<_>>();
    match packed {
        Ok(()) => assert_eq!(dangling, [], "{line}"),
        Err(StorageError::Missing(oid)) => {
            return assert!(dangling.contains(oid), "{line}: {oid} {dangling:?}");
        }
        Err(error) => panic!("{line}: {error}"),
    }
    let [before_len, after_len] = [before, after].map(|bytes| bytes.len() as u64);
    assert_eq!((plan.size, plan.size_after), (before_len, after_len), "{line}: {plan:?}");
    assert_eq!(plan.objects.before - plan.objects.removed, objects_after, "{line}: {plan:?}");
    let [before, after] = [before, after].map(records_of);
    let counts = |all: &[(Tid, Vec<_>)]| {
        let records: usize = all.iter().map(|(_, records)| records.len()).sum();
        [all.len() as u64, records as u64]
    };
    let removals = [plan.transactions, plan.revisions];
    assert_eq!(removals.map(|removal| removal.before), counts(&before), "{line}");
    assert_eq!(removals.map(|removal| removal.before - removal.removed), counts(&after), "{line}");
}

/// Data; `None` for an object that is gone.
type Data = Option<Vec<u8>>;

/// All records of a file, by transaction.
fn records_of(bytes: &[u8]) -> Vec<(Tid, Vec<(Oid, Data)>)> {
    let dir = in_memory();
    let path = dir.path().join("Data.fs");
    std::fs::write(&path, bytes).unwrap();
    let storage = open(&path);
    let mut transactions = storage.iterate(None, None).unwrap();
    let mut all = Vec::new();
    while let Some(txn) = transactions.next_transaction().unwrap() {
        let tid = txn.tid;
        let mut records = transactions.records().unwrap();
        let mut list = Vec::new();
        while let Some(record) = records.next_record().unwrap() {
            list.push((record.oid, record.data.map(|data| data.to_vec())));
        }
        all.push((tid, list));
    }
    all
}

fn references_of(data: &[u8]) -> Vec<Oid> {
    let mut oids = Vec::new();
    references(data, &mut oids).unwrap();
    oids
}

/// Whether a later record than `stop` refers to an object that was garbage then, or to a former revision: there Python
/// loses objects.
fn leads_back(bytes: &[u8], stop: Tid) -> bool {
    let mut then: HashMap<Oid, Data> = Default::default();
    let mut former: HashSet<(Oid, Data)> = Default::default();
    let mut reachable: Option<BTreeSet<Oid>> = None;
    for (tid, records) in records_of(bytes) {
        if tid <= stop {
            former.extend(records.iter().cloned());
            then.extend(records);
            continue;
        }
        let reachable = reachable.get_or_insert_with(|| reached(&then));
        for (oid, data) in records {
            let Some(data) = data else { continue };
            let is_former = former.contains(&(oid, Some(data.clone())));
            // Also to an object whose creation was undone: it has a record, which is kept then.
            let to_garbage = |to: &Oid| then.contains_key(to) && !reachable.contains(to);
            if is_former || references_of(&data).iter().any(to_garbage) {
                return true;
            }
        }
    }
    false
}

fn reached(objects: &HashMap<Oid, Data>) -> BTreeSet<Oid> {
    let mut reached = BTreeSet::new();
    let mut todo = vec![Oid(0)];
    while let Some(oid) = todo.pop() {
        if let Some(Some(data)) = objects.get(&oid)
            && reached.insert(oid)
        {
            todo.extend(references_of(data));
        }
    }
    reached
}

/// The objects as they are at `stop`, and at the end of each later transaction.
fn states_from(bytes: &[u8], stop: Tid) -> Vec<(Tid, HashMap<Oid, Data>)> {
    let mut states = vec![(stop, HashMap::new())];
    for (tid, records) in records_of(bytes) {
        let (_, last) = states.last().unwrap();
        if tid > stop {
            states.push((tid, last.clone()));
        }
        states.last_mut().unwrap().1.extend(records);
    }
    states
}

/// Objects that were reachable from `stop` on in the file `before`, and are not the same in `after`.
fn lost(before: &[u8], after: &[u8], stop: Tid) -> Vec<(Tid, Oid)> {
    let (before, after) = (states_from(before, stop), states_from(after, stop));
    let tids = |states: &[(Tid, HashMap<Oid, Data>)]| states.iter().map(|(tid, _)| *tid).collect::<Vec<_>>();
    assert_eq!(tids(&before), tids(&after), "later transactions");
    let mut lost = Vec::new();
    for ((tid, before), (_, after)) in before.iter().zip(&after) {
        lost.extend(
            reached(before)
                .into_iter()
                .filter(|oid| Some(&before[oid]) != after.get(oid))
                .map(|oid| (*tid, oid)),
        );
    }
    lost
}

/// The calls of [`Removals`].
#[derive(Default)]
struct Removed {
    left_out: Mutex<Vec<(u64, Option<Tid>, String)>>,
    packed: AtomicBool,
}

impl Removals for Removed {
    fn left_out(&self, oid: Oid, tid: Option<Tid>, data: &[u8]) -> Result<()> {
        self.left_out.lock().unwrap().push((oid.0, tid, text(data).into()));
        Ok(())
    }

    fn packed(&self) -> Result<()> {
        self.packed.store(true, Ordering::Relaxed);
        Ok(())
    }
}

#[test]
fn who_keeps_something_beside_the_records_hears_what_is_removed() {
    let dir = in_memory();
    let storage = open(&dir.path().join("Data.fs"));
    let (root, one, two) = (record(&[1], ">root"), record(&[], ">one"), record(&[], ">two"));
    let t1 = commit(&storage, &[(0, Tid::ZERO, &root), (1, Tid::ZERO, &one), (2, Tid::ZERO, &two)]).unwrap();
    let new = record(&[], ">one again");
    commit(&storage, &[(1, t1, &new)]).unwrap();
    let removed = Removed::default();
    pack_with(&storage, now(), None, &references, Some(&removed)).unwrap();
    let left_out = removed.left_out.into_inner().unwrap();
    assert_eq!(left_out, [(1, Some(t1), "one".into()), (2, None, "two".into())]);
    assert!(removed.packed.load(Ordering::Relaxed));
    // Nothing more to remove: the pack does nothing.
    let removed = Removed::default();
    pack_with(&storage, now(), None, &references, Some(&removed)).unwrap();
    assert!(removed.left_out.lock().unwrap().is_empty() && !removed.packed.load(Ordering::Relaxed));
}

#[test]
fn what_cannot_be_packed_is_refused_as_python_does() {
    let dir = in_memory();
    let path = dir.path().join("Data.fs");
    let storage = open(&path);
    // An empty storage: the pack does nothing.
    pack(&storage, now(), None).unwrap();
    let refused = |result: Result<()>| match result {
        Err(StorageError::Refused { what, message }) => format!("{what:?}: {message}"),
        other => panic!("{other:?}"),
    };
    let t1 =
        commit(&storage, &[(0, Tid::ZERO, &record(&[1], ">a")), (1, Tid::ZERO, &record(&[], ">b"))]).unwrap();
    assert!(refused(pack(&storage, f64::NAN, None)).starts_with("PackTimeRange"));
    assert!(refused(pack(&storage, -1e12, None)).starts_with("PackTimeRange"));
    let again = |_: &[u8], _: &mut Vec<Oid>| {
        assert_eq!(refused(pack(&storage, now(), None)), "PackRunning: Already packing");
        Ok(())
    };
    pack_with(&storage, now(), None, &again, None).unwrap();
    // An invalid record.
    commit(&storage, &[(0, t1, b"PQ")]).unwrap();
    assert!(refused(pack(&storage, now(), None)).contains("object 0x0000000000000000"));
    pack(&storage, now(), Some(false)).unwrap();
    assert!(!path.with_extension("fs.pack").exists());
    storage.close().unwrap();
    assert!(matches!(pack(&storage, now(), None), Err(StorageError::Closed(_))));
    let options = FileStorageOptions { read_only: true, ..FileStorageOptions::new(&path) };
    assert!(matches!(pack(&open_with(options).unwrap(), now(), None), Err(StorageError::ReadOnly)));
}

#[test]
fn the_files_beside_it() {
    let dir = in_memory();
    let path = dir.path().join("Data.fs");
    let beside = |suffix: &str| dir.path().join(format!("Data.fs{suffix}"));
    let open_keeping = |keep: bool| {
        open_with(FileStorageOptions { pack_keep_old: keep, ..FileStorageOptions::new(&path) }).unwrap()
    };
    let storage = open_keeping(true);
    let root = record(&[], ">1");
    let t1 = commit(&storage, &[(0, Tid::ZERO, &root)]).unwrap();
    let t2 = commit(&storage, &[(0, t1, &root)]).unwrap();
    // Left by an earlier pack that was interrupted.
    std::fs::write(beside(".pack"), [1; 10_000]).unwrap();
    std::fs::write(beside(".old"), b"older").unwrap();
    let before = std::fs::read(&path).unwrap();
    pack(&storage, now(), None).unwrap();
    assert!(std::fs::read(beside(".old")).unwrap() == before);
    assert!(!beside(".pack").exists() && beside(".index").exists());
    assert_eq!(storage.size(), std::fs::metadata(&path).unwrap().len());
    storage.close().unwrap();

    let storage = open_keeping(false);
    assert!(storage.used_index());
    let t3 = commit(&storage, &[(0, t2, &root)]).unwrap();
    pack(&storage, now(), None).unwrap();
    assert!(!beside(".old").exists() && !beside(".pack").exists());
    storage.close().unwrap();

    // Python was killed between its two renames.
    let good = std::fs::read(&path).unwrap();
    std::fs::rename(&path, beside(".old")).unwrap();
    std::fs::write(beside(".pack"), b"FS30").unwrap();
    std::fs::write(beside(".tmp"), b"").unwrap();
    let storage = open_keeping(true);
    assert_eq!(load(&storage, 0).unwrap().1, t3);
    storage.close().unwrap();
    assert!(std::fs::read(&path).unwrap() == good && !beside(".old").exists());
}

/// A transaction that restores a record as a back-pointer is voted, a pack removes or moves the record that it would
/// point to, and then it is finished.
#[test]
fn back_pointers_that_were_voted_before_a_pack() {
    for kept in [true, false] {
        let dir = in_memory();
        let path = dir.path().join("Data.fs");
        let storage = open(&path);
        let datas = [">0", ">1", ">2"].map(|text| record(&[], text));
        let mut tids = vec![Tid::ZERO];
        for data in &datas {
            let other = record(&[], ">other");
            let last = *tids.last().unwrap();
            let tid = commit(&storage, &[(0, last, data), (5, last, &other)]).unwrap();
            tids.push(tid);
            // A pack time is less exact than a tid.
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let tid = Tid(Tid::now().0 + (1 << 34));
        let mut txn = Staged::new(meta("", ""), Some(tid), b' ', 1 << 20);
        let to = if kept { 2 } else { 1 };
        txn.restore(Oid(0), tid, Some(&datas[to - 1]), Some(tids[to])).unwrap();
        txn.restore(Oid(5), tid, Some(&record(&[], ">longer than before")), None).unwrap();
        let voted = storage.vote(txn, TidAt::Vote).unwrap();
        // The second revision stays, the first one goes.
        pack(&storage, tids[2].to_unix() + 1e-5, Some(false)).unwrap();
        let (answer, from) = std::sync::mpsc::channel::<Outcome>();
        storage.finish(voted, Box::new(answer));
        assert!(matches!(from.recv().unwrap(), Outcome::Done { .. }));
        let check = |storage: &FileStorage| {
            assert_eq!(load(storage, 0).unwrap(), (datas[to - 1].clone(), tid));
            assert_eq!(text(&load(storage, 5).unwrap().0), "longer than before");
            assert_eq!(load_before(storage, 0, tid).unwrap().unwrap().0, datas[2]);
            let mut it = storage.iterate(Some(tid), None).unwrap();
            it.next_transaction().unwrap().unwrap();
            let first = it.records().unwrap().next_record().unwrap().unwrap();
            assert_eq!(first.data_txn, kept.then_some(tids[2]));
        };
        check(&storage);
        storage.close().unwrap();
        std::fs::remove_file(dir.path().join("Data.fs.index")).unwrap();
        check(&open(&path));
    }
}

/// An iterator that its client had forgotten kept the old file of each pack on the disk.
#[test]
fn iterators_over_files_that_were_packed_long_ago_are_ended() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&dir.path().join("Data.fs"));
    let mut serial = commit(&storage, &[(1, Tid::ZERO, b"first"), (0, Tid::ZERO, b"root")]).unwrap();
    let mut iterators: Vec<_> = Vec::new();
    for n in 0..4u8 {
        iterators.push(storage.iterate(None, None).unwrap());
        iterators.last_mut().unwrap().next_transaction().unwrap().expect("a transaction");
        serial = commit(&storage, &[(1, serial, &[n])]).unwrap();
        let references = |_: &[u8], _: &mut Vec<Oid>| Ok(());
        let progress = PackProgress::default();
        let time = serial.to_unix() + 0.001;
        let request = PackRequest {
            time,
            gc: Some(false),
            references: &references,
            progress: &progress,
            removals: None,
        };
        storage.pack(&request).unwrap();
    }
    let files = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| {
        let path = std::fs::read_link(entry.ok()?.path()).ok()?;
        (path.starts_with(dir.path()) && path.to_string_lossy().ends_with("(deleted)")).then_some(path)
    });
    assert!(files.count() <= 4, "two files, each perhaps opened twice");
    for (n, iterator) in iterators.iter_mut().enumerate() {
        let records = iterator.records().unwrap().next_record();
        match n {
            0 | 1 => assert!(matches!(records, Err(StorageError::Refused { .. })), "{n}"),
            _ => assert!(records.unwrap().is_some(), "{n}"),
        }
    }
}
