//! Writing to somebody who may not read: pipes, sockets, terminals.
//!
//! A full pipe would block the writing thread, and with it every thread that has something to log. So
//! before each write we ask whether it would block. The first line that finds its reader stuck waits
//! for up to [`PATIENCE`]; after that lines are given up at once until the reader takes data again.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use super::os;

/// How long one line may hold the server up for a reader that does not read.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a pipe that is writable at all takes without blocking: one page, POSIX's `PIPE_BUF` on Linux.
pub const PIECE_LEN: usize = 4096;

#[derive(Debug, Default)]
pub struct Patience {
    lost: bool,
}

impl Patience {
    /// Returns when a write of up to [`PIECE_LEN`] bytes will not block, or `TimedOut`.
    pub fn wait(&mut self, fd: impl AsFd) -> io::Result<()> {
        let timeout = if self.lost { Duration::ZERO } else { PATIENCE };
        let writable = os::wait_writable(fd.as_fd(), timeout)?;
        self.lost = !writable;
        if writable {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "the other end does not read"))
    }
}
