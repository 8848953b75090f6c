//! What is on its way to one client: messages leave a connection in the order in which they were queued (R1).
//!
//! Whoever queues something tries to send it at once, without waiting; what the kernel does not take is left
//! to a writer thread that lives until the queue is empty. So a reply costs no hand-off, and no slow client
//! blocks a committer. A client that lets more than `max-unsent` bytes of invalidations pile up is cut off:
//! it verifies its cache when it returns.
//!
//! Replies to the client's own calls do not count for that. Their memory is bounded by waiting: the session, which reads the
//! calls, queues no more of its replies while more than [`OWN_MAX`] bytes are queued ([`Outbox::wait_for_room`]). Other threads
//! that reply to a vote, a finish, an undo or a pack hold locks or are shared, so they do not wait ([`Place::push_reply`]); instead the
//! session waits for room before it hands a vote, an undo or a pack to them (a finish needs a vote before it). At most one vote or undo of a connection is under way, so at most
//! one reply of that size is queued beyond the bound, and it is no longer than what the client has stored in the transaction. The
//! rest are small, and limited in number where they are made.
//!
//! The lock of the queue is also this connection's share of the publish lock, see [`super::publish`]; nobody
//! sends while holding it, nor shuts the socket down (TLS says goodbye first): what a [`Place`] finds to be too much is left to
//! the next [`Outbox::flush`]. The right to send is the flag `sending`, which only one thread has at a time.
//!
//! On a connection that has a session key, whoever has the right to send signs the messages on their way out: the code
//! of each depends on all before it, and a shared chunk goes to many connections. Nothing is signed under the lock.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::thread;

use crate::base::memory;
use crate::base::sync::{Arc, AtomicBool, Condvar, Mutex, MutexGuard, Ordering, rank};
use crate::net::stream::{Sink, Stream};
use crate::wire::mac::RunningMac;

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
    /// Told when the queue got shorter or the outbox was closed.
    drained: Condvar,
    /// As `Queue::closed`, to be asked without the lock.
    is_closed: AtomicBool,
    /// No thread could be started to send the rest: it waits for the next flush.
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
    /// Bytes of the chunks that the client has not asked for: `max-unsent` is for them. The first chunk counts as a whole until it
    /// is sent.
    unasked_len: usize,
    /// Somebody has the right to send: a sender that got the lock, or the writer thread.
    sending: bool,
    /// Signs what is sent. Whoever has the right to send takes it along, and puts it back under the same lock that it
    /// takes to go on.
    signer: Option<Box<RunningMac>>,
    closed: Option<&'static str>,
    /// Closed under the lock: the next flush shuts the socket down.
    shut_down_at_flush: bool,
    /// Threads that wait on `drained`; a notice to nobody would cost a system call.
    waiters: usize,
}

/// The place behind everything that was queued so far, kept by holding the queue's lock.
pub struct Place<'a, S: Sink> {
    outbox: &'a Outbox<S>,
    queue: MutexGuard<'a, Queue>,
}

impl<S: Sink> Outbox<S> {
    /// `len_max` bytes may be queued for a client that does not read.
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

    /// Sign every message from here on; what is queued goes out first, without a signature.
    pub fn sign_from_here(&self, signer: RunningMac) {
        let mut queue = self.queue.lock();
        while queue.closed.is_none() && (queue.sending || !queue.chunks.is_empty()) {
            queue = self.wait(queue);
        }
        queue.signer = Some(Box::new(signer));
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
        if std::mem::take(&mut queue.shut_down_at_flush) {
            drop(queue);
            return self.sink.shutdown();
        }
        if queue.sending || queue.chunks.is_empty() {
            return;
        }
        queue.sending = true;
        self.drain(queue, false);
    }

