//! What of an open cache is on the disk, and the steps that make more of it durable. Their order is in
//! `docs/client-cache.md`.

use std::io;

use super::beside::Beside;
use super::format::LAST_TID_AT;
use super::journal::Journal;
use super::lock::CacheLock;
use super::ring::Ring;
use crate::base::ids::Tid;
use crate::storage::media::{Media, MediaFile};

/// What is on the disk.
pub struct Saved {
    /// The last tid in the header of the file.
    pub last_tid: Tid,
    pub beside: Option<Beside>,
    /// Of the database; empty: unknown.
    pub identity: Vec<u8>,
    pub lock: Option<CacheLock>,
}

impl Saved {
    /// Whether there is something to make durable.
    pub fn is_behind(&self, journal: &Journal, last_tid: Tid) -> bool {
        journal.is_changed || last_tid != self.last_tid
    }

    /// Makes what was written durable, and what the last tid in the header will be. Returns whether there is a new file
    /// beside the cache file.
    pub fn announce(
        &mut self,
        media: &dyn Media,
        file: &dyn MediaFile,
        journal: &Journal,
        last_tid: Tid,
    ) -> io::Result<bool> {
        file.sync()?;
        match &mut self.beside {
            Some(beside) => beside.record(media, journal, [self.last_tid, last_tid]),
            None => Ok(false),
        }
    }

    pub fn write_header(&mut self, file: &dyn MediaFile, last_tid: Tid) -> io::Result<()> {
        if last_tid != self.last_tid {
            file.write_at(&last_tid.to_bytes(), LAST_TID_AT)?;
            self.last_tid = last_tid;
        }
        Ok(())
    }

    /// The file is durable.
    pub fn close(&mut self, ring: &Ring) -> io::Result<()> {
        let Some(beside) = &mut self.beside else { return Ok(()) };
        let changed = ring.file().identity()?.changed;
        beside.close(changed, self.last_tid, ring.index(), ring.pos(), ring.used())
    }
}
