//! FileStorage: one log file, `Data.fs`, that Python's FileStorage reads and writes too.
//!
//! - `format` the bytes, `media` the disk, `log` records by position, `window` many of them in a row
//! - `index` oid -> position; `index_file`, `index_legacy` as Python saves it; `save` when it is saved
//! - `open` and `recover`: from files to a running storage; `tail_note` what a crash leaves to know; `lock_file`
//! - `read`, `history`, `iterate`: reading
//! - `stage` (vote), `space`, `tids`, `group` (finish): writing
//!
//! Locks, in the order in which they may be taken: the group's queue; the writer (leader only); then, each alone and
//! for memory only but for `space`, which may call `fallocate`: `space`, `tids`, `oids`, pages of the index.
//! Reads take none of them but a shared page lock.

mod format;
mod group;
mod history;
mod index;
mod index_file;
mod index_legacy;
mod iterate;
mod lock_file;
mod log;
pub mod media;
mod open;
mod read;
mod recover;
mod save;
mod space;
mod stage;
mod tail_note;
mod tids;
mod window;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use self::group::{Group, Job, Writer};
use self::index::Index;
use self::lock_file::LockFile;
use self::log::Log;
use self::media::Media;
use self::save::Saver;
use self::space::Space;
use self::stage::VotedTxn;
use self::tail_note::NoteFile;
use self::tids::Tids;
use super::{
    HistoryEntry, IternextRecord, Loaded, Publisher, Result, Staged, Storage, StorageError, Ticket, TidAt,
    TransactionIterator, Voted,
};
use crate::base::ids::{Oid, Tid};

pub use self::format::FileFormat;
pub use self::index_file::{Loaded as IndexFile, parse as parse_index};
pub use self::open::{FileStorageOptions, NewFileFormat};
pub use self::recover::{Scanned, Tail, scan};

/// A storage in a single file.
pub struct FileStorage {
    options: FileStorageOptions,
    core: Arc<Core>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    lock_file: Mutex<Option<LockFile>>,
}

/// What the storage's own threads share with it.
struct Core {
    media: Arc<dyn Media>,
    log: Log,
    index: Index,
    space: Space,
    tids: Tids,
    group: Group,
    writer: Mutex<Writer>,
    publisher: OnceLock<Arc<dyn Publisher>>,
    new_file_format: NewFileFormat,
    /// `None` if the storage is read-only, or the file could not be made.
    note: Option<NoteFile>,
    saver: Saver,
    oids: Mutex<Oids>,
    /// The last published transaction, and where it ends. Written by the leader only.
    last_tid: AtomicU64,
    published_end: AtomicU64,
    closed: AtomicBool,
}

/// Oids that were given out.
struct Oids {
    last: u64,
    /// What `Data.fs.tmp` says, or will after a crash: given out at most up to here.
    mark: u64,
}

/// Oids are marked as given out in steps, to do it rarely. After a crash, the rest of a step is left out.
const OID_STEP: u64 = 10_000;

impl Core {
    fn closed(&self) -> StorageError {
        StorageError::Closed(format!("{} is closed", self.log.path().display()))
    }

    fn last_tid(&self) -> Tid {
        Tid(self.last_tid.load(Ordering::Acquire))
    }

    fn published_end(&self) -> u64 {
        self.published_end.load(Ordering::Acquire)
    }

    fn set_published(&self, tid: Tid, end: u64) {
        self.last_tid.store(tid.0, Ordering::Release);
        self.published_end.store(end, Ordering::Release);
    }

    /// The oids that the next start must not give out again, if the index does not show it.
    fn oid_mark(&self) -> Option<Oid> {
        let last = self.oids.lock().unwrap_or_else(PoisonError::into_inner).last;
        (last > self.index.max_oid().map_or(0, |oid| oid.0)).then_some(Oid(last))
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
        match self.core.log.broken() {
            Some(why) => Err(StorageError::Closed(format!("the storage is read-only: {why}"))),
            None => Ok(()),
        }
    }

    /// The file, and whether Python 2 or Python 3 can open it too.
    pub fn format(&self) -> FileFormat {
        self.core.writer.lock().unwrap_or_else(PoisonError::into_inner).format
    }

    /// Whether the saved index was used at open, wholly or in part.
    pub fn used_index(&self) -> bool {
        self.core.saver.used_index
    }
}

