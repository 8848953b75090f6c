//! How many loads caches of other sizes would answer, estimated while the cache is used.
//!
//! One object in 64 is watched, or fewer if the cache is large. For each size a list remembers which of the watched
//! objects a cache of that size would have, scaled down as the objects are: it drops what was not used for the longest
//! time. The real file is a ring that moves what is used, which comes near to that. Only loads of current revisions are
//! watched.
//!
//! A few objects that are loaded very often may be among the watched ones or not. So the number of watched loads is
//! compared with the number of all loads, and the difference is counted as hits of all sizes, which such objects are.
//! (Waldspurger et al., "Efficient MRC Construction with SHARDS", FAST 2015: `SHARDS-adj`.)

use std::collections::{BTreeMap, HashMap};

use super::format::OVERHEAD;
use crate::base::ids::Oid;
use crate::base::sync::{AtomicU64, Mutex, Ordering, rank};

/// The sizes, in halves of the size of the cache.
const HALVES: [u64; 2] = [1, 4];
/// One object in this number is watched, or fewer: a power of two. Watching takes a lock, so most loads must do
/// without.
const RATE_MIN: u64 = 64;
/// Bytes of the scaled-down cache above which fewer objects are watched.
const SCALED_MAX: u64 = 1 << 20;

/// What a cache of another size would have answered.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct SizeEstimate {
    /// Size of the file in bytes.
    pub size: u64,
    /// A part of the loads, by which it is estimated.
    pub loads: u64,
    /// Those of them that it would have answered.
    pub hits: u64,
}

impl SizeEstimate {
    /// The share of the loads that it would have answered, 0 to 1. `None`: there were too few loads.
    pub fn hit_rate(&self) -> Option<f64> {
        (self.loads > 0).then(|| self.hits as f64 / self.loads as f64)
    }
}

/// Watches the loads of one cache.
pub struct Estimator {
    /// One object in this number is watched; a power of two.
    rate: AtomicU64,
    watched: Mutex<Watched, rank::CacheEstimate>,
}

#[derive(Default)]
struct Watched {
    size: u64,
    /// Loads of the cache before it had this size.
    loads_before: u64,
    loads: u64,
    lists: [List; HALVES.len()],
    /// Numbers the uses.
    clock: u64,
}

/// The watched objects that a cache of one size would have.
#[derive(Default)]
struct List {
    len_max: u64,
    len: u64,
    hits: u64,
    objects: HashMap<Oid, ListedObject>,
    by_use: BTreeMap<u64, Oid>,
}

struct ListedObject {
    used_at: u64,
    len: u64,
}

impl Estimator {
    /// For a cache of `size` bytes.
    pub fn new(size: u64) -> Estimator {
        let estimator = Estimator { rate: AtomicU64::new(RATE_MIN), watched: Mutex::default() };
        estimator.restart(size, 0);
        estimator
    }

    /// Begins anew: the cache has this size now. `loads`: of all objects, since it was opened.
    pub fn restart(&self, size: u64, loads: u64) {
        let rate = (size / SCALED_MAX).max(RATE_MIN).next_power_of_two();
        let mut watched = self.watched.lock();
        let list = |halves| List { len_max: size / 2 * halves / rate, ..List::default() };
        *watched = Watched { size, loads_before: loads, lists: HALVES.map(list), ..Watched::default() };
        self.rate.store(rate, Ordering::Relaxed);
    }

    /// Whether the object is one of those that are watched.
    pub fn is_watched(&self, oid: Oid) -> bool {
        // The high bits of the product depend on all bits of the oid.
        let mixed = oid.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        mixed & (self.rate.load(Ordering::Relaxed) - 1) == 0
    }

    /// The cache has answered a load of the current revision, of `len` bytes.
    pub fn hit(&self, oid: Oid, len: usize) {
        if self.is_watched(oid) {
            self.watched.lock().load(oid, Some(len));
        }
    }

    /// The cache has not answered a load of the current revision. If the object exists, its store follows.
    pub fn missed(&self, oid: Oid) {
        if self.is_watched(oid) {
            self.watched.lock().load(oid, None);
        }
    }

    /// The current revision was stored.
    pub fn stored(&self, oid: Oid, len: usize) {
        if self.is_watched(oid) {
            self.watched.lock().put(oid, len);
        }
    }

    /// Whatever was current is not any more.
    pub fn invalidated(&self, oid: Oid) {
        if self.is_watched(oid) {
            self.watched.lock().lists.iter_mut().for_each(|list| list.remove(oid));
        }
    }

    /// Everything was removed.
    pub fn cleared(&self) {
        self.watched.lock().lists.iter_mut().for_each(List::clear);
    }

    /// For half and twice the size. `loads`: of all objects, since the cache was opened.
    pub fn estimates(&self, loads: u64) -> [SizeEstimate; HALVES.len()] {
        let watched = self.watched.lock();
        let loads = loads.saturating_sub(watched.loads_before) / self.rate.load(Ordering::Relaxed);
        let mut lists = watched.lists.iter();
        HALVES.map(|halves| {
            let hits = lists.next().map_or(0, |list| list.hits);
            let hits = (hits + loads).saturating_sub(watched.loads).min(loads);
            SizeEstimate { size: watched.size / 2 * halves, loads, hits }
        })
    }
}

