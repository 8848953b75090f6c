//! How a cache is opened, and why it cannot be.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::clock::TimeSource;
use crate::base::ids::Tid;
use crate::storage::media::{Media, RealMedia};

/// How to open a cache.
#[derive(Clone)]
pub struct CacheOptions {
    /// The cache file; `None`: a temporary one.
    pub path: Option<PathBuf>,
    /// Size of the file in bytes, at least 12.
    pub size: u64,
    /// Bytes of revisions that [`look_up_shared`](super::Cache::look_up_shared) keeps in memory.
    pub memory: usize,
    /// The disk.
    pub media: Arc<dyn Media>,
    /// Whether a trace is written. Only beside a file with a name.
    pub trace: bool,
    /// The clock of the trace.
    pub time: TimeSource,
}

impl CacheOptions {
    /// Without trace, on the real disk, and nothing in memory.
    pub fn new(path: Option<&Path>, size: u64) -> CacheOptions {
        let path = path.map(Path::to_path_buf);
        CacheOptions {
            path,
            size,
            memory: 0,
            media: Arc::new(RealMedia),
            trace: false,
            time: TimeSource::SYSTEM,
        }
    }
}

/// Why a cache cannot be opened or changed.
#[derive(Debug)]
pub enum CacheError {
    /// Another client has the file.
    InUse {
        /// The cache file.
        path: PathBuf,
        /// Its process id, as far as known.
        holder: String,
    },
    /// The file cannot be read or written.
    Io {
        /// The cache file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The last tid would go backwards although the cache is not empty.
    Backwards {
        /// The tid that was to be the last one.
        new: Tid,
        /// The last one.
        last: Tid,
    },
}

impl fmt::Display for CacheError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CacheError::InUse { path, holder } => {
                write!(f, "Couldn't lock '{}.lock'", path.display())?;
                if !holder.is_empty() {
                    write!(f, ", process {holder} has it")?;
                }
                f.write_str(": does another client use this cache?")
            }
            CacheError::Io { path, error } => write!(f, "cache file '{}': {error}", path.display()),
            CacheError::Backwards { new, last } => {
                write!(f, "new last tid ({new}) must be greater than previous one ({last})")
            }
        }
    }
}

impl std::error::Error for CacheError {}
