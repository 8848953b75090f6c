//! A thread that closes connections which have been idle for too long. It checks at intervals, so that no message has
//! to read a clock.
//!
//! Unregistered connections have a deadline (see [`admission`](super::admission)). A client with an open transaction
//! without messages during `idle-transaction-timeout` is closed: it keeps memory and perhaps a temporary file, but no
//! locks, since it has not voted. A transaction that has voted is subject to `transaction-timeout`. If no writer thread
//! can be started for a client, its queued messages are sent from here. The samples of [`history`] are taken here, too.

use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

use crate::base::level::WARNING;
use crate::base::sync::{Arc, Ordering};
use crate::server::Server;
use crate::server::client_log::{self, log_left_out};
use crate::server::connection::Connection;
use crate::server::history::{self, Totals};
use crate::server::hosted::Hosted;
use crate::server::transaction::state::Transaction;

/// Longest pause between two looks: a timeout may be late by this much.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Interval at which outboxes are tried again for which no writer thread could be started.
const STALLED_PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MIN: Duration = Duration::from_millis(50);
const STACK: usize = 128 << 10;

/// Number of messages for an open transaction, and since when there was none.
struct Progress {
    count: u64,
    since: Instant,
}

/// Start the thread of a server.
pub fn start(server: &Arc<Server>) -> std::io::Result<()> {
    let server = Arc::clone(server);
    thread::Builder::new().name("zeo-watch".into()).stack_size(STACK).spawn(move || run(&server))?;
    Ok(())
}

fn run(server: &Server) {
    let mut open: HashMap<u64, Progress> = HashMap::new();
    let clock = server.clock();
    let mut look_at_transactions = clock.now();
    let mut look_at_outboxes = look_at_transactions;
    let mut look_at_storages = look_at_transactions;
    let mut stopped = server.watch_stop().stopped.lock();
    while !*stopped {
        drop(stopped);
        let now = clock.now();
        let mut next = now + PAUSE_MAX;
        next = next.min(server.admission().expire(now).unwrap_or(next));
        log_left_out(now, false);
        if now >= look_at_outboxes {
            look_at_outboxes = now + STALLED_PAUSE;
            server.clients().iter().for_each(|connection| connection.outbox.flush_stalled());
        }
        next = next.min(look_at_outboxes);
        if server.has_history() {
            if now >= look_at_storages {
                look_at_storages = now + history::INTERVAL;
                server.storages().for_each(|hosted| sample(&hosted, now));
            }
            next = next.min(look_at_storages);
        }
        if let Some(timeout) = server.limits().idle_transaction_timeout {
            let pause = (timeout / 8).clamp(PAUSE_MIN, PAUSE_MAX);
            // A shorter timeout may have been set.
            look_at_transactions = look_at_transactions.min(now + pause);
            if now >= look_at_transactions {
                look_at_transactions = now + pause;
                open = still_open(server, &open, now, timeout);
            }
            next = next.min(look_at_transactions);
        }
        stopped = server.watch_stop().stopped.lock();
        if !*stopped {
            let next = next.max(clock.now() + PAUSE_MIN);
            stopped = clock.wait_until(&server.watch_stop().stop_noted, stopped, next);
        }
    }
}

/// Takes a sample of what a storage does.
fn sample(hosted: &Hosted, now: Instant) {
    let stats = &hosted.stats;
    let totals = Totals {
        loads: hosted.loads(),
        stored_bytes: stats.stored_bytes.load(Ordering::Relaxed),
        commits: stats.commits.load(Ordering::Relaxed),
        conflicts: stats.conflicts.load(Ordering::Relaxed),
    };
    let present = [hosted.connection_count(), hosted.locks.waiting()];
    hosted.history.note(now, hosted.clock.system_time(), totals, present);
}

/// The open transactions. Closes connections whose transactions have been idle for too long.
fn still_open(
    server: &Server,
    before: &HashMap<u64, Progress>,
    now: Instant,
    timeout: Duration,
) -> HashMap<u64, Progress> {
    let mut open = HashMap::new();
    for connection in server.clients() {
        if !matches!(*connection.transaction.lock(), Transaction::Open(_)) {
            continue;
        }
        let count = connection.progress.load(Ordering::Relaxed);
        let since = match before.get(&connection.id()) {
            Some(seen) if seen.count == count => seen.since,
            _ => now,
        };
        if now.saturating_duration_since(since) >= timeout {
            close(&connection, timeout);
        } else {
            open.insert(connection.id(), Progress { count, since });
        }
    }
    open
}

fn close(connection: &Connection, timeout: Duration) {
    connection.peer.log(
        &client_log::ENDED,
        WARNING,
        format_args!(
            "nothing has come for its transaction for {} s (idle-transaction-timeout); the connection is closed",
            timeout.as_secs()
        ),
    );
    connection.outbox.close("idle transaction");
}
