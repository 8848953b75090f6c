//! Puts a complete and durable file in the place of a `Data.fs`.
//!
//! The steps, each of which leaves the former file or the new one under the name, whole, if the machine stops after it:
//!
//! 1. `Data.fs.lock` is taken, and kept until the end: no server runs.
//! 2. The caller writes `Data.fs.part`.
//! 3. It is synced, and opened as a storage would open it. Its index is saved as `Data.fs.part.index`.
//! 4. If clients may know transactions of the file that is there, a note about it is written (see
//!    `storage::file::replaced`), so that the next start appends its marker.
//! 5. The file that is there, and its index, get second names: `Data.fs.before-restore`, or with a number if that name
//!    is taken.
//! 6. `Data.fs.part` and then its index take the names.
//!
//! To undo it by hand, rename `Data.fs.before-restore` back; its index is beside it.

#![deny(clippy::cast_possible_truncation)]

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use log::warn;

use crate::base::fs::{dir_of, like, with_suffix};
use crate::base::ids::{Oid, Tid};
use crate::storage::StorageError;
use crate::storage::file::lock_file::LockFile;
use crate::storage::file::replaced;
use crate::storage::file::snapshot::Snapshot;
use crate::storage::media::{Access, Media, MediaFile, Reading, write_whole};

/// Number of former files that are kept beside each other.
const ASIDE_MAX: u32 = 1000;

/// Why the file was not replaced.
#[derive(Debug)]
pub enum ReplaceError {
    /// The name belongs to something else than a file.
    NoFile(PathBuf),
    /// There are too many former files.
    TooManyAside(PathBuf),
    /// The new file ends in the middle of a transaction.
    Incomplete {
        /// The new file, which was left there.
        part: PathBuf,
        /// Where its last whole transaction ends.
        end: u64,
        /// Its length.
        len: u64,
    },
    /// The lock is held by a server, or the new file is no database.
    Storage(StorageError),
    /// A file cannot be written.
    Io {
        /// What was done.
        doing: String,
        /// What the system said.
        error: io::Error,
    },
}

impl fmt::Display for ReplaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplaceError::NoFile(path) => {
                write!(f, "{} is not a file, so nothing can be put in its place", path.display())
            }
            ReplaceError::TooManyAside(path) => {
                write!(
                    f,
                    "there are {ASIDE_MAX} former files beside {}: remove those not needed",
                    path.display()
                )
            }
            ReplaceError::Incomplete { part, end, len } => write!(
                f,
                "{} is not complete: its last whole transaction ends at {end}, the file at {len}. It was not put in place",
                part.display()
            ),
            ReplaceError::Storage(error) => error.fmt(f),
            ReplaceError::Io { doing, error } => write!(f, "{doing}: {error}"),
        }
    }
}

impl From<StorageError> for ReplaceError {
    fn from(error: StorageError) -> ReplaceError {
        ReplaceError::Storage(error)
    }
}

fn io_error(doing: String) -> impl FnOnce(io::Error) -> ReplaceError {
    |error| ReplaceError::Io { doing, error }
}

/// A database whose file is being replaced.
pub struct Replacement {
    media: Arc<dyn Media>,
    /// As named: the lock, the index and the note are beside it.
    path: PathBuf,
    /// The file itself, if the name is a link to it.
    data: PathBuf,
    part: PathBuf,
    file: Arc<dyn MediaFile>,
    /// Files that the server writes, too, and that were not there: they get the owner of the former file.
    made: Vec<PathBuf>,
    /// Object ids up to this one were given out, says the backup.
    given: Oid,
    _lock: LockFile,
}

/// What is where after a replacement.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Replaced {
    /// The name of the file that was there before.
    pub aside: Option<PathBuf>,
}

impl Replacement {
    /// Takes the lock of the database `path`, and creates `Data.fs.part`. The error says which process has the lock.
    pub fn begin(media: Arc<dyn Media>, path: &Path) -> Result<Replacement, ReplaceError> {
        let data = match std::fs::symlink_metadata(path) {
            Ok(meta) if meta.is_symlink() => {
                path.canonicalize().map_err(io_error(format!("following the link {}", path.display())))?
            }
            _ => path.to_owned(),
        };
        if media.exists(&data) && !media.is_file(&data) {
            return Err(ReplaceError::NoFile(data));
        }
        let beside = [".lock", ".tmp"].map(|suffix| with_suffix(path, suffix));
        let made = beside.into_iter().filter(|path| !media.exists(path)).collect();
        let lock = LockFile::acquire(path)?;
        let part = with_suffix(&data, ".part");
        let file =
            media.open(&part, Access::Truncate).map_err(io_error(format!("creating {}", part.display())))?;
        Ok(Replacement {
            media,
            path: path.to_owned(),
            data,
            part,
            file,
            made,
            given: Oid::ZERO,
            _lock: lock,
        })
    }

    /// Tells that object ids up to this one were given out, also if the file that is there does not show it.
    pub fn oids_given(&mut self, up_to: Oid) {
        self.given = up_to;
    }

    /// The new file, for writing.
    pub fn file(&self) -> &Arc<dyn MediaFile> {
        &self.file
    }

