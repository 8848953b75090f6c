//! The index of a cache in memory: from an object to the places of its current and former revisions in the file.
//!
//! One ordered list of entries of 24 bytes, in chunks that are allocated with little to spare, so that a revision takes
//! at most 32 bytes. For each oid the former revisions come first, by their start, then the current one. There is at
//! most one current revision of an object, and one former revision with the same start.

use crate::base::ids::{Oid, Tid};

/// Most entries in a chunk.
const CHUNK_LEN_MAX: usize = 256;
/// Chunks below this length are joined with a neighbour, if that is short enough.
const CHUNK_LEN_MIN: usize = 64;
/// Most entries of a joined or newly built chunk.
const CHUNK_LEN_NEW: usize = 192;

/// Position, approximate length and kind of a revision in the file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place(u64);

const POS_BITS: u32 = 48;
const LEN_BITS: u32 = 13;
const CURRENT_BIT: u64 = 1 << 63;
/// Lengths are multiples of these; the first that the length fits in.
const UNITS: [u64; 4] = [1, 1 << 6, 1 << 12, 1 << 19];

impl Place {
    /// `pos` is below 2^48, `len` below 2^31.
    pub fn new(pos: u64, len: u64, is_current: bool) -> Place {
        let in_units = |unit: u64| len.div_ceil(unit);
        let code = (0u64..).zip(UNITS).find(|(_, unit)| in_units(*unit) < 1 << LEN_BITS);
        let (scale, unit) = code.unwrap_or((3, 1 << 19));
        let code = scale << LEN_BITS | in_units(unit);
        let current = if is_current { CURRENT_BIT } else { 0 };
        Place(current | code << POS_BITS | pos)
    }

    /// For a file.
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// From a file.
    pub fn from_bits(bits: u64) -> Place {
        Place(bits)
    }

    /// Position of the block.
    pub fn pos(self) -> u64 {
        self.0 & ((1 << POS_BITS) - 1)
    }

    /// The block's length, or a little more.
    pub fn len_max(self) -> u64 {
        let code = self.0 >> POS_BITS;
        let unit = UNITS.get((code >> LEN_BITS & 3) as usize).copied().unwrap_or(1);
        (code & ((1 << LEN_BITS) - 1)) * unit
    }

    /// Whether it is the current revision.
    pub fn is_current(self) -> bool {
        self.0 & CURRENT_BIT != 0
    }
}

/// A revision.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct IndexEntry {
    pub oid: Oid,
    /// The transaction that wrote it.
    pub start: Tid,
    pub place: Place,
}

type RevisionKey = (u64, u64);

impl IndexEntry {
    /// Starts of former revisions are below `u64::MAX`.
    fn key(&self) -> RevisionKey {
        (self.oid.0, if self.place.is_current() { u64::MAX } else { self.start.0 })
    }
}

fn current_key(oid: Oid) -> RevisionKey {
    (oid.0, u64::MAX)
}

fn former_key(oid: Oid, start: Tid) -> RevisionKey {
    (oid.0, start.0.min(u64::MAX - 1))
}

struct Chunk {
    /// Not above the first key, above all keys of the chunk before.
    first: RevisionKey,
    /// Ascending; not empty.
    entries: Vec<IndexEntry>,
}

/// The revisions in a cache file.
#[derive(Default)]
pub struct Index {
    chunks: Vec<Chunk>,
    count: usize,
}

/// Space for this number of further entries is allocated at once, and kept when entries go.
fn spare(len: usize) -> usize {
    (len / 8).max(8)
}

impl Index {
    /// From entries in any order. `Err`: an object with two current revisions. Of two former revisions with the same
    /// start the one with the greater position is taken.
    pub fn build(mut entries: Vec<IndexEntry>) -> Result<Index, Oid> {
        entries.sort_unstable_by_key(|entry| (entry.key(), entry.place.pos()));
        let twice = entries.windows(2).find_map(|pair| match pair {
            [a, b] if a.place.is_current() && a.key() == b.key() => Some(a.oid),
            _ => None,
        });
        if let Some(oid) = twice {
            return Err(oid);
        }
        // Of equal ones the last is kept.
        entries.reverse();
        entries.dedup_by_key(|entry| entry.key());
        entries.reverse();
        Ok(Index::chunked(&entries))
    }

    /// From entries in the order of [`Index::iter`]; `None` if they are in another one.
    pub fn from_sorted(entries: &[IndexEntry]) -> Option<Index> {
        let is_sorted = entries.windows(2).all(|pair| match pair {
            [a, b] => a.key() < b.key(),
            _ => true,
        });
        is_sorted.then(|| Index::chunked(entries))
    }

