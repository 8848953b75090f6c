//! Transactions in file order, from a start to a stop. Runs beside commits and packs: an iterator sees what was
//! published when it was made, as in Python.

#![cfg_attr(not(test), deny(clippy::cast_possible_truncation))]

use std::sync::Arc;

use log::warn;

use super::FileStorage;
use super::format::{DATA_HEADER_LEN, DataHeader, MAGIC_LEN, TRAILER_LEN, TXN_HEADER_LEN, TxnHeader};
use super::gate::TakeBacks;
use super::log::{Log, RECORD_LEN_MIN, Record, TARGET, be_u64};
use super::volume::Lent;
use super::window::Buffer;
use crate::base::ids::Tid;
use crate::base::log_rate::LogRate;
use crate::base::sync::{Mutex, rank};
use crate::storage::{
    DataRecord, Iterate, RecordIterator, Refusal, Result, StorageError, TransactionIterator, TransactionMeta,
    TransactionRecord,
};

/// Each iteration over the same file finds them again.
static REDUCTIONS: LogRate = LogRate::new("time-stamp reductions", 60, 60);

/// Upper bound on the bytes of one read: longer reads are no faster, and a client may have many iterators.
const CHUNK_LEN_MAX: usize = 256 * 1024;

/// Longer records are read without the buffer.
const BUFFERED_LEN_MAX: usize = 64 * 1024;

/// The file, its published end when the iterator was made, and the buffer. Iterators over transactions and over their
/// records share it, because they advance together.
struct Source {
    lent: Arc<Lent>,
    end: u64,
    buffer: Mutex<Buffer, rank::IteratorBuffer>,
    tentative: Option<Tentative>,
}

/// What is behind `from` was not published when the iterator was made, and may be taken back.
struct Tentative {
    from: u64,
    take_backs: TakeBacks,
}

impl Iterate for FileStorage {
    fn iterate(&self, start: Option<Tid>, stop: Option<Tid>) -> Result<Box<dyn TransactionIterator>> {
        self.check_open()?;
        let last = self.core.last_tid();
        let lent = self.core.volume.lend();
        let end = lent.get()?.published_end();
        Ok(Box::new(Transactions::new(Source::new(lent, end, None), last, start, stop)?))
    }
}

impl FileStorage {
    /// As `iterate`, with the group that is written and not published.
    pub(super) fn iterate_all(&self, start: Option<Tid>) -> Result<Box<dyn TransactionIterator>> {
        self.check_open()?;
        let core = &self.core;
        let last = core.last_tid();
        let take_backs = core.gate.take_backs();
        let lent = core.volume.lend();
        let volume = lent.get()?;
        // The group before the end: if it is published in between, the end has it.
        let group = core.gate.unpublished().filter(|group| Arc::ptr_eq(&group.volume, &volume));
        let from = volume.published_end();
        let (last, end) = group.map_or((last, from), |group| (group.last.max(last), group.end.max(from)));
        let source = Source::new(lent, end, Some(Tentative { from, take_backs }));
        Ok(Box::new(Transactions::new(source, last, start, None)?))
    }
}

/// An iterator over transactions.
struct Transactions {
    source: Arc<Source>,
    pos: u64,
    last_tid: Tid,
    stop: Option<Tid>,
    /// The transaction that was returned last.
    current: Option<(u64, TxnHeader)>,
}

impl Transactions {
    fn new(source: Source, last: Tid, start: Option<Tid>, stop: Option<Tid>) -> Result<Transactions> {
        let pos = match start {
            Some(start) => source.confirmed(source.find(start, last), source.end)?,
            None => MAGIC_LEN,
        };
        Ok(Transactions { source: Arc::new(source), pos, last_tid: Tid::ZERO, stop, current: None })
    }
}

