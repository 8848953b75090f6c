//! The bytes of `PATH.sums`, which is beside a cache file and tells what a power cut has left of it: no input or output
//! here. ZEO's own client does not know the file; it may be missing, or older than the cache file, at any time.
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 28 | the [`TidNote`]: the last tid of now; not synced |
//! | 1024 and 4096 | up to 1536 | the [`Head`], twice: the one with the greater number counts |
//! | 8192 | 16 each | the log: [`SumRecord`]s of all blocks, as far as the head says |
//! | behind the log | 24 each | the index of a closed file |
//!
//! All numbers are big endian.

use crate::base::bytes::Reader;
use crate::base::checksum::checksum;
use crate::base::ids::{Oid, Tid};
use crate::storage::media::{BOOT_LEN, Time};

use super::format::{BlockHeader, END_AT};
use super::index::{IndexEntry, Place};

/// Where the two heads are.
pub const HEADS_AT: [u64; 2] = [1024, 4096];
/// Space for a head.
pub const HEAD_LEN_MAX: usize = 1536;
/// Where the log begins.
pub const LOG_AT: u64 = 8192;
/// Longest identity of a database, in bytes.
pub const IDENTITY_LEN_MAX: usize = 1024;
/// Length of a [`SumRecord`].
pub const RECORD_LEN: usize = 16;
/// Length of an entry of the index.
pub const ENTRY_LEN: usize = 24;
/// Length of a [`TidNote`].
pub const NOTE_LEN: usize = 28;

const HEAD_MAGIC: [u8; 8] = *b"ZECsums1";
const NOTE_MAGIC: [u8; 8] = *b"ZECtid 1";
/// In the first byte of a record.
const END_RECORD: u64 = 1 << 63;
const POS_END: u64 = 1 << 56;

/// The checksum of a block of the cache file, without its end.
pub fn block_sum(block: &[u8]) -> u32 {
    let (before, rest) = block.split_at_checked(END_AT as usize).unwrap_or((block, &[]));
    checksum(&[before, rest.get(8..).unwrap_or_default()])
}

/// Who used the cache file last, and how.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FileState {
    /// This program has it open, or did not close it.
    Open,
    /// Closed. Then the file was last changed at this time.
    Closed(Time),
}

/// The index of a closed file.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SavedIndex {
    /// Position behind the log.
    pub at: u64,
    /// Number of entries.
    pub count: u64,
    /// Checksum of the entries.
    pub sum: u32,
    /// Where the next block is written.
    pub pos: u64,
    /// Bytes of all revisions.
    pub used: u64,
}

/// What is known about the cache file. Durable before what it announces is done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Head {
    pub number: u64,
    pub state: FileState,
    /// The run of the operating system; zeros: unknown.
    pub boot: [u8; BOOT_LEN],
    /// The number of the cache file.
    pub file: u64,
    /// The last tid in the header of the cache file is one of these.
    pub header: [Tid; 2],
    /// Length of the log.
    pub log_len: u64,
    /// Where the records since the pointer was last at the start of the cache file begin in the log.
    pub turn_at: u64,
    pub index: SavedIndex,
    /// Of the database whose objects are in the cache; empty: unknown.
    pub identity: Vec<u8>,
}

impl Head {
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_LEN_MAX);
        let mut number = |number: u64| out.extend_from_slice(&number.to_be_bytes());
        let (closed, changed) = match self.state {
            FileState::Open => (0, 0),
            FileState::Closed(changed) => (1, changed),
        };
        let SavedIndex { at, count, sum, pos, used } = self.index;
        let [before, now] = self.header;
        [
            u64::from_be_bytes(HEAD_MAGIC),
            self.number,
            closed,
            changed,
            self.file,
            before.0,
            now.0,
            self.log_len,
            self.turn_at,
        ]
        .into_iter()
        .chain([at, count, u64::from(sum), pos, used, self.identity.len() as u64])
        .for_each(&mut number);
        out.extend_from_slice(&self.boot);
        out.extend_from_slice(&self.identity);
        let sum = checksum(&[&out]);
        out.extend_from_slice(&sum.to_be_bytes());
        out
    }

    /// `None`: there is no head, or only a part of one.
    pub fn parse(bytes: &[u8]) -> Option<Head> {
        let mut r = Reader::new(bytes);
        if r.array()? != HEAD_MAGIC {
            return None;
        }
        let number = r.u64_be()?;
        let closed = r.u64_be()?;
        let changed = r.u64_be()?;
        let file = r.u64_be()?;
        let header = [Tid(r.u64_be()?), Tid(r.u64_be()?)];
        let (log_len, turn_at) = (r.u64_be()?, r.u64_be()?);
        let (at, count, sum) = (r.u64_be()?, r.u64_be()?, r.u64_be()?);
        let (pos, used) = (r.u64_be()?, r.u64_be()?);
        let identity_len = usize::try_from(r.u64_be()?).ok()?;
        let boot = r.array()?;
        let identity = r.take(identity_len)?.to_vec();
        let covered = r.since(0);
        if r.u32_be()? != checksum(&[covered]) {
            return None;
        }
        let state = if closed == 1 { FileState::Closed(changed) } else { FileState::Open };
        let index = SavedIndex { at, count, sum: u32::try_from(sum).ok()?, pos, used };
        Some(Head { number, state, boot, file, header, log_len, turn_at, index, identity })
    }
}

