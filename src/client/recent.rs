//! The transactions that arrived last, in the order of their arrival, and what each changed: for views that ask what
//! has changed since they began, and for replies to loads that were under way then.
//!
//! A place in the order is a number, not a tid: it stays right with servers whose messages are not in the order of
//! tids.

use std::collections::VecDeque;

use crate::base::ids::{Oid, Tid};
use crate::base::sync::Arc;

/// Upper bound on the transactions that are kept.
const TRANSACTIONS_MAX: usize = 4096;
/// Upper bound on the oids of all kept transactions, of which the newest is kept whatever its size.
const OIDS_MAX: usize = 256 << 10;

/// A place in the order of arrivals: behind all transactions that had arrived by then.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Place(u64);

/// What one transaction changed.
#[derive(Clone, Debug)]
pub struct Change {
    /// The transaction.
    pub tid: Tid,
    /// The objects, each once.
    pub oids: Arc<[Oid]>,
}

/// A bounded queue of changes.
#[derive(Debug)]
pub struct Recent {
    changes: VecDeque<Change>,
    /// The place before the first of `changes`.
    first: Place,
    oids_len: usize,
    transactions_max: usize,
    oids_max: usize,
}

impl Default for Recent {
    fn default() -> Recent {
        Recent::with_limits(TRANSACTIONS_MAX, OIDS_MAX)
    }
}

impl Recent {
    /// An empty queue with other limits than the usual ones.
    pub fn with_limits(transactions_max: usize, oids_max: usize) -> Recent {
        Recent { changes: VecDeque::new(), first: Place(0), oids_len: 0, transactions_max, oids_max }
    }

    /// The place behind the transaction that arrived last.
    pub fn end(&self) -> Place {
        Place(self.first.0 + self.changes.len() as u64)
    }

    /// The transaction that arrived last, if it is known.
    pub fn last(&self) -> Option<&Change> {
        self.changes.back()
    }

    /// A transaction has arrived.
    pub fn push(&mut self, tid: Tid, oids: Arc<[Oid]>) {
        self.oids_len += oids.len();
        self.changes.push_back(Change { tid, oids });
        while self.changes.len() > self.transactions_max.max(1)
            || (self.oids_len > self.oids_max && self.changes.len() > 1)
        {
            let Some(oldest) = self.changes.pop_front() else { break };
            self.oids_len -= oldest.oids.len();
            self.first.0 += 1;
        }
    }

    /// Transactions have been missed: nobody can say what changed since any earlier place.
    pub fn forget(&mut self) {
        self.first = Place(self.end().0 + 1);
        self.changes.clear();
        self.oids_len = 0;
    }

    /// The transactions that arrived after `place`, oldest first. `None`: some of them are not known any more.
    pub fn since(&self, place: Place) -> Option<impl Iterator<Item = &Change>> {
        let skipped = place.0.checked_sub(self.first.0)?;
        Some(self.changes.iter().skip(usize::try_from(skipped).unwrap_or(usize::MAX)))
    }

    /// The first transaction later than `start` that changed `oid`, among those that arrived after `place`.
    /// `Err(Unknown)`: nobody can say.
    pub fn first_change(&self, oid: Oid, start: Tid, place: Place) -> Result<Option<Tid>, Unknown> {
        let arrived = self.since(place).ok_or(Unknown)?;
        let later = arrived.filter(|change| change.tid > start && change.oids.contains(&oid));
        Ok(later.map(|change| change.tid).min())
    }
}

/// The transactions of the time asked for are not known any more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Unknown;

#[cfg(test)]
mod tests {
    use super::*;

    fn tids(recent: &Recent, place: Place) -> Option<Vec<u64>> {
        Some(recent.since(place)?.map(|change| change.tid.0).collect())
    }

    #[test]
    fn a_place_sees_what_arrived_after_it() {
        let mut recent = Recent::with_limits(3, 100);
        let start = recent.end();
        recent.push(Tid(10), Arc::from([Oid(1)]));
        let middle = recent.end();
        recent.push(Tid(12), Arc::from([Oid(2)]));
        recent.push(Tid(11), Arc::from([Oid(1), Oid(2)]));
        assert_eq!(tids(&recent, start), Some(vec![10, 12, 11]));
        assert_eq!(tids(&recent, middle), Some(vec![12, 11]));
        assert_eq!(tids(&recent, recent.end()), Some(vec![]));

        assert_eq!(recent.first_change(Oid(2), Tid(1), start), Ok(Some(Tid(11))));
        assert_eq!(recent.first_change(Oid(2), Tid(11), start), Ok(Some(Tid(12))));
        assert_eq!(recent.first_change(Oid(1), Tid(11), start), Ok(None));
        assert_eq!(recent.first_change(Oid(1), Tid(1), middle), Ok(Some(Tid(11))));

        recent.push(Tid(13), Arc::from([]));
        assert_eq!(tids(&recent, start), None, "one more than is kept");
        assert_eq!(recent.first_change(Oid(1), Tid(1), start), Err(Unknown));
        assert_eq!(tids(&recent, middle), Some(vec![12, 11, 13]));
    }

    #[test]
    fn large_transactions_push_out_older_ones_but_not_themselves() {
        let mut recent = Recent::with_limits(100, 10);
        let start = recent.end();
        recent.push(Tid(1), (0..8).map(Oid).collect());
        let middle = recent.end();
        assert_eq!(tids(&recent, start), Some(vec![1]));
        recent.push(Tid(2), (0..50).map(Oid).collect());
        assert_eq!(tids(&recent, start), None);
        assert_eq!(tids(&recent, middle), Some(vec![2]));
    }

    #[test]
    fn after_a_gap_no_earlier_place_has_an_answer() {
        let mut recent = Recent::default();
        let empty = recent.end();
        recent.forget();
        assert_eq!(tids(&recent, empty), None, "also if nothing had arrived");
        recent.push(Tid(1), Arc::from([Oid(1)]));
        let before = recent.end();
        recent.forget();
        assert_eq!(tids(&recent, before), None);
        let after = recent.end();
        assert_eq!(tids(&recent, after), Some(vec![]));
        recent.push(Tid(2), Arc::from([]));
        assert_eq!(tids(&recent, after), Some(vec![2]));
    }
}
