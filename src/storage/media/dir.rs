//! An open directory for blobs. Other users may write to it too, so all access is by its descriptor and by names.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::FileType;

use super::file::MediaFile;
use crate::base::clock::TimeSource;
use crate::base::shared_dir::Dir;
use crate::base::sync::{Action, assert_permitted};

/// The object that a name refers to. Links are not followed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// The file system. May change at the next boot.
    pub device: u64,
    /// Its number in the file system.
    pub inode: u64,
    /// Time since the last write.
    pub age: Duration,
}

/// Kinds of objects in a directory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// A plain file.
    File,
    /// A directory.
    Directory,
    /// A link, a pipe, a socket or a device.
    Other,
}

impl Entry {
    /// Whether both are names of one file.
    pub fn is_same_file(&self, other: &Entry) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// An open directory. `name` is a name in it, `below` a path of plain names. A symbolic link on the path is followed
/// only if it belongs to root or to the user of this process: it leads to a part of the directory on another disk.
pub trait MediaDir: Send + Sync {
    /// For messages.
    fn path(&self) -> &Path;
    /// The underlying directory of the operating system.
    fn of_system(&self) -> Option<&Dir> {
        None
    }
    /// Opens a directory below.
    fn dir(&self, below: &Path) -> io::Result<Arc<dyn MediaDir>>;
    /// Opens a file below for reading. The error is [`not_plain`](crate::base::shared_dir::not_plain) if it is not a
    /// file.
    fn read(&self, below: &Path) -> io::Result<Arc<dyn MediaFile>>;
    /// Creates a file, which must not exist. Durable only after [`MediaDir::sync`].
    fn create(&self, name: &OsStr, readers: Readers) -> io::Result<Arc<dyn MediaFile>>;
    /// What this path leads to. The error is `NotFound` if there is nothing.
    fn entry(&self, below: &Path) -> io::Result<Entry>;
    /// Permission bits for files that readers of the directory may read.
    fn readers(&self) -> io::Result<u32>;
    /// The names in the directory.
    fn list(&self) -> io::Result<Vec<OsString>>;
    /// Makes the names in the directory durable.
    fn sync(&self) -> io::Result<()>;
    /// Makes a directory. Returns whether the name was free. Durable only after [`MediaDir::sync`].
    fn create_dir(&self, name: &OsStr) -> io::Result<bool>;
    /// Fails if the directory is not empty.
    fn remove_dir(&self, name: &OsStr) -> io::Result<()>;
    /// Removes a file or a link.
    fn remove(&self, name: &OsStr) -> io::Result<()>;
    /// Atomic; durable only after [`MediaDir::sync`].
    fn rename(&self, name: &OsStr, to: &dyn MediaDir, to_name: &OsStr) -> io::Result<()>;
    /// Gives a file a second name. Not supported by every file system.
    fn link(&self, name: &OsStr, to: &dyn MediaDir, to_name: &OsStr) -> io::Result<()>;
    /// Whether a file can have names in both directories.
    fn is_on_disk_of(&self, other: &dyn MediaDir) -> bool;
    /// Opens a file of another user, renames it, and protects it. The error is
    /// [`not_plain`](crate::base::shared_dir::not_plain) if it is not a plain file with one name, or if the path has a
    /// link.
    fn take_over(&self, below: &Path, to: &dyn MediaDir, to_name: &OsStr) -> io::Result<TakenOver>;
}

/// The permissions of a new file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Readers {
    /// Readable for the user of this process.
    Owner,
    /// According to the umask.
    ByUmask,
}

/// The result of [`MediaDir::take_over`].
pub struct TakenOver {
    /// The file.
    pub file: Arc<dyn MediaFile>,
    /// The directory in which it was.
    pub dir: Arc<dyn MediaDir>,
    /// False if the directories are on different disks: the file was not moved.
    pub moved: bool,
}

fn of_system(dir: &dyn MediaDir) -> io::Result<&Dir> {
    dir.of_system().ok_or_else(|| io::ErrorKind::CrossesDevices.into())
}

impl MediaDir for Dir {
    fn path(&self) -> &Path {
        Dir::path(self)
    }

    fn of_system(&self) -> Option<&Dir> {
        Some(self)
    }

    fn dir(&self, below: &Path) -> io::Result<Arc<dyn MediaDir>> {
        assert_permitted(Action::File, "opening a directory");
        Ok(Arc::new(Dir::dir(self, below)?))
    }

    fn read(&self, below: &Path) -> io::Result<Arc<dyn MediaFile>> {
        assert_permitted(Action::File, "opening a file");
        Ok(Arc::new(Dir::read(self, below)?))
    }

    fn create(&self, name: &OsStr, readers: Readers) -> io::Result<Arc<dyn MediaFile>> {
        assert_permitted(Action::File, "making a file");
        let mode = match readers {
            Readers::Owner => 0o600,
            Readers::ByUmask => 0o666,
        };
        Ok(Arc::new(Dir::create(self, name, mode)?))
    }

    fn entry(&self, below: &Path) -> io::Result<Entry> {
        let stat = self.stat(below)?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            _ => Kind::Other,
        };
        let written = Duration::from_secs(stat.st_mtime.try_into().unwrap_or(0));
        let age = TimeSource::SYSTEM.system_time().duration_since(UNIX_EPOCH + written).unwrap_or_default();
        Ok(Entry { kind, device: stat.st_dev, inode: stat.st_ino, age })
    }

    fn readers(&self) -> io::Result<u32> {
        self.mode()
    }

    fn list(&self) -> io::Result<Vec<OsString>> {
        assert_permitted(Action::File, "listing a directory");
        Dir::list(self)
    }

    fn sync(&self) -> io::Result<()> {
        assert_permitted(Action::File, "syncing a directory");
        Dir::sync(self)
    }

    fn create_dir(&self, name: &OsStr) -> io::Result<bool> {
        assert_permitted(Action::File, "making a directory");
        Dir::create_dir(self, name)
    }

    fn remove_dir(&self, name: &OsStr) -> io::Result<()> {
        assert_permitted(Action::File, "removing a directory");
        Dir::remove_dir(self, name)
    }

    fn remove(&self, name: &OsStr) -> io::Result<()> {
        assert_permitted(Action::File, "removing a file");
        Dir::remove(self, name)
    }

    fn rename(&self, name: &OsStr, to: &dyn MediaDir, to_name: &OsStr) -> io::Result<()> {
        assert_permitted(Action::File, "renaming a file");
        Dir::rename(self, name, of_system(to)?, to_name)
    }

    fn link(&self, name: &OsStr, to: &dyn MediaDir, to_name: &OsStr) -> io::Result<()> {
        assert_permitted(Action::File, "linking a file");
        Dir::link(self, name, of_system(to)?, to_name)
    }

    fn is_on_disk_of(&self, other: &dyn MediaDir) -> bool {
        match (self.mount(), of_system(other).and_then(Dir::mount)) {
            (Ok(here), Ok(there)) => here == there,
            // Linking will show it.
            _ => true,
        }
    }

    fn take_over(&self, below: &Path, to: &dyn MediaDir, to_name: &OsStr) -> io::Result<TakenOver> {
        assert_permitted(Action::File, "taking a file over");
        let taken = Dir::take_over(self, below, of_system(to)?, to_name)?;
        Ok(TakenOver { file: Arc::new(taken.file), dir: Arc::new(taken.dir), moved: taken.moved })
    }
}
