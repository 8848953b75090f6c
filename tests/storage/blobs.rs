//! Blobs of a file storage: beside the records, with Python's names and permissions, and complete or absent after every
//! failure of the disk.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::support::faulty::{Fault, Faulty};
use crate::support::storage as helpers;
use crate::support::storage::{commit_staged, meta};
use runzeo::ids::{Oid, Tid};
use runzeo::internal::base::clock::ManualClock;
use runzeo::storage::blob::Layout;
use runzeo::storage::file::{FileStorage, FileStorageOptions};
use runzeo::storage::prelude::*;
use runzeo::storage::{BlobDir, NotVoted, Result, Staged, StorageError, TidAt};

const RECORD: &[u8] = b"\x80\x03cZODB.blob\nBlob\nq\x00.\x80\x03N.";

pub fn options(dir: &Path) -> FileStorageOptions {
    FileStorageOptions { blob_dir: Some(dir.join("blobs")), ..FileStorageOptions::new(dir.join("Data.fs")) }
}

pub fn open(dir: &Path) -> FileStorage {
    helpers::open_with(options(dir)).unwrap()
}

pub fn stage(storage: &FileStorage, oid: u64, serial: Tid, data: &[u8]) -> Result<Staged> {
    let mut upload = storage.blobs().unwrap().dir().unwrap().begin()?;
    for chunk in data.chunks(1000) {
        upload.write(chunk).map_err(StorageError::io("test"))?;
    }
    let blob = upload.end(Oid(oid))?;
    let mut staged = Staged::new(meta("", ""), None, b' ', 1 << 20);
    // Clients store the record twice.
    staged.store(Oid(oid), serial, RECORD).unwrap();
    staged.store_blob(Oid(oid), serial, RECORD, blob).unwrap();
    assert_eq!(staged.ops().len(), 1);
    Ok(staged)
}

pub fn read(storage: &dyn Storage, oid: u64, tid: Tid) -> Result<Vec<u8>> {
    let blob = storage.require_blobs()?.load_blob(Oid(oid), tid)?;
    let mut data = vec![0; blob.len as usize];
    assert_eq!(blob.read_at(&mut data, 0).unwrap(), data.len());
    Ok(data)
}

/// Names below a directory, without directories.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[test]
fn committed_blobs_have_pythons_names_and_permissions() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path());
    let data = vec![7; 100_000];
    let tid = commit_staged(&storage, stage(&storage, 0x123, Tid::ZERO, &data).unwrap()).unwrap();
    let second = commit_staged(&storage, stage(&storage, 0x123, tid, b"").unwrap()).unwrap();
    assert_eq!(read(&storage, 0x123, tid).unwrap(), data);
    assert_eq!(read(&storage, 0x123, second).unwrap(), b"");
    let blobs = dir.path().join("blobs");
    let oid_dir = blobs.join("0x00/0x00/0x00/0x00/0x00/0x00/0x01/0x23");
    let name = |tid: Tid| oid_dir.join(format!("0x{tid}.blob"));
    assert_eq!(files(&blobs), [blobs.join(".layout"), name(tid), name(second)]);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    // Users who may read the directory may read the blob; nobody may write it.
    assert_eq!(mode(&name(tid)), 0o400 | mode(&oid_dir) & 0o444);

    let aborted = stage(&storage, 5, Tid::ZERO, b"aborted").unwrap();
    storage.abort(storage.vote(aborted, TidAt::Finish).unwrap());
    let conflict = stage(&storage, 0x123, tid, b"conflict").unwrap();
    assert!(matches!(commit_staged(&storage, conflict), Err(StorageError::Conflict(_))));
    drop(storage.blobs().unwrap().dir().unwrap().begin().unwrap());
    assert_eq!(files(&blobs).len(), 3);

    match read(&storage, 0x123, Tid(tid.0 + 1)) {
        Err(error @ StorageError::NoBlob { .. }) => {
            let path = oid_dir.join(format!("0x{}.blob", Tid(tid.0 + 1)));
            assert_eq!(error.to_string(), format!("No blob file at {}", path.display()));
        }
        other => panic!("{other:?}"),
    }
    assert!(read(&storage, 0x99, tid).is_err());
    storage.close().unwrap();
}

