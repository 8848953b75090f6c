//! DemoStorage: changes in one storage, laid over another one that never changes.
//!
//! `stage` is vote, `oids` gives out new object ids, `iterate` iterates over both storages one after the other. An
//! object is read from the base if the changes do not have it.

mod iterate;
mod oids;
mod stage;

use std::ops::ControlFlow;
use std::sync::Arc;

use self::oids::Issued;
use super::forward::forward;
use super::{
    BlobDir, BlobFile, Blobs, History, HistoryEntry, Iterate, IternextRecord, LastInvalidations, Load,
    Loaded, Pack, PackPlan, PackRequest, Refusal, Result, Storage, StorageError,
};
use crate::base::ids::{Oid, Tid};
use crate::conflict::ResolverSlot;

/// `changes` laid over `base`.
pub struct DemoStorage {
    name: String,
    base: Arc<dyn Storage>,
    changes: Arc<dyn Storage>,
    /// Whether the changes were made for this storage and end with it.
    temporary: bool,
    resolver: ResolverSlot,
    issued: Issued,
}

impl DemoStorage {
    /// Without `name` the name is made of those of both storages. `temporary`: the changes were made for this storage.
    pub fn new(
        name: Option<String>,
        base: Arc<dyn Storage>,
        changes: Arc<dyn Storage>,
        temporary: bool,
    ) -> DemoStorage {
        let name = name.unwrap_or_else(|| format!("DemoStorage('{}', '{}')", base.name(), changes.name()));
        // Changes are later than the base, whatever the clock says.
        changes.tids_after(base.last_transaction());
        DemoStorage {
            name,
            base,
            changes,
            temporary,
            resolver: ResolverSlot::default(),
            issued: Issued::new(),
        }
    }

    /// The first object at or after `next` in `storage` that is not deleted or un-created there.
    fn next_in(storage: &dyn Storage, mut next: Oid) -> Result<Option<IternextRecord>> {
        loop {
            match storage.record_iternext(Some(next)) {
                Err(StorageError::PosKey(gone)) if gone >= next && gone.0 < u64::MAX => {
                    next = Oid(gone.0 + 1)
                }
                result => return result,
            }
        }
    }
}

