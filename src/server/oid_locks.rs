//! Locks on oids as a guard, with the actions at their request, grant and release.
//!
//! The table itself is [`locks`](super::locks). This file adds the deadline of `transaction-timeout`, the time since
//! when locks are held (`lock_time` of `server_status`), the log lines about waiting transactions, and the threads in
//! which waiting transactions continue.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::base::clock::TimeSource;
use crate::base::histogram::{Distribution, Histogram, TIME_BOUNDS};
use crate::base::level::{CRITICAL, DEBUG, WARNING};
use crate::base::sync::{Arc, Mutex, rank};
use crate::server::locks::{self, Behind, LockSet, Locks, Outcome, Owner, RequestSeen};
use crate::server::peer::Peer;
use crate::server::timeout::{Deadline, Timeouts};
use crate::server::workers::{Job, Workers};

/// The locks on the objects of one storage.
pub struct LockTable {
    /// Name of the storage, for the log.
    storage: String,
    locks: Locks<Waiter>,
    timeouts: Timeouts,
    /// For how long transactions have waited for their locks, and have held them.
    waits: Histogram,
    holds: Histogram,
    /// When each owner of locks was granted them.
    granted_at: Mutex<BTreeMap<u64, SystemTime>, rank::LockTimes>,
    /// Threads for transactions that had to wait.
    votes: Workers,
    clock: TimeSource,
}

/// A transaction that waits for its locks.
struct Waiter {
    peer: Arc<Peer>,
    since: SystemTime,
    go_on: Job,
}

/// A transaction that holds locks, or waits for them.
#[derive(Clone, Debug)]
pub struct LockRequest {
    /// Number of the connection.
    pub owner: Owner,
    /// Number of objects; 0 for the whole storage.
    pub objects: usize,
    /// Whether it waits for locks.
    pub is_waiting: bool,
    /// Since when it has held them, or has waited. `None`: they were granted or released at this moment.
    pub since: Option<SystemTime>,
    /// The connections that it waits for.
    pub behind: Vec<Owner>,
}

/// The locks that a transaction has asked for, whether they are granted or not. Given back when this is dropped, which
/// writes a log line and wakes the next: not while a lock is held that forbids logging. [`OidLocks::release`] is for
/// that.
pub struct OidLocks(Option<Request>);

struct Request {
    table: Arc<LockTable>,
    peer: Arc<Peer>,
    /// Runs from the grant on.
    deadline: Option<Deadline>,
}

/// Locks that were given back. Dropping this writes the log line and hands the transactions that waited to a worker:
/// not while a lock is held that forbids logging.
pub struct Released {
    table: Arc<LockTable>,
    peer: Arc<Peer>,
    released: locks::Released<Waiter>,
}

/// The outcome of a request, for its line in the log.
#[must_use]
pub struct Requested {
    outcome: Outcome,
    /// Transactions that wait now.
    waiting: usize,
}

impl Requested {
    pub fn is_queued(&self) -> bool {
        self.outcome == Outcome::Queued
    }
}

impl LockTable {
    pub fn new(storage: String, timeouts: Timeouts, votes: Workers, clock: TimeSource) -> Arc<LockTable> {
        Arc::new(LockTable {
            storage,
            locks: Locks::default(),
            timeouts,
            waits: Histogram::new(TIME_BOUNDS),
            holds: Histogram::new(TIME_BOUNDS),
            granted_at: Mutex::default(),
            votes,
            clock,
        })
    }

    /// Asks for all locks of `set`. If they are not granted at once, the job that `go_on` makes is run by a worker
    /// when they are.
    pub fn request(
        self: &Arc<Self>,
        peer: &Arc<Peer>,
        set: &LockSet,
        go_on: impl FnOnce() -> Job,
    ) -> (OidLocks, Requested) {
        let waiter = || Waiter { peer: Arc::clone(peer), since: self.clock.system_time(), go_on: go_on() };
        let (outcome, waiting) = self.locks.request(peer.id, set, waiter);
        if outcome == Outcome::Granted {
            self.waits.count(0);
        }
        let request = Request { table: Arc::clone(self), peer: Arc::clone(peer), deadline: None };
        (OidLocks(Some(request)), Requested { outcome, waiting })
    }

    /// Logs a request; no lock may be held that forbids that. True: it was granted.
    pub fn log_request(&self, peer: &Peer, requested: &Requested) -> bool {
        let is_granted = requested.outcome == Outcome::Granted;
        let what = if is_granted { "lock" } else { "queue lock" };
        self.log(peer, what, requested.waiting);
        is_granted
    }

