//! The order of a client's messages (rules R1 to R6 of docs/architecture.md), checked on the wire.
//!
//! Many connections load, commit, verify, connect and disconnect at once. Each one checks every message against its
//! earlier ones: a reply may show only transactions whose invalidation was sent before it, and must show all of those.
//! At the end every connection must have had exactly the invalidations of the transactions that were committed while it
//! was registered, in order. `RUNZEO_TEST_SECONDS` sets the duration (seconds in CI, minutes by hand).

mod one_by_one;

mod watched;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use crate::support::client::{Incoming, LATEST, RawClient, Speaks, record};
use crate::support::pickle::Value;
use crate::support::process::{Server, test_seconds};
use watched::{Dice, Story, Watched};

/// The state that all threads share.
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

    /// Commits the objects. Returns also those of the clients that do not wait for answers.
    fn new(address: SocketAddr) -> (Race, Vec<u64>) {
        let (mut first, _) = RawClient::register(address, Speaks::Z5).expect("connect");
        let mut oids = first.new_oids(12).expect("oids");
        let start = record(b"start");
        let stores: Vec<_> = oids.iter().map(|oid| (*oid, 0, start.as_slice())).collect();
        let first_tid = first.commit(&stores).expect("commit").expect("no conflict");
        let own = oids.split_off(8);
        let start_contents = oids.iter().chain(&own).map(|oid| (*oid, b"start".to_vec())).collect();
        let race = Race {
            address,
            oids,
            stop: AtomicBool::new(false),
            committed: Mutex::new(HashMap::from([(first_tid, start_contents)])),
            commits: AtomicU64::new(0),
            conflicts: AtomicU64::new(0),
            stories: Mutex::new(Vec::new()),
        };
        (race, own)
    }

    /// Runs clients of all kinds. Returns the connections that stayed, and the number of those that did not; or what
    /// failed.
    fn run(&self, kinds: &[Speaks], seed: u64, own: &[u64]) -> Result<(Vec<Watched>, u64), Vec<String>> {
        let kind = |n: u64| kinds[n as usize % kinds.len()];
        thread::scope(|scope| {
            let mut stay = Vec::new();
            let mut come_and_go = Vec::new();
            for n in 0..4 {
                let kind = kind(n);
                stay.push(scope.spawn(move || self.reader(kind, seed ^ (n + 1) << 20)));
                stay.push(scope.spawn(move || self.committer(kind, seed ^ (n + 11) << 20)));
            }
            for (n, oids) in (0..2).zip(own.chunks(2)) {
                let kind = kind(n);
                come_and_go.push(scope.spawn(move || self.vanish(kind, seed ^ ((n + 31) << 20), oids)));
                come_and_go.push(scope.spawn(move || self.storm(kind, seed ^ (n + 21) << 20)));
            }
            let until = Instant::now() + test_seconds(3);
            while Instant::now() < until && stay.iter().all(|t| !t.is_finished()) {
                thread::sleep(Duration::from_millis(20));
            }
            self.stop.store(true, Ordering::Relaxed);
            let mut failures = Vec::new();
            let visits = joined(come_and_go, "a coming and going connection", &mut failures);
            let staying = joined(stay, "a connection", &mut failures);
            if failures.is_empty() { Ok((staying, visits.iter().sum())) } else { Err(failures) }
        })
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

    /// Registers, makes a few calls, and disconnects, repeatedly.
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
            // Some stay for a few transactions; all disconnect without notice.
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
    /// Sends tpc_finish, or only vote, and disconnects before the answer: the transaction must be complete, and sent to
    /// all or none, whether it is committed or not. It has objects of its own, so that no other client waits for its
    /// locks.
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
    let (race, own) = Race::new(server.address);
    let (staying, visits) = race.run(kinds, seed, &own).unwrap_or_else(|failures| {
        panic!("seed {seed}: {failures:?}\n{}", server.talk());
    });
    let newest = settled_last_transaction(server.address);
    for mut watched in staying {
        watched.client.set_read_timeout(Duration::from_secs(60));
        watched.receive_up_to(newest).expect("the rest of the invalidations");
        let (told_to, last) = (watched.told.last().map(|(tid, _)| *tid), watched.last);
        assert!(last == Some(newest), "told up to {told_to:x?}, committed {newest:x}");
        race.add(watched.story());
    }
    let committed = race.committed.into_inner().expect("committed");
    let stories = race.stories.into_inner().expect("stories");
    let (commits, conflicts) = (race.commits.into_inner(), race.conflicts.into_inner());
    let replies: u64 = stories.iter().map(|story| story.replies).sum();
    check_stories(committed, stories);
    println!("{commits} commits, {conflicts} conflicts, {replies} checked replies, {visits} visits");
    assert!(commits > 0 && visits > 0);
    assert!(server.stop().success());
}

/// The results of threads; errors and panics are added to `failures`.
fn joined<T>(
    threads: Vec<ScopedJoinHandle<'_, io::Result<T>>>,
    what: &str,
    failures: &mut Vec<String>,
) -> Vec<T> {
    let mut results = Vec::new();
    for thread in threads {
        match thread.join() {
            Ok(Ok(result)) => results.push(result),
            Ok(Err(error)) => failures.push(format!("{what}: {error}")),
            Err(_) => failures.push(format!("{what} panicked")),
        }
    }
    results
}

/// The last transaction, after the server has handled the disconnected clients.
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

/// Each connection's events are a gapless part of the committed transactions, and every content was stored so.
fn check_stories(committed: HashMap<u64, HashMap<u64, Vec<u8>>>, stories: Vec<Story>) {
    // Some commits were not acknowledged: only their invalidations are known, which must be the same everywhere.
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
