//! How far one storage and its replicas have come: what the thread that commits, the threads that send to replicas and
//! the one that follows tell each other.
//!
//! A primary's group of transactions is offered to the replicas when it is written, and published when it is durable
//! here and as many replicas have it as are configured. A replica's group is durable at once, and published when the
//! primary has published it; or when there is no connection to it any more: the primary may have answered its clients
//! before, and a promotion publishes it as well.
//!
//! If a replica has a transaction only when its clients see it ([`Level::Published`]), replicas publish what is durable
//! at the primary, before it does.
//!
//! Invariants: between [`Mode::Stopping`] and the next [`Mode::Primary`] no group of clients is published. What a
//! primary has published, as many replicas had as are configured, except while it is degraded.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

pub use super::group_state::Mode;
use super::group_state::{GroupState, Replica, SendAck};
use super::lease::Lease;
use super::message::{Ack, News};
use super::options::{ClusterOptions, Level, OnTimeout};
use super::report::ReplicaReport;
use crate::base::clock::{IoDeadline, TimeSource};
use crate::base::ids::Tid;
use crate::base::sync::{Arc, AtomicBool, Condvar, Mutex, MutexGuard, Ordering, rank};
use crate::net::stream::{Sink, Stream};
use crate::replication::recent::RecentGroups;
use crate::storage::{GroupGate, Lag, Withdrawn};

use super::pace::{LOG, NEWS_PAUSE};

/// Pause between two acknowledgements that nothing waits for.
const UNAWAITED_PAUSE: Duration = Duration::from_millis(100);
/// Pause before more is sent to replicas that no commit waits for: what is written in the meantime goes together, and
/// needs one sync there.
const TOGETHER: Duration = Duration::from_millis(10);
/// Replicas at once. More are no copies, but a flood.
pub const REPLICAS_MAX: usize = 100;

/// The state of one storage.
pub struct GroupProgress<S: Sink = Stream> {
    storage: String,
    state: Mutex<GroupState<S>, rank::ClusterProgress>,
    /// For the threads that send to replicas, and a replica's group that waits for its primary.
    changed: Condvar,
    /// For what waits for acknowledgements of replicas.
    acknowledged: Condvar,
    /// For the thread that acknowledges to the primary.
    advanced: Condvar,
    /// A group waits for others.
    is_waiting: AtomicBool,
    lease: Arc<Lease>,
    required: usize,
    level: Level,
    timeout: Duration,
    on_timeout: OnTimeout,
}

impl<S: Sink> GroupProgress<S> {
    pub fn new(storage: &str, options: &ClusterOptions, mode: Mode, last: Tid, end: u64) -> GroupProgress<S> {
        GroupProgress {
            storage: storage.into(),
            state: Mutex::new(GroupState {
                mode,
                is_closing: false,
                never_blocks: false,
                written: last,
                durable: last,
                published: last,
                taken_back: 0,
                is_attended: false,
                awaited: None,
                received: last,
                allowed: Tid::ZERO,
                send_ack: None,
                recent: RecentGroups::new(last, end),
                replicas: BTreeMap::new(),
                idle: 0,
                connections: 0,
                degraded_since: None,
                degradations: 0,
                packs: 0,
                packed_to: 0.0,
            }),
            changed: Condvar::new(),
            acknowledged: Condvar::new(),
            advanced: Condvar::new(),
            is_waiting: AtomicBool::new(false),
            lease: Arc::new(Lease::new(None)),
            required: options.synchronous_replicas,
            level: options.level,
            timeout: options.synchronous_timeout,
            on_timeout: options.on_timeout,
        }
    }

    /// The same with a lease, without which no group of clients is published.
    pub fn with_lease(self, lease: &Arc<Lease>) -> GroupProgress<S> {
        GroupProgress { lease: Arc::clone(lease), ..self }
    }

    /// From now on groups wait for something else.
    pub fn set_mode(&self, mode: Mode) {
        self.state.lock().mode = mode;
        self.notify();
    }

