//! An open transaction: operations are buffered here until vote and have no effect before.
//!
//! Payloads are one after another, each behind [`HEADROOM`] zero bytes for the storage's own record header, so that a
//! file storage can append the whole area without copying it again. Beyond a limit they are spilled to an unnamed
//! temporary file with the same layout.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::blob::StagedBlob;
use super::error::StorageError;
use super::types::TransactionMeta;
use crate::base::cancel::Cancel;
use crate::base::ids::{Oid, Tid};
use crate::base::memory;

/// Zero bytes in front of each payload: the room for the header that FileStorage writes there. It consists of the
/// object, the serial, three positions and lengths of 8 bytes, and one length of 2; `file::format` compares the sum.
pub(crate) const HEADROOM: usize =
    size_of::<Oid>() + size_of::<Tid>() + 3 * size_of::<u64>() + size_of::<u16>();

/// Where the conflicts are merged that a vote finds.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Merging {
    /// In the storage's resolver, which may wait for another process.
    #[default]
    Waiting,
    /// In the storage's resolver, if it need not wait. Otherwise the transaction comes back in
    /// [`NotVoted::Postponed`](super::NotVoted::Postponed).
    AtOnce,
    /// By the client, which gets all conflicts from [`NotVoted::Unmerged`](super::NotVoted::Unmerged).
    ByClient,
}

/// A transaction between tpc_begin and vote.
#[derive(Debug)]
pub struct Staged {
    /// User, description and extension.
    pub meta: TransactionMeta,
    /// The tid of a transaction that a copier brings; `None`: the storage assigns one.
    pub tid: Option<Tid>,
    /// The status in the transaction's header: `b' '`; a copied transaction keeps its status.
    pub status: u8,
    is_python2: bool,
    merging: Merging,
    /// Cancelled when the client gives up the transaction: waiting for another process then ends.
    pub cancel: Cancel,
    /// What the storage has begun before the vote, for an undo that is answered at once. Dropped with the transaction.
    pub(crate) begun: Option<Box<dyn std::any::Any + Send + Sync>>,
    ops: Vec<Op>,
    /// Blobs, at most one for each object.
    blobs: Vec<(Oid, StagedBlob)>,
    /// Index in `blobs` of an object's blob.
    blob_at: HashMap<Oid, usize>,
    /// The payloads that are not spilled; begins at offset `spilled`.
    memory: Vec<u8>,
    spilled: u64,
    spill: Option<Spill>,
    /// `None`: temporary files are not counted.
    permits: Option<Box<dyn FilePermits>>,
    memory_max: usize,
    /// Payloads are not in the order of the operations, or not all belong to one.
    rearranged: bool,
}

/// One operation of a transaction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Op {
    /// The object; meaningless for an undo.
    pub oid: Oid,
    /// What is done.
    pub kind: OpKind,
    /// Where the headroom begins; meaningless if the operation has no payload.
    pub start: u64,
    /// Bytes of payload behind the headroom.
    pub len: u64,
}

/// The kinds of operations.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OpKind {
    /// `store`: a new state, which is the payload.
    Store {
        /// The revision that the client started from; zero for a new object.
        serial: Tid,
    },
    /// `deleteObject`; the payload is 8 zero bytes, the back-pointer to nothing.
    Delete {
        /// The revision that the client has seen.
        serial: Tid,
    },
    /// `restore`: a copied record with its own serial. Without data the payload is 8 zero bytes.
    Restore {
        /// The serial of the record.
        serial: Tid,
        /// A transaction that has the same data for the object, if the copier knows one.
        prev_txn: Option<Tid>,
        /// Whether there is a state; if not, the object is deleted or its creation undone.
        has_data: bool,
    },
    /// `checkCurrentSerialInTransaction`; no payload.
    CheckCurrent {
        /// The revision that must be current.
        serial: Tid,
    },
    /// Takes back what a transaction did; no payload.
    Undo {
        /// The transaction.
        tid: Tid,
    },
}

/// Decides whether a transaction may open a temporary file.
pub trait FilePermits: std::fmt::Debug + Send + Sync {
    /// The permit is kept as long as the file is open.
    fn take(&self) -> io::Result<Box<dyn FilePermit>>;
}

/// The permission of [`FilePermits`] for one open file.
pub trait FilePermit: std::fmt::Debug + Send + Sync {}

/// A temporary file.
#[derive(Debug)]
struct Spill {
    file: File,
    _permit: Option<Box<dyn FilePermit>>,
}

