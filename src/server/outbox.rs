//! What is on its way to one client: messages leave a connection in the order in which they were queued (R1).
//!
//! Whoever queues something tries to send it at once, without waiting; what the kernel does not take is left
//! to a writer thread that lives until the queue is empty. So a reply costs no hand-off, and no slow client
//! blocks a committer. A client that lets more than [`PUSHED_MAX`] bytes of invalidations pile up is cut off:
//! it verifies its cache when it returns. For a client's own replies its session thread waits instead.
//!
//! The lock of the queue is also this connection's share of the publish lock, see [`super::publish`]; nobody
//! sends while holding it. The right to send is the flag `sending`, which only one thread has at a time.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::thread;

use crate::base::sync::{Arc, AtomicBool, Condvar, Mutex, MutexGuard, Ordering};
use crate::net::stream::{Sink, Stream};

/// Bytes that others may queue for a client that does not read.
pub const PUSHED_MAX: usize = 16 << 20;
/// Bytes in the queue above which the session of a client waits before it queues more replies.
const OWN_MAX: usize = 1 << 20;
/// Chunks in one system call.
const CHUNKS_MAX: usize = 64;
/// The writer only sends.
const WRITER_STACK: usize = 64 << 10;

/// Whole frames, shared between connections or not.
#[derive(Clone, Debug)]
pub enum Chunk {
    Shared(Arc<[u8]>),
    Own(Vec<u8>),
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match self {
            Chunk::Shared(bytes) => bytes,
            Chunk::Own(bytes) => bytes,
        }
    }
}

/// The queue of one connection and its way out.
#[derive(Debug)]
pub struct Outbox<S: Sink = Stream> {
    queue: Mutex<Queue>,
    /// Told when the queue got shorter or the outbox was closed.
    drained: Condvar,
    /// As `Queue::closed`, to be asked without the lock.
    is_closed: AtomicBool,
    sink: S,
}

#[derive(Debug, Default)]
struct Queue {
    chunks: VecDeque<Chunk>,
    /// Bytes of the first chunk that were sent already.
    front_sent: usize,
    /// Bytes in `chunks` that are still to be sent.
    len: usize,
    /// Somebody has the right to send: a sender that got the lock, or the writer thread.
    sending: bool,
    closed: Option<&'static str>,
    /// Threads that wait on `drained`; a notice to nobody would cost a system call.
    waiters: usize,
}

/// The place behind everything that was queued so far, kept by holding the queue's lock.
pub struct Place<'a, S: Sink> {
    outbox: &'a Outbox<S>,
    queue: MutexGuard<'a, Queue>,
}

impl<S: Sink> Outbox<S> {
    pub fn new(sink: S) -> Outbox<S> {
        Outbox { queue: Mutex::default(), drained: Condvar::new(), is_closed: AtomicBool::new(false), sink }
    }

    pub fn sink(&self) -> &S {
        &self.sink
    }

    /// Takes the lock of the queue.
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

    /// Why the connection was ended from our side, if it was.
    pub fn close_reason(&self) -> Option<&'static str> {
        self.queue.lock().closed
    }

    /// Nothing can be sent any more: there is no point in working for this client.
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

    fn wait<'a>(&'a self, mut queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        queue.waiters += 1;
        let mut queue = self.drained.wait(queue);
        queue.waiters -= 1;
        queue
    }

    fn notify(&self, queue: MutexGuard<'_, Queue>) {
        let waiters = queue.waiters;
        drop(queue);
        if waiters > 0 {
            self.drained.notify_all();
        }
    }

    /// Sends own replies, waiting for a slow client.
    fn send_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        match self.sink.try_send(&[IoSlice::new(bytes)]) {
            Ok(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        while !bytes.is_empty() {
            let sent = self.sink.send(&[IoSlice::new(bytes)])?;
            bytes = bytes.get(sent..).unwrap_or_default();
        }
        Ok(())
    }
}

