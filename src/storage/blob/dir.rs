//! One blob directory.
//!
//! Other users may write to it, so everything below it is accessed through descriptors of directories ([`MediaDir`]):
//! links are followed only if they belong to root or to the server's user. Directories above it belong to the
//! administrator.

use std::ffi::OsString;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use log::{debug, error, info, warn};

use super::descriptors::Descriptors;
use super::layout::{self, Layout, MARKER};
use super::marker::{find_layout, require_cache};
use super::names::{TARGET, below, exists, make_dirs, remove_if_there};
use crate::base::fs::dir_of;
use crate::base::ids::{Oid, Tid};
use crate::base::sync::{Mutex, rank};
use crate::storage::media::{Access, Entry, Kind, Media, MediaDir, MediaFile, Readers, RealMedia};
use crate::storage::{Result, StorageError};

/// The directory for uploads; clients that share the directory have files of their own in it.
const TMP: &str = "tmp";
/// Prefix of the temporary files of the server whose storage has the directory. No other program uses it.
const OWN_PREFIX: &str = "runzeo-";
/// Prefix of the temporary files of clients. Servers, Python's too, take them for files of Python's clients.
const CLIENT_PREFIX: &str = "tmp-runzeo-";
pub const TMP_SUFFIX: &str = ".tmp";
/// Prefixes of the temporary files of Python's servers and clients.
const PYTHON_PREFIXES: [&str; 3] = ["tmp", "BUC", "CTFT"];
/// Files of other processes stay for this long: a client of a shared directory may have a transaction open while the
/// server restarts.
const FOREIGN_AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// What this program does with a blob directory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DirRole {
    /// It has the blobs of one of its storages.
    Storage,
    /// It has copies of blobs of a server, which it shares with other clients on this machine.
    Cache,
    /// It is the directory of a server, which its clients share.
    Shared,
}

/// One blob directory. Shared by everything that reads or stores blobs.
pub struct BlobDir {
    base: PathBuf,
    layout: Layout,
    role: DirRole,
    pub(super) media: Arc<dyn Media>,
    /// Set when the directory is opened.
    root: OnceLock<Arc<dyn MediaDir>>,
    /// Set when `tmp` is opened. The lock is only held for the opening.
    tmp: Mutex<Option<Arc<dyn MediaDir>>, rank::BlobTmp>,
    pub(super) descriptors: Descriptors,
    /// Makes the names of temporary files unique.
    next_name: AtomicU64,
    /// The same, among the clients that use the directory: processes of two containers may have one number.
    unique: u64,
}

/// The data of a blob.
pub struct BlobFile {
    pub(crate) file: Arc<dyn MediaFile>,
    /// Its length in bytes.
    pub len: u64,
    /// Its path, for messages.
    pub path: PathBuf,
    /// It has no name: it is gone when this is dropped, and cannot be opened again.
    pub(crate) is_unnamed: bool,
}

impl BlobFile {
    /// Opens a file that a storage keeps somewhere else than in a [`BlobDir`].
    ///
    /// Errors: `Io` with the path.
    pub fn open(path: &Path) -> Result<BlobFile> {
        let doing = || StorageError::io(format!("opening {}", path.display()));
        let file = RealMedia.open(path, Access::Read).map_err(doing())?;
        let len = file.len().map_err(doing())?;
        Ok(BlobFile { file, len, path: path.into(), is_unnamed: false })
    }

    /// Reads from `pos` on, until `buf` is full or the blob ends. Returns the number of bytes. Any number of threads
    /// may read at the same time.
    pub fn read_at(&self, buf: &mut [u8], pos: u64) -> io::Result<usize> {
        self.file.read_at(buf, pos)
    }
}

impl BlobDir {
    /// Opens the directory; unless `read_only`, makes it if it is missing. Call [`BlobDir::clean`] once the storage
    /// knows its revisions.
    pub fn open(path: &Path, read_only: bool) -> Result<Arc<BlobDir>> {
        BlobDir::open_on(Arc::new(RealMedia), path, read_only)
    }

    /// As [`BlobDir::open`], on another disk.
    #[doc(hidden)]
    pub fn open_on(media: Arc<dyn Media>, path: &Path, read_only: bool) -> Result<Arc<BlobDir>> {
        BlobDir::open_as(DirRole::Storage, media, path, read_only)
    }

