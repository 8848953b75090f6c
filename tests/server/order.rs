//! The order of what a client receives (rules R1 to R6 of docs/architecture.md), watched on the wire.
//!
//! Many connections load, commit, verify, and come and go at once. Each one checks every message against what it has
//! been told so far: a reply may show only transactions whose invalidation was sent before it, and must show all of
//! those. At the end every connection must have been told of exactly the transactions that were committed while it was
//! registered, in order. `RUNZEO_TEST_SECONDS` sets how long (seconds in CI, minutes by hand).

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::client::{Incoming, LATEST, RawClient, Speaks, content, record};
use crate::support::pickle::{Value, id};
use crate::support::process::{Server, test_seconds};

/// A small generator with a printed seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}

/// What was asked for, by message id.
enum Asked {
    Load { oid: u64 },
    LoadBefore { oid: u64, before: u64 },
    LastTransaction,
    GetInvalidations { since: u64 },
    Other,
}

/// One connection, and all that the server has told it.
struct Watched {
    client: RawClient,
    /// The state that the server has told of: the newest of register, invalidations and own commits.
    last: Option<u64>,
    /// Where the story begins: told by `register`, or for Z4 by the first lastTransaction.
    registered_at: Option<u64>,
    /// Invalidations and own commits in order of arrival
    told: Vec<(u64, Vec<u64>)>,
    /// Newest tid known for each object
    newest: HashMap<u64, u64>,
    asked: HashMap<i64, Asked>,
    /// (oid, tid, content) of every reply, compared with what was committed at the end
    read: HashMap<(u64, u64), Vec<u8>>,
    /// The committing transaction's objects, for the tpc_finish reply
    finishing: Option<(i64, Vec<u64>)>,
    replies: u64,
    /// For Z4: what serialnos said
    serialnos: Vec<Value>,
}

impl Watched {
    fn register(address: SocketAddr, speaks: Speaks) -> io::Result<Self> {
        let (client, tid) = RawClient::register(address, speaks)?;
        let mut watched = Self {
            client,
            last: tid,
            registered_at: tid,
            told: Vec::new(),
            newest: HashMap::new(),
            asked: HashMap::new(),
            read: HashMap::new(),
            finishing: None,
            replies: 0,
            serialnos: Vec::new(),
        };
        if speaks == Speaks::Z4 {
            // Invalidations may come before this answer: then it must agree with them.
            watched.ask_last_transaction();
            watched.client.flush()?;
            watched.receive_answers()?;
        }
        Ok(watched)
    }

    fn ask_load(&mut self, oid: u64) {
        let asked = self.client.queue_load(oid);
        self.asked.insert(asked, Asked::Load { oid });
    }

    fn ask_load_before(&mut self, oid: u64, before: u64) {
        let asked = self.client.queue_call("loadBefore", vec![id(oid), id(before)]);
        self.asked.insert(asked, Asked::LoadBefore { oid, before });
    }

    fn ask_last_transaction(&mut self) {
        let asked = self.client.queue_call("lastTransaction", vec![]);
        self.asked.insert(asked, Asked::LastTransaction);
    }

    fn ask_invalidations(&mut self, since: u64) {
        let asked = self.client.queue_call("getInvalidations", vec![id(since)]);
        self.asked.insert(asked, Asked::GetInvalidations { since });
    }

    fn told(&mut self, tid: u64, oids: Vec<u64>, how: &str) {
        if let Some(last) = self.last {
            assert!(tid > last, "R3/R4: {how} {tid:x} after {last:x}");
        }
        self.last = Some(tid);
        for oid in &oids {
            self.newest.insert(*oid, tid);
        }
        self.told.push((tid, oids));
    }

    /// Receives until everything asked has been answered.
    fn receive_answers(&mut self) -> io::Result<()> {
        while !self.asked.is_empty() {
            self.receive_one()?;
        }
        Ok(())
    }

