//! The lock file of a repository.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use fs2::FileExt;

/// Which other runs are kept out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Exclusion {
    /// All: the repository is changed.
    All,
    /// Those that change the repository: it is read.
    Writers,
}

/// The result of an attempt.
pub enum Locked {
    /// Held until it is dropped.
    Held(RepositoryLock),
    /// Another process has it: its number, if it is known.
    Busy { holder: String },
    /// The file system has no locks, or the file cannot be made.
    Impossible(io::Error),
}

/// A lock, held until this is dropped.
pub struct RepositoryLock {
    _file: File,
}

/// Takes the lock, without waiting. The file is made if it is missing.
pub fn lock(path: &Path, exclusion: Exclusion) -> io::Result<Locked> {
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    let mut file = match options {
        // It belongs to another user, or is on a file system that is only read. A file that is open for reading can be
        // locked, too.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
            ) =>
        {
            match File::open(path) {
                Ok(file) => file,
                Err(error) => return Ok(Locked::Impossible(error)),
            }
        }
        other => other?,
    };
    let locked = match exclusion {
        Exclusion::All => file.try_lock_exclusive(),
        Exclusion::Writers => FileExt::try_lock_shared(&file),
    };
    match locked {
        Ok(()) => {}
        Err(error) if error.kind() == fs2::lock_contended_error().kind() => {
            let mut holder = String::new();
            // Only for the message.
            let _ = (&mut file).take(64).read_to_string(&mut holder);
            return Ok(Locked::Busy { holder: holder.trim().to_string() });
        }
        Err(error) => return Ok(Locked::Impossible(error)),
    }
    if exclusion == Exclusion::All {
        let content = format!("{}\n", std::process::id());
        // Only for the message of another process; fails if the file could be opened for reading only.
        let _ = file.write_all(content.as_bytes()).and_then(|()| file.set_len(content.len() as u64));
    }
    Ok(Locked::Held(RepositoryLock { _file: file }))
}
