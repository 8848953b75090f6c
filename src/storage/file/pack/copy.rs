//! Copying to `Data.fs.pack`: up to the pack time the reachable records, with data in place of back-pointers; from
//! there on everything, with its pointers adapted.
//!
//! The references of transactions that were committed after the search of `reach` are checked during the copy: none may
//! lead to an object that was left out.
//!
//! The index of reachable objects becomes the index of the new file: the entry of an object is an old position with a
//! mark until its record is copied, and a new position afterwards.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use log::warn;

use super::super::Core;
use super::super::format::{BACK_LEN, DATA_HEADER_LEN, DataHeader, MAGIC_LEN, TRAILER_LEN, TXN_HEADER_LEN};
use super::super::log::{Log, Record, TARGET};
use super::super::media::{Access, MediaFile};
use super::super::moved::Moved;
use super::super::volume::Volume;
use super::out::Out;
use super::reach::Reach;
use super::run::{PackRun, Stop};
use super::sequential::{FIRST, Sequential, Txn};
use crate::base::fs::with_suffix;
use crate::base::ids::{Oid, Tid};
use crate::storage::{Removals, Result, StorageError};

/// Bytes of one read.
const BUF_LEN: usize = 1 << 20;
/// The status of a transaction that was packed.
const PACKED: u8 = b'p';

/// Copies the kept records into the packed file.
pub struct Copier<'a> {
    core: &'a Core,
    pub old: Arc<Volume>,
    pub reach: Reach,
    out: Out,
    /// The old file is copied up to this position.
    old_pos: u64,
    /// The position in the new file of the first transaction after the pack time.
    new_pack_pos: u64,
    pub last_tid: Tid,
    moved: Moved,
}

