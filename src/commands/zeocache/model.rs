//! A model of the cache file, without the data: which revisions it would have, and what it would evict.
//!
//! The file is a ring. A revision is written where the last one ended, and what is there is evicted. A current revision
//! that is loaded when it has fallen far behind is written again. `docs/client-cache.md` describes the file.

use std::collections::{BTreeMap, HashMap};

use crate::base::ids::{Oid, Tid};
use crate::client::cache::trace::{TraceCode, TraceRecord};

/// Bytes before the first block.
const HEADER_LEN: u64 = 12;
/// Bytes of a block beside the data.
const OVERHEAD: u64 = 43;
/// No block is longer.
const BLOCK_LEN_MAX: u64 = (1 << 31) - 1;
/// Data that is longer than this part of the cache (a tenth) is not written again when it is loaded.
const MOVED_SHARE: u64 = 10;

/// What happened in a simulated cache, since its beginning.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Happened {
    pub(super) loads: u64,
    pub(super) hits: u64,
    /// Current revisions that were invalidated.
    pub(super) invalidations: u64,
    pub(super) stores: u64,
    pub(super) evictions: u64,
}

impl Happened {
    /// What happened after `earlier`.
    pub(super) fn since(self, earlier: Happened) -> Happened {
        Happened {
            loads: self.loads - earlier.loads,
            hits: self.hits - earlier.hits,
            invalidations: self.invalidations - earlier.invalidations,
            stores: self.stores - earlier.stores,
            evictions: self.evictions - earlier.evictions,
        }
    }
}

/// The place of a current revision.
#[derive(Clone, Copy)]
struct CurrentPlace {
    start: Tid,
    at: u64,
}

/// The place of a former revision.
#[derive(Clone, Copy)]
struct FormerPlace {
    end: Tid,
    at: u64,
}

struct ModelBlock {
    len: u64,
    /// `None`: free.
    revision: Option<(Oid, Tid)>,
}

/// A cache of one size.
pub(super) struct CacheModel {
    len_max: u64,
    /// Bytes that a revision may be behind before a load writes it again.
    far_behind: f64,
    /// Where the next revision is written.
    at: u64,
    /// By offset. They cover the file from the header to the end.
    blocks: HashMap<u64, ModelBlock>,
    current: HashMap<Oid, CurrentPlace>,
    /// By start.
    former: HashMap<Oid, BTreeMap<Tid, FormerPlace>>,
    /// Start and length of the data of current revisions that were evicted. A trace has no store where the real cache
    /// had a hit, so the length comes from here.
    evicted: HashMap<Oid, (Tid, u64)>,
    /// End and length of the data of former revisions that were evicted.
    evicted_former: HashMap<(Oid, Tid), (Tid, u64)>,
    /// Bytes of blocks that are not free.
    used: u64,
    happened: Happened,
}

impl CacheModel {
    /// The smallest size.
    pub(super) const LEN_MIN: u64 = HEADER_LEN + OVERHEAD + 2;

    /// An empty cache of `len_max` bytes, at least [`CacheModel::LEN_MIN`]. `rearrange` is the part of the size that a
    /// revision may be behind before a load writes it again; with 1 or more none is.
    pub(super) fn new(len_max: u64, rearrange: f64) -> CacheModel {
        let free = ModelBlock { len: len_max - HEADER_LEN, revision: None };
        CacheModel {
            len_max,
            far_behind: rearrange * len_max as f64,
            at: HEADER_LEN,
            blocks: HashMap::from([(HEADER_LEN, free)]),
            current: HashMap::new(),
            former: HashMap::new(),
            evicted: HashMap::new(),
            evicted_former: HashMap::new(),
            used: 0,
            happened: Happened::default(),
        }
    }

    pub(super) fn len_max(&self) -> u64 {
        self.len_max
    }

    pub(super) fn happened(&self) -> Happened {
        self.happened
    }

    /// Percentage of the cache that has revisions.
    pub(super) fn in_use(&self) -> f64 {
        100.0 * self.used as f64 / (self.len_max - HEADER_LEN) as f64
    }

    /// Bytes of the smallest cache that would not have evicted anything, as long as nothing was.
    pub(super) fn len_needed(&self) -> u64 {
        self.at + 1
    }

    /// Does what a record says. `false` if the code is not known.
    pub(super) fn apply(&mut self, record: &TraceRecord) -> bool {
        let Some(oid) = record.oid else { return record.code == TraceCode::OPENED };
        let len = u64::from(record.len);
        match record.code.0 & 0x7e {
            0x22 => self.load_hit(oid, record.start, len),
            0x26 => self.load_former_hit(oid, record.end),
            0x20 | 0x24 => self.load_missed(oid, record.end),
            0x50 | 0x52 => self.store(oid, record.start, len),
            0x54 => self.store_former(oid, record.start, record.end, len),
            0x10 | 0x1c => self.invalidate(oid, record.start),
            0x1a | 0x1e => self.invalidate(oid, Tid::ZERO),
            _ => return false,
        }
        true
    }