impl Staged {
    /// An empty transaction that keeps at most `memory_max` bytes of payloads in memory.
    pub fn new(meta: TransactionMeta, tid: Option<Tid>, status: u8, memory_max: usize) -> Staged {
        Staged {
            meta,
            tid,
            status,
            is_python2: false,
            merging: Merging::default(),
            cancel: Cancel::default(),
            begun: None,
            ops: Vec::new(),
            blobs: Vec::new(),
            blob_at: HashMap::new(),
            memory: Vec::new(),
            spilled: 0,
            spill: None,
            permits: None,
            memory_max,
            rearranged: false,
        }
    }

    /// Whether the client runs Python 2. The first transaction of a file decides its format by this.
    pub fn is_python2(&self) -> bool {
        self.is_python2
    }

    /// Sets [`Staged::is_python2`], which is false at first.
    pub fn set_python2(&mut self, is_python2: bool) {
        self.is_python2 = is_python2;
    }

    /// Where conflicts are merged.
    pub fn merging(&self) -> Merging {
        self.merging
    }

    /// Sets [`Staged::merging`], which is [`Merging::Waiting`] at first.
    pub fn set_merging(&mut self, merging: Merging) {
        self.merging = merging;
    }

    /// Makes the transaction ask `permits` before it opens its temporary file.
    pub(crate) fn count_file(&mut self, permits: impl FilePermits + 'static) {
        self.permits = Some(Box::new(permits));
    }

    /// Adds a `store` of the record `data`. `serial`: the revision that the client started from; zero for a new object.
    ///
    /// Errors, here and below: the temporary file cannot be written.
    pub fn store(&mut self, oid: Oid, serial: Tid, data: &[u8]) -> io::Result<()> {
        self.push(oid, OpKind::Store { serial }, data)
    }

    /// A new state with a blob. Clients store the record alone just before; it is kept only once.
    pub fn store_blob(&mut self, oid: Oid, serial: Tid, data: &[u8], blob: StagedBlob) -> io::Result<()> {
        if !self.has_just_stored(oid, serial, data)? {
            self.store(oid, serial, data)?;
        }
        self.add_blob(oid, blob);
        Ok(())
    }

    /// Adds the blob of an object whose record is stored separately.
    pub fn add_blob(&mut self, oid: Oid, blob: StagedBlob) {
        self.remove_blob(oid);
        self.blob_at.insert(oid, self.blobs.len());
        self.blobs.push((oid, blob));
    }

    /// Removes the blob of an object.
    pub(crate) fn remove_blob(&mut self, oid: Oid) {
        let Some(at) = self.blob_at.remove(&oid).filter(|at| *at < self.blobs.len()) else { return };
        self.blobs.swap_remove(at);
        if let Some((moved, _)) = self.blobs.get(at) {
            self.blob_at.insert(*moved, at);
        }
    }

    /// The blobs and their objects.
    pub fn blobs(&self) -> &[(Oid, StagedBlob)] {
        &self.blobs
    }

    /// As `blobs`, for placing them.
    pub fn blobs_mut(&mut self) -> &mut [(Oid, StagedBlob)] {
        &mut self.blobs
    }

    /// Takes the blobs out, for a storage that keeps them separately.
    pub fn take_blobs(&mut self) -> Vec<(Oid, StagedBlob)> {
        self.blob_at.clear();
        std::mem::take(&mut self.blobs)
    }

    /// Whether the last operation was this store.
    fn has_just_stored(&self, oid: Oid, serial: Tid, data: &[u8]) -> io::Result<bool> {
        let Some(last) = self.ops.last() else { return Ok(false) };
        if last.oid != oid || last.kind != (OpKind::Store { serial }) || last.len != data.len() as u64 {
            return Ok(false);
        }
        let mut stored = memory::zeros(data.len())?;
        self.read_at(&mut stored, last.start + HEADROOM as u64)?;
        Ok(stored == data)
    }

    /// Adds a `deleteObject`. `serial`: the revision that the client has seen.
    pub fn delete(&mut self, oid: Oid, serial: Tid) -> io::Result<()> {
        self.push(oid, OpKind::Delete { serial }, &[0; 8])
    }

    /// Adds a `restore` of a copied record, whose serial is `serial`. `data`: `None` for a deletion; `prev_txn`: a
    /// transaction that has the same data for the object.
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

    /// Adds a `checkCurrentSerialInTransaction`: the transaction depends on revision `serial` of an object.
    pub fn check_current(&mut self, oid: Oid, serial: Tid) {
        self.ops.push(Op { oid, kind: OpKind::CheckCurrent { serial }, start: self.spilled, len: 0 });
    }

