//! Packing: a new file without what nobody could see at the pack time or later takes the place of the old one.
//!
//! What is left out is what Python's `fspack` leaves out, and what is copied is byte for byte what it copies.
//!
//! 1. `reach`: which records are reachable, an index of them is built. Reads the file up to where it ends then.
//! 2. `copy`: these records to `Data.fs.pack`; then all transactions after the pack time, and those that came since,
//!    until next to nothing is left. The index goes from old positions to new ones as it goes.
//! 3. `switch`: commits are held, the last bytes copied, the file synced and renamed, index and file replaced.
//!
//! A transaction that is committed after the first step can make reachable what the second has left out: it undoes a
//! deletion, say. Its references are checked as it is copied, and if they lead to such an object the pack begins anew;
//! after a few times it fails. Nothing is removed before the last step, neither here nor of what an earlier pack left.
//!
//! All but the last step runs beside everything else without a lock. Memory: the new index (8 to 16 bytes an object,
//! which then replaces the old one), at most 8 bytes an object of positions yet to be visited, and what back-pointers
//! need: a few bytes for each that points from after the pack time to before it.

mod copy;
pub mod leftovers;
mod out;
mod reach;
mod sequential;
mod switch;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use log::{info, warn};

use self::copy::Copier;
use self::reach::Reach;
use super::log::TARGET;
use super::volume::Volume;
use super::{Core, FileStorage};
use crate::base::fs::with_suffix;
use crate::base::ids::{Oid, Tid};
use crate::base::log_rate::LogRate;
use crate::base::sync::{Condvar, Mutex, rank};
use crate::storage::blob::Sweep;
use crate::storage::{Pack, PackRequest, Removals, Result, StorageError};

/// Packs of which the log tells. Clients may ask for one after the other, and most have nothing to do.
static TOLD: LogRate = LogRate::new("packs", 60, 60);

/// A line in the log so often.
const LOG_INTERVAL: Duration = Duration::from_secs(30);
/// Commits are held when so little is left to be copied.
const REST_MAX: u64 = 256 * 1024;
/// Writers that are faster than the copying are held up after so many rounds all the same.
const ROUNDS_MAX: usize = 64;
/// How often a pack begins before it gives up, because what it left out became reachable again.
const ATTEMPTS_MAX: usize = 4;
/// A pack that removes more than nine of ten objects, and so many are there, is perhaps a mistake.
const MANY_OBJECTS: u64 = 1000;

impl Pack for FileStorage {
    fn pack(&self, request: &PackRequest<'_>) -> Result<()> {
        self.check_writable()?;
        let stop = stop_of(request.time)?;
        let core = &self.core;
        // Python's answer too: nothing to do, even while another pack goes on.
        if core.volume.get().index.is_empty() {
            return Ok(());
        }
        let _packing = core.packing.begin()?;
        let gc = request.gc.unwrap_or(self.options.pack_gc);
        let mut pack = PackRun {
            storage: self,
            core,
            request,
            is_told: TOLD.admits(None, ""),
            phase: "",
            begun: Instant::now(),
            logged: Instant::now(),
        };
        for _ in 0..ATTEMPTS_MAX {
            match pack.run(stop, gc) {
                Ok(()) => return Ok(()),
                Err(Stop::Failed(error)) => return Err(error),
                Err(Stop::LeftOut { oid, tid }) => info!(
                    target: TARGET,
                    "{}: object 0x{oid} became reachable again through {}: the pack begins anew",
                    core.path.display(),
                    through(tid)
                ),
            }
        }
        Err(StorageError::Refused {
            class: ("ZODB.POSException", "StorageError"),
            message: format!(
                "packing: objects became reachable again {ATTEMPTS_MAX} times while they were left out. Nothing was \
                 removed. Pack again when fewer transactions are undone"
            ),
        })
    }
}

impl FileStorage {
    /// What the last pack left makes room for this one.
    fn remove_old(&self) -> Result<()> {
        let old = with_suffix(&self.options.path, ".old");
        if self.core.media.exists(&old) {
            let doing = format!("removing {}", old.display());
            self.core.media.remove(&old).map_err(StorageError::io(doing))?;
        }
        Ok(())
    }
}

