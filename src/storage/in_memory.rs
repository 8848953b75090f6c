//! What the storages in memory share: giving out oids and tids, and publishing.

use std::sync::Arc;

use super::tids::Tids;
use super::{Committed, GroupTimes, Publisher, PublisherSlot, Result, StorageError, Ticket};
use crate::base::ids::{Oid, Tid};
use crate::base::sync::{Mutex, MutexGuard, rank};

/// The commits of a storage in memory.
pub struct Commits {
    /// The log target.
    target: &'static str,
    pub tids: Tids,
    publisher: PublisherSlot,
    /// Held from a finish's tid until it is published.
    commit: Mutex<(), rank::MemoryCommit>,
    /// The last oid that was given out.
    last_oid: Mutex<u64, rank::Oids>,
}

/// A voted transaction of a storage in memory, during its finish. Commits are held.
pub trait Pending {
    /// The objects of its records.
    fn oids(&self) -> Vec<Oid>;

    /// Does what can fail; the client gets the error. `oids`: each object once.
    fn prepare(&mut self, tid: Tid, oids: &[Oid]) -> Result<Totals>;

    /// Makes the transaction visible, in memory only.
    fn install(self, tid: Tid);
}

/// What a transaction that is about to be published makes of the storage.
pub struct Totals {
    pub object_count: u64,
    /// In bytes.
    pub size: u64,
}

impl Commits {
    pub fn new(target: &'static str, tids: Tids) -> Commits {
        Commits {
            target,
            tids,
            publisher: PublisherSlot::default(),
            commit: Mutex::default(),
            last_oid: Mutex::default(),
        }
    }

    pub fn set_publisher(&self, publisher: Arc<dyn Publisher>, name: &str) {
        self.publisher.set(publisher, self.target, name);
    }

    /// Keeps all commits out.
    pub fn hold(&self) -> MutexGuard<'_, ()> {
        self.commit.lock()
    }

    /// `count` oids behind the last that was given out, and behind `largest`: stored objects may have oids that this
    /// storage did not give out. `None`: there are no more.
    pub fn new_oids(&self, largest: u64, count: usize) -> Option<Vec<Oid>> {
        let mut last_oid = self.last_oid.lock();
        let last = largest.max(*last_oid);
        let end = last.checked_add(count as u64)?;
        *last_oid = end;
        Some((last + 1..=end).map(Oid).collect())
    }

    /// Finishes a transaction of the storage `name`. `voted_tid`: the tid that it got at vote.
    pub fn finish(&self, name: &str, ticket: Ticket, voted_tid: Option<Tid>, mut txn: impl Pending) {
        let published: std::result::Result<_, (Ticket, StorageError)> = {
            let _committing = self.hold();
            let tid = self.tids.at_finish(voted_tid);
            let mut oids = txn.oids();
            oids.sort_unstable();
            oids.dedup();
            match txn.prepare(tid, &oids) {
                Ok(Totals { object_count, size }) => {
                    let group = vec![Committed {
                        tid,
                        oids,
                        object_count,
                        size,
                        ticket,
                        times: GroupTimes::default(),
                    }];
                    let mut txn = Some(txn);
                    let mut install = || txn.take().into_iter().for_each(|txn| txn.install(tid));
                    Ok(self.publisher.publish(group, &mut install))
                }
                Err(error) => Err((ticket, error)),
            }
        };
        match published {
            Ok(delivery) => delivery.into_iter().for_each(|deliver| deliver()),
            Err((ticket, error)) => self.publisher.failed(ticket, error, self.target, name),
        }
    }
}
