//! The client's cache: a file that keeps revisions of objects over restarts, in the format of ZEO's own client
//! (`ZEC3`), so that a site can change between the two with a warm cache. `docs/client-cache.md` has the format, the
//! order of writes, and what a crash leaves.
//!
//! `format` has the bytes, `index` the index in memory, `hot` data in memory, `ring` loads and changes of the open
//! file, `walk` and `open` what happens when it is opened, `lock` the lock file, `options` how it is opened, `trace`
//! the record of what happens, `stats` the counts, `estimate` those of other sizes, `report` the line of the log. What
//! is beside the file against power cuts: `sums` has the bytes, `beside` writes and reads them, `journal` collects
//! them, `saved` has the order of the steps, `trust` says what follows, `recover` does it. What may be stored at which
//! time, and the last tid, are the business of the owner.
//!
//! Invariants: a load is right or a miss. An error of the file is no error of the caller: the cache is then empty and
//! off, which is logged once.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used))]

mod beside;
mod estimate;
mod format;
mod hot;
mod index;
pub mod inspect;
mod journal;
mod lock;
mod open;
mod options;
mod recover;
pub mod report;
mod ring;
mod saved;
mod span;
mod stats;
mod sums;
pub mod trace;
mod trust;
mod walk;

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use self::estimate::Estimator;
pub use self::estimate::SizeEstimate;
pub use self::format::BLOCK_HEADER_LEN;
use self::format::HEADER_LEN;
use self::hot::Hot;
use self::journal::{Journal, NoteKeeper};
use self::lock::{CacheLock, NotLocked};
use self::open::OpenFile;
use self::ring::{CurrentRevision, Invalidated, LoadedRevision, ReadError, Ring};
use self::saved::Saved;
use self::sums::IDENTITY_LEN_MAX;
use self::trace::Trace;
use self::walk::Unusable;
use crate::base::ids::{Oid, Tid};
use crate::base::sync::{AtomicU64, Mutex, Ordering, RwLock, rank};
use crate::storage::media::Media;

pub use self::options::{CacheError, CacheOptions};
pub use self::stats::CacheStats;

const LOG: &str = "ZEO.cache";
/// Greatest size: the index has positions of 48 bits.
const SIZE_MAX: u64 = 1 << 48;
/// Objects that are listed at once.
const LISTED_AT_ONCE: usize = 1000;

/// A revision that was found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cached {
    /// The transaction that wrote it.
    pub start: Tid,
    /// The transaction that wrote the next one; `None`: it is current, as far as the cache knows.
    pub end: Option<Tid>,
    /// Where its data is in the buffer of the caller.
    pub data: Range<usize>,
}

/// A revision that was found, as data that is shared.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SharedRevision {
    /// The transaction that wrote it.
    pub start: Tid,
    /// The transaction that wrote the next one; `None`: it is current, as far as the cache knows.
    pub end: Option<Tid>,
    /// The record.
    pub data: Arc<[u8]>,
}

#[derive(Default)]
struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    stores: AtomicU64,
    stored_bytes: AtomicU64,
}

/// An open cache. Loads of several threads go on at the same time.
pub struct Cache {
    /// For messages.
    path: PathBuf,
    media: Arc<dyn Media>,
    ring: RwLock<Ring, rank::CacheRing>,
    /// Taken to write the header. `None` after [`Cache::close`].
    saved: Mutex<Option<Saved>, rank::CacheSaved>,
    /// Whether the file has a name, and so outlives the process.
    is_kept: bool,
    trace: Option<Trace>,
    counters: Counters,
    hot: Hot,
    estimator: Estimator,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Without [`Cache::close`]: the file is as after a kill, but no store is lost.
impl Drop for Cache {
    fn drop(&mut self) {
        let mut ring = self.ring.write();
        if self.is_kept && !ring.is_off() {
            // After an error it is as after a kill.
            let _ = ring.flush_at(self.media.now());
        }
    }
}

impl Cache {
    /// Opens the cache, or makes it. A damaged file is mended, or moved away.
    pub fn open(options: CacheOptions) -> Result<Cache, CacheError> {
        let CacheOptions { path, size, memory, media, trace, time } = options;
        let size = size.clamp(HEADER_LEN, SIZE_MAX);
        let named = path.clone().unwrap_or_else(|| PathBuf::from("<temporary>"));
        let io_error = |error| CacheError::Io { path: named.clone(), error };
        let (OpenFile { ring, beside, identity }, lock) = match &path {
            Some(path) => {
                let lock = CacheLock::acquire(path).map_err(|why| match why {
                    NotLocked::InUse(holder) => CacheError::InUse { path: path.clone(), holder },
                    NotLocked::Io(error) => io_error(error),
                })?;
                (open::open(&*media, path, size).map_err(io_error)?, Some(lock))
            }
            None => (open::temporary(size).map_err(io_error)?, None),
        };
        let trace = path.as_deref().filter(|_| trace).and_then(|path| Trace::open(path, time));
        let saved = Saved { last_tid: ring.last_in_header(), beside, identity, lock };
        Ok(Cache {
            path: named,
            media,
            ring: RwLock::new(ring),
            saved: Mutex::new(Some(saved)),
            is_kept: path.is_some(),
            trace,
            counters: Counters::default(),
            hot: Hot::new(memory),
            estimator: Estimator::new(size),
        })
    }

