//! The file that is current and the index of it: a pack replaces both at once.
//!
//! Whoever reads takes the volume once and keeps to it: positions mean nothing in another one. A volume that was
//! replaced stays readable as long as somebody holds it, and nothing is appended to it any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};

use super::index::Index;
use super::log::Log;
use super::undo::Places;
use crate::base::ids::{Oid, Tid};
use crate::storage::Result;

/// See the module.
pub struct Volume {
    pub log: Log,
    /// The same, for those who do not wait for the disk.
    pub log_in_memory: Log,
    pub index: Index,
    pub places: Places,
    /// Where the last published transaction ends. Written by the leader only.
    published_end: AtomicU64,
    /// The tid of the last transaction in the file. A pack may have dropped some that were published later.
    end_tid: AtomicU64,
}

impl Volume {
    /// `end_tid`: of the last transaction in the file.
    pub fn new(log: Log, index: Index, end_tid: Tid) -> Volume {
        let published_end = AtomicU64::new(log.end());
        let log_in_memory = log.without_waiting();
        Volume {
            log,
            log_in_memory,
            index,
            places: Places::default(),
            published_end,
            end_tid: AtomicU64::new(end_tid.0),
        }
    }

    pub fn end_tid(&self) -> Tid {
        Tid(self.end_tid.load(Ordering::Acquire))
    }

    /// The file has become longer, durably.
    pub fn appended(&self, end: u64, tid: Tid) {
        self.log.set_end(end);
        self.end_tid.store(tid.0, Ordering::Release);
    }

    pub fn published_end(&self) -> u64 {
        self.published_end.load(Ordering::Acquire)
    }

    /// Where the revision of `oid` is that transaction `tid` made; 0 if there is none.
    pub fn revision(&self, oid: Oid, tid: Tid) -> Result<u64> {
        let mut pos = self.index.pos(oid);
        while pos != 0 {
            let header = self.log.read_record(pos, Some(oid))?.header;
            if header.tid <= tid {
                return Ok(if header.tid == tid { pos } else { 0 });
            }
            pos = header.prev;
        }
        Ok(0)
    }

    pub fn set_published_end(&self, end: u64) {
        self.published_end.store(end, Ordering::Release);
    }
}

/// The current volume. Taking it costs no lock and no shared counter, so readers do not meet here.
pub struct Current(ArcSwap<Volume>);

impl Current {
    pub fn new(volume: Volume) -> Current {
        Current(ArcSwap::from_pointee(volume))
    }

    /// For something short.
    pub fn get(&self) -> Guard<Arc<Volume>> {
        self.0.load()
    }

    /// For something that may take long.
    pub fn get_owned(&self) -> Arc<Volume> {
        self.0.load_full()
    }

    /// From now on this one is current. Only the leader may do it.
    pub fn replace(&self, volume: Arc<Volume>) {
        self.0.store(volume);
    }
}
