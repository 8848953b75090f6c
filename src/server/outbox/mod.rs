//! The queue of messages to one client, and its way out. Messages leave a connection in the order in which they were
//! queued (R1).
//!
//! | file | content |
//! |---|---|
//! | this one | the queue; [`Place`], the position of a message in it |
//! | `send.rs` | sending: at once, without waiting; what the kernel does not take is left to a writer thread |
//! | `slow_client.rs` | clients that do not read: `max-unsent` closes them, their sessions wait for room |
//!
//! The lock of the queue is also this connection's share of the publish lock, see [`super::publish`]. *Invariant:
//! nobody sends while holding it, nor shuts the socket down* (TLS sends close_notify first).
//!
//! The right to send is the flag `sending`, which one thread has at a time. On a connection that has a session key,
//! that thread signs the messages on their way out: the code of each depends on all before it, and a shared chunk
//! goes to many connections. Nothing is signed under the lock.

mod send;
mod slow_client;

pub use slow_client::UNREAD;

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::clock::IoDeadline;
use crate::base::sync::{Arc, AtomicBool, Condvar, Mutex, MutexGuard, Ordering, rank};
use crate::net::stream::{Sink, Stream};
use crate::wire::mac::RunningMac;

/// Whole frames, shared between connections or not.
#[derive(Clone, Debug)]
pub enum Chunk {
    Shared(Arc<[u8]>),
    Own(Vec<u8>),
    /// With message authentication codes.
    Signed(Vec<u8>),
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match self {
            Chunk::Shared(bytes) => bytes,
            Chunk::Own(bytes) | Chunk::Signed(bytes) => bytes,
        }
    }
}

/// The queue of one connection and its way out.
#[derive(Debug)]
pub struct Outbox<S: Sink = Stream> {
    queue: Mutex<Queue, rank::Outbox>,
    /// Notified when the queue got shorter or the outbox was closed.
    drained: Condvar,
    /// Whether `Queue::closed` is set; read without the lock.
    is_closed: AtomicBool,
    /// No writer thread could be started: the rest waits for the next flush.
    is_stalled: AtomicBool,
    /// `max-unsent`
    len_max: usize,
    sink: S,
}

/// A chunk that is to be sent.
#[derive(Debug)]
struct Queued {
    chunk: Chunk,
    /// Its part of [`Queue::unasked_len`]; 0 for replies.
    unasked_len: usize,
}

#[derive(Debug, Default)]
struct Queue {
    chunks: VecDeque<Queued>,
    /// Bytes of the first chunk that were sent already.
    front_sent: usize,
    /// Bytes in `chunks` that are still to be sent.
    len: usize,
    /// Bytes that were sent, without those of TLS.
    sent: u64,
    /// Bytes of the chunks that the client has not asked for: `max-unsent` is for them. The first chunk counts as a
    /// whole until it is sent.
    unasked_len: usize,
    /// A thread has the right to send: one that got the lock, or the writer thread.
    sending: bool,
    /// Signs sent messages. The thread that has the right to send takes it out, and puts it back when it locks the
    /// queue again.
    signer: Option<Box<RunningMac>>,
    /// The reason, if the connection was ended from our side.
    closed: Option<&'static str>,
    /// Closed under the lock: the next flush shuts the socket down.
    shut_down_at_flush: bool,
    /// Number of threads that wait on `drained`: notifying none would cost a system call.
    waiters: usize,
}

/// How much an outbox has, and had.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct OutboxLoad {
    /// Bytes that are queued.
    pub queued: usize,
    /// Bytes that were sent since the connection was made.
    pub sent: u64,
}

/// The position behind everything queued so far, fixed by holding the queue's lock.
pub struct Place<'a, S: Sink> {
    outbox: &'a Outbox<S>,
    queue: MutexGuard<'a, Queue>,
}

impl<S: Sink> Outbox<S> {
    /// At most `len_max` bytes that it did not ask for (`max-unsent`) are queued for a client.
    pub fn new(sink: S, len_max: usize) -> Outbox<S> {
        Outbox {
            queue: Mutex::new(Queue::default()),
            drained: Condvar::new(),
            is_closed: AtomicBool::new(false),
            is_stalled: AtomicBool::new(false),
            len_max,
            sink,
        }
    }

    pub fn sink(&self) -> &S {
        &self.sink
    }

