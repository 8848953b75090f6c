//! MappingStorage: every revision of every object in memory, until the server stops.
//!
//! `stage` is vote and finish, `pack` removes old revisions and garbage, `iterate` iterates over the transactions.
//!
//! The lock of `commits` is taken before the lock of `state`. The first is held from the choice of a tid to publishing.
//! Reads share the second; it is held exclusively only for changes in memory.

mod iterate;
mod pack;
mod stage;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use super::in_memory::Commits;
use super::tids::Tids;
use super::{
    BlobDir, Blobs, History, HistoryEntry, Iterate, IternextRecord, LastInvalidations, Load, Loaded, Pack,
    Result, Storage, StorageError, TransactionMeta,
};
use crate::base::clock::{Clock, SystemClock};
use crate::base::ids::{Oid, Tid};
use crate::base::memory;
use crate::base::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard, rank};

/// Bytes that Python counts for an object, and for a revision in addition to its data.
const OBJECT_SIZE: u64 = 50;
const REVISION_SIZE: u64 = 100;

/// The log target: Python's MappingStorage logs nothing.
const TARGET: &str = "ZODB.MappingStorage";

/// A storage in memory.
pub struct MappingStorage {
    name: String,
    commits: Commits,
    state: Arc<RwLock<Contents, rank::MemoryState>>,
    blobs: Option<Arc<BlobDir>>,
    /// The directory of blobs that are removed with this storage.
    _blobs_end: Option<TempDir>,
}

/// A record's data; `None` for a deletion or an un-creation.
type Data = Option<Arc<[u8]>>;

#[derive(Default)]
struct Contents {
    objects: BTreeMap<Oid, Revisions>,
    transactions: BTreeMap<Tid, Transaction>,
    last: Tid,
    last_pack: Option<Tid>,
    /// As Python's `getSize()`.
    size: u64,
    closed: bool,
}

/// The revisions of one object, oldest first; never empty.
type Revisions = Vec<(Tid, Data)>;

struct Transaction {
    status: u8,
    meta: TransactionMeta,
    /// In the order of the stores.
    records: Vec<(Oid, Data)>,
}

impl MappingStorage {
    /// An empty storage without blobs.
    pub fn new(name: String) -> MappingStorage {
        MappingStorage::with_clock(name, Arc::new(SystemClock))
    }

    /// A storage whose tids come from `clock`.
    pub fn with_clock(name: String, clock: Arc<dyn Clock>) -> MappingStorage {
        MappingStorage {
            name,
            commits: Commits::new(TARGET, Tids::with_clock(Tid::ZERO, clock)),
            state: Arc::default(),
            blobs: None,
            _blobs_end: None,
        }
    }

    /// Keeps blobs in the directory `dir`, which stays.
    pub fn with_blobs(self, dir: &Path) -> Result<MappingStorage> {
        let blobs = BlobDir::open(dir, false)?;
        // All blobs in it are of an earlier run, whose objects are lost.
        blobs.clean(false, &|_, _| Ok(true));
        Ok(MappingStorage { blobs: Some(blobs), ..self })
    }

    /// Keeps blobs in a temporary directory, as long as the storage exists.
    pub fn with_temporary_blobs(self) -> Result<MappingStorage> {
        let making = StorageError::io("making a temporary directory for blobs");
        let dir = tempfile::Builder::new().suffix(".demoblobs").tempdir().map_err(making)?;
        let storage = self.with_blobs(dir.path())?;
        Ok(MappingStorage { _blobs_end: Some(dir), ..storage })
    }

    fn read(&self) -> Result<RwLockReadGuard<'_, Contents>> {
        let state = self.state.read();
        if state.closed { Err(self.closed()) } else { Ok(state) }
    }

    fn write(&self) -> Result<RwLockWriteGuard<'_, Contents>> {
        let state = self.state.write();
        if state.closed { Err(self.closed()) } else { Ok(state) }
    }

    fn closed(&self) -> StorageError {
        StorageError::Closed(format!("{} is closed", self.name))
    }
}

impl Contents {
    fn revisions(&self, oid: Oid) -> Result<&Revisions> {
        self.objects.get(&oid).ok_or(StorageError::PosKey(oid))
    }

    /// The newest revision, which may be a deletion or an un-creation.
    fn newest(&self, oid: Oid) -> Option<&(Tid, Data)> {
        self.objects.get(&oid)?.last()
    }

    /// Adds a revision; replaces one of the same transaction.
    fn insert(&mut self, oid: Oid, tid: Tid, data: Data) {
        self.last = self.last.max(tid);
        self.size += revision_size(&data);
        let revisions = self.objects.entry(oid).or_insert_with(|| {
            self.size += OBJECT_SIZE;
            Vec::with_capacity(1)
        });
        let at = revisions.partition_point(|(known, _)| *known < tid);
        match revisions.get_mut(at) {
            Some((known, old)) if *known == tid => {
                self.size -= revision_size(old);
                *old = data;
            }
            _ => revisions.insert(at, (tid, data)),
        }
    }
}

fn revision_size(data: &Data) -> u64 {
    REVISION_SIZE + data.as_ref().map_or(0, |data| data.len() as u64)
}

