//! One served storage and all that its connections share.
//!
//! Locks, outermost first; whoever holds one may take those below it, never those above:
//!
//! 1. the members list of [`publish`](super::publish) (nothing is published while it is held)
//! 2. one connection's `transaction`
//! 3. one outbox at a time
//!
//! The table of [`locks`](super::locks), the timeouts' clock, `connections` and `lock_times` are leaves: nothing is locked under them.
//!
//! A commit takes the first three, so they are *brief* ([`Mutex::brief`]): no line is logged and nothing is sent, or waited for,
//! while one is held; debug builds check it. A session whose stores outgrow their memory writes them to its temporary file under
//! its own `transaction`, which nobody else needs until it has voted. Of the other locks only the storage's own are held while a
//! file is read or synced, and the lock of [`log_changes`](super::log_changes), which is the outermost of all.

use std::collections::{BTreeMap, HashMap};
use std::sync::Weak;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::base::ids::{Oid, Tid};
use crate::base::sync::{Arc, Mutex, Ordering};
use crate::logging::level::{CRITICAL, DEBUG, WARNING};
use crate::server::client_log;
use crate::server::connection::Connection;
use crate::server::invalidations::Invalidations;
use crate::server::locks::{LockSet, Locks, Outcome, Released};
use crate::server::log_changes::LogChanges;
use crate::server::publish::Publication;
use crate::server::stats::{self, PackStatus, Stats};
use crate::server::timeout::{Running, Timeouts};
use crate::server::workers::Pools;
use crate::storage::Storage;
use crate::wire::protocol::Wire;
use crate::wire::value::Value;

/// Target of all log lines about clients, as in Python.
pub const LOG: &str = "ZEO.StorageServer";

/// What the configuration says about every storage of a server.
#[derive(Clone, Debug, PartialEq)]
pub struct HostedOptions {
    pub read_only: bool,
    pub invalidation_queue_size: usize,
    pub invalidation_age: Option<Duration>,
    pub transaction_timeout: Option<Duration>,
    /// Clients that can (ZEO 5 and later) merge conflicting states themselves.
    pub client_conflict_resolution: bool,
    /// `max-transaction-objects`, which counts the objects that undos change, too.
    pub transaction_objects: Option<u64>,
}

/// A storage with its clients.
pub struct Hosted {
    pub name: String,
    pub storage: Arc<dyn Storage>,
    pub options: HostedOptions,
    pub publication: Publication,
    pub stats: Stats,
    pub workers: Pools,
    pub pack: PackStatus,
    pub log_changes: LogChanges,
    locks: Locks,
    timeouts: Timeouts,
    /// When each owner of locks was granted them, for `lock_time`.
    lock_times: Mutex<BTreeMap<u64, SystemTime>>,
    /// The registered connections by id.
    connections: Mutex<HashMap<u64, Arc<Connection>>>,
}

impl Hosted {
    /// Prepare a storage for its clients.
    pub fn new(
        name: String,
        storage: Arc<dyn Storage>,
        options: HostedOptions,
        workers: Pools,
    ) -> Result<Arc<Hosted>, crate::storage::StorageError> {
        let last_transaction = storage.last_transaction();
        let last = storage.last_invalidations(Invalidations::wanted(options.invalidation_queue_size))?;
        if let Some(damage) = &last.cut_short {
            let count = last.transactions.len();
            log::error!(
                target: LOG,
                "storage '{name}' is damaged: {damage}. Served all the same; the invalidation queue begins with {count} \
                 transactions, and clients that missed more verify their caches. `python -m ZODB.scripts.fstest Data.fs` checks the \
                 file, `python -m ZODB.fsrecover Data.fs NEW.fs` copies what is whole."
            );
        }
        let invalidations = Invalidations::new(options.invalidation_queue_size, last, last_transaction);
        let timeouts = Timeouts::start(options.transaction_timeout, &name)
            .map_err(crate::storage::StorageError::io("starting the thread for transaction-timeout"))?;
        let hosted = Arc::new(Hosted {
            publication: Publication::new(last_transaction, invalidations),
            stats: Stats::new(),
            locks: Locks::default(),
            timeouts,
            lock_times: Mutex::default(),
            connections: Mutex::default(),
            workers,
            pack: PackStatus::default(),
            log_changes: LogChanges::default(),
            name,
            storage,
            options,
        });
        let weak = Arc::downgrade(&hosted);
        hosted.storage.set_publisher(Arc::new(HostedPublisher(weak)));
        Ok(hosted)
    }