    /// Locks the queue: the position behind everything that is queued now.
    pub fn place(&self) -> Place<'_, S> {
        Place { outbox: self, queue: self.queue.lock() }
    }

    /// Ends the connection. The first reason is kept, for the session's last log line.
    pub fn close(&self, reason: &'static str) {
        {
            let mut queue = self.queue.lock();
            queue.close(reason);
        }
        self.is_closed.store(true, Ordering::Relaxed);
        self.drained.notify_all();
        self.sink.shutdown();
    }

    /// How much is queued, and was sent.
    pub fn load(&self) -> OutboxLoad {
        let queue = self.queue.lock();
        OutboxLoad { queued: queue.len, sent: queue.sent }
    }

    /// Why the connection was ended from our side, if it was.
    pub fn close_reason(&self) -> Option<&'static str> {
        self.queue.lock().closed
    }

    /// Whether nothing can be sent any more, so that work for this client is of no use.
    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    /// Waits until everything queued was sent or the connection is closed.
    pub fn wait_until_sent(&self) {
        let mut queue = self.queue.lock();
        while queue.closed.is_none() && (queue.sending || !queue.chunks.is_empty()) {
            queue = self.wait(queue);
        }
    }

    /// Waits until the connection is closed, at most for this long.
    pub fn wait_until_closed(&self, at_most: Duration) {
        let deadline = IoDeadline::after(at_most);
        let mut queue = self.queue.lock();
        while queue.closed.is_none() && !deadline.is_over() {
            queue.waiters += 1;
            queue = self.drained.wait_timeout(queue, deadline.left());
            queue.waiters -= 1;
        }
    }

    /// Signs every later message; queued ones are sent first, without a signature.
    pub fn sign_from_here(&self, signer: RunningMac) {
        let mut queue = self.queue.lock();
        while queue.closed.is_none() && (queue.sending || !queue.chunks.is_empty()) {
            queue = self.wait(queue);
        }
        queue.signer = Some(Box::new(signer));
    }

    /// Waits for a notice of `drained`.
    fn wait<'a>(&'a self, mut queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        queue.waiters += 1;
        let mut queue = self.drained.wait(queue);
        queue.waiters -= 1;
        queue
    }

    /// Unlocks the queue and wakes the threads that wait on `drained`.
    fn notify(&self, queue: MutexGuard<'_, Queue>) {
        let waiters = queue.waiters;
        drop(queue);
        if waiters > 0 {
            self.drained.notify_all();
        }
    }
}

impl Queue {
    /// The first reason is kept.
    fn close(&mut self, reason: &'static str) {
        self.closed.get_or_insert(reason);
        self.chunks.clear();
        self.front_sent = 0;
        (self.len, self.unasked_len) = (0, 0);
    }

    fn push_reply(&mut self, bytes: Vec<u8>) {
        self.len += bytes.len();
        self.chunks.push_back(Queued { chunk: Chunk::Own(bytes), unasked_len: 0 });
    }
}

impl<S: Sink> Place<'_, S> {
    /// Queues a message that the client did not ask for. It is sent by the next [`Outbox::flush`], which also ends
    /// the connection if more than `max-unsent` bytes of such messages are queued now.
    pub fn push(&mut self, chunk: Chunk) {
        if self.queue.closed.is_some() {
            return;
        }
        let len = chunk.bytes().len();
        self.queue.len += len;
        self.queue.unasked_len += len;
        self.queue.chunks.push_back(Queued { chunk, unasked_len: len });
        self.close_if_too_slow();
    }

    /// Ends the connection: nothing more is sent, and the next [`Outbox::flush`] shuts the socket down.
    pub fn close(&mut self, reason: &'static str) {
        if self.queue.closed.is_none() {
            self.queue.close(reason);
            self.queue.shut_down_at_flush = true;
            self.outbox.is_closed.store(true, Ordering::Relaxed);
            if self.queue.waiters > 0 {
                self.outbox.drained.notify_all();
            }
        }
    }

    /// Queues the reply to a call of the client's, without waiting for the client. The memory of such replies is
    /// limited where the calls are accepted (`slow_client.rs`). It is sent by the next [`Outbox::flush`].
    pub fn push_reply(&mut self, bytes: Vec<u8>) {
        if self.queue.closed.is_none() {
            self.queue.push_reply(bytes);
        }
    }
}

#[cfg(test)]
mod tests;
