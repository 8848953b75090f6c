//! A cache of blobs whose originals are elsewhere: with another server, or in a database. Blobs are found, downloaded
//! once however many threads ask for them, and kept after a commit. Several processes may share it, Python's clients
//! too.
//!
//! The directory has the layout `zeocache` of Python's ZEO: `<oid mod 997>/<oid div 997>.<tid>.blob`. What has such a
//! name is complete: it was renamed after its last byte was written and synced.
//!
//! - `lock`: one lock for each of the 997 directories, which all processes respect
//! - `claims`: the blobs that this process is downloading, or has downloaded without putting them into the cache
//! - `download`: a blob on its way into the cache
//! - `size_check`: removes what was not read for the longest time, when the cache has become too large
//! - `leftovers`: removes files of processes that were killed
//!
//! Invariants: a file is created, renamed or removed in one of the directories only while the directory's lock is held;
//! two downloads never write to one file; a server waits for no other process, which may be its client; readers are
//! given an open file, so that they can read it to the end when it is removed.

#![cfg_attr(not(test), deny(clippy::expect_used, clippy::indexing_slicing, clippy::unwrap_used))]

mod claims;
mod download;
mod leftovers;
mod lock;
mod size_check;

#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use self::claims::{Claimed, Claims};
use self::download::{Destination, LOG};
use self::lock::DirLocks;
use self::size_check::SizeCheck;
use super::{CACHE_DIRS, StagedBlob};
use crate::base::ids::{Oid, Tid};
use crate::base::sync::{Arc, AtomicU64, Ordering};
use crate::storage::{BlobDir, BlobFile, Result, StorageError};

pub use self::download::BlobDownload;

/// A download waits for another process that uses the same directory, as in Python: 60 000 times 10 ms.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(600);

/// What a cache is opened with.
#[derive(Clone, Debug)]
pub struct BlobCacheOptions {
    /// `blob-dir`
    pub dir: PathBuf,
    /// `blob-cache-size`, in bytes. `None`: nothing is ever removed. It is what the cache is brought down to from time
    /// to time, not a limit.
    pub size: Option<u64>,
    /// `blob-cache-size-check`: the part of `size`, in percent and below 100, after whose growth the size is checked.
    /// The check leaves as much room.
    pub check_percent: u8,
    /// The name of the client, for its thread.
    pub name: String,
    /// This process is a server, whose clients may use the same directory. A download does not wait for another
    /// process, which may be such a client: it has the lock while it waits for this server.
    pub serves_clients: bool,
}

/// The result of [`BlobCache::begin`].
pub enum Begun {
    /// It is in the cache.
    There(BlobFile),
    /// It must be asked for.
    Download(BlobDownload),
}

/// A directory with copies of a server's blobs.
pub struct BlobCache {
    dir: Arc<BlobDir>,
    locks: Arc<DirLocks>,
    check: Arc<SizeCheck>,
    /// What this process downloads.
    claimed: Arc<Claims>,
    /// Makes the names of downloads unique.
    next_number: AtomicU64,
    serves_clients: bool,
}

impl BlobCache {
    /// Opens the cache, makes the directory if it is missing, and begins a first check of the size.
    ///
    /// Errors: `Refused` if it is the blob directory of a storage.
    pub fn open(options: BlobCacheOptions) -> Result<Arc<BlobCache>> {
        let dir = BlobDir::open_cache(&options.dir)?;
        let opening = || StorageError::io(format!("opening the blob directory {}", dir.base().display()));
        let locks = DirLocks::new(dir.base()).map_err(opening())?;
        let check = Arc::new(SizeCheck::new(&dir, &locks, options.name));
        check.set_size(options.size, options.check_percent);
        let (claimed, next_number, serves_clients) =
            (Arc::default(), AtomicU64::new(0), options.serves_clients);
        Ok(Arc::new(BlobCache { dir, locks, check, claimed, next_number, serves_clients }))
    }