    /// Can nobody write here?
    pub fn is_read_only(&self) -> bool {
        self.options.read_only || self.storage.is_read_only()
    }

    // -- connections

    pub fn add_connection(&self, connection: &Arc<Connection>) {
        self.connections.lock().insert(connection.id, Arc::clone(connection));
    }

    /// Forget a connection: no invalidations any more.
    pub fn remove_connection(&self, connection: &Connection) {
        self.publication.leave(connection.id);
        if self.connections.lock().remove(&connection.id).is_some() {
            let loads = connection.loads.load(Ordering::Relaxed);
            self.stats.departed_loads.fetch_add(loads, Ordering::Relaxed);
        }
    }

    fn connection(&self, id: u64) -> Option<Arc<Connection>> {
        self.connections.lock().get(&id).cloned()
    }

    // -- locks on oids, and what hangs on them: the log, the clock, the next in the queue

    /// Ask for the locks of a transaction. The line about it is [`Requested::log`]'s.
    #[must_use]
    pub fn request_locks(&self, connection: &Connection, set: &LockSet) -> Requested {
        let (outcome, waiting) = self.locks.request(connection.id, set);
        Requested { outcome, waiting }
    }

    /// Were the locks that this connection asked for granted?
    pub fn holds_locks(&self, connection: &Connection) -> bool {
        self.locks.is_granted(connection.id)
    }

    /// The locks of this connection were granted: the clock of transaction-timeout runs.
    pub fn locks_granted(&self, connection: &Arc<Connection>) -> Running {
        self.lock_times.lock().insert(connection.id, SystemTime::now());
        let late = Arc::downgrade(connection);
        self.timeouts.begin(connection.id, move |timeout| {
            if let Some(connection) = late.upgrade() {
                let seconds = python_seconds(timeout);
                let message = format_args!("Transaction timeout after {seconds} seconds");
                connection.log(&client_log::ENDED, CRITICAL, message);
                connection.outbox.close("transaction timeout");
            }
        })
    }

    /// Give up what this connection holds or waits for. Returns who may vote now; see [`Hosted::wake`].
    pub fn release_locks(&self, connection: &Connection, running: Option<Running>) -> Vec<u64> {
        let released = self.unlock(connection, running);
        self.log_released(connection, &released);
        released.granted
    }

    /// The same without the log, which may be slow.
    pub fn unlock(&self, connection: &Connection, running: Option<Running>) -> Released {
        if let Some(running) = running {
            self.timeouts.end(connection.id, running);
        }
        self.lock_times.lock().remove(&connection.id);
        self.locks.release(connection.id)
    }

    pub fn log_released(&self, connection: &Connection, released: &Released) {
        if released.existed {
            let what = if released.had_waited { "dequeue lock" } else { "unlock" };
            self.log_waiting(connection, what, released.waiting);
        }
    }

    /// Let those vote whose locks were granted by a release.
    pub fn wake(self: &Arc<Self>, granted: Vec<u64>, vote: fn(&Arc<Hosted>, &Arc<Connection>)) {
        for owner in granted {
            let Some(connection) = self.connection(owner) else { continue };
            self.log_waiting(&connection, "lock", self.locks.waiting());
            let hosted = Arc::clone(self);
            self.workers.votes.run(move || vote(&hosted, &connection));
        }
    }

    fn log_waiting(&self, connection: &Connection, what: &str, waiting: usize) {
        let message = format_args!("('{}') {what}: transactions waiting: {waiting}", self.name);
        let level = match waiting {
            10.. => CRITICAL,
            4.. => WARNING,
            _ => DEBUG,
        };
        connection.log_lock(level, message);
    }

    // -- what clients ask about the storage

    /// `{'length': …, 'size': …}`
    pub fn size_info(&self) -> Value {
        size_info(self.storage.object_count(), self.storage.size())
    }

