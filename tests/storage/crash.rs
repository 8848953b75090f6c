//! The disk or the power fails at every single call in turn. Acknowledged transactions must be there afterwards,
//! complete; other ones must be complete or absent.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use crate::support::faulty::{Fault, Faulty};
use crate::support::storage as helpers;
use crate::support::storage::{load, load_before, meta};
use runzeo::ids::{Oid, Tid};
use runzeo::internal::base::clock::ManualClock;
use runzeo::storage::file::{FileStorage, FileStorageOptions};
use runzeo::storage::prelude::*;
use runzeo::storage::{Committed, Delivery, Publisher, Result, Staged, StorageError, Ticket, TidAt, Voted};

/// Transactions by the number in their description: the stored data.
type Stored = BTreeMap<u64, Vec<(u64, Vec<u8>)>>;

#[derive(Default)]
struct Seen {
    acknowledged: BTreeMap<u64, Tid>,
    failed: Vec<u64>,
    /// The last ones that were acknowledged need not be there.
    may_lack_last: bool,
}

/// Finishes two more transactions while the first of three is being published: they make a group.
struct Grouping {
    storage: OnceLock<Arc<FileStorage>>,
    next: Mutex<Vec<(Box<dyn Voted>, u64)>>,
    seen: Mutex<Seen>,
    done: std::sync::Condvar,
}

impl Publisher for Grouping {
    fn publish(&self, group: Vec<Committed>, install: &mut dyn FnMut()) -> Delivery {
        let next = std::mem::take(&mut *self.next.lock().unwrap());
        for (voted, number) in next {
            self.storage.get().unwrap().finish(voted, Box::new(number));
        }
        install();
        let mut seen = self.seen.lock().unwrap();
        for committed in group {
            seen.acknowledged.insert(*committed.ticket.downcast::<u64>().unwrap(), committed.tid);
        }
        self.done.notify_all();
        Box::new(|| ())
    }

    fn failed(&self, ticket: Ticket, _: StorageError) {
        self.seen.lock().unwrap().failed.push(*ticket.downcast::<u64>().unwrap());
        self.done.notify_all();
    }
}

fn options(path: &Path, media: &Faulty) -> FileStorageOptions {
    FileStorageOptions {
        media: Arc::new(media.clone()),
        clock: Arc::new(ManualClock::new(Tid(1 << 56))),
        ..FileStorageOptions::new(path)
    }
}

/// A transaction of several records: short ones, one with blocks of zeros, one longer than a block.
fn txn(number: u64, serials: &BTreeMap<u64, Tid>, spill: bool) -> (Staged, Vec<(u64, Vec<u8>)>) {
    let mut staged =
        Staged::new(meta("", &number.to_string()), None, b' ', if spill { 100 } else { 1 << 20 });
    let base = number % 3 * 10;
    let mut objects = vec![
        (base, format!("data of {number}").into_bytes()),
        (base + 1, vec![number as u8 + 1; 100 + 37 * number as usize]),
        (base + 2, [vec![1; 5000], vec![0; 9000], vec![2; 100]].concat()),
        (base + 3, vec![number as u8 + 1; 9000]),
    ];
    if number % 4 == 3 {
        objects.truncate(1);
    }
    for (oid, data) in &objects {
        staged.store(Oid(*oid), serials.get(oid).copied().unwrap_or(Tid::ZERO), data).unwrap();
    }
    (staged, objects)
}

/// Commits until a call fails. `Err`: the open failed.
fn run(path: &Path, media: &Faulty) -> Result<(Stored, Seen)> {
    run_on(Arc::new(FileStorage::open(options(path, media))?))
}

/// The same, and syncs are put off.
fn run_without_syncs(path: &Path, media: &Faulty) -> Result<(Stored, Seen)> {
    let storage = Arc::new(FileStorage::open(options(path, media))?);
    assert!(storage.sync_later());
    let (stored, mut seen) = run_on(storage)?;
    seen.may_lack_last = media.fired();
    Ok((stored, seen))
}

