//! What changed since a transaction that is older than the invalidation queue, from the log: `invalidation-age`.
//!
//! After a restart many clients return at once and ask for nearly the same. The log is read once for all sessions
//! that ask at the same time; one that asks for an older transaction reads only the missing part. The result is
//! dropped when the last of them has its answer.
//!
//! The lock is held while the log is read: a session that waits for it would have to read the log itself. It is the
//! outermost of all: no other lock is held when it is taken.

use std::collections::{BTreeSet, HashMap};

use crate::base::ids::{Oid, Tid};
use crate::base::sync::{AtomicUsize, Mutex, Ordering, rank};
use crate::storage::{Storage, StorageError};

/// The part of the log that was read, for the sessions that ask at the same time.
#[derive(Debug, Default)]
pub struct LogChanges {
    known: Mutex<Option<ReadPart>, rank::LogChanges>,
    /// Number of sessions that are between asking and their answer.
    asking: AtomicUsize,
}

#[derive(Debug)]
struct ReadPart {
    /// It has the transactions after this one,
    since: Tid,
    /// up to and with this one.
    up_to: Tid,
    last: Option<Tid>,
    /// The last of these transactions that changed an object.
    newest: HashMap<Oid, Tid>,
}

/// What changed in a part of the log.
#[derive(Debug, Eq, PartialEq)]
pub struct Changed {
    /// It holds for this state, or a newer one.
    pub up_to: Tid,
    pub last: Option<Tid>,
    pub oids: BTreeSet<Oid>,
}

/// Whether the storage has a transaction with this tid.
pub fn is_transaction(storage: &dyn Storage, tid: Tid) -> Result<bool, StorageError> {
    let found = storage.require_iteration()?.iterate(Some(tid), Some(tid))?.next_transaction()?;
    Ok(found.is_some_and(|found| found.tid == tid))
}

impl LogChanges {
    /// What changed after `since`. `published` is the state now; `is_queued(tid)`: what changed after `tid` is in the
    /// queue of invalidations, and need not be in the answer.
    pub fn since(
        &self,
        storage: &dyn Storage,
        since: Tid,
        published: Tid,
        is_queued: impl Fn(Tid) -> bool,
    ) -> Result<Changed, StorageError> {
        self.asking.fetch_add(1, Ordering::SeqCst);
        let changed = self.find(storage, since, published, is_queued);
        if self.asking.fetch_sub(1, Ordering::SeqCst) == 1 {
            *self.known.lock() = None;
        }
        changed
    }

    fn find(
        &self,
        storage: &dyn Storage,
        since: Tid,
        published: Tid,
        is_queued: impl Fn(Tid) -> bool,
    ) -> Result<Changed, StorageError> {
        let mut slot = self.known.lock();
        // What is known further than the storage is was taken back, or is from a state that is a moment newer.
        if slot.as_ref().is_some_and(|known| !is_queued(known.up_to) || known.up_to > published) {
            *slot = None;
        }
        let known = match &mut *slot {
            Some(known) => {
                if since < known.since {
                    known.read(storage, since, Some(known.since))?;
                    known.since = since;
                }
                known
            }
            None => {
                let mut known = ReadPart { since, up_to: published, last: None, newest: HashMap::new() };
                known.read(storage, since, None)?;
                slot.insert(known)
            }
        };
        let changed = known.newest.iter().filter(|(_, tid)| **tid > since);
        let oids: BTreeSet<Oid> = changed.map(|(oid, _)| *oid).collect();
        Ok(Changed { up_to: known.up_to, last: known.last.filter(|_| !oids.is_empty()), oids })
    }
}

impl ReadPart {
    /// Adds the changes after `since`, up to and including `stop`.
    fn read(&mut self, storage: &dyn Storage, since: Tid, stop: Option<Tid>) -> Result<(), StorageError> {
        let mut transactions =
            storage.require_iteration()?.iterate(Some(Tid(since.0.saturating_add(1))), stop)?;
        while let Some(transaction) = transactions.next_transaction()? {
            let tid = transaction.tid;
            let mut records = transactions.records()?;
            while let Some(record) = records.next_record()? {
                let newest = self.newest.entry(record.oid).or_insert(tid);
                *newest = tid.max(*newest);
            }
            self.last = self.last.max(Some(tid));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::mapping::MappingStorage;
    use crate::storage::{Staged, TidAt, TransactionMeta};

    fn commit(storage: &dyn Storage, oids: &[u64]) -> Tid {
        let mut staged = Staged::new(TransactionMeta::default(), None, b' ', 1 << 20);
        for oid in oids {
            let serial = storage.get_tid(Oid(*oid)).unwrap_or(Tid::ZERO);
            staged.store(Oid(*oid), serial, b"data").unwrap();
        }
        storage.finish(storage.vote(staged, TidAt::Finish).unwrap(), Box::new(()));
        storage.last_transaction()
    }

    /// Each answer is the same as from the log alone, independent of earlier calls.
    #[test]
    fn earlier_and_later_questions_share_what_is_known() {
        let storage = MappingStorage::new("memory".into());
        let tids: Vec<Tid> = [&[1, 2][..], &[1], &[3], &[2, 4]].iter().map(|o| commit(&storage, o)).collect();
        let changes = LogChanges::default();
        // Another session is always asking, so nothing is dropped.
        changes.asking.fetch_add(1, Ordering::SeqCst);
        let ask = |since: Tid| changes.since(&storage, since, tids[3], |_| true).unwrap();
        let oids = |oids: &[u64]| oids.iter().map(|oid| Oid(*oid)).collect::<BTreeSet<_>>();
        for (since, expected) in [
            (tids[1], &[2, 3, 4][..]),
            (tids[2], &[2, 4]),
            (tids[0], &[1, 2, 3, 4]),
            (Tid::ZERO, &[1, 2, 3, 4]),
        ] {
            let changed = ask(since);
            assert_eq!((changed.oids, changed.last, changed.up_to), (oids(expected), Some(tids[3]), tids[3]));
        }
        assert_eq!(ask(tids[3]).last, None);
        // Later commits are not read from the log while the queue has them.
        let later = commit(&storage, &[5]);
        assert!(!ask(tids[2]).oids.contains(&Oid(5)));
        let anew = changes.since(&storage, tids[2], later, |tid| tid == later).unwrap();
        assert_eq!((anew.oids, anew.up_to), (oids(&[2, 4, 5]), later));
        changes.asking.fetch_sub(1, Ordering::SeqCst);
        ask(tids[2]);
        assert!(changes.known.lock().is_none(), "forgotten");
    }
}
