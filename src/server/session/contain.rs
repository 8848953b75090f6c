//! What other threads do for a client: a panic there, which is a bug, ends the client's connection, as a panic in its session does.
//!
//! Without that the client would wait for its reply for ever, and others for the locks of its transaction.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::base::sync::Arc;
use crate::logging::level::ERROR;
use crate::server::client_log;
use crate::server::connection::{Connection, Transaction};
use crate::server::hosted::Hosted;
use crate::server::session::commit::go_on_with_locks;

/// Runs a job that holds no locks.
pub(super) fn contained(connection: &Connection, job: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(job)).is_err() {
        close(connection);
    }
}

/// Runs a part of a vote or undo: the locks of the transaction are given back if it panics. The session aborts the rest.
pub(super) fn contained_vote(hosted: &Arc<Hosted>, connection: &Connection, vote: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(vote)).is_ok() {
        return;
    }
    close(connection);
    // The session may wait for the end of this vote before it begins the next transaction.
    let transaction = connection.transaction.lock();
    if matches!(*transaction, Transaction::Voting { .. }) {
        connection.end_transaction(transaction);
    } else {
        drop(transaction);
    }
    // The clock of transaction-timeout finds the connection closed.
    let granted = hosted.release_locks(connection, None);
    hosted.wake(granted, go_on_with_locks);
}

fn close(connection: &Connection) {
    // The panic hook has logged what happened.
    connection.log(&client_log::ENDED, ERROR, format_args!("internal error, the connection is closed"));
    connection.outbox.close("internal error");
}
