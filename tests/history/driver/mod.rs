//! One client that acts at random, and records its actions and everything that it sees.
//!
//! It connects, makes some steps, and leaves in one of several ways: at any moment between tpc_begin and the answer to
//! tpc_finish. Then it returns as another generation. It checks only the form of messages.

mod transactions;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::check::{Attempt, Connection, Event, LATEST, Oid, Outcome, Revision, Tid, Value as Written};
use crate::support::client::{Incoming, RawClient, Speaks, content, record};
use crate::support::dice::Dice;
use crate::support::pickle::{Value, id, text};

/// The state that all clients share.
pub struct Race {
    /// A few objects for all clients, and many others.
    pub hot: Vec<Oid>,
    pub cold: Vec<Oid>,
    pub can_undo: bool,
    pub stop: AtomicBool,
    pub attempts: Mutex<Vec<Attempt>>,
    pub connections: Mutex<Vec<Connection>>,
    /// The next value that a store writes.
    pub next_value: AtomicU64,
    /// Transactions that can be undone: none that are undos.
    pub undoable: Mutex<Vec<Tid>>,
    /// Clients whose connection was closed by a timeout.
    pub timeouts: AtomicU64,
}

impl Race {
    /// A race of clients that change these objects.
    pub fn new(hot: Vec<Oid>, cold: Vec<Oid>, can_undo: bool) -> Race {
        Race {
            hot,
            cold,
            can_undo,
            stop: AtomicBool::new(false),
            attempts: Mutex::default(),
            connections: Mutex::default(),
            next_value: AtomicU64::new(1000),
            undoable: Mutex::default(),
            timeouts: AtomicU64::new(0),
        }
    }

    pub fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Adds an attempt; returns its number.
    pub fn attempt(&self, attempt: Attempt) -> usize {
        let mut attempts = self.attempts.lock().expect("attempts");
        attempts.push(attempt);
        attempts.len() - 1
    }

    pub fn settle(&self, attempt: usize, outcome: Outcome) {
        self.attempts.lock().expect("attempts")[attempt].outcome = outcome;
    }

    /// The server has found a conflict.
    pub fn conflicted(&self, attempt: usize) {
        self.attempts.lock().expect("attempts")[attempt].conflict = Some(now());
    }

    /// A value that nothing has stored yet.
    pub fn new_value(&self) -> Written {
        self.next_value.fetch_add(1, Ordering::Relaxed)
    }
}

/// The present time as a tid.
pub fn now() -> Tid {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time");
    runzeo::ids::Tid::from_unix(time.as_secs_f64()).0
}

/// A record of any length with a value in it.
pub fn data_of(value: Written, len: usize) -> Vec<u8> {
    record(format!("{value:020}{}", "x".repeat(len)).as_bytes())
}

pub fn value_of(data: &[u8]) -> Written {
    let text = std::str::from_utf8(&content(data)[..20]).expect("a value");
    text.parse().expect("a value")
}

enum Asked {
    Load { oid: Oid, before: Tid },
    LastTransaction,
    Invalidations { since: Tid },
}

/// The result of a step.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    GoOn,
    /// The client has left.
    Left,
}

pub struct Driver<'a> {
    race: &'a Race,
    client: RawClient,
    dice: Dice,
    events: Vec<Event>,
    asked: HashMap<i64, Asked>,
    /// Answers to other calls: the value, or the class of the exception.
    answers: HashMap<i64, Result<Value, String>>,
    /// The outcome of each store, before Z5.
    serialnos: Vec<Value>,
    newest: HashMap<Oid, Tid>,
    told: Vec<Tid>,
    /// The tpc_finish that is under way: its id, the objects that it writes, the transaction that it undoes.
    finishing: Option<(i64, Vec<Oid>)>,
    txn: i64,
    /// An object that it stores with each undo, to identify the undo.
    mark: Oid,
    /// The server takes no transactions now.
    is_read_only: bool,
    label: String,
}

