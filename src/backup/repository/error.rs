//! Why a run of `zeobackup` fails.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::backup::replace::ReplaceError;
use crate::storage::StorageError;

pub type Result<T> = std::result::Result<T, BackupError>;

/// Why a run fails; the text is for the operator.
#[derive(Debug)]
pub enum BackupError {
    /// The directory is no repository of a known format.
    NoRepository { path: PathBuf, why: String },
    /// What was asked for is not in the repository.
    NotThere(String),
    /// A stream leaves out what the receiver does not have.
    LeftOut(String),
    /// Something in the repository is damaged.
    Damaged(String),
    /// Transactions of the database were taken back while it was read.
    Cut(PathBuf),
    /// The run was to end early.
    Cancelled,
    /// The database cannot be read, or is in use.
    Storage(StorageError),
    /// The restored file cannot be put in place.
    Replace(ReplaceError),
    /// A file cannot be read or written.
    Io { doing: String, error: io::Error },
}

impl BackupError {
    /// For `map_err`.
    pub fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> BackupError {
        let doing = doing.into();
        |error| BackupError::Io { doing, error }
    }
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackupError::NoRepository { path, why } => write!(f, "{}: {why}", path.display()),
            BackupError::NotThere(what) | BackupError::LeftOut(what) | BackupError::Damaged(what) => {
                f.write_str(what)
            }
            BackupError::Cut(path) => write!(
                f,
                "transactions of {} were taken back while it was read. Nothing was backed up; try again",
                path.display()
            ),
            BackupError::Cancelled => f.write_str("cancelled"),
            BackupError::Storage(error) => error.fmt(f),
            BackupError::Replace(error) => error.fmt(f),
            BackupError::Io { doing, error } => write!(f, "{doing}: {error}"),
        }
    }
}

impl From<StorageError> for BackupError {
    fn from(error: StorageError) -> BackupError {
        BackupError::Storage(error)
    }
}

impl From<ReplaceError> for BackupError {
    fn from(error: ReplaceError) -> BackupError {
        BackupError::Replace(error)
    }
}
