//! `PATH.lock` beside a cache file: keeps a second client, this program's or Python's, off the file. As `zc.lockfile`:
//! flock(2); the content is a blank, the pid and a line feed; the file is never removed.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use fs2::FileExt;

use crate::base::fs::with_suffix;

/// The lock, held until this is dropped.
#[derive(Debug)]
pub struct CacheLock {
    file: File,
}

/// Why there is no lock.
#[derive(Debug)]
pub enum NotLocked {
    /// Another client has it: the content of the lock file, which is its pid.
    InUse(String),
    /// The lock file cannot be written.
    Io(io::Error),
}

impl From<io::Error> for NotLocked {
    fn from(error: io::Error) -> NotLocked {
        NotLocked::Io(error)
    }
}

impl CacheLock {
    /// Locks the cache file `path`.
    pub fn acquire(path: &Path) -> Result<CacheLock, NotLocked> {
        let path = with_suffix(path, ".lock");
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        if file.try_lock_exclusive().is_err() {
            let mut holder = String::new();
            // Only for the message: the holder may not have written its pid yet.
            let _ = (&mut file).take(64).read_to_string(&mut holder);
            return Err(NotLocked::InUse(holder.trim().to_string()));
        }
        let content = format!(" {}\n", std::process::id());
        file.write_all(content.as_bytes())?;
        file.set_len(content.len() as u64)?;
        Ok(CacheLock { file })
    }
}

impl Drop for CacheLock {
    fn drop(&mut self) {
        // Closing the descriptor releases the lock too, unless a child process has inherited it.
        let _ = FileExt::unlock(&self.file);
    }
}
