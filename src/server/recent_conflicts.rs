//! The last conflicts of a storage that were refused: they show which objects clients change at the same time.

use std::collections::VecDeque;
use std::time::SystemTime;

use crate::base::ids::{Oid, Tid};
use crate::base::sync::{Mutex, rank};
use crate::conflict::Conflict;
use crate::server::peer::Peer;
use crate::storage::class_name;

/// Conflicts that are kept.
const COUNT_MAX: usize = 100;

/// A conflict that was refused.
#[derive(Clone, Debug)]
pub struct RefusedConflict {
    pub at: SystemTime,
    pub oid: Oid,
    /// The class of the record that was to be stored, escaped; `None`: it had none, or there was no record.
    pub class: Option<String>,
    /// Number and label of the client.
    pub client: u64,
    pub label: String,
    /// The serial that was current, and the one that the client had read.
    pub committed: Tid,
    pub read: Tid,
}

/// The last conflicts.
#[derive(Debug, Default)]
pub struct RecentConflicts {
    newest_last: Mutex<VecDeque<RefusedConflict>, rank::RecentConflicts>,
}

impl RecentConflicts {
    /// Notes a conflict of a client.
    pub fn note(&self, at: SystemTime, conflict: &Conflict, peer: &Peer) {
        let Conflict { oid, committed, read, ref data } = *conflict;
        let class = class_name(data).map(|class| class.to_string());
        let refused =
            RefusedConflict { at, oid, class, client: peer.id, label: peer.label(), committed, read };
        let mut conflicts = self.newest_last.lock();
        if conflicts.len() >= COUNT_MAX {
            conflicts.pop_front();
        }
        conflicts.push_back(refused);
    }

    /// The last ones, the newest first.
    pub fn list(&self) -> Vec<RefusedConflict> {
        self.newest_last.lock().iter().rev().cloned().collect()
    }
}
