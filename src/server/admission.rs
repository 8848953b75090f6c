//! Limits on connections: how many there may be, and how long they may take to register.
//!
//! A connection is *unregistered* until its `register` succeeds. There are at most `max-unregistered` of them, and
//! each must register within `handshake-timeout`. A new connection that finds no room makes an old one go: of the
//! address with the most unregistered connections the oldest, so that a flood from one address is at the cost of that
//! address. A connection is protected for its first second, in which an honest client registers; until there is room,
//! new connections wait in the kernel's queue.
//!
//! `max-connections` and `max-connections-per-address` limit the registered connections. They are enforced at
//! `register`, the first call whose answer can name the reason. So is `max-connections` of a `<listen>`, for the
//! clients of that listener.
//!
//! The log has one line when such closing begins, and then a number each minute, not a line for each connection.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::base::address::Host;
use crate::base::clock::TimeSource;
use crate::base::level::WARNING;
use crate::base::sync::{Arc, Condvar, Mutex, rank};
use crate::server::client_log;
use crate::server::connection::Connection;
use crate::server::connection_counts::{ConnectionCounts, RefusedFor};
use crate::server::descriptors::Division;
use crate::server::limits::Limits;
use crate::server::policy::Policy;

/// Time that an honest client needs to register, on a busy machine too: until then it is not closed to make room.
const PROTECTED: Duration = Duration::from_secs(1);
/// Longest wait of the accept loop for room, before it drops the new connection: longer than [`PROTECTED`].
const ROOM_WAIT_MAX: Duration = Duration::from_secs(3);
/// Interval at which a wait for room looks for a connection that may be closed by now.
const PAUSE: Duration = Duration::from_millis(100);

/// Why a connection was closed, for its own log line.
pub const TOO_SLOW: &str = "the client did not register in time";
pub const MADE_ROOM: &str = "the connection made room for a new one";

/// The limits on connections of a server, and what counts for them.
pub struct Admission {
    limits: ArcSwap<AdmissionLimits>,
    clock: TimeSource,
    counts: ConnectionCounts,
    state: Mutex<Admitted, rank::Admission>,
    /// Notified when a connection has gone or has registered.
    left: Condvar,
}

/// The limits, which a reload replaces.
struct AdmissionLimits {
    connections_max: usize,
    /// The limit of open files, if it is what limits the connections.
    too_few_files: Option<usize>,
    per_address_max: usize,
    unregistered_max: usize,
    handshake_timeout: Option<Duration>,
}

impl AdmissionLimits {
    fn of(limits: &Limits, division: &Division) -> AdmissionLimits {
        AdmissionLimits {
            connections_max: division.connections,
            too_few_files: division.limits_connections.then_some(division.total),
            per_address_max: limits.connections_per_address.unwrap_or(usize::MAX),
            unregistered_max: division.unregistered,
            handshake_timeout: limits.handshake_timeout,
        }
    }
}

#[derive(Default)]
struct Admitted {
    /// By connection id, so the oldest first.
    unregistered: BTreeMap<u64, Unregistered>,
    registered: usize,
    /// Connections of each address; those of a Unix socket have none.
    by_source: HashMap<Host, Count>,
}

struct Unregistered {
    since: Instant,
    source: Option<Host>,
    connection: Arc<Connection>,
    /// It was closed here, and its session is about to end.
    is_leaving: bool,
}

#[derive(Debug, Default)]
struct Count {
    unregistered: usize,
    registered: usize,
}

/// The admission guard of a connection: it counts for the limits until this is dropped.
pub struct AdmissionGuard {
    admission: Arc<Admission>,
    id: u64,
    source: Option<Host>,
    policy: Arc<Policy>,
    is_registered: bool,
}

impl Admission {
    /// `division` may limit them further.
    pub fn new(limits: &Limits, division: &Division, clock: TimeSource) -> Arc<Admission> {
        Arc::new(Admission {
            limits: ArcSwap::from_pointee(AdmissionLimits::of(limits, division)),
            clock,
            counts: ConnectionCounts::default(),
            state: Mutex::default(),
            left: Condvar::new(),
        })
    }

    /// Sets other limits. They count from the next connection, and the next `register`, on.
    pub fn set_limits(&self, limits: &Limits, division: &Division) {
        self.limits.store(Arc::new(AdmissionLimits::of(limits, division)));
        // Those that wait for room.
        self.left.notify_all();
    }

    /// What has become of connections.
    pub fn counts(&self) -> &ConnectionCounts {
        &self.counts
    }