    /// Wakes every thread that waits here.
    fn notify(&self) {
        self.changed.notify_all();
        self.acknowledged.notify_all();
        self.advanced.notify_all();
    }

    /// The transactions after `last` were taken back.
    pub fn rewound(&self, last: Tid, end: u64) {
        let mut state = self.state.lock();
        state.take_back(last);
        (state.durable, state.published, state.received) = (last, last, last);
        state.recent.set_end(end);
        self.notify();
    }

    /// A group is published.
    pub fn published(&self, last: Tid) {
        let mut state = self.state.lock();
        state.published = last;
        let (is_sent, is_awaited) = (state.idle > 0, state.awaited == Some(Level::Published));
        drop(state);
        if is_sent {
            self.changed.notify_all();
        }
        if is_awaited {
            self.advanced.notify_all();
        }
    }

    /// The storage was packed to this time.
    pub fn packed(&self, to: f64) {
        let mut state = self.state.lock();
        (state.packs, state.packed_to) = (state.packs + 1, to);
        drop(state);
        self.changed.notify_all();
    }

    /// Waits for a change, so long.
    pub fn pause(&self, pause: Duration) {
        let state = self.state.lock();
        if !state.is_closing {
            drop(self.changed.wait_timeout(state, pause));
        }
    }

    // -- the side that follows

    /// There is a connection to the primary, which has the transactions up to `common`, and waits for `awaited`. What
    /// is later is about to be taken back: it must not be acknowledged as if it were the primary's.
    pub fn attend(&self, common: Tid, awaited: Option<Level>) {
        let mut state = self.state.lock();
        (state.is_attended, state.awaited) = (true, awaited);
        (state.received, state.allowed) = (state.written.min(common), Tid::ZERO);
        (state.durable, state.published) = (state.durable.min(common), state.published.min(common));
        self.notify();
    }

    /// There is no connection to the primary any more.
    pub fn unattend(&self) {
        let mut state = self.state.lock();
        (state.is_attended, state.awaited, state.send_ack) = (false, None, None);
        (state.received, state.allowed) = (state.written, Tid::ZERO);
        self.notify();
    }

    /// The primary's transactions up to `received` have arrived, and it has published those up to `allowed`.
    pub fn receive(&self, received: Tid, allowed: Tid) {
        let mut state = self.state.lock();
        let is_allowed = (received, allowed) != (state.received, state.allowed);
        let is_awaited = received > state.received && state.awaited == Some(Level::Received);
        (state.received, state.allowed) = (received, allowed);
        if is_allowed {
            self.changed.notify_all();
        }
        if is_awaited {
            self.advance(state);
        }
    }

    /// From now on, until the connection is over, the thread that makes something true also says so: a lone commit
    /// waits for every change of threads.
    pub fn acknowledge_by(&self, send_ack: Arc<SendAck>) {
        let mut state = self.state.lock();
        if state.is_attended {
            state.send_ack = Some(send_ack);
        }
    }

    /// The primary waits for what has just become true here.
    fn advance(&self, state: MutexGuard<'_, GroupState<S>>) {
        let send_ack = state.send_ack.clone();
        drop(state);
        match send_ack {
            Some(send_ack) => send_ack(),
            None => self.advanced.notify_all(),
        }
    }

    /// How far this replica has come. `None`: the connection is over.
    pub fn ack(&self) -> Option<Ack> {
        let state = self.state.lock();
        state.is_attended.then(|| state.ack())
    }

    /// Whether the primary has published `tid`, as far as this replica knows.
    pub fn is_allowed(&self, tid: Tid) -> bool {
        self.state.lock().allowed >= tid
    }

    /// How far this replica has come, when what the primary waits for differs from `told`, or after a while. `None`:
    /// the connection is over.
    pub fn wait_for_ack(&self, told: Ack) -> Option<Ack> {
        let state = self.state.lock();
        let pause = if state.awaited.is_some() { NEWS_PAUSE } else { UNAWAITED_PAUSE };
        let state = self.advanced.wait_timeout_while(state, pause, |state| {
            let now = state.ack();
            let is_news = match state.awaited {
                // Nothing waits for it, so it is not hurried.
                None => false,
                Some(Level::Received) => now.received != told.received,
                Some(Level::Synced) => now.synced != told.synced,
                Some(Level::Published) => now.published != told.published,
            };
            state.is_attended && !is_news
        });
        state.is_attended.then(|| state.ack())
    }

