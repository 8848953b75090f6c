//! Which objects a transaction locks, and how it continues when it has the locks.
//!
//! A transaction that must wait continues in a worker, in whose thread the storage then votes; the next step is an
//! argument ([`LockedStep`]).

use std::time::Duration;

use crate::base::ids::Oid;
use crate::base::level::CRITICAL;
use crate::base::sync::{Arc, MutexGuard};
use crate::server::client_log;
use crate::server::connection::Connection;
use crate::server::job_panic::contained_vote;
use crate::server::locks::LockSet;
use crate::server::oid_locks::OidLocks;
use crate::server::registered::Registered;
use crate::server::slow::Step;
use crate::server::stats::count;
use crate::server::transaction::state::{OpenTransaction, Transaction};
use crate::storage::Staged;
use crate::storage::staged::OpKind;
use crate::wire::request::OwnedMsgId;

/// The next step of a transaction that has its locks. The transaction is `Voting`.
pub type LockedStep = fn(&Registered, OpenTransaction, OwnedMsgId);

/// The objects that a transaction locks; `undone` are those that its undos will change.
pub fn lock_set(staged: &Staged, undone: Vec<Oid>) -> LockSet {
    let mut set = LockSet { exclusive: undone, ..LockSet::default() };
    for op in staged.ops() {
        match op.kind {
            OpKind::CheckCurrent { .. } => set.shared.push(op.oid),
            OpKind::Undo { .. } => {}
            OpKind::Store { .. } | OpKind::Delete { .. } | OpKind::Restore { .. } => {
                set.exclusive.push(op.oid);
            }
        }
    }
    set
}

/// The lock on the whole storage.
pub fn whole_storage() -> LockSet {
    LockSet { whole_storage: true, ..LockSet::default() }
}

/// Asks for the locks, and goes on with `next` as soon as they are granted: in this thread if that is at once, else
/// in a worker. The state is `Waiting` until then. The caller has locked it, so that an abort finds the request.
pub fn with_locks(
    registered: &Registered,
    mut transaction: MutexGuard<'_, Transaction>,
    mut open: OpenTransaction,
    reply_to: OwnedMsgId,
    set: &LockSet,
    next: LockedStep,
) {
    let peer = &registered.connection.peer;
    let table = &registered.hosted.locks;
    let (locks, requested) = table.request(peer, set, || {
        let registered = registered.clone();
        Box::new(move || go_on(&registered, next))
    });
    if requested.is_queued()
        && let Some(call) = &mut open.call
    {
        call.behind = locks.behind();
    }
    open.locks = Some(locks);
    *transaction = Transaction::Waiting { open, reply_to };
    drop(transaction);
    if table.log_request(peer, &requested) {
        go_on(registered, next);
    }
}

/// `Waiting -> Voting`, if the locks are there.
fn go_on(registered: &Registered, next: LockedStep) {
    contained_vote(&registered.connection, || {
        let (mut open, reply_to) = {
            let mut transaction = registered.connection.transaction.lock();
            match transaction.take() {
                Transaction::Waiting { open, reply_to }
                    if open.locks.as_ref().is_some_and(OidLocks::are_granted) =>
                {
                    *transaction = open.voting();
                    (open, reply_to)
                }
                // Aborted between the grant and now, and the next one may be waiting already.
                other => {
                    *transaction = other;
                    return;
                }
            }
        };
        if let Some(call) = &mut open.call {
            call.mark(Step::Locks, registered.hosted.clock.now());
        }
        if let Some(locks) = &mut open.locks {
            let (hosted, connection) =
                (Arc::downgrade(&registered.hosted), Arc::downgrade(&registered.connection));
            locks.start_deadline(move |timeout| {
                hosted.upgrade().iter().for_each(|hosted| count(&hosted.stats.transaction_timeouts));
                connection.upgrade().iter().for_each(|connection| expire(connection, timeout));
            });
        }
        next(registered, open, reply_to);
    });
}

/// `transaction-timeout` is over.
fn expire(connection: &Connection, timeout: Duration) {
    let seconds = python_seconds(timeout);
    let message = format_args!("Transaction timeout after {seconds} seconds");
    connection.peer.log(&client_log::ENDED, CRITICAL, message);
    connection.outbox.close("transaction timeout");
}

/// Seconds as Python writes the configured number: whole ones without a fraction.
fn python_seconds(timeout: Duration) -> String {
    let seconds = timeout.as_secs_f64();
    if seconds.fract() == 0.0 { format!("{}", timeout.as_secs()) } else { format!("{seconds}") }
}