/// Why a pack does not go on.
enum Stop {
    Failed(StorageError),
    /// This transaction, or one that is not finished yet, refers to an object that is not kept.
    LeftOut {
        oid: Oid,
        tid: Option<Tid>,
    },
}

impl From<StorageError> for Stop {
    fn from(error: StorageError) -> Stop {
        Stop::Failed(error)
    }
}

fn through(tid: Option<Tid>) -> String {
    tid.map_or("a transaction that has voted".into(), |tid| format!("transaction {tid}"))
}

/// The pack time as a tid.
fn stop_of(time: f64) -> Result<Tid> {
    let refused = |class, message: &str| Err(StorageError::Refused { class, message: message.into() });
    // What a time stamp can be: 1900 to 9999 or so. Python's own limits are in its C library.
    let year_1900 = -2_208_988_800.0;
    if !(year_1900..253_402_300_800.0).contains(&time) {
        return refused(("builtins", "ValueError"), "the pack time is out of range");
    }
    match Tid::from_unix(time) {
        Tid::ZERO => refused(("ZODB.FileStorage.FileStorage", "FileStorageError"), "Invalid pack time"),
        stop => Ok(stop),
    }
}

fn in_words(tid: Tid) -> String {
    let at = tid.to_civil();
    let (date, second) = (format!("{}-{:02}-{:02}", at.year, at.month, at.day), at.second as u32);
    format!("{date} {:02}:{:02}:{second:02} UTC", at.hour, at.minute)
}

/// One pack under way: what its steps share.
struct PackRun<'a> {
    storage: &'a FileStorage,
    core: &'a Core,
    request: &'a PackRequest<'a>,
    /// The log has lines about it.
    is_told: bool,
    phase: &'static str,
    begun: Instant,
    logged: Instant,
}