    /// The last transaction whose changes the cache knows. `None`: none yet; revisions that are there nevertheless
    /// cannot be verified.
    pub fn last_tid(&self) -> Option<Tid> {
        Some(self.ring.read().last_tid()).filter(|tid| *tid != Tid::ZERO)
    }

    /// All invalidations up to `tid` were made. In the file this is known after [`Cache::sync`] or [`Cache::close`].
    /// Zero is ignored. A tid before the last one is an error, unless the cache is empty.
    pub fn set_last_tid(&self, tid: Tid) -> Result<(), CacheError> {
        let mut ring = self.ring.write();
        let last = ring.last_tid();
        if tid == Tid::ZERO || tid == last {
            return Ok(());
        }
        if tid < last && ring.index().len() > 0 {
            return Err(CacheError::Backwards { new: tid, last });
        }
        if let Err(error) = ring.set_last_tid(tid, self.media.now()) {
            ring.turn_off();
            drop(ring);
            self.log_failure(&error);
        }
        Ok(())
    }

    /// The identity of the database whose objects are in the cache, as the owner has set it. `None`: unknown, because
    /// it was never set, or another program has used the file.
    pub fn identity(&self) -> Option<Vec<u8>> {
        let saved = self.saved.lock();
        saved.as_ref().map(|saved| saved.identity.clone()).filter(|identity| !identity.is_empty())
    }

    /// Sets the identity of the database, at most 1024 bytes; a longer one is cut. Durable on return. It is kept beside
    /// the file, and lost if ZEO's own client uses that.
    pub fn set_identity(&self, identity: &[u8]) {
        let identity = identity.get(..IDENTITY_LEN_MAX).unwrap_or(identity);
        let mut guard = self.saved.lock();
        let Some(saved) = guard.as_mut() else { return };
        saved.identity = identity.to_vec();
        let done = saved.beside.as_mut().map_or(Ok(()), |beside| beside.set_identity(identity));
        drop(guard);
        if let Err(error) = done {
            self.failed(&error);
        }
    }

    /// Appends the revision that was current just before `before` to `out`, behind what belongs to it in the file.
    /// [`Tid::MAX`]: the current one. `None`: it is not cached, and `out` is as before.
    pub fn load_before(&self, oid: Oid, before: Tid, out: &mut Vec<u8>) -> Option<Cached> {
        let found = self.look_up(oid, before, out);
        if found.is_none() {
            self.missed(oid, before);
        }
        found
    }

    /// A load that the cache has not answered, for the counters and the trace.
    pub fn missed(&self, oid: Oid, before: Tid) {
        self.counters.misses.fetch_add(1, Ordering::Relaxed);
        if self.trace.is_none() && !self.estimator.is_watched(oid) {
            return;
        }
        let is_former = self.current_start(oid).is_some();
        if !is_former {
            self.estimator.missed(oid);
        }
        if let Some(trace) = &self.trace {
            if is_former {
                trace.missed_former(oid, before)
            } else {
                trace.missed(oid, before)
            }
            trace.log_failure();
        }
    }

