//! TemporaryStorage: only current states, in memory, for sessions and the like (Python's tempstorage).
//!
//! Objects are collected as soon as no reference to them is left; references are counted. Former states are kept for a
//! minute, for merging conflicts and for running transactions. `stage` is vote and finish, `collect` counts and
//! collects.
//!
//! The lock of `commits` is taken before the lock of `state`. The first is held from the choice of a tid to publishing.
//! Reads share the second; it is held exclusively only for changes in memory.

mod collect;
mod stage;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::in_memory::Commits;
use super::tids::Tids;
use super::{
    History, HistoryEntry, IternextRecord, LastInvalidations, Load, Loaded, Pack, Result, Storage,
    StorageError,
};
use crate::base::clock::TimeSource;
use crate::base::ids::{Oid, Tid};
use crate::base::memory;
use crate::base::sync::{RwLock, RwLockReadGuard, rank};
use crate::conflict::{Conflict, ResolverSlot};

/// How long former states are kept, as in Python.
const FORMER_AGE_MAX: Duration = Duration::from_secs(60);
/// Number of collected objects that are remembered.
const COLLECTED_MAX: usize = 200;

/// The log target: Python's tempstorage logs nothing.
const TARGET: &str = "tempstorage";

/// A storage of current states in memory.
pub struct TemporaryStorage {
    name: String,
    commits: Commits,
    resolver: ResolverSlot,
    state: RwLock<Contents, rank::MemoryState>,
}

struct Contents {
    objects: BTreeMap<Oid, Object>,
    /// Number of objects that refer to an object, which may not exist yet.
    counts: HashMap<Oid, u64>,
    /// Current and former states.
    states: BTreeMap<(Oid, Tid), Kept>,
    clock: TimeSource,
    /// Time of the last check for former states that are too old.
    looked_through: Instant,
    /// The last objects that were collected, newest first.
    collected: VecDeque<Oid>,
    last: Tid,
    closed: bool,
}

/// The current state of an object.
struct Object {
    serial: Tid,
    /// Each once, ascending.
    references: Vec<Oid>,
}

struct Kept {
    data: Arc<[u8]>,
    since: Instant,
}

impl TemporaryStorage {
    /// An empty storage. Former states are kept for as long as in Python.
    pub fn new(name: String) -> TemporaryStorage {
        TemporaryStorage::with_time(name, TimeSource::SYSTEM)
    }

    /// A storage for which former states age by `clock`.
    pub fn with_time(name: String, clock: TimeSource) -> TemporaryStorage {
        TemporaryStorage {
            name,
            commits: Commits::new(TARGET, Tids::new(Tid::ZERO)),
            resolver: ResolverSlot::default(),
            state: RwLock::new(Contents {
                objects: BTreeMap::new(),
                counts: HashMap::new(),
                states: BTreeMap::new(),
                looked_through: clock.now(),
                clock,
                collected: VecDeque::new(),
                last: Tid::ZERO,
                closed: false,
            }),
        }
    }

    fn read(&self) -> Result<RwLockReadGuard<'_, Contents>> {
        let state = self.state.read();
        if state.closed { Err(self.closed()) } else { Ok(state) }
    }

    fn closed(&self) -> StorageError {
        StorageError::Closed(format!("{} is closed", self.name))
    }

    /// The error of calls that temporary storages do not support.
    fn unsupported(&self, what: &str) -> StorageError {
        StorageError::Unsupported(format!("{}: {what}", self.name))
    }
}

impl Contents {
    fn of(&self, oid: Oid) -> impl DoubleEndedIterator<Item = (Tid, &Kept)> {
        self.states.range((oid, Tid::ZERO)..=(oid, Tid(u64::MAX))).map(|((_, tid), kept)| (*tid, kept))
    }

    fn serial(&self, oid: Oid) -> Option<Tid> {
        Some(self.objects.get(&oid)?.serial)
    }
}

