//! Transactions, from the vote to publishing.

#![warn(missing_docs)]

use std::any::Any;
use std::sync::{Arc, OnceLock};

use super::{Result, Staged, StorageError, Undone};
use crate::base::ids::{Oid, Tid};
use crate::conflict::Resolver;

/// Storing: two phases, as in Python. A transaction that was voted is either finished or aborted.
pub trait Commit: Send + Sync {
    /// Every tid that is assigned from now on is later than `tid`, the last one of a storage that this one is laid
    /// over.
    fn tids_after(&self, _tid: Tid) {}

    /// Checks everything that can be checked, and writes or reserves what can be, so that after this only a broken
    /// medium lets [`Commit::finish`] fail. See [`TidAt`] for when the tid is assigned.
    ///
    /// After an error the storage is as it was.
    fn vote(&self, staged: Staged, tid_at: TidAt) -> Result<Box<dyn Voted>>;

    /// Makes a voted transaction durable and then publishes it. Returns at once or after the sync, as suits the
    /// storage; the outcome goes to the [`Publisher`] with `ticket`, possibly from another thread.
    fn finish(&self, voted: Box<dyn Voted>, ticket: Ticket);

    /// Forgets a voted transaction and gives back what it reserved.
    fn abort(&self, voted: Box<dyn Voted>) {
        drop(voted);
    }

    /// Who is told of finished transactions. Set once, before the first `finish`. See [`PublisherSlot`].
    fn set_publisher(&self, publisher: Arc<dyn Publisher>);

    /// Who merges conflicting states at vote. Set once, before the first `vote`; without one, a conflict is an error.
    /// A layer that keeps records in another format than clients send passes on a resolver that translates.
    fn set_resolver(&self, _resolver: Arc<dyn Resolver>) {}
}

/// When a transaction gets its tid.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TidAt {
    /// At vote. The caller guarantees that no other transaction is between vote and publishing, or is voted before
    /// this one ends. For protocols that tell serials at vote, and for copies that bring their own tid.
    Vote,
    /// At finish: any number of transactions that touch different objects may be voted at the same time.
    Finish,
}

/// A voted transaction. The server reads what it must tell the client; the rest is the storage's own.
pub trait Voted: Any + Send {
    /// The tid, if it was assigned at vote.
    fn tid(&self) -> Option<Tid>;

    /// Objects whose stored state differs from what the client sent, because a conflict was resolved.
    fn resolved(&self) -> &[Oid] {
        &[]
    }

    /// Objects that were changed by undoing transactions, in the order of the operations.
    fn undone(&self) -> &[Undone] {
        &[]
    }
}

impl dyn Voted {
    /// The storage's own form of a transaction that it voted.
    ///
    /// Panics if another storage has voted it, which is a bug of the caller.
    pub fn into_own<V: Voted>(self: Box<dyn Voted>) -> V {
        let own = (self as Box<dyn Any>).downcast::<V>();
        *own.expect("a voted transaction is finished by the storage that voted it")
    }
}

/// What the server attaches to a finish to find the client again.
pub type Ticket = Box<dyn Any + Send>;

/// A finished, durable transaction on its way to be published.
pub struct Committed {
    /// Its tid, later than all that were published before.
    pub tid: Tid,
    /// The objects that it changed, each once.
    pub oids: Vec<Oid>,
    /// [`Storage::object_count`](super::Storage::object_count) once this transaction is visible.
    pub object_count: u64,
    /// [`Storage::size`](super::Storage::size) in bytes, likewise.
    pub size: u64,
    /// As it was given to [`Commit::finish`].
    pub ticket: Ticket,
}

/// What remains to be done after publishing, outside every lock: sending what was queued.
pub type Delivery = Box<dyn FnOnce() + Send>;

/// The server's side of a finish.
pub trait Publisher: Send + Sync {
    /// `group` is durable, in the order of tids, and directly follows what was published before. Calls `install`
    /// exactly once: it makes the whole group visible to reads (the index and the last transaction; in memory only), in
    /// one step with queueing the invalidations. The storage calls this for one group at a time, then gives up its
    /// commit locks, and then runs the returned delivery.
    fn publish(&self, group: Vec<Committed>, install: &mut dyn FnMut()) -> Delivery;

    /// This transaction will not be committed: answer the client.
    fn failed(&self, ticket: Ticket, error: StorageError);
}

/// Where a storage keeps its publisher.
#[derive(Default)]
pub struct PublisherSlot(OnceLock<Arc<dyn Publisher>>);

impl PublisherSlot {
    /// For [`Commit::set_publisher`]: the first one stays. `target` and `name` are for the log line of a second.
    pub fn set(&self, publisher: Arc<dyn Publisher>, target: &str, name: &str) {
        if self.0.set(publisher).is_err() {
            log::error!(target: target, "{name}: a second publisher is ignored");
        }
    }

    /// [`Publisher::publish`]; without a publisher only `install` is called.
    pub fn publish(&self, group: Vec<Committed>, install: &mut dyn FnMut()) -> Option<Delivery> {
        match self.0.get() {
            Some(publisher) => Some(publisher.publish(group, install)),
            None => {
                install();
                None
            }
        }
    }

    /// [`Publisher::failed`]; without a publisher the error is logged.
    pub fn failed(&self, ticket: Ticket, error: StorageError, target: &str, name: &str) {
        match self.0.get() {
            Some(publisher) => publisher.failed(ticket, error),
            None => log::error!(target: target, "{name}: a commit failed: {error}"),
        }
    }
}
