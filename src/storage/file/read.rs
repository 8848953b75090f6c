//! Reading objects: current and older revisions, back-pointers, deleted and un-created objects.
//!
//! The usual load is one lookup in the index and one positioned read of exactly the record, header and data together,
//! into the caller's buffer.

use std::io;

use super::FileStorage;
use super::format::{BACK_LEN, DATA_HEADER_LEN, DataHeader};
use super::index::{Entry, LenHint};
use super::log::{Log, Record};
use super::volume::Volume;
use crate::base::ids::{Oid, Tid};
use crate::base::memory;
use crate::storage::{Load, Loaded, Result, StorageError};

/// Bytes of data to read with the header if the index does not know the length.
const GUESS: usize = 2048;
/// Bytes to read with the header of a large record.
const FIRST_PART: usize = 64 * 1024;

impl Load for FileStorage {
    /// Touches the entry in the index. The entries of a large index are far apart in memory; if several are touched one
    /// after the other, the processor waits for them together.
    fn expect_read(&self, oid: Oid) {
        self.core.volume.get().index.get(oid);
    }

    fn load_before(
        &self,
        oid: Oid,
        before: Tid,
        headroom: usize,
        out: &mut Vec<u8>,
    ) -> Result<Option<Loaded>> {
        let base = out.len();
        let result = self.read_before_at(oid, before, base + headroom.max(DATA_HEADER_LEN), false, out);
        if !matches!(result, Ok(Some(_))) {
            out.truncate(base);
        }
        result
    }

    fn load_before_now(
        &self,
        oid: Oid,
        before: Tid,
        headroom: usize,
        out: &mut Vec<u8>,
    ) -> Option<Result<Option<Loaded>>> {
        let base = out.len();
        let result = self.read_before_at(oid, before, base + headroom.max(DATA_HEADER_LEN), true, out);
        if !matches!(result, Ok(Some(_))) {
            out.truncate(base);
        }
        match result {
            Err(StorageError::Io { error, .. }) if error.kind() == io::ErrorKind::WouldBlock => None,
            result => Some(result),
        }
    }

    fn load_serial(&self, oid: Oid, serial: Tid, headroom: usize, out: &mut Vec<u8>) -> Result<Loaded> {
        self.check_open()?;
        let volume = self.core.volume.get();
        let reading = Reading { volume: &volume, now: false };
        let mut pos = volume.index.get(oid).ok_or(StorageError::PosKey(oid))?.pos;
        let record = loop {
            let record = volume.log.read_record(pos, Some(oid))?;
            if record.header.tid == serial {
                break record;
            }
            if record.header.tid < serial || record.header.prev == 0 {
                return Err(StorageError::PosKey(oid));
            }
            pos = record.header.prev;
        };
        let base = out.len();
        let start = base + headroom;
        match reading.fill(oid, pos, &record, start, 0, out) {
            Ok(()) => Ok(Loaded { start, serial, end: None }),
            Err(error) => {
                out.truncate(base);
                Err(error)
            }
        }
    }

    /// The serial of the current record. `PosKey` also for a deleted or un-created object.
    fn get_tid(&self, oid: Oid) -> Result<Tid> {
        self.check_open()?;
        let volume = self.core.volume.get();
        let entry = volume.index.get(oid).ok_or(StorageError::PosKey(oid))?;
        let record = volume.log.read_record(entry.pos, Some(oid))?;
        if record.is_gone() {
            return Err(StorageError::PosKey(oid));
        }
        Ok(record.header.tid)
    }
}

impl FileStorage {
    /// `now`: does not wait for the disk unless the record is large.
    fn read_before_at(
        &self,
        oid: Oid,
        before: Tid,
        start: usize,
        now: bool,
        out: &mut Vec<u8>,
    ) -> Result<Option<Loaded>> {
        self.check_open()?;
        let volume = self.core.volume.get();
        let entry = volume.index.get(oid).ok_or(StorageError::PosKey(oid))?;
        let reading = Reading { volume: &volume, now };
        let (record, have) = reading.current(oid, entry, start, out)?;
        if record.header.tid < before {
            reading.fill(oid, entry.pos, &record, start, have, out)?;
            return Ok(Some(Loaded { start, serial: record.header.tid, end: None }));
        }
        let mut end = record.header.tid;
        let mut pos = record.header.prev;
        while pos != 0 {
            let record = reading.log(0).read_record(pos, Some(oid))?;
            if record.header.tid < before {
                reading.fill(oid, pos, &record, start, 0, out)?;
                return Ok(Some(Loaded { start, serial: record.header.tid, end: Some(end) }));
            }
            end = record.header.tid;
            pos = record.header.prev;
        }
        Ok(None)
    }
}

/// A volume, and whether its reader does not wait for the disk.
struct Reading<'a> {
    volume: &'a Volume,
    now: bool,
}

impl Reading<'_> {
    /// The log for reading a record of `len` bytes. A large record is waited for in any case.
    fn log(&self, len: usize) -> &Log {
        if self.now && len <= FIRST_PART { &self.volume.log_in_memory } else { &self.volume.log }
    }

    /// Reads the current record, with its header directly in front of `start`. Returns the record and how many bytes of
    /// its data were read.
    #[allow(clippy::indexing_slicing)] // `out` is made longer than `start`; a read is not longer than its buffer
    fn current(&self, oid: Oid, entry: Entry, start: usize, out: &mut Vec<u8>) -> Result<(Record, usize)> {
        let (len, want) = match entry.len {
            LenHint::Exactly(len) => (len, len.max(BACK_LEN)),
            LenHint::AtLeast(len) => (usize::MAX, len.min(FIRST_PART)),
            LenHint::Unknown => (0, GUESS),
        };
        let log = self.log(len);
        let from = start - DATA_HEADER_LEN;
        memory::resize(out, start + want).map_err(log.io("reading", entry.pos))?;
        let len = log.file().read_at(&mut out[from..], entry.pos).map_err(log.io("reading", entry.pos))?;
        let record = log.parse_record(&out[from..from + len], entry.pos, Some(oid))?;
        if entry.len == LenHint::Unknown {
            self.volume.index.set_len(oid, entry.pos, record.header.data_len);
        }
        Ok((record, len - DATA_HEADER_LEN))
    }

    /// Makes `out` end with the data of `record`, beginning at `start`; `have` bytes of it are there already.
    fn fill(
        &self,
        oid: Oid,
        pos: u64,
        record: &Record,
        start: usize,
        have: usize,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let (pos, header, have): (u64, DataHeader, usize) = if record.header.data_len > 0 {
            (pos, record.header, have)
        } else {
            // As Python's load and loadBefore for a deleted or un-created object.
            let found = self.log(0).follow(oid, record.back)?;
            let (pos, header) = found.ok_or(StorageError::PosKey(oid))?;
            (pos, header, 0)
        };
        let len = header.data_len as usize;
        memory::resize(out, start + len).map_err(self.volume.log.io("reading", pos))?;
        if have < len {
            let from = pos + (DATA_HEADER_LEN + have) as u64;
            #[allow(clippy::indexing_slicing)] // `out` has just been made longer than that
            self.log(len).read_exact(&mut out[start + have..], from)?;
        }
        Ok(())
    }
}
