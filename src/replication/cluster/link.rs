//! Both directions of a connection between two servers of a cluster: messages in frames, many of them compressed
//! together if the receiving side wishes it.

use std::io;
use std::time::Duration;

use super::message::{Message, put};
use crate::base::memory;
use crate::base::sync::Arc;
use crate::net::stream::Stream;
use crate::replication::frames::{BUFFER_LEN, Incoming, head_of, send_all};

/// Longest frame with a record, a blob's bytes or a batch.
const DATA_FRAME_MAX: usize = (1 << 30) + 64;
/// Longest other frame.
pub const FRAME_MAX: usize = 1 << 18;
/// Longest batch, before and after it is compressed. What is longer is sent as it is.
const BATCH_MAX: usize = 16 << 20;
/// A shorter batch is not worth it.
const BATCH_MIN: usize = 512;
/// Of zstd: the quickest of its levels.
const LEVEL: i32 = 1;

/// The sending direction.
pub struct Outgoing {
    stream: Arc<Stream>,
    /// Frames that were not sent yet.
    buffer: Vec<u8>,
    compress: bool,
    crc: flate2::Crc,
    /// Bytes that were sent.
    sent: u64,
}

impl Outgoing {
    pub fn new(stream: Arc<Stream>, compress: bool) -> Outgoing {
        Outgoing { stream, buffer: Vec::new(), compress, crc: flate2::Crc::new(), sent: 0 }
    }

    /// Adds a message, and sends if enough has been collected.
    pub fn put(&mut self, message: &Message<'_>) -> io::Result<()> {
        if let Message::Transaction { .. } = message {
            self.crc.reset();
        }
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0; 4]);
        put(message, &mut self.buffer);
        let payload = self.buffer.get(start + 4..).unwrap_or_default();
        self.crc.update(payload);
        let head = head_of(payload.len())?;
        if let Some(place) = self.buffer.get_mut(start..start + 4) {
            place.copy_from_slice(&head);
        }
        if self.buffer.len() >= BUFFER_LEN { self.flush() } else { Ok(()) }
    }

    /// Ends a transaction, with the checksum of its messages.
    pub fn put_end(&mut self) -> io::Result<()> {
        self.put(&Message::End { checksum: self.crc.sum() })
    }

    /// A message that is sent at once.
    pub fn send(&mut self, message: &Message<'_>) -> io::Result<()> {
        self.put(message)?;
        self.flush()
    }

    pub fn flush(&mut self) -> io::Result<()> {
        if self.compress && (BATCH_MIN..=BATCH_MAX).contains(&self.buffer.len()) {
            let batch = zstd::bulk::compress(&self.buffer, LEVEL)?;
            self.buffer.clear();
            let payload_len = batch.len() + 1;
            self.buffer.extend_from_slice(&head_of(payload_len)?);
            put(&Message::Batch(&batch), &mut self.buffer);
        }
        let result = send_all(&self.stream, &self.buffer);
        self.sent += self.buffer.len() as u64;
        self.buffer.clear();
        if self.buffer.capacity() > 4 * BUFFER_LEN {
            self.buffer = Vec::new();
        }
        result
    }

    /// Bytes that were sent so far.
    pub fn sent(&self) -> u64 {
        self.sent
    }
}

/// The receiving direction.
pub struct Receiving {
    incoming: Incoming,
    stream: Arc<Stream>,
    /// The last frame.
    frame: Vec<u8>,
    /// Frames of the last batch, and how far they were read.
    batch: Vec<u8>,
    batch_at: usize,
    /// Batches are unpacked. Of a peer that may be anybody they are not: a small one may become a large one.
    takes_batches: bool,
    crc: flate2::Crc,
}

impl Receiving {
    /// `is_replica`: much is to be expected, and batches are unpacked.
    pub fn new(stream: Arc<Stream>, is_replica: bool) -> Receiving {
        let incoming = match is_replica {
            true => Incoming::new(Arc::clone(&stream)),
            false => Incoming::small(Arc::clone(&stream)),
        };
        let (frame, batch) = (Vec::new(), Vec::new());
        let (takes_batches, crc) = (is_replica, flate2::Crc::new());
        Receiving { incoming, stream, frame, batch, batch_at: 0, takes_batches, crc }
    }

    /// A peer that is silent for longer is gone.
    pub fn set_silence_max(&self, silence_max: Duration) -> io::Result<()> {
        self.stream.set_receive_max(Some(silence_max))
    }

