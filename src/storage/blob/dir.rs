//! One blob directory.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use log::{debug, error, info, warn};

use super::layout::{self, Layout, MARKER};
use super::place;
use crate::base::fs::{dir_of, with_suffix};
use crate::base::ids::{Oid, Tid};
use crate::storage::media::{Access, Media, MediaFile};
use crate::storage::{Result, StorageError};

/// The log of Python's blob code.
pub const TARGET: &str = "ZODB.blob";

/// Where uploads are collected; clients that share the directory have files of their own in it.
const TMP: &str = "tmp";
/// Begins the names of our own temporary files: no other process has such.
pub const OWN_PREFIX: &str = "runzeo-";
pub const TMP_SUFFIX: &str = ".tmp";
/// What Python's servers and clients call their temporary files.
const PYTHON_PREFIXES: [&str; 3] = ["tmp", "BUC", "CTFT"];
/// A client of a shared directory may have a transaction open, and its files here, while the server restarts.
const FOREIGN_AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// See the module.
pub struct BlobDir {
    base: PathBuf,
    tmp: PathBuf,
    layout: Layout,
    pub(super) media: Arc<dyn Media>,
    /// Makes the names of temporary files differ.
    next_name: AtomicU64,
}

/// The data of a blob.
pub struct BlobFile {
    pub file: Arc<dyn MediaFile>,
    pub len: u64,
    pub path: PathBuf,
}

impl BlobDir {
    /// Opens the directory, or makes it unless `read_only`. Call [`BlobDir::clean`] once the storage knows what is
    /// committed.
    pub fn open(media: Arc<dyn Media>, path: &Path, read_only: bool) -> Result<Arc<BlobDir>> {
        let doing = || StorageError::io(format!("opening the blob directory {}", path.display()));
        // Without a slash at the end.
        let base: PathBuf = std::path::absolute(path).map_err(doing())?.components().collect();
        let layout = find_layout(&*media, &base)?;
        if layout == Layout::Lawn {
            warn!(
                target: TARGET,
                "The `lawn` blob directory layout is deprecated due to scalability issues on some file systems, please \
                 consider migrating to the `bushy` layout."
            );
        }
        let tmp = base.join(TMP);
        let dir = BlobDir { tmp, base, layout, media, next_name: AtomicU64::new(0) };
        if !read_only {
            dir.create().map_err(doing())?;
        }
        Ok(Arc::new(dir))
    }

    fn create(&self) -> io::Result<()> {
        if self.create_dirs(&self.base)? {
            info!(
                target: TARGET,
                "Blob directory '{}' does not exist. Created new directory.",
                self.base.display()
            );
            self.media.sync_dir(dir_of(&self.base))?;
        }
        let marker = self.base.join(MARKER);
        // Whole and before anything else: a client that shares the directory may look at any moment, and takes a
        // directory that has files and no marker for a lawn.
        if !self.media.exists(&marker) {
            let aside = with_suffix(&marker, TMP_SUFFIX);
            let file = self.media.open(&aside, Access::Truncate)?;
            file.write_at(self.layout.name().as_bytes(), 0)?;
            file.sync()?;
            self.media.rename(&aside, &marker)?;
            self.media.sync_dir(&self.base)?;
        }
        if self.create_dirs(&self.tmp)? {
            info!(
                target: TARGET,
                "Blob temporary directory '{}' does not exist. Created new directory.",
                self.tmp.display()
            );
            self.media.sync_dir(&self.base)?;
        }
        Ok(())
    }