impl<'a> Copier<'a> {
    pub fn begin(core: &'a Core, old: Arc<Volume>, reach: Reach) -> Result<Copier<'a>> {
        let mut magic = [0; MAGIC_LEN as usize];
        old.log.read_exact(&mut magic, 0)?;
        let path = with_suffix(&core.path, ".pack");
        let doing = || StorageError::io(format!("opening {}", path.display()));
        let file = core.media.open(&path, Access::Truncate).map_err(doing())?;
        let mut out = Out::new(file, format!("writing {}", path.display()));
        out.push(&magic)?;
        Ok(Copier {
            core,
            old,
            reach,
            out,
            old_pos: FIRST,
            new_pack_pos: FIRST,
            last_tid: Tid::ZERO,
            moved: Moved::default(),
        })
    }

    /// Removes the new file. Errors are logged already.
    pub fn discard(self) {
        let path = with_suffix(&self.core.path, ".pack");
        if let Err(error) = self.core.media.remove(&path) {
            warn!(target: TARGET, "removing {}: {error}", path.display());
        }
    }

    /// As in Python: false if the packed part is as long as before. (It may be longer, because of data in place of
    /// back-pointers.)
    pub fn changes_anything(&self) -> bool {
        self.new_pack_pos != self.reach.pack_pos
    }

    /// Bytes that are still to be copied.
    pub fn rest_len(&self) -> u64 {
        self.old.log.end() - self.old_pos
    }

    /// The new file and its end, all of it written.
    pub fn finished(&mut self) -> Result<(Arc<dyn MediaFile>, u64)> {
        self.out.finished()
    }

    pub fn sync(&mut self) -> Result<()> {
        self.out.sync()
    }

    pub fn copy_to_pack_time(
        &mut self,
        pack: &mut PackRun<'_>,
        removals: Option<&dyn Removals>,
    ) -> Result<()> {
        pack.phase("copying");
        let old = self.old.clone();
        let pack_pos = self.reach.pack_pos;
        let mut file = Sequential::new(&old.log, pack_pos);
        while let Some(txn) = file.txn(self.old_pos)? {
            self.copy_reachable(removals, &mut file, &txn)?;
            self.old_pos = txn.next;
            pack.at(2 * pack.request.progress.total.load(Ordering::Relaxed) / 3 + self.old_pos)?;
        }
        if let Some((oid, pos)) = self.reach.index.any_marked() {
            return Err(old.log.corrupt(pos, format!("a record of object 0x{oid} is expected here")));
        }
        self.new_pack_pos = self.out.end();
        self.moved.begin(self.reach.pack_pos, self.new_pack_pos);
        Ok(())
    }

    fn copy_reachable(
        &mut self,
        removals: Option<&dyn Removals>,
        file: &mut Sequential<'_>,
        txn: &Txn,
    ) -> Result<()> {
        let new_tpos = self.out.end();
        let mut pos = txn.first;
        let mut any = false;
        let mut apart = Vec::new();
        while pos < txn.tend {
            let record = file.record(txn, pos)?;
            let next = pos + record.header.record_len();
            if self.reach.keeps(record.header.oid, pos) {
                if !any {
                    self.push_txn_header(file, txn, PACKED)?;
                    any = true;
                }
                self.copy_resolved(file, pos, &record, new_tpos)?;
            } else if let Some(removals) = removals {
                let (to_come, kept) = self.reach.index.marked_pos(record.header.oid);
                // Of two records of an object in one transaction, the one that counts keeps the blob.
                let is_double = if to_come { kept < txn.tend } else { any && kept >= new_tpos };
                if !is_double && let Some(data) = file.resolved_data(pos, &record, &mut apart)? {
                    let tid = (kept != 0).then_some(record.header.tid);
                    removals.left_out(record.header.oid, tid, data)?;
                }
            }
            pos = next;
        }
        file.check_end(txn)?;
        if any {
            let len = self.out.end() - new_tpos;
            self.out.patch(new_tpos + 8, &len.to_be_bytes())?;
            self.out.push(&len.to_be_bytes())?;
            self.last_tid = txn.header.tid;
        }
        Ok(())
    }

    /// Copies a record with data in place of a back-pointer, and with `prev` 0.
    fn copy_resolved(
        &mut self,
        file: &mut Sequential<'_>,
        pos: u64,
        record: &Record,
        new_tpos: u64,
    ) -> Result<()> {
        let oid = record.header.oid;
        let here = self.out.end();
        let place = file.data_place(pos, record)?;
        let data_len = place.map_or(0, |(_, header)| header.data_len);
        let header = DataHeader { prev: 0, tloc: new_tpos, data_len, ..record.header };
        self.out.push(&header.encode())?;
        match place {
            Some((at, _)) if at == pos => self.push_from(file, at + DATA_HEADER_LEN as u64, data_len)?,
            // Read without the window, which would have to jump back and forth.
            Some((at, _)) => push_apart(&mut self.out, &self.old.log, at + DATA_HEADER_LEN as u64, data_len)?,
            None => self.out.push(&[0; BACK_LEN])?,
        }
        if let Some(new) = self.reach.pointed.get_mut(&pos) {
            *new = here;
        }
        // As in Python, the next revision will point to the record that was copied last. If the entry is a later
        // record, that one is not copied yet.
        let (to_come, at) = self.reach.index.marked_pos(oid);
        if !to_come || at == pos {
            self.reach.index.insert(oid, here, data_len);
        }
        Ok(())
    }

    /// Copies all whole transactions that are there now. `beside`: commits go on, and the pack may be stopped.
    pub fn copy_rest(&mut self, pack: &mut PackRun<'_>, beside: bool) -> std::result::Result<(), Stop> {
        let old = self.old.clone();
        let end = old.log.end();
        let mut file = Sequential::new(&old.log, end);
        let mut copied = Vec::new();
        while let Some(txn) = file.txn(self.old_pos)? {
            self.copy_txn(&mut file, &txn, &mut copied)?;
            if self.reach.searched_to.is_some_and(|searched_to| txn.pos >= searched_to) {
                self.check_references(pack, &mut file, &txn)?;
            }
            self.old_pos = txn.next;
            if beside {
                let total = pack.request.progress.total.load(Ordering::Relaxed);
                pack.at((2 * total / 3 + self.old_pos).min(total))?;
            }
        }
        Ok(())
    }

    fn copy_txn(
        &mut self,
        file: &mut Sequential<'_>,
        txn: &Txn,
        copied: &mut Vec<(Oid, u64, u64)>,
    ) -> Result<()> {
        let new_tpos = self.out.end();
        self.push_txn_header(file, txn, txn.header.status)?;
        let mut pos = txn.first;
        while pos < txn.tend {
            let record = file.record(txn, pos)?;
            let oid = record.header.oid;
            let here = self.out.end();
            self.moved.at(pos, here);
            let mut header = DataHeader { prev: self.reach.index.pos(oid), tloc: new_tpos, ..record.header };
            if header.data_len > 0 {
                self.out.push(&header.encode())?;
                self.push_from(file, pos + DATA_HEADER_LEN as u64, header.data_len)?;
            } else if record.back == 0 {
                self.out.push(&header.encode())?;
                self.out.push(&[0; BACK_LEN])?;
            } else {
                let back = self.new_place(oid, record.back)?;
                let place = if back == 0 { old_data(&self.old.log, &record)? } else { None };
                header.data_len = place.map_or(0, |(_, header)| header.data_len);
                self.out.push(&header.encode())?;
                match place {
                    // The target of the back-pointer is not kept. (Python refuses to pack in this case.)
                    Some((at, _)) => push_apart(
                        &mut self.out,
                        &self.old.log,
                        at + DATA_HEADER_LEN as u64,
                        header.data_len,
                    )?,
                    None => self.out.push(&back.to_be_bytes())?,
                }
            }
            copied.push((oid, here, header.data_len));
            pos += record.header.record_len();
        }
        file.check_end(txn)?;
        let len = self.out.end() - new_tpos;
        if len != txn.header.len {
            self.out.patch(new_tpos + 8, &len.to_be_bytes())?;
        }
        self.out.push(&len.to_be_bytes())?;
        self.moved.at(txn.next, self.out.end());
        self.last_tid = txn.header.tid;
        // Not earlier: two records of one object both point to the revision before the transaction.
        for (oid, pos, data_len) in copied.drain(..) {
            self.reach.index.insert(oid, pos, data_len);
        }
        Ok(())
    }

    /// Checks that all objects are kept to which a copied transaction refers.
    fn check_references(
        &self,
        pack: &PackRun<'_>,
        file: &mut Sequential<'_>,
        txn: &Txn,
    ) -> std::result::Result<(), Stop> {
        let (mut data, mut oids) = (Vec::new(), Vec::new());
        let mut pos = txn.first;
        while pos < txn.tend {
            let record = file.record(txn, pos)?;
            let (oid, back) = (record.header.oid, record.back);
            if record.header.data_len > 0 {
                pack.references(oid, pos, file.data(pos, &record.header, &mut data)?, &mut oids)?;
            } else if back != 0 && back < self.reach.pack_pos {
                pack.restored_references(&self.old, oid, back, &mut data, &mut oids)?;
            }
            pos += record.header.record_len();
        }
        oids.into_iter().try_for_each(|oid| self.check_kept(oid, Some(txn.header.tid)))
    }

    /// Checks that this object is in the new file, if it existed: as of transaction `tid`, or now.
    pub fn check_kept(&self, oid: Oid, tid: Option<Tid>) -> std::result::Result<(), Stop> {
        if self.reach.index.pos(oid) != 0 {
            return Ok(());
        }
        let mut pos = self.old.index.pos(oid);
        while pos != 0 {
            let record = self.old.log.read_record(pos, Some(oid))?;
            if tid.is_none_or(|tid| record.header.tid <= tid) {
                return if record.is_gone() { Ok(()) } else { Err(Stop::LeftOut { oid, tid }) };
            }
            pos = record.header.prev;
        }
        Ok(())
    }

    /// The new position of the record of `oid` at the old position `back`; 0 if it was not kept.
    fn new_place(&mut self, oid: Oid, back: u64) -> Result<u64> {
        if back >= self.reach.pack_pos {
            return Ok(self.moved.to(back));
        }
        if let Some(&new) = self.reach.pointed.get(&back) {
            return Ok(new);
        }
        // The transaction was committed during the pack, or the pack has no garbage collection. The revision may have
        // been kept for another reason.
        let tid = self.old.log.read_record(back, Some(oid))?.header.tid;
        let mut pos = self.reach.index.pos(oid);
        while pos != 0 {
            let header = self.out.record(pos)?;
            if header.tid == tid {
                self.reach.pointed.insert(back, pos);
                return Ok(pos);
            }
            pos = if header.tid < tid { 0 } else { header.prev };
        }
        Ok(0)
    }

    fn push_txn_header(&mut self, file: &mut Sequential<'_>, txn: &Txn, status: u8) -> Result<()> {
        let at = self.out.end();
        self.out.push(file.bytes(txn.pos, txn.header.head_len() as usize)?)?;
        if status != txn.header.status {
            const { assert!(TXN_HEADER_LEN == 23) };
            self.out.patch(at + 16, &[status])?;
        }
        Ok(())
    }

    /// Copies `len` bytes from `pos`, through the window of `file`.
    fn push_from(&mut self, file: &mut Sequential<'_>, mut pos: u64, mut len: u64) -> Result<()> {
        while len > 0 {
            let part = len.min(BUF_LEN as u64);
            self.out.push(file.bytes(pos, part as usize)?)?;
            pos += part;
            len -= part;
        }
        Ok(())
    }
}

fn old_data(log: &Log, record: &Record) -> Result<Option<(u64, DataHeader)>> {
    log.follow(record.header.oid, record.back)
}

/// Copies `len` bytes from any position.
fn push_apart(out: &mut Out, log: &Log, mut pos: u64, mut len: u64) -> Result<()> {
    let mut buf = vec![0; len.min(BUF_LEN as u64) as usize];
    while len > 0 {
        let part = len.min(BUF_LEN as u64);
        let bytes = buf.get_mut(..part as usize).unwrap_or_default();
        log.read_exact(bytes, pos)?;
        out.push(bytes)?;
        pos += part;
        len -= part;
    }
    Ok(())
}

const _: () = assert!(TRAILER_LEN == 8);
