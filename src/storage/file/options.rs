//! Options for opening a FileStorage.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::format::FileFormat;
use super::handle::FileHandle;
use super::media::{Media, RealMedia};
use crate::base::clock::{Clock, SystemClock, TimeSource};
use crate::base::ids::Tid;
use crate::storage::{OpenProgress, Refusal, Result, StorageError};

/// Which Python can open a new file.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum NewFileFormat {
    /// The Python of the first transaction's client.
    #[default]
    Auto,
    /// Python 2: ZODB 3 and ZODB up to 5 open it.
    FS21,
    /// Python 3.
    FS30,
}

impl NewFileFormat {
    pub(super) fn initial(self) -> FileFormat {
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

/// Options for opening a FileStorage.
#[derive(Clone)]
pub struct FileStorageOptions {
    /// The path of the file.
    pub path: PathBuf,
    /// The blob directory; `None`: no blobs.
    pub blob_dir: Option<PathBuf>,
    /// Begins with an empty file even if there is one.
    pub create: bool,
    /// Whether the file is only read. It is not locked then, must exist, and nothing beside it is written. Transactions
    /// that are committed by others after it was opened are not seen.
    pub read_only: bool,
    /// In bytes. A vote fails if a record of it would begin behind this position.
    pub quota: Option<u64>,
    /// Whether a pack removes objects without references, unless its caller decides.
    pub pack_gc: bool,
    /// Whether a pack leaves the old file as `Data.fs.old`.
    pub pack_keep_old: bool,
    /// Whether a pack is refused if there are more than 1000 objects and it would remove more than nine tenths of them.
    pub pack_refuse_large_removals: bool,
    /// Bytes that a pack reads in a second; it reads the file up to three times. `None`: as many as it can.
    pub pack_max_rate: Option<u64>,
    /// Time travel, read-only: transactions from this tid on are not visible.
    pub stop: Option<Tid>,
    /// Applies to files without a transaction.
    pub new_file_format: NewFileFormat,
    #[doc(hidden)]
    pub media: Arc<dyn Media>,
    #[doc(hidden)]
    pub clock: Arc<dyn Clock>,
    /// The time of the index saver.
    #[doc(hidden)]
    pub time: TimeSource,
    /// For the scrub, which reads the file while it is served.
    #[doc(hidden)]
    pub handle: FileHandle,
    /// How far an open has come, for those who wait for it.
    #[doc(hidden)]
    pub progress: OpenProgress,
}

impl FileStorageOptions {
    /// A storage that can be written to, without blobs and without a quota.
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
            pack_max_rate: None,
            stop: None,
            new_file_format: NewFileFormat::Auto,
            media: Arc::new(RealMedia),
            clock: Arc::new(SystemClock),
            time: TimeSource::SYSTEM,
            handle: FileHandle::default(),
            progress: OpenProgress::default(),
        }
    }

    /// Refuses options that exclude each other, in Python's words.
    pub fn check(&self) -> Result<()> {
        let refused =
            |message: &str| Err(StorageError::Refused { what: Refusal::Options, message: message.into() });
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
    /// All fields except the disk and the clocks.
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
            .field("pack_max_rate", &self.pack_max_rate)
            .field("stop", &self.stop)
            .field("new_file_format", &self.new_file_format)
            .finish_non_exhaustive()
    }
}
