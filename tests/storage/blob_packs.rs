//! Packs of a storage with blobs: which blobs are taken out, when, and what remains after a failure of the disk.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use crate::blobs::{data_of, faulty_options, files, open, options, read, stage};
use crate::support::faulty::{Fault, Faulty};
use crate::support::storage as helpers;
use crate::support::storage::commit_staged;
use runzeo::ids::{Oid, Tid};
use runzeo::storage::file::{FileStorage, FileStorageOptions};
use runzeo::storage::prelude::*;
use runzeo::storage::{PackRequest, Result, StorageError};

/// A pack as the server requests it: these records have no references to each other, the root refers to all.
fn pack(storage: &FileStorage, time: f64, gc: bool) -> Result<()> {
    pack_beside(storage, time, gc, &|| ())
}

/// The same; `beside` is called during the pack.
fn pack_beside(storage: &FileStorage, time: f64, gc: bool, beside: &(dyn Fn() + Sync)) -> Result<()> {
    with_request(time, gc, beside, |request| storage.pack(request))
}

/// Calls `run` with such a request.
fn with_request<T>(
    time: f64,
    gc: bool,
    beside: &(dyn Fn() + Sync),
    run: impl FnOnce(&PackRequest<'_>) -> T,
) -> T {
    let references = |record: &[u8], oids: &mut Vec<Oid>| {
        beside();
        if let Some(list) = record.strip_prefix(b"root ") {
            oids.extend(list.iter().map(|oid| Oid(u64::from(*oid))));
        }
        Ok(())
    };
    let progress = runzeo::storage::PackProgress::default();
    run(&PackRequest { time, gc: Some(gc), references: &references, progress: &progress, removals: None })
}

#[test]
fn a_pack_takes_out_the_blobs_that_it_leaves_out() {
    for keep_old in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let options = FileStorageOptions { pack_keep_old: keep_old, ..options(dir.path()) };
        let storage = helpers::open_with(options.clone()).unwrap();
        let blobs = Arc::clone(storage.blobs().unwrap().dir().unwrap());
        let root = helpers::commit(&storage, &[(0, Tid::ZERO, b"root \x01\x02")]).unwrap();
        let first = commit_staged(&storage, stage(&storage, 1, Tid::ZERO, b"first").unwrap()).unwrap();
        let second = commit_staged(&storage, stage(&storage, 1, first, b"second").unwrap()).unwrap();
        let garbage = commit_staged(&storage, stage(&storage, 2, Tid::ZERO, b"garbage").unwrap()).unwrap();
        helpers::commit(&storage, &[(0, root, b"root \x01")]).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(10));
        let plan_of = |time: f64, gc: bool| {
            let plan = with_request(time, gc, &|| (), |request| storage.plan_pack(request)).unwrap();
            (plan.blobs, plan.blob_bytes)
        };
        let now = Tid::now().to_unix() + 1.0;
        let plans = [plan_of(first.to_unix(), true), plan_of(now, true), plan_of(now, false)];
        assert_eq!(plans, [(0, 0), (2, 5 + 7), (1, 5)]);
        pack(&storage, now, true).unwrap();

        assert_eq!(read(&storage, 1, second).unwrap(), b"second");
        assert!(!blobs.path(Oid(1), first).exists() && !blobs.oid_dir(Oid(2)).exists());
        assert!(!blobs.base().join(".removed").exists());
        let old = dir.path().join("blobs.old");
        let in_old = |oid, tid| old.join(blobs.path(Oid(oid), tid).strip_prefix(blobs.base()).unwrap());
        if keep_old {
            // Together with Data.fs.old, it is the whole former storage.
            let expected = [old.join(".layout"), in_old(1, first), in_old(1, second), in_old(2, garbage)];
            assert_eq!(files(&old), expected);
        } else {
            assert!(!old.exists());
        }
        // The next pack first removes this.
        let third = commit_staged(&storage, stage(&storage, 1, second, b"third").unwrap()).unwrap();
        pack(&storage, Tid::now().to_unix() + 1.0, true).unwrap();
        assert_eq!(read(&storage, 1, third).unwrap(), b"third");
        if keep_old {
            assert_eq!(files(&old), [old.join(".layout"), in_old(1, second), in_old(1, third)]);
        }
        storage.close().unwrap();
        drop(storage);

        // After a crash during the pack, blobs that are listed and not in the storage are removed at the next start.
        let gone = blobs.path(Oid(2), garbage);
        fs::create_dir_all(gone.parent().unwrap()).unwrap();
        fs::write(&gone, "left").unwrap();
        let list = format!("{}\n{}{third}\n{}\nnonsense\n", Oid(2), Oid(1), Oid(77));
        fs::write(blobs.base().join(".removed"), list).unwrap();
        let storage = helpers::open_with(options).unwrap();
        assert!(!gone.exists());
        assert_eq!(read(&storage, 1, third).unwrap(), b"third");
        assert!(!blobs.base().join(".removed").exists());
    }
}

