//! What an open reads: the magic, the saved index, and by a scan what the index does not know.

use std::sync::Arc;

use log::{error, warn};

use super::familiar::{self, Familiarity};
use super::format::{FileFormat, MAGIC_LEN};
use super::index::Index;
use super::index_file;
use super::index_saved::SavedIndex;
use super::log::{Log, TARGET};
use super::media::{Identity, MediaFile};
use super::options::FileStorageOptions;
use super::recover::{self, ScanFrom, Tail};
use super::tail_note::TailNote;
use crate::base::ids::{Oid, Tid};
use crate::storage::{Refusal, Result, StorageError};

/// The content of the files.
pub struct Found {
    pub format: FileFormat,
    /// The file is not longer than its magic.
    pub is_new: bool,
    /// The file has no whole transaction.
    pub has_no_transaction: bool,
    pub familiarity: Familiarity,
    /// The former note stays for the next start, which judges the file again.
    pub is_to_be_judged_again: bool,
    pub index: Index,
    /// The position up to which the saved index was used; 0 if it was not used.
    pub index_end: u64,
    pub oid_mark: Option<Oid>,
    pub end: u64,
    pub last_tid: Tid,
    pub max_tid: Tid,
}

pub fn read_all(
    options: &FileStorageOptions,
    file: &Arc<dyn MediaFile>,
    identity: &Identity,
    format: FileFormat,
    note: Option<&TailNote>,
) -> Result<Found> {
    let path = &options.path;
    let len = file.len().map_err(StorageError::io(format!("opening {}", path.display())))?;
    let mut found = Found {
        format,
        is_new: len <= MAGIC_LEN,
        has_no_transaction: true,
        familiarity: Familiarity::New,
        is_to_be_judged_again: false,
        index: Index::new(),
        index_end: 0,
        oid_mark: None,
        end: MAGIC_LEN,
        last_tid: Tid::ZERO,
        max_tid: Tid::ZERO,
    };
    let log = Log::new(path.clone(), file.clone(), len);
    let saved = saved_index(options);
    let indexed = saved.as_ref().filter(|_| !options.create).map(|saved| saved.pos);
    if len <= MAGIC_LEN {
        found.oid_mark = saved.and_then(|saved| saved.oid_mark);
        found.familiarity = familiar::judge(note, &log, identity, len, Tid::ZERO, indexed);
        return Ok(found);
    }
    if let Some(saved) = saved {
        // The mark is taken from every index, also from one that is ignored because the file is nearly empty.
        found.oid_mark = saved.oid_mark;
        match recover::check_sanity(&log, &saved.index, saved.pos, len) {
            None => warn!(target: TARGET, "Ignoring index for {}", path.display()),
            // The index has later revisions than the point of time travel.
            Some(last_tid) if options.stop.is_some_and(|stop| last_tid >= stop) => {}
            Some(last_tid) => {
                found.index = saved.index;
                found.index_end = saved.pos;
                (found.end, found.last_tid, found.max_tid) = (saved.pos, last_tid, last_tid);
            }
        }
    }
    let tail = note.and_then(|note| familiar::about_the_tail(note, &log, identity, options.media.boot()));
    let progress = &options.progress;
    progress.begin(found.end, len);
    let from = ScanFrom { pos: found.end, tid: found.last_tid, stop: options.stop, note: tail, progress };
    let scanned = recover::scan_file(&**file, path, &found.index, &from)?;
    (found.end, found.last_tid, found.max_tid) = (scanned.end, scanned.last_tid, scanned.max_tid);
    found.has_no_transaction = found.end <= MAGIC_LEN;
    found.familiarity = familiar::judge(note, &log, identity, found.end, found.last_tid, indexed);
    if !options.read_only {
        match scanned.tail {
            Tail::Clean | Tail::Later => {}
            Tail::Stub | Tail::Zeros => recover::cut(&**file, path, scanned.end)?,
            Tail::Torn { .. } => recover::save_aside(&*options.media, &**file, path, scanned.end)?,
        }
        // Gives back the space that a dead process had reserved, and makes its writes durable: all that is served from
        // now on.
        recover::cut(&**file, path, scanned.end)?;
    }
    Ok(found)
}

pub fn read_magic(options: &FileStorageOptions, file: &dyn MediaFile) -> Result<FileFormat> {
    let path = options.path.display();
    let io = || StorageError::io(format!("opening {path}"));
    let len = file.len().map_err(io())?;
    let mut magic = [0; MAGIC_LEN as usize];
    let read = file.read_at(&mut magic, 0).map_err(io())?;
    if let Some(format) = FileFormat::from_magic(magic) {
        return Ok(format);
    }
    let format = options.new_file_format.initial();
    // After a power cut during its creation a file may have less than the magic, or the length without the bytes.
    let is_new = len <= MAGIC_LEN && magic.iter().zip(format.magic()).all(|(&a, b)| a == 0 || a == b);
    if !is_new {
        return Err(StorageError::Refused {
            what: Refusal::FileFormat,
            message: format!(
                "{path}: not a FileStorage: it begins with {:?} instead of FS21 or FS30",
                magic.get(..read).unwrap_or_default().escape_ascii().to_string()
            ),
        });
    }
    if !options.read_only {
        file.write_at(&format.magic(), 0).map_err(io())?;
        file.sync().map_err(io())?;
    }
    Ok(format)
}

/// The saved index, if it can be read.
pub fn saved_index(options: &FileStorageOptions) -> Option<SavedIndex> {
    let loaded = index_file::load(&*options.media, &options.path);
    loaded.unwrap_or_else(|error| {
        let path = options.path.display();
        error!(target: TARGET, "loading index {path}.index: {error}; the file is scanned instead");
        None
    })
}