    fn receive_one(&mut self) -> io::Result<()> {
        match self.client.next()? {
            Incoming::Push { method, args } => match method.as_str() {
                "invalidateTransaction" => {
                    let oids = args[1].tuple().iter().map(Value::id).collect();
                    self.told(args[0].id(), oids, "invalidation");
                }
                "serialnos" => self.serialnos.extend_from_slice(args[0].tuple()),
                "info" => {}
                other => panic!("unexpected push {other}"),
            },
            Incoming::Error { id, class, detail } => {
                assert!(self.asked.remove(&id).is_none(), "answer to a read: {class} {detail:?}");
            }
            Incoming::Reply { id, value } => {
                if let Some((finish, oids)) = self.finishing.take_if(|(finish, _)| *finish == id) {
                    let _ = finish;
                    // R5: this reply stands where the others get the invalidation.
                    self.told(value.id(), oids, "own commit");
                }
                if let Some(asked) = self.asked.remove(&id) {
                    self.replies += 1;
                    self.check_reply(asked, value);
                }
            }
        }
        Ok(())
    }

    fn check_reply(&mut self, asked: Asked, value: Value) {
        match asked {
            Asked::Other => {}
            Asked::LastTransaction => {
                let tid = value.id();
                match self.last {
                    Some(last) => assert_eq!(tid, last, "R2: lastTransaction {tid:x}, told of {last:x}"),
                    None => {
                        self.last = Some(tid);
                        self.registered_at = Some(tid);
                    }
                }
                if self.registered_at.is_none() {
                    // An invalidation came between register and this: the story begins before it.
                    self.registered_at = self.told.first().map(|(tid, _)| tid - 1);
                }
            }
            Asked::GetInvalidations { since } => {
                if value.is_none() {
                    return; // more than the queue holds
                }
                let (tid, oids) = (value.tuple()[0].id(), value.tuple()[1].tuple());
                assert_eq!(Some(tid), self.last, "R4: getInvalidations is for one published state");
                if tid == since {
                    assert!(oids.is_empty(), "nothing happened since {since:x}, but {oids:?}");
                }
                let oids: Vec<u64> = oids.iter().map(Value::id).collect();
                for (told, changed) in &self.told {
                    if *told > since {
                        assert!(
                            changed.iter().all(|oid| oids.contains(oid)),
                            "R4: {told:x} is missing since {since:x}"
                        );
                    }
                }
            }
            Asked::Load { oid } => {
                let parts = value.tuple();
                self.check_current(oid, parts[1].id(), &parts[0]);
                if let Some(end) = parts.get(2) {
                    assert!(end.is_none() || end.bytes().is_empty(), "the newest revision ends at {end:?}");
                }
            }
            Asked::LoadBefore { oid, before } => {
                if value.is_none() {
                    return;
                }
                let parts = value.tuple();
                let tid = parts[1].id();
                assert!(tid < before, "loadBefore {before:x} gave {tid:x}");
                if parts[2].is_none() {
                    self.check_current(oid, tid, &parts[0]);
                } else {
                    let end = parts[2].id();
                    assert!(end >= before, "loadBefore {before:x} gave an older revision, up to {end:x}");
                    assert!(
                        Some(end) <= self.last,
                        "R2: an end {end:x} that nobody told of, last {:x?}",
                        self.last
                    );
                    self.remember(oid, tid, &parts[0]);
                }
            }
        }
    }

    fn check_current(&mut self, oid: u64, tid: u64, data: &Value) {
        assert!(Some(tid) <= self.last, "R2: {oid} as of {tid:x}, but told only up to {:x?}", self.last);
        match self.newest.get(&oid) {
            Some(newest) => {
                assert_eq!(tid, *newest, "R2: {oid} as of {tid:x}, but {newest:x} was told before")
            }
            None => {
                let registered = self.registered_at.unwrap_or(tid);
                assert!(tid <= registered, "R2: {oid} as of {tid:x}, never told");
                self.newest.insert(oid, tid);
            }
        }
        self.remember(oid, tid, data);
    }

