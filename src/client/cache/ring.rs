//! The open file and its index: loads, stores and invalidations, without locks and without a log.
//!
//! The file is a ring: a store writes at the pointer and evicts the blocks that are in the way, oldest first. Behind
//! the newest block there is always a free one, so that the pointer can be found again when the file is opened.
//!
//! New blocks are gathered in memory and written together: see [`span`](super::span).
//!
//! Invariants: the blocks cover the file without gaps, whatever moment the process dies at. At most one current
//! revision of an object, and no former one that ends after the current one starts. After an error the ring is off:
//! its index is empty, and what the file has on the disk was true for the last tid in its header.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::format::{
    self, BLOCK_HEADER_LEN, BLOCK_LEN_MAX, BlockHeader, BlockMark, END_AT, FORMER_ID_END, HEADER_LEN,
    MARK_LEN, OVERHEAD, not_as_written,
};
use super::index::{Index, IndexEntry, Place};
use super::journal::{Journal, NoteKeeper};
use super::span::Blocks;
use super::sums::{self, SumRecord};
use crate::base::ids::{Oid, Tid};
use crate::storage::media::{MediaFile, Time};

/// A current revision that is loaded is written again at the pointer if it is further behind it than this share of the
/// file, so that revisions in use are not evicted.
const REARRANGE_SHARE: f64 = 0.8;
/// Space for a block that is being written is kept for the next one up to this length.
const SCRATCH_LEN_MAX: usize = 1 << 20;
/// Most bytes of new blocks that are gathered in memory.
const SPAN_LEN_MAX: u64 = 256 << 10;
/// At most this part of the file is covered while blocks are gathered: a kill loses it.
const SPAN_SHARE: u64 = 4;

/// The open file and its index.
pub struct Ring {
    blocks: Blocks,
    /// Length of the file.
    size: u64,
    /// The pointer: where the next block is written. The start of a block, or the end of the file.
    pos: u64,
    index: Index,
    /// Bytes of all revisions with their headers.
    used: u64,
    last_tid: Tid,
    /// The last tid in the header of the file when it was opened.
    last_in_header: Tid,
    evictions: u64,
    state: RingState,
    scratch: Vec<u8>,
    /// For what is beside the file.
    journal: Journal,
    /// `None`: there is nothing beside the file.
    note: Option<NoteKeeper>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum RingState {
    On,
    /// After an error, until the file is emptied.
    Off,
    Closed,
}

/// What the file had when it was opened.
pub struct Contents {
    pub index: Index,
    pub used: u64,
    /// The first free block, or where else the next one is to be written.
    pub pos: u64,
}

/// A revision that was loaded.
pub struct LoadedRevision {
    pub start: Tid,
    /// `None`: it is current.
    pub end: Option<Tid>,
    /// Where the data is in the caller's buffer.
    pub data: Range<usize>,
    /// It is in danger of eviction: [`Ring::rearrange`] saves it.
    pub is_far: bool,
}

/// The current revision of an object, without its data.
#[derive(Clone, Copy)]
pub struct CurrentRevision {
    pub start: Tid,
    /// It is in danger of eviction: [`Ring::rearrange`] saves it.
    pub is_far: bool,
}

/// Why nothing was read.
pub enum ReadError {
    /// The data is not in memory. What has to be read: position and length.
    Cold(u64, u64),
    /// The file cannot be read, or does not have what was written.
    Io(io::Error),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> ReadError {
        ReadError::Io(error)
    }
}

/// What became of an invalidation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Invalidated {
    /// No current revision is cached.
    Nothing,
    /// The current revision is as new as the invalidation.
    Kept,
    /// It became a former one.
    Ended,
    /// It is gone.
    Dropped,
}

impl Ring {
    pub fn new(file: Arc<dyn MediaFile>, size: u64, last_tid: Tid, contents: Contents) -> Ring {
        Ring {
            blocks: Blocks::new(file),
            size,
            pos: contents.pos,
            index: contents.index,
            used: contents.used,
            last_tid,
            last_in_header: last_tid,
            evictions: 0,
            state: RingState::On,
            scratch: Vec::new(),
            journal: Journal::default(),
            note: None,
        }
    }

