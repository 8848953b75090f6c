//! The metrics of a cluster. Without `<replication>` the families have no samples. The names of replicas, which are
//! values of a label, are those that other servers of the cluster have in their configurations.

use std::collections::BTreeSet;

use super::text::FamilyKind::{Counter, Gauge};
use super::text::{FamilyKind, MetricsText, Number};
use crate::server::status::cluster::{ClusterRole, ClusterStatus, ClusterStorage, Following, ReplicaStatus};

/// Adds all of them.
pub fn add(out: &mut MetricsText, cluster: Option<&ClusterStatus>) {
    let mut whole = |kind, name, help: &str, value: fn(&ClusterStatus) -> Number| {
        out.family(kind, name, help).add_if_known(&[], cluster.map(value));
    };
    whole(Gauge, "zeo_replication_primary", "Whether the server is the primary of its cluster.", |cluster| {
        (cluster.role == ClusterRole::Primary).into()
    });
    let help = "Whether a primary accepts no writes at present.";
    whole(Gauge, "zeo_replication_held", help, |cluster| cluster.held.is_some().into());
    let help = "Whether a server that was the primary is none any more, and lacks the newer timeline.";
    whole(Gauge, "zeo_replication_fenced", help, |cluster| cluster.fenced.is_some().into());
    whole(Counter, "zeo_replication_promotions", "Promotions in the life of the cluster.", |cluster| {
        cluster.promotions.into()
    });
    let storages = cluster.map(|cluster| cluster.storages.as_slice()).unwrap_or_default();
    of_replica(out, storages);
    of_primary(out, storages);
}

/// What a replica knows of the server that it follows.
fn of_replica(out: &mut MetricsText, storages: &[ClusterStorage]) {
    let mut each = |name, help: &str, value: fn(&Following) -> Option<Number>| {
        let mut family = out.family(Gauge, name, help);
        for storage in storages {
            let value = storage.following.as_ref().and_then(value);
            family.add_if_known(&[("storage", &storage.storage)], value);
        }
    };
    let help = "Whether a replica is connected to the server that it follows.";
    each("zeo_replication_connected", help, |of| Some(of.failure.is_none().into()));
    let help = "Bytes of the transactions that a replica lacks.";
    each("zeo_replication_lag_bytes", help, |of| Some(of.behind?.bytes.into()));
    let help = "Transactions that a replica lacks.";
    each("zeo_replication_lag_transactions", help, |of| Some(of.behind?.transactions.into()));
    let help = "Time since the oldest transaction that a replica lacks was committed.";
    each("zeo_replication_lag_seconds", help, |of| Some(of.behind?.seconds.into()));
    let help = "How old the state of a replica may be, also without a connection.";
    each("zeo_replication_staleness_seconds", help, |of| of.staleness_seconds.map(Into::into));
}

/// What a server knows of those that follow it.
fn of_primary(out: &mut MetricsText, storages: &[ClusterStorage]) {
    let mut each = |kind: FamilyKind, name, help: &str, value: fn(&ClusterStorage) -> Number| {
        let mut family = out.family(kind, name, help);
        storages.iter().for_each(|storage| family.add(&[("storage", &storage.storage)], value(storage)));
    };
    each(Gauge, "zeo_replication_replicas", "Servers that follow this one.", |of| of.replicas.len().into());
    let help = "Whether commits do not wait for replicas any more, because too few keep up.";
    each(Gauge, "zeo_replication_degraded", help, |of| of.degraded_since.is_some().into());
    let help = "How often that has begun.";
    each(Counter, "zeo_replication_degradations", help, |of| of.degradations.into());
    let mut each = |name, help: &str, value: fn(&ReplicaStatus) -> Number| {
        let mut family = out.family(Gauge, name, help);
        for storage in storages {
            for replica in with_different_names(&storage.replicas) {
                family.add(&[("storage", &*storage.storage), ("replica", &*replica.name)], value(replica));
            }
        }
    };
    let help = "Bytes of the transactions that a replica has not on its disk.";
    each("zeo_replication_replica_lag_bytes", help, |of| of.behind.bytes.into());
    let help = "Transactions that a replica has not on its disk.";
    each("zeo_replication_replica_lag_transactions", help, |of| of.behind.transactions.into());
    let help = "Time since the oldest of these was committed.";
    each("zeo_replication_replica_lag_seconds", help, |of| of.behind.seconds.into());
    let help = "Whether commits wait for the replica.";
    each("zeo_replication_replica_synchronous", help, |of| of.synchronous.into());
}

/// A series must not have two samples: of replicas with the same name, the first one is shown.
fn with_different_names(replicas: &[ReplicaStatus]) -> impl Iterator<Item = &ReplicaStatus> {
    let mut names = BTreeSet::new();
    replicas.iter().filter(move |replica| names.insert(&replica.name))
}