    /// The real cache had the current revision. If this one does not, the client would load and store it.
    fn load_hit(&mut self, oid: Oid, start: Tid, len: u64) {
        self.happened.loads += 1;
        if self.current.contains_key(&oid) {
            self.hit_current(oid);
            return;
        }
        let (start, len) = self.evicted.get(&oid).copied().unwrap_or((start, len));
        self.store(oid, start, len);
    }

    /// The real cache had a former revision.
    fn load_former_hit(&mut self, oid: Oid, start: Tid) {
        self.happened.loads += 1;
        if self.former.get(&oid).is_some_and(|revisions| revisions.contains_key(&start)) {
            self.happened.hits += 1;
        } else if self.current.get(&oid).is_some_and(|place| place.start == start) {
            self.hit_current(oid);
        } else if let Some((end, len)) = self.evicted_former.get(&(oid, start)).copied() {
            self.store_former(oid, start, end, len);
        }
    }

    /// The real cache had a miss. If this one has one too, the store of the client comes next in the trace. `before` is
    /// the time of the view; zero for the newest revision.
    fn load_missed(&mut self, oid: Oid, before: Tid) {
        self.happened.loads += 1;
        let before = if before == Tid::ZERO { Tid::MAX } else { before };
        let former = self.former.get(&oid).and_then(|revisions| revisions.range(..before).next_back());
        if former.is_some_and(|(_, place)| place.end >= before) {
            self.happened.hits += 1;
        } else if self.current.get(&oid).is_some_and(|place| place.start < before) {
            self.hit_current(oid);
        }
    }

    /// Counts the hit, and writes the revision again if it is far behind.
    fn hit_current(&mut self, oid: Oid) {
        self.happened.hits += 1;
        let Some(&CurrentPlace { start, at }) = self.current.get(&oid) else { return };
        let behind = if at <= self.at { self.at - at } else { self.at + self.len_max - at };
        let Some(block) = self.blocks.get(&at) else { return };
        let len = block.len - OVERHEAD;
        if behind as f64 > self.far_behind && self.len_max > MOVED_SHARE * len {
            self.free(at);
            self.current.remove(&oid);
            let at = self.write(oid, start, len);
            self.current.insert(oid, CurrentPlace { start, at });
        }
    }

    fn store(&mut self, oid: Oid, start: Tid, len: u64) {
        if self.current.contains_key(&oid) {
            return;
        }
        self.evicted.remove(&oid);
        if self.fits(len) {
            self.happened.stores += 1;
            let at = self.write(oid, start, len);
            self.current.insert(oid, CurrentPlace { start, at });
        }
    }

    fn store_former(&mut self, oid: Oid, start: Tid, end: Tid, len: u64) {
        let is_here = self.former.get(&oid).is_some_and(|revisions| revisions.contains_key(&start));
        self.evicted_former.remove(&(oid, start));
        if !is_here && self.fits(len) {
            self.happened.stores += 1;
            let at = self.write(oid, start, len);
            self.set_former(oid, start, FormerPlace { end, at });
        }
    }

    /// Transaction `tid` changed the object; zero: the cache only knows that it was changed.
    fn invalidate(&mut self, oid: Oid, tid: Tid) {
        if let Some((start, len)) = self.evicted.remove(&oid)
            && start < tid
        {
            self.evicted_former.insert((oid, start), (tid, len));
        }
        let Some(place) = self.current.get(&oid).copied() else { return };
        if tid == Tid::ZERO {
            self.happened.invalidations += 1;
            self.current.remove(&oid);
            self.free(place.at);
        } else if place.start < tid {
            self.happened.invalidations += 1;
            self.end_current(oid, tid);
        }
    }

    /// The current revision becomes a former one.
    fn end_current(&mut self, oid: Oid, end: Tid) {
        if let Some(CurrentPlace { start, at }) = self.current.remove(&oid) {
            self.set_former(oid, start, FormerPlace { end, at });
        }
    }

    fn set_former(&mut self, oid: Oid, start: Tid, place: FormerPlace) {
        let other = self.former.entry(oid).or_default().insert(start, place);
        if let Some(other) = other.filter(|other| other.at != place.at) {
            self.free(other.at);
        }
    }

    /// Whether a cache of this size keeps data of `len` bytes at all.
    fn fits(&self, len: u64) -> bool {
        len + OVERHEAD < BLOCK_LEN_MAX.min(self.len_max - HEADER_LEN)
    }

    /// Writes a block that fits, and returns where. One byte more is made free: a free block always follows the newest
    /// one, so that it can be found again.
    fn write(&mut self, oid: Oid, start: Tid, len: u64) -> u64 {
        let len = len + OVERHEAD;
        let freed = self.make_room(len + 1);
        let at = self.at;
        self.blocks.insert(at, ModelBlock { len, revision: Some((oid, start)) });
        self.used += len;
        self.at += len;
        self.blocks.insert(self.at, ModelBlock { len: freed - len, revision: None });
        at
    }