/// The result; `None` if there is no such object.
fn known<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(StorageError::PosKey(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Storage for DemoStorage {
    forward!(changes: is_read_only, object_count, size, undo, sync_counts, failure, pulse, save_index, catch_up);

    fn name(&self) -> String {
        self.name.clone()
    }

    fn cache_counts(&self) -> Option<crate::storage::CacheCounts> {
        self.base.cache_counts()
    }

    /// The base is what may be a standby's.
    fn replication(&self) -> Option<crate::storage::Replication> {
        self.base.replication()
    }

    /// Of both: each may be a primary.
    fn secondaries(&self) -> Option<Vec<crate::storage::Secondary>> {
        match (self.changes.secondaries(), self.base.secondaries()) {
            (Some(changes), Some(base)) => Some([changes, base].concat()),
            (changes, base) => changes.or(base),
        }
    }

    /// The changes are here; what they are changes of may be elsewhere.
    fn remote(&self) -> Option<crate::storage::Remote> {
        self.base.remote()
    }

    fn interfaces(&self) -> Vec<(&'static str, &'static str)> {
        let blobs = self.changes.blobs().map(|_| ("ZODB.interfaces", "IBlobStorage"));
        let undoable = self.undo().map(|_| ("ZODB.interfaces", "IStorageUndoable"));
        blobs
            .into_iter()
            .chain(undoable)
            .chain([
                ("ZODB.interfaces", "IStorage"),
                ("ZODB.interfaces", "IStorageIteration"),
                ("zope.interface", "Interface"),
            ])
            .collect()
    }

    fn last_transaction(&self) -> Tid {
        match self.changes.last_transaction() {
            Tid::ZERO => self.base.last_transaction(),
            last => last,
        }
    }

    fn new_oids(&self, count: usize) -> Result<Vec<Oid>> {
        if self.is_read_only() {
            return Err(StorageError::ReadOnly);
        }
        self.issued.next(count, |oid| {
            // The history also has deleted and un-created objects.
            Ok(known(self.changes.history(oid, 1))?.is_some() || known(self.base.history(oid, 1))?.is_some())
        })
    }

    fn close(&self) -> Result<()> {
        let changes = self.changes.close();
        self.base.close().and(changes)
    }

    fn iteration(&self) -> Option<&dyn Iterate> {
        self.base.iteration().and(self.changes.iteration()).map(|_| self as &dyn Iterate)
    }

    fn packing(&self) -> Option<&dyn Pack> {
        self.changes.packing().map(|_| self as &dyn Pack)
    }

    fn blobs(&self) -> Option<&dyn Blobs> {
        self.changes.blobs().or(self.base.blobs()).map(|_| self as &dyn Blobs)
    }
}

impl Load for DemoStorage {
    fn expect_read(&self, oid: Oid) {
        self.changes.expect_read(oid);
        self.base.expect_read(oid);
    }

    fn load_before(
        &self,
        oid: Oid,
        before: Tid,
        headroom: usize,
        out: &mut Vec<u8>,
    ) -> Result<Option<Loaded>> {
        match known(self.changes.load_before(oid, before, headroom, out))? {
            None => return self.base.load_before(oid, before, headroom, out),
            Some(Some(loaded)) => return Ok(Some(loaded)),
            Some(None) => {}
        }
        // The changes have the object, but only later revisions.
        let Some(Some(mut loaded)) = known(self.base.load_before(oid, before, headroom, out))? else {
            return Ok(None);
        };
        if loaded.end.is_none() && before < Tid::MAX {
            self.changes.revisions(oid, &mut |entry| {
                loaded.end = Some(entry.tid);
                ControlFlow::Continue(())
            })?;
        }
        Ok(Some(loaded))
    }

    fn load_before_now(
        &self,
        oid: Oid,
        before: Tid,
        headroom: usize,
        out: &mut Vec<u8>,
    ) -> Option<Result<Option<Loaded>>> {
        match known(self.changes.load_before_now(oid, before, headroom, out)?) {
            Ok(None) => self.base.load_before_now(oid, before, headroom, out),
            Ok(Some(Some(loaded))) => Some(Ok(Some(loaded))),
            // Rare: an older revision, for which both storages are read.
            Ok(Some(None)) => Some(self.load_before(oid, before, headroom, out)),
            Err(error) => Some(Err(error)),
        }
    }

    fn load_serial(&self, oid: Oid, serial: Tid, headroom: usize, out: &mut Vec<u8>) -> Result<Loaded> {
        match known(self.changes.load_serial(oid, serial, headroom, out))? {
            Some(loaded) => Ok(loaded),
            None => self.base.load_serial(oid, serial, headroom, out),
        }
    }

    fn get_tid(&self, oid: Oid) -> Result<Tid> {
        match known(self.changes.get_tid(oid))? {
            Some(tid) => Ok(tid),
            None => self.base.get_tid(oid),
        }
    }
}

impl History for DemoStorage {
    fn revisions(&self, oid: Oid, each: &mut dyn FnMut(HistoryEntry) -> ControlFlow<()>) -> Result<()> {
        let (mut any, mut ended) = (false, false);
        known(self.changes.revisions(oid, &mut |entry| {
            any = true;
            let flow = each(entry);
            ended = flow.is_break();
            flow
        }))?;
        if ended {
            return Ok(());
        }
        match self.base.revisions(oid, each) {
            Err(StorageError::PosKey(_)) if any => Ok(()),
            result => result,
        }
    }

    fn record_iternext(&self, next: Option<Oid>) -> Result<Option<IternextRecord>> {
        let next = next.unwrap_or(Oid::ZERO);
        let changed = DemoStorage::next_in(self.changes.as_ref(), next)?;
        let old = DemoStorage::next_in(self.base.as_ref(), next)?;
        Ok(match (changed, old) {
            (Some(mut first), Some(second)) if first.oid < second.oid => {
                first.next = smallest(first.next, Some(second.oid));
                Some(first)
            }
            (Some(mut first), Some(second)) if first.oid == second.oid => {
                first.next = smallest(first.next, second.next);
                Some(first)
            }
            (Some(first), Some(mut second)) => {
                second.next = smallest(second.next, Some(first.oid));
                Some(second)
            }
            (changed, old) => changed.or(old),
        })
    }

    fn last_invalidations(&self, count: usize) -> Result<LastInvalidations> {
        let newer = self.changes.last_invalidations(count)?;
        let left = count.saturating_sub(newer.transactions.len());
        // The base only continues a list that goes back to the first of the changes.
        let tells_none = newer.transactions.is_empty() && newer.complete_after > Tid::ZERO;
        if left == 0 || tells_none || newer.cut_short.is_some() {
            return Ok(newer);
        }
        let older = self.base.last_invalidations(left)?;
        let transactions = newer.transactions.into_iter().chain(older.transactions).collect();
        Ok(LastInvalidations { transactions, ..older })
    }
}

impl Blobs for DemoStorage {
    /// Uploads go to the changes.
    fn dir(&self) -> Option<&Arc<BlobDir>> {
        self.changes.blobs()?.dir()
    }

    fn load_blob(&self, oid: Oid, serial: Tid) -> Result<BlobFile> {
        let Some(changes) = self.changes.blobs() else {
            return self.base.require_blobs()?.load_blob(oid, serial);
        };
        match (changes.load_blob(oid, serial), self.base.blobs()) {
            // The error of the changes names the file that would exist if the blob had been changed.
            (Err(StorageError::NoBlob { .. }), Some(base)) => base.load_blob(oid, serial),
            (result, _) => result,
        }
    }

    fn load_blob_now(&self, oid: Oid, serial: Tid) -> Option<Result<BlobFile>> {
        let found = self.changes.blobs().map(|changes| changes.load_blob_now(oid, serial));
        match (found, self.base.require_blobs()) {
            (Some(None), _) => None,
            (Some(Some(Err(StorageError::NoBlob { .. }))) | None, Ok(base)) => {
                base.load_blob_now(oid, serial)
            }
            (Some(result), _) => result,
            (None, Err(error)) => Some(Err(error)),
        }
    }
}

impl DemoStorage {
    /// Objects may be referred to from the base only, so garbage is collected only if the base is empty. Python
    /// collects it with temporary changes, and loses such objects.
    fn gc(&self, request: &PackRequest<'_>) -> Result<Option<bool>> {
        let may_collect = self.temporary && self.base.object_count() == 0;
        if request.gc == Some(true) && !may_collect {
            return Err(StorageError::Refused {
                what: Refusal::GarbageCollection,
                message: "Garbage collection isn't supported when there is a base storage.".into(),
            });
        }
        Ok(if may_collect { request.gc } else { Some(false) })
    }
}

impl Pack for DemoStorage {
    fn pack(&self, request: &PackRequest<'_>) -> Result<()> {
        let gc = self.gc(request)?;
        self.changes.require_packing()?.pack(&PackRequest { gc, ..*request })
    }

    fn plan(&self, request: &PackRequest<'_>) -> Result<PackPlan> {
        let gc = self.gc(request)?;
        self.changes.require_packing()?.plan(&PackRequest { gc, ..*request })
    }
}

fn smallest(a: Option<Oid>, b: Option<Oid>) -> Option<Oid> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
