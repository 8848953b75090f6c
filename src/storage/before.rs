//! A storage as it was before a point in time, read-only, as zc.beforestorage.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::forward::forward;
use super::{
    BlobDir, BlobFile, Blobs, Commit, History, HistoryEntry, Iterate, IternextRecord, LastInvalidations,
    Load, Loaded, Pack, PackPlan, PackRequest, Result, Staged, Storage, StorageError, Ticket, TidAt,
    TransactionIterator, VoteResult, Voted,
};
use crate::base::ids::{Oid, Tid};

/// The state of `base` before the tid `before`.
pub struct Before {
    base: Arc<dyn Storage>,
    before: Tid,
}

impl Before {
    /// Shows the revisions of `base` that are earlier than `before`.
    pub fn new(base: Arc<dyn Storage>, before: Tid) -> Before {
        Before { base, before }
    }

    /// The first object at or after `next` that existed then, as it was.
    fn next_object(&self, mut next: Oid) -> Result<Option<IternextRecord>> {
        loop {
            // The base also reports objects that are deleted or un-created now, in its errors.
            let oid = match self.base.record_iternext(Some(next)) {
                Ok(Some(record)) => record.oid,
                Ok(None) => return Ok(None),
                Err(StorageError::PosKey(gone)) if gone >= next => gone,
                Err(error) => return Err(error),
            };
            let mut data = Vec::new();
            match self.load_before(oid, Tid::MAX, 0, &mut data) {
                Ok(Some(loaded)) => {
                    let data = data.split_off(loaded.start);
                    return Ok(Some(IternextRecord { oid, tid: loaded.serial, data, next: None }));
                }
                Ok(None) | Err(StorageError::PosKey(_)) => {}
                Err(error) => return Err(error),
            }
            let Some(following) = oid.0.checked_add(1) else { return Ok(None) };
            next = Oid(following);
        }
    }

    /// A revision that ended at `before` or later is the current one here.
    fn cut_off(&self, loaded: Result<Option<Loaded>>) -> Result<Option<Loaded>> {
        let mut loaded = loaded?;
        if let Some(loaded) = &mut loaded {
            loaded.end = loaded.end.filter(|end| *end < self.before);
        }
        Ok(loaded)
    }
}

impl Storage for Before {
    forward!(base: object_count, size, close, cache_counts, sync_counts, replication, secondaries, remote, failure, pulse, save_index, catch_up);

    fn name(&self) -> String {
        format!("{} before {}", self.base.name(), self.before.to_text())
    }

    fn is_read_only(&self) -> bool {
        true
    }

    fn interfaces(&self) -> Vec<(&'static str, &'static str)> {
        vec![("zope.interface", "Interface")]
    }

    fn last_transaction(&self) -> Tid {
        Tid(self.before.0.saturating_sub(1))
    }

    fn new_oids(&self, _count: usize) -> Result<Vec<Oid>> {
        Err(StorageError::ReadOnly)
    }

    fn iteration(&self) -> Option<&dyn Iterate> {
        self.base.iteration().map(|_| self as &dyn Iterate)
    }

    fn packing(&self) -> Option<&dyn Pack> {
        Some(self)
    }

    fn blobs(&self) -> Option<&dyn Blobs> {
        Some(self)
    }
}

impl Load for Before {
    forward!(base: expect_read);

    fn load_before(
        &self,
        oid: Oid,
        before: Tid,
        headroom: usize,
        out: &mut Vec<u8>,
    ) -> Result<Option<Loaded>> {
        self.cut_off(self.base.load_before(oid, before.min(self.before), headroom, out))
    }

    fn load_before_now(
        &self,
        oid: Oid,
        before: Tid,
        headroom: usize,
        out: &mut Vec<u8>,
    ) -> Option<Result<Option<Loaded>>> {
        Some(self.cut_off(self.base.load_before_now(oid, before.min(self.before), headroom, out)?))
    }

    fn load_serial(&self, oid: Oid, serial: Tid, headroom: usize, out: &mut Vec<u8>) -> Result<Loaded> {
        if serial >= self.before {
            return Err(StorageError::PosKey(oid));
        }
        self.base.load_serial(oid, serial, headroom, out)
    }

    fn get_tid(&self, oid: Oid) -> Result<Tid> {
        let loaded = self.load_before(oid, Tid::MAX, 0, &mut Vec::new())?;
        loaded.map(|loaded| loaded.serial).ok_or(StorageError::PosKey(oid))
    }
}

impl History for Before {
    fn revisions(&self, oid: Oid, each: &mut dyn FnMut(HistoryEntry) -> ControlFlow<()>) -> Result<()> {
        self.base.revisions(oid, &mut |entry| {
            if entry.tid < self.before { each(entry) } else { ControlFlow::Continue(()) }
        })
    }

    fn record_iternext(&self, next: Option<Oid>) -> Result<Option<IternextRecord>> {
        let Some(mut record) = self.next_object(next.unwrap_or(Oid::ZERO))? else { return Ok(None) };
        if let Some(following) = record.oid.0.checked_add(1) {
            record.next = self.next_object(Oid(following))?.map(|next| next.oid);
        }
        Ok(Some(record))
    }

    /// Python's storage has no such method. Nothing changes here, so a client with the last transaction is up to date.
    fn last_invalidations(&self, _count: usize) -> Result<LastInvalidations> {
        Ok(LastInvalidations::new(Vec::new(), self.last_transaction()))
    }
}

/// Refuses every vote, so nothing is finished.
impl Commit for Before {
    forward!(base: set_publisher, set_resolver);

    fn vote(&self, _staged: Staged, _tid_at: TidAt) -> VoteResult {
        Err(StorageError::ReadOnly.into())
    }

    fn finish(&self, voted: Box<dyn Voted>, _ticket: Ticket) {
        drop(voted);
    }
}

impl Iterate for Before {
    fn iterate(&self, start: Option<Tid>, stop: Option<Tid>) -> Result<Box<dyn TransactionIterator>> {
        let last = self.last_transaction();
        let stop = stop.map_or(last, |stop| stop.min(last));
        self.base.require_iteration()?.iterate(start, Some(stop))
    }
}

impl Pack for Before {
    fn pack(&self, _request: &PackRequest<'_>) -> Result<()> {
        Err(StorageError::ReadOnly)
    }

    fn plan(&self, _request: &PackRequest<'_>) -> Result<PackPlan> {
        Err(StorageError::ReadOnly)
    }
}

impl Blobs for Before {
    /// There are no uploads.
    fn dir(&self) -> Option<&Arc<BlobDir>> {
        None
    }

    fn load_blob(&self, oid: Oid, serial: Tid) -> Result<BlobFile> {
        if serial >= self.before {
            return Err(StorageError::PosKey(oid));
        }
        self.base.require_blobs()?.load_blob(oid, serial)
    }

    fn load_blob_now(&self, oid: Oid, serial: Tid) -> Option<Result<BlobFile>> {
        if serial >= self.before {
            return Some(Err(StorageError::PosKey(oid)));
        }
        match self.base.require_blobs() {
            Ok(base) => base.load_blob_now(oid, serial),
            Err(error) => Some(Err(error)),
        }
    }
}
