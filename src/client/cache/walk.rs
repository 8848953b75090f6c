//! The walk over the blocks of a file when it is opened: what is in it, what has to be mended, or why it is unusable.
//!
//! Only reads. Mended is what cannot make a revision wrong: a block that the end of the file cuts becomes free, and so
//! do former revisions that Python's index cannot hold. Any other damage makes the whole file unusable, because a
//! revision that looks sound may be wrong too: Python's client drops a file with two current revisions of one object,
//! which its own error with invalidations of the same tid leaves behind; other revisions in such a file may be stale.

use std::collections::HashMap;
use std::fmt;
use std::io;

use super::format::{
    BLOCK_HEADER_LEN, BLOCK_LEN_MAX, BlockHeader, BlockMark, FORMER_ID_END, HEADER_LEN, MARK_LEN, OVERHEAD,
};
use super::index::{Index, IndexEntry, Place};
use crate::base::ids::{Oid, Tid};
use crate::storage::media::MediaFile;

/// Bytes that are read at once where blocks are short.
const WINDOW_LEN: usize = 128 << 10;
/// Bytes that are read at once behind a block that is longer than half a window.
const WINDOW_LEN_SPARSE: usize = 512;
/// Length of the oid behind the data.
const OID_LEN: u64 = 8;

/// What a walk has found.
pub struct Walked {
    pub index: Index,
    /// Bytes of all revisions.
    pub used: u64,
    /// The first block that was free.
    pub first_free: Option<u64>,
    /// The last block, if it is free.
    pub last_free: Option<u64>,
    /// Where the blocks end.
    pub end: u64,
    /// Position and length of blocks that are to be marked as free.
    pub mends: Vec<(u64, u64)>,
}

/// Why a file cannot be used.
#[derive(Debug)]
pub enum Unusable {
    /// It cannot be read.
    Io(io::Error),
    /// It is damaged.
    Damage(String),
}

impl From<io::Error> for Unusable {
    fn from(error: io::Error) -> Unusable {
        Unusable::Io(error)
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unusable::Io(error) => write!(f, "it cannot be read: {error}"),
            Unusable::Damage(what) => f.write_str(what),
        }
    }
}

fn damage<T>(pos: u64, what: impl fmt::Display) -> Result<T, Unusable> {
    Err(Unusable::Damage(format!("block at {pos}: {what}")))
}

/// Reads through a file in windows.
struct Window<'a> {
    file: &'a dyn MediaFile,
    buf: Vec<u8>,
    start: u64,
    len: usize,
}

impl Window<'_> {
    /// `len` bytes at `pos`, fewer at the end of the file. `sparse`: the bytes behind them will not be asked for.
    fn get(&mut self, pos: u64, len: usize, sparse: bool) -> io::Result<&[u8]> {
        let is_there = pos >= self.start && pos + len as u64 <= self.start + self.len as u64;
        if !is_there {
            let wanted = if sparse { WINDOW_LEN_SPARSE.max(len) } else { WINDOW_LEN };
            self.buf.resize(WINDOW_LEN, 0);
            self.len = self.file.read_at(self.buf.get_mut(..wanted).unwrap_or_default(), pos)?;
            self.start = pos;
        }
        let from = (pos - self.start) as usize;
        Ok(self.buf.get(from..self.len.min(from + len)).unwrap_or_default())
    }
}

/// Walks over the blocks before `end`, which is not behind the end of the file.
pub fn walk(file: &dyn MediaFile, end: u64) -> Result<Walked, Unusable> {
    let mut window = Window { file, buf: Vec::new(), start: 0, len: 0 };
    let mut found = Found::default();
    let mut pos = HEADER_LEN;
    let mut before = 0;
    while pos < end {
        // Together with the last bytes of the block before.
        let bytes =
            window.get(pos - OID_LEN, OID_LEN as usize + BLOCK_HEADER_LEN, before > WINDOW_LEN as u64 / 2)?;
        let Some((trailer, bytes)) = bytes.split_first_chunk() else {
            return damage(pos, "the file is shorter than it was");
        };
        found.check_trailer(pos, *trailer)?;
        let bytes = bytes.get(..bytes.len().min((end - pos) as usize)).unwrap_or_default();
        before = found.block(pos, bytes, end)?;
        pos += before;
    }
    if found.last_is_revision() {
        let mut trailer = [0; OID_LEN as usize];
        file.read_at(&mut trailer, pos - OID_LEN)?;
        found.check_trailer(pos, trailer)?;
    }
    found.finish(end)
}

