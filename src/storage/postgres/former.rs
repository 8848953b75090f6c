//! Records that were replaced lately, in memory, for a database that keeps no history.
//!
//! Clients whose transactions have begun before the replacement read them, and conflicts are merged with them. A record
//! comes here from [`RecordCache`](super::records::RecordCache) when its successor is published. `end` is at most the
//! tid of the successor: from there on the record says nothing.
//!
//! The oldest ones are dropped when there is no room.

use std::collections::{HashMap, VecDeque};

use super::records::CachedRecord;
use crate::base::ids::{Oid, Tid};
use crate::base::sync::{Arc, Mutex, rank};

/// What an entry takes beside its data, approximately.
const OVERHEAD: usize = 160;

/// A record that was current from `serial` until `end`, and perhaps longer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FormerRecord {
    pub serial: Tid,
    pub end: Tid,
    pub data: Arc<[u8]>,
}

pub struct FormerRecords {
    /// Bytes at most. 0: the database has all former revisions itself.
    size: usize,
    entries: Mutex<Entries, rank::PostgresRecords>,
}

#[derive(Default)]
struct Entries {
    /// Oldest first, as is the order in which they go.
    records: HashMap<Oid, VecDeque<FormerRecord>>,
    order: VecDeque<Oid>,
    len: usize,
}

impl FormerRecords {
    pub fn new(size: usize) -> FormerRecords {
        FormerRecords { size, entries: Mutex::default() }
    }

    /// Keeps what was replaced.
    pub fn keep(&self, oid: Oid, replaced: Option<CachedRecord>, end: Tid) {
        let Some(CachedRecord { serial, data }) = replaced else { return };
        if serial >= end || data.len() + OVERHEAD > self.size {
            return;
        }
        let mut dropped = Vec::new();
        let mut entries = self.entries.lock();
        entries.len += data.len() + OVERHEAD;
        entries.records.entry(oid).or_default().push_back(FormerRecord { serial, end, data });
        entries.order.push_back(oid);
        while entries.len > self.size {
            match entries.drop_oldest() {
                Some(record) => dropped.push(record),
                None => break,
            }
        }
        drop(entries);
        drop(dropped);
    }

    /// The record that was current before `before`.
    pub fn before(&self, oid: Oid, before: Tid) -> Option<FormerRecord> {
        self.find(oid, |record| record.serial < before && before <= record.end)
    }

    /// The record of one revision.
    pub fn revision(&self, oid: Oid, serial: Tid) -> Option<FormerRecord> {
        self.find(oid, |record| record.serial == serial)
    }

    fn find(&self, oid: Oid, is_wanted: impl Fn(&FormerRecord) -> bool) -> Option<FormerRecord> {
        let entries = self.entries.lock();
        entries.records.get(&oid)?.iter().rev().find(|record| is_wanted(record)).cloned()
    }
}

impl Entries {
    fn drop_oldest(&mut self) -> Option<FormerRecord> {
        let oid = self.order.pop_front()?;
        let of_object = self.records.get_mut(&oid)?;
        let record = of_object.pop_front()?;
        if of_object.is_empty() {
            self.records.remove(&oid);
        }
        self.len -= record.data.len() + OVERHEAD;
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(serial: u64, len: usize) -> Option<CachedRecord> {
        Some(CachedRecord { serial: Tid(serial), data: vec![serial as u8; len].into() })
    }

    #[test]
    fn records_are_found_until_their_ends() {
        let former = FormerRecords::new(10_000);
        former.keep(Oid(1), record(10, 5), Tid(20));
        former.keep(Oid(1), record(20, 5), Tid(25));
        former.keep(Oid(2), record(11, 5), Tid(12));
        former.keep(Oid(3), None, Tid(12));
        let serial = |oid, before| former.before(Oid(oid), Tid(before)).map(|record| record.serial.0);
        assert_eq!(
            [10, 11, 20, 21, 25, 26].map(|before| serial(1, before)),
            [None, Some(10), Some(10), Some(20), Some(20), None]
        );
        assert_eq!((serial(2, 12), serial(2, 13), serial(3, 12)), (Some(11), None, None));
        assert_eq!(former.revision(Oid(1), Tid(20)).unwrap().end, Tid(25));
        assert_eq!(former.revision(Oid(1), Tid(25)), None);
    }

    #[test]
    fn the_oldest_go_first() {
        let former = FormerRecords::new(3 * (100 + OVERHEAD));
        for serial in 1..=5 {
            former.keep(Oid(serial % 2), record(serial, 100), Tid(serial + 1));
        }
        let kept = |serial: u64| former.revision(Oid(serial % 2), Tid(serial)).is_some();
        assert_eq!([1, 2, 3, 4, 5].map(kept), [false, false, true, true, true]);
        former.keep(Oid(9), record(6, 1000), Tid(7));
        assert!(former.revision(Oid(9), Tid(6)).is_none() && kept(3), "it is larger than all");
        let entries = former.entries.lock();
        assert_eq!((entries.len, entries.order.len()), (3 * (100 + OVERHEAD), 3));
    }

    #[test]
    fn with_history_nothing_is_kept() {
        let former = FormerRecords::new(0);
        former.keep(Oid(1), record(10, 0), Tid(20));
        assert_eq!(former.before(Oid(1), Tid(15)), None);
    }
}
