//! How often the servers of a cluster speak, and how long they wait for each other. And where they log.

use std::time::Duration;

/// The target of the lines in the log.
pub const LOG: &str = "runzeo.replication";

/// Both sides say something at least as often.
pub const NEWS_PAUSE: Duration = Duration::from_secs(1);
/// A server that is silent for longer is gone.
pub const SILENCE_MAX: Duration = Duration::from_secs(10);
/// The same while both compare what they have, for which large transactions may have to be read.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(60);
/// A peer that the network does not reach any more is noticed within this time.
pub const DEAD_PEER_TIMEOUT: Duration = Duration::from_secs(20);
/// When a server stops or is demoted: time for the replicas to receive what was published.
pub const LAST_MAX: Duration = Duration::from_secs(10);
