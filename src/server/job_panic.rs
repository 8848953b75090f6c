//! Panics in jobs for a client: a panic is a bug, and ends the client's connection as a panic in its session does.
//!
//! Otherwise the client would wait for its reply forever. Locks on oids are given back as the stack is unwound.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::base::level::ERROR;
use crate::server::client_log;
use crate::server::connection::Connection;

/// Runs a job for a client. False: it has panicked, and the connection is closed.
pub fn contained(connection: &Connection, job: impl FnOnce()) -> bool {
    if catch_unwind(AssertUnwindSafe(job)).is_ok() {
        return true;
    }
    // The panic hook has logged what happened.
    connection.peer.log(&client_log::ENDED, ERROR, format_args!("internal error, the connection is closed"));
    connection.outbox.close("internal error");
    false
}

/// Runs a part of a vote or of an undo. If it panics the transaction has ended, too: the session may wait for that
/// before it begins the next one.
pub fn contained_vote(connection: &Connection, vote: impl FnOnce()) {
    if !contained(connection, vote) {
        connection.transaction.end_voting();
    }
}
