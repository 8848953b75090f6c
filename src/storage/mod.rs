//! What every storage promises, and the storages themselves. Nothing here knows that there is a network.
//!
//! The server holds locks on the oids that a transaction touches from before [`Storage::vote`] until the
//! transaction is published or aborted (DESIGN: parallel vote), so a storage may trust that nobody
//! changes these objects in between. It need not serialise votes itself.

pub mod before;
pub mod blob;
pub mod conflicts;
pub mod demo;
pub mod error;
pub mod file;
mod forward;
#[cfg(feature = "test-storages")]
pub mod load_delayed;
pub mod mapping;
pub mod media;
pub mod staged;
pub mod temporary;
mod tids;
pub mod transform;
pub mod types;

use std::any::Any;
use std::ops::ControlFlow;
use std::sync::Arc;

pub use blob::{BlobDir, BlobFile};
pub use error::StorageError;
pub use staged::Staged;
pub use types::*;

use crate::base::ids::{Oid, Tid};
use crate::conflict::Resolver;

/// The result of everything that a storage does.
pub type Result<T> = std::result::Result<T, StorageError>;

/// A ZODB storage as the server needs it. All methods may be called from any thread at any time.
pub trait Storage: Send + Sync {
    /// `getName()`: for a file its path.
    fn name(&self) -> String;
    fn is_read_only(&self) -> bool;
    /// Number of objects, as Python's `len(storage)`.
    fn object_count(&self) -> u64;
    /// Bytes, as Python's `getSize()`.
    fn size(&self) -> u64;
    /// (module, name) of each Python interface that Python's storage of this kind provides and this one supports.
    fn interfaces(&self) -> Vec<(&'static str, &'static str)>;
    /// Names of extension methods (`getExtensionMethods`) that [`Storage::extension_method`] answers.
    fn extension_methods(&self) -> Vec<&'static str> {
        Vec::new()
    }
    /// The tid of the last published transaction, zero if there is none.
    fn last_transaction(&self) -> Tid;

    /// Every tid that is assigned from now on is later than this one: that of a storage which this one is laid over.
    fn tids_after(&self, _tid: Tid) {}

    /// Reserve `count` new oids that were never given out before, ascending.
    fn new_oids(&self, count: usize) -> Result<Vec<Oid>>;

    /// `oid` will be read at once, after a few others of which the same was said: a storage may have its index at hand.
    fn expect_read(&self, _oid: Oid) {}

    /// The revision of `oid` current just before `before`: its data is appended to `out`, behind at least
    /// `headroom` bytes of scratch that the caller will write its own header into.
    /// `Ok(None)`: the object exists but not yet then, or was deleted or un-created by then as Python's
    /// `loadBefore` has it. `PosKey`: no such object.
    fn load_before(
        &self,
        oid: Oid,
        before: Tid,
        headroom: usize,
        out: &mut Vec<u8>,
    ) -> Result<Option<Loaded>>;
    /// [`Storage::load_before`], if that can be done without waiting for a disk. `None`, with `out` as it was: it cannot, and the
    /// record is not large, so a caller may have many of them read at the same time.
    fn load_before_now(
        &self,
        oid: Oid,
        before: Tid,
        headroom: usize,
        out: &mut Vec<u8>,
    ) -> Option<Result<Option<Loaded>>> {
        Some(self.load_before(oid, before, headroom, out))
    }
    /// The data that `oid` got in transaction `serial`, appended to `out` likewise.
    fn load_serial(&self, oid: Oid, serial: Tid, headroom: usize, out: &mut Vec<u8>) -> Result<Loaded>;
    /// The current serial of `oid`.
    fn get_tid(&self, oid: Oid) -> Result<Tid>;
    /// Calls `each` with the revisions of `oid`, newest first, until it wants no more.
    fn revisions(&self, oid: Oid, each: &mut dyn FnMut(HistoryEntry) -> ControlFlow<()>) -> Result<()>;
    /// At most `count` of them.
    fn history(&self, oid: Oid, count: usize) -> Result<Vec<HistoryEntry>> {
        let mut entries = Vec::new();
        self.revisions(oid, &mut |entry| {
            if entries.len() >= count {
                return ControlFlow::Break(());
            }
            entries.push(entry);
            if entries.len() < count { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(entries)
    }
    /// The first object at or after `next` (the first of all for `None`) in oid order, and the oid that follows it.
    fn record_iternext(&self, next: Option<Oid>) -> Result<Option<IternextRecord>>;
    /// The last `count` transactions, or as many as can be read.
    fn last_invalidations(&self, count: usize) -> Result<LastInvalidations>;
    /// The transactions from `start` to `stop`, both inclusive, oldest first.
    fn iterate(&self, start: Option<Tid>, stop: Option<Tid>) -> Result<Box<dyn TransactionIterator>>;

    /// Check everything that can be checked, and write or reserve what can be, so that only a broken disk
    /// lets `finish` fail. On an error the storage is as before. See [`TidAt`] for when the tid is assigned.
    fn vote(&self, staged: Staged, tid_at: TidAt) -> Result<Box<dyn Voted>>;
    /// Make a voted transaction durable and then published. Returns at once or after the sync, as the storage
    /// sees fit; the outcome goes to the [`Publisher`] with `ticket`, possibly from another thread.
    fn finish(&self, voted: Box<dyn Voted>, ticket: Ticket);
    /// Forget a voted transaction and give back what it reserved.
    fn abort(&self, voted: Box<dyn Voted>);
    /// Who is told about finished transactions. Set once, before the first `finish`.
    fn set_publisher(&self, publisher: Arc<dyn Publisher>);

    /// Who merges conflicting states at vote. Set once, before the first `vote`; without one, a conflict is an error.
    /// A storage that keeps records in another format than clients send hands on a resolver that translates.
    fn set_resolver(&self, _resolver: Arc<dyn Resolver>) {}

    /// Whether [`Storage::undo_log`] and `undo` in a transaction work.
    fn supports_undo(&self) -> bool {
        false
    }
    /// Calls `each` with the transactions that can be undone, newest first and back to the last pack, until it wants no more.
    fn undo_log(&self, _each: &mut dyn FnMut(UndoEntry) -> ControlFlow<()>) -> Result<()> {
        Ok(())
    }

    /// The objects that an undo of transaction `tid` changes, one for each record that it writes: what must be locked for it. Needs no
    /// locks itself.
    fn undo_oids(&self, _tid: Tid) -> Result<Vec<Oid>> {
        Err(StorageError::Unsupported(format!("{} cannot undo", self.name())))
    }
    /// For clients that want to know the outcome of an undo before they vote: what the last operation of `staged`, an
    /// undo, will change, and the tid that the transaction will have from now on (`staged.tid`). The caller
    /// guarantees what [`TidAt::Vote`] wants until the transaction ends. If this fails for another reason than that it
    /// cannot be undone, `staged` is lost.
    fn undo_now(&self, _staged: &mut Staged) -> Result<(Tid, Vec<Oid>)> {
        Err(StorageError::Unsupported(format!("{} cannot undo", self.name())))
    }

    /// Forget what nobody could see at `request.time` or later. Everything else goes on meanwhile.
    fn pack(&self, _request: &PackRequest<'_>) -> Result<()> {
        Err(StorageError::Unsupported(format!("{} cannot be packed", self.name())))
    }

    /// Answers one of [`Storage::extension_methods`].
    fn extension_method(&self, name: &str) -> Result<i64> {
        Err(StorageError::Unsupported(format!("no extension method {name}")))
    }

    /// Where the blobs of this storage are, if it keeps any: uploads are collected there.
    fn blob_dir(&self) -> Option<Arc<BlobDir>> {
        None
    }

    /// The data of the blob that `oid` has in transaction `serial`.
    fn load_blob(&self, oid: Oid, serial: Tid) -> Result<BlobFile> {
        match self.blob_dir() {
            Some(dir) => dir.load(oid, serial),
            None => Err(StorageError::no_blobs()),
        }
    }

    /// Save what speeds up the next start, release locks. Finishes that are under way are completed first;
    /// calls afterwards fail.
    fn close(&self) -> Result<()>;
}

/// When a transaction gets its tid.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TidAt {
    /// At `vote`: the caller guarantees that no other transaction is between vote and publishing, or voted before
    /// this one ends. For protocols that want serials at vote, and for copies that bring their own tid.
    Vote,
    /// At `finish`: any number of transactions that touch different objects may be voted at the same time.
    Finish,
}

/// A voted transaction, opaque to the server but for what it must tell the client.
pub trait Voted: Any + Send {
    /// The tid, if it was assigned at vote.
    fn tid(&self) -> Option<Tid>;
    /// Objects whose stored state differs from what the client sent, because a conflict was resolved.
    fn resolved(&self) -> &[Oid];
    /// Objects that were changed by undoing transactions, in the order of the operations.
    fn undone(&self) -> &[Undone] {
        &[]
    }
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send>;
}

/// What the server attaches to a finish to find the client again.
pub type Ticket = Box<dyn Any + Send>;

/// A finished, durable transaction on its way to be published.
pub struct Committed {
    pub tid: Tid,
    /// The objects that it changed, each once.
    pub oids: Vec<Oid>,
    /// `object_count` and `size` of the storage once this transaction is visible.
    pub object_count: u64,
    pub size: u64,
    pub ticket: Ticket,
}

/// What remains to be done after publishing, outside every lock: sending what was queued.
pub type Delivery = Box<dyn FnOnce() + Send>;

/// The server's side of a finish.
pub trait Publisher: Send + Sync {
    /// `group` is durable, in tid order, and directly follows what was published before. Calls `install` exactly once:
    /// it makes the whole group visible to reads (index and last_transaction; memory only), in one step with queueing the
    /// invalidations (rules R1-R6). The storage calls this for one group at a time, gives up its own commit
    /// locks, and then runs the returned delivery.
    fn publish(&self, group: Vec<Committed>, install: &mut dyn FnMut()) -> Delivery;
    /// This transaction will not be committed: answer the client.
    fn failed(&self, ticket: Ticket, error: StorageError);
}
