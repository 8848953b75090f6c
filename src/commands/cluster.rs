//! The cluster that `<replication>` configures, for the server: what it shows of it, and the layer around its files.

use std::time::{Duration, UNIX_EPOCH};

use crate::base::ids::Tid;
use crate::base::level::{ERROR, INFO};
use crate::base::sync::Arc;
use crate::base::untrusted::Untrusted;
use crate::commands::failure::Failure;
use crate::config::Config;
use crate::replication::cluster::Cluster;
use crate::replication::cluster::options::{OnTimeout, Role};
use crate::replication::cluster::report::{
    ClusterReport, FollowingReport, ReplicaReport, StorageReplication,
};
use crate::server::Server;
use crate::server::client_log::{PACKS, log_without_peer};
use crate::server::hosted::Hosted;
use crate::server::packs::{self, AskedBy, PackFailure};
use crate::server::status::cluster::{ClusterRole, ClusterStatus, ClusterStorage, Following, ReplicaStatus};
use crate::storage::{Storage, StorageError};

/// This server in its cluster.
#[derive(Clone)]
pub(super) struct Member {
    cluster: Arc<Cluster>,
    max_staleness: Option<Duration>,
}

impl Member {
    /// Begins, before the storages are opened and with their files locked. `None`: there is no `<replication>`.
    pub(super) fn start(config: &Config) -> Result<Option<Member>, Failure> {
        let Some(options) = &config.replication else { return Ok(None) };
        let cluster = Cluster::start(options.clone())
            .map_err(|error| Failure::outside(format!("<replication>: {error}")))?;
        Ok(Some(Member { cluster, max_staleness: options.max_staleness }))
    }

    pub(super) fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// All storages are open, and clients can connect.
    pub(super) fn begin(&self, server: &Arc<Server>) -> Result<(), Failure> {
        let shown = self.clone();
        server.show_cluster(Box::new(move || shown.status()));
        let server = Arc::downgrade(server);
        let pack = Box::new(move |storage: &str, time| {
            if let Some(hosted) = server.upgrade().and_then(|server| server.hosted(storage)) {
                follow_pack(hosted, time);
            }
        });
        self.cluster.begin(pack).map_err(|error| Failure::outside(error.to_string()))
    }

    /// The server is about to stop: no commit waits for replicas for ever.
    pub(super) fn stops(&self) {
        self.cluster.stops();
    }

    /// The server has stopped; its storages are still open.
    pub(super) fn end(&self) {
        self.cluster.end();
    }

    /// What is shown.
    pub(super) fn status(&self) -> ClusterStatus {
        status(self.cluster.report(), self.max_staleness)
    }
}

/// A file with the layer of the cluster, if there is one.
pub(super) fn replicated(
    member: Option<&Member>,
    name: &str,
    file: Arc<dyn Storage>,
) -> Result<Arc<dyn Storage>, StorageError> {
    match member {
        Some(member) => member.cluster.replicate(name, file),
        None => Ok(file),
    }
}

/// Packs a replica to the time that its primary was packed to. Returns at once.
fn follow_pack(hosted: Arc<Hosted>, time: f64) {
    let packing = hosted.workers.packs.clone();
    packing.run(move || {
        let name = &hosted.name;
        let log = |level, what: std::fmt::Arguments<'_>| {
            log_without_peer(&PACKS, level, format_args!("storage '{name}': pack(time={time:?}) {what}"));
        };
        log(INFO, format_args!("as the primary was packed, started..."));
        match packs::pack(&hosted, time, AskedBy::Other("the primary's pack")) {
            Ok(()) => log(INFO, format_args!("complete")),
            Err(PackFailure { error, .. }) => log(ERROR, format_args!("ended with an error: {error}")),
        }
        packs::announce(&hosted);
    });
}

/// What other servers say of themselves is escaped, as what clients say.
fn status(report: ClusterReport, max_staleness: Option<Duration>) -> ClusterStatus {
    let escaped = |text: Option<String>| text.map(|text| Untrusted(&text).to_string());
    ClusterStatus {
        name: report.name,
        role: match report.role {
            Role::Primary => ClusterRole::Primary,
            Role::Replica => ClusterRole::Replica,
        },
        held: escaped(report.held),
        fenced: escaped(report.fenced),
        promotions: report.promotions,
        timeline: Untrusted(&report.timeline).to_string(),
        since: unix(report.since),
        primary: escaped(report.primary),
        synchronous_replicas: report.synchronous_replicas,
        on_timeout: match report.on_timeout {
            OnTimeout::Degrade => "degrade",
            OnTimeout::Block => "block",
        },
        max_staleness_seconds: max_staleness.map(|age| age.as_secs_f64()),
        storages: report.storages.into_iter().map(storage).collect(),
    }
}

fn storage(report: StorageReplication) -> ClusterStorage {
    ClusterStorage {
        storage: report.storage,
        last: hex(report.last),
        following: report.following.map(following),
        replicas: report.replicas.into_iter().map(replica).collect(),
        degraded_since: report.degraded_since.map(unix),
        degradations: report.degradations,
    }
}

fn following(report: FollowingReport) -> Following {
    Following {
        failure: report.failure.map(|failure| Untrusted(&failure).to_string()),
        primary_last: hex(report.primary_last),
        behind: report.behind.map(Into::into),
        staleness_seconds: report.staleness.map(|age| age.as_secs_f64()),
    }
}

fn replica(report: ReplicaReport) -> ReplicaStatus {
    ReplicaStatus {
        name: Untrusted(&report.name).to_string(),
        peer: report.peer,
        since: unix(report.since),
        sent: hex(report.sent),
        received: hex(report.received),
        synced: hex(report.synced),
        published: hex(report.published),
        behind: report.behind.into(),
        synchronous: report.is_synchronous,
    }
}

fn hex(tid: Tid) -> String {
    tid.to_string()
}

fn unix(time: std::time::SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