    fn log(&self, peer: &Peer, what: &str, waiting: usize) {
        let message = format_args!("('{}') {what}: transactions waiting: {waiting}", self.storage);
        let level = match waiting {
            10.. => CRITICAL,
            4.. => WARNING,
            _ => DEBUG,
        };
        peer.log_lock(level, message);
    }

    /// The transactions that hold locks or wait for them, in the order of their requests.
    pub fn requests(&self) -> Vec<LockRequest> {
        let seen = self.locks.seen(|waiter| waiter.since);
        let granted_at = self.granted_at.lock();
        let request = |seen: RequestSeen<SystemTime>| LockRequest {
            owner: seen.owner,
            objects: seen.objects,
            is_waiting: seen.waiter.is_some(),
            since: seen.waiter.or_else(|| granted_at.get(&seen.owner).copied()),
            behind: seen.behind,
        };
        seen.into_iter().map(request).collect()
    }

    /// For how long transactions have waited for their locks, and have held them.
    pub fn times(&self) -> [Distribution; 2] {
        [self.waits.read(), self.holds.read()]
    }

    /// The time since a moment of the time of day, which may have been set back since.
    fn passed_since(&self, at: SystemTime) -> Duration {
        self.clock.system_time().duration_since(at).unwrap_or_default()
    }

    /// Number of transactions that wait for locks.
    pub fn waiting(&self) -> usize {
        self.locks.waiting()
    }

    /// Whether there is a `transaction-timeout`.
    pub fn has_timeout(&self) -> bool {
        self.timeouts.is_active()
    }

    /// Sets another `transaction-timeout`, for locks that are granted later.
    pub fn set_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.timeouts.set(timeout)
    }

    /// Since when the longest holder of locks has had them, in seconds since 1970.
    pub fn locked_since(&self) -> Option<f64> {
        let since = self.granted_at.lock().values().min().copied()?;
        Some(since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64())
    }

    /// For how long the longest holder of locks has had them.
    pub fn locked_for(&self) -> Option<Duration> {
        let since = self.granted_at.lock().values().min().copied()?;
        Some(self.passed_since(since))
    }

    /// Ends the thread of `transaction-timeout`.
    pub fn stop(&self) {
        self.timeouts.stop();
    }
}

impl OidLocks {
    /// Whether all of them were granted.
    pub fn are_granted(&self) -> bool {
        self.0.as_ref().is_some_and(|request| request.table.locks.is_granted(request.peer.id))
    }

    /// Notes that they were granted: the deadline of `transaction-timeout` starts. `expire` is called, with the
    /// timeout, if they are still held then.
    pub fn start_deadline(&mut self, expire: impl FnOnce(Duration) + Send + 'static) {
        if let Some(Request { table, peer, deadline }) = &mut self.0 {
            table.granted_at.lock().insert(peer.id, table.clock.system_time());
            *deadline = Some(table.timeouts.begin(peer.id, expire));
        }
    }

    /// What they wait for first; `None`: they are granted.
    pub fn behind(&self) -> Option<Behind> {
        self.0.as_ref().and_then(|request| request.table.locks.behind(request.peer.id))
    }

    /// Gives them back, without anything that could take long: that is done when the result is dropped.
    pub fn release(mut self) -> Option<Released> {
        self.0.take().map(Request::release)
    }
}

impl Request {
    fn release(self) -> Released {
        let Request { table, peer, deadline } = self;
        drop(deadline);
        let granted_at = table.granted_at.lock().remove(&peer.id);
        if let Some(since) = granted_at {
            table.holds.count_time(table.passed_since(since));
        }
        let released = table.locks.release(peer.id);
        Released { table, peer, released }
    }
}

impl Drop for OidLocks {
    fn drop(&mut self) {
        drop(self.0.take().map(Request::release));
    }
}

impl Drop for Released {
    fn drop(&mut self) {
        let Released { table, peer, released } = self;
        if released.existed {
            let what = if released.had_waited { "dequeue lock" } else { "unlock" };
            table.log(peer, what, released.waiting);
        }
        for Waiter { peer, since, go_on } in released.granted.drain(..) {
            table.waits.count_time(table.passed_since(since));
            table.log(&peer, "lock", table.locks.waiting());
            table.votes.run_job(go_on);
        }
    }
}
