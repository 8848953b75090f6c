//! The cluster of servers that this one is in, as it is shown. What replicates hands it in: the server itself knows
//! nothing of other servers.

use serde::Serialize;

use super::lag::{LAG_SECONDS_MAX, LagStatus};
use super::warnings::Warning;
use crate::base::numbers::span;

/// Says what is shown at this moment.
pub type ClusterView = dyn Fn() -> ClusterStatus + Send + Sync;

/// This server in its cluster, and what it knows of the others.
#[derive(Clone, Debug, Serialize)]
pub struct ClusterStatus {
    /// How the others call it.
    pub name: String,
    pub role: ClusterRole,
    /// Why a primary accepts no writes at present. `None`: it does, or it is a replica.
    pub held: Option<String>,
    /// Why a server that was the primary is none any more.
    pub fenced: Option<String>,
    /// Promotions in the life of the cluster.
    pub promotions: usize,
    /// The present timeline, and when it began.
    pub timeline: String,
    pub since: f64,
    /// Of a replica: the server that it follows; `None`: there is none.
    pub primary: Option<String>,
    /// Replicas that must have a transaction before its client is answered, and what happens if they do not.
    pub synchronous_replicas: usize,
    pub on_timeout: &'static str,
    /// A replica that is further behind is not ready.
    pub max_staleness_seconds: Option<f64>,
    pub storages: Vec<ClusterStorage>,
}

/// Which server of the cluster stores what clients commit.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ClusterRole {
    /// This one.
    Primary,
    /// Another one.
    Replica,
}

/// A storage of all servers of the cluster.
#[derive(Clone, Debug, Serialize)]
pub struct ClusterStorage {
    pub storage: String,
    /// The last transaction here, in hexadecimal digits.
    pub last: String,
    /// Of a replica.
    pub following: Option<Following>,
    /// The servers that follow this one.
    pub replicas: Vec<ReplicaStatus>,
    /// Since when commits do not wait for enough replicas; `None`: they do, or need none.
    pub degraded_since: Option<f64>,
    pub degradations: u64,
}

/// The connection of a replica to the server that it follows.
#[derive(Clone, Debug, Serialize)]
pub struct Following {
    /// Why there is none.
    pub failure: Option<String>,
    /// The last transaction there, as far as it is known.
    pub primary_last: String,
    /// `None`: not known, as there is no connection.
    pub behind: Option<LagStatus>,
    /// How old the state may be that clients see; `None`: not known, as there was no connection yet.
    pub staleness_seconds: Option<f64>,
}

/// A server that follows this one.
#[derive(Clone, Debug, Serialize)]
pub struct ReplicaStatus {
    pub name: String,
    pub peer: String,
    /// When it connected.
    pub since: f64,
    /// The last transactions that it was sent, and has received, synced and published.
    pub sent: String,
    pub received: String,
    pub synced: String,
    pub published: String,
    /// What it has not synced.
    pub behind: LagStatus,
    /// Commits wait for it.
    pub synchronous: bool,
}

impl ClusterStatus {
    /// Why clients that want to write must go elsewhere. `None`: this is the primary.
    pub fn not_primary(&self) -> Option<String> {
        match (self.role, &self.held, &self.primary) {
            (ClusterRole::Primary, None, _) => None,
            (ClusterRole::Primary, Some(why), _) => Some(format!("the primary accepts no writes: {why}")),
            (ClusterRole::Replica, _, Some(primary)) => Some(format!("a replica, which follows {primary}")),
            (ClusterRole::Replica, _, None) => Some("a replica, which has found no primary".into()),
        }
    }

    /// Why a replica serves no clients by `max-staleness`, a line for each storage.
    pub fn too_stale(&self) -> impl Iterator<Item = String> {
        let max = self.max_staleness_seconds.filter(|_| self.role == ClusterRole::Replica);
        self.storages.iter().filter_map(move |storage| {
            let (max, following) = (max?, storage.following.as_ref()?);
            let name = &storage.storage;
            match following.staleness_seconds {
                Some(seconds) if seconds <= max => None,
                Some(seconds) => {
                    Some(format!("storage {name}: {} behind, more than max-staleness", span(seconds)))
                }
                None => Some(format!("storage {name}: the primary was not reached yet (max-staleness)")),
            }
        })
    }

    /// What is wrong with it.
    pub(super) fn warn(&self) -> Vec<Warning> {
        let mut warnings = Vec::new();
        if let Some(why) = &self.fenced {
            warnings.push(Warning::new(
                format!("this server was the primary, and is none any more: {why}"),
                "Look whether it reaches the new primary, which it then follows by itself; the log says what becomes of \
                 transactions that the others lack.",
            ));
        }
        if let Some(why) = &self.held {
            warnings.push(Warning::new(
                format!("this server is the primary, and accepts no writes: {why}"),
                "Look at the other servers of the cluster, and at the network between them: zeoadmin role shows them.",
            ));
        }
        warnings.extend(self.storages.iter().flat_map(|storage| self.warn_of(storage)));
        warnings
    }