    /// Number of connections that have not registered, and of those that have.
    pub fn admitted(&self) -> [usize; 2] {
        let state = self.state.lock();
        [state.unregistered.len(), state.registered]
    }

    /// Upper bounds on these.
    pub fn limits(&self) -> [usize; 2] {
        let limits = self.limits.load();
        [limits.unregistered_max, limits.connections_max]
    }

    /// Admits a connection as unregistered. Waits until there is room, at most [`ROOM_WAIT_MAX`]. `None`: there is
    /// none. `source`: `None` if its host is not known, see [`AdmissionGuard::comes_from`].
    pub fn admit(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
        source: Option<Host>,
        policy: &Arc<Policy>,
    ) -> Option<AdmissionGuard> {
        let started = self.clock.now();
        let mut state = self.state.lock();
        if state.unregistered_from(source) >= self.limits.load().per_address_max {
            drop(state);
            self.refuse_for_address(connection);
            return None;
        }
        // Read again at each turn.
        let unregistered_max = || self.limits.load().unregistered_max;
        while state.unregistered.len() >= unregistered_max() {
            if self.clock.elapsed(started) > ROOM_WAIT_MAX {
                drop(state);
                self.counts.refuse(RefusedFor::Unregistered);
                let max = unregistered_max();
                connection.peer.log(
                    &client_log::NO_ROOM,
                    WARNING,
                    format_args!(
                        "refused: max-unregistered ({max}) connections have not registered yet; the connection is \
                         closed"
                    ),
                );
                return None;
            }
            if let Some((victim, since)) = state.oldest_of_largest_address(&self.clock) {
                // Closing takes other locks.
                drop(state);
                victim.outbox.close(MADE_ROOM);
                self.counts.refuse(RefusedFor::Unregistered);
                let (max, seconds) = (unregistered_max(), self.clock.elapsed(since).as_secs());
                victim.peer.log(
                    &client_log::MADE_ROOM,
                    WARNING,
                    format_args!(
                        "has not registered for {seconds} s and makes room for a new connection: max-unregistered \
                         ({max}) is reached; the connection is closed"
                    ),
                );
                state = self.state.lock();
                continue;
            }
            state = self.left.wait_timeout(state, PAUSE);
        }
        let entry = Unregistered {
            since: self.clock.now(),
            source,
            connection: Arc::clone(connection),
            is_leaving: false,
        };
        state.unregistered.insert(connection.id(), entry);
        if let Some(source) = source {
            state.by_source.entry(source).or_default().unregistered += 1;
        }
        Some(AdmissionGuard {
            admission: Arc::clone(self),
            id: connection.id(),
            source,
            policy: Arc::clone(policy),
            is_registered: false,
        })
    }

    /// Closes the unregistered connections whose time is up. Returns when to call again, if there is a
    /// `handshake-timeout`.
    pub fn expire(&self, now: Instant) -> Option<Instant> {
        let timeout = self.limits.load().handshake_timeout?;
        let mut late = Vec::new();
        let next = {
            let mut state = self.state.lock();
            for entry in state.unregistered.values_mut() {
                if now.saturating_duration_since(entry.since) < timeout {
                    break;
                }
                if !std::mem::replace(&mut entry.is_leaving, true) {
                    late.push(Arc::clone(&entry.connection));
                }
            }
            let waiting = state.unregistered.values().find(|entry| !entry.is_leaving);
            waiting.map_or(now, |entry| entry.since) + timeout
        };
        for connection in late {
            connection.outbox.close(TOO_SLOW);
            self.counts.refuse(RefusedFor::Slow);
        }
        Some(next)
    }

    /// Logs an unregistered connection that was closed by [`Admission::expire`]: what it failed to do, and perhaps a
    /// likely reason.
    pub fn log_too_slow(&self, connection: &Connection, what: &str, hint: &str) {
        let seconds = self.limits.load().handshake_timeout.unwrap_or_default().as_secs();
        connection.peer.log(
            &client_log::TOO_SLOW,
            WARNING,
            format_args!("{what} after {seconds} s (handshake-timeout){hint}; the connection is closed"),
        );
    }

    fn refuse_for_address(&self, connection: &Connection) {
        self.counts.refuse(RefusedFor::Address);
        let max = self.limits.load().per_address_max;
        connection.peer.log(
            &client_log::ADDRESS_FULL,
            WARNING,
            format_args!("refused: max-connections-per-address ({max}) are connected from there"),
        );
    }
}

