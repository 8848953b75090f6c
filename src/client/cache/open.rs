//! Opening a cache file: a new one, one that is there, one of another size, one that is damaged.
//!
//! A file that cannot be used is renamed to `PATH.bad`, or removed if there is one of that name, and a new one is made.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::format::{self, BLOCK_LEN_MAX, HEADER_LEN, MARK_LEN};
use super::index::Index;
use super::ring::{Contents, Ring};
use super::walk::{Unusable, Walked, walk};
use crate::base::fs::with_suffix;
use crate::base::ids::Tid;
use crate::critical;
use crate::storage::media::{Access, Media, MediaFile};

const LOG: &str = "ZEO.cache";

/// Opens or makes the cache file `path` of `size` bytes.
pub fn open(media: &dyn Media, path: &Path, size: u64) -> io::Result<Ring> {
    if !media.exists(path) {
        let ring = create(media, path, size)?;
        log::info!(target: LOG, "created persistent cache file '{}'", path.display());
        return Ok(ring);
    }
    let file = media.open(path, Access::ReadWrite)?;
    log::info!(target: LOG, "reusing persistent cache file '{}'", path.display());
    match reuse(file, size) {
        Ok(ring) => Ok(ring),
        Err(Unusable::Io(error)) => Err(error),
        Err(Unusable::Damage(what)) => {
            move_away(media, path, &what)?;
            create(media, path, size)
        }
    }
}

/// A cache in a file without a name, which goes away with the process.
pub fn temporary(size: u64) -> io::Result<Ring> {
    let file: Arc<dyn MediaFile> = Arc::new(tempfile::tempfile()?);
    let ring = fill(file, size)?;
    log::info!(target: LOG, "created temporary cache file");
    Ok(ring)
}

fn create(media: &dyn Media, path: &Path, size: u64) -> io::Result<Ring> {
    fill(media.open(path, Access::Truncate)?, size)
}

/// Makes an empty file a cache.
fn fill(file: Arc<dyn MediaFile>, size: u64) -> io::Result<Ring> {
    file.write_at(&format::header(Tid::ZERO), 0)?;
    add_free(&*file, HEADER_LEN, size)?;
    file.sync()?;
    Ok(Ring::new(file, size, Tid::ZERO, empty()))
}

/// The contents of a file without a revision.
fn empty() -> Contents {
    Contents { index: Index::default(), used: 0, pos: HEADER_LEN }
}

fn reuse(file: Arc<dyn MediaFile>, size: u64) -> Result<Ring, Unusable> {
    let mut header = [0; HEADER_LEN as usize];
    let len = file.read_at(&mut header, 0)?;
    let last_tid = format::parse_header(header.get(..len).unwrap_or_default());
    let last_tid = last_tid.ok_or_else(|| Unusable::Damage("it is no cache file".into()))?;
    let contents = refit(&*file, size)?;
    file.sync()?;
    Ok(Ring::new(file, size, last_tid, contents))
}

/// Finds what is in the file, mends it and makes it `size` bytes long.
pub fn refit(file: &dyn MediaFile, size: u64) -> Result<Contents, Unusable> {
    let len = file.len()?;
    let Walked { index, used, first_free, last_free, end, mends } = walk(file, len.min(size))?;
    for (pos, len) in mends {
        file.write_at(format::free_mark(len).as_slice(), pos)?;
    }
    let mut pos = first_free.unwrap_or(HEADER_LEN);
    if len > size {
        file.set_len(size)?;
    } else if len < size {
        add_free(file, end, size)?;
        pos = last_free.unwrap_or(end);
    }
    Ok(Contents { index, used, pos })
}

/// Removes all revisions.
pub fn empty_file(file: &dyn MediaFile, size: u64) -> io::Result<Contents> {
    file.set_len(HEADER_LEN)?;
    add_free(file, HEADER_LEN, size)?;
    Ok(empty())
}

/// Makes a file that ends at `from` longer. Whatever part of it is done: the last block is one that the end of the file
/// cuts.
fn add_free(file: &dyn MediaFile, from: u64, size: u64) -> io::Result<()> {
    let mut pos = from;
    while pos < size {
        let len = BLOCK_LEN_MAX.min(size - pos);
        file.write_at(format::free_mark(len).as_slice(), pos)?;
        pos += len;
        if pos == size && len > MARK_LEN as u64 {
            // As Python does, so that the file has its full length.
            file.write_at(b"x", size - 1)?;
        } else if pos == size {
            file.set_len(size)?;
        }
    }
    Ok(())
}

fn move_away(media: &dyn Media, path: &Path, what: &str) -> io::Result<()> {
    let bad = with_suffix(path, ".bad");
    if media.exists(&bad) {
        media.remove(path)?;
        critical!(target: LOG, "Removing bad cache file: '{}' (prev bad exists).\n{what}", path.display());
    } else {
        media.rename(path, &bad)?;
        critical!(target: LOG, "Moving bad cache file to '{}'.\n{what}", bad.display());
    }
    Ok(())
}
