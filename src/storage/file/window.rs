//! Reading a file from front to back when only the headers of some records are needed. Reads long pieces if the headers
//! are close together, and short ones if the data between them is long.

#![cfg_attr(not(test), deny(clippy::cast_possible_truncation))]

use std::io;

use super::media::MediaFile;

const CHUNK_MIN: usize = 16 * 1024;
const CHUNK_MAX: usize = 1024 * 1024;

/// A part of a file that is read ahead.
pub struct Window<'a> {
    file: &'a dyn MediaFile,
    end: u64,
    buffer: Buffer,
}

impl<'a> Window<'a> {
    /// Reads nothing behind `end`. The first read is of `first_len` bytes: few if only one header may be needed.
    pub fn new(file: &'a dyn MediaFile, end: u64, first_len: usize) -> Window<'a> {
        Window { file, end, buffer: Buffer::new(first_len, CHUNK_MAX) }
    }

    /// `want` bytes from `pos`; fewer only at the end of the file.
    pub fn get(&mut self, pos: u64, want: usize) -> io::Result<&[u8]> {
        self.buffer.get(self.file, self.end, pos, want)
    }

    /// `want` bytes from `pos`, if they have been read already.
    pub fn peek(&self, pos: u64, want: usize) -> Option<&[u8]> {
        self.buffer.peek(pos, want)
    }
}

/// The buffer of a window, for owners that keep the file elsewhere.
pub struct Buffer {
    bytes: Vec<u8>,
    /// Position in the file of `bytes`, and how many of them are valid.
    start: u64,
    valid: usize,
    /// Length of the next read: grows if consecutive bytes are used, shrinks if most are skipped.
    chunk: usize,
    chunk_max: usize,
}

impl Buffer {
    /// The first read is of `first_len` bytes. Later ones are of `chunk_max` bytes at most, unless more are wanted.
    pub fn new(first_len: usize, chunk_max: usize) -> Buffer {
        Buffer { bytes: Vec::new(), start: u64::MAX, valid: 0, chunk: first_len, chunk_max }
    }

    /// `want` bytes from `pos`, if they are in the buffer.
    pub fn peek(&self, pos: u64, want: usize) -> Option<&[u8]> {
        let at = usize::try_from(pos.checked_sub(self.start)?).ok()?;
        let end = at.checked_add(want).filter(|end| *end <= self.valid)?;
        self.bytes.get(at..end)
    }

    /// `want` bytes from `pos`; fewer only at the end of the file or at `end`.
    pub fn get(&mut self, file: &dyn MediaFile, end: u64, pos: u64, want: usize) -> io::Result<&[u8]> {
        if self.peek(pos, want).is_none() {
            self.read(file, end, pos, want)?;
        }
        let at = usize::try_from(pos.saturating_sub(self.start)).unwrap_or(usize::MAX);
        let until = self.valid.min(at.saturating_add(want));
        Ok(self.bytes.get(at..until).unwrap_or_default())
    }

    fn read(&mut self, file: &dyn MediaFile, end: u64, pos: u64, want: usize) -> io::Result<()> {
        // There is nothing to adapt to before the first read.
        if self.start != u64::MAX {
            let is_near = pos
                .checked_sub(self.start + self.valid as u64)
                .map_or(pos >= self.start, |passed_over| passed_over < self.chunk as u64);
            self.chunk = if is_near { self.chunk * 2 } else { self.chunk / 2 };
            self.chunk = self.chunk.clamp(CHUNK_MIN, self.chunk_max);
        }
        let rest = usize::try_from(end.saturating_sub(pos)).unwrap_or(usize::MAX);
        let len = rest.min(self.chunk.max(want));
        if self.bytes.len() < len {
            self.bytes.resize(len, 0);
        }
        self.start = pos;
        self.valid = 0;
        self.valid = file.read_at(self.bytes.get_mut(..len).unwrap_or_default(), pos)?;
        Ok(())
    }
}
