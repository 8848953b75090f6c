//! Frames: a 4-byte big-endian length and a payload, found in a buffer that the caller fills from a socket.
//!
//! The top bit of the length means that 20 bytes of message authentication code, which the length does not count, are
//! before the payload. Nothing is allocated per frame; the buffer grows with the bytes that arrive, not with the length
//! that a peer announces, and its memory is released after a huge frame.

use std::fmt;
use std::io;

use crate::base::memory;

/// Default limit on the length of a frame. Clients send large records in one frame.
pub const FRAME_LEN_MAX: usize = 1 << 30;

/// Flag in the length: a message authentication code follows.
pub const MAC_BIT: u32 = 0x8000_0000;
/// Bytes of a message authentication code: HMAC-SHA1.
pub const MAC_LEN: usize = 20;
const PREFIX_LEN: usize = 4;

/// Size of a new reader's first read; doubled whenever a read fills it, up to [`READ_LEN_MAX`].
const READ_LEN_MIN: usize = 1 << 10;
const READ_LEN_MAX: usize = 128 << 10;
/// A buffer larger than this is released when it is empty.
const KEEP_LEN_MAX: usize = 256 << 10;

/// One message of the peer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Frame<'a> {
    pub mac: Option<&'a [u8; MAC_LEN]>,
    pub payload: &'a [u8],
}

/// A frame that is refused: it must be skipped, or the connection closed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FrameError {
    pub len: usize,
    pub len_max: usize,
    pub has_mac: bool,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a message of {} bytes, the limit is {}", self.len, self.len_max)
    }
}

impl std::error::Error for FrameError {}

/// Finds frames in the bytes that were read from a socket.
///
/// ```
/// use runzeo::internal::wire::frame::FrameReader;
/// let mut reader = FrameReader::new();
/// let received = b"\0\0\0\x02Z5\0\0";
/// reader.spare().unwrap()[..received.len()].copy_from_slice(received);
/// reader.filled(received.len());
/// assert_eq!(reader.next().unwrap().unwrap().payload, b"Z5");
/// assert!(reader.next().unwrap().is_none());
/// ```
#[derive(Debug)]
pub struct FrameReader {
    /// Received bytes are `buf[start..end]`; the rest is initialised and free to read into.
    buf: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes to ask for in each read.
    read_len: usize,
    len_max: usize,
    /// Bytes of a refused frame that are still to be dropped.
    skipping: usize,
}

impl Default for FrameReader {
    fn default() -> Self {
        FrameReader::new()
    }
}

impl FrameReader {
    /// A reader that allocates nothing until it is read into.
    pub fn new() -> FrameReader {
        FrameReader::with_limit(FRAME_LEN_MAX)
    }

    /// A reader with another limit on the length of a payload.
    pub fn with_limit(len_max: usize) -> FrameReader {
        FrameReader { buf: Vec::new(), start: 0, end: 0, read_len: READ_LEN_MIN, len_max, skipping: 0 }
    }

    /// Changes the limit, for example when the peer has proved to be a client.
    pub fn set_limit(&mut self, len_max: usize) {
        self.len_max = len_max;
    }

    /// The free part of the buffer, never empty. Call [`FrameReader::filled`] with the number of bytes read. Fails if
    /// there is no memory.
    pub fn spare(&mut self) -> io::Result<&mut [u8]> {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
            if self.buf.len() > KEEP_LEN_MAX {
                self.buf = Vec::new();
            }
        }
        if self.buf.len() - self.end < self.read_len / 2 {
            self.make_room()?;
        }
        Ok(self.buf.get_mut(self.end..).unwrap_or_default())
    }

    /// `count` bytes were read into [`FrameReader::spare`].
    pub fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.buf.len());
        if self.end == self.buf.len() {
            self.read_len = (2 * self.read_len).min(READ_LEN_MAX);
        }
    }

    /// Takes the next complete frame.
    #[allow(clippy::should_implement_trait)] // a lending iterator
    pub fn next(&mut self) -> Result<Option<Frame<'_>>, FrameError> {
        if self.skipping > 0 {
            let dropped = self.skipping.min(self.pending());
            self.start += dropped;
            self.skipping -= dropped;
        }
        let received = self.buf.get(self.start..self.end).unwrap_or_default();
        let Some((prefix, rest)) = received.split_first_chunk::<PREFIX_LEN>() else { return Ok(None) };
        let prefix = u32::from_be_bytes(*prefix);
        let len = (prefix & !MAC_BIT) as usize;
        if len > self.len_max {
            return Err(FrameError { len, len_max: self.len_max, has_mac: prefix & MAC_BIT != 0 });
        }
        let (mac, rest) = match prefix & MAC_BIT {
            0 => (None, rest),
            _ => match rest.split_first_chunk::<MAC_LEN>() {
                Some((mac, rest)) => (Some(mac), rest),
                None => return Ok(None),
            },
        };
        let Some(payload) = rest.get(..len) else { return Ok(None) };
        self.start += PREFIX_LEN + mac.map_or(0, |mac| mac.len()) + len;
        Ok(Some(Frame { mac, payload }))
    }

    /// Drops the refused frame as its bytes arrive.
    pub fn skip(&mut self, refused: &FrameError) {
        self.skipping = PREFIX_LEN + if refused.has_mac { MAC_LEN } else { 0 } + refused.len;
    }

    /// Number of bytes that are received and not yet taken.
    pub fn pending(&self) -> usize {
        self.end - self.start
    }

    /// Moves a partial frame to the front. If the room is still too small, grows to the announced length of the frame,
    /// but at most to twice the received bytes.
    fn make_room(&mut self) -> io::Result<()> {
        if self.start > 0 {
            self.buf.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.buf.len() - self.end < self.read_len {
            let declared = match self.buf.get(..self.end).and_then(|bytes| bytes.first_chunk::<PREFIX_LEN>())
            {
                Some(prefix) => PREFIX_LEN + MAC_LEN + (u32::from_be_bytes(*prefix) & !MAC_BIT) as usize,
                None => 0,
            };
            let enough = self.end + self.read_len;
            let len = declared.clamp(enough, enough.max(2 * self.end));
            memory::resize(&mut self.buf, len)?;
        }
        Ok(())
    }
}

