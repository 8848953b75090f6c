//! Object id -> position of its current record, for every object; usually in 8 bytes each.
//!
//! Oids are given out in sequence, so the index is a table of *pages* of 4096 neighbouring oids. A page that is at
//! least half full is an array of atomics: a read takes no lock, a write is one store. A page with fewer objects is a
//! sorted list under a lock of its own, which readers share. So no set of oids, however scattered, costs more than 16
//! bytes an object plus a fixed sum a page. Pages below oid 2^32 are found through two arrays, those above (random oids
//! of other storages) through sharded maps.
//!
//! A pack builds an index of its own and *marks* in it what can be reached: the mark is the highest bit of the position
//! and costs no memory. Copying a record removes its mark.
//!
//! An object of a dense page has the length of its data beside its position ([`index_words`](super::index_words)), so
//! that a load reads exactly the record with one call. The length is a hint: readers check it against the record.

#![allow(clippy::indexing_slicing)] // a place comes from `split`, `near_place` or `shard`, which keep it in the array

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::format::POS_MAX;
pub use super::index_words::LenHint;
use super::index_words::{DenseWord, HintBits, MARK, SparseWord};
use crate::base::ids::Oid;
use crate::base::sync::{RwLock, rank};

const PAGE_BITS: u32 = 12;
const PAGE_OIDS: usize = 1 << PAGE_BITS;
/// A sparse page with this many objects becomes dense.
const DENSE_AT: usize = PAGE_OIDS / 2;
const TABLE_BITS: u32 = 10;
const TABLE_PAGES: usize = 1 << TABLE_BITS;
/// Pages from this number on are in the maps.
const FAR: u64 = 1 << (2 * TABLE_BITS);
const SHARDS: usize = 16;

/// Where an object's current record is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Entry {
    pub pos: u64,
    pub len: LenHint,
}

/// All positions in an index with marks are below this.
pub const MARKABLE_END: u64 = MARK;

/// The result of [`Index::mark`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Marked {
    Missing,
    Before,
    /// It was marked by this call; the position of its record.
    Now(u64),
}

/// Object id -> position of the current record. All methods may be called from any thread.
pub struct Index {
    near: Box<[OnceLock<Table>]>,
    far: [RwLock<BTreeMap<u64, Arc<Page>>, rank::IndexShard>; SHARDS],
    count: AtomicU64,
    /// The highest oid that was ever inserted.
    max: AtomicU64,
}

type Table = Box<[OnceLock<Arc<Page>>]>;

#[derive(Default)]
struct Page {
    /// A [`DenseWord`] for each slot. Set once, while `sparse` is write-locked.
    dense: OnceLock<Box<[AtomicU64]>>,
    /// Sorted by slot. Empty once `dense` is set.
    sparse: RwLock<Vec<SparseWord>, rank::IndexPage>,
}

impl Default for Index {
    fn default() -> Index {
        Index {
            near: (0..TABLE_PAGES).map(|_| OnceLock::new()).collect(),
            far: Default::default(),
            count: AtomicU64::new(0),
            max: AtomicU64::new(0),
        }
    }
}

impl Index {
    pub fn new() -> Index {
        Index::default()
    }

