//! Reads of single objects: the path that everything else makes way for.
//!
//! Replies to requests that arrived together are collected in one buffer and queued with one validation (see
//! [`crate::server::publish`]) and one send. If something was published meanwhile that touches one of them, it
//! and those behind it are read again. Those that have to wait for the disk are left to others ([`super::cold`]).

use crate::base::ids::{Oid, Tid};
use crate::base::memory::{LARGE, within};
use crate::base::sync::{Arc, Ordering};
use crate::exceptions;
use crate::logging::level::ERROR;
use crate::server::client_log;
use crate::server::connection::Connection;
use crate::server::hosted::Hosted;
use crate::server::publish::{Members, Seen};
use crate::server::session::cold::Cold;
use crate::server::session::large;
use crate::storage::StorageError;
use crate::wire::exception::PyException;
use crate::wire::reply::LoadShape;
use crate::wire::request::OwnedMsgId;
use crate::wire::value::Value;

/// Replies are sent when they reach this many bytes, or answer so many requests, even if more requests are there.
const BATCH_LEN: usize = 128 << 10;
const BATCH_COUNT: usize = 128;
/// A buffer larger than this is given back.
const KEEP_LEN: usize = 256 << 10;

/// A question about one object.
#[derive(Clone, Debug)]
pub struct Read {
    pub id: OwnedMsgId,
    pub oid: Oid,
    pub what: What,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub enum What {
    /// The revision before a tid, in the shape of the call.
    Before(Tid, LoadShape),
    /// The data of this serial.
    Serial(Tid),
    /// The current serial.
    Tid,
}

/// Whether a read may wait for the disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Patience {
    None,
    Waits,
}

/// Why there is no reply yet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Later {
    /// It would have to wait for the disk.
    Disk,
    /// It would need about so many bytes, see [`large`].
    Large(usize),
}

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
}