impl<S: Sink + 'static> Outbox<S> {
    /// Sends what is queued, unless somebody is at it already. Does not wait.
    pub fn flush(self: &Arc<Self>) {
        let mut queue = self.queue.lock();
        if queue.sending || queue.chunks.is_empty() {
            return;
        }
        queue.sending = true;
        self.drain(queue, false);
    }

    /// Sends until the queue is empty. The caller has the right to send; it is given up at the end, or goes to a
    /// writer thread if the kernel takes no more and the caller does not wait.
    fn drain<'a>(self: &'a Arc<Self>, mut queue: MutexGuard<'a, Queue>, may_wait: bool) {
        loop {
            if queue.closed.is_some() || queue.chunks.is_empty() {
                queue.sending = false;
                self.notify(queue);
                return;
            }
            // Chunks are cheap to clone only if shared; so take them out and put back what was not sent.
            let count = queue.chunks.len().min(CHUNKS_MAX);
            let taken: Vec<Chunk> = queue.chunks.drain(..count).collect();
            let skip = std::mem::take(&mut queue.front_sent);
            drop(queue);

            let slices: Vec<IoSlice<'_>> = taken
                .iter()
                .enumerate()
                .map(|(i, chunk)| {
                    IoSlice::new(chunk.bytes().get(if i == 0 { skip } else { 0 }..).unwrap_or_default())
                })
                .collect();
            let result = if may_wait { self.sink.send(&slices) } else { self.sink.try_send(&slices) };
            let total: usize = slices.iter().map(|slice| slice.len()).sum();
            drop(slices);

            let (sent, blocked) = match result {
                Ok(sent) => (sent, !may_wait && sent < total),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => (0, true),
                Err(_) => {
                    self.close("the client is gone");
                    let mut queue = self.queue.lock();
                    queue.sending = false;
                    self.notify(queue);
                    return;
                }
            };
            queue = self.queue.lock();
            if queue.closed.is_none() {
                queue.put_back(taken, skip + sent);
                queue.len -= sent;
            }
            if blocked {
                self.notify(queue);
                self.hand_to_writer();
                return;
            }
            if queue.waiters > 0 {
                self.drained.notify_all();
            }
        }
    }

    /// The right to send goes with it.
    fn hand_to_writer(self: &Arc<Self>) {
        let outbox = Arc::clone(self);
        let write = move || outbox.drain(outbox.queue.lock(), true);
        let spawned = thread::Builder::new().name("zeo-writer".into()).stack_size(WRITER_STACK).spawn(write);
        if spawned.is_err() {
            self.close("no thread could be started for a slow client");
            self.queue.lock().sending = false;
        }
    }
}

impl Queue {
    /// The first reason is kept.
    fn close(&mut self, reason: &'static str) {
        self.closed.get_or_insert(reason);
        self.chunks.clear();
        self.front_sent = 0;
        self.len = 0;
    }

    /// Puts chunks back to the front, less the first `sent` bytes of them.
    fn put_back(&mut self, taken: Vec<Chunk>, mut sent: usize) {
        let mut rest: Vec<Chunk> = Vec::new();
        for chunk in taken {
            let len = chunk.bytes().len();
            if rest.is_empty() && sent >= len {
                sent -= len;
            } else {
                rest.push(chunk);
            }
        }
        if !rest.is_empty() {
            self.front_sent = sent;
        }
        for chunk in rest.into_iter().rev() {
            self.chunks.push_front(chunk);
        }
    }
}

impl<S: Sink> Place<'_, S> {
    /// Queue a message that the client did not wait for. It is sent by the next [`Outbox::flush`].
    pub fn push(&mut self, chunk: Chunk) {
        if self.queue.closed.is_some() {
            return;
        }
        let len = chunk.bytes().len();
        self.queue.len += len;
        self.queue.chunks.push_back(chunk);
        if self.queue.len > PUSHED_MAX + OWN_MAX {
            self.queue.close("the client does not read what it is sent");
            self.outbox.is_closed.store(true, Ordering::Relaxed);
            // Does not wait, whatever the peer does.
            self.outbox.sink.shutdown();
            if self.queue.waiters > 0 {
                self.outbox.drained.notify_all();
            }
        }
    }
}

impl<S: Sink + 'static> Outbox<S> {
    /// Send replies of the session's own from a place that it holds. Waits for a slow client.
    pub fn send_own(self: &Arc<Self>, place: Place<'_, S>, bytes: &[u8]) {
        let mut queue = place.queue;
        if queue.closed.is_some() {
            return;
        }
        if queue.sending || !queue.chunks.is_empty() {
            queue.len += bytes.len();
            queue.chunks.push_back(Chunk::Own(bytes.to_vec()));
            drop(queue);
            self.flush();
            self.wait_for_room();
            return;
        }
        queue.sending = true;
        drop(queue);
        let result = self.send_all(bytes);
        if result.is_err() {
            self.close("the client is gone");
        }
        // What others queued meanwhile is sent without waiting for it.
        self.drain(self.queue.lock(), false);
    }

    /// Makes the session thread wait while more of its replies are queued than a client should leave unread.
    fn wait_for_room(&self) {
        let mut queue = self.queue.lock();
        while queue.closed.is_none() && queue.len > OWN_MAX {
            queue = self.wait(queue);
        }
    }
}
