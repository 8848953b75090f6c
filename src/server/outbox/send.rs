//! Sending what is queued: at once and without waiting, or by a writer thread.
//!
//! Only the thread that has set `Queue::sending` sends. It also signs messages, outside the lock.

use std::io::{self, IoSlice};
use std::thread;

use crate::base::memory;
use crate::base::sync::{Arc, MutexGuard, Ordering};
use crate::net::stream::Sink;
use crate::server::outbox::{Chunk, Outbox, Place, Queue, Queued};
use crate::wire::mac::RunningMac;

/// Chunks in one system call.
const CHUNKS_MAX: usize = 64;
/// Stack size of a writer thread, which only sends.
const WRITER_STACK: usize = 64 << 10;

impl<S: Sink + 'static> Outbox<S> {
    /// Sends the queued messages, unless another thread is sending already. Does not wait.
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

    /// Sends the messages that are left because no writer thread could be started. Called at intervals.
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
            // Chunks are cheap to clone only if shared; so they are taken out, and the unsent ones are put back.
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
            queue.sent += sent as u64;
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

    /// Starts a writer thread, which has the right to send from here on.
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

    /// Sends replies of the session's own from a place that it holds. Waits for a slow client.
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
            None => self.send_all(bytes).map(|()| bytes.len()),
            Some(signer) => {
                let mut signed = Vec::new();
                memory::reserve(&mut signed, bytes.len() + 256).and_then(|()| {
                    signer.sign_frames(bytes, &mut signed);
                    self.send_all(&signed).map(|()| signed.len())
                })
            }
        };
        if result.is_err() {
            self.close("the client is gone");
        }
        // What other threads have queued since is sent without waiting.
        let mut queue = self.queue.lock();
        queue.signer = signer;
        queue.sent += result.unwrap_or(0) as u64;
        self.drain(queue, false);
    }

    /// Sends a reply from a place that another thread than the session holds, without waiting: see
    /// [`Place::push_reply`].
    pub fn post_own(self: &Arc<Self>, mut place: Place<'_, S>, bytes: Vec<u8>) {
        place.push_reply(bytes);
        drop(place);
        self.flush();
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

impl Queue {
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
