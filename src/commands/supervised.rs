//! What the service manager hears of the server, if it listens (`NOTIFY_SOCKET`): that it is ready, that it stops, what
//! it does, that it needs more time, and that it is alive.
//!
//! A thread of its own tells. A sign of life for the watchdog follows a check of what a commit needs, by this thread:
//! the locks and the counters of each storage, and its disk ([`Storage::pulse`](crate::storage::Storage::pulse)). If
//! one of them does not come back, neither does the thread, and the manager restarts the server.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::opening::Opening;
use crate::base::clock::TimeSource;
use crate::base::sync::{Condvar, Mutex, rank};
use crate::process::notify::{Notifier, reloading, watchdog};
use crate::server::{Server, stats};
use crate::storage::Pulse;

/// Python's logger for messages about the process.
const RUNZEO: &str = "ZEO.runzeo";
/// Interval between two looks at a start or a stop.
const SOON: Duration = Duration::from_secs(1);
/// Interval between two states of a server that serves.
const STATE_PAUSE: Duration = Duration::from_secs(10);
/// The time that a start or stop asks for, again and again while it goes on.
const EXTENSION: Duration = Duration::from_secs(30);
/// No more time is asked for if nothing has moved for this long.
const PATIENCE: Duration = Duration::from_secs(600);
const STACK: usize = 256 << 10;

/// What the server does.
#[derive(Clone)]
enum Phase {
    Opening(Arc<Opening>),
    Serving(Arc<Server>),
    Stopping,
    /// The start has failed, and the process is about to end.
    Failed,
}

/// The connection to the service manager, if there is one.
#[derive(Clone)]
pub(super) struct Supervised(Option<Arc<Manager>>);

struct Manager {
    notifier: Notifier,
    /// The server is taken for dead after this time without a sign.
    watchdog: Option<Duration>,
    clock: TimeSource,
    /// Held while a message is sent and the phase changes, so that no message of the former phase comes later.
    notices: Mutex<(), rank::Notices>,
    phase: Mutex<Phase, rank::Watch>,
    phase_changed: Condvar,
    /// A signal that ends the server has come; during a start it is handled late.
    end_is_asked: Arc<AtomicBool>,
}

impl Supervised {
    /// Begins to tell, if a manager listens.
    pub(super) fn start(
        opening: Arc<Opening>,
        end_is_asked: Arc<AtomicBool>,
        clock: TimeSource,
    ) -> io::Result<Supervised> {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Ok(Supervised(None));
        };
        let notifier = match Notifier::new(&name) {
            Ok(notifier) => notifier,
            Err(error) => {
                log::warn!(target: RUNZEO, "NOTIFY_SOCKET: {}: {error}", name.display());
                return Ok(Supervised(None));
            }
        };
        let variable = |name: &str| std::env::var(name).ok();
        let watchdog = watchdog(variable("WATCHDOG_USEC").as_deref(), variable("WATCHDOG_PID").as_deref());
        let watchdog = watchdog.unwrap_or_else(|error| {
            log::warn!(target: RUNZEO, "{error}");
            None
        });
        let phase = Mutex::new(Phase::Opening(opening));
        let phase_changed = Condvar::new();
        let notices = Mutex::new(());
        let manager = Manager { notifier, watchdog, clock, notices, phase, phase_changed, end_is_asked };
        let manager = Arc::new(manager);
        let teller = Arc::clone(&manager);
        thread::Builder::new().name("supervised".into()).stack_size(STACK).spawn(move || teller.run())?;
        Ok(Supervised(Some(manager)))
    }

    /// Clients are served from now on.
    pub(super) fn serves(&self, server: &Arc<Server>) {
        let Some(manager) = &self.0 else { return };
        let lines = ["READY=1".into(), format!("STATUS={}", state(server, 0.0))];
        manager.enter(Phase::Serving(Arc::clone(server)), &lines);
    }

    /// The configuration is read again.
    pub(super) fn reloads(&self) {
        let Some(manager) = &self.0 else { return };
        manager.send(&[reloading(), vec!["STATUS=reading the configuration again".into()]].concat());
    }

    /// That has ended, and the server goes on serving.
    pub(super) fn has_reloaded(&self, server: &Server) {
        let Some(manager) = &self.0 else { return };
        manager.send(&["READY=1".into(), format!("STATUS={}", state(server, 0.0))]);
    }

    /// The server stops.
    pub(super) fn stops(&self) {
        let Some(manager) = &self.0 else { return };
        manager.enter(Phase::Stopping, &["STOPPING=1".into(), "STATUS=stopping".into()]);
    }

    /// The server cannot start.
    pub(super) fn fails(&self, why: &str) {
        let Some(manager) = &self.0 else { return };
        manager.enter(Phase::Failed, &[format!("STATUS={why}")]);
    }
}

