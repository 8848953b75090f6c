//! From a path to a running storage, and back.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

use log::{error, info, warn};

use super::familiar::{self, Familiarity, OID_STRIDE};
use super::format::{FileFormat, MAGIC_LEN};
use super::group::Writer;
use super::index::Index;
use super::index_saved::SavedIndex;
use super::lead::Lead;
use super::lock_file::LockFile;
use super::log::{Log, TARGET};
use super::media::{Access, Identity, Media, MediaFile, RealMedia};
use super::pack::{Packing, leftovers};
use super::pins::Pins;
use super::recover::{self, ScanFrom, Tail};
use super::save::Saver;
use super::space::Space;
use super::tail_note::{NoteFile, State, TailNote};
use super::volume::{Current, Volume};
use super::{Core, FileStorage, Oids, index_file, ours};
use crate::base::clock::{Clock, SystemClock};
use crate::base::fs::{dir_of, with_suffix};
use crate::base::ids::{Oid, Tid};
use crate::storage::tids::Tids;
use crate::storage::{BlobDir, PublisherSlot, Result, StorageError};

/// Which Python is to be able to open a new file.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum NewFileFormat {
    /// The one that the first transaction's client runs.
    #[default]
    Auto,
    FS21,
    FS30,
}

impl NewFileFormat {
    fn initial(self) -> FileFormat {
        match self {
            NewFileFormat::FS21 => FileFormat::FS21,
            NewFileFormat::Auto | NewFileFormat::FS30 => FileFormat::FS30,
        }
    }

    pub(super) fn of_first(self, python2: bool) -> FileFormat {
        match self {
            NewFileFormat::Auto if python2 => FileFormat::FS21,
            _ => self.initial(),
        }
    }
}

/// How to open a FileStorage.
#[derive(Clone)]
pub struct FileStorageOptions {
    pub path: PathBuf,
    /// Where blobs are kept; `None`: there are none.
    pub blob_dir: Option<PathBuf>,
    /// Begin with an empty file even if there is one.
    pub create: bool,
    pub read_only: bool,
    /// Votes fail once the file is longer than this.
    pub quota: Option<u64>,
    /// Whether a pack removes what nothing refers to, unless its caller says otherwise.
    pub pack_gc: bool,
    /// Whether a pack leaves the old file as `Data.fs.old`.
    pub pack_keep_old: bool,
    /// Whether a pack fails that would remove more than nine tenths of more than a thousand objects.
    pub pack_refuse_large_removals: bool,
    /// Time travel, read-only: transactions from this tid on are not there.
    pub stop: Option<Tid>,
    pub new_file_format: NewFileFormat,
    pub media: Arc<dyn Media>,
    pub clock: Arc<dyn Clock>,
}

impl FileStorageOptions {
    pub fn new(path: impl Into<PathBuf>) -> FileStorageOptions {
        FileStorageOptions {
            path: path.into(),
            blob_dir: None,
            create: false,
            read_only: false,
            quota: None,
            pack_gc: true,
            pack_keep_old: true,
            pack_refuse_large_removals: false,
            stop: None,
            new_file_format: NewFileFormat::Auto,
            media: Arc::new(RealMedia),
            clock: Arc::new(SystemClock),
        }
    }

    /// Refuses options that exclude each other, in Python's words.
    pub fn check(&self) -> Result<()> {
        let refused = |message: &str| {
            Err(StorageError::Refused { class: ("builtins", "ValueError"), message: message.into() })
        };
        if self.read_only && self.create {
            return refused("can't create a read-only file");
        }
        if self.stop.is_some() && !self.read_only {
            return refused("time-travel only supported in read-only mode");
        }
        Ok(())
    }
}

impl fmt::Debug for FileStorageOptions {
    /// All but the disk and the clock.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStorageOptions")
            .field("path", &self.path)
            .field("blob_dir", &self.blob_dir)
            .field("create", &self.create)
            .field("read_only", &self.read_only)
            .field("quota", &self.quota)
            .field("pack_gc", &self.pack_gc)
            .field("pack_keep_old", &self.pack_keep_old)
            .field("pack_refuse_large_removals", &self.pack_refuse_large_removals)
            .field("stop", &self.stop)
            .field("new_file_format", &self.new_file_format)
            .finish_non_exhaustive()
    }
}

/// Committer threads: while one answers its group's clients, the other leads the next group.
const COMMITTERS: usize = 2;
const STACK_LEN: usize = 512 * 1024;

/// A database that is further than this in the future is a sign of a clock that is badly wrong.
const FUTURE_MAX: f64 = 30.0 * 60.0;