#[test]
fn without_a_blob_dir_blobs_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let with = open(dir.path());
    let staged = stage(&with, 1, Tid::ZERO, b"x").unwrap();
    let other = dir.path().join("other.fs");
    let without = helpers::open(&other);
    assert!(without.blobs().is_none());
    assert!(matches!(
        without.vote(staged, TidAt::Finish),
        Err(NotVoted::Failed(StorageError::Refused { .. }))
    ));
    assert!(matches!(read(&without, 1, Tid::ZERO), Err(StorageError::Refused { .. })));
}

#[test]
fn layouts_are_found_as_python_finds_them() {
    let check = |prepare: &dyn Fn(&Path), expected: std::result::Result<Layout, &str>| {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("blobs");
        prepare(&base);
        let opened = BlobDir::open(&base, false);
        match (opened, expected) {
            (Ok(opened), Ok(layout)) => {
                assert_eq!(opened.layout(), layout);
                assert_eq!(fs::read_to_string(base.join(".layout")).unwrap().trim(), layout.name());
                assert!(base.join("tmp").is_dir());
            }
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (opened, expected) => panic!("{:?}, expected {expected:?}", opened.map(|dir| dir.layout())),
        }
    };
    let marker = |text: &'static str| {
        move |base: &Path| {
            fs::create_dir(base).unwrap();
            fs::write(base.join(".layout"), text).unwrap();
            fs::create_dir(base.join("0x01")).unwrap();
        }
    };
    check(&|_| {}, Ok(Layout::Bushy));
    check(&|base| fs::create_dir(base).unwrap(), Ok(Layout::Bushy));
    check(&|base| fs::create_dir_all(base.join(".hidden")).unwrap(), Ok(Layout::Bushy));
    check(&|base| fs::create_dir_all(base.join("0x01")).unwrap(), Ok(Layout::Lawn));
    check(&marker("lawn"), Ok(Layout::Lawn));
    check(&marker("bushy\n"), Ok(Layout::Bushy));
    check(&marker("zeocache"), Err("a client's cache"));
    check(&marker("meadow"), Err("unknown layout `meadow`"));
    check(&marker(""), Err("unknown layout ``"));
}

#[test]
fn only_our_own_leftovers_are_removed_at_once() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).close().unwrap();
    let tmp = dir.path().join("blobs/tmp");
    for name in ["runzeo-1-2.tmp", "runzeo-1-3-0000000000000007.tmp", "tmpAbC", "BUCx.tmp", "mine"] {
        fs::write(tmp.join(name), "x").unwrap();
    }
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(30 * 24 * 3600);
    for name in ["tmpold", "old"] {
        fs::write(tmp.join(name), "x").unwrap();
        fs::File::options().write(true).open(tmp.join(name)).unwrap().set_modified(long_ago).unwrap();
    }
    open(dir.path()).close().unwrap();
    let left: Vec<_> = files(&tmp).iter().map(|path| path.file_name().unwrap().to_owned()).collect();
    assert_eq!(left, ["BUCx.tmp", "mine", "old", "tmpAbC"]);
}

#[test]
fn shared_files_are_taken_over_and_names_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path());
    let blobs = Arc::clone(storage.blobs().unwrap().dir().unwrap());
    let oid_dir = blobs.oid_dir(Oid(1));
    fs::create_dir_all(&oid_dir).unwrap();
    for name in ["a.tmp", "b.tmp-", "c.blob"] {
        fs::write(oid_dir.join(name), name).unwrap();
    }
    let secret = dir.path().join("secret.tmp");
    fs::write(&secret, "secret").unwrap();
    std::os::unix::fs::symlink(&secret, oid_dir.join("link.tmp")).unwrap();
    fs::create_dir(oid_dir.join("dir.tmp")).unwrap();
    let bad = [
        "c.blob",
        "../1.tmp",
        "/etc/x.tmp",
        "link.tmp",
        "dir.tmp",
        "none.tmp",
        ".tmp",
        "x\0.tmp",
        "",
        "a.tmp--",
        "../../../../../../../../../secret.tmp",
    ];
    for name in bad {
        assert!(blobs.adopt(Oid(1), name).is_err(), "{name:?}");
    }
    let mut serial = Tid::ZERO;
    for name in ["a.tmp", "b.tmp-"] {
        let blob = blobs.adopt(Oid(1), name).unwrap();
        let mut staged = Staged::new(meta("", ""), None, b' ', 1 << 20);
        staged.store_blob(Oid(1), serial, RECORD, blob).unwrap();
        serial = commit_staged(&storage, staged).unwrap();
        assert_eq!(read(&storage, 1, serial).unwrap(), name.as_bytes());
        assert!(!oid_dir.join(name).exists());
    }
    fs::write(oid_dir.join("d.tmp"), "aborted").unwrap();
    drop(blobs.adopt(Oid(1), "d.tmp").unwrap());
    assert!(!oid_dir.join("d.tmp").exists());
    assert_eq!(fs::read(&secret).unwrap(), b"secret");
}

