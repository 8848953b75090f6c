//! A `Data.fs` as it is at one moment, for a copy of it while a server may go on writing.
//!
//! One descriptor is opened, once: a pack that gives the name to another file changes nothing here. The end is that of
//! the last whole transaction, as an open for reading finds it, and the index is that of this end. Nothing is locked,
//! cut or written. What is before the end never changes, unless transactions are taken back: who has read it asks
//! whether that was so ([`Snapshot::is_cut`]).

#![cfg_attr(not(test), deny(clippy::cast_possible_truncation))]

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::format::MAGIC_LEN;
use super::index_file;
use super::media::{Access, Media, MediaFile};
use super::open_read::{Found, read_all, read_magic};
use super::options::FileStorageOptions;
use super::tail_note::cuts;
use crate::base::ids::{Oid, Tid};
use crate::storage::{Refusal, Result, StorageError};

/// The open file and what it has.
pub struct Snapshot {
    path: PathBuf,
    file: Arc<dyn MediaFile>,
    len: u64,
    found: Found,
    media: Arc<dyn Media>,
    /// See [`cuts`].
    cuts: u32,
}

impl Snapshot {
    /// Opens the database `path`. Uses its saved index, and scans what this does not know.
    pub fn open(media: &Arc<dyn Media>, path: &Path) -> Result<Snapshot> {
        let mut options = FileStorageOptions::new(path);
        (options.read_only, options.media) = (true, media.clone());
        let doing = || StorageError::io(format!("opening {}", path.display()));
        let cuts = cuts(&**media, path);
        let file = media.open(path, Access::Read).map_err(doing())?;
        let identity = file.identity().map_err(doing())?;
        if identity.len < MAGIC_LEN {
            return Err(StorageError::Refused {
                what: Refusal::FileFormat,
                message: format!(
                    "{}: not a FileStorage: it has {} bytes and lacks the magic FS21 or FS30",
                    path.display(),
                    identity.len
                ),
            });
        }
        let format = read_magic(&options, &*file)?;
        let found = read_all(&options, &file, &identity, format, None)?;
        Ok(Snapshot { path: path.to_owned(), len: identity.len, file, found, media: Arc::clone(media), cuts })
    }

    /// Whether transactions were taken back since the file was opened: what was read may be of two states.
    pub fn is_cut(&self) -> bool {
        cuts(&*self.media, &self.path) != self.cuts
    }

    /// The path as given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file.
    pub fn file(&self) -> &Arc<dyn MediaFile> {
        &self.file
    }

    /// Where the last whole transaction ends.
    pub fn end(&self) -> u64 {
        self.found.end
    }

    /// The length of the file when it was opened: more than the end during a commit, and after a crash.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The last transaction; zero if there is none.
    pub fn last_tid(&self) -> Tid {
        self.found.last_tid
    }

    /// The greatest tid; it differs from the last only in files whose tids do not ascend.
    pub fn max_tid(&self) -> Tid {
        self.found.max_tid
    }

    /// Oids up to this one may have been given out.
    pub fn oid_mark(&self) -> Option<Oid> {
        self.found.oid_mark.max(self.found.index.max_oid())
    }

    /// Saves the index of this moment beside `path`, as Python's fsIndex does: whole and durable, or not at all.
    pub fn save_index(&self, media: &dyn Media, path: &Path) -> io::Result<()> {
        let Found { format, end, .. } = self.found;
        index_file::save(media, path, format, end, self.mark_to_save(), |each| self.entries(each))
    }

    /// Writes the index of this moment.
    pub fn write_index(&self, out: &mut dyn Write) -> io::Result<()> {
        let Found { format, end, .. } = self.found;
        index_file::write(out, format, end, self.mark_to_save(), |each| self.entries(each))
    }

    /// The mark, if the index does not show it.
    fn mark_to_save(&self) -> Option<Oid> {
        self.found.oid_mark.filter(|mark| Some(*mark) > self.found.index.max_oid())
    }

    fn entries(&self, each: &mut dyn FnMut(Oid, u64) -> io::Result<()>) -> io::Result<()> {
        self.found.index.for_each(each)
    }
}
