//! What can be reached: from the root as of the pack time, or through a back-pointer from a later transaction.
//!
//! An index as of the pack time is built first; objects are marked in it, and in the end the others are taken out. Objects
//! whose references are still to be read are a heap of positions, visited batch by batch in the order of the file, so that
//! a file larger than the memory is not read here and there.

use std::collections::HashMap;

use super::super::format::{BACK_LEN, DATA_HEADER_LEN};
use super::super::index::{Index, MARKABLE_END, Marked};
use super::super::log::Log;
use super::super::volume::Volume;
use super::Pack;
use super::sequential::{FIRST, Sequential, Txn};
use crate::base::ids::{Oid, Tid};
use crate::storage::{Result, StorageError};

/// Positions that are sorted and visited together.
const BATCH: usize = 1 << 17;
/// Neighbours in a batch are read with one call up to this length, over gaps up to that one.
const RUN_MAX: u64 = 1 << 20;
const GAP_MAX: u64 = 8 << 10;
/// How much of the last record of a run is read on good luck.
const GUESS: u64 = 2048;

/// See the module.
pub struct Reach {
    /// Where each object's record is that is to be kept: all marked.
    pub index: Index,
    /// Revisions before the pack time that later back-pointers lead to: old position -> position in the new file, 0
    /// until it is there. They are kept too.
    pub pointed: HashMap<u64, u64>,
    /// Where the first transaction after the pack time begins.
    pub pack_pos: u64,
}

impl Reach {
    /// Looks at transactions up to `end`. `None`: it has been packed to that time or later before.
    pub fn find(
        pack: &mut Pack<'_>,
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
        let mut reach = Reach { index, pointed: HashMap::new(), pack_pos };
        if gc {
            let total = reach.index.len();
            let mut marker = Marker { pack, log, reach: &mut reach, heaps: Vec::new(), seen: 0, total, end };
            marker.mark_from_root()?;
            marker.mark_from_future(&mut file)?;
            reach.index.keep_marked();
        } else {
            reach.index.mark_all();
        }
        Ok(Some(reach))
    }
}

/// The index as of `stop`, and where the first later transaction begins. `None`: a redundant pack.
fn index_to(pack: &mut Pack<'_>, file: &mut Sequential<'_>, stop: Tid) -> Result<Option<(Index, u64)>> {
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
    // As Python has it: redundant if all before is packed, and so is what follows (if anything does).
    let redundant = !unpacked && last.is_some_and(|txn| txn.header.status == b'p');
    Ok((!redundant).then_some((index, pos)))
}

/// All records of a transaction, and its end checked.
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

/// Marks objects.
struct Marker<'a, 'p> {
    pack: &'a mut Pack<'p>,
    log: &'a Log,
    reach: &'a mut Reach,
    /// Positions of records whose references are still to be read. The last heap is not full yet.
    heaps: Vec<Vec<u64>>,
    seen: u64,
    total: u64,
    end: u64,
}

impl Marker<'_, '_> {
    fn mark_from_root(&mut self) -> Result<()> {
        self.pack.phase("following references");
        // Packing to before the beginning.
        if self.reach.index.is_empty() {
            return Ok(());
        }
        self.object(Oid::ZERO)?;
        self.follow()
    }

    /// Back-pointers of later transactions lead to revisions that were not current at the pack time, and refer to objects
    /// that nothing else may refer to.
    fn mark_from_future(&mut self, file: &mut Sequential<'_>) -> Result<()> {
        let pack_pos = self.reach.pack_pos;
        let mut pos = pack_pos;
        let mut extra_roots = Vec::new();
        while let Some(txn) = file.txn(pos)? {
            file.check_order(&txn)?;
            for_records(file, &txn, |_, record| {
                let (oid, back) = (record.header.oid, record.back);
                if back == 0 || back >= pack_pos {
                    return Ok(());
                }
                let is_first = self.reach.pointed.insert(back, 0).is_none();
                match self.reach.index.marked_pos(oid) {
                    // Python does not look for its references.
                    (false, _) => self.reach.index.insert_marked(oid, back),
                    (true, pos) if is_first || pos == back => extra_roots.push(back),
                    (true, _) => {}
                }
                Ok(())
            })?;
            pos = txn.next;
            self.pack.at(self.end + pos)?;
        }
        extra_roots.sort_unstable();
        extra_roots.dedup();
        extra_roots.into_iter().for_each(|pos| self.push(pos));
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

    fn object(&mut self, oid: Oid) -> Result<()> {
        match self.reach.index.mark(oid) {
            Marked::Now(pos) => self.push(pos),
            Marked::Before => {}
            Marked::Missing => return Err(StorageError::Missing(oid)),
        }
        Ok(())
    }

    /// Visits until nothing is left.
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
                    self.references(&run, pos, &mut oids)?;
                    for oid in oids.drain(..) {
                        self.object(oid)?;
                    }
                }
                self.seen += count as u64;
                let share = self.seen as f64 / self.total.max(1) as f64;
                self.pack.at(self.end + (share.min(1.0) * self.reach.pack_pos as f64) as u64)?;
            }
        }
        Ok(())
    }

    /// The oids that the record at `pos` refers to.
    fn references(&self, run: &Run, pos: u64, oids: &mut Vec<Oid>) -> Result<()> {
        let log = self.log;
        let record = log.parse_record(run.bytes(pos, DATA_HEADER_LEN + BACK_LEN), pos, None)?;
        let (oid, mut at, mut header) = (record.header.oid, pos, record.header);
        if header.data_len == 0 {
            match log.follow(oid, record.back)? {
                Some(found) => (at, header) = found,
                None => return Ok(()),
            }
        }
        let len = header.data_len as usize;
        let data_at = at + DATA_HEADER_LEN as u64;
        let mut own = Vec::new();
        let data = match run.bytes(data_at, len) {
            bytes if bytes.len() == len => bytes,
            _ => {
                log.read_data(at, &header, &mut own)?;
                &own
            }
        };
        (self.pack.request.references)(data, oids).map_err(|why| StorageError::Refused {
            class: ("ZODB.POSException", "StorageError"),
            message: format!(
                "packing: the record of object 0x{oid} at {at} cannot be searched for references: {why}"
            ),
        })
    }
}

/// Records that lie close together, read with one call.
#[derive(Default)]
struct Run {
    start: u64,
    buf: Vec<u8>,
    valid: usize,
}

impl Run {
    /// Reads the first few of the sorted `positions`: how many.
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

    /// `len` bytes from `pos`, or fewer.
    fn bytes(&self, pos: u64, len: usize) -> &[u8] {
        let from = pos.checked_sub(self.start).and_then(|at| usize::try_from(at).ok()).unwrap_or(usize::MAX);
        let to = from.saturating_add(len).min(self.valid);
        self.buf.get(from..to).unwrap_or_default()
    }
}
