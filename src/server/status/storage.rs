//! A storage: what it has, its counters, its disk.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;

use super::client::ClientReport;
use super::history::HistoryReport;
use super::lag::LagStatus;
use super::locks::LockReport;
use super::slow::SlowReport;
use super::time::unix;
use super::work::{PackReport, ScrubReport};
use crate::base::ids::Tid;
use crate::server::call_histograms::CallKind;
use crate::server::disk_space::{DiskSpace, DiskUse};
use crate::server::hosted::Hosted;
use crate::server::recent_conflicts::RefusedConflict;
use crate::server::stats;
use crate::storage::{Distribution, Remote, Replication, Secondary, SyncCounts};

/// A storage.
#[derive(Clone, Debug, Serialize)]
pub struct StorageReport {
    /// The name by which clients ask for it.
    pub name: String,
    /// What it says of itself; for a file storage, its path.
    pub storage: String,
    pub state: StorageState,
    /// Why it cannot be written any more.
    pub failure: Option<String>,
    /// When it was open.
    pub started: f64,
    pub size_bytes: u64,
    pub objects: u64,
    /// The tid of the last transaction in hex; 16 zeros if there is none.
    pub last_transaction: String,
    /// The time of the last transaction.
    pub last_transaction_time: Option<f64>,
    pub counters: Counters,
    /// Requests of registered clients since the start, by method.
    pub requests: BTreeMap<&'static str, u64>,
    pub active_transactions: u64,
    pub clients_verifying: u64,
    pub locks: LockReport,
    /// The last ones that were refused, the newest first.
    pub conflicts: Vec<ConflictReport>,
    /// The last ones, the newest first.
    pub slow_requests: Vec<SlowReport>,
    pub pack: PackReport,
    /// `None`: there is no `scrub-schedule`.
    pub scrub: Option<ScrubReport>,
    /// The cache of a `<zeoclient>`.
    pub cache: Option<CacheCounters>,
    /// Of a database: the server of it that is read.
    pub replication: Option<ReplicationReport>,
    /// Of a primary of ZRS: those that follow it. `None`: it is none.
    pub secondaries: Option<Vec<SecondaryReport>>,
    /// Of a `<zeoclient>` or a database: the server that the data comes from.
    pub remote: Option<RemoteReport>,
    pub disks: Vec<DiskReport>,
    /// What it has done in the last hour.
    pub history: HistoryReport,
    /// The registered connections, in the order in which they came.
    pub clients: Vec<ClientReport>,
    #[serde(skip)]
    pub syncs: Option<SyncCounts>,
    #[serde(skip)]
    pub calls: [(CallKind, Distribution); 3],
}

/// Whether a storage can be written.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StorageState {
    Writable,
    /// As configured, or because the server of a `<zeoclient>` is.
    ReadOnly,
    /// The medium has failed: what was stored can still be read.
    Failed,
}

/// A conflict that was refused.
#[derive(Clone, Debug, Serialize)]
pub struct ConflictReport {
    pub time: f64,
    /// The object, in hex.
    pub oid: String,
    /// Its class; `None`: its record has none.
    pub class: Option<String>,
    /// Number and label of the client.
    pub client: u64,
    pub label: String,
    /// The serial that was current, and the one that the client had read, in hex.
    pub committed: String,
    pub read: String,
}

/// What has happened since the start.
#[derive(Clone, Debug, Serialize)]
pub struct Counters {
    pub loads: u64,
    pub stores: u64,
    /// Bytes of the records of all stores.
    pub stored_bytes: u64,
    pub commits: u64,
    /// Commits that undo others, among them.
    pub undos: u64,
    pub aborts: u64,
    /// Conflicts that were not resolved by the server.
    pub conflicts: u64,
    pub conflicts_resolved: u64,
    pub transaction_timeouts: u64,
    /// Registrations and calls that the rules of `<access>` did not permit.
    pub denied: u64,
    /// Waits of sessions whose addresses were ahead of their rates.
    pub throttled: u64,
    /// Connections that were closed because their clients did not read (`max-unsent`).
    pub clients_unread: u64,
    /// Clients that have returned with a cache, and were told what has changed since.
    pub verifications_quick: u64,
    /// Those that could not be told, for it is too long ago.
    pub verifications_too_old: u64,
    /// The same, for their last transaction is not in the storage.
    pub verifications_unknown: u64,
    /// Requests that took longer than `slow-request-time`.
    pub slow_requests: u64,
    /// Bytes of messages from clients, and to them.
    pub received_bytes: u64,
    pub sent_bytes: u64,
}

