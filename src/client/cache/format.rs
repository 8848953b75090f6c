//! The bytes of a cache file, `ZEC3`: no input or output here. `docs/client-cache.md` has the same table with the
//! order of writes.
//!
//! | at | bytes | header |
//! |---|---|---|
//! | 0 | 4 | `ZEC3` |
//! | 4 | 8 | the last tid; zero: none yet |
//!
//! Blocks follow, back to back up to the end of the file:
//!
//! | first byte | block | length |
//! |---|---|---|
//! | `a` | a revision of an object | the next 4 bytes |
//! | `f` | free; the content is arbitrary | the next 4 bytes |
//! | `1` to `4` | free | 1 to 4 bytes |
//!
//! A revision:
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 1 | `a` |
//! | 1 | 4 | length of the block, with these 5 bytes |
//! | 5 | 8 | oid |
//! | 13 | 8 | start: the transaction that wrote the revision |
//! | 21 | 8 | end: the transaction that wrote the next one; zero: it is current |
//! | 29 | 2 | zero (ZODB 3.8: length of the name of a version, which follows the data's length) |
//! | 31 | 4 | length of the data |
//! | 35 | n | data |
//! | 35 + n | 8 | the oid again |

use std::io;

use crate::base::bytes::Reader;
use crate::base::ids::{Oid, Tid};

/// The first bytes of every cache file.
pub const MAGIC: [u8; 4] = *b"ZEC3";
/// Length of the header, and position of the first block.
pub const HEADER_LEN: u64 = 12;
/// Position of the last tid.
pub const LAST_TID_AT: u64 = 4;
/// Length of what is before the data of a revision.
pub const BLOCK_HEADER_LEN: usize = 35;
/// Length of a revision without data.
pub const OVERHEAD: u64 = 43;
/// Position of the end in a revision.
pub const END_AT: u64 = 21;
/// Status byte and length.
pub const MARK_LEN: usize = 5;
/// Length of the longest block. While a revision is written, the space is one free block of up to twice this length.
pub const BLOCK_LEN_MAX: u64 = (1 << 31) - 1;
/// Oids and tids of former revisions are below this: Python's index has signed numbers.
pub const FORMER_ID_END: u64 = 1 << 63;

const _: () = assert!(1 + 4 + 8 + 8 + 8 + 2 + 4 == BLOCK_HEADER_LEN);
const _: () = assert!(BLOCK_HEADER_LEN + 8 == OVERHEAD as usize);
const _: () = assert!(MAGIC.len() as u64 == LAST_TID_AT && LAST_TID_AT + 8 == HEADER_LEN);
const _: () = assert!(MARK_LEN as u64 + 8 + 8 == END_AT);

/// The header of a file.
pub fn header(last_tid: Tid) -> [u8; HEADER_LEN as usize] {
    let mut bytes = [0; HEADER_LEN as usize];
    let (magic, tid) = bytes.split_at_mut(MAGIC.len());
    magic.copy_from_slice(&MAGIC);
    tid.copy_from_slice(&last_tid.to_bytes());
    bytes
}

/// The last tid in a header; `None` if it is none.
pub fn parse_header(bytes: &[u8]) -> Option<Tid> {
    let mut bytes = Reader::new(bytes);
    let magic = bytes.array()?;
    let last_tid = Tid::from_bytes(bytes.array()?);
    (magic == MAGIC).then_some(last_tid)
}

/// The first bytes of a block.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BlockMark {
    /// A revision of this length.
    Revision(u64),
    /// Free, of this length.
    Free(u64),
}

impl BlockMark {
    /// Reads the mark at the start of `bytes`. `None`: there is none, or its length is impossible.
    pub fn parse(bytes: &[u8]) -> Option<BlockMark> {
        let mut bytes = Reader::new(bytes);
        match bytes.u8()? {
            b'a' => {
                let len = u64::from(bytes.u32_be()?);
                (OVERHEAD..=BLOCK_LEN_MAX).contains(&len).then_some(BlockMark::Revision(len))
            }
            b'f' => {
                let len = u64::from(bytes.u32_be()?);
                (MARK_LEN as u64..=2 * BLOCK_LEN_MAX).contains(&len).then_some(BlockMark::Free(len))
            }
            digit @ b'1'..=b'4' => Some(BlockMark::Free(u64::from(digit - b'0'))),
            _ => None,
        }
    }

    /// Length of the block.
    pub fn len(self) -> u64 {
        match self {
            BlockMark::Revision(len) | BlockMark::Free(len) => len,
        }
    }
}

