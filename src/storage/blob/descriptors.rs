//! File descriptors for a finish. It must not fail because the process has no more of them: other databases of the same
//! transaction may have committed already.
//!
//! A staged blob keeps the directory of its object open, because finish gives the file a name there and syncs the
//! directory. A transaction may have more blobs than the process may open files. So the number of open directories is
//! limited, and a few descriptors are held back for opening the others.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use crate::base::sync::{Mutex, rank};
use crate::storage::media::MediaDir;

/// Upper and lower bound on the directories that are kept open; in between, one for each `KEPT_PART` descriptors of the
/// process.
const KEPT_MAX: u64 = 256;
const KEPT_MIN: u64 = 8;
const KEPT_PART: u64 = 16;
/// Opening a directory takes one descriptor, or two if it is opened name by name, and one more while its parents are
/// made.
const RESERVE_LEN: usize = 4;

/// Counts the directories that are kept open, and holds descriptors back.
pub struct Descriptors {
    kept: Arc<AtomicUsize>,
    kept_max: usize,
    /// Kept open only for their descriptors.
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
    /// `None` if the limit is reached: the directory must be opened again later.
    pub fn keep(&self, dir: &Arc<dyn MediaDir>) -> Option<KeptDir> {
        // Dropping it reduces the count again.
        let kept = KeptDir { dir: Arc::clone(dir), kept: Arc::clone(&self.kept) };
        (kept.kept.fetch_add(1, Ordering::Relaxed) < self.kept_max).then_some(kept)
    }

    /// Calls `open`. If the process has no descriptor left, releases one that is held back and tries again.
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

    /// Holds back as many descriptors as before; each call of `open` takes one.
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
