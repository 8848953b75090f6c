//! FileStorage: one log file, `Data.fs`, that Python's FileStorage reads and writes too.
//!
//! - `format`: the bytes; `media`: the disk; `log`: records by position; `window`: many records in a row; `backwards`:
//!   transactions from the end
//! - `index` (made of `index_words`): oid -> position; `index_file`, `index_legacy`: the index files of Python;
//!   `index_saved`: what was read from one; `save`: when the index is saved; `saver`: the state of the
//!   thread that does it
//! - `volume`: the file and its index as one unit, which a pack replaces
//! - `options`, `open` (with `open_read`, which reads the files, and `open_note`, which handles a file from elsewhere)
//!   and `recover`: from files to a running storage; `close`: the way back; `tail_note`: what the next start must know,
//!   which `note_file` writes; `familiar`: whether the file is the same as before; `ours`: whether it still is while it
//!   is served; `lock_file`
//! - `read`, `history`, `iterate`: reading
//! - `moved`: where records are in a copy; `pack`: a new file without garbage and old revisions; `pins`: what a pack
//!   must keep although the file does not show it
//! - `stage` (vote), `draft` (the records of a vote), `undo_records`, `space`, `tids`, `voted` (a voted transaction),
//!   `group` (finish), `writer` (the end of the log), `lead` (which thread commits), `blobs`: writing
//! - `snapshot`: the file as it is now, for a copy of it; `replaced`: what the next start must know if another file
//!   takes its place while no server runs
//! - `replicate`: what replication needs; `gate`: where a group waits for other servers; `withdraw`: a group that does
//!   not get through; `rewind`: takes transactions back that the others do not have, which `kept` keeps in a database
//!   of their own
//! - `pulse`: whether commits are possible
//! - `handle`: the file as its caretakers see it; `sums`: checksums beside it, of which the storage knows nothing
//! - `undo`: what can be undone; `undo_find`: finds it; `places`: where it was found
//!
//! The order of the locks is the order of their ranks (`base::sync::rank`). A read takes none of them except a shared
//! lock on a page of the index.

pub(crate) mod backwards;
mod blobs;
mod bulk;
mod close;
mod draft;
mod familiar;
pub(crate) mod format;
mod gate;
mod group;
pub(crate) mod handle;
mod history;
pub(crate) mod index;
pub(crate) mod index_file;
mod index_legacy;
mod index_saved;
mod index_words;
mod iterate;
mod kept;
pub(crate) mod lead;
pub(crate) mod lock_file;
pub(crate) mod log;
pub(crate) mod moved;
mod note_file;
mod open;
mod open_note;
mod open_read;
mod options;
mod ours;
pub(crate) mod pack;
mod pins;
mod places;
mod pulse;
mod read;
pub(crate) mod recover;
pub(crate) mod replaced;
mod replicate;
mod rewind;
mod save;
mod saver;
pub(crate) mod snapshot;
mod space;
mod stage;
pub(crate) mod sums;
mod sync_later;
pub(crate) mod tail_note;
mod undo;
mod undo_find;
mod undo_records;
mod volume;
mod voted;
pub(crate) mod window;
mod withdraw;
mod writer;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use self::gate::GateSlot;
use self::lead::Lead;
use self::lock_file::LockFile;
use self::media::{Media, MediaDir};
use self::note_file::NoteFile;
use self::pack::Packing;
use self::pins::Pins;
use self::saver::Saver;
use self::space::Space;
use self::volume::{Current, Volume};
use self::voted::Job;
use self::writer::Writer;
use super::{
    BlobDir, Blobs, Bulk, Iterate, Pack, PublisherSlot, Pulse, Replicable, Result, Storage, StorageError,
    SyncCounts, SyncHistograms, Tids, Undo, media,
};
use crate::base::ids::{Oid, Tid};
use crate::base::sync::{Mutex, rank};
use crate::conflict::ResolverSlot;

pub use self::format::FileFormat;
pub use self::options::{FileStorageOptions, NewFileFormat};

