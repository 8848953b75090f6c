//! Where transactions were found in a file: undoLog, the look-up before the locks, and the vote of an undo look for the
//! same ones, and a search for another one begins at the nearest.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::base::ids::Tid;
use crate::base::sync::{Mutex, rank};

/// How many transactions' places are remembered.
const PLACES_MAX: usize = 1 << 16;

/// Where transactions were found in a file: between undoLog, the locks and the vote they need not be searched again,
/// and the search for another one begins nearby.
#[derive(Default)]
pub struct Places(Mutex<BTreeMap<Tid, u64>, rank::UndoPlaces>);

impl Places {
    pub fn remember(&self, tid: Tid, pos: u64) {
        let mut places = self.0.lock();
        if places.len() >= PLACES_MAX && !places.contains_key(&tid) {
            places.clear();
        }
        places.insert(tid, pos);
    }

    pub fn get(&self, tid: Tid) -> Option<u64> {
        self.0.lock().get(&tid).copied()
    }

    /// The nearest known place of a later transaction.
    pub fn after(&self, tid: Tid) -> Option<u64> {
        let places = self.0.lock();
        places.range((Bound::Excluded(tid), Bound::Unbounded)).next().map(|(_, pos)| *pos)
    }
}
