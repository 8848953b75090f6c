//! A database with blobs and a repository, on a disk in memory.

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::support::faulty::Faulty;
use crate::support::storage::{commit, commit_staged, meta, open_with};
use runzeo::ids::{Oid, Tid};
use runzeo::internal::backup::repository::{
    BackupError, CreateOptions, Created, ProgressListener, Pruned, Repository, RestoreOptions, Restored,
    Retention, Source, Stamp, Target, Verified, create, prune, restore, verify,
};
use runzeo::internal::base::clock::TimeSource;
use runzeo::storage::file::{FileStorage, FileStorageOptions};
use runzeo::storage::prelude::*;
use runzeo::storage::{BlobDir, PackProgress, PackRequest, Staged};

pub const BLOB_RECORD: &[u8] = b"\x80\x03cZODB.blob\nBlob\nq\x00.\x80\x03N.";

/// Keeps warnings.
#[derive(Default)]
pub struct Heard(pub RefCell<Vec<String>>);

impl ProgressListener for Heard {
    fn warning(&self, what: &str) {
        self.0.borrow_mut().push(what.into());
    }
}

pub struct Site {
    /// Its names are used, for locks; the files are in memory.
    pub dir: tempfile::TempDir,
    pub disk: Faulty,
    pub time: TimeSource,
    pub keep_old: bool,
    /// Bytes of a segment. Short ones, so that there are many.
    pub segment_len: u64,
}

impl Site {
    pub fn new(seed: u64) -> Site {
        let dir = tempfile::tempdir().unwrap();
        Site {
            dir,
            disk: Faulty::new(seed, None),
            time: TimeSource::manual(),
            keep_old: true,
            segment_len: [900, 3000, 64 << 20][seed as usize % 3],
        }
    }

    /// The same names on another disk.
    pub fn on(self, disk: Faulty) -> Site {
        Site { disk, ..self }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn open(&self, name: &str, blobs: &str) -> FileStorage {
        open_with(FileStorageOptions {
            media: Arc::new(self.disk.clone()),
            blob_dir: Some(self.path(blobs)),
            pack_keep_old: self.keep_old,
            ..FileStorageOptions::new(self.path(name))
        })
        .unwrap()
    }

    /// Commits transactions: the root and another object, now and then a blob.
    pub fn grow(&self, count: u64) -> Vec<Tid> {
        let storage = self.open("Data.fs", "blobs");
        let mut tids = Vec::new();
        for _ in 0..count {
            let n = storage.new_oids(1).unwrap()[0].0;
            let root = storage.get_tid(Oid(0)).unwrap_or(Tid::ZERO);
            let data: Vec<u8> = (0..200 + n % 100 * 7).map(|at| (at * n % 251) as u8).collect();
            tids.push(commit(&storage, &[(0, root, &data), (n, Tid::ZERO, b"short")]).unwrap());
            if n.is_multiple_of(3) {
                tids.push(self.commit_blob(&storage, n + 1000, &data));
            }
        }
        storage.close().unwrap();
        tids
    }

    fn commit_blob(&self, storage: &FileStorage, oid: u64, data: &[u8]) -> Tid {
        let serial = storage.get_tid(Oid(oid)).unwrap_or(Tid::ZERO);
        let mut upload = storage.blobs().unwrap().dir().unwrap().begin().unwrap();
        upload.write(data).unwrap();
        let blob = upload.end(Oid(oid)).unwrap();
        let mut staged = Staged::new(meta("user", "a blob"), None, b' ', 1 << 20);
        staged.store_blob(Oid(oid), serial, BLOB_RECORD, blob).unwrap();
        commit_staged(storage, staged).unwrap()
    }

    /// Packs to the time of this transaction: the former revisions of the root go.
    pub fn pack(&self, to: Tid) {
        let storage = self.open("Data.fs", "blobs");
        let progress = PackProgress::default();
        storage
            .pack(&PackRequest {
                time: to.to_unix(),
                gc: Some(false),
                references: &|_, _| Ok(()),
                progress: &progress,
                removals: None,
            })
            .unwrap();
        storage.close().unwrap();
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        self.disk.bytes(&self.path(name)).unwrap_or_default()
    }

    pub fn repository(&self) -> Result<Repository, BackupError> {
        Repository::open(Arc::new(self.disk.clone()), &self.path("repo"))
    }

    pub fn options(&self) -> CreateOptions {
        let source =
            Source { name: "1".into(), path: self.path("Data.fs"), blob_dir: Some(self.path("blobs")) };
        CreateOptions { sources: vec![source], segment_len: self.segment_len, ..CreateOptions::default() }
    }

    pub fn backup(&self) -> Result<Created, BackupError> {
        self.backup_with(&self.options())
    }

    pub fn backup_with(&self, options: &CreateOptions) -> Result<Created, BackupError> {
        self.time.advance(Duration::from_secs(1));
        let repository = Repository::open_or_create(Arc::new(self.disk.clone()), &self.path("repo"))?;
        let heard = Heard::default();
        let created = create(&repository, options, &self.time, &heard)?;
        assert_eq!(heard.0.into_inner(), [""; 0]);
        Ok(created)
    }

    pub fn stamps(&self) -> Vec<Stamp> {
        self.repository().unwrap().backups().unwrap()
    }

    /// Restores to `Restored.fs` and `restored`.
    pub fn restore(&self, stamp: Option<&Stamp>, until: Option<Tid>) -> Result<Restored, BackupError> {
        self.restore_to("Restored.fs", "restored", stamp, until)
    }

    pub fn restore_to(
        &self,
        name: &str,
        blobs: &str,
        stamp: Option<&Stamp>,
        until: Option<Tid>,
    ) -> Result<Restored, BackupError> {
        let target = Target { name: "1".into(), path: self.path(name), blob_dir: Some(self.path(blobs)) };
        let options = RestoreOptions { stamp: stamp.cloned(), until, targets: vec![target] };
        let restored = restore(&self.repository()?, &options, &Heard::default())?;
        Ok(restored.into_iter().next().unwrap())
    }

    pub fn verify(&self) -> Result<Verified, BackupError> {
        let repository = self.repository()?;
        verify(&repository, &repository.backups()?, &Heard::default())
    }

    /// Nothing is wrong with any backup.
    pub fn assert_whole(&self, what: &str) {
        let verified = self.verify().unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(verified.findings.is_empty(), "{what}: {:?}", verified.findings);
    }

    pub fn prune(&self, last: usize, is_trial: bool) -> Result<Pruned, BackupError> {
        prune(&self.repository()?, &Retention { last, ..Retention::default() }, is_trial, &Heard::default())
    }

    /// All blobs of a directory: oid, tid and content.
    pub fn blobs(&self, name: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let dir = self.path(name);
        let paths = self.disk.paths();
        let below = paths.iter().filter(|path| path.starts_with(&dir));
        let blobs = below.filter(|path| path.extension().is_some_and(|end| end == "blob"));
        blobs
            .map(|path| (path.strip_prefix(&dir).unwrap().to_owned(), self.disk.bytes(path).unwrap()))
            .collect()
    }

    /// The names of the objects of the repository.
    pub fn objects(&self) -> Vec<PathBuf> {
        let dir = self.path("repo/objects");
        self.disk
            .paths()
            .into_iter()
            .filter(|path| path.starts_with(&dir) && path.extension().is_some())
            .collect()
    }

    pub fn blob_dir(&self) -> Arc<BlobDir> {
        BlobDir::open_on(Arc::new(self.disk.clone()), &self.path("blobs"), true).unwrap()
    }
}
