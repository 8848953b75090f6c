//! A client of the library that acts at random, and records what it sees.
//!
//! It opens its cache, connects, looks at views, commits, and closes; the next one goes on with its cache.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use runzeo::client::{self, Changed, Changes, Client, ClientOptions, View};
use runzeo::ids;
use runzeo::storage::prelude::*;
use runzeo::storage::{StorageError, TransactionMeta};

use crate::check::{Attempt, Oid, Outcome, Revision, Tid};
use crate::driver::{Race, data_of, now, value_of};
use crate::servers::tcp;
use crate::support::dice::Dice;

/// What one client saw, from the opening of its cache to the close.
#[derive(Clone, Debug, Default)]
pub struct Visit {
    pub label: String,
    /// In the order of arrival.
    pub heard: Vec<Heard>,
    pub views: Vec<Seen>,
    /// Looks that ended because the database was another one than that of the view.
    pub outdated: usize,
}

/// [`Changed`]
#[derive(Clone, Debug)]
pub enum Heard {
    Transaction { tid: Tid, oids: Vec<Oid> },
    Missed { last: Tid, oids: Vec<Oid> },
    Anything { last: Tid },
}

/// All that was seen of a view until one moment.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// It sees what is before.
    pub start: Tid,
    pub loads: Vec<(Oid, Option<Revision>)>,
    /// The start before the last refresh, and the objects that it named.
    pub changed: Option<(Tid, Vec<Oid>)>,
}

/// Where a client connects, and what it keeps.
#[derive(Clone, Debug)]
pub struct Place {
    pub label: String,
    pub addresses: Vec<SocketAddr>,
    pub cache: Option<PathBuf>,
    pub cache_size: u64,
}

/// The time since which a client waits, for the one that looks for calls without end.
#[derive(Debug, Default)]
pub struct Beat(AtomicU64);

impl Beat {
    fn beat(&self) {
        self.0.store(now(), Ordering::Relaxed);
    }

    pub fn end(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    pub fn since(&self) -> Option<Tid> {
        Some(self.0.load(Ordering::Relaxed)).filter(|since| *since > 0)
    }
}

pub fn options(place: &Place) -> ClientOptions {
    let mut options = ClientOptions::new(place.addresses.iter().copied().map(tcp).collect());
    options.cache_path.clone_from(&place.cache);
    options.cache_size = place.cache_size;
    options.wait_timeout = Duration::from_secs(3);
    options.disconnect_poll = (Duration::from_millis(100), Duration::from_millis(500));
    options
}

/// One client after another, until the race is over.
pub fn visits(race: &Race, place: &Place, mut dice: Dice, mark: Oid, beat: &Beat, done: &Mutex<Vec<Visit>>) {
    while race.goes_on() {
        let mut options = options(place);
        options.wait = !dice.one_in(3);
        options.read_only_fallback = dice.one_in(2);
        options.server_sync = dice.one_in(4);
        beat.beat();
        let client = match Client::open(options) {
            Ok(client) => client,
            Err(StorageError::Disconnected(_)) => {
                thread::sleep(Duration::from_millis(20));
                continue;
            }
            Err(error) => panic!("{}: {error}", place.label),
        };
        let heard = Arc::new(Mutex::new((Vec::new(), 0)));
        let hearing = Arc::clone(&heard);
        client.on_change(move |changed| hear(&mut hearing.lock().expect("heard"), changed));
        let view = client.view();
        let mut visitor = Visitor {
            race,
            client,
            view,
            older: None,
            dice: Dice::new(dice.below(1 << 40), mark),
            mark,
            heard,
            beat,
            visit: Visit { label: place.label.clone(), ..Visit::default() },
        };
        for _ in 0..20 + dice.below(150) {
            if !race.goes_on() {
                break;
            }
            beat.beat();
            visitor.step();
        }
        beat.beat();
        let closed = visitor.client.close();
        closed.unwrap_or_else(|error| panic!("{}: {error}", place.label));
        visitor.visit.heard.clone_from(&visitor.heard.lock().expect("heard").0);
        done.lock().expect("visits").push(visitor.visit);
    }
    beat.end();
}

/// The second is the number of times that anything may have changed.
fn hear((heard, restarts): &mut (Vec<Heard>, u64), changed: &Changed<'_>) {
    let all = |oids: &[ids::Oid]| oids.iter().map(|oid| oid.0).collect();
    heard.push(match changed {
        Changed::Transaction { tid, oids } => Heard::Transaction { tid: tid.0, oids: all(oids) },
        Changed::Missed { last, oids } => Heard::Missed { last: last.0, oids: all(oids) },
        Changed::Anything { last } => {
            *restarts += 1;
            Heard::Anything { last: last.0 }
        }
        other => panic!("{other:?}"),
    });
}

struct Visitor<'a> {
    race: &'a Race,
    client: Client,
    view: View,
    /// One that was begun earlier, with what was seen of it.
    older: Option<(View, Seen)>,
    dice: Dice,
    mark: Oid,
    heard: Arc<Mutex<(Vec<Heard>, u64)>>,
    beat: &'a Beat,
    visit: Visit,
}

