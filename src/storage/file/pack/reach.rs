//! What is reachable: from the root as of the pack time, and from everything that was committed since then.
//!
//! First an index as of the pack time is built. Reachable objects are marked in it, and in the end the others are
//! removed. Positions of records whose references are still to be read are collected and visited in batches in the
//! order of the file, so that a file larger than the memory is not read at random.
//!
//! Later transactions can refer to objects that were garbage at the pack time: an undo or a restored record points to a
//! former revision, and a client that read an object before it became garbage can store a reference to it. Python does
//! not follow references of the first kind (unless the object is reachable anyway) or of the second, and loses objects
//! or refuses to pack. Here all of them are kept, each as it was at the pack time.

use std::collections::HashMap;

use super::super::format::{BACK_LEN, DATA_HEADER_LEN};
use super::super::index::{Index, MARKABLE_END, Marked};
use super::super::log::Log;
use super::super::volume::Volume;
use super::run::{PackRun, REST_MAX, ROUNDS_MAX};
use super::sequential::{FIRST, Sequential, Txn};
use crate::base::ids::{Oid, Tid};
use crate::storage::{Dangling, Result, StorageError};

/// Number of positions that are sorted and visited together.
const BATCH: usize = 1 << 17;
/// Neighbours in a batch are read with one call: the maximal length of the call, and of a gap in it.
const RUN_MAX: u64 = 1 << 20;
const GAP_MAX: u64 = 8 << 10;
/// Speculative read-ahead for the last record of a run, in bytes.
const GUESS: u64 = 2048;

/// The reachable objects, and the positions of their records.
pub struct Reach {
    /// The positions of the objects that are kept: all marked.
    pub index: Index,
    /// Revisions before the pack time that later back-pointers lead to: old position -> position in the new file, 0
    /// before they are copied. They are kept too.
    pub pointed: HashMap<u64, u64>,
    /// The position of the first transaction after the pack time.
    pub pack_pos: u64,
    /// Transactions up to this position were searched for references. `None`: without garbage collection there is no
    /// search.
    pub searched_to: Option<u64>,
    /// Number of objects at the pack time.
    pub object_count: u64,
    /// Lower bound on the length of the new file.
    pub len_min: u64,
    /// Of a plan: the number of references to objects that did not exist at the pack time, and the first of them. A
    /// pack ends at the first one.
    pub dangling_count: u64,
    pub dangling: Vec<Dangling>,
}

/// The number of references in [`Reach::dangling`].
const DANGLING_MAX: usize = 10_000;

impl Reach {
    /// Whether the record of `oid` at `pos`, before the pack time, is kept and not copied yet.
    pub fn keeps(&self, oid: Oid, pos: u64) -> bool {
        self.index.marked_pos(oid) == (true, pos)
            || (!self.pointed.is_empty() && self.pointed.contains_key(&pos))
    }

    /// Finds what is reachable from transactions up to `end`, and from those that are committed during the search.
    /// `None`: the file has already been packed to this time or a later one.
    pub fn find(
        pack: &mut PackRun<'_>,
        volume: &Volume,
        end: u64,
        stop: Tid,
        gc: bool,
    ) -> Result<Option<Reach>> {
        let log = &volume.log;
        if end > MARKABLE_END {
            return Err(StorageError::Unsupported("files of more than 128 TiB cannot be packed".into()));
        }
        let mut file = Sequential::new(log, end);
        let Some((index, pack_pos)) = index_to(pack, &mut file, stop)? else { return Ok(None) };
        let object_count = index.len();
        let mut reach = Reach {
            index,
            pointed: HashMap::new(),
            pack_pos,
            searched_to: None,
            object_count,
            len_min: end.saturating_sub(pack_pos),
            dangling_count: 0,
            dangling: Vec::new(),
        };
        if gc {
            let mut marker = Marker {
                pack,
                log,
                reach: &mut reach,
                heaps: Vec::new(),
                seen: 0,
                total: object_count,
                end,
                all_must_exist: true,
            };
            marker.mark_from_root()?;
            marker.all_must_exist = false;
            let searched_to = marker.mark_from_future(file, volume)?;
            marker.mark_from_votes()?;
            reach.searched_to = Some(searched_to);
            reach.index.keep_marked();
        } else {
            reach.index.mark_all();
        }
        Ok(Some(reach))
    }
}

