//! Descriptors for a finish: it may not fail because the process has no more of them, for other databases of the same
//! transaction may have committed already.
//!
//! A blob that is staged keeps the directory of its object open, for finish has to give it a name there and to sync it.
//! A transaction may have more blobs than the process may have files; so only so many are kept, and a few descriptors
//! are held back for what has to be opened then.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use crate::base::sync::{Mutex, rank};
use crate::storage::media::MediaDir;

/// Directories that are kept open at most, and at least; between these, a part of what the process may have.
const KEPT_MAX: u64 = 256;
const KEPT_MIN: u64 = 8;
const KEPT_PART: u64 = 16;
/// To find a directory takes one descriptor, or two where it is found name by name, and one more while its parents are
/// made.
const RESERVE_LEN: usize = 4;

/// Counts the directories that are kept open, and holds descriptors back.
pub struct Descriptors {
    kept: Arc<AtomicUsize>,
    kept_max: usize,
    /// Open for nothing but the descriptors that they have.
    reserve: Mutex<Vec<Arc<dyn MediaDir>>, rank::BlobReserve>,
}

/// A directory that stays open until its blob is committed.
pub struct KeptDir {
    pub dir: Arc<dyn MediaDir>,
    kept: Arc<AtomicUsize>,
}

impl Default for Descriptors {
    fn default() -> Descriptors {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let kept_max = (limit / KEPT_PART).clamp(KEPT_MIN, KEPT_MAX);
        let kept_max = usize::try_from(kept_max).unwrap_or(usize::MAX);
        Descriptors { kept: Arc::default(), kept_max, reserve: Mutex::default() }
    }
}

impl Descriptors {
    /// `None`: so many are kept that this one has to be opened again.
    pub fn keep(&self, dir: &Arc<dyn MediaDir>) -> Option<KeptDir> {
        // Counts itself, and no more once it is dropped.
        let kept = KeptDir { dir: Arc::clone(dir), kept: Arc::clone(&self.kept) };
        (kept.kept.fetch_add(1, Ordering::Relaxed) < self.kept_max).then_some(kept)
    }

    /// Opens something. While the process has no descriptor, one that is held back is given up for it.
    pub fn in_need<T>(&self, mut open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        loop {
            match open() {
                Err(error) if is_without_descriptor(&error) => {
                    let given_up = self.reserve.lock().pop();
                    if given_up.is_none() {
                        return Err(error);
                    }
                }
                opened => return opened,
            }
        }
    }

    /// Holds descriptors back again; `open` takes one.
    pub fn fill(&self, open: impl Fn() -> io::Result<Arc<dyn MediaDir>>) -> io::Result<()> {
        let mut reserve = self.reserve.lock();
        while reserve.len() < RESERVE_LEN {
            reserve.push(open()?);
        }
        Ok(())
    }
}

fn is_without_descriptor(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

impl Drop for KeptDir {
    fn drop(&mut self) {
        self.kept.fetch_sub(1, Ordering::Relaxed);
    }
}
