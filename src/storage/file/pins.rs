//! Former revisions that voted transactions point back to: undos, and restored records with a hint.
//!
//! Between vote and finish such a transaction is not in the file. A pack therefore cannot see that the data which it
//! restores, and all that this data refers to, becomes reachable again. So a vote registers here before it looks at the
//! file, and the positions that it points to stay here until the transaction has ended. A pack follows these references
//! too, and replaces the file only while no such vote is running.

use std::sync::Arc;
use std::time::Duration;

use super::volume::Volume;
use crate::base::ids::Oid;
use crate::base::sync::{Condvar, Mutex, MutexGuard, rank};
use crate::storage::Result;

/// The pins of one storage.
#[derive(Default)]
pub struct Pins(Arc<PinList>);

#[derive(Default)]
struct PinList {
    list: Mutex<Vec<PinnedVote>, rank::Pins>,
    /// Notified when a vote has ended.
    voted: Condvar,
}

struct PinnedVote {
    id: u64,
    /// `None` during the vote.
    pinned: Option<Pinned>,
}

#[derive(Clone)]
struct Pinned {
    volume: Arc<Volume>,
    /// Objects and the positions in `volume` that their records point back to.
    backs: Arc<[(Oid, u64)]>,
}

/// The pin of one transaction; dropping it removes the pin.
pub struct Pin {
    shared: Arc<PinList>,
    id: u64,
}

/// While this exists, no vote that points back begins or ends.
pub struct HeldPins<'a>(MutexGuard<'a, Vec<PinnedVote>>);

impl Pins {
    /// Called by a vote that may point back, before it takes the volume.
    pub fn begin(&self) -> Pin {
        let mut list = self.0.lock();
        let id = list.iter().map(|entry| entry.id).max().map_or(0, |id| id + 1);
        list.push(PinnedVote { id, pinned: None });
        Pin { shared: Arc::clone(&self.0), id }
    }

    pub fn hold(&self) -> HeldPins<'_> {
        HeldPins(self.0.lock())
    }

    /// Waits until the running votes have ended, at most for `timeout`.
    pub fn wait_for_votes(&self, timeout: Duration) {
        let list = self.0.lock();
        let is_voting = |list: &mut Vec<PinnedVote>| list.iter().any(|entry| entry.pinned.is_none());
        let waited = self.0.voted.wait_timeout_while(list, timeout, is_voting);
        drop(waited);
    }

    /// Calls `each` for all voted transactions, with a volume, an object, and the position in the volume whose data the
    /// object will have. The list is not locked during the calls.
    pub fn for_each(&self, each: impl FnMut(&Volume, Oid, u64) -> Result<()>) -> Result<()> {
        let pinned: Vec<Pinned> = self.0.lock().iter().filter_map(|entry| entry.pinned.clone()).collect();
        visit(pinned.iter(), each)
    }
}

impl HeldPins<'_> {
    pub fn any_votes(&self) -> bool {
        self.0.iter().any(|entry| entry.pinned.is_none())
    }

    /// As [`Pins::for_each`], with the list locked.
    pub fn for_each(&self, each: impl FnMut(&Volume, Oid, u64) -> Result<()>) -> Result<()> {
        visit(self.0.iter().filter_map(|entry| entry.pinned.as_ref()), each)
    }
}

impl Pin {
    /// The vote was successful: its records point to these positions in `volume`.
    pub fn voted(&self, volume: &Arc<Volume>, backs: Vec<(Oid, u64)>) {
        let mut list = self.shared.lock();
        if let Some(entry) = list.iter_mut().find(|entry| entry.id == self.id) {
            entry.pinned = Some(Pinned { volume: Arc::clone(volume), backs: backs.into() });
        }
        self.shared.voted.notify_all();
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.shared.lock().retain(|entry| entry.id != self.id);
        self.shared.voted.notify_all();
    }
}

impl PinList {
    fn lock(&self) -> MutexGuard<'_, Vec<PinnedVote>> {
        self.list.lock()
    }
}

fn visit<'a>(
    pinned: impl Iterator<Item = &'a Pinned>,
    mut each: impl FnMut(&Volume, Oid, u64) -> Result<()>,
) -> Result<()> {
    for Pinned { volume, backs } in pinned {
        // Its transaction cannot be finished any more, and other records may be at its positions.
        if volume.is_rewound() {
            continue;
        }
        for &(oid, back) in backs.iter() {
            each(volume, oid, back)?;
        }
    }
    Ok(())
}
