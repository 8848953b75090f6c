//! The server: storages, their clients, and the order of starting (`start`) and stopping.
//!
//! Starting: sockets listen once the storages' files and directories are there, but before they are read, so that
//! clients queue up in the kernel instead of backing off; they are accepted once everything is ready. Stopping: no
//! connection is accepted any more, finishes that are under way are completed and answered, everything else is
//! aborted, then the storages are closed.

pub mod acceptor;
pub mod access;
pub mod admission;
pub mod audit;
pub mod backup_status;
pub mod call_histograms;
pub mod client_log;
pub mod connection;
pub mod connection_counts;
pub mod descriptors;
pub mod disk_space;
mod disk_trend;
pub mod disk_watch;
pub mod history;
pub mod hosted;
pub mod http;
pub mod invalidations;
mod job_panic;
pub mod limits;
pub mod locks;
pub mod log_changes;
pub mod metrics;
pub mod monitor;
pub mod oid_locks;
pub mod outbox;
mod pack_plans;
pub mod pack_schedule;
pub mod packs;
pub mod peer;
pub mod policy;
pub mod publish;
pub mod rates;
pub mod recent_conflicts;
pub mod record_memory;
pub mod registered;
pub mod reload_status;
pub mod renewal;
mod replies;
pub mod request_counts;
pub mod rights;
pub mod scrub_status;
pub mod session;
pub mod slow;
mod start;
pub mod stats;
pub mod status;
pub mod stop_signal;
pub mod timeout;
pub mod transaction;
mod watch;
pub mod workers;

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;

use crate::base::clock::TimeSource;
use crate::base::sync::{Arc, AtomicBool, AtomicU64, Condvar, Mutex, Ordering, rank};
use crate::net::listen::Listener;
use crate::server::admission::Admission;
use crate::server::audit::AuditSlot;
use crate::server::backup_status::BackupStatus;
use crate::server::connection::Connection;
use crate::server::connection_counts::ConnectionCounts;
use crate::server::descriptors::Descriptors;
use crate::server::disk_space::DiskSpaces;
use crate::server::hosted::Hosted;
use crate::server::limits::Limits;
use crate::server::pack_plans::PackPlans;
use crate::server::reload_status::ReloadStatus;
use crate::server::status::cluster::{ClusterStatus, ClusterView};
use crate::server::stop_signal::StopSignal;
use crate::wire::protocol::Greeting;
use crate::wire::value::Value;

/// Longest wait of a stop for sessions to end by themselves, and then again for those that were closed.
const STOP_WAIT_MAX: Duration = Duration::from_secs(5);

/// A running server.
pub struct Server {
    storages: BTreeMap<String, Arc<Hosted>>,
    greeting: Greeting,
    /// A reload replaces them.
    limits: ArcSwap<Limits>,
    descriptors: Descriptors,
    clock: TimeSource,
    admission: Arc<Admission>,
    backups: Mutex<Vec<Arc<BackupStatus>>, rank::Backups>,
    audit: AuditSlot,
    reloads: ReloadStatus,
    disks: DiskSpaces,
    /// Whether samples are taken.
    has_history: AtomicBool,
    /// The configuration file, for monitoring.
    configuration: OnceLock<String>,
    started: SystemTime,
    /// Of the thread that closes idle connections.
    watch_stop: StopSignal,
    /// Of the thread that packs by schedule.
    schedule_stop: StopSignal,
    pack_plans: Mutex<PackPlans, rank::PackPlans>,
    clients: Mutex<HashMap<u64, Arc<Connection>>, rank::Clients>,
    client_left: Condvar,
    next_connection_id: AtomicU64,
    stopping: AtomicBool,
    listeners: Mutex<Vec<Arc<Listener>>, rank::Listeners>,
    /// The cluster that it is in, for monitoring.
    cluster: OnceLock<Box<ClusterView>>,
    /// Those of `<http>`, for monitoring.
    shown_listeners: OnceLock<Vec<Arc<Listener>>>,
}

impl Server {
    /// The storage that clients call `name`.
    pub fn hosted(&self, name: &str) -> Option<Arc<Hosted>> {
        self.storages.get(name).cloned()
    }