impl Transactions {
    fn advance(&mut self) -> Result<Option<TransactionRecord>> {
        loop {
            self.current = None;
            let Some((pos, header)) = self.source.txn_at(self.pos)? else { return Ok(None) };
            if header.tid <= self.last_tid && REDUCTIONS.admits(None, "") {
                let volume = self.source.lent.get()?;
                warn!(target: TARGET, "{} time-stamp reduction at {pos}", volume.log.path().display());
            }
            self.last_tid = header.tid;
            if self.stop.is_some_and(|stop| header.tid > stop) {
                return Ok(None);
            }
            self.pos = pos + header.len + TRAILER_LEN as u64;
            if header.status == b'u' {
                continue;
            }
            self.current = Some((pos, header));
            let meta = self.source.meta(pos, &header)?;
            return Ok(Some(TransactionRecord { tid: header.tid, status: header.status, meta }));
        }
    }
}

impl TransactionIterator for Transactions {
    fn next_transaction(&mut self) -> Result<Option<TransactionRecord>> {
        let found = self.advance();
        // Without a look at the file an iterator is at its end, whatever has become of the file.
        if matches!(found, Ok(None)) { found } else { self.source.confirmed(found, self.pos) }
    }

    fn records(&self) -> Result<Box<dyn RecordIterator>> {
        let Some((tpos, header)) = self.current else {
            return Err(StorageError::Transaction("no transaction has been read yet".into()));
        };
        let (pos, end) = (tpos + header.head_len(), tpos + header.len);
        Ok(Box::new(DataRecords { source: Arc::clone(&self.source), tpos, pos, end }))
    }
}

struct DataRecords {
    source: Arc<Source>,
    tpos: u64,
    pos: u64,
    end: u64,
}

impl RecordIterator for DataRecords {
    fn next_record(&mut self) -> Result<Option<DataRecord>> {
        if self.pos >= self.end {
            return Ok(None);
        }
        let found = self.advance();
        self.source.confirmed(found, self.end)
    }
}

impl DataRecords {
    fn advance(&mut self) -> Result<Option<DataRecord>> {
        let volume = self.source.lent.get()?;
        let log = &volume.log;
        let pos = self.pos;
        let end = self.source.end.max(log.end());
        let record =
            self.source.read(pos, RECORD_LEN_MIN, |bytes| log.parse_record_before(end, bytes, pos, None))?;
        let header = record.header;
        let next = pos.saturating_add(header.record_len());
        if next > self.end || header.tloc != self.tpos {
            return Err(log.corrupt(pos, "data record exceeds transaction record"));
        }
        let (data, data_txn) = if header.data_len > 0 {
            (Some(self.source.data(pos, &header)?), None)
        } else {
            data_of_back_pointer(log, &record)?
        };
        // Not before: if memory is short, the caller may try again.
        self.pos = next;
        Ok(Some(DataRecord { oid: header.oid, tid: header.tid, data, data_txn }))
    }
}

impl Source {
    fn new(lent: Arc<Lent>, end: u64, tentative: Option<Tentative>) -> Source {
        Source { lent, end, buffer: Mutex::new(Buffer::new(4096, CHUNK_LEN_MAX)), tentative }
    }

    /// What was read, unless transactions before `end` were taken back before it was read: others may be in their
    /// place.
    fn confirmed<T>(&self, read: Result<T>, end: u64) -> Result<T> {
        self.lent.get()?;
        match &self.tentative {
            Some(Tentative { from, take_backs }) if (end > *from || read.is_err()) && take_backs.any() => {
                Err(StorageError::Refused {
                    what: Refusal::IterationEnded,
                    message: "the iterator was ended: transactions that were not published were taken back"
                        .into(),
                })
            }
            _ => read,
        }
    }

    /// Calls `with` with the `want` bytes from `pos`; fewer at the end of the file.
    fn read<T>(&self, pos: u64, want: usize, with: impl FnOnce(&[u8]) -> Result<T>) -> Result<T> {
        let volume = self.lent.get()?;
        let log = &volume.log;
        let mut buffer = self.buffer.lock();
        with(buffer.get(log.file(), self.end, pos, want).map_err(log.io("reading", pos))?)
    }

