//! The locks of a cache's directories: `.lock` in each of them, locked with flock(2) by all processes that share the
//! cache. Who has the lock of a directory may create, rename and remove files there.
//!
//! Within this process the lock of a directory is shared by its downloads, which never use one name twice.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use fs2::FileExt as _;

use crate::base::clock::IoDeadline;
use crate::base::shared_dir::Dir;
use crate::base::sync::{Arc, Condvar, Mutex, rank};

const LOCK_NAME: &str = ".lock";
/// Interval in which a lock that another process has is tried again, as in Python.
const PAUSE: Duration = Duration::from_millis(10);

type HeldLocks = HashMap<u64, HeldLock>;

/// The directories that this process has locked.
pub(super) struct DirLocks {
    base: Dir,
    held: Mutex<HeldLocks, rank::BlobDirLocks>,
    /// A lock was released by this process.
    released: Condvar,
}

struct HeldLock {
    file: File,
    /// Downloads that share the lock; `None`: it is exclusive.
    users: Option<usize>,
}

/// The lock of a directory, until this is dropped.
pub(super) struct DirLock {
    locks: Arc<DirLocks>,
    number: u64,
}

impl DirLocks {
    pub fn new(base: &Path) -> io::Result<Arc<DirLocks>> {
        Ok(Arc::new(DirLocks { base: Dir::open(base)?, held: Mutex::default(), released: Condvar::new() }))
    }

    /// The directory of the cache.
    pub fn base(&self) -> &Dir {
        &self.base
    }

    fn share(self: &Arc<Self>, held: &mut HeldLocks, number: u64) -> io::Result<Option<DirLock>> {
        match held.get_mut(&number) {
            Some(HeldLock { users: Some(users), .. }) => *users += 1,
            Some(HeldLock { users: None, .. }) => return Ok(None),
            None => match self.lock_file(number)? {
                Some(file) => _ = held.insert(number, HeldLock { file, users: Some(1) }),
                None => return Ok(None),
            },
        }
        Ok(Some(DirLock { locks: Arc::clone(self), number }))
    }

    /// The lock of a directory that exists, for removing files. `None`: a process has it, maybe this one.
    pub fn try_exclusive(self: &Arc<Self>, number: u64) -> io::Result<Option<DirLock>> {
        let mut held = self.held.lock();
        if held.contains_key(&number) {
            return Ok(None);
        }
        let Some(file) = self.lock_file(number)? else { return Ok(None) };
        held.insert(number, HeldLock { file, users: None });
        Ok(Some(DirLock { locks: Arc::clone(self), number }))
    }

    /// The lock of a directory that exists, for a download or a commit. Waits for a removal of this process, which is
    /// short. `None`: another process has had it all the time.
    pub fn wait_shared(self: &Arc<Self>, number: u64, time_max: Duration) -> io::Result<Option<DirLock>> {
        let deadline = IoDeadline::after(time_max);
        let mut held = self.held.lock();
        loop {
            let is_own_removal = held.get(&number).is_some_and(|lock| lock.users.is_none());
            let lock = self.share(&mut held, number)?;
            if lock.is_some() || !is_own_removal && deadline.is_over() {
                return Ok(lock);
            }
            held = self.released.wait_timeout(held, PAUSE);
        }
    }

    fn lock_file(&self, number: u64) -> io::Result<Option<File>> {
        lock_file(&self.base.dir(number.to_string().as_ref())?, LOCK_NAME)
    }
}

impl Drop for DirLock {
    fn drop(&mut self) {
        let mut held = self.locks.held.lock();
        let Some(lock) = held.get_mut(&self.number) else { return };
        let users = lock.users.map_or(0, |users| users.saturating_sub(1));
        if users == 0 {
            // A child process that was started now may have the descriptor: closing it would not be enough.
            let _ = fs2::FileExt::unlock(&lock.file);
            held.remove(&self.number);
            self.locks.released.notify_all();
        } else {
            lock.users = Some(users);
        }
    }
}

/// Locks a file as Python's `zc.lockfile` does, and writes the number of this process into it. `None`: another
/// descriptor has the lock. It ends when the file is closed.
pub(super) fn lock_file(dir: &Dir, name: &str) -> io::Result<Option<File>> {
    let file = dir.open_or_create(name.as_ref(), 0o666)?;
    match file.try_lock_exclusive() {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
        Err(error) => return Err(error),
    }
    let content = format!(" {}\n", std::process::id());
    // Only for people who look: a full disk is no reason to fail.
    let _ = file.write_all_at(content.as_bytes(), 0).and_then(|()| file.set_len(content.len() as u64));
    Ok(Some(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn downloads_share_a_lock_and_a_removal_does_not() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("3")).unwrap();
        let here = DirLocks::new(dir.path()).unwrap();
        let other_process = DirLocks::new(dir.path()).unwrap();
        let first = here.wait_shared(3, Duration::ZERO).unwrap().unwrap();
        let second = here.wait_shared(3, Duration::ZERO).unwrap().unwrap();
        assert!(here.try_exclusive(3).unwrap().is_none());
        drop(first);
        assert!(other_process.wait_shared(3, Duration::ZERO).unwrap().is_none());
        assert!(here.try_exclusive(3).unwrap().is_none());
        drop(second);
        let removal = other_process.try_exclusive(3).unwrap().unwrap();
        assert!(here.wait_shared(3, Duration::from_millis(30)).unwrap().is_none());
        assert!(other_process.try_exclusive(3).unwrap().is_none());
        let removal = Mutex::<_, rank::BlobSizeCheck>::new(Some(removal));
        std::thread::scope(|scope| {
            // A removal of the same process is waited for.
            let waits = scope.spawn(|| {
                let lock = other_process.wait_shared(3, Duration::ZERO).unwrap();
                (lock.is_some(), removal.lock().is_none())
            });
            std::thread::sleep(Duration::from_millis(30));
            let ended = removal.lock().take();
            drop(ended);
            assert_eq!(waits.join().unwrap(), (true, true));
        });
        here.wait_shared(3, Duration::ZERO).unwrap().unwrap();
    }
}