impl Storage for FileStorage {
    fn name(&self) -> String {
        self.options.path.display().to_string()
    }

    fn is_read_only(&self) -> bool {
        self.options.read_only || self.core.log.broken().is_some()
    }

    fn object_count(&self) -> u64 {
        self.core.index.len()
    }

    fn size(&self) -> u64 {
        self.core.published_end()
    }

    /// Python's FileStorage provides `IStorageUndoable` and `IExternalGC` too.
    fn interfaces(&self) -> Vec<(&'static str, &'static str)> {
        vec![
            ("ZODB.interfaces", "IStorageRestoreable"),
            ("ZODB.interfaces", "IStorageIteration"),
            ("ZODB.interfaces", "IStorageCurrentRecordIteration"),
            ("ZODB.interfaces", "IExternalGC"),
            ("ZODB.interfaces", "IStorage"),
            ("zope.interface", "Interface"),
        ]
    }

    fn extension_methods(&self) -> Vec<&'static str> {
        vec!["answer_to_the_ultimate_question"]
    }

    fn extension_method(&self, name: &str) -> Result<i64> {
        match name {
            // A hook that ZEO's own tests call.
            "answer_to_the_ultimate_question" => Ok(42),
            _ => Err(StorageError::Unsupported(format!("no extension method {name}"))),
        }
    }

    fn last_transaction(&self) -> Tid {
        self.core.last_tid()
    }

    fn new_oids(&self, count: usize) -> Result<Vec<Oid>> {
        self.check_writable()?;
        let mut oids = self.core.oids.lock().unwrap_or_else(PoisonError::into_inner);
        // Objects may have come with oids of their own.
        let last = oids.last.max(self.core.index.max_oid().map_or(0, |oid| oid.0));
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

    /// The entries of a large index are far apart in memory: asked for one after the other, they are waited for together.
    fn expect_read(&self, oid: Oid) {
        self.core.index.get(oid);
    }

    fn load_before(
        &self,
        oid: Oid,
        before: Tid,
        headroom: usize,
        out: &mut Vec<u8>,
    ) -> Result<Option<Loaded>> {
        self.read_before(oid, before, headroom, out)
    }

    fn load_serial(&self, oid: Oid, serial: Tid, headroom: usize, out: &mut Vec<u8>) -> Result<Loaded> {
        self.read_serial(oid, serial, headroom, out)
    }

    fn get_tid(&self, oid: Oid) -> Result<Tid> {
        self.current_tid(oid)
    }

    fn history(&self, oid: Oid, count: usize) -> Result<Vec<HistoryEntry>> {
        self.revisions(oid, count)
    }

    fn record_iternext(&self, next: Option<Oid>) -> Result<Option<IternextRecord>> {
        self.next_object(next)
    }

    fn last_invalidations(&self, count: usize) -> Result<Vec<(Tid, Vec<Oid>)>> {
        self.newest_transactions(count)
    }

    fn iterate(&self, start: Option<Tid>, stop: Option<Tid>) -> Result<Box<dyn TransactionIterator>> {
        self.check_open()?;
        Ok(Box::new(iterate::Transactions::new(self.core.clone(), start, stop)?))
    }

    fn vote(&self, staged: Staged, tid_at: TidAt) -> Result<Box<dyn Voted>> {
        Ok(Box::new(self.stage(staged, tid_at)?))
    }

    fn finish(&self, voted: Box<dyn Voted>, ticket: Ticket) {
        let txn = voted.into_any().downcast::<VotedTxn>();
        let txn = *txn.expect("a voted transaction is finished by the storage that voted it");
        self.core.finish(Job { txn, ticket });
    }

    fn abort(&self, voted: Box<dyn Voted>) {
        // Nothing was written; the reserved space is given back by dropping it.
        drop(voted);
    }

    fn set_publisher(&self, publisher: Arc<dyn Publisher>) {
        if self.core.publisher.set(publisher).is_err() {
            ::log::error!(target: log::TARGET, "{}: a second publisher is ignored", self.name());
        }
    }

    fn close(&self) -> Result<()> {
        self.shut()
    }
}

impl Drop for FileStorage {
    fn drop(&mut self) {
        // Errors were logged; there is nobody to tell.
        let _ = self.shut();
    }
}