impl Manager {
    fn send(&self, lines: &[String]) {
        if let Err(error) = self.notifier.send(lines) {
            log::warn!(target: RUNZEO, "the service manager (NOTIFY_SOCKET) cannot be told {lines:?}: {error}");
        }
    }

    fn enter(&self, phase: Phase, lines: &[String]) {
        let _notices = self.notices.lock();
        self.send(lines);
        *self.phase.lock() = phase;
        self.phase_changed.notify_all();
    }

    /// Sends what is so in this phase, unless it is over.
    fn send_in(&self, phase: &Phase, lines: &[String]) {
        let _notices = self.notices.lock();
        let is_over = !self.phase.lock().is(phase);
        if !is_over {
            self.send(lines);
        }
    }

    /// It ends with the process: a disk that hangs may hold it up for ever.
    fn run(&self) {
        let mut moving = Moving { what: None, since: self.clock.now() };
        let mut rate = Rate { commits: 0, at: self.clock.now(), next: self.clock.now() + STATE_PAUSE };
        let mut pulses = HashMap::new();
        loop {
            let phase = self.phase.lock().clone();
            let pause = match &phase {
                Phase::Opening(opening) => {
                    let what = opening.shown().unwrap_or_else(|| "starting".into());
                    let lines = self.takes_long(&mut moving, what, Some(opening.position()));
                    self.send_in(&phase, &lines);
                    SOON
                }
                Phase::Serving(server) => self.serve(&phase, server, &mut rate, &mut pulses),
                Phase::Stopping => {
                    let lines = self.takes_long(&mut moving, "stopping".into(), None);
                    self.send_in(&phase, &lines);
                    SOON
                }
                Phase::Failed => SOON,
            };
            let until = self.clock.now() + pause;
            let mut now = self.phase.lock();
            while self.clock.now() < until && now.is(&phase) {
                now = self.clock.wait_until(&self.phase_changed, now, until);
            }
        }
    }

    /// What to send during a start or stop: it asks for more time while something moves, and not for much longer.
    fn takes_long(&self, moving: &mut Moving, what: String, position: Option<(usize, u64)>) -> Vec<String> {
        let now = self.clock.now();
        let seen = Some((what, position));
        if moving.what != seen {
            *moving = Moving { what: seen, since: now };
        }
        let what = moving.what.as_ref().map_or("", |(what, _)| what);
        let mut lines = vec![format!("STATUS={what}")];
        // A start that is to end is not worth more time: it may be killed at any time.
        let is_in_vain = position.is_some() && self.end_is_asked.load(Ordering::Relaxed);
        if now.duration_since(moving.since) < PATIENCE && !is_in_vain {
            lines.push(format!("EXTEND_TIMEOUT_USEC={}", EXTENSION.as_micros()));
        }
        lines
    }

    /// Returns the pause until the next time.
    fn serve(
        &self,
        phase: &Phase,
        server: &Server,
        rate: &mut Rate,
        pulses: &mut HashMap<String, Pulse>,
    ) -> Duration {
        if self.watchdog.is_some() && is_alive(server, pulses) {
            self.send_in(phase, &["WATCHDOG=1".into()]);
        }
        let now = self.clock.now();
        if now >= rate.next {
            self.send_in(phase, &[format!("STATUS={}", state(server, rate.measure(server, now)))]);
            rate.next = now + STATE_PAUSE;
        }
        let pause = rate.next.saturating_duration_since(now);
        self.watchdog.map_or(pause, |time| pause.min(time / 2))
    }
}

