//! Frames: four bytes of length, then the message.

use std::io::{self, Read};
use std::ops::Range;

const HEADER_LEN: usize = 4;
const FRAME_LEN_MAX: usize = 1 << 30;
/// Smallest free space at the end of the buffer that is worth a read.
const ROOM_MIN: usize = 4096;

/// Received bytes that are cut into frames. A frame is a range of the buffer, valid until the next [`Frames::fill`].
pub struct Frames {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Frames {
    pub fn new(capacity: usize) -> Frames {
        Frames { buffer: vec![0; capacity], start: 0, end: 0 }
    }

    /// The next frame, if all of it has arrived.
    pub fn next(&mut self) -> Option<Range<usize>> {
        let frame = self.peek()?;
        self.start = frame.end;
        Some(frame)
    }

    /// Whether the next frame has arrived.
    pub fn is_ready(&self) -> bool {
        self.peek().is_some()
    }

    pub fn bytes(&self, frame: Range<usize>) -> &[u8] {
        &self.buffer[frame]
    }

    /// Reads once from `from`; 0 means that the peer closed the connection.
    pub fn fill(&mut self, from: &mut impl Read) -> io::Result<usize> {
        let pending_len = self.end - self.start;
        let wanted = self.frame_len().map_or(HEADER_LEN, |len| HEADER_LEN + len);
        if wanted > FRAME_LEN_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {wanted} bytes")));
        }
        if pending_len == 0 {
            (self.start, self.end) = (0, 0);
        } else if self.start + wanted > self.buffer.len() || self.buffer.len() - self.end < ROOM_MIN {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, pending_len);
        }
        if wanted + ROOM_MIN > self.buffer.len() {
            self.buffer.resize(wanted + 16 * ROOM_MIN, 0);
        }
        let len = from.read(&mut self.buffer[self.end..])?;
        self.end += len;
        Ok(len)
    }

    fn frame_len(&self) -> Option<usize> {
        let header = self.buffer[self.start..self.end].first_chunk::<HEADER_LEN>()?;
        Some(u32::from_be_bytes(*header) as usize)
    }

    fn peek(&self) -> Option<Range<usize>> {
        let from = self.start + HEADER_LEN;
        let frame = from..from + self.frame_len()?;
        (frame.end <= self.end).then_some(frame)
    }
}