    /// Makes a directory with all above it; whether it was missing. Call [`BlobDir::sync_above`] then.
    pub(super) fn create_dirs(&self, dir: &Path) -> io::Result<bool> {
        match self.media.create_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.create_dirs(dir_of(dir))?;
                self.media.create_dir(dir)
            }
            other => other,
        }
    }

    /// Makes the directories of an object durable. Where they are so already, that costs next to nothing.
    pub(super) fn sync_above(&self, dir: &Path) -> io::Result<()> {
        let above = dir.ancestors().skip(1).take_while(|above| above.starts_with(&self.base));
        above.into_iter().try_for_each(|above| self.media.sync_dir(above))
    }

    /// Removes what a crash left: temporary files, and blobs whose transaction never became durable. Looks only into
    /// `tmp`, and where that leads. No other process may be writing to the storage.
    ///
    /// What cannot be judged (a record is damaged) or removed stays, and is logged: it takes space, but no reader finds
    /// it, and the storage can be served.
    pub fn clean(&self, is_committed: &dyn Fn(Oid, Tid) -> Result<bool>) {
        if let Err(error) = self.finish_sweep(is_committed) {
            let dir = self.base.display();
            error!(target: TARGET, "{dir}: not all blobs that the last pack left out could be removed: {error}");
        }
        let names = match self.media.list(&self.tmp) {
            Ok(names) => names,
            Err(error) => {
                error!(target: TARGET, "{} cannot be cleaned: {error}", self.tmp.display());
                return;
            }
        };
        for name in names {
            let path = self.tmp.join(&name);
            let Some(name) = name.to_str().filter(|name| self.is_stale(name, &path)) else { continue };
            if let Some(oid) = oid_of_own(name)
                && let Err(error) = self.remove_unfinished(oid, &path, is_committed)
            {
                // It leads to a blob that may have to go, so the next start is to find it again.
                error!(target: TARGET, "{} stays: {error}", path.display());
                continue;
            }
            debug!(target: TARGET, "removing {}", path.display());
            if let Err(error) = self.media.remove(&path) {
                warn!(target: TARGET, "cannot remove {}: {error}", path.display());
            }
        }
    }

    /// A file in `tmp` and a blob of the object are one: unless its transaction is durable, it must go.
    fn remove_unfinished(
        &self,
        oid: Oid,
        staged: &Path,
        is_committed: &dyn Fn(Oid, Tid) -> Result<bool>,
    ) -> Result<()> {
        for tid in self.revisions(oid) {
            let path = self.path(oid, tid);
            if self.media.is_same_file(staged, &path) && !is_committed(oid, tid)? {
                info!(target: TARGET, "removing {}: its transaction was not finished", path.display());
                let removed = self.media.remove(&path).and_then(|()| self.media.sync_dir(dir_of(&path)));
                removed.map_err(StorageError::io(format!("removing {}", path.display())))?;
            }
        }
        Ok(())
    }

    fn is_stale(&self, name: &str, path: &Path) -> bool {
        if name.starts_with(OWN_PREFIX) {
            return true;
        }
        PYTHON_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            && self.media.is_file(path)
            && self.media.age(path).is_ok_and(|age| age > FOREIGN_AGE_MAX)
    }

    pub fn base(&self) -> &Path {
        &self.base
    }

    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The directory with all revisions of an object.
    pub fn oid_dir(&self, oid: Oid) -> PathBuf {
        self.base.join(self.layout.oid_path(oid))
    }

    /// The file of a revision, whether it exists or not.
    pub fn path(&self, oid: Oid, tid: Tid) -> PathBuf {
        self.oid_dir(oid).join(layout::file_name(tid))
    }

    /// The transactions in which an object has blobs.
    pub fn revisions(&self, oid: Oid) -> Vec<Tid> {
        let names = self.media.list(&self.oid_dir(oid)).unwrap_or_default();
        names.iter().filter_map(|name| layout::tid_of(name.to_str()?)).collect()
    }

    pub fn contains(&self, oid: Oid, tid: Tid) -> bool {
        self.media.exists(&self.path(oid, tid))
    }

    /// The data of a committed blob.
    pub fn load(&self, oid: Oid, serial: Tid) -> Result<BlobFile> {
        let path = self.path(oid, serial);
        let file = match self.media.open(&path, Access::ReadPlain) {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Err(StorageError::NoBlob { oid, serial, path });
            }
            Err(error) => {
                return Err(StorageError::Io { doing: format!("opening {}", path.display()), error });
            }
        };
        let len = file.len().map_err(StorageError::io(format!("opening {}", path.display())))?;
        Ok(BlobFile { file, len, path })
    }

    /// Removes a blob that no revision refers to any more, if there is one.
    pub fn remove(&self, oid: Oid, tid: Tid) {
        let path = self.path(oid, tid);
        match self.media.remove(&path) {
            Ok(()) => self.remove_empty_above(&path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => warn!(target: TARGET, "cannot remove {}: {error}", path.display()),
        }
    }

    /// A name in `tmp` that nobody else has. With the object that the file is for, once that is known: see
    /// [`BlobDir::clean`].
    pub(super) fn temporary(&self, oid: Option<Oid>) -> PathBuf {
        let number = self.next_name.fetch_add(1, Ordering::Relaxed);
        let whose = oid.map_or_else(String::new, |oid| format!("-{oid}"));
        self.tmp.join(format!("{OWN_PREFIX}{}-{number}{whose}{TMP_SUFFIX}", std::process::id()))
    }

    /// See [`place`].
    pub fn place<'a>(
        self: &Arc<Self>,
        blobs: impl IntoIterator<Item = (Oid, Tid, &'a mut super::StagedBlob)>,
    ) -> Result<super::Placement> {
        place::place(self, blobs.into_iter().collect())
    }
}

/// The object that one of our temporary files is for.
fn oid_of_own(name: &str) -> Option<Oid> {
    let digits = name.strip_prefix(OWN_PREFIX)?.strip_suffix(TMP_SUFFIX)?.splitn(3, '-').nth(2)?;
    u64::from_str_radix(digits, 16).ok().map(Oid)
}

/// The layout of a directory, by its marker or as Python guesses it.
fn find_layout(media: &dyn Media, base: &Path) -> Result<Layout> {
    let doing = || StorageError::io(format!("opening the blob directory {}", base.display()));
    let marker = base.join(MARKER);
    if media.exists(&marker) {
        let file = media.open(&marker, Access::Read).map_err(doing())?;
        let mut text = [0; 64];
        let len = file.read_at(&mut text, 0).map_err(doing())?;
        let text = String::from_utf8_lossy(text.get(..len).unwrap_or_default());
        let name = text.trim();
        debug!(
            target: TARGET,
            "Blob directory `{}` has layout marker set. Selected `{name}` layout. ",
            base.display()
        );
        return Layout::from_name(name).ok_or_else(|| StorageError::Refused {
            class: ("builtins", "ValueError"),
            message: match name {
                "zeocache" => format!(
                    "the blob directory {} is a client's cache (layout `zeocache`), not a storage's",
                    base.display()
                ),
                _ => format!(
                    "the blob directory {} has the unknown layout `{name}` (in {MARKER}), not bushy or lawn",
                    base.display()
                ),
            },
        });
    }
    if !media.exists(base) {
        info!(
            target: TARGET,
            "Blob directory {} does not exist. Selected `bushy` layout. ",
            base.display()
        );
        return Ok(Layout::Bushy);
    }
    let used =
        media.list(base).map_err(doing())?.iter().any(|name| !name.as_encoded_bytes().starts_with(b"."));
    let layout = if used { Layout::Lawn } else { Layout::Bushy };
    info!(
        target: TARGET,
        "Blob directory `{}` is {} layout marker set. Selected `{}` layout. ",
        base.display(),
        if used { "used but has no" } else { "unused and has no" },
        layout.name()
    );
    Ok(layout)
}
