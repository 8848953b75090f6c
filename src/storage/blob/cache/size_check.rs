//! Keeps a cache near its size: removes the blobs that were not read for the longest time.
//!
//! All processes that share a cache check it in the same way, one at a time: a process that finds another one at it
//! leaves a mark, and the other then checks once more. The files are those of Python.
//!
//! The check runs in a thread of its own, at the start and whenever enough has come into the cache. It removes files
//! that were left over, too.

use std::ffi::OsString;
use std::io;
use std::thread;
use std::time::Duration;

use super::leftovers::{self, LOG};
use super::lock::{DirLocks, lock_file};
use crate::base::clock::IoDeadline;
use crate::base::ids::{Oid, Tid};
use crate::base::sync::{Arc, AtomicBool, AtomicU64, Condvar, Mutex, Ordering, rank};
use crate::storage::BlobDir;
use crate::storage::blob::{CACHE_DIRS, Layout};

/// Held while the cache is checked.
const LOCK_NAME: &str = "check_size.lock";
/// The mark of a process that wanted to check the cache, too.
const ATTEMPT: &str = "check_size.attempt";
/// Time that another check is waited for.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(50);

/// When the cache of a client is checked.
pub(super) struct SizeCheck(Arc<Checker>);

struct Checker {
    dir: Arc<BlobDir>,
    locks: Arc<DirLocks>,
    /// The name of the client.
    name: String,
    state: Mutex<CheckState, rank::BlobSizeCheck>,
    /// The check has ended, or must end.
    changed: Condvar,
    /// Bytes that came since the last check began.
    grown: AtomicU64,
    /// The bytes after which the next check begins.
    grown_max: AtomicU64,
    must_stop: AtomicBool,
}

#[derive(Default)]
struct CheckState {
    /// Bytes that a check leaves; `None`: all.
    target: Option<u64>,
    /// There is a thread.
    is_running: bool,
    /// It must check once more.
    again: bool,
}

/// A blob that the check has seen.
struct SeenBlob {
    /// The last access, in nanoseconds since 1970.
    accessed: i128,
    len: u64,
    oid: Oid,
    tid: Tid,
}

impl SizeCheck {
    pub fn new(dir: &Arc<BlobDir>, locks: &Arc<DirLocks>, name: String) -> SizeCheck {
        SizeCheck(Arc::new(Checker {
            dir: Arc::clone(dir),
            locks: Arc::clone(locks),
            name,
            state: Mutex::default(),
            changed: Condvar::new(),
            grown: AtomicU64::new(0),
            grown_max: AtomicU64::new(u64::MAX),
            must_stop: AtomicBool::new(false),
        }))
    }

    /// Sets the size and the part of it, in percent, after which it is checked; and begins a check.
    pub fn set_size(&self, size: Option<u64>, check_percent: u8) {
        let part =
            |size: u64| u64::try_from(u128::from(size) * u128::from(check_percent) / 100).unwrap_or(u64::MAX);
        self.0.grown_max.store(size.map_or(u64::MAX, part), Ordering::Relaxed);
        self.0.state.lock().target = size.map(|size| size.saturating_sub(part(size)));
        self.0.begin();
    }

    /// This number of bytes has come into the cache.
    pub fn has_grown(&self, len: u64) {
        let grown = self.0.grown.fetch_add(len, Ordering::Relaxed).saturating_add(len);
        if grown >= self.0.grown_max.load(Ordering::Relaxed) {
            self.0.begin();
        }
    }

    /// Waits until no check is running.
    pub fn wait(&self) {
        let mut state = self.0.state.lock();
        while state.is_running {
            state = self.0.changed.wait(state);
        }
    }
}

impl Drop for SizeCheck {
    fn drop(&mut self) {
        self.0.must_stop.store(true, Ordering::Relaxed);
        self.0.changed.notify_all();
        self.wait();
    }
}

impl Checker {
    fn begin(self: &Arc<Self>) {
        self.grown.store(0, Ordering::Relaxed);
        {
            let mut state = self.state.lock();
            if state.is_running {
                state.again = true;
                return;
            }
            state.is_running = true;
        }
        let checker = Arc::clone(self);
        let name = format!("{} zeo client check blob size thread", self.name);
        if let Err(error) = thread::Builder::new().name(name).spawn(move || checker.run()) {
            log::error!(target: LOG, "no thread can be started to check the blob cache: {error}");
            self.end();
        }
    }

    fn run(&self) {
        loop {
            let target = self.state.lock().target;
            if let Err(error) = self.check(target) {
                let dir = self.dir.base().display();
                log::error!(target: LOG, "{dir}: the size of the blob cache cannot be checked: {error}");
            }
            let mut state = self.state.lock();
            if !std::mem::take(&mut state.again) || self.must_stop() {
                break;
            }
        }
        self.end();
    }