/// A storage in a single file, `Data.fs`.
pub struct FileStorage {
    options: FileStorageOptions,
    core: Arc<Core>,
    threads: Mutex<Vec<JoinHandle<()>>, rank::StorageThreads>,
    lock_file: Mutex<Option<LockFile>, rank::LockFile>,
    resolver: ResolverSlot,
}

/// The state that the storage shares with its own threads.
struct Core {
    media: Arc<dyn Media>,
    /// The directory of the file. It is kept open so that it can be synced when no descriptor is left.
    dir: Arc<dyn MediaDir>,
    path: PathBuf,
    volume: Current,
    /// The reason why nothing may be written any more.
    broken: OnceLock<String>,
    space: Space,
    tids: Tids,
    group: Lead<Job>,
    gate: GateSlot,
    writer: Mutex<Writer, rank::Writer>,
    publisher: PublisherSlot,
    new_file_format: NewFileFormat,
    /// `None` if the storage is read-only, or the file could not be made.
    note: Option<NoteFile>,
    saver: Saver,
    blobs: Option<Arc<BlobDir>>,
    packing: Packing,
    pins: Pins,
    oids: Mutex<Oids, rank::Oids>,
    /// The last published transaction. Written by the leader only.
    last_tid: AtomicU64,
    closed: AtomicBool,
    syncs: SyncHistograms,
    /// Groups may be published before they are durable.
    sync_later: AtomicBool,
}

/// The oids that were given out.
struct Oids {
    last: u64,
    /// The oid mark in `Data.fs.tmp`: upper bound on the oids that were given out.
    mark: u64,
}

/// The oid mark grows in steps, so that it is rarely written. After a crash the rest of a step is skipped.
const OID_STEP: u64 = 10_000;

impl Core {
    fn closed(&self) -> StorageError {
        StorageError::Closed(format!("{} is closed", self.path.display()))
    }

    fn last_tid(&self) -> Tid {
        Tid(self.last_tid.load(Ordering::Acquire))
    }

    /// The reason why the storage is read-only although it was not opened so.
    fn broken(&self) -> Option<&str> {
        self.broken.get().map(String::as_str)
    }

    /// Makes the storage read-only, for example after a failed sync: the content of the disk is unknown.
    fn set_broken(&self, why: String) {
        crate::critical!(
            target: log::TARGET,
            "{}: {why}. The storage is now read-only: check the disk, then restart the server",
            self.path.display()
        );
        let _ = self.broken.set(why);
    }

    /// Ensures that oids of objects that `old` has are not given out again, although the next volume may not show them.
    fn keep_oids(&self, old: &Volume) -> Result<()> {
        let mut oids = self.oids.lock();
        oids.last = oids.last.max(old.index.max_oid().map_or(0, |oid| oid.0));
        if oids.last > oids.mark
            && let Some(note) = &self.note
        {
            oids.mark = oids.last;
            note.set_oid_mark(Oid(oids.mark)).map_err(StorageError::io("writing the mark of object ids"))?;
        }
        Ok(())
    }

    /// The last oid that was given out, if the index does not show it: the next start must not give out oids up to it.
    fn oid_mark(&self) -> Option<Oid> {
        let last = self.oids.lock().last;
        (last > self.volume.get().index.max_oid().map_or(0, |oid| oid.0)).then_some(Oid(last))
    }
}

impl FileStorage {
    fn check_open(&self) -> Result<()> {
        if self.core.closed.load(Ordering::Acquire) { Err(self.core.closed()) } else { Ok(()) }
    }

    fn check_writable(&self) -> Result<()> {
        self.check_open()?;
        if self.options.read_only {
            return Err(StorageError::ReadOnly);
        }
        match self.core.broken() {
            Some(why) => Err(StorageError::Closed(format!("the storage is read-only: {why}"))),
            None => Ok(()),
        }
    }

    /// The format of the file: whether Python 2 or Python 3 can also open it.
    pub fn format(&self) -> FileFormat {
        self.core.writer.lock().format
    }

    /// Whether the saved index was used at open, wholly or in part.
    #[doc(hidden)]
    pub fn used_index(&self) -> bool {
        self.core.saver.used_index
    }
}

