//! The transactions of a file and their records, from front to back.
//!
//! What cannot be read is reported as [`Damage`], from its first byte to the next thing that can be read. What can be
//! read but is wrong (an unknown status, a tid that is not later than the one before) is returned as it is: the caller
//! compares.

use super::data_file::DataFile;
use super::resync::next_transaction;
use crate::storage::file::format::{
    BACK_LEN, DATA_HEADER_LEN, DataHeader, MAGIC_LEN, TRAILER_LEN, TXN_HEADER_LEN, TxnHeader,
};
use crate::storage::file::log::be_u64;
use crate::storage::file::window::Window;
use crate::storage::{Result, TransactionMeta};

/// Bytes of the first read.
const FIRST_LEN: usize = 64 << 10;
/// Longer records are read without the window.
const WINDOWED_LEN_MAX: u64 = 1 << 20;

/// A part of the file.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    Transaction(FoundTxn),
    /// Bytes between transactions that belong to none.
    Damage(Damage),
    /// Always the last part, unless the file ends behind a transaction.
    Ending(Ending),
}

/// A transaction whose records can be read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FoundTxn {
    pub pos: u64,
    pub header: TxnHeader,
    /// One of the two lengths is wrong. The other one is right, because the records fill it; `header` has that one.
    pub wrong_len: Option<WrongLen>,
}

/// A length of a transaction that is not its length, as it is in the file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WrongLen {
    InHeader(u64),
    AtEnd(u64),
}

impl WrongLen {
    /// In words.
    pub fn text(self) -> String {
        match self {
            WrongLen::InHeader(len) => {
                format!("the length in its header is {len}, the one at its end is right")
            }
            WrongLen::AtEnd(len) => format!("the length at its end is {len}, the one in its header is right"),
        }
    }
}

impl FoundTxn {
    /// Where the records end.
    pub fn tend(&self) -> u64 {
        self.pos + self.header.len
    }

    /// The position of the next transaction.
    pub fn next(&self) -> u64 {
        self.tend() + TRAILER_LEN as u64
    }

    /// Where the first record is.
    pub fn first(&self) -> u64 {
        self.pos + self.header.head_len()
    }
}

/// Bytes that cannot be read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Damage {
    pub pos: u64,
    /// Where reading goes on.
    pub end: u64,
    pub what: String,
}

/// The last bytes of the file, which are no whole transaction: cut off, or not written yet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ending {
    pub pos: u64,
    pub kind: EndingKind,
}

/// What is at the end of the file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum EndingKind {
    /// Space that a server reserved for commits.
    Zeros,
    /// A transaction that was voted and not finished.
    Voted,
    /// Less than a transaction, with the reason.
    Torn(String),
}

impl EndingKind {
    /// In words.
    pub fn text(&self) -> &str {
        match self {
            EndingKind::Zeros => "only zeros follow: space that a server reserved",
            EndingKind::Voted => "the last transaction was voted and not finished",
            EndingKind::Torn(why) => why,
        }
    }
}

/// A part of a transaction.
#[derive(Clone, Debug, PartialEq)]
pub enum RecordPart {
    Record(FoundRecord),
    /// Bytes between records that belong to none.
    Damage(Damage),
}

/// The header of a data record. Only its length and its transaction have been checked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FoundRecord {
    pub pos: u64,
    pub header: DataHeader,
    /// The back-pointer, if there is no data.
    pub back: u64,
}

impl FoundRecord {
    /// Deleted, or its creation undone: neither data nor a back-pointer.
    pub fn is_gone(&self) -> bool {
        self.header.data_len == 0 && self.back == 0
    }
}

/// Where a transaction is read.
#[derive(Clone, Copy, Debug)]
pub struct RecordCursor {
    tpos: u64,
    pos: u64,
    end: u64,
}

/// Reads a file from front to back.
pub struct Walk<'a> {
    file: &'a DataFile,
    window: Window<'a>,
    pos: u64,
    is_over: bool,
}