/// A storage whose files are there and locked, but not read yet: what somebody who looks from outside can see.
pub struct Prepared {
    options: FileStorageOptions,
    lock_file: Option<LockFile>,
    note: Option<TailNote>,
    file: Arc<dyn MediaFile>,
    identity: Identity,
    format: FileFormat,
    blobs: Option<Arc<BlobDir>>,
}

impl FileStorage {
    /// Opens the file, or makes it unless the storage is to be read-only.
    pub fn open(options: FileStorageOptions) -> Result<FileStorage> {
        FileStorage::prepare(options)?.open()
    }

    /// The quick part of opening: takes the lock, and makes a new file and the blob directory.
    pub fn prepare(options: FileStorageOptions) -> Result<Prepared> {
        options.check()?;
        let lock_file = if options.read_only { None } else { Some(LockFile::acquire(&options.path)?) };
        let is_told = !options.read_only && !options.create;
        let note = is_told.then(|| TailNote::read(&*options.media, &options.path)).flatten();
        let file = open_file(&options)?;
        // Before anything is changed.
        let doing = format!("opening {}", options.path.display());
        let identity = file.identity().map_err(StorageError::io(doing))?;
        let format = read_magic(&options, &*file)?;
        let blobs = open_blobs(&options)?;
        Ok(Prepared { options, lock_file, note, file, identity, format, blobs })
    }
}

impl Prepared {
    /// The rest: reads the index, and scans what it does not know. That may take minutes.
    pub fn open(self) -> Result<FileStorage> {
        let Prepared { options, lock_file, note, file, identity, format, blobs } = self;
        let media = options.media.clone();
        let mut found = read_all(&options, &file, &identity, format, note.as_ref())?;
        warn_of_future(&options, found.last_tid);
        let last_oid = greet(&options, &*file, note.as_ref(), &mut found)?;
        let (oids, note_file) = oids_and_note(&options, &file, last_oid, &found)?;
        let directory = dir_of(&options.path);
        let dir =
            media.dir(directory).map_err(StorageError::io(format!("opening {}", directory.display())))?;
        let core = Core {
            media,
            dir,
            path: options.path.clone(),
            space: Space::new(file.clone(), found.end),
            volume: Current::new(Volume::new(
                Log::new(options.path.clone(), file.clone(), found.end),
                found.index,
                found.last_tid,
            )),
            broken: OnceLock::new(),
            tids: Tids::new(found.max_tid, options.clock.clone()),
            group: Lead::default(),
            writer: Mutex::new(Writer {
                end: found.end,
                format: found.format,
                undecided: found.has_no_transaction,
                buf: Vec::new(),
            }),
            publisher: PublisherSlot::default(),
            new_file_format: if found.is_new {
                options.new_file_format
            } else {
                keep(found.format, &options)
            },
            note: note_file,
            blobs,
            saver: Saver::new(found.index_end, found.index_end > MAGIC_LEN),
            packing: Packing::default(),
            pins: Pins::default(),
            oids: Mutex::new(oids),
            last_tid: AtomicU64::new(found.last_tid.0),
            closed: AtomicBool::new(false),
        };
        let storage = FileStorage {
            options,
            core: Arc::new(core),
            threads: Mutex::default(),
            lock_file: Mutex::new(lock_file),
            resolver: Default::default(),
        };
        if !storage.options.read_only {
            if let Some(blobs) = &storage.core.blobs {
                blobs.clean(&|oid, tid| storage.has_revision(oid, tid));
            }
            if !storage.core.saver.used_index {
                // As Python does after a rebuild: the next start is to be quick even if this one ends badly.
                storage.core.save_index();
            }
            storage.start_threads()?;
        }
        Ok(storage)
    }
}

impl FileStorage {
    fn start_threads(&self) -> Result<()> {
        let start = |name: String, run: fn(&Core)| {
            let core = self.core.clone();
            let thread = thread::Builder::new().name(name).stack_size(STACK_LEN).spawn(move || run(&core));
            thread.map_err(StorageError::io("starting a thread of the storage"))
        };
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for n in 0..COMMITTERS {
            threads.push(start(format!("committer-{n}"), Core::committer)?);
        }
        threads.push(start("index-saver".into(), Core::index_saver)?);
        Ok(())
    }
}

fn open_blobs(options: &FileStorageOptions) -> Result<Option<Arc<BlobDir>>> {
    let Some(path) = &options.blob_dir else { return Ok(None) };
    if options.create && path.exists() {
        let doing = StorageError::io(format!("removing the blob directory {}", path.display()));
        std::fs::remove_dir_all(path).map_err(doing)?;
    }
    BlobDir::open(options.media.clone(), path, options.read_only).map(Some)
}

