//! One served storage and all that its connections share.
//!
//! Locks are taken in the order of their ranks ([`rank`]). A commit takes the members list of
//! [`publish`](super::publish), one connection's transaction and one outbox at a time: nothing is logged, sent, read
//! from a file or waited for under these, and debug builds check it. A session whose stores outgrow their memory writes
//! them to its temporary file under its own transaction, which no other thread needs before vote.

use std::collections::HashMap;
use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};

use crate::base::clock::TimeSource;
use crate::base::ids::Tid;
use crate::base::sync::{Arc, AtomicU64, Mutex, Ordering, rank};
use crate::server::audit::{AuditSlot, Event};
use crate::server::call_histograms::CallHistograms;
use crate::server::client_log::LOG;
use crate::server::connection::Connection;
use crate::server::history::History;
use crate::server::invalidations::Invalidations;
use crate::server::log_changes::LogChanges;
use crate::server::oid_locks::LockTable;
use crate::server::publish::Publication;
use crate::server::recent_conflicts::RecentConflicts;
use crate::server::request_counts::{RequestCounts, RequestKind};
use crate::server::scrub_status::ScrubStatus;
use crate::server::slow::SlowRequests;
use crate::server::stats::{self, PackStatus, Stats};
use crate::server::timeout::Timeouts;
use crate::server::workers::Pools;
use crate::storage::{CacheCounts, Storage};
use crate::wire::protocol::Wire;
use crate::wire::value::Value;

/// The configuration of every storage of a server.
#[derive(Clone, Debug, PartialEq)]
pub struct HostedOptions {
    pub read_only: bool,
    pub invalidation_queue_size: usize,
    pub invalidation_age: Option<Duration>,
    pub transaction_timeout: Option<Duration>,
    /// Clients that can (ZEO 5 and later) merge conflicts themselves.
    pub client_conflict_resolution: bool,
    /// `max-transaction-objects`, which counts the objects that undos change, too.
    pub transaction_objects: Option<u64>,
}

/// A storage with its clients.
pub struct Hosted {
    pub name: String,
    /// Of this start, for clients that use several connections. `None`: the system had no random numbers.
    pub instance: Option<String>,
    pub storage: Arc<dyn Storage>,
    /// Whether the server is read-only.
    read_only: bool,
    /// A reload replaces them.
    options: ArcSwap<HostedOptions>,
    pub publication: Publication,
    pub stats: Stats,
    pub workers: Pools,
    pub clock: TimeSource,
    pub pack: PackStatus,
    /// The dry run of a pack.
    pub pack_plan: PackStatus,
    pub scrub: ScrubStatus,
    pub conflicts: RecentConflicts,
    pub slow_requests: SlowRequests,
    pub call_histograms: CallHistograms,
    audit: OnceLock<AuditSlot>,
    /// What it has done in the last hour, if that is recorded.
    pub history: History,
    pub log_changes: LogChanges,
    pub locks: Arc<LockTable>,
    /// The registered connections by id.
    connections: Mutex<HashMap<u64, Arc<Connection>>, rank::Connections>,
    writable_again: AtomicU64,
}