    /// All storages, by name.
    pub fn storages(&self) -> impl Iterator<Item = Arc<Hosted>> {
        self.storages.values().cloned()
    }

    /// The first message to each client.
    pub fn greeting(&self) -> Greeting {
        self.greeting
    }

    /// The limits at this moment. Sessions keep those of the begin of their transaction.
    pub fn limits(&self) -> Arc<Limits> {
        self.limits.load_full()
    }

    /// Sets other limits. What has begun keeps what it has: `max-unsent` and `dead-peer-timeout` are for later
    /// connections, those of transactions for later ones. `max-message-size` stays, for the storages have it too.
    pub fn set_limits(&self, limits: Limits) {
        let limits = Limits { message_size: self.limits.load().message_size, ..limits };
        let division = self.descriptors.divide_again(&limits);
        division.log(&limits);
        self.admission.set_limits(&limits, &division);
        for hosted in self.storages.values() {
            hosted.slow_requests.set_threshold(limits.slow_request_time);
        }
        self.limits.store(Arc::new(limits));
        self.watch_stop.wake();
    }

    /// The audit log, if there is one.
    pub fn audit(&self) -> &AuditSlot {
        &self.audit
    }

    pub fn admission(&self) -> &Arc<Admission> {
        &self.admission
    }

    /// The sockets that it listens on, those of `monitor-address` included, and those that it shows.
    pub(crate) fn listeners(&self) -> Vec<Arc<Listener>> {
        let mut listeners = self.listeners.lock().clone();
        listeners.extend(self.shown_listeners.get().into_iter().flatten().cloned());
        listeners
    }

    /// Shows monitoring sockets at which others listen: those of `<http>`. Later calls change nothing.
    pub fn show_listeners(&self, listeners: &[Arc<Listener>]) {
        let _ = self.shown_listeners.set(listeners.to_vec());
    }

    /// What has become of connections.
    pub(crate) fn counts(&self) -> &ConnectionCounts {
        self.admission.counts()
    }

    /// The room for its storages.
    pub(crate) fn disks(&self) -> &DiskSpaces {
        &self.disks
    }

    /// Samples what the storages do, from now on.
    pub fn record_history(&self) {
        self.has_history.store(true, Ordering::Relaxed);
    }

    fn has_history(&self) -> bool {
        self.has_history.load(Ordering::Relaxed)
    }

    /// Shows monitoring where the configuration is. Later calls change nothing.
    pub fn set_configuration(&self, file: String) {
        let _ = self.configuration.set(file);
    }

    /// The configuration file, if there is one.
    pub fn configuration(&self) -> Option<&str> {
        self.configuration.get().map(String::as_str)
    }

    /// Shows monitoring the cluster that the server is in. Later calls change nothing.
    pub fn show_cluster(&self, view: Box<ClusterView>) {
        let _ = self.cluster.set(view);
    }

    /// The cluster that the server is in, as it is now. `None`: it is on its own.
    pub fn cluster(&self) -> Option<ClusterStatus> {
        self.cluster.get().map(|view| view())
    }

    /// Shows the backups of a `<backup>` section to monitoring.
    pub fn add_backup(&self, backup: Arc<BackupStatus>) {
        self.backups.lock().push(backup);
    }

    /// Shows these in place of all others.
    pub fn set_backups(&self, backups: Vec<Arc<BackupStatus>>) {
        *self.backups.lock() = backups;
    }

    /// The backups, in the order of the configuration.
    pub fn backups(&self) -> Vec<Arc<BackupStatus>> {
        self.backups.lock().clone()
    }

    /// How the last reload of the configuration has ended.
    pub fn reloads(&self) -> &ReloadStatus {
        &self.reloads
    }

    /// When the server began to serve.
    pub fn started(&self) -> SystemTime {
        self.started
    }

    pub(crate) fn descriptors(&self) -> &Descriptors {
        &self.descriptors
    }

    pub(crate) fn clock(&self) -> &TimeSource {
        &self.clock
    }

    fn watch_stop(&self) -> &StopSignal {
        &self.watch_stop
    }

