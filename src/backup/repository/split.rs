//! Splits a stretch of a `Data.fs` into its content without positions, and the positions.
//!
//! ```text
//! content    the bytes of the file, with zeros in place of prev, tloc and back-pointer of each data record
//! pointers   for each part of the stretch
//!              a transaction: 0, then for each data record the distance of prev and, if it has no data, of its
//!                back-pointer: the position of the record less the pointer; 0 if the pointer is 0
//!              other bytes, which are as in the file: 1, their number
//!            all numbers in LEB128: 7 bits a byte, the lowest first, the highest bit says that more follow
//! ```
//!
//! `tloc` is the position of the transaction, so it needs no place. A transaction whose pointers cannot be written like
//! this (they lead forwards), or whose lengths are wrong, and bytes that belong to none, are other bytes: what is
//! damaged comes back as it is. `join` is the way back.

use super::blob_list::Revision;
use super::error::Result;
use crate::base::ids::{Oid, Tid};
use crate::inspect::data_file::DataFile;
use crate::inspect::record::plain;
use crate::inspect::walk::{FoundRecord, FoundTxn, Part, RecordPart, Walk};
use crate::pickle::record::{is_blob, may_be_blob};
use crate::storage::Result as StorageResult;
use crate::storage::file::format::DataHeader;

/// A transaction without positions.
pub const TRANSACTION: u64 = 0;
/// Bytes as they are.
pub const OTHER: u64 = 1;

/// What a stretch consists of.
#[derive(Debug, Default)]
pub struct Stretch {
    pub pointers: Vec<u8>,
    /// Where it ends.
    pub end: u64,
    /// Of its first and its last transaction; zero if it has none.
    pub first: Tid,
    pub last: Tid,
    /// The last transaction before which a pack has removed revisions; zero if there is none.
    pub packed: Tid,
    /// The greatest id of its records.
    pub oid_max: Oid,
    /// The blobs of its records.
    pub blobs: Vec<Revision>,
    /// What was found damaged, with positions.
    pub damage: Vec<String>,
}

/// Number of findings that are kept for each stretch.
const DAMAGE_MAX: usize = 100;

/// Reads the parts of a file from `start` on, until `end` is reached, or `len_max` bytes after `start`, or what is not
/// a whole transaction at the end of the file. The content goes to `out`.
pub fn split(
    file: &DataFile,
    start: u64,
    end: u64,
    len_max: u64,
    out: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<Stretch> {
    let mut splitting = Splitting {
        file,
        walk: Walk::from(file, start),
        stretch: Stretch { end: start, ..Stretch::default() },
        out,
        apart: Vec::new(),
    };
    while splitting.stretch.end < end && splitting.stretch.end - start < len_max {
        let Some(part) = splitting.walk.next_part()? else { break };
        // What is not whole at the end of the file is no part of the stretch: a server may be writing it.
        if matches!(part, Part::Ending(_)) {
            break;
        }
        let next = splitting.walk.pos().min(end);
        splitting.part(&part, next)?;
        splitting.stretch.end = next;
    }
    Ok(splitting.stretch)
}

struct Splitting<'a> {
    file: &'a DataFile,
    walk: Walk<'a>,
    stretch: Stretch,
    out: &'a mut dyn FnMut(&[u8]) -> Result<()>,
    /// For long records.
    apart: Vec<u8>,
}