    fn remember(&mut self, oid: u64, tid: u64, data: &Value) {
        let found = content(data.bytes()).to_vec();
        if let Some(before) = self.read.insert((oid, tid), found.clone()) {
            assert_eq!(before, found, "two contents of {oid} as of {tid:x}");
        }
    }

    /// One transaction; `None` for a conflict.
    fn commit(&mut self, txn: i64, stores: &[(u64, u64, Vec<u8>)]) -> io::Result<Option<u64>> {
        self.serialnos.clear();
        self.client.queue_begin(txn);
        for (oid, serial, data) in stores {
            self.client.queue_store(*oid, *serial, data, txn);
        }
        let vote = self.client.queue_call("vote", vec![Value::Int(txn)]);
        self.asked.insert(vote, Asked::Other);
        self.client.flush()?;
        let mut refused = false;
        while self.asked.contains_key(&vote) {
            match self.client.next()? {
                Incoming::Error { id, class, .. } if id == vote => {
                    assert!(class.contains("ConflictError"), "vote: {class}");
                    self.asked.remove(&vote);
                    refused = true;
                }
                Incoming::Reply { id, value } if id == vote => {
                    self.asked.remove(&vote);
                    drop(value);
                }
                other => self.replay(other),
            }
        }
        // Before Z5 the outcome of each store is told in serialnos, which comes before vote's reply.
        if self.client.speaks == Speaks::Z4 {
            let outcomes = &self.serialnos;
            refused = outcomes.iter().any(|pair| !matches!(pair.tuple()[1], Value::Bytes(_)));
            assert!(refused || outcomes.len() == stores.len(), "serialnos: {outcomes:?}");
        }
        let last_call = if refused { "tpc_abort" } else { "tpc_finish" };
        let end = self.client.queue_call(last_call, vec![Value::Int(txn)]);
        self.asked.insert(end, Asked::Other);
        if !refused {
            self.finishing = Some((end, stores.iter().map(|(oid, _, _)| *oid).collect()));
        }
        self.client.flush()?;
        while self.asked.contains_key(&end) {
            self.receive_one()?;
        }
        Ok((!refused).then(|| self.last.expect("own commit")))
    }

    /// Like `receive_one`, for a message that is here already.
    fn replay(&mut self, message: Incoming) {
        match message {
            Incoming::Push { method, args } if method == "invalidateTransaction" => {
                let oids = args[1].tuple().iter().map(Value::id).collect();
                self.told(args[0].id(), oids, "invalidation");
            }
            Incoming::Push { method, args } if method == "serialnos" => {
                self.serialnos.extend_from_slice(args[0].tuple());
            }
            Incoming::Push { .. } => {}
            other => panic!("unexpected while waiting for a vote: {other:?}"),
        }
    }

    /// Receives until the transaction has been told.
    fn receive_up_to(&mut self, tid: u64) -> io::Result<()> {
        while self.last < Some(tid) {
            self.receive_one()?;
        }
        Ok(())
    }

    fn story(self) -> Story {
        Story { registered_at: self.registered_at, told: self.told, read: self.read, replies: self.replies }
    }
}

struct Story {
    registered_at: Option<u64>,
    told: Vec<(u64, Vec<u64>)>,
    read: HashMap<(u64, u64), Vec<u8>>,
    replies: u64,
}

/// What all threads share.
struct Race {
    address: SocketAddr,
    oids: Vec<u64>,
    stop: AtomicBool,
    /// Acknowledged transactions: tid -> oid -> content
    committed: Mutex<HashMap<u64, HashMap<u64, Vec<u8>>>>,
    commits: AtomicU64,
    conflicts: AtomicU64,
    stories: Mutex<Vec<Story>>,
}

impl Race {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn add(&self, story: Story) {
        self.stories.lock().expect("stories").push(story);
    }

