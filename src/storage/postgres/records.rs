//! RecordCache that were read lately, in memory, for all clients of the server.
//!
//! There is at most one revision of each object: the one that is current as of the last published transaction. When a
//! transaction is published, `last_transaction` moves first and [`RecordCache::replace`] comes second. A reader that
//! finds nothing here notes the number of changes of its shard ([`RecordCache::get`]), then reads `last_transaction`,
//! then asks the database, and adds what it got only if no object of the shard was replaced since
//! ([`RecordCache::add`]). So nothing outdated stays.
//!
//! Each shard has two generations: what is used moves to the young one, and when that is full, the old one is dropped.

use std::collections::HashMap;
use std::mem;

use crate::base::ids::{Oid, Tid};
use crate::base::sync::{Arc, AtomicU64, Mutex, Ordering, rank};
use crate::storage::CacheCounts;

const SHARDS: usize = 64;
/// What an entry takes beside its data, approximately.
const OVERHEAD: usize = 96;

/// A record in memory.
#[derive(Clone)]
pub struct CachedRecord {
    pub serial: Tid,
    pub data: Arc<[u8]>,
}

/// What a look into the cache finds.
pub enum Lookup {
    Record(CachedRecord),
    /// Not there. The number is for [`RecordCache::add`].
    Nothing(u64),
}

pub struct RecordCache {
    shards: Vec<Mutex<Shard, rank::PostgresRecords>>,
    /// Bytes of one generation of a shard.
    generation_max: usize,
    record_max: usize,
    /// Whether what is committed here is kept, too, if it was not in use before.
    keeps_committed: bool,
    loads: AtomicU64,
    hits: AtomicU64,
}

#[derive(Default)]
struct Shard {
    young: HashMap<Oid, CachedRecord>,
    /// Bytes of the young ones.
    young_len: usize,
    old: HashMap<Oid, CachedRecord>,
    old_len: usize,
    /// Number of objects that were replaced.
    changes: u64,
}

impl RecordCache {
    /// At most `size` bytes, approximately, of records of up to `record_max`.
    pub fn new(size: usize, record_max: usize, keeps_committed: bool) -> RecordCache {
        RecordCache {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            generation_max: size / SHARDS / 2,
            record_max,
            keeps_committed,
            loads: AtomicU64::new(0),
            hits: AtomicU64::new(0),
        }
    }

    fn shard(&self, oid: Oid) -> Option<&Mutex<Shard, rank::PostgresRecords>> {
        // The low bits of neighbours differ.
        self.shards.get(oid.0 as usize % SHARDS)
    }

    /// The current record of an object.
    pub fn get(&self, oid: Oid) -> Lookup {
        self.loads.fetch_add(1, Ordering::Relaxed);
        let Some(shard) = self.shard(oid) else { return Lookup::Nothing(0) };
        let mut shard = shard.lock();
        let found = match shard.young.get(&oid) {
            Some(found) => found.clone(),
            None => {
                let Some(found) = shard.take_old(oid) else { return Lookup::Nothing(shard.changes) };
                let dropped = shard.add(oid, found.clone(), self.generation_max);
                drop(shard);
                drop(dropped);
                found
            }
        };
        self.hits.fetch_add(1, Ordering::Relaxed);
        Lookup::Record(found)
    }

    /// Adds what was read, unless an object of the shard has been replaced since it had `changes` changes.
    pub fn add(&self, oid: Oid, serial: Tid, data: &[u8], changes: u64) {
        let Some(shard) = self.shard(oid).filter(|_| self.keeps(data)) else { return };
        let record = CachedRecord { serial, data: data.into() };
        let mut shard = shard.lock();
        if shard.changes == changes {
            let dropped = shard.add(oid, record, self.generation_max);
            drop(shard);
            drop(dropped);
        }
    }

    /// A published transaction has changed an object. `record`: its new one, if it is at hand. Returns the one before.
    pub fn replace(&self, oid: Oid, record: Option<(Tid, &[u8])>) -> Option<CachedRecord> {
        let shard = self.shard(oid)?;
        let record = record.filter(|(_, data)| self.keeps(data));
        let record = record.map(|(serial, data)| CachedRecord { serial, data: data.into() });
        let mut shard = shard.lock();
        shard.changes += 1;
        let replaced = shard.remove(oid);
        let dropped = match (record, self.keeps_committed || replaced.is_some()) {
            (Some(record), true) => shard.add(oid, record, self.generation_max),
            _ => HashMap::new(),
        };
        drop(shard);
        drop(dropped);
        replaced
    }