impl Splitting<'_> {
    fn part(&mut self, part: &Part, next: u64) -> Result<()> {
        match part {
            Part::Transaction(txn) => {
                if self.stretch.first == Tid::ZERO {
                    self.stretch.first = txn.header.tid;
                }
                self.stretch.last = self.stretch.last.max(txn.header.tid);
                if txn.header.status == b'p' {
                    self.stretch.packed = self.stretch.packed.max(txn.header.tid);
                }
                if self.is_regular(txn)? {
                    return self.transaction(txn);
                }
                self.damaged(txn.pos, "a transaction is not as it should be");
                self.other(txn.pos, next)
            }
            Part::Damage(damage) => {
                self.damaged(damage.pos, &damage.what);
                self.other(damage.pos, next)
            }
            Part::Ending(_) => Ok(()),
        }
    }

    fn damaged(&mut self, pos: u64, what: &str) {
        if self.stretch.damage.len() < DAMAGE_MAX {
            self.stretch.damage.push(format!("at {pos}: {what}"));
        }
    }

    /// Whether all that is left out can be put back.
    fn is_regular(&mut self, txn: &FoundTxn) -> Result<bool> {
        if txn.wrong_len.is_some() {
            return Ok(false);
        }
        let mut cursor = self.walk.records(txn);
        while let Some(part) = self.walk.next_record(&mut cursor)? {
            let RecordPart::Record(record) = part else { return Ok(false) };
            if record.header.prev >= record.pos || record.back >= record.pos {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn transaction(&mut self, txn: &FoundTxn) -> Result<()> {
        put_number(&mut self.stretch.pointers, TRANSACTION);
        let meta = self.walk.meta(txn)?;
        let head = [&txn.header.encode()[..], &meta.user, &meta.description, &meta.extension].concat();
        (self.out)(&head)?;
        let mut cursor = self.walk.records(txn);
        while let Some(RecordPart::Record(record)) = self.walk.next_record(&mut cursor)? {
            self.record(&record)?;
        }
        (self.out)(&txn.header.len.to_be_bytes())
    }

    fn record(&mut self, record: &FoundRecord) -> Result<()> {
        let FoundRecord { pos, header, back } = *record;
        self.stretch.oid_max = self.stretch.oid_max.max(header.oid);
        let distance = |pointer: u64| if pointer == 0 { 0 } else { pos - pointer };
        put_number(&mut self.stretch.pointers, distance(header.prev));
        (self.out)(&DataHeader { prev: 0, tloc: 0, ..header }.encode())?;
        if header.data_len == 0 {
            put_number(&mut self.stretch.pointers, distance(back));
            (self.out)(&0u64.to_be_bytes())?;
            if back != 0 && self.is_blob_behind(record) {
                self.stretch.blobs.push(Revision { oid: header.oid, tid: header.tid });
            }
            return Ok(());
        }
        let data = self.walk.data(record, &mut self.apart)?;
        if is_blobs(data) {
            self.stretch.blobs.push(Revision { oid: header.oid, tid: header.tid });
        }
        (self.out)(data)
    }

    /// Whether the record with the data is a blob's. A back-pointer that leads to no record is copied like others.
    fn is_blob_behind(&mut self, record: &FoundRecord) -> bool {
        let found: StorageResult<_> =
            self.file.data_of(record.pos, &record.header, record.back, &mut self.apart);
        found.is_ok_and(|at| at.is_some()) && is_blobs(&self.apart)
    }

    fn other(&mut self, pos: u64, end: u64) -> Result<()> {
        put_number(&mut self.stretch.pointers, OTHER);
        put_number(&mut self.stretch.pointers, end - pos);
        let log = self.file.log();
        let mut chunk = vec![0; 64 << 10];
        let mut at = pos;
        while at < end {
            let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(chunk.len());
            let want = chunk.get_mut(..want).unwrap_or_default();
            let len = log.file().read_at(want, at).map_err(log.io("reading", at))?;
            if len == 0 {
                return Err(log.corrupt(at, "the file has become shorter while it was read").into());
            }
            (self.out)(chunk.get(..len).unwrap_or_default())?;
            at += len as u64;
        }
        Ok(())
    }
}

/// Whether a record is a blob's, also a compressed one.
fn is_blobs(data: &[u8]) -> bool {
    may_be_blob(data) && plain(data).is_ok_and(|data| is_blob(&data))
}

/// Appends a number in LEB128.
pub fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}
