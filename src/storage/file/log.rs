//! The log `Data.fs`: records that are read by position and appended at the end.
//!
//! Knows the layout and checks all that it reads. `group.rs` decides who appends, and when.

#![cfg_attr(not(test), deny(clippy::cast_possible_truncation))]

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use byteorder::{BigEndian, ByteOrder};

use super::format::{
    BACK_LEN, DATA_HEADER_LEN, DataHeader, HAS_VERSION, MAGIC_LEN, TRAILER_LEN, TXN_HEADER_LEN, TxnHeader,
};
use super::media::{Identity, MediaFile};
use super::window::Window;
use crate::base::ids::Oid;
use crate::base::memory;
use crate::storage::{Result, StorageError, TransactionMeta};

/// The log target of everything that Python's FileStorage logs.
pub const TARGET: &str = "ZODB.FileStorage";

/// Bytes of a header and a back-pointer.
pub const RECORD_LEN_MIN: usize = DATA_HEADER_LEN + BACK_LEN;

/// `Data.fs` as records by position.
pub struct Log {
    path: PathBuf,
    file: Arc<dyn MediaFile>,
    /// Where the durable part ends. A record that extends beyond it is damage.
    end: Arc<AtomicU64>,
}

/// A data header, and the back-pointer if there is no data.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    pub header: DataHeader,
    /// Meaningful if `header.data_len` is 0.
    pub back: u64,
}

impl Record {
    /// Un-created or deleted: neither data nor a back-pointer.
    pub fn is_gone(&self) -> bool {
        self.header.data_len == 0 && self.back == 0
    }
}

impl Log {
    pub fn new(path: PathBuf, file: Arc<dyn MediaFile>, end: u64) -> Log {
        Log { path, file, end: Arc::new(AtomicU64::new(end)) }
    }

