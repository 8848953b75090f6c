//! New object ids that are in neither storage: consecutive ones from a random start, so that two demos over the same
//! base hardly ever give out the same ones.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

use crate::base::ids::Oid;
use crate::base::sync::{Mutex, rank};
use crate::storage::Result;

/// Upper bound on the random start, as in Python.
const START_MAX: u64 = 1 << 62;

/// The ids that were given out since the start, and those that were tried and are taken.
pub struct Issued(Mutex<Rows, rank::DemoOids>);

struct Rows {
    next: u64,
    /// First -> last id of each run.
    rows: BTreeMap<u64, u64>,
}

impl Issued {
    pub fn new() -> Issued {
        Issued(Mutex::new(Rows { next: random(), rows: BTreeMap::new() }))
    }

    /// `count` ids that were never given out and are not `taken`, ascending. Nothing is locked while `taken` is called:
    /// it asks storages, and one of them may be that of another server.
    pub fn next(&self, count: usize, taken: impl Fn(Oid) -> Result<bool>) -> Result<Vec<Oid>> {
        let mut oids = Vec::with_capacity(count);
        while oids.len() < count {
            let tried: Vec<Oid> = {
                let mut rows = self.0.lock();
                (oids.len()..count).map(|_| rows.reserve()).collect()
            };
            let mut some_are_taken = false;
            for oid in tried {
                match taken(oid)? {
                    true => some_are_taken = true,
                    false => oids.push(oid),
                }
            }
            if some_are_taken {
                self.0.lock().next = random();
            }
        }
        // Clients expect ascending ids.
        oids.sort_unstable();
        Ok(oids)
    }
}

impl Rows {
    /// An id that was never reserved. Those that are taken stay reserved.
    fn reserve(&mut self) -> Oid {
        while self.has(self.next) {
            self.next = random();
        }
        let oid = self.next;
        self.add(oid);
        self.next = oid + 1;
        Oid(oid)
    }

    fn has(&self, oid: u64) -> bool {
        self.rows.range(..=oid).next_back().is_some_and(|(_, last)| *last >= oid)
    }

    fn add(&mut self, oid: u64) {
        match self.rows.range_mut(..oid).next_back() {
            Some((_, last)) if *last == oid - 1 => *last = oid,
            _ => {
                self.rows.insert(oid, oid);
            }
        }
    }
}

/// A random number, from the seed that the standard library makes for hash tables.
fn random() -> u64 {
    RandomState::new().hash_one(0u8) % START_MAX + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_twice_and_none_that_is_taken() {
        let issued = Issued::new();
        let first = issued.next(3, |_| Ok(false)).unwrap();
        assert_eq!(first[2].0, first[0].0 + 2);
        // Of the next ids every other one is taken, so that the rest comes from another random start.
        let next = first[2].0 + 1;
        let is_taken = |oid: Oid| oid.0.wrapping_sub(next) < 8 && oid.0.is_multiple_of(2);
        issued.0.lock().next = next;
        let second = issued.next(3, |oid| Ok(is_taken(oid))).unwrap();
        assert!(second.iter().all(|oid| !first.contains(oid) && !is_taken(*oid)), "{first:?} {second:?}");
        assert_eq!(issued.0.lock().rows.len(), 2);
        issued.0.lock().next = first[0].0;
        let third = issued.next(3, |_| Ok(false)).unwrap();
        assert!(third.iter().all(|oid| !first.contains(oid) && !second.contains(oid)), "{first:?} {third:?}");
    }

    /// The base may be the storage of another server, which is asked over the network.
    #[test]
    fn nothing_is_locked_while_the_storages_are_asked() {
        let issued = Issued::new();
        let other = |_| issued.next(1, |_| Ok(false)).map(|oids| oids.len() != 1);
        assert_eq!(issued.next(3, other).unwrap().len(), 3);
    }
}
