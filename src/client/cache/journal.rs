//! What was written to the file since it was last made durable, for the log beside it, and the note of the last tid.

use std::io;
use std::sync::Arc;

use super::sums::{RECORD_LEN, SumRecord, TidNote};
use crate::base::ids::Tid;
use crate::storage::media::{MediaFile, Time};

/// Most records that wait. Blocks whose records are left out are dropped after a power cut.
const RECORDS_MAX: usize = 1 << 20;
/// A note counts for changes up to this long after it was written, in nanoseconds.
const NOTE_TIME: Time = 10_000_000_000;

/// Changes that are not durable yet.
#[derive(Debug, Default)]
pub struct Journal {
    /// Records for the log.
    pub records: Vec<u8>,
    /// The pointer went back to the start of the file, before the record at this offset.
    pub turn_at: Option<usize>,
    /// All revisions were removed before these records.
    pub is_restarted: bool,
    /// Whether anything was written to the file.
    pub is_changed: bool,
}

impl Journal {
    /// Adds a record.
    pub fn add(&mut self, record: SumRecord) {
        if self.records.len() < RECORDS_MAX * RECORD_LEN {
            self.records.extend_from_slice(&record.to_bytes());
        }
    }

    /// The pointer goes back to the start of the file.
    pub fn turn(&mut self) {
        self.turn_at = Some(self.records.len());
    }

    /// All revisions were removed.
    pub fn restart(&mut self) {
        *self = Journal { is_restarted: true, is_changed: true, ..Journal::default() };
    }
}

/// The note of the last tid beside the file.
pub struct NoteKeeper {
    file: Arc<dyn MediaFile>,
    until: Time,
}

impl NoteKeeper {
    /// `file`: the one that has the note. Nothing is written yet.
    pub fn new(file: Arc<dyn MediaFile>) -> NoteKeeper {
        NoteKeeper { file, until: 0 }
    }

    /// To be called before the cache file is changed at the time `now`.
    pub fn before_change(&mut self, last_tid: Tid, now: Time) -> io::Result<()> {
        if now.saturating_add(NOTE_TIME / 2) < self.until {
            return Ok(());
        }
        self.set(last_tid, now)
    }

    /// Notes the last tid.
    pub fn set(&mut self, last_tid: Tid, now: Time) -> io::Result<()> {
        let until = self.until.max(now.saturating_add(NOTE_TIME));
        self.file.write_at(&TidNote { last_tid, until }.to_bytes(), 0)?;
        self.until = until;
        Ok(())
    }
}