impl Hosted {
    /// Prepares a storage for its clients. [`Server::new`](super::Server::new) sets its publisher.
    pub fn new(
        name: String,
        storage: Arc<dyn Storage>,
        options: HostedOptions,
        workers: Pools,
        clock: TimeSource,
    ) -> Result<Arc<Hosted>, crate::storage::StorageError> {
        let last_transaction = storage.last_transaction();
        let last = storage.last_invalidations(Invalidations::wanted(options.invalidation_queue_size))?;
        if let Some(damage) = &last.cut_short {
            let count = last.transactions.len();
            log::error!(
                target: LOG,
                "storage '{name}' is damaged: {damage}. Served all the same; the invalidation queue begins with {count} \
                 transactions, and clients that missed more verify their caches. `zeofs test Data.fs` checks the file, \
                 `zeofs recover Data.fs NEW.fs` copies what is whole."
            );
        }
        let invalidations = Invalidations::new(options.invalidation_queue_size, last, last_transaction);
        let timeouts = Timeouts::start(options.transaction_timeout, &name, clock.clone())
            .map_err(crate::storage::StorageError::io("starting the thread for transaction-timeout"))?;
        let mut random = [0; 8];
        let instance =
            getrandom::fill(&mut random).is_ok().then(|| format!("{:016x}", u64::from_ne_bytes(random)));
        Ok(Arc::new(Hosted {
            instance,
            publication: Publication::new(last_transaction, invalidations),
            stats: Stats::new(clock.system_time()),
            locks: LockTable::new(name.clone(), timeouts, workers.votes.clone(), clock.clone()),
            connections: Mutex::default(),
            writable_again: AtomicU64::new(0),
            workers,
            clock,
            pack: PackStatus::default(),
            pack_plan: PackStatus::default(),
            scrub: ScrubStatus::default(),
            conflicts: RecentConflicts::default(),
            slow_requests: SlowRequests::default(),
            call_histograms: CallHistograms::default(),
            audit: OnceLock::new(),
            history: History::default(),
            log_changes: LogChanges::default(),
            name,
            storage,
            read_only: options.read_only,
            options: ArcSwap::from_pointee(options),
        }))
    }

    /// Whether the server or the storage is read-only.
    pub fn is_read_only(&self) -> bool {
        self.read_only || self.storage.is_read_only()
    }

    /// The options at this moment.
    pub fn options(&self) -> Guard<Arc<HostedOptions>> {
        self.options.load()
    }

    /// Sets other options. `read-only` and `invalidation-queue-size` stay. After an error nothing has changed.
    pub fn set_options(&self, options: &HostedOptions) -> io::Result<()> {
        self.locks.set_timeout(options.transaction_timeout)?;
        self.options.store(Arc::new(HostedOptions {
            read_only: self.read_only,
            invalidation_queue_size: self.options.load().invalidation_queue_size,
            ..options.clone()
        }));
        Ok(())
    }

    // -- connections

    pub fn add_connection(&self, connection: &Arc<Connection>) {
        self.connections.lock().insert(connection.id(), Arc::clone(connection));
    }

    /// Removes a connection: it gets no invalidations any more.
    pub fn remove_connection(&self, connection: &Connection) {
        self.publication.leave(connection.id());
        let mut connections = self.connections.lock();
        if connections.remove(&connection.id()).is_some() {
            // With the list locked: who adds up sees the numbers either there or here, so that no sum ever shrinks.
            stats::count_many(&self.stats.departed_loads, connection.loads.load(Ordering::Relaxed));
            self.stats.departed_requests.take_in(&connection.requests);
            stats::count_many(&self.stats.departed_received, connection.received.load(Ordering::Relaxed));
            stats::count_many(&self.stats.departed_sent, connection.outbox.load().sent);
        }
    }

    /// The registered connections.
    pub fn connections(&self) -> Vec<Arc<Connection>> {
        self.connections.lock().values().cloned().collect()
    }

    /// Notes what happens in the audit log of the server from here on.
    pub fn set_audit(&self, audit: &AuditSlot) {
        let _ = self.audit.set(audit.clone());
    }

    /// The audit log, if there is one that wants lines about this.
    pub fn audit(&self, event: Event) -> Option<&AuditSlot> {
        self.audit.get().filter(|audit| audit.wants(event))
    }

    /// The registered connection of this number.
    pub fn connection(&self, id: u64) -> Option<Arc<Connection>> {
        self.connections.lock().get(&id).cloned()
    }

    /// How often it became known that this server or another one can be written now.
    pub fn writable_again(&self) -> u64 {
        self.writable_again.load(Ordering::SeqCst)
    }

