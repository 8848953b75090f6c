//! Files that other users put into a shared blob directory lead the server to no file outside, and do not block it.
//!
//! Only the last name of a path was opened without following links. A link in the place of an object's directory made
//! the server read, write and remove files that only it may access; a link called `.removed` let a pack truncate its
//! target; a link called `tmp` let the next start remove files in its target. And the server waited for a writer of a
//! pipe called `.layout` or `.removed`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::support::storage as helpers;
use crate::support::storage::{commit_staged, meta};
use runzeo::ids::{Oid, Tid};
use runzeo::storage::file::{FileStorage, FileStorageOptions};
use runzeo::storage::prelude::*;
use runzeo::storage::{PackProgress, PackRequest, Result, Staged};
use tempfile::TempDir;

const RECORD: &[u8] = b"cZODB.blob\nBlob\n.N.";
const OID: u64 = 0x0102;
/// A user that is neither root nor the user of this process.
const SOMEBODY: u32 = 65534;

/// A storage, and a private directory beside its blobs.
struct Place {
    top: TempDir,
    keep_old: bool,
}

impl Place {
    /// `None` without root, which alone can give links to other users.
    fn new(keep_old: bool) -> Option<Place> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: only root can make links of others");
            return None;
        }
        let place = Place { top: tempfile::tempdir().unwrap(), keep_old };
        fs::create_dir(place.private()).unwrap();
        fs::set_permissions(place.private(), fs::Permissions::from_mode(0o700)).unwrap();
        Some(place)
    }

    fn open(&self) -> FileStorage {
        self.try_open().unwrap()
    }

    fn try_open(&self) -> Result<FileStorage> {
        helpers::open_with(FileStorageOptions {
            blob_dir: Some(self.blobs()),
            pack_keep_old: self.keep_old,
            ..FileStorageOptions::new(self.top.path().join("Data.fs"))
        })
    }

    fn blobs(&self) -> PathBuf {
        self.top.path().join("blobs")
    }

    fn private(&self) -> PathBuf {
        self.top.path().join("private")
    }

    /// Puts a private file there, old enough to be removed from `tmp` by a start.
    fn put_private(&self, name: &str) {
        let path = self.private().join(name);
        fs::write(&path, "private").unwrap();
        let long_ago = SystemTime::now() - Duration::from_secs(30 * 24 * 3600);
        fs::File::options().write(true).open(path).unwrap().set_modified(long_ago).unwrap();
    }

    fn check_private(&self, names: &[&str]) {
        let mut found: Vec<_> =
            fs::read_dir(self.private()).unwrap().map(|entry| entry.unwrap().path()).collect();
        found.sort();
        let expected: Vec<_> = names.iter().map(|name| self.private().join(name)).collect();
        assert_eq!(found, expected);
        for path in found {
            assert_eq!(fs::read(&path).unwrap(), b"private", "{}", path.display());
        }
    }
}

/// Moves the path away, and puts another user's link in its place.
fn exchange_for_link(path: &Path, target: &Path) {
    let _ = fs::rename(path, path.with_extension("away"));
    symlink(target, path).unwrap();
    lchown(path, Some(SOMEBODY), Some(SOMEBODY)).unwrap();
}

fn make_pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo").success());
}

fn store(storage: &FileStorage, oid: u64, serial: Tid, data: &[u8]) -> Result<Tid> {
    let mut upload = storage.blobs().unwrap().dir().unwrap().begin()?;
    upload.write(data).unwrap();
    let blob = upload.end(Oid(oid))?;
    let mut staged = Staged::new(meta("", ""), None, b' ', 1 << 20);
    staged.store_blob(Oid(oid), serial, RECORD, blob).unwrap();
    commit_staged(storage, staged)
}

