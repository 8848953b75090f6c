//! How far a storage and its replicas have come: what [`GroupProgress`](super::progress::GroupProgress) guards.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::message::Ack;
use super::options::Level;
use crate::base::ids::Tid;
use crate::base::sync::Arc;
use crate::replication::recent::RecentGroups;

/// What groups of transactions wait for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// The clients' transactions, for the replicas.
    Primary,
    /// The marker of a promotion: for nothing.
    Promoting,
    /// The clients' last transactions: they are taken back.
    Stopping,
    /// The primary's transactions, until it has published them.
    Replica,
}

/// Sends an acknowledgement. Called with no lock held.
pub type SendAck = dyn Fn() + Send + Sync;

/// The state of one storage.
pub struct GroupState<S> {
    pub mode: Mode,
    /// The server stops.
    pub is_closing: bool,
    /// The server is about to stop: no group waits longer than the timeout.
    pub never_blocks: bool,
    /// The last transaction in the file, that is durable, that is published.
    pub written: Tid,
    pub durable: Tid,
    pub published: Tid,
    /// How often something was taken back: what was sent may not be there any more.
    pub taken_back: u64,
    /// Of a replica: it is connected, and what the primary has published.
    pub is_attended: bool,
    /// What the primary waits for, if anything.
    pub awaited: Option<Level>,
    pub received: Tid,
    pub allowed: Tid,
    /// Tells the primary how far this replica has come. `None`: a thread that waits for it does so.
    pub send_ack: Option<Arc<SendAck>>,
    pub recent: RecentGroups,
    pub replicas: BTreeMap<u64, Replica<S>>,
    /// Threads that wait until there is something to send.
    pub idle: usize,
    /// Number of connections so far.
    pub connections: u64,
    pub degraded_since: Option<SystemTime>,
    pub degradations: u64,
    /// Number of packs since the start, and the time that the last one has packed to.
    pub packs: u64,
    pub packed_to: f64,
}

/// A connected replica.
pub struct Replica<S> {
    pub name: String,
    pub peer: String,
    pub stream: Arc<S>,
    pub since: SystemTime,
    pub sent: Tid,
    pub ack: Ack,
}

impl<S> GroupState<S> {
    /// How far a replica has come.
    pub fn ack(&self) -> Ack {
        Ack { received: self.received, synced: self.durable, published: self.published }
    }

    pub fn take_back(&mut self, last: Tid) {
        self.written = last;
        self.durable = self.durable.min(last);
        self.taken_back += 1;
        // A later transaction may have an earlier tid. These connections end.
        for ack in self.replicas.values_mut().map(|replica| &mut replica.ack) {
            *ack = Ack {
                received: ack.received.min(last),
                synced: ack.synced.min(last),
                published: ack.published.min(last),
            };
        }
        self.recent.take_back(last);
    }
}
