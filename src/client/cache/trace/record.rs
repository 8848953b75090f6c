//! One record of a trace, as bytes.
//!
//! | at | size | what |
//! |---|---|---|
//! | 0 | 4 | time, seconds since 1970 |
//! | 4 | 4 | bits 8 to 30: length of the data; bit 7: the object was in a version; bits 1 to 6: the code |
//! | 8 | 2 | length of the oid: 8, or 0 in a record of code 00 |
//! | 10 | 8 | start tid |
//! | 18 | 8 | end tid |
//! | 26 | 0 or 8 | oid |
//!
//! All numbers are big endian. The length of the data is exact in traces of ZODB 3.10 and later; 3.8 and 3.9 wrote it
//! in units of 256 bytes, rounded up, which cannot be told from the bytes.

use crate::base::bytes::Reader;
use crate::base::ids::{Oid, Tid};

/// Bytes of a record before the oid.
pub(super) const HEADER_LEN: usize = 26;
const _: () = assert!(4 + 4 + 2 + 8 + 8 == HEADER_LEN);
/// Bytes of the longest record.
pub(super) const RECORD_LEN_MAX: usize = HEADER_LEN + 8;

/// The greatest length that a record can have. Greater ones are written as this one; ZEO's client fails there.
pub(super) const DATA_LEN_MAX: u32 = (1 << 23) - 1;

/// What happened. The first hexadecimal digit is the operation, the second the outcome.
///
/// The tids of a record depend on it; a field that is not named is zero:
///
/// | code | event | start | end |
/// |---|---|---|---|
/// | 00 | the cache was opened | | |
/// | 10 | invalidation of an object that is not cached | tid | |
/// | 1a | versions (3.8): their data was dropped | tid | |
/// | 1c | invalidation: the current revision is now a former one | tid | |
/// | 1e | the current revision was dropped, in a verification | | |
/// | 20 | load, miss | | the time of the view; ZEO's client: zero |
/// | 22 | load, hit on the current revision | its start | |
/// | 24 | load of a former revision, miss | | the time of the view |
/// | 26 | load of a former revision, hit | | *the start* of the revision |
/// | 50 | versions (3.8): store | its start | |
/// | 52 | store of a current revision | its start | |
/// | 54 | store of a former revision | its start | its end |
///
/// "The time of the view" is the tid before which the revision was wanted. It is zero for the newest one.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TraceCode(pub u8);

impl TraceCode {
    /// The cache was opened.
    pub const OPENED: TraceCode = TraceCode(0x00);
    /// An invalidation of an object of which nothing current is cached.
    pub const INVALIDATED_NOTHING: TraceCode = TraceCode(0x10);
    /// An invalidation; the current revision became a former one.
    pub const INVALIDATED: TraceCode = TraceCode(0x1c);
    /// The current revision was dropped in a verification.
    pub const DROPPED: TraceCode = TraceCode(0x1e);
    /// A load found nothing current.
    pub const MISS: TraceCode = TraceCode(0x20);
    /// A load returned the current revision.
    pub const HIT: TraceCode = TraceCode(0x22);
    /// A load of a former revision did not find it.
    pub const FORMER_MISS: TraceCode = TraceCode(0x24);
    /// A load returned a former revision.
    pub const FORMER_HIT: TraceCode = TraceCode(0x26);
    /// A current revision was stored.
    pub const STORED: TraceCode = TraceCode(0x52);
    /// A former revision was stored.
    pub const STORED_FORMER: TraceCode = TraceCode(0x54);

    /// A load, whatever its outcome.
    pub fn is_load(self) -> bool {
        self.0 & 0x70 == 0x20
    }

    /// A load that the cache could answer.
    pub fn is_hit(self) -> bool {
        self == TraceCode::HIT || self == TraceCode::FORMER_HIT
    }

    pub fn is_store(self) -> bool {
        self.0 & 0x70 == 0x50
    }

