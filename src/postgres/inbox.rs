//! Bytes that have arrived from the server, and the messages in them.
//!
//! *Invariant: memory grows with what has arrived, never with what a header claims*, and a message longer than the
//! limit ends the connection before any of it is kept.

use super::error::Lost;

/// The server's longest value is a gigabyte; a row of several may be longer only in theory.
pub const MESSAGE_LEN_MAX: usize = (1 << 30) + (1 << 20);
/// Size of the buffer between messages.
const BUFFER_LEN: usize = 64 << 10;
/// Tag and length.
const HEADER_LEN: usize = 5;

/// A buffer of which the bytes from `start` to `end` have arrived and are not used yet.
#[derive(Debug)]
pub struct Inbox {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Upper bound on a message, header included.
    len_max: usize,
}

/// A message of the server.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    pub tag: u8,
    /// With its header.
    pub whole: &'a [u8],
}

impl<'a> Frame<'a> {
    /// What follows the header.
    pub fn body(&self) -> &'a [u8] {
        self.whole.get(HEADER_LEN..).unwrap_or_default()
    }
}

impl Inbox {
    pub fn new(len_max: usize) -> Inbox {
        Inbox { buffer: vec![0; BUFFER_LEN.min(len_max.max(HEADER_LEN))], start: 0, end: 0, len_max }
    }

    /// For the messages that are not passed yet.
    pub fn set_limit(&mut self, len_max: usize) {
        self.len_max = len_max;
    }

    /// Room for more bytes: never empty.
    pub fn room(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.buffer.len() > BUFFER_LEN {
                // After a long message.
                self.buffer = vec![0; BUFFER_LEN];
            }
        }
        if self.end == self.buffer.len() {
            if self.start > 0 && self.start >= self.buffer.len() / 2 {
                self.buffer.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            } else {
                self.buffer.resize(self.buffer.len() * 2, 0);
            }
        }
        &mut self.buffer[self.end..]
    }

    /// So many bytes were put into the room.
    pub fn arrived(&mut self, count: usize) {
        self.end = (self.end + count).min(self.buffer.len());
    }

    /// Whether everything that has arrived is used.
    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The next message, if it has arrived completely. It is passed when the next one is asked for.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, Lost> {
        let arrived = self.buffer.get(self.start..self.end).unwrap_or_default();
        let Some(([tag, len @ ..], _)) = arrived.split_first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let (tag, len) = (*tag, u32::from_be_bytes(*len));
        let total = usize::try_from(len).unwrap_or(usize::MAX).saturating_add(1);
        if total < HEADER_LEN {
            return Err(Lost::protocol(format_args!("a message of length {len}")));
        }
        if total > self.len_max {
            return Err(Lost::protocol(format_args!(
                "a message of {total} bytes (type {:?}); at most {} are taken",
                char::from(tag),
                self.len_max
            )));
        }
        let start = self.start;
        let end = start + total;
        if end > self.end {
            return Ok(None);
        }
        self.start = end;
        Ok(self.buffer.get(start..end).map(|whole| Frame { tag, whole }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(inbox: &mut Inbox, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = inbox.room();
            let count = room.len().min(bytes.len());
            room[..count].copy_from_slice(&bytes[..count]);
            inbox.arrived(count);
            bytes = &bytes[count..];
        }
    }

    #[test]
    fn messages_come_in_any_pieces() {
        let mut message = vec![b'D'];
        message.extend_from_slice(&(4u32 + 200_000).to_be_bytes());
        message.extend(std::iter::repeat_n(7, 200_000));
        let mut stream = b"Z\0\0\0\x05I".to_vec();
        for _ in 0..3 {
            stream.extend_from_slice(&message);
            stream.extend_from_slice(b"Z\0\0\0\x05I");
        }
        for size in [1, 3, 1000, 65_536, stream.len()] {
            let mut inbox = Inbox::new(MESSAGE_LEN_MAX);
            let mut seen = String::new();
            for piece in stream.chunks(size) {
                put(&mut inbox, piece);
                while let Some(frame) = inbox.next_frame().expect("short messages") {
                    seen.push(char::from(frame.tag));
                    assert!(frame.tag == b'Z' || frame.body().len() == 200_000);
                }
            }
            assert_eq!((seen.as_str(), inbox.is_empty()), ("ZDZDZDZ", true));
        }
    }

    #[test]
    fn a_header_takes_no_memory() {
        let mut inbox = Inbox::new(MESSAGE_LEN_MAX);
        put(&mut inbox, b"D\x40\0\0\0abc");
        assert!(inbox.next_frame().expect("permitted").is_none());
        assert!(inbox.room().len() <= BUFFER_LEN);
        for header in [b"D\xff\xff\xff\xff", b"D\0\0\0\x03", b"D\x41\0\0\0"] {
            let mut inbox = Inbox::new(MESSAGE_LEN_MAX);
            put(&mut inbox, header);
            assert!(inbox.next_frame().is_err(), "{header:?}");
        }
    }
}
