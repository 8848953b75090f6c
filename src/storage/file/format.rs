//! The byte layout of `Data.fs`. All numbers are big endian, positions count from the start of the file.
//!
//! ```text
//! file          magic 4 ("FS21" | "FS30"), then transactions until the end
//!
//! transaction   tid 8 | len 8 | status 1 | user_len 2 | description_len 2 | extension_len 2      23 bytes
//!               user, description, extension
//!               data records
//!               len 8 again
//!                 len: from the tid to the end of the data records, that is, the whole less the last 8 bytes
//!                 status: ' ' done, 'p' packed, 'c' voted only (void), 'u' undone by an old program (skipped)
//!
//! data record   oid 8 | tid 8 | prev 8 | tloc 8 | version_len 2 (0) | data_len 8                 42 bytes
//!               data, or if data_len is 0 a back-pointer 8
//!                 prev: the object's previous record, or 0
//!                 tloc: its transaction
//!                 back-pointer: the record that has the data; 0 for an object un-created or deleted
//! ```

#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::cast_possible_truncation)]

use byteorder::{BigEndian, ByteOrder};

use crate::base::ids::{Oid, Tid};
use crate::storage::TransactionMeta;
use crate::storage::staged::HEADROOM;

pub const MAGIC_LEN: u64 = 4;
pub const TXN_HEADER_LEN: usize = 23;
pub const DATA_HEADER_LEN: usize = 42;
pub const BACK_LEN: usize = 8;
pub const TRAILER_LEN: usize = 8;
/// Positions are kept in 48 bits, in memory and in `.index`.
pub const POS_MAX: u64 = (1 << 48) - 1;

const _: () = assert!(8 + 8 + 1 + 2 + 2 + 2 == TXN_HEADER_LEN);
const _: () = assert!(8 + 8 + 8 + 8 + 2 + 8 == DATA_HEADER_LEN);
const _: () = assert!(HEADROOM == DATA_HEADER_LEN);

/// Which Python can read a file: only the first four bytes differ.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FileFormat {
    /// Written by Python 2.
    FS21,
    /// Written by Python 3.
    FS30,
}

impl FileFormat {
    /// The first four bytes of the file.
    pub const fn magic(self) -> [u8; 4] {
        match self {
            FileFormat::FS21 => *b"FS21",
            FileFormat::FS30 => *b"FS30",
        }
    }

    /// The format with this magic.
    pub fn from_magic(magic: [u8; 4]) -> Option<FileFormat> {
        match &magic {
            b"FS21" => Some(FileFormat::FS21),
            b"FS30" => Some(FileFormat::FS30),
            _ => None,
        }
    }
}

/// The header of a transaction: its first 23 bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TxnHeader {
    pub tid: Tid,
    /// Bytes of the transaction without the trailing 8.
    pub len: u64,
    pub status: u8,
    pub user_len: u16,
    pub description_len: u16,
    pub extension_len: u16,
}

impl TxnHeader {
    pub fn decode(h: &[u8; TXN_HEADER_LEN]) -> TxnHeader {
        TxnHeader {
            tid: Tid(BigEndian::read_u64(&h[0..8])),
            len: BigEndian::read_u64(&h[8..16]),
            status: h[16],
            user_len: BigEndian::read_u16(&h[17..19]),
            description_len: BigEndian::read_u16(&h[19..21]),
            extension_len: BigEndian::read_u16(&h[21..23]),
        }
    }

    pub fn encode(&self) -> [u8; TXN_HEADER_LEN] {
        let mut h = [0; TXN_HEADER_LEN];
        BigEndian::write_u64(&mut h[0..8], self.tid.0);
        BigEndian::write_u64(&mut h[8..16], self.len);
        h[16] = self.status;
        BigEndian::write_u16(&mut h[17..19], self.user_len);
        BigEndian::write_u16(&mut h[19..21], self.description_len);
        BigEndian::write_u16(&mut h[21..23], self.extension_len);
        h
    }