    /// As [`Cache::load_before`], for a caller that looks more than once for one load: it counts a hit, and leaves a
    /// miss to [`Cache::missed`].
    pub fn look_up(&self, oid: Oid, before: Tid, out: &mut Vec<u8>) -> Option<Cached> {
        let LoadedRevision { start, end, data, is_far } = self.find(oid, before, out)?;
        let bytes = out.get(data.clone()).unwrap_or_default();
        self.hit(oid, start, end, bytes, is_far);
        Some(Cached { start, end, data })
    }

    /// As [`Cache::look_up`]. Of current revisions that were loaded so lately the data is in memory.
    pub fn look_up_shared(&self, oid: Oid, before: Tid) -> Option<SharedRevision> {
        let current = self.ring.read().current_before(oid, before);
        let hot = current.and_then(|entry| Some((entry, self.hot.get(oid, entry.start)?)));
        if let Some((CurrentRevision { start, is_far }, data)) = hot {
            self.hit(oid, start, None, &data, is_far);
            return Some(SharedRevision { start, end: None, data });
        }
        let mut out = Vec::new();
        let Cached { start, end, data } = self.look_up(oid, before, &mut out)?;
        let data = out.get(data).unwrap_or_default().into();
        if end.is_none() {
            self.hot.put(oid, start, &data);
        }
        Some(SharedRevision { start, end, data })
    }

    /// Counts a hit, and keeps the revision if it is in danger.
    fn hit(&self, oid: Oid, start: Tid, end: Option<Tid>, data: &[u8], is_far: bool) {
        self.counters.hits.fetch_add(1, Ordering::Relaxed);
        if end.is_none() {
            self.estimator.hit(oid, data.len());
        }
        if let Some(trace) = &self.trace {
            match end {
                None => trace.hit(oid, start, data.len()),
                Some(_) => trace.hit_former(oid, start),
            }
            trace.log_failure();
        }
        if is_far {
            self.change(|ring| ring.rearrange(oid, start, data));
        }
    }

    fn find(&self, oid: Oid, before: Tid, out: &mut Vec<u8>) -> Option<LoadedRevision> {
        let at_once = self.ring.read().load_before(oid, before, true, out);
        let cold = match at_once {
            Ok(found) => return found,
            Err(ReadError::Cold(pos, len)) => (pos, len),
            Err(ReadError::Io(error)) => {
                self.failed(&error);
                return None;
            }
        };
        // Read once without the lock, so that nothing waits for the disk but this load. It is read again with the lock,
        // because the block may have been replaced.
        let file = self.ring.read().file().clone();
        let mut block = vec![0; usize::try_from(cold.1).unwrap_or(0)];
        let warmed = file.read_at(&mut block, cold.0).map_err(ReadError::Io);
        let again = warmed.and_then(|_| self.ring.read().load_before(oid, before, false, out));
        match again {
            Ok(found) => found,
            Err(ReadError::Cold(..)) => None,
            Err(ReadError::Io(error)) => {
                self.failed(&error);
                None
            }
        }
    }

    /// The transaction that wrote the current revision, if that is cached. Reads nothing from the file.
    pub fn current_start(&self, oid: Oid) -> Option<Tid> {
        self.ring.read().index().current(oid).map(|entry| entry.start)
    }

    /// Stores a revision that is current until the transaction `end`; `None`: still.
    ///
    /// Not stored is what is there already, what is too long for the file, and what a newer revision contradicts. A
    /// current revision that starts before this one is dropped: which transaction ended it is unknown.
    pub fn store(&self, oid: Oid, start: Tid, end: Option<Tid>, data: &[u8]) {
        let stored = self.change(|ring| ring.store(oid, start, end.unwrap_or(Tid::ZERO), data));
        if stored != Some(true) {
            return;
        }
        self.counters.stores.fetch_add(1, Ordering::Relaxed);
        self.counters.stored_bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        if end.is_none() {
            self.estimator.stored(oid, data.len());
        }
        if let Some(trace) = &self.trace {
            match end {
                None => trace.stored(oid, start, data.len()),
                Some(end) => trace.stored_former(oid, start, end, data.len()),
            }
            trace.log_failure();
        }
    }

