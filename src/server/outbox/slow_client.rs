//! Clients that read more slowly than messages are queued for them: one bound on unasked messages, another on replies.
//!
//! *Unasked* (invalidations): a client that lets more than `max-unsent` bytes of them pile up is closed; it verifies
//! its cache when it returns. So no slow client blocks a committer. The message that is too much is queued with locks
//! held, so the socket is shut down by the next [`Outbox::flush`].
//!
//! *Replies* do not count for that. Their memory is bounded by waiting: the session, which reads the calls, queues no
//! more of its replies while more than [`REPLIES_MAX`] bytes are queued ([`Outbox::wait_for_room`]). Other threads
//! that reply to a vote, a finish, an undo or a pack hold locks or are shared, so they do not wait
//! ([`Place::push_reply`]); instead the session waits for room before it hands a vote, an undo or a pack to them (a
//! finish needs a vote before it). At most one vote or undo of a connection is under way, so at most one reply of
//! that size is queued beyond the bound, and it is no longer than what the client has stored in the transaction. The
//! other replies are short, and limited in number where they are made.

use crate::net::stream::Sink;
use crate::server::outbox::{Outbox, Place};

/// Bytes in the queue above which the session of a client waits before it queues more replies.
const REPLIES_MAX: usize = 1 << 20;
/// Why such a client was closed.
pub const UNREAD: &str = "the client does not read what it is sent (max-unsent)";

impl<S: Sink> Place<'_, S> {
    /// Closes a client for which more than `max-unsent` bytes are queued that it has not asked for.
    pub(super) fn close_if_too_slow(&mut self) {
        if self.queue.unasked_len > self.outbox.len_max {
            self.close(UNREAD);
        }
    }
}

impl<S: Sink> Outbox<S> {
    /// Makes the session thread wait while more of its replies are queued than a client should leave unread.
    pub fn wait_for_room(&self) {
        let mut queue = self.queue.lock();
        while queue.closed.is_none() && queue.len > REPLIES_MAX {
            queue = self.wait(queue);
        }
    }
}
