//! Parallel commits, checked from outside: many clients act at random, and one serial order of transactions must
//! explain everything that each of them saw.
//!
//! Clients of six generations connect and leave, read, check serials, undo, and end their transactions in every way:
//! finish, abort, disconnect in any state. Packs run beside. The events are checked afterwards (`check`), for every
//! kind of storage. The seed determines the choices of the clients, but not the timing of their threads.
//! `RUNZEO_TEST_SECONDS` sets the duration, in rounds, `RUNZEO_TEST_SEED` the first seed.

#[path = "../support/mod.rs"]
mod support;

mod check;
mod database;
mod driver;
mod ending;

use std::collections::BTreeMap;
use std::env;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::support::client::{RawClient, Speaks};
use crate::support::dice::Dice;
use crate::support::pickle::Value;
use crate::support::process::{Server, test_seconds};
use check::{History, Oid, Summary, Tid, Value as Written};
use database::{Record, first_records};
use driver::{Driver, Race};
use runzeo::storage::file::{FileStorage, FileStorageOptions};
use runzeo::storage::prelude::*;

/// Clients at a time.
const CLIENTS: u64 = 10;
const HOT: u64 = 4;
/// Number of cold objects; half of them exist at the beginning.
const COLD: u64 = 60;
/// Older revisions may be packed away.
const PACK_AGE: Duration = Duration::from_millis(300);
const TIMEOUT: Duration = Duration::from_secs(2);

/// A storage that takes commits.
struct Kind {
    name: &'static str,
    /// Its section of the configuration.
    section: &'static str,
    has_base: bool,
    can_undo: bool,
    can_pack: bool,
    has_log: bool,
}

const KINDS: [Kind; 6] = [
    Kind {
        name: "file",
        section: "<filestorage 1>\npath Data.fs\n</filestorage>",
        has_base: false,
        can_undo: true,
        can_pack: true,
        has_log: true,
    },
    Kind {
        name: "mapping",
        section: "<mappingstorage 1>\n</mappingstorage>",
        has_base: false,
        can_undo: false,
        can_pack: true,
        has_log: true,
    },
    Kind {
        name: "demo over file",
        section: "<demostorage 1>\n<filestorage base>\npath base.fs\nread-only true\n</filestorage>\n\
                  <filestorage changes>\npath changes.fs\n</filestorage>\n</demostorage>",
        has_base: true,
        can_undo: false,
        can_pack: false,
        has_log: true,
    },
    Kind {
        name: "demo in memory over file",
        section: "<demostorage 1>\n<filestorage base>\npath base.fs\nread-only true\n</filestorage>\n\
                  <mappingstorage changes>\n</mappingstorage>\n</demostorage>",
        has_base: true,
        can_undo: false,
        can_pack: false,
        has_log: true,
    },
    Kind {
        name: "zlib",
        section: "%import zc.zlibstorage\n<zlibstorage 1>\n<filestorage>\npath Data.fs\n</filestorage>\n</zlibstorage>",
        has_base: false,
        can_undo: true,
        can_pack: true,
        has_log: true,
    },
    Kind {
        name: "temporary",
        section: "%import tempstorage\n<temporarystorage 1>\n</temporarystorage>",
        has_base: false,
        can_undo: false,
        can_pack: false,
        has_log: false,
    },
];

/// Makes a file with the first transaction.
fn make_base(directory: &Path, records: &[Record]) {
    let storage = FileStorage::open(FileStorageOptions::new(directory.join("base.fs"))).expect("base.fs");
    let mut staged = runzeo::storage::Staged::new(Default::default(), None, b' ', 1 << 20);
    for (oid, data) in records {
        staged.store(runzeo::ids::Oid(*oid), runzeo::ids::Tid::ZERO, data).expect("stage");
    }
    let voted = storage.vote(staged, runzeo::storage::TidAt::Finish).expect("vote");
    storage.finish(voted, Box::new(()));
    storage.close().expect("close");
}

/// Runs clients and packs for this time, and checks what they saw.
fn history_of(kind: &Kind, seed: u64, lasting: Duration) -> Summary {
    let oids: Vec<Oid> = (1..=HOT + COLD + CLIENTS).collect();
    let (mut server, start) = start(kind, &oids);
    let race = Race::new(
        oids[..HOT as usize].to_vec(),
        oids[HOT as usize..(HOT + COLD) as usize].to_vec(),
        kind.can_undo,
    );
    let (packed, failures) = run_clients(kind, seed, lasting, &race, server.address);
    assert!(failures.is_empty(), "{}, seed {seed}: {failures:?}\n{}", kind.name, server.talk());

    let (mut last, _) = RawClient::register(server.address, Speaks::Z5).expect("connect");
    let end = oids.iter().filter_map(|oid| Some((*oid, ending::current(&mut last, *oid)?))).collect();
    let log = kind.has_log.then(|| ending::log(&mut last).expect("the log"));
    let timeouts = race.timeouts.load(Ordering::Relaxed);
    let history = History {
        start,
        attempts: race.attempts.into_inner().expect("attempts"),
        connections: race.connections.into_inner().expect("connections"),
        log: log.clone(),
        end,
        packed,
        forgets: !kind.has_log,
        ..History::default()
    };
    let summary = check::check(&history)
        .unwrap_or_else(|error| panic!("{}, seed {seed}: {error}\n{}", kind.name, server.talk()));
    check_timeouts(kind, seed, timeouts, &server);
    // The file of a killed server has the same content.
    if kind.section.starts_with("<filestorage") {
        server.kill();
        let found = ending::log_of_file(&server.directory().join("Data.fs"));
        assert_eq!(Some(found), log, "seed {seed}: the log after a kill");
    } else {
        assert!(server.stop().success(), "{}", server.talk());
    }
    println!("{}, seed {seed}: {summary:?}, {timeouts} timeouts", kind.name);
    summary
}

