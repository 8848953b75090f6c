//! The disk, as a storage sees it: a trait, so that tests can tear writes, forget what was not synced and fail at
//! the n-th call; and the real one.

mod dir;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::base::sync::{Action, assert_permitted};
use crate::base::{fs, shared_dir, write_back};

pub use dir::{Entry, Kind, MediaDir, Readers, TakenOver};

/// How to open a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Access {
    Read,
    /// Must exist.
    ReadWrite,
    /// Made if missing, kept if not.
    Create,
    /// Made if missing, emptied if not.
    Truncate,
}

/// A file system.
pub trait Media: Send + Sync {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn MediaFile>>;
    fn exists(&self, path: &Path) -> bool;
    /// Atomic; durable only after [`Media::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// A second name for a file. Not every file system can do it.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes a directory; whether it was missing. Durable only after [`Media::sync_dir`] of the directory it is in.
    fn create_dir(&self, dir: &Path) -> io::Result<bool>;
    /// Opens a directory that the administrator has named, who may have made it a link.
    fn dir(&self, path: &Path) -> io::Result<Arc<dyn MediaDir>> {
        Ok(Arc::new(shared_dir::Dir::open(path)?))
    }
    /// Whether this is a file and no link, directory or device.
    fn is_file(&self, path: &Path) -> bool;
    /// Which file has this name now, links followed.
    fn identity(&self, path: &Path) -> io::Result<Identity>;
    /// By the clock that gives files their times.
    fn now(&self) -> Time;
    /// Names the run of the operating system: what was written in this one and not synced is not lost. `None`: not
    /// known.
    fn boot(&self) -> Option<[u8; BOOT_LEN]>;
}

/// Nanoseconds since 1970.
pub type Time = u64;

pub const BOOT_LEN: usize = 16;

/// Which file it is, and when it was last changed by anybody in any way.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Identity {
    /// Differs between file systems, but may be another one after the next boot.
    pub device: u64,
    /// Given to another file once this one is gone.
    pub inode: u64,
    /// When the file was made; 0: the file system does not tell.
    pub born: Time,
    /// Names that it has.
    pub links: u64,
    pub len: u64,
    /// Its content, length, names or mode: what nobody can set back (`st_ctime`).
    pub changed: Time,
}

impl Identity {
    /// Whether both were, at the same time, the same file.
    pub fn is_same_file(&self, other: &Identity) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// Tells whether it is the same file also at another time, as far as the file system tells that.
    pub fn number(&self) -> u64 {
        // All bits of both.
        self.inode ^ self.born.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn of(meta: &std::fs::Metadata) -> Identity {
        let born = meta.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
        let seconds = u64::try_from(meta.ctime()).unwrap_or(0);
        let nanoseconds = u64::try_from(meta.ctime_nsec()).unwrap_or(0);
        Identity {
            device: meta.dev(),
            inode: meta.ino(),
            born: born.map_or(0, |born| Time::try_from(born.as_nanos()).unwrap_or(0)),
            links: meta.nlink(),
            len: meta.len(),
            changed: seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds),
        }
    }
}

/// An open file. Reads and writes are positioned, so any number of threads share it.
pub trait MediaFile: Send + Sync {
    /// Reads until `buf` is full or the file ends; the number of bytes read.
    fn read_at(&self, buf: &mut [u8], pos: u64) -> io::Result<usize>;
    /// The same without waiting for the disk; the error is `WouldBlock` if that cannot be done, and the disk may be at
    /// it then. `Unsupported`: this file system does not tell.
    fn read_at_now(&self, buf: &mut [u8], pos: u64) -> io::Result<usize> {
        self.read_at(buf, pos)
    }
    /// Writes all or fails; after a failure any part may be there.
    fn write_at(&self, buf: &[u8], pos: u64) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// `fdatasync`: data and length are durable.
    fn sync(&self) -> io::Result<()>;
    /// Reserves space beyond the end; `Ok(false)` if that cannot be done here.
    fn reserve(&self, pos: u64, len: u64) -> io::Result<bool>;
    fn identity(&self) -> io::Result<Identity>;
    /// Nobody may write to the file any more, and who has these permissions of reading may read it: as Python protects
    /// blobs.
    fn protect(&self, _readers: u32) -> io::Result<()> {
        Ok(())
    }
    /// Another way to the file, also if it has lost its name, for as long as it is open here.
    fn way_to(&self) -> Option<PathBuf> {
        None
    }
    /// A hint that the disk may begin to write this part, which is complete and will be synced. Does not wait. It stays
    /// in the system's cache.
    fn write_back(&self, _pos: u64, _len: u64) {}
    /// A hint that nobody will read this part soon: what of it is on the disk need not stay in memory.
    fn forget(&self, _pos: u64, _len: u64) {}
}

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

    fn now(&self) -> Time {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Time::try_from(since_1970.as_nanos()).unwrap_or(Time::MAX)
    }

    fn boot(&self) -> Option<[u8; BOOT_LEN]> {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        Some(u128::from_str_radix(&digits, 16).ok()?.to_be_bytes())
    }
}

impl MediaFile for File {
    fn read_at(&self, buf: &mut [u8], pos: u64) -> io::Result<usize> {
        assert_permitted(Action::File, "reading a file");
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..)
            && !rest.is_empty()
        {
            match FileExt::read_at(self, rest, pos + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn read_at_now(&self, buf: &mut [u8], pos: u64) -> io::Result<usize> {
        fs::read_at_now(self, buf, pos)
    }

    fn write_at(&self, buf: &[u8], pos: u64) -> io::Result<()> {
        assert_permitted(Action::File, "writing a file");
        FileExt::write_all_at(self, buf, pos)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        assert_permitted(Action::File, "setting the length of a file");
        File::set_len(self, len)
    }

    fn sync(&self) -> io::Result<()> {
        assert_permitted(Action::File, "syncing a file");
        self.sync_data()
    }

    fn reserve(&self, pos: u64, len: u64) -> io::Result<bool> {
        assert_permitted(Action::File, "reserving space");
        fs::reserve(self, pos, len)
    }

    fn identity(&self) -> io::Result<Identity> {
        Ok(Identity::of(&self.metadata()?))
    }

    fn protect(&self, readers: u32) -> io::Result<()> {
        shared_dir::protect(self, readers)
    }

    fn way_to(&self) -> Option<PathBuf> {
        Some(format!("/proc/{}/fd/{}", std::process::id(), self.as_raw_fd()).into())
    }

    fn write_back(&self, pos: u64, len: u64) {
        write_back::write_back(self, pos, len);
    }

    fn forget(&self, pos: u64, len: u64) {
        fs::forget(self, pos, len);
    }
}

/// A file that is a slice of memory, for checking bytes that are nowhere on a disk.
impl MediaFile for Vec<u8> {
    fn read_at(&self, buf: &mut [u8], pos: u64) -> io::Result<usize> {
        let rest = usize::try_from(pos).ok().and_then(|pos| self.get(pos..)).unwrap_or_default();
        let len = rest.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..len), rest.get(..len)) {
            to.copy_from_slice(from);
        }
        Ok(len)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(Vec::len(self) as u64)
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn reserve(&self, _: u64, _: u64) -> io::Result<bool> {
        Ok(false)
    }

    fn identity(&self) -> io::Result<Identity> {
        Ok(Identity { links: 1, len: Vec::len(self) as u64, ..Identity::default() })
    }
}
