//! The current file and its index. A pack replaces both in one step. A rewind replaces the volume too, by one over the
//! same file, which it then cuts off.
//!
//! A reader takes the volume once and keeps it to the end of its call: positions are valid only in their volume. A
//! replaced volume stays readable as long as a reader holds it; nothing is appended to it any more.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::{ArcSwap, ArcSwapOption, Guard};

use super::index::Index;
use super::log::Log;
use super::places::Places;
use crate::base::ids::{Oid, Tid};
use crate::base::sync::{Mutex, MutexGuard, rank};
use crate::storage::{Refusal, Result, StorageError};

/// One file and its index.
pub struct Volume {
    pub log: Log,
    /// The same file, for reads that do not wait for the disk.
    pub log_in_memory: Log,
    pub index: Index,
    pub places: Places,
    /// Where the last published transaction ends. Written by the leader only.
    published_end: AtomicU64,
    /// The tid of the last transaction in the file. A pack may have dropped later ones that were published.
    end_tid: AtomicU64,
    /// How often transactions were taken back before this volume. What was voted before the last time is void.
    pub rewinds: u64,
    /// Transactions of this volume are being cut off, or were.
    is_rewound: AtomicBool,
}

impl Volume {
    /// `end_tid`: the tid of the last transaction in the file.
    pub fn new(log: Log, index: Index, end_tid: Tid, rewinds: u64) -> Volume {
        let published_end = AtomicU64::new(log.end());
        let log_in_memory = log.without_waiting();
        Volume {
            log,
            log_in_memory,
            index,
            places: Places::default(),
            published_end,
            end_tid: AtomicU64::new(end_tid.0),
            rewinds,
            is_rewound: AtomicBool::new(false),
        }
    }

    pub fn end_tid(&self) -> Tid {
        Tid(self.end_tid.load(Ordering::Acquire))
    }

    /// Records that the file has become longer, durably.
    pub fn appended(&self, end: u64, tid: Tid) {
        self.log.set_end(end);
        self.end_tid.store(tid.0, Ordering::Release);
    }

    pub fn published_end(&self) -> u64 {
        self.published_end.load(Ordering::Acquire)
    }

    /// The position of the revision of `oid` that transaction `tid` made; 0 if there is none.
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

    /// Whether some of what this volume has is not in its file any more.
    pub fn is_rewound(&self) -> bool {
        self.is_rewound.load(Ordering::SeqCst)
    }

    pub fn set_published_end(&self, end: u64) {
        self.published_end.store(end, Ordering::Release);
    }
}

/// A volume for iterators, which clients may forget to end. It is taken away after too many packs, because the disk
/// space of a replaced file is not free while the file is open; and at once if its transactions are taken back.
pub struct Lent {
    volume: ArcSwapOption<Volume>,
    is_rewound: AtomicBool,
}

impl Lent {
    fn new(volume: Arc<Volume>) -> Arc<Lent> {
        Arc::new(Lent { volume: ArcSwapOption::new(Some(volume)), is_rewound: AtomicBool::new(false) })
    }

    pub fn get(&self) -> Result<Arc<Volume>> {
        self.volume.load_full().ok_or_else(|| StorageError::Refused {
            what: Refusal::IterationEnded,
            message: match self.is_rewound.load(Ordering::SeqCst) {
                true => "the iterator was ended: transactions were taken back since it was begun".into(),
                false => format!(
                    "the iterator was ended: more than {RETIRED_MAX} packs have replaced the file since it was begun"
                ),
            },
        })
    }
}

/// A replaced file whose iterators have been ended. Dropping it closes the file, which may take long.
pub struct Ended(Arc<Volume>);

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.0.log.path().display();
        write!(
            f,
            "{path}: iterators that were begun before the last {} packs are ended, so that the disk \
             space of the file that they read becomes free",
            RETIRED_MAX + 1
        )
    }
}

/// Iterators over this many replaced files go on.
const RETIRED_MAX: usize = 2;

/// The current volume. Taking it needs no lock and no shared counter, so readers do not slow each other down.
pub struct Current {
    volume: ArcSwap<Volume>,
    lent: Mutex<Loans, rank::Lent>,
}

struct Loans {
    /// Of the current volume.
    current: Arc<Lent>,
    /// Of the replaced volumes, oldest first.
    retired: VecDeque<Weak<Lent>>,
}

impl Current {
    pub fn new(volume: Volume) -> Current {
        let volume = Arc::new(volume);
        let current = Lent::new(Arc::clone(&volume));
        let lent = Mutex::new(Loans { current, retired: VecDeque::new() });
        Current { volume: ArcSwap::new(volume), lent }
    }

    /// For iterators.
    pub fn lend(&self) -> Arc<Lent> {
        Arc::clone(&self.loans().current)
    }

    fn loans(&self) -> MutexGuard<'_, Loans> {
        self.lent.lock()
    }

    /// For short uses.
    pub fn get(&self) -> Guard<Arc<Volume>> {
        self.volume.load()
    }

    /// For uses that may take long.
    pub fn get_owned(&self) -> Arc<Volume> {
        self.volume.load_full()
    }

    /// Makes this volume the current one. Only the leader may call it. Returns the volume whose iterators were ended by
    /// this.
    #[must_use]
    pub fn replace(&self, volume: Arc<Volume>) -> Option<Ended> {
        let mut loans = self.loans();
        self.volume.store(Arc::clone(&volume));
        let replaced = std::mem::replace(&mut loans.current, Lent::new(volume));
        loans.retired.push_back(Arc::downgrade(&replaced));
        if loans.retired.len() > RETIRED_MAX
            && let Some(lent) = loans.retired.pop_front().and_then(|lent| lent.upgrade())
            && let Some(volume) = lent.volume.swap(None)
        {
            return Some(Ended(volume));
        }
        None
    }

    /// Makes this volume, over a file that is about to be cut off, the current one. Ends the iterators of the one of
    /// before: what they read before this call is right, and they check after each read that it was. Only the leader
    /// may call it.
    pub fn rewind(&self, volume: Arc<Volume>) {
        let mut loans = self.loans();
        self.volume.load().is_rewound.store(true, Ordering::SeqCst);
        self.volume.store(Arc::clone(&volume));
        let rewound = std::mem::replace(&mut loans.current, Lent::new(volume));
        rewound.is_rewound.store(true, Ordering::SeqCst);
        rewound.volume.store(None);
    }
}