/// A backup opens the file of the database before packs, and reads the blobs after them.
#[test]
fn what_packs_take_out_stays_while_a_backup_needs_it() {
    for keep_old in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let options = FileStorageOptions { pack_keep_old: keep_old, ..options(dir.path()) };
        let storage = helpers::open_with(options.clone()).unwrap();
        let blobs = Arc::clone(storage.blobs().unwrap().dir().unwrap());
        let root = helpers::commit(&storage, &[(0, Tid::ZERO, b"root \x01")]).unwrap();
        let mut serials = vec![Tid::ZERO];
        let mut commit = || {
            let data = stage(&storage, 1, *serials.last().unwrap(), b"data").unwrap();
            serials.push(commit_staged(&storage, data).unwrap());
            serials.clone()
        };
        commit();
        let first = commit()[1];
        let pin = blobs.pin().unwrap().expect("a pin");
        let now = || Tid::now().to_unix() + 1.0;
        pack(&storage, now(), true).unwrap();
        let old = dir.path().join("blobs.old");
        let place = |tid| match keep_old {
            true => old.join(blobs.path(Oid(1), tid).strip_prefix(blobs.base()).unwrap()),
            false => blobs.path(Oid(1), tid),
        };
        assert!(place(first).exists());
        let second = commit()[2];
        match pack(&storage, now(), true) {
            // The old blobs of both packs are there.
            Ok(()) => assert!(keep_old && place(first).exists() && place(second).exists()),
            Err(error) => {
                assert!(!keep_old && error.to_string().contains("a backup needs blobs in "), "{error}");
                // A restart removes nothing either.
                storage.close().unwrap();
                let storage = helpers::open_with(options).unwrap();
                assert!(place(first).exists());
                drop(pin);
                helpers::commit(&storage, &[(0, root, b"root \x01")]).unwrap();
                pack(&storage, now(), true).unwrap();
                assert!(!place(first).exists() && !place(second).exists());
                continue;
            }
        }
        drop(pin);
        let third = commit()[3];
        pack(&storage, now(), true).unwrap();
        let left = [first, second, third].map(|tid| place(tid).exists());
        assert_eq!(left, [false, false, true]);
    }
}

