//! Transactions from a position back to the start of the file. Many short ones are read at once; of a long one, only
//! its two ends.

use super::format::{MAGIC_LEN, TRAILER_LEN, TXN_HEADER_LEN, TxnHeader};
use super::log::Log;
use crate::storage::{Result, TransactionMeta};

/// Bytes of one read.
const CHUNK: u64 = 8 * 1024;
/// How many of them are behind the start of the wanted header: the header, and usually the texts.
const BEHIND: u64 = 512;

/// An iterator over transactions, from the newest to the oldest.
pub struct Backwards<'a> {
    log: &'a Log,
    /// The end of the next transaction.
    end: u64,
    /// The bytes that were read, from position `start` on.
    buf: Vec<u8>,
    start: u64,
}

impl<'a> Backwards<'a> {
    /// Begins with the transaction that ends at `end`.
    pub fn new(log: &'a Log, end: u64) -> Backwards<'a> {
        Backwards { log, end, buf: Vec::new(), start: 0 }
    }

    /// The end of the next transaction.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The next transaction, with its position; `None` at the start of the file.
    pub fn next_txn(&mut self) -> Result<Option<(u64, TxnHeader)>> {
        if self.end <= MAGIC_LEN {
            return Ok(None);
        }
        let trailer = self.end.saturating_sub(TRAILER_LEN as u64);
        let len = u64::from_be_bytes(self.array(trailer)?);
        let Some(pos) = trailer.checked_sub(len).filter(|&pos| pos >= MAGIC_LEN && pos < trailer) else {
            return Err(self.log.corrupt(trailer, format!("the transaction length {len} exceeds the file")));
        };
        let header = TxnHeader::decode(&self.array::<TXN_HEADER_LEN>(pos)?);
        if header.len != len {
            let what = format!("the transaction's length is {} here and {len} at its end", header.len);
            return Err(self.log.corrupt(pos, what));
        }
        self.end = pos;
        Ok(Some((pos, header)))
    }

    /// User, description and extension of the transaction that was returned last.
    pub fn meta(&mut self, header: &TxnHeader) -> Result<TransactionMeta> {
        let mut bytes = vec![0; header.meta_len()];
        self.read(&mut bytes, self.end + TXN_HEADER_LEN as u64)?;
        Ok(header.split_meta(bytes))
    }

    fn array<const N: usize>(&mut self, pos: u64) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read(&mut bytes, pos)?;
        Ok(bytes)
    }

    fn read(&mut self, bytes: &mut [u8], pos: u64) -> Result<()> {
        let len = bytes.len() as u64;
        if pos < self.start || pos + len > self.start + self.buf.len() as u64 {
            let until = (pos + BEHIND).min(self.end).max(pos + len);
            let start = until.saturating_sub(CHUNK).min(pos);
            self.buf.resize((until - start) as usize, 0);
            self.log.read_exact(&mut self.buf, start)?;
            self.start = start;
        }
        let at = (pos - self.start) as usize;
        let read = self.buf.get(at..at + bytes.len());
        bytes.copy_from_slice(read.ok_or_else(|| self.log.corrupt(pos, "the file ends in a transaction"))?);
        Ok(())
    }
}
