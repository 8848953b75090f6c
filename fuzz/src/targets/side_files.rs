//! The note beside a data file (`Data.fs.tmp`) and a blob directory: for arbitrary names and bytes, the bytes read are
//! bounded by the input, and no file outside the blob directory, and the one of the old blobs, is changed.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use runzeo::ids::Oid;
use runzeo::internal::storage::file::TailNote;
use runzeo::internal::storage::media::{
    Access, BOOT_LEN, Entry, Identity, Kind, Media, MediaDir, MediaFile, Readers, TakenOver, Time,
};
use runzeo::storage::blob::{BlobDir, Layout};
use runzeo::storage::file::{FileStorage, FileStorageOptions};
use runzeo::storage::prelude::*;

const BASE: &str = "/blobs";
/// Where a pack puts the blobs that it leaves out, if the file of before is kept.
const OLD: &str = "/blobs.old";

/// A file system in which all directories contain these names, and all files this content.
struct OneOfEach {
    names: Vec<OsString>,
    content: Vec<u8>,
    layout: &'static [u8],
    touched: Mutex<Vec<PathBuf>>,
}

impl OneOfEach {
    fn touch(&self, path: &Path) {
        self.touched.lock().unwrap().push(path.to_owned());
    }

    fn file(&self, path: &Path) -> Arc<dyn MediaFile> {
        let is_marker = path.ends_with(".layout");
        Arc::new(if is_marker { self.layout.to_vec() } else { self.content.clone() })
    }
}

/// The file system as the storage sees it.
#[derive(Clone)]
struct Disk(Arc<OneOfEach>);

struct Dir {
    disk: Disk,
    path: PathBuf,
}

