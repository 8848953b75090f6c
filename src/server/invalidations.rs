//! The last transactions and the objects that they changed: for `getInvalidations`, and to check whether a computed
//! reply still holds.

use std::collections::{HashSet, VecDeque};

use crate::base::ids::{Oid, Tid};
use crate::base::sync::Arc;
use crate::storage::LastInvalidations;

/// Least number of transactions that are kept, whatever `invalidation-queue-size` is: replies are checked against them.
const KEPT_MIN: usize = 256;

/// What one transaction changed.
#[derive(Clone, Debug)]
pub struct Invalidation {
    pub tid: Tid,
    pub oids: Arc<[Oid]>,
}

/// What changed after a client's last transaction, as far as the queue has it.
#[derive(Debug)]
pub enum Since {
    /// What changed since, newest first.
    Known(Vec<Invalidation>),
    /// The transaction is older than the queue.
    TooOld,
    /// The queue has older transactions, but not this one: the client has seen another history than this one, from
    /// before an older file was restored.
    NoSuchTransaction,
}

/// A bounded queue, newest first.
#[derive(Debug)]
pub struct Invalidations {
    queue: VecDeque<Invalidation>,
    /// `invalidation-queue-size`: number of transactions that clients get answers from.
    answered_max: usize,
    /// The newest transaction that is no longer, or was never, in the queue.
    forgotten: Tid,
}

impl Invalidations {
    /// `last` comes from the storage. If it is empty the queue begins with `last_transaction`.
    pub fn new(answered_max: usize, last: LastInvalidations, last_transaction: Tid) -> Invalidations {
        let forgotten = last.complete_after;
        let transactions = last.transactions.into_iter();
        let mut queue: VecDeque<Invalidation> =
            transactions.map(|(tid, oids)| Invalidation { tid, oids: oids.into() }).collect();
        if queue.is_empty() && last_transaction > Tid::ZERO {
            // A client that is up to date with a restarted server gets the later invalidations.
            queue.push_back(Invalidation { tid: last_transaction, oids: Arc::from([]) });
        }
        Invalidations { queue, answered_max, forgotten }
    }

    /// Number of transactions to ask a storage for at the start.
    pub fn wanted(answered_max: usize) -> usize {
        answered_max.max(1)
    }

    pub fn push(&mut self, tid: Tid, oids: Arc<[Oid]>) {
        self.queue.push_front(Invalidation { tid, oids });
        if self.queue.len() > self.answered_max.max(KEPT_MIN)
            && let Some(oldest) = self.queue.pop_back()
        {
            self.forgotten = oldest.tid;
        }
    }

    /// Nobody can say what changed up to transaction `last`.
    pub fn restart(&mut self, last: Tid) {
        *self = Invalidations::new(self.answered_max, LastInvalidations::new(Vec::new(), last), last);
    }

    /// What changed after transaction `tid`, as far back as is configured. Python's server answers for any tid that
    /// is not older than the queue, and so lets clients go on with states that a restored file has never had.
    pub fn since(&self, tid: Tid) -> Since {
        let oldest = self.oldest_answered();
        if oldest.is_none_or(|oldest| oldest > tid) {
            return Since::TooOld;
        }
        let newer = self.queue.iter().take_while(|i| i.tid > tid);
        let newer: Vec<Invalidation> = newer.cloned().collect();
        match self.queue.get(newer.len()) {
            Some(same) if same.tid == tid => Since::Known(newer),
            _ => Since::NoSuchTransaction,
        }
    }

    /// The newest transaction.
    pub fn newest(&self) -> Option<Tid> {
        self.queue.front().map(|i| i.tid)
    }

    /// The oldest transaction that `since` answers for.
    pub fn oldest_answered(&self) -> Option<Tid> {
        self.queue.get(self.queue.len().min(self.answered_max.max(1)).checked_sub(1)?).map(|i| i.tid)
    }

    /// Whether [`Invalidations::changed_after`] has an answer.
    pub fn reaches_back_to(&self, tid: Tid) -> bool {
        tid >= self.forgotten
    }

