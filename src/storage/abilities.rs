//! What only some storages can do. A storage that can returns itself from the method of [`Storage`](super::Storage)
//! that is named in each trait.

#![warn(missing_docs)]

use std::ops::ControlFlow;
use std::sync::Arc;

use super::{BlobDir, BlobFile, PackRequest, Result, Staged, TransactionIterator, UndoEntry};
use crate::base::ids::{Oid, Tid};

/// Listing transactions: [`Storage::iteration`](super::Storage::iteration).
pub trait Iterate {
    /// The transactions from `start` to `stop`, both inclusive, oldest first; `None`: from the first, to the last that
    /// is published now. What is published later is not seen.
    fn iterate(&self, start: Option<Tid>, stop: Option<Tid>) -> Result<Box<dyn TransactionIterator>>;
}

/// Transactional undo: [`Storage::undo`](super::Storage::undo). An undo itself is an operation of a transaction
/// ([`OpKind::Undo`](super::staged::OpKind::Undo)), done at vote.
pub trait Undo {
    /// Calls `each` with the transactions that can be undone, newest first and back to the last pack, until it returns
    /// `Break`.
    fn undo_log(&self, each: &mut dyn FnMut(UndoEntry) -> ControlFlow<()>) -> Result<()>;

    /// The objects that an undo of transaction `tid` changes, one for each record that it writes: what must be locked
    /// for it. May be called without any lock.
    ///
    /// Errors: [`StorageError::Undo`](super::StorageError::Undo) if there is no such transaction, or it cannot be
    /// undone.
    fn undo_oids(&self, tid: Tid) -> Result<Vec<Oid>>;

    /// For clients that must know the outcome of an undo before they vote: the tid that the transaction has from now on
    /// (it is in `staged` too), and the objects that the last operation of `staged`, an undo, will change. The caller
    /// guarantees what [`TidAt::Vote`](super::TidAt::Vote) asks for until the transaction ends.
    ///
    /// Errors: `Undo` and `MultipleUndo` if it cannot be undone. After any other error `staged` must not be used any
    /// more.
    fn undo_now(&self, staged: &mut Staged) -> Result<(Tid, Vec<Oid>)>;
}

/// Removing what nobody can see any more: [`Storage::packing`](super::Storage::packing).
pub trait Pack {
    /// Removes the revisions that were not current at `request.time` or later, and objects that nothing refers to, as
    /// the request says. Reads and commits go on beside it.
    fn pack(&self, request: &PackRequest<'_>) -> Result<()>;
}

/// Blobs: [`Storage::blobs`](super::Storage::blobs).
pub trait Blobs {
    /// Where uploads are collected; `None` if nothing can be uploaded.
    fn dir(&self) -> Option<&Arc<BlobDir>>;

    /// The data of the blob that `oid` has in transaction `serial`.
    ///
    /// Errors: [`StorageError::NoBlob`](super::StorageError::NoBlob) if there is no such file.
    fn load_blob(&self, oid: Oid, serial: Tid) -> Result<BlobFile>;
}

/// A storage that keeps its blobs in one directory hands that out.
impl Blobs for Arc<BlobDir> {
    fn dir(&self) -> Option<&Arc<BlobDir>> {
        Some(self)
    }

    fn load_blob(&self, oid: Oid, serial: Tid) -> Result<BlobFile> {
        self.load(oid, serial)
    }
}

/// Methods that no other storage has: [`Storage::extension_methods`](super::Storage::extension_methods).
pub trait ExtensionMethods {
    /// Their names (`getExtensionMethods`).
    fn names(&self) -> Vec<&'static str>;

    /// Calls one of [`ExtensionMethods::names`], without arguments. Errors: `Unsupported` for another name.
    fn call(&self, name: &str) -> Result<i64>;
}