    // -- the side that is followed

    /// A connection of a replica, whose last transaction is `from`. `None`: there are too many, or none is wanted.
    pub fn add_replica(
        &self,
        name: &str,
        peer: &str,
        stream: &Arc<S>,
        from: Tid,
    ) -> Option<Connection<'_, S>> {
        let mut state = self.state.lock();
        if state.is_closing || state.replicas.len() >= REPLICAS_MAX {
            return None;
        }
        // The same server again: the old connection is dead, and has not noticed it.
        let old = state.replicas.iter().find(|(_, replica)| replica.name == name).map(|(id, _)| *id);
        let old = old.and_then(|id| state.replicas.remove(&id));
        state.connections += 1;
        let id = state.connections;
        let ack = Ack { received: from, synced: from, published: from };
        let since = TimeSource::SYSTEM.system_time();
        let (name, peer, stream) = (name.into(), peer.into(), Arc::clone(stream));
        state.replicas.insert(id, Replica { name, peer, stream, since, sent: from, ack });
        let (taken_back, packs) = (state.taken_back, state.packs);
        drop(state);
        old.iter().for_each(|old| old.stream.shutdown());
        self.notify();
        Some(Connection { progress: self, id, taken_back, packs })
    }

    /// Ends the connections of all replicas. Those that have everything first, for at most `wait_max`.
    pub fn dismiss(&self, wait_max: Duration) {
        let until = IoDeadline::after(wait_max);
        let mut state = self.state.lock();
        while !until.is_over() && state.replicas.values().any(|replica| replica.ack.synced < state.written) {
            state = self.acknowledged.wait_timeout(state, until.left());
        }
        let streams: Vec<_> = state.replicas.values().map(|replica| Arc::clone(&replica.stream)).collect();
        drop(state);
        streams.iter().for_each(|stream| stream.shutdown());
    }

    /// From now on a group that has waited for the timeout is taken back, if it must not be published.
    pub fn stop_blocking(&self) {
        self.state.lock().never_blocks = true;
        self.acknowledged.notify_all();
    }

    /// No group waits any more, and no replica comes.
    pub fn close(&self) {
        let mut state = self.state.lock();
        (state.is_closing, state.never_blocks) = (true, true);
        drop(state);
        self.notify();
    }

    pub fn is_closing(&self) -> bool {
        self.state.lock().is_closing
    }

    /// Waits until the threads of all replicas have ended.
    pub fn wait_for_none(&self) {
        let mut state = self.state.lock();
        while !state.replicas.is_empty() {
            state = self.acknowledged.wait(state);
        }
    }

    // -- what is shown

    pub fn replicas(&self) -> Vec<ReplicaReport> {
        let state = self.state.lock();
        let report = |replica: &Replica<S>| ReplicaReport {
            name: replica.name.clone(),
            peer: replica.peer.clone(),
            since: replica.since,
            sent: replica.sent,
            received: replica.ack.received,
            synced: replica.ack.synced,
            published: replica.ack.published,
            behind: state.recent.lag(replica.ack.synced),
            is_synchronous: self.required > 0,
        };
        state.replicas.values().map(report).collect()
    }

    /// Since when a primary goes on without its replicas, and how often that has begun.
    pub fn degradation(&self) -> (Option<SystemTime>, u64) {
        let state = self.state.lock();
        (state.degraded_since, state.degradations)
    }

    /// What the replicas may publish.
    fn allowed(&self, state: &GroupState<S>) -> Tid {
        match self.level {
            Level::Published if self.required > 0 && state.mode == Mode::Primary => state.durable,
            _ => state.published,
        }
    }

    fn has_enough(&self, state: &GroupState<S>, last: Tid) -> bool {
        let has = |replica: &&Replica<S>| match self.level {
            Level::Received => replica.ack.received >= last,
            Level::Synced => replica.ack.synced >= last,
            Level::Published => replica.ack.published >= last,
        };
        state.replicas.values().filter(has).count() >= self.required
    }

    /// At the latest moment before a group is published.
    fn check_lease(&self) -> Result<(), Withdrawn> {
        if self.lease.is_valid() { Ok(()) } else { Err(Withdrawn) }
    }

    /// Waits until enough replicas have `last`.
    fn wait_for_replicas<'a>(
        &'a self,
        mut state: MutexGuard<'a, GroupState<S>>,
        last: Tid,
    ) -> Result<(), Withdrawn> {
        let mut until = Some(IoDeadline::after(self.timeout));
        loop {
            if state.mode != Mode::Primary || (state.never_blocks && until.is_none()) {
                return Err(Withdrawn);
            }
            if state.degraded_since.is_some() || self.has_enough(&state, last) {
                return Ok(());
            }
            state = match until {
                Some(until) if !until.is_over() => self.acknowledged.wait_timeout(state, until.left()),
                Some(_) if self.on_timeout == OnTimeout::Degrade => {
                    state.degraded_since = Some(TimeSource::SYSTEM.system_time());
                    state.degradations += 1;
                    drop(state);
                    crate::critical!(
                        target: LOG,
                        "storage '{}': {} synchronous replicas have not acknowledged transaction {last} within {:?}. \
                         Transactions are answered without them until they are there again",
                        self.storage,
                        self.required,
                        self.timeout
                    );
                    return Ok(());
                }
                Some(_) => {
                    until = None;
                    drop(state);
                    crate::critical!(
                        target: LOG,
                        "storage '{}': {} synchronous replicas have not acknowledged transaction {last} within {:?}. \
                         Commits wait until they are there again",
                        self.storage,
                        self.required,
                        self.timeout
                    );
                    self.state.lock()
                }
                None => self.acknowledged.wait(state),
            };
        }
    }
}

