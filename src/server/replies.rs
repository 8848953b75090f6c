//! Replies to calls other than loads, and their place among the invalidations.
//!
//! A reply that a client holds against its cache must stand where it belongs (R2): [`reply_exactly`]. For answers
//! that are only looked at, [`reply_newest`] and [`reply_published`] cost less.

use crate::server::connection::Connection;
use crate::server::hosted::Hosted;
use crate::server::publish::{Members, Seen};
use crate::wire::exception::PyException;
use crate::wire::request::OwnedMsgId;
use crate::wire::value::Value;

/// How often [`reply_newest`] computes a reply, under endless commits.
const TRIES: usize = 4;

/// Queues and sends the reply, a frame, that `compute` makes of the published state. It is computed again if a
/// transaction was published since. After [`TRIES`] it is queued as it is, while nothing is being published: for
/// answers that clients do not compare with invalidations. Those that they compare go through [`reply_exactly`].
pub fn reply_newest(hosted: &Hosted, connection: &Connection, mut compute: impl FnMut() -> Vec<u8>) {
    for _ in 1..TRIES {
        let seen = hosted.publication.seen();
        let frame = compute();
        if let Some(place) = hosted.publication.place_if_newest(seen, &connection.outbox) {
            return connection.outbox.send_own(place, &frame);
        }
    }
    reply_published(hosted, connection, &compute());
}

/// Queues and sends a reply that was computed from some published state, behind the invalidations of that state.
pub fn reply_published(hosted: &Hosted, connection: &Connection, frame: &[u8]) {
    // A transaction that the reply may reflect is queued by the thread that has this lock now.
    let (members, _) = hosted.publication.members();
    let place = connection.outbox.place();
    drop(members);
    connection.outbox.send_own(place, frame);
}

/// [`reply_published`] for a thread of a pool, which does not wait for the client: its session has made room.
pub fn post_published(hosted: &Hosted, connection: &Connection, frame: Vec<u8>) {
    let (members, _) = hosted.publication.members();
    let place = connection.outbox.place();
    drop(members);
    connection.outbox.post_own(place, frame);
}

/// Queues and sends a reply that is computed, from memory only, while nothing can be published: it holds exactly at
/// its place among the invalidations.
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

/// The frame with the result of a call: a value or an exception.
pub fn reply_frame(connection: &Connection, id: &OwnedMsgId, result: &Result<Value, PyException>) -> Vec<u8> {
    let mut frame = Vec::new();
    match result {
        Ok(value) => connection.wire().reply(id.get(), value, &mut frame),
        Err(exception) => connection.put_error(id.get(), exception, &mut frame),
    }
    frame
}