    /// Sends what no writer thread could be started for. To be called from time to time.
    pub fn flush_stalled(self: &Arc<Self>) {
        if self.is_stalled.swap(false, Ordering::Relaxed) {
            self.flush();
        }
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
            let mut taken: Vec<Queued> = queue.chunks.drain(..count).collect();
            let skip = std::mem::take(&mut queue.front_sent);
            let mut signer = queue.signer.take();
            drop(queue);
            let added = signer.as_mut().map_or(0, |signer| sign(signer, &mut taken));

            let slices: Vec<IoSlice<'_>> = taken
                .iter()
                .enumerate()
                .map(|(i, queued)| {
                    IoSlice::new(
                        queued.chunk.bytes().get(if i == 0 { skip } else { 0 }..).unwrap_or_default(),
                    )
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
            queue.signer = signer;
            if queue.closed.is_none() {
                queue.put_back(taken, skip + sent);
                queue.len = (queue.len + added).saturating_sub(sent);
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
            self.is_stalled.store(true, Ordering::Relaxed);
            let mut queue = self.queue.lock();
            queue.sending = false;
            self.notify(queue);
        }
    }
}

/// Signs the chunks that are not signed yet. Returns the bytes that were added.
fn sign(signer: &mut RunningMac, queued: &mut [Queued]) -> usize {
    let mut added = 0;
    for Queued { chunk, .. } in queued {
        if matches!(chunk, Chunk::Signed(_)) {
            continue;
        }
        let mut signed = Vec::new();
        signer.sign_frames(chunk.bytes(), &mut signed);
        added += signed.len().saturating_sub(chunk.bytes().len());
        *chunk = Chunk::Signed(signed);
    }
    added
}

impl Queue {
    /// The first reason is kept.
    fn close(&mut self, reason: &'static str) {
        self.closed.get_or_insert(reason);
        self.chunks.clear();
        self.front_sent = 0;
        (self.len, self.unasked_len) = (0, 0);
    }

    /// Puts chunks back to the front, less the first `sent` bytes of them.
    fn put_back(&mut self, taken: Vec<Queued>, mut sent: usize) {
        let mut rest: Vec<Queued> = Vec::new();
        for queued in taken {
            let len = queued.chunk.bytes().len();
            if rest.is_empty() && sent >= len {
                sent -= len;
                self.unasked_len = self.unasked_len.saturating_sub(queued.unasked_len);
            } else {
                rest.push(queued);
            }
        }
        if !rest.is_empty() {
            self.front_sent = sent;
        }
        for queued in rest.into_iter().rev() {
            self.chunks.push_front(queued);
        }
    }

    fn push_reply(&mut self, bytes: Vec<u8>) {
        self.len += bytes.len();
        self.chunks.push_back(Queued { chunk: Chunk::Own(bytes), unasked_len: 0 });
    }
}

impl<S: Sink> Place<'_, S> {
    /// Queue a message that the client did not wait for. It is sent by the next [`Outbox::flush`], which also ends the connection
    /// if this was more than `max-unsent`.
    pub fn push(&mut self, chunk: Chunk) {
        if self.queue.closed.is_some() {
            return;
        }
        let len = chunk.bytes().len();
        self.queue.len += len;
        self.queue.unasked_len += len;
        self.queue.chunks.push_back(Queued { chunk, unasked_len: len });
        if self.queue.unasked_len > self.outbox.len_max {
            self.queue.close("the client does not read what it is sent (max-unsent)");
            self.queue.shut_down_at_flush = true;
            self.outbox.is_closed.store(true, Ordering::Relaxed);
            if self.queue.waiters > 0 {
                self.outbox.drained.notify_all();
            }
        }
    }

    /// Queue the reply to a call of the client's. Whoever holds this place does not wait for the client; the memory of such replies
    /// is limited where the calls are accepted, see the module. It is sent by the next [`Outbox::flush`].
    pub fn push_reply(&mut self, bytes: Vec<u8>) {
        if self.queue.closed.is_none() {
            self.queue.push_reply(bytes);
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
            queue.push_reply(bytes.to_vec());
            drop(queue);
            self.flush();
            self.wait_for_room();
            return;
        }
        queue.sending = true;
        let mut signer = queue.signer.take();
        drop(queue);
        let result = match &mut signer {
            None => self.send_all(bytes),
            Some(signer) => {
                let mut signed = Vec::new();
                memory::reserve(&mut signed, bytes.len() + 256).and_then(|()| {
                    signer.sign_frames(bytes, &mut signed);
                    self.send_all(&signed)
                })
            }
        };
        if result.is_err() {
            self.close("the client is gone");
        }
        // What others queued meanwhile is sent without waiting for it.
        let mut queue = self.queue.lock();
        queue.signer = signer;
        self.drain(queue, false);
    }

    /// Send a reply from a place that another thread than the session holds, without waiting: see [`Place::push_reply`].
    pub fn post_own(self: &Arc<Self>, mut place: Place<'_, S>, bytes: Vec<u8>) {
        place.push_reply(bytes);
        drop(place);
        self.flush();
    }

    /// Makes the session thread wait while more of its replies are queued than a client should leave unread.
    pub fn wait_for_room(&self) {
        let mut queue = self.queue.lock();
        while queue.closed.is_none() && queue.len > OWN_MAX {
            queue = self.wait(queue);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{OnceLock, Weak};

    use super::*;
    use crate::wire::frame::{FrameReader, put_frame};

    /// Takes a few bytes at a time, and sometimes none.
    #[derive(Default)]
    struct Reluctant(std::sync::Mutex<(Vec<u8>, usize)>);

    impl Reluctant {
        fn take(&self, chunks: &[IoSlice<'_>], may_refuse: bool) -> io::Result<usize> {
            let mut state = self.0.lock().expect("a lock");
            let (sent, turn) = &mut *state;
            *turn += 1;
            if may_refuse && *turn % 3 == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let bytes: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.iter().copied()).collect();
            let count = bytes.len().min([1, 7, 40, 1000][*turn % 4]);
            sent.extend_from_slice(&bytes[..count]);
            Ok(count)
        }
    }

    impl Sink for Reluctant {
        fn try_send(&self, chunks: &[IoSlice<'_>]) -> io::Result<usize> {
            self.take(chunks, true)
        }

        fn send(&self, chunks: &[IoSlice<'_>]) -> io::Result<usize> {
            self.take(chunks, false)
        }

        fn shutdown(&self) {}
    }

    /// Takes nothing, and remembers whether the lock of the queue was held when the connection was ended.
    #[derive(Default)]
    struct Deaf {
        outbox: OnceLock<Weak<Outbox<Deaf>>>,
        locked_at_shutdown: std::sync::Mutex<Vec<bool>>,
    }

    impl Sink for Deaf {
        fn try_send(&self, _: &[IoSlice<'_>]) -> io::Result<usize> {
            Err(io::ErrorKind::WouldBlock.into())
        }

        /// Ends as the call for a socket does when that is shut down.
        fn send(&self, _: &[IoSlice<'_>]) -> io::Result<usize> {
            while self.locked_at_shutdown.lock().expect("a lock").is_empty() {
                thread::yield_now();
            }
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn shutdown(&self) {
            let outbox = self.outbox.get().and_then(Weak::upgrade).expect("an outbox");
            self.locked_at_shutdown.lock().expect("a lock").push(outbox.queue.is_locked());
        }
    }

    /// A client that read nothing was disconnected with the lock of its queue held, which a publisher takes with the members list
    /// locked: with TLS every commit of the storage waited for close_notify to be sent.
    #[test]
    fn a_client_that_does_not_read_is_ended_without_the_lock() {
        for is_being_sent_to in [false, true] {
            let outbox = Arc::new(Outbox::new(Deaf::default(), 100));
            outbox.sink.outbox.set(Arc::downgrade(&outbox)).expect("once");
            if is_being_sent_to {
                outbox.place().push(Chunk::Own(vec![1; 10]));
                outbox.flush();
            }
            let mut place = outbox.place();
            place.push(Chunk::Own(vec![2; 200]));
            assert!(
                outbox.sink.locked_at_shutdown.lock().expect("a lock").is_empty(),
                "as if this were a publisher"
            );
            drop(place);
            assert!(outbox.is_closed());
            outbox.flush();
            assert_eq!(outbox.sink.locked_at_shutdown.lock().expect("a lock").first(), Some(&false));
        }
    }

    /// A reply to vote that was longer than `max-unsent` ended the connection: it was counted with what nobody had asked for.
    #[test]
    fn replies_do_not_count_for_max_unsent() {
        let outbox = Arc::new(Outbox::new(Deaf::default(), 100));
        outbox.sink.outbox.set(Arc::downgrade(&outbox)).expect("once");
        outbox.post_own(outbox.place(), vec![1; 1000]);
        outbox.place().push(Chunk::Own(vec![2; 60]));
        outbox.post_own(outbox.place(), vec![3; 1000]);
        outbox.place().push(Chunk::Own(vec![4; 40]));
        assert!(!outbox.is_closed());
        outbox.place().push(Chunk::Own(vec![5; 1]));
        assert!(outbox.is_closed());
        outbox.flush();
    }

    #[test]
    fn what_was_sent_does_not_count_any_more() {
        let outbox = Arc::new(Outbox::new(Reluctant::default(), 100));
        for n in 0..50 {
            outbox.place().push(Chunk::Own(vec![n; 90]));
            outbox.post_own(outbox.place(), vec![n; 1000]);
            outbox.wait_until_sent();
            assert_eq!(outbox.queue.lock().unasked_len, 0);
        }
        assert!(!outbox.is_closed());
    }

    fn frames(payloads: &[Vec<u8>]) -> Vec<u8> {
        let mut frames = Vec::new();
        payloads.iter().for_each(|payload| put_frame(payload, &mut frames));
        frames
    }

    /// What a sender could not get rid of at once is signed already; signed again, or behind what was queued later, it
    /// would end the connection.
    #[test]
    fn signatures_follow_the_order_of_sending() {
        let outbox = Arc::new(Outbox::new(Reluctant::default(), 16 << 20));
        outbox.send_own(outbox.place(), &frames(&[b"unsigned".to_vec()]));
        outbox.sign_from_here(RunningMac::new(b"key"));
        let mut expected = Vec::new();
        for n in 0..200_u32 {
            let payloads: Vec<Vec<u8>> =
                (0..n % 4).map(|i| vec![n as u8; (n * 7 + i) as usize % 90]).collect();
            let bytes = frames(&payloads);
            expected.extend(payloads);
            match n % 3 {
                0 => outbox.send_own(outbox.place(), &bytes),
                1 => outbox.place().push(Chunk::Shared(bytes.into())),
                _ => {
                    outbox.place().push(Chunk::Own(bytes));
                    outbox.flush();
                }
            }
        }
        outbox.flush();
        outbox.wait_until_sent();
        assert_eq!(outbox.queue.lock().len, 0);

        let sent = outbox.sink.0.lock().expect("a lock").0.clone();
        let mut reader = FrameReader::new();
        let mut mac = RunningMac::new(b"key");
        let mut received = Vec::new();
        for piece in sent.chunks(1000) {
            reader.spare().unwrap()[..piece.len()].copy_from_slice(piece);
            reader.filled(piece.len());
            while let Some(frame) = reader.next().unwrap() {
                match frame.mac {
                    None => assert_eq!((frame.payload, received.len()), (&b"unsigned"[..], 0)),
                    Some(code) => {
                        assert!(mac.check_next(frame.payload, code), "message {}", received.len());
                        received.push(frame.payload.to_vec());
                    }
                }
            }
        }
        assert_eq!(received, expected);
    }
}