    pub(super) fn open_as(
        role: DirRole,
        media: Arc<dyn Media>,
        path: &Path,
        read_only: bool,
    ) -> Result<Arc<BlobDir>> {
        let doing = || StorageError::io(format!("opening the blob directory {}", path.display()));
        // Without a slash at the end.
        let base: PathBuf = std::path::absolute(path).map_err(doing())?.components().collect();
        let root = match media.dir(&base) {
            Ok(root) => OnceLock::from(root),
            Err(error) if error.kind() == io::ErrorKind::NotFound => OnceLock::new(),
            Err(error) => return Err(doing()(error)),
        };
        let layout = match role {
            DirRole::Cache => require_cache(root.get().map(|root| &**root), &base)?,
            DirRole::Storage | DirRole::Shared => find_layout(root.get().map(|root| &**root), &base)?,
        };
        if layout == Layout::Lawn {
            warn!(
                target: TARGET,
                "The `lawn` blob directory layout is deprecated due to scalability issues on some file systems, please \
                 consider migrating to the `bushy` layout."
            );
        }
        let dir = BlobDir {
            base,
            layout,
            role,
            media,
            root,
            tmp: Mutex::default(),
            descriptors: Descriptors::default(),
            next_name: AtomicU64::new(0),
            unique: RandomState::new().hash_one(path),
        };
        if !read_only {
            dir.create().map_err(doing())?;
            dir.fill_reserve().map_err(doing())?;
        }
        Ok(Arc::new(dir))
    }

