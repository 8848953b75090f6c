//! The traits of a storage, and the storages themselves. Nothing here depends on the network.
//!
//! Public is what somebody needs who brings a storage of their own ([`StorageKind`] adds it to the server's) or reads a
//! `Data.fs` ([`mod@file`]). The other storages are opened by the configuration only. A layer of one's own passes on
//! with [`forward!`] what it does not change; one that keeps records in another form is a [`Codec`] in a [`Transform`].
//!
//! A storage implements [`Storage`] and its supertraits: [`Load`] (reading objects), [`History`] (former revisions) and
//! [`Commit`] (transactions). Optional abilities are traits of their own, which a storage returns from a method of
//! [`Storage`]: [`Iterate`], [`Undo`], [`Pack`], [`Blobs`], [`Bulk`], [`ExtensionMethods`].
//!
//! Engines: `file`, `mapping`, `temporary`. Layers over other storages: `demo`, `before`, `transform`. They do not
//! depend on each other. They share `staged` (a transaction before its vote), `vote` (goes through its operations),
//! `commit`, `tids`, `blob` and `media` (the disk); `mapping` and `temporary` share `in_memory`.
//!
//! The server locks the objects that a transaction touches before [`Commit::vote`] and unlocks them when the
//! transaction is published or aborted. A storage may therefore rely on it that these objects do not change in between.
//! Votes of transactions that touch different objects run at the same time.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used))]

mod abilities;
pub(crate) mod before;
pub mod blob;
mod commit;
pub(crate) mod demo;
mod error;
pub mod file;
mod forward;
mod in_memory;
mod kinds;
pub(crate) mod mapping;
pub(crate) mod media;
pub(crate) mod pack_time;
// Models see more of it.
#[cfg_attr(loom, allow(missing_docs))]
pub(crate) mod postgres;
mod read;
mod remote;
mod replicable;
pub(crate) mod staged;
mod sync_histograms;
pub(crate) mod temporary;
mod tids;
pub(crate) mod transform;
mod types;
pub mod vote;

use std::sync::Arc;

use crate::base::ids::{Oid, Tid};

pub use crate::base::cancel::{Cancel, OnCancel};
pub use crate::base::histogram::Distribution;
pub use crate::conflict::{Conflict, Resolver, ResolverSlot, ThreeStates, Unresolved};
pub use crate::pickle::record::{ClassName, class_name};

pub use self::abilities::{Blobs, Bulk, BulkWriter, ExtensionMethods, Iterate, Pack, Undo};
pub use self::blob::{BlobDir, BlobFile};
pub use self::commit::{
    Commit, Committed, Delivery, GroupTimes, NotVoted, Publisher, PublisherSlot, Ticket, TidAt, VoteResult,
    Voted,
};
pub use self::error::{Refusal, Result, StorageError};
#[doc(inline)]
pub use self::forward::forward;
pub use self::kinds::{StorageKind, StorageKinds, StorageSettings};
pub use self::read::{History, Load};
pub use self::remote::Remote;
pub use self::replicable::{Cut, GroupGate, Replicable, Withdrawn};
pub use self::staged::{Merging, Op, OpKind, Staged};
pub(crate) use self::sync_histograms::SyncHistograms;
pub use self::tids::Tids;
pub use self::transform::{Codec, Transform};
pub use self::types::*;

/// The traits, for callers that know the concrete type of their storage.
pub mod prelude {
    pub use super::{
        Blobs, Bulk, BulkWriter, Commit, ExtensionMethods, History, Iterate, Load, Pack, Storage, Undo,
    };
}

/// A ZODB storage as the server needs it. All methods may be called from any thread at any time.
pub trait Storage: Load + History + Commit + Send + Sync {
    /// The name that clients see (`getName`); for a file storage, its path.
    fn name(&self) -> String;

    /// Whether stores are refused: because the storage was opened read-only, or because the medium has failed since.
    fn is_read_only(&self) -> bool;

    /// The number of objects, as Python's `len(storage)`.
    fn object_count(&self) -> u64;

    /// The size in bytes, as Python's `getSize()`.
    fn size(&self) -> u64;

    /// (module, name) of each Python interface that Python's storage of this kind provides and this one supports, in
    /// Python's order. Clients decide by them which methods they may call.
    fn interfaces(&self) -> Vec<(&'static str, &'static str)>;

    /// The tid of the last published transaction; zero if there is none.
    fn last_transaction(&self) -> Tid;

    /// Reserves `count` object ids that were never given out before. Returns them in ascending order.
    ///
    /// Errors: [`StorageError::ReadOnly`]; [`StorageError::Unsupported`] if there are no more ids; `Io` if the ids
    /// cannot be marked as given out.
    fn new_oids(&self, count: usize) -> Result<Vec<Oid>>;