    fn chunked(entries: &[IndexEntry]) -> Index {
        let chunks = entries
            .chunks(CHUNK_LEN_NEW)
            .filter_map(|part| Some(Chunk { first: part.first()?.key(), entries: part.to_vec() }))
            .collect();
        Index { chunks, count: entries.len() }
    }

    /// Number of revisions.
    pub fn len(&self) -> usize {
        self.count
    }

    /// The current revision.
    pub fn current(&self, oid: Oid) -> Option<IndexEntry> {
        self.at_or_before(current_key(oid)).filter(|entry| entry.key() == current_key(oid))
    }

    /// The former revision with this start.
    pub fn former(&self, oid: Oid, start: Tid) -> Option<IndexEntry> {
        let key = former_key(oid, start);
        self.at_or_before(key).filter(|entry| entry.key() == key)
    }

    /// The last former revision whose start is before `before`.
    pub fn former_before(&self, oid: Oid, before: Tid) -> Option<IndexEntry> {
        let start = before.0.checked_sub(1)?;
        self.at_or_before(former_key(oid, Tid(start)))
            .filter(|entry| entry.oid == oid && !entry.place.is_current())
    }

    /// Adds an entry, or replaces the one for the same revision.
    pub fn insert(&mut self, entry: IndexEntry) {
        let key = entry.key();
        let at = self.chunk_of(key);
        let Some(chunk) = self.chunks.get_mut(at) else {
            self.chunks.push(Chunk { first: key, entries: vec![entry] });
            self.count += 1;
            return;
        };
        let entries = &mut chunk.entries;
        match entries.binary_search_by_key(&key, IndexEntry::key) {
            Ok(found) => {
                if let Some(place) = entries.get_mut(found) {
                    *place = entry;
                }
                return;
            }
            Err(found) => {
                if entries.len() == entries.capacity() {
                    entries.reserve_exact(spare(entries.len()));
                }
                entries.insert(found, entry);
                chunk.first = chunk.first.min(key);
            }
        }
        self.count += 1;
        if chunk.entries.len() > CHUNK_LEN_MAX {
            let upper = chunk.entries.split_off(CHUNK_LEN_MAX / 2);
            chunk.entries.shrink_to(CHUNK_LEN_MAX / 2 + spare(CHUNK_LEN_MAX / 2));
            if let Some(first) = upper.first().map(IndexEntry::key) {
                self.chunks.insert(at + 1, Chunk { first, entries: upper });
            }
        }
    }

    /// Removes the entry of the same revision at the same place. Returns whether there was one.
    pub fn remove(&mut self, entry: &IndexEntry) -> bool {
        let key = entry.key();
        let at = self.chunk_of(key);
        let Some(chunk) = self.chunks.get_mut(at) else { return false };
        let entries = &mut chunk.entries;
        let Ok(found) = entries.binary_search_by_key(&key, IndexEntry::key) else { return false };
        if entries.get(found).is_none_or(|there| there.place.pos() != entry.place.pos()) {
            return false;
        }
        entries.remove(found);
        self.count -= 1;
        let len = entries.len();
        if entries.capacity() > len + 2 * spare(len) {
            entries.shrink_to(len + spare(len));
        }
        if len == 0 {
            self.chunks.remove(at);
        } else if len < CHUNK_LEN_MIN {
            self.join(at);
        }
        true
    }

    /// Removes all entries.
    pub fn clear(&mut self) {
        *self = Index::default();
    }

    /// All revisions, ascending by oid.
    pub fn iter(&self) -> impl Iterator<Item = &IndexEntry> {
        self.chunks.iter().flat_map(|chunk| &chunk.entries)
    }

    /// At most `count` revisions that follow those of `after`; from the first one if `None`. Revisions of one object
    /// are not separated, so that there may be more.
    pub fn objects_after(&self, after: Option<Oid>, count: usize) -> Vec<IndexEntry> {
        let from = after.map_or(0, |oid| self.chunk_of(current_key(oid)));
        let mut found: Vec<IndexEntry> = Vec::new();
        for entry in self.chunks.iter().skip(from).flat_map(|chunk| &chunk.entries) {
            if after.is_some_and(|after| entry.oid <= after) {
                continue;
            }
            if found.len() >= count && found.last().is_some_and(|last| last.oid != entry.oid) {
                break;
            }
            found.push(*entry);
        }
        found
    }

