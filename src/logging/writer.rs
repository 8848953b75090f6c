//! An open log file or standard stream. Lines are written whole; if one is cut, the next starts on a new line.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use super::write_timeout::{PIECE_LEN, WriteTimeout};

#[derive(Debug)]
pub struct Writer {
    file: File,
    /// Length of a regular file, if no other program has written to it.
    len: u64,
    /// The last line was written in part.
    torn: bool,
    /// `None` for regular files, whose writes do not wait for a reader.
    timeout: Option<WriteTimeout>,
}

impl Writer {
    /// Opens a log file for appending; creates it if necessary.
    pub fn open(path: &Path) -> io::Result<Writer> {
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        // Opening a pipe without a reader would block; with this flag it is an error.
        if std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo()) {
            options.create(false).custom_flags(libc::O_NONBLOCK);
        }
        Writer::new(options.open(path)?)
    }

    /// A standard stream of the process, with a duplicated descriptor.
    pub fn for_stream(stream: impl AsFd) -> io::Result<Writer> {
        Writer::new(File::from(stream.as_fd().try_clone_to_owned()?))
    }

    fn new(file: File) -> io::Result<Writer> {
        let metadata = file.metadata()?;
        let timeout = if metadata.is_file() { None } else { Some(WriteTimeout::default()) };
        Ok(Writer { file, len: metadata.len(), torn: false, timeout })
    }

    /// Writes one line with its line feed: to a regular file with one `write(2)`, elsewhere in pieces of up to
    /// `PIECE_LEN`.
    pub fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.torn {
            self.write_all(b"\n")?;
            self.torn = false;
        }
        self.write_all(line)
    }

    fn write_all(&mut self, mut rest: &[u8]) -> io::Result<()> {
        let mut begun = false;
        while !rest.is_empty() {
            let written = match self.write_some(rest) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(0) => Err(io::Error::from(io::ErrorKind::WriteZero)),
                other => other,
            };
            let written = written.inspect_err(|_| self.torn |= begun)?;
            begun = true;
            self.len += written as u64;
            rest = rest.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(timeout) = &mut self.timeout else { return self.file.write(bytes) };
        timeout.wait(&self.file)?;
        self.file.write(bytes.get(..PIECE_LEN).unwrap_or(bytes))
    }

    pub fn is_regular(&self) -> bool {
        self.timeout.is_none()
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    /// Reads the file's length from the file system: another program may have written or truncated it.
    pub fn measure(&mut self) -> u64 {
        if let Ok(metadata) = self.file.metadata() {
            self.len = metadata.len();
        }
        self.len
    }
}