/// Copies a record's data into `out`, beginning at `start`.
fn copy(data: &[u8], start: usize, out: &mut Vec<u8>) -> Result<()> {
    let copied = memory::resize(out, start).and_then(|()| memory::append(out, data));
    copied.map_err(StorageError::io("reading an object"))
}

impl Storage for TemporaryStorage {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn object_count(&self) -> u64 {
        self.state.read().objects.len() as u64
    }

    /// As in Python.
    fn size(&self) -> u64 {
        0
    }

    /// Python's storage provides none.
    fn interfaces(&self) -> Vec<(&'static str, &'static str)> {
        vec![("zope.interface", "Interface")]
    }

    fn last_transaction(&self) -> Tid {
        self.state.read().last
    }

    fn new_oids(&self, count: usize) -> Result<Vec<Oid>> {
        let largest = self.read()?.objects.keys().next_back().map_or(0, |oid| oid.0);
        self.commits.new_oids(largest, count).ok_or_else(|| self.unsupported("there are no more object ids"))
    }

    fn close(&self) -> Result<()> {
        let _committing = self.commits.hold();
        self.state.write().closed = true;
        Ok(())
    }

    fn packing(&self) -> Option<&dyn Pack> {
        Some(self)
    }
}

impl Load for TemporaryStorage {
    fn load_before(
        &self,
        oid: Oid,
        before: Tid,
        headroom: usize,
        out: &mut Vec<u8>,
    ) -> Result<Option<Loaded>> {
        let state = self.read()?;
        let (mut found, mut end, mut is_known) = (None, None, false);
        for (tid, kept) in state.of(oid).rev() {
            is_known = true;
            if tid < before {
                found = Some((tid, &kept.data));
                break;
            }
            end = Some(tid);
        }
        let Some((serial, data)) = found else {
            if is_known {
                return Ok(None);
            }
            // A client that still refers to it uses an old state; after a conflict it tries again with a new one.
            // Clients since ZEO 5 load with the tid of their transaction's start, others load the current state.
            if state.collected.contains(&oid) {
                let conflict = Conflict { oid, committed: Tid::ZERO, read: Tid::ZERO, data: Vec::new() };
                return Err(StorageError::Conflict(Box::new(conflict)));
            }
            return Err(StorageError::PosKey(oid));
        };
        let start = out.len() + headroom;
        copy(data, start, out)?;
        Ok(Some(Loaded { start, serial, end }))
    }

    fn load_serial(&self, oid: Oid, serial: Tid, headroom: usize, out: &mut Vec<u8>) -> Result<Loaded> {
        let state = self.read()?;
        let kept = state.states.get(&(oid, serial)).ok_or(StorageError::PosKey(oid))?;
        let start = out.len() + headroom;
        copy(&kept.data, start, out)?;
        Ok(Loaded { start, serial, end: None })
    }

    fn get_tid(&self, oid: Oid) -> Result<Tid> {
        self.read()?.serial(oid).ok_or(StorageError::PosKey(oid))
    }
}

impl History for TemporaryStorage {
    /// There is no history.
    fn revisions(&self, _oid: Oid, _each: &mut dyn FnMut(HistoryEntry) -> ControlFlow<()>) -> Result<()> {
        Ok(())
    }

    fn record_iternext(&self, next: Option<Oid>) -> Result<Option<IternextRecord>> {
        let state = self.read()?;
        let mut objects = state.objects.range(next.unwrap_or(Oid::ZERO)..);
        let Some((&oid, object)) = objects.next() else { return Ok(None) };
        let kept = state.states.get(&(oid, object.serial)).ok_or(StorageError::PosKey(oid))?;
        let next = objects.next().map(|(oid, _)| *oid);
        let data = memory::copy(&kept.data).map_err(StorageError::io("reading an object"))?;
        Ok(Some(IternextRecord { oid, tid: object.serial, data, next }))
    }

    /// Nothing remains from before the start of the server.
    fn last_invalidations(&self, _count: usize) -> Result<LastInvalidations> {
        Ok(LastInvalidations::new(Vec::new(), self.last_transaction()))
    }
}