/// The last tid of now. Counts while the operating system runs, if the cache file was not changed after `until`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TidNote {
    pub last_tid: Tid,
    pub until: Time,
}

impl TidNote {
    pub fn to_bytes(self) -> [u8; NOTE_LEN] {
        let mut out = [0; NOTE_LEN];
        let parts = [NOTE_MAGIC, self.last_tid.to_bytes(), self.until.to_be_bytes()].concat();
        let sum = checksum(&[&parts]).to_be_bytes();
        out.iter_mut().zip(parts.iter().chain(&sum)).for_each(|(to, from)| *to = *from);
        out
    }

    pub fn parse(bytes: &[u8]) -> Option<TidNote> {
        let mut r = Reader::new(bytes);
        let magic = r.array()?;
        let note = TidNote { last_tid: Tid(r.u64_be()?), until: r.u64_be()? };
        let covered = r.since(0);
        (magic == NOTE_MAGIC && r.u32_be()? == checksum(&[covered])).then_some(note)
    }
}

/// A change of a block of the cache file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SumRecord {
    /// A current revision was written; its length, and its checksum without the end.
    Stored { pos: u64, len: u32, sum: u32 },
    /// Its end was written.
    Ended { pos: u64, end: Tid },
}

impl SumRecord {
    pub fn to_bytes(self) -> [u8; RECORD_LEN] {
        let (pos, rest) = match self {
            SumRecord::Stored { pos, len, sum } => (pos, u64::from(len) << 32 | u64::from(sum)),
            SumRecord::Ended { pos, end } => (pos | END_RECORD, end.0),
        };
        (u128::from(pos) << 64 | u128::from(rest)).to_be_bytes()
    }

    pub fn from_bytes(bytes: [u8; RECORD_LEN]) -> SumRecord {
        let both = u128::from_be_bytes(bytes);
        let (pos, rest) = ((both >> 64) as u64, both as u64);
        match pos & END_RECORD {
            0 => SumRecord::Stored { pos: pos % POS_END, len: (rest >> 32) as u32, sum: rest as u32 },
            _ => SumRecord::Ended { pos: pos % POS_END, end: Tid(rest) },
        }
    }
}

/// What a block must be, according to the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BlockSum {
    pub len: u32,
    pub sum: u32,
    pub end: Tid,
}

impl BlockSum {
    /// Whether these are the bytes of the block.
    pub fn agrees(&self, block: &[u8]) -> bool {
        BlockHeader::parse(block).is_some_and(|header| header.is_sound() && header.end == self.end)
            && block.len() as u64 == u64::from(self.len)
            && block_sum(block) == self.sum
    }
}

/// An entry of a saved index.
pub fn entry_bytes(entry: &IndexEntry) -> [u8; ENTRY_LEN] {
    let mut out = [0; ENTRY_LEN];
    let parts = [entry.oid.to_bytes(), entry.start.to_bytes(), entry.place.to_bits().to_be_bytes()];
    out.iter_mut().zip(parts.as_flattened()).for_each(|(to, from)| *to = *from);
    out
}

/// Reads an entry.
pub fn parse_entry(bytes: [u8; ENTRY_LEN]) -> Option<IndexEntry> {
    let mut r = Reader::new(&bytes);
    let (oid, start) = (Oid(r.u64_be()?), Tid(r.u64_be()?));
    Some(IndexEntry { oid, start, place: Place::from_bits(r.u64_be()?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_whole_or_none() {
        let head = Head {
            number: 3,
            state: FileState::Closed(77),
            boot: [9; BOOT_LEN],
            file: 4,
            header: [Tid(5), Tid(6)],
            log_len: 160,
            turn_at: 16,
            index: SavedIndex { at: 8352, count: 2, sum: 1, pos: 100, used: 90 },
            identity: b"some database".to_vec(),
        };
        let mut bytes = head.to_bytes();
        assert_eq!(Head::parse(&bytes), Some(head.clone()));
        for len in 0..bytes.len() {
            assert_eq!(Head::parse(&bytes[..len]), None);
        }
        bytes.extend_from_slice(b"of a longer one");
        assert_eq!(Head::parse(&bytes), Some(head.clone()));
        for at in 0..head.to_bytes().len() {
            bytes[at] ^= 1;
            assert_eq!(Head::parse(&bytes), None, "{at}");
            bytes[at] ^= 1;
        }
        let longest = Head { identity: vec![1; IDENTITY_LEN_MAX], ..head };
        assert!(longest.to_bytes().len() <= HEAD_LEN_MAX);
    }

    #[test]
    fn notes_and_records() {
        let note = TidNote { last_tid: Tid(7), until: 8 };
        assert_eq!(TidNote::parse(&note.to_bytes()), Some(note));
        let mut bytes = note.to_bytes();
        bytes[10] ^= 1;
        assert_eq!(TidNote::parse(&bytes), None);
        for record in [
            SumRecord::Stored { pos: (1 << 48) - 1, len: u32::MAX, sum: 7 },
            SumRecord::Ended { pos: 12, end: Tid(u64::MAX) },
        ] {
            assert_eq!(SumRecord::from_bytes(record.to_bytes()), record);
        }
    }
}