    /// Splits `bytes` into user, description and extension.
    pub fn split_meta(&self, mut bytes: Vec<u8>) -> TransactionMeta {
        let (user_len, description_len) = (usize::from(self.user_len), usize::from(self.description_len));
        let extension = bytes.split_off(bytes.len().min(user_len + description_len));
        let description = bytes.split_off(bytes.len().min(user_len));
        TransactionMeta { user: bytes, description, extension }
    }

    /// Bytes of user, description and extension.
    pub fn meta_len(&self) -> usize {
        usize::from(self.user_len) + usize::from(self.description_len) + usize::from(self.extension_len)
    }

    /// Bytes from the tid to the first data record.
    pub fn head_len(&self) -> u64 {
        (TXN_HEADER_LEN + self.meta_len()) as u64
    }

    /// Whether this is the status of a whole transaction. Python warns about other statuses and continues.
    pub fn status_is_known(&self) -> bool {
        matches!(self.status, b' ' | b'p' | b'u')
    }
}

/// The reason why a record with a version is refused.
pub const HAS_VERSION: &str = "the record belongs to a version, which ZODB has not had since 3.9. With ZODB 3.8, commit or abort \
     the versions (DB.commitVersion, DB.abortVersion) and pack, or copy the file without them (its script strip_versions)";

/// The header of a data record: its first 42 bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DataHeader {
    pub oid: Oid,
    pub tid: Tid,
    pub prev: u64,
    pub tloc: u64,
    /// Always 0, see [`HAS_VERSION`].
    pub version_len: u16,
    pub data_len: u64,
}

impl DataHeader {
    pub fn decode(h: &[u8; DATA_HEADER_LEN]) -> DataHeader {
        DataHeader {
            oid: Oid(BigEndian::read_u64(&h[0..8])),
            tid: Tid(BigEndian::read_u64(&h[8..16])),
            prev: BigEndian::read_u64(&h[16..24]),
            tloc: BigEndian::read_u64(&h[24..32]),
            version_len: BigEndian::read_u16(&h[32..34]),
            data_len: BigEndian::read_u64(&h[34..42]),
        }
    }

    pub fn encode(&self) -> [u8; DATA_HEADER_LEN] {
        let mut h = [0; DATA_HEADER_LEN];
        BigEndian::write_u64(&mut h[0..8], self.oid.0);
        BigEndian::write_u64(&mut h[8..16], self.tid.0);
        BigEndian::write_u64(&mut h[16..24], self.prev);
        BigEndian::write_u64(&mut h[24..32], self.tloc);
        BigEndian::write_u16(&mut h[32..34], self.version_len);
        BigEndian::write_u64(&mut h[34..42], self.data_len);
        h
    }

    /// Bytes of the header and of what follows it: data or a back-pointer.
    pub fn record_len(&self) -> u64 {
        let payload = if self.data_len == 0 { BACK_LEN as u64 } else { self.data_len };
        payload.saturating_add(DATA_HEADER_LEN as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_round_trip() {
        let txn = TxnHeader {
            tid: Tid(0x0102_0304_0506_0708),
            len: 300,
            status: b' ',
            user_len: 1,
            description_len: 2,
            extension_len: 3,
        };
        assert_eq!(TxnHeader::decode(&txn.encode()), txn);
        assert_eq!(txn.head_len(), 29);
        let data =
            DataHeader { oid: Oid(7), tid: Tid(9), prev: 1 << 40, tloc: 4, version_len: 0, data_len: 12 };
        assert_eq!(DataHeader::decode(&data.encode()), data);
        assert_eq!(data.record_len(), 54);
        assert_eq!(DataHeader { data_len: 0, ..data }.record_len(), 50);
        assert_eq!(DataHeader { data_len: u64::MAX, ..data }.record_len(), u64::MAX);
    }
}