fn read(storage: &FileStorage, oid: u64, tid: Tid) -> Result<Vec<u8>> {
    let blob = storage.blobs().unwrap().load_blob(Oid(oid), tid)?;
    let mut data = vec![0; blob.len as usize];
    assert_eq!(blob.read_at(&mut data, 0).unwrap(), data.len());
    Ok(data)
}

/// Only the root has a reference to it.
fn pack(storage: &FileStorage) -> Result<()> {
    std::thread::sleep(Duration::from_millis(10));
    let references = |_: &[u8], _: &mut Vec<Oid>| Ok(());
    storage.pack(&PackRequest {
        time: Tid::now().to_unix() + 1.0,
        gc: Some(true),
        references: &references,
        progress: &PackProgress::default(),
        removals: None,
    })
}

#[test]
fn a_link_in_the_place_of_an_objects_directory() {
    for keep_old in [false, true] {
        // The directory of the object, and each of its parents.
        for level in 1..=8 {
            let Some(place) = Place::new(keep_old) else { return };
            let storage = place.open();
            let blobs = std::sync::Arc::clone(storage.blobs().unwrap().dir().unwrap());
            helpers::commit(&storage, &[(0, Tid::ZERO, b"root")]).unwrap();
            let tid = store(&storage, OID, Tid::ZERO, b"mine").unwrap();
            let file = blobs.path(Oid(OID), tid);
            let link = file.ancestors().nth(9 - level).unwrap().to_owned();
            exchange_for_link(&link, &place.private());
            let inside = place.private().join(file.strip_prefix(&link).unwrap());
            fs::create_dir_all(inside.parent().unwrap()).unwrap();
            fs::write(&inside, "private").unwrap();

            assert!(read(&storage, OID, tid).is_err(), "level {level}");
            assert!(blobs.again(Oid(OID), tid).is_err(), "level {level}");
            assert!(store(&storage, OID, tid, b"from a client").is_err(), "level {level}");
            blobs.remove(Oid(OID), tid);
            pack(&storage).unwrap();
            let left = fs::read_dir(inside.parent().unwrap()).unwrap().count();
            assert_eq!((fs::read(&inside).unwrap().as_slice(), left), (&b"private"[..], 1), "level {level}");
            if keep_old {
                let old = place.top.path().join("blobs.old");
                assert!(!old.join(file.strip_prefix(blobs.base()).unwrap()).exists(), "level {level}");
            }
            storage.close().unwrap();
        }
    }
}

#[test]
fn a_link_in_the_place_of_the_list_of_a_pack() {
    // A link by root is not followed either: the server makes none.
    for owner in [SOMEBODY, 0] {
        let Some(place) = Place::new(false) else { return };
        let storage = place.open();
        helpers::commit(&storage, &[(0, Tid::ZERO, b"root")]).unwrap();
        let tid = store(&storage, OID, Tid::ZERO, b"garbage").unwrap();
        place.put_private("victim");
        let list = place.blobs().join(".removed");
        symlink(place.private().join("victim"), &list).unwrap();
        lchown(&list, Some(owner), Some(owner)).unwrap();
        pack(&storage).unwrap();
        place.check_private(&["victim"]);
        assert!(read(&storage, OID, tid).is_err());
        assert!(fs::symlink_metadata(list).is_err());
    }
}

#[test]
fn a_link_in_the_place_of_the_temporary_directory() {
    let Some(place) = Place::new(false) else { return };
    place.open().close().unwrap();
    let names = ["BUC-precious", "runzeo-1-1-0000000000000001.tmp", "runzeo-book.tex", "tmp-precious"];
    for name in names {
        place.put_private(name);
    }
    let tmp = place.blobs().join("tmp");
    exchange_for_link(&tmp, &place.private());
    let error = place.try_open().err().expect("uploads have no place").to_string();
    assert!(error.contains(tmp.to_str().unwrap()), "{error}");
    place.check_private(&names);
    // Also while it is served.
    fs::remove_file(&tmp).unwrap();
    let storage = place.open();
    exchange_for_link(&tmp, &place.private());
    // The open directory is the one that was moved away.
    drop(storage.blobs().unwrap().dir().unwrap().begin());
    place.check_private(&names);
}

