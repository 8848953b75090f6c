//! What replication needs of a storage: to see a group of transactions before it is published, to hold it back until
//! others have it too, and to take back transactions that the others do not have.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Result, TransactionIterator};
use crate::base::ids::{Oid, Tid};

/// Stands between writing a group of transactions and publishing it. Called by the thread that commits the group, one
/// group at a time, with no lock held.
///
/// While a group waits, loads and votes go on; other groups, packs and the close of the storage wait. So who closes the
/// storage must see to it first that [`GroupGate::durable`] returns, for this group and those behind it.
pub trait GroupGate: Send + Sync {
    /// The group is in the file, and may not be durable yet. `last` is the last of its `count` transactions, `end` the
    /// length of the file. From now on [`Replicable::iterate_written`] lists it.
    fn written(&self, last: Tid, end: u64, count: usize);

    /// The group is durable here. Returns when it may be published. An error: it must not be, because this server is
    /// not the primary any more; it is taken back, and its clients get no answer, as they could not be told the truth.
    /// A copy ([`Bulk`](super::Bulk)) gets the error `OutcomeUnknown`.
    fn durable(&self, last: Tid) -> std::result::Result<(), Withdrawn>;

    /// A group that was written is not in the file any more, because its sync has failed or it was withdrawn: `last` is
    /// the last transaction again. A copy may bring the same transactions once more.
    fn taken_back(&self, last: Tid);

    /// Whether a group waits for others in [`GroupGate::durable`]: that is no sign of a disk that hangs.
    fn is_waiting(&self) -> bool;
}

/// A group must not be published.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Withdrawn;

/// Replication of a storage: [`Storage::replicable`](super::Storage::replicable).
pub trait Replicable: Send + Sync {
    /// Sets what each group of transactions passes. Called once, before the first `finish`.
    fn set_gate(&self, gate: Arc<dyn GroupGate>);

    /// The last transaction in the file, published or not.
    fn last_written(&self) -> Tid;

    /// As [`Iterate::iterate`](super::Iterate::iterate), with the transactions that are written and not published. If
    /// they are taken back before they were read, the iterator ends with an error.
    fn iterate_written(&self, start: Option<Tid>) -> Result<Box<dyn TransactionIterator>>;

    /// Takes back all transactions later than `to`, which must be a transaction of the file or zero. They are kept in a
    /// database of their own beside the file. All connections of clients are ended, and their clients verify their
    /// caches. `None`: there are none. For one thread at a time, and not while a gate holds a group back.
    ///
    /// Iterators of before end with an error, and transactions that had voted fail. New tids are later than all that
    /// were given out since the storage was opened; after a restart, later than what is in the file. A copy may bring
    /// any tid that is later than `to`.
    ///
    /// Errors: `Transaction` if `to` is not in the file, or others were committed at the same time; `Refused` while a
    /// pack runs ([`Refusal::PackRunning`](super::Refusal::PackRunning)); `Io`. Then nothing was taken back, unless the
    /// storage has failed ([`Storage::failure`](super::Storage::failure)): then the next start finds the file whole or
    /// cut off.
    fn rewind(&self, to: Tid) -> Result<Option<Cut>>;

    /// Leaves out the object ids that another server may have given out. Returns the last one of them.
    fn skip_oids(&self) -> Result<Oid>;
}

/// What was cut off.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cut {
    /// The database that has the transactions now. `None`: none of them had records.
    pub kept: Option<PathBuf>,
    /// How many they are.
    pub transactions: u64,
    /// The first of them.
    pub first: Tid,
    /// The last of them.
    pub last: Tid,
}