/// A server with the first transaction: its tid and values.
fn start(kind: &Kind, oids: &[Oid]) -> (Server, (Tid, BTreeMap<Oid, Written>)) {
    let there: Vec<Oid> = oids.iter().copied().filter(|oid| *oid <= HOT || oid % 2 == 0).collect();
    let (records, values) = first_records(oids, &there);
    let zeo = format!("transaction-timeout {}\ninvalidation-queue-size 1000", TIMEOUT.as_secs());
    let server = Server::start_any(&zeo, kind.section, |directory| {
        if kind.has_base {
            make_base(directory, &records);
        }
    });
    let (mut first, last) = RawClient::register(server.address, Speaks::Z5).expect("connect");
    let tid = if kind.has_base {
        last.expect("the tid of the base")
    } else {
        let stores: Vec<_> = records.iter().map(|(oid, data)| (*oid, 0, &data[..])).collect();
        first
            .commit(&stores)
            .unwrap_or_else(|error| panic!("{}: {error}\n{}", kind.name, server.talk()))
            .expect("the first transaction")
    };
    (server, (tid, values))
}

/// Returns the time of the last pack, and the failures of clients.
fn run_clients(
    kind: &Kind,
    seed: u64,
    lasting: Duration,
    race: &Race,
    address: SocketAddr,
) -> (Tid, Vec<String>) {
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let mark = HOT + COLD + 1 + number;
                scope.spawn(move || visits(race, address, Dice::new(seed, number), mark))
            })
            .collect();
        let mut packed = 0;
        let until = Instant::now() + lasting;
        while Instant::now() < until && clients.iter().all(|client| !client.is_finished()) {
            if kind.can_pack {
                packed = pack(address).unwrap_or(packed);
            }
            thread::sleep(Duration::from_millis(200));
        }
        race.stop.store(true, Ordering::Relaxed);
        let ends = clients.into_iter().map(|client| match client.join() {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("a connection: {error}")),
            Err(_) => Some("a client panicked".into()),
        });
        (packed, ends.flatten().collect())
    })
}

/// Each client that was cut off has its line in the server's log.
fn check_timeouts(kind: &Kind, seed: u64, timeouts: u64, server: &Server) {
    let logged = server.log().matches("Transaction timeout after").count() as u64;
    assert!(
        timeouts <= logged,
        "{}, seed {seed}: {timeouts} clients were cut off\n{}",
        kind.name,
        server.talk()
    );
}

/// One client after another, of any generation, until the race is over; then the last one's events are completed.
fn visits(race: &Race, address: SocketAddr, mut dice: Dice, mark: Oid) -> io::Result<()> {
    while race.goes_on() {
        let speaks = dice.of(&[Speaks::Z5, Speaks::Z5, Speaks::Z5, Speaks::M5, Speaks::M5, Speaks::Z4]);
        let speaks = if dice.one_in(8) { dice.of(&Speaks::ALL) } else { speaks };
        let steps = 5 + dice.below(120);
        let mut driver = Driver::register(race, ("the server", address), speaks, dice, mark)?;
        let ended = driver.run(steps);
        dice = driver.hand_in();
        match ended {
            Ok(()) => {}
            // On a busy machine a client may be too slow unintentionally; the server's log must say so.
            Err(error) if is_cut_off(&error) => {
                race.timeouts.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_cut_off(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

/// Packs; returns the pack time. `None` if the server refuses.
fn pack(address: SocketAddr) -> Option<Tid> {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time") - PACK_AGE;
    let (mut client, _) = RawClient::register(address, Speaks::Z5).expect("connect");
    let args = vec![Value::Float(time.as_secs_f64()), Value::Bool(true)];
    client.call("pack", args).expect("connection").ok()?;
    Some(runzeo::ids::Tid::from_unix(time.as_secs_f64()).0)
}

#[test]
fn one_order_explains_what_every_client_saw() {
    let seed = env::var("RUNZEO_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let lasting = test_seconds(12);
    let until = Instant::now() + lasting;
    let round = (lasting / KINDS.len() as u32).clamp(Duration::from_millis(500), Duration::from_secs(8));
    let mut rounds = seed..;
    let mut commits = 0;
    while let Some(seed) = rounds.next() {
        for kind in &KINDS {
            let summary = history_of(kind, seed, round);
            assert!(summary.commits > 0 && summary.reads > 0, "{}: nothing was done", kind.name);
            commits += summary.commits;
        }
        if Instant::now() >= until {
            println!("{commits} commits, seeds {seed}..{}", rounds.start);
            return;
        }
    }
}
