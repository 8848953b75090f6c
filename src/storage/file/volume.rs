//! The file that is current and the index of it: a pack replaces both at once.
//!
//! Whoever reads takes the volume once and keeps to it: positions mean nothing in another one. A volume that was
//! replaced stays readable as long as somebody holds it, and nothing is appended to it any more.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::{ArcSwap, ArcSwapOption, Guard};

use super::index::Index;
use super::log::Log;
use super::places::Places;
use crate::base::ids::{Oid, Tid};
use crate::base::sync::{Mutex, MutexGuard, rank};
use crate::storage::{Result, StorageError};

/// One file and the index of it.
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

/// A volume for iterators, whose clients may forget them: it is taken from them when it has been replaced too often,
/// because the disk space of the file is not free before.
pub struct Lent(ArcSwapOption<Volume>);

impl Lent {
    pub fn get(&self) -> Result<Arc<Volume>> {
        self.0.load_full().ok_or_else(|| StorageError::Refused {
            class: ("ZODB.POSException", "StorageError"),
            message: format!(
                "the iterator was ended: more than {RETIRED_MAX} packs have replaced the file since it was begun"
            ),
        })
    }
}

/// A file whose iterators have been ended. It is closed when this is dropped, which may take long.
pub struct Ended(Arc<Volume>);

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.0.log.path().display();
        write!(
            f,
            "{path}: iterators that were begun before the last {} packs are ended: the disk space of the file that they read would \
             not be free before",
            RETIRED_MAX + 1
        )
    }
}

/// Iterators over so many replaced files go on.
const RETIRED_MAX: usize = 2;

/// The current volume. Taking it costs no lock and no shared counter, so readers do not meet here.
pub struct Current {
    volume: ArcSwap<Volume>,
    lent: Mutex<Loans, rank::Lent>,
}

struct Loans {
    /// Of the current volume.
    current: Arc<Lent>,
    /// Of those before, oldest first.
    retired: VecDeque<Weak<Lent>>,
}

impl Current {
    pub fn new(volume: Volume) -> Current {
        let volume = Arc::new(volume);
        let current = Arc::new(Lent(ArcSwapOption::new(Some(Arc::clone(&volume)))));
        let lent = Mutex::new(Loans { current, retired: VecDeque::new() });
        Current { volume: ArcSwap::new(volume), lent }
    }

    /// For an iterator.
    pub fn lend(&self) -> Arc<Lent> {
        Arc::clone(&self.loans().current)
    }

    fn loans(&self) -> MutexGuard<'_, Loans> {
        self.lent.lock()
    }

    /// For something short.
    pub fn get(&self) -> Guard<Arc<Volume>> {
        self.volume.load()
    }

    /// For something that may take long.
    pub fn get_owned(&self) -> Arc<Volume> {
        self.volume.load_full()
    }

    /// From now on this one is current. Only the leader may do it.
    #[must_use]
    pub fn replace(&self, volume: Arc<Volume>) -> Option<Ended> {
        let mut loans = self.loans();
        self.volume.store(Arc::clone(&volume));
        let lent = Arc::new(Lent(ArcSwapOption::new(Some(volume))));
        let replaced = std::mem::replace(&mut loans.current, lent);
        loans.retired.push_back(Arc::downgrade(&replaced));
        if loans.retired.len() > RETIRED_MAX
            && let Some(lent) = loans.retired.pop_front().and_then(|lent| lent.upgrade())
            && let Some(volume) = lent.0.swap(None)
        {
            return Some(Ended(volume));
        }
        None
    }
}
