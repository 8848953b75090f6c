//! Loads and the other reads of single objects.
//!
//! Replies to requests that arrived together are collected in one buffer and queued with one validation (see
//! [`crate::server::publish`]) and one send. If one of the objects has changed since, it and those behind it are read
//! again. Loads that have to wait for the disk are done by other threads ([`super::cold`]).

use crate::base::memory::LARGE;
use crate::base::sync::{Arc, Ordering};
use crate::server::publish::Seen;
use crate::server::registered::Registered;
use crate::server::session::cold::{self, Cold};
use crate::server::session::large;
use crate::server::session::read::{DiskWait, NotYet, Read, Wanted, reply};

/// Bytes of replies after which a batch is sent, even if more requests are there.
const BATCH_LEN: usize = 128 << 10;
/// Requests after which a batch is sent.
const BATCH_COUNT: usize = 128;
/// Bytes of the buffer that are kept from one batch to the next.
const KEEP_LEN: usize = 256 << 10;

/// Reads that arrived together.
#[derive(Debug, Default)]
pub struct Batch {
    /// Not answered yet.
    reads: Vec<Read>,
    out: Vec<u8>,
    /// Where each reply in `out` ends.
    ends: Vec<usize>,
    /// Of `reads`, those that have to wait for the disk.
    missed: Vec<Read>,
    cold: Arc<Cold>,
    /// It waits for the disk itself, with the priority of its thread.
    stands_back: bool,
}

impl Batch {
    /// `stands_back`: of a client with low priority.
    pub fn new(stands_back: bool) -> Batch {
        Batch { stands_back, ..Batch::default() }
    }

    /// Adds a read, to be answered with the others that have arrived with it.
    pub fn read(&mut self, registered: &Registered, read: Read) {
        let Registered { hosted, connection, .. } = registered;
        hosted.storage.expect_read(read.oid);
        if matches!(read.wanted, Wanted::Before(..)) {
            connection.loads.store(connection.loads.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
        self.reads.push(read);
        if self.reads.len() >= BATCH_COUNT {
            self.flush(registered);
        }
    }

    /// Reads, queues and sends the collected replies.
    pub fn flush(&mut self, registered: &Registered) {
        let Registered { hosted, connection, .. } = registered;
        while !self.reads.is_empty() && !connection.outbox.is_closed() {
            let seen = hosted.publication.seen();
            let mut large = None;
            while let Some(read) = self.reads.get(self.ends.len()) {
                match reply(registered, read, DiskWait::No, LARGE, &mut self.out) {
                    Ok(()) => {}
                    Err(NotYet::Disk) => {
                        self.missed.push(self.reads.remove(self.ends.len()));
                        continue;
                    }
                    // What stands before it is sent first.
                    Err(NotYet::Large(wanted)) => {
                        large = Some((self.reads.remove(self.ends.len()), wanted));
                        break;
                    }
                }
                self.ends.push(self.out.len());
                if self.out.len() > BATCH_LEN {
                    break;
                }
            }
            if !self.ends.is_empty() {
                // Replies that do not hold any more are thrown away: those requests are answered from a newer state.
                let answered = self.queue(registered, seen);
                self.reads.drain(..answered);
                self.out.clear();
                self.ends.clear();
            }
            let missed = std::mem::take(&mut self.missed);
            match self.stands_back {
                _ if missed.is_empty() => {}
                true => cold::answer_here(registered, &missed),
                false => self.cold.answer(registered, missed),
            }
            if let Some((read, wanted)) = large {
                large::answer(registered, &read, wanted);
            }
        }
        self.reads.clear();
        if self.out.capacity() > KEEP_LEN {
            self.out = Vec::new();
        }
    }

    /// Queue and send the replies that still hold; how many those are.
    fn queue(&self, registered: &Registered, seen: Seen) -> usize {
        let Registered { hosted, connection, .. } = registered;
        let outbox = &connection.outbox;
        if let Some(place) = hosted.publication.place_if_newest(seen, outbox) {
            outbox.send_own(place, &self.out);
            return self.ends.len();
        }
        let oids = self.reads.iter().take(self.ends.len()).map(|read| read.oid);
        let (place, count) = hosted.publication.place_for_untouched(seen, outbox, oids);
        let end = count.checked_sub(1).and_then(|last| self.ends.get(last)).copied().unwrap_or(0);
        if end > 0 {
            outbox.send_own(place, self.out.get(..end).unwrap_or_default());
        }
        count
    }
}