fn run_on(storage: Arc<FileStorage>) -> Result<(Stored, Seen)> {
    let publisher = Arc::new(Grouping {
        storage: OnceLock::new(),
        next: Mutex::default(),
        seen: Mutex::default(),
        done: std::sync::Condvar::new(),
    });
    let _ = publisher.storage.set(storage.clone());
    storage.set_publisher(publisher.clone());
    let mut stored = Stored::new();
    let mut serials = BTreeMap::new();
    for round in 0..4u64 {
        let mut voted = Vec::new();
        for number in round * 3..round * 3 + 3 {
            let (staged, objects) = txn(number, &serials, number % 5 == 4);
            match storage.vote(staged, TidAt::Finish) {
                Ok(v) => voted.push((v, number)),
                Err(_) => continue,
            }
            stored.insert(number, objects);
        }
        if voted.is_empty() {
            continue;
        }
        let numbers: Vec<u64> = voted.iter().map(|(_, number)| *number).collect();
        let (first, number) = voted.remove(0);
        *publisher.next.lock().unwrap() = voted;
        storage.finish(first, Box::new(number));
        // If the first failed, the others were not started.
        let rest = std::mem::take(&mut *publisher.next.lock().unwrap());
        for (voted, number) in rest {
            storage.finish(voted, Box::new(number));
        }
        let mut seen = publisher.seen.lock().unwrap();
        while numbers.iter().any(|n| !seen.acknowledged.contains_key(n) && !seen.failed.contains(n)) {
            seen = publisher.done.wait(seen).unwrap();
        }
        for (number, tid) in &seen.acknowledged {
            for (oid, _) in &stored[number] {
                serials.insert(*oid, (*tid).max(serials.get(oid).copied().unwrap_or(Tid::ZERO)));
            }
        }
    }
    let _ = storage.close();
    let seen = std::mem::take(&mut *publisher.seen.lock().unwrap());
    Ok((stored, seen))
}

/// Opens the remaining files and compares.
fn check(path: &Path, media: &Faulty, stored: &Stored, seen: &Seen, what: &str) {
    let storage = match FileStorage::open(options(path, media)) {
        Ok(storage) => storage,
        Err(error) => panic!("{what}: cannot be opened: {error}"),
    };
    let mut it = storage.iterate(None, None).unwrap();
    let mut found = BTreeMap::new();
    let mut last = Tid::ZERO;
    while let Some(t) = it.next_transaction().unwrap() {
        assert!(t.tid > last, "{what}: tids grow");
        last = t.tid;
        let number: u64 = String::from_utf8(t.meta.description).unwrap().parse().unwrap();
        let mut objects = Vec::new();
        let mut records = it.records().unwrap();
        while let Some(r) = records.next_record().unwrap() {
            objects.push((r.oid.0, r.data.unwrap()));
        }
        assert_eq!(Some(&objects), stored.get(&number), "{what}: transaction {number} is not whole");
        for (oid, data) in objects {
            let loaded = load_before(&storage, oid, Tid(t.tid.0 + 1)).unwrap().unwrap();
            assert_eq!((loaded.0, loaded.1), (data, t.tid), "{what}: object {oid} of {number}");
        }
        found.insert(number, t.tid);
    }
    for (number, tid) in seen.acknowledged.iter().filter(|(_, tid)| !seen.may_lack_last || **tid <= last) {
        assert_eq!(found.get(number), Some(tid), "{what}: transaction {number} was acknowledged");
    }
    // The storage continues to work.
    storage.set_publisher(Arc::new(helpers::Answers));
    let serial = load(&storage, 0).map_or(Tid::ZERO, |(_, serial)| serial);
    let tid = helpers::commit(&storage, &[(0, serial, b"later")]).unwrap();
    assert!(tid > last);
    storage.close().unwrap();
}

fn path(dir: &tempfile::TempDir) -> std::path::PathBuf {
    // The lock file is a real one; all else is in memory.
    dir.path().join("Data.fs")
}

