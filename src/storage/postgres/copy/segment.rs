//! A part of a copy, as it is sent.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use md5::{Digest, Md5};

use super::super::shared::number;
use crate::base::ids::{Oid, Tid};
use crate::postgres::BinaryRows;
use crate::storage::blob::StagedBlob;
use crate::storage::{Refusal, Result, StorageError, TransactionMeta};

/// Bytes of one part, unless a single record is longer.
const LEN_MAX: usize = 8 << 20;
/// Blobs of one part: each is an open file.
const BLOBS_MAX: usize = 100;
/// PostgreSQL has no longer values.
const STATE_MAX: usize = (1 << 30) - (64 << 10);

/// Rows of one or more transactions, or of a part of a large one.
#[derive(Default)]
pub struct Segment {
    pub transactions: BinaryRows,
    pub states: BinaryRows,
    /// Each object once.
    pub objects: Vec<ChangedObject>,
    /// Where an object is in `objects`.
    at: HashMap<i64, usize>,
    pub blobs: Vec<CopiedBlob>,
    blobs_len: u64,
    /// The last transaction, if it is complete.
    pub ends_at: Option<Tid>,
}

/// What a segment does to an object.
pub struct ChangedObject {
    pub oid: i64,
    /// The newest revision.
    pub tid: i64,
    /// Place in `states` for the revision before the first one; none is there yet.
    pub former_at: usize,
}

/// A blob and its revision.
pub struct CopiedBlob {
    pub oid: Oid,
    pub tid: Tid,
    pub blob: StagedBlob,
}

impl Segment {
    pub fn is_empty(&self) -> bool {
        self.transactions.is_empty() && self.states.is_empty() && self.blobs.is_empty()
    }

    pub fn is_full(&self) -> bool {
        let len = self.states.len() + self.transactions.len();
        len >= LEN_MAX || self.blobs_len >= LEN_MAX as u64 || self.blobs.len() >= BLOBS_MAX
    }

    /// The states that follow are those of this transaction.
    pub fn add_transaction(&mut self, tid: Tid, is_packed: bool, meta: &TransactionMeta) {
        self.ends_at = None;
        let rows = &mut self.transactions;
        rows.begin(5);
        rows.int8(tid.0 as i64);
        rows.bool(is_packed);
        rows.bytes(&meta.user);
        rows.bytes(&meta.description);
        rows.bytes(&meta.extension);
    }

    /// Adds a revision, of an object that the transaction has no other one of.
    pub fn add_state(&mut self, oid: Oid, tid: Tid, data: Option<&[u8]>) -> Result<()> {
        if data.is_some_and(|data| data.len() > STATE_MAX) {
            let message = format!("the object 0x{oid} is too long for a row of PostgreSQL");
            return Err(StorageError::Refused { what: Refusal::TransactionTooLarge, message });
        }
        let (oid, tid) = (number(oid)?, tid.0 as i64);
        let rows = &mut self.states;
        rows.begin(6);
        rows.int8(oid);
        rows.int8(tid);
        match self.at.entry(oid) {
            Entry::Occupied(at) => {
                if let Some(object) = self.objects.get_mut(*at.get()) {
                    rows.int8(object.tid);
                    object.tid = tid;
                }
            }
            Entry::Vacant(at) => {
                at.insert(self.objects.len());
                let former_at = rows.int8(0);
                self.objects.push(ChangedObject { oid, tid, former_at });
            }
        }
        match data {
            Some(data) => {
                rows.bytes(&hex_digits(&Md5::digest(data)));
                rows.int8(data.len() as i64);
                rows.bytes(data);
            }
            None => {
                rows.null();
                rows.int8(0);
                rows.null();
            }
        }
        Ok(())
    }

    /// Adds a blob whose revision was added to this segment or an earlier one.
    pub fn add_blob(&mut self, oid: Oid, tid: Tid, blob: StagedBlob) -> Result<()> {
        self.blobs_len += blob.read().map_err(StorageError::io("reading a blob"))?.len;
        self.blobs.push(CopiedBlob { oid, tid, blob });
        Ok(())
    }
}

/// Clients of RelStorage compare states by these when they undo.
fn hex_digits(sum: &[u8]) -> [u8; 32] {
    let mut digits = [0; 32];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(sum) {
        for (digit, value) in pair.iter_mut().zip([byte >> 4, byte & 15]) {
            *digit = if value < 10 { b'0' + value } else { b'a' + value - 10 };
        }
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_written_in_hex_digits() {
        assert_eq!(&hex_digits(&Md5::digest(b"")), b"d41d8cd98f00b204e9800998ecf8427e");
    }
}
