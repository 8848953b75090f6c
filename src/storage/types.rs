//! The arguments and results of storages.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::{Result, StorageError};
use crate::base::cancel::Cancel;
use crate::base::histogram::Distribution;
use crate::base::ids::{Oid, Tid};

/// A revision that was read, and where its data is in the caller's buffer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Loaded {
    /// Offset of the data in `out`; the data ends at the end of `out`.
    pub start: usize,
    /// The transaction that stored the revision.
    pub serial: Tid,
    /// The tid of the next revision; `None` if this one is current. Always `None` for `load_serial`.
    pub end: Option<Tid>,
}

/// User, description and extension of a transaction, as stored.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TransactionMeta {
    /// The user's name, as the client encoded it.
    pub user: Vec<u8>,
    /// The description, as the client encoded it.
    pub description: Vec<u8>,
    /// The pickled extension dict; empty if the dict is empty.
    pub extension: Vec<u8>,
}

/// What a cache has done since it was opened.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct CacheCounts {
    /// Loads.
    pub loads: u64,
    /// Those of them that the cache has answered.
    pub hits: u64,
    /// Bytes in use.
    pub used: u64,
    /// Bytes that it may use.
    pub size: u64,
}

/// A database that is replicated, and the server of it that is read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Replication {
    /// It replays what the primary has written, and cannot be written itself.
    pub is_standby: bool,
    /// The standby has a connection to the server that it follows.
    pub is_connected: bool,
    /// How old its state is; zero of a primary, and of a standby that has replayed all that it has received from a
    /// server which it is connected to. `None`: it is not known.
    pub behind: Option<Duration>,
}

/// How far behind a server is that has the same transactions as another one.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Lag {
    /// Bytes of the missing transactions.
    pub bytes: u64,
    /// Their number.
    pub transactions: u64,
    /// Since when the oldest missing transaction is there.
    pub time: Duration,
}

/// A server that is connected, and sent each transaction of a storage as soon as it is published. It does not say what
/// it has stored.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Secondary {
    /// Its address.
    pub peer: String,
    /// When it connected.
    pub since: SystemTime,
    /// The last transaction that it was sent.
    pub sent: Tid,
    /// What it was not sent.
    pub behind: Lag,
}

/// How groups of transactions were made durable.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SyncCounts {
    /// Number of transactions that were synced together.
    pub group_sizes: Distribution,
    /// Time that the sync of a group has taken, in nanoseconds.
    pub sync_times: Distribution,
}

/// One revision in an object's history.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HistoryEntry {
    /// The transaction that stored the revision.
    pub tid: Tid,
    /// User, description and extension of that transaction.
    pub meta: TransactionMeta,
    /// Bytes of data, as in Python's history.
    pub size: u64,
}

/// One object of a walk through all objects in the order of oids.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IternextRecord {
    /// The object.
    pub oid: Oid,
    /// The transaction that stored its current state.
    pub tid: Tid,
    /// Its current record.
    pub data: Vec<u8>,
    /// The next object; `None` if this was the last one.
    pub next: Option<Oid>,
}

/// The newest transactions of a storage: what clients may have missed.
#[derive(Debug)]
pub struct LastInvalidations {
    /// Their tids and oids, newest first. An object that several of them changed may be listed with the newest only.
    pub transactions: Vec<(Tid, Vec<Oid>)>,
    /// Every object that changed after this tid is listed.
    pub complete_after: Tid,
    /// The damage because of which the storage did not look further back.
    pub cut_short: Option<StorageError>,
}

impl LastInvalidations {
    /// `transactions` is complete for the time that it covers. `last`: the last transaction of the storage;
    /// `complete_after` if `transactions` is empty.
    pub fn new(transactions: Vec<(Tid, Vec<Oid>)>, last: Tid) -> LastInvalidations {
        let oldest = transactions.last().map(|(tid, _)| Tid(tid.0.saturating_sub(1)));
        LastInvalidations { transactions, complete_after: oldest.unwrap_or(last), cut_short: None }
    }
}

/// One transaction of an iteration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TransactionRecord {
    /// Its id.
    pub tid: Tid,
    /// `b' '`, or `b'p'` if a pack has removed records of it.
    pub status: u8,
    /// User, description and extension.
    pub meta: TransactionMeta,
}

/// One data record of a transaction.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DataRecord {
    /// The object.
    pub oid: Oid,
    /// The serial of the record. It is the transaction's tid, except for restored records.
    pub tid: Tid,
    /// `None` for a deletion or an un-creation.
    pub data: Option<Vec<u8>>,
    /// The transaction that holds the data, if the record is a back-pointer.
    pub data_txn: Option<Tid>,
}

/// Iterates over the transactions that were published when the iterator was made.
pub trait TransactionIterator: Send {
    /// The next transaction, `None` at the end.
    fn next_transaction(&mut self) -> Result<Option<TransactionRecord>>;
    /// The data records of the transaction that `next_transaction` returned last.
    fn records(&self) -> Result<Box<dyn RecordIterator>>;
}

/// Iterates over the data records of one transaction.
pub trait RecordIterator: Send {
    /// The next record, `None` at the end.
    fn next_record(&mut self) -> Result<Option<DataRecord>>;
}

/// A transaction that can be undone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UndoEntry {
    /// Its id.
    pub tid: Tid,
    /// User, description and extension.
    pub meta: TransactionMeta,
    /// Bytes of the transaction, as in Python's undoLog.
    pub size: u64,
}