    /// The next message. `None`: the other side has ended the connection.
    ///
    /// Errors: those of the stream; `TimedOut` after too long a silence; `InvalidData` for what is no message.
    pub fn next_message(&mut self) -> io::Result<Option<Message<'_>>> {
        self.next_within(DATA_FRAME_MAX)
    }

    /// The next message, which is short.
    pub fn next_short(&mut self) -> io::Result<Option<Message<'_>>> {
        self.next_within(FRAME_MAX)
    }

    fn next_within(&mut self, len_max: usize) -> io::Result<Option<Message<'_>>> {
        if self.batch_at >= self.batch.len() {
            let silent = || Err(io::Error::new(io::ErrorKind::TimedOut, "it is silent"));
            if !self.incoming.next(len_max, &mut self.frame, &mut { silent })? {
                return Ok(None);
            }
            if self.takes_batches && self.frame.first() == Some(&b'z') {
                let squeezed = self.frame.get(1..).unwrap_or_default();
                self.batch = zstd::bulk::decompress(squeezed, BATCH_MAX).map_err(wrong)?;
                self.batch_at = 0;
            }
        }
        if self.batch_at < self.batch.len() {
            self.next_of_batch()?;
        }
        if self.frame.first() == Some(&b't') {
            self.crc.reset();
        }
        let message = Message::parse(&self.frame).map_err(wrong)?;
        match message {
            // Not of itself.
            Message::End { .. } => {}
            _ => self.crc.update(&self.frame),
        }
        Ok(Some(message))
    }

    fn next_of_batch(&mut self) -> io::Result<()> {
        let rest = self.batch.get(self.batch_at..).unwrap_or_default();
        let payload = rest.split_first_chunk::<4>().and_then(|(head, rest)| {
            let len = u32::from_be_bytes(*head) as usize;
            rest.get(..len)
        });
        let payload = payload.ok_or_else(|| wrong("a batch that ends within a frame"))?;
        self.frame.clear();
        memory::reserve(&mut self.frame, payload.len())?;
        self.frame.extend_from_slice(payload);
        self.batch_at += 4 + payload.len();
        Ok(())
    }

    /// The checksum of the messages of the transaction so far.
    pub fn checksum(&self) -> u32 {
        self.crc.sum()
    }
}

/// What the other side has sent makes no sense.
pub fn wrong(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::thread;

    use super::*;
    use crate::base::ids::{Oid, Tid};
    use crate::storage::TransactionMeta;

    fn pair() -> [Arc<Stream>; 2] {
        let (one, other) = UnixStream::pair().unwrap();
        [one, other].map(|end| {
            let socket = std::os::fd::OwnedFd::from(end).into();
            Arc::new(Stream::new(socket, false, None, None).unwrap())
        })
    }

    #[test]
    fn messages_arrive_compressed_or_not_with_the_same_checksum() {
        let long = vec![7; 3 * BUFFER_LEN];
        for compress in [false, true] {
            let [one, other] = pair();
            let (meta, long_data) = (TransactionMeta::default(), long.clone());
            let sender = thread::spawn(move || {
                let mut out = Outgoing::new(one, compress);
                out.put(&Message::Transaction { tid: Tid(1), after: Tid::ZERO, status: b' ', meta }).unwrap();
                for data in [&b"short"[..], &long_data, &[1; 600]] {
                    let data = Some(data);
                    out.put(&Message::Record { oid: Oid(1), tid: Tid(1), data_txn: None, data }).unwrap();
                }
                out.put_end().unwrap();
                out.flush().unwrap();
                out.sent()
            });
            let mut receiving = Receiving::new(other, true);
            let mut lens = Vec::new();
            let mut ended = None;
            while let Some(message) = receiving.next_message().unwrap() {
                match message {
                    Message::Record { data, .. } => lens.push(data.unwrap().len()),
                    Message::End { checksum } => ended = Some(checksum),
                    Message::Transaction { .. } => {}
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!((lens, ended), (vec![5, long.len(), 600], Some(receiving.checksum())));
            assert_eq!(sender.join().unwrap() < 100_000, compress);
        }
    }

    /// A frame of some hundred bytes could fill megabytes of memory before its sender is known.
    #[test]
    fn only_a_replica_unpacks_batches() {
        for is_replica in [true, false] {
            let [one, other] = pair();
            let mut out = Outgoing::new(one, true);
            let data = Some(&[0; 100_000][..]);
            out.send(&Message::Record { oid: Oid(1), tid: Tid(1), data_txn: None, data }).unwrap();
            let mut receiving = Receiving::new(other, is_replica);
            let message = receiving.next_short().unwrap().unwrap();
            assert_eq!(matches!(message, Message::Record { .. }), is_replica);
            assert_eq!(matches!(message, Message::Batch(_)), !is_replica);
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for (bytes, short) in [
            (&b"\0\0\0\x01?"[..], false),
            (b"\0\0\0\0", false),
            (b"\0\x05\0\0", true),
            (b"\x50\0\0\0", false),
        ] {
            let [one, other] = pair();
            send_all(&one, bytes).unwrap();
            let mut receiving = Receiving::new(other, false);
            let next = if short { receiving.next_short() } else { receiving.next_message() };
            assert_eq!(next.unwrap_err().kind(), io::ErrorKind::InvalidData, "{bytes:?}");
        }
    }
}
