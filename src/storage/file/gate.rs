//! Where a group of transactions waits for other servers, between its sync and its publication.
//!
//! Without a gate ([`Replicable::set_gate`](crate::storage::Replicable::set_gate)) nothing here costs a commit more
//! than one look at an empty slot.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::volume::Volume;
use crate::base::ids::Tid;
use crate::base::sync::{Mutex, rank};
use crate::storage::GroupGate;

/// The gate of a storage, and the group that is written and not published.
#[derive(Default)]
pub struct GateSlot {
    gate: OnceLock<Arc<dyn GroupGate>>,
    written: Mutex<Option<WrittenGroup>, rank::WrittenGroup>,
    /// Counts the groups that were taken back.
    taken_back: Arc<AtomicU64>,
}

/// A group that is in the file and not published.
#[derive(Clone)]
pub struct WrittenGroup {
    pub volume: Arc<Volume>,
    pub last: Tid,
    pub end: u64,
}

/// Whether a group was taken back since a moment.
pub struct TakeBacks {
    count: Arc<AtomicU64>,
    before: u64,
}

impl TakeBacks {
    /// To be asked after something was read: a group is cut off only after it counts as taken back.
    pub fn any(&self) -> bool {
        self.count.load(Ordering::SeqCst) != self.before
    }
}

impl GateSlot {
    /// Returns whether this is the first gate.
    pub fn set(&self, gate: Arc<dyn GroupGate>) -> bool {
        self.gate.set(gate).is_ok()
    }

    pub fn get(&self) -> Option<&dyn GroupGate> {
        self.gate.get().map(|gate| &**gate)
    }

    /// A group waits for other servers, not for the disk.
    pub fn is_waiting(&self) -> bool {
        self.get().is_some_and(|gate| gate.is_waiting())
    }

    /// For the leader: the group is in the file.
    pub fn written(&self, volume: &Arc<Volume>, last: Tid, end: u64, count: usize) {
        if let Some(gate) = self.get() {
            *self.written.lock() = Some(WrittenGroup { volume: Arc::clone(volume), last, end });
            gate.written(last, end, count);
        }
    }

    /// For the leader: the group is published.
    pub fn published(&self) {
        if self.get().is_some() {
            *self.written.lock() = None;
        }
    }

    /// For the leader, before it cuts off a group: no reader believes any more what it reads of it. False: the gate
    /// does not know of the group.
    #[must_use]
    pub fn begin_take_back(&self) -> bool {
        let was_written = self.get().is_some() && self.written.lock().take().is_some();
        if was_written {
            self.taken_back.fetch_add(1, Ordering::SeqCst);
        }
        was_written
    }

    /// The group that is written and not published.
    pub fn unpublished(&self) -> Option<WrittenGroup> {
        self.get().and_then(|_| self.written.lock().clone())
    }

    /// To be called before [`GateSlot::unpublished`].
    pub fn take_backs(&self) -> TakeBacks {
        TakeBacks { count: Arc::clone(&self.taken_back), before: self.taken_back.load(Ordering::SeqCst) }
    }
}