fn open_file(options: &FileStorageOptions) -> Result<Arc<dyn MediaFile>> {
    let FileStorageOptions { path, media, .. } = options;
    let doing = || StorageError::io(format!("opening {}", path.display()));
    if options.create && media.exists(path) {
        media.remove(path).map_err(doing())?;
    }
    if options.read_only {
        return media.open(path, Access::Read).map_err(doing());
    }
    match media.open(path, Access::ReadWrite) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if !options.create && leftovers::restore(&**media, path).map_err(doing())? {
                return media.open(path, Access::ReadWrite).map_err(doing());
            }
            check_not_missing(options)?;
            let file = media.open(path, Access::Create).map_err(doing())?;
            media.sync_dir(dir_of(path)).map_err(doing())?;
            Ok(file)
        }
        other => other.map_err(doing()),
    }
}

/// An index beside a file that is not there: the disk is not mounted, or the file was moved away. To begin a new one would hide
/// it.
fn check_not_missing(options: &FileStorageOptions) -> Result<()> {
    // Of a pipe or the like nobody knows when it ends.
    if !options.media.is_file(&with_suffix(&options.path, ".index")) {
        return Ok(());
    }
    match saved_index(options) {
        Some(saved) if !options.create && saved.pos > MAGIC_LEN => {
            let path = options.path.display();
            Err(StorageError::Refused {
                class: ("builtins", "IOError"),
                message: format!(
                    "{path} is missing, but its index {path}.index speaks of {} bytes in it. Is a disk not mounted? Put the file \
                     back, or remove the index to begin with an empty database",
                    saved.pos
                ),
            })
        }
        _ => Ok(()),
    }
}

/// What is in the files.
struct Found {
    format: FileFormat,
    /// There is no transaction yet, and the format was not given by anybody.
    is_new: bool,
    /// The same, whoever gave the format.
    has_no_transaction: bool,
    familiarity: Familiarity,
    /// The next start is to find the note of before.
    is_to_be_judged_again: bool,
    index: Index,
    /// Up to where the saved index was good; 0 if it was not used.
    index_end: u64,
    oid_mark: Option<Oid>,
    end: u64,
    last_tid: Tid,
    max_tid: Tid,
}

fn read_all(
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
        // Also from an index that is of no use otherwise: the one of a nearly empty file always is.
        found.oid_mark = saved.oid_mark;
        match recover::check_sanity(&log, &saved.index, saved.pos, len) {
            None => warn!(target: TARGET, "Ignoring index for {}", path.display()),
            // The index knows later revisions than time travel is to see.
            Some(last_tid) if options.stop.is_some_and(|stop| last_tid >= stop) => {}
            Some(last_tid) => {
                found.index = saved.index;
                found.index_end = saved.pos;
                (found.end, found.last_tid, found.max_tid) = (saved.pos, last_tid, last_tid);
            }
        }
    }
    let tail = note.and_then(|note| familiar::about_the_tail(note, &log, identity, options.media.boot()));
    let from = ScanFrom { pos: found.end, tid: found.last_tid, stop: options.stop, note: tail };
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
        // Gives back what a process that died had reserved, and makes durable what it had only written: all that is
        // served from now on.
        recover::cut(&**file, path, scanned.end)?;
    }
    Ok(found)
}

