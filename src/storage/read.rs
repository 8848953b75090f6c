//! Reading objects, and looking back.

#![warn(missing_docs)]

use std::ops::ControlFlow;

use super::{HistoryEntry, IternextRecord, LastInvalidations, Loaded, Result};
use crate::base::ids::{Oid, Tid};

/// Reading single revisions.
///
/// Data is appended to the caller's buffer `out`, behind at least `headroom` bytes of any content, into which the
/// caller writes its own header: so a record is copied once on its way from the disk to the network. After an error,
/// and where nothing is found, `out` is as it was.
pub trait Load: Send + Sync {
    /// A hint: `oid` will be read soon, and so will a few others of which the same was said just before. A storage may
    /// bring its index into memory. Must not wait for a disk.
    fn expect_read(&self, _oid: Oid) {}

    /// The revision of `oid` that was current just before `before` ([`Tid::MAX`]: the current one).
    ///
    /// `Ok(None)`: the object exists, but was created at `before` or later. Errors: [`StorageError::PosKey`] if there
    /// is no such object, or if it was deleted or un-created by then; `Io` and `Corrupt` from the medium.
    ///
    /// [`StorageError::PosKey`]: super::StorageError::PosKey
    fn load_before(
        &self,
        oid: Oid,
        before: Tid,
        headroom: usize,
        out: &mut Vec<u8>,
    ) -> Result<Option<Loaded>>;

    /// As [`Load::load_before`], if that is possible without waiting for a disk. `None`: it is not, and the record is
    /// not large, so the caller may have many such records read at the same time.
    fn load_before_now(
        &self,
        oid: Oid,
        before: Tid,
        headroom: usize,
        out: &mut Vec<u8>,
    ) -> Option<Result<Option<Loaded>>> {
        Some(self.load_before(oid, before, headroom, out))
    }

    /// The data that `oid` got in transaction `serial`. `end` of the result is `None`.
    ///
    /// Errors: `PosKey` if there is no such revision, or if it has no data.
    fn load_serial(&self, oid: Oid, serial: Tid, headroom: usize, out: &mut Vec<u8>) -> Result<Loaded>;

    /// The tid of the current revision of `oid`. Errors: `PosKey` if there is no such object, or it is deleted or
    /// un-created.
    fn get_tid(&self, oid: Oid) -> Result<Tid>;
}

/// Looking back: former revisions, all objects, the newest transactions.
pub trait History: Send + Sync {
    /// Calls `each` with the revisions of `oid`, newest first, until it returns `Break`. Deleted and un-created states
    /// count, with a size of 0. A storage that keeps no history calls nothing.
    ///
    /// Errors: `PosKey` if there never was such an object.
    fn revisions(&self, oid: Oid, each: &mut dyn FnMut(HistoryEntry) -> ControlFlow<()>) -> Result<()>;

    /// The first `count` of [`History::revisions`].
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

    /// The first object at or after `next` in the order of oids (the first of all for `None`), and the oid that follows
    /// it. `Ok(None)`: there is none.
    ///
    /// Errors: `PosKey` with the oid of an object that is deleted or un-created, as in Python; the caller may go on
    /// behind it.
    fn record_iternext(&self, next: Option<Oid>) -> Result<Option<IternextRecord>>;

    /// The last `count` transactions, or as many as can be read: what clients may have missed.
    fn last_invalidations(&self, count: usize) -> Result<LastInvalidations>;
}
