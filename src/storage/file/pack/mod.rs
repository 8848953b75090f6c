//! Packing: replaces the file by a new one, without old revisions and garbage.
//!
//! A pack leaves out what Python's `fspack` leaves out, and copies the rest byte for byte as it does.
//!
//! 1. `reach`: builds an index of the reachable records. Reads the file up to its present end.
//! 2. `copy`: copies these records to `Data.fs.pack`; then all transactions after the pack time, and those that are
//!    committed during the pack, until almost nothing is left. The index goes from old positions to new ones step by
//!    step.
//! 3. `switch`: holds commits, copies the last bytes, syncs and renames the file, replaces index and file.
//!
//! A transaction that is committed after the first step can make objects reachable that the second step has left out,
//! for example by undoing a deletion. Its references are checked when it is copied; if they lead to such an object, the
//! pack begins again, and fails after a few attempts. Nothing is removed from `Data.fs` before the last step. What an
//! earlier pack kept (`Data.fs.old`) is removed after the first step, to make room.
//!
//! `plan` counts what a pack would do. `run` is what the steps share, `pace` slows them down, `guard` admits one pack
//! at a time.
//!
//! A pack that is cancelled, or whose storage is closed, ends with an error before the last step, as if the disk had
//! failed: `run.rs` has the check.
//!
//! All but the last step runs beside commits and reads without a lock. Memory: the new index (8 to 16 bytes an object;
//! it then replaces the old one), at most 8 bytes an object for positions yet to be visited, and a few bytes for each
//! back-pointer from after the pack time to before it.

mod copy;
mod guard;
pub mod leftovers;
pub(crate) mod out;
pub(crate) mod pace;
mod plan;
mod reach;
mod run;
mod sequential;
mod switch;

use std::sync::atomic::Ordering;

use log::{info, warn};

use self::copy::Copier;
pub use self::guard::Packing;
use self::pace::Pace;
use self::reach::Reach;
use self::run::{PackRun, REST_MAX, ROUNDS_MAX, Stop};
use super::FileStorage;
use super::log::TARGET;
use crate::base::clock::Stopwatch;
use crate::base::fs::{dir_of, with_suffix};
use crate::base::ids::Tid;
use crate::base::log_rate::LogRate;
use crate::storage::blob::Sweep;
use crate::storage::pack_time::{in_words, stop_of};
use crate::storage::{Pack, PackPlan, PackRequest, Refusal, Removals, Result, StorageError};

/// Limit on the packs that are logged. Clients may ask for one after the other, and most have nothing to do.
static LOGGED: LogRate = LogRate::new("packs", 60, 60);

/// Attempts of a pack whose left-out objects become reachable again.
const ATTEMPTS_MAX: usize = 4;
/// With more objects than this, a pack that removes more than nine of ten may be a mistake.
const MANY_OBJECTS: u64 = 1000;

impl Pack for FileStorage {
    fn pack(&self, request: &PackRequest<'_>) -> Result<()> {
        self.check_writable()?;
        let stop = stop_of(request.time)?;
        let core = &self.core;
        // As in Python: nothing to do, even while another pack runs.
        if core.volume.get().index.is_empty() {
            return Ok(());
        }
        let _packing = core.packing.begin()?;
        let gc = request.gc.unwrap_or(self.options.pack_gc);
        let mut pack = PackRun {
            storage: self,
            core,
            request,
            is_plan: false,
            is_logged: LOGGED.admits(None, ""),
            phase: "",
            pace: self.options.pack_max_rate.map(Pace::new),
            is_old_removed: false,
            begun: Stopwatch::start(),
            logged: Stopwatch::start(),
        };
        for _ in 0..ATTEMPTS_MAX {
            match pack.run(stop, gc) {
                Ok(()) => return Ok(()),
                Err(Stop::Failed(error)) => {
                    pack.warn_of_removed_old();
                    return Err(error);
                }
                Err(Stop::LeftOut { oid, tid }) => info!(
                    target: TARGET,
                    "{}: object 0x{oid} became reachable again through {}: the pack begins anew",
                    core.path.display(),
                    through(tid)
                ),
            }
        }
        pack.warn_of_removed_old();
        Err(StorageError::Refused {
            what: Refusal::Pack,
            message: format!(
                "packing: objects became reachable again {ATTEMPTS_MAX} times while they were left out. The \
                 database is unchanged. Pack again when fewer transactions are undone"
            ),
        })
    }

