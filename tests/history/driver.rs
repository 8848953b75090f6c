//! One client that acts at random, and records its actions and everything that it sees.
//!
//! It connects, makes some steps, and leaves in one of several ways: at any moment between tpc_begin and the answer to
//! tpc_finish. Then it returns as another generation. It checks only the form of messages.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::check::{Attempt, Changes, Event, LATEST, Oid, Outcome, Revision, Tid, Value as Written};
use crate::support::client::{Incoming, RawClient, Speaks, content, record, undo_id};
use crate::support::dice::Dice;
use crate::support::pickle::{Value, id};

/// The state that all clients share.
pub struct Race {
    pub address: SocketAddr,
    /// A few objects for all clients, and many others.
    pub hot: Vec<Oid>,
    pub cold: Vec<Oid>,
    pub can_undo: bool,
    /// Longer than transaction-timeout.
    pub stall: Option<Duration>,
    pub stop: AtomicBool,
    pub attempts: Mutex<Vec<Attempt>>,
    pub connections: Mutex<Vec<Vec<Event>>>,
    /// The next value that a store writes.
    pub next_value: AtomicU64,
    /// Transactions that can be undone: none that are undos.
    pub undoable: Mutex<Vec<Tid>>,
    /// Clients whose connection was closed by a timeout.
    pub timeouts: AtomicU64,
}

impl Race {
    pub fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn settle(&self, attempt: usize, outcome: Outcome) {
        self.attempts.lock().expect("attempts")[attempt].outcome = outcome;
    }
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
}

