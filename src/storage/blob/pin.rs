//! Keeps blobs where they are while a backup reads them.
//!
//! A backup opens the file of the database once, and may read the blobs of its records long after a pack has taken them
//! out of the storage. So it first takes a shared lock on a file in the blob directory; while that is held, the blobs
//! that packs take out are not removed. The system releases the lock when the backup ends, however it does. A backup
//! that begins later sees the packed file, which does not need them.
//!
//! Python's server does not look at the lock.

use std::fs::File;
use std::io;

use fs2::FileExt;

use super::dir::BlobDir;

/// Names that begin with a dot mean nothing to ZODB.
const PIN: &str = ".zeobackup";
/// Any user may make a backup, so any may lock the file.
const MODE: u32 = 0o644;

/// Blobs stay as long as this is kept.
pub struct BlobPin {
    _file: File,
}

impl BlobDir {
    /// Makes packs leave the blobs. `None`: there is no blob directory yet, it is not one of the operating system, or
    /// it can only be read.
    ///
    /// Errors: the file cannot be made or locked; packs may remove blobs then.
    pub fn pin(&self) -> io::Result<Option<BlobPin>> {
        let root = match self.root() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            root => root?,
        };
        let Some(dir) = root.of_system() else { return Ok(None) };
        // It may be another user's: a file that is open for reading can be locked, too.
        let file = match dir.read(PIN.as_ref()).or_else(|_| dir.open_or_create(PIN.as_ref(), MODE)) {
            // No pack can remove anything.
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => return Ok(None),
            file => file?,
        };
        FileExt::lock_shared(&file)?;
        Ok(Some(BlobPin { _file: file }))
    }

    /// Whether a backup needs the blobs that packs have taken out.
    pub(super) fn is_pinned(&self) -> bool {
        let file = self.root().ok().and_then(|root| root.of_system()?.read(PIN.as_ref()).ok());
        file.is_some_and(|file| {
            // Closing the file releases the lock.
            file.try_lock_exclusive().is_err_and(|error| error.kind() == fs2::lock_contended_error().kind())
        })
    }
}
