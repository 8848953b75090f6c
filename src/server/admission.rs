//! Who may connect, and for how long before registering.
//!
//! A connection is a *stranger* until its `register` succeeds. There are at most `max-unregistered` of them, each has
//! `handshake-timeout` to register, and when there is no room for a new one, an old one goes: of the address that has the
//! most of them the oldest, so that a flood from one place is at the cost of that place. Nobody has to go within his
//! first second, in which an honest client registers; meanwhile whoever is new waits in the kernel's queue.
//!
//! `max-connections` and `max-connections-per-address` count those who have registered. Who is one too many finds out at
//! `register`, which has an answer that can say why. Until then it is a stranger like others.
//!
//! Whoever is closed here is told to the log once per episode, not once per connection.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use crate::base::address::Host;
use crate::base::sync::{Arc, Condvar, Mutex};
use crate::config::Limits;
use crate::logging::level::WARNING;
use crate::server::client_log;
use crate::server::connection::Connection;
use crate::server::descriptors::Descriptors;

/// In that time an honest client registers, on a busy machine too.
const PROTECTED: Duration = Duration::from_secs(1);
/// How long the accept loop waits for room before it drops the newcomer: longer than somebody is protected.
const PATIENCE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(100);

/// Why a connection was closed, for its own log line.
pub const TOO_SLOW: &str = "it did not register in time";
pub const MADE_ROOM: &str = "it made room for others";

/// The doorkeeper of a server.
pub struct Admission {
    connections_max: usize,
    /// The limit of open files, where it does not permit more connections.
    too_few_files: Option<usize>,
    per_address_max: usize,
    strangers_max: usize,
    handshake_timeout: Option<Duration>,
    state: Mutex<State>,
    /// A stranger has gone.
    left: Condvar,
}

#[derive(Default)]
struct State {
    /// By connection id, so the oldest first.
    strangers: BTreeMap<u64, Stranger>,
    registered: usize,
    /// Of those who have an address.
    by_source: HashMap<Host, Count>,
}

struct Stranger {
    since: Instant,
    source: Option<Host>,
    connection: Arc<Connection>,
    /// It has been told to go.
    is_leaving: bool,
}

#[derive(Debug, Default)]
struct Count {
    strangers: usize,
    registered: usize,
}

/// The place of one connection, until it is dropped.
pub struct Pass {
    admission: Arc<Admission>,
    id: u64,
    source: Option<Host>,
    is_registered: bool,
}

impl Admission {
    /// Under these limits, with so many descriptors.
    pub fn new(limits: &Limits, descriptors: &Descriptors) -> Arc<Admission> {
        Arc::new(Admission {
            connections_max: descriptors.connections,
            too_few_files: descriptors.limits_connections.then_some(descriptors.total),
            per_address_max: limits.connections_per_address.unwrap_or(usize::MAX),
            strangers_max: descriptors.strangers,
            handshake_timeout: limits.handshake_timeout,
            state: Mutex::default(),
            left: Condvar::new(),
        })
    }

    /// A place among the strangers. Waits until there is room, at most [`PATIENCE`]. `None`: there is none, go away.
    pub fn admit(self: &Arc<Self>, connection: &Arc<Connection>, source: Option<Host>) -> Option<Pass> {
        let started = Instant::now();
        let mut state = self.state.lock();
        if state.strangers_from(source) >= self.per_address_max {
            drop(state);
            self.log_address_full(connection);
            return None;
        }
        while state.strangers.len() >= self.strangers_max {
            if started.elapsed() > PATIENCE {
                drop(state);
                let max = self.strangers_max;
                connection.peer.log(
                    &client_log::NO_ROOM,
                    WARNING,
                    format_args!(
                        "no room among max-unregistered ({max}) connections; the connection is closed"
                    ),
                );
                return None;
            }
            if let Some((victim, since)) = state.somebody_to_go() {
                // Closing takes other locks.
                drop(state);
                victim.outbox.close(MADE_ROOM);
                let (max, seconds) = (self.strangers_max, since.elapsed().as_secs());
                victim.peer.log(
                    &client_log::MADE_ROOM,
                    WARNING,
                    format_args!(
                        "has not registered for {seconds} s and makes room: there are max-unregistered ({max}) \
                         connections like it; the connection is closed"
                    ),
                );
                state = self.state.lock();
                continue;
            }
            state = self.left.wait_timeout(state, PAUSE);
        }
        let stranger =
            Stranger { since: Instant::now(), source, connection: Arc::clone(connection), is_leaving: false };
        state.strangers.insert(connection.id(), stranger);
        if let Some(source) = source {
            state.by_source.entry(source).or_default().strangers += 1;
        }
        Some(Pass { admission: Arc::clone(self), id: connection.id(), source, is_registered: false })
    }

