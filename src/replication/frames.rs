//! Frames on a stream: a length of 4 bytes, most significant first, and a payload.

use std::io::{self, IoSlice};

use crate::base::memory;
use crate::base::sync::Arc;
use crate::net::stream::{Sink, Stream};

/// Bytes that are received, or collected to be sent, at once.
pub const BUFFER_LEN: usize = 256 << 10;
/// A frame of a length that its sender only claims to send takes no more memory than this at once.
const STEP: usize = 1 << 20;

/// The frames that arrive on a stream.
pub struct Incoming {
    stream: Arc<Stream>,
    buffer: Vec<u8>,
    /// The part of `buffer` that was not read yet.
    start: usize,
    end: usize,
}

impl Incoming {
    /// For many transactions.
    pub fn new(stream: Arc<Stream>) -> Incoming {
        Incoming { stream, buffer: vec![0; BUFFER_LEN], start: 0, end: 0 }
    }

    /// With a small buffer, because the peer may be anybody.
    pub fn small(stream: Arc<Stream>) -> Incoming {
        Incoming { stream, buffer: vec![0; 64], start: 0, end: 0 }
    }

    /// The next frame takes the place of what `out` had. False: the stream has ended. `idle` is called when nothing
    /// has arrived for the longest wait of the stream.
    ///
    /// Errors: those of the stream and of `idle`; `UnexpectedEof` if it ends within a frame; `InvalidData` for a longer
    /// frame than `len_max`.
    pub fn next(
        &mut self,
        len_max: usize,
        out: &mut Vec<u8>,
        idle: &mut dyn FnMut() -> io::Result<()>,
    ) -> io::Result<bool> {
        out.clear();
        self.read(4, out, idle)?;
        let Some(head) = out.first_chunk::<4>().copied() else {
            return if out.is_empty() { Ok(false) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        };
        let len = u32::from_be_bytes(head) as usize;
        if len > len_max {
            let what = format!("a frame of {len} bytes, where {len_max} are the most");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        out.clear();
        self.read(len, out, idle)?;
        if out.len() < len { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(true) }
    }

    /// Reads up to `len` bytes, fewer only at the end of the stream.
    fn read(
        &mut self,
        len: usize,
        out: &mut Vec<u8>,
        idle: &mut dyn FnMut() -> io::Result<()>,
    ) -> io::Result<()> {
        while out.len() < len {
            if self.start == self.end && !self.fill(idle)? {
                return Ok(());
            }
            let wanted = (len - out.len()).min(self.end - self.start);
            let taken = self.buffer.get(self.start..self.start + wanted).unwrap_or_default();
            memory::reserve(out, (out.len() + wanted).max(len.min(STEP)))?;
            out.extend_from_slice(taken);
            self.start += wanted;
        }
        Ok(())
    }

    /// Receives something. False: the stream has ended.
    fn fill(&mut self, idle: &mut dyn FnMut() -> io::Result<()>) -> io::Result<bool> {
        loop {
            match self.stream.recv(&mut self.buffer) {
                Ok(0) => return Ok(false),
                Ok(len) => {
                    (self.start, self.end) = (0, len);
                    return Ok(true);
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    idle()?
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// The length in front of a payload.
pub fn head_of(len: usize) -> io::Result<[u8; 4]> {
    let len = u32::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    Ok(len.to_be_bytes())
}

/// Sends a frame at once.
pub fn send_frame(stream: &Stream, payload: &[u8]) -> io::Result<()> {
    send_all(stream, &[&head_of(payload.len())?[..], payload].concat())
}

/// Sends all of it.
pub fn send_all(stream: &Stream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let sent = stream.send(&[IoSlice::new(bytes)])?;
        bytes = bytes.get(sent..).unwrap_or_default();
    }
    Ok(())
}
