//! Disk space for voted transactions: reserved at vote, so that a full disk is an error of the vote.
//!
//! The file's length does not change by this: the reserved space is behind its end and is given back at close. If the
//! file system cannot reserve, zeros are written there instead. Then the file is longer than its transactions, and
//! after a crash the zeros are cut off, also by Python.
//!
//! Invariant: zeros are only written behind the space of all voted transactions, so never where a transaction may be
//! written at the same time.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::media::MediaFile;
use crate::base::sync::{Mutex, MutexGuard, rank};
use crate::storage::{Result, StorageError};

/// Bytes that are reserved in advance, to do it rarely.
const AHEAD: u64 = 4 << 20;
/// Length of one write of zeros.
const CHUNK_LEN: usize = 256 << 10;

/// Disk space that is reserved behind the end of the file.
pub struct Space {
    state: Arc<Mutex<Reserved, rank::Space>>,
}

struct Reserved {
    room: Room,
    /// The file with which a pack is about to replace this one.
    next: Option<Room>,
    /// Bytes of transactions that have voted and are not written yet.
    outstanding: u64,
}

/// The reserved space in one file.
struct Room {
    file: Arc<dyn MediaFile>,
    /// Where the next transaction will be appended.
    end: u64,
    /// The end of the reserved space.
    until: u64,
    /// Bytes by which the voted transactions may still grow.
    growth: u64,
    /// Whether the file system can reserve.
    supported: bool,
}

/// The space of one transaction; given back when dropped.
pub struct Reservation {
    state: Arc<Mutex<Reserved, rank::Space>>,
    len: u64,
}

impl Space {
    pub fn new(file: Arc<dyn MediaFile>, end: u64) -> Space {
        let state = Reserved { room: Room::new(file, end, 0), next: None, outstanding: 0 };
        Space { state: Arc::new(Mutex::new(state)) }
    }

    /// Where a transaction would begin if it finished after all that have voted by now.
    pub fn likely_end(&self) -> u64 {
        let state = lock(&self.state);
        state.room.end + state.outstanding
    }

    /// Ensures that `len` more bytes can be written.
    pub fn reserve(&self, path: &Path, len: u64) -> Result<Reservation> {
        let mut state = lock(&self.state);
        let Reserved { room, next, outstanding } = &mut *state;
        let voted = room.end + *outstanding;
        let held = room.hold(*outstanding + len, voted).and_then(|()| match next {
            Some(next) => next.hold(*outstanding + len, next.end),
            None => Ok(()),
        });
        held.map_err(|error| StorageError::Io {
            doing: format!("{}: no room for {len} bytes", path.display()),
            error,
        })?;
        state.outstanding += len;
        Ok(Reservation { state: self.state.clone(), len })
    }

    /// Records that the file ends at `end` now. The reserved space behind it stays.
    pub fn appended(&self, end: u64) {
        lock(&self.state).room.end = end;
    }

    /// Records that the file was cut off at `end`, which gave back all reserved space.
    pub fn cut(&self, end: u64) {
        let mut state = lock(&self.state);
        state.room.end = end;
        state.room.until = end;
    }

    /// Another file, which ends at `end`, is about to replace the current one. Reserves space there for all
    /// transactions that have voted or vote until then. They may grow by `growth` bytes.
    pub fn prepare_move(&self, file: Arc<dyn MediaFile>, end: u64, growth: u64) -> io::Result<()> {
        let mut state = lock(&self.state);
        let mut next = Room::new(file, end, growth);
        next.hold(state.outstanding, end)?;
        state.next = Some(next);
        Ok(())
    }

    /// Ends the move: the other file has replaced the current one, or not.
    pub fn end_move(&self, has_moved: bool) {
        let mut state = lock(&self.state);
        if let Some(next) = state.next.take()
            && has_moved
        {
            state.room = next;
        }
    }
}

impl Room {
    fn new(file: Arc<dyn MediaFile>, end: u64, growth: u64) -> Room {
        Room { file, end, until: end, growth, supported: true }
    }

    /// Reserves `len` bytes for transactions. The part before `idle_from` may be written at the same time.
    fn hold(&mut self, len: u64, idle_from: u64) -> io::Result<()> {
        let need = self.end + len + self.growth;
        if need > self.until {
            self.until = self.make_room(idle_from, need)?;
        }
        Ok(())
    }