    fn end(&self) {
        self.state.lock().is_running = false;
        self.changed.notify_all();
    }

    fn must_stop(&self) -> bool {
        self.must_stop.load(Ordering::Relaxed)
    }

    fn check(&self, target: Option<u64>) -> io::Result<()> {
        self.dir.remove_old_temporaries()?;
        let Some(target) = target else {
            self.walk(&mut |_| {});
            return Ok(());
        };
        let Some(_lock) = self.lock()? else {
            log::debug!(target: LOG, "Another thread is checking the blob cache size.");
            return self.locks.base().open_or_create(ATTEMPT.as_ref(), 0o666).map(drop);
        };
        loop {
            log::debug!(target: LOG, "Checking blob cache size. (target: {target})");
            self.reduce(target);
            // The mark of another check, which may have seen more files.
            let was_wanted = self.locks.base().remove(ATTEMPT.as_ref()).is_ok();
            if !was_wanted || self.must_stop() {
                return Ok(());
            }
        }
    }

    /// The right to check the cache; `None`: another process is at it.
    fn lock(&self) -> io::Result<Option<std::fs::File>> {
        let deadline = IoDeadline::after(LOCK_WAIT_MAX);
        loop {
            let lock = lock_file(self.locks.base(), LOCK_NAME)?;
            if lock.is_some() || deadline.is_over() || self.must_stop() {
                return Ok(lock);
            }
            let state = self.state.lock();
            drop(self.changed.wait_timeout(state, PAUSE));
        }
    }

    fn reduce(&self, target: u64) {
        let mut size = 0;
        let mut blobs = Vec::new();
        self.walk(&mut |blob| {
            size += blob.len;
            blobs.push(blob);
        });
        log::debug!(target: LOG, "  blob cache size: {size}");
        if size <= target {
            return;
        }
        blobs.sort_unstable_by_key(|blob| blob.accessed);
        for blob in blobs {
            if size <= target || self.must_stop() {
                break;
            }
            match self.remove(&blob) {
                Ok(true) => size -= blob.len,
                Ok(false) => {}
                Err(error) => {
                    let path = self.dir.path(blob.oid, blob.tid);
                    log::warn!(target: LOG, "cannot remove {}: {error}", path.display());
                }
            }
        }
        log::debug!(target: LOG, "  reduced blob cache size: {size}");
    }

    /// False: the blob stays, because it was read just now, or its directory is locked.
    fn remove(&self, blob: &SeenBlob) -> io::Result<bool> {
        let number = blob.oid.0 % CACHE_DIRS;
        let Some(_lock) = self.locks.try_exclusive(number)? else { return Ok(false) };
        let dir = self.locks.base().dir(number.to_string().as_ref())?;
        let name = OsString::from(Layout::Zeocache.file_name(blob.oid, blob.tid));
        match dir.stat(name.as_ref()) {
            Ok(stat) if accessed(&stat) != blob.accessed => Ok(false),
            Ok(_) => dir.remove(&name).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Calls `each` with the blobs of the cache, and removes files that were left over.
    fn walk(&self, each: &mut dyn FnMut(SeenBlob)) {
        let mut locked = Vec::new();
        for number in 0..CACHE_DIRS {
            if self.must_stop() {
                return;
            }
            match self.walk_dir(number, each) {
                Ok(left_over) if !left_over.is_empty() => locked.push((number, left_over)),
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    let dir = self.locks.base().path().join(number.to_string());
                    log::warn!(target: LOG, "cannot list {}: {error}", dir.display());
                }
                _ => {}
            }
        }
        // After a restart clients ask at once for the blob whose download was killed. By now most of these are there.
        for (number, left_over) in locked {
            leftovers::remove(&self.locks, number, &left_over);
        }
    }

    /// Returns what is left over in the directory, if it is locked.
    fn walk_dir(&self, number: u64, each: &mut dyn FnMut(SeenBlob)) -> io::Result<Vec<OsString>> {
        let dir = self.locks.base().dir(number.to_string().as_ref())?;
        let mut left_over = Vec::new();
        for name in dir.list()? {
            // Another process may remove it at any time.
            let Ok(stat) = dir.stat(name.as_ref()) else { continue };
            let blob = name.to_str().and_then(|name| Layout::blob_of_cached(number, name));
            if let Some((oid, tid)) = blob {
                let len = u64::try_from(stat.st_size).unwrap_or(0);
                each(SeenBlob { accessed: accessed(&stat), len, oid, tid });
            } else if leftovers::is_leftover(&name, &stat) {
                left_over.push(name);
            }
        }
        if left_over.is_empty() || leftovers::remove(&self.locks, number, &left_over) {
            left_over.clear();
        }
        Ok(left_over)
    }
}

fn accessed(stat: &rustix::fs::Stat) -> i128 {
    i128::from(stat.st_atime) * 1_000_000_000 + i128::from(stat.st_atime_nsec)
}