impl<'a> Driver<'a> {
    pub fn register(race: &'a Race, speaks: Speaks, dice: Dice, mark: Oid) -> io::Result<Driver<'a>> {
        let (client, tid) = RawClient::register(race.address, speaks)?;
        let mut driver = Driver {
            race,
            client,
            dice,
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
        let events = self.events;
        self.race.connections.lock().expect("connections").push(events);
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

    // -- transactions

    /// Closes the connection, perhaps in the middle of a message.
    fn leave(&mut self) -> Step {
        if self.dice.one_in(3) {
            self.client.queue_raw(&[0, 0, 0, 9, b'(']);
            let _ = self.client.flush();
        }
        let _ = self.client.stream().shutdown(std::net::Shutdown::Both);
        Step::Left
    }

    fn transaction(&mut self) -> io::Result<Step> {
        let (attempt, undo) = self.plan()?;
        let number = {
            let mut attempts = self.race.attempts.lock().expect("attempts");
            attempts.push(attempt.clone());
            attempts.len() - 1
        };
        self.txn += 1;
        let txn = self.txn;
        self.client.queue_begin(txn);
        for (oid, (serial, value)) in &attempt.writes {
            let len = if self.dice.one_in(20) { 30_000 } else { self.dice.below(300) as usize };
            self.client.queue_store(*oid, *serial, &data_of(*value, len), txn);
            if self.dice.one_in(12) {
                self.ask_some(1);
            }
        }
        for (oid, serial) in &attempt.checks {
            let args = vec![id(*oid), id(*serial), Value::Int(txn)];
            self.client.queue_async("checkCurrentSerialInTransaction", args);
        }
        if let Some(undone) = undo {
            let name = Value::Bytes(undo_id(undone).into_bytes());
            if self.client.speaks.answers_undo() {
                let call = self.client.queue_call("undo", vec![name, Value::Int(txn)]);
                self.client.flush()?;
                if self.answer(call)?.is_err() {
                    return self.abort(txn);
                }
            } else {
                self.client.queue_async("undoa", vec![name, Value::Int(txn)]);
            }
        }
        match self.dice.below(40) {
            0 => return self.abort(txn),
            1 => {
                let _ = self.client.flush();
                return Ok(self.leave());
            }
            _ => {}
        }
        self.serialnos.clear();
        let vote = self.client.queue_call("vote", vec![Value::Int(txn)]);
        match self.dice.below(40) {
            // It aborts while the vote waits, is running, or is done.
            0 | 1 => {
                self.client.flush()?;
                self.pause();
                let step = self.abort(txn)?;
                self.receive_until_quiet(vote)?;
                return Ok(step);
            }
            2 => {
                let _ = self.client.flush();
                self.pause();
                return Ok(self.leave());
            }
            // It does not wait for the answer.
            3 if !self.client.speaks.is_old() => return self.finish(number, &attempt, txn, Some(vote)),
            4..=9 => self.ask_some(3),
            _ => {}
        }
        self.client.flush()?;
        if self.answer(vote)?.is_err() || self.is_refused() {
            return self.abort(txn);
        }
        match self.dice.below(40) {
            0 => return self.abort(txn),
            1 => return Ok(self.leave()),
            2..=4 => {
                self.ask_some(4);
                self.receive_reads()?;
            }
            5..=7 => self.pause(),
            _ => {}
        }
        if let Some(stall) = self.race.stall
            && self.dice.one_in(1500)
        {
            // The server's transaction-timeout closes the connection.
            thread::sleep(stall);
            let call = self.client.queue_call("tpc_finish", vec![Value::Int(txn)]);
            let _ = self.client.flush();
            let ended = self.answer(call);
            assert!(ended.is_err(), "a transaction that was too slow: {ended:?}");
            self.race.timeouts.fetch_add(1, Ordering::Relaxed);
            return Ok(Step::Left);
        }
        self.finish(number, &attempt, txn, None)
    }

    /// Plans a transaction, with serials that it knows; rarely with an old one.
    fn plan(&mut self) -> io::Result<(Attempt, Option<Tid>)> {
        let undo = if self.race.can_undo && self.dice.one_in(12) {
            let undoable = self.race.undoable.lock().expect("undoable");
            let recent = &undoable[undoable.len().saturating_sub(6)..];
            (!recent.is_empty()).then(|| self.dice.of(recent))
        } else {
            None
        };
        let mut writes = BTreeSet::new();
        let mut checks = BTreeSet::new();
        if undo.is_some() {
            writes.insert(self.mark);
        } else {
            let hot = self.dice.below(3);
            for _ in 0..1 + self.dice.below(4) {
                let oid = if hot == 0 { self.dice.of(&self.race.hot) } else { self.dice.of(&self.race.cold) };
                writes.insert(oid);
            }
            if self.dice.one_in(3) {
                checks.insert(self.any_oid());
            }
        }
        for oid in writes.iter().chain(&checks).copied().collect::<Vec<_>>() {
            if !self.newest.contains_key(&oid) {
                self.ask_load(oid);
            }
        }
        self.receive_reads()?;
        let mut attempt = Attempt { undo, ..Attempt::default() };
        for oid in writes {
            let mut serial = self.newest[&oid];
            if self.dice.one_in(40)
                && let Some(old) = self.told.iter().rev().nth(3)
                && serial != 0
            {
                serial = *old;
            }
            let value = self.race.next_value.fetch_add(1, Ordering::Relaxed);
            attempt.writes.insert(oid, (serial, value));
        }
        // An object that does not exist cannot be current.
        attempt.checks =
            checks.into_iter().map(|oid| (oid, self.newest[&oid])).filter(|(_, s)| *s != 0).collect();
        Ok((attempt, undo))
    }

    /// Before Z5 the outcome of each store is in serialnos.
    fn is_refused(&self) -> bool {
        self.serialnos.iter().any(|pair| !matches!(pair.tuple()[1], Value::Bytes(_)))
    }

    fn abort(&mut self, txn: i64) -> io::Result<Step> {
        let call = self.client.queue_call("tpc_abort", vec![Value::Int(txn)]);
        self.client.flush()?;
        self.answer(call)?.expect("tpc_abort is never refused");
        Ok(Step::GoOn)
    }

    /// A vote that was overtaken by tpc_abort may have an answer or not.
    fn receive_until_quiet(&mut self, vote: i64) -> io::Result<()> {
        let ping = self.client.queue_call("lastTransaction", vec![]);
        self.asked.insert(ping, Asked::LastTransaction);
        self.receive_reads()?;
        self.answers.remove(&vote);
        Ok(())
    }

    fn finish(&mut self, number: usize, attempt: &Attempt, txn: i64, vote: Option<i64>) -> io::Result<Step> {
        let call = self.client.queue_call("tpc_finish", vec![Value::Int(txn)]);
        // The checker determines the objects of an undo.
        self.finishing = Some((call, attempt.writes.keys().copied().collect()));
        self.race.settle(number, Outcome::Unknown);
        if self.dice.one_in(30) {
            let _ = self.client.flush();
            self.pause();
            return Ok(self.leave());
        }
        if self.dice.one_in(4) {
            self.ask_some(3);
        }
        self.client.flush()?;
        let promised =
            self.serialnos.iter().map(|pair| pair.tuple()[1].bytes()).find(|serial| serial.len() == 8);
        let promised = promised.map(|bytes| u64::from_be_bytes(bytes.try_into().expect("a tid")));
        let answer = self.answer(call)?;
        self.finishing = None;
        match answer {
            Ok(value) if !value.is_none() => {
                let tid = value.id();
                assert!(
                    promised.is_none_or(|promised| promised == tid),
                    "serialnos {promised:x?}, tid {tid:x}"
                );
                self.race.settle(number, Outcome::Acknowledged(tid));
                if attempt.undo.is_some() {
                    self.forget_undone();
                } else {
                    self.race.undoable.lock().expect("undoable").push(tid);
                }
            }
            // The vote was refused, or waits: possible only if the client does not wait for the vote's answer.
            refused => {
                assert!(vote.is_some(), "tpc_finish after a vote that passed: {refused:?}");
                self.race.settle(number, Outcome::NotCommitted);
                self.abort(txn)?;
            }
        }
        if let Some(vote) = vote {
            self.receive_until_quiet(vote)?;
        }
        Ok(Step::GoOn)
    }

    /// Forgets objects whose serials may have been changed by its own undo.
    fn forget_undone(&mut self) {
        self.newest.clear();
    }

    fn pause(&mut self) {
        let micros = [0, 100, 1000, 5000][self.dice.below(4) as usize];
        thread::sleep(Duration::from_micros(micros));
    }
}

/// The log, read with a client's iterator.
pub fn log(client: &mut RawClient) -> io::Result<Vec<(Tid, Changes)>> {
    let call = |client: &mut RawClient, method: &str, args| {
        client.call(method, args).map(|answer| answer.unwrap_or_else(|error| panic!("{method}: {error:?}")))
    };
    let transactions = call(client, "iterator_start", vec![Value::None, Value::None])?;
    let mut log = Vec::new();
    loop {
        let next = call(client, "iterator_next", vec![transactions.clone()])?;
        if next.is_none() {
            return Ok(log);
        }
        let tid = next.tuple()[0].id();
        let records = call(client, "iterator_record_start", vec![transactions.clone(), id(tid)])?;
        let mut changes = Changes::new();
        loop {
            let record = call(client, "iterator_record_next", vec![records.clone()])?;
            if record.is_none() {
                break;
            }
            let (oid, data) = (record.tuple()[0].id(), &record.tuple()[2]);
            // The root has no value.
            if oid != 0 {
                changes.insert(oid, (!data.is_none()).then(|| value_of(data.bytes())));
            }
        }
        log.push((tid, changes));
    }
}
