//! When the index is saved: at close, after a rebuild, and every so often in between, so that a start after a crash has
//! little to scan.
//!
//! A saved index must be exactly that of some position, or its reader will find it insane. Commits go on while it is
//! written: entries that are newer than the position are followed back to the revision that was current there.

use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use log::{debug, error};

use super::log::TARGET;
use super::volume::Volume;
use super::{Core, index_file};

/// So many bytes of new transactions are scanned in a moment; no need to save sooner.
const BYTES: u64 = 256 << 20;
/// So often somebody looks whether there is something to save, and whether the file still is ours.
const TICK: Duration = Duration::from_secs(2);
/// After this time also if there are fewer, but more than the index itself costs to write.
const INTERVAL: Duration = Duration::from_secs(600);

/// When the index was saved, and when it is next.
pub struct Saver {
    /// The saved index was good when the storage was opened.
    pub used_index: bool,
    state: Mutex<State>,
    wake: Condvar,
    /// Held while saving.
    saving: Mutex<()>,
}

struct State {
    /// Up to where the index is saved.
    saved_end: u64,
    saved_at: Instant,
    wanted: bool,
    stopping: bool,
}

impl Saver {
    pub fn new(saved_end: u64, used_index: bool) -> Saver {
        let state = State { saved_end, saved_at: Instant::now(), wanted: false, stopping: false };
        Saver { used_index, state: Mutex::new(state), wake: Condvar::new(), saving: Mutex::default() }
    }

    pub fn stop(&self) {
        self.lock().stopping = true;
        self.wake.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    /// Called by the leader after each group.
    pub fn after_commit(&self) {
        let mut state = self.saver.lock();
        if !state.wanted && self.volume.get().published_end().saturating_sub(state.saved_end) >= BYTES {
            state.wanted = true;
            self.saver.wake.notify_one();
        }
    }

    /// The life of the thread that saves the index.
    pub fn index_saver(&self) {
        let mut state = self.saver.lock();
        while !state.stopping {
            let volume = self.volume.get_owned();
            let new_len = volume.published_end().saturating_sub(state.saved_end);
            let is_time =
                state.saved_at.elapsed() >= INTERVAL && new_len > 8 * volume.index.len() + (1 << 20);
            drop(volume);
            if state.wanted || is_time {
                drop(state);
                self.save_index();
                state = self.saver.lock();
            } else {
                let wait = self.saver.wake.wait_timeout(state, TICK);
                drop(wait.unwrap_or_else(PoisonError::into_inner));
                self.watch_file();
                state = self.saver.lock();
            }
        }
    }

    /// Saves the index; a failure is logged and costs nothing but a scan at the next start.
    pub fn save_index(&self) {
        let saving = self.hold_saver();
        // The file that has the name may be another one.
        if self.broken().is_some() {
            return;
        }
        // Current for as long as nobody else saves.
        let volume = self.volume.get_owned();
        self.save_index_of(&saving, &volume, volume.published_end());
    }

    /// While this is held nobody saves the index.
    pub fn hold_saver(&self) -> MutexGuard<'_, ()> {
        self.saver.saving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Saves the index as it was when the file ended at `end`.
    pub fn save_index_of(&self, _: &MutexGuard<'_, ()>, volume: &Volume, end: u64) {
        let format = self.writer.lock().unwrap_or_else(PoisonError::into_inner).format;
        let path = &self.path;
        let begun = Instant::now();
        let saved = index_file::save(&*self.media, path, format, end, self.oid_mark(), |each| {
            volume.index.for_each(|oid, mut pos| {
                while pos >= end {
                    pos = volume.log.read_record(pos, Some(oid)).map_err(io::Error::other)?.header.prev;
                }
                if pos == 0 { Ok(()) } else { each(oid, pos) }
            })
        });
        let mut state = self.saver.lock();
        // After a failure too: not again at once.
        state.saved_end = end;
        state.saved_at = begun;
        state.wanted = false;
        drop(state);
        match saved {
            Ok(()) => debug!(
                target: TARGET,
                "{}.index saved: {} objects in {:?}",
                path.display(),
                volume.index.len(),
                begun.elapsed()
            ),
            Err(error) => error!(target: TARGET, "{}.index cannot be saved: {error}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::MAGIC_LEN;
    use super::super::recover::{ScanFrom, scan_file};
    use super::super::{FileStorage, FileStorageOptions};
    use super::*;
    use crate::base::ids::{Oid, Tid};
    use crate::storage::prelude::*;
    use crate::storage::{Staged, TidAt, TransactionMeta};

    #[test]
    fn a_saved_index_is_that_of_its_position_though_commits_went_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("Data.fs");
        let storage = FileStorage::open(FileStorageOptions::new(&path)).unwrap();
        let mut ends = Vec::new();
        for n in 0..30u64 {
            let mut txn = Staged::new(TransactionMeta::default(), None, b' ', 1000);
            for oid in [n % 7, n] {
                txn.store(Oid(oid), storage.get_tid(Oid(oid)).unwrap_or(Tid::ZERO), &[1; 50]).unwrap();
            }
            // Nobody publishes: a lone finish is through when it returns.
            storage.finish(storage.vote(txn, TidAt::Finish).unwrap(), Box::new(()));
            ends.push(storage.size());
        }
        let bytes = std::fs::read(&path).unwrap();
        for end in ends {
            let core = &storage.core;
            core.save_index_of(&core.hold_saver(), &core.volume.get(), end);
            let saved = index_file::load(&*storage.core.media, &path).unwrap().unwrap();
            let scanned = super::super::index::Index::new();
            let from = ScanFrom { pos: MAGIC_LEN, tid: Tid::ZERO, stop: None, note: None };
            scan_file(&bytes[..end as usize].to_vec(), &path, &scanned, &from).unwrap();
            assert_eq!((saved.pos, saved.index.len()), (end, scanned.len()));
            assert!(saved.objects().all(|(oid, pos)| scanned.pos(oid) == pos));
        }
    }
}
