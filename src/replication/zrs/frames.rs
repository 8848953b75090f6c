//! Frames, which are a length (4 bytes, most significant first) and a payload, and the checksum of all payloads.

use std::io::{self, IoSlice};

use md5::{Digest, Md5};

use crate::base::ids::Tid;
use crate::base::memory;
use crate::base::sync::Arc;
use crate::net::stream::{Sink, Stream};

/// Bytes that are received, or collected to be sent, at once.
const BUFFER_LEN: usize = 256 << 10;
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

/// The frames that are sent.
pub struct Outgoing {
    stream: Arc<Stream>,
    buffer: Vec<u8>,
    checksum: Checksum,
}

impl Outgoing {
    /// `start`: the last transaction that the secondary has.
    pub fn new(stream: Arc<Stream>, start: Tid) -> Outgoing {
        Outgoing { stream, buffer: Vec::with_capacity(BUFFER_LEN), checksum: Checksum::new(start) }
    }

    /// A frame with what `put` appends.
    pub fn put<R>(&mut self, put: impl FnOnce(&mut Vec<u8>) -> R) -> io::Result<R> {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0; 4]);
        let result = put(&mut self.buffer);
        let payload = self.buffer.get(start + 4..).unwrap_or_default();
        self.checksum.add(payload);
        let head = head_of(payload.len())?;
        if let Some(place) = self.buffer.get_mut(start..start + 4) {
            place.copy_from_slice(&head);
        }
        if self.buffer.len() >= BUFFER_LEN {
            self.flush()?;
        }
        Ok(result)
    }

    /// A frame with these bytes.
    pub fn put_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() < BUFFER_LEN / 4 {
            return self.put(|out| out.extend_from_slice(bytes));
        }
        self.checksum.add(bytes);
        self.buffer.extend_from_slice(&head_of(bytes.len())?);
        self.flush()?;
        send_all(&self.stream, bytes)
    }

    /// The checksum of all frames so far.
    pub fn checksum(&self) -> [u8; 16] {
        self.checksum.now()
    }

    pub fn flush(&mut self) -> io::Result<()> {
        let sent = send_all(&self.stream, &self.buffer);
        self.buffer.clear();
        sent
    }
}

fn head_of(len: usize) -> io::Result<[u8; 4]> {
    let len = u32::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    Ok(len.to_be_bytes())
}

/// Sends a frame at once.
pub fn send_frame(stream: &Stream, payload: &[u8]) -> io::Result<()> {
    send_all(stream, &[&head_of(payload.len())?[..], payload].concat())
}

fn send_all(stream: &Stream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let sent = stream.send(&[IoSlice::new(bytes)])?;
        bytes = bytes.get(sent..).unwrap_or_default();
    }
    Ok(())
}

/// MD5 of the secondary's last transaction and of all payloads since.
pub struct Checksum(Md5);

impl Checksum {
    pub fn new(start: Tid) -> Checksum {
        Checksum(Md5::new_with_prefix(start.to_bytes()))
    }

    pub fn add(&mut self, payload: &[u8]) {
        self.0.update(payload);
    }

    pub fn now(&self) -> [u8; 16] {
        self.0.clone().finalize().into()
    }
}