/// The index as of `stop`, and the position of the first later transaction. `None`: a redundant pack.
fn index_to(pack: &mut PackRun<'_>, file: &mut Sequential<'_>, stop: Tid) -> Result<Option<(Index, u64)>> {
    pack.phase("finding what is there");
    let index = Index::new();
    let (mut pos, mut unpacked, mut last) = (FIRST, false, None);
    while let Some(txn) = file.txn(pos)? {
        last = Some(txn);
        if txn.header.tid > stop {
            break;
        }
        file.check_order(&txn)?;
        unpacked |= txn.header.status != b'p';
        for_records(file, &txn, |pos, record| {
            if record.header.data_len > 0 || record.back != 0 {
                index.insert(record.header.oid, pos, record.header.data_len);
            } else {
                index.remove(record.header.oid);
            }
            Ok(())
        })?;
        pos = txn.next;
        pack.at(pos)?;
    }
    // As in Python: redundant if all transactions before are packed, and the next one is too, if there is one.
    let redundant = !unpacked && last.is_some_and(|txn| txn.header.status == b'p');
    Ok((!redundant).then_some((index, pos)))
}

/// Calls `each` for all records of a transaction, and checks its end.
fn for_records(
    file: &mut Sequential<'_>,
    txn: &Txn,
    mut each: impl FnMut(u64, super::super::log::Record) -> Result<()>,
) -> Result<()> {
    let mut pos = txn.first;
    while pos < txn.tend {
        let record = file.record(txn, pos)?;
        each(pos, record)?;
        pos += record.header.record_len();
    }
    file.check_end(txn)
}

/// Marks the reachable objects.
struct Marker<'a, 'p> {
    pack: &'a mut PackRun<'p>,
    log: &'a Log,
    reach: &'a mut Reach,
    /// Positions of records whose references are still to be read. The last heap may not be full.
    heaps: Vec<Vec<u64>>,
    seen: u64,
    total: u64,
    end: u64,
    /// Whether a reference to an object that did not exist at the pack time is an error, as in Python.
    all_must_exist: bool,
}

impl Marker<'_, '_> {
    fn mark_from_root(&mut self) -> Result<()> {
        self.pack.phase("following references");
        // The pack time is before the first transaction.
        if self.reach.index.is_empty() {
            return Ok(());
        }
        self.object(Oid::ZERO, None)?;
        self.follow()
    }

    /// Marks from transactions after the pack time, including those committed since `end`. Returns the position that
    /// was reached.
    fn mark_from_future(&mut self, mut file: Sequential<'_>, volume: &Volume) -> Result<u64> {
        let mut pos = self.reach.pack_pos;
        let mut end = self.end;
        for _ in 0..ROUNDS_MAX {
            while let Some(txn) = file.txn(pos)? {
                file.check_order(&txn)?;
                self.future_txn(&mut file, &txn)?;
                pos = txn.next;
                self.pack.at(self.end + pos.min(self.end))?;
            }
            let newest = volume.published_end();
            if newest - end <= REST_MAX {
                break;
            }
            end = newest;
            file = file.further(end);
        }
        Ok(end)
    }

    fn future_txn(&mut self, file: &mut Sequential<'_>, txn: &Txn) -> Result<()> {
        let pack_pos = self.reach.pack_pos;
        let (mut apart, mut oids) = (Vec::new(), Vec::new());
        let mut pos = txn.first;
        while pos < txn.tend {
            let record = file.record(txn, pos)?;
            let (oid, back) = (record.header.oid, record.back);
            if record.header.data_len > 0 {
                let data = file.data(pos, &record.header, &mut apart)?;
                self.pack.references(oid, pos, data, &mut oids)?;
            } else if back != 0 && back < pack_pos && self.reach.pointed.insert(back, 0).is_none() {
                if let (false, _) = self.reach.index.marked_pos(oid) {
                    self.reach.index.insert_marked(oid, back);
                }
                self.push(back);
            }
            pos += record.header.record_len();
        }
        file.check_end(txn)?;
        oids.drain(..).try_for_each(|oid| self.object(oid, None))?;
        // At once, because the next transaction may replace a revision that is current now.
        self.follow()
    }

    /// Marks from what voted transactions restore that are not in the file yet.
    fn mark_from_votes(&mut self) -> Result<()> {
        let (core, pack) = (self.pack.core, &*self.pack);
        let mut oids = Vec::new();
        let mut data = Vec::new();
        core.pins.for_each(|volume, oid, back| {
            pack.restored_references(volume, oid, back, &mut data, &mut oids)
        })?;
        oids.into_iter().try_for_each(|oid| self.object(oid, None))?;
        self.follow()
    }

