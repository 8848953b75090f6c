//! The layout of a blob directory changes in place. Whatever interrupts it, the storage has all its blobs before and
//! after the next attempt, which ends what was begun.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::{fs, io};

use runzeo::ids::{Oid, Tid};
use runzeo::internal::base::shared_dir::Dir;
use runzeo::internal::storage::blob::Relayout;
use runzeo::internal::storage::media::{Entry, Media, MediaDir, MediaFile, Readers, RealMedia, TakenOver};
use runzeo::storage::blob::Layout;
use runzeo::storage::{BlobDir, Result};

use crate::support::faulty::{Fault, Faulty};

/// Objects of which one is in the same directory in both layouts, or above the other's.
const OIDS: [u64; 4] = [0, 1, 0x0100_0000_0000_0001, 0x1234];

type Blobs = BTreeMap<(Oid, Tid), Vec<u8>>;

fn blobs() -> Blobs {
    let revisions = OIDS.iter().flat_map(|oid| [(*oid, 5), (*oid, 0x0102)]);
    revisions.map(|(oid, tid)| ((Oid(oid), Tid(tid)), format!("{oid} {tid}").into_bytes())).collect()
}

fn path_of(base: &Path, layout: Layout, (oid, tid): (Oid, Tid)) -> PathBuf {
    base.join(layout.oid_path(oid)).join(layout.file_name(oid, tid))
}

fn change(media: &dyn Media, base: &Path, target: Layout) -> Result<u64> {
    Relayout::open(media, base, &mut |_| ())?.change(target)
}

/// The storage has these blobs, by the layout that the marker names.
fn check(media: &Arc<dyn Media>, base: &Path, blobs: &Blobs, what: &str) {
    let dir = BlobDir::open_on(Arc::clone(media), base, true).unwrap_or_else(|e| panic!("{what}: {e}"));
    for ((oid, tid), data) in blobs {
        let blob = dir.load(*oid, *tid).unwrap_or_else(|e| panic!("{what}: {e}"));
        let mut found = vec![0; 100];
        let len = blob.read_at(&mut found, 0).unwrap();
        assert_eq!(&found[..len], data, "{what}");
    }
}

fn faulty(base: &Path, from: Layout) -> Faulty {
    let media = Faulty::new(7, None);
    media.put(&base.join(".layout"), from.name().as_bytes());
    for (revision, data) in blobs() {
        media.put(&path_of(base, from, revision), &data);
    }
    media
}

#[test]
fn blobs_are_there_after_a_failure_at_every_call() {
    let base = Path::new("/blobs");
    let all = blobs();
    for (from, to) in [(Layout::Lawn, Layout::Bushy), (Layout::Bushy, Layout::Lawn)] {
        for n in 1.. {
            let mut has_fired = false;
            for fault in [Fault::PowerCut, Fault::Error] {
                let media = faulty(base, from);
                let begun = media.calls();
                media.fail_at(begun + n, fault);
                let result = change(&media, base, to);
                has_fired |= media.fired();
                assert_eq!(result.is_err(), media.fired(), "{fault:?} at call {n}: {result:?}");
                for (after, how) in [
                    (media.after_kill(), "kill"),
                    (media.after_power_cut(), "cut"),
                    (media.after_power_cut(), "cut"),
                ] {
                    let what = format!("{from:?}: {fault:?} at call {n}, {how}");
                    let media: Arc<dyn Media> = Arc::new(after.clone());
                    check(&media, base, &all, &what);
                    // Back, if it was not too late, and there again.
                    let target = if n % 2 == 0 { to } else { from };
                    change(&*media, base, target).unwrap_or_else(|e| panic!("{what}: {e}"));
                    check(&media, base, &all, &what);
                    let mut expected: Vec<PathBuf> =
                        all.keys().map(|revision| path_of(base, target, *revision)).collect();
                    expected.push(base.join(".layout"));
                    expected.sort();
                    let mut found = after.paths();
                    found.retain(|path| path.extension().is_none_or(|end| end != "tmp"));
                    assert_eq!(found, expected, "{what}");
                }
            }
            if !has_fired {
                assert!(n > 20, "a change makes {n} calls");
                break;
            }
        }
    }
}