#[test]
fn links_in_the_place_of_the_marker() {
    let Some(place) = Place::new(false) else { return };
    place.put_private("victim");
    fs::create_dir(place.blobs()).unwrap();
    exchange_for_link(&place.blobs().join(".layout.tmp"), &place.private().join("victim"));
    place.open().close().unwrap();
    assert_eq!(fs::read_to_string(place.blobs().join(".layout")).unwrap(), "bushy");
    place.check_private(&["victim"]);
    exchange_for_link(&place.blobs().join(".layout"), &place.private().join("victim"));
    assert!(place.try_open().is_err());
}

#[test]
fn links_in_the_place_of_what_a_pack_has_kept() {
    let Some(place) = Place::new(true) else { return };
    let storage = place.open();
    helpers::commit(&storage, &[(0, Tid::ZERO, b"root")]).unwrap();
    store(&storage, OID, Tid::ZERO, b"garbage").unwrap();
    pack(&storage).unwrap();
    place.put_private("0x01.blob");
    let old = place.top.path().join("blobs.old");
    exchange_for_link(&old.join("0x00"), &place.private());
    exchange_for_link(&place.blobs().join("0x77"), &place.private());
    store(&storage, OID << 56, Tid::ZERO, b"garbage").unwrap();
    pack(&storage).unwrap();
    place.check_private(&["0x01.blob"]);
    assert!(!old.join("0x77").exists() && fs::symlink_metadata(old.join("0x00")).is_err());
}

/// Endlessly nested directories: a pack searches only as deep as blobs are.
#[test]
fn directories_without_end() {
    let Some(place) = Place::new(true) else { return };
    let storage = place.open();
    helpers::commit(&storage, &[(0, Tid::ZERO, b"root")]).unwrap();
    let tid = store(&storage, OID, Tid::ZERO, b"garbage").unwrap();
    let deep: PathBuf = std::iter::repeat_n("d", 1500).collect();
    fs::create_dir_all(place.blobs().join(deep)).unwrap();
    pack(&storage).unwrap();
    assert!(read(&storage, OID, tid).is_err());
    pack(&storage).unwrap();
}

#[test]
fn pipes_are_not_waited_for() {
    let Some(place) = Place::new(true) else { return };
    let storage = place.open();
    let blobs = std::sync::Arc::clone(storage.blobs().unwrap().dir().unwrap());
    helpers::commit(&storage, &[(0, Tid::ZERO, b"root")]).unwrap();
    let tid = store(&storage, OID, Tid::ZERO, b"garbage").unwrap();
    make_pipe(&blobs.path(Oid(OID), Tid(1)));
    assert!(storage.blobs().unwrap().load_blob(Oid(OID), Tid(1)).is_err());
    assert!(blobs.again(Oid(OID), Tid(1)).is_err());
    make_pipe(&place.blobs().join(".removed"));
    make_pipe(&place.blobs().join("0x55"));
    pack(&storage).unwrap();
    assert!(read(&storage, OID, tid).is_err());
    storage.close().unwrap();
    drop(storage);

    for name in [".removed", "tmp/runzeo-1-1-0000000000000102.tmp", "tmp/tmpold"] {
        make_pipe(&place.blobs().join(name));
    }
    let storage = place.open();
    assert!(fs::symlink_metadata(place.blobs().join(".removed")).is_err());
    make_pipe(&place.blobs().join("0x33"));
    assert!(store(&storage, 0x33 << 56, Tid::ZERO, b"").is_err());
    storage.close().unwrap();
    drop(storage);

    fs::remove_file(place.blobs().join(".layout")).unwrap();
    make_pipe(&place.blobs().join(".layout.tmp"));
    // Not bushy any more, for it was used; but that is another matter.
    place.open().close().unwrap();
    fs::remove_file(place.blobs().join(".layout")).unwrap();
    make_pipe(&place.blobs().join(".layout"));
    assert!(place.try_open().is_err());
}

