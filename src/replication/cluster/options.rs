//! What is configured: `<replication>`.

use std::path::PathBuf;
use std::time::Duration;

use crate::base::address::Address;
use crate::net::tls::Files;

/// The settings of this server in its cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterOptions {
    /// How the other servers call this one, in their logs and reports.
    pub name: String,
    /// Where other servers connect to this one. `None`: it can only be a replica.
    pub listen: Option<Address>,
    /// The other servers of the cluster, where they listen.
    pub peers: Vec<Address>,
    /// The role of the first start. Later the state file knows it.
    pub first_role: Role,
    /// The file that keeps the role and the timelines.
    pub state: PathBuf,
    /// A promotion is asked for by the presence of this file, which is removed then.
    pub trigger: Option<PathBuf>,
    /// Number of replicas that must have a transaction before its client is answered.
    pub synchronous_replicas: usize,
    /// What "have" means.
    pub level: Level,
    /// How long a commit waits for them.
    pub synchronous_timeout: Duration,
    /// What happens then.
    pub on_timeout: OnTimeout,
    /// A replica that is further behind serves no clients. `None`: it always does.
    pub max_staleness: Option<Duration>,
    /// A primary answers commits only if most servers have answered it within this time. `None`: it needs no answers.
    pub lease: Option<Duration>,
    /// Bytes each second to one replica. `None`: as many as the network takes.
    pub max_rate: Option<u64>,
    /// Whether what is sent is compressed.
    pub compress: bool,
    /// Whether this server may follow another replica, if none of its peers is the primary.
    pub follows_replicas: bool,
    /// Whether a replica packs when the server that it follows has.
    pub follows_packs: bool,
    /// Certificates, for both directions. `None`: no TLS.
    pub tls: Option<Files>,
}

/// Which server of the cluster stores what clients commit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// This one.
    Primary,
    /// Another one, which this one follows.
    Replica,
}

impl Role {
    /// As it is written in the state file and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Primary => "primary",
            Role::Replica => "replica",
        }
    }
}

/// When a replica has a transaction.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Level {
    /// It is in its memory.
    Received,
    /// It is on its disk.
    Synced,
    /// Its clients see it.
    Published,
}

/// What a primary does that waits in vain for its replicas.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OnTimeout {
    /// It goes on alone, until enough replicas are there again.
    Degrade,
    /// It goes on waiting.
    Block,
}