    /// Joins a short chunk with a neighbour.
    fn join(&mut self, at: usize) {
        let len = |at: usize| self.chunks.get(at).map_or(usize::MAX / 2, |chunk| chunk.entries.len());
        let lower = match at.checked_sub(1) {
            Some(before) if len(before) + len(at) <= CHUNK_LEN_NEW => before,
            _ if len(at) + len(at + 1) <= CHUNK_LEN_NEW => at,
            _ => return,
        };
        let upper = self.chunks.remove(lower + 1);
        if let Some(chunk) = self.chunks.get_mut(lower) {
            chunk.entries.reserve_exact(upper.entries.len());
            chunk.entries.extend_from_slice(&upper.entries);
        }
    }

    /// The chunk in which this key is or would be.
    fn chunk_of(&self, key: RevisionKey) -> usize {
        self.chunks.partition_point(|chunk| chunk.first <= key).saturating_sub(1)
    }

    /// The last entry whose key is not above `key`.
    fn at_or_before(&self, key: RevisionKey) -> Option<IndexEntry> {
        let at = self.chunk_of(key);
        let entries = &self.chunks.get(at)?.entries;
        let found = entries.partition_point(|entry| entry.key() <= key);
        match found.checked_sub(1) {
            Some(found) => entries.get(found).copied(),
            // The first entry of the chunk was removed.
            None => self.chunks.get(at.checked_sub(1)?)?.entries.last().copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn places_hold_any_position_and_length() {
        for len in [43, 8191, 8192, 100_000, 524_287, 524_288, 33_000_000, 34_000_000, (1 << 31) - 1] {
            for pos in [12, (1 << 40) + 7, (1 << 48) - 1] {
                let place = Place::new(pos, len, len % 2 == 0);
                assert_eq!((place.pos(), place.is_current()), (pos, len % 2 == 0));
                assert!(place.len_max() >= len && place.len_max() <= len + len / 50, "{len}");
            }
        }
    }

    fn entry(oid: u64, start: u64, pos: u64, current: bool) -> IndexEntry {
        IndexEntry { oid: Oid(oid), start: Tid(start), place: Place::new(pos, 50, current) }
    }

    /// Random changes, compared with a map of the standard library.
    #[test]
    fn is_a_map() {
        let mut index = Index::default();
        let mut model: BTreeMap<(u64, u64), IndexEntry> = BTreeMap::new();
        let mut random = 1u64;
        let mut next = |limit: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % limit
        };
        for step in 0..50_000 {
            let growing = (step / 10_000) % 2 == 0;
            let current = next(3) > 0;
            let it = entry(next(40) * next(50), next(30), step, current);
            let key = (it.oid.0, if current { u64::MAX } else { it.start.0 });
            if next(4) < if growing { 1 } else { 3 } {
                let there = model.range(key..).next().map(|(key, entry)| (*key, *entry));
                let there = there.or_else(|| model.iter().next().map(|(key, entry)| (*key, *entry)));
                if let Some((key, there)) = there {
                    assert!(!index.remove(&IndexEntry {
                        place: Place::new(1 << 40, 50, there.place.is_current()),
                        ..there
                    }));
                    assert!(index.remove(&there));
                    model.remove(&key);
                }
            } else {
                index.insert(it);
                model.insert(key, it);
            }
            assert_eq!(index.len(), model.len());
            let (oid, before) = (next(2000), next(31));
            assert_eq!(index.current(Oid(oid)), model.get(&(oid, u64::MAX)).copied());
            assert_eq!(index.former(Oid(oid), Tid(before)), model.get(&(oid, before)).copied());
            let former = model.range((oid, 0)..(oid, before)).next_back().map(|(_, entry)| *entry);
            assert_eq!(index.former_before(Oid(oid), Tid(before)), former);
        }
        assert!(index.iter().eq(model.values()));
        let sorted: Vec<IndexEntry> = model.values().copied().collect();
        assert!(Index::from_sorted(&sorted).unwrap().iter().eq(&sorted));
        assert!(Index::from_sorted(&[sorted[1], sorted[0]]).is_none());
        let rebuilt = Index::build(model.values().rev().copied().collect()).ok().unwrap();
        assert!(rebuilt.iter().eq(model.values()));
        let (mut after, mut listed) = (None, Vec::new());
        loop {
            let part = rebuilt.objects_after(after, 10);
            let Some(last) = part.last() else { break };
            after = Some(last.oid);
            listed.extend(part);
        }
        assert!(listed.iter().eq(model.values()));
    }

    #[test]
    fn two_current_revisions_are_refused() {
        assert_eq!(Index::build(vec![entry(1, 5, 100, true), entry(1, 6, 200, true)]).err(), Some(Oid(1)));
        let index = Index::build(vec![entry(1, 5, 200, false), entry(1, 5, 100, false)]).ok().unwrap();
        assert_eq!(index.former(Oid(1), Tid(5)).unwrap().place.pos(), 200);
        assert_eq!(index.len(), 1);
    }
}
