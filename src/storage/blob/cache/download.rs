//! A blob on its way into the cache.
//!
//! Its bytes go to a file with a name of its own, beside the place where it will be. So what a killed process left
//! cannot become part of it (Python's clients append to such a file), and a file with the final name is complete.
//! A file of a blob that is not to be in the cache has no name.

use std::ffi::OsString;
use std::io;
use std::mem;
use std::path::PathBuf;
use std::thread;

use super::claims::Claim;
use super::leftovers::DOWNLOAD_SUFFIX;
use super::lock::DirLock;
use super::size_check::SizeCheck;
use crate::base::ids::{Oid, Tid};
use crate::base::sync::Arc;
use crate::storage::media::{MediaDir, MediaFile, Readers};
use crate::storage::{BlobDir, BlobFile, Result, StorageError};

/// Python's logger of clients.
pub(super) const LOG: &str = "ZEO.ClientStorage";
/// Bytes between two hints to the system to begin writing, so that the sync at the end has less to write.
const WRITE_BACK_LEN: u64 = 2 << 20;

/// A shorter blob is on the disk at once.
const BEHIND_LEN_MIN: u64 = 4 << 20;

/// Where a blob is going.
pub(super) struct Destination {
    pub dir: Arc<BlobDir>,
    /// The directory for the object.
    pub home: Arc<dyn MediaDir>,
    pub check: Arc<SizeCheck>,
}

/// A blob that is being received. Dropping this removes what has arrived.
///
/// No other thread downloads the same blob while this exists; nor does another process, unless this has no lock.
pub struct BlobDownload {
    into: Destination,
    oid: Oid,
    serial: Tid,
    file: Arc<dyn MediaFile>,
    /// Of the file; empty once it is renamed, and without a lock.
    name: OsString,
    /// Bytes that were written.
    len: u64,
    written_back: u64,
    // Released in this order, after the file is gone: the next thread of this process needs no lock.
    claim: Claim,
    /// `None`: another process has it, and the blob will not be in the cache.
    lock: Option<DirLock>,
}

impl BlobDownload {
    /// The directory's lock is held, and the blob is not there. `number`: different from those of other downloads of
    /// this process.
    pub(super) fn new(
        into: Destination,
        (oid, serial): (Oid, Tid),
        number: u64,
        claim: Claim,
        lock: DirLock,
    ) -> io::Result<BlobDownload> {
        let to = into.dir.layout().file_name(oid, serial);
        // Of a process that was killed: no process writes to it, because this one has the lock. A client of Python
        // would append to it.
        remove_if_there(&*into.home, format!("{to}{DOWNLOAD_SUFFIX}").into())?;
        let name = OsString::from(format!("{to}.{}-{}{DOWNLOAD_SUFFIX}", std::process::id(), number));
        // Left by a process that had this one's number.
        remove_if_there(&*into.home, name.clone())?;
        let file = into.home.create(&name, Readers::Owner)?;
        let lock = Some(lock);
        Ok(BlobDownload { into, oid, serial, file, name, len: 0, written_back: 0, claim, lock })
    }

    /// Another process has the lock.
    pub(super) fn unnamed(
        into: Destination,
        (oid, serial): (Oid, Tid),
        claim: Claim,
    ) -> io::Result<BlobDownload> {
        let (file, name) = (into.dir.create_unnamed()?, OsString::new());
        Ok(BlobDownload { into, oid, serial, file, name, len: 0, written_back: 0, claim, lock: None })
    }

    /// The object.
    pub fn oid(&self) -> Oid {
        self.oid
    }

    /// The revision.
    pub fn serial(&self) -> Tid {
        self.serial
    }

    /// Where it will be.
    pub fn path(&self) -> PathBuf {
        self.into.dir.path(self.oid, self.serial)
    }

    /// Appends bytes.
    pub fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.file.write_at(chunk, self.len)?;
        self.len += chunk.len() as u64;
        if self.len - self.written_back >= WRITE_BACK_LEN {
            self.file.write_back(self.written_back, self.len - self.written_back);
            self.written_back = self.len;
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn replace_file(&mut self, file: Arc<dyn MediaFile>) {
        self.file = file;
    }

    /// Forgets what has arrived: it comes again, on another link.
    pub fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        (self.len, self.written_back) = (0, 0);
        Ok(())
    }

    /// The server has sent the last byte: the blob gets its name, and is in the cache from now on. Waits until its data
    /// is on the disk: a power failure would otherwise leave a file of the right name without the right content.
    ///
    /// Without the lock there is no name and nothing to wait for.
    pub fn finish(mut self) -> Result<BlobFile> {
        let path = self.path();
        let doing = || StorageError::io(format!("storing the blob {}", path.display()));
        self.check_len().map_err(doing())?;
        let is_unnamed = self.lock.is_none();
        if !is_unnamed {
            self.give_name().map_err(doing())?;
            self.into.check.has_grown(self.len);
        }
        let blob = BlobFile { file: Arc::clone(&self.file), len: self.len, path, is_unnamed };
        if is_unnamed {
            self.claim.share(&blob);
        }
        Ok(blob)
    }

    /// As [`BlobDownload::finish`], but returns before the data is on the disk: the reader has the open file, and
    /// another thread waits and gives the blob its name. What goes wrong there is logged, and the blob is not in the
    /// cache.
    pub fn finish_behind(self) -> Result<BlobFile> {
        if self.lock.is_none() || self.len < BEHIND_LEN_MIN {
            return self.finish();
        }
        let path = self.path();
        self.check_len().map_err(StorageError::io(format!("storing the blob {}", path.display())))?;
        let (file, len) = (Arc::clone(&self.file), self.len);
        let blob = BlobFile { file, len, path: path.clone(), is_unnamed: true };
        self.claim.share(&blob);
        // Without a thread the download is dropped, and the blob is not kept.
        let spawned = thread::Builder::new().name("zeo-blob-sync".into()).spawn(move || {
            if let Err(error) = self.finish() {
                log::warn!(target: LOG, "{}: a blob is not kept in the cache: {error}", path.display());
            }
        });
        if let Err(error) = spawned {
            log::warn!(target: LOG, "{}: a blob is not kept in the cache: {error}", blob.path.display());
        }
        Ok(blob)
    }

    fn check_len(&self) -> io::Result<()> {
        let len = self.file.len()?;
        if len != self.len {
            let what = format!("{len} of {} bytes are in the file", self.len);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
        }
        Ok(())
    }

    fn give_name(&mut self) -> io::Result<()> {
        // As Python: for the owner only.
        self.file.protect(0)?;
        self.file.sync()?;
        let to = OsString::from(self.into.dir.layout().file_name(self.oid, self.serial));
        self.into.home.rename(&self.name, &*self.into.home, &to)?;
        self.name.clear();
        Ok(())
    }
}

impl Drop for BlobDownload {
    fn drop(&mut self) {
        let name = mem::take(&mut self.name);
        if !name.is_empty()
            && let Err(error) = self.into.home.remove(&name)
        {
            let path = self.into.home.path().join(&name);
            log::warn!(target: LOG, "cannot remove {}: {error}", path.display());
        }
    }
}

fn remove_if_there(home: &dyn MediaDir, name: OsString) -> io::Result<()> {
    match home.remove(&name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