/// Number of seeds, more on request: `RUNZEO_CRASH_SEEDS=1000`.
fn seeds() -> u64 {
    std::env::var("RUNZEO_CRASH_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(6)
}

#[test]
fn power_cut_at_every_call() {
    let dir = tempfile::tempdir().unwrap();
    let path = path(&dir);
    let mut n = 0;
    loop {
        n += 1;
        let mut fired = false;
        for seed in 0..seeds() {
            let mut media = Faulty::new(n * 100 + seed, Some((n, Fault::PowerCut)));
            if seed % 3 == 2 {
                media = media.without_reserve();
            }
            let (stored, seen) = run(&path, &media).unwrap_or_default();
            fired = media.fired();
            for again in 0..3 {
                let after = media.after_power_cut();
                check(&path, &after, &stored, &seen, &format!("power cut at call {n}, seed {seed}.{again}"));
            }
        }
        if !fired {
            break;
        }
    }
    assert!(n > 20, "the workload makes {n} calls");
}

/// A copy whose syncs are put off: what is there after a power cut are the first transactions, whole.
#[test]
fn power_cut_at_every_call_of_a_copy() {
    let dir = tempfile::tempdir().unwrap();
    let path = path(&dir);
    let (mut n, mut lacking) = (0, 0);
    loop {
        n += 1;
        let mut fired = false;
        for seed in 0..seeds() {
            let media = Faulty::new(n * 100 + seed, Some((n, Fault::PowerCut)));
            let (stored, seen) = run_without_syncs(&path, &media).unwrap_or_default();
            fired = media.fired();
            let after = media.after_power_cut();
            check(&path, &after, &stored, &seen, &format!("power cut at call {n}, seed {seed}"));
            lacking += usize::from(seen.may_lack_last && !seen.acknowledged.is_empty());
        }
        if !fired {
            break;
        }
    }
    assert!(n > 10 && lacking > 10, "the workload makes {n} calls, {lacking} cuts came after a commit");
}

#[test]
fn error_at_every_call() {
    let dir = tempfile::tempdir().unwrap();
    let path = path(&dir);
    for n in 1.. {
        let mut media = Faulty::new(n, Some((n, Fault::Error)));
        if n % 3 == 2 {
            media = media.without_reserve();
        }
        let (stored, seen) = run(&path, &media).unwrap_or_default();
        let what = format!("error at call {n}");
        // The process is killed, or the power is cut, some time after the error.
        check(&path, &media.after_kill(), &stored, &seen, &what);
        check(&path, &media.after_power_cut(), &stored, &seen, &what);
        if !media.fired() {
            break;
        }
    }
}

#[test]
fn killed_at_every_call() {
    let dir = tempfile::tempdir().unwrap();
    let path = path(&dir);
    for n in 1.. {
        let media = Faulty::new(n, Some((n, Fault::PowerCut)));
        let (stored, seen) = run(&path, &media).unwrap_or_default();
        check(&path, &media.after_kill(), &stored, &seen, &format!("killed at call {n}"));
        if !media.fired() {
            break;
        }
    }
}

#[test]
fn a_second_fault_during_recovery() {
    let dir = tempfile::tempdir().unwrap();
    let path = path(&dir);
    for n in (10..60).step_by(3) {
        let media = Faulty::new(n, Some((n, Fault::PowerCut)));
        let (stored, seen) = run(&path, &media).unwrap_or_default();
        for second in 1.. {
            let fault = if (n + second) % 3 == 0 { Fault::Error } else { Fault::PowerCut };
            let after = media.after_power_cut();
            after.fail_at(second, fault);
            let opened = FileStorage::open(options(&path, &after));
            drop(opened);
            let what = format!("power cut at call {n}, {fault:?} at {second} of recovery");
            check(&path, &after.after_power_cut(), &stored, &seen, &what);
            if !after.fired() {
                break;
            }
        }
    }
}

#[test]
fn a_failed_sync_is_final() {
    let dir = tempfile::tempdir().unwrap();
    let path = path(&dir);
    // Finds the call that is the sync of the first commit: the write before it must be done.
    for n in 1.. {
        let media = Faulty::new(n, Some((n, Fault::Error)));
        let Ok(storage) = FileStorage::open(options(&path, &media)) else { continue };
        storage.set_publisher(Arc::new(helpers::Answers));
        if media.fired() {
            continue;
        }
        let first = helpers::commit(&storage, &[(1, Tid::ZERO, b"x")]);
        assert!(media.fired() || first.is_ok());
        if storage.is_read_only() {
            assert!(first.is_err());
            assert!(matches!(
                helpers::commit(&storage, &[(2, Tid::ZERO, b"x")]),
                Err(StorageError::Closed(_))
            ));
            assert!(load(&storage, 1).is_err(), "nothing is published that is not durable");
            return;
        }
        // Any other failure affects only that transaction.
        helpers::commit(&storage, &[(2, Tid::ZERO, b"x")]).unwrap();
    }
}
