//! What a pack would do, without doing it: it searches as a pack does (`reach`), and instead of a copy there is a
//! count of what the copy (`copy`) would have.
//!
//! Nothing is written. Transactions that are committed after the beginning are not counted. The memory is that of a
//! pack, 8 to 16 bytes for each object that has changed since the pack time, and a few bytes for each blob that would
//! be removed.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use super::super::FileStorage;
use super::super::format::{BACK_LEN, DATA_HEADER_LEN, MAGIC_LEN, TRAILER_LEN};
use super::super::index::Index;
use super::super::log::Log;
use super::super::volume::Volume;
use super::LargeRemoval;
use super::reach::Reach;
use super::run::PackRun;
use super::sequential::{FIRST, Sequential, Txn};
use crate::base::clock::Stopwatch;
use crate::base::fs::dir_of;
use crate::base::ids::{Oid, Tid};
use crate::pickle::record::may_be_blob;
use crate::storage::pack_time::stop_of;
use crate::storage::{BlobDir, PackPlan, PackRequest, Removal, Result, StorageError};

impl FileStorage {
    /// Finds what [`Pack::pack`](crate::storage::Pack::pack) with this request would remove now. The storage may be
    /// read-only, and the file may be in use by a server.
    ///
    /// Errors: those of a pack, other than for references to objects that do not exist.
    pub fn plan_pack(&self, request: &PackRequest<'_>) -> Result<PackPlan> {
        self.check_open()?;
        let stop = stop_of(request.time)?;
        let core = &self.core;
        let mut pack = PackRun {
            storage: self,
            core,
            request,
            is_plan: true,
            is_logged: false,
            phase: "",
            pace: self.options.pack_max_rate.map(super::Pace::new),
            is_old_removed: false,
            begun: Stopwatch::start(),
            logged: Stopwatch::start(),
        };
        let volume = core.volume.get_owned();
        let end = volume.published_end();
        request.progress.done.store(0, Ordering::Relaxed);
        request.progress.total.store(3 * end, Ordering::Relaxed);
        let gc = request.gc.unwrap_or(self.options.pack_gc);
        let mut plan = PackPlan {
            stop,
            objects: Removal { before: volume.index.len(), removed: 0 },
            revisions: Removal::default(),
            transactions: Removal::default(),
            size: end,
            size_after: end,
            blobs: 0,
            blob_bytes: 0,
            dangling_count: 0,
            dangling: Vec::new(),
            gc,
            refusal: None,
            free: core.media.free_space(dir_of(&core.path)).ok(),
        };
        let found = match volume.index.is_empty() {
            true => None,
            false => Reach::find(&mut pack, &volume, end, stop, gc)?,
        };
        let Some(mut reach) = found else {
            // As for a pack: nothing to do.
            let mut file = Sequential::new(&volume.log, end);
            let mut pos = FIRST;
            while let Some(txn) = file.txn(pos)? {
                plan.transactions.before += 1;
                plan.revisions.before += count_records(&mut file, &txn)?;
                pos = txn.next;
            }
            return Ok(plan);
        };
        plan.refusal = pack.refusal(&reach)?;
        plan.dangling_count = reach.dangling_count;
        plan.dangling = std::mem::take(&mut reach.dangling);
        let blobs = core.blobs.as_deref().map(|dir| BlobCount::new(dir, self, stop));
        let mut count = Counting {
            plan,
            blobs,
            volume: &volume,
            reach: &reach,
            packed_end: MAGIC_LEN,
            later: Index::new(),
        };
        count.packed_part(&mut pack)?;
        count.rest(&mut pack, end)?;
        request.progress.done.store(3 * end, Ordering::Relaxed);
        Ok(count.finish())
    }
}