    /// An invalidation of any kind.
    pub fn is_invalidation(self) -> bool {
        self.0 & 0x70 == 0x10
    }
}

/// One event of a cache.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TraceRecord {
    /// Seconds since 1970. Traces end in 2106.
    pub time: u32,
    /// What happened.
    pub code: TraceCode,
    /// The object was in a version (ZODB 3.8).
    pub in_version: bool,
    /// Length of the data in bytes, at most `DATA_LEN_MAX`; 0 where no data is involved.
    pub len: u32,
    /// By the code: see the table of [`TraceCode`].
    pub start: Tid,
    /// The same.
    pub end: Tid,
    /// `None` in records of code 00 alone.
    pub oid: Option<Oid>,
}

impl TraceRecord {
    /// Appends its bytes.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.time.to_be_bytes());
        let version = if self.in_version { 0x80 } else { 0 };
        let len = self.len.min(DATA_LEN_MAX);
        out.extend_from_slice(&(len << 8 | version | u32::from(self.code.0 & 0x7e)).to_be_bytes());
        out.extend_from_slice(&(if self.oid.is_some() { 8_u16 } else { 0 }).to_be_bytes());
        out.extend_from_slice(&self.start.to_bytes());
        out.extend_from_slice(&self.end.to_bytes());
        if let Some(oid) = self.oid {
            out.extend_from_slice(&oid.to_bytes());
        }
    }

    /// Bytes of this record.
    pub(super) fn encoded_len(&self) -> usize {
        if self.oid.is_some() { RECORD_LEN_MAX } else { HEADER_LEN }
    }

    /// The record at the beginning of `bytes`. `None` if they are too short, or not a record of a trace.
    pub fn read(bytes: &[u8]) -> Option<TraceRecord> {
        let mut r = Reader::new(bytes);
        let time = r.u32_be()?;
        let packed = r.u32_be()?;
        let oid_len = r.u16_be()?;
        let (start, end) = (Tid(r.u64_be()?), Tid(r.u64_be()?));
        let code = TraceCode((packed & 0x7e) as u8);
        let oid = match oid_len {
            8 => Some(Oid(r.u64_be()?)),
            0 if packed == 0 && start == Tid::ZERO && end == Tid::ZERO => None,
            _ => return None,
        };
        let is_record = time != 0 && packed & 0x8000_0001 == 0;
        is_record.then_some(TraceRecord {
            time,
            code,
            in_version: packed & 0x80 != 0,
            len: packed >> 8,
            start,
            end,
            oid,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that the cache of ZEO 4.3.1 wrote for `cache.store(p64(0x1065), p64(2), None, b'x' * 245)`.
    #[test]
    fn bytes_are_pythons() {
        let python =
            b"\x4c\x39\xec\xbe\0\0\xf5\x52\0\x08\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x10\x65";
        let record = TraceRecord {
            time: 1_278_864_574,
            code: TraceCode::STORED,
            in_version: false,
            len: 245,
            start: Tid(2),
            end: Tid::ZERO,
            oid: Some(Oid(0x1065)),
        };
        let mut bytes = Vec::new();
        record.put(&mut bytes);
        assert_eq!(bytes, python);
        assert_eq!(TraceRecord::read(python), Some(record));
        for cut in 0..python.len() {
            assert_eq!(TraceRecord::read(&python[..cut]), None, "{cut}");
        }
    }

    #[test]
    fn long_data_is_written_as_the_greatest_length() {
        let record = TraceRecord {
            time: 1,
            code: TraceCode::HIT,
            in_version: false,
            len: 1 << 30,
            start: Tid(2),
            end: Tid::ZERO,
            oid: Some(Oid(3)),
        };
        let mut bytes = Vec::new();
        record.put(&mut bytes);
        assert_eq!(TraceRecord::read(&bytes), Some(TraceRecord { len: DATA_LEN_MAX, ..record }));
    }
}