    fn reader(&self, speaks: Speaks, seed: u64) -> io::Result<Watched> {
        let mut dice = Dice(seed);
        let mut watched = Watched::register(self.address, speaks)?;
        while self.goes_on() {
            for _ in 0..=dice.below(16) {
                let oid = self.oids[dice.below(self.oids.len() as u64) as usize];
                let recent = watched.told.len().saturating_sub(dice.below(20) as usize + 1);
                let earlier = watched.told.get(recent).map_or(LATEST, |(tid, _)| *tid);
                match dice.below(12) {
                    0 => watched.ask_last_transaction(),
                    1 if earlier != LATEST => watched.ask_invalidations(earlier),
                    2 | 3 => watched.ask_load_before(oid, earlier),
                    4 => watched.ask_load_before(oid, earlier.saturating_add(1)),
                    _ => watched.ask_load(oid),
                }
            }
            watched.client.flush()?;
            watched.receive_answers()?;
        }
        Ok(watched)
    }

    fn committer(&self, speaks: Speaks, seed: u64) -> io::Result<Watched> {
        let mut dice = Dice(seed);
        let mut watched = Watched::register(self.address, speaks)?;
        let mut txn = 1;
        while self.goes_on() {
            txn += 1;
            let mut chosen: Vec<u64> =
                (0..=dice.below(3)).map(|_| dice.below(self.oids.len() as u64)).collect();
            chosen.sort_unstable();
            chosen.dedup();
            for index in &chosen {
                watched.ask_load(self.oids[*index as usize]);
            }
            watched.client.flush()?;
            watched.receive_answers()?;
            let mut contents = HashMap::new();
            let mut stores = Vec::new();
            for index in chosen {
                let oid = self.oids[index as usize];
                let nonce = format!("{seed} {txn} {}", "x".repeat(dice.below(2000) as usize)).into_bytes();
                stores.push((oid, watched.newest[&oid], record(&nonce)));
                contents.insert(oid, nonce);
            }
            match watched.commit(txn, &stores)? {
                Some(tid) => {
                    self.commits.fetch_add(1, Ordering::Relaxed);
                    let before = self.committed.lock().expect("committed").insert(tid, contents);
                    assert!(before.is_none(), "tid {tid:x} was given twice");
                }
                None => drop(self.conflicts.fetch_add(1, Ordering::Relaxed)),
            }
        }
        Ok(watched)
    }

    /// Comes and goes: registers, asks a little, disconnects.
    fn storm(&self, speaks: Speaks, seed: u64) -> io::Result<u64> {
        let mut dice = Dice(seed);
        let mut visits = 0;
        while self.goes_on() {
            let mut watched = Watched::register(self.address, speaks)?;
            visits += 1;
            if let Some(at) = watched.registered_at {
                watched.ask_invalidations(at);
            }
            for _ in 0..dice.below(6) {
                watched.ask_load(self.oids[dice.below(self.oids.len() as u64) as usize]);
                watched.ask_last_transaction();
            }
            watched.client.flush()?;
            watched.receive_answers()?;
            // Some stay to hear a few transactions; all leave without a word.
            let until = Instant::now() + Duration::from_millis(dice.below(30));
            while Instant::now() < until {
                watched.ask_last_transaction();
                watched.client.flush()?;
                watched.receive_answers()?;
                thread::sleep(Duration::from_millis(1));
            }
            self.add(watched.story());
        }
        Ok(visits)
    }
}

impl Race {
    /// Sends tpc_finish, or only vote, and is gone before the answer: committed or not, it must be whole, and told to
    /// everybody or nobody. It has objects of its own, so that nobody waits for a lock in vain.
    fn vanish(&self, speaks: Speaks, seed: u64, oids: &[u64]) -> io::Result<u64> {
        let mut dice = Dice(seed);
        let mut vanished = 0;
        while self.goes_on() {
            let mut watched = Watched::register(self.address, speaks)?;
            for oid in oids {
                watched.ask_load(*oid);
            }
            watched.client.flush()?;
            watched.receive_answers()?;
            let data = record(format!("vanished {seed} {vanished}").as_bytes());
            watched.client.queue_begin(1);
            for oid in oids {
                watched.client.queue_store(*oid, watched.newest[oid], &data, 1);
            }
            let vote = watched.client.queue_call("vote", vec![Value::Int(1)]);
            if dice.below(4) > 0 {
                watched.client.flush()?;
                // A conflict with its own predecessor, whose commit was still under way, is fine too.
                let _ = watched.client.answer(vote)?;
                watched.client.queue_call("tpc_finish", vec![Value::Int(1)]);
            }
            watched.client.flush()?;
            if dice.below(3) == 0 {
                thread::sleep(Duration::from_micros(dice.below(3000)));
            }
            vanished += 1;
        }
        Ok(vanished)
    }
}

