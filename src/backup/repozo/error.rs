//! Why a run of repozo fails.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::backup::replace::ReplaceError;
use crate::storage::StorageError;

pub type Result<T> = std::result::Result<T, RepozoError>;

/// Why a run fails; the text is for the operator.
#[derive(Debug)]
pub enum RepozoError {
    /// There is no full backup, or none up to this date.
    NoFiles { before: Option<String> },
    /// A backup of this second is there already.
    Exists(PathBuf),
    /// Another backup is running.
    Locked { repository: PathBuf, holder: String },
    /// The backups are damaged.
    Damaged(String),
    /// `Data.fs` cannot be read.
    Storage(StorageError),
    /// The restored file cannot be put in place.
    Replace(ReplaceError),
    /// A file cannot be read or written.
    Io { doing: String, error: io::Error },
}

impl RepozoError {
    /// For `map_err`.
    pub fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> RepozoError {
        let doing = doing.into();
        |error| RepozoError::Io { doing, error }
    }
}

impl fmt::Display for RepozoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RepozoError::NoFiles { before: None } => write!(f, "No files in repository"),
            RepozoError::NoFiles { before: Some(date) } => write!(f, "No files in repository before {date}"),
            RepozoError::Exists(path) => write!(f, "Cannot overwrite existing file: {}", path.display()),
            RepozoError::Locked { repository, holder } => {
                let by = if holder.is_empty() { String::new() } else { format!(" (process {holder})") };
                write!(
                    f,
                    "another backup into {} is running{by}: wait until it has ended",
                    repository.display()
                )
            }
            RepozoError::Damaged(what) => f.write_str(what),
            RepozoError::Storage(error) => error.fmt(f),
            RepozoError::Replace(error) => error.fmt(f),
            RepozoError::Io { doing, error } => write!(f, "{doing}: {error}"),
        }
    }
}

impl From<StorageError> for RepozoError {
    fn from(error: StorageError) -> RepozoError {
        RepozoError::Storage(error)
    }
}

impl From<ReplaceError> for RepozoError {
    fn from(error: ReplaceError) -> RepozoError {
        RepozoError::Replace(error)
    }
}
