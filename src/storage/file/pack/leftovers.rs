//! Cleaning up after an interrupted pack.
//!
//! A `Data.fs.pack` is overwritten by the next pack, as in Python. But between Python's two renames (and this server's,
//! if the file system has no hard links) there is no `Data.fs`: a server that started then would begin an empty one.

use std::io;
use std::path::Path;

use log::warn;

use super::super::log::TARGET;
use super::super::media::Media;
use crate::base::fs::{dir_of, with_suffix};

/// For a missing file `path`: if a pack had just renamed it, gives it its name back. Returns whether it did.
pub fn restore(media: &dyn Media, path: &Path) -> io::Result<bool> {
    let (old, pack) = (with_suffix(path, ".old"), with_suffix(path, ".pack"));
    if !media.exists(&old) || !media.exists(&pack) {
        return Ok(false);
    }
    media.rename(&old, path)?;
    media.sync_dir(dir_of(path))?;
    warn!(
        target: TARGET,
        "{}: was missing because a pack had been cut short; {} is renamed back. Pack again",
        path.display(),
        old.display()
    );
    Ok(true)
}
