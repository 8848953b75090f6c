//! What every storage promises, and the storages themselves. Nothing here knows that there is a network.
//!
//! A storage is whatever implements [`Storage`] and what that is made of: [`Load`] (reading objects), [`History`]
//! (looking back) and [`Commit`] (transactions). What only some storages can do are traits of their own, which a
//! storage hands out if it can: [`Iterate`], [`Undo`], [`Pack`], [`Blobs`], [`ExtensionMethods`].
//!
//! The kinds of storages are `file`, `mapping` and `temporary`; layers over other storages are `demo`, `before` and
//! `transform`. They do not know each other. What they share: `staged` (a transaction before its vote), `commit`,
//! `tids`, `blob`, `media` (the disk).
//!
//! The server holds locks on the objects that a transaction touches from before [`Commit::vote`] until the transaction
//! is published or aborted, so a storage may rely on nobody else changing these objects in between. Votes of
//! transactions that touch different objects run at the same time.

mod abilities;
pub mod before;
pub mod blob;
mod commit;
pub mod conflicts;
pub mod demo;
pub mod error;
pub mod file;
mod forward;
#[cfg(feature = "test-storages")]
pub mod load_delayed;
pub mod mapping;
pub mod media;
mod read;
pub mod staged;
pub mod temporary;
mod tids;
pub mod transform;
pub mod types;

use std::sync::Arc;

use crate::base::ids::{Oid, Tid};

pub use self::abilities::{Blobs, ExtensionMethods, Iterate, Pack, Undo};
pub use self::blob::{BlobDir, BlobFile};
pub use self::commit::{Commit, Committed, Delivery, Publisher, PublisherSlot, Ticket, TidAt, Voted};
pub use self::error::StorageError;
pub use self::read::{History, Load};
pub use self::staged::Staged;
pub use self::types::*;

/// The traits, for callers that know the type of their storage.
pub mod prelude {
    pub use super::{Blobs, Commit, ExtensionMethods, History, Iterate, Load, Pack, Storage, Undo};
}

/// The result of everything that a storage does.
pub type Result<T> = std::result::Result<T, StorageError>;

/// A ZODB storage as the server needs it. All methods may be called from any thread at any time.
pub trait Storage: Load + History + Commit + Send + Sync {
    /// The name that clients see (`getName`), of a file its path.
    fn name(&self) -> String;

    /// Whether nothing can be stored: because it was opened so, or because the medium has failed since.
    fn is_read_only(&self) -> bool;

    /// The number of objects, as Python's `len(storage)`.
    fn object_count(&self) -> u64;

    /// The size in bytes, as Python's `getSize()`.
    fn size(&self) -> u64;

    /// (module, name) of each Python interface that Python's storage of this kind provides and this one supports, in
    /// the order in which Python lists them. Clients decide by them what they may call.
    fn interfaces(&self) -> Vec<(&'static str, &'static str)>;

    /// The tid of the last published transaction, zero if there is none.
    fn last_transaction(&self) -> Tid;

    /// Reserves `count` object ids that were never given out before, and returns them ascending.
    ///
    /// Errors: [`StorageError::ReadOnly`]; [`StorageError::Unsupported`] when there are no more ids; `Io` if they
    /// cannot be marked as given out.
    fn new_oids(&self, count: usize) -> Result<Vec<Oid>>;

    /// Saves what speeds up the next start and releases locks. Finishes that are under way are completed first. Calls
    /// afterwards fail with [`StorageError::Closed`]; a second `close` does nothing.
    fn close(&self) -> Result<()>;

    /// Listing transactions, if this storage keeps them.
    fn iteration(&self) -> Option<&dyn Iterate> {
        None
    }

    /// Undoing transactions, if this storage can.
    fn undo(&self) -> Option<&dyn Undo> {
        None
    }

    /// Removing old revisions, if this storage can.
    fn packing(&self) -> Option<&dyn Pack> {
        None
    }

    /// Blobs, if this storage keeps any.
    fn blobs(&self) -> Option<&dyn Blobs> {
        None
    }

    /// Methods that no other storage has, if there are any.
    fn extension_methods(&self) -> Option<&dyn ExtensionMethods> {
        None
    }
}

/// An ability, or the error that clients get where it is missing.
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

    /// Where uploads of blobs are collected, or [`StorageError::no_blobs`].
    pub fn require_blob_dir(&self) -> Result<&Arc<BlobDir>> {
        self.blobs().and_then(|blobs| blobs.dir()).ok_or_else(StorageError::no_blobs)
    }

    fn unsupported(&self, what: &str) -> StorageError {
        StorageError::Unsupported(format!("{} {what}", self.name()))
    }
}