    /// Saves the data that speeds up the next start, and releases locks. Finishes that have begun are completed first.
    /// Later calls fail with [`StorageError::Closed`]; a second `close` does nothing.
    fn close(&self) -> Result<()>;

    /// Publishes what others have committed to the same data before this call, and returns when that is done. Of a
    /// storage that only this server writes to there is nothing to do.
    ///
    /// Errors: [`StorageError::Disconnected`] if it cannot be found out.
    fn catch_up(&self) -> Result<()> {
        Ok(())
    }

    /// Listing transactions; `None` if this storage does not keep them.
    fn iteration(&self) -> Option<&dyn Iterate> {
        None
    }

    /// Undoing transactions; `None` if this storage cannot.
    fn undo(&self) -> Option<&dyn Undo> {
        None
    }

    /// Removing old revisions; `None` if this storage cannot.
    fn packing(&self) -> Option<&dyn Pack> {
        None
    }

    /// Blobs; `None` if this storage keeps none.
    fn blobs(&self) -> Option<&dyn Blobs> {
        None
    }

    /// Storing very many transactions of another storage; `None` if there is no faster way than to commit them.
    fn bulk(&self) -> Option<&dyn Bulk> {
        None
    }

    /// What replication needs; `None`: this storage cannot be replicated by its own server.
    fn replicable(&self) -> Option<&dyn Replicable> {
        None
    }

    /// From now on finished transactions are durable some time after they were published, and all of them after
    /// [`Storage::close`]. For a program that copies, of which nothing is lost that it cannot copy again. `false`: this
    /// storage has no such way.
    fn sync_later(&self) -> bool {
        false
    }

    /// What the cache has done, of a storage that has one: another server's.
    fn cache_counts(&self) -> Option<CacheCounts> {
        None
    }

    /// Of a database that others replicate: whether this is its primary or a standby. `None`: it is none, or it is not
    /// known yet.
    fn replication(&self) -> Option<Replication> {
        None
    }

    /// The servers that get its transactions as they are published; `None`: none can.
    fn secondaries(&self) -> Option<Vec<Secondary>> {
        None
    }

    /// The server that the data comes from; `None`: it is here.
    fn remote(&self) -> Option<Remote> {
        None
    }

    /// How groups of transactions were made durable since the storage was opened; `None` if there is nothing to sync.
    fn sync_counts(&self) -> Option<SyncCounts> {
        None
    }

    /// Why nothing can be stored, although the storage was not opened read-only: the medium has failed, or the server
    /// that the data comes from cannot be reached.
    fn failure(&self) -> Option<String> {
        None
    }

    /// Tries what finishing a transaction needs, and waits for the disk if there is one: it returns late, or not at
    /// all, if the disk hangs. For one thread at a time.
    fn pulse(&self) -> Pulse {
        Pulse::Beats
    }

    /// Saves the data that speeds up the start after a crash. `false`: this storage keeps none.
    fn save_index(&self) -> Result<bool> {
        Ok(false)
    }

    /// Methods that only this kind of storage has; `None` if there are none.
    fn extension_methods(&self) -> Option<&dyn ExtensionMethods> {
        None
    }
}

/// An ability, or the error that clients get if it is missing.
impl dyn Storage + '_ {
    /// [`Storage::iteration`], or [`StorageError::Unsupported`].
    pub fn require_iteration(&self) -> Result<&dyn Iterate> {
        self.iteration().ok_or_else(|| self.unsupported("keeps no transactions"))
    }

    /// [`Storage::undo`], or [`StorageError::Unsupported`].
    pub fn require_undo(&self) -> Result<&dyn Undo> {
        self.undo().ok_or_else(|| self.unsupported("cannot undo"))
    }

    /// [`Storage::packing`], or [`StorageError::Unsupported`].
    pub fn require_packing(&self) -> Result<&dyn Pack> {
        self.packing().ok_or_else(|| self.unsupported("cannot be packed"))
    }

    /// [`Storage::blobs`], or [`StorageError::no_blobs`].
    pub fn require_blobs(&self) -> Result<&dyn Blobs> {
        self.blobs().ok_or_else(StorageError::no_blobs)
    }

    /// The directory for uploads of blobs, or [`StorageError::no_blobs`].
    pub(crate) fn require_blob_dir(&self) -> Result<&Arc<BlobDir>> {
        self.blobs().and_then(|blobs| blobs.dir()).ok_or_else(StorageError::no_blobs)
    }

    fn unsupported(&self, what: &str) -> StorageError {
        StorageError::Unsupported(format!("{} {what}", self.name()))
    }
}