#[derive(Default)]
struct Found {
    entries: Vec<IndexEntry>,
    /// For each object the greatest end of a former revision.
    ends: HashMap<Oid, Tid>,
    used: u64,
    first_free: Option<u64>,
    last_free: Option<u64>,
    mends: Vec<(u64, u64)>,
    /// The oid of the last block, if it is a revision.
    last_oid: Option<Oid>,
}

impl Found {
    fn last_is_revision(&self) -> bool {
        self.last_oid.is_some()
    }

    /// Checks the bytes before `pos`.
    fn check_trailer(&mut self, pos: u64, trailer: [u8; OID_LEN as usize]) -> Result<(), Unusable> {
        match self.last_oid.take() {
            Some(oid) if oid.to_bytes() != trailer => damage(pos, "another oid is behind the data before it"),
            _ => Ok(()),
        }
    }

    /// Takes the block at `pos`. `bytes`: its first ones, all up to `end` if it is so near. Returns its length.
    fn block(&mut self, pos: u64, bytes: &[u8], end: u64) -> Result<u64, Unusable> {
        let left = end - pos;
        let (shortest, status) = match bytes.first() {
            Some(b'a') => (OVERHEAD, b'a'),
            Some(b'f') => (MARK_LEN as u64, b'f'),
            Some(status) => (1, *status),
            None => return damage(pos, "the file is shorter than it was"),
        };
        if left < shortest {
            return Ok(self.cut(pos, left, status == b'a'));
        }
        let Some(mark) = BlockMark::parse(bytes) else {
            return damage(
                pos,
                format_args!("its status is {:?}, or its length impossible", char::from(status)),
            );
        };
        match mark {
            _ if mark.len() > left => Ok(self.cut(pos, left, status == b'a')),
            BlockMark::Free(len) => {
                self.free(pos);
                if len > BLOCK_LEN_MAX {
                    // Backwards: the first one hides the second until it is cut.
                    self.mends.push((pos + BLOCK_LEN_MAX, len - BLOCK_LEN_MAX));
                    self.mends.push((pos, BLOCK_LEN_MAX));
                }
                Ok(len)
            }
            BlockMark::Revision(len) => match BlockHeader::parse(bytes) {
                Some(header) => self.revision(pos, len, &header),
                None => damage(pos, "the file is shorter than it was"),
            },
        }
    }

    fn revision(&mut self, pos: u64, len: u64, header: &BlockHeader) -> Result<u64, Unusable> {
        if header.version_len != 0 {
            return damage(pos, "Versions aren't supported");
        }
        if !header.is_sound() {
            return damage(pos, "its parts contradict each other");
        }
        let is_current = header.end == Tid::ZERO;
        if !is_current {
            if header.oid.0 >= FORMER_ID_END || header.start.0 >= FORMER_ID_END {
                self.mends.push((pos, len));
                self.free(pos);
                return Ok(len);
            }
            let end = self.ends.entry(header.oid).or_default();
            *end = header.end.max(*end);
        }
        let place = Place::new(pos, len, is_current);
        self.entries.push(IndexEntry { oid: header.oid, start: header.start, place });
        self.used += len;
        self.last_free = None;
        self.last_oid = Some(header.oid);
        Ok(len)
    }

    fn free(&mut self, pos: u64) {
        self.first_free.get_or_insert(pos);
        self.last_free = Some(pos);
    }

    /// A block goes on behind the end.
    fn cut(&mut self, pos: u64, left: u64, was_revision: bool) -> u64 {
        if was_revision {
            // As in Python: it was not free, so the next block is not written here.
            self.last_free = Some(pos);
        } else {
            self.free(pos);
        }
        self.mends.push((pos, left));
        left
    }

    fn finish(self, end: u64) -> Result<Walked, Unusable> {
        let Found { entries, ends, used, first_free, last_free, mends, .. } = self;
        let index = Index::build(entries)
            .map_err(|oid| Unusable::Damage(format!("it has two current revisions of object 0x{oid}")))?;
        for (oid, end) in ends {
            if index.current(oid).is_some_and(|current| current.start < end) {
                let what = format!("it has a current revision of object 0x{oid} that was replaced");
                return Err(Unusable::Damage(what));
            }
        }
        Ok(Walked { index, used, first_free, last_free, end, mends })
    }
}
