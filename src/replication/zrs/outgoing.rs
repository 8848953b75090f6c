//! What a primary sends: frames, and the checksum of all payloads.

use std::io;

use md5::{Digest, Md5};

use crate::base::ids::Tid;
use crate::base::sync::Arc;
use crate::net::stream::Stream;
use crate::replication::frames::{BUFFER_LEN, head_of, send_all};

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
