//! A rewind while a backup reads the file: the backup fails, and the next one is right.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::storage::{commit, open_with};
use runzeo::ids::Tid;
use runzeo::internal::backup::repository::{
    BackupError, CreateOptions, ProgressListener, Repository as Zeobackup, Source, Target, create,
};
use runzeo::internal::backup::{repository, repozo};
use runzeo::internal::base::clock::TimeSource;
use runzeo::internal::storage::media::RealMedia;
use runzeo::storage::file::{FileStorage, FileStorageOptions};
use runzeo::storage::prelude::*;

/// Transactions of 10 KB: together more than a backup reads before it reports.
const COUNT: usize = 200;

/// A storage that is rewound when a backup reports for the first time after it is armed.
struct Site {
    dir: tempfile::TempDir,
    storage: FileStorage,
    tids: Vec<Tid>,
    is_armed: AtomicBool,
    time: TimeSource,
}

impl Site {
    fn new() -> Site {
        let dir = tempfile::tempdir().unwrap();
        let storage = open_with(FileStorageOptions::new(dir.path().join("Data.fs"))).unwrap();
        std::fs::create_dir(dir.path().join("repo")).unwrap();
        let mut site = Site {
            dir,
            storage,
            tids: Vec::new(),
            is_armed: AtomicBool::new(false),
            time: TimeSource::manual(),
        };
        site.tids = site.grow(b'a');
        site
    }

    fn grow(&self, fill: u8) -> Vec<Tid> {
        (0..COUNT)
            .map(|_| {
                let serial = self.storage.get_tid(runzeo::ids::Oid(1)).unwrap_or(Tid::ZERO);
                commit(&self.storage, &[(1, serial, &[fill; 10_000])]).unwrap()
            })
            .collect()
    }

    fn bytes(&self) -> Vec<u8> {
        let bytes = std::fs::read(self.dir.path().join("Data.fs")).unwrap();
        bytes[..self.storage.size() as usize].to_vec()
    }

    /// Takes back what was not read yet as well as what was, and writes more than that.
    fn rewind_once(&self) {
        if self.is_armed.swap(false, Ordering::Relaxed) {
            self.storage.replicable().unwrap().rewind(self.tids[2]).unwrap().unwrap();
            (0..3).for_each(|_| drop(self.grow(b'b')));
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }
}

impl ProgressListener for &Site {
    fn progress(&self, _: u64) {
        self.rewind_once();
    }
    fn warning(&self, _: &str) {}
}

impl repozo::Listener for &Site {
    fn report(&self, progress: repozo::Progress<'_>) {
        if let repozo::Progress::WritingFull { .. } | repozo::Progress::WritingDelta { .. } = progress {
            self.rewind_once();
        }
    }
    fn wants_sums(&self) -> bool {
        false
    }
}

fn repozo_backup(site: &Site) -> Result<(), repozo::RepozoError> {
    site.time.advance(Duration::from_secs(1));
    let repository = repozo::Repository::new(Arc::new(RealMedia), &site.path("repo"));
    let options = repozo::BackupOptions {
        file: site.path("Data.fs"),
        full: false,
        quick: true,
        gzip: false,
        kill_old: false,
    };
    repozo::backup(&repository, &options, &site.time, &site)
}

fn repozo_restored(site: &Site) -> Vec<u8> {
    let repository = repozo::Repository::new(Arc::new(RealMedia), &site.path("repo"));
    let output = site.path("Restored.fs");
    let options = repozo::RestoreOptions { date: None, output: Some(output.clone()), with_verify: true };
    repozo::restore(&repository, &options, &site.time, &mut Vec::new(), &site).unwrap();
    take(&output)
}

fn take(path: &Path) -> Vec<u8> {
    let bytes = std::fs::read(path).unwrap();
    std::fs::remove_file(path).unwrap();
    bytes
}

#[test]
fn repozo_stores_no_mixture() {
    for has_older in [false, true] {
        let site = Site::new();
        if has_older {
            repozo_backup(&site).unwrap();
            site.grow(b'c');
        }
        let before = site.bytes();
        site.is_armed.store(true, Ordering::Relaxed);
        let error = repozo_backup(&site).unwrap_err().to_string();
        assert!(error.contains("taken back while it was read"), "{error}");
        assert_ne!(site.bytes(), before);
        repozo_backup(&site).unwrap();
        assert!(repozo_restored(&site) == site.bytes());
    }
}

fn zeobackup(site: &Site) -> Result<(), BackupError> {
    site.time.advance(Duration::from_secs(1));
    let repository = Zeobackup::open_or_create(Arc::new(RealMedia), &site.path("own"))?;
    let source = Source { name: "1".into(), path: site.path("Data.fs"), blob_dir: None };
    let options = CreateOptions { sources: vec![source], segment_len: 300_000, ..CreateOptions::default() };
    create(&repository, &options, &site.time, &site).map(drop)
}

fn zeobackup_restored(site: &Site) -> Vec<u8> {
    let repository = Zeobackup::open(Arc::new(RealMedia), &site.path("own")).unwrap();
    let output = site.path("Restored.fs");
    let target = Target { name: "1".into(), path: output.clone(), blob_dir: None };
    let options = repository::RestoreOptions { targets: vec![target], ..Default::default() };
    repository::restore(&repository, &options, &site).unwrap();
    take(&output)
}

#[test]
fn zeobackup_stores_no_mixture() {
    for has_older in [false, true] {
        let site = Site::new();
        if has_older {
            zeobackup(&site).unwrap();
            site.grow(b'c');
        }
        site.is_armed.store(true, Ordering::Relaxed);
        let error = zeobackup(&site).unwrap_err().to_string();
        assert!(error.contains("taken back while it was read"), "{error}");
        zeobackup(&site).unwrap();
        assert!(zeobackup_restored(&site) == site.bytes());
    }
}