impl Batch {
    /// Answer this with those that have arrived with it.
    pub fn read(&mut self, hosted: &Arc<Hosted>, connection: &Arc<Connection>, read: Read) {
        hosted.storage.expect_read(read.oid);
        if matches!(read.what, What::Before(..)) {
            connection.loads.store(connection.loads.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
        self.reads.push(read);
        if self.reads.len() >= BATCH_COUNT {
            self.flush(hosted, connection);
        }
    }

    /// Read, queue and send what was collected.
    pub fn flush(&mut self, hosted: &Arc<Hosted>, connection: &Arc<Connection>) {
        while !self.reads.is_empty() && !connection.outbox.is_closed() {
            let seen = hosted.publication.seen();
            let mut large = None;
            while let Some(read) = self.reads.get(self.ends.len()) {
                match reply(hosted, connection, read, Patience::None, LARGE, &mut self.out) {
                    Ok(()) => {}
                    Err(Later::Disk) => {
                        self.missed.push(self.reads.remove(self.ends.len()));
                        continue;
                    }
                    // What stands before it is sent first.
                    Err(Later::Large(wanted)) => {
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
                let answered = self.queue(hosted, connection, seen);
                self.reads.drain(..answered);
                self.out.clear();
                self.ends.clear();
            }
            if !self.missed.is_empty() {
                self.cold.answer(hosted, connection, std::mem::take(&mut self.missed));
            }
            if let Some((read, wanted)) = large {
                large::answer(hosted, connection, &read, wanted);
            }
        }
        self.reads.clear();
        if self.out.capacity() > KEEP_LEN {
            self.out = Vec::new();
        }
    }

    /// Queue and send the replies that still hold; how many those are.
    fn queue(&self, hosted: &Hosted, connection: &Connection, seen: Seen) -> usize {
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

/// Append the frame that answers `read`, from the storage's present state, if that takes no more memory than `len_max`.
pub fn reply(
    hosted: &Hosted,
    connection: &Connection,
    read: &Read,
    patience: Patience,
    len_max: usize,
    out: &mut Vec<u8>,
) -> Result<(), Later> {
    let wire = connection.wire();
    let id = read.id.get();
    let start = out.len();
    let headroom = wire.load_headroom(id);
    let result = match read.what {
        What::Before(before, shape) => {
            let storage = &hosted.storage;
            let loaded = within(len_max, || match patience {
                Patience::None => storage.load_before_now(read.oid, before, headroom, out).ok_or(Later::Disk),
                Patience::Waits => Ok(storage.load_before(read.oid, before, headroom, out)),
            })?;
            match loaded {
                Ok(Some(loaded)) => {
                    wire.load_reply(shape, id, loaded.serial, loaded.end, out, start, loaded.start);
                    return Ok(());
                }
                Ok(None) if matches!(shape, LoadShape::Before) => {
                    out.truncate(start);
                    wire.none_reply(id, out);
                    return Ok(());
                }
                Ok(None) => Err(StorageError::PosKey(read.oid)),
                Err(error) => Err(error),
            }
        }
        What::Serial(serial) => {
            match within(len_max, || hosted.storage.load_serial(read.oid, serial, headroom, out)) {
                Ok(loaded) => {
                    wire.load_reply(
                        LoadShape::Serial,
                        id,
                        loaded.serial,
                        loaded.end,
                        out,
                        start,
                        loaded.start,
                    );
                    return Ok(());
                }
                Err(error) => Err(error),
            }
        }
        What::Tid => hosted.storage.get_tid(read.oid),
    };
    out.truncate(start);
    match result {
        Ok(tid) => wire.tid_reply(id, tid, out),
        Err(error) => {
            if let Some(wanted) = large::large(&error) {
                return Err(Later::Large(wanted));
            }
            // At a stop the storage may be closed before the last of these.
            if !matches!(error, StorageError::PosKey(_)) && !connection.outbox.is_closed() {
                let message = format_args!("Can't read object 0x{}: {error}", read.oid);
                connection.log(&client_log::READS, ERROR, message);
            }
            wire.error_reply(id, &exceptions::of_storage_error(&error), out);
        }
    }
    Ok(())
}

/// Queue and send the reply, a frame, that `compute` makes of the published state. It is computed again if something was
/// published meanwhile. Under endless commits the last try is taken, queued while nothing is being published: good for
/// answers that clients do not hold against invalidations. Those that they do go through [`reply_exactly`].
pub fn reply_newest(hosted: &Hosted, connection: &Connection, mut compute: impl FnMut() -> Vec<u8>) {
    const TRIES: usize = 4;
    for _ in 1..TRIES {
        let seen = hosted.publication.seen();
        let frame = compute();
        if let Some(place) = hosted.publication.place_if_newest(seen, &connection.outbox) {
            return connection.outbox.send_own(place, &frame);
        }
    }
    reply_published(hosted, connection, &compute());
}

/// Queue and send a reply that was computed from some published state, behind the invalidations of that state.
pub fn reply_published(hosted: &Hosted, connection: &Connection, frame: &[u8]) {
    // What the reply may know of is queued by whoever has this lock now.
    let (members, _) = hosted.publication.members();
    let place = connection.outbox.place();
    drop(members);
    connection.outbox.send_own(place, frame);
}

/// The same from a thread of a pool, which does not wait for the client: its session has made room.
pub fn post_published(hosted: &Hosted, connection: &Connection, frame: Vec<u8>) {
    let (members, _) = hosted.publication.members();
    let place = connection.outbox.place();
    drop(members);
    connection.outbox.post_own(place, frame);
}

/// Queue and send a reply that is computed, from memory only, while nothing can be published: it holds exactly at its place
/// among the invalidations.
pub fn reply_exactly(
    hosted: &Hosted,
    connection: &Connection,
    compute: impl FnOnce(&Members, Seen) -> Vec<u8>,
) {
    let (members, seen) = hosted.publication.members();
    let frame = compute(&members, seen);
    let place = connection.outbox.place();
    drop(members);
    connection.outbox.send_own(place, &frame);
}

/// The frame that tells the client what came out of its call.
pub fn frame(connection: &Connection, id: &OwnedMsgId, result: &Result<Value, PyException>) -> Vec<u8> {
    let mut frame = Vec::new();
    match result {
        Ok(value) => connection.wire().reply(id.get(), value, &mut frame),
        Err(exception) => connection.wire().error_reply(id.get(), exception, &mut frame),
    }
    frame
}