fn seed() -> u64 {
    let given = std::env::var("RUNZEO_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock");
        now.as_nanos() as u64 | 1
    });
    println!("RUNZEO_TEST_SEED={seed}");
    seed
}

fn race(kinds: &[Speaks]) {
    let mut server = Server::start();
    let seed = seed();
    let (mut first, _) = RawClient::register(server.address, Speaks::Z5).expect("connect");
    let mut oids = first.new_oids(12).expect("oids");
    let start = record(b"start");
    let stores: Vec<_> = oids.iter().map(|oid| (*oid, 0, start.as_slice())).collect();
    let first_tid = first.commit(&stores).expect("commit").expect("no conflict");
    drop(first);

    // Committed to by those who do not wait for the answer.
    let own = oids.split_off(8);
    let start_contents = oids.iter().chain(&own).map(|oid| (*oid, b"start".to_vec())).collect();
    let race = Arc::new(Race {
        address: server.address,
        oids,
        stop: AtomicBool::new(false),
        committed: Mutex::new(HashMap::from([(first_tid, start_contents)])),
        commits: AtomicU64::new(0),
        conflicts: AtomicU64::new(0),
        stories: Mutex::new(Vec::new()),
    });
    let kind = |n: usize| kinds[n % kinds.len()];
    let mut stay = Vec::new();
    let mut come_and_go = Vec::new();
    for n in 0..4 {
        let race = race.clone();
        let kind = kind(n);
        stay.push(thread::spawn(move || race.reader(kind, seed ^ (n as u64 + 1) << 20)));
    }
    for n in 0..4 {
        let race = race.clone();
        let kind = kind(n);
        stay.push(thread::spawn(move || race.committer(kind, seed ^ (n as u64 + 11) << 20)));
    }
    for n in 0..2 {
        let race = race.clone();
        let kind = kind(n);
        let oids = own[2 * n..2 * n + 2].to_vec();
        come_and_go.push(thread::spawn(move || race.vanish(kind, seed ^ ((n as u64 + 31) << 20), &oids)));
    }
    for n in 0..2 {
        let race = race.clone();
        let kind = kind(n);
        come_and_go.push(thread::spawn(move || race.storm(kind, seed ^ (n as u64 + 21) << 20)));
    }
    let until = Instant::now() + test_seconds(3);
    while Instant::now() < until && stay.iter().all(|t| !t.is_finished()) {
        thread::sleep(Duration::from_millis(20));
    }
    race.stop.store(true, Ordering::Relaxed);
    let mut failures = Vec::new();
    let mut visits = 0;
    for thread in come_and_go {
        match thread.join() {
            Ok(Ok(count)) => visits += count,
            Ok(Err(error)) => failures.push(format!("a coming and going connection: {error}")),
            Err(_) => failures.push("a coming and going connection panicked".into()),
        }
    }
    let mut staying = Vec::new();
    for thread in stay {
        match thread.join() {
            Ok(Ok(watched)) => staying.push(watched),
            Ok(Err(error)) => failures.push(format!("a connection: {error}")),
            Err(_) => failures.push("a connection panicked".into()),
        }
    }
    assert!(failures.is_empty(), "seed {seed}: {failures:?}\n{}", server.talk());

    let committed = std::mem::take(&mut *race.committed.lock().expect("committed"));
    let newest = settled_last_transaction(server.address);
    for mut watched in staying {
        watched.client.set_read_timeout(Duration::from_secs(60));
        watched.receive_up_to(newest).expect("the rest of the invalidations");
        let (told_to, last) = (watched.told.last().map(|(tid, _)| *tid), watched.last);
        assert!(last == Some(newest), "told up to {told_to:x?}, committed {newest:x}");
        race.add(watched.story());
    }
    let stories = std::mem::take(&mut *race.stories.lock().expect("stories"));
    let replies: u64 = stories.iter().map(|story| story.replies).sum();
    check_stories(committed, stories);
    println!(
        "{} commits, {} conflicts, {replies} checked replies, {visits} visits",
        race.commits.load(Ordering::Relaxed),
        race.conflicts.load(Ordering::Relaxed)
    );
    assert!(race.commits.load(Ordering::Relaxed) > 0 && visits > 0);
    assert!(server.stop().success());
}