impl Watched {
    fn load(&mut self, oid: Oid, len: Option<usize>) {
        self.loads += 1;
        self.clock += 1;
        for list in &mut self.lists {
            if list.touch(oid, self.clock) {
                list.hits += 1;
            } else if let Some(len) = len {
                list.put(oid, len as u64 + OVERHEAD, self.clock);
            }
        }
    }

    fn put(&mut self, oid: Oid, len: usize) {
        self.clock += 1;
        for list in &mut self.lists {
            list.put(oid, len as u64 + OVERHEAD, self.clock);
        }
    }
}

impl List {
    /// Whether it is there. It becomes the newest.
    fn touch(&mut self, oid: Oid, now: u64) -> bool {
        let Some(object) = self.objects.get_mut(&oid) else { return false };
        self.by_use.remove(&object.used_at);
        object.used_at = now;
        self.by_use.insert(now, oid);
        true
    }

    fn put(&mut self, oid: Oid, len: u64, now: u64) {
        self.remove(oid);
        self.objects.insert(oid, ListedObject { used_at: now, len });
        self.by_use.insert(now, oid);
        self.len += len;
        while self.len > self.len_max
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.len -= self.objects.remove(&oldest).map_or(0, |object| object.len);
        }
    }

    fn remove(&mut self, oid: Oid) {
        if let Some(object) = self.objects.remove(&oid) {
            self.by_use.remove(&object.used_at);
            self.len -= object.len;
        }
    }

    fn clear(&mut self) {
        *self = List { len_max: self.len_max, hits: self.hits, ..List::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Cache, CacheOptions};
    use super::*;
    use crate::base::ids::Tid;

    const SIZE: u64 = 4 << 20;
    const LEN: usize = 300;

    fn cache(size: u64) -> Cache {
        Cache::open(CacheOptions::new(None, size)).unwrap()
    }

    fn load(cache: &Cache, oid: Oid) {
        if cache.load_before(oid, Tid::MAX, &mut Vec::new()).is_none() {
            cache.store(oid, Tid(1), None, &[7; LEN]);
        }
    }

    /// Many objects that are seldom loaded, and few that are loaded often.
    fn some(random: &mut u64) -> Oid {
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let unit = (*random >> 11) as f64 / (1u64 << 53) as f64;
        Oid((unit.powi(3) * 60_000.0) as u64)
    }

    #[test]
    fn the_estimates_are_what_caches_of_these_sizes_answer() {
        let caches = [cache(SIZE / 2), cache(SIZE), cache(2 * SIZE)];
        let mut random = 1;
        for _ in 0..200_000 {
            let oid = some(&mut random);
            caches.iter().for_each(|cache| load(cache, oid));
        }
        let real = [&caches[0], &caches[2]].map(|cache| cache.stats().hit_rate().unwrap());
        let estimated = caches[1].stats().estimates.map(|estimate| estimate.hit_rate().unwrap());
        let differences = real.iter().zip(&estimated).map(|(real, estimated)| (real - estimated).abs());
        assert!(differences.clone().all(|difference| difference < 0.05), "{real:?} {estimated:?}");
        assert!(real[1] - real[0] > 0.2, "{real:?}");
        assert_eq!(caches[1].stats().estimates.map(|estimate| estimate.size), [SIZE / 2, 2 * SIZE]);

        caches[1].resize(8 * SIZE);
        assert!(caches[1].stats().estimates.iter().all(|estimate| estimate.loads == 0));
    }

    #[test]
    fn what_was_replaced_is_no_hit() {
        let estimator = Estimator::new(SIZE);
        let oid = (0..).map(Oid).find(|oid| estimator.is_watched(*oid)).unwrap();
        let estimates = |loads: u64| estimator.estimates(loads * RATE_MIN).map(|estimate| estimate.hits);
        estimator.missed(oid);
        estimator.stored(oid, LEN);
        estimator.hit(oid, LEN);
        assert_eq!(estimates(2), [1; 2]);
        estimator.invalidated(oid);
        estimator.missed(oid);
        assert_eq!(estimates(3), [1; 2]);
        estimator.stored(oid, LEN);
        estimator.cleared();
        estimator.missed(oid);
        assert_eq!(estimates(4), [1; 2]);
        // It is longer than a scaled cache of half the size.
        estimator.stored(oid, (SIZE / 2 / RATE_MIN) as usize);
        estimator.missed(oid);
        assert_eq!(estimates(5), [1, 2]);
        assert_eq!(estimates(7), [3, 4], "loads of others");
        assert_eq!(estimates(1), [0; 2], "those of the watched one are too many");
        estimator.restart(SIZE, 7 * RATE_MIN);
        estimator.missed(oid);
        assert_eq!(estimates(8), [0; 2]);
    }

    /// Of a large cache no more is watched than of a small one.
    #[test]
    fn its_memory_is_bounded() {
        let estimator = Estimator::new(1 << 40);
        for oid in 0..100_000 {
            estimator.missed(Oid(oid));
            estimator.stored(Oid(oid), LEN);
        }
        let watched = estimator.watched.lock();
        assert!(watched.lists.iter().all(|list| list.len <= list.len_max && list.len_max <= 2 * SCALED_MAX));
    }
}
