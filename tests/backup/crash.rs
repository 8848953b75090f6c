//! The power or the process ends at every single call of a backup, and of a restore. What was restorable stays so, and
//! the next run goes on.

use std::sync::Arc;

use crate::support::faulty::{Fault, Faulty};
use crate::support::storage::{commit, load, open_with};
use crate::world::{Heard, World, database};
use runzeo::ids::{Oid, Tid};
use runzeo::internal::backup::repozo::BackupOptions;
use runzeo::internal::storage::media::Media;
use runzeo::storage::file::{FileStorage, FileStorageOptions};
use runzeo::storage::prelude::*;

/// A way to end, and the disk that is found afterwards.
pub type End = (Fault, fn(&Faulty) -> Faulty);

pub const ENDS: [End; 3] = [
    (Fault::PowerCut, Faulty::after_power_cut),
    (Fault::PowerCut, Faulty::after_kill),
    (Fault::Error, Faulty::after_kill),
];

/// Runs a backup with a fault at each call in turn. `prepare` makes the repository as it is before.
fn stopped_everywhere(
    prepare: impl Fn(&World, &[u8], &[usize]),
    change: impl Fn(&mut BackupOptions) + Copy,
    allowed: impl Fn(&[u8], &[usize]) -> Vec<Vec<u8>>,
) {
    let (bytes, ends) = database(5);
    let allowed = allowed(&bytes, &ends);
    for (fault, after) in ENDS {
        for n in 1.. {
            let world = World::with(Faulty::new(n, None));
            prepare(&world, &bytes, &ends);
            world.source(&bytes);
            world.disk.fail_at(n, fault);
            let result = world.backup(change);
            if !world.disk.fired() {
                result.unwrap();
                assert!(n > 8, "only {n} calls");
                break;
            }
            let disk = after(&world.disk);
            let world = world.on(disk);
            let (restored, _) = world.restored(None).unwrap();
            assert!(allowed.contains(&restored), "call {n}: {} bytes are restored", restored.len());
            for quick in [true, false] {
                let heard = Heard::default();
                world.backup_telling(|o| o.quick = quick, &heard).unwrap();
                assert_eq!(heard.warnings.into_inner().unwrap(), [""; 0], "call {n}");
                assert_eq!(world.restored(None).unwrap().0, bytes);
            }
            let mut warnings = world.verified(false).unwrap().warnings.into_inner().unwrap();
            // A removal of an older chain that was stopped.
            warnings.retain(|warning| !warning.contains("has no line in"));
            assert!(warnings.is_empty(), "call {n}: {warnings:?}");
            let left: Vec<_> = world.names().into_iter().filter(|name| name.ends_with(".part")).collect();
            assert!(left.is_empty(), "call {n}: {left:?}");
        }
    }
}

fn with_a_chain(world: &World, bytes: &[u8], ends: &[usize]) {
    for end in &ends[2..4] {
        world.source(&bytes[..*end]);
        world.backup(|_| ()).unwrap();
    }
}

#[test]
fn a_stopped_delta_leaves_the_chain_or_lengthens_it() {
    for quick in [false, true] {
        stopped_everywhere(
            with_a_chain,
            |o| (o.quick, o.gzip) = (quick, quick),
            |bytes, ends| vec![bytes[..ends[3]].to_vec(), bytes.to_vec()],
        );
    }
}

#[test]
fn a_stopped_full_leaves_the_chain_or_begins_another() {
    for kill_old in [false, true] {
        stopped_everywhere(
            with_a_chain,
            |o| (o.full, o.kill_old) = (true, kill_old),
            |bytes, ends| vec![bytes[..ends[3]].to_vec(), bytes.to_vec()],
        );
    }
}

#[test]
fn a_stopped_mending_is_mended() {
    let prepare = |world: &World, bytes: &[u8], ends: &[usize]| {
        with_a_chain(world, bytes, ends);
        let (path, text) = world.dat();
        let second = text.lines().nth(1).unwrap().to_string();
        // A delta without a line, covered by the next one, and a third without a line.
        let covered = world.data()[1].clone();
        let hidden = world.bytes(&covered);
        world.disk.put(&path, text.lines().next().map(|line| format!("{line}\n")).unwrap().as_bytes());
        world.remove(&covered);
        world.source(&bytes[..ends[4]]);
        world.backup(|o| o.quick = true).unwrap();
        world.put(&covered, &hidden);
        assert!(!world.dat().1.contains(&second));
    };
    stopped_everywhere(
        prepare,
        |o| o.quick = true,
        |bytes, ends| vec![bytes[..ends[4]].to_vec(), bytes.to_vec()],
    );
}

