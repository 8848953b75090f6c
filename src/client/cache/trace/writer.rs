//! The writer of a trace: one method for each event of a cache.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::base::clock::TimeSource;
use crate::base::ids::{Oid, Tid};
use crate::base::sync::{Mutex, rank};

use super::record::{RECORD_LEN_MAX, TraceCode, TraceRecord};

const LOG: &str = "ZEO.cache";
/// Bytes that are collected before they are written.
const BUFFER_LEN: usize = 64 << 10;
/// Seconds of use after which they are written in any case.
const FLUSH_INTERVAL: u32 = 5;

/// The trace that a cache writes, `<cache file>.trace`. It is appended to.
///
/// Threads may call it at any time. Records reach the file when 64 kB are collected, at the first event 5 s after the
/// last write, and when the trace is dropped. If the file cannot be written, the trace ends there and the cache goes
/// on; [`Trace::log_failure`] says so in the log.
#[derive(Debug)]
pub struct Trace {
    path: PathBuf,
    time: TimeSource,
    state: Mutex<TraceState, rank::CacheTrace>,
}

#[derive(Debug)]
struct TraceState {
    /// `None` after an error.
    file: Option<File>,
    buffer: Vec<u8>,
    /// The time of the last write, in seconds since 1970.
    flushed_at: u32,
    /// The error that ended the trace, until it is logged.
    failure: Option<io::Error>,
}

impl Trace {
    /// Whether the environment asks for traces: `ZEO_CACHE_TRACE` is set and not empty.
    pub fn is_wanted() -> bool {
        std::env::var_os("ZEO_CACHE_TRACE").is_some_and(|value| !value.is_empty())
    }

    /// Opens the trace of a cache file and notes that the cache was opened. If the trace cannot be written, the log
    /// says so, and there is none.
    pub fn open(cache: &Path, time: TimeSource) -> Option<Trace> {
        let mut path = cache.as_os_str().to_owned();
        path.push(".trace");
        let path = PathBuf::from(path);
        match OpenOptions::new().append(true).create(true).open(&path) {
            Ok(file) => {
                log::info!(target: LOG, "opened tracefile '{}'", path.display());
                let state = TraceState { file: Some(file), buffer: Vec::new(), flushed_at: 0, failure: None };
                let trace = Trace { path, time, state: Mutex::new(state) };
                trace.put(TraceCode::OPENED, None, Tid::ZERO, Tid::ZERO, 0);
                Some(trace)
            }
            Err(error) => {
                log::warn!(target: LOG, "cannot write tracefile '{}' ({error})", path.display());
                None
            }
        }
    }

    /// A load found nothing current. `before`: the revision was wanted that was current before this tid;
    /// [`Tid::MAX`] for the newest one.
    pub fn missed(&self, oid: Oid, before: Tid) {
        self.put(TraceCode::MISS, Some(oid), Tid::ZERO, view_time(before), 0);
    }

    /// A load found a current revision, which is too new: it starts at `before` or later. No former revision fits
    /// either.
    pub fn missed_former(&self, oid: Oid, before: Tid) {
        self.put(TraceCode::FORMER_MISS, Some(oid), Tid::ZERO, view_time(before), 0);
    }

    /// A load returned the current revision. `len` is the length of its data.
    pub fn hit(&self, oid: Oid, start: Tid, len: usize) {
        self.put(TraceCode::HIT, Some(oid), start, Tid::ZERO, len);
    }

    /// A load returned the former revision that starts at `start`.
    pub fn hit_former(&self, oid: Oid, start: Tid) {
        self.put(TraceCode::FORMER_HIT, Some(oid), Tid::ZERO, start, 0);
    }

    /// A current revision was stored. The move of a revision that is in the cache already is no event.
    pub fn stored(&self, oid: Oid, start: Tid, len: usize) {
        self.put(TraceCode::STORED, Some(oid), start, Tid::ZERO, len);
    }

    /// A former revision was stored.
    pub fn stored_former(&self, oid: Oid, start: Tid, end: Tid, len: usize) {
        self.put(TraceCode::STORED_FORMER, Some(oid), start, end, len);
    }

    /// Transaction `tid` changed an object of which no current revision is cached.
    pub fn invalidated_nothing(&self, oid: Oid, tid: Tid) {
        self.put(TraceCode::INVALIDATED_NOTHING, Some(oid), tid, Tid::ZERO, 0);
    }

    /// Transaction `tid` changed an object: its current revision became a former one.
    pub fn invalidated(&self, oid: Oid, tid: Tid) {
        self.put(TraceCode::INVALIDATED, Some(oid), tid, Tid::ZERO, 0);
    }