impl Storage for FileStorage {
    fn name(&self) -> String {
        self.options.path.display().to_string()
    }

    fn is_read_only(&self) -> bool {
        self.options.read_only || self.core.broken().is_some()
    }

    fn object_count(&self) -> u64 {
        self.core.volume.get().index.len()
    }

    fn size(&self) -> u64 {
        self.core.volume.get().published_end()
    }

    fn interfaces(&self) -> Vec<(&'static str, &'static str)> {
        let blobs: &[_] = match self.core.blobs {
            Some(_) => &[("ZODB.interfaces", "IBlobStorageRestoreable"), ("ZODB.interfaces", "IBlobStorage")],
            None => &[],
        };
        let others = [
            ("ZODB.interfaces", "IStorageRestoreable"),
            ("ZODB.interfaces", "IStorageIteration"),
            ("ZODB.interfaces", "IStorageUndoable"),
            ("ZODB.interfaces", "IStorageCurrentRecordIteration"),
            ("ZODB.interfaces", "IExternalGC"),
            ("ZODB.interfaces", "IStorage"),
            ("zope.interface", "Interface"),
        ];
        [blobs, &others].concat()
    }

    fn last_transaction(&self) -> Tid {
        self.core.last_tid()
    }

    fn new_oids(&self, count: usize) -> Result<Vec<Oid>> {
        self.check_writable()?;
        let mut oids = self.core.oids.lock();
        // Stored objects may have oids that this storage did not give out.
        let last = oids.last.max(self.core.volume.get().index.max_oid().map_or(0, |oid| oid.0));
        let Some(end) = last.checked_add(count as u64) else {
            return Err(StorageError::Unsupported("there are no more object ids".into()));
        };
        oids.last = end;
        if end > oids.mark
            && let Some(note) = &self.core.note
        {
            oids.mark = end.saturating_add(OID_STEP);
            note.set_oid_mark(Oid(oids.mark)).map_err(StorageError::io("writing the mark of object ids"))?;
        }
        Ok((last + 1..=end).map(Oid).collect())
    }

    fn sync_counts(&self) -> Option<SyncCounts> {
        (!self.options.read_only).then(|| self.core.syncs.read())
    }

    fn failure(&self) -> Option<String> {
        self.core.broken().map(String::from)
    }

    fn pulse(&self) -> Pulse {
        if self.options.read_only { Pulse::Beats } else { self.core.pulse() }
    }

    fn save_index(&self) -> Result<bool> {
        let saving = self.core.hold_saver();
        // Once it is closed another process may write the file and its index.
        self.check_writable()?;
        let volume = self.core.volume.get_owned();
        self.core.save_index_of(&saving, &volume, volume.published_end()).map(|()| true)
    }

    fn close(&self) -> Result<()> {
        let core = &self.core;
        if core.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        core.group.close();
        core.packing.wait();
        core.saver.stop();
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            if thread.join().is_err() {
                ::log::error!(target: log::TARGET, "{}: a thread of the storage has panicked", self.options.path.display());
            }
        }
        let result = if self.options.read_only || core.broken().is_some() { Ok(()) } else { self.leave() };
        *self.lock_file.lock() = None;
        result
    }

    fn sync_later(&self) -> bool {
        self.core.sync_later.store(true, Ordering::Relaxed);
        true
    }

    fn bulk(&self) -> Option<&dyn Bulk> {
        Some(self)
    }

    fn iteration(&self) -> Option<&dyn Iterate> {
        Some(self)
    }

    fn undo(&self) -> Option<&dyn Undo> {
        Some(self)
    }

    fn packing(&self) -> Option<&dyn Pack> {
        Some(self)
    }

    fn replicable(&self) -> Option<&dyn Replicable> {
        (!self.options.read_only).then_some(self as &dyn Replicable)
    }

    fn blobs(&self) -> Option<&dyn Blobs> {
        self.core.blobs.as_ref().map(|dir| dir as &dyn Blobs)
    }
}

impl Drop for FileStorage {
    fn drop(&mut self) {
        // Errors were logged; `drop` cannot report them.
        let _ = self.close();
    }
}
