//! Servers in a chain, checked from outside: clients of a root, of a middle before it, and of a middle before that one,
//! while servers are killed, lines are cut at any byte, and older copies of the root's file are put back.
//!
//! The clients are raw ones of six generations (`../history/driver`) and those of the library, with and without a
//! cache of their last run. All that each of them saw, what the caches hold at the end, and what they held when their
//! servers were killed, must be explained by the root's file (`timelines.rs`). The seed determines the events and the
//! choices of the clients, but not the timing of their threads. `RUNZEO_TEST_SECONDS` sets the duration, in rounds,
//! `RUNZEO_TEST_SEED` the first seed.

#[path = "../support/mod.rs"]
mod support;

#[allow(dead_code)]
#[path = "../history/check/mod.rs"]
mod check;
#[path = "../history/database.rs"]
mod database;
#[path = "../history/driver/mod.rs"]
mod driver;
#[allow(dead_code)]
#[path = "../history/ending.rs"]
mod ending;
mod library;
mod line;
mod plan;
#[allow(dead_code)]
#[path = "../client/servers.rs"]
mod servers;
mod site;
mod timelines;

use std::env;
use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use check::{History, Oid};
use driver::{Driver, Race, now};
use library::{Beat, Place, Visit};
use plan::Plan;
use site::Site;
use support::client::Speaks;
use support::dice::Dice;
use support::process::test_seconds;
use timelines::{Counts, Facts};

/// Raw clients of the root, of the middle, of the one behind it, and of the one that only reads.
const RAW: [u64; 4] = [2, 4, 3, 1];
/// Clients of the library, at the root, the middle and the one behind it.
const LIBRARY: [u64; 3] = [1, 3, 2];
/// No call waits for longer.
const WAIT_MAX: Duration = Duration::from_secs(90);

/// Runs clients and events for this time, and checks what they saw.
fn round(root: &str, seed: u64, lasting: Duration) -> Counts {
    println!("{root}, seed {seed}");
    let mut dice = Dice::new(seed, 0);
    let mut site = Site::start(root, &mut dice);
    let race = Race::new(site.hot.clone(), site.cold.clone(), true);
    let visits = Mutex::new(Vec::new());
    let mut plan = Plan::new(Dice::new(seed, 1));
    run(&mut site, &race, seed, lasting, &mut plan, &visits);
    plan.end(&mut site, &race);
    let mut facts = Facts {
        history: History {
            start: site.start.clone(),
            attempts: race.attempts.into_inner().expect("attempts"),
            connections: race.connections.into_inner().expect("connections"),
            packed: plan.packed,
            ..History::default()
        },
        epochs: plan.epochs,
        visits: visits.into_inner().expect("visits"),
        caches: plan.caches,
        story: plan.story,
    };
    let counts = timelines::check(&mut facts)
        .unwrap_or_else(|error| panic!("{root}, seed {seed}: {error}\n{}", site.talk()));
    assert!(plan.differing.is_empty(), "{root}, seed {seed}: {:#?}\n{}", plan.differing, site.talk());
    println!("  {counts:?}");
    counts
}

