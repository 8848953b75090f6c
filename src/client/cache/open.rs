//! Opening a cache file: a new one, one that is there, one of another size, one that is damaged.
//!
//! A file that cannot be used is renamed to `PATH.bad`, or removed if there is one of that name, and a new one is made.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::beside::{Beside, FoundBeside};
use super::format::{self, BLOCK_HEADER_LEN, BLOCK_LEN_MAX, BlockHeader, HEADER_LEN, MARK_LEN};
use super::index::Index;
use super::journal::NoteKeeper;
use super::recover::{Recovered, recover};
use super::ring::{Contents, Ring};
use super::sums::{FileState, SavedIndex};
use super::trust::{PresentFile, Trust, judge};
use super::walk::{Unusable, Walked, walk};
use crate::base::fs::with_suffix;
use crate::base::ids::Tid;
use crate::critical;
use crate::storage::media::{Access, Media, MediaFile};

const LOG: &str = "ZEO.cache";
/// Why a file is not used although its blocks may be sound.
pub const EXCHANGED: &str =
    "it was not closed before the computer was started again, and another program has used it since";
/// Blocks that are compared with a saved index.
const SAMPLES: usize = 64;

/// An open cache file.
pub struct OpenFile {
    pub ring: Ring,
    /// `None`: there is nothing beside it, because it has no name or its directory cannot be written.
    pub beside: Option<Beside>,
    /// Of the database whose objects are in the file; empty: unknown.
    pub identity: Vec<u8>,
}

/// Opens or makes the cache file `path` of `size` bytes.
pub fn open(media: &dyn Media, path: &Path, size: u64) -> io::Result<OpenFile> {
    if !media.exists(path) {
        let ring = fill(media.open(path, Access::Truncate)?, size)?;
        log::info!(target: LOG, "created persistent cache file '{}'", path.display());
        return Ok(begin(media, path, ring, None, Vec::new()));
    }
    let file = media.open(path, Access::ReadWrite)?;
    log::info!(target: LOG, "reusing persistent cache file '{}'", path.display());
    let found = FoundBeside::read(media, path);
    match reuse(media, path, file, size, found.as_ref()) {
        Ok((ring, identity)) => Ok(begin(media, path, ring, found, identity)),
        Err(Unusable::Io(error)) => Err(error),
        Err(Unusable::Damage(what)) => {
            move_away(media, path, &what)?;
            let ring = fill(media.open(path, Access::Truncate)?, size)?;
            Ok(begin(media, path, ring, None, Vec::new()))
        }
    }
}

/// Notes beside the file, which is durable, that it is open. Without the note it can be used too, as ZEO's own client
/// uses it.
fn begin(
    media: &dyn Media,
    path: &Path,
    mut ring: Ring,
    found: Option<FoundBeside>,
    identity: Vec<u8>,
) -> OpenFile {
    let number = ring.file().identity().map(|identity| identity.number());
    let begun = number.and_then(|number| {
        Beside::begin(media, path, number, ring.last_in_header(), found, identity.clone())
    });
    let beside = match begun {
        Ok(beside) => {
            ring.keep_note(NoteKeeper::new(beside.file().clone()));
            Some(beside)
        }
        Err(error) => {
            log::warn!(
                target: LOG,
                "cannot write '{}.sums' ({error}): after a power cut this cache may have stale objects",
                path.display()
            );
            None
        }
    };
    OpenFile { ring, beside, identity }
}

/// A cache in a file without a name, which goes away with the process.
pub fn temporary(size: u64) -> io::Result<OpenFile> {
    let file: Arc<dyn MediaFile> = Arc::new(tempfile::tempfile()?);
    let ring = fill(file, size)?;
    log::info!(target: LOG, "created temporary cache file");
    Ok(OpenFile { ring, beside: None, identity: Vec::new() })
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

/// Returns the file, durable, and the identity of its database.
fn reuse(
    media: &dyn Media,
    path: &Path,
    file: Arc<dyn MediaFile>,
    size: u64,
    found: Option<&FoundBeside>,
) -> Result<(Ring, Vec<u8>), Unusable> {
    let mut bytes = [0; HEADER_LEN as usize];
    let len = file.read_at(&mut bytes, 0)?;
    let header = format::parse_header(bytes.get(..len).unwrap_or_default());
    let header = header.ok_or_else(|| Unusable::Damage("it is no cache file".into()))?;
    let present = PresentFile { identity: file.identity()?, header, boot: media.boot() };
    let mut last_tid = header;
    let trust = found.map_or(Trust::AsItIs, |found| judge(&present, &found.head, found.note));
    let contents = match (trust, found) {
        (Trust::Nothing, _) => {
            return Err(Unusable::Damage(EXCHANGED.into()));
        }
        (Trust::AfterPowerCut, Some(found)) => {
            let Recovered { kept, changed } = recover(&*file, &found.log()?)?;
            log::warn!(
                target: LOG,
                "cache file '{}' was not closed before the computer was started again: {kept} revisions are sound and \
                 kept, {changed} others were replaced or are dropped",
                path.display()
            );
            refit(&*file, size)?
        }
        (Trust::Untouched, Some(found)) => match saved_contents(&*file, size, found)? {
            Some(contents) => contents,
            None => refit(&*file, size)?,
        },
        (Trust::LastTid(tid) | Trust::AtLeast(tid), _) => {
            last_tid = tid;
            refit(&*file, size)?
        }
        _ => refit(&*file, size)?,
    };
    // Nothing tells what has changed since these revisions were stored.
    let number = present.identity.number();
    let was_not_closed =
        found.is_some_and(|found| found.head.file == number && found.head.state == FileState::Open);
    let contents = if was_not_closed && last_tid == Tid::ZERO { empty_file(&*file, size)? } else { contents };
    file.sync()?;
    let mut ring = Ring::new(file, size, header, contents);
    ring.restore_last_tid(last_tid);
    let is_ours = matches!(trust, Trust::Untouched | Trust::LastTid(_) | Trust::AfterPowerCut);
    let identity = found.filter(|_| is_ours).map(|found| found.head.identity.clone());
    Ok((ring, identity.unwrap_or_default()))
}

/// The contents of a closed file according to its saved index, if the blocks that are looked at are as it says.
fn saved_contents(file: &dyn MediaFile, size: u64, found: &FoundBeside) -> io::Result<Option<Contents>> {
    let SavedIndex { pos, used, .. } = found.head.index;
    if file.len()? != size || !(HEADER_LEN..=size).contains(&pos) {
        return Ok(None);
    }
    let Some(index) = found.index(size) else { return Ok(None) };
    let contents = Contents { index, used, pos };
    let step = (contents.index.len() / SAMPLES).max(1);
    for entry in contents.index.iter().step_by(step) {
        let mut bytes = [0; BLOCK_HEADER_LEN];
        let read = file.read_at(&mut bytes, entry.place.pos())?;
        let header = BlockHeader::parse(bytes.get(..read).unwrap_or_default());
        let is_expected = header.is_some_and(|header| {
            let is_current = header.end == Tid::ZERO;
            (header.oid, header.start, is_current) == (entry.oid, entry.start, entry.place.is_current())
        });
        if !is_expected {
            return Ok(None);
        }
    }
    Ok(Some(contents))
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
pub fn add_free(file: &dyn MediaFile, from: u64, size: u64) -> io::Result<()> {
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
