//! Names below an open directory: found, made and removed. Used by all of the blob code.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::storage::media::MediaDir;

/// The log target of Python's blob code.
pub const TARGET: &str = "ZODB.blob";

/// A directory below another one; `dir` itself for an empty path.
pub(super) fn below(dir: &Arc<dyn MediaDir>, path: &Path) -> io::Result<Arc<dyn MediaDir>> {
    if path.as_os_str().is_empty() { Ok(Arc::clone(dir)) } else { dir.dir(path) }
}

/// As `below`, but makes missing directories. Returns whether the last one was missing.
pub(super) fn make_dirs(dir: &Arc<dyn MediaDir>, path: &Path) -> io::Result<(Arc<dyn MediaDir>, bool)> {
    match below(dir, path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { return Err(error) };
            let (above, _) = make_dirs(dir, above)?;
            above.create_dir(name)?;
            Ok((above.dir(name.as_ref())?, true))
        }
        found => Ok((found?, false)),
    }
}

/// Whether this name exists.
pub(super) fn exists(dir: &dyn MediaDir, name: &OsStr) -> io::Result<bool> {
    match dir.entry(name.as_ref()) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes a file or a link, if it exists.
pub(super) fn remove_if_there(dir: &dyn MediaDir, name: &OsStr) -> io::Result<()> {
    match dir.remove(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
