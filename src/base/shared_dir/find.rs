//! Opening a path below an open directory, at any depth.
//!
//! Usually there is no link in the path, and one call of the kernel (`openat2`, Linux 5.6) that refuses links opens it.
//! If there is a link, or the kernel has no such call, the path is opened name by name.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, open, openat, openat2, readlinkat};
use rustix::io::Errno;

/// Enough to open entries of a directory, without the right to list it.
pub const PASSAGE: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC).union(OFlags::PATH);
/// The kernel's limit.
const LINKS_MAX: usize = 40;

/// The error for a file that is not taken: not a plain file, with other names, a link, or behind a link.
pub fn not_plain() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "it is not a regular file, has further hard links, or its path contains a symbolic link",
    )
}

/// Which symbolic links are followed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Links {
    OfNobody,
    /// Links of root or of the user of this process that have only one name, because any user may be able to give such
    /// a link another name. The same holds for links that such a link leads to.
    OfTrusted,
}

/// Opens the path `below`. For a link that is not followed, the error is `ELOOP`, `ENOTDIR` or [`not_plain`].
pub fn find(dir: BorrowedFd<'_>, below: &Path, flags: OFlags, links: Links) -> io::Result<OwnedFd> {
    if below.components().any(|part| !matches!(part, Component::Normal(_))) {
        return Err(not_plain());
    }
    match at_once(dir, below, flags) {
        Some(Ok(found)) => Ok(found),
        Some(Err(error)) if may_be_link(error) && links == Links::OfTrusted => {
            by_name(dir, below, flags, links)
        }
        Some(Err(error)) => Err(error.into()),
        None => by_name(dir, below, flags, links),
    }
}

/// `None`: the kernel does not have the call, or a sandbox forbids it.
fn at_once(dir: BorrowedFd<'_>, below: &Path, flags: OFlags) -> Option<rustix::io::Result<OwnedFd>> {
    static CANNOT: AtomicBool = AtomicBool::new(false);
    if CANNOT.load(Ordering::Relaxed) {
        return None;
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    loop {
        match openat2(dir, below, flags | OFlags::NOFOLLOW, Mode::empty(), resolve) {
            Err(Errno::INTR) => {}
            Err(Errno::NOSYS) => {
                CANNOT.store(true, Ordering::Relaxed);
                return None;
            }
            Err(Errno::PERM | Errno::AGAIN | Errno::INVAL) => return None,
            found => return Some(found),
        }
    }
}

fn by_name(dir: BorrowedFd<'_>, below: &Path, flags: OFlags, links: Links) -> io::Result<OwnedFd> {
    let mut to_come = Vec::new();
    put_before(&mut to_come, below);
    let mut passed: Option<OwnedFd> = None;
    let mut links_left = LINKS_MAX;
    while let Some(name) = to_come.pop() {
        let at = passed.as_ref().map_or(dir, |passed| passed.as_fd());
        let wanted = if to_come.is_empty() { flags } else { PASSAGE };
        let error = match openat(at, &name, wanted | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(found) if to_come.is_empty() => return Ok(found),
            Ok(found) => {
                passed = Some(found);
                continue;
            }
            Err(error) => error,
        };
        let is_followed = may_be_link(error) && links == Links::OfTrusted;
        let target = if is_followed { target_of(at, &name)? } else { None };
        let (Some(target), Some(left)) = (target, links_left.checked_sub(1)) else {
            return Err(error.into());
        };
        links_left = left;
        if target.is_absolute() {
            passed = Some(open("/", PASSAGE, Mode::empty())?);
        }
        put_before(&mut to_come, &target);
    }
    // A link to `/`.
    Ok(openat(passed.as_ref().map_or(dir, |passed| passed.as_fd()), ".", flags, Mode::empty())?)
}

/// If a directory is required, the error for a link is that it is not a directory.
fn may_be_link(error: Errno) -> bool {
    matches!(error, Errno::LOOP | Errno::NOTDIR)
}

/// Pushes the names of a path, the first one last.
fn put_before(to_come: &mut Vec<OsString>, path: &Path) {
    to_come.extend(path.components().rev().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    }));
}

/// The target of a symbolic link; `None` if it is not one.
fn target_of(dir: BorrowedFd<'_>, name: &OsString) -> io::Result<Option<PathBuf>> {
    let link = openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let stat = fstat(&link)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        return Ok(None);
    }
    let is_trusted = stat.st_uid == 0 || stat.st_uid == rustix::process::geteuid().as_raw();
    if !is_trusted || stat.st_nlink > 1 {
        return Err(not_plain());
    }
    let target = readlinkat(&link, "", Vec::new())?;
    Ok(Some(OsString::from_vec(target.into_bytes()).into()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::super::{DIRECTORY, Dir, PLAIN};
    use super::*;

    /// The call of the kernel and the way by names have the same results.
    #[test]
    fn both_ways_find_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        fs::create_dir_all(at("a/b/c")).unwrap();
        fs::create_dir_all(at("elsewhere/c")).unwrap();
        fs::write(at("a/b/c/file"), "inside").unwrap();
        fs::write(at("elsewhere/c/file"), "elsewhere").unwrap();
        symlink(at("elsewhere"), at("a/absolute")).unwrap();
        symlink("../elsewhere/./c/..", at("a/relative")).unwrap();
        symlink("relative/c/file", at("a/twice")).unwrap();
        symlink("loop", at("a/loop")).unwrap();
        symlink("nowhere", at("a/dangling")).unwrap();
        symlink("/", at("a/top")).unwrap();
        let opened = Dir::open(dir.path()).unwrap();
        let content = |below: &str, links, by_name_only: bool| -> Result<String, io::ErrorKind> {
            let (fd, below) = (opened.fd.as_fd(), Path::new(below));
            let found = if by_name_only { by_name } else { find }(fd, below, PLAIN, links);
            found.and_then(|file| io::read_to_string(fs::File::from(file))).map_err(|error| error.kind())
        };
        for by_name_only in [false, true] {
            let trusted = |below| content(below, Links::OfTrusted, by_name_only);
            let nobody = |below| content(below, Links::OfNobody, by_name_only);
            for found in [trusted("a/b/c/file"), nobody("a/b/c/file")] {
                assert_eq!(found.as_deref(), Ok("inside"));
            }
            for link in ["a/absolute/c/file", "a/relative/c/file", "a/twice"] {
                assert_eq!(trusted(link).as_deref(), Ok("elsewhere"), "{link}");
                assert!(nobody(link).is_err(), "{link}");
            }
            for missing in ["a/dangling", "a/nothing", "x/y"] {
                assert_eq!(trusted(missing), Err(io::ErrorKind::NotFound), "{missing}");
            }
            assert_eq!(trusted("a/b/c/file/more"), Err(io::ErrorKind::NotADirectory));
            assert!(trusted("a/loop").is_err());
            let top = if by_name_only { by_name } else { find };
            top(opened.fd.as_fd(), Path::new("a/top"), DIRECTORY, Links::OfTrusted).unwrap();
        }
        for outside in ["..", "../x", "/etc/passwd", "a/../a/twice"] {
            assert!(content(outside, Links::OfTrusted, false).is_err(), "{outside}");
        }
        // Any user may give a link of root another name, if the kernel allows it.
        fs::hard_link(at("a/twice"), at("a/again")).unwrap();
        assert!(content("a/again", Links::OfTrusted, false).is_err());
    }
}