impl<S: Sink> GroupGate for GroupProgress<S> {
    fn written(&self, last: Tid, end: u64, count: usize) {
        let mut state = self.state.lock();
        state.written = last;
        state.recent.add(last, end, count as u64);
        let is_sent = state.idle > 0;
        drop(state);
        if is_sent {
            self.changed.notify_all();
        }
    }

    fn durable(&self, last: Tid) -> Result<(), Withdrawn> {
        let mut state = self.state.lock();
        state.durable = last;
        match state.mode {
            Mode::Promoting => return Ok(()),
            Mode::Stopping => return Err(Withdrawn),
            Mode::Primary if self.required == 0 => return self.check_lease(),
            Mode::Primary | Mode::Replica => {}
        }
        self.is_waiting.store(true, Ordering::SeqCst);
        let result = match state.mode {
            Mode::Primary => {
                // Replicas may publish what is durable here, if they do so first.
                if self.level == Level::Published && state.idle > 0 {
                    self.changed.notify_all();
                }
                self.wait_for_replicas(state, last).and_then(|()| self.check_lease())
            }
            _ => {
                if state.awaited == Some(Level::Synced) {
                    self.advance(state);
                    state = self.state.lock();
                }
                let waits = |state: &mut GroupState<S>| {
                    // More that has arrived: the primary has published this, or it is a part of a group whose end the
                    // primary waits for.
                    let is_told = state.allowed >= last || state.received > last || !state.is_attended;
                    state.mode == Mode::Replica && !is_told && !state.is_closing
                };
                while waits(&mut state) {
                    state = self.changed.wait(state);
                }
                Ok(())
            }
        };
        self.is_waiting.store(false, Ordering::SeqCst);
        result
    }

    fn taken_back(&self, last: Tid) {
        self.state.lock().take_back(last);
        self.notify();
    }

    fn is_waiting(&self) -> bool {
        self.is_waiting.load(Ordering::SeqCst)
    }
}