    /// The same log, but its reads do not wait for the disk: they fail with an I/O error of the kind `WouldBlock`
    /// instead.
    pub fn without_waiting(&self) -> Log {
        let file = Arc::new(NoWait { file: Arc::clone(&self.file), can_read_now: AtomicBool::new(true) });
        Log { path: self.path.clone(), file, end: Arc::clone(&self.end) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn file(&self) -> &dyn MediaFile {
        &*self.file
    }

    pub fn file_shared(&self) -> Arc<dyn MediaFile> {
        Arc::clone(&self.file)
    }

    pub fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    pub fn set_end(&self, end: u64) {
        self.end.store(end, Ordering::Release);
    }

    pub fn corrupt(&self, pos: u64, what: impl Into<String>) -> StorageError {
        StorageError::Corrupt { path: self.path.clone(), pos, what: what.into() }
    }

    /// Turns an I/O error into a storage error. The text is only formatted in case of an error: each load calls this.
    pub fn io(&self, doing: &str, pos: u64) -> impl FnOnce(io::Error) -> StorageError {
        move |error| StorageError::io(format!("{}: {doing} at {pos}", self.path.display()))(error)
    }

    /// Fills `buf` from `pos`. Errors: `Corrupt` if the file ends before.
    pub fn read_exact(&self, buf: &mut [u8], pos: u64) -> Result<()> {
        let len = self.file.read_at(buf, pos).map_err(self.io("reading", pos))?;
        if len < buf.len() {
            return Err(self.corrupt(pos, format!("{} bytes expected, the file ends after {len}", buf.len())));
        }
        Ok(())
    }

    pub fn read_u64(&self, pos: u64) -> Result<u64> {
        let mut buf = [0; 8];
        self.read_exact(&mut buf, pos)?;
        Ok(u64::from_be_bytes(buf))
    }

    /// The header of the data record at `pos`. `oid`: the object that it must be of, if given.
    pub fn read_record(&self, pos: u64, oid: Option<Oid>) -> Result<Record> {
        let mut buf = [0; RECORD_LEN_MIN];
        let len = self.file.read_at(&mut buf, pos).map_err(self.io("reading a record", pos))?;
        self.parse_record(buf.get(..len).unwrap_or(&buf), pos, oid)
    }

    /// As [`Log::read_record`], for bytes that were read from `pos`: at least 50, unless the file or the record's data
    /// end sooner.
    pub fn parse_record(&self, bytes: &[u8], pos: u64, oid: Option<Oid>) -> Result<Record> {
        self.parse_record_before(self.end(), bytes, pos, oid)
    }

    /// As [`Log::parse_record`], for a log that ends at `end`.
    pub fn parse_record_before(&self, end: u64, bytes: &[u8], pos: u64, oid: Option<Oid>) -> Result<Record> {
        let Some((head, rest)) = bytes.split_first_chunk::<DATA_HEADER_LEN>() else {
            return Err(self.corrupt(pos, "a data record is expected here, the file ends"));
        };
        let header = DataHeader::decode(head);
        if let Some(oid) = oid
            && header.oid != oid
        {
            return Err(self.corrupt(
                pos,
                format!("the record of object 0x{oid} is expected here, but it is of 0x{}", header.oid),
            ));
        }
        if header.version_len != 0 {
            return Err(self.corrupt(pos, HAS_VERSION));
        }
        if header.prev >= pos {
            return Err(self.corrupt(pos, format!("the previous record {} is not before it", header.prev)));
        }
        if header.data_len > end.saturating_sub(pos) {
            return Err(self.corrupt(pos, format!("the data of {} bytes exceeds the file", header.data_len)));
        }
        let mut back = 0;
        if header.data_len == 0 {
            let Some(bytes) = rest.first_chunk::<BACK_LEN>() else {
                return Err(self.corrupt(pos, "a back-pointer is expected here, the file ends"));
            };
            back = u64::from_be_bytes(*bytes);
            if back >= pos {
                return Err(self.corrupt(pos, format!("the back-pointer {back} points forward")));
            }
        }
        Ok(Record { header, back })
    }

    /// Follows back-pointers from `back` to the record that has the data. Returns its position and header, `None` if
    /// the object was un-created or deleted.
    pub fn follow(&self, oid: Oid, mut back: u64) -> Result<Option<(u64, DataHeader)>> {
        while back != 0 {
            let record = self.read_record(back, Some(oid))?;
            if record.header.data_len > 0 {
                return Ok(Some((back, record.header)));
            }
            // Always smaller than the last one, so the loop ends.
            back = record.back;
        }
        Ok(None)
    }

    /// Appends the data of the record at `pos` to `out`.
    pub fn read_data(&self, pos: u64, header: &DataHeader, out: &mut Vec<u8>) -> Result<()> {
        let from = out.len();
        let len = usize::try_from(header.data_len).unwrap_or(usize::MAX);
        memory::resize(out, from.saturating_add(len)).map_err(self.io("reading", pos))?;
        #[allow(clippy::indexing_slicing)] // it has just been made longer than that
        self.read_exact(&mut out[from..], pos + DATA_HEADER_LEN as u64)
    }

    pub fn read_txn_header(&self, pos: u64) -> Result<TxnHeader> {
        let mut buf = [0; TXN_HEADER_LEN];
        self.read_exact(&mut buf, pos)?;
        Ok(TxnHeader::decode(&buf))
    }

    /// User, description and extension of the transaction at `pos`.
    pub fn read_meta(&self, pos: u64, header: &TxnHeader) -> Result<TransactionMeta> {
        let mut bytes = vec![0; header.meta_len()];
        self.read_exact(&mut bytes, pos + TXN_HEADER_LEN as u64)?;
        Ok(header.split_meta(bytes))
    }

    /// Position and header of the transaction that ends at `end`; `None` at the start of the file.
    pub fn txn_before(&self, end: u64) -> Result<Option<(u64, TxnHeader)>> {
        if end <= MAGIC_LEN {
            return Ok(None);
        }
        let trailer = end.saturating_sub(TRAILER_LEN as u64);
        let len = self.read_u64(trailer)?;
        let Some(pos) = trailer.checked_sub(len).filter(|&pos| pos >= MAGIC_LEN && pos < trailer) else {
            return Err(self.corrupt(trailer, format!("the transaction length {len} exceeds the file")));
        };
        let header = self.read_txn_header(pos)?;
        if header.len != len {
            return Err(self.corrupt(
                pos,
                format!("the transaction's length is {} here and {len} at its end", header.len),
            ));
        }
        Ok(Some((pos, header)))
    }
}

/// A file that reads only what is in memory.
struct NoWait {
    file: Arc<dyn MediaFile>,
    /// Whether the file system can read only what is in memory. If not, all is read, and may wait.
    can_read_now: AtomicBool,
}

impl MediaFile for NoWait {
    fn read_at(&self, buf: &mut [u8], pos: u64) -> io::Result<usize> {
        if self.can_read_now.load(Ordering::Relaxed) {
            match self.file.read_at_now(buf, pos) {
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                    self.can_read_now.store(false, Ordering::Relaxed);
                }
                result => return result,
            }
        }
        self.file.read_at(buf, pos)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn reserve(&self, _: u64, _: u64) -> io::Result<bool> {
        Ok(false)
    }

    fn identity(&self) -> io::Result<Identity> {
        self.file.identity()
    }
}

/// The data records of one transaction, in file order.
pub struct Records<'a> {
    log: &'a Log,
    window: Window<'a>,
    tpos: u64,
    pos: u64,
    end: u64,
}

impl<'a> Records<'a> {
    pub fn new(log: &'a Log, tpos: u64, header: &TxnHeader) -> Records<'a> {
        let end = tpos.saturating_add(header.len).min(log.end());
        let pos = tpos.saturating_add(header.head_len());
        Records { log, window: Window::new(log.file(), end, RECORD_LEN_MIN), tpos, pos, end }
    }

    /// The next record and its position.
    pub fn next_record(&mut self) -> Result<Option<(u64, Record)>> {
        let pos = self.pos;
        if pos >= self.end {
            return Ok(None);
        }
        let bytes = self.window.get(pos, RECORD_LEN_MIN).map_err(self.log.io("reading a record", pos))?;
        let record = self.log.parse_record(bytes, pos, None)?;
        self.pos = pos.saturating_add(record.header.record_len());
        if self.pos > self.end || record.header.tloc != self.tpos {
            return Err(self.log.corrupt(pos, "data record exceeds transaction record"));
        }
        Ok(Some((pos, record)))
    }
}

/// A number in the byte order of the file.
pub fn be_u64(bytes: &[u8]) -> Option<u64> {
    (bytes.len() >= 8).then(|| BigEndian::read_u64(bytes))
}
