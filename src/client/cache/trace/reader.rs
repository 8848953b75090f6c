//! The reader of a trace, which finds the next record after damage.
//!
//! A client that is killed leaves a part of a record at the end of its trace, and the next one appends to it. ZEO's
//! scripts then misread all records behind it. Here, a record is whole unless another one begins inside it. Behind what
//! is no record, the reader searches for the next place where two records follow each other.

use std::io::{self, ErrorKind, Read};

use super::record::{HEADER_LEN, RECORD_LEN_MAX, TraceRecord};

/// Bytes that are read at once.
const READ_LEN: usize = 256 << 10;

/// A record behind damage is not taken for one if it is older than the last whole record by more than this, or newer
/// by more than [`NEWER_MAX`]. Seconds.
const OLDER_MAX: u32 = 7 * 24 * 3600;
const NEWER_MAX: u32 = 20 * 365 * 24 * 3600;

/// What a trace has at one place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TraceItem {
    /// A record.
    Record(TraceRecord),
    /// Bytes that are no record, followed by one.
    Damage {
        /// Offset of the first one in the trace.
        pos: u64,
        /// Their number, at least 1.
        len: u64,
    },
}

/// Reads a trace from the beginning to the end.
#[derive(Debug)]
pub struct TraceReader<R> {
    input: R,
    buffer: Vec<u8>,
    /// Where the next record begins in the buffer.
    at: usize,
    /// The offset of the buffer in the trace.
    pos: u64,
    /// The input has ended.
    ended: bool,
    /// The time of the last record.
    time: Option<u32>,
}

impl<R: Read> TraceReader<R> {
    /// Reads from `input`, which need not be buffered.
    pub fn new(input: R) -> TraceReader<R> {
        TraceReader { input, buffer: Vec::new(), at: 0, pos: 0, ended: false, time: None }
    }

    /// Bytes of the trace before the next record; at the end, all of them.
    pub fn pos(&self) -> u64 {
        if self.ended && self.rest(0).len() < HEADER_LEN {
            return self.pos + self.buffer.len() as u64;
        }
        self.pos + self.at as u64
    }

    /// The next record, or the damage before it. `None` at the end, which may be a part of a record: the rest of it may
    /// not be written yet.
    pub fn next_item(&mut self) -> io::Result<Option<TraceItem>> {
        self.fill()?;
        if let Some(record) = self.whole_record() {
            self.at += record.encoded_len();
            self.time = Some(record.time);
            return Ok(Some(TraceItem::Record(record)));
        }
        let start = self.pos + self.at as u64;
        while !self.is_at_end() {
            self.at += 1;
            self.fill()?;
            if self.is_pair_at(0) {
                let len = self.pos + self.at as u64 - start;
                return Ok(Some(TraceItem::Damage { pos: start, len }));
            }
        }
        Ok(None)
    }

    /// The record here, unless it is cut: then the next one begins where this one should still go on.
    fn whole_record(&self) -> Option<TraceRecord> {
        let record = TraceRecord::read(self.rest(0))?;
        let len = record.encoded_len();
        let is_whole = self.is_pair_at(0) || !(1..len).any(|from| self.is_pair_at(from));
        is_whole.then_some(record)
    }

    /// Whether a record begins there that another one, or the end, follows.
    fn is_pair_at(&self, from: usize) -> bool {
        let Some(record) = TraceRecord::read(self.rest(from)) else { return false };
        let behind = self.rest(from + record.encoded_len());
        let is_followed = TraceRecord::read(behind).is_some() || self.ended && behind.len() < RECORD_LEN_MAX;
        is_followed && self.is_time(record.time)
    }

    fn rest(&self, from: usize) -> &[u8] {
        self.buffer.get(self.at + from..).unwrap_or_default()
    }

    /// Whether what is left is too short for a record.
    fn is_at_end(&self) -> bool {
        self.ended && self.rest(0).len() < HEADER_LEN
    }

    fn is_time(&self, time: u32) -> bool {
        self.time.is_none_or(|last| {
            time >= last.saturating_sub(OLDER_MAX) && time <= last.saturating_add(NEWER_MAX)
        })
    }