/// A mark and how many of its bytes are used.
#[derive(Clone, Copy, Debug)]
pub struct MarkBytes([u8; MARK_LEN], usize);

impl MarkBytes {
    /// The bytes to write.
    pub fn as_slice(&self) -> &[u8] {
        self.0.get(..self.1).unwrap_or_default()
    }
}

/// The mark of a revision, `len` at most [`BLOCK_LEN_MAX`].
pub fn revision_mark(len: u64) -> MarkBytes {
    mark(b'a', len)
}

/// The mark of a free block, `len` at most twice [`BLOCK_LEN_MAX`]; nothing if `len` is 0.
pub fn free_mark(len: u64) -> MarkBytes {
    match len {
        0..5 => MarkBytes([b'0' + len as u8, 0, 0, 0, 0], usize::from(len > 0)),
        _ => mark(b'f', len),
    }
}

/// The error of a file that another program has changed, or the disk.
pub fn not_as_written(pos: u64) -> io::Error {
    let what = format!("the block at {pos} is not the one that was written there");
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn mark(status: u8, len: u64) -> MarkBytes {
    let [a, b, c, d] = (len as u32).to_be_bytes();
    MarkBytes([status, a, b, c, d], MARK_LEN)
}

/// What is before the data of a revision.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BlockHeader {
    /// Length of the block.
    pub len: u64,
    pub oid: Oid,
    /// The transaction that wrote the revision.
    pub start: Tid,
    /// The transaction that wrote the next one; zero: it is current.
    pub end: Tid,
    /// Length of the name of a version of ZODB 3.8.
    pub version_len: u16,
    pub data_len: u32,
}

impl BlockHeader {
    /// Reads the header of a revision at the start of `bytes`.
    pub fn parse(bytes: &[u8]) -> Option<BlockHeader> {
        let BlockMark::Revision(len) = BlockMark::parse(bytes)? else { return None };
        let mut bytes = Reader::new(bytes);
        bytes.take(MARK_LEN)?;
        Some(BlockHeader {
            len,
            oid: Oid::from_bytes(bytes.array()?),
            start: Tid::from_bytes(bytes.array()?),
            end: Tid::from_bytes(bytes.array()?),
            version_len: bytes.u16_be()?,
            data_len: bytes.u32_be()?,
        })
    }

    /// Whether the parts agree.
    pub fn is_sound(&self) -> bool {
        self.version_len == 0
            && u64::from(self.data_len) + OVERHEAD == self.len
            && (self.end == Tid::ZERO || self.start < self.end)
    }

    /// Appends the block.
    pub fn append_block(&self, data: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(revision_mark(self.len).as_slice());
        out.extend_from_slice(&self.oid.to_bytes());
        out.extend_from_slice(&self.start.to_bytes());
        out.extend_from_slice(&self.end.to_bytes());
        out.extend_from_slice(&self.version_len.to_be_bytes());
        out.extend_from_slice(&self.data_len.to_be_bytes());
        out.extend_from_slice(data);
        out.extend_from_slice(&self.oid.to_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_read_as_they_are_written() {
        let block = BlockHeader {
            len: OVERHEAD + 4,
            oid: Oid(7),
            start: Tid(8),
            end: Tid(9),
            version_len: 0,
            data_len: 4,
        };
        let mut bytes = Vec::new();
        block.append_block(b"data", &mut bytes);
        assert_eq!(bytes.len() as u64, block.len);
        assert_eq!(BlockHeader::parse(&bytes), Some(block));
        assert!(block.is_sound());
        assert!(!BlockHeader { end: Tid(8), ..block }.is_sound());
        assert!(!BlockHeader { data_len: 5, ..block }.is_sound());
        assert_eq!(BlockHeader::parse(&bytes[..34]), None);
    }

    #[test]
    fn marks_of_free_blocks() {
        assert_eq!(free_mark(0).as_slice(), b"");
        assert_eq!(free_mark(4).as_slice(), b"4");
        assert_eq!(free_mark(5).as_slice(), b"f\0\0\0\x05");
        assert_eq!(BlockMark::parse(b"3"), Some(BlockMark::Free(3)));
        for bad in
            [&b""[..], b"0", b"5", b"\0", b"f\0\0\0\x04", b"a\0\0\0\x2a", b"f\0\0", b"f\xff\xff\xff\xff"]
        {
            assert_eq!(BlockMark::parse(bad), None, "{bad:?}");
        }
        assert_eq!(parse_header(&header(Tid(5))), Some(Tid(5)));
        assert_eq!(parse_header(b"ZEC2\0\0\0\0\0\0\0\0"), None);
    }
}