    fn warn_of(&self, storage: &ClusterStorage) -> Vec<Warning> {
        let mut warnings = Vec::new();
        let mut warn = |what: String, advice: &str| {
            warnings.push(Warning::new(format!("storage '{}': {what}", storage.storage), advice));
        };
        if storage.degraded_since.is_some() {
            let needed = self.synchronous_replicas;
            warn(
                format!("commits do not wait for replicas any more: fewer than {needed} keep up"),
                "What is committed now is lost if this server is. Look at the replicas; it waits for them again by itself.",
            );
        }
        if let Some(Following { failure, behind, .. }) = &storage.following {
            if let Some(why) = failure {
                warn(
                    format!("the replica is not connected to a primary: {why}"),
                    "Look at the primary and the network; it connects by itself. If the primary is lost, zeoadmin promote \
                     makes this server the primary.",
                );
            }
            if let Some(lag) = behind.filter(|lag| lag.seconds > LAG_SECONDS_MAX) {
                warn(
                    format!("the replica is {} behind its primary", span(lag.seconds)),
                    "Look at the network, max-rate, and the disk of this server.",
                );
            }
        }
        for replica in storage.replicas.iter().filter(|replica| replica.behind.seconds > LAG_SECONDS_MAX) {
            warn(
                format!("the replica {} is {} behind", replica.name, span(replica.behind.seconds)),
                "Look at the network, max-rate, and the disk of the replica.",
            );
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(staleness: Option<f64>, max: Option<f64>) -> ClusterStatus {
        let following = Following {
            failure: Some("connection refused".into()),
            primary_last: "0".into(),
            behind: Some(LagStatus { seconds: 61.0, ..LagStatus::default() }),
            staleness_seconds: staleness,
        };
        let storage = ClusterStorage {
            storage: "main".into(),
            last: "0".into(),
            following: Some(following),
            replicas: Vec::new(),
            degraded_since: None,
            degradations: 0,
        };
        ClusterStatus {
            name: "b".into(),
            role: ClusterRole::Replica,
            held: None,
            fenced: None,
            promotions: 1,
            timeline: "2".into(),
            since: 0.0,
            primary: None,
            synchronous_replicas: 2,
            on_timeout: "degrade",
            max_staleness_seconds: max,
            storages: vec![storage],
        }
    }

    #[test]
    fn a_replica_is_too_stale_by_its_limit_alone() {
        let lines = |status: ClusterStatus| status.too_stale().collect::<Vec<_>>();
        assert_eq!(lines(replica(Some(1e9), None)), [""; 0]);
        assert_eq!(lines(replica(Some(30.0), Some(30.0))), [""; 0]);
        assert_eq!(
            lines(replica(Some(31.0), Some(30.0))),
            ["storage main: 31 s behind, more than max-staleness"]
        );
        let unknown = "storage main: the primary was not reached yet (max-staleness)";
        assert_eq!(lines(replica(None, Some(30.0))), [unknown]);
        let promoted = ClusterStatus { role: ClusterRole::Primary, ..replica(None, Some(30.0)) };
        assert_eq!(lines(promoted), [""; 0]);
    }

    #[test]
    fn clients_that_write_go_to_the_primary() {
        let status = replica(None, None);
        assert_eq!(status.not_primary().as_deref(), Some("a replica, which has found no primary"));
        let status = ClusterStatus { primary: Some("a:8200".into()), ..status };
        assert_eq!(status.not_primary().as_deref(), Some("a replica, which follows a:8200"));
        let status = ClusterStatus { role: ClusterRole::Primary, ..status };
        assert_eq!(status.not_primary(), None);
        let status = ClusterStatus { held: Some("it asks".into()), ..status };
        assert_eq!(status.not_primary().as_deref(), Some("the primary accepts no writes: it asks"));
    }

    #[test]
    fn what_is_wrong_is_a_warning() {
        let whats = |status: &ClusterStatus| -> Vec<String> {
            status.warn().into_iter().map(|warning| warning.what).collect()
        };
        let mut status = replica(None, None);
        assert_eq!(
            whats(&status),
            [
                "storage 'main': the replica is not connected to a primary: connection refused",
                "storage 'main': the replica is 61 s behind its primary",
            ]
        );
        status.fenced = Some("c is".into());
        status.held = Some("it asks".into());
        let storage = &mut status.storages[0];
        (storage.following, storage.degraded_since) = (None, Some(1.0));
        let slow = ReplicaStatus {
            name: "c".into(),
            peer: "10.0.0.3:1".into(),
            since: 0.0,
            sent: "0".into(),
            received: "0".into(),
            synced: "0".into(),
            published: "0".into(),
            behind: LagStatus { seconds: 3600.0, ..LagStatus::default() },
            synchronous: false,
        };
        let quick = ReplicaStatus { behind: LagStatus::default(), ..slow.clone() };
        storage.replicas = vec![quick, slow];
        assert_eq!(
            whats(&status),
            [
                "this server was the primary, and is none any more: c is".to_string(),
                "this server is the primary, and accepts no writes: it asks".into(),
                "storage 'main': commits do not wait for replicas any more: fewer than 2 keep up".into(),
                format!("storage 'main': the replica c is {} behind", span(3600.0)),
            ]
        );
    }
}