/// The last transaction, once those who vanished have been dealt with.
fn settled_last_transaction(address: SocketAddr) -> u64 {
    let (mut client, _) = RawClient::register(address, Speaks::Z5).expect("connect");
    let mut last = 0;
    let mut same_since = Instant::now();
    while same_since.elapsed() < Duration::from_millis(500) {
        let tid = client.call("lastTransaction", vec![]).expect("connection").expect("lastTransaction").id();
        if tid != last {
            (last, same_since) = (tid, Instant::now());
        }
        thread::sleep(Duration::from_millis(20));
    }
    last
}

/// Every story is an unbroken part of what was committed, and every content is what was stored.
fn check_stories(committed: HashMap<u64, HashMap<u64, Vec<u8>>>, stories: Vec<Story>) {
    // Some commits were never acknowledged: of those only the invalidations are known, alike for all who got them.
    let mut changed: BTreeMap<u64, Vec<u64>> =
        committed.iter().map(|(tid, contents)| (*tid, sorted(contents.keys()))).collect();
    for (tid, oids) in stories.iter().flat_map(|story| &story.told) {
        let oids = sorted(oids);
        assert_eq!(*changed.entry(*tid).or_insert_with(|| oids.clone()), oids, "objects of {tid:x}");
    }
    for story in stories {
        let begin = story.registered_at.or(story.told.first().map(|(tid, _)| tid - 1)).unwrap_or(0);
        for ((told, _), (tid, _)) in story.told.iter().zip(changed.range(begin + 1..)) {
            assert_eq!(told, tid, "registered at {begin:x}: told {told:x}, but {tid:x} was committed next");
        }
        for ((oid, tid), found) in story.read {
            assert!(
                changed.get(&tid).is_some_and(|oids| oids.contains(&oid)),
                "{oid} as of {tid:x}: never told"
            );
            if let Some(contents) = committed.get(&tid) {
                assert_eq!(Some(&found), contents.get(&oid), "content of {oid} as of {tid:x}");
            }
        }
    }
}

fn sorted<'a>(oids: impl IntoIterator<Item = &'a u64>) -> Vec<u64> {
    let mut oids: Vec<u64> = oids.into_iter().copied().collect();
    oids.sort_unstable();
    oids
}

#[test]
fn race_of_new_clients() {
    race(&[Speaks::Z5]);
}

#[test]
fn race_of_old_and_new_clients() {
    race(&[Speaks::Z5, Speaks::Z4]);
}

fn two_objects(server: &Server) -> (Vec<u64>, u64) {
    let (mut client, _) = RawClient::register(server.address, Speaks::Z5).expect("connect");
    let oids = client.new_oids(2).expect("oids");
    let data = record(b"start");
    let tid =
        client.commit(&[(oids[0], 0, &data), (oids[1], 0, &data)]).expect("connection").expect("commit");
    (oids, tid)
}

