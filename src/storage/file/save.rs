//! When the index is saved: at close, after a rebuild, and at intervals, so that a start after a crash has little to
//! scan.
//!
//! A saved index describes the file up to exactly one position, or the check at the start refuses it. Commits go on
//! while it is written: entries beyond the position are followed back to the revision that was current there.

use std::io;
use std::time::Duration;

use log::{debug, error};

use super::log::TARGET;
use super::volume::Volume;
use super::{Core, index_file};
use crate::base::clock::Stopwatch;
use crate::base::fs::with_suffix;
use crate::base::sync::MutexGuard;
use crate::storage::{Result, StorageError};

/// The index is saved after this many bytes of new transactions; fewer are scanned quickly.
const BYTES: u64 = 256 << 20;
/// Interval of the checks whether the index has to be saved and whether the file still is ours.
const TICK: Duration = Duration::from_secs(2);
/// After this time it is saved for fewer bytes too, if they are more than the index file has.
const INTERVAL: Duration = Duration::from_secs(600);

impl Core {
    /// Called by the leader after each group.
    pub fn after_commit(&self) {
        let mut state = self.saver.lock();
        if !state.wanted && self.volume.get().published_end().saturating_sub(state.saved_end) >= BYTES {
            state.wanted = true;
            self.saver.wake.notify_one();
        }
    }

    /// The main loop of the thread that saves the index.
    pub fn index_saver(&self) {
        let clock = &self.saver.clock;
        let mut state = self.saver.lock();
        let mut next_check = clock.now() + TICK;
        while !state.stopping {
            let volume = self.volume.get_owned();
            let new_len = volume.published_end().saturating_sub(state.saved_end);
            let is_time =
                clock.elapsed(state.saved_at) >= INTERVAL && new_len > 8 * volume.index.len() + (1 << 20);
            drop(volume);
            if state.wanted || is_time {
                drop(state);
                self.save_index();
                state = self.saver.lock();
            } else if clock.now() >= next_check {
                drop(state);
                self.watch_file();
                state = self.saver.lock();
                next_check = clock.now() + TICK;
            } else {
                state = clock.wait_until(&self.saver.wake, state, next_check);
            }
        }
    }

    /// Saves the index. A failure is logged; the next start then scans more.
    pub fn save_index(&self) {
        let saving = self.hold_saver();
        // The file of this name may be another one.
        if self.broken().is_some() {
            return;
        }
        // Stays current: a pack takes the saver before it replaces the volume.
        let volume = self.volume.get_owned();
        let _ = self.save_index_of(&saving, &volume, volume.published_end());
    }

    /// While this is held, no other thread saves the index.
    pub fn hold_saver(&self) -> MutexGuard<'_, ()> {
        self.saver.saving.lock()
    }

    /// Removes the saved index, durably, before the file becomes another one, which it might fit by accident.
    pub fn remove_index(&self) -> Result<()> {
        let path = with_suffix(&self.path, ".index");
        if !self.media.exists(&path) {
            return Ok(());
        }
        let removed = self.media.remove(&path).and_then(|()| self.dir.sync());
        removed.map_err(StorageError::io(format!("removing {}", path.display())))
    }

    /// Saves the index as it was when the file ended at `end`. A failure is logged, too.
    pub fn save_index_of(&self, _: &MutexGuard<'_, ()>, volume: &Volume, end: u64) -> Result<()> {
        // The index must not have what a crash can take away.
        self.sync_written(volume)?;
        let format = self.writer.lock().format;
        let path = &self.path;
        let (begun, stopwatch) = (self.saver.clock.now(), Stopwatch::start());
        let saved = index_file::save(&*self.media, path, format, end, self.oid_mark(), |each| {
            volume.index.for_each(|oid, mut pos| {
                while pos >= end {
                    pos = volume.log.read_record(pos, Some(oid)).map_err(io::Error::other)?.header.prev;
                }
                if pos == 0 { Ok(()) } else { each(oid, pos) }
            })
        });
        let mut state = self.saver.lock();
        // Also after a failure, so that it is not repeated at once.
        state.saved_end = end;
        state.saved_at = begun;
        state.wanted = false;
        drop(state);
        match &saved {
            Ok(()) => debug!(
                target: TARGET,
                "{}.index saved: {} objects in {:?}",
                path.display(),
                volume.index.len(),
                stopwatch.passed()
            ),
            Err(error) => error!(target: TARGET, "{}.index cannot be saved: {error}", path.display()),
        }
        saved.map_err(StorageError::io(format!("saving {}.index", path.display())))
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
            // There is no publisher, so a single finish is complete when it returns.
            storage.finish(storage.vote(txn, TidAt::Finish).unwrap(), Box::new(()));
            ends.push(storage.size());
        }
        let bytes = std::fs::read(&path).unwrap();
        for end in ends {
            let core = &storage.core;
            core.save_index_of(&core.hold_saver(), &core.volume.get(), end).unwrap();
            let saved = index_file::load(&*storage.core.media, &path).unwrap().unwrap();
            let scanned = super::super::index::Index::new();
            let from = ScanFrom {
                pos: MAGIC_LEN,
                tid: Tid::ZERO,
                stop: None,
                note: None,
                progress: &Default::default(),
            };
            scan_file(&bytes[..end as usize].to_vec(), &path, &scanned, &from).unwrap();
            assert_eq!((saved.pos, saved.index.len()), (end, scanned.len()));
            assert!(saved.objects().all(|(oid, pos)| scanned.pos(oid) == pos));
        }
    }
}
