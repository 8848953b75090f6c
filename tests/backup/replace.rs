//! Files that take the place of a `Data.fs`, on the real disk.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use crate::support::storage::{commit, load, open};
use crate::world::database;
use runzeo::ids::Tid;
use runzeo::internal::backup::replace::{Replaced, Replacement};
use runzeo::internal::storage::media::RealMedia;
use runzeo::storage::prelude::*;

fn begin(path: &Path) -> Result<Replacement, String> {
    Replacement::begin(Arc::new(RealMedia), path).map_err(|error| error.to_string())
}

fn replace(path: &Path, bytes: &[u8]) -> Result<Replaced, String> {
    let replacement = begin(path)?;
    replacement.file().write_at(bytes, 0).unwrap();
    replacement.finish().map_err(|error| error.to_string())
}

#[test]
fn a_running_server_keeps_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let storage = open(&path);
    let serial = commit(&storage, &[(0, Tid::ZERO, b"served")]).unwrap();
    let error = replace(&path, &database(1).0).unwrap_err();
    assert!(error.contains("is another server running?"), "{error}");
    assert!(!dir.path().join("Data.fs.part").exists());
    commit(&storage, &[(0, serial, b"later")]).unwrap();
    storage.close().unwrap();
    assert_eq!(load(&open(&path), 0).unwrap().0, b"later");
}

#[test]
fn former_files_are_kept_with_their_index_and_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    assert_eq!(replace(&path, &database(1).0).unwrap(), Replaced { aside: None });
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let mut former = Vec::new();
    for (count, name) in
        [(2, "Data.fs.before-restore"), (3, "Data.fs.before-restore-2"), (4, "Data.fs.before-restore-3")]
    {
        former.push((
            dir.path().join(name),
            fs::read(&path).unwrap(),
            fs::read(dir.path().join("Data.fs.index")).unwrap(),
        ));
        let aside = replace(&path, &database(count).0).unwrap().aside.unwrap();
        assert_eq!(aside, dir.path().join(name));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o640);
    }
    for (aside, bytes, index) in former {
        assert_eq!(fs::read(&aside).unwrap(), bytes);
        let beside = format!("{}.index", aside.display());
        assert_eq!(fs::read(beside).unwrap(), index);
    }
    let storage = open(&path);
    assert_eq!(storage.object_count(), 5);
    assert!(storage.used_index());
}

#[test]
fn a_file_that_is_not_complete_is_not_put_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let (bytes, ends) = database(3);
    replace(&path, &bytes).unwrap();
    for (new, expected) in [
        (&bytes[..ends[3] - 5], "is not complete"),
        (&bytes[..2], "lacks the magic"),
        (&b"something else"[..], "not a FileStorage"),
    ] {
        let error = replace(&path, new).unwrap_err();
        assert!(error.contains(expected), "{error}");
        assert_eq!(fs::read(&path).unwrap(), bytes);
        assert_eq!(fs::read(dir.path().join("Data.fs.part")).unwrap(), new);
    }
    begin(&path).unwrap().give_up().unwrap();
    assert!(!dir.path().join("Data.fs.part").exists());
}

#[test]
fn what_is_no_file_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let error = begin(dir.path()).map(|_| ()).unwrap_err();
    assert!(error.ends_with("is not a file, so nothing can be put in its place"), "{error}");
    let error = begin(Path::new("/dev/null")).map(|_| ()).unwrap_err();
    assert!(error.contains("/dev/null is not a file"), "{error}");
}

/// A link to another disk stays: the file behind it is replaced.
#[test]
fn a_link_is_followed() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (path, data) = (dir.path().join("Data.fs"), other.path().join("big.fs"));
    let (bytes, _) = database(2);
    fs::write(&data, &bytes).unwrap();
    symlink(&data, &path).unwrap();
    let (new, _) = database(3);
    let aside = replace(&path, &new).unwrap().aside.unwrap();
    assert!(path.symlink_metadata().unwrap().is_symlink());
    assert_eq!((fs::read(&data).unwrap(), fs::read(aside).unwrap()), (new, bytes));
    assert!(dir.path().join("Data.fs.index").exists());
    let storage = open(&path);
    assert!(storage.used_index());
}