impl PackRun<'_> {
    fn run(&mut self, stop: Tid, gc: bool) -> std::result::Result<(), Stop> {
        let (core, storage) = (self.core, self.storage);
        let path = core.path.display();
        let volume = core.volume.get_owned();
        let end = volume.published_end();
        // Read once to find what is there, once more (at most) for the references, and once to copy.
        self.request.progress.done.store(0, Ordering::Relaxed);
        self.request.progress.total.store(3 * end, Ordering::Relaxed);
        self.tell(format_args!(
            "{path}: packing {} objects, {end} bytes to {}{}",
            volume.index.len(),
            in_words(stop),
            if gc { "" } else { ", without garbage collection" }
        ));
        let Some(reach) = Reach::find(self, &volume, end, stop, gc)? else {
            self.tell(format_args!(
                "{path}: The database has already been packed to a later time or no changes have been made since the \
                 last pack"
            ));
            return Ok(());
        };
        let keep_old = self.check_removal(&reach)? || storage.options.pack_keep_old;
        storage.remove_old()?;
        // One that is being committed is later than the last.
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
                self.tell(format_args!(
                    "{path}: packed from {} to {} bytes, {} objects, in {:.1?}; commits were held for {:.1?}",
                    switched.old_end,
                    switched.end,
                    switched.object_count,
                    self.begun.elapsed(),
                    switched.held
                ));
                removals.map_or(Ok(()), |removals| Ok(removals.packed()?))
            }
            Ok(None) => {
                copier.discard();
                self.tell(format_args!("{path}: packing would free nothing, the file stays"));
                Ok(())
            }
            Err(error) => {
                copier.discard();
                Err(error)
            }
        }
    }

    fn tell(&self, message: std::fmt::Arguments<'_>) {
        if self.is_told {
            info!(target: TARGET, "{message}");
        }
    }

    /// All but the last bytes. `false`: the file would be the same.
    fn copy(
        &mut self,
        copier: &mut Copier<'_>,
        removals: Option<&dyn Removals>,
    ) -> std::result::Result<bool, Stop> {
        copier.copy_to_pack_time(self, removals)?;
        if !copier.changes_anything() {
            return Ok(false);
        }
        for _ in 0..ROUNDS_MAX {
            copier.copy_rest(self, true)?;
            // What was committed during the sync is copied next, so that little is left to sync in the end.
            copier.sync()?;
            if copier.rest_len() <= REST_MAX {
                break;
            }
        }
        Ok(true)
    }

    /// A last look before anything is removed. True: so much that the file of before is to be kept in any case.
    fn check_removal(&self, reach: &Reach) -> Result<bool> {
        let (before, kept) = (reach.object_count, reach.index.len());
        let removed = before.saturating_sub(kept);
        if before <= MANY_OBJECTS || removed.saturating_mul(10) <= before.saturating_mul(9) {
            return Ok(false);
        }
        let path = self.core.path.display();
        if self.storage.options.pack_refuse_large_removals {
            return Err(StorageError::Refused {
                class: ("ZODB.FileStorage.FileStorage", "FileStorageError"),
                message: format!(
                    "{path}: the pack would remove {removed} of {before} objects, which pack-refuse-large-removals \
                     forbids. Nothing was removed"
                ),
            });
        }
        warn!(
            target: TARGET,
            "{path}: the pack removes {removed} of {before} objects, for nothing refers to them. The file of before is \
             kept as {path}.old until the next pack: if these objects are missed, stop the server and put it back"
        );
        Ok(true)
    }

    /// The oids that the record of `oid` at `pos` refers to.
    fn references(&self, oid: Oid, pos: u64, data: &[u8], oids: &mut Vec<Oid>) -> Result<()> {
        (self.request.references)(data, oids).map_err(|why| StorageError::Refused {
            class: ("ZODB.POSException", "StorageError"),
            message: format!(
                "packing: the record of object 0x{oid} at {pos} cannot be searched for references: {why}. Nothing was removed"
            ),
        })
    }

    /// The same for what a record of `oid` that points to `back` stands for. `data` is for its use.
    fn restored_references(
        &self,
        volume: &Volume,
        oid: Oid,
        back: u64,
        data: &mut Vec<u8>,
        oids: &mut Vec<Oid>,
    ) -> Result<()> {
        let Some((pos, header)) = volume.log.follow(oid, back)? else { return Ok(()) };
        data.clear();
        volume.log.read_data(pos, &header, data)?;
        self.references(oid, pos, data, oids)
    }

    fn phase(&mut self, phase: &'static str) {
        self.phase = phase;
    }

    /// Called often. `done` is in bytes, three times the file in all. An error: the storage is being closed.
    fn at(&mut self, done: u64) -> Result<()> {
        if self.core.closed.load(Ordering::Acquire) {
            return Err(self.core.closed());
        }
        self.request.progress.done.store(done, Ordering::Relaxed);
        if self.logged.elapsed() >= LOG_INTERVAL {
            self.logged = Instant::now();
            let total = self.request.progress.total.load(Ordering::Relaxed).max(1);
            info!(
                target: TARGET,
                "{}: packing, {}: {} % done after {} s",
                self.core.path.display(),
                self.phase,
                done.saturating_mul(100) / total,
                self.begun.elapsed().as_secs()
            );
        }
        Ok(())
    }
}

/// Whether a pack is under way.
#[derive(Default)]
pub struct Packing {
    active: Mutex<bool, rank::PackActive>,
    ended: Condvar,
}

/// A pack is under way as long as this lives.
pub struct PackGuard<'a>(&'a Packing);

impl Packing {
    fn begin(&self) -> Result<PackGuard<'_>> {
        let mut active = self.active.lock();
        if *active {
            return Err(StorageError::Refused {
                class: ("ZODB.FileStorage.FileStorage", "FileStorageError"),
                message: "Already packing".into(),
            });
        }
        *active = true;
        Ok(PackGuard(self))
    }

    /// Waits for the pack to end, which it does soon once the storage is marked as closed.
    pub fn wait(&self) {
        let mut active = self.active.lock();
        while *active {
            active = self.ended.wait(active);
        }
    }
}

impl Drop for PackGuard<'_> {
    fn drop(&mut self) {
        *self.0.active.lock() = false;
        self.0.ended.notify_all();
    }
}
