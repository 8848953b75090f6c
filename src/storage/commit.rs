//! The traits and types of a commit, from vote to publishing.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::{Staged, StorageError, Undone};
use crate::base::ids::{Oid, Tid};
use crate::conflict::{Conflict, Resolver};

/// Storing, in two phases as in Python. A voted transaction is either finished or aborted.
pub trait Commit: Send + Sync {
    /// Makes every tid that is assigned from now on later than `tid`, the last tid of the base that this storage is
    /// layered over.
    fn tids_after(&self, _tid: Tid) {}

    /// Checks all that can be checked, and writes or reserves all that can be, so that afterwards only a broken medium
    /// can make [`Commit::finish`] fail. See [`TidAt`] for when the tid is assigned.
    ///
    /// After [`NotVoted`] the storage is unchanged.
    fn vote(&self, staged: Staged, tid_at: TidAt) -> VoteResult;

    /// Makes a voted transaction durable and then publishes it. Returns before or after the sync, as the storage
    /// chooses; the [`Publisher`] gets the outcome with `ticket`, possibly on another thread.
    fn finish(&self, voted: Box<dyn Voted>, ticket: Ticket);

    /// Drops a voted transaction and gives back what it reserved.
    fn abort(&self, voted: Box<dyn Voted>) {
        drop(voted);
    }

    /// Sets the receiver of finished transactions. Called once, before the first `finish`. See [`PublisherSlot`].
    fn set_publisher(&self, publisher: Arc<dyn Publisher>);

    /// Sets what merges conflicting states at vote. Called once, before the first `vote`; without a resolver a conflict
    /// is an error. A layer whose records have another format than the clients' passes on a resolver that translates.
    fn set_resolver(&self, _resolver: Arc<dyn Resolver>) {}
}

/// The outcome of [`Commit::vote`].
pub type VoteResult = Result<Box<dyn Voted>, NotVoted>;

/// Why a vote has not led to a voted transaction.
#[derive(Debug)]
pub enum NotVoted {
    /// The client merges these conflicts, then the transaction is voted again.
    Unmerged {
        /// At least one, in the order of the operations.
        conflicts: Vec<Conflict>,
        /// The transaction, as it was before its vote.
        staged: Box<Staged>,
    },
    /// A conflict whose merge takes time, in a transaction that must not wait
    /// ([`Merging::AtOnce`](super::Merging::AtOnce)). The transaction
    /// comes back as it was before its vote; a thread that may wait votes it again.
    Postponed(Box<Staged>),
    /// The transaction is refused, and ended.
    Failed(StorageError),
}

impl From<StorageError> for NotVoted {
    fn from(error: StorageError) -> NotVoted {
        NotVoted::Failed(error)
    }
}

impl From<Conflict> for NotVoted {
    fn from(conflict: Conflict) -> NotVoted {
        NotVoted::Failed(conflict.into())
    }
}

impl fmt::Display for NotVoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotVoted::Unmerged { conflicts, .. } => write!(f, "{} conflicts for the client", conflicts.len()),
            NotVoted::Postponed(_) => write!(f, "a conflict takes long to merge"),
            NotVoted::Failed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for NotVoted {}

/// For callers that do not vote a transaction again: conflicts that were not merged are an error.
impl From<NotVoted> for StorageError {
    fn from(not_voted: NotVoted) -> StorageError {
        match not_voted {
            NotVoted::Failed(error) => error,
            NotVoted::Unmerged { conflicts, .. } => match conflicts.into_iter().next() {
                Some(first) => first.into(),
                None => StorageError::Transaction("no conflicts for the client".into()),
            },
            NotVoted::Postponed(_) => StorageError::Transaction(not_voted.to_string()),
        }
    }
}

/// When a transaction gets its tid.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TidAt {
    /// At vote. The caller guarantees that no other transaction is between vote and publishing, and that none is voted
    /// before this one ends. For protocols that send serials at vote, and for copies that bring their own tid.
    Vote,
    /// At finish. Any number of transactions that touch different objects may be voted at the same time.
    Finish,
}

/// A voted transaction. The server reads what the client must know; the rest belongs to the storage.
pub trait Voted: Any + Send {
    /// The tid, if it was assigned at vote.
    fn tid(&self) -> Option<Tid>;

    /// Objects whose stored state differs from what the client sent, because a conflict was merged.
    fn resolved(&self) -> &[Oid] {
        &[]
    }

    /// Objects that undo operations of this transaction changed, in the order of the operations.
    fn undone(&self) -> &[Undone] {
        &[]
    }
}