impl Media for Disk {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn MediaFile>> {
        if access != Access::Read {
            self.0.touch(path);
        }
        Ok(self.0.file(path))
    }
    fn exists(&self, _: &Path) -> bool {
        true
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.touch(from);
        self.0.touch(to);
        Ok(())
    }
    fn link(&self, _: &Path, to: &Path) -> io::Result<()> {
        self.0.touch(to);
        Ok(())
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.touch(path);
        Ok(())
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn create_dir(&self, path: &Path) -> io::Result<bool> {
        self.0.touch(path);
        Ok(false)
    }
    fn dir(&self, path: &Path) -> io::Result<Arc<dyn MediaDir>> {
        Ok(Arc::new(Dir { disk: self.clone(), path: path.to_owned() }))
    }
    fn is_file(&self, _: &Path) -> bool {
        true
    }
    fn identity(&self, _: &Path) -> io::Result<Identity> {
        Ok(Identity::default())
    }
    fn free_space(&self, _dir: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn now(&self) -> Time {
        0
    }
    fn boot(&self) -> Option<[u8; BOOT_LEN]> {
        None
    }
}

impl Dir {
    fn touch(&self, name: &OsStr) -> io::Result<()> {
        self.disk.0.touch(&self.path.join(name));
        Ok(())
    }
}

impl MediaDir for Dir {
    fn path(&self) -> &Path {
        &self.path
    }
    fn dir(&self, below: &Path) -> io::Result<Arc<dyn MediaDir>> {
        self.disk.dir(&self.path.join(below))
    }
    fn read(&self, below: &Path) -> io::Result<Arc<dyn MediaFile>> {
        Ok(self.disk.0.file(below))
    }
    fn create(&self, name: &OsStr, _: Readers) -> io::Result<Arc<dyn MediaFile>> {
        self.touch(name)?;
        Ok(self.disk.0.file(name.as_ref()))
    }
    fn entry(&self, _: &Path) -> io::Result<Entry> {
        Ok(Entry { kind: Kind::File, device: 1, inode: 1, age: Duration::from_secs(1 << 30) })
    }
    fn readers(&self) -> io::Result<u32> {
        Ok(0o444)
    }
    fn list(&self) -> io::Result<Vec<OsString>> {
        Ok(self.disk.0.names.clone())
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    fn create_dir(&self, name: &OsStr) -> io::Result<bool> {
        self.touch(name).map(|()| false)
    }
    fn remove_dir(&self, name: &OsStr) -> io::Result<()> {
        self.touch(name)?;
        Err(io::ErrorKind::DirectoryNotEmpty.into())
    }
    fn remove(&self, name: &OsStr) -> io::Result<()> {
        self.touch(name)
    }
    fn rename(&self, name: &OsStr, to: &dyn MediaDir, to_name: &OsStr) -> io::Result<()> {
        self.disk.rename(&self.path.join(name), &to.path().join(to_name))
    }
    fn link(&self, _: &OsStr, to: &dyn MediaDir, to_name: &OsStr) -> io::Result<()> {
        self.disk.0.touch(&to.path().join(to_name));
        Ok(())
    }
    fn is_on_disk_of(&self, _: &dyn MediaDir) -> bool {
        true
    }
    fn take_over(&self, below: &Path, to: &dyn MediaDir, to_name: &OsStr) -> io::Result<TakenOver> {
        let from = self.path.join(below);
        self.disk.rename(&from, &to.path().join(to_name))?;
        let dir = self.disk.dir(from.parent().unwrap_or(Path::new(BASE)))?;
        Ok(TakenOver { file: self.disk.0.file(&from), dir, moved: true })
    }
}

/// The first byte selects; then comes a note, or lines: the names in every directory, an empty one, and the content of
/// every file.
pub fn run(data: &[u8]) {
    match data.split_first() {
        Some((0, note)) => {
            if let Some(note) = TailNote::parse(note) {
                assert!(note.zeros.len() <= data.len() && note.oid_mark <= Oid::MAX);
            }
        }
        Some((&choice, text)) => blob_dir(choice, text),
        None => {}
    }
}

fn blob_dir(choice: u8, text: &[u8]) {
    let (layout, name) =
        if choice & 1 == 1 { (Layout::Bushy, &b"bushy"[..]) } else { (Layout::Lawn, &b"lawn"[..]) };
    let mut lines = text.split(|byte| *byte == b'\n');
    // Names that a directory cannot contain: an empty one, itself, a path.
    let is_name =
        |name: &&[u8]| ![&b""[..], b".", b".."].contains(name) && !name.iter().any(|b| matches!(b, b'/' | 0));
    let names: Vec<OsString> = lines
        .by_ref()
        .take_while(|line| !line.is_empty())
        .filter(is_name)
        .take(64)
        .map(|name| OsString::from_vec(name.to_vec()))
        .collect();
    let content = lines.collect::<Vec<_>>().join(&b'\n');
    for name in &names {
        if let Some(oid) = name.to_str().and_then(|name| layout.oid_of(name)) {
            assert!(layout.oid_path(oid).is_relative());
        }
    }
    let media = Arc::new(OneOfEach { names, content, layout: name, touched: Mutex::default() });
    let Ok(dir) = BlobDir::open_on(Arc::new(Disk(Arc::clone(&media))), Path::new(BASE), false) else {
        return;
    };
    assert_eq!(dir.layout(), layout);
    let is_old_kept = choice & 2 == 2;
    dir.clean(is_old_kept, &|oid, tid| Ok((oid.0 ^ tid.0) & 1 == 0));
    for path in media.touched.lock().unwrap().iter() {
        let is_own = path.starts_with(BASE) || is_old_kept && path.starts_with(OLD);
        let inside = is_own && path.components().all(|part| part != std::path::Component::ParentDir);
        assert!(inside, "{} is outside", path.display());
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    // Parts of a note have a checksum, which mutations do not find, so the seeds are real notes.
    let closed = [&b"\0"[..], &real_note()].concat();
    let with_zeros = [&closed[..], &8192u64.to_be_bytes(), &4096u64.to_be_bytes()].concat();
    vec![
        closed,
        with_zeros,
        b"\x01runzeo-12-3-0000000000000001.tmp\n0x03e7.blob\ntmpabc.tmp\n\n0000000000000001\n00000000000000010000000000000002\n".to_vec(),
        b"\x02runzeo-1-1.tmp\n0x01\n.layout\nBUCx\n0x0123.blob\n\nffffffffffffffff\n".to_vec(),
        b"\x010x00\n0x7f\n0xff.blob\nCTFTx\n\n".to_vec(),
    ]
}

/// The note that a storage leaves beside an empty file when it is closed.
fn real_note() -> Vec<u8> {
    let dir = std::env::temp_dir().join(format!("runzeo-fuzz-{}", std::process::id()));
    let read = || -> io::Result<Vec<u8>> {
        std::fs::create_dir_all(&dir)?;
        let path = dir.join("Data.fs");
        let storage = FileStorage::open(FileStorageOptions::new(&path)).map_err(io::Error::other)?;
        storage.close().map_err(io::Error::other)?;
        std::fs::read(path.with_extension("fs.tmp"))
    };
    let note = read();
    let _ = std::fs::remove_dir_all(&dir);
    note.expect("the note of an empty file")
}
