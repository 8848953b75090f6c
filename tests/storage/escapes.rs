//! `storeBlobShared` takes over files that a client has put into the blob directory, where it may have put other
//! things: nothing outside is read, moved, removed, or given other permissions.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use runzeo::ids::{Oid, Tid};
use runzeo::storage::blob::BlobDir;
use runzeo::storage::{Refusal, StorageError};
use tempfile::TempDir;

const OID: Oid = Oid(0x0102);

/// A blob directory, and a private file beside it.
struct Place {
    top: TempDir,
    blobs: Arc<BlobDir>,
}

impl Place {
    fn new() -> Place {
        let top = tempfile::tempdir().expect("a directory");
        let blobs = BlobDir::open(&top.path().join("blobs"), false).expect("a blob directory");
        let place = Place { top, blobs };
        fs::create_dir_all(place.blobs.oid_dir(OID)).expect("the directory of the object");
        fs::write(place.secret(), "secret").expect("a secret");
        fs::set_permissions(place.secret(), fs::Permissions::from_mode(0o600)).expect("permissions");
        place
    }

    fn secret(&self) -> PathBuf {
        self.top.path().join("secret.tmp")
    }

    /// The path of a client's file in the shared directory.
    fn file(&self, name: &str) -> PathBuf {
        self.blobs.oid_dir(OID).join(name)
    }

    /// Checks that the name is refused, and that nothing outside has changed.
    fn refuses(&self, name: &str) {
        let before = fs::metadata(self.secret()).expect("the secret");
        match self.blobs.adopt(OID, name) {
            Err(StorageError::Refused { what: Refusal::BlobFile, .. }) => {}
            Err(StorageError::Io { error, .. }) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => panic!("{name:?}: {error}"),
            Ok(_) => panic!("{name:?} is taken over"),
        }
        let after = fs::metadata(self.secret()).expect("the secret is still there");
        assert_eq!((after.mode(), after.nlink(), after.len()), (before.mode(), before.nlink(), before.len()));
        assert_eq!(fs::read(self.secret()).expect("read"), b"secret");
        let left: Vec<_> = fs::read_dir(self.blobs.base().join("tmp")).expect("tmp").collect();
        assert!(left.is_empty(), "{name:?} left {left:?}");
    }
}

#[test]
fn a_plain_file_is_taken_over() {
    let place = Place::new();
    fs::write(place.file("good.tmp"), "blob").expect("write");
    let mut blob = place.blobs.adopt(OID, "good.tmp").expect("taken over");
    assert!(!place.file("good.tmp").exists());
    place.blobs.place([(OID, Tid(7), &mut blob)]).expect("placed").keep();
    assert_eq!(fs::read(place.blobs.path(OID, Tid(7))).expect("read"), b"blob");
    assert_eq!(place.blobs.load(OID, Tid(7)).expect("loaded").len, 4);
    assert_eq!(fs::metadata(place.blobs.path(OID, Tid(7))).expect("metadata").mode() & 0o222, 0);
}

#[test]
fn names_that_lead_elsewhere() {
    let place = Place::new();
    let secret = place.secret();
    let up = "../".repeat(10);
    for name in [
        secret.to_str().expect("a path"),
        &format!("{up}{}", secret.display()),
        "../secret.tmp",
        "../../../../../../../../../secret.tmp",
        "./x.tmp",
        "a/../x.tmp",
        "x.tmp/",
        "/x.tmp",
        "x.tmp\0",
        "\0.tmp",
        "..",
        ".",
        "",
        "..tmp",
        ".tmp",
        "x",
        "x.blob",
        ".layout",
        "x.tmpxx",
        "missing.tmp",
    ] {
        place.refuses(name);
    }
}

#[test]
fn links_and_what_is_no_file() {
    let place = Place::new();
    symlink(place.secret(), place.file("link.tmp")).expect("a link");
    symlink("/dev/zero", place.file("device.tmp")).expect("a link");
    symlink(place.file("link.tmp"), place.file("loop.tmp")).expect("a link");
    symlink("nowhere.tmp", place.file("nothing.tmp")).expect("a link");
    fs::hard_link(place.secret(), place.file("hard.tmp")).expect("a second name");
    fs::create_dir(place.file("directory.tmp")).expect("a directory");
    let made = std::process::Command::new("mkfifo").arg(place.file("pipe.tmp")).status().expect("mkfifo");
    assert!(made.success());
    let _listener = std::os::unix::net::UnixListener::bind(place.file("s.tmp")).expect("a socket");
    for name in [
        "link.tmp",
        "device.tmp",
        "loop.tmp",
        "nothing.tmp",
        "hard.tmp",
        "directory.tmp",
        "pipe.tmp",
        "s.tmp",
    ] {
        // Opening a pipe must not wait for a writer.
        place.refuses(name);
        assert!(fs::symlink_metadata(place.file(name)).is_ok(), "{name} was moved");
    }
}