    /// Adds the undo of transaction `tid`.
    pub fn undo(&mut self, tid: Tid) {
        self.ops.push(Op { oid: Oid::ZERO, kind: OpKind::Undo { tid }, start: self.spilled, len: 0 });
    }

    /// Whether there is an undo among the operations.
    pub(crate) fn has_undo(&self) -> bool {
        self.ops.iter().any(|op| matches!(op.kind, OpKind::Undo { .. }))
    }

    /// Removes the last operation if it is an undo, which has no payload.
    pub(crate) fn forget_undo(&mut self) {
        if let Some(Op { kind: OpKind::Undo { .. }, .. }) = self.ops.last() {
            self.ops.pop();
        }
    }

    /// Adds a payload without operation, such as a state that an undo has merged. Returns where its headroom begins.
    pub(crate) fn add_payload(&mut self, payload: &[u8]) -> io::Result<u64> {
        self.rearranged = true;
        self.append(payload)
    }

    /// Gives operation `index` another payload, as if the client had sent it. The former payload stays unused, so
    /// payloads are not in the order of the operations any more.
    pub(crate) fn replace(&mut self, index: usize, payload: &[u8]) -> io::Result<Op> {
        let start = self.append(payload)?;
        self.rearranged = true;
        let op = self.ops.get_mut(index).ok_or(io::ErrorKind::InvalidInput)?;
        (op.start, op.len) = (start, payload.len() as u64);
        Ok(*op)
    }

    /// Reverts [`Staged::replace`]: operation `index` is `op` again.
    pub(crate) fn put_back(&mut self, index: usize, op: Op) {
        if let Some(replaced) = self.ops.get_mut(index) {
            *replaced = op;
        }
    }

    /// Calls `change` with the number and kind of each operation. The result is its new kind; the payload stays. `None`
    /// removes the operation, and its payload stays unused.
    pub(crate) fn change_ops(&mut self, mut change: impl FnMut(usize, OpKind) -> Option<OpKind>) {
        let mut index = 0;
        let rearranged = &mut self.rearranged;
        self.ops.retain_mut(|op| {
            let kind = change(index, op.kind);
            index += 1;
            match kind {
                Some(kind) => op.kind = kind,
                None => *rearranged |= op.len > 0,
            }
            kind.is_some()
        });
    }

    /// The same transaction, with `form` applied to every record.
    pub fn map_records(
        mut self,
        mut form: impl FnMut(Oid, &[u8]) -> super::Result<Vec<u8>>,
    ) -> super::Result<Staged> {
        let ops = std::mem::take(&mut self.ops);
        let mut before = Staged::new(TransactionMeta::default(), None, b' ', self.memory_max);
        std::mem::swap(&mut before.memory, &mut self.memory);
        (before.spilled, self.spilled) = (self.spilled, 0);
        before.spill = self.spill.take();
        self.rearranged = false;
        let writing = || StorageError::io("buffering a transaction in the temporary directory");
        for op in ops {
            match op.kind {
                OpKind::Store { .. } | OpKind::Restore { has_data: true, .. } => {
                    let record = form(op.oid, &before.payload(&op)?)?;
                    self.push(op.oid, op.kind, &record).map_err(writing())?;
                }
                OpKind::Delete { .. } | OpKind::Restore { has_data: false, .. } => {
                    let payload = before.payload(&op)?;
                    self.push(op.oid, op.kind, &payload).map_err(writing())?;
                }
                OpKind::CheckCurrent { .. } | OpKind::Undo { .. } => {
                    self.ops.push(Op { start: self.payload_len(), ..op });
                }
            }
        }
        Ok(self)
    }

    fn push(&mut self, oid: Oid, kind: OpKind, payload: &[u8]) -> io::Result<()> {
        let start = self.append(payload)?;
        self.ops.push(Op { oid, kind, start, len: payload.len() as u64 });
        Ok(())
    }

    /// Appends a payload; returns where its headroom begins.
    fn append(&mut self, payload: &[u8]) -> io::Result<u64> {
        let start = self.spilled + self.memory.len() as u64;
        let len = self.memory.len() + HEADROOM + payload.len();
        memory::reserve(&mut self.memory, len)?;
        self.memory.resize(self.memory.len() + HEADROOM, 0);
        self.memory.extend_from_slice(payload);
        if self.memory.len() > self.memory_max {
            self.spill_memory()?;
        }
        Ok(start)
    }