impl Phase {
    fn is(&self, other: &Phase) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// What a start or stop has come to.
struct Moving {
    what: Option<(String, Option<(usize, u64)>)>,
    since: Instant,
}

/// The number of transactions at some time.
struct Rate {
    commits: u64,
    at: Instant,
    /// When to tell again.
    next: Instant,
}

impl Rate {
    /// Transactions of a second since the last time.
    fn measure(&mut self, server: &Server, now: Instant) -> f64 {
        let commits = server.storages().map(|hosted| stats::get(&hosted.stats.commits)).sum::<i64>();
        let commits = u64::try_from(commits).unwrap_or(0);
        let seconds = now.duration_since(self.at).as_secs_f64();
        let rate = commits.saturating_sub(self.commits) as f64 / seconds.max(0.001);
        (self.commits, self.at) = (commits, now);
        rate
    }
}

fn state(server: &Server, rate: f64) -> String {
    let clients: usize = server.storages().map(|hosted| hosted.connection_count()).sum();
    let clients = if clients == 1 { "1 client".into() } else { format!("{clients} clients") };
    format!("serving {clients}, {rate:.1} transactions a second")
}

/// Whether transactions come to their end. It does not return if a lock or a disk hangs.
fn is_alive(server: &Server, pulses: &mut HashMap<String, Pulse>) -> bool {
    // Takes the locks of all storages, also the lock of each table of locks.
    server.ruok();
    let mut is_alive = true;
    for hosted in server.storages() {
        let pulse = hosted.storage.pulse();
        let before = pulses.insert(hosted.name.clone(), pulse);
        if matches!(pulse, Pulse::Busy(_)) && before == Some(pulse) {
            log::error!(
                target: RUNZEO,
                "storage '{}': a transaction has been at its end for long, and the disk does not answer: the service \
                 manager gets no sign of life",
                hosted.name
            );
            is_alive = false;
        }
    }
    is_alive
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::path::Path;

    use super::*;

    /// The connection to a service manager during a stop, and the socket at which its messages arrive.
    fn stopping(time: &TimeSource, directory: &Path) -> (Manager, UnixDatagram) {
        let path = directory.join("notify");
        let notices = UnixDatagram::bind(&path).unwrap();
        notices.set_nonblocking(true).unwrap();
        let notifier = Notifier::new(path.as_os_str()).unwrap();
        let manager = Manager {
            notifier,
            watchdog: None,
            clock: time.clone(),
            notices: Mutex::new(()),
            phase: Mutex::new(Phase::Stopping),
            phase_changed: Condvar::new(),
            end_is_asked: Arc::default(),
        };
        (manager, notices)
    }

    /// A stop whose disk hangs must come to an end, if need be by force.
    #[test]
    fn what_does_not_move_gets_more_time_for_ten_minutes() {
        let time = TimeSource::manual();
        let directory = tempfile::tempdir().unwrap();
        let (manager, _) = stopping(&time, directory.path());
        let mut moving = Moving { what: None, since: manager.clock.now() };
        let mut is_extended = |what: &str, position| {
            let lines = manager.takes_long(&mut moving, what.into(), position);
            lines.contains(&"EXTEND_TIMEOUT_USEC=30000000".to_string())
        };
        assert!(is_extended("opening 1", Some((0, 1))));
        time.advance(PATIENCE);
        assert!(is_extended("opening 1", Some((0, 2))), "it moves");
        time.advance(PATIENCE - Duration::from_secs(1));
        assert!(is_extended("opening 1", Some((0, 2))));
        time.advance(Duration::from_secs(1));
        assert!(!is_extended("opening 1", Some((0, 2))));
        assert!(is_extended("stopping", None));
        time.advance(PATIENCE);
        assert!(!is_extended("stopping", None));
    }

    /// Symptom: the last state of a server that could not start was `opening 1`, and not why.
    #[test]
    fn a_message_of_a_former_phase_does_not_come_later() {
        let directory = tempfile::tempdir().unwrap();
        let (manager, notices) = stopping(&TimeSource::manual(), directory.path());
        manager.enter(Phase::Failed, &["STATUS=no such file".into()]);
        manager.send_in(&Phase::Stopping, &["STATUS=stopping".into()]);
        let mut notice = [0; 100];
        let len = notices.recv(&mut notice).unwrap();
        assert_eq!(&notice[..len], b"STATUS=no such file");
        assert!(notices.recv(&mut notice).is_err());
    }
}