    /// Where the new file is until it is in place.
    pub fn part(&self) -> &Path {
        &self.part
    }

    /// Where an index for the new file may be written before [`Replacement::finish`]. It saves a scan of the whole
    /// file, and is used only if it fits.
    pub fn part_index(&self) -> PathBuf {
        with_suffix(&self.part, ".index")
    }

    /// Removes the new file: there is no room, or it is not wanted.
    pub fn give_up(self) -> io::Result<()> {
        let index = self.part_index();
        if self.media.exists(&index) {
            self.media.remove(&index)?;
        }
        self.media.remove(&self.part)
    }

    /// Puts the new file in place. After an error the former file is where it was, and `Data.fs.part` stays.
    pub fn finish(self) -> Result<Replaced, ReplaceError> {
        let Replacement { media, path, data, part, file, .. } = &self;
        let part_index = self.part_index();
        file.sync().map_err(io_error(format!("syncing {}", part.display())))?;
        let new = Snapshot::open(media, part)?;
        if new.end() != new.len() {
            let (end, len) = (new.end(), new.len());
            return Err(ReplaceError::Incomplete { part: part.clone(), end, len });
        }
        let saving = io_error(format!("saving {}", part_index.display()));
        new.save_index(&**media, part).map_err(saving)?;
        if let Some(error) = replaced::remember(media, path, Tid::now(), self.given)? {
            warn!(
                "{}: the file that is there cannot be read to its end: {error}. Clients may know transactions that the next \
                 server does not know of: if they refuse to connect, delete their cache files",
                path.display()
            );
        }
        let made = self.made.iter().filter(|path| path.exists());
        let files: Vec<&Path> = made.map(PathBuf::as_path).chain([part.as_path(), &part_index]).collect();
        // The server may run as another user than this program.
        if let Err(error) = like(data, &files) {
            warn!("{} cannot get the owner and mode of the file that it replaces: {error}", part.display());
        }
        let aside = if media.exists(data) { Some(self.set_aside()?) } else { None };
        self.swap()?;
        Ok(Replaced { aside })
    }

    /// Gives the former file and its index second names.
    fn set_aside(&self) -> Result<PathBuf, ReplaceError> {
        let Replacement { media, path, data, .. } = self;
        let names = (1..=ASIDE_MAX).map(|n| match n {
            1 => with_suffix(data, ".before-restore"),
            n => with_suffix(data, &format!(".before-restore-{n}")),
        });
        let aside = names.into_iter().find(|name| !media.exists(name) && name.symlink_metadata().is_err());
        let Some(aside) = aside else { return Err(ReplaceError::TooManyAside(data.clone())) };
        let doing = || io_error(format!("keeping {} as {}", data.display(), aside.display()));
        let index = with_suffix(path, ".index");
        let is_linked = match media.link(data, &aside) {
            Ok(()) => true,
            // A file system without links: from here to the second rename the name is free. An index keeps a server
            // from beginning an empty file then.
            Err(error) if has_no_links(&error) => false,
            Err(error) => return Err(doing()(error)),
        };
        if !is_linked {
            if !media.exists(&index) {
                self.put_index().map_err(doing())?;
            }
            media.rename(data, &aside).map_err(doing())?;
        }
        if is_linked && media.exists(&index) {
            media.link(&index, &with_suffix(&aside, ".index")).map_err(doing())?;
        }
        media.sync_dir(dir_of(data)).map_err(doing())?;
        if is_linked && media.exists(&index) {
            // An index of the former file must not be beside the new one.
            media.remove(&index).and_then(|()| media.sync_dir(dir_of(path))).map_err(doing())?;
        }
        Ok(aside)
    }

    /// Gives the new file and its index their names.
    fn swap(&self) -> Result<(), ReplaceError> {
        let Replacement { media, data, part, .. } = self;
        let put = || -> io::Result<()> {
            media.rename(part, data)?;
            media.sync_dir(dir_of(data))?;
            if media.exists(&self.part_index()) { self.put_index() } else { Ok(()) }
        };
        put().map_err(io_error(format!("putting {} in place of {}", part.display(), data.display())))
    }

    /// Gives the index of the new file its name. An index beside another file than its own does no harm: an open checks
    /// that they fit.
    fn put_index(&self) -> io::Result<()> {
        let Replacement { media, path, data, .. } = self;
        let (part_index, index) = (self.part_index(), with_suffix(path, ".index"));
        if dir_of(data) == dir_of(path) {
            media.rename(&part_index, &index)?;
        } else {
            // The name is a link to another directory, perhaps on another disk.
            copy_over(&**media, &part_index, &index)?;
            media.remove(&part_index)?;
        }
        media.sync_dir(dir_of(path))
    }
}

/// Whether the file system cannot give a file a second name.
fn has_no_links(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied)
}

fn copy_over(media: &dyn Media, from: &Path, to: &Path) -> io::Result<()> {
    let mut from = Reading::whole(media.open(from, Access::Read)?);
    write_whole(media, to, &with_suffix(to, ".part"), |out| io::copy(&mut from, out).map(drop))
}
