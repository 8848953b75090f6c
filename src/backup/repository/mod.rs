//! Repositories of `zeobackup`: backups of `Data.fs` files and their blobs, whole databases in a directory.
//!
//! ```text
//! zeobackup.repository     names the format; without it a directory is no repository
//! zeobackup.lock           held during each run: shared by those that read
//! backups/TIME.json        one backup: for each database the segments of its file. Written last, whole and durable
//! backups/TIME.until-next.json   the same; removed when there is a later one
//! objects/ab/abcdef….KIND  the content of segments and blobs, under the SHA-256 sum of what they contain
//! sent/ID.json             the last backup that a command has sent; `ID.under-way.json` the one that it is sending
//! tmp/                     what a run is writing; emptied by the next one
//! ```
//!
//! A *segment* is a stretch of whole transactions. Its content is stored without pointers: positions in the file, which
//! a pack changes, are kept apart as distances ([`split`]). So what a pack leaves as it is has the same sum after it,
//! and is not stored again. The blobs of the records of a segment are in a list of its own ([`blob_list`]).
//!
//! - `object`: what is stored under its sum; `writing`: how it gets there
//! - `split`, `join`: transactions to content and pointers, and back; `read_ahead`: content, read by another thread
//! - `manifest`: what a backup consists of
//! - `create`: makes a backup; `known`, `blobs`: what of the blobs is there already, and the rest
//! - `restore`, `verify`, `prune` (with `retention`)
//! - `stream`: backups on their way to a repository on another machine; `sent`: what has arrived there
//!
//! Always true: an object is complete and durable before a backup that needs it has a name. What is in `backups` and
//! `objects` is never changed, only added and, by a prune, removed: the backups first. So a run that is stopped at any
//! point leaves a repository whose backups are whole; what it had stored already is found by the next run.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::fs::{dir_of, with_suffix};
use crate::storage::media::{Access, Media, Reading, write_whole};

mod blob_list;
mod blobs;
pub mod create;
pub mod error;
pub mod join;
mod known;
pub mod manifest;
pub mod object;
pub mod prune;
mod read_ahead;
pub mod restore;
pub mod retention;
pub mod sent;
pub mod split;
pub mod stream;
pub mod verify;
mod writing;

use error::{BackupError, Result};
use manifest::{Database, Manifest, Stamp, Stay};
use object::{ObjectId, ObjectKind, ObjectReader};

const MARKER: &str = "zeobackup.repository";
const MARKER_TEXT: &str = "repository of zeobackup, format 1\n";
/// Files of the repository itself begin with this.
const OWN_PREFIX: &str = "zeobackup.";
const LOCK: &str = "zeobackup.lock";
const BACKUPS: &str = "backups";
const OBJECTS: &str = "objects";
const SENT: &str = "sent";
const TMP: &str = "tmp";
/// Upper bound on the bytes of a manifest: some 5 million segments.
const MANIFEST_LEN_MAX: u64 = 2 << 30;

/// Number of backups in which the last one of a database is searched. If it is not there, the file is read again.
const SEARCHED_MAX: usize = 100;

/// The newest backups.
#[derive(Default)]
struct Newest {
    databases: HashMap<String, Database>,
    of_all: Option<(Stamp, Manifest)>,
}