    /// Number of objects.
    pub fn len(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The highest oid; `None` if there is no object.
    pub fn max_oid(&self) -> Option<Oid> {
        (!self.is_empty()).then(|| Oid(self.max.load(Ordering::Acquire)))
    }

    pub fn get(&self, oid: Oid) -> Option<Entry> {
        let (no, slot) = split(oid);
        if no < FAR {
            let (table, at) = near_place(no);
            self.near.get(table)?.get()?.get(at)?.get()?.get(slot)
        } else {
            let page = self.far[shard(no)].read().get(&no).cloned();
            page?.get(slot)
        }
    }

    /// The position alone; 0 if there is no such object. The `prev` of a new record.
    pub fn pos(&self, oid: Oid) -> u64 {
        self.get(oid).map_or(0, |entry| entry.pos)
    }

    /// Sets the position of the current record, and returns the former one.
    pub fn insert(&self, oid: Oid, pos: u64, data_len: u64) -> Option<u64> {
        debug_assert!(pos > 0 && pos <= POS_MAX);
        let (no, slot) = split(oid);
        let old = self.page(no).insert(slot, pos, HintBits::of(data_len));
        if old.is_none() {
            self.count.fetch_add(1, Ordering::AcqRel);
            self.max.fetch_max(oid.0, Ordering::AcqRel);
        }
        old
    }

    /// Stores the data length of the record at `pos`, if it is still the current one.
    pub fn set_len(&self, oid: Oid, pos: u64, data_len: u64) {
        let (no, slot) = split(oid);
        if let Some(dense) = self.page(no).dense.get()
            && let Some(cell) = dense.get(slot)
        {
            let [unknown, known] =
                [HintBits::UNKNOWN, HintBits::of(data_len)].map(|len| DenseWord::new(pos, len).bits());
            // A commit may win this race: the length then belongs to an older record.
            let _ = cell.compare_exchange(unknown, known, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// Removes an object.
    pub fn remove(&self, oid: Oid) {
        let (no, slot) = split(oid);
        if self.page(no).remove(slot) {
            self.count.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Marks an object. While there are marks, positions are valid only from this call, and no other thread may insert.
    pub fn mark(&self, oid: Oid) -> Marked {
        let (no, slot) = split(oid);
        self.page(no).mark(slot)
    }

    /// Inserts a marked object, replacing an entry without mark if there is one.
    pub fn insert_marked(&self, oid: Oid, pos: u64) {
        self.insert(oid, pos | MARK, 0);
    }

    /// The position of an object, and whether it is marked.
    pub fn marked_pos(&self, oid: Oid) -> (bool, u64) {
        let pos = self.pos(oid);
        (pos & MARK != 0, pos & !MARK)
    }

    /// A marked object, if there is any.
    pub fn any_marked(&self) -> Option<(Oid, u64)> {
        let found = self.for_each(|oid, pos| if pos & MARK == 0 { Ok(()) } else { Err((oid, pos & !MARK)) });
        found.err()
    }

    pub fn mark_all(&self) {
        let mut from = Some(0);
        while let Some((no, page)) = from.and_then(|no| self.next_page(no)) {
            page.mark_all();
            from = no.checked_add(1);
        }
    }

    /// Removes the objects that are not marked.
    pub fn keep_marked(&self) {
        let (mut count, mut max, mut from) = (0, 0, Some(0));
        while let Some((no, page)) = from.and_then(|no| self.next_page(no)) {
            let (kept, last) = page.keep_marked();
            count += kept;
            if kept > 0 {
                max = no << PAGE_BITS | last;
            }
            from = no.checked_add(1);
        }
        self.count.store(count, Ordering::Release);
        self.max.store(max, Ordering::Release);
    }

    /// Inserts the objects of one page at once. Used when `.index` is read, while no other thread inserts. `slots`
    /// ascend.
    pub fn fill(&self, first: Oid, slots: impl ExactSizeIterator<Item = (u16, u64)>) {
        let (no, _) = split(first);
        let page = self.page(no);
        if slots.len() >= DENSE_AT {
            page.make_dense();
        }
        let mut max = 0;
        let slots = slots.map(|(slot, pos)| {
            max = max.max(u64::from(slot));
            (usize::from(slot) % PAGE_OIDS, pos)
        });
        let added = page.fill(slots);
        self.count.fetch_add(added, Ordering::AcqRel);
        self.max.fetch_max(no << PAGE_BITS | max, Ordering::AcqRel);
    }

    /// The first object at or after `from`, in oid order.
    pub fn next(&self, from: Oid) -> Option<(Oid, u64)> {
        let (mut no, mut slot) = split(from);
        loop {
            let (found, page) = self.next_page(no)?;
            if found != no {
                slot = 0;
            }
            if let Some((slot, pos)) = page.first_from(slot) {
                return Some((Oid(found << PAGE_BITS | slot as u64), pos));
            }
            no = found.checked_add(1)?;
            slot = 0;
        }
    }

    /// All objects in oid order, page by page. Concurrent changes may or may not be seen.
    pub fn for_each<E>(&self, mut each: impl FnMut(Oid, u64) -> Result<(), E>) -> Result<(), E> {
        let mut from = Some(0);
        let mut entries = Vec::new();
        while let Some((no, page)) = from.and_then(|no| self.next_page(no)) {
            page.entries(&mut entries);
            for (slot, pos) in entries.drain(..) {
                each(Oid(no << PAGE_BITS | slot), pos)?;
            }
            from = no.checked_add(1);
        }
        Ok(())
    }

    fn page(&self, no: u64) -> Arc<Page> {
        if no < FAR {
            let (table, at) = near_place(no);
            let table = self.near[table].get_or_init(|| (0..TABLE_PAGES).map(|_| OnceLock::new()).collect());
            return table[at].get_or_init(Arc::default).clone();
        }
        let shard = &self.far[shard(no)];
        if let Some(page) = shard.read().get(&no) {
            return page.clone();
        }
        shard.write().entry(no).or_default().clone()
    }

    fn next_page(&self, from: u64) -> Option<(u64, Arc<Page>)> {
        if from < FAR {
            let (first_table, mut first) = near_place(from);
            for (i, table) in self.near.iter().enumerate().skip(first_table) {
                if let Some(table) = table.get() {
                    for (j, page) in table.iter().enumerate().skip(first) {
                        if let Some(page) = page.get() {
                            return Some(((i << TABLE_BITS | j) as u64, page.clone()));
                        }
                    }
                }
                first = 0;
            }
        }
        let firsts = self
            .far
            .iter()
            .filter_map(|shard| shard.read().range(from..).next().map(|(&no, page)| (no, page.clone())));
        firsts.min_by_key(|(no, _)| *no)
    }
}

impl Page {
    fn get(&self, slot: usize) -> Option<Entry> {
        if let Some(dense) = self.dense.get() {
            return dense_entry(dense, slot);
        }
        let sparse = self.sparse.read();
        match sparse.get(sparse.partition_point(|word| word.slot() < slot)) {
            Some(word) if word.slot() == slot => Some(Entry { pos: word.pos(), len: LenHint::Unknown }),
            // It may have become dense since the first check.
            _ => dense_entry(self.dense.get()?, slot),
        }
    }

    fn insert(&self, slot: usize, pos: u64, len: HintBits) -> Option<u64> {
        if let Some(dense) = self.dense.get() {
            return dense_insert(dense, slot, DenseWord::new(pos, len));
        }
        let mut sparse = self.sparse.write();
        if let Some(dense) = self.dense.get() {
            return dense_insert(dense, slot, DenseWord::new(pos, len));
        }
        let new = SparseWord::new(slot, pos);
        let at = sparse.partition_point(|word| word.slot() < slot);
        if let Some(word) = sparse.get_mut(at)
            && word.slot() == slot
        {
            return Some(std::mem::replace(word, new).pos());
        }
        sparse.insert(at, new);
        if sparse.len() >= DENSE_AT {
            self.become_dense(&mut sparse);
        }
        None
    }

    fn remove(&self, slot: usize) -> bool {
        let mut sparse = self.sparse.write();
        if let Some(dense) = self.dense.get() {
            return dense.get(slot).is_some_and(|cell| {
                cell.swap(DenseWord::NONE.bits(), Ordering::AcqRel) != DenseWord::NONE.bits()
            });
        }
        let found = sparse.binary_search_by_key(&slot, |word| word.slot());
        found.map(|at| sparse.remove(at)).is_ok()
    }

    fn mark(&self, slot: usize) -> Marked {
        let unmarked = |pos: u64| if pos & MARK == 0 { Marked::Now(pos) } else { Marked::Before };
        if let Some(dense) = self.dense.get() {
            let Some(cell) = dense.get(slot) else { return Marked::Missing };
            let word = DenseWord::from_bits(cell.load(Ordering::Relaxed));
            if word.is_none() {
                return Marked::Missing;
            }
            // No other thread writes, so no swap is needed.
            cell.store(word.marked().bits(), Ordering::Relaxed);
            return unmarked(word.pos());
        }
        let mut sparse = self.sparse.write();
        let found = sparse.binary_search_by_key(&slot, |word| word.slot());
        let Some(word) = found.ok().and_then(|at| sparse.get_mut(at)) else { return Marked::Missing };
        let before = std::mem::replace(word, word.marked());
        unmarked(before.pos())
    }

    fn mark_all(&self) {
        self.sparse.write().iter_mut().for_each(|word| *word = word.marked());
        for cell in self.dense.get().into_iter().flatten() {
            let word = DenseWord::from_bits(cell.load(Ordering::Relaxed));
            if !word.is_none() {
                cell.store(word.marked().bits(), Ordering::Relaxed);
            }
        }
    }

    /// The number of objects that are left, and the last of them.
    fn keep_marked(&self) -> (u64, u64) {
        let mut sparse = self.sparse.write();
        sparse.retain(|word| word.is_marked());
        let (mut count, mut last) = (sparse.len() as u64, sparse.last().map_or(0, |word| word.slot() as u64));
        for (slot, cell) in self.dense.get().into_iter().flatten().enumerate() {
            if DenseWord::from_bits(cell.load(Ordering::Relaxed)).is_marked() {
                (count, last) = (count + 1, slot as u64);
            } else {
                cell.store(DenseWord::NONE.bits(), Ordering::Relaxed);
            }
        }
        (count, last)
    }

    /// Inserts many objects while no other thread does; returns how many were new.
    fn fill(&self, slots: impl Iterator<Item = (usize, u64)>) -> u64 {
        let Some(dense) = self.dense.get() else {
            return slots
                .map(|(slot, pos)| u64::from(self.insert(slot, pos, HintBits::UNKNOWN).is_none()))
                .sum();
        };
        let mut added = 0;
        for (slot, pos) in slots {
            let cell = &dense[slot];
            // No swap: the bus lock of a million swaps is noticeable at a start.
            added += u64::from(DenseWord::from_bits(cell.load(Ordering::Relaxed)).is_none());
            cell.store(DenseWord::new(pos, HintBits::UNKNOWN).bits(), Ordering::Release);
        }
        added
    }

    fn make_dense(&self) {
        let mut sparse = self.sparse.write();
        if self.dense.get().is_none() {
            self.become_dense(&mut sparse);
        }
    }

    fn become_dense(&self, sparse: &mut Vec<SparseWord>) {
        let none = || AtomicU64::new(DenseWord::NONE.bits());
        let dense: Box<[AtomicU64]> = (0..PAGE_OIDS).map(|_| none()).collect();
        for word in sparse.iter() {
            let moved = DenseWord::new(word.pos(), HintBits::UNKNOWN);
            dense[word.slot()].store(moved.bits(), Ordering::Relaxed);
        }
        // Cannot be set already: it is only set under the lock that the caller holds, after this check.
        let _ = self.dense.set(dense);
        *sparse = Vec::new();
    }

    fn first_from(&self, slot: usize) -> Option<(usize, u64)> {
        let mut entries = Vec::new();
        if let Some(dense) = self.dense.get() {
            return (slot..PAGE_OIDS).find_map(|slot| Some((slot, dense_entry(dense, slot)?.pos)));
        }
        self.entries(&mut entries);
        let (slot, pos) = entries.into_iter().find(|&(found, _)| found >= slot as u64)?;
        Some((slot as usize, pos))
    }

    fn entries(&self, out: &mut Vec<(u64, u64)>) {
        {
            let sparse = self.sparse.read();
            out.extend(sparse.iter().map(|word| (word.slot() as u64, word.pos())));
        }
        if out.is_empty()
            && let Some(dense) = self.dense.get()
        {
            let cells = dense.iter().enumerate();
            out.extend(cells.filter_map(|(slot, cell)| {
                let word = DenseWord::from_bits(cell.load(Ordering::Acquire));
                (!word.is_none()).then_some((slot as u64, word.pos()))
            }));
        }
    }
}

fn dense_entry(dense: &[AtomicU64], slot: usize) -> Option<Entry> {
    let word = DenseWord::from_bits(dense.get(slot)?.load(Ordering::Acquire));
    (!word.is_none()).then(|| Entry { pos: word.pos(), len: word.len().hint() })
}

fn dense_insert(dense: &[AtomicU64], slot: usize, word: DenseWord) -> Option<u64> {
    let old = DenseWord::from_bits(dense[slot].swap(word.bits(), Ordering::AcqRel));
    (!old.is_none()).then_some(old.pos())
}

fn split(oid: Oid) -> (u64, usize) {
    (oid.0 >> PAGE_BITS, oid.0 as usize & (PAGE_OIDS - 1))
}

fn near_place(no: u64) -> (usize, usize) {
    ((no >> TABLE_BITS) as usize, no as usize & (TABLE_PAGES - 1))
}

fn shard(no: u64) -> usize {
    no as usize % SHARDS
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn oids() -> impl Strategy<Value = u64> {
        prop_oneof![0..5000u64, 0..100_000u64, (0..60u32).prop_map(|b| 1 << b), any::<u64>()]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn behaves_as_a_map(puts in prop::collection::vec((oids(), 1..1u64 << 40, 0..100_000u64), 0..4000)) {
            let index = Index::new();
            let mut model = BTreeMap::new();
            for (oid, pos, len) in puts {
                prop_assert_eq!(index.insert(Oid(oid), pos, len), model.insert(oid, pos));
            }
            prop_assert_eq!(index.len(), model.len() as u64);
            prop_assert_eq!(index.max_oid().map(|o| o.0), model.keys().last().copied());
            let mut all = Vec::new();
            let done: Result<(), ()> = index.for_each(|oid, pos| { all.push((oid.0, pos)); Ok(()) });
            prop_assert!(done.is_ok());
            let expected: Vec<_> = model.iter().map(|(&o, &p)| (o, p)).collect();
            prop_assert_eq!(all, expected);
            for &oid in model.keys() {
                let next = index.next(Oid(oid.saturating_add(1))).map(|(oid, _)| oid.0);
                prop_assert_eq!(next, model.range(oid.saturating_add(1)..).next().map(|(&o, _)| o));
            }
        }
    }

    #[test]
    fn what_is_marked_stays() {
        // Sparse, dense, far.
        for (first, step, count) in [(5, 100, 60u64), (0, 1, 9000), (1 << 40, 3, 5)] {
            let index = Index::new();
            let oids = || (0..count).map(|n| Oid(first + n * step));
            oids().for_each(|oid| _ = index.insert(oid, oid.0 % 1000 + 4, 7));
            for oid in oids().step_by(3) {
                assert_eq!(index.mark(oid), Marked::Now(oid.0 % 1000 + 4));
                assert_eq!(index.mark(oid), Marked::Before);
                assert_eq!(index.marked_pos(oid), (true, oid.0 % 1000 + 4));
            }
            assert_eq!(index.mark(Oid(u64::MAX)), Marked::Missing);
            index.insert_marked(Oid(first + 1), 77);
            index.keep_marked();
            assert!(index.any_marked().is_some());
            for oid in oids().step_by(3).chain([Oid(first + 1)]) {
                let (_, pos) = index.marked_pos(oid);
                index.insert(oid, pos, 7);
            }
            assert_eq!(index.any_marked(), None);
            let expected: BTreeMap<_, _> =
                oids().step_by(3).map(|oid| (oid.0, oid.0 % 1000 + 4)).chain([(first + 1, 77)]).collect();
            let mut all = BTreeMap::new();
            let done: Result<(), ()> = index.for_each(|oid, pos| Ok(_ = all.insert(oid.0, pos)));
            done.unwrap();
            assert_eq!(all, expected);
            assert_eq!(index.len(), expected.len() as u64);
            assert_eq!(index.max_oid().map(|oid| oid.0), expected.keys().last().copied());
            index.mark_all();
            assert!(expected.iter().all(|(&oid, &pos)| index.marked_pos(Oid(oid)) == (true, pos)));
            oids().for_each(|oid| index.remove(oid));
            index.remove(Oid(first + 1));
            assert!(index.is_empty() && index.next(Oid(0)).is_none());
        }
    }

    #[test]
    fn dense_pages_keep_lengths() {
        let index = Index::new();
        for oid in 0..4096 {
            index.insert(Oid(oid), oid + 4, oid * 100);
        }
        assert_eq!(index.get(Oid(4000)), Some(Entry { pos: 4004, len: LenHint::AtLeast(65534) }));
        index.insert(Oid(7), 99, 700);
        assert_eq!(index.get(Oid(7)), Some(Entry { pos: 99, len: LenHint::Exactly(700) }));
        index.insert(Oid(1), 5, 0);
        assert_eq!(index.get(Oid(1)).map(|e| e.len), Some(LenHint::Exactly(0)));
        assert_eq!(index.get(Oid(4096)), None);
    }

    #[test]
    fn filling_a_page_is_inserting() {
        let index = Index::new();
        index.fill(Oid(8192), (0..3000u16).map(|i| (i, u64::from(i) + 4)));
        index.fill(Oid(1 << 40), (0..3u16).map(|i| (i, 50)));
        assert_eq!(index.len(), 3003);
        assert_eq!(index.pos(Oid(8192 + 2999)), 3003);
        assert_eq!(index.max_oid(), Some(Oid((1 << 40) + 2)));
        index.set_len(Oid(8192), 4, 77);
        assert_eq!(index.get(Oid(8192)).map(|e| e.len), Some(LenHint::Exactly(77)));
    }
}
