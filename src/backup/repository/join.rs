//! Puts the positions back into the content of a segment: the way back from `split`.

use std::io::{self, Read, Write};

use super::split::{OTHER, TRANSACTION};
use crate::base::ids::Tid;
use crate::storage::file::format::{
    BACK_LEN, DATA_HEADER_LEN, DataHeader, TRAILER_LEN, TXN_HEADER_LEN, TxnHeader,
};

/// Bytes that are copied at once.
const CHUNK_LEN: usize = 256 << 10;

/// Why a segment cannot be joined.
#[derive(Debug)]
pub enum JoinError {
    /// Content or pointers cannot be read, or do not fit each other.
    Source(io::Error),
    /// The file cannot be written.
    Target(io::Error),
}

/// Where the joining of a segment ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Joined {
    /// The position in the file.
    pub end: u64,
    /// The last transaction that was written; zero if there was none.
    pub last: Tid,
    /// A transaction that is later than wanted follows.
    pub is_cut: bool,
}

/// Writes the bytes of the file from `start` on, up to the last transaction that is not later than `until`.
pub fn join(
    content: &mut dyn Read,
    pointers: &mut dyn Read,
    start: u64,
    until: Tid,
    out: &mut dyn Write,
) -> Result<Joined, JoinError> {
    let mut joining = Joining { content, pointers, pos: start, out, chunk: vec![0; CHUNK_LEN] };
    let mut last = Tid::ZERO;
    let is_cut = loop {
        match joining.tag()? {
            None => break false,
            Some(TRANSACTION) => {
                let header = joining.header()?;
                if header.tid > until {
                    break true;
                }
                joining.transaction(&header)?;
                last = last.max(header.tid);
            }
            Some(OTHER) => {
                let len = joining.number()?;
                let head = joining.head_of_other(len)?;
                // A transaction that could not be split ends with its own length.
                let header = head.first_chunk().map(TxnHeader::decode);
                let tid = header.filter(|header| header.len.checked_add(TRAILER_LEN as u64) == Some(len));
                if tid.is_some_and(|header| header.tid > until) {
                    break true;
                }
                joining.write(&head)?;
                joining.copy(len - head.len() as u64)?;
                last = last.max(tid.map_or(Tid::ZERO, |header| header.tid));
            }
            Some(_) => return Err(misfit("the pointers are of a newer format")),
        }
    };
    Ok(Joined { end: joining.pos, last, is_cut })
}

struct Joining<'a> {
    content: &'a mut dyn Read,
    pointers: &'a mut dyn Read,
    pos: u64,
    out: &'a mut dyn Write,
    chunk: Vec<u8>,
}

fn misfit(what: &str) -> JoinError {
    JoinError::Source(io::Error::new(io::ErrorKind::InvalidData, what))
}

impl Joining<'_> {
    /// The kind of the next part; `None` at the end.
    fn tag(&mut self) -> Result<Option<u64>, JoinError> {
        match self.pointer_byte()? {
            None => Ok(None),
            Some(byte) => self.number_from(byte).map(Some),
        }
    }

    fn pointer_byte(&mut self) -> Result<Option<u8>, JoinError> {
        let mut byte = [0];
        loop {
            match self.pointers.read(&mut byte) {
                Ok(0) => return Ok(None),
                Ok(_) => return Ok(Some(byte[0])),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(JoinError::Source(error)),
            }
        }
    }

    fn number(&mut self) -> Result<u64, JoinError> {
        let byte = self.pointer_byte()?.ok_or_else(|| misfit("the pointers end too early"))?;
        self.number_from(byte)
    }

    fn number_from(&mut self, first: u8) -> Result<u64, JoinError> {
        let mut number = u64::from(first & 0x7f);
        let (mut byte, mut shift) = (first, 7);
        while byte & 0x80 != 0 {
            byte = self.pointer_byte()?.ok_or_else(|| misfit("the pointers end too early"))?;
            let bits = u64::from(byte & 0x7f);
            if shift > 63 || (bits << shift) >> shift != bits {
                return Err(misfit("a pointer is too large"));
            }
            number |= bits << shift;
            shift += 7;
        }
        Ok(number)
    }

    fn read<const N: usize>(&mut self) -> Result<[u8; N], JoinError> {
        let mut bytes = [0; N];
        self.content.read_exact(&mut bytes).map_err(JoinError::Source)?;
        Ok(bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), JoinError> {
        self.out.write_all(bytes).map_err(JoinError::Target)?;
        self.pos += bytes.len() as u64;
        Ok(())
    }

    /// Copies bytes of the content as they are.
    fn copy(&mut self, mut len: u64) -> Result<(), JoinError> {
        while len > 0 {
            let now = usize::try_from(len).unwrap_or(usize::MAX).min(CHUNK_LEN);
            let Some(chunk) = self.chunk.get_mut(..now) else { break };
            self.content.read_exact(chunk).map_err(JoinError::Source)?;
            self.out.write_all(chunk).map_err(JoinError::Target)?;
            self.pos += now as u64;
            len -= now as u64;
        }
        Ok(())
    }

    fn header(&mut self) -> Result<TxnHeader, JoinError> {
        let header = TxnHeader::decode(&self.read::<TXN_HEADER_LEN>()?);
        if header.len < header.head_len() { Err(misfit("a header is no transaction's")) } else { Ok(header) }
    }

    /// The first bytes of other bytes: as many as a header has.
    fn head_of_other(&mut self, len: u64) -> Result<Vec<u8>, JoinError> {
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(TXN_HEADER_LEN);
        let mut head = vec![0; len];
        self.content.read_exact(&mut head).map_err(JoinError::Source)?;
        Ok(head)
    }

    /// The rest of a transaction whose header was read.
    fn transaction(&mut self, header: &TxnHeader) -> Result<(), JoinError> {
        let start = self.pos;
        let end = start.checked_add(header.len).ok_or_else(|| misfit("a transaction is too long"))?;
        self.write(&header.encode())?;
        self.copy(header.meta_len() as u64)?;
        while self.pos < end {
            self.record(start, end)?;
        }
        let trailer = self.read::<TRAILER_LEN>()?;
        self.write(&trailer)
    }

    fn record(&mut self, tloc: u64, end: u64) -> Result<(), JoinError> {
        let pos = self.pos;
        let header = DataHeader::decode(&self.read::<DATA_HEADER_LEN>()?);
        if pos.saturating_add(header.record_len()) > end {
            return Err(misfit("a record exceeds its transaction"));
        }
        let prev = self.pointer(pos)?;
        self.write(&DataHeader { prev, tloc, ..header }.encode())?;
        if header.data_len > 0 {
            return self.copy(header.data_len);
        }
        self.read::<BACK_LEN>()?;
        let back = self.pointer(pos)?;
        self.write(&back.to_be_bytes())
    }

    /// The pointer of the record at `pos`.
    fn pointer(&mut self, pos: u64) -> Result<u64, JoinError> {
        match self.number()? {
            0 => Ok(0),
            distance => pos.checked_sub(distance).ok_or_else(|| misfit("a pointer leads before the file")),
        }
    }
}