/// Hears of what takes long, and of what is wrong but does not end the run.
pub trait ProgressListener {
    /// Bytes of the files that are copied or read, since the start.
    fn progress(&self, _done: u64) {}
    /// For the operator.
    fn warning(&self, what: &str);
    /// Whether the run is to end early. Called now and then.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// An open repository.
pub struct Repository {
    media: Arc<dyn Media>,
    path: PathBuf,
}

impl Repository {
    /// Opens a repository that exists.
    pub fn open(media: Arc<dyn Media>, path: &Path) -> Result<Repository> {
        let repository = Repository { media, path: path.to_owned() };
        let marker = repository.path.join(MARKER);
        let text = match repository.media.open(&marker, Access::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(BackupError::NoRepository {
                    path: path.to_owned(),
                    why: "it is no repository of zeobackup: 'zeobackup create' makes one".into(),
                });
            }
            Err(error) => return Err(BackupError::io(format!("opening {}", marker.display()))(error)),
            Ok(file) => {
                let mut text = Vec::new();
                let read = Reading::range(file, 0, 100).read_to_end(&mut text);
                read.map_err(BackupError::io(format!("reading {}", marker.display())))?;
                text
            }
        };
        if text != MARKER_TEXT.as_bytes() {
            let why = format!(
                "its format is another one ({MARKER} has \"{}\"): a newer program has made it",
                text.escape_ascii()
            );
            return Err(BackupError::NoRepository { path: path.to_owned(), why });
        }
        Ok(repository)
    }

    /// Opens a repository, or makes an empty one: in a new directory, or in an empty one.
    pub fn open_or_create(media: Arc<dyn Media>, path: &Path) -> Result<Repository> {
        let doing = || BackupError::io(format!("making the repository {}", path.display()));
        if media.exists(&path.join(MARKER)) {
            let repository = Repository::open(media, path)?;
            repository.make_dirs().map_err(doing())?;
            return Ok(repository);
        }
        let made = media.create_dir(path).map_err(doing())?;
        if made {
            media.sync_dir(dir_of(path)).map_err(doing())?;
        }
        let repository = Repository { media, path: path.to_owned() };
        let names = repository.list("").map_err(doing())?;
        if let Some(other) = names.iter().find(|name| !name.starts_with(OWN_PREFIX)) {
            let why = format!(
                "it is no repository of zeobackup, and not empty (it has {other}): name a new directory"
            );
            return Err(BackupError::NoRepository { path: path.to_owned(), why });
        }
        // Directories follow the marker, so that a stop in between leaves a repository.
        repository
            .write_whole(MARKER.as_ref(), |out| out.write_all(MARKER_TEXT.as_bytes()))
            .map_err(doing())?;
        repository.make_dirs().map_err(doing())?;
        Ok(repository)
    }

    fn make_dirs(&self) -> io::Result<()> {
        let mut made = false;
        for name in [BACKUPS, OBJECTS, TMP] {
            made |= self.media.create_dir(&self.path.join(name))?;
        }
        if made { self.media.sync_dir(&self.path) } else { Ok(()) }
    }

    /// The file that is locked during each run: shared by runs that only read.
    pub fn lock_path(path: &Path) -> PathBuf {
        path.join(LOCK)
    }

    /// The names of all backups, oldest first.
    pub fn backups(&self) -> Result<Vec<Stamp>> {
        let doing = BackupError::io(format!("reading the directory {}", self.path.join(BACKUPS).display()));
        let names = self.list(BACKUPS).map_err(doing)?;
        let mut stamps: Vec<Stamp> = names.iter().filter_map(|name| Stamp::of_file_name(name)).collect();
        stamps.sort();
        Ok(stamps)
    }

    fn manifest_path(&self, stamp: &Stamp) -> PathBuf {
        self.path.join(BACKUPS).join(stamp.file_name())
    }

    /// What a backup consists of. The error is `Damaged` if that cannot be read.
    pub fn manifest(&self, stamp: &Stamp) -> Result<Manifest> {
        let path = self.manifest_path(stamp);
        let doing = || BackupError::io(format!("reading {}", path.display()));
        let file = self.media.open(&path, Access::Read).map_err(doing())?;
        let mut bytes = Vec::new();
        Reading::range(file, 0, MANIFEST_LEN_MAX).read_to_end(&mut bytes).map_err(doing())?;
        Manifest::parse(&bytes).map_err(|what| BackupError::Damaged(format!("{} {what}", path.display())))
    }