    fn schedule_stop(&self) -> &StopSignal {
        &self.schedule_stop
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    pub(crate) fn next_connection_id(&self) -> u64 {
        self.next_connection_id.fetch_add(1, Ordering::Relaxed)
    }

    /// False: the server is stopping, and the connection must end.
    pub(crate) fn add_client(&self, connection: &Arc<Connection>) -> bool {
        let mut clients = self.clients.lock();
        if self.is_stopping() {
            return false;
        }
        clients.insert(connection.id(), Arc::clone(connection));
        true
    }

    pub(crate) fn remove_client(&self, connection: &Connection) {
        self.clients.lock().remove(&connection.id());
        self.client_left.notify_all();
    }

    /// Waits until a client leaves, at most `wait_max`: for a thread that lacks a resource that clients hold.
    pub(crate) fn wait_for_departure(&self, wait_max: Duration) {
        let until = self.clock.now() + wait_max;
        let clients = self.clients.lock();
        drop(self.clock.wait_until(&self.client_left, clients, until));
    }

    /// The answer to `ruok`: JSON, the status of each storage. The peer's generation is not known, so
    /// the keys are those of ZEO 5.
    pub fn ruok(&self) -> String {
        self.ruok_of(|_| true)
    }

    /// The same for the storages that a listener serves.
    pub(crate) fn ruok_of(&self, is_served: impl Fn(&str) -> bool) -> String {
        let served = self.storages().filter(|hosted| is_served(&hosted.name));
        let status = served.map(|hosted| (hosted.name.clone(), to_json(&hosted.status(None))));
        serde_json::Value::Object(status.collect()).to_string()
    }

    /// The client with this number, registered or not.
    pub fn client(&self, id: u64) -> Option<Arc<Connection>> {
        self.clients.lock().get(&id).cloned()
    }

    fn clients(&self) -> Vec<Arc<Connection>> {
        self.clients.lock().values().cloned().collect()
    }

    /// Waits until all clients have gone, or for `wait_max`. False: some are still there.
    fn wait_for_clients(&self, wait_max: Duration) -> bool {
        let until = self.clock.now() + wait_max;
        let mut clients = self.clients.lock();
        while !clients.is_empty() {
            if self.clock.now() >= until {
                return false;
            }
            clients = self.clock.wait_until(&self.client_left, clients, until);
        }
        true
    }

    /// Ends all sessions. Afterwards the storages are still open, with nothing under way.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        for listener in self.listeners.lock().drain(..) {
            listener.end();
        }
        for connection in self.clients() {
            connection.outbox.sink().shutdown_recv();
        }
        if !self.wait_for_clients(STOP_WAIT_MAX) {
            // Clients that do not read their replies.
            self.clients().iter().for_each(|connection| connection.outbox.close("the server stops"));
            if !self.wait_for_clients(STOP_WAIT_MAX) {
                log::warn!(
                    target: client_log::LOG,
                    "{} connections did not end in time and are cut off",
                    self.clients().len()
                );
            }
        }
        self.schedule_stop.stop();
        self.watch_stop.stop();
        self.storages.values().for_each(|hosted| hosted.stop());
        client_log::log_left_out(self.clock.now(), true);
    }
}

/// Converts the values that `ruok` and its readers need.
fn to_json(value: &Value) -> serde_json::Value {
    use serde_json::Value as Json;
    match value {
        Value::Bool(b) => Json::Bool(*b),
        Value::Int(n) => Json::from(*n),
        Value::Float(x) => Json::from(*x),
        Value::Bytes(b) | Value::Str(b) => Json::String(String::from_utf8_lossy(b).into_owned()),
        Value::Text(s) | Value::Unicode(s) => Json::String(s.clone()),
        Value::Tuple(items) | Value::List(items) => Json::Array(items.iter().map(to_json).collect()),
        Value::Dict(items) => {
            let text = |key: &Value| match to_json(key) {
                Json::String(s) => s,
                other => other.to_string(),
            };
            Json::Object(items.iter().map(|(key, value)| (text(key), to_json(value))).collect())
        }
        Value::None | Value::BigInt(_) | Value::Prefix(_) | Value::Exception(_) => Json::Null,
    }
}