    fn push(&mut self, pos: u64) {
        match self.heaps.last_mut() {
            Some(heap) if heap.len() < BATCH => heap.push(pos),
            _ => {
                let mut heap = Vec::with_capacity(if self.heaps.is_empty() { 0 } else { BATCH });
                heap.push(pos);
                self.heaps.push(heap);
            }
        }
    }

    /// Marks an object. `from`: the object that refers to it, if it matters.
    fn object(&mut self, oid: Oid, from: Option<Oid>) -> Result<()> {
        match self.reach.index.mark(oid) {
            Marked::Now(pos) => self.push(pos),
            Marked::Before => {}
            Marked::Missing if self.all_must_exist && self.pack.is_plan => {
                self.reach.dangling_count += 1;
                if self.reach.dangling.len() < DANGLING_MAX {
                    self.reach.dangling.push(Dangling { from, to: oid });
                }
            }
            Marked::Missing if self.all_must_exist => return Err(StorageError::Missing(oid)),
            Marked::Missing => {}
        }
        Ok(())
    }

    /// Visits records until none is left.
    fn follow(&mut self) -> Result<()> {
        let mut run = Run::default();
        let mut oids = Vec::new();
        while let Some(mut heap) = self.heaps.pop() {
            heap.sort_unstable();
            let mut rest = heap.as_slice();
            while let Some(count) = run.read(self.log, rest, self.end)? {
                let (now, later) = rest.split_at(count);
                rest = later;
                for &pos in now {
                    let from = self.references(&run, pos, &mut oids)?;
                    for oid in oids.drain(..) {
                        self.object(oid, Some(from))?;
                    }
                }
                self.seen += count as u64;
                let share = self.seen as f64 / self.total.max(1) as f64;
                self.pack.at(self.end + (share.min(1.0) * self.reach.pack_pos as f64) as u64)?;
            }
        }
        Ok(())
    }

    /// The oids that the record at `pos` refers to. Returns the oid of the record.
    fn references(&mut self, run: &Run, pos: u64, oids: &mut Vec<Oid>) -> Result<Oid> {
        let log = self.log;
        let record = log.parse_record(run.bytes(pos, DATA_HEADER_LEN + BACK_LEN), pos, None)?;
        let (oid, mut at, mut header) = (record.header.oid, pos, record.header);
        if header.data_len == 0 {
            match log.follow(oid, record.back)? {
                Some(found) => (at, header) = found,
                None => return Ok(oid),
            }
        }
        let len = header.data_len as usize;
        if at < self.reach.pack_pos {
            self.reach.len_min += header.record_len();
        }
        let data_at = at + DATA_HEADER_LEN as u64;
        let mut own = Vec::new();
        let data = match run.bytes(data_at, len) {
            bytes if bytes.len() == len => bytes,
            _ => {
                log.read_data(at, &header, &mut own)?;
                &own
            }
        };
        self.pack.references(oid, at, data, oids)?;
        Ok(oid)
    }
}

/// Records that are close together, read with one call.
#[derive(Default)]
struct Run {
    start: u64,
    buf: Vec<u8>,
    valid: usize,
}

impl Run {
    /// Reads the first few of the sorted `positions`; returns how many.
    fn read(&mut self, log: &Log, positions: &[u64], end: u64) -> Result<Option<usize>> {
        let Some(&first) = positions.first() else { return Ok(None) };
        let (mut last, mut count) = (first, 1);
        while let Some(&next) = positions.get(count)
            && next - last <= GAP_MAX
            && next - first <= RUN_MAX
        {
            last = next;
            count += 1;
        }
        let len = ((last + GUESS).min(end) - first) as usize;
        if self.buf.len() < len {
            self.buf.resize(len, 0);
        }
        self.start = first;
        let buf = self.buf.get_mut(..len).unwrap_or_default();
        self.valid = log.file().read_at(buf, first).map_err(log.io("packing: reading", first))?;
        Ok(Some(count))
    }

    /// `len` bytes from `pos`; may be fewer.
    fn bytes(&self, pos: u64, len: usize) -> &[u8] {
        let from = pos.checked_sub(self.start).and_then(|at| usize::try_from(at).ok()).unwrap_or(usize::MAX);
        let to = from.saturating_add(len).min(self.valid);
        self.buf.get(from..to).unwrap_or_default()
    }
}