/// Appends a record's data to `out`, behind `headroom` bytes. Returns where the data begins.
fn append(data: &Data, oid: Oid, headroom: usize, out: &mut Vec<u8>) -> Result<usize> {
    let data = data.as_ref().ok_or(StorageError::PosKey(oid))?;
    let start = out.len() + headroom;
    let copied = memory::resize(out, start).and_then(|()| memory::append(out, data));
    copied.map_err(StorageError::io("reading an object"))?;
    Ok(start)
}

impl Storage for MappingStorage {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn object_count(&self) -> u64 {
        self.state.read().objects.len() as u64
    }

    fn size(&self) -> u64 {
        self.state.read().size
    }

    fn interfaces(&self) -> Vec<(&'static str, &'static str)> {
        let blobs = self.blobs.as_ref().map(|_| ("ZODB.interfaces", "IBlobStorage"));
        blobs
            .into_iter()
            .chain([
                ("ZODB.interfaces", "IStorage"),
                ("ZODB.interfaces", "IStorageIteration"),
                ("zope.interface", "Interface"),
            ])
            .collect()
    }

    fn last_transaction(&self) -> Tid {
        self.state.read().last
    }

    fn new_oids(&self, count: usize) -> Result<Vec<Oid>> {
        let largest = self.read()?.objects.keys().next_back().map_or(0, |oid| oid.0);
        self.commits
            .new_oids(largest, count)
            .ok_or_else(|| StorageError::Unsupported("there are no more object ids".into()))
    }

    fn close(&self) -> Result<()> {
        let _committing = self.commits.hold();
        self.state.write().closed = true;
        Ok(())
    }

    fn iteration(&self) -> Option<&dyn Iterate> {
        Some(self)
    }

    fn packing(&self) -> Option<&dyn Pack> {
        Some(self)
    }

    fn blobs(&self) -> Option<&dyn Blobs> {
        self.blobs.as_ref().map(|dir| dir as &dyn Blobs)
    }
}

impl Load for MappingStorage {
    fn load_before(
        &self,
        oid: Oid,
        before: Tid,
        headroom: usize,
        out: &mut Vec<u8>,
    ) -> Result<Option<Loaded>> {
        let state = self.read()?;
        let revisions = state.revisions(oid)?;
        let at = revisions.partition_point(|(tid, _)| *tid < before);
        let end = revisions.get(at).map(|(tid, _)| *tid);
        let Some((serial, data)) = at.checked_sub(1).and_then(|at| revisions.get(at)) else {
            return Ok(None);
        };
        let start = append(data, oid, headroom, out)?;
        Ok(Some(Loaded { start, serial: *serial, end }))
    }

    fn load_serial(&self, oid: Oid, serial: Tid, headroom: usize, out: &mut Vec<u8>) -> Result<Loaded> {
        let state = self.read()?;
        let revisions = state.revisions(oid)?;
        let at = revisions.binary_search_by_key(&serial, |(tid, _)| *tid);
        let revision = at.ok().and_then(|at| revisions.get(at));
        let (_, data) = revision.ok_or(StorageError::PosKey(oid))?;
        Ok(Loaded { start: append(data, oid, headroom, out)?, serial, end: None })
    }

    fn get_tid(&self, oid: Oid) -> Result<Tid> {
        match self.read()?.newest(oid) {
            Some((tid, Some(_))) => Ok(*tid),
            _ => Err(StorageError::PosKey(oid)),
        }
    }
}

impl History for MappingStorage {
    fn revisions(&self, oid: Oid, each: &mut dyn FnMut(HistoryEntry) -> ControlFlow<()>) -> Result<()> {
        let state = self.read()?;
        let entry = |(tid, data): &(Tid, Data)| HistoryEntry {
            tid: *tid,
            meta: state.transactions.get(tid).map(|txn| txn.meta.clone()).unwrap_or_default(),
            size: data.as_ref().map_or(0, |data| data.len() as u64),
        };
        let _ = state.revisions(oid)?.iter().rev().map(entry).try_for_each(each);
        Ok(())
    }

    fn record_iternext(&self, next: Option<Oid>) -> Result<Option<IternextRecord>> {
        let state = self.read()?;
        let mut objects = state.objects.range(next.unwrap_or(Oid::ZERO)..);
        let Some((&oid, revisions)) = objects.next() else { return Ok(None) };
        match revisions.last() {
            Some((tid, Some(data))) => Ok(Some(IternextRecord {
                oid,
                tid: *tid,
                data: memory::copy(data).map_err(StorageError::io("reading an object"))?,
                next: objects.next().map(|(oid, _)| *oid),
            })),
            _ => Err(StorageError::PosKey(oid)),
        }
    }

    fn last_invalidations(&self, count: usize) -> Result<LastInvalidations> {
        let state = self.read()?;
        let oids = |txn: &Transaction| txn.records.iter().map(|(oid, _)| *oid).collect();
        let newest = state.transactions.iter().rev().take(count).map(|(tid, txn)| (*tid, oids(txn)));
        Ok(LastInvalidations::new(newest.collect(), state.last))
    }
}
