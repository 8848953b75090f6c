//! `Data.fs.lock`: keeps a second server, this one or Python's, off the file. As `zc.lockfile`: flock(2); the content
//! is a blank, the pid and a line feed; the file is never removed.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

use fs2::FileExt;

use crate::base::fs::with_suffix;
use crate::storage::{Refusal, Result, StorageError};

/// The lock, held until this is dropped.
#[derive(Debug)]
pub struct LockFile {
    file: File,
}

impl LockFile {
    /// Locks the database `path`. The error names the process that has the lock.
    pub fn acquire(path: &Path) -> Result<LockFile> {
        let path = with_suffix(path, ".lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(StorageError::io(format!("opening the lock file {}", path.display())))?;
        if file.try_lock_exclusive().is_err() {
            let mut holder = String::new();
            // Only for the message: the holder may not have written its pid yet.
            let _ = (&mut file).take(64).read_to_string(&mut holder);
            let holder = holder.lines().next().unwrap_or_default().trim();
            let by = if holder.is_empty() { String::new() } else { format!(", process {holder} has it") };
            return Err(StorageError::Refused {
                what: Refusal::FileInUse,
                message: format!("Couldn't lock '{}'{by}: is another server running?", path.display()),
            });
        }
        let content = format!(" {}\n", std::process::id());
        file.write_all(content.as_bytes())
            .and_then(|()| file.set_len(content.len() as u64))
            .map_err(StorageError::io(format!("writing the lock file {}", path.display())))?;
        Ok(LockFile { file })
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // Closing the descriptor releases the lock too, unless a child process has inherited it.
        let _ = FileExt::unlock(&self.file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excludes_and_names_the_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("Data.fs");
        std::fs::write(dir.path().join("Data.fs.lock"), " 1234567890123\n").unwrap();
        let held = LockFile::acquire(&path).unwrap();
        let content = std::fs::read_to_string(dir.path().join("Data.fs.lock")).unwrap();
        assert_eq!(content, format!(" {}\n", std::process::id()));
        let error = LockFile::acquire(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("process {} has it", std::process::id())), "{error}");
        drop(held);
        LockFile::acquire(&path).unwrap();
    }
}
