//! The blocks of the open file, and the *span*: the part of the file at the pointer, whose new blocks are gathered in
//! memory and written together.
//!
//! When a span begins, its first five bytes in the file become the mark of one free block that covers all of it. Then
//! new blocks are gathered. The blocks that they have not reached yet stay readable: only the mark of the first one is
//! covered. [`Blocks::flush`] writes the new blocks behind the mark, with the free block that follows them, and the
//! first mark last.
//!
//! Invariants: a block that new ones have reached is covered in the file before it leaves the index. So no moment at
//! which the process may die leaves a revision in the file that was evicted, and may have been replaced since. The file
//! is covered by blocks without gaps at all times.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::format::{self, BlockMark, MARK_LEN};
use crate::storage::media::MediaFile;

/// The blocks of a file.
pub struct Blocks {
    file: Arc<dyn MediaFile>,
    /// Reads that do not wait are not possible here.
    cannot_tell: AtomicBool,
    span: Option<Span>,
    /// Memory for the next span.
    spare: Vec<u8>,
}

/// The part of the file that is being written.
struct Span {
    start: u64,
    /// What the file has from `start` on after the next flush. The last block may go on behind it.
    bytes: Vec<u8>,
    /// Where the next block is put: the end of the gathered ones.
    pos: u64,
    /// The end of the blocks that have made room. Behind it the file has what `bytes` has.
    cleared: u64,
}

impl Span {
    /// Where `len` bytes at `pos` are in `bytes`; cut at its end. `None`: they are read from the file.
    fn find(&self, pos: u64, len: usize) -> Option<&[u8]> {
        let from = usize::try_from(pos.checked_sub(self.start)?).ok()?;
        let rest = self.bytes.get(from..).filter(|rest| !rest.is_empty())?;
        if len <= rest.len() { rest.get(..len) } else { Some(rest).filter(|_| pos < self.cleared) }
    }
}

impl Blocks {
    /// The blocks of this file.
    pub fn new(file: Arc<dyn MediaFile>) -> Blocks {
        Blocks { file, cannot_tell: AtomicBool::new(false), span: None, spare: Vec::new() }
    }

    /// The file. It does not have the gathered blocks.
    pub fn file(&self) -> &Arc<dyn MediaFile> {
        &self.file
    }

    /// Reads, at most to the end of the file or of the gathered blocks.
    pub fn read_at(&self, buf: &mut [u8], pos: u64) -> io::Result<usize> {
        match self.gathered(buf, pos) {
            Some(read) => Ok(read),
            None => self.file.read_at(buf, pos),
        }
    }

    /// As [`Blocks::read_at`], without waiting for the disk. Error: `WouldBlock`.
    pub fn read_at_now(&self, buf: &mut [u8], pos: u64) -> io::Result<usize> {
        if let Some(read) = self.gathered(buf, pos) {
            return Ok(read);
        }
        if !self.cannot_tell.load(Ordering::Relaxed) {
            match self.file.read_at_now(buf, pos) {
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                    self.cannot_tell.store(true, Ordering::Relaxed);
                }
                read => return read,
            }
        }
        self.file.read_at(buf, pos)
    }

    fn gathered(&self, buf: &mut [u8], pos: u64) -> Option<usize> {
        let found = self.span.as_ref()?.find(pos, buf.len())?;
        buf.get_mut(..found.len())?.copy_from_slice(found);
        Some(found.len())
    }

    /// Changes a part of a block.
    pub fn change(&mut self, bytes: &[u8], pos: u64) -> io::Result<()> {
        if let Some(span) = &mut self.span
            && let Some(from) = pos.checked_sub(span.start)
            && let Some(there) = span.bytes.get_mut(from as usize..from as usize + bytes.len())
        {
            there.copy_from_slice(bytes);
            if pos < span.cleared {
                return Ok(());
            }
        }
        self.file.write_at(bytes, pos)
    }

    /// Writes to the file. There is no span.
    pub fn write(&self, bytes: &[u8], pos: u64) -> io::Result<()> {
        debug_assert!(self.span.is_none());
        self.file.write_at(bytes, pos)
    }

    /// Whether a block that takes `needed` bytes can be gathered.
    pub fn has_room(&self, needed: u64) -> bool {
        self.span.as_ref().is_some_and(|span| span.pos + needed <= span.start + span.bytes.len() as u64)
    }

    /// How many bytes from the pointer on have made room. Without a span it is unknown: zero.
    pub fn cleared(&self) -> u64 {
        self.span.as_ref().map_or(0, |span| span.cleared - span.pos)
    }

    /// Begins a span at `start`, where a block begins and at least `needed` bytes follow. Gathers at most `len_max`
    /// bytes, which is not less than `needed`. `size`: the length of the file. There is no span.
    pub fn begin(&mut self, start: u64, needed: u64, len_max: u64, size: u64) -> io::Result<()> {
        debug_assert!(self.span.is_none());
        let mut bytes = std::mem::take(&mut self.spare);
        bytes.resize(len_max.min(size - start) as usize, 0);
        let read = self.file.read_at(&mut bytes, start)?;
        bytes.truncate(read);
        // Whole blocks: those that are in `bytes`, and one more if they are too short.
        let mut len = 0;
        while let Some(rest) = bytes.get(len as usize..).filter(|rest| !rest.is_empty()) {
            if rest.len() < MARK_LEN && len >= needed {
                break;
            }
            let mark = BlockMark::parse(rest).filter(|mark| start + len + mark.len() <= size);
            let mark = mark.ok_or_else(|| format::not_as_written(start + len))?;
            if len >= needed && mark.len() > rest.len() as u64 {
                break;
            }
            len += mark.len();
        }
        bytes.truncate(usize::try_from(len).unwrap_or(usize::MAX));
        self.file.write_at(format::free_mark(len).as_slice(), start)?;
        self.span = Some(Span { start, bytes, pos: start, cleared: start });
        Ok(())
    }

    /// Gathers a block, for which `free` bytes from the pointer on have made room.
    pub fn gather(&mut self, block: &[u8], free: u64) -> io::Result<()> {
        let span = self.span.as_mut().ok_or(io::ErrorKind::InvalidInput)?;
        let from = (span.pos - span.start) as usize;
        let to = span.bytes.get_mut(from..from + block.len()).ok_or(io::ErrorKind::InvalidInput)?;
        to.copy_from_slice(block);
        span.cleared = span.pos + free;
        span.pos += block.len() as u64;
        Ok(())
    }

    /// Whether there are blocks that the file does not have.
    pub fn has_gathered(&self) -> bool {
        self.span.is_some()
    }

    /// Writes what was gathered, and ends the span.
    pub fn flush(&mut self) -> io::Result<()> {
        let Some(Span { start, mut bytes, pos, cleared }) = self.span.take() else { return Ok(()) };
        bytes.truncate((pos - start) as usize);
        bytes.extend_from_slice(format::free_mark(cleared - pos).as_slice());
        let (first, rest) = bytes.split_at_checked(MARK_LEN).ok_or(io::ErrorKind::InvalidInput)?;
        self.file.write_at(rest, start + MARK_LEN as u64)?;
        self.file.write_at(first, start)?;
        self.spare = bytes;
        Ok(())
    }

    /// Drops what was gathered: the file is emptied, or not used any more.
    pub fn forget(&mut self) {
        self.span = None;
    }
}
