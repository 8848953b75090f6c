//! The errors of storages. The server turns each into the exception that Python's storage would raise.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::base::ids::{Oid, Tid};
use crate::conflict::Conflict;

/// The message lists at most this many objects that cannot be undone.
const SHOWN_MAX: usize = 100;

/// The result of a storage's methods.
pub type Result<T> = std::result::Result<T, StorageError>;

/// An error of a storage.
#[derive(Debug)]
pub enum StorageError {
    /// `POSKeyError`: no such object, or no such revision of it.
    PosKey(Oid),
    /// `POSKeyError`: the object may exist, but its blob has no file.
    NoBlob {
        /// The object.
        oid: Oid,
        /// The revision.
        serial: Tid,
        /// Where the file would be.
        path: PathBuf,
    },
    /// `KeyError`: a pack found a reference to an object that does not exist.
    Missing(Oid),
    /// `ConflictError`: another transaction changed the object first.
    Conflict(Box<Conflict>),
    /// `ReadConflictError`: an object that the transaction depends on was changed.
    ReadConflict(Box<Conflict>),
    /// `ReadConflictError`: what was read until now is not the past of the database that is found now.
    Outdated(String),
    /// `ReadOnlyError`
    ReadOnly,
    /// `StorageTransactionError`
    Transaction(String),
    /// `UndoError`
    Undo {
        /// In Python's words.
        reason: Cow<'static, str>,
        /// The object that cannot be undone, if the error is about one object.
        oid: Option<Oid>,
    },
    /// `MultipleUndoErrors`: each object that cannot be undone, with the reason; at least one.
    MultipleUndo(Vec<(Oid, Cow<'static, str>)>),
    /// `FileStorageQuotaError`
    Quota,
    /// `Unsupported`: this storage or server cannot do it.
    Unsupported(String),
    /// The request is refused, the storage is intact.
    Refused {
        /// What is refused.
        what: Refusal,
        /// What is wrong and what to do.
        message: String,
    },
    /// `CorruptedDataError`: the file is damaged.
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The position in it, in bytes.
        pos: u64,
        /// What is wrong there.
        what: String,
    },
    /// The medium failed or is full.
    Io {
        /// What was being done, with the file's name.
        doing: String,
        /// The system's error.
        error: io::Error,
    },
    /// The storage has been closed, or has gone read-only after a failed sync.
    Closed(String),
    /// The storage is another server's, which cannot be reached now. Trying again later may help.
    Disconnected(String),
    /// The connection to the storage's server broke while it was finishing a transaction: nobody knows whether the
    /// transaction is committed.
    OutcomeUnknown(String),
    /// An exception that the storage's server raised, and that no other variant stands for.
    Server {
        /// The full name of Python's class.
        class: String,
        /// Its arguments, in words.
        message: String,
    },
}

/// What a storage refuses. The server's `exceptions` has the Python class for each.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// Opening with options that contradict each other.
    Options,
    /// Opening a file that is missing although its index is there.
    FileMissing,
    /// Opening a file that another process has locked.
    FileInUse,
    /// Opening a file that has no format of FileStorage.
    FileFormat,
    /// Opening a file with a torn tail that cannot be saved aside.
    TornTail,
    /// Opening a blob directory that has the layout of something else.
    BlobLayout,
    /// Blobs, of a storage that keeps none.
    Blobs,
    /// A file that a client has put into a shared blob directory.
    BlobFile,
    /// A record: empty, too large, or with a content that cannot be read.
    Record,
    /// A transaction that the format of the file cannot hold.
    FileLimit,
    /// A transaction that is larger than the server permits.
    TransactionTooLarge,
    /// A transaction that brings a tid which is not later than the last one.
    TidOrder,
    /// Continuing an iteration whose file has been replaced too often.
    IterationEnded,
    /// Packing to a time that no tid can have.
    PackTimeRange,
    /// Packing to the time of the tid zero.
    PackTimeZero,
    /// Packing to an earlier time than the last pack.
    PackedLater,
    /// Packing while another pack runs.
    PackRunning,
    /// A pack that would remove more than is permitted.
    PackRemoval,
    /// Garbage collection, of a storage that cannot know all references.
    GarbageCollection,
    /// A pack that could not be completed.
    Pack,
    /// A pack that was cancelled.
    PackCancelled,
    /// Removing the blobs that a completed pack has left out; the next pack or start continues it.
    BlobsNotPacked,
}

impl StorageError {
    /// The error of calls for blobs in a storage without a `blob-dir`.
    pub fn no_blobs() -> StorageError {
        StorageError::Refused { what: Refusal::Blobs, message: "Blobs are not supported".into() }
    }

    /// Turns an I/O error into [`StorageError::Io`]; `doing` says what was being done.
    pub fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> StorageError {
        let doing = doing.into();
        move |error| StorageError::Io { doing, error }
    }
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StorageError::PosKey(oid) => write!(f, "no object 0x{oid}"),
            StorageError::NoBlob { path, .. } => write!(f, "No blob file at {}", path.display()),
            StorageError::Missing(oid) => write!(
                f,
                "object 0x{oid} is missing, but another object refers to it: find out why before packing, or pack \
                 without garbage collection"
            ),
            StorageError::Conflict(c) => write!(
                f,
                "conflict on object 0x{}: it is at {} and was read at {}",
                c.oid, c.committed, c.read
            ),
            StorageError::ReadConflict(c) => {
                write!(f, "object 0x{} is at {} and was read at {}", c.oid, c.committed, c.read)
            }
            StorageError::ReadOnly => write!(f, "the storage is read-only"),
            StorageError::Transaction(what) => write!(f, "{what}"),
            StorageError::Undo { reason, .. } => write!(f, "cannot undo: {reason}"),
            StorageError::MultipleUndo(errors) => {
                write!(f, "cannot undo")?;
                let shown = errors.iter().take(SHOWN_MAX);
                shown.clone().try_for_each(|(oid, reason)| write!(f, "; object 0x{oid}: {reason}"))?;
                match errors.len().saturating_sub(shown.len()) {
                    0 => Ok(()),
                    more => write!(f, "; and {more} more"),
                }
            }
            StorageError::Quota => write!(f, "the storage quota has been exceeded"),
            StorageError::Unsupported(what) => write!(f, "{what}"),
            StorageError::Refused { message, .. } => write!(f, "{message}"),
            StorageError::Corrupt { path, pos, what } => write!(f, "{}: at {pos}: {what}", path.display()),
            StorageError::Io { doing, error } => write!(f, "{doing}: {error}"),
            StorageError::Closed(why)
            | StorageError::Outdated(why)
            | StorageError::Disconnected(why)
            | StorageError::OutcomeUnknown(why) => {
                write!(f, "{why}")
            }
            StorageError::Server { class, message } => write!(f, "the server raised {class}: {message}"),
        }
    }
}

impl std::error::Error for StorageError {}

/// A copy of an I/O error: when a group of transactions fails, each client gets the error.
pub fn copy_of_io(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}
