//! Opening: from a path to a running storage.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};
use std::thread;

use super::familiar::Familiarity;
use super::format::{FileFormat, MAGIC_LEN};
use super::gate::GateSlot;
use super::handle::Serving;
use super::lead::Lead;
use super::lock_file::LockFile;
use super::log::Log;
use super::media::{Access, Identity, MediaFile};
use super::open_note::{mark_if_unfamiliar, oids_and_note, warn_of_future};
use super::open_read::{read_all, read_magic, saved_index};
use super::options::{FileStorageOptions, NewFileFormat};
use super::pack::{Packing, leftovers};
use super::pins::Pins;
use super::saver::Saver;
use super::space::Space;
use super::tail_note::TailNote;
use super::volume::{Current, Volume};
use super::writer::Writer;
use super::{Core, FileStorage, kept, sums};
use crate::base::fs::{dir_of, with_suffix};
use crate::base::sync::Mutex;
use crate::storage::tids::Tids;
use crate::storage::{BlobDir, PublisherSlot, Refusal, Result, StorageError, SyncHistograms};

/// Number of committer threads: while one answers the clients of its group, the other leads the next group.
const COMMITTERS: usize = 2;
const STACK_LEN: usize = 512 * 1024;

/// A storage whose files are open and locked, but not read yet.
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
    /// Opens the file. If it is missing, it is created unless the storage is read-only.
    pub fn open(options: FileStorageOptions) -> Result<FileStorage> {
        FileStorage::prepare(options)?.open()
    }

    /// The quick part of opening: takes the lock, and creates a new file and the blob directory.
    pub(crate) fn prepare(options: FileStorageOptions) -> Result<Prepared> {
        options.check()?;
        let lock_file = if options.read_only { None } else { Some(LockFile::acquire(&options.path)?) };
        let has_note = !options.read_only && !options.create;
        let note = has_note.then(|| TailNote::read(&*options.media, &options.path)).flatten();
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
    /// The rest of opening: reads the index, and scans what the index does not know. May take minutes.
    pub fn open(self) -> Result<FileStorage> {
        let Prepared { options, lock_file, note, file, identity, format, blobs } = self;
        let media = options.media.clone();
        let mut found = read_all(&options, &file, &identity, format, note.as_ref())?;
        warn_of_future(&options, found.last_tid);
        let last_oid = mark_if_unfamiliar(&options, &*file, note.as_ref(), &mut found)?;
        let cuts = note.as_ref().and_then(|note| note.about.as_ref()).map_or(0, |about| about.cuts);
        let (oids, note_file) = oids_and_note(&options, &file, last_oid, &found, cuts)?;
        let directory = dir_of(&options.path);
        let dir =
            media.dir(directory).map_err(StorageError::io(format!("opening {}", directory.display())))?;
        let is_as_left = matches!(found.familiarity, Familiarity::Same);
        if !options.read_only && !is_as_left {
            sums::drop_journal(&*media, &options.path);
        }
        let core = Core {
            media,
            dir,
            path: options.path.clone(),
            space: Space::new(file.clone(), found.end),
            volume: Current::new(Volume::new(
                Log::new(options.path.clone(), file.clone(), found.end),
                found.index,
                found.last_tid,
                0,
            )),
            broken: OnceLock::new(),
            tids: Tids::with_clock(found.max_tid, options.clock.clone()),
            group: Lead::default(),
            gate: GateSlot::default(),
            writer: Mutex::new(Writer {
                end: found.end,
                format: found.format,
                undecided: found.has_no_transaction,
                buf: Vec::new(),
                unsynced: 0,
            }),
            publisher: PublisherSlot::default(),
            new_file_format: if found.is_new {
                options.new_file_format
            } else {
                keep(found.format, &options)
            },
            note: note_file,
            blobs,
            saver: Saver::new(found.index_end, found.index_end > MAGIC_LEN, options.time.clone()),
            packing: Packing::default(),
            pins: Pins::default(),
            oids: Mutex::new(oids),
            last_tid: AtomicU64::new(found.last_tid.0),
            closed: AtomicBool::new(false),
            syncs: SyncHistograms::default(),
            sync_later: AtomicBool::new(false),
        };
        let core = Arc::new(core);
        let serving: Arc<dyn Serving> = core.clone();
        options.handle.set(Arc::downgrade(&serving), is_as_left);
        let storage = FileStorage {
            options,
            core,
            threads: Mutex::default(),
            lock_file: Mutex::new(lock_file),
            resolver: Default::default(),
        };
        if !storage.options.read_only {
            if let Some(blobs) = &storage.core.blobs {
                let is_old_kept = storage.core.media.exists(&with_suffix(&storage.core.path, ".old"));
                blobs.clean(is_old_kept, &|oid, tid| storage.has_revision(oid, tid));
            }
            kept::end_interrupted(&storage);
            if !storage.core.saver.used_index {
                // As in Python after a rebuild: makes the next start quick even if this process does not close in
                // order.
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
        let mut threads = self.threads.lock();
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
    BlobDir::open_on(options.media.clone(), path, options.read_only).map(Some)
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

/// Refuses to start if the file is missing but an index is there: the disk is not mounted, or the file was moved away.
/// A new file would hide that.
fn check_not_missing(options: &FileStorageOptions) -> Result<()> {
    // Reading from a pipe or the like may never end.
    if !options.media.is_file(&with_suffix(&options.path, ".index")) {
        return Ok(());
    }
    match saved_index(options) {
        Some(saved) if !options.create && saved.pos > MAGIC_LEN => {
            let path = options.path.display();
            Err(StorageError::Refused {
                what: Refusal::FileMissing,
                message: format!(
                    "{path} is missing, but its index {path}.index is of a file of at least {} bytes. Is a disk not mounted? Put the file \
                     back, or remove the index to begin with an empty database",
                    saved.pos
                ),
            })
        }
        _ => Ok(()),
    }
}

/// The format for the first transaction of a file that has its magic already: with `Auto` the format of the magic.
fn keep(format: FileFormat, options: &FileStorageOptions) -> NewFileFormat {
    match (options.new_file_format, format) {
        (NewFileFormat::Auto, FileFormat::FS21) => NewFileFormat::FS21,
        (NewFileFormat::Auto, FileFormat::FS30) => NewFileFormat::FS30,
        (given, _) => given,
    }
}