/// R6: a client in the middle of its own commit hears of the others'.
#[test]
fn invalidations_reach_a_client_that_has_voted() {
    let server = Server::start();
    let (oids, tid) = two_objects(&server);
    let (mut voted, _) = RawClient::register(server.address, Speaks::Z5).expect("connect");
    let (mut other, _) = RawClient::register(server.address, Speaks::Z5).expect("connect");
    let data = record(b"new");
    voted.queue_begin(1);
    voted.queue_store(oids[0], tid, &data, 1);
    voted.call("vote", vec![Value::Int(1)]).expect("connection").expect("vote");
    let committed = other.commit(&[(oids[1], tid, &data)]).expect("connection").expect("commit");
    voted.set_read_timeout(Duration::from_secs(60));
    expect_invalidation(&mut voted, committed, oids[1]);
    let finished = voted.call("tpc_finish", vec![Value::Int(1)]).expect("connection").expect("finish").id();
    assert!(finished > committed);
    other.set_read_timeout(Duration::from_secs(60));
    expect_invalidation(&mut other, finished, oids[0]);
}

/// R6: and so does one whose vote waits for a lock.
#[test]
fn invalidations_reach_a_client_that_waits_for_its_vote() {
    let server = Server::start();
    let (oids, tid) = two_objects(&server);
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(RawClient::register(server.address, Speaks::Z5).expect("connect").0);
    }
    let [holder, waiter, other] = &mut clients[..] else { unreachable!() };
    let data = record(b"new");
    holder.queue_begin(1);
    holder.queue_store(oids[0], tid, &data, 1);
    holder.call("vote", vec![Value::Int(1)]).expect("connection").expect("vote");
    waiter.queue_begin(2);
    waiter.queue_store(oids[0], tid, &data, 2);
    let vote = waiter.queue_call("vote", vec![Value::Int(2)]);
    waiter.flush().expect("send");
    thread::sleep(Duration::from_millis(50));
    let committed = other.commit(&[(oids[1], tid, &data)]).expect("connection").expect("commit");
    waiter.set_read_timeout(Duration::from_secs(60));
    expect_invalidation(waiter, committed, oids[1]);
    let finished = holder.call("tpc_finish", vec![Value::Int(1)]).expect("connection").expect("finish").id();
    // The invalidation stands before the conflict that it explains.
    expect_invalidation(waiter, finished, oids[0]);
    let error = waiter.answer(vote).expect("connection").expect_err("a conflict");
    assert!(error.0.contains("ConflictError"), "{error:?}");
}

/// A client with several threads goes on loading over the connection whose vote waits.
#[test]
fn a_waiting_vote_does_not_hold_up_loads_of_the_same_client() {
    for speaks in [Speaks::Z5, Speaks::Z4] {
        let server = Server::start();
        let (oids, tid) = two_objects(&server);
        let (mut holder, _) = RawClient::register(server.address, speaks).expect("connect");
        let (mut waiter, _) = RawClient::register(server.address, speaks).expect("connect");
        let data = record(b"new");
        for (client, txn) in [(&mut holder, 1), (&mut waiter, 2)] {
            client.queue_begin(txn);
            client.queue_store(oids[0], tid, &data, txn);
        }
        holder.call("vote", vec![Value::Int(1)]).expect("connection").expect("vote");
        let vote = waiter.queue_call("vote", vec![Value::Int(2)]);
        let loads = [waiter.queue_load(oids[0]), waiter.queue_load(oids[1])];
        let ping = waiter.queue_call("lastTransaction", vec![]);
        waiter.flush().expect("send");
        waiter.set_read_timeout(Duration::from_secs(60));
        for load in loads {
            let loaded = waiter.answer(load).expect("an answer in time").expect("load");
            assert_eq!(loaded.tuple()[1].id(), tid);
        }
        assert_eq!(waiter.answer(ping).expect("an answer in time").expect("lastTransaction").id(), tid);
        holder.call("tpc_abort", vec![Value::Int(1)]).expect("connection").expect("abort");
        waiter.answer(vote).expect("the vote's answer").expect("vote");
        let finished =
            waiter.call("tpc_finish", vec![Value::Int(2)]).expect("connection").expect("finish").id();
        assert!(finished > tid);
    }
}