/// Two revisions of blob 1, and blob 2, which nothing refers to at the end. Then a pack with commits beside it.
fn run_pack(dir: &Path, media: &Faulty, keep_old: bool) -> Result<()> {
    let options = FileStorageOptions { pack_keep_old: keep_old, ..faulty_options(dir, media) };
    let storage = helpers::open_with(options)?;
    let commit = |oid, serial, number| match stage(&storage, oid, serial, &data_of(number)) {
        Ok(staged) => commit_staged(&storage, staged).map_err(|_| ()),
        Err(_) => Err(()),
    };
    let commits = || {
        let root = helpers::commit(&storage, &[(0, Tid::ZERO, b"root \x01\x02")]).map_err(drop)?;
        let first = commit(1, Tid::ZERO, 0)?;
        commit(2, Tid::ZERO, 1)?;
        let second = commit(1, first, 2)?;
        let last = helpers::commit(&storage, &[(0, root, b"root \x01")]).map_err(drop)?;
        let beside = || _ = storage.get_tid(Oid(3)).is_err().then(|| commit(3, Tid::ZERO, 3));
        let _ = pack_beside(&storage, last.to_unix() + 1e-5, true, &beside);
        commit(1, second, 3)
    };
    let _ = commits();
    let _ = storage.close();
    Ok(())
}

/// Every record has its blob, also in the storage of before the pack if that is kept. Unless `is_power_cut`, every blob
/// has its record.
pub fn check_pack(dir: &Path, media: &Faulty, is_power_cut: bool, what: &str) {
    let storage = helpers::open_with(faulty_options(dir, media)).unwrap_or_else(|e| panic!("{what}: {e}"));
    let blobs = Arc::clone(storage.blobs().unwrap().dir().unwrap());
    let records = |storage: &FileStorage| {
        let (mut it, mut found) = (storage.iterate(None, None).unwrap(), Vec::new());
        while let Some(t) = it.next_transaction().unwrap() {
            let mut records = it.records().unwrap();
            while let Some(record) = records.next_record().unwrap() {
                found.extend((record.oid != Oid(0)).then_some((record.oid, t.tid)));
            }
        }
        found
    };
    let mut expected = Vec::new();
    for (oid, tid) in records(&storage) {
        let data =
            read(&storage, oid.0, tid).unwrap_or_else(|e| panic!("{what}: a record without its blob: {e}"));
        assert!((0..4).any(|number| data == data_of(number)), "{what}: the blob is not whole");
        expected.push(blobs.path(oid, tid));
    }
    let paths = media.paths();
    if !is_power_cut {
        let mut found: Vec<_> = paths.iter().filter(|path| path.starts_with(blobs.base())).cloned().collect();
        found.retain(|path| !path.ends_with(".layout"));
        expected.sort();
        assert_eq!(found, expected, "{what}");
        // The storage of before the pack, with its blobs.
        let old = dir.join("Data.fs.old");
        if paths.contains(&old) {
            let former = FileStorageOptions { read_only: true, blob_dir: None, ..faulty_options(dir, media) };
            let former = helpers::open_with(FileStorageOptions { path: old, ..former }).unwrap();
            for (oid, tid) in records(&former) {
                let path = blobs.path(oid, tid);
                let path = dir.join("blobs.old").join(path.strip_prefix(blobs.base()).unwrap());
                assert!(paths.contains(&path), "{what}: {} is not there: {paths:?}", path.display());
            }
        }
    }
    storage.close().unwrap();
}

/// A kill between the switch to the packed file and the sweep left the blobs of packed revisions for ever.
#[test]
fn blobs_and_records_agree_after_a_failure_at_every_call_of_a_pack() {
    let dir = tempfile::tempdir().unwrap();
    for n in 1.. {
        let mut fired = false;
        for (seed, (fault, keep_old)) in [Fault::PowerCut, Fault::Error]
            .into_iter()
            .flat_map(|fault| [(fault, true), (fault, false)])
            .enumerate()
        {
            let media = Faulty::new(n * 10 + seed as u64, Some((n, fault)));
            let _ = run_pack(dir.path(), &media, keep_old);
            fired |= media.fired();
            let what = format!("{fault:?} at call {n}, pack-keep-old {keep_old}");
            check_pack(dir.path(), &media.after_kill(), false, &what);
            check_pack(dir.path(), &media.after_power_cut(), true, &what);
        }
        if !fired {
            assert!(n > 100, "the workload makes {n} calls");
            break;
        }
    }
}

