//! A pack never removes objects on the evidence of records that it cannot read.
//!
//! A record without the bytes of the two opcodes for references counted as one without references, valid or not. So one
//! record damaged by a disk, or records that clients had compressed, cost a database everything that was reachable
//! through them, and the pack reported success.

use std::path::Path;
use std::process::Command;

use crate::support::pythons::python;
use crate::support::storage::*;
use runzeo::ids::{Oid, Tid};
use runzeo::internal::pickle::refs::references;
use runzeo::internal::storage::mapping::MappingStorage;
use runzeo::storage::file::{FileStorage, FileStorageOptions};
use runzeo::storage::prelude::*;
use runzeo::storage::{PackProgress, PackRequest, Result, StorageError};

fn pack(storage: &dyn Storage) -> Result<()> {
    let (time, progress) = (Tid::now().to_unix() + 1.0, PackProgress::default());
    storage.require_packing()?.pack(&PackRequest {
        time,
        gc: None,
        references: &references,
        progress: &progress,
        removals: None,
    })
}

/// From every damaged file a pack keeps at least what Python's keeps, or it fails and keeps everything.
#[test]
fn each_byte_damaged_in_turn() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python-fixtures/data-fs/pack_damaged.py");
    for name in ["zeo6-py311", "zeo4-py27"] {
        let Some(python) = python(name) else { continue };
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let output = Command::new(&python).arg(&script).arg(dir.path()).output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let good = std::fs::read(dir.path().join("Data.fs")).unwrap();
        let path = dir.path().join("ours.fs");
        let (mut packed, mut failed) = (0, 0);
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            let [pos, byte, outcome, objects] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{line}")
            };
            if outcome == "unreadable" {
                continue;
            }
            let mut bytes = good.clone();
            bytes[pos.parse::<usize>().unwrap()] = byte.parse().unwrap();
            std::fs::write(&path, &bytes).unwrap();
            _ = std::fs::remove_file(path.with_extension("fs.index"));
            let storage = open(&path);
            let before = storage.object_count();
            match pack(&storage) {
                Ok(()) => packed += 1,
                Err(error) => {
                    failed += 1;
                    assert_eq!(storage.object_count(), before, "{name}: {line}: {error}");
                    assert!(std::fs::read(&path).unwrap().starts_with(&bytes), "{name}: {line}: {error}");
                }
            }
            let pythons: u64 = objects.parse().unwrap();
            assert!(storage.object_count() >= pythons, "{name}: {line}: {} objects", storage.object_count());
            storage.close().unwrap();
        }
        assert!(packed > 100 && failed > 100, "{name}: {packed} {failed}");
    }
}

#[test]
fn a_record_that_is_none_ends_the_pack() {
    for damaged in [&[0; 30][..], &[0xff; 30], b"some text; some text; some text", b".zx\x9c compressed"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("Data.fs");
        let storage = open(&path);
        let (leaf, garbage) = (referring_to(&[]), referring_to(&[]));
        let t1 = commit(
            &storage,
            &[
                (0, Tid::ZERO, &referring_to(&[1])),
                (1, Tid::ZERO, &referring_to(&[2])),
                (2, Tid::ZERO, &leaf),
            ],
        )
        .unwrap();
        commit(&storage, &[(1, t1, damaged), (3, Tid::ZERO, &garbage)]).unwrap();
        let before = std::fs::read(&path).unwrap();
        std::fs::write(dir.path().join("Data.fs.old"), b"of the last pack").unwrap();
        let Err(StorageError::Refused { message, .. }) = pack(&storage) else { panic!("it was packed") };
        assert!(
            message.contains("object 0x0000000000000001 at ")
                && message.contains("The database is unchanged"),
            "{message}"
        );
        assert_eq!(storage.object_count(), 4);
        assert!(std::fs::read(&path).unwrap() == before);
        assert_eq!(std::fs::read(dir.path().join("Data.fs.old")).unwrap(), b"of the last pack");
    }
}

/// Objects stored by an unfinished copy, or of a second database. All of them were removed.
#[test]
fn a_storage_without_a_root_is_not_packed() {
    let dir = tempfile::tempdir().unwrap();
    let file = open(&dir.path().join("Data.fs"));
    let mapping = MappingStorage::new("memory".into());
    mapping.set_publisher(std::sync::Arc::new(Answers));
    for storage in [&file as &dyn Storage, &mapping] {
        commit(storage, &[(1, Tid::ZERO, &referring_to(&[2])), (2, Tid::ZERO, &referring_to(&[]))]).unwrap();
        assert!(matches!(pack(storage), Err(StorageError::Missing(Oid::ZERO))));
        assert_eq!(storage.object_count(), 2);
    }
}

/// 2000 objects, of which the last commit has made all but a few unreachable.
fn cut_off(path: &Path, refuse: bool) -> FileStorage {
    let storage = open_with(FileStorageOptions {
        pack_keep_old: false,
        pack_refuse_large_removals: refuse,
        ..FileStorageOptions::new(path)
    })
    .unwrap();
    let oids: Vec<u64> = (1..2000).collect();
    let (all, leaf) = (referring_to(&oids), referring_to(&[]));
    let mut objects = vec![(0, Tid::ZERO, &all[..])];
    objects.extend(oids.iter().map(|&oid| (oid, Tid::ZERO, &leaf[..])));
    let t1 = commit(&storage, &objects).unwrap();
    commit(&storage, &[(0, t1, &referring_to(&oids[..50]))]).unwrap();
    storage
}

#[test]
fn the_file_of_before_stays_if_most_was_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let storage = cut_off(&path, false);
    let before = std::fs::read(&path).unwrap();
    pack(&storage).unwrap();
    assert_eq!(storage.object_count(), 51);
    let old = path.with_extension("fs.old");
    assert!(before.starts_with(&std::fs::read(&old).unwrap()), "kept though pack-keep-old is off");
    // Until the next one.
    let (root, serial) = load(&storage, 0).unwrap();
    commit(&storage, &[(0, serial, &root)]).unwrap();
    pack(&storage).unwrap();
    assert!(!old.exists());
}

#[test]
fn a_key_refuses_to_remove_most() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let storage = cut_off(&path, true);
    let Err(StorageError::Refused { message, .. }) = pack(&storage) else { panic!("it was packed") };
    assert!(message.contains("1949 of 2000 objects"), "{message}");
    assert_eq!(storage.object_count(), 2000);
}
