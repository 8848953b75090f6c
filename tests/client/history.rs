//! A database in memory: which transaction wrote which object, as a model for caches.

use std::collections::BTreeMap;

use crate::support::dice::Dice;

/// The revisions of all objects.
pub struct History {
    oids: u64,
    data_len_max: u64,
    /// The tids that wrote each object, ascending.
    written: BTreeMap<u64, Vec<u64>>,
    /// All tids.
    tids: Vec<u64>,
}

impl History {
    /// A history of `oids` objects with at most `data_len_max` bytes each.
    pub fn new(oids: u64, data_len_max: u64) -> History {
        History { oids, data_len_max, written: BTreeMap::new(), tids: vec![1 << 48] }
    }

    pub fn some_oid(&self, dice: &mut Dice) -> u64 {
        dice.below(self.oids)
    }

    /// A tid of the past, or the one behind the last.
    pub fn some_tid(&self, dice: &mut Dice) -> u64 {
        dice.of(&self.tids) + dice.below(2)
    }

    /// Commits a transaction.
    pub fn commit(&mut self, oids: &[u64], dice: &mut Dice) -> u64 {
        let tid = self.last_tid() + 1 + dice.below(1 << 20);
        for oid in oids {
            let written = self.written.entry(*oid).or_default();
            if written.last() != Some(&tid) {
                written.push(tid);
            }
        }
        self.tids.push(tid);
        tid
    }

    pub fn last_tid(&self) -> u64 {
        *self.tids.last().expect("the first")
    }

    /// The revision that was current just before `before`: its start, and its end or 0.
    pub fn at(&self, oid: u64, before: u64) -> Option<(u64, u64)> {
        let written = self.written.get(&oid)?;
        let count = written.partition_point(|tid| *tid < before);
        let start = *written.get(count.checked_sub(1)?)?;
        Some((start, written.get(count).copied().unwrap_or(0)))
    }

    /// The transaction that replaced a revision, or 0; `None`: there is no such revision.
    pub fn next(&self, oid: u64, start: u64) -> Option<u64> {
        let written = self.written.get(&oid)?;
        let at = written.binary_search(&start).ok()?;
        Some(written.get(at + 1).copied().unwrap_or(0))
    }

    /// The objects that were changed after a transaction.
    pub fn changed_since(&self, tid: u64) -> Vec<u64> {
        let is_changed =
            |(oid, written): (&u64, &Vec<u64>)| written.last().filter(|last| **last > tid).map(|_| *oid);
        self.written.iter().filter_map(is_changed).collect()
    }

    /// The data of a revision.
    pub fn data(&self, oid: u64, start: u64) -> Vec<u8> {
        let mut dice = Dice::new(oid, start);
        let len = dice.below(self.data_len_max) * dice.below(4) / 3;
        (0..len).map(|_| dice.below(256) as u8).collect()
    }
}