#[test]
fn a_full_disk_leaves_everything_as_it_was() {
    let (bytes, ends) = database(5);
    let world = World::new();
    with_a_chain(&world, &bytes, &ends);
    world.source(&bytes);
    world.disk.put(&world.path("Restored.fs"), b"former");
    let names = world.disk.paths();
    world.disk.set_full(true);
    for (full, gzip) in [(false, false), (true, false), (false, true), (true, true)] {
        let error = world.backup(|o| (o.full, o.gzip) = (full, gzip)).map(|_| ()).unwrap_err().to_string();
        assert!(error.starts_with("writing "), "{error}");
        assert_eq!(world.disk.paths(), names);
    }
    let error = world.restore_to("Restored.fs").unwrap_err().to_string();
    assert!(error.starts_with("writing ") && error.contains("Restored.fs.part"), "{error}");
    assert_eq!(world.disk.paths(), names);
    world.disk.set_full(false);
    world.backup(|_| ()).unwrap();
    world.restore_to("Restored.fs").unwrap();
    assert_eq!(world.disk.bytes(&world.path("Restored.fs")).unwrap(), bytes);
}

fn options(world: &World) -> FileStorageOptions {
    FileStorageOptions {
        media: Arc::new(world.disk.clone()),
        ..FileStorageOptions::new(world.path("Data.fs"))
    }
}

/// The descriptions of all transactions, and the tid of the last.
fn history(storage: &FileStorage) -> (Vec<String>, Tid) {
    let (mut found, mut last) = (Vec::new(), Tid::ZERO);
    let mut all = storage.iterate(None, None).unwrap();
    while let Some(txn) = all.next_transaction().unwrap() {
        found.push(String::from_utf8_lossy(&txn.meta.description).into_owned());
        last = txn.tid;
    }
    (found, last)
}

/// A database whose last transaction is lost by a restore.
struct Lost {
    world: World,
    former: Vec<u8>,
    /// The transaction that the backup does not have.
    tid: Tid,
}

impl Lost {
    fn new(seed: u64, has_note: bool, has_index: bool) -> Lost {
        let world = World::with(Faulty::new(seed, None));
        let storage = open_with(options(&world)).unwrap();
        let first = commit(&storage, &[(0, Tid::ZERO, b"backed up")]).unwrap();
        storage.close().unwrap();
        world.backup(|_| ()).unwrap();
        let storage = open_with(options(&world)).unwrap();
        let tid = commit(&storage, &[(0, first, b"lost"), (7, Tid::ZERO, b"new")]).unwrap();
        storage.close().unwrap();
        if !has_note {
            // As Python's server leaves it.
            world.disk.put(&world.path("Data.fs.tmp"), b"");
        }
        if !has_index {
            world.disk.remove(&world.path("Data.fs.index")).unwrap();
            world.disk.sync_dir(world.dir.path()).unwrap();
        }
        let former = world.disk.bytes(&world.path("Data.fs")).unwrap();
        Lost { world, former, tid }
    }

    /// The former file is served, or the restored one with a marker that is later than all that clients can have seen,
    /// and with new object ids; then the former one is still there.
    fn check(&self, is_done: bool, call: &str) {
        let world = &self.world;
        let aside = world.disk.bytes(&world.path("Data.fs.before-restore"));
        let storage = match open_with(options(world)) {
            Ok(storage) => storage,
            // Without links there is a moment at which the name is free; no empty file is begun.
            Err(error) if !world.has_links && !is_done => {
                assert!(error.to_string().contains("is missing, but its index"), "{call}: {error}");
                assert!(aside.as_ref() == Some(&self.former), "{call}");
                return;
            }
            Err(error) => panic!("{call}: {error}"),
        };
        let (descriptions, last) = history(&storage);
        if load(&storage, 0).unwrap().0 == b"lost" {
            assert!(!is_done && last >= self.tid, "{call}");
        } else {
            assert_eq!(load(&storage, 0).unwrap().0, b"backed up");
            let is_marked = descriptions.iter().any(|text| text.starts_with("runzeo: "));
            assert!(is_marked && last > self.tid, "{call}: {descriptions:?}");
            assert!(storage.new_oids(1).unwrap()[0] > Oid(7 + (1 << 20)), "{call}");
            assert!(aside.as_ref() == Some(&self.former), "{call}");
        }
        storage.close().unwrap();
    }
}

fn restores_stopped_everywhere(has_links: bool, has_note: bool, has_index: bool) {
    for (fault, after) in ENDS {
        for n in 1.. {
            let mut lost = Lost::new(n, has_note, has_index);
            lost.world.has_links = has_links;
            lost.world.disk.fail_at(n, fault);
            let result = lost.world.restore_to("Data.fs");
            let call = format!("call {n}, note {has_note}, index {has_index}, {fault:?}");
            if !lost.world.disk.fired() {
                result.unwrap();
                lost.world.disk.fail_at(1 << 40, fault);
                assert!(n > 10 && !lost.world.disk.exists(&lost.world.path("Data.fs.part")));
                lost.check(true, &call);
                break;
            }
            lost.world.disk = after(&lost.world.disk);
            lost.check(false, &call);
        }
    }
}

#[test]
fn a_stopped_restore_leaves_the_former_file_or_the_restored_one() {
    for (has_note, has_index) in [(true, true), (false, true), (false, false)] {
        restores_stopped_everywhere(true, has_note, has_index);
    }
}

#[test]
fn a_stopped_restore_without_links_leaves_the_former_file_under_another_name() {
    for (has_note, has_index) in [(true, true), (false, false)] {
        restores_stopped_everywhere(false, has_note, has_index);
    }
}