impl AdmissionGuard {
    /// The policy of the listener that has accepted the connection.
    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// The host of an unregistered connection has become known: a proxy has said it. False: too many connections from
    /// there have not registered.
    pub fn comes_from(&mut self, source: Host, connection: &Connection) -> bool {
        let admission = &self.admission;
        let mut state = admission.state.lock();
        if state.unregistered_from(Some(source)) >= admission.limits.load().per_address_max {
            drop(state);
            admission.refuse_for_address(connection);
            return false;
        }
        if let Some(entry) = state.unregistered.get_mut(&self.id) {
            let before = entry.source.replace(source);
            state.uncount(before, |count| count.unregistered -= 1);
            state.by_source.entry(source).or_default().unregistered += 1;
            self.source = Some(source);
        }
        true
    }

    /// The connection registers. `Err`: there are too many; the message is for the client.
    pub fn register(&mut self, connection: &Connection) -> Result<(), String> {
        let admission = &self.admission;
        let limits = admission.limits.load();
        let mut state = admission.state.lock();
        if state.registered >= limits.connections_max {
            drop(state);
            admission.counts.refuse(RefusedFor::Connections);
            let max = limits.connections_max;
            let why = limits.too_few_files.map_or_else(String::new, |total| {
                format!("; the limit of open files ({total}: ulimit -n, LimitNOFILE) permits no more")
            });
            connection.peer.log(
                &client_log::FULL,
                WARNING,
                format_args!("refused: max-connections ({max}) clients are connected{why}"),
            );
            return Err(format!("the server has max-connections ({max}) clients already; try again later"));
        }
        if let Some(max) = self.policy.full() {
            drop(state);
            admission.counts.refuse(RefusedFor::Connections);
            connection.peer.log(
                &client_log::LISTENER_FULL,
                WARNING,
                format_args!("refused: max-connections ({max}) clients of this listener are connected"),
            );
            return Err(format!(
                "max-connections ({max}) clients are connected to this address of the server; try again later"
            ));
        }
        let count = self.source.map(|source| state.by_source.entry(source).or_default());
        if let Some(count) = count {
            if count.registered >= limits.per_address_max {
                drop(state);
                admission.refuse_for_address(connection);
                let max = limits.per_address_max;
                return Err(format!(
                    "max-connections-per-address ({max}) clients are connected from your address"
                ));
            }
            count.registered += 1;
        }
        state.registered += 1;
        self.policy.count();
        state.remove_unregistered(self.id);
        self.is_registered = true;
        drop(state);
        admission.left.notify_all();
        Ok(())
    }
}

impl Drop for AdmissionGuard {
    fn drop(&mut self) {
        let mut state = self.admission.state.lock();
        if self.is_registered {
            state.registered -= 1;
            self.policy.uncount();
            state.uncount(self.source, |count| count.registered -= 1);
        } else {
            state.remove_unregistered(self.id);
        }
        drop(state);
        self.admission.left.notify_all();
    }
}

impl Admitted {
    fn unregistered_from(&self, source: Option<Host>) -> usize {
        source.and_then(|source| self.by_source.get(&source)).map_or(0, |count| count.unregistered)
    }

    /// Marks the connection that is to make room, unless another one is leaving already.
    fn oldest_of_largest_address(&mut self, clock: &TimeSource) -> Option<(Arc<Connection>, Instant)> {
        if self.unregistered.values().any(|entry| entry.is_leaving) {
            return None;
        }
        // `max_by_key` returns the last of equals: so from the newest to the oldest.
        let unregistered = self.unregistered.iter().rev();
        let (&id, oldest) = unregistered.max_by_key(|(_, entry)| self.unregistered_from(entry.source))?;
        if clock.elapsed(oldest.since) < PROTECTED {
            return None;
        }
        let victim = self.unregistered.get_mut(&id)?;
        victim.is_leaving = true;
        Some((Arc::clone(&victim.connection), victim.since))
    }

    fn remove_unregistered(&mut self, id: u64) {
        if let Some(entry) = self.unregistered.remove(&id) {
            self.uncount(entry.source, |count| count.unregistered -= 1);
        }
    }

    fn uncount(&mut self, source: Option<Host>, uncount: impl FnOnce(&mut Count)) {
        let Some(source) = source else { return };
        if let Some(count) = self.by_source.get_mut(&source) {
            uncount(count);
            if count.unregistered == 0 && count.registered == 0 {
                self.by_source.remove(&source);
            }
        }
    }
}
