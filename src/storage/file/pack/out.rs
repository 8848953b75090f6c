//! `Data.fs.pack`, written from front to back.
//!
//! It is synced in steps as it grows: commits sync their own file at the same time, and a disk that gets much to write
//! at once makes them wait until all of it is written. So a step is as long as the disk can write quickly.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::super::format::{DATA_HEADER_LEN, DataHeader};
use super::super::media::MediaFile;
use crate::base::clock::Stopwatch;
use crate::storage::{Result, StorageError};

/// Bytes of one write.
const BUF_LEN: usize = 1 << 20;
/// Target time of a sync. Up to three syncs can delay a commit: the current one, the next, and its own.
const SYNC_TIME: Duration = Duration::from_millis(10);
/// The limits of a step, in bytes.
const STEP_MIN: u64 = 1 << 20;
const STEP_MAX: u64 = 64 << 20;

/// The packed file while it is written.
pub struct Out {
    file: Arc<dyn MediaFile>,
    buf: Vec<u8>,
    /// Bytes written; the content of the buffer follows.
    flushed: u64,
    synced: u64,
    /// The sync that is running, and the position up to which it makes the file durable.
    syncing: Option<(JoinHandle<io::Result<Duration>>, u64)>,
    step: u64,
    doing: String,
}

impl Out {
    /// `doing`: for errors.
    pub fn new(file: Arc<dyn MediaFile>, doing: String) -> Out {
        Out {
            file,
            buf: Vec::with_capacity(BUF_LEN),
            flushed: 0,
            synced: 0,
            syncing: None,
            step: 4 * STEP_MIN,
            doing,
        }
    }

    pub fn end(&self) -> u64 {
        self.flushed + self.buf.len() as u64
    }

    /// The file and its end, all of it written.
    pub fn finished(&mut self) -> Result<(Arc<dyn MediaFile>, u64)> {
        self.flush()?;
        Ok((self.file.clone(), self.end()))
    }

    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        if self.buf.len() + bytes.len() > BUF_LEN {
            self.flush()?;
        }
        self.buf.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if self.buf.is_empty() {
            return Ok(());
        }
        self.file.write_at(&self.buf, self.flushed).map_err(self.io())?;
        self.flushed = self.end();
        self.buf.clear();
        let synced = self.syncing.as_ref().map_or(self.synced, |(_, to)| *to);
        if self.flushed - synced > self.step { self.begin_sync() } else { Ok(()) }
    }

    /// Waits for the previous sync, so that at most two steps are not durable.
    fn begin_sync(&mut self) -> Result<()> {
        self.end_sync()?;
        let file = self.file.clone();
        let thread = thread::Builder::new().name("pack-sync".into()).spawn(move || timed_sync(&*file));
        match thread {
            Ok(thread) => self.syncing = Some((thread, self.flushed)),
            Err(_) => {
                let took = timed_sync(&*self.file).map_err(self.io())?;
                self.synced = self.flushed;
                self.step = next_step(self.step, took);
            }
        }
        Ok(())
    }

    fn end_sync(&mut self) -> Result<()> {
        let Some((thread, to)) = self.syncing.take() else { return Ok(()) };
        let died = |_| Err(io::Error::other("the thread that syncs has panicked"));
        let took = thread.join().unwrap_or_else(died).map_err(self.io())?;
        self.synced = to;
        self.step = next_step(self.step, took);
        Ok(())
    }

    /// Makes all that was pushed durable.
    pub fn sync(&mut self) -> Result<()> {
        self.flush()?;
        self.end_sync()?;
        if self.synced < self.flushed {
            self.file.sync().map_err(self.io())?;
            self.synced = self.flushed;
        }
        Ok(())
    }

    /// Overwrites bytes that were pushed before.
    pub fn patch(&mut self, pos: u64, bytes: &[u8]) -> Result<()> {
        let at = pos.checked_sub(self.flushed).and_then(|at| usize::try_from(at).ok());
        if let Some(at) = at
            && let Some(there) = self.buf.get_mut(at..at + bytes.len())
        {
            there.copy_from_slice(bytes);
            return Ok(());
        }
        // The bytes may be partly in the file and partly in the buffer.
        self.flush()?;
        self.end_sync()?;
        self.synced = self.synced.min(pos);
        self.file.write_at(bytes, pos).map_err(self.io())
    }

    /// The header of the record at `pos`.
    pub fn record(&mut self, pos: u64) -> Result<DataHeader> {
        let mut bytes = [0; DATA_HEADER_LEN];
        self.flush()?;
        let len = self.file.read_at(&mut bytes, pos).map_err(self.io())?;
        if len < bytes.len() {
            return Err(self.io()(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(DataHeader::decode(&bytes))
    }

    fn io(&self) -> impl FnOnce(io::Error) -> StorageError + use<> {
        StorageError::io(self.doing.clone())
    }
}

fn timed_sync(file: &dyn MediaFile) -> io::Result<Duration> {
    let begun = Stopwatch::start();
    file.sync().map(|()| begun.passed())
}

/// The length of the next step, after the sync of a step of `step` bytes `took` this time.
fn next_step(step: u64, took: Duration) -> u64 {
    let next = if took > SYNC_TIME {
        step / 2
    } else if took < SYNC_TIME / 4 {
        step * 2
    } else {
        step
    };
    next.clamp(STEP_MIN, STEP_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_what_the_disk_can_write_in_a_moment() {
        let mut step = 4 * STEP_MIN;
        // 1 GB/s, and half a millisecond for the sync itself.
        let fast = |step: u64| Duration::from_nanos(step + 500_000);
        // 50 MB/s, and one rotation of the disk.
        let slow = |step: u64| Duration::from_nanos(20 * step) + Duration::from_millis(8);
        for _ in 0..20 {
            step = next_step(step, fast(step));
        }
        assert!(fast(step) <= SYNC_TIME && step >= 4 * STEP_MIN, "{step}");
        for _ in 0..20 {
            step = next_step(step, slow(step));
        }
        assert_eq!(step, STEP_MIN);
        for _ in 0..20 {
            step = next_step(step, Duration::ZERO);
        }
        assert_eq!(step, STEP_MAX);
    }
}