impl dyn Voted {
    /// The concrete type that the storage returned from its vote.
    ///
    /// Panics if another storage has voted the transaction, which is a bug of the caller.
    #[allow(clippy::expect_used)] // a bug of the caller, not of what a file or a client has sent
    pub fn into_own<V: Voted>(self: Box<dyn Voted>) -> V {
        let own = (self as Box<dyn Any>).downcast::<V>();
        *own.expect("a voted transaction is finished by the storage that voted it")
    }
}

/// Passed through a finish by the storage; the server finds the client by it.
pub type Ticket = Box<dyn Any + Send>;

/// A finished, durable transaction that is about to be published.
pub struct Committed {
    /// Its tid, later than those of all transactions published before.
    pub tid: Tid,
    /// The objects that it changed, each once.
    pub oids: Vec<Oid>,
    /// [`Storage::object_count`](super::Storage::object_count) once this transaction is visible.
    pub object_count: u64,
    /// [`Storage::size`](super::Storage::size) in bytes, likewise.
    pub size: u64,
    /// As it was given to [`Commit::finish`].
    pub ticket: Ticket,
    /// Of the group that it was made durable with.
    pub times: GroupTimes,
}

/// How long it took to make a group of transactions durable. Zero for storages that do not write.
#[derive(Clone, Copy, Debug, Default)]
pub struct GroupTimes {
    /// Writing to the file.
    pub write: Duration,
    /// Syncing it.
    pub sync: Duration,
}

/// The work that remains after publishing, to be done outside every lock: sending the queued messages.
pub type Delivery = Box<dyn FnOnce() + Send>;

/// The server's side of a finish.
pub trait Publisher: Send + Sync {
    /// Publishes `group`: durable transactions in the order of tids, which directly follow those published before.
    /// Calls `install` exactly once. `install` makes the whole group visible to reads (index and last transaction, in
    /// memory only), in one step with queueing the invalidations. The storage calls `publish` for one group at a time,
    /// then gives up its commit locks, then runs the returned delivery.
    fn publish(&self, group: Vec<Committed>, install: &mut dyn FnMut()) -> Delivery;

    /// For the storage of another server, which has missed transactions: `install` makes the state with transaction
    /// `last` visible. `oids`: the objects that changed since the state of before; `None`: nobody can say. Called as
    /// `publish` is.
    fn missed(&self, _last: Tid, _oids: Option<Vec<Oid>>, install: &mut dyn FnMut()) -> Delivery {
        install();
        Box::new(|| ())
    }

    /// Ends the connections of clients that wanted to write, and read here because they could not: they can write now,
    /// here or at another server, and connect again.
    fn look_again(&self, _why: &'static str) -> Delivery {
        Box::new(|| ())
    }

    /// Ends the connections of all clients, which connect again and find another server, or this one in another role.
    fn disconnect(&self, _why: &'static str) -> Delivery {
        Box::new(|| ())
    }

    /// Answers the client that its transaction is not committed.
    fn failed(&self, ticket: Ticket, error: StorageError);
}

/// Where a storage keeps its publisher.
#[derive(Default)]
pub struct PublisherSlot(OnceLock<Arc<dyn Publisher>>);

impl PublisherSlot {
    /// For [`Commit::set_publisher`]. The first publisher stays; a second one is logged with `target` and `name`.
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

    /// [`Publisher::missed`]; without a publisher only `install` is called.
    pub fn missed(&self, last: Tid, oids: Option<Vec<Oid>>, install: &mut dyn FnMut()) -> Option<Delivery> {
        match self.0.get() {
            Some(publisher) => Some(publisher.missed(last, oids, install)),
            None => {
                install();
                None
            }
        }
    }

    /// [`Publisher::look_again`]
    pub fn look_again(&self, why: &'static str) -> Option<Delivery> {
        self.0.get().map(|publisher| publisher.look_again(why))
    }

    /// [`Publisher::disconnect`]
    pub fn disconnect(&self, why: &'static str) -> Option<Delivery> {
        self.0.get().map(|publisher| publisher.disconnect(why))
    }

    /// [`Publisher::failed`]; without a publisher the error is logged.
    pub fn failed(&self, ticket: Ticket, error: StorageError, target: &str, name: &str) {
        match self.0.get() {
            Some(publisher) => publisher.failed(ticket, error),
            None => log::error!(target: target, "{name}: a commit failed: {error}"),
        }
    }
}
