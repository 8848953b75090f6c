//! Safe access to files in directories that other users can write to. A name there may not be a file, may be a link to
//! another place, and may refer to something else a moment later.
//!
//! So all access is through the descriptor of a directory and names in it. Deeper paths are [resolved](find()) name by
//! name; a symbolic link on the path or at its end is followed only if it belongs to root or to the user of this
//! process. All other checks are made on open descriptors.

mod find;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, StatxFlags, fchmod, fstat, fsync, linkat, mkdirat, open, openat,
    renameat, statat, statx, unlinkat,
};
use rustix::io::Errno;

pub use find::not_plain;
use find::{Links, PASSAGE, find};

/// Non-blocking, because opening a pipe would wait for a writer.
const PLAIN: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);
const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);
const NEW: OFlags =
    OFlags::RDWR.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// As `NEW`, but an existing file is opened.
const KEPT: OFlags =
    OFlags::RDWR.union(OFlags::CREATE).union(OFlags::NONBLOCK).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn is_plain(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

/// Makes a file read-only, with these permission bits for reading.
pub fn protect(file: impl AsFd, readers: u32) -> io::Result<()> {
    let mode = fstat(&file)?.st_mode & 0o7777;
    let wanted = (mode & !0o222) | (readers & 0o444);
    if wanted == mode { Ok(()) } else { Ok(fchmod(file, Mode::from_bits_truncate(wanted))?) }
}

/// An open directory.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    /// The path with which it was opened, for messages.
    path: PathBuf,
}

/// The result of [`Dir::take_over`].
pub struct Taken {
    pub file: File,
    /// The directory in which it was.
    pub dir: Dir,
    /// False if the directories are on different disks: the file was not moved.
    pub moved: bool,
}

impl Dir {
    /// Opens a directory that the administrator has named; it and its parents may be links. Works also without the
    /// right to list it.
    pub fn open(path: &Path) -> io::Result<Dir> {
        let fd = match open(path, DIRECTORY, Mode::empty()) {
            Err(Errno::ACCESS) => open(path, PASSAGE, Mode::empty())?,
            opened => opened?,
        };
        Ok(Dir { fd, path: path.to_owned() })
    }

    /// The path with which it was opened, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a directory below.
    pub fn dir(&self, below: &Path) -> io::Result<Dir> {
        let fd = find(self.fd.as_fd(), below, DIRECTORY, Links::OfTrusted)?;
        Ok(Dir { fd, path: self.path.join(below) })
    }

    /// Opens a file below for reading.
    pub fn read(&self, below: &Path) -> io::Result<File> {
        let file = find(self.fd.as_fd(), below, PLAIN, Links::OfTrusted)?;
        if is_plain(&fstat(&file)?) { Ok(file.into()) } else { Err(not_plain()) }
    }

    /// Creates a file, which must not exist.
    pub fn create(&self, name: &OsStr, mode: u32) -> io::Result<File> {
        Ok(openat(&self.fd, name, NEW, Mode::from_bits_truncate(mode))?.into())
    }

    /// Opens a file for writing, and makes it if it is missing. A link is not followed.
    pub fn open_or_create(&self, name: &OsStr, mode: u32) -> io::Result<File> {
        let file = openat(&self.fd, name, KEPT, Mode::from_bits_truncate(mode))?;
        if is_plain(&fstat(&file)?) { Ok(file.into()) } else { Err(not_plain()) }
    }

    /// The metadata of a path below; a link at the end is not followed.
    pub fn stat(&self, below: &Path) -> io::Result<Stat> {
        let Some(name) = below.file_name() else { return Err(not_plain()) };
        let stat = |dir: BorrowedFd<'_>| statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
        match below.parent() {
            Some(above) if !above.as_os_str().is_empty() => {
                Ok(stat(find(self.fd.as_fd(), above, PASSAGE, Links::OfTrusted)?.as_fd())?)
            }
            _ => Ok(stat(self.fd.as_fd())?),
        }
    }