    fn read_exact(&self, pos: u64, len: usize) -> Result<Vec<u8>> {
        self.read(pos, len, |bytes| match bytes.len() == len {
            true => Ok(bytes.to_vec()),
            false => Err(self
                .lent
                .get()?
                .log
                .corrupt(pos, format!("{len} bytes are expected here, the file ends"))),
        })
    }

    fn data(&self, pos: u64, header: &DataHeader) -> Result<Vec<u8>> {
        let len = usize::try_from(header.data_len).unwrap_or(usize::MAX);
        if len <= BUFFERED_LEN_MAX {
            return self.read_exact(pos + DATA_HEADER_LEN as u64, len);
        }
        let mut data = Vec::new();
        self.lent.get()?.log.read_data(pos, header, &mut data)?;
        Ok(data)
    }

    fn meta(&self, pos: u64, header: &TxnHeader) -> Result<TransactionMeta> {
        let bytes = self.read_exact(pos + TXN_HEADER_LEN as u64, header.meta_len())?;
        Ok(header.split_meta(bytes))
    }

    /// The transaction at `pos`, if it is before the end.
    fn txn_at(&self, pos: u64) -> Result<Option<(u64, TxnHeader)>> {
        if pos >= self.end {
            return Ok(None);
        }
        let volume = self.lent.get()?;
        let log = &volume.log;
        let header = self.read(pos, TXN_HEADER_LEN, |bytes| match bytes.first_chunk() {
            Some(bytes) => Ok(TxnHeader::decode(bytes)),
            None => Err(log.corrupt(pos, "a transaction is expected here, the file ends")),
        })?;
        let next = pos.saturating_add(header.len).saturating_add(TRAILER_LEN as u64);
        if header.len < header.head_len() || next > self.end {
            return Err(log.corrupt(pos, "invalid transaction header"));
        }
        if self.u64_beside(pos + header.len)? != header.len {
            return Err(log.corrupt(pos + header.len, "redundant transaction length check failed"));
        }
        Ok(Some((pos, header)))
    }

    /// A number that may be far behind the next read, so the buffer is not moved.
    fn u64_beside(&self, pos: u64) -> Result<u64> {
        let buffer = self.buffer.lock();
        match buffer.peek(pos, TRAILER_LEN).and_then(be_u64) {
            Some(number) => Ok(number),
            None => self.lent.get()?.log.read_u64(pos),
        }
    }

    /// The position of the first transaction at or after `start`. Searches from the end of the file that is nearer in
    /// time, according to the tids.
    fn find(&self, start: Tid, last: Tid) -> Result<u64> {
        let Some((_, first)) = self.txn_at(MAGIC_LEN)? else { return Ok(MAGIC_LEN) };
        if start <= first.tid {
            return Ok(MAGIC_LEN);
        }
        if start > last {
            return Ok(self.end);
        }
        let since_first = start.to_unix() - first.tid.to_unix();
        if since_first < last.to_unix() - start.to_unix() {
            let mut pos = MAGIC_LEN;
            while let Some((at, header)) = self.txn_at(pos)? {
                if header.tid >= start {
                    break;
                }
                pos = at + header.len + TRAILER_LEN as u64;
            }
            return Ok(pos);
        }
        let mut pos = self.end;
        let volume = self.lent.get()?;
        while let Some((before, header)) = volume.log.txn_before(pos)? {
            if header.tid < start {
                break;
            }
            pos = before;
        }
        Ok(pos)
    }
}

/// The data of a record with a back-pointer: from the end of the chain of back-pointers. The transaction is the one of
/// the first step.
fn data_of_back_pointer(log: &Log, record: &Record) -> Result<(Option<Vec<u8>>, Option<Tid>)> {
    if record.back == 0 {
        return Ok((None, None));
    }
    let oid = record.header.oid;
    let data_txn = log.read_record(record.back, Some(oid))?.header.tid;
    match log.follow(oid, record.back)? {
        Some((pos, header)) => {
            let mut data = Vec::new();
            log.read_data(pos, &header, &mut data)?;
            Ok((Some(data), Some(data_txn)))
        }
        None => Ok((None, Some(data_txn))),
    }
}