    /// Closes strangers whose time is up. When to ask again, if there is a limit.
    pub fn expire(&self, now: Instant) -> Option<Instant> {
        let timeout = self.handshake_timeout?;
        let mut late = Vec::new();
        let next = {
            let mut state = self.state.lock();
            for stranger in state.strangers.values_mut() {
                if now.saturating_duration_since(stranger.since) < timeout {
                    break;
                }
                if !std::mem::replace(&mut stranger.is_leaving, true) {
                    late.push(Arc::clone(&stranger.connection));
                }
            }
            let waiting = state.strangers.values().find(|stranger| !stranger.is_leaving);
            waiting.map_or(now, |stranger| stranger.since) + timeout
        };
        late.iter().for_each(|connection| connection.outbox.close(TOO_SLOW));
        Some(next)
    }

    /// A stranger whose time was up is gone; `what` it failed to do, and perhaps why.
    pub fn log_too_slow(&self, connection: &Connection, what: &str, hint: &str) {
        let seconds = self.handshake_timeout.unwrap_or_default().as_secs();
        connection.peer.log(
            &client_log::TOO_SLOW,
            WARNING,
            format_args!("{what} after {seconds} s (handshake-timeout){hint}; the connection is closed"),
        );
    }

    fn log_address_full(&self, connection: &Connection) {
        let max = self.per_address_max;
        connection.peer.log(
            &client_log::ADDRESS_FULL,
            WARNING,
            format_args!("refused: max-connections-per-address ({max}) are connected from there"),
        );
    }
}

impl Pass {
    /// The connection becomes that of a client, or it is one too many: why, in a client's words.
    pub fn register(&mut self, connection: &Connection) -> Result<(), String> {
        let admission = &self.admission;
        let mut state = admission.state.lock();
        if state.registered >= admission.connections_max {
            drop(state);
            let max = admission.connections_max;
            let why = admission.too_few_files.map_or_else(String::new, |total| {
                format!("; the limit of open files ({total}: ulimit -n, LimitNOFILE) permits no more")
            });
            connection.peer.log(
                &client_log::FULL,
                WARNING,
                format_args!("refused: max-connections ({max}) clients are connected{why}"),
            );
            return Err(format!("the server has max-connections ({max}) clients already; try again later"));
        }
        let count = self.source.map(|source| state.by_source.entry(source).or_default());
        if let Some(count) = count {
            if count.registered >= admission.per_address_max {
                drop(state);
                admission.log_address_full(connection);
                let max = admission.per_address_max;
                return Err(format!(
                    "max-connections-per-address ({max}) clients are connected from your address"
                ));
            }
            count.registered += 1;
        }
        state.registered += 1;
        state.remove_stranger(self.id);
        self.is_registered = true;
        drop(state);
        admission.left.notify_all();
        Ok(())
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut state = self.admission.state.lock();
        if self.is_registered {
            state.registered -= 1;
            state.uncount(self.source, |count| count.registered -= 1);
        } else {
            state.remove_stranger(self.id);
        }
        drop(state);
        self.admission.left.notify_all();
    }
}

impl State {
    fn strangers_from(&self, source: Option<Host>) -> usize {
        source.and_then(|source| self.by_source.get(&source)).map_or(0, |count| count.strangers)
    }

    /// Marks the stranger who is to make room, unless one who is leaving already will do.
    fn somebody_to_go(&mut self) -> Option<(Arc<Connection>, Instant)> {
        if self.strangers.values().any(|stranger| stranger.is_leaving) {
            return None;
        }
        // Of equals the last: so from the newest to the oldest.
        let strangers = self.strangers.iter().rev();
        let (&id, oldest) = strangers.max_by_key(|(_, stranger)| self.strangers_from(stranger.source))?;
        if oldest.since.elapsed() < PROTECTED {
            return None;
        }
        let victim = self.strangers.get_mut(&id)?;
        victim.is_leaving = true;
        Some((Arc::clone(&victim.connection), victim.since))
    }

    fn remove_stranger(&mut self, id: u64) {
        if let Some(stranger) = self.strangers.remove(&id) {
            self.uncount(stranger.source, |count| count.strangers -= 1);
        }
    }

    fn uncount(&mut self, source: Option<Host>, uncount: impl FnOnce(&mut Count)) {
        let Some(source) = source else { return };
        if let Some(count) = self.by_source.get_mut(&source) {
            uncount(count);
            if count.strangers == 0 && count.registered == 0 {
                self.by_source.remove(&source);
            }
        }
    }
}