/// Between two attempts a storage goes on with the layout that the marker names: it adds blobs, and packs remove some.
#[test]
fn what_a_storage_did_between_two_attempts_counts() {
    let base = Path::new("/blobs");
    for n in 1.. {
        let media = faulty(base, Layout::Lawn);
        media.fail_at(media.calls() + n, Fault::PowerCut);
        let is_done = change(&media, base, Layout::Bushy).is_ok();
        let media = media.after_kill();
        let disk: Arc<dyn Media> = Arc::new(media.clone());
        let dir = BlobDir::open_on(Arc::clone(&disk), base, true).unwrap();
        let mut all = blobs();
        let (gone, added) = ((Oid(1), Tid(5)), (Oid(1), Tid(0x0200)));
        media.remove(&path_of(base, dir.layout(), gone)).unwrap();
        all.remove(&gone);
        media.put(&path_of(base, dir.layout(), added), b"added");
        all.insert(added, b"added".to_vec());
        change(&media, base, Layout::Bushy).unwrap_or_else(|e| panic!("{n}: {e}"));
        check(&disk, base, &all, &format!("call {n}"));
        let mut expected: Vec<PathBuf> =
            all.keys().map(|revision| path_of(base, Layout::Bushy, *revision)).collect();
        expected.push(base.join(".layout"));
        expected.sort();
        let mut found = media.paths();
        found.retain(|path| path.extension().is_none_or(|end| end != "tmp"));
        assert_eq!(found, expected, "{n}");
        if is_done {
            break;
        }
    }
}

fn real(from: Layout) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("blobs");
    for (revision, data) in blobs() {
        let path = path_of(&base, from, revision);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, data).unwrap();
    }
    fs::write(base.join(".layout"), from.name()).unwrap();
    fs::create_dir(base.join("tmp")).unwrap();
    (dir, base)
}

/// What may belong to somebody is not removed: names of the new layout before the change, other files, another marker.
#[test]
fn files_of_unknown_origin_are_kept() {
    let (_dir, base) = real(Layout::Lawn);
    let stray = path_of(&base, Layout::Bushy, (Oid(9), Tid(9)));
    fs::create_dir_all(stray.parent().unwrap()).unwrap();
    fs::write(&stray, "whose?").unwrap();
    let error = change(&RealMedia, &base, Layout::Bushy).unwrap_err().to_string();
    assert!(error.contains("1 files in it have names of the layout bushy already"), "{error}");
    assert_eq!(fs::read(&stray).unwrap(), b"whose?");
    fs::remove_file(&stray).unwrap();

    let other = base.join("0x1234/notes.txt");
    fs::write(&other, "mine").unwrap();
    assert_eq!(change(&RealMedia, &base, Layout::Bushy).unwrap(), 8);
    assert_eq!(fs::read(&other).unwrap(), b"mine");
    assert!(!base.join("0x01").join("0x05.blob").exists() && base.join("tmp").exists());
    assert_eq!(fs::read(base.join(".layout")).unwrap(), b"bushy");
    check(&(Arc::new(RealMedia) as Arc<dyn Media>), &base, &blobs(), "with another file");

    for (state, expected) in [
        ("link zeocache bushy", "cannot be understood"),
        ("something", "cannot be understood"),
        ("remove bushy lawn", "has removed former names, but .layout names bushy again"),
    ] {
        fs::write(base.join(".relayout"), state).unwrap();
        let error = change(&RealMedia, &base, Layout::Lawn).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        check(&(Arc::new(RealMedia) as Arc<dyn Media>), &base, &blobs(), state);
    }
    fs::remove_file(base.join(".relayout")).unwrap();
    fs::write(base.join(".removed"), "").unwrap();
    let error = change(&RealMedia, &base, Layout::Lawn).unwrap_err().to_string();
    assert!(error.contains("start the server once"), "{error}");
    fs::remove_file(base.join(".removed")).unwrap();
    // A different file at the new path.
    fs::write(base.join(".relayout"), "link bushy lawn").unwrap();
    fs::create_dir_all(base.join("0x01")).unwrap();
    fs::write(base.join("0x01/0x05.blob"), "another").unwrap();
    let error = change(&RealMedia, &base, Layout::Lawn).unwrap_err().to_string();
    assert!(error.contains("are different files"), "{error}");
    check(&(Arc::new(RealMedia) as Arc<dyn Media>), &base, &blobs(), "a different file");
}

#[test]
fn a_client_cache_is_no_blob_directory_of_a_storage() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(".layout"), "zeocache").unwrap();
    assert!(change(&RealMedia, dir.path(), Layout::Bushy).is_err());
    assert_eq!(fs::read(dir.path().join(".layout")).unwrap(), b"zeocache");
}