/// What a replica was told.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// The last transaction that was sent.
    pub sent: Tid,
    /// The last one of which it knows that it is published.
    pub published: Tid,
    /// Number of packs.
    pub packs: u64,
}

/// What a thread that sends to a replica has to do.
#[derive(Clone, Copy, Debug)]
pub struct ToSend {
    pub written: Tid,
    pub news: News,
    /// Number of packs, and the time of the last one.
    pub packs: u64,
    pub packed_to: f64,
}

/// One replica's connection, until this is dropped.
pub struct Connection<'a, S: Sink = Stream> {
    progress: &'a GroupProgress<S>,
    id: u64,
    /// What was taken back before.
    taken_back: u64,
    /// Packs before.
    packs: u64,
}

impl<S: Sink> Connection<'_, S> {
    /// What the replica was told at first, which has the transactions up to `from`.
    pub fn told(&self, from: Tid) -> Told {
        Told { sent: from, published: Tid::ZERO, packs: self.packs }
    }

    /// Waits for what the replica is to be told and does not know; for nothing, after `pause`. `None`: nothing more,
    /// because the connection has ended, the server stops, or what was sent was taken back.
    pub fn wait(&self, told: &Told, pause: Duration) -> Option<ToSend> {
        let until = IoDeadline::after(pause);
        let mut state = self.progress.state.lock();
        loop {
            let replica = state.replicas.get_mut(&self.id)?;
            replica.sent = told.sent;
            if state.taken_back != self.taken_back {
                return None;
            }
            let published = self.progress.allowed(&state);
            let has_news =
                state.written > told.sent || published > told.published || state.packs > told.packs;
            if has_news || until.is_over() {
                return self.to_send(&state);
            }
            if state.is_closing {
                return None;
            }
            state.idle += 1;
            state = self.progress.changed.wait_timeout(state, until.left());
            state.idle -= 1;
        }
    }

    /// If no commit waits for the replica: lets some more come together.
    pub fn gather(&self) {
        if self.progress.required > 0 {
            return;
        }
        let state = self.progress.state.lock();
        drop(self.progress.changed.wait_timeout_while(state, TOGETHER, |state| !state.is_closing));
    }

    /// What the replica could be told now. `None`: as in [`Connection::wait`], but for a server that stops.
    pub fn news(&self) -> Option<ToSend> {
        let state = self.progress.state.lock();
        if state.taken_back == self.taken_back { self.to_send(&state) } else { None }
    }

    fn to_send(&self, state: &GroupState<S>) -> Option<ToSend> {
        let synced = state.replicas.get(&self.id)?.ack.synced;
        let Lag { bytes, transactions, time } = state.recent.lag(synced);
        let time = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let GroupState { written, packs, packed_to, .. } = *state;
        let published = self.progress.allowed(state);
        let news = News { written, published, bytes, transactions, time };
        Some(ToSend { written, news, packs, packed_to })
    }

    /// The replica has come so far.
    pub fn acknowledge(&self, ack: Ack) {
        let mut state = self.progress.state.lock();
        let is_outdated = state.taken_back != self.taken_back;
        let Some(replica) = state.replicas.get_mut(&self.id).filter(|_| !is_outdated) else { return };
        replica.ack = ack;
        let has_all = state.durable;
        let is_restored = state.degraded_since.is_some() && self.progress.has_enough(&state, has_all);
        if is_restored {
            state.degraded_since = None;
        }
        drop(state);
        if is_restored {
            log::warn!(
                target: LOG,
                "storage '{}': enough replicas have everything again. Transactions wait for them from now on",
                self.progress.storage
            );
        }
        self.progress.acknowledged.notify_all();
    }
}

impl<S: Sink> Connection<'_, S> {
    /// The replica has gone: nothing more is to be sent.
    pub fn end(&self) {
        self.progress.state.lock().replicas.remove(&self.id);
        self.progress.changed.notify_all();
        self.progress.acknowledged.notify_all();
    }
}

impl<S: Sink> Drop for Connection<'_, S> {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests;
