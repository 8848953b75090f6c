//! The messages that are to be sent, and who sends them.
//!
//! A thread encodes its message into the queue. If no other thread is sending, it sends what is there until the queue
//! is empty; else it goes on, and the thread that is sending takes the message with the others. So messages are never
//! mixed, several that wait leave in one system call, and no lock is held while a thread sends.
//!
//! Large messages wait before they are queued until little else is queued, so that small ones never wait behind many of
//! them.

use std::io::{self, IoSlice};
use std::mem;

use crate::base::sync::{Action, AtomicU64, Condvar, Mutex, MutexGuard, Ordering, assert_permitted, rank};
use crate::net::stream::{Sink, Stream};
use crate::wire::calls::Call;
use crate::wire::mac::RunningMac;
use crate::wire::protocol::Wire;

/// Queued bytes up to which another message is queued.
const QUEUED_MAX: usize = 1 << 20;
/// The same for messages that are large or come in great numbers.
const QUEUED_MAX_BULK: usize = 64 << 10;
/// Length of an argument that makes a message large.
const LARGE: usize = 32 << 10;
/// Capacity that an idle buffer keeps.
const KEEP_LEN: usize = 256 << 10;

/// Whether a message may delay others.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Weight {
    Light,
    Bulk,
}

impl Weight {
    pub fn of(call: &Call<'_>) -> Weight {
        if call.data_len() > LARGE { Weight::Bulk } else { Weight::Light }
    }

    fn queued_max(self) -> usize {
        match self {
            Weight::Light => QUEUED_MAX,
            Weight::Bulk => QUEUED_MAX_BULK,
        }
    }
}

pub(super) struct Sending {
    queue: Mutex<Queue, rank::LinkQueue>,
    /// The queue was taken, or the link has ended.
    has_room: Condvar,
    /// Number of times that bytes were sent.
    count: AtomicU64,
}

struct Queue {
    wire: Wire,
    /// Whole messages that no thread sends yet.
    frames: Vec<u8>,
    /// `None`: a thread is sending.
    sender: Option<Box<Sender>>,
    /// Threads that wait for room.
    waiting: usize,
    has_ended: bool,
}

/// What the thread that sends has for itself.
struct Sender {
    /// Sent up to `sent`.
    bytes: Vec<u8>,
    sent: usize,
    /// Messages that get a code on their way into `bytes`.
    unsigned: Vec<u8>,
    mac: Option<RunningMac>,
}

impl Sending {
    pub fn new(wire: Wire, mac: Option<RunningMac>) -> Sending {
        let sender = Sender { bytes: Vec::new(), sent: 0, unsigned: Vec::new(), mac };
        let sender = Some(Box::new(sender));
        Sending {
            queue: Mutex::new(Queue { wire, frames: Vec::new(), sender, waiting: 0, has_ended: false }),
            has_room: Condvar::new(),
            count: AtomicU64::new(0),
        }
    }

    /// Queues the message that `encode` appends and sends it, unless another thread will. After the end of the link
    /// nothing is done.
    pub fn send(
        &self,
        stream: &Stream,
        weight: Weight,
        encode: impl FnOnce(&Wire, &mut Vec<u8>),
    ) -> io::Result<()> {
        assert_permitted(Action::Network, "sending to a server");
        let mut queue = self.queue.lock();
        while queue.frames.len() > weight.queued_max() && !queue.has_ended {
            queue.waiting += 1;
            queue = self.has_room.wait(queue);
            queue.waiting -= 1;
        }
        if queue.has_ended {
            return Ok(());
        }
        queue.encode(encode);
        match queue.sender.take() {
            Some(sender) => self.send_all(stream, sender, queue),
            None => Ok(()),
        }
    }

    /// Sends until the queue is empty.
    fn send_all<'a>(
        &'a self,
        stream: &Stream,
        mut sender: Box<Sender>,
        mut queue: MutexGuard<'a, Queue>,
    ) -> io::Result<()> {
        while !queue.has_ended && sender.take(&mut queue) {
            let is_awaited = queue.waiting > 0;
            drop(queue);
            if is_awaited {
                self.has_room.notify_all();
            }
            while let Some(bytes) = sender.rest() {
                let count = stream.send(&[IoSlice::new(bytes)])?;
                sender.sent += count;
                self.count.fetch_add(1, Ordering::Relaxed);
            }
            queue = self.queue.lock();
        }
        queue.sender = Some(sender);
        Ok(())
    }

    /// Sends a short message, or leaves it to the thread that is sending. Never waits: what the kernel does not take
    /// is left to the next thread that sends.
    pub fn send_now(&self, stream: &Stream, encode: impl FnOnce(&Wire, &mut Vec<u8>)) -> io::Result<()> {
        let mut queue = self.queue.lock();
        if queue.has_ended {
            return Ok(());
        }
        queue.encode(encode);
        let Some(mut sender) = queue.sender.take() else { return Ok(()) };
        sender.take(&mut queue);
        // Under the lock: no other thread may leave its message to this one, which does not send all.
        let result = sender.rest().map_or(Ok(0), |bytes| stream.try_send(&[IoSlice::new(bytes)]));
        match result {
            Ok(count) => sender.sent += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        queue.sender = Some(sender);
        Ok(())
    }

    /// From now on messages are encoded for this wire.
    pub fn set_wire(&self, wire: Wire) {
        self.queue.lock().wire = wire;
    }

    /// Number of times that bytes were sent.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// No thread waits any more, and nothing is queued.
    pub fn end(&self) {
        let mut queue = self.queue.lock();
        queue.has_ended = true;
        drop(queue);
        self.has_room.notify_all();
    }
}

impl Queue {
    fn encode(&mut self, encode: impl FnOnce(&Wire, &mut Vec<u8>)) {
        encode(&self.wire, &mut self.frames);
    }
}

impl Sender {
    /// Takes the queue if there is nothing left of what was taken before. Whether there is anything to send.
    fn take(&mut self, queue: &mut Queue) -> bool {
        if self.sent < self.bytes.len() {
            return true;
        }
        self.sent = 0;
        empty(&mut self.bytes);
        match &mut self.mac {
            None => mem::swap(&mut self.bytes, &mut queue.frames),
            Some(mac) => {
                mem::swap(&mut self.unsigned, &mut queue.frames);
                mac.sign_frames(&self.unsigned, &mut self.bytes);
                empty(&mut self.unsigned);
            }
        }
        !self.bytes.is_empty()
    }

    fn rest(&self) -> Option<&[u8]> {
        self.bytes.get(self.sent..).filter(|bytes| !bytes.is_empty())
    }
}

/// Empties a buffer, and releases its memory if it is large.
fn empty(buffer: &mut Vec<u8>) {
    buffer.clear();
    if buffer.capacity() > KEEP_LEN {
        *buffer = Vec::new();
    }
}
