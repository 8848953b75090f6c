//! How far a storage and its replicas have come: what [`GroupProgress`](super::progress::GroupProgress) guards.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, SystemTime};

use super::message::Ack;
use super::options::Level;
use super::report::Lag;
use crate::base::clock::Stopwatch;
use crate::base::ids::Tid;
use crate::base::sync::Arc;

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

/// The number of groups whose end is known, for the lag. For a replica that is further behind, the length of the file
/// and the number of transactions since the start are reported.
pub const RECENT_MAX: usize = 10_000;

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
    /// Length of the file, and transactions since the start.
    pub end: u64,
    pub count: u64,
    /// How often something was taken back: what was sent may not be there any more.
    pub taken_back: u64,
    /// Of a replica: it is connected, and what the primary has published.
    pub is_attended: bool,
    /// What the primary waits for, if anything.
    pub awaited: Option<Level>,
    pub received: Tid,
    pub allowed: Tid,
    pub recent: VecDeque<Group>,
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

/// The end of a group of transactions.
pub struct Group {
    pub last: Tid,
    pub end: u64,
    pub count: u64,
    pub watch: Stopwatch,
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
        while self.recent.len() > 1 && self.recent.back().is_some_and(|group| group.last > last) {
            self.recent.pop_back();
        }
        if let Some(group) = self.recent.back() {
            (self.end, self.count) = (group.end, group.count);
        }
    }

    /// What is missing at one that has everything up to `has`.
    pub fn lag(&self, has: Tid) -> Lag {
        if has >= self.written {
            return Lag::default();
        }
        // The first group that it lacks.
        let at = self.recent.partition_point(|group| group.last <= has);
        let before = at.checked_sub(1).and_then(|at| self.recent.get(at));
        let (end, count) = before.map_or((0, 0), |group| (group.end, group.count));
        let missing_for = match before {
            Some(_) => self.recent.get(at).map_or(Duration::ZERO, |group| group.watch.passed()),
            // By its transaction's own time.
            None => Duration::from_secs_f64((Tid::now().to_unix() - has.to_unix()).max(0.0)),
        };
        Lag {
            bytes: self.end.saturating_sub(end),
            transactions: (self.count - count).max(1),
            time: missing_for,
        }
    }
}