/// What a cache has done.
#[derive(Clone, Debug, Serialize)]
pub struct CacheCounters {
    pub loads: u64,
    /// Loads that the cache has answered.
    pub hits: u64,
    pub used_bytes: u64,
    pub size_bytes: u64,
}

/// A database that is replicated.
#[derive(Clone, Debug, Serialize)]
pub struct ReplicationReport {
    /// `primary` or `standby`.
    pub role: &'static str,
    /// Whether a standby is connected to the server that it follows.
    pub connected: bool,
    /// How old its state is. `None`: it is not known.
    pub behind_seconds: Option<f64>,
}

/// A secondary of ZRS.
#[derive(Clone, Debug, Serialize)]
pub struct SecondaryReport {
    /// Its address.
    pub peer: String,
    /// When it connected.
    pub since: f64,
    /// The last transaction that it was sent.
    pub sent: String,
    /// What it was not sent.
    pub behind: LagStatus,
}

/// Another server, that a storage has its data from.
#[derive(Clone, Debug, Serialize)]
pub struct RemoteReport {
    pub connected: bool,
    /// Since when.
    pub since: f64,
    /// How often the connection was lost.
    pub interruptions: u64,
    /// Why it is not connected.
    pub error: Option<String>,
}

/// A directory, and the room in its file system.
#[derive(Clone, Debug, Serialize)]
pub struct DiskReport {
    #[serde(skip)]
    pub storage: Option<String>,
    /// `data`, `blobs` or `tmp`.
    pub usage: &'static str,
    pub directory: String,
    /// `None`: it cannot be asked, or not yet.
    pub free_bytes: Option<u64>,
    pub total_bytes: Option<u64>,
    /// When these numbers were found.
    pub time: Option<f64>,
    /// By how much the free space changes in a day, by the straight line that fits its values best. `None`: it is too
    /// early.
    pub free_change_per_day: Option<f64>,
    /// Seconds of these values: up to a week.
    pub change_seconds: Option<f64>,
    /// In how many seconds the disk is full if it goes on like this. `None`: never, or it is too early.
    pub full_in_seconds: Option<f64>,
}

impl StorageReport {
    pub(super) fn of(hosted: &Hosted, disks: &[DiskReport], now: SystemTime) -> StorageReport {
        let mut connections = hosted.connections();
        connections.sort_unstable_by_key(|connection| connection.id());
        let clients: Vec<ClientReport> =
            connections.iter().map(|connection| ClientReport::of(connection, now)).collect();
        let last = hosted.last_transaction();
        let failure = hosted.storage.failure();
        let state = match failure {
            Some(_) => StorageState::Failed,
            None if hosted.is_read_only() => StorageState::ReadOnly,
            None => StorageState::Writable,
        };
        let cache = hosted.storage.cache_counts().map(|counts| CacheCounters {
            loads: counts.loads,
            hits: counts.hits,
            used_bytes: counts.used,
            size_bytes: counts.size,
        });
        let own = |disk: &&DiskReport| disk.storage.as_ref() == Some(&hosted.name);
        StorageReport {
            name: hosted.name.clone(),
            storage: hosted.storage.name(),
            state,
            failure,
            started: unix(hosted.stats.started_at()),
            size_bytes: hosted.storage.size(),
            objects: hosted.storage.object_count(),
            last_transaction: last.to_string(),
            last_transaction_time: (last > Tid::ZERO).then(|| last.to_unix()),
            counters: Counters::of(hosted),
            requests: hosted.requests().into_iter().map(|(kind, number)| (kind.name(), number)).collect(),
            active_transactions: number(&hosted.stats.active_txns),
            clients_verifying: number(&hosted.stats.verifying_clients),
            locks: LockReport::of(hosted, &clients, now),
            conflicts: hosted.conflicts.list().into_iter().map(ConflictReport::of).collect(),
            slow_requests: hosted.slow_requests.list().into_iter().map(SlowReport::of).collect(),
            pack: PackReport::of(hosted),
            scrub: ScrubReport::of(hosted),
            cache,
            replication: hosted.storage.replication().map(ReplicationReport::of),
            secondaries: hosted
                .storage
                .secondaries()
                .map(|secondaries| secondaries.into_iter().map(SecondaryReport::of).collect()),
            remote: hosted.storage.remote().map(RemoteReport::of),
            disks: disks.iter().filter(own).cloned().collect(),
            history: HistoryReport::of(hosted),
            clients,
            syncs: hosted.storage.sync_counts(),
            calls: hosted.call_histograms.read(),
        }
    }

