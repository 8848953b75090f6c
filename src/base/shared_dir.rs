//! Files in directories that others can write to: what stands there may be no file, may be a link to somewhere else, and may be
//! another thing a moment later.
//!
//! Directories and files are opened one after the other, never through a symbolic link, and everything else is asked of what
//! is open.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, fchmod, fstat, open, openat, readlinkat, renameat, statat,
    unlinkat,
};
use rustix::io::Errno;

use super::fs::dir_of;

/// Opening a pipe would wait for somebody who writes to it.
const PLAIN: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);
const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);

/// The file was not taken: it is none, has other names, or is a link, or lies behind one.
pub fn not_plain() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "it is no plain file, has other names, or lies behind a symbolic link",
    )
}

fn is_plain(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

/// Opens a file for reading. A symbolic link in its place is followed only if the administrator or the user of this process
/// has made it.
pub fn open_plain(path: &Path) -> io::Result<File> {
    let file = match open(path, PLAIN, Mode::empty()) {
        Err(Errno::LOOP) => open(trusted_target(path)?, PLAIN, Mode::empty())?,
        opened => opened?,
    };
    match is_plain(&fstat(&file)?) {
        true => Ok(file.into()),
        false => Err(not_plain()),
    }
}

/// Where a symbolic link leads to.
fn trusted_target(path: &Path) -> io::Result<PathBuf> {
    let link = open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let owner = fstat(&link)?.st_uid;
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return Err(not_plain());
    }
    let target = readlinkat(&link, "", Vec::new())?;
    let target = PathBuf::from(std::ffi::OsString::from_vec(target.into_bytes()));
    Ok(dir_of(path).join(target))
}

/// Nobody may write to the file any more, and who has these permissions of reading may read it.
pub fn protect(file: impl AsFd, readers: u32) -> io::Result<()> {
    let mode = fstat(&file)?.st_mode & 0o7777;
    let wanted = (mode & !0o222) | (readers & 0o444);
    if wanted == mode { Ok(()) } else { Ok(fchmod(file, Mode::from_bits_truncate(wanted))?) }
}

/// What was taken over.
pub struct Taken {
    pub file: File,
    /// False: the directories are on different disks, and the file is where it was.
    pub moved: bool,
}

/// Opens the file `from`, which is below `base`, gives it the name `to`, and [protects](protect) it: who may read the directory
/// that it was in may read it. It must be a file with this one name, and
/// no link may lead to it; else the error is [`not_plain`].
pub fn take_over(base: &Path, from: &Path, to: &Path) -> io::Result<Taken> {
    let link = |errno| match errno {
        Errno::LOOP | Errno::NOTDIR | Errno::NXIO | Errno::ISDIR => not_plain(),
        errno => io::Error::from(errno),
    };
    let (dir, name) = walk(base, from, link)?;
    let file = openat(&dir, name, PLAIN, Mode::empty()).map_err(link)?;
    let stat = fstat(&file)?;
    // A second name may be one of a file that whoever put it here may not read, or goes on writing to.
    if !is_plain(&stat) || stat.st_nlink != 1 {
        return Err(not_plain());
    }
    let to_dir = open(dir_of(to), DIRECTORY, Mode::empty())?;
    let Some(to_name) = to.file_name() else { return Err(not_plain()) };
    match renameat(&dir, name, &to_dir, to_name) {
        Ok(()) => {}
        Err(Errno::XDEV) => {
            protect(&file, fstat(&dir)?.st_mode)?;
            return Ok(Taken { file: file.into(), moved: false });
        }
        Err(error) => return Err(error.into()),
    }
    let moved = statat(&to_dir, to_name, AtFlags::SYMLINK_NOFOLLOW)?;
    if (moved.st_dev, moved.st_ino) != (stat.st_dev, stat.st_ino) {
        // Put in its place since it was opened. Whatever it is, it has no business here.
        let _ = unlinkat(&to_dir, to_name, AtFlags::empty());
        return Err(not_plain());
    }
    protect(&file, fstat(&dir)?.st_mode)?;
    Ok(Taken { file: file.into(), moved: true })
}

/// The directory that a path below `base` ends in, and the last name.
fn walk<'p>(
    base: &Path,
    path: &'p Path,
    error: impl Fn(Errno) -> io::Error,
) -> io::Result<(OwnedFd, &'p OsStr)> {
    let mut dir = open(base, DIRECTORY, Mode::empty())?;
    let below = path.strip_prefix(base).map_err(|_| not_plain())?;
    let mut parts = below.components().peekable();
    while let Some(part) = parts.next() {
        let Component::Normal(name) = part else { return Err(not_plain()) };
        if parts.peek().is_none() {
            return Ok((dir, name));
        }
        dir = openat(&dir, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()).map_err(&error)?;
    }
    Err(not_plain())
}
