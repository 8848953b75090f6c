//! Where transactions were found in a file. undoLog, the look-up before the locks, and the vote of an undo need the
//! same transactions; a search for another one begins at the nearest known place.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::base::ids::Tid;
use crate::base::sync::{Mutex, rank};

/// Number of transactions whose places are kept.
const PLACES_MAX: usize = 1 << 16;

/// Places of transactions in a file.
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

    /// The place of the nearest known later transaction.
    pub fn after(&self, tid: Tid) -> Option<u64> {
        let places = self.0.lock();
        places.range((Bound::Excluded(tid), Bound::Unbounded)).next().map(|(_, pos)| *pos)
    }
}
