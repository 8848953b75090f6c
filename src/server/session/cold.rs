//! Loads that have to wait for the disk: read in parallel by threads of a pool, while the session answers loads from
//! memory.
//!
//! A client's threads share one connection, and their outstanding loads are answered together: a record that must
//! come from the disk would delay all that is behind it. Loads of the pool are answered in the order in which they
//! are ready: clients match replies by their ids. Each reply takes its place in the outbox as every reply does,
//! validated against what was published since, so rules R1 to R6 hold in any thread.
//!
//! A client with low priority has no use of the pool, whose threads have the priority of others: its session waits for
//! the disk.
//!
//! The pool never waits for a client: a session hands over at most [`PENDING_MAX`] loads at a time, of records that
//! are not large ([`Load::load_before_now`](crate::storage::Load::load_before_now)), and only while the client
//! takes its replies.

use crate::base::memory::LARGE;
use crate::base::sync::{Arc, Condvar, Mutex, rank};
use crate::server::job_panic::contained;
use crate::server::registered::Registered;
use crate::server::session::large;
use crate::server::session::read::{DiskWait, NotYet, Read, reply};
use crate::server::slow::{CallTimes, Step};

/// Loads of one connection that the pool has at the same time. At the limit the session waits.
const PENDING_MAX: usize = 32;

/// The loads of one connection that are being read.
#[derive(Debug, Default)]
pub struct Cold {
    pending: Mutex<usize, rank::ColdLoads>,
    ended: Condvar,
}

impl Cold {
    /// Reads and answers in other threads. Waits while too much is under way.
    pub fn answer(self: &Arc<Self>, registered: &Registered, reads: Vec<Read>) {
        registered.connection.outbox.wait_for_room();
        let began = registered.hosted.clock.now();
        for read in reads {
            let pending = self.begin();
            let registered = registered.clone();
            let mut call = CallTimes::begin(read.wanted.method(), began);
            let pool = registered.hosted.workers.reads.clone();
            pool.run(move || {
                contained(&registered.connection, || {
                    call.mark(Step::Queue, registered.hosted.clock.now());
                    let wanted = answer_one(&registered, &read);
                    call.mark(Step::Read, registered.hosted.clock.now());
                    let Some(wanted) = wanted else {
                        note(&registered, &call, &read);
                        return drop(pending);
                    };
                    // These wait for clients, which the pool does not.
                    let registered = registered.clone();
                    registered.hosted.workers.large.clone().run(move || {
                        contained(&registered.connection, || {
                            large::answer(&registered, &read, wanted);
                            call.mark(Step::Send, registered.hosted.clock.now());
                            note(&registered, &call, &read);
                        });
                        drop(pending);
                    });
                });
            });
        }
    }

    fn begin(self: &Arc<Self>) -> Pending {
        let mut pending = self.pending.lock();
        while *pending >= PENDING_MAX {
            pending = self.ended.wait(pending);
        }
        *pending += 1;
        Pending(Arc::clone(self))
    }
}

/// The same in this thread, one after the other: for clients with low priority.
pub fn answer_here(registered: &Registered, reads: &[Read]) {
    let clock = &registered.hosted.clock;
    for read in reads {
        registered.connection.outbox.wait_for_room();
        let mut call = CallTimes::begin(read.wanted.method(), clock.now());
        let large = answer_one(registered, read);
        call.mark(Step::Read, clock.now());
        if let Some(wanted) = large {
            large::answer(registered, read, wanted);
            call.mark(Step::Send, clock.now());
        }
        note(registered, &call, read);
    }
}

fn note(registered: &Registered, call: &CallTimes, read: &Read) {
    registered.note_slow(registered.end_call(call).map(|slow| slow.of_object(read.oid)));
}

/// One load that is under way, until this is dropped.
struct Pending(Arc<Cold>);

impl Drop for Pending {
    fn drop(&mut self) {
        *self.0.pending.lock() -= 1;
        self.0.ended.notify_all();
    }
}

/// Answers as a session answers a batch, see [`crate::server::publish`]: if the object has changed since, it is read
/// again. Returns the memory that the record needs, in bytes, if it is too large to be read here.
fn answer_one(registered: &Registered, read: &Read) -> Option<usize> {
    let Registered { hosted, connection, .. } = registered;
    let outbox = &connection.outbox;
    let mut out = Vec::new();
    while !outbox.is_closed() {
        let seen = hosted.publication.seen();
        out.clear();
        if let Err(NotYet::Large(wanted)) = reply(registered, read, DiskWait::Yes, LARGE, &mut out) {
            return Some(wanted);
        }
        if let Some(place) = hosted.publication.place_if_newest(seen, outbox) {
            outbox.post_own(place, out);
            return None;
        }
        let oid = std::iter::once(read.oid);
        let (place, count) = hosted.publication.place_for_untouched(seen, outbox, oid);
        if count > 0 {
            outbox.post_own(place, out);
            return None;
        }
    }
    None
}