    /// Makes everything from `until` up to `to` writable, or more; returns up to where. The part before `idle_from` may
    /// be written at the same time.
    fn make_room(&mut self, idle_from: u64, to: u64) -> io::Result<u64> {
        if self.supported {
            let from = self.until.max(self.end);
            // There may be just enough space without `AHEAD`.
            let ahead = self.file.reserve(from, to + AHEAD - from).map(|done| (done, to + AHEAD));
            let exact = || self.file.reserve(from, to - from).map(|done| (done, to));
            match ahead.or_else(|_| exact())? {
                (true, until) => return Ok(until),
                (false, _) => self.supported = false,
            }
        }
        // Not more than needed: it would be missing elsewhere.
        let zeros = vec![0; CHUNK_LEN];
        let mut pos = self.until.max(idle_from);
        while pos < to {
            let part = zeros.len().min(usize::try_from(to - pos).unwrap_or(usize::MAX));
            self.file.write_at(zeros.get(..part).unwrap_or_default(), pos)?;
            pos += part as u64;
        }
        Ok(to)
    }
}

impl Reservation {
    /// The transaction has grown and is about to be written.
    pub fn grow_to(&mut self, len: u64) {
        let more = len.saturating_sub(self.len);
        lock(&self.state).outstanding += more;
        self.len += more;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        lock(&self.state).outstanding -= self.len;
    }
}

// These numbers are changed together, so a panic elsewhere cannot leave them inconsistent.
fn lock(state: &Mutex<Reserved, rank::Space>) -> MutexGuard<'_, Reserved> {
    state.lock()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::super::media::Identity;
    use super::*;

    /// A file on a disk that cannot reserve, and is full at some length.
    struct Small {
        full_at: u64,
        len: AtomicU64,
    }

    impl MediaFile for Small {
        fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
            Ok(0)
        }

        fn write_at(&self, buf: &[u8], pos: u64) -> io::Result<()> {
            let end = pos + buf.len() as u64;
            if end > self.full_at {
                return Err(io::ErrorKind::StorageFull.into());
            }
            assert!(buf.iter().all(|&byte| byte == 0));
            self.len.fetch_max(end, Ordering::Relaxed);
            Ok(())
        }

        fn len(&self) -> io::Result<u64> {
            Ok(self.len.load(Ordering::Relaxed))
        }

        fn set_len(&self, _: u64) -> io::Result<()> {
            Ok(())
        }

        fn sync(&self) -> io::Result<()> {
            Ok(())
        }

        fn reserve(&self, _: u64, _: u64) -> io::Result<bool> {
            Ok(false)
        }

        fn identity(&self) -> io::Result<Identity> {
            Ok(Identity::default())
        }
    }

    fn small(full_at: u64) -> Arc<Small> {
        Arc::new(Small { full_at, len: AtomicU64::new(0) })
    }

    #[test]
    fn where_nothing_can_be_reserved_zeros_are_written() {
        let file = small(1 << 20);
        let space = Space::new(file.clone(), 1000);
        let path = Path::new("Data.fs");
        let first = space.reserve(path, 400_000).unwrap();
        assert_eq!(file.len().unwrap(), 401_000);
        let second = space.reserve(path, 600_000).unwrap();
        assert!(space.reserve(path, 100_000).is_err(), "the disk is full");
        drop(second);
        // The space that the other gave back is there already.
        let third = space.reserve(path, 500_000).unwrap();
        assert_eq!(file.len().unwrap(), 1_001_000);
        drop((first, third));
    }

    #[test]
    fn where_a_pack_has_made_another_file_there_is_room_for_all_that_has_voted() {
        let space = Space::new(small(1 << 20), 1000);
        let voted = space.reserve(Path::new("Data.fs"), 300_000).unwrap();
        let packed = small(1 << 20);
        space.prepare_move(packed.clone(), 500, 1000).unwrap();
        assert_eq!(packed.len().unwrap(), 301_500);
        // A vote before the move needs room in both files.
        let later = space.reserve(Path::new("Data.fs"), 100_000).unwrap();
        assert_eq!(packed.len().unwrap(), 401_500);
        assert!(space.prepare_move(small(400_000), 500, 0).is_err(), "then the pack fails, not the finish");
        space.end_move(true);
        space.appended(300_500);
        let last = space.reserve(Path::new("Data.fs"), 1).unwrap();
        drop((voted, later, last));
    }
}