    /// Evicts whole blocks from the ring pointer on. Returns the bytes that are free there, at least `needed`.
    fn make_room(&mut self, needed: u64) -> u64 {
        if self.at + needed > self.len_max {
            self.at = HEADER_LEN;
        }
        let mut pos = self.at;
        while pos < self.at + needed {
            let block = self.blocks.remove(&pos).expect("blocks cover the file");
            if let Some((oid, start)) = block.revision {
                self.used -= block.len;
                self.happened.evictions += 1;
                self.evict(oid, start, pos, block.len - OVERHEAD);
            }
            pos += block.len;
        }
        pos - self.at
    }

    fn evict(&mut self, oid: Oid, start: Tid, at: u64, len: u64) {
        if self.current.get(&oid).is_some_and(|place| place.at == at) {
            self.current.remove(&oid);
            self.evicted.insert(oid, (start, len));
        } else if let Some(revisions) = self.former.get_mut(&oid)
            && let Some(place) = revisions.remove(&start)
        {
            if revisions.is_empty() {
                self.former.remove(&oid);
            }
            self.evicted_former.insert((oid, start), (place.end, len));
        }
    }

    fn free(&mut self, at: u64) {
        if let Some(block) = self.blocks.get_mut(&at) {
            block.revision = None;
            self.used -= block.len;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MISS: u8 = 0x20;
    const HIT: u8 = 0x22;

    fn record(code: u8, oid: u64, start: u64, end: u64, len: u32) -> TraceRecord {
        let oid = Some(Oid(oid));
        let (start, end) = (Tid(start), Tid(end));
        TraceRecord { time: 1, code: TraceCode(code), in_version: false, len, start, end, oid }
    }

    fn check_blocks(model: &CacheModel) {
        let (mut pos, mut used, mut revisions) = (HEADER_LEN, 0, 0);
        while pos < model.len_max {
            let block = &model.blocks[&pos];
            if block.revision.is_some() {
                used += block.len;
                revisions += 1;
            }
            pos += block.len;
        }
        assert_eq!((pos, used), (model.len_max, model.used));
        let former: usize = model.former.values().map(BTreeMap::len).sum();
        assert_eq!(revisions, model.current.len() + former);
    }

    #[test]
    fn former_revisions_are_found_by_the_time_of_the_view() {
        let mut model = CacheModel::new(10_000, 0.8);
        let mut hits = |record: TraceRecord| {
            let before = model.happened().hits;
            assert!(model.apply(&record));
            check_blocks(&model);
            model.happened().hits - before
        };
        hits(record(0x52, 1, 10, 0, 100));
        hits(record(0x1c, 1, 20, 0, 0));
        hits(record(0x52, 1, 20, 0, 100));
        for (before, hit) in [(10, 0), (11, 1), (20, 1), (21, 1), (0, 1)] {
            assert_eq!(hits(record(0x24, 1, 0, before, 0)), hit, "{before}");
            assert_eq!(hits(record(MISS, 1, 0, before, 0)), hit, "{before}");
        }
        assert_eq!(hits(record(0x26, 1, 0, 10, 0)), 1);
        assert_eq!(hits(record(0x26, 1, 0, 9, 0)), 0);
        assert_eq!(hits(record(HIT, 1, 20, 0, 100)), 1);
        // Dropped, because it is not known who changed it: what was is still there.
        hits(record(0x1e, 1, 0, 0, 0));
        assert_eq!(hits(record(MISS, 1, 0, 0, 0)), 0);
        assert_eq!(hits(record(0x24, 1, 0, 20, 0)), 1);
    }

    #[test]
    fn what_a_smaller_cache_evicted_is_stored_again_where_the_real_one_had_a_hit() {
        let mut model = CacheModel::new(1000, 2.0);
        for oid in 1..=10 {
            model.apply(&record(0x52, oid, 5, 0, 200));
        }
        assert_eq!((model.happened().evictions, model.happened().stores), (7, 10));
        model.apply(&record(HIT, 1, 5, 0, 200));
        assert_eq!((model.happened().hits, model.happened().stores), (0, 11));
        model.apply(&record(HIT, 1, 5, 0, 200));
        assert_eq!(model.happened().hits, 1);
        // Evicted, and changed afterwards: it comes back as a former revision.
        model.apply(&record(0x1c, 2, 9, 0, 0));
        model.apply(&record(0x26, 2, 0, 5, 0));
        assert_eq!((model.happened().hits, model.happened().stores), (1, 12));
        model.apply(&record(0x24, 2, 0, 9, 0));
        assert_eq!(model.happened().hits, 2);
        check_blocks(&model);
    }

    #[test]
    fn arbitrary_records_keep_the_blocks_in_order() {
        let mut state = 11_u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        for len_max in [CacheModel::LEN_MIN, 100, 2000, 30_000] {
            let mut model = CacheModel::new(len_max, 0.3);
            for _ in 0..20_000 {
                let code =
                    [0x10, 0x1a, 0x1c, 0x1e, MISS, HIT, 0x24, 0x26, 0x50, 0x52, 0x54][random(11) as usize];
                let len = (random(60) * random(60)) as u32;
                model.apply(&record(code, random(40), random(9), random(9), len));
            }
            check_blocks(&model);
        }
    }
}