/// At every level, including the last, a link to a directory with a file of the expected name.
#[test]
fn directories_that_are_links() {
    for level in 1..=8 {
        let place = Place::new();
        let dir = place.blobs.oid_dir(OID);
        let link = dir.ancestors().nth(8 - level).expect("a level");
        let outside = place.top.path().join("outside");
        let below = dir.strip_prefix(link).expect("below the level");
        fs::create_dir_all(outside.join(below)).expect("directories");
        fs::write(outside.join(below).join("x.tmp"), "outside").expect("write");
        fs::remove_dir_all(link).expect("remove");
        symlink(&outside, link).expect("a link");
        place.refuses("x.tmp");
        assert_eq!(fs::read(outside.join(below).join("x.tmp")).expect("still there"), b"outside");
    }
}

/// A file and a link alternate at one path: only the file may be taken over.
#[test]
fn swapped_while_it_is_taken_over() {
    let place = Arc::new(Place::new());
    let stop = Arc::new(AtomicBool::new(false));
    let swapper = {
        let (place, stop) = (Arc::clone(&place), Arc::clone(&stop));
        thread::spawn(move || {
            let (file, aside, link) = (place.file("x.tmp"), place.file("aside"), place.file("link"));
            while !stop.load(Ordering::Relaxed) {
                fs::write(&aside, "blob").expect("write");
                // Either may be gone already.
                let _ = fs::rename(&aside, &file);
                let _ = fs::remove_file(&link);
                symlink(place.secret(), &link).expect("a link");
                let _ = fs::rename(&link, &file);
            }
        })
    };
    let mut taken = 0;
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    for tid in 1.. {
        if taken >= 50 || std::time::Instant::now() > deadline {
            break;
        }
        if let Ok(mut blob) = place.blobs.adopt(OID, "x.tmp") {
            taken += 1;
            place.blobs.place([(OID, Tid(tid), &mut blob)]).expect("placed").keep();
            let path = place.blobs.path(OID, Tid(tid));
            assert!(fs::symlink_metadata(&path).expect("metadata").is_file());
            assert_eq!(fs::read(path).expect("read"), b"blob");
        }
    }
    stop.store(true, Ordering::Relaxed);
    swapper.join().expect("the swapper");
    assert!(taken > 0, "nothing was ever taken over");
    assert_eq!(fs::read(place.secret()).expect("read"), b"secret");
    assert_eq!(fs::metadata(place.secret()).expect("metadata").mode() & 0o777, 0o600);
}

/// A committed blob that was replaced by something other than a file is an error, without a wait.
#[test]
fn committed_blobs_that_are_none() {
    let place = Place::new();
    fs::create_dir(place.blobs.path(OID, Tid(1))).expect("a directory");
    assert!(place.blobs.load(OID, Tid(1)).is_err());
    let made =
        std::process::Command::new("mkfifo").arg(place.blobs.path(OID, Tid(2))).status().expect("mkfifo");
    assert!(made.success());
    assert!(place.blobs.load(OID, Tid(2)).is_err());
    // A link by the administrator, to a larger disk.
    let large = place.top.path().join("large");
    fs::write(&large, "blob").expect("write");
    symlink(&large, place.blobs.path(OID, Tid(3))).expect("a link");
    assert_eq!(place.blobs.load(OID, Tid(3)).expect("loaded").len, 4);
    // A link by another user is not followed. Only root can make one for the test.
    if rustix::process::geteuid().is_root() {
        let other = Some(65534);
        std::os::unix::fs::lchown(place.blobs.path(OID, Tid(3)), other, other).expect("chown");
        assert!(place.blobs.load(OID, Tid(3)).is_err());
    }
    assert!(Path::new(&large).exists());
}