impl<'a> Walk<'a> {
    /// From the first transaction.
    pub fn new(file: &'a DataFile) -> Walk<'a> {
        Walk::from(file, MAGIC_LEN)
    }

    /// From the transaction at `pos`.
    pub fn from(file: &'a DataFile, pos: u64) -> Walk<'a> {
        let window = Window::new(file.log().file(), file.end(), FIRST_LEN);
        Walk { file, window, pos, is_over: false }
    }

    /// The position of the next part.
    pub fn pos(&self) -> u64 {
        self.pos
    }

    /// The next part of the file; `None` at its end. Errors: `Io` alone.
    pub fn next_part(&mut self) -> Result<Option<Part>> {
        let (pos, end) = (self.pos, self.file.end());
        if self.is_over || pos >= end {
            return Ok(None);
        }
        let part = match self.part_at(pos)? {
            PartAt::Transaction(txn) => Part::Transaction(txn),
            PartAt::Ending(kind) => Part::Ending(Ending { pos, kind }),
            PartAt::Voted(next) if next >= end => Part::Ending(Ending { pos, kind: EndingKind::Voted }),
            PartAt::Voted(next) => {
                let what = "the transaction was voted and not finished, but others follow".into();
                Part::Damage(Damage { pos, end: next, what })
            }
            PartAt::Wrong(what) => {
                let next = next_transaction(self.file, pos + 1)?;
                match (self.with_length_at_end(pos, next.unwrap_or(end))?, next) {
                    (Some(txn), _) => Part::Transaction(txn),
                    (None, Some(end)) => Part::Damage(Damage { pos, end, what }),
                    (None, None) => Part::Ending(Ending { pos, kind: EndingKind::Torn(what) }),
                }
            }
        };
        match &part {
            Part::Transaction(txn) => self.pos = txn.next(),
            Part::Damage(damage) => self.pos = damage.end,
            Part::Ending(_) => self.is_over = true,
        }
        Ok(Some(part))
    }

    fn part_at(&mut self, pos: u64) -> Result<PartAt> {
        let end = self.file.end();
        let Some(header) = self.bytes(pos, TXN_HEADER_LEN)?.first_chunk().map(TxnHeader::decode) else {
            let what = format!("the last {} bytes are less than the header of a transaction", end - pos);
            return Ok(if self.is_zero_from(pos)? {
                PartAt::Ending(EndingKind::Zeros)
            } else {
                PartAt::Ending(EndingKind::Torn(what))
            });
        };
        if header.tid.0 == 0 && header.len == 0 && self.is_zero_from(pos)? {
            return Ok(PartAt::Ending(EndingKind::Zeros));
        }
        if header.len < header.head_len() {
            return Ok(PartAt::Wrong("invalid transaction header".into()));
        }
        let next = pos.saturating_add(header.len).saturating_add(TRAILER_LEN as u64);
        if next > end {
            let what = format!("the transaction should end at {next}, the file ends at {end}");
            return Ok(PartAt::Wrong(what));
        }
        let trailer = be_u64(self.beside(pos + header.len, TRAILER_LEN)?.as_slice());
        let mut txn = FoundTxn { pos, header, wrong_len: None };
        if trailer != Some(header.len) {
            let found = trailer.unwrap_or(0);
            if !self.is_filled(&txn)? {
                let what = format!("the transaction's length is {} here and {found} at its end", header.len);
                return Ok(PartAt::Wrong(what));
            }
            txn.wrong_len = Some(WrongLen::AtEnd(found));
        }
        Ok(if header.status == b'c' { PartAt::Voted(next) } else { PartAt::Transaction(txn) })
    }

    /// The transaction at `pos` that ends at `next`, if only the length in its header is wrong.
    fn with_length_at_end(&mut self, pos: u64, next: u64) -> Result<Option<FoundTxn>> {
        let Some(tend) = next.checked_sub(TRAILER_LEN as u64) else { return Ok(None) };
        let Some(header) = self.bytes(pos, TXN_HEADER_LEN)?.first_chunk().map(TxnHeader::decode) else {
            return Ok(None);
        };
        let len = be_u64(self.beside(tend, TRAILER_LEN)?.as_slice())
            .filter(|len| pos.checked_add(*len) == Some(tend));
        let Some(len) = len.filter(|len| *len >= header.head_len() && header.status != b'c') else {
            return Ok(None);
        };
        let wrong_len = Some(WrongLen::InHeader(header.len));
        let txn = FoundTxn { pos, header: TxnHeader { len, ..header }, wrong_len };
        Ok(self.is_filled(&txn)?.then_some(txn))
    }

    /// Whether the records fill the transaction: then its length is right.
    fn is_filled(&mut self, txn: &FoundTxn) -> Result<bool> {
        let mut cursor = self.records(txn);
        loop {
            match self.next_record(&mut cursor)? {
                Some(RecordPart::Record(_)) => {}
                Some(RecordPart::Damage(_)) => return Ok(false),
                None => return Ok(true),
            }
        }
    }

    /// User, description and extension.
    pub fn meta(&mut self, txn: &FoundTxn) -> Result<TransactionMeta> {
        let bytes = self.bytes(txn.pos + TXN_HEADER_LEN as u64, txn.header.meta_len())?.to_vec();
        Ok(txn.header.split_meta(bytes))
    }

    /// The records of a transaction. One with the status `u` has none that count.
    pub fn records(&self, txn: &FoundTxn) -> RecordCursor {
        RecordCursor { tpos: txn.pos, pos: txn.first(), end: txn.tend() }
    }

    /// The next record, or damage; `None` behind the last one. Errors: `Io` alone.
    pub fn next_record(&mut self, cursor: &mut RecordCursor) -> Result<Option<RecordPart>> {
        let RecordCursor { tpos, pos, end } = *cursor;
        if pos >= end {
            return Ok(None);
        }
        let what = match self.record_at(pos, tpos, end)? {
            Ok(record) => {
                cursor.pos = pos + record.header.record_len();
                return Ok(Some(RecordPart::Record(record)));
            }
            Err(what) => what,
        };
        cursor.pos = self.next_header(tpos, pos + 1, end)?;
        Ok(Some(RecordPart::Damage(Damage { pos, end: cursor.pos, what })))
    }

    fn record_at(
        &mut self,
        pos: u64,
        tpos: u64,
        end: u64,
    ) -> Result<std::result::Result<FoundRecord, String>> {
        let len_min = DATA_HEADER_LEN + BACK_LEN;
        let Some((head, rest)) = self.bytes(pos, len_min)?.split_first_chunk::<DATA_HEADER_LEN>() else {
            return Ok(Err("a data record is expected here, the file ends".into()));
        };
        let header = DataHeader::decode(head);
        if header.tloc != tpos {
            let what = format!("a data record of the transaction at {tpos} is expected here");
            return Ok(Err(what));
        }
        if header.version_len != 0 {
            return Ok(Err("the record belongs to a version, which ZODB has not had since 3.9".into()));
        }
        if pos.saturating_add(header.record_len()) > end {
            let what =
                format!("the data of {} bytes exceeds the transaction, which ends at {end}", header.data_len);
            return Ok(Err(what));
        }
        let back = if header.data_len == 0 { be_u64(rest).unwrap_or(0) } else { 0 };
        Ok(Ok(FoundRecord { pos, header, back }))
    }

    /// The position of the next data header of this transaction from `from` on: each has the transaction's position in
    /// it. The end of the transaction if there is none.
    fn next_header(&mut self, tpos: u64, from: u64, end: u64) -> Result<u64> {
        /// Where the transaction's position is in a data header.
        const AT: u64 = 24;
        let pattern = tpos.to_be_bytes();
        let mut pos = from.saturating_add(AT);
        while pos + pattern.len() as u64 <= end {
            let want = usize::try_from(end - pos).unwrap_or(usize::MAX).min(FIRST_LEN);
            let bytes = self.bytes(pos, want)?;
            let found = memchr::memmem::find(bytes, &pattern).map(|at| pos + at as u64);
            let searched = bytes.len() as u64;
            if let Some(found) = found {
                if self.record_at(found - AT, tpos, end)?.is_ok() {
                    return Ok(found - AT);
                }
                pos = found + 1;
            } else if searched < want as u64 {
                break;
            } else {
                pos += searched.saturating_sub(pattern.len() as u64 - 1).max(1);
            }
        }
        Ok(end)
    }

    /// The record's own data, which must not be empty. `apart` is for long ones.
    ///
    /// Errors: `Io`; `Corrupt` if the file has become shorter.
    pub fn data<'s>(&'s mut self, record: &FoundRecord, apart: &'s mut Vec<u8>) -> Result<&'s [u8]> {
        let FoundRecord { pos, header, .. } = record;
        let log = self.file.log();
        if header.data_len > WINDOWED_LEN_MAX {
            apart.clear();
            log.read_data(*pos, header, apart)?;
            return Ok(apart);
        }
        let len = usize::try_from(header.data_len).unwrap_or(usize::MAX);
        let bytes = self.bytes(pos + DATA_HEADER_LEN as u64, len)?;
        if bytes.len() < len {
            return Err(log.corrupt(*pos, "the file has become shorter while it was read"));
        }
        Ok(bytes)
    }

    fn bytes(&mut self, pos: u64, want: usize) -> Result<&[u8]> {
        self.window.get(pos, want).map_err(self.file.log().io("reading", pos))
    }

    /// Bytes that may be far behind the next read, so the window is not moved.
    fn beside(&self, pos: u64, want: usize) -> Result<Vec<u8>> {
        if let Some(bytes) = self.window.peek(pos, want) {
            return Ok(bytes.to_vec());
        }
        let log = self.file.log();
        let mut bytes = vec![0; want];
        let len = log.file().read_at(&mut bytes, pos).map_err(log.io("reading", pos))?;
        bytes.truncate(len);
        Ok(bytes)
    }

    fn is_zero_from(&mut self, mut pos: u64) -> Result<bool> {
        loop {
            match self.bytes(pos, FIRST_LEN)? {
                [] => return Ok(true),
                bytes if bytes.iter().any(|&byte| byte != 0) => return Ok(false),
                bytes => pos += bytes.len() as u64,
            }
        }
    }
}

/// What begins at a position.
enum PartAt {
    Transaction(FoundTxn),
    /// A whole transaction that was not finished, and the position behind it.
    Voted(u64),
    Ending(EndingKind),
    /// No transaction, for this reason.
    Wrong(String),
}
