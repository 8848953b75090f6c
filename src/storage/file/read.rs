//! Reading objects: current and older revisions, back-pointers, objects that are gone.
//!
//! The usual load is one lookup in the index and one positioned read of exactly the record, header and data at once,
//! into the caller's buffer.

use super::FileStorage;
use super::format::{BACK_LEN, DATA_HEADER_LEN, DataHeader};
use super::index::{Entry, LenHint};
use super::log::{Log, Record};
use super::volume::Volume;
use crate::base::ids::{Oid, Tid};
use crate::storage::{Loaded, Result, StorageError};

/// How much data to read with the header if the index does not know the length.
const GUESS: usize = 2048;
/// How much to read with the header of a large record.
const FIRST_PART: usize = 64 * 1024;

impl FileStorage {
    pub(super) fn read_before(
        &self,
        oid: Oid,
        before: Tid,
        headroom: usize,
        out: &mut Vec<u8>,
    ) -> Result<Option<Loaded>> {
        let base = out.len();
        let result = self.read_before_at(oid, before, base + headroom.max(DATA_HEADER_LEN), out);
        if !matches!(result, Ok(Some(_))) {
            out.truncate(base);
        }
        result
    }

    fn read_before_at(
        &self,
        oid: Oid,
        before: Tid,
        start: usize,
        out: &mut Vec<u8>,
    ) -> Result<Option<Loaded>> {
        self.check_open()?;
        let volume = self.core.volume.get();
        let log = &volume.log;
        let entry = volume.index.get(oid).ok_or(StorageError::PosKey(oid))?;
        let (record, have) = read_current(&volume, oid, entry, start, out)?;
        if record.header.tid < before {
            fill(log, oid, entry.pos, &record, start, have, out)?;
            return Ok(Some(Loaded { start, serial: record.header.tid, end: None }));
        }
        let mut end = record.header.tid;
        let mut pos = record.header.prev;
        while pos != 0 {
            let record = log.read_record(pos, Some(oid))?;
            if record.header.tid < before {
                fill(log, oid, pos, &record, start, 0, out)?;
                return Ok(Some(Loaded { start, serial: record.header.tid, end: Some(end) }));
            }
            end = record.header.tid;
            pos = record.header.prev;
        }
        Ok(None)
    }

    pub(super) fn read_serial(
        &self,
        oid: Oid,
        serial: Tid,
        headroom: usize,
        out: &mut Vec<u8>,
    ) -> Result<Loaded> {
        self.check_open()?;
        let volume = self.core.volume.get();
        let log = &volume.log;
        let mut pos = volume.index.get(oid).ok_or(StorageError::PosKey(oid))?.pos;
        let record = loop {
            let record = log.read_record(pos, Some(oid))?;
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
        match fill(log, oid, pos, &record, start, 0, out) {
            Ok(()) => Ok(Loaded { start, serial, end: None }),
            Err(error) => {
                out.truncate(base);
                Err(error)
            }
        }
    }

    /// The serial of the current record. `PosKey` if the object is gone, too.
    pub(super) fn current_tid(&self, oid: Oid) -> Result<Tid> {
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

/// Reads the current record with its header just in front of `start`; the record and how many bytes of data
/// came with it.
fn read_current(
    volume: &Volume,
    oid: Oid,
    entry: Entry,
    start: usize,
    out: &mut Vec<u8>,
) -> Result<(Record, usize)> {
    let log = &volume.log;
    let want = match entry.len {
        LenHint::Exactly(len) => len.max(BACK_LEN),
        LenHint::AtLeast(len) => len.min(FIRST_PART),
        LenHint::Unknown => GUESS,
    };
    let from = start - DATA_HEADER_LEN;
    out.resize(start + want, 0);
    let len = log.file().read_at(&mut out[from..], entry.pos).map_err(log.io("reading", entry.pos))?;
    let record = log.parse_record(&out[from..from + len], entry.pos, Some(oid))?;
    if entry.len == LenHint::Unknown {
        volume.index.set_len(oid, entry.pos, record.header.data_len);
    }
    Ok((record, len - DATA_HEADER_LEN))
}

/// Makes `out` end with the data of `record`, at `start`; `have` bytes of it are there already.
fn fill(
    log: &Log,
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
        // Python's load and loadBefore raise POSKeyError for an object that is gone.
        let (pos, header) = log.follow(oid, record.back)?.ok_or(StorageError::PosKey(oid))?;
        (pos, header, 0)
    };
    let len = header.data_len as usize;
    out.resize(start + len, 0);
    if have < len {
        log.read_exact(&mut out[start + have..], pos + (DATA_HEADER_LEN + have) as u64)?;
    }
    Ok(())
}
