//! Files from front to back: as `Read` and `Write`, and as a whole that appears under its name only when it is durable.

use std::io::{self, BufWriter, Read, Write};
use std::path::Path;
use std::sync::Arc;

use super::file::MediaFile;
use super::{Access, Media};
use crate::base::fs::dir_of;

/// Bytes that the disk is asked to write at once.
const WRITE_BACK_LEN: u64 = 1 << 20;
/// Bytes of a buffer for small writes.
const BUF_LEN: usize = 256 * 1024;

/// Reads the bytes from a position to another one. A file that is shorter ends earlier.
pub struct Reading {
    file: Arc<dyn MediaFile>,
    pos: u64,
    end: u64,
}

impl Reading {
    /// The bytes from `start` to `end`.
    pub fn range(file: Arc<dyn MediaFile>, start: u64, end: u64) -> Reading {
        Reading { file, pos: start, end }
    }

    /// The whole file.
    pub fn whole(file: Arc<dyn MediaFile>) -> Reading {
        Reading::range(file, 0, u64::MAX)
    }
}

impl Read for Reading {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.pos)).unwrap_or(usize::MAX);
        let len = buf.len().min(left);
        let Some(buf) = buf.get_mut(..len) else { return Ok(0) };
        let read = self.file.read_at(buf, self.pos)?;
        self.pos += read as u64;
        Ok(read)
    }
}

/// Appends to a file that has only positioned writes.
///
/// The disk has never more than two parts of it to write: a commit beside it, whose sync comes behind them, does not
/// wait for long. So there is also little left for the sync at the end.
pub struct Appending {
    file: Arc<dyn MediaFile>,
    pos: u64,
    /// The disk was asked to write what is before this position, and has written what is before the other one.
    begun: u64,
    written: u64,
}

impl Appending {
    /// Begins at the start of the file.
    pub fn new(file: Arc<dyn MediaFile>) -> Appending {
        Appending { file, pos: 0, begun: 0, written: 0 }
    }
}

impl Write for Appending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_at(bytes, self.pos)?;
        self.pos += bytes.len() as u64;
        if self.pos - self.begun >= WRITE_BACK_LEN {
            self.file.write_back(self.begun, self.pos - self.begun);
            self.file.wait_for_write_back(self.written, self.begun - self.written)?;
            (self.written, self.begun) = (self.begun, self.pos);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a file: whole and durable, or not at all. Until then it has the name `tmp`, which a crash leaves behind.
pub fn write_whole(
    media: &dyn Media,
    path: &Path,
    tmp: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    write_durably(media, tmp, write).and_then(|()| media.rename(tmp, path)).inspect_err(|_| {
        // Makes room. The error of before is the one to report.
        let _ = media.remove(tmp);
    })?;
    media.sync_dir(dir_of(path))
}

fn write_durably(
    media: &dyn Media,
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let file = media.open(path, Access::Truncate)?;
    let mut out = BufWriter::with_capacity(BUF_LEN, Appending::new(file.clone()));
    write(&mut out)?;
    out.flush()?;
    drop(out);
    file.sync()
}