#[test]
fn a_copy_for_undo_shares_the_data() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path());
    let first = commit_staged(&storage, stage(&storage, 1, Tid::ZERO, b"first").unwrap()).unwrap();
    let second = commit_staged(&storage, stage(&storage, 1, first, b"second").unwrap()).unwrap();
    let blobs = Arc::clone(storage.blobs().unwrap().dir().unwrap());
    let mut staged = Staged::new(meta("", ""), None, b' ', 1 << 20);
    staged.store_blob(Oid(1), second, RECORD, blobs.again(Oid(1), first).unwrap()).unwrap();
    let undone = commit_staged(&storage, staged).unwrap();
    assert_eq!(read(&storage, 1, undone).unwrap(), b"first");
    assert!(blobs.again(Oid(1), Tid(5)).is_err());
    drop(blobs.again(Oid(1), second).unwrap());
    for tid in [first, second, undone] {
        assert!(blobs.path(Oid(1), tid).exists());
    }
    storage.close().unwrap();
    // A file in tmp of a finished transaction does not count as unfinished.
    fs::hard_link(blobs.path(Oid(1), second), dir.path().join("blobs/tmp/runzeo-1-1-0000000000000001.tmp"))
        .unwrap();
    let storage = open(dir.path());
    assert_eq!(read(&storage, 1, second).unwrap(), b"second");
    assert!(files(&dir.path().join("blobs/tmp")).is_empty());
}

#[test]
fn create_empties_the_blobs_too() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path());
    let tid = commit_staged(&storage, stage(&storage, 1, Tid::ZERO, b"first").unwrap()).unwrap();
    storage.close().unwrap();
    drop(storage);
    let storage = helpers::open_with(FileStorageOptions { create: true, ..options(dir.path()) }).unwrap();
    assert!(read(&storage, 1, tid).is_err());
    assert_eq!(files(&dir.path().join("blobs")).len(), 1);
}

// -- failures

pub fn faulty_options(dir: &Path, media: &Faulty) -> FileStorageOptions {
    FileStorageOptions {
        media: Arc::new(media.clone()),
        clock: Arc::new(ManualClock::new(Tid(1 << 56))),
        ..options(dir)
    }
}

pub fn data_of(number: u64) -> Vec<u8> {
    vec![number as u8 + 1; 3000 + number as usize * 2000]
}

/// Commits until a call fails; returns the acknowledged transactions.
fn run(dir: &Path, media: &Faulty) -> Result<Vec<(u64, Tid, Vec<u8>)>> {
    let storage = helpers::open_with(faulty_options(dir, media))?;
    let mut acknowledged = Vec::new();
    let mut serial = Tid::ZERO;
    for number in 0..4u64 {
        // Two revisions of one object, and others.
        let (oid, from) = if number < 2 { (1, serial) } else { (number, Tid::ZERO) };
        let Ok(staged) = stage(&storage, oid, from, &data_of(number)) else { continue };
        if let Ok(tid) = commit_staged(&storage, staged) {
            serial = tid;
            acknowledged.push((oid, tid, data_of(number)));
        }
    }
    let _ = storage.close();
    Ok(acknowledged)
}

