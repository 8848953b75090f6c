//! The file, transaction by transaction, with the checks of Python's packer.

use super::super::format::{
    BACK_LEN, DATA_HEADER_LEN, DataHeader, MAGIC_LEN, POS_MAX, TRAILER_LEN, TXN_HEADER_LEN, TxnHeader,
};
use super::super::log::{Log, Record, be_u64};
use super::super::window::Window;
use crate::base::ids::Tid;
use crate::storage::Result;

/// Bytes of the first read.
const FIRST_LEN: usize = 1 << 20;
const RECORD_LEN_MIN: usize = DATA_HEADER_LEN + BACK_LEN;

/// A file that is read from front to back.
pub struct Sequential<'a> {
    log: &'a Log,
    window: Window<'a>,
    /// Nothing is read behind this position.
    end: u64,
    last_tid: Tid,
}

/// A transaction and its position.
#[derive(Clone, Copy, Debug)]
pub struct Txn {
    pub pos: u64,
    pub header: TxnHeader,
    /// Where its records begin (`first`) and end (`tend`).
    pub first: u64,
    pub tend: u64,
    /// The position of the next transaction.
    pub next: u64,
}

impl<'a> Sequential<'a> {
    pub fn new(log: &'a Log, end: u64) -> Sequential<'a> {
        Sequential { log, window: Window::new(log.file(), end, FIRST_LEN), end, last_tid: Tid::ZERO }
    }

    /// Continues up to `end`. The check of the order continues too.
    pub fn further(self, end: u64) -> Sequential<'a> {
        Sequential { last_tid: self.last_tid, ..Sequential::new(self.log, end) }
    }

    /// The data of the record at `pos`, which must have data.
    pub fn data<'s>(&'s mut self, pos: u64, header: &DataHeader, apart: &'s mut Vec<u8>) -> Result<&'s [u8]> {
        if header.data_len <= FIRST_LEN as u64 {
            return self.bytes(pos + DATA_HEADER_LEN as u64, header.data_len as usize);
        }
        apart.clear();
        self.log.read_data(pos, header, apart)?;
        Ok(apart)
    }

    /// The transaction at `pos`; `None` at the end.
    pub fn txn(&mut self, pos: u64) -> Result<Option<Txn>> {
        if pos >= self.end {
            return Ok(None);
        }
        let bytes = self.window.get(pos, TXN_HEADER_LEN).map_err(self.log.io("packing: reading", pos))?;
        let Some(header) = bytes.first_chunk().map(TxnHeader::decode) else {
            return Err(self.log.corrupt(pos, "a transaction is expected here, the file ends"));
        };
        let next = pos.saturating_add(header.len).saturating_add(TRAILER_LEN as u64);
        if header.len < header.head_len() || next > self.end {
            return Err(self.log.corrupt(pos, "invalid transaction header"));
        }
        if !header.status_is_known() {
            let status = char::from(header.status);
            return Err(self.log.corrupt(pos, format!("invalid transaction status: {status:?}")));
        }
        Ok(Some(Txn { pos, header, first: pos + header.head_len(), tend: pos + header.len, next }))
    }

    /// Checks that tids ascend over the transactions that are passed here.
    pub fn check_order(&mut self, txn: &Txn) -> Result<()> {
        let tid = txn.header.tid;
        if tid <= self.last_tid {
            let what = format!("time-stamp reduction: {tid} <= {}", self.last_tid);
            return Err(self.log.corrupt(txn.pos, what));
        }
        self.last_tid = tid;
        Ok(())
    }

    /// The record at `pos` of `txn`.
    pub fn record(&mut self, txn: &Txn, pos: u64) -> Result<Record> {
        let bytes = self.window.get(pos, RECORD_LEN_MIN).map_err(self.log.io("packing: reading", pos))?;
        let record = self.log.parse_record(bytes, pos, None)?;
        if record.header.tloc != txn.pos {
            return Err(self.log.corrupt(pos, "the data record does not point to its transaction"));
        }
        if pos > POS_MAX || pos + record.header.record_len() > txn.tend {
            return Err(self.log.corrupt(pos, "data record size exceeds transaction size"));
        }
        Ok(record)
    }

    /// Checks that the length behind the records is equal to the one in front of them.
    pub fn check_end(&mut self, txn: &Txn) -> Result<()> {
        let io = self.log.io("packing: reading", txn.tend);
        match be_u64(self.window.get(txn.tend, TRAILER_LEN).map_err(io)?) {
            Some(len) if len == txn.header.len => Ok(()),
            _ => Err(self
                .log
                .corrupt(txn.tend, "redundant transaction length does not match initial transaction length")),
        }
    }

    /// All `len` bytes from `pos`. The caller keeps `len` small.
    pub fn bytes(&mut self, pos: u64, len: usize) -> Result<&[u8]> {
        let log = self.log;
        let bytes = self.window.get(pos, len).map_err(log.io("packing: reading", pos))?;
        match bytes.get(..len) {
            Some(bytes) => Ok(bytes),
            None => Err(log.corrupt(pos, format!("{len} bytes expected, the file ends"))),
        }
    }

    /// The data of the record at `pos`, or of the one that its back-pointer leads to. `None` as for
    /// [`Sequential::data_place`].
    pub fn resolved_data<'s>(
        &'s mut self,
        pos: u64,
        record: &Record,
        apart: &'s mut Vec<u8>,
    ) -> Result<Option<&'s [u8]>> {
        match self.data_place(pos, record)? {
            Some((at, header)) if at == pos => self.data(pos, &header, apart).map(Some),
            // Read without the window, which would have to jump back and forth.
            Some((at, header)) => {
                apart.clear();
                self.log.read_data(at, &header, apart)?;
                Ok(Some(apart))
            }
            None => Ok(None),
        }
    }

    /// Position and header of the record that has the data: this one, or the one that its back-pointer leads to.
    /// `None`: the object is deleted or un-created.
    pub fn data_place(&self, pos: u64, record: &Record) -> Result<Option<(u64, DataHeader)>> {
        if record.header.data_len > 0 {
            return Ok(Some((pos, record.header)));
        }
        self.log.follow(record.header.oid, record.back)
    }
}

/// The position of the first transaction.
pub const FIRST: u64 = MAGIC_LEN;