    fn create(&self) -> io::Result<()> {
        if self.create_base(&self.base)? {
            info!(
                target: TARGET,
                "Blob directory '{}' does not exist. Created new directory.",
                self.base.display()
            );
            self.media.sync_dir(dir_of(&self.base))?;
        }
        let root = self.root()?;
        // The marker is written whole and before anything else. A client that shares the directory may look at any
        // moment, and takes a directory with files and without marker for a lawn.
        if !exists(&**root, MARKER.as_ref())? {
            let aside = match self.role {
                DirRole::Storage => OsString::from(format!("{MARKER}{TMP_SUFFIX}")),
                // Several processes may make the directory at the same time.
                DirRole::Cache | DirRole::Shared => {
                    let mut aside = OsString::from(".");
                    aside.push(self.temporary(None));
                    aside
                }
            };
            remove_if_there(&**root, &aside)?;
            let file = root.create(&aside, Readers::ByUmask)?;
            file.write_at(self.layout.name().as_bytes(), 0)?;
            file.sync()?;
            root.rename(&aside, &**root, MARKER.as_ref())?;
            root.sync()?;
        }
        if root.create_dir(TMP.as_ref())? {
            info!(
                target: TARGET,
                "Blob temporary directory '{}' does not exist. Created new directory.",
                self.base.join(TMP).display()
            );
            root.sync()?;
        }
        let tmp = self.tmp().map(drop);
        tmp.map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", self.base.join(TMP).display()))
        })
    }

    /// Makes the directory and its parents. Returns whether it was missing.
    fn create_base(&self, dir: &Path) -> io::Result<bool> {
        match self.media.create_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.create_base(dir_of(dir))?;
                self.media.create_dir(dir)
            }
            other => other,
        }
    }

    /// The open blob directory. The error is `NotFound` if there is none, which is possible only in a read-only
    /// storage.
    pub(super) fn root(&self) -> io::Result<&Arc<dyn MediaDir>> {
        match self.root.get() {
            Some(root) => Ok(root),
            None => {
                let root = self.media.dir(&self.base)?;
                Ok(self.root.get_or_init(|| root))
            }
        }
    }

    pub(super) fn tmp(&self) -> io::Result<Arc<dyn MediaDir>> {
        let mut tmp = self.tmp.lock();
        match &*tmp {
            Some(tmp) => Ok(Arc::clone(tmp)),
            None => Ok(Arc::clone(tmp.insert(self.root()?.dir(TMP.as_ref())?))),
        }
    }

    /// Makes a temporary file. Works also if `tmp` was removed and made again.
    pub(super) fn in_tmp<T>(&self, make: impl Fn(&Arc<dyn MediaDir>) -> io::Result<T>) -> io::Result<T> {
        match make(&self.tmp()?) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.tmp.lock().take();
                make(&self.tmp()?)
            }
            made => made,
        }
    }

    /// The directory of an object; the error is `NotFound` if it has none.
    pub(super) fn home(&self, oid: Oid) -> io::Result<Arc<dyn MediaDir>> {
        self.root()?.dir(&self.layout.oid_path(oid))
    }

    /// The directory of an object, and whether it was made by this call: then call [`BlobDir::sync_above`].
    pub(crate) fn make_home(&self, oid: Oid) -> io::Result<(Arc<dyn MediaDir>, bool)> {
        let (root, path) = (self.root()?, self.layout.oid_path(oid));
        // A pack may remove empty directories, also those that were just made.
        let mut attempts = (0..10).map(|_| make_dirs(root, &path));
        let is_gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        attempts
            .find(|made| !made.as_ref().is_err_and(is_gone))
            .unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()))
    }

    /// Makes the directories of an object durable. Costs almost nothing if they are durable already.
    pub(super) fn sync_above(&self, oid: Oid) -> io::Result<()> {
        let root = self.root()?;
        let path = self.layout.oid_path(oid);
        path.ancestors().skip(1).try_for_each(|above| below(root, above)?.sync())
    }

    /// Holds file descriptors back for finishes.
    pub(super) fn fill_reserve(&self) -> io::Result<()> {
        self.descriptors.fill(|| self.media.dir(&self.base))
    }

    /// Removes what a crash left: temporary files, and blobs whose transaction never became durable. Looks only into
    /// `tmp` and the directories that names in it lead to. No other process may write to the storage at that time.
    ///
    /// What cannot be decided (a record is damaged) or removed is logged and stays: it takes space, but no client can
    /// read it, and the storage can be served.
    ///
    /// `is_old_kept`: whether there is a file of before the last pack, whose blobs are kept too.
    pub fn clean(&self, is_old_kept: bool, is_committed: &dyn Fn(Oid, Tid) -> Result<bool>) {
        if let Err(error) = self.finish_sweep(is_old_kept, is_committed) {
            let dir = self.base.display();
            error!(target: TARGET, "{dir}: some blobs that the last pack dropped cannot be removed: {error}");
        }
        let listed = self.tmp().and_then(|tmp| Ok((tmp.list()?, tmp)));
        let (names, tmp) = match listed {
            Ok(listed) => listed,
            Err(error) => {
                error!(target: TARGET, "what is left over in {} cannot be removed: {error}", self.base.join(TMP).display());
                return;
            }
        };
        for name in names {
            let path = tmp.path().join(&name);
            let Ok(entry) = tmp.entry(name.as_ref()) else { continue };
            let Some(text) = name.to_str().filter(|text| is_stale(text, &entry)) else { continue };
            if let Some(oid) = oid_of_own(text)
                && let Err(error) = self.remove_unfinished(oid, &entry, is_committed)
            {
                // It leads to a blob that may have to be removed, so the next start must find it again.
                error!(target: TARGET, "{} is left over and cannot be removed: {error}", path.display());
                continue;
            }
            debug!(target: TARGET, "removing {}", path.display());
            if let Err(error) = tmp.remove(&name) {
                warn!(target: TARGET, "cannot remove {}: {error}", path.display());
            }
        }
    }

    /// Removes the blobs of the object that are the same file as a temporary file, unless their transaction is durable.
    /// The temporary file is the one in `tmp`, or in the directory of the object if that is on another disk.
    fn remove_unfinished(
        &self,
        oid: Oid,
        in_tmp: &Entry,
        is_committed: &dyn Fn(Oid, Tid) -> Result<bool>,
    ) -> Result<()> {
        let removing = |path: &Path| StorageError::io(format!("removing {}", path.display()));
        let home = match self.home(oid) {
            Err(error) if is_no_home(&error) => return Ok(()),
            home => home.map_err(StorageError::io(format!("opening {}", self.oid_dir(oid).display())))?,
        };
        let names = home.list().map_err(StorageError::io(format!("listing {}", home.path().display())))?;
        let is_own = |name: &&OsString| name.to_str().is_some_and(|name| name.starts_with(OWN_PREFIX));
        let own: Vec<_> = names.iter().filter(is_own).collect();
        let mut staged = vec![*in_tmp];
        staged.extend(own.iter().filter_map(|name| home.entry(name.as_ref()).ok()));
        for (name, tid) in names.iter().filter_map(|name| Some((name, layout::tid_of(name.to_str()?)?))) {
            let Ok(entry) = home.entry(name.as_ref()) else { continue };
            if staged.iter().any(|staged| staged.is_same_file(&entry)) && !is_committed(oid, tid)? {
                let path = home.path().join(name);
                info!(target: TARGET, "removing {}: its transaction was not finished", path.display());
                home.remove(name).and_then(|()| home.sync()).map_err(removing(&path))?;
            }
        }
        own.into_iter().try_for_each(|name| home.remove(name).map_err(removing(&home.path().join(name))))
    }

    /// The path of the directory.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// How it distributes blobs.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The directory with all revisions of an object.
    pub fn oid_dir(&self, oid: Oid) -> PathBuf {
        self.base.join(self.layout.oid_path(oid))
    }

    /// The path of the file of a revision, whether it exists or not.
    pub fn path(&self, oid: Oid, tid: Tid) -> PathBuf {
        self.base.join(self.below(oid, tid))
    }

    /// As `path`, relative to the blob directory.
    pub(super) fn below(&self, oid: Oid, tid: Tid) -> PathBuf {
        let mut path = self.layout.oid_path(oid);
        path.push(self.layout.file_name(oid, tid));
        path
    }

    pub(super) fn layout_path(&self, oid: Oid) -> PathBuf {
        self.layout.oid_path(oid)
    }

    /// The transactions in which an object has blobs, according to the names of its files.
    pub fn revisions(&self, oid: Oid) -> Vec<Tid> {
        let names = self.home(oid).and_then(|home| home.list()).unwrap_or_default();
        names.iter().filter_map(|name| layout::tid_of(name.to_str()?)).collect()
    }

    /// Whether this path exists.
    pub(super) fn has(&self, below: &Path) -> bool {
        self.root().is_ok_and(|root| root.entry(below).is_ok())
    }

    /// Opens a committed blob.
    pub fn load(&self, oid: Oid, serial: Tid) -> Result<BlobFile> {
        self.find(oid, serial)?.ok_or_else(|| StorageError::NoBlob {
            oid,
            serial,
            path: self.path(oid, serial),
        })
    }

    /// Opens a committed blob; `None` if there is no such file.
    pub(crate) fn find(&self, oid: Oid, serial: Tid) -> Result<Option<BlobFile>> {
        let below = self.below(oid, serial);
        let path = self.base.join(&below);
        let doing = || StorageError::io(format!("opening {}", path.display()));
        let file = match self.root().and_then(|root| root.read(&below)) {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(doing()(error)),
        };
        let len = file.len().map_err(doing())?;
        Ok(Some(BlobFile { file, len, path, is_unnamed: false }))
    }

    /// Removes a blob that no revision refers to any more, if it exists.
    pub fn remove(&self, oid: Oid, tid: Tid) {
        let home = self.descriptors.in_need(|| self.home(oid));
        match home.and_then(|home| home.remove(self.layout.file_name(oid, tid).as_ref())) {
            Ok(()) => self.remove_empty_above(oid),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                warn!(target: TARGET, "cannot remove {}: {error}", self.path(oid, tid).display());
            }
        }
    }

    /// A unique name in `tmp`. It names the object that the file is for, if that is known: see [`BlobDir::clean`].
    pub(super) fn temporary(&self, oid: Option<Oid>) -> OsString {
        let number = self.next_name.fetch_add(1, Ordering::Relaxed);
        let whose = oid.map_or_else(String::new, |oid| format!("-{oid}"));
        let pid = std::process::id();
        let name = match self.role {
            DirRole::Storage => format!("{OWN_PREFIX}{pid}-{number}{whose}{TMP_SUFFIX}"),
            DirRole::Cache | DirRole::Shared => {
                format!("{CLIENT_PREFIX}{pid}-{:x}-{number}{whose}{TMP_SUFFIX}", self.unique)
            }
        };
        name.into()
    }
}

/// The object in the name of one of this server's temporary files.
fn oid_of_own(name: &str) -> Option<Oid> {
    let digits = name.strip_prefix(OWN_PREFIX)?.strip_suffix(TMP_SUFFIX)?.splitn(3, '-').nth(2)?;
    u64::from_str_radix(digits, 16).ok().map(Oid)
}

/// Whether no open transaction can need the file in `tmp`.
pub(super) fn is_stale(name: &str, entry: &Entry) -> bool {
    name.starts_with(OWN_PREFIX)
        || PYTHON_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            && entry.kind == Kind::File
            && entry.age > FOREIGN_AGE_MAX
}

/// The error says that this server cannot have made a directory there.
fn is_no_home(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, NotADirectory, NotFound};
    matches!(error.kind(), InvalidInput | NotADirectory | NotFound)
}