    /// The objects that changed after `tid`; `None` if the queue does not reach back so far.
    pub fn changed_after(&self, tid: Tid) -> Option<HashSet<Oid>> {
        if !self.reaches_back_to(tid) {
            return None;
        }
        let newer = self.queue.iter().take_while(|i| i.tid > tid);
        Some(newer.flat_map(|i| i.oids.iter().copied()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(answered_max: usize, tids: std::ops::Range<u64>) -> Invalidations {
        let mut queue =
            Invalidations::new(answered_max, listed(&[tids.start], Tid(tids.start)), Tid(tids.start));
        for tid in tids.start + 1..tids.end {
            queue.push(Tid(tid), Arc::from([Oid(tid)]));
        }
        queue
    }

    fn listed(tids: &[u64], last: Tid) -> LastInvalidations {
        LastInvalidations::new(tids.iter().map(|tid| (Tid(*tid), vec![Oid(1)])).collect(), last)
    }

    /// A damaged storage may not know the changes of its last transaction.
    #[test]
    fn what_the_storage_could_not_tell_is_not_taken_for_unchanged() {
        let queue = Invalidations::new(100, listed(&[], Tid(9)), Tid(9));
        assert_eq!(queue.changed_after(Tid(8)), None);
        assert_eq!(queue.changed_after(Tid(9)), Some(HashSet::new()));
        assert!(matches!(queue.since(Tid(8)), Since::TooOld));
        assert!(matches!(queue.since(Tid(9)), Since::Known(missed) if missed.is_empty()));
        let queue = Invalidations::new(100, listed(&[9, 7], Tid(9)), Tid(9));
        assert_eq!(queue.changed_after(Tid(5)), None);
        assert_eq!(queue.changed_after(Tid(6)), Some(HashSet::from([Oid(1)])));
    }

    #[test]
    fn answers_as_far_back_as_configured() {
        let queue = queue(3, 10..20);
        let tids = |since: u64| match queue.since(Tid(since)) {
            Since::Known(list) => Some(list.iter().map(|i| i.tid.0).collect::<Vec<_>>()),
            _ => None,
        };
        assert_eq!(tids(19), Some(vec![]));
        assert_eq!(tids(17), Some(vec![19, 18]));
        assert_eq!(tids(16), None);
    }

    /// After an older file was put back, clients went on with states of transactions that had never been in it:
    /// whatever was not older than the queue was answered with a list.
    #[test]
    fn a_transaction_of_another_history_is_not_known() {
        let mut queue = Invalidations::new(100, listed(&[30, 10], Tid(30)), Tid(30));
        queue.push(Tid(40), Arc::from([Oid(1)]));
        for known in [10, 30, 40] {
            assert!(matches!(queue.since(Tid(known)), Since::Known(_)), "{known}");
        }
        for lost in [11, 29, 31, 39, 41, u64::MAX] {
            assert!(matches!(queue.since(Tid(lost)), Since::NoSuchTransaction), "{lost}");
        }
        assert!(matches!(queue.since(Tid(9)), Since::TooOld));
    }

    #[test]
    fn knows_what_changed_further_back_than_it_answers() {
        let queue = queue(3, 10..20);
        assert!(
            queue
                .changed_after(Tid(12))
                .is_some_and(|oids| oids.contains(&Oid(13)) && !oids.contains(&Oid(12)))
        );
        assert!(queue.changed_after(Tid(8)).is_none());
    }

    /// The storage of another server has missed transactions.
    #[test]
    fn after_a_gap_only_the_last_transaction_is_known() {
        let mut queue = queue(100, 10..20);
        queue.restart(Tid(30));
        assert!(matches!(queue.since(Tid(30)), Since::Known(missed) if missed.is_empty()));
        assert!(matches!(queue.since(Tid(19)), Since::TooOld));
        assert_eq!(
            (queue.changed_after(Tid(29)), queue.changed_after(Tid(30))),
            (None, Some(HashSet::new()))
        );
        queue.push(Tid(31), Arc::from([Oid(1)]));
        assert!(matches!(queue.since(Tid(30)), Since::Known(missed) if missed.len() == 1));
    }

    #[test]
    fn an_empty_storage_answers_nothing() {
        let empty = Invalidations::new(100, listed(&[], Tid::ZERO), Tid::ZERO);
        assert!(matches!(empty.since(Tid::ZERO), Since::TooOld));
    }
}