fn read_magic(options: &FileStorageOptions, file: &dyn MediaFile) -> Result<FileFormat> {
    let path = options.path.display();
    let io = || StorageError::io(format!("opening {path}"));
    let len = file.len().map_err(io())?;
    let mut magic = [0; MAGIC_LEN as usize];
    let read = file.read_at(&mut magic, 0).map_err(io())?;
    if let Some(format) = FileFormat::from_magic(magic) {
        return Ok(format);
    }
    let format = options.new_file_format.initial();
    // A power cut while the file was made leaves less than the magic, or its length without its bytes.
    let is_new = len <= MAGIC_LEN && magic.iter().zip(format.magic()).all(|(&a, b)| a == 0 || a == b);
    if !is_new {
        return Err(StorageError::Refused {
            class: ("ZODB.FileStorage.FileStorage", "FileStorageFormatError"),
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
fn saved_index(options: &FileStorageOptions) -> Option<SavedIndex> {
    let loaded = index_file::load(&*options.media, &options.path);
    loaded.unwrap_or_else(|error| {
        let path = options.path.display();
        error!(target: TARGET, "loading index {path}.index: {error}; the file is scanned instead");
        None
    })
}

/// If the file is not as it was left: says so, and sees to it that clients notice. From where on oids are given out.
fn greet(
    options: &FileStorageOptions,
    file: &dyn MediaFile,
    note: Option<&TailNote>,
    found: &mut Found,
) -> Result<Oid> {
    let marks = [note.map(|note| note.oid_mark), found.oid_mark, found.index.max_oid()];
    let mut last_oid = marks.into_iter().flatten().max().unwrap_or(Oid::ZERO);
    let familiarity = &found.familiarity;
    if options.read_only || !(familiarity.needs_stride() || familiarity.needs_marker()) {
        return Ok(last_oid);
    }
    if familiarity.needs_stride() {
        last_oid = Oid(last_oid.0.saturating_add(OID_STRIDE).min(Oid::MAX.0));
    }
    let path = options.path.display();
    if !found.familiarity.needs_marker() {
        info!(
            target: TARGET,
            "{path} was last written by another program, or comes from elsewhere: new object ids follow 0x{last_oid}"
        );
        return Ok(last_oid);
    }
    // Later than what clients have been told, and than what the file has.
    let told = note.map_or(Tid::ZERO, |note| {
        note.synced_tid.max(note.about.as_ref().map_or(Tid::ZERO, |about| about.seen))
    });
    let seen = told.max(found.max_tid);
    let tid = options.clock.now().later_than(seen);
    match familiar::append_marker(file, found.end, tid) {
        Ok(end) => (found.end, found.last_tid, found.max_tid) = (end, tid, tid),
        Err(error) => {
            // Clients with lost transactions cannot connect then, which harms nobody; who can, is served.
            error!(
                target: TARGET,
                "{path} is not as it was left, and the empty transaction that tells clients so cannot be written: {error}. \
                 Clients that know later transactions do not connect until then. Make room, and restart the server"
            );
            found.is_to_be_judged_again = true;
            // What was written of it is no transaction.
            recover::cut(file, &options.path, found.end)?;
            return Ok(last_oid);
        }
    }
    let what_follows = format!(
        "An empty transaction {tid} was added, so that clients do not go on with states that are lost, and new object ids \
         follow 0x{last_oid}"
    );
    match &found.familiarity {
        Familiarity::Other(what) => warn!(
            target: TARGET,
            "{path} is not as it was left: {what}. {what_follows}. If it was restored from a backup, nothing is to be done; \
             if not, look for the file that it replaced"
        ),
        Familiarity::Shortened => {
            info!(target: TARGET, "{path}: a pack has dropped the last transactions. {what_follows}")
        }
        _ => info!(target: TARGET, "{path} was copied, moved or touched since it was left. {what_follows}"),
    }
    Ok(last_oid)
}

/// A file that has its magic keeps it, unless it has nothing else and nobody minds.
fn keep(format: FileFormat, options: &FileStorageOptions) -> NewFileFormat {
    match (options.new_file_format, format) {
        (NewFileFormat::Auto, FileFormat::FS21) => NewFileFormat::FS21,
        (NewFileFormat::Auto, FileFormat::FS30) => NewFileFormat::FS30,
        (given, _) => given,
    }
}

fn warn_of_future(options: &FileStorageOptions, last: Tid) {
    let now = options.clock.now();
    if last > now {
        let path = options.path.display();
        let seconds = last.to_unix() - now.to_unix();
        if seconds > FUTURE_MAX {
            crate::critical!(target: TARGET, "{path} Database records {seconds:.0} seconds in the future");
        } else {
            warn!(target: TARGET, "{path} Database records {seconds:.0} seconds in the future");
        }
    }
}

/// From where on oids may be given out, and the note that this process keeps.
fn oids_and_note(
    options: &FileStorageOptions,
    file: &Arc<dyn MediaFile>,
    last: Oid,
    found: &Found,
) -> Result<(Oids, Option<NoteFile>)> {
    let FileStorageOptions { path, media, .. } = options;
    let oids = Oids { last: last.0, mark: last.0 };
    if options.read_only || found.is_to_be_judged_again {
        return Ok((oids, None));
    }
    let log = Log::new(path.clone(), file.clone(), found.end);
    let about = familiar::about_log(&**media, &log, found.last_tid, found.last_tid, State::Open);
    match NoteFile::create(&**media, path, about, last, media.now().saturating_add(ours::RENEW_FOR)) {
        Ok(note) => Ok((oids, Some(note))),
        Err(error) => {
            let doing = format!("writing {}.tmp", path.display());
            warn!(target: TARGET, "{doing}: {error}. A crash will be harder to recover from");
            // An old note would speak of transactions that it does not know.
            let _ = media.remove(&with_suffix(path, ".tmp"));
            match TailNote::read(&**media, path) {
                None => Ok((oids, None)),
                Some(_) => Err(StorageError::Io { doing, error }),
            }
        }
    }
}