impl<'a> Driver<'a> {
    /// Connects and registers; for reading only, if the server takes no transactions now.
    pub fn register(
        race: &'a Race,
        (name, address): (&str, SocketAddr),
        speaks: Speaks,
        dice: Dice,
        mark: Oid,
    ) -> io::Result<Driver<'a>> {
        let mut client = RawClient::connect(address, speaks)?;
        let register = |client: &mut RawClient, read_only| {
            client.call("register", vec![text("1"), Value::Bool(read_only)])
        };
        let mut registered = register(&mut client, false)?;
        let is_read_only = registered.is_err();
        if is_read_only {
            registered = register(&mut client, true)?;
        }
        let registered = registered.unwrap_or_else(|error| panic!("reply to register: {error:?}"));
        let tid = (!registered.is_none()).then(|| registered.id());
        let mut driver = Driver {
            race,
            client,
            dice,
            is_read_only,
            label: format!("{speaks:?} client {mark} of {name}"),
            events: Vec::new(),
            asked: HashMap::new(),
            answers: HashMap::new(),
            serialnos: Vec::new(),
            newest: HashMap::new(),
            told: Vec::new(),
            finishing: None,
            txn: 0,
            mark,
        };
        match tid {
            Some(tid) => driver.events.push(Event::LastTransaction(tid)),
            None => {
                driver.ask_last_transaction();
                driver.receive_reads()?;
            }
        }
        Ok(driver)
    }

    /// Returns its events.
    pub fn hand_in(self) -> Dice {
        let connection = Connection { label: self.label, events: self.events };
        self.race.connections.lock().expect("connections").push(connection);
        self.dice
    }

    /// Runs until the client leaves, or the race is over.
    pub fn run(&mut self, steps: u64) -> io::Result<()> {
        for _ in 0..steps {
            if !self.race.goes_on() {
                return Ok(());
            }
            let step = match self.dice.below(10) {
                0..=3 => {
                    let count = 1 + self.dice.below(12);
                    self.ask_some(count);
                    self.receive_reads()?;
                    Step::GoOn
                }
                _ if self.is_read_only => Step::GoOn,
                _ => self.transaction()?,
            };
            if step == Step::Left {
                return Ok(());
            }
        }
        Ok(())
    }

    // -- reads

    fn any_oid(&mut self) -> Oid {
        if self.dice.one_in(2) { self.dice.of(&self.race.hot) } else { self.dice.of(&self.race.cold) }
    }

    fn ask_some(&mut self, count: u64) {
        for _ in 0..count {
            let oid = self.any_oid();
            let back = self.dice.below(12) as usize + 1;
            let earlier = self.told.len().checked_sub(back).map(|at| self.told[at]);
            match (self.dice.below(12), earlier) {
                (0, _) => self.ask_last_transaction(),
                (1, Some(since)) => {
                    let asked = self.client.queue_call("getInvalidations", vec![id(since)]);
                    self.asked.insert(asked, Asked::Invalidations { since });
                }
                (2..=4, Some(before)) => self.ask_before(oid, before),
                // A snapshot: several objects as of one transaction.
                (5..=6, Some(tid)) => {
                    for _ in 0..3 {
                        let oid = self.any_oid();
                        self.ask_before(oid, tid + 1);
                    }
                }
                _ => self.ask_load(oid),
            }
        }
    }

    fn ask_load(&mut self, oid: Oid) {
        let asked = self.client.queue_load(oid);
        self.asked.insert(asked, Asked::Load { oid, before: LATEST });
    }

    fn ask_before(&mut self, oid: Oid, before: Tid) {
        let asked = self.client.queue_call("loadBefore", vec![id(oid), id(before)]);
        self.asked.insert(asked, Asked::Load { oid, before });
    }

    fn ask_last_transaction(&mut self) {
        let asked = self.client.queue_call("lastTransaction", vec![]);
        self.asked.insert(asked, Asked::LastTransaction);
    }

    fn receive_reads(&mut self) -> io::Result<()> {
        self.client.flush()?;
        while !self.asked.is_empty() {
            self.receive_one()?;
        }
        Ok(())
    }

    // -- messages from the server

    fn told(&mut self, tid: Tid, oids: impl IntoIterator<Item = Oid>) {
        self.told.push(tid);
        self.newest.extend(oids.into_iter().map(|oid| (oid, tid)));
    }

    fn receive_one(&mut self) -> io::Result<()> {
        match self.client.next()? {
            Incoming::Push { method, args } => match method.as_str() {
                "invalidateTransaction" => {
                    let tid = args[0].id();
                    let changed = args[1].tuple().iter().map(|item| self.client.speaks.changed_oid(item));
                    let oids: BTreeSet<Oid> = changed.collect();
                    self.told(tid, oids.iter().copied());
                    self.events.push(Event::Told { tid, oids });
                }
                "serialnos" => self.serialnos.extend_from_slice(args[0].tuple()),
                "info" => {}
                other => panic!("unexpected push {other}"),
            },
            Incoming::Error { id, class, detail } => match self.asked.remove(&id) {
                Some(Asked::Load { oid, before }) => {
                    assert!(class.contains("POSKeyError"), "load: {class} {detail:?}");
                    self.newest.entry(oid).or_insert(0);
                    self.events.push(Event::Loaded { oid, before, answer: None });
                }
                Some(_) => panic!("a read was refused: {class} {detail:?}"),
                None => drop(self.answers.insert(id, Err(class))),
            },
            Incoming::Reply { id, value } => match self.asked.remove(&id) {
                Some(Asked::Load { oid, before }) => self.loaded(oid, before, &value),
                Some(Asked::LastTransaction) => self.events.push(Event::LastTransaction(value.id())),
                Some(Asked::Invalidations { since }) => {
                    let speaks = self.client.speaks;
                    let answer = (!value.is_none()).then(|| {
                        let changed = value.tuple()[1].tuple().iter().map(|item| speaks.changed_oid(item));
                        (value.tuple()[0].id(), changed.collect())
                    });
                    self.events.push(Event::Invalidations { since, answer });
                }
                None => {
                    if let Some((_, oids)) = self.finishing.take_if(|(finish, _)| *finish == id)
                        && !value.is_none()
                    {
                        // R5: the others have the invalidation by now.
                        let tid = value.id();
                        self.told(tid, oids);
                        self.events.push(Event::Finished { tid });
                    }
                    self.answers.insert(id, Ok(value));
                }
            },
        }
        Ok(())
    }

    fn loaded(&mut self, oid: Oid, before: Tid, value: &Value) {
        let answer = (!value.is_none()).then(|| {
            let parts = value.tuple();
            let end = parts.get(2).filter(|end| !end.is_none() && !end.bytes().is_empty()).map(Value::id);
            Revision { tid: parts[1].id(), value: value_of(parts[0].bytes()), end }
        });
        if before == LATEST {
            self.newest.insert(oid, answer.map_or(0, |found| found.tid));
        }
        self.events.push(Event::Loaded { oid, before, answer });
    }

    /// The answer to one call. Messages before it are handled as they come.
    fn answer(&mut self, wanted: i64) -> io::Result<Result<Value, String>> {
        loop {
            if let Some(answer) = self.answers.remove(&wanted) {
                return Ok(answer);
            }
            self.receive_one()?;
        }
    }
}