/// The log said "pack failed: sweeping the blobs ...", though the file was packed; and the remaining blobs stayed for
/// ever, because later packs know nothing of removed revisions.
#[test]
fn a_pack_that_cannot_remove_blobs_says_that_the_storage_is_packed() {
    for restarts in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let storage = open(dir.path());
        let blobs = Arc::clone(storage.blobs().unwrap().dir().unwrap());
        helpers::commit(&storage, &[(0, Tid::ZERO, b"root \x01")]).unwrap();
        let first = commit_staged(&storage, stage(&storage, 1, Tid::ZERO, b"first").unwrap()).unwrap();
        let second = commit_staged(&storage, stage(&storage, 1, first, b"second").unwrap()).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(10));
        let in_the_way = dir.path().join("blobs.old");
        // A transaction that commits while references are followed is looked at last, when the objects kept by the last
        // pack are removed.
        let looks = std::sync::atomic::AtomicUsize::new(0);
        let block = || match looks.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            0 => _ = helpers::commit(&storage, &[(9, Tid::ZERO, b"during the pack")]).unwrap(),
            2 => fs::write(&in_the_way, "no directory").unwrap(),
            _ => {}
        };
        let error = pack_beside(&storage, Tid::now().to_unix() + 1.0, true, &block).unwrap_err().to_string();
        assert!(error.starts_with("the storage is packed, but some blobs"), "{error}");
        assert!(matches!(
            storage.load_serial(Oid(1), first, 0, &mut Vec::new()),
            Err(StorageError::PosKey(_))
        ));
        assert!(blobs.path(Oid(1), first).exists() && blobs.base().join(".removed").exists());

        fs::remove_file(&in_the_way).unwrap();
        let storage = if restarts {
            storage.close().unwrap();
            drop(storage);
            open(dir.path())
        } else {
            commit_staged(&storage, stage(&storage, 1, second, b"third").unwrap()).unwrap();
            pack(&storage, Tid::now().to_unix() + 1.0, true).unwrap();
            storage
        };
        assert!(!blobs.path(Oid(1), first).exists() && !blobs.base().join(".removed").exists());
        storage.close().unwrap();
    }
}

/// If blobs cannot be linked (other disks, files of another user), the pack copies the blobs that it keeps to the old
/// ones. The copies had the mode of a temporary file: only the server could read them, and it could write to them.
#[test]
fn copies_beside_the_old_blobs_have_the_mode_of_blobs() {
    let dir = tempfile::tempdir().unwrap();
    let Ok(other_disk) = tempfile::tempdir_in("/dev/shm") else { return eprintln!("SKIPPED: no /dev/shm") };
    fs::create_dir(dir.path().join("blobs")).unwrap();
    fs::write(dir.path().join("blobs/.layout"), "bushy").unwrap();
    fs::set_permissions(other_disk.path(), fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink(other_disk.path(), dir.path().join("blobs/0x00")).unwrap();
    let storage = open(dir.path());
    let blobs = Arc::clone(storage.blobs().unwrap().dir().unwrap());
    let root = helpers::commit(&storage, &[(0, Tid::ZERO, b"root \x01")]).unwrap();
    let tid = commit_staged(&storage, stage(&storage, 1, Tid::ZERO, b"kept").unwrap()).unwrap();
    helpers::commit(&storage, &[(0, root, b"root \x01")]).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(10));
    pack(&storage, Tid::now().to_unix() + 1.0, true).unwrap();
    let original = blobs.path(Oid(1), tid);
    let copy = dir.path().join("blobs.old").join(original.strip_prefix(blobs.base()).unwrap());
    let about = |path: &Path| {
        let metadata = fs::metadata(path).unwrap();
        (fs::read(path).unwrap(), metadata.permissions().mode() & 0o7777)
    };
    assert_eq!(fs::metadata(&original).unwrap().nlink(), 1);
    assert_eq!(about(&copy), about(&original));
    assert_eq!(about(&copy).1 & 0o222, 0);
}