    /// For the status.
    pub fn counts(&self) -> CacheCounts {
        let used: usize = self.shards.iter().map(|shard| shard.lock().len()).sum();
        CacheCounts {
            loads: self.loads.load(Ordering::Relaxed),
            hits: self.hits.load(Ordering::Relaxed),
            used: used as u64,
            size: (self.generation_max * 2 * SHARDS) as u64,
        }
    }

    fn keeps(&self, data: &[u8]) -> bool {
        data.len() <= self.record_max.min(self.generation_max / 4)
    }
}

impl CachedRecord {
    fn len(&self) -> usize {
        self.data.len() + OVERHEAD
    }
}

impl Shard {
    fn len(&self) -> usize {
        self.young_len + self.old_len
    }

    fn take_old(&mut self, oid: Oid) -> Option<CachedRecord> {
        let found = self.old.remove(&oid)?;
        self.old_len -= found.len();
        Some(found)
    }

    fn remove(&mut self, oid: Oid) -> Option<CachedRecord> {
        match self.young.remove(&oid) {
            Some(found) => {
                self.young_len -= found.len();
                Some(found)
            }
            None => self.take_old(oid),
        }
    }

    /// Returns what has to be dropped, so that the lock is not held for it.
    fn add(&mut self, oid: Oid, record: CachedRecord, len_max: usize) -> HashMap<Oid, CachedRecord> {
        drop(self.take_old(oid));
        self.young_len += record.len();
        if let Some(replaced) = self.young.insert(oid, record) {
            self.young_len -= replaced.len();
        }
        if self.young_len <= len_max {
            return HashMap::new();
        }
        self.old_len = mem::take(&mut self.young_len);
        mem::replace(&mut self.old, mem::take(&mut self.young))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing(found: Lookup) -> u64 {
        match found {
            Lookup::Nothing(changes) => changes,
            Lookup::Record(_) => panic!("it is there"),
        }
    }

    fn serial(found: Lookup) -> Tid {
        match found {
            Lookup::Record(record) => record.serial,
            Lookup::Nothing(_) => panic!("it is not there"),
        }
    }

    #[test]
    fn what_was_read_before_a_change_is_not_kept() {
        let records = RecordCache::new(1 << 20, 1000, false);
        let before = nothing(records.get(Oid(1)));
        records.replace(Oid(1), None);
        records.add(Oid(1), Tid(5), b"old", before);
        let after = nothing(records.get(Oid(1)));
        records.add(Oid(1), Tid(6), b"new", after);
        assert_eq!(serial(records.get(Oid(1))), Tid(6));
        records.replace(Oid(1), Some((Tid(7), b"newer")));
        assert_eq!(serial(records.get(Oid(1))), Tid(7));
        // An object that was not read is not kept in memory because it is stored.
        records.replace(Oid(2), Some((Tid(7), b"stored")));
        nothing(records.get(Oid(2)));
    }

    #[test]
    fn memory_is_bounded_and_counted() {
        let records = RecordCache::new(1 << 20, 1000, false);
        for oid in 0..20_000 {
            let changes = nothing(records.get(Oid(oid)));
            records.add(Oid(oid), Tid(1), &[7; 200], changes);
            serial(records.get(Oid(oid)));
        }
        let counts = records.counts();
        assert!(
            counts.used <= counts.size + (SHARDS * 300) as u64 && counts.used > counts.size / 3,
            "{counts:?}"
        );
        assert_eq!((counts.loads, counts.hits), (40_000, 20_000));
        for shard in &records.shards {
            let shard = shard.lock();
            let len =
                |records: &HashMap<Oid, CachedRecord>| records.values().map(CachedRecord::len).sum::<usize>();
            assert_eq!((shard.young_len, shard.old_len), (len(&shard.young), len(&shard.old)));
        }
        let changes = nothing(records.get(Oid(1)));
        records.add(Oid(1), Tid(1), &[7; 1001], changes);
        nothing(records.get(Oid(1)));
    }
}