    /// Transaction `tid` has changed the object: what was current until then becomes a former revision. A current
    /// revision that `tid` or a later transaction wrote stays. `None`: an unknown transaction has changed it; the
    /// current revision is dropped.
    pub fn invalidate(&self, oid: Oid, tid: Option<Tid>) {
        let done = self.change(|ring| ring.invalidate(oid, tid));
        if done != Some(Invalidated::Kept) {
            self.estimator.invalidated(oid);
        }
        let (Some(trace), Some(done)) = (&self.trace, done) else { return };
        match (done, tid) {
            (Invalidated::Ended, Some(tid)) => trace.invalidated(oid, tid),
            (Invalidated::Dropped, _) | (Invalidated::Ended, None) => trace.dropped(oid),
            (Invalidated::Nothing | Invalidated::Kept, tid) => {
                trace.invalidated_nothing(oid, tid.unwrap_or(Tid::ZERO));
            }
        }
        trace.log_failure();
    }

    /// Removes all revisions. The last tid stays. A cache that an error had ended is used again.
    pub fn clear(&self) {
        self.hot.clear();
        self.estimator.cleared();
        let mut ring = self.ring.write();
        if ring.is_closed() {
            return;
        }
        let size = ring.size();
        ring.restart_journal();
        let emptied =
            ring.before_change(self.media.now()).and_then(|()| open::empty_file(&**ring.file(), size));
        let failure = match emptied {
            Ok(contents) => {
                ring.replace(size, contents);
                None
            }
            Err(error) => {
                ring.turn_off();
                Some(error)
            }
        };
        drop(ring);
        if let Some(error) = failure {
            self.log_failure(&error);
        }
    }

    /// Gives the file another size, in bytes. Revisions behind a new end are dropped. To make it smaller takes as long
    /// as to open a file of the new size that was not closed; loads wait for it.
    pub fn resize(&self, size: u64) {
        let size = size.clamp(HEADER_LEN, SIZE_MAX);
        self.estimator.restart(size, self.loads_and_hits().0);
        self.change(|ring| {
            if size == ring.size() {
                return Ok(());
            }
            ring.flush()?;
            ring.mark_changed();
            if size > ring.size() {
                open::add_free(&**ring.file(), ring.size(), size)?;
                ring.grow(size);
                return Ok(());
            }
            let contents = open::refit(&**ring.file(), size).map_err(|why| match why {
                Unusable::Io(error) => error,
                Unusable::Damage(what) => io::Error::new(io::ErrorKind::InvalidData, what),
            })?;
            ring.replace(size, contents);
            Ok(())
        });
    }

    /// All revisions: oid, start and end, ascending by oid. Each object as it was at some moment of the call.
    pub fn contents(&self) -> Vec<(Oid, Tid, Option<Tid>)> {
        let mut listed: Vec<(Oid, Tid, Option<Tid>)> = Vec::new();
        loop {
            let after = listed.last().map(|(oid, ..)| *oid);
            let ring = self.ring.read();
            let part = ring.index().objects_after(after, LISTED_AT_ONCE);
            if part.is_empty() {
                return listed;
            }
            for entry in part {
                let end = if entry.place.is_current() { Ok(None) } else { ring.end_of(&entry).map(Some) };
                match end {
                    Ok(end) => listed.push((entry.oid, entry.start, end)),
                    Err(error) => {
                        drop(ring);
                        self.failed(&error);
                        return Vec::new();
                    }
                }
            }
        }
    }

    /// The current revisions: oid and start, ascending by oid. Each object as it was at some moment of the call.
    pub fn current_contents(&self) -> Vec<(Oid, Tid)> {
        let mut listed = Vec::new();
        let mut after = None;
        loop {
            let part = self.ring.read().index().objects_after(after, LISTED_AT_ONCE);
            let Some(last) = part.last() else { return listed };
            after = Some(last.oid);
            let current = part.iter().filter(|entry| entry.place.is_current());
            listed.extend(current.map(|entry| (entry.oid, entry.start)));
        }
    }

    /// Number of revisions, with former ones.
    pub fn count(&self) -> usize {
        self.ring.read().index().len()
    }

    fn loads_and_hits(&self) -> (u64, u64) {
        let hits = self.counters.hits.load(Ordering::Relaxed);
        (hits + self.counters.misses.load(Ordering::Relaxed), hits)
    }

