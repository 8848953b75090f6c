//! The disk of a storage, as a trait with the real implementation. Tests have others, which tear writes, forget what
//! was not synced, or fail at the n-th call.

mod dir;
mod file;
mod stream;

use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::base::clock::since_1970;
use crate::base::sync::{Action, assert_permitted};
use crate::base::{fs, shared_dir};

pub use dir::{Entry, Kind, MediaDir, Readers, TakenOver};
pub use file::{Identity, MediaFile, Time};
pub use stream::{Appending, Reading, write_whole};

/// How to open a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Access {
    /// For reading; the file must exist.
    Read,
    /// The file must exist.
    ReadWrite,
    /// Created if missing, kept if not.
    Create,
    /// Created if missing, emptied if not.
    Truncate,
}

/// A file system.
pub trait Media: Send + Sync {
    /// Opens a file.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn MediaFile>>;
    /// Whether this name exists. Links are followed.
    fn exists(&self, path: &Path) -> bool;
    /// Atomic; durable only after [`Media::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a second name. Not supported by every file system.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file. Durable only after [`Media::sync_dir`].
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes a directory. Returns whether it was missing. Durable only after [`Media::sync_dir`] of its parent.
    fn create_dir(&self, dir: &Path) -> io::Result<bool>;
    /// Opens a directory that the administrator has named; it may be a link.
    fn dir(&self, path: &Path) -> io::Result<Arc<dyn MediaDir>> {
        Ok(Arc::new(shared_dir::Dir::open(path)?))
    }
    /// Whether this is a plain file: no link, directory or device.
    fn is_file(&self, path: &Path) -> bool;
    /// The identity of the file that has this name now. Links are followed.
    fn identity(&self, path: &Path) -> io::Result<Identity>;
    /// Bytes that this process can still write to the file system of a directory.
    fn free_space(&self, dir: &Path) -> io::Result<u64>;
    /// The time of the clock that gives files their times.
    fn now(&self) -> Time;
    /// Identifies the run of the operating system: within one run, unsynced writes are not lost. `None` if unknown.
    fn boot(&self) -> Option<[u8; BOOT_LEN]>;
}

/// Bytes of [`Media::boot`].
pub const BOOT_LEN: usize = 16;

/// The operating system's files.
#[derive(Debug, Default)]
pub struct RealMedia;

impl Media for RealMedia {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn MediaFile>> {
        assert_permitted(Action::File, "opening a file");
        let mut options = OpenOptions::new();
        options.read(true);
        match access {
            Access::Read => &mut options,
            Access::ReadWrite => options.write(true),
            Access::Create => options.write(true).create(true).truncate(false),
            Access::Truncate => options.write(true).create(true).truncate(true),
        };
        Ok(Arc::new(options.open(path)?))
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        assert_permitted(Action::File, "renaming a file");
        std::fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        assert_permitted(Action::File, "linking a file");
        std::fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        assert_permitted(Action::File, "removing a file");
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        assert_permitted(Action::File, "syncing a directory");
        fs::sync_dir(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<bool> {
        assert_permitted(Action::File, "making a directory");
        match std::fs::create_dir(dir) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn is_file(&self, path: &Path) -> bool {
        path.symlink_metadata().is_ok_and(|meta| meta.is_file())
    }

    fn identity(&self, path: &Path) -> io::Result<Identity> {
        Ok(Identity::of(&path.metadata()?))
    }

    fn free_space(&self, dir: &Path) -> io::Result<u64> {
        let found = rustix::fs::statvfs(dir)?;
        // Root may use the reserve, but a database is no reason to.
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn now(&self) -> Time {
        Time::try_from(since_1970().as_nanos()).unwrap_or(Time::MAX)
    }

    fn boot(&self) -> Option<[u8; BOOT_LEN]> {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        Some(u128::from_str_radix(&digits, 16).ok()?.to_be_bytes())
    }
}
