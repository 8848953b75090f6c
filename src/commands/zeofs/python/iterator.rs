//! The transactions and records that ZODB's `FileIterator` finds, in damaged files too: it ends at what is no
//! transaction, with a warning, and raises an error for a record that it cannot read.

use super::super::selection::OpenedFile;
use crate::base::ids::Tid;
use crate::commands::subcommand::Trouble;
use crate::storage::TransactionMeta;
use crate::storage::file::format::{
    BACK_LEN, DATA_HEADER_LEN, DataHeader, HAS_VERSION, MAGIC_LEN, TRAILER_LEN, TXN_HEADER_LEN, TxnHeader,
};
use crate::storage::file::log::be_u64;
use crate::storage::file::window::Window;

/// Bytes of the first read.
const FIRST_LEN: usize = 64 << 10;

/// The file from front to back.
pub(super) struct PythonIterator<'a> {
    file: &'a OpenedFile,
    window: Window<'a>,
    pos: u64,
    last_tid: Tid,
}

/// A transaction, and where its records are read.
pub(super) struct PythonTxn {
    pub(super) header: TxnHeader,
    pub(super) meta: TransactionMeta,
    /// Its position.
    pub(super) tpos: u64,
    /// The position of the next record.
    pub(super) pos: u64,
    tend: u64,
}

/// A data record.
pub(super) struct PythonRecord {
    pub(super) header: DataHeader,
    pub(super) pos: u64,
    /// There is data: in the buffer of the caller.
    pub(super) has_data: bool,
    /// The transaction that the back-pointer leads to.
    pub(super) data_txn: Option<Tid>,
}

impl<'a> PythonIterator<'a> {
    pub(super) fn new(file: &'a OpenedFile) -> PythonIterator<'a> {
        let window = Window::new(file.data.log().file(), file.data.end(), FIRST_LEN);
        PythonIterator { file, window, pos: MAGIC_LEN, last_tid: Tid::ZERO }
    }

    fn warn(&self, what: &str, pos: u64) {
        eprintln!("{} {what} at {pos}", self.file.name);
    }

    fn failed<T>(&self, what: &str, pos: u64) -> Result<T, Trouble> {
        Err(Trouble::Failed(format!("{}: at {pos}: {what}", self.file.name)))
    }

    fn bytes(&mut self, pos: u64, want: usize) -> Result<&[u8], Trouble> {
        let log = self.file.data.log();
        Ok(self.window.get(pos, want).map_err(log.io("reading", pos))?)
    }

    /// The next transaction; `None` where Python's iterator ends.
    pub(super) fn next_transaction(&mut self) -> Result<Option<PythonTxn>, Trouble> {
        loop {
            let (pos, end) = (self.pos, self.file.data.end());
            let head = self.bytes(pos, TXN_HEADER_LEN)?;
            if head.is_empty() {
                return Ok(None);
            }
            let Some(header) = head.first_chunk().map(TxnHeader::decode) else {
                return self.failed("the header of a transaction is not whole", pos);
            };
            if !header.status.is_ascii() {
                return self.failed("the status of the transaction is not ASCII", pos);
            }
            if header.tid <= self.last_tid {
                self.warn("time-stamp reduction", pos);
            }
            self.last_tid = header.tid;
            if header.status == b'c' {
                return Ok(None);
            }
            let next = pos.saturating_add(header.len).saturating_add(TRAILER_LEN as u64);
            if next > end {
                self.warn("truncated, possibly due to damaged records", pos);
                return Ok(None);
            }
            if !header.status_is_known() {
                self.warn(
                    &format!("has invalid status, {},", char::from(header.status).escape_default()),
                    pos,
                );
            }
            if header.len < header.head_len() {
                self.warn("has invalid transaction header", pos);
                return Ok(None);
            }
            let tend = pos + header.len;
            let trailer = match self.window.peek(tend, TRAILER_LEN) {
                Some(bytes) => be_u64(bytes),
                None => Some(self.file.data.log().read_u64(tend)?),
            };
            if trailer != Some(header.len) {
                self.warn("redundant transaction length check failed", tend);
                return Ok(None);
            }
            self.pos = next;
            // Python's iterator raises an UnboundLocalError here.
            if header.status == b'u' {
                continue;
            }
            let meta =
                header.split_meta(self.bytes(pos + TXN_HEADER_LEN as u64, header.meta_len())?.to_vec());
            return Ok(Some(PythonTxn { header, meta, tpos: pos, pos: pos + header.head_len(), tend }));
        }
    }

    /// The next record of a transaction; `None` behind the last one. `data` gets its data, or what its back-pointer
    /// leads to.
    pub(super) fn next_record(
        &mut self,
        txn: &mut PythonTxn,
        data: &mut Vec<u8>,
    ) -> Result<Option<PythonRecord>, Trouble> {
        let pos = txn.pos;
        if pos >= txn.tend {
            return Ok(None);
        }
        let bytes = self.bytes(pos, DATA_HEADER_LEN + BACK_LEN)?;
        let Some((head, rest)) = bytes.split_first_chunk::<DATA_HEADER_LEN>() else {
            return self.failed("the header of a data record is not whole", pos);
        };
        let (header, back) = (DataHeader::decode(head), be_u64(rest).unwrap_or(0));
        if header.version_len != 0 {
            return self.failed(HAS_VERSION, pos);
        }
        let next = pos.saturating_add(header.record_len());
        if next > txn.tend || header.tloc != txn.tpos {
            self.warn("data record exceeds transaction record", pos);
            txn.pos = txn.tend;
            return Ok(None);
        }
        txn.pos = next;
        data.clear();
        if header.data_len > 0 {
            self.own_data(pos, &header, data)?;
            return Ok(Some(PythonRecord { header, pos, has_data: true, data_txn: None }));
        }
        let data_txn = match back {
            0 => None,
            back => Some(self.file.data.behind(pos, header.oid, back)?.tid),
        };
        let has_data = self.file.data.data_of(pos, &header, back, data)?.is_some();
        Ok(Some(PythonRecord { header, pos, has_data, data_txn }))
    }

    fn own_data(&mut self, pos: u64, header: &DataHeader, data: &mut Vec<u8>) -> Result<(), Trouble> {
        if header.data_len > FIRST_LEN as u64 {
            return Ok(self.file.data.log().read_data(pos, header, data)?);
        }
        let len = usize::try_from(header.data_len).unwrap_or(usize::MAX);
        data.extend_from_slice(self.bytes(pos + DATA_HEADER_LEN as u64, len)?);
        Ok(())
    }
}