    pub(super) fn has_client(&self, id: u64) -> bool {
        self.clients.binary_search_by_key(&id, |client| client.id).is_ok()
    }
}

impl ReplicationReport {
    fn of(replication: Replication) -> ReplicationReport {
        ReplicationReport {
            role: if replication.is_standby { "standby" } else { "primary" },
            connected: replication.is_connected,
            behind_seconds: replication.behind.map(|behind| behind.as_secs_f64()),
        }
    }

    pub fn is_standby(&self) -> bool {
        self.role == "standby"
    }
}

impl SecondaryReport {
    fn of(secondary: Secondary) -> SecondaryReport {
        let Secondary { peer, since, sent, behind } = secondary;
        SecondaryReport { peer, since: unix(since), sent: sent.to_string(), behind: behind.into() }
    }
}

impl RemoteReport {
    fn of(remote: Remote) -> RemoteReport {
        RemoteReport {
            connected: remote.failure.is_none(),
            since: unix(remote.since),
            interruptions: remote.interruptions,
            error: remote.failure,
        }
    }
}

impl ConflictReport {
    fn of(refused: RefusedConflict) -> ConflictReport {
        let RefusedConflict { at, oid, class, client, label, committed, read } = refused;
        ConflictReport {
            time: unix(at),
            oid: format!("{:#x}", oid.0),
            class,
            client,
            label,
            committed: committed.to_string(),
            read: read.to_string(),
        }
    }
}

impl Counters {
    fn of(hosted: &Hosted) -> Counters {
        let counters = &hosted.stats;
        let [received_bytes, sent_bytes] = hosted.traffic();
        let [quick, too_old, unknown] = &counters.verifications;
        Counters {
            loads: hosted.loads(),
            stores: number(&counters.stores),
            stored_bytes: number(&counters.stored_bytes),
            commits: number(&counters.commits),
            undos: number(&counters.undos),
            aborts: number(&counters.aborts),
            conflicts: number(&counters.conflicts),
            conflicts_resolved: number(&counters.conflicts_resolved),
            transaction_timeouts: number(&counters.transaction_timeouts),
            denied: number(&counters.denied),
            throttled: number(&counters.throttled),
            clients_unread: number(&counters.unread),
            verifications_quick: number(quick),
            verifications_too_old: number(too_old),
            verifications_unknown: number(unknown),
            slow_requests: hosted.slow_requests.total(),
            received_bytes,
            sent_bytes,
        }
    }
}

impl DiskReport {
    pub(super) fn of(disk: &DiskSpace) -> DiskReport {
        let usage = match disk.place.usage {
            DiskUse::Data => "data",
            DiskUse::Blobs => "blobs",
            DiskUse::Temporary => "tmp",
        };
        DiskReport {
            storage: disk.place.storage.clone(),
            usage,
            directory: disk.place.directory.display().to_string(),
            free_bytes: disk.room.map(|room| room.free),
            total_bytes: disk.room.map(|room| room.total),
            time: disk.room.map(|room| unix(room.at)),
            free_change_per_day: disk.change.map(|change| (change.bytes_per_second * 86400.0).round()),
            change_seconds: disk.change.map(|change| change.over.as_secs_f64()),
            full_in_seconds: disk
                .change
                .zip(disk.room)
                .and_then(|(change, room)| change.seconds_left(room.free))
                .map(f64::round),
        }
    }
}

fn number(counter: &crate::base::sync::AtomicU64) -> u64 {
    u64::try_from(stats::get(counter)).unwrap_or(0)
}
