//! Reading a file from front to back, where most of it may be passed over: the headers of records whose data is not
//! wanted. Reads much at once where the headers are close together, and little where the data between them is long.

use std::io;

use super::media::MediaFile;

const CHUNK_MIN: usize = 16 * 1024;
const CHUNK_MAX: usize = 1024 * 1024;

/// See the module.
pub struct Window<'a> {
    file: &'a dyn MediaFile,
    end: u64,
    buf: Vec<u8>,
    /// Where in the file `buf` begins, and how much of it is valid.
    start: u64,
    valid: usize,
    /// How much to read next time: grows while what is read is used, shrinks while most is passed over.
    chunk: usize,
}

impl<'a> Window<'a> {
    /// Reads nothing from `end` on. The first read is of `first_len` bytes: few if perhaps only one header is wanted.
    pub fn new(file: &'a dyn MediaFile, end: u64, first_len: usize) -> Window<'a> {
        Window { file, end, buf: Vec::new(), start: u64::MAX, valid: 0, chunk: first_len }
    }

    /// `want` bytes from `pos`, fewer only where the file ends.
    pub fn get(&mut self, pos: u64, want: usize) -> io::Result<&[u8]> {
        let inside = pos.checked_sub(self.start).and_then(|at| usize::try_from(at).ok());
        let at = match inside {
            Some(at) if at + want <= self.valid => at,
            _ => {
                self.read(pos, want)?;
                0
            }
        };
        let end = self.valid.min(at + want);
        Ok(self.buf.get(at..end).unwrap_or_default())
    }

    fn read(&mut self, pos: u64, want: usize) -> io::Result<()> {
        // Not before the first read.
        if self.start != u64::MAX {
            let passed_over = pos.saturating_sub(self.start + self.valid as u64);
            self.chunk = if passed_over < self.chunk as u64 { self.chunk * 2 } else { self.chunk / 2 };
            self.chunk = self.chunk.clamp(CHUNK_MIN, CHUNK_MAX);
        }
        let len = (self.end.saturating_sub(pos)).min(self.chunk.max(want) as u64) as usize;
        if self.buf.len() < len {
            self.buf.resize(len, 0);
        }
        self.start = pos;
        self.valid = 0;
        self.valid = self.file.read_at(self.buf.get_mut(..len).unwrap_or_default(), pos)?;
        Ok(())
    }
}
