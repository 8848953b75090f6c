//! An open directory, as a storage of blobs sees it: others can write to it too, so all goes by its descriptor and by
//! names.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::FileType;

use super::MediaFile;
use crate::base::shared_dir::Dir;
use crate::base::sync::{Action, assert_permitted};

/// What a name stands for. No link is followed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Entry {
    pub kind: Kind,
    pub device: u64,
    pub inode: u64,
    /// Since it was written.
    pub age: Duration,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    File,
    Directory,
    /// A link, a pipe, a socket, a device.
    Other,
}

impl Entry {
    /// Whether both are names of one file.
    pub fn is_same_file(&self, other: &Entry) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// An open directory. `name` is a name in it, `below` a path of plain names. A symbolic link on the way is followed
/// only if the administrator or the user of this process has made it: to a part of the directory on another disk.
pub trait MediaDir: Send + Sync {
    /// For messages.
    fn path(&self) -> &Path;
    /// The operating system's directory that this is.
    fn of_system(&self) -> Option<&Dir> {
        None
    }
    /// A directory below.
    fn dir(&self, below: &Path) -> io::Result<Arc<dyn MediaDir>>;
    /// Opens a file below for reading; the error is [`not_plain`](crate::base::shared_dir::not_plain) if it is no file.
    fn read(&self, below: &Path) -> io::Result<Arc<dyn MediaFile>>;
    /// Makes a file, which must be missing; durable only after [`MediaDir::sync`].
    fn create(&self, name: &OsStr, readers: Readers) -> io::Result<Arc<dyn MediaFile>>;
    fn entry(&self, below: &Path) -> io::Result<Entry>;
    /// Whoever may read it: the permission bits.
    fn readers(&self) -> io::Result<u32>;
    fn list(&self) -> io::Result<Vec<OsString>>;
    fn sync(&self) -> io::Result<()>;
    /// Makes a directory; whether nothing had the name. Durable only after [`MediaDir::sync`].
    fn create_dir(&self, name: &OsStr) -> io::Result<bool>;
    /// Fails if it is not empty.
    fn remove_dir(&self, name: &OsStr) -> io::Result<()>;
    fn remove(&self, name: &OsStr) -> io::Result<()>;
    /// Atomic; durable only after [`MediaDir::sync`].
    fn rename(&self, name: &OsStr, to: &dyn MediaDir, to_name: &OsStr) -> io::Result<()>;
    /// A second name for a file. Not every file system can do it.
    fn link(&self, name: &OsStr, to: &dyn MediaDir, to_name: &OsStr) -> io::Result<()>;
    /// Whether a file can have names in both.
    fn is_on_disk_of(&self, other: &dyn MediaDir) -> bool;
    /// Opens somebody else's file, renames it, and protects it. The error is
    /// [`not_plain`](crate::base::shared_dir::not_plain) if it is not a plain file of one name, or lies behind any
    /// link.
    fn take_over(&self, below: &Path, to: &dyn MediaDir, to_name: &OsStr) -> io::Result<TakenOver>;
}

/// Who may read a new file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Readers {
    /// The user of this process.
    Owner,
    /// As the umask says.
    ByUmask,
}

/// See [`MediaDir::take_over`].
pub struct TakenOver {
    pub file: Arc<dyn MediaFile>,
    /// Where it was.
    pub dir: Arc<dyn MediaDir>,
    /// False: the directories are on different disks, and the file is where it was.
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
        let age = SystemTime::now().duration_since(UNIX_EPOCH + written).unwrap_or_default();
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
            // Linking will tell.
            _ => true,
        }
    }

    fn take_over(&self, below: &Path, to: &dyn MediaDir, to_name: &OsStr) -> io::Result<TakenOver> {
        assert_permitted(Action::File, "taking a file over");
        let taken = Dir::take_over(self, below, of_system(to)?, to_name)?;
        Ok(TakenOver { file: Arc::new(taken.file), dir: Arc::new(taken.dir), moved: taken.moved })
    }
}