    /// The file. It has all blocks after [`Ring::flush`].
    pub fn file(&self) -> &Arc<dyn MediaFile> {
        self.blocks.file()
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn index(&self) -> &Index {
        &self.index
    }

    pub fn used(&self) -> u64 {
        self.used
    }

    pub fn evictions(&self) -> u64 {
        self.evictions
    }

    pub fn last_tid(&self) -> Tid {
        self.last_tid
    }

    /// The last tid in the header of the file when it was opened.
    pub fn last_in_header(&self) -> Tid {
        self.last_in_header
    }

    /// What was noted beside the file is later than its header.
    pub fn restore_last_tid(&mut self, tid: Tid) {
        self.last_tid = tid;
    }

    /// All that belongs to this tid was written. `now`: the time.
    pub fn set_last_tid(&mut self, tid: Tid, now: Time) -> io::Result<()> {
        self.last_tid = tid;
        match &mut self.note {
            Some(note) if self.state == RingState::On => note.set(tid, now),
            _ => Ok(()),
        }
    }

    /// To be called before a change at the time `now`.
    pub fn before_change(&mut self, now: Time) -> io::Result<()> {
        match &mut self.note {
            Some(note) => note.before_change(self.last_tid, now),
            None => Ok(()),
        }
    }

    /// Where the next block is written.
    pub fn pos(&self) -> u64 {
        self.pos
    }

    /// From now on the last tid is noted beside the file.
    pub fn keep_note(&mut self, note: NoteKeeper) {
        self.note = Some(note);
    }

    /// What was changed since the last call.
    pub fn take_journal(&mut self) -> Journal {
        std::mem::take(&mut self.journal)
    }

    /// The file is being changed from outside.
    pub fn mark_changed(&mut self) {
        self.journal.is_changed = true;
    }

    /// All revisions are being removed.
    pub fn restart_journal(&mut self) {
        self.journal.restart();
    }

    /// Whether nothing is found and nothing stored: after an error, or because the file is closed.
    pub fn is_off(&self) -> bool {
        self.state != RingState::On
    }

    /// Whether the file is closed.
    pub fn is_closed(&self) -> bool {
        self.state == RingState::Closed
    }

    /// Ends the use of the file after an error, until [`Ring::replace`].
    pub fn turn_off(&mut self) {
        self.state = RingState::Off;
        self.blocks.forget();
        self.index.clear();
        self.used = 0;
        // The file's blocks are not wrong, and may not be writable: an error here changes nothing.
        let _ = self.file().set_len(HEADER_LEN);
    }

    /// Ends the use of the file, which keeps its contents.
    pub fn close(&mut self) {
        self.state = RingState::Closed;
        self.index.clear();
    }

    /// Takes other contents, after the file was changed.
    pub fn replace(&mut self, size: u64, contents: Contents) {
        self.blocks.forget();
        (self.size, self.pos) = (size, contents.pos);
        (self.index, self.used) = (contents.index, contents.used);
        self.state = RingState::On;
    }

    /// The file was made longer, with free blocks from the old end on. They are written next.
    pub fn grow(&mut self, size: u64) {
        self.pos = self.size;
        self.size = size;
    }

    // -- loads

    /// The current revision, if it starts before `before`. Reads nothing from the file.
    pub fn current_before(&self, oid: Oid, before: Tid) -> Option<CurrentRevision> {
        let entry = self.index.current(oid).filter(|entry| entry.start < before)?;
        let data_len = entry.place.len_max().saturating_sub(OVERHEAD);
        Some(CurrentRevision {
            start: entry.start,
            is_far: self.is_far(entry.place.pos(), data_len as usize),
        })
    }

    /// Appends the revision that was current just before `before`, with what is in front of it in the file. If `now`,
    /// the disk is not waited for.
    pub fn load_before(
        &self,
        oid: Oid,
        before: Tid,
        now: bool,
        out: &mut Vec<u8>,
    ) -> Result<Option<LoadedRevision>, ReadError> {
        // The current revision starts after all former ones have ended.
        if let Some(entry) = self.index.current(oid).filter(|entry| entry.start < before) {
            let mut loaded = self.read(&entry, now, out)?;
            loaded.is_far = self.is_far(entry.place.pos(), loaded.data.len());
            return Ok(Some(loaded));
        }
        let Some(entry) = self.index.former_before(oid, before) else { return Ok(None) };
        let len = out.len();
        let loaded = self.read(&entry, now, out)?;
        if loaded.end.is_some_and(|end| end < before) {
            out.truncate(len);
            return Ok(None);
        }
        Ok(Some(loaded))
    }

    /// Reads a block into `out`. The buffer is as before after an error.
    fn read(&self, entry: &IndexEntry, now: bool, out: &mut Vec<u8>) -> Result<LoadedRevision, ReadError> {
        let base = out.len();
        let (pos, len_max) = (entry.place.pos(), entry.place.len_max());
        out.resize(base + len_max as usize, 0);
        let read = self.read_at(out.get_mut(base..).unwrap_or_default(), pos, now);
        let checked = read.and_then(|len| {
            let block = out.get(base..base + len).unwrap_or_default();
            check(block, entry).ok_or_else(|| ReadError::Io(not_as_written(pos)))
        });
        match checked {
            Ok(header) => {
                let data = base + BLOCK_HEADER_LEN..base + BLOCK_HEADER_LEN + header.data_len as usize;
                out.truncate(data.end);
                let end = (header.end != Tid::ZERO).then_some(header.end);
                Ok(LoadedRevision { start: header.start, end, data, is_far: false })
            }
            Err(error) => {
                out.truncate(base);
                Err(error)
            }
        }
    }

    fn read_at(&self, buf: &mut [u8], pos: u64, now: bool) -> Result<usize, ReadError> {
        if !now {
            return Ok(self.blocks.read_at(buf, pos)?);
        }
        match self.blocks.read_at_now(buf, pos) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(ReadError::Cold(pos, buf.len() as u64))
            }
            read => Ok(read?),
        }
    }

    /// The end of a former revision.
    pub fn end_of(&self, entry: &IndexEntry) -> io::Result<Tid> {
        let mut bytes = [0; BLOCK_HEADER_LEN];
        let pos = entry.place.pos();
        let len = self.blocks.read_at(&mut bytes, pos)?;
        BlockHeader::parse(bytes.get(..len).unwrap_or_default())
            .filter(|header| header.oid == entry.oid && header.start == entry.start)
            .map(|header| header.end)
            .ok_or_else(|| not_as_written(pos))
    }

    fn is_far(&self, pos: u64, data_len: usize) -> bool {
        // As Python computes it: signed, and in floating point.
        let distance = match self.pos.checked_sub(pos) {
            Some(distance) => distance,
            None => (self.pos + self.size).saturating_sub(pos),
        };
        distance as f64 > REARRANGE_SHARE * self.size as f64 && self.size > 10 * data_len as u64
    }

    /// Writes a current revision that was loaded again at the pointer, unless that is not necessary any more.
    pub fn rearrange(&mut self, oid: Oid, start: Tid, data: &[u8]) -> io::Result<()> {
        let Some(entry) = self.index.current(oid).filter(|entry| entry.start == start) else { return Ok(()) };
        if !self.is_far(entry.place.pos(), data.len()) {
            return Ok(());
        }
        let len = OVERHEAD + data.len() as u64;
        self.free(&entry, len)?;
        self.put(oid, start, Tid::ZERO, data)
    }

    // -- changes

    /// Stores a revision; `end` is zero if it is current. Returns whether it was stored. It is not if it is there
    /// already, contradicts a newer one, or is too long.
    pub fn store(&mut self, oid: Oid, start: Tid, end: Tid, data: &[u8]) -> io::Result<bool> {
        let is_needed = match end {
            Tid::ZERO => self.make_way_for_current(oid, start)?,
            _ => self.make_way_for_former(oid, start, end)?,
        };
        let len = OVERHEAD + data.len() as u64;
        if !is_needed || len >= BLOCK_LEN_MAX.min(self.size.saturating_sub(HEADER_LEN)) {
            return Ok(false);
        }
        self.put(oid, start, end, data)?;
        Ok(true)
    }

    /// Whether a current revision that begins at `start` is to be stored.
    fn make_way_for_current(&mut self, oid: Oid, start: Tid) -> io::Result<bool> {
        if let Some(known) = self.index.current(oid) {
            if known.start >= start {
                return Ok(false);
            }
            // Which transaction ended it is unknown: the one that begins the new revision, or one before that.
            self.drop_current(&known)?;
        }
        match self.index.former_before(oid, Tid(u64::MAX)) {
            Some(last) => Ok(self.end_of(&last)? <= start),
            None => Ok(true),
        }
    }

    /// Whether a former revision is to be stored.
    fn make_way_for_former(&mut self, oid: Oid, start: Tid, end: Tid) -> io::Result<bool> {
        let for_python = oid.0 < FORMER_ID_END && start.0 < FORMER_ID_END;
        if start >= end || !for_python || self.index.former(oid, start).is_some() {
            return Ok(false);
        }
        match self.index.current(oid) {
            Some(known) if known.start == start => {
                self.end(&known, end)?;
                Ok(false)
            }
            Some(known) if known.start < start => {
                self.drop_current(&known)?;
                Ok(true)
            }
            Some(known) => Ok(known.start >= end),
            None => Ok(true),
        }
    }

    /// Transaction `tid` changed the object; `None`: an unknown one did.
    pub fn invalidate(&mut self, oid: Oid, tid: Option<Tid>) -> io::Result<Invalidated> {
        let Some(known) = self.index.current(oid) else { return Ok(Invalidated::Nothing) };
        match tid {
            Some(tid) if known.start >= tid => Ok(Invalidated::Kept),
            // Python could not read a former revision with such a number.
            Some(tid) if known.oid.0 < FORMER_ID_END && known.start.0 < FORMER_ID_END => {
                self.end(&known, tid)?;
                Ok(Invalidated::Ended)
            }
            _ => {
                self.drop_current(&known)?;
                Ok(Invalidated::Dropped)
            }
        }
    }

    /// The current revision becomes a former one.
    fn end(&mut self, current: &IndexEntry, end: Tid) -> io::Result<()> {
        let pos = current.place.pos();
        self.change(&end.to_bytes(), pos + END_AT)?;
        self.record(SumRecord::Ended { pos, end });
        self.index.remove(current);
        self.index.insert(IndexEntry { place: Place::new(pos, current.place.len_max(), false), ..*current });
        Ok(())
    }

    fn drop_current(&mut self, current: &IndexEntry) -> io::Result<()> {
        let mut mark = [0; MARK_LEN];
        let read = self.blocks.read_at(&mut mark, current.place.pos())?;
        match BlockMark::parse(mark.get(..read).unwrap_or_default()) {
            Some(BlockMark::Revision(len)) => self.free(current, len),
            _ => Err(not_as_written(current.place.pos())),
        }
    }

    fn free(&mut self, entry: &IndexEntry, len: u64) -> io::Result<()> {
        self.change(format::free_mark(len).as_slice(), entry.place.pos())?;
        self.index.remove(entry);
        self.used = self.used.saturating_sub(len);
        Ok(())
    }

    /// Puts a block at the pointer.
    fn put(&mut self, oid: Oid, start: Tid, end: Tid, data: &[u8]) -> io::Result<()> {
        let data_len = u32::try_from(data.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let len = OVERHEAD + u64::from(data_len);
        // One byte more, so that a free block follows.
        let needed = len + 1;
        if self.pos + needed > self.size {
            self.flush()?;
            self.pos = HEADER_LEN;
            self.journal.turn();
        }
        let span_len_max = SPAN_LEN_MAX.min(self.size / SPAN_SHARE);
        let is_gathered = needed <= span_len_max / 2;
        if !self.blocks.has_room(needed) || !is_gathered {
            self.flush()?;
        }
        if is_gathered && !self.blocks.has_gathered() {
            self.journal.is_changed = true;
            self.blocks.begin(self.pos, needed, span_len_max, self.size)?;
        }
        let free = self.make_room(needed)?;
        let pos = self.pos;
        let header = BlockHeader { len, oid, start, end, version_len: 0, data_len };
        let mut block = std::mem::take(&mut self.scratch);
        block.clear();
        header.append_block(data, &mut block);
        if self.note.is_some() {
            let sum = sums::block_sum(&block);
            self.record(SumRecord::Stored { pos, len: len as u32, sum });
            if end != Tid::ZERO {
                self.record(SumRecord::Ended { pos, end });
            }
        }
        self.journal.is_changed = true;
        if is_gathered {
            self.blocks.gather(&block, free)?;
        } else {
            self.write(&mut block, free)?;
        }
        if block.capacity() <= SCRATCH_LEN_MAX {
            self.scratch = block;
        }
        let place = Place::new(pos, len, end == Tid::ZERO);
        self.index.insert(IndexEntry { oid, start, place });
        self.used += len;
        self.pos = pos + len;
        Ok(())
    }

    /// Writes a block at the pointer, where there is room of `free` bytes. First all of it as a free block, then the
    /// mark that makes it a revision.
    fn write(&mut self, block: &mut Vec<u8>, free: u64) -> io::Result<()> {
        let mark = format::revision_mark(block.len() as u64);
        let behind = format::free_mark(free - block.len() as u64);
        block.extend_from_slice(behind.as_slice());
        let covering = format::free_mark(free);
        if let Some(first) = block.get_mut(..MARK_LEN) {
            first.copy_from_slice(covering.as_slice());
        }
        self.blocks.write(block, self.pos)?;
        self.blocks.write(mark.as_slice(), self.pos)
    }

    /// Writes the blocks that were gathered.
    pub fn flush(&mut self) -> io::Result<()> {
        self.journal.is_changed |= self.blocks.has_gathered();
        self.blocks.flush()
    }

    /// As [`Ring::flush`], with the time of now, as [`Ring::before_change`] needs it.
    pub fn flush_at(&mut self, now: Time) -> io::Result<()> {
        if self.blocks.has_gathered() {
            self.before_change(now)?;
        }
        self.flush()
    }

    fn change(&mut self, bytes: &[u8], pos: u64) -> io::Result<()> {
        self.journal.is_changed = true;
        self.blocks.change(bytes, pos)
    }

    fn record(&mut self, record: SumRecord) {
        if self.note.is_some() {
            self.journal.add(record);
        }
    }

    /// Evicts what is in the way of `needed` bytes at the pointer. Returns how many are free. The file is not changed.
    fn make_room(&mut self, needed: u64) -> io::Result<u64> {
        let mut free = self.blocks.cleared();
        while free < needed {
            let pos = self.pos + free;
            let mut bytes = [0; BLOCK_HEADER_LEN];
            let read = self.blocks.read_at(&mut bytes, pos)?;
            let bytes = bytes.get(..read).unwrap_or_default();
            let mark = BlockMark::parse(bytes).filter(|mark| pos + mark.len() <= self.size);
            let mark = mark.ok_or_else(|| not_as_written(pos))?;
            if let BlockMark::Revision(len) = mark {
                let header = BlockHeader::parse(bytes).ok_or_else(|| not_as_written(pos))?;
                let place = Place::new(pos, len, header.end == Tid::ZERO);
                self.index.remove(&IndexEntry { oid: header.oid, start: header.start, place });
                self.evictions += 1;
                self.used = self.used.saturating_sub(len);
            }
            free += mark.len();
        }
        Ok(free)
    }
}

/// The header of a block that is what the index says.
fn check(block: &[u8], entry: &IndexEntry) -> Option<BlockHeader> {
    let header = BlockHeader::parse(block)?;
    let again = block.get((header.len - 8) as usize..header.len as usize)?;
    let is_expected = header.is_sound()
        && header.oid == entry.oid
        && header.start == entry.start
        && (header.end == Tid::ZERO) == entry.place.is_current()
        && again == entry.oid.to_bytes();
    is_expected.then_some(header)
}
