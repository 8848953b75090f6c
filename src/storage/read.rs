//! The traits for reading: objects ([`Load`]) and former revisions ([`History`]).

use std::ops::ControlFlow;

use super::{HistoryEntry, IternextRecord, LastInvalidations, Loaded, Result};
use crate::base::ids::{Oid, Tid};

/// Reading single revisions.
///
/// Data is appended to the caller's buffer `out`, behind at least `headroom` bytes of any content for the caller's own
/// header. So a record is copied once on its way from the disk to the network.
///
/// If nothing is found (`Ok(None)` or `PosKey`), `out` is unchanged. After any other error its former content is
/// unchanged, but more bytes may follow: the caller cuts them off.
pub trait Load: Send + Sync {
    /// A hint: `oid` and the objects of the calls just before will be read soon. A storage may bring its index into
    /// memory. Must not wait for a disk.
    fn expect_read(&self, _oid: Oid) {}

    /// The revision of `oid` that was current just before `before` ([`Tid::MAX`]: the current one).
    ///
    /// `Ok(None)`: the object exists, but was created at `before` or later. Errors: [`StorageError::PosKey`] if there
    /// is no such object, or if the revision at that time is a deletion or an un-creation; `Io` and `Corrupt` from the
    /// medium.
    ///
    /// [`StorageError::PosKey`]: super::StorageError::PosKey
    fn load_before(
        &self,
        oid: Oid,
        before: Tid,
        headroom: usize,
        out: &mut Vec<u8>,
    ) -> Result<Option<Loaded>>;

    /// As [`Load::load_before`], if that is possible without waiting for a disk. `None`: it is not possible, and the
    /// record is small, so the caller may have many such records read at the same time.
    fn load_before_now(
        &self,
        oid: Oid,
        before: Tid,
        headroom: usize,
        out: &mut Vec<u8>,
    ) -> Option<Result<Option<Loaded>>> {
        Some(self.load_before(oid, before, headroom, out))
    }

    /// The data that transaction `serial` stored for `oid`. `end` of the result is `None`.
    ///
    /// Errors: `PosKey` if there is no such revision, or if it has no data.
    fn load_serial(&self, oid: Oid, serial: Tid, headroom: usize, out: &mut Vec<u8>) -> Result<Loaded>;

    /// The tid of the current revision of `oid`. Errors: `PosKey` if there is no such object, or it is deleted or
    /// un-created.
    fn get_tid(&self, oid: Oid) -> Result<Tid>;
}

/// Former revisions, all objects, and the newest transactions.
pub trait History: Send + Sync {
    /// Calls `each` with the revisions of `oid`, newest first, until `each` returns `Break`. Deletions and un-creations
    /// are included, with size 0. A storage that keeps no history does not call `each`.
    ///
    /// Errors: `PosKey` if the object never existed.
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

    /// The first object at or after `next` in the order of oids (`None`: the first of all), and the oid that follows
    /// it. `Ok(None)`: there is none.
    ///
    /// Errors: `PosKey` with the oid of an object that is deleted or un-created, as in Python; the caller may continue
    /// with the next oid.
    fn record_iternext(&self, next: Option<Oid>) -> Result<Option<IternextRecord>>;

    /// The last `count` transactions, or as many of them as can be read: what clients may have missed.
    fn last_invalidations(&self, count: usize) -> Result<LastInvalidations>;
}