/// Nothing that was committed before a stop is forgotten, and tids go on growing after it.
#[test]
fn a_burst_of_finishes_from_one_client_after_another() {
    let server = Server::start();
    let (oids, mut tid) = two_objects(&server);
    let mut clients = Vec::new();
    for n in 0..6 {
        let speaks = if n % 2 == 0 { Speaks::Z5 } else { Speaks::Z4 };
        clients.push(RawClient::register(server.address, speaks).expect("connect").0);
    }
    // The same object through all of them in turn: each must see the one before at once.
    for round in 0..20 {
        for client in &mut clients {
            let load = client.queue_load(oids[0]);
            client.flush().expect("send");
            let loaded = client.answer(load).expect("connection").expect("load");
            assert_eq!(loaded.tuple()[1].id(), tid, "round {round}");
            let data = record(format!("{round}").as_bytes());
            let new = client.commit(&[(oids[0], tid, &data)]).expect("connection").expect("no conflict");
            assert!(new > tid);
            tid = new;
        }
    }
}

fn expect_invalidation(client: &mut RawClient, tid: u64, oid: u64) {
    match client.next().expect("an invalidation in time") {
        Incoming::Push { method, args } if method == "invalidateTransaction" => {
            assert_eq!((args[0].id(), args[1].tuple()[0].id()), (tid, oid));
        }
        Incoming::Push { method, .. } if method == "info" => expect_invalidation(client, tid, oid),
        other => panic!("wanted an invalidation: {other:?}"),
    }
}

/// A load that waits behind a slow client's own large replies still shows the state of its place in the stream.
#[test]
fn replies_and_invalidations_keep_their_order_for_a_slow_reader() {
    let server = Server::start();
    let (mut writer, _) = RawClient::register(server.address, Speaks::Z5).expect("connect");
    let oids = writer.new_oids(2).expect("oids");
    let large = record(&vec![b'x'; 1_000_000]);
    let small = record(b"0");
    let mut tid =
        writer.commit(&[(oids[0], 0, &large), (oids[1], 0, &small)]).expect("connection").expect("commit");
    let mut slow = Watched::register(server.address, Speaks::Z5).expect("connect");
    // More than any socket buffer: the server cannot send it all while we do not read.
    for _ in 0..30 {
        slow.ask_load(oids[0]);
        slow.ask_load(oids[1]);
        slow.ask_last_transaction();
    }
    slow.client.flush().expect("send");
    for n in 1..=20 {
        let data = record(format!("{n}").as_bytes());
        tid = writer.commit(&[(oids[1], tid, &data)]).expect("connection").expect("commit");
    }
    thread::sleep(Duration::from_millis(200));
    slow.receive_answers().expect("all answers");
    slow.receive_up_to(tid).expect("all invalidations");
    assert_eq!(slow.told.len(), 20);
}

/// A client that does not wait for its answers had its next vote ask for locks while those of the transaction before
/// were still in the table: a missing answer, or an object that stayed locked. Now its next tpc_begin waits for the
/// finish.
#[test]
fn transactions_one_behind_the_other_without_waiting_for_answers() {
    let server = Server::start();
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let address = server.address;
            thread::spawn(move || {
                let (mut client, _) = RawClient::register(address, Speaks::Z5).expect("register");
                for round in 0..20 {
                    let oids = client.new_oids(10).expect("oids");
                    let finishes: Vec<i64> = oids
                        .iter()
                        .enumerate()
                        .map(|(n, oid)| {
                            let txn = round * 100 + n as i64;
                            client.queue_begin(txn);
                            client.queue_store(*oid, 0, &record(b"x"), txn);
                            client.queue_call("vote", vec![Value::Int(txn)]);
                            client.queue_call("tpc_finish", vec![Value::Int(txn)])
                        })
                        .collect();
                    client.flush().expect("send");
                    let tids: Vec<u64> = finishes
                        .into_iter()
                        .map(|finish| client.answer(finish).expect("connection").expect("finish").id())
                        .collect();
                    assert!(tids.is_sorted(), "{tids:?}");
                    // Nothing stayed locked.
                    for (oid, tid) in oids.iter().zip(tids) {
                        client.commit(&[(*oid, tid, &record(b"y"))]).expect("connection").expect("commit");
                    }
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().expect("a client failed"));
}