/// All clients, with the events beside them. Ends the program if a call does not return.
fn run(
    site: &mut Site,
    race: &Race,
    seed: u64,
    lasting: Duration,
    plan: &mut Plan,
    visits: &Mutex<Vec<Visit>>,
) {
    let places = site.library_places(LIBRARY);
    let beats: Vec<Beat> = places.iter().map(|_| Beat::default()).collect();
    thread::scope(|scope| {
        let mut clients = Vec::new();
        let mut mark = site.first_mark;
        for ((name, addresses), count) in site.raw_addresses().into_iter().zip(RAW) {
            for number in 0..count {
                let Some(address) = addresses.get(number as usize % addresses.len().max(1)).copied() else {
                    continue;
                };
                let dice = Dice::new(seed, mark);
                clients.push(scope.spawn(move || raw_visits(race, name, address, dice, mark)));
                mark += 1;
            }
        }
        for (place, beat) in places.iter().zip(&beats) {
            let dice = Dice::new(seed, mark);
            clients.push(scope.spawn(move || library::visits(race, place, dice, mark, beat, visits)));
            mark += 1;
        }
        let until = Instant::now() + lasting;
        while Instant::now() < until && clients.iter().all(|client| !client.is_finished()) {
            plan.step(site, race);
            look_for_waits(&places, &beats, site);
        }
        race.stop.store(true, Ordering::Relaxed);
        site.open_lines();
        while clients.iter().any(|client| !client.is_finished()) {
            look_for_waits(&places, &beats, site);
            thread::sleep(Duration::from_millis(10));
        }
        let failed = clients.into_iter().filter_map(|client| client.join().err()).count();
        assert_eq!(failed, 0, "clients that panicked, seed {seed}\n{}", site.talk());
    });
}

fn look_for_waits(places: &[Place], beats: &[Beat], site: &Site) {
    let second = (1u64 << 32) / 60;
    for (place, beat) in places.iter().zip(beats) {
        let waits = beat.since().map_or(0, |since| now().saturating_sub(since) / second);
        if waits > WAIT_MAX.as_secs() {
            println!("a call of {} waits for {waits} s\n{}", place.label, site.talk());
            std::process::exit(1);
        }
    }
}

/// One raw client after another, of any generation.
fn raw_visits(race: &Race, name: &str, address: SocketAddr, mut dice: Dice, mark: Oid) {
    use Speaks::{M5, Z4, Z5};
    while race.goes_on() {
        let speaks = dice.of(&[Z5, Z5, Z5, M5, M5, Z4]);
        let speaks = if dice.one_in(6) { dice.of(&Speaks::ALL) } else { speaks };
        let steps = 5 + dice.below(200);
        let begun = Instant::now();
        let next = Dice::new(dice.below(1 << 40), mark);
        match Driver::register(race, (name, address), speaks, dice, mark) {
            Ok(mut driver) => {
                let ended = driver.run(steps);
                dice = driver.hand_in();
                ended.unwrap_or_else(|error| check_end(name, &error, begun));
            }
            Err(error) => {
                check_end(name, &error, begun);
                dice = next;
                thread::sleep(Duration::from_millis(10 + dice.below(30)));
            }
        }
    }
}

/// A connection may end at any time, but no call waits without end.
fn check_end(name: &str, error: &io::Error, begun: Instant) {
    let late = [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut];
    assert!(
        !late.contains(&error.kind()),
        "a call at {name} does not return; connected {:?} ago",
        begun.elapsed()
    );
}

/// Rounds with this root, until the time is over.
fn rounds(roots: &[&str], lasting: Duration) {
    let mut seed = env::var("RUNZEO_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let until = Instant::now() + lasting;
    let each = (lasting / roots.len() as u32).clamp(Duration::from_secs(1), Duration::from_secs(12));
    loop {
        for root in roots {
            let counts = round(root, seed, each);
            assert!(counts.history.reads > 0 && counts.views > 0, "{root}: nothing was done");
        }
        seed += 1;
        if Instant::now() >= until {
            return;
        }
    }
}

#[test]
fn a_chain_of_servers_shows_what_is_in_the_file_of_the_root() {
    rounds(&["ours"], test_seconds(8));
}

/// Python's servers send the answer of a load before the invalidation of what it shows, or long after.
#[test]
fn a_chain_before_servers_of_python_shows_what_is_in_their_file() {
    let roots = ["zeo4-py27", "zeo5-py38", "zeo6-py311"];
    let roots: Vec<&str> =
        roots.into_iter().filter(|root| support::pythons::python(root).is_some()).collect();
    if !roots.is_empty() {
        rounds(&roots, test_seconds(6));
    }
}
