//! The objects that exist at the pack time, with what the search finds out about them: 9 bytes for each.

use crate::base::ids::Oid;

/// Objects of one chunk.
const CHUNK: usize = 1 << 15;

/// It is reachable.
const MARKED: u8 = 1;
/// Its state at the pack time is a deletion.
const DELETED: u8 = 2;
/// It has revisions before the one that was current at the pack time.
const HAS_PAST: u8 = 4;
/// It is removed.
const GONE: u8 = 8;

/// Objects in the order of their oids.
#[derive(Default)]
pub struct Objects {
    chunks: Vec<Neighbours>,
    len: u64,
}

/// Neighbours.
#[derive(Default)]
struct Neighbours {
    oids: Vec<u64>,
    flags: Vec<u8>,
}

/// What a mark finds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Marked {
    /// It was not marked before.
    Now,
    Before,
    /// It did not exist, or was deleted.
    Missing,
    /// It was garbage and is removed already.
    Gone,
}

/// What is to be done about an object.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// It stays with all its revisions.
    Stays,
    /// Its past is removed.
    LosesPast,
    /// It is not reachable.
    Garbage,
    /// It was deleted.
    Deleted,
}

impl Objects {
    /// Adds an object whose oid is greater than all others.
    pub fn push(&mut self, oid: Oid, is_deleted: bool, has_past: bool) {
        if self.chunks.last().is_none_or(|chunk| chunk.oids.len() == CHUNK) {
            let first = if self.chunks.is_empty() { 0 } else { CHUNK };
            self.chunks
                .push(Neighbours { oids: Vec::with_capacity(first), flags: Vec::with_capacity(first) });
        }
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.oids.push(oid.0);
            chunk.flags.push(if is_deleted { DELETED } else { 0 } | if has_past { HAS_PAST } else { 0 });
            self.len += 1;
        }
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether an object is in the list, deleted or not.
    pub fn contains(&self, oid: Oid) -> bool {
        self.find(oid).is_some()
    }

    fn flags(&self, oid: Oid) -> Option<u8> {
        let (chunk, at) = self.find(oid)?;
        self.chunks.get(chunk)?.flags.get(at).copied()
    }

    fn flags_mut(&mut self, oid: Oid) -> Option<&mut u8> {
        let (chunk, at) = self.find(oid)?;
        self.chunks.get_mut(chunk)?.flags.get_mut(at)
    }

    fn find(&self, oid: Oid) -> Option<(usize, usize)> {
        let behind =
            self.chunks.partition_point(|chunk| chunk.oids.first().is_some_and(|first| *first <= oid.0));
        let chunk = behind.checked_sub(1)?;
        let at = self.chunks.get(chunk)?.oids.binary_search(&oid.0).ok()?;
        Some((chunk, at))
    }

    /// Marks an object as reachable.
    pub fn mark(&mut self, oid: Oid) -> Marked {
        let Some(flags) = self.flags_mut(oid) else { return Marked::Missing };
        let marked = match *flags {
            flags if flags & GONE != 0 => Marked::Gone,
            flags if flags & DELETED != 0 => Marked::Missing,
            flags if flags & MARKED != 0 => Marked::Before,
            _ => Marked::Now,
        };
        *flags |= MARKED;
        marked
    }

    /// Marks everything.
    pub fn mark_all(&mut self) {
        self.chunks.iter_mut().flat_map(|chunk| &mut chunk.flags).for_each(|flags| *flags |= MARKED);
    }

    /// The object is removed.
    pub fn set_gone(&mut self, oid: Oid) {
        if let Some(flags) = self.flags_mut(oid) {
            *flags |= GONE;
        }
    }

    pub fn fate(&self, oid: Oid) -> Fate {
        self.flags(oid).map_or(Fate::Stays, fate)
    }

    /// The next objects of one fate, from `from` on, in the order of oids: `count` of them at most.
    pub fn next(&self, from: Oid, wanted: impl Fn(Fate) -> bool, count: usize) -> Vec<Oid> {
        let behind =
            self.chunks.partition_point(|chunk| chunk.oids.first().is_some_and(|first| *first <= from.0));
        let chunks = self.chunks.get(behind.saturating_sub(1)..).unwrap_or_default();
        let all = chunks.iter().flat_map(|chunk| chunk.oids.iter().zip(&chunk.flags));
        let found = all.filter(|(oid, flags)| **oid >= from.0 && wanted(fate(**flags)));
        found.map(|(oid, _)| Oid(*oid)).take(count).collect()
    }

    /// Number of objects of a fate.
    pub fn count(&self, wanted: impl Fn(Fate) -> bool) -> u64 {
        let all = self.chunks.iter().flat_map(|chunk| &chunk.flags);
        all.filter(|flags| wanted(fate(**flags))).count() as u64
    }
}

fn fate(flags: u8) -> Fate {
    match flags {
        _ if flags & GONE != 0 => Fate::Stays,
        _ if flags & DELETED != 0 => Fate::Deleted,
        _ if flags & MARKED == 0 => Fate::Garbage,
        _ if flags & HAS_PAST != 0 => Fate::LosesPast,
        _ => Fate::Stays,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_found_in_all_chunks() {
        let mut objects = Objects::default();
        let count = 3 * CHUNK as u64 + 5;
        for oid in 0..count {
            objects.push(Oid(oid * 2), oid % 10 == 3, oid % 4 == 0);
        }
        assert_eq!(objects.len(), count);
        assert_eq!(objects.mark(Oid(3)), Marked::Missing);
        assert_eq!(objects.mark(Oid(6)), Marked::Missing, "it is deleted");
        for oid in [0, CHUNK as u64 * 2, (count - 1) * 2] {
            assert_eq!(objects.mark(Oid(oid)), Marked::Now);
            assert_eq!(objects.mark(Oid(oid)), Marked::Before);
        }
        assert_eq!(objects.fate(Oid(0)), Fate::LosesPast);
        assert_eq!(objects.fate(Oid(6)), Fate::Deleted);
        assert_eq!(objects.fate(Oid(2)), Fate::Garbage);
        assert_eq!(objects.fate(Oid(count * 2)), Fate::Stays);
        objects.set_gone(Oid(2));
        assert_eq!(objects.mark(Oid(2)), Marked::Gone);
        assert_eq!(objects.next(Oid(1), |fate| fate == Fate::Garbage, 2), [Oid(4), Oid(8)]);
        let late = CHUNK as u64 * 2;
        assert_eq!(objects.next(Oid(late), |fate| fate != Fate::Stays, 1), [Oid(late)]);
        let deleted = objects.count(|fate| fate == Fate::Deleted);
        assert_eq!(deleted, (0..count).filter(|oid| oid % 10 == 3).count() as u64);
        objects.mark_all();
        assert_eq!(objects.count(|fate| fate == Fate::Garbage), 0);
    }
}