    /// `server_status()`, with the keys that this wire's generation has. `None`: those of ZEO 5, for `ruok`.
    pub fn status(&self, wire: Option<Wire>) -> Value {
        let lock_time = self.lock_times.lock().values().min().map_or(Value::None, |at| {
            Value::Float(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64())
        });
        let alive = if self.timeouts.is_active() { Value::Bool(true) } else { Value::text("stub") };
        let mut status = vec![
            ("loads", Value::Int(i64::try_from(self.loads()).unwrap_or(i64::MAX))),
            ("stores", Value::Int(stats::get(&self.stats.stores))),
            ("commits", Value::Int(stats::get(&self.stats.commits))),
            ("aborts", Value::Int(stats::get(&self.stats.aborts))),
            ("active_txns", Value::Int(stats::get(&self.stats.active_txns))),
            ("lock_time", lock_time),
            ("conflicts", Value::Int(stats::get(&self.stats.conflicts))),
            ("conflicts_resolved", Value::Int(stats::get(&self.stats.conflicts_resolved))),
            ("start", Value::text(self.stats.started())),
            ("connections", Value::Int(self.connection_count() as i64)),
            ("waiting", Value::Int(self.locks.waiting() as i64)),
            ("timeout-thread-is-alive", alive),
        ];
        if wire.is_some_and(|wire| wire.status_has_verifying_clients()) {
            status.push(("verifying_clients", Value::Int(stats::get(&self.stats.verifying_clients))));
        }
        if wire.is_none_or(|wire| wire.status_has_last_transaction()) {
            status.push(("last-transaction", Value::text(self.last_transaction().to_string())));
        }
        // Ours, and only while there is something to tell: ZEO's own clients compare the whole.
        if let Some(pack) = self.pack.value() {
            status.push(("pack", pack));
        }
        Value::Dict(status.into_iter().map(|(key, value)| (Value::text(key), value)).collect())
    }

    pub fn last_transaction(&self) -> Tid {
        self.publication.seen().last_transaction()
    }

    /// Loads since the start.
    pub fn loads(&self) -> u64 {
        let now: u64 = self.connections.lock().values().map(|c| c.loads.load(Ordering::Relaxed)).sum();
        now + self.stats.departed_loads.load(Ordering::Relaxed)
    }

    /// For how long the longest holder of locks has had them.
    pub fn locked_for(&self) -> Option<Duration> {
        let since = self.lock_times.lock().values().min().copied()?;
        Some(since.elapsed().unwrap_or_default())
    }

    /// How many clients are registered.
    pub fn connection_count(&self) -> usize {
        self.connections.lock().len()
    }

    /// Stop the clock; the storage is closed by its owner.
    pub fn stop(&self) {
        self.timeouts.stop();
    }
}

/// What came of a request for locks.
pub struct Requested {
    outcome: Outcome,
    waiting: usize,
}

impl Requested {
    /// Logs it, which may take its time: the connection's transaction must not be locked any more. True: they were granted.
    pub fn log(self, hosted: &Hosted, connection: &Connection) -> bool {
        let is_granted = self.outcome == Outcome::Granted;
        let what = if is_granted { "lock" } else { "queue lock" };
        hosted.log_waiting(connection, what, self.waiting);
        is_granted
    }
}

/// `{'length': …, 'size': …}`
pub fn size_info(object_count: u64, size: u64) -> Value {
    let int = |n: u64| Value::Int(i64::try_from(n).unwrap_or(i64::MAX));
    Value::dict([("length", int(object_count)), ("size", int(size))])
}

/// Seconds as Python writes the configured number: whole ones without a fraction.
fn python_seconds(timeout: Duration) -> String {
    let seconds = timeout.as_secs_f64();
    if seconds.fract() == 0.0 { format!("{}", timeout.as_secs()) } else { format!("{seconds}") }
}

/// The door through which the storage publishes; holds no reference that would keep the storage open.
pub(super) struct HostedPublisher(pub(super) Weak<Hosted>);

/// Objects of a transaction, as the lock table wants them; `undone` are those that its undos change.
pub fn lock_set(staged: &crate::storage::Staged, whole_storage: bool, undone: Vec<Oid>) -> LockSet {
    use crate::storage::staged::OpKind;
    let mut set = LockSet { whole_storage, exclusive: undone, ..LockSet::default() };
    for op in staged.ops() {
        let oid: Oid = op.oid;
        match op.kind {
            OpKind::CheckCurrent { .. } => set.shared.push(oid),
            OpKind::Undo { .. } => {}
            OpKind::Store { .. } | OpKind::Delete { .. } | OpKind::Restore { .. } => set.exclusive.push(oid),
        }
    }
    set
}
