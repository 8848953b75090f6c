//! What is shown of a cluster, as one of its servers knows it.

use std::time::{Duration, SystemTime};

use super::options::{OnTimeout, Role};
use crate::base::ids::Tid;
use crate::storage::Lag;

/// This server and what it knows of the others.
#[derive(Clone, Debug)]
pub struct ClusterReport {
    pub name: String,
    pub role: Role,
    /// Why a primary does not accept writes at present: it asks its peers, or waits for its replicas. `None`: it does.
    pub held: Option<String>,
    /// Number of promotions in the life of the cluster; the present timeline.
    pub promotions: usize,
    pub timeline: String,
    /// When it began.
    pub since: SystemTime,
    /// Of a replica: the server that it follows. `None`: none was found.
    pub primary: Option<String>,
    /// Why a server that was primary is none any more, until it has the newer timeline.
    pub fenced: Option<String>,
    /// How many replicas must have each transaction; what happens if they do not.
    pub synchronous_replicas: usize,
    pub on_timeout: OnTimeout,
    /// By the storages' names.
    pub storages: Vec<StorageReplication>,
}

/// One storage.
#[derive(Clone, Debug)]
pub struct StorageReplication {
    pub storage: String,
    /// Its last transaction here.
    pub last: Tid,
    /// Of a replica.
    pub following: Option<FollowingReport>,
    /// The servers that follow this one.
    pub replicas: Vec<ReplicaReport>,
    /// A primary has gone on without enough replicas since then.
    pub degraded_since: Option<SystemTime>,
    /// How often that has begun.
    pub degradations: u64,
}

/// What a replica knows of the connection to the server that it follows.
#[derive(Clone, Debug)]
pub struct FollowingReport {
    /// Why there is none.
    pub failure: Option<String>,
    /// Its last transaction, as it was last told.
    pub primary_last: Tid,
    /// What is missing here. `None`: not known, as there is no connection.
    pub behind: Option<Lag>,
    /// How old the state may be that clients see, for `max-staleness`: without a connection, the time since it had all
    /// that the primary had. `None`: there was no connection yet.
    pub staleness: Option<Duration>,
}

/// A replica, as the server knows it that it follows.
#[derive(Clone, Debug)]
pub struct ReplicaReport {
    pub name: String,
    pub peer: String,
    pub since: SystemTime,
    /// The last transaction that was sent to it, and that it has received, synced and published.
    pub sent: Tid,
    pub received: Tid,
    pub synced: Tid,
    pub published: Tid,
    /// What it has not synced.
    pub behind: Lag,
    /// Its acknowledgement is waited for.
    pub is_synchronous: bool,
}