    /// Sees to it that the buffer has three records, or all of the rest.
    fn fill(&mut self) -> io::Result<()> {
        if self.ended || self.rest(0).len() >= 3 * RECORD_LEN_MAX {
            return Ok(());
        }
        self.buffer.drain(..self.at);
        self.pos += self.at as u64;
        self.at = 0;
        while self.buffer.len() < 3 * RECORD_LEN_MAX {
            let have = self.buffer.len();
            self.buffer.resize(have + READ_LEN, 0);
            let read = self.input.read(self.buffer.get_mut(have..).unwrap_or_default());
            self.buffer.truncate(have + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => {
                    self.ended = true;
                    return Ok(());
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::TraceCode;
    use super::*;
    use crate::base::ids::{Oid, Tid};

    fn record(n: u32) -> TraceRecord {
        let (code, oid) = match n % 4 {
            0 => (TraceCode::OPENED, None),
            1 => (TraceCode::MISS, Some(Oid(u64::from(n)))),
            2 => (TraceCode::STORED, Some(Oid(u64::from(n)))),
            _ => (TraceCode::HIT, Some(Oid(u64::from(n)))),
        };
        let with_data = code == TraceCode::STORED || code == TraceCode::HIT;
        let len = if with_data { 100 + n } else { 0 };
        let start = if with_data { Tid(0x03d0_0000_0000_0000 + u64::from(n)) } else { Tid::ZERO };
        TraceRecord { time: 1_500_000_000 + n, code, in_version: false, len, start, end: Tid::ZERO, oid }
    }

    fn bytes(numbers: std::ops::Range<u32>) -> Vec<u8> {
        let mut out = Vec::new();
        for n in numbers {
            record(n).put(&mut out);
        }
        out
    }

    /// Gives the bytes in small pieces.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let len = self.1.min(out.len()).min(self.0.len());
            let (piece, rest) = self.0.split_at(len);
            out[..len].copy_from_slice(piece);
            self.0 = rest;
            Ok(len)
        }
    }

    fn read(bytes: &[u8], piece: usize) -> (Vec<TraceRecord>, Vec<(u64, u64)>) {
        let mut reader = TraceReader::new(Pieces(bytes, piece));
        let (mut records, mut damage) = (Vec::new(), Vec::new());
        while let Some(item) = reader.next_item().unwrap() {
            match item {
                TraceItem::Record(record) => records.push(record),
                TraceItem::Damage { pos, len } => damage.push((pos, len)),
            }
        }
        assert_eq!(reader.pos(), bytes.len() as u64);
        (records, damage)
    }

    #[test]
    fn whole_traces() {
        let expected: Vec<TraceRecord> = (0..200).map(record).collect();
        for piece in [1, 7, 34, 1 << 20] {
            assert_eq!(read(&bytes(0..200), piece), (expected.clone(), Vec::new()), "{piece}");
        }
        assert_eq!(read(b"", 9), (Vec::new(), Vec::new()));
    }

    #[test]
    fn an_end_that_is_cut_anywhere() {
        let whole = bytes(0..9);
        let before_last = bytes(0..8).len();
        for cut in before_last..whole.len() {
            let (records, damage) = read(&whole[..cut], 50);
            let expected = if cut == before_last + HEADER_LEN { 9 } else { 8 };
            // The last record is of code 00: cut after its header, it is whole.
            assert_eq!((records.len(), damage), (expected, Vec::new()), "{cut}");
        }
    }

    /// A client was killed, and the next one appended to its trace.
    #[test]
    fn the_records_behind_a_cut_one_are_found() {
        for cut_record in [1, 2, 3] {
            let before = bytes(0..cut_record + 4);
            let len = bytes(cut_record + 4..cut_record + 5).len();
            let whole = bytes(0..cut_record + 5);
            let behind = bytes(40..60);
            for part in 1..len {
                let mut damaged = whole[..before.len() + part].to_vec();
                damaged.extend_from_slice(&behind);
                let (records, damage) = read(&damaged, 1000);
                let expected: Vec<TraceRecord> = (0..cut_record + 4).chain(40..60).map(record).collect();
                assert_eq!(damage, [(before.len() as u64, part as u64)], "{cut_record} {part}");
                assert_eq!(records, expected, "{cut_record} {part}");
            }
        }
    }

    #[test]
    fn arbitrary_bytes_end() {
        let mut state = 7_u64;
        for len in (0..3000).step_by(13) {
            let noise: Vec<u8> = (0..len)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    if state >> 40 & 3 == 0 { (state >> 33) as u8 } else { 0 }
                })
                .collect();
            let mut reader = TraceReader::new(&noise[..]);
            while reader.next_item().unwrap().is_some() {}
        }
    }
}
