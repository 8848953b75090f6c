//! An open log file or standard stream: lines go in whole, or the next one knows that the last was torn.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use super::write_timeout::{PIECE_LEN, WriteTimeout};

#[derive(Debug)]
pub struct Writer {
    file: File,
    /// Bytes in a regular file as far as we know; others may write to it as well.
    len: u64,
    /// The last line got there in part.
    torn: bool,
    /// `None` for regular files, which never make us wait for somebody.
    timeout: Option<WriteTimeout>,
}

impl Writer {
    /// Opens a log file to append to, and creates it if need be.
    pub fn open(path: &Path) -> io::Result<Writer> {
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        // Opening a pipe that nobody reads would wait for a reader; this way it is an error.
        if std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo()) {
            options.create(false).custom_flags(libc::O_NONBLOCK);
        }
        Writer::new(options.open(path)?)
    }

    /// One of the process's own streams, under a descriptor of our own.
    pub fn for_stream(stream: impl AsFd) -> io::Result<Writer> {
        Writer::new(File::from(stream.as_fd().try_clone_to_owned()?))
    }

    fn new(file: File) -> io::Result<Writer> {
        let metadata = file.metadata()?;
        let timeout = if metadata.is_file() { None } else { Some(WriteTimeout::default()) };
        Ok(Writer { file, len: metadata.len(), torn: false, timeout })
    }

    /// One line, with its line feed, in one `write(2)`.
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

    /// The length as the file system has it: somebody may have written too, or cut the file.
    pub fn measure(&mut self) -> u64 {
        if let Ok(metadata) = self.file.metadata() {
            self.len = metadata.len();
        }
        self.len
    }
}
