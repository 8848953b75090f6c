//! The write timeout of destinations that may block: pipes, sockets, terminals.
//!
//! A full pipe would block the writing thread, and with it every thread that logs. So each write is preceded by a poll.
//! The first line waits up to [`WRITE_TIMEOUT`] for a reader that does not read; later lines are dropped at once until
//! the reader takes data again.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use super::os;

/// Upper bound on the time that one line may delay its thread.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes that a pipe takes without blocking if it is writable at all: one page, POSIX's `PIPE_BUF` on Linux.
pub const PIECE_LEN: usize = 4096;

/// The state of one destination.
#[derive(Debug, Default)]
pub struct WriteTimeout {
    /// The last wait ended without the destination becoming writable.
    expired: bool,
}

impl WriteTimeout {
    /// Waits until a write of up to [`PIECE_LEN`] bytes will not block. `TimedOut`: it would still block.
    pub fn wait(&mut self, fd: impl AsFd) -> io::Result<()> {
        let timeout = if self.expired { Duration::ZERO } else { WRITE_TIMEOUT };
        let writable = os::wait_writable(fd.as_fd(), timeout)?;
        self.expired = !writable;
        if writable {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "the reader of the log does not read"))
    }
}