/// Begins a frame in `out`: a length that [`end_frame`] fills in. Returns the offset of the frame.
pub fn begin_frame(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX_LEN]);
    start
}

/// Fills in the length of the frame from `start` to the end of `out`.
pub fn end_frame(out: &mut [u8], start: usize) {
    let len = out.len().saturating_sub(start + PREFIX_LEN);
    debug_assert!(len < MAC_BIT as usize);
    if let Some(prefix) = out.get_mut(start..start + PREFIX_LEN) {
        prefix.copy_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
    }
}

/// Appends one frame with this payload.
pub fn put_frame(payload: &[u8], out: &mut Vec<u8>) {
    let start = begin_frame(out);
    out.extend_from_slice(payload);
    end_frame(out, start);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn feed(reader: &mut FrameReader, mut bytes: &[u8], step: usize) -> Vec<(bool, Vec<u8>)> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let spare = reader.spare().unwrap();
            let count = spare.len().min(step).min(bytes.len());
            spare[..count].copy_from_slice(&bytes[..count]);
            reader.filled(count);
            bytes = &bytes[count..];
            while let Some(frame) = reader.next().unwrap() {
                found.push((frame.mac.is_some(), frame.payload.to_vec()));
            }
        }
        found
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn frames_survive_any_fragmentation(
            frames in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..9000)), 0..6),
            step in 50usize..20_000,
        ) {
            let mut bytes = Vec::new();
            for (mac, payload) in &frames {
                let start = begin_frame(&mut bytes);
                bytes.extend_from_slice(payload);
                end_frame(&mut bytes, start);
                if *mac {
                    bytes[start] |= 0x80;
                    bytes.splice(start + 4..start + 4, [7; MAC_LEN]);
                }
            }
            let mut reader = FrameReader::new();
            prop_assert_eq!(feed(&mut reader, &bytes, step), frames);
            prop_assert_eq!(reader.pending(), 0);
        }
    }

    #[test]
    fn a_claimed_length_allocates_nothing() {
        let mut reader = FrameReader::new();
        assert!(feed(&mut reader, &[0x3f, 0xff, 0xff, 0xff, 1, 2, 3], 100).is_empty());
        assert!(reader.spare().unwrap().len() < 100_000);
    }

    #[test]
    fn too_long_is_refused_at_once() {
        let mut reader = FrameReader::with_limit(10);
        let spare = reader.spare().unwrap();
        spare[..4].copy_from_slice(&[0, 0, 0, 11]);
        reader.filled(4);
        assert_eq!(reader.next(), Err(FrameError { len: 11, len_max: 10, has_mac: false }));
    }

    #[test]
    fn a_frame_can_be_skipped() {
        for (has_mac, step) in [(false, 1), (true, 7), (false, 100_000)] {
            let mut bytes = Vec::new();
            put_frame(b"before", &mut bytes);
            let start = bytes.len();
            put_frame(&vec![0; 50_000], &mut bytes);
            if has_mac {
                bytes[start] |= 0x80;
                bytes.splice(start + 4..start + 4, [7; MAC_LEN]);
            }
            put_frame(b"after", &mut bytes);
            let mut reader = FrameReader::with_limit(10);
            let mut found = Vec::new();
            for piece in bytes.chunks(step) {
                let mut piece = piece;
                while !piece.is_empty() {
                    let spare = reader.spare().unwrap();
                    let count = spare.len().min(piece.len());
                    spare[..count].copy_from_slice(&piece[..count]);
                    reader.filled(count);
                    piece = &piece[count..];
                    loop {
                        match reader.next() {
                            Ok(Some(frame)) => found.push(frame.payload.to_vec()),
                            Ok(None) => break,
                            Err(refused) => reader.skip(&refused),
                        }
                    }
                    assert!(reader.buf.len() <= 2 * READ_LEN_MAX);
                }
            }
            assert_eq!(found, [b"before".to_vec(), b"after".to_vec()]);
        }
    }

    #[test]
    fn memory_is_given_back_after_a_huge_frame() {
        let mut bytes = Vec::new();
        put_frame(&vec![1; 4 << 20], &mut bytes);
        let mut reader = FrameReader::new();
        assert_eq!(feed(&mut reader, &bytes, 1 << 20).len(), 1);
        assert!(reader.buf.len() > KEEP_LEN_MAX);
        reader.spare().unwrap();
        assert!(reader.buf.len() <= KEEP_LEN_MAX);
    }
}