/// A call that changes names in a directory, or makes them durable.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Call {
    /// A name was added or removed in this directory.
    Changed(PathBuf),
    Synced(PathBuf),
    RemovedDir(PathBuf),
    /// The marker was changed.
    Switched,
    /// The change is over.
    Forgotten,
}

struct Recording {
    inner: Arc<dyn MediaDir>,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Recording {
    fn add(&self, call: Call) {
        self.calls.lock().unwrap().push(call);
    }

    fn changed(&self) {
        self.add(Call::Changed(self.path().to_owned()));
    }
}

impl MediaDir for Recording {
    fn path(&self) -> &Path {
        self.inner.path()
    }
    fn of_system(&self) -> Option<&Dir> {
        self.inner.of_system()
    }
    fn dir(&self, below: &Path) -> io::Result<Arc<dyn MediaDir>> {
        Ok(Arc::new(Recording { inner: self.inner.dir(below)?, calls: Arc::clone(&self.calls) }))
    }
    fn read(&self, below: &Path) -> io::Result<Arc<dyn MediaFile>> {
        self.inner.read(below)
    }
    fn create(&self, name: &OsStr, readers: Readers) -> io::Result<Arc<dyn MediaFile>> {
        self.inner.create(name, readers)
    }
    fn entry(&self, below: &Path) -> io::Result<Entry> {
        self.inner.entry(below)
    }
    fn readers(&self) -> io::Result<u32> {
        self.inner.readers()
    }
    fn list(&self) -> io::Result<Vec<OsString>> {
        self.inner.list()
    }
    fn sync(&self) -> io::Result<()> {
        self.add(Call::Synced(self.path().to_owned()));
        self.inner.sync()
    }
    fn create_dir(&self, name: &OsStr) -> io::Result<bool> {
        self.changed();
        self.inner.create_dir(name)
    }
    fn remove_dir(&self, name: &OsStr) -> io::Result<()> {
        self.inner.remove_dir(name)?;
        self.add(Call::RemovedDir(self.path().join(name)));
        self.changed();
        Ok(())
    }
    fn remove(&self, name: &OsStr) -> io::Result<()> {
        match name.to_str() {
            Some(".relayout") => self.add(Call::Forgotten),
            Some(name) if name.ends_with(".tmp") => {}
            _ => self.changed(),
        }
        self.inner.remove(name)
    }
    fn rename(&self, name: &OsStr, to: &dyn MediaDir, to_name: &OsStr) -> io::Result<()> {
        if to_name == ".layout" {
            self.add(Call::Switched);
        }
        self.inner.rename(name, to, to_name)
    }
    fn link(&self, name: &OsStr, to: &dyn MediaDir, to_name: &OsStr) -> io::Result<()> {
        self.add(Call::Changed(to.path().to_owned()));
        self.inner.link(name, to, to_name)
    }
    fn is_on_disk_of(&self, other: &dyn MediaDir) -> bool {
        self.inner.is_on_disk_of(other)
    }
    fn take_over(&self, below: &Path, to: &dyn MediaDir, to_name: &OsStr) -> io::Result<TakenOver> {
        self.inner.take_over(below, to, to_name)
    }
}

/// New names are durable before the marker changes, and removals before it is forgotten that they were begun.
#[test]
fn names_are_durable_before_the_next_step() {
    for (from, to) in [(Layout::Lawn, Layout::Bushy), (Layout::Bushy, Layout::Lawn)] {
        let (_dir, base) = real(from);
        let calls = Arc::new(Mutex::new(Vec::new()));
        let root = Recording { inner: RealMedia.dir(&base).unwrap(), calls: Arc::clone(&calls) };
        Relayout::of(&base, Arc::new(root), &mut |_| ()).change(to).unwrap();
        let calls = calls.lock().unwrap();
        let mut unsynced = BTreeSet::new();
        let mut steps = 0;
        for call in calls.iter() {
            match call {
                Call::Changed(dir) => _ = unsynced.insert(dir.clone()),
                Call::Synced(dir) => _ = unsynced.remove(dir),
                // Its parent has to be synced instead.
                Call::RemovedDir(dir) => _ = unsynced.remove(dir),
                Call::Switched | Call::Forgotten => {
                    assert!(unsynced.is_empty(), "{call:?}: {unsynced:?}");
                    steps += 1;
                }
            }
        }
        assert_eq!(steps, 2);
        assert!(calls.iter().filter(|call| matches!(call, Call::Changed(_))).count() > 16);
    }
}