    /// Of each of these databases its newest backup, and the newest backup of all. Damaged ones are reported.
    fn newest(&self, names: &[&str], listener: &dyn ProgressListener) -> Result<Newest> {
        let mut newest = Newest::default();
        for stamp in self.backups()?.iter().rev().take(SEARCHED_MAX) {
            let manifest = match self.manifest(stamp) {
                Err(error @ BackupError::Damaged(_)) => {
                    listener.warning(&error.to_string());
                    continue;
                }
                manifest => manifest?,
            };
            for database in manifest.databases.iter().filter(|database| names.contains(&&*database.name)) {
                newest.databases.entry(database.name.clone()).or_insert_with(|| database.clone());
            }
            newest.of_all.get_or_insert((stamp.clone(), manifest));
            if names.iter().all(|name| newest.databases.contains_key(*name)) {
                break;
            }
        }
        Ok(newest)
    }

    /// Gives a backup its name. Everything that it needs is durable. Backups that stay until there is a later one are
    /// removed after that.
    fn add(&self, stamp: &Stamp, manifest: &Manifest) -> Result<()> {
        let path = self.manifest_path(stamp);
        let bytes = manifest.to_bytes();
        let name = Path::new(BACKUPS).join(stamp.file_name());
        self.write_whole(&name, |out| out.write_all(&bytes))
            .map_err(BackupError::io(format!("writing {}", path.display())))?;
        for former in self.backups()? {
            // The same backup, which is kept now, has arrived before.
            let is_before = former < *stamp || former == *stamp && stamp.stay() == Stay::Kept;
            if is_before && former.stay() == Stay::UntilNext && self.is_replaced(&former, manifest)? {
                let path = self.manifest_path(&former);
                let doing = BackupError::io(format!("removing {}", path.display()));
                self.media.remove(&path).map_err(doing)?;
            }
        }
        Ok(())
    }

    /// Whether a later backup has all databases of a former one. One that cannot be read stays.
    fn is_replaced(&self, former: &Stamp, later: &Manifest) -> Result<bool> {
        match self.manifest(former) {
            Ok(former) => {
                Ok(former.databases.iter().all(|database| later.database(&database.name).is_some()))
            }
            Err(BackupError::Damaged(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A backup that stays until there is a later one is kept from now on.
    fn keep(&self, stamp: &Stamp) -> Result<()> {
        let kept = Stamp::of_unix_millis(stamp.to_unix_millis(), Stay::Kept);
        let (from, to) = (self.manifest_path(stamp), self.manifest_path(&kept));
        let renamed = self.media.rename(&from, &to).and_then(|()| self.media.sync_dir(dir_of(&to)));
        renamed.map_err(BackupError::io(format!("renaming {}", from.display())))
    }

    fn object_path(&self, kind: ObjectKind, id: &ObjectId) -> PathBuf {
        let name = format!("{id}{}", kind.suffix());
        let dir = self.path.join(OBJECTS).join(name.get(..2).unwrap_or_default());
        dir.join(name)
    }

    fn has(&self, kind: ObjectKind, id: &ObjectId) -> bool {
        self.media.is_file(&self.object_path(kind, id))
    }

    /// Opens an object. `len`: bytes of its content, uncompressed.
    fn object(&self, kind: ObjectKind, id: &ObjectId, len: u64) -> Result<ObjectReader> {
        let path = self.object_path(kind, id);
        match self.media.open(&path, Access::Read) {
            Ok(file) => ObjectReader::new(file, path.clone(), kind, *id, len)
                .map_err(BackupError::io(format!("reading {}", path.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(BackupError::Damaged(format!("{} is missing", path.display())))
            }
            Err(error) => Err(BackupError::io(format!("opening {}", path.display()))(error)),
        }
    }

    /// Names in a directory below; those that are no text are left out, as the program makes none.
    fn list(&self, below: &str) -> io::Result<Vec<String>> {
        let names = self.media.dir(&self.path.join(below))?.list()?;
        Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect())
    }

    /// Writes a file: whole and durable, or not at all.
    fn write_whole(
        &self,
        name: &Path,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let path = self.path.join(name);
        write_whole(&*self.media, &path, &with_suffix(&path, ".part"), write)
    }
}
