//! An open file: of the operating system, or in memory.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, futimens};

use crate::base::sync::{Action, assert_permitted};
use crate::base::{fs, shared_dir, write_back};

/// Nanoseconds since 1970.
pub type Time = u64;

/// Which file it is, and when it was last changed in any way.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Identity {
    /// Different between file systems. May change at the next boot.
    pub device: u64,
    /// May be reused once the file is gone.
    pub inode: u64,
    /// The time of creation; 0 if the file system does not have it.
    pub born: Time,
    /// Number of names.
    pub links: u64,
    /// In bytes.
    pub len: u64,
    /// The last change of content, length, names or mode (`st_ctime`). Cannot be set back by users.
    pub changed: Time,
}

impl Identity {
    /// Whether both are the same file. Valid only if both were taken at the same time.
    pub fn is_same_file(&self, other: &Identity) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// Identifies the file also at other times, as far as the file system allows.
    pub fn number(&self) -> u64 {
        // Uses all bits of both.
        self.inode ^ self.born.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    pub(super) fn of(meta: &std::fs::Metadata) -> Identity {
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

/// An open file. Reads and writes are positioned, so any number of threads can share it.
pub trait MediaFile: Send + Sync {
    /// Reads until `buf` is full or the file ends; returns the number of bytes.
    fn read_at(&self, buf: &mut [u8], pos: u64) -> io::Result<usize>;
    /// As `read_at`, without waiting for the disk. Errors: `WouldBlock` if the data is not in memory; the disk may then
    /// be reading it. `Unsupported`: this file system cannot tell.
    fn read_at_now(&self, buf: &mut [u8], pos: u64) -> io::Result<usize> {
        self.read_at(buf, pos)
    }
    /// Writes everything or fails. After a failure any part may have been written.
    fn write_at(&self, buf: &[u8], pos: u64) -> io::Result<()>;
    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the length is zero.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts the file, or fills it with zeros, to `len` bytes.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// `fdatasync`: makes data and length durable.
    fn sync(&self) -> io::Result<()>;
    /// Reserves space beyond the end; `Ok(false)` if the file system cannot.
    fn reserve(&self, pos: u64, len: u64) -> io::Result<bool>;
    /// The identity of the open file, whatever its name is now.
    fn identity(&self) -> io::Result<Identity>;
    /// Makes the file read-only, with these permission bits for reading, as Python protects blobs.
    fn protect(&self, _readers: u32) -> io::Result<()> {
        Ok(())
    }
    /// Sets the time of the last access to now, also where the file system does not do it. A hint: errors are ignored.
    fn accessed(&self) {}
    /// Another path to the file, which works also without its name, as long as it is open here.
    fn way_to(&self) -> Option<PathBuf> {
        None
    }
    /// A hint that the disk may begin to write this part, which is complete and will be synced. Does not wait. The part
    /// stays in the system's cache.
    fn write_back(&self, _pos: u64, _len: u64) {}
    /// Waits until this part is written, after a `write_back` of it. It is not durable before a sync.
    fn wait_for_write_back(&self, _pos: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }
    /// A hint that this part will not be read soon: what is on the disk may leave the cache.
    fn forget(&self, _pos: u64, _len: u64) {}
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

    fn accessed(&self) {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let unchanged = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        // Only the owner of the file may do it.
        let _ = futimens(self, &Timestamps { last_access: now, last_modification: unchanged });
    }

    fn way_to(&self) -> Option<PathBuf> {
        Some(format!("/proc/{}/fd/{}", std::process::id(), self.as_raw_fd()).into())
    }

    fn write_back(&self, pos: u64, len: u64) {
        write_back::write_back(self, pos, len);
    }

    fn wait_for_write_back(&self, pos: u64, len: u64) -> io::Result<()> {
        write_back::wait_for_write_back(self, pos, len)
    }

    fn forget(&self, pos: u64, len: u64) {
        fs::forget(self, pos, len);
    }
}

/// A file in memory, for checking bytes that are not on a disk.
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