    /// The permissions of the directory itself.
    pub fn mode(&self) -> io::Result<u32> {
        Ok(fstat(&self.fd)?.st_mode & 0o7777)
    }

    /// Identifies the mount. A file cannot have names in two mounts, not even in two of one disk.
    pub fn mount(&self) -> io::Result<(u32, u32, u64)> {
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
        let stat = statx(&self.fd, "", AtFlags::EMPTY_PATH, wanted)?;
        // The last number is 0 before Linux 5.8.
        Ok((stat.stx_dev_major, stat.stx_dev_minor, stat.stx_mnt_id))
    }

    /// The names of the entries.
    pub fn list(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        Ok(names)
    }

    /// Makes created, renamed and removed entries durable.
    pub fn sync(&self) -> io::Result<()> {
        Ok(fsync(&self.fd)?)
    }

    /// Makes a directory. Returns whether the name was free.
    pub fn create_dir(&self, name: &OsStr) -> io::Result<bool> {
        match mkdirat(&self.fd, name, Mode::from_bits_truncate(0o777)) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes an empty directory.
    pub fn remove_dir(&self, name: &OsStr) -> io::Result<()> {
        Ok(unlinkat(&self.fd, name, AtFlags::REMOVEDIR)?)
    }

    /// Removes a file or a link.
    pub fn remove(&self, name: &OsStr) -> io::Result<()> {
        Ok(unlinkat(&self.fd, name, AtFlags::empty())?)
    }

    /// Renames a file. Durable only after [`Dir::sync`] of both directories.
    pub fn rename(&self, name: &OsStr, to: &Dir, to_name: &OsStr) -> io::Result<()> {
        Ok(renameat(&self.fd, name, &to.fd, to_name)?)
    }

    /// Gives a file a second name. For a link, the link itself gets it.
    pub fn link(&self, name: &OsStr, to: &Dir, to_name: &OsStr) -> io::Result<()> {
        Ok(linkat(&self.fd, name, &to.fd, to_name, AtFlags::empty())?)
    }

    /// Opens a file below that another user has made, renames it to `to_name` in `to`, and [protects](protect) it:
    /// readers of its former directory may read it. It must be a plain file with only this name, and the path must have
    /// no link at all; otherwise the error is [`not_plain`].
    pub fn take_over(&self, below: &Path, to: &Dir, to_name: &OsStr) -> io::Result<Taken> {
        let link = |error: io::Error| match Errno::from_io_error(&error) {
            Some(Errno::LOOP | Errno::NOTDIR | Errno::NXIO | Errno::ISDIR) => not_plain(),
            _ => error,
        };
        let (Some(above), Some(name)) = (below.parent(), below.file_name()) else { return Err(not_plain()) };
        let fd = find(self.fd.as_fd(), above, DIRECTORY, Links::OfNobody).map_err(link)?;
        let dir = Dir { fd, path: self.path.join(above) };
        let file = openat(&dir.fd, name, PLAIN | OFlags::NOFOLLOW, Mode::empty());
        let file = File::from(file.map_err(|errno| link(errno.into()))?);
        let stat = fstat(&file)?;
        // With a second name it may be a file that the client may not read, or goes on writing to.
        if !is_plain(&stat) || stat.st_nlink != 1 {
            return Err(not_plain());
        }
        let moved = match renameat(&dir.fd, name, &to.fd, to_name) {
            Ok(()) => true,
            Err(Errno::XDEV) => false,
            Err(error) => return Err(error.into()),
        };
        if moved {
            let moved = statat(&to.fd, to_name, AtFlags::SYMLINK_NOFOLLOW)?;
            if (moved.st_dev, moved.st_ino) != (stat.st_dev, stat.st_ino) {
                // It has taken the place of the opened file. Such an entry is removed, whatever it is.
                let _ = unlinkat(&to.fd, to_name, AtFlags::empty());
                return Err(not_plain());
            }
        }
        protect(&file, dir.mode()?)?;
        Ok(Taken { file, dir, moved })
    }
}
