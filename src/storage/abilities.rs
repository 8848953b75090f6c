//! Optional abilities of storages. A storage that has one returns it from the method of [`Storage`](super::Storage)
//! that each trait names.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::{
    BlobDir, BlobFile, PackPlan, PackRequest, Result, Staged, StorageError, TransactionIterator, UndoEntry,
};
use crate::base::ids::{Oid, Tid};

/// Listing transactions: [`Storage::iteration`](super::Storage::iteration).
pub trait Iterate {
    /// The transactions from `start` to `stop`, both inclusive, oldest first. `None`: from the first, or up to the last
    /// that is published now. Transactions that are published later are not included.
    fn iterate(&self, start: Option<Tid>, stop: Option<Tid>) -> Result<Box<dyn TransactionIterator>>;
}

/// Transactional undo: [`Storage::undo`](super::Storage::undo). The undo itself is an operation of a transaction
/// ([`OpKind::Undo`](super::staged::OpKind::Undo)) and is done at vote.
pub trait Undo {
    /// Calls `each` with the transactions that can be undone, newest first and back to the last pack, until `each`
    /// returns `Break`.
    fn undo_log(&self, each: &mut dyn FnMut(UndoEntry) -> ControlFlow<()>) -> Result<()>;

    /// The objects that an undo of transaction `tid` changes, one for each record that it writes. The caller locks them
    /// for the undo. May be called without any lock.
    ///
    /// Errors: [`StorageError::Undo`] if there is no such transaction, or it cannot be
    /// undone.
    fn undo_oids(&self, tid: Tid) -> Result<Vec<Oid>>;

    /// For clients that must know the outcome of an undo before they vote. Returns the tid that the transaction has
    /// from now on (also set in `staged`), and the objects that the last operation of `staged`, an undo, will change.
    /// The caller guarantees what [`TidAt::Vote`](super::TidAt::Vote) requires until the transaction ends.
    ///
    /// Errors: `Undo` and `MultipleUndo` if it cannot be undone. After any other error `staged` must not be used any
    /// more.
    fn undo_now(&self, staged: &mut Staged) -> Result<(Tid, Vec<Oid>)>;
}

/// Removing old revisions and garbage: [`Storage::packing`](super::Storage::packing).
pub trait Pack {
    /// Removes the revisions that were not current at `request.time` or later, and objects without references if
    /// `request.gc` says so. Reads go on during the pack.
    fn pack(&self, request: &PackRequest<'_>) -> Result<()>;

    /// Finds what [`Pack::pack`] with this request would remove now, and changes nothing. May take as long.
    ///
    /// Errors: [`StorageError::Unsupported`] if this storage cannot tell; those of a
    /// pack, other than for what the plan says.
    fn plan(&self, _request: &PackRequest<'_>) -> Result<PackPlan> {
        Err(StorageError::Unsupported("this storage cannot tell what a pack would remove".into()))
    }
}

/// Blobs: [`Storage::blobs`](super::Storage::blobs).
pub trait Blobs {
    /// The directory for uploads; `None` if nothing can be uploaded.
    fn dir(&self) -> Option<&Arc<BlobDir>>;

    /// The data of the blob that `oid` has in transaction `serial`.
    ///
    /// Errors: [`StorageError::NoBlob`] if there is no such file.
    fn load_blob(&self, oid: Oid, serial: Tid) -> Result<BlobFile>;

    /// As [`Blobs::load_blob`], unless that may take long. `None`: the blob must come from another server.
    fn load_blob_now(&self, oid: Oid, serial: Tid) -> Option<Result<BlobFile>> {
        Some(self.load_blob(oid, serial))
    }
}

/// A storage that keeps its blobs in one directory returns that directory.
impl Blobs for Arc<BlobDir> {
    fn dir(&self) -> Option<&Arc<BlobDir>> {
        Some(self)
    }

    fn load_blob(&self, oid: Oid, serial: Tid) -> Result<BlobFile> {
        self.load(oid, serial)
    }
}

/// Storing very many transactions of another storage: [`Storage::bulk`](super::Storage::bulk). Faster than one commit
/// after the other.
pub trait Bulk {
    /// Begins a copy. Nothing else should be committed until it is complete.
    ///
    /// Errors: [`StorageError::ReadOnly`]; those of a storage that cannot be reached.
    fn begin(&self) -> Result<Box<dyn BulkWriter + '_>>;
}

/// A copy that has begun. Dropping it ends the copy: of the transactions that were added, the first ones are there.
pub trait BulkWriter {
    /// Adds a transaction with its tid, which is later than all before, and with copied records only
    /// ([`OpKind::Restore`](super::staged::OpKind::Restore)). Serials are not compared.
    ///
    /// Transactions become durable and are published in their order, some time after they were added. After an error,
    /// which may be about one that was added before, the copy has ended.
    fn add(&mut self, staged: Staged) -> Result<()>;

    /// Returns when all transactions are durable and published.
    fn complete(self: Box<Self>) -> Result<()>;
}

/// Methods that only one kind of storage has: [`Storage::extension_methods`](super::Storage::extension_methods).
pub trait ExtensionMethods {
    /// Their names (`getExtensionMethods`).
    fn names(&self) -> Vec<String>;

    /// Calls one of [`ExtensionMethods::names`]. `arguments` is a pickle of a tuple, the result a pickle of plain data.
    /// Errors: `Unsupported` for another name.
    fn call(&self, name: &str, arguments: &[u8]) -> Result<Vec<u8>>;
}