/// An administrator has put a part of the directory on another disk, through a link.
#[test]
fn directories_behind_the_administrators_link() {
    let Ok(other_disk) = tempfile::tempdir_in("/dev/shm") else { return eprintln!("SKIPPED: no /dev/shm") };
    for target in ["absolute", "relative"] {
        let Some(place) = Place::new(true) else { return };
        place.open().close().unwrap();
        let large = match target {
            "absolute" => other_disk.path().to_owned(),
            _ => {
                fs::create_dir(place.top.path().join("large")).unwrap();
                "../large".into()
            }
        };
        symlink(large, place.blobs().join("0x00")).unwrap();
        let storage = place.open();
        let blobs = std::sync::Arc::clone(storage.blobs().unwrap().dir().unwrap());
        helpers::commit(&storage, &[(0, Tid::ZERO, b"root")]).unwrap();
        let first = store(&storage, OID, Tid::ZERO, b"first").unwrap();
        let second = store(&storage, OID, first, b"second").unwrap();
        assert_eq!(read(&storage, OID, first).unwrap(), b"first", "{target}");
        assert_eq!(fs::read_dir(blobs.oid_dir(Oid(OID))).unwrap().count(), 2, "{target}");
        assert_eq!(fs::read_dir(place.blobs().join("tmp")).unwrap().count(), 0, "{target}");
        // Staged before a crash: once before the blob was put into its place, once after.
        let left = [first, second].map(|from| blobs.again(Oid(OID), from).unwrap());
        for (mut blob, tid) in left.into_iter().zip([Tid(5), Tid(6)]) {
            let placement = blobs.place([(Oid(OID), tid, &mut blob)]).unwrap();
            std::mem::forget((placement, blob));
        }
        fs::remove_file(blobs.path(Oid(OID), Tid(6))).unwrap();
        storage.close().unwrap();
        drop(storage);
        let storage = place.open();
        assert_eq!(fs::read_dir(blobs.oid_dir(Oid(OID))).unwrap().count(), 2, "{target}");
        assert_eq!(fs::read_dir(place.blobs().join("tmp")).unwrap().count(), 0, "{target}");

        pack(&storage).unwrap();
        assert!(read(&storage, OID, second).is_err(), "{target}");
        let old = place.top.path().join("blobs.old");
        for (tid, data) in [(first, "first"), (second, "second")] {
            let file = old.join(blobs.path(Oid(OID), tid).strip_prefix(blobs.base()).unwrap());
            assert_eq!(fs::read_to_string(file).unwrap(), data, "{target}");
        }
    }
}

/// The administrator has moved a blob to another disk, and put a link in its place.
#[test]
fn a_blob_behind_the_administrators_link() {
    let Some(place) = Place::new(true) else { return };
    let storage = place.open();
    let blobs = std::sync::Arc::clone(storage.blobs().unwrap().dir().unwrap());
    let tid = store(&storage, OID, Tid::ZERO, b"large").unwrap();
    let (file, large) = (blobs.path(Oid(OID), tid), place.private().join("large"));
    fs::rename(&file, &large).unwrap();
    symlink("../../../../../../../../../private/large", &file).unwrap();
    assert_eq!(read(&storage, OID, tid).unwrap(), b"large");
    // An undo copies it to a blob of its own.
    let mut again = blobs.again(Oid(OID), tid).unwrap();
    blobs.place([(Oid(OID), Tid(9), &mut again)]).unwrap().keep();
    assert!(fs::symlink_metadata(blobs.path(Oid(OID), Tid(9))).unwrap().is_file());
    assert_eq!(read(&storage, OID, Tid(9)).unwrap(), b"large");
}