    fn spill_memory(&mut self) -> io::Result<()> {
        if self.spill.is_none() {
            let permit = self.permits.as_ref().map(|permits| permits.take()).transpose()?;
            self.spill = Some(Spill { file: tempfile::tempfile()?, _permit: permit });
        }
        if let Some(Spill { file, .. }) = &self.spill {
            file.write_all_at(&self.memory, self.spilled)?;
        }
        self.spilled += self.memory.len() as u64;
        self.memory.clear();
        // The memory of a single large record must not be kept for small ones.
        self.memory.shrink_to(2 * self.memory_max);
        Ok(())
    }

    /// Removes all operations, and frees their memory and file.
    pub(crate) fn clear(&mut self) {
        (self.ops, self.blobs, self.memory) = (Vec::new(), Vec::new(), Vec::new());
        self.blob_at = HashMap::new();
        (self.spill, self.spilled) = (None, 0);
    }

    /// The operations in the order in which the client sent them.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// Bytes of headrooms and payloads.
    pub fn payload_len(&self) -> u64 {
        self.spilled + self.memory.len() as u64
    }

    /// The whole area of headrooms and payloads, if it is in memory and in the order of the operations.
    pub(crate) fn payload_in_memory(&mut self) -> Option<&mut Vec<u8>> {
        (self.spill.is_none() && !self.rearranged).then_some(&mut self.memory)
    }

    /// The payload of an operation.
    pub fn payload(&self, op: &Op) -> super::Result<Vec<u8>> {
        self.payload_at(op.start, op.len)
    }

    /// The payload of `len` bytes whose headroom begins at `start`.
    pub(crate) fn payload_at(&self, start: u64, len: u64) -> super::Result<Vec<u8>> {
        let read = || {
            let mut data = memory::zeros(usize::try_from(len).unwrap_or(usize::MAX))?;
            self.read_at(&mut data, start + HEADROOM as u64)?;
            Ok(data)
        };
        read().map_err(StorageError::io("reading back a transaction's temporary file"))
    }

    /// Reads a part of the area of headrooms and payloads.
    pub(crate) fn read_at(&self, buf: &mut [u8], pos: u64) -> io::Result<()> {
        let len = self.spilled.saturating_sub(pos).min(buf.len() as u64) as usize;
        let (spilled, kept) = buf.split_at_mut(len);
        if let Some(Spill { file, .. }) = &self.spill
            && !spilled.is_empty()
        {
            file.read_exact_at(spilled, pos)?;
        }
        if !kept.is_empty() {
            let from = (pos + len as u64 - self.spilled) as usize;
            let part = self.memory.get(from..from + kept.len());
            kept.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
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

    #[test]
    fn a_replaced_payload_is_read_in_place_of_the_first() {
        for memory_max in [1, 1 << 20] {
            let mut staged = Staged::new(TransactionMeta::default(), None, b' ', memory_max);
            staged.store(Oid(1), Tid::ZERO, b"first").unwrap();
            staged.store(Oid(2), Tid::ZERO, b"second").unwrap();
            let op = staged.replace(0, b"merged").unwrap();
            assert_eq!((op, op.oid), (staged.ops()[0], Oid(1)));
            assert_eq!(staged.payload(&op).unwrap(), b"merged");
            assert_eq!(staged.payload(&staged.ops()[1]).unwrap(), b"second");
        }
    }

    #[test]
    fn records_get_another_form() {
        for memory_max in [50, 1 << 20] {
            let mut staged = Staged::new(TransactionMeta::default(), None, b' ', memory_max);
            staged.store(Oid(1), Tid::ZERO, b"one").unwrap();
            staged.check_current(Oid(2), Tid(7));
            staged.delete(Oid(3), Tid(7)).unwrap();
            staged.store(Oid(4), Tid::ZERO, b"four").unwrap();
            staged.replace(0, b"other").unwrap();
            staged.restore(Oid(5), Tid(9), None, None).unwrap();
            assert!(staged.payload_in_memory().is_none());
            staged.change_ops(|index, kind| (index != 3).then_some(kind));
            let mut twice = staged.map_records(|_, record| Ok(record.repeat(2))).unwrap();
            let payloads: Vec<_> = twice.ops().iter().map(|op| twice.payload(op).unwrap()).collect();
            assert_eq!(payloads, [b"otherother".as_slice(), b"", &[0; 8], &[0; 8]]);
            assert_eq!(twice.payload_in_memory().is_some(), memory_max > 50);
        }
    }
}
