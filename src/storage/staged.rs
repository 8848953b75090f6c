//! What a client has stored in its open transaction: buffered here until vote, touching nothing else.
//!
//! Payloads lie one after another, each behind [`HEADROOM`] zero bytes into which a storage can write its own
//! record header, so that a file storage appends the whole without copying it again. Past a limit they are
//! spilled to an unnamed temporary file, in the same layout.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::types::TransactionMeta;
use crate::base::ids::{Oid, Tid};

/// Zero bytes in front of each payload: the length of a data header of FileStorage.
pub const HEADROOM: usize = 42;

/// A transaction between tpc_begin and vote.
#[derive(Debug)]
pub struct Staged {
    pub meta: TransactionMeta,
    /// The tid that the transaction is to have, if a copier brings it.
    pub tid: Option<Tid>,
    pub status: u8,
    /// The client runs Python 2: decides the format of a file whose first transaction this is.
    pub python2: bool,
    ops: Vec<Op>,
    /// What is not spilled yet; begins at offset `spilled`.
    memory: Vec<u8>,
    spilled: u64,
    spill: Option<File>,
    memory_max: usize,
}

/// One operation of a transaction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Op {
    pub oid: Oid,
    pub kind: OpKind,
    /// Where the headroom begins; meaningless if the operation has no payload.
    pub start: u64,
    /// Bytes of payload behind the headroom.
    pub len: u64,
}

/// What an operation does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OpKind {
    /// A new state; `serial` is the one that the client started from, zero for a new object.
    Store { serial: Tid },
    /// `deleteObject`; the payload is 8 zero bytes, the back-pointer to nothing.
    Delete { serial: Tid },
    /// A copied record with its own serial. Without data the payload is 8 zero bytes.
    Restore { serial: Tid, prev_txn: Option<Tid>, has_data: bool },
    /// `checkCurrentSerialInTransaction`; no payload.
    CheckCurrent { serial: Tid },
}

impl Staged {
    /// An empty transaction that keeps at most `memory_max` bytes of payloads in memory.
    pub fn new(meta: TransactionMeta, tid: Option<Tid>, status: u8, memory_max: usize) -> Staged {
        Staged {
            meta,
            tid,
            status,
            python2: false,
            ops: Vec::new(),
            memory: Vec::new(),
            spilled: 0,
            spill: None,
            memory_max,
        }
    }

    pub fn store(&mut self, oid: Oid, serial: Tid, data: &[u8]) -> io::Result<()> {
        self.push(oid, OpKind::Store { serial }, data)
    }

    pub fn delete(&mut self, oid: Oid, serial: Tid) -> io::Result<()> {
        self.push(oid, OpKind::Delete { serial }, &[0; 8])
    }

    pub fn restore(
        &mut self,
        oid: Oid,
        serial: Tid,
        data: Option<&[u8]>,
        prev_txn: Option<Tid>,
    ) -> io::Result<()> {
        let kind = OpKind::Restore { serial, prev_txn, has_data: data.is_some() };
        self.push(oid, kind, data.unwrap_or(&[0; 8]))
    }

    pub fn check_current(&mut self, oid: Oid, serial: Tid) {
        self.ops.push(Op { oid, kind: OpKind::CheckCurrent { serial }, start: self.spilled, len: 0 });
    }

    fn push(&mut self, oid: Oid, kind: OpKind, payload: &[u8]) -> io::Result<()> {
        let start = self.spilled + self.memory.len() as u64;
        self.memory.resize(self.memory.len() + HEADROOM, 0);
        self.memory.extend_from_slice(payload);
        self.ops.push(Op { oid, kind, start, len: payload.len() as u64 });
        if self.memory.len() > self.memory_max {
            self.spill_memory()?;
        }
        Ok(())
    }

    fn spill_memory(&mut self) -> io::Result<()> {
        if self.spill.is_none() {
            self.spill = Some(tempfile::tempfile()?);
        }
        if let Some(file) = &self.spill {
            file.write_all_at(&self.memory, self.spilled)?;
        }
        self.spilled += self.memory.len() as u64;
        self.memory.clear();
        Ok(())
    }

    /// The operations in the order in which the client sent them.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// Headrooms and payloads, in bytes.
    pub fn payload_len(&self) -> u64 {
        self.spilled + self.memory.len() as u64
    }

    /// The whole area of headrooms and payloads, if it is in memory.
    pub fn payload_in_memory(&mut self) -> Option<&mut Vec<u8>> {
        self.spill.is_none().then_some(&mut self.memory)
    }

    /// Read a part of the area of headrooms and payloads.
    pub fn read_at(&self, buf: &mut [u8], pos: u64) -> io::Result<()> {
        let mut done = 0;
        if let Some(file) = &self.spill
            && pos < self.spilled
        {
            done = buf.len().min((self.spilled - pos) as usize);
            file.read_exact_at(&mut buf[..done], pos)?;
        }
        if done < buf.len() {
            let from = (pos + done as u64 - self.spilled) as usize;
            let part = self.memory.get(from..from + buf.len() - done);
            buf[done..].copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spilled_and_in_memory_read_alike() {
        let mut small = Staged::new(TransactionMeta::default(), None, b' ', 100);
        let mut large = Staged::new(TransactionMeta::default(), None, b' ', 1 << 20);
        for i in 0..20u64 {
            let data = vec![i as u8; 10 * i as usize];
            small.store(Oid(i), Tid::ZERO, &data).unwrap();
            large.store(Oid(i), Tid::ZERO, &data).unwrap();
        }
        assert!(small.payload_in_memory().is_none());
        assert_eq!(small.ops(), large.ops());
        let mut a = vec![0; small.payload_len() as usize];
        let mut b = a.clone();
        small.read_at(&mut a, 0).unwrap();
        large.read_at(&mut b, 0).unwrap();
        assert_eq!(a, b);
    }
}