    /// The current revision was dropped, because the transaction that changed the object is not known.
    pub fn dropped(&self, oid: Oid) {
        self.put(TraceCode::DROPPED, Some(oid), Tid::ZERO, Tid::ZERO, 0);
    }

    /// Writes what is collected.
    pub fn flush(&self) {
        self.state.lock().flush();
    }

    /// Logs the error that ended the trace, once. To be called where no lock is held that forbids a log line.
    pub fn log_failure(&self) {
        let failure = self.state.lock().failure.take();
        if let Some(error) = failure {
            log::warn!(target: LOG, "cannot write tracefile '{}' ({error}); it ends here", self.path.display());
        }
    }

    fn put(&self, code: TraceCode, oid: Option<Oid>, start: Tid, end: Tid, len: usize) {
        let since_1970 = self.time.system_time().duration_since(UNIX_EPOCH).unwrap_or_default();
        // Readers take a record of time 0 for damage.
        let time = u32::try_from(since_1970.as_secs()).unwrap_or(u32::MAX).max(1);
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        let record = TraceRecord { time, code, in_version: false, len, start, end, oid };
        let mut state = self.state.lock();
        if state.file.is_none() {
            return;
        }
        record.put(&mut state.buffer);
        let is_full = state.buffer.len() > BUFFER_LEN - RECORD_LEN_MAX;
        if state.flushed_at == 0 {
            state.flushed_at = time;
        }
        if is_full || state.flushed_at.abs_diff(time) >= FLUSH_INTERVAL {
            state.flushed_at = time;
            state.flush();
        }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.flush();
        self.log_failure();
    }
}

impl TraceState {
    fn flush(&mut self) {
        if let Some(file) = &mut self.file
            && let Err(error) = file.write_all(&self.buffer)
        {
            self.failure = Some(error);
            self.file = None;
        }
        self.buffer.clear();
    }
}

fn view_time(before: Tid) -> Tid {
    if before >= Tid::MAX { Tid::ZERO } else { before }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::super::{TraceItem, TraceReader};
    use super::*;

    fn codes(path: &Path) -> Vec<u8> {
        let mut reader = TraceReader::new(File::open(path).unwrap());
        let mut codes = Vec::new();
        while let Some(item) = reader.next_item().unwrap() {
            match item {
                TraceItem::Record(record) => codes.push(record.code.0),
                TraceItem::Damage { .. } => panic!("{item:?}"),
            }
        }
        codes
    }

    #[test]
    fn every_event_is_one_record() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("c.zec");
        let trace = Trace::open(&cache, TimeSource::SYSTEM).unwrap();
        let (oid, tid) = (Oid(1), Tid(9));
        trace.missed(oid, tid);
        trace.stored(oid, tid, 5);
        trace.hit(oid, tid, 5);
        trace.missed_former(oid, tid);
        trace.stored_former(oid, Tid(3), tid, 5);
        trace.hit_former(oid, Tid(3));
        trace.invalidated(oid, Tid(11));
        trace.invalidated_nothing(oid, Tid(12));
        trace.dropped(oid);
        let path = dir.path().join("c.zec.trace");
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
        drop(trace);
        let expected = [0, 0x20, 0x52, 0x22, 0x24, 0x54, 0x26, 0x1c, 0x10, 0x1e];
        assert_eq!(codes(&path), expected);
        // Appended.
        drop(Trace::open(&cache, TimeSource::SYSTEM).unwrap());
        assert_eq!(codes(&path), [&expected[..], &[0]].concat());
        assert!(Trace::open(&dir.path().join("no/c"), TimeSource::SYSTEM).is_none());
    }

    #[test]
    fn records_reach_the_file_within_seconds_of_use() {
        let dir = tempfile::tempdir().unwrap();
        let time = TimeSource::manual();
        let trace = Trace::open(&dir.path().join("c"), time.clone()).unwrap();
        let path = dir.path().join("c.trace");
        let len = || fs::metadata(&path).unwrap().len();
        trace.missed(Oid(1), Tid::MAX);
        assert_eq!(len(), 0);
        time.advance(Duration::from_secs(6));
        trace.missed(Oid(2), Tid::MAX);
        assert_eq!(len(), 26 + 2 * 34);
        for _ in 0..BUFFER_LEN / 34 {
            trace.missed(Oid(3), Tid::MAX);
        }
        assert!(len() > 60 << 10, "{}", len());
    }
}