    fn plan(&self, request: &PackRequest<'_>) -> Result<PackPlan> {
        self.plan_pack(request)
    }
}

impl FileStorage {
    /// Removes what the last pack kept, to make room. False: there was nothing.
    fn remove_old(&self) -> Result<bool> {
        let old = with_suffix(&self.options.path, ".old");
        let exists = self.core.media.exists(&old);
        if exists {
            let doing = format!("removing {}", old.display());
            self.core.media.remove(&old).map_err(StorageError::io(doing))?;
        }
        Ok(exists)
    }
}

fn through(tid: Option<Tid>) -> String {
    tid.map_or("a transaction that has voted".into(), |tid| format!("transaction {tid}"))
}

impl PackRun<'_> {
    fn run(&mut self, stop: Tid, gc: bool) -> std::result::Result<(), Stop> {
        let (core, storage) = (self.core, self.storage);
        let path = core.path.display();
        let volume = core.volume.get_owned();
        let end = volume.published_end();
        // The file is read once for the index, once more (at most) for the references, and once to copy.
        self.request.progress.done.store(0, Ordering::Relaxed);
        self.request.progress.total.store(3 * end, Ordering::Relaxed);
        self.log_info(format_args!(
            "{path}: packing {} objects, {end} bytes to {}{}",
            volume.index.len(),
            in_words(stop),
            if gc { "" } else { ", without garbage collection" }
        ));
        let Some(reach) = Reach::find(self, &volume, end, stop, gc)? else {
            self.log_info(format_args!(
                "{path}: The database has already been packed to a later time or no changes have been made since the \
                 last pack"
            ));
            return Ok(());
        };
        let keep_old = self.check_removal(&reach)? || storage.options.pack_keep_old;
        self.check_room(&reach)?;
        self.check_wanted()?;
        self.is_old_removed |= storage.remove_old()?;
        // A transaction later than the last one is just being committed.
        let is_gone = |oid, tid| Ok(tid <= core.last_tid() && !storage.has_revision(oid, tid)?);
        let begin = |blobs| Sweep::begin(blobs, keep_old, &is_gone);
        let sweep = core.blobs.as_ref().map(begin).transpose()?;
        let removals = sweep.as_ref().map(|sweep| sweep as &dyn Removals).or(self.request.removals);

        let mut copier = Copier::begin(core, volume, reach)?;
        let copied = self.copy(&mut copier, removals).and_then(|any| match any {
            true => switch::switch(self, &mut copier, keep_old).map(Some),
            false => Ok(None),
        });
        match copied {
            Ok(Some(switched)) => {
                self.request.progress.done.store(3 * end, Ordering::Relaxed);
                self.log_info(format_args!(
                    "{path}: packed from {} to {} bytes, {} objects, in {:.1?}; commits were held for {:.1?}",
                    switched.old_end,
                    switched.end,
                    switched.object_count,
                    self.begun.passed(),
                    switched.held
                ));
                removals.map_or(Ok(()), |removals| Ok(removals.packed()?))
            }
            Ok(None) => {
                copier.discard();
                self.log_info(format_args!("{path}: packing would free nothing, the file is unchanged"));
                Ok(())
            }
            Err(error) => {
                copier.discard();
                // Otherwise the next start finds out which of the two files it is.
                if let Some(sweep) = &sweep
                    && core.broken().is_none()
                {
                    sweep.give_up();
                }
                Err(error)
            }
        }
    }

    /// For a pack that fails: what it cannot put back.
    fn warn_of_removed_old(&self) {
        if self.is_old_removed {
            let path = self.core.path.display();
            warn!(target: TARGET, "{path}.old, which the last pack had kept, was removed before this pack failed");
        }
    }

    /// Copies all but the last bytes. `false`: the new file would be the same.
    fn copy(
        &mut self,
        copier: &mut Copier<'_>,
        removals: Option<&dyn Removals>,
    ) -> std::result::Result<bool, Stop> {
        copier.copy_to_pack_time(self, removals)?;
        if !copier.changes_anything() {
            return Ok(false);
        }
        removals.map_or(Ok(()), |removals| removals.complete())?;
        for _ in 0..ROUNDS_MAX {
            copier.copy_rest(self, true)?;
            // Transactions that were committed during the sync are copied next, so that little is left to sync in the
            // end.
            copier.sync()?;
            if copier.rest_len() <= REST_MAX {
                break;
            }
        }
        Ok(true)
    }

    /// Refuses a pack whose file cannot fit: it would fill the disk, and commits would fail until it gives up.
    fn check_room(&self, reach: &Reach) -> Result<()> {
        match self.room() {
            Ok(free) if reach.len_min <= free => Ok(()),
            Ok(free) => Err(self.no_room(reach, free)),
            // The disk says when it is full.
            Err(error) => {
                warn!(target: TARGET, "{}: the free space is not known: {error}", self.core.path.display());
                Ok(())
            }
        }
    }

    /// Bytes that are free for the packed file, with those that the last pack kept.
    fn room(&self) -> Result<u64> {
        let media = &self.core.media;
        let old = with_suffix(&self.storage.options.path, ".old");
        let removed = media.identity(&old).map_or(0, |old| old.len);
        let free = media.free_space(dir_of(&self.core.path));
        Ok(free.map_err(StorageError::io("asking for the free space"))?.saturating_add(removed))
    }

    fn no_room(&self, reach: &Reach, free: u64) -> StorageError {
        let path = self.core.path.display();
        StorageError::Refused {
            what: Refusal::Pack,
            message: format!(
                "{path}: the packed file needs {} bytes or more beside the present one, and {free} are free. The database is \
                 unchanged. Make room, and pack again",
                reach.len_min
            ),
        }
    }

    /// The last check before anything is removed. True: the number of removed objects is so large that the old file is
    /// kept in any case.
    fn check_removal(&self, reach: &Reach) -> Result<bool> {
        let Some(removal) = LargeRemoval::of(reach) else { return Ok(false) };
        if self.storage.options.pack_refuse_large_removals {
            return Err(self.too_much(&removal));
        }
        let (path, LargeRemoval { removed, before }) = (self.core.path.display(), removal);
        warn!(
            target: TARGET,
            "{path}: the pack removes {removed} of {before} objects, for nothing refers to them. The previous file is \
             kept as {path}.old until the next pack: if these objects are missed, stop the server and put it back"
        );
        Ok(true)
    }

    fn too_much(&self, removal: &LargeRemoval) -> StorageError {
        let (path, LargeRemoval { removed, before }) = (self.core.path.display(), removal);
        StorageError::Refused {
            what: Refusal::PackRemoval,
            message: format!(
                "{path}: the pack would remove {removed} of {before} objects, which pack-refuse-large-removals \
                 forbids. The database is unchanged"
            ),
        }
    }
}

/// A number of removed objects that may be a mistake.
struct LargeRemoval {
    removed: u64,
    before: u64,
}

impl LargeRemoval {
    /// `None`: it is not that large.
    fn of(reach: &Reach) -> Option<LargeRemoval> {
        let (before, kept) = (reach.object_count, reach.index.len());
        let removed = before.saturating_sub(kept);
        let is_large = before > MANY_OBJECTS && removed.saturating_mul(10) > before.saturating_mul(9);
        is_large.then_some(LargeRemoval { removed, before })
    }
}