impl PackRun<'_> {
    /// Why the pack would be refused, before anything is removed.
    fn refusal(&self, reach: &Reach) -> Result<Option<String>> {
        if let Some(removal) = LargeRemoval::of(reach)
            && self.storage.options.pack_refuse_large_removals
        {
            return Ok(Some(self.too_much(&removal).to_string()));
        }
        match self.room() {
            Ok(free) if free < reach.len_min => Ok(Some(self.no_room(reach, free).to_string())),
            // The disk says when it is full.
            Ok(_) | Err(StorageError::Io { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn count_records(file: &mut Sequential<'_>, txn: &Txn) -> Result<u64> {
    let (mut pos, mut count) = (txn.first, 0);
    while pos < txn.tend {
        pos += file.record(txn, pos)?.header.record_len();
        count += 1;
    }
    Ok(count)
}

/// Counts what a copy would have.
struct Counting<'a> {
    plan: PackPlan,
    blobs: Option<BlobCount<'a>>,
    volume: &'a Volume,
    reach: &'a Reach,
    /// Where the packed part of the new file would end.
    packed_end: u64,
    /// Objects with records after the pack time.
    later: Index,
}

impl Counting<'_> {
    fn packed_part(&mut self, pack: &mut PackRun<'_>) -> Result<()> {
        pack.phase("counting");
        let (log, pack_pos) = (&self.volume.log, self.reach.pack_pos);
        let mut file = Sequential::new(log, pack_pos);
        let mut pos = FIRST;
        while let Some(txn) = file.txn(pos)? {
            self.packed_txn(&mut file, &txn)?;
            pos = txn.next;
            pack.at(2 * pack.request.progress.total.load(Ordering::Relaxed) / 3 + pos)?;
        }
        Ok(())
    }

    fn packed_txn(&mut self, file: &mut Sequential<'_>, txn: &Txn) -> Result<()> {
        let mut len = txn.header.head_len() + TRAILER_LEN as u64;
        let mut kept = Vec::new();
        let mut apart = Vec::new();
        let mut pos = txn.first;
        while pos < txn.tend {
            let record = file.record(txn, pos)?;
            let oid = record.header.oid;
            self.plan.revisions.before += 1;
            if self.reach.keeps(oid, pos) {
                kept.push(oid);
                let data_len = file.data_place(pos, &record)?.map_or(BACK_LEN as u64, |(_, at)| at.data_len);
                len += DATA_HEADER_LEN as u64 + data_len;
            } else {
                self.plan.revisions.removed += 1;
                let (_, at) = self.reach.index.marked_pos(oid);
                // Of two records of an object in one transaction, the one that counts keeps the blob.
                let is_double = (txn.first..txn.tend).contains(&at) || kept.contains(&oid);
                if let Some(blobs) = &mut self.blobs
                    && !is_double
                    && let Some(data) = file.resolved_data(pos, &record, &mut apart)?
                {
                    blobs.left_out(oid, (at != 0).then_some(record.header.tid), data)?;
                }
            }
            pos += record.header.record_len();
        }
        file.check_end(txn)?;
        self.plan.transactions.before += 1;
        if kept.is_empty() {
            self.plan.transactions.removed += 1;
        } else {
            self.packed_end += len;
        }
        Ok(())
    }

    /// Counts the transactions after the pack time, which are copied as they are.
    fn rest(&mut self, pack: &mut PackRun<'_>, end: u64) -> Result<()> {
        let (log, pack_pos) = (&self.volume.log, self.reach.pack_pos);
        let mut file = Sequential::new(log, end);
        let mut pos = pack_pos;
        self.plan.size_after = self.packed_end;
        while let Some(txn) = file.txn(pos)? {
            self.plan.transactions.before += 1;
            let mut len = txn.next - txn.pos;
            let mut pos_in = txn.first;
            while pos_in < txn.tend {
                let record = file.record(&txn, pos_in)?;
                let oid = record.header.oid;
                self.plan.revisions.before += 1;
                if record.header.data_len == 0
                    && (1..pack_pos).contains(&record.back)
                    && !self.keeps_target(log, oid, record.back)?
                    && let Some((_, header)) = log.follow(oid, record.back)?
                {
                    // The data is copied in place of the back-pointer.
                    len = len + header.data_len - BACK_LEN as u64;
                }
                self.later.insert(oid, pos_in, record.header.data_len);
                pos_in += record.header.record_len();
            }
            file.check_end(&txn)?;
            self.plan.size_after += len;
            pos = txn.next;
            pack.at(2 * pack.request.progress.total.load(Ordering::Relaxed) / 3 + pos)?;
        }
        Ok(())
    }

    /// Whether a revision before the pack time, to which a later record points back, is kept, perhaps for another
    /// reason.
    fn keeps_target(&self, log: &Log, oid: Oid, back: u64) -> Result<bool> {
        if self.reach.pointed.contains_key(&back) {
            return Ok(true);
        }
        let (_, kept) = self.reach.index.marked_pos(oid);
        let tid_at = |pos| log.read_record(pos, Some(oid)).map(|record| record.header.tid);
        Ok(kept != 0 && tid_at(kept)? == tid_at(back)?)
    }

    fn finish(mut self) -> PackPlan {
        let mut objects = self.reach.index.len();
        let counted: std::result::Result<(), std::convert::Infallible> = self.later.for_each(|oid, _| {
            objects += u64::from(self.reach.index.marked_pos(oid).1 == 0);
            Ok(())
        });
        let Ok(()) = counted;
        self.plan.objects.removed = self.plan.objects.before.saturating_sub(objects);
        // As in a pack: a file whose packed part would be as long as it is stays.
        if self.packed_end == self.reach.pack_pos {
            let plan = &mut self.plan;
            for removal in [&mut plan.objects, &mut plan.revisions, &mut plan.transactions] {
                removal.removed = 0;
            }
            plan.size_after = plan.size;
        } else if let Some(blobs) = self.blobs {
            (self.plan.blobs, self.plan.blob_bytes) = (blobs.count, blobs.bytes);
        }
        self.plan
    }
}

/// Counts the blobs that a sweep would remove ([`Sweep`](crate::storage::blob::Sweep)).
struct BlobCount<'a> {
    dir: &'a BlobDir,
    storage: &'a FileStorage,
    stop: Tid,
    seen: HashSet<(Oid, Option<Tid>)>,
    count: u64,
    bytes: u64,
}

impl<'a> BlobCount<'a> {
    fn new(dir: &'a BlobDir, storage: &'a FileStorage, stop: Tid) -> BlobCount<'a> {
        BlobCount { dir, storage, stop, seen: HashSet::new(), count: 0, bytes: 0 }
    }

    /// See [`Removals::left_out`](crate::storage::Removals::left_out).
    fn left_out(&mut self, oid: Oid, tid: Option<Tid>, data: &[u8]) -> Result<()> {
        if !may_be_blob(data) || !self.seen.insert((oid, tid)) {
            return Ok(());
        }
        let tids = tid.map_or_else(|| self.dir.revisions(oid), |tid| vec![tid]);
        for tid in tids {
            let is_later = tid > self.stop && self.storage.has_revision(oid, tid)?;
            if tid <= self.storage.core.last_tid()
                && !is_later
                && let Some(blob) = self.dir.find(oid, tid)?
            {
                self.count += 1;
                self.bytes += blob.len;
            }
        }
        Ok(())
    }
}
