//! Revisions that were loaded lately, in memory, for callers that share the data instead of copying it.
//!
//! A revision never changes, so what is here is right for its object and its start; whether it is the revision that a
//! reader wants is for the index to say. Each shard has two generations: what is used moves to the young one, and when
//! that is full, the old one is dropped.

use std::collections::HashMap;
use std::mem;

use crate::base::ids::{Oid, Tid};
use crate::base::sync::{Arc, Mutex, rank};

const SHARDS: usize = 16;
/// What an entry takes beside its data, approximately.
const OVERHEAD: usize = 96;

/// Revisions in memory, at most one of each object.
pub struct Hot {
    /// Empty: nothing is kept.
    shards: Vec<Mutex<Shard, rank::CacheHot>>,
    /// Bytes of one generation of a shard.
    generation_len_max: usize,
}

#[derive(Default)]
struct Shard {
    young: HashMap<Oid, HotRevision>,
    /// Bytes of the young ones.
    young_len: usize,
    old: HashMap<Oid, HotRevision>,
}

#[derive(Clone)]
struct HotRevision {
    start: Tid,
    data: Arc<[u8]>,
}

impl Hot {
    /// At most `len_max` bytes, approximately.
    pub fn new(len_max: usize) -> Hot {
        let generation_len_max = len_max / SHARDS / 2;
        let count = if generation_len_max == 0 { 0 } else { SHARDS };
        Hot { shards: (0..count).map(|_| Mutex::default()).collect(), generation_len_max }
    }

    fn shard(&self, oid: Oid) -> Option<&Mutex<Shard, rank::CacheHot>> {
        // The low bits of neighbours differ.
        self.shards.get(oid.0 as usize % SHARDS)
    }

    /// The data of a revision.
    pub fn get(&self, oid: Oid, start: Tid) -> Option<Arc<[u8]>> {
        let mut shard = self.shard(oid)?.lock();
        if let Some(found) = shard.young.get(&oid) {
            return (found.start == start).then(|| Arc::clone(&found.data));
        }
        let found = shard.old.remove(&oid).filter(|found| found.start == start)?;
        let data = Arc::clone(&found.data);
        let dropped = shard.add(oid, found, self.generation_len_max);
        drop(shard);
        drop(dropped);
        Some(data)
    }

    /// Keeps a revision, unless it is too long.
    pub fn put(&self, oid: Oid, start: Tid, data: &Arc<[u8]>) {
        let Some(shard) = self.shard(oid) else { return };
        if data.len() > self.generation_len_max / 4 {
            return;
        }
        let dropped =
            shard.lock().add(oid, HotRevision { start, data: Arc::clone(data) }, self.generation_len_max);
        drop(dropped);
    }

    /// Forgets all.
    pub fn clear(&self) {
        for shard in &self.shards {
            let dropped = mem::take(&mut *shard.lock());
            drop(dropped);
        }
    }
}

impl Shard {
    /// Returns what has to be dropped, so that the lock is not held for it.
    fn add(&mut self, oid: Oid, revision: HotRevision, len_max: usize) -> HashMap<Oid, HotRevision> {
        self.young_len += revision.data.len() + OVERHEAD;
        if let Some(replaced) = self.young.insert(oid, revision) {
            self.young_len -= replaced.data.len() + OVERHEAD;
        }
        if self.young_len <= len_max {
            return HashMap::new();
        }
        self.young_len = 0;
        mem::replace(&mut self.old, mem::take(&mut self.young))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(len: usize) -> Arc<[u8]> {
        vec![7; len].into()
    }

    #[test]
    fn what_is_used_stays_and_memory_is_bounded() {
        const LEN: usize = 200;
        let hot = Hot::new(200_000);
        let len = |hot: &Hot| {
            hot.shards
                .iter()
                .map(|shard| shard.lock())
                .map(|s| (s.young.len() + s.old.len()) * LEN)
                .sum::<usize>()
        };
        for oid in 0..10_000 {
            hot.put(Oid(oid), Tid(oid), &data(LEN));
            assert_eq!(hot.get(Oid(3), Tid(3)).is_some(), oid >= 3, "{oid}");
            assert!(len(&hot) <= 200_000);
        }
        assert!(len(&hot) > 60_000);
        assert!(hot.get(Oid(9_999), Tid(9_999)).is_some() && hot.get(Oid(5000), Tid(5000)).is_none());
        // Another revision of the object.
        assert!(hot.get(Oid(3), Tid(4)).is_none());
        hot.put(Oid(3), Tid(4), &data(LEN + 1));
        assert_eq!(hot.get(Oid(3), Tid(4)).map(|data| data.len()), Some(LEN + 1));
        assert!(hot.get(Oid(3), Tid(3)).is_none());
        hot.put(Oid(4), Tid(1), &data(100_000));
        assert!(hot.get(Oid(4), Tid(1)).is_none(), "it is too long");
        hot.clear();
        assert_eq!(len(&hot), 0);
        let none = Hot::new(0);
        none.put(Oid(1), Tid(1), &data(LEN));
        assert!(none.get(Oid(1), Tid(1)).is_none());
    }
}