/// An object that an undo changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Undone {
    /// The object.
    pub oid: Oid,
    /// The transaction whose data the object has again. `None` if the object is gone now, or its states were merged.
    pub restored: Option<Tid>,
}

/// The arguments of a pack.
pub struct PackRequest<'a> {
    /// Seconds since 1970; may be in the future.
    pub time: f64,
    /// Whether to remove objects without references; `None`: as the storage is configured.
    pub gc: Option<bool>,
    /// Finds the oids that a record refers to. A storage whose records have another format than the clients' passes on
    /// a function that translates.
    pub references: &'a References<'a>,
    /// Progress of the pack, read by `server_status`.
    pub progress: &'a PackProgress,
    /// Gets the removed revisions; `None` if nothing is kept beside the records.
    pub removals: Option<&'a dyn Removals>,
}

/// Receives the revisions that a pack leaves out, and removes the blobs that belong to them.
pub trait Removals: Sync {
    /// A revision with data is not kept. `tid`: its transaction, or `None` if nothing of the object is kept. The
    /// revision is still there at this time, and stays if the pack fails later.
    fn left_out(&self, oid: Oid, tid: Option<Tid>, data: &[u8]) -> Result<()>;
    /// All revisions that are left out were reported. The packed storage replaces the old one only after this, so what
    /// [`Removals::packed`] needs after a crash is to be made durable here. After an error the pack fails.
    fn complete(&self) -> Result<()> {
        Ok(())
    }
    /// The packed storage has replaced the old one. Not called if there was nothing to remove.
    fn packed(&self) -> Result<()>;
}

/// Appends the oids that a record refers to, one for each occurrence. The error says why the data is not a record.
pub type References<'a> = dyn Fn(&[u8], &mut Vec<Oid>) -> std::result::Result<(), String> + Send + Sync + 'a;

/// How far the opening of a file has come. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct OpenProgress(Arc<[AtomicU64; 2]>);

impl OpenProgress {
    /// A file of this length is scanned from this position on.
    pub fn begin(&self, pos: u64, len: u64) {
        let [done, total] = &*self.0;
        total.store(len, Ordering::Relaxed);
        done.store(pos, Ordering::Relaxed);
    }

    /// The scan has come to this position.
    pub fn reach(&self, pos: u64) {
        let [done, _] = &*self.0;
        done.store(pos, Ordering::Relaxed);
    }

    /// The position and the length of the file; `None` before the scan.
    pub fn get(&self) -> Option<(u64, u64)> {
        let [done, total] = &*self.0;
        let total = total.load(Ordering::Relaxed);
        (total > 0).then(|| (done.load(Ordering::Relaxed).min(total), total))
    }
}

/// Whether transactions can be finished, see [`Storage::pulse`](super::Storage::pulse).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pulse {
    /// They can, or none are to be expected.
    Beats,
    /// One is being finished. The number changes when it is done: twice the same long after each other is a standstill.
    Busy(u64),
}

/// Progress of a pack: bytes of the file, or objects in a storage without a file. And the request to end it early.
#[derive(Debug, Default)]
pub struct PackProgress {
    /// What the pack has read.
    pub done: AtomicU64,
    /// What the pack has to read in all.
    pub total: AtomicU64,
    cancel: Cancel,
}

impl PackProgress {
    /// Asks the pack to end with an error, and to leave the storage as it is. It does so soon, unless it is about to
    /// replace the storage, or has done so already: then it goes on to its end. A storage in memory, whose packs are
    /// quick, may ignore this.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Whether [`PackProgress::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// For a storage that waits.
    pub(crate) fn cancellation(&self) -> &Cancel {
        &self.cancel
    }
}

/// A number of things before a pack, and how many of them it would remove.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Removal {
    /// Present number.
    pub before: u64,
    /// Those that the pack would remove.
    pub removed: u64,
}

/// What a pack would do ([`Pack::plan`](super::Pack::plan)).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PackPlan {
    /// Later transactions are kept as they are.
    pub stop: Tid,
    /// Objects of the index, as [`Storage::object_count`](super::Storage::object_count) counts them.
    pub objects: Removal,
    /// Records.
    pub revisions: Removal,
    /// Transactions.
    pub transactions: Removal,
    /// Length of the file.
    pub size: u64,
    /// Its length after the pack.
    pub size_after: u64,
    /// Blob files that would be removed. Zero if the storage has no blob directory.
    pub blobs: u64,
    /// Bytes of these files.
    pub blob_bytes: u64,
    /// Number of references to objects that do not exist: because of any of them, the pack fails with
    /// [`StorageError::Missing`] instead, and the other figures are as if these
    /// references were not there.
    pub dangling_count: u64,
    /// The first of them.
    pub dangling: Vec<Dangling>,
    /// Whether objects without references would be removed.
    pub gc: bool,
    /// Why the storage would refuse the pack and remove nothing, for another reason than these references.
    pub refusal: Option<String>,
    /// Bytes that are free beside the file; `None`: it is not known.
    pub free: Option<u64>,
}

/// A reference to an object that does not exist at the pack time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Dangling {
    /// The object whose record has the reference. `None`: the root object itself does not exist.
    pub from: Option<Oid>,
    /// The object that does not exist.
    pub to: Oid,
}