    /// What was done since the cache was opened.
    pub fn stats(&self) -> CacheStats {
        let ring = self.ring.read();
        let (loads, hits) = self.loads_and_hits();
        CacheStats {
            loads,
            hits,
            stores: self.counters.stores.load(Ordering::Relaxed),
            stored_bytes: self.counters.stored_bytes.load(Ordering::Relaxed),
            evictions: ring.evictions(),
            revisions: ring.index().len() as u64,
            used: ring.used(),
            size: ring.size(),
            estimates: self.estimator.estimates(loads),
        }
    }

    /// Makes what was stored durable, and then the last tid. To be called every few seconds. Waits for the disk; loads
    /// and stores go on.
    pub fn sync(&self) {
        if let Err(error) = self.save(false) {
            self.failed(&error);
        }
        if let Some(trace) = &self.trace {
            trace.flush();
            trace.log_failure();
        }
    }

    /// As [`Cache::sync`], and releases the file. After this, loads find nothing and stores do nothing.
    pub fn close(&self) {
        if let Err(error) = self.save(true) {
            self.log_failure(&error);
        }
        if let Some(trace) = &self.trace {
            trace.flush();
            trace.log_failure();
        }
    }

    /// The order makes the last tid in the header true on the disk, whatever moment the power is cut at: what belongs
    /// to it, then the log beside the file with the announcement of the new header, then the header.
    fn save(&self, close: bool) -> io::Result<()> {
        let mut guard = self.saved.lock();
        let Some(saved) = guard.as_mut() else { return Ok(()) };
        let mut ring = self.ring.write();
        let (file, last_tid) = (ring.file().clone(), ring.last_tid());
        let is_needed = self.is_kept && !ring.is_off();
        let flushed = if is_needed { ring.flush_at(self.media.now()) } else { Ok(()) };
        let journal = if is_needed { ring.take_journal() } else { Journal::default() };
        if !close {
            drop(ring);
            flushed?;
            if !is_needed || !saved.is_behind(&journal, last_tid) {
                return Ok(());
            }
            let is_new = saved.announce(&*self.media, &*file, &journal, last_tid)?;
            {
                let mut ring = self.ring.write();
                if let Some(beside) = saved.beside.as_ref().filter(|_| is_new) {
                    ring.keep_note(NoteKeeper::new(beside.file().clone()));
                }
                ring.before_change(self.media.now())?;
            }
            return saved.write_header(&*file, last_tid);
        }
        let done = match flushed {
            Ok(()) if is_needed => self.save_all(saved, &mut ring, &journal),
            flushed => flushed,
        };
        if done.is_err() {
            ring.turn_off();
        }
        ring.close();
        drop(ring);
        drop(saved.lock.take());
        *guard = None;
        done
    }

    /// The last changes before the file is closed.
    fn save_all(&self, saved: &mut Saved, ring: &mut Ring, journal: &Journal) -> io::Result<()> {
        let (file, last_tid) = (ring.file().clone(), ring.last_tid());
        if saved.is_behind(journal, last_tid) {
            saved.announce(&*self.media, &*file, journal, last_tid)?;
            ring.before_change(self.media.now())?;
            saved.write_header(&*file, last_tid)?;
        }
        file.sync()?;
        saved.close(ring)
    }

    /// Changes the file. `None`: the cache is off, or now is.
    fn change<T>(&self, change: impl FnOnce(&mut Ring) -> io::Result<T>) -> Option<T> {
        let mut ring = self.ring.write();
        if ring.is_off() {
            return None;
        }
        let changed = ring.before_change(self.media.now()).and_then(|()| change(&mut ring));
        match changed {
            Ok(done) => Some(done),
            Err(error) => {
                ring.turn_off();
                drop(ring);
                self.log_failure(&error);
                None
            }
        }
    }

    /// Turns the cache off after an error.
    fn failed(&self, error: &io::Error) {
        let mut ring = self.ring.write();
        if ring.is_off() {
            return;
        }
        ring.turn_off();
        drop(ring);
        self.log_failure(error);
    }

    fn log_failure(&self, error: &io::Error) {
        log::error!(
            target: LOG,
            "cache file '{}': {error}. It is emptied and not used until the next start, and all loads go to the \
             server. Check the disk and its free space",
            self.path.display()
        );
    }
}