/// The revision, or None if there is none that the view sees.
pub fn look(view: &View, oid: Oid) -> Result<Option<Revision>, StorageError> {
    found(view.load(ids::Oid(oid)))
}

type Loaded = Result<Option<client::Revision>, StorageError>;

fn found(loaded: Loaded) -> Result<Option<Revision>, StorageError> {
    match loaded {
        Ok(Some(found)) => Ok(Some(Revision {
            tid: found.serial.0,
            value: value_of(&found.data),
            end: found.end.map(|end| end.0),
        })),
        Ok(None) | Err(StorageError::PosKey(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Visitor<'_> {
    fn restarts(&self) -> u64 {
        self.heard.lock().expect("heard").1
    }

    fn any_oid(&mut self) -> Oid {
        if self.dice.one_in(2) { self.dice.of(&self.race.hot) } else { self.dice.of(&self.race.cold) }
    }

    fn step(&mut self) {
        match self.dice.below(10) {
            0..=4 => self.look_around(),
            5 => {
                let Some((view, seen)) = self.older.take() else { return };
                if let Some(seen) = self.look_at(&view, seen)
                    && !self.dice.one_in(8)
                {
                    self.older = Some((view, seen));
                }
            }
            6 => thread::sleep(Duration::from_millis(self.dice.below(20))),
            _ => self.transaction(),
        }
    }

    fn look_around(&mut self) {
        let since = self.view.start().0;
        let changes = if self.dice.one_in(6) {
            self.view.refresh_from_server().ok()
        } else {
            Some(self.view.refresh())
        };
        let changed = changes.and_then(|changes| match changes {
            Changes::Objects(oids) => Some((since, oids.iter().map(|oid| oid.0).collect())),
            Changes::Unknown => None,
        });
        let start = self.view.start().0;
        assert!(start >= since, "{}: a view went back from {since:x} to {start:x}", self.visit.label);
        let view = self.view.clone();
        let seen = self.look_at(&view, Seen { start, changed, ..Seen::default() });
        if let Some(seen) = seen
            && self.older.is_none()
            && self.dice.one_in(3)
        {
            self.older = Some((view, seen));
        }
    }

    /// Looks once more at a view. `seen`: of earlier looks. Returns both; `None`: the view is outdated.
    fn look_at(&mut self, view: &View, mut seen: Seen) -> Option<Seen> {
        let oids: Vec<Oid> = (0..1 + self.dice.below(8)).map(|_| self.any_oid()).collect();
        let loaded: Vec<_> = if self.dice.one_in(2) {
            view.load_many(&oids.iter().copied().map(ids::Oid).collect::<Vec<_>>())
        } else {
            let load = |oid: &Oid| {
                self.beat.beat();
                view.load(ids::Oid(*oid))
            };
            oids.iter().map(load).collect()
        };
        for (oid, loaded) in oids.into_iter().zip(loaded) {
            match found(loaded) {
                Ok(revision) => seen.loads.push((oid, revision)),
                Err(StorageError::Disconnected(_)) => {}
                Err(StorageError::Outdated(_)) => {
                    self.visit.outdated += 1;
                    return None;
                }
                Err(error) => panic!("{}: {oid}: {error}", self.visit.label),
            }
        }
        self.visit.views.push(seen.clone());
        Some(seen)
    }

    /// Reads, commits, and sees its own commit.
    fn transaction(&mut self) {
        let restarts = self.restarts();
        self.view.refresh();
        let mut attempt = Attempt { label: self.visit.label.clone(), ..Attempt::default() };
        if self.race.can_undo && self.dice.one_in(12) {
            let undoable = self.race.undoable.lock().expect("undoable");
            let recent = &undoable[undoable.len().saturating_sub(6)..];
            attempt.undo = (!recent.is_empty()).then(|| self.dice.of(recent));
        }
        let mut oids = vec![self.mark];
        if attempt.undo.is_none() {
            let is_hot = self.dice.one_in(3);
            let some = if is_hot { &self.race.hot } else { &self.race.cold };
            oids = (0..1 + self.dice.below(4)).map(|_| self.dice.of(some)).collect();
        }
        for oid in oids {
            let Ok(found) = look(&self.view, oid) else { return };
            attempt.writes.insert(oid, (found.map_or(0, |found| found.tid), self.race.new_value()));
        }
        if self.dice.one_in(3) {
            let oid = self.any_oid();
            match look(&self.view, oid) {
                Ok(Some(found)) if !attempt.writes.contains_key(&oid) => {
                    attempt.checks.push((oid, found.tid))
                }
                _ => {}
            }
        }
        let Some(tid) = self.commit(attempt) else { return };
        self.view.refresh();
        let start = self.view.start().0;
        assert!(
            start > tid || self.restarts() > restarts,
            "{}: a view before {start:x} does not see its own commit {tid:x}",
            self.visit.label
        );
    }

    fn commit(&mut self, attempt: Attempt) -> Option<Tid> {
        let mut staged = self.client.transaction(TransactionMeta::default());
        for (oid, (serial, value)) in &attempt.writes {
            let len = if self.dice.one_in(20) { 30_000 } else { self.dice.below(300) as usize };
            staged.store(ids::Oid(*oid), ids::Tid(*serial), &data_of(*value, len)).expect("memory");
        }
        for (oid, serial) in &attempt.checks {
            staged.check_current(ids::Oid(*oid), ids::Tid(*serial));
        }
        if let Some(undone) = attempt.undo {
            staged.undo(ids::Tid(undone));
        }
        let is_undo = attempt.undo.is_some();
        let number = self.race.attempt(attempt);
        match self.client.commit(staged) {
            Ok(done) => {
                self.race.settle(number, Outcome::Acknowledged(done.tid.0));
                if !is_undo {
                    self.race.undoable.lock().expect("undoable").push(done.tid.0);
                }
                return Some(done.tid.0);
            }
            Err(StorageError::OutcomeUnknown(_)) => self.race.settle(number, Outcome::Unknown),
            Err(StorageError::Conflict(_) | StorageError::ReadConflict(_)) => self.race.conflicted(number),
            Err(
                StorageError::Disconnected(_)
                | StorageError::ReadOnly
                | StorageError::PosKey(_)
                // A server whose own server was too slow has given it up.
                | StorageError::Transaction(_)
                | StorageError::Undo { .. }
                | StorageError::MultipleUndo(_),
            ) => {}
            Err(StorageError::Server { class, .. }) if class.contains("Undo") || class.contains("POSKey") => {
            }
            Err(error) => panic!("{}: a commit: {error:?}", self.visit.label),
        }
        None
    }
}