/// Every record has its blob, every blob its record, and there are no other files.
fn check(dir: &Path, media: &Faulty, acknowledged: &[(u64, Tid, Vec<u8>)], what: &str) {
    let storage = helpers::open_with(faulty_options(dir, media)).unwrap_or_else(|e| panic!("{what}: {e}"));
    for (oid, tid, data) in acknowledged {
        assert_eq!(&read(&storage, *oid, *tid).unwrap(), data, "{what}: acknowledged");
    }
    let blobs = Arc::clone(storage.blobs().unwrap().dir().unwrap());
    let mut expected = Vec::new();
    let mut it = storage.iterate(None, None).unwrap();
    while let Some(t) = it.next_transaction().unwrap() {
        let mut records = it.records().unwrap();
        while let Some(record) = records.next_record().unwrap() {
            let data = read(&storage, record.oid.0, t.tid)
                .unwrap_or_else(|e| panic!("{what}: a record without its blob: {e}"));
            assert!((0..4).any(|number| data == data_of(number)), "{what}: the blob is not whole");
            expected.push(blobs.path(record.oid, t.tid));
        }
    }
    expected.sort();
    let mut found = media.paths();
    found.retain(|path| path.starts_with(blobs.base()) && !path.ends_with(".layout"));
    assert_eq!(found, expected, "{what}");
    let serial = storage.get_tid(Oid(9)).unwrap_or(Tid::ZERO);
    commit_staged(&storage, stage(&storage, 9, serial, b"later").unwrap()).unwrap();
    storage.close().unwrap();
}

#[test]
fn blobs_are_whole_or_gone_after_a_failure_at_every_call() {
    let dir = tempfile::tempdir().unwrap();
    for n in 1.. {
        let mut fired = false;
        for (seed, fault) in
            [Fault::PowerCut, Fault::PowerCut, Fault::PowerCut, Fault::Error].into_iter().enumerate()
        {
            let media = Faulty::new(n * 10 + seed as u64, Some((n, fault)));
            let acknowledged = run(dir.path(), &media).unwrap_or_default();
            fired |= media.fired();
            let what = format!("{fault:?} at call {n}");
            check(dir.path(), &media.after_kill(), &acknowledged, &what);
            for _ in 0..2 {
                check(dir.path(), &media.after_power_cut(), &acknowledged, &what);
            }
        }
        if !fired {
            assert!(n > 40, "the workload makes {n} calls");
            break;
        }
    }
}

/// Cleaning reads the log, and found damage there: the storage could not be opened, because of files that only take
/// space. Files that cannot be judged stay, with their directories; all others are removed.
#[test]
fn damaged_records_do_not_keep_the_storage_from_being_opened() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path());
    let blobs = Arc::clone(storage.blobs().unwrap().dir().unwrap());
    let kept = commit_staged(&storage, stage(&storage, 1, Tid::ZERO, b"kept").unwrap()).unwrap();
    let mut serial = Tid::ZERO;
    for _ in 0..30 {
        serial = helpers::commit(&storage, &[(7, serial, b"later")]).unwrap();
    }
    storage.close().unwrap();
    drop(storage);
    let path = dir.path().join("Data.fs");
    let mut file = fs::read(&path).unwrap();
    let record = helpers::transactions(&file)[0] + 23;
    // Damages its object id.
    file[record + 7] ^= 0x55;
    fs::write(&path, &file).unwrap();

    let unfinished = |oid: u64| {
        let temporary = blobs.base().join(format!("tmp/runzeo-1-{oid}-{}.tmp", Oid(oid)));
        let placed = blobs.path(Oid(oid), Tid(kept.0 + 1));
        fs::create_dir_all(placed.parent().unwrap()).unwrap();
        fs::write(&temporary, "unfinished").unwrap();
        fs::hard_link(&temporary, &placed).unwrap();
        (temporary, placed)
    };
    let (damaged, other) = (unfinished(1), unfinished(9));
    let garbage = blobs.path(Oid(2), kept);
    fs::create_dir_all(garbage.parent().unwrap()).unwrap();
    fs::write(&garbage, "garbage").unwrap();
    let list = blobs.base().join(".removed");
    fs::write(&list, format!("{}\n{}\n", Oid(1), Oid(2))).unwrap();

    let storage = open(dir.path());
    assert_eq!(read(&storage, 1, kept).unwrap(), b"kept");
    assert!(damaged.0.exists() && damaged.1.exists() && list.exists());
    assert!(!other.0.exists() && !other.1.exists() && !garbage.exists());
    commit_staged(&storage, stage(&storage, 3, Tid::ZERO, b"new").unwrap()).unwrap();
}
