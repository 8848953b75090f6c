//! A `Data.fs` and a repository on a disk in memory, and a time that the test moves.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::faulty::Faulty;
use crate::support::storage::{commit, open, transactions};
use runzeo::ids::Tid;
use runzeo::internal::backup::repozo::{
    BackupOptions, Listener, Progress, Repository, RepozoError, RestoreOptions, backup, restore, verify,
};
use runzeo::internal::base::clock::TimeSource;
use runzeo::internal::storage::media::{Access, BOOT_LEN, Identity, Media, MediaDir, MediaFile, Time};
use runzeo::storage::prelude::*;

/// What was reported.
#[derive(Default)]
pub struct Heard {
    pub warnings: Mutex<Vec<String>>,
    pub mended: Mutex<Vec<String>>,
    pub removed: Mutex<Vec<String>>,
}

impl Listener for Heard {
    fn report(&self, progress: Progress<'_>) {
        let (list, what) = match progress {
            Progress::Warning { what } => (&self.warnings, what.to_string()),
            Progress::Mended { what } => (&self.mended, what.to_string()),
            Progress::Removing { name } => (&self.removed, name.to_string()),
            _ => return,
        };
        list.lock().unwrap().push(what);
    }

    fn wants_sums(&self) -> bool {
        false
    }
}

/// The same disk on a file system that cannot give a file a second name.
pub struct WithoutLinks(pub Faulty);

impl Media for WithoutLinks {
    fn link(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn MediaFile>> {
        self.0.open(path, access)
    }
    fn exists(&self, path: &Path) -> bool {
        self.0.exists(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.sync_dir(dir)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<bool> {
        self.0.create_dir(dir)
    }
    fn dir(&self, path: &Path) -> io::Result<Arc<dyn MediaDir>> {
        self.0.dir(path)
    }
    fn is_file(&self, path: &Path) -> bool {
        self.0.is_file(path)
    }
    fn identity(&self, path: &Path) -> io::Result<Identity> {
        self.0.identity(path)
    }
    fn free_space(&self, dir: &Path) -> io::Result<u64> {
        self.0.free_space(dir)
    }

    fn now(&self) -> Time {
        self.0.now()
    }
    fn boot(&self) -> Option<[u8; BOOT_LEN]> {
        self.0.boot()
    }
}

pub struct World {
    /// Whether files can have second names.
    pub has_links: bool,
    /// Its names are used, for locks; the files are in memory.
    pub dir: tempfile::TempDir,
    pub disk: Faulty,
    pub time: TimeSource,
}

/// A database of transactions, each with a long and a short record: its bytes, and where each transaction ends.
pub fn database(count: u64) -> (Vec<u8>, Vec<usize>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let storage = open(&path);
    for n in 0..count {
        let serial = storage.get_tid(runzeo::ids::Oid(0)).unwrap_or(Tid::ZERO);
        let long = vec![n as u8; 300 + 40 * n as usize];
        commit(&storage, &[(0, serial, &long), (n + 1, Tid::ZERO, b"short")]).unwrap();
    }
    storage.close().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let mut ends = transactions(&bytes);
    ends.push(bytes.len());
    (bytes, ends)
}

impl World {
    pub fn new() -> World {
        World::with(Faulty::new(1, None))
    }

    pub fn with(disk: Faulty) -> World {
        World { has_links: true, dir: tempfile::tempdir().unwrap(), disk, time: TimeSource::manual() }
    }

    /// The same names on another disk.
    pub fn on(self, disk: Faulty) -> World {
        World { disk, ..self }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes `Data.fs` have these bytes. It stays the same file.
    pub fn source(&self, bytes: &[u8]) {
        self.disk.put(&self.path("Data.fs"), bytes);
    }

    pub fn repository(&self) -> Repository {
        let media: Arc<dyn Media> = match self.has_links {
            true => Arc::new(self.disk.clone()),
            false => Arc::new(WithoutLinks(self.disk.clone())),
        };
        Repository::new(media, &self.path("repo"))
    }

    pub fn backup(&self, change: impl FnOnce(&mut BackupOptions)) -> Result<Heard, RepozoError> {
        let heard = Heard::default();
        self.backup_telling(change, &heard).map(|()| heard)
    }

    pub fn backup_telling(
        &self,
        change: impl FnOnce(&mut BackupOptions),
        heard: &Heard,
    ) -> Result<(), RepozoError> {
        self.time.advance(Duration::from_secs(1));
        let file = self.path("Data.fs");
        let mut options = BackupOptions { file, full: false, quick: false, gzip: false, kill_old: false };
        change(&mut options);
        backup(&self.repository(), &options, &self.time, heard)
    }

    /// What a restore yields, as of a date.
    pub fn restored(&self, date: Option<&str>) -> Result<(Vec<u8>, Heard), RepozoError> {
        let options = RestoreOptions { date: date.map(String::from), output: None, with_verify: false };
        let (mut out, heard) = (Vec::new(), Heard::default());
        restore(&self.repository(), &options, &self.time, &mut out, &heard).map(|()| (out, heard))
    }

    pub fn restore_to(&self, name: &str) -> Result<(), RepozoError> {
        let options = RestoreOptions { date: None, output: Some(self.path(name)), with_verify: true };
        restore(&self.repository(), &options, &self.time, &mut Vec::new(), &Heard::default())
    }

    pub fn verified(&self, quick: bool) -> Result<Heard, String> {
        let heard = Heard::default();
        verify(&self.repository(), quick, &self.time, &heard)
            .map(|()| heard)
            .map_err(|error| error.to_string())
    }

    /// The names in the repository, oldest first.
    pub fn names(&self) -> Vec<String> {
        let repo = self.path("repo");
        let paths = self.disk.paths();
        let below = paths.iter().filter_map(|path| path.strip_prefix(&repo).ok());
        below.map(|name| name.to_string_lossy().into_owned()).collect()
    }

    /// The names of fulls and deltas.
    pub fn data(&self) -> Vec<String> {
        let is_data =
            |name: &String| [".fs", ".fsz", ".deltafs", ".deltafsz"].iter().any(|end| name.ends_with(end));
        self.names().into_iter().filter(is_data).collect()
    }

    /// The dat file of the last chain.
    pub fn dat(&self) -> (PathBuf, String) {
        let name = self.names().into_iter().rfind(|name| name.ends_with(".dat")).expect("a dat file");
        let path = self.path("repo").join(name);
        let text = String::from_utf8(self.disk.bytes(&path).unwrap()).unwrap();
        (path, text)
    }

    pub fn put(&self, name: &str, bytes: &[u8]) {
        self.disk.put(&self.path("repo").join(name), bytes);
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        self.disk.bytes(&self.path("repo").join(name)).expect("the file")
    }

    pub fn remove(&self, name: &str) {
        self.disk.remove(&self.path("repo").join(name)).unwrap();
    }
}