    /// Where blobs wait that are to be committed.
    pub fn dir(&self) -> &Arc<BlobDir> {
        &self.dir
    }

    /// Changes the size, and begins a check.
    pub fn set_size(&self, size: Option<u64>, check_percent: u8) {
        self.check.set_size(size, check_percent);
    }

    /// Waits until no check of the size is running.
    pub fn wait_for_check(&self) {
        self.check.wait();
    }

    /// A blob that is in the cache, open: it can be read even if it is removed at the same time. It counts as used.
    pub fn get(&self, oid: Oid, serial: Tid) -> Result<Option<BlobFile>> {
        let found = self.dir.find(oid, serial)?;
        if let Some(blob) = &found {
            blob.file.accessed();
        }
        Ok(found)
    }

    /// A blob that is in the cache, or the right to download it. Waits for a thread or a process that downloads it, and
    /// for a process that uses the same of the 997 directories. A server does not wait for processes: it downloads what
    /// its reader needs, and the blob is not put into the cache.
    ///
    /// Errors: `Io` if the other process does not release its lock for ten minutes.
    pub fn begin(self: &Arc<Self>, oid: Oid, serial: Tid) -> Result<Begun> {
        let claim = loop {
            if let Some(blob) = self.get(oid, serial)? {
                return Ok(Begun::There(blob));
            }
            match self.claimed.claim((oid, serial)) {
                Claimed::Claim(claim) => break claim,
                Claimed::Waited => {}
                Claimed::Unnamed(file, len) => {
                    let path = self.dir.path(oid, serial);
                    return Ok(Begun::There(BlobFile { file, len, path, is_unnamed: true }));
                }
            }
        };
        let path = self.dir.path(oid, serial);
        let doing = || StorageError::io(format!("storing the blob {}", path.display()));
        let (home, _) = self.dir.make_home(oid).map_err(doing())?;
        let into = Destination { dir: Arc::clone(&self.dir), home, check: Arc::clone(&self.check) };
        let wait_max = if self.serves_clients { Duration::ZERO } else { LOCK_WAIT_MAX };
        let lock = self.locks.wait_shared(number_of(oid), wait_max).map_err(doing())?;
        let Some(lock) = lock else {
            if self.serves_clients {
                let download = BlobDownload::unnamed(into, (oid, serial), claim).map_err(doing())?;
                return Ok(Begun::Download(download));
            }
            let busy = io::Error::new(io::ErrorKind::TimedOut, "another process has locked its directory");
            return Err(doing()(busy));
        };
        if let Some(blob) = self.get(oid, serial)? {
            return Ok(Begun::There(blob));
        }
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let download = BlobDownload::new(into, (oid, serial), number, claim, lock).map_err(doing())?;
        Ok(Begun::Download(download))
    }

    /// Keeps a blob that was committed as revision `tid`. Its file gets another name; it is not copied. If another
    /// process uses the same directory now, the blob is not kept: it can be downloaded again. What goes wrong is
    /// logged.
    pub fn keep_committed(&self, oid: Oid, tid: Tid, mut blob: StagedBlob) {
        let path = self.dir.path(oid, tid);
        let kept = self.locks.wait_shared(number_of(oid), Duration::ZERO).and_then(|lock| {
            let Some(_lock) = lock else { return Ok(None) };
            let len = blob.read()?.len;
            blob.place(tid)?;
            Ok(Some(len))
        });
        match kept {
            Ok(Some(len)) => self.check.has_grown(len),
            Ok(None) => {
                let path = path.display();
                log::debug!(target: LOG, "{path}: a committed blob is not kept, another process has locked its directory");
            }
            Err(error) => {
                log::warn!(target: LOG, "{}: a committed blob is not kept in the cache: {error}", path.display());
            }
        }
    }
}

fn number_of(oid: Oid) -> u64 {
    oid.0 % CACHE_DIRS
}