    /// This server or another one can be written now. Returns the registered connections that were refused as writers,
    /// and read now. One that registers after this finds [`writable_again`](Self::writable_again) changed.
    pub fn refused_writers(&self) -> Vec<Arc<Connection>> {
        self.writable_again.fetch_add(1, Ordering::SeqCst);
        let connections = self.connections.lock();
        connections.values().filter(|c| c.wanted_to_write.load(Ordering::Relaxed)).cloned().collect()
    }

    // -- answers about the storage

    /// `{'length': …, 'size': …}`
    pub fn size_info(&self) -> Value {
        size_info(self.storage.object_count(), self.storage.size())
    }

    /// `server_status()`, with the keys of this wire's generation. `None`: the keys of ZEO 5, for `ruok`.
    pub fn status(&self, wire: Option<Wire>) -> Value {
        let lock_time = self.locks.locked_since().map_or(Value::None, Value::Float);
        let alive = if self.locks.has_timeout() { Value::Bool(true) } else { Value::text("stub") };
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
        // Not in Python's server, so only where there is something to tell: tools may compare the whole dict.
        if wire.is_none()
            && let Some(CacheCounts { loads, hits, used, size }) = self.storage.cache_counts()
            && hits > 0
        {
            let number = |count: u64| Value::Int(i64::try_from(count).unwrap_or(i64::MAX));
            let counts = [("loads", loads), ("hits", hits), ("used", used), ("size", size)];
            status.push(("cache", Value::dict(counts.map(|(key, count)| (key, number(count))))));
        }
        if wire.is_none()
            && let Some(last) = self.pack.last()
        {
            status.push(("last-pack", last));
        }
        if wire.is_none()
            && let Some(next) = self.pack.next()
        {
            status.push(("next-pack", Value::Float(next as f64)));
        }
        if wire.is_none() {
            status.extend(self.scrub.values());
        }
        let denied = stats::get(&self.stats.denied);
        if wire.is_none() && denied > 0 {
            status.push(("denied", Value::Int(denied)));
        }
        // The same, so only during a pack.
        if let Some(pack) = self.pack.value() {
            status.push(("pack", pack));
        }
        if let Some(plan) = self.pack_plan.value() {
            status.push(("pack-plan", plan));
        }
        Value::Dict(status.into_iter().map(|(key, value)| (Value::text(key), value)).collect())
    }

    pub fn last_transaction(&self) -> Tid {
        self.publication.seen().last_transaction()
    }

    /// Number of loads since the start.
    pub fn loads(&self) -> u64 {
        let connections = self.connections.lock();
        let now: u64 = connections.values().map(|c| c.loads.load(Ordering::Relaxed)).sum();
        now + self.stats.departed_loads.load(Ordering::Relaxed)
    }

    /// Numbers of requests since the start, by kind.
    pub fn requests(&self) -> Vec<(RequestKind, u64)> {
        let connections = self.connections.lock();
        let departed = std::iter::once(&self.stats.departed_requests);
        RequestCounts::sums(connections.values().map(|connection| &connection.requests).chain(departed))
    }

    /// Bytes of messages from clients since the start, and bytes of messages to them.
    pub fn traffic(&self) -> [u64; 2] {
        let connections = self.connections.lock();
        let departed = [&self.stats.departed_received, &self.stats.departed_sent];
        let mut sums = departed.map(|counter| counter.load(Ordering::Relaxed));
        let [received, sent] = &mut sums;
        for connection in connections.values() {
            *received += connection.received.load(Ordering::Relaxed);
            *sent += connection.outbox.load().sent;
        }
        sums
    }

    /// Number of registered clients.
    pub fn connection_count(&self) -> usize {
        self.connections.lock().len()
    }

    /// Ends the thread of `transaction-timeout`; the storage is closed by its owner.
    pub fn stop(&self) {
        self.locks.stop();
    }
}

/// `{'length': …, 'size': …}`
pub fn size_info(object_count: u64, size: u64) -> Value {
    let int = |n: u64| Value::Int(i64::try_from(n).unwrap_or(i64::MAX));
    Value::dict([("length", int(object_count)), ("size", int(size))])
}
