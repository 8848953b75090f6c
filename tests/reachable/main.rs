//! Everything that is reachable can be loaded: random histories of references that are made, removed, moved, undone and
//! copied, by clients of all generations, while packs run all the time.
//!
//! A pack removes objects without references, and clients make references to former objects again: by an undo, by a
//! copy, or because they read the object before it was garbage. An object that the pack removes then is lost, and only
//! a POSKeyError shows it, perhaps years later. This test does all of this at once on every kind of storage
//! (`client.rs`). During the run each reference of a current object is followed; at the end again, after one more pack,
//! and in the file without its index. The clients make no dangling reference themselves. The seed determines the
//! choices of the clients, but not the timing of their threads. `RUNZEO_TEST_SECONDS` sets the duration, in rounds,
//! `RUNZEO_TEST_SEED` the first seed.

#[path = "../support/mod.rs"]
mod support;

mod client;
mod peer;
mod walk;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::client::Speaks;
use crate::support::dice::Dice;
use crate::support::pickle::Value;
use crate::support::process::{Server, test_seconds};
use peer::{Peer, finding};
use runzeo::ids;
use runzeo::internal::storage::demo::DemoStorage;
use runzeo::internal::storage::transform::zlib::Zlib;
use runzeo::storage::file::{FileStorage, FileStorageOptions};
use runzeo::storage::prelude::*;
use runzeo::storage::{StorageError, Transform};
use world::{Oid, ROOT, State, World, is_content_of, record};

/// Clients at the same time, besides the auditor and two packers.
const CLIENTS: u64 = 8;
const CONTAINERS: Oid = 32;
const BALLAST: Oid = 100;

/// A storage that takes commits.
struct Kind {
    name: &'static str,
    /// Its section of the configuration.
    section: &'static str,
    /// Its share of the time.
    share: u32,
    has_base: bool,
    has_blobs: bool,
    can_undo: bool,
    /// Copies can be tested: a copy holds its references from its vote on, or nothing is ever collected.
    can_copy: bool,
    /// Opens the storage without a server.
    open: Option<fn(&Path) -> Opened>,
}

type Opened = Result<Arc<dyn Storage>, StorageError>;

const KINDS: [Kind; 8] = [
    Kind {
        name: "file",
        section: "<filestorage 1>\npath Data.fs\n</filestorage>",
        share: 3,
        has_base: false,
        has_blobs: false,
        can_undo: true,
        can_copy: true,
        open: Some(|dir| open_file(dir.join("Data.fs"), None)),
    },
    Kind {
        name: "file with blobs",
        section: "<filestorage 1>\npath Data.fs\nblob-dir blobs\n</filestorage>",
        share: 3,
        has_base: false,
        has_blobs: true,
        can_undo: true,
        can_copy: true,
        open: Some(|dir| open_file(dir.join("Data.fs"), Some(dir.join("blobs")))),
    },
    Kind {
        name: "zlib",
        section: "%import zc.zlibstorage\n<zlibstorage 1>\n<filestorage>\npath Data.fs\n</filestorage>\n</zlibstorage>",
        share: 2,
        has_base: false,
        has_blobs: false,
        can_undo: true,
        can_copy: true,
        open: Some(|dir| {
            let file = open_file(dir.join("Data.fs"), None)?;
            Ok(Arc::new(Transform::new(file, Arc::new(Zlib { compress: true }), false)))
        }),
    },
    Kind {
        name: "demo over file",
        section: "<demostorage 1>\n<filestorage base>\npath base.fs\nread-only true\n</filestorage>\n\
                  <filestorage changes>\npath changes.fs\n</filestorage>\n</demostorage>",
        share: 1,
        has_base: true,
        has_blobs: false,
        can_undo: true,
        can_copy: true,
        open: Some(|dir| {
            let base = open_file(dir.join("base.fs"), None)?;
            let changes = open_file(dir.join("changes.fs"), None)?;
            Ok(Arc::new(DemoStorage::new(None, base, changes, false)))
        }),
    },
    Kind {
        name: "demo in memory",
        section: "<demostorage 1>\n</demostorage>",
        share: 1,
        has_base: false,
        has_blobs: true,
        can_undo: false,
        can_copy: false,
        open: None,
    },
    Kind {
        name: "demo in memory over file",
        section: "<demostorage 1>\n<filestorage base>\npath base.fs\nread-only true\n</filestorage>\n\
                  <mappingstorage changes>\n</mappingstorage>\n</demostorage>",
        share: 1,
        has_base: true,
        has_blobs: false,
        can_undo: false,
        can_copy: true,
        open: None,
    },
    Kind {
        name: "mapping",
        section: "<mappingstorage 1>\n</mappingstorage>",
        share: 1,
        has_base: false,
        has_blobs: false,
        can_undo: false,
        can_copy: false,
        open: None,
    },
    Kind {
        name: "temporary",
        section: "%import tempstorage\n<temporarystorage 1>\n</temporarystorage>",
        share: 1,
        has_base: false,
        has_blobs: false,
        can_undo: false,
        can_copy: false,
        open: None,
    },
];

fn open_file(path: PathBuf, blob_dir: Option<PathBuf>) -> Opened {
    let options = FileStorageOptions { blob_dir, ..FileStorageOptions::new(path) };
    Ok(Arc::new(FileStorage::open(options)?))
}

/// The root, the containers with an object in each, and the ballast.
fn first_records(dice: &mut Dice) -> Vec<(Oid, Vec<u8>)> {
    let refers = |references: &[Oid], nonce: Oid| record(references, nonce, b"");
    let named: Vec<Oid> = (1..=CONTAINERS + BALLAST).collect();
    let mut records = vec![(ROOT, refers(&named, ROOT))];
    for container in 1..=CONTAINERS {
        let inside = CONTAINERS + BALLAST + container;
        records.push((container, refers(&[inside], container)));
        records.push((inside, refers(&[], inside)));
    }
    records.extend((CONTAINERS + 1..=CONTAINERS + BALLAST).map(|oid| (oid, client::ballast(dice, oid))));
    records
}

/// Makes a file with the first transaction.
fn make_base(directory: &Path, records: &[(Oid, Vec<u8>)]) {
    let storage = FileStorage::open(FileStorageOptions::new(directory.join("base.fs"))).expect("base.fs");
    let mut staged = runzeo::storage::Staged::new(Default::default(), None, b' ', 1 << 20);
    for (oid, data) in records {
        staged.store(ids::Oid(*oid), ids::Tid::ZERO, data).expect("stage");
    }
    let voted = storage.vote(staged, runzeo::storage::TidAt::Finish).expect("vote");
    storage.finish(voted, Box::new(()));
    storage.close().expect("close");
}

/// Number of actions, by name.
type Counts = BTreeMap<String, u64>;

fn round(kind: &Kind, seed: u64, lasting: Duration) -> Counts {
    let records = first_records(&mut Dice::new(seed, 99));
    let mut server = Server::start_any("", kind.section, |directory| {
        if kind.has_base {
            make_base(directory, &records);
        }
    });
    let (containers, ballast) = (1..=CONTAINERS, CONTAINERS + 1..=CONTAINERS + BALLAST);
    let mut world = World::new(server.address, containers.collect(), ballast.collect());
    (world.can_undo, world.can_copy, world.has_blobs) = (kind.can_undo, kind.can_copy, kind.has_blobs);
    let result = prepare(kind, &world, &records)
        .and_then(|()| run(&world, seed, lasting))
        .and_then(|()| check(&world))
        .and_then(|()| check_without_server(kind, &mut server, seed));
    if let Err(error) = result {
        server.kill();
        let kept = keep(&server, kind, seed);
        let history = about(&error.to_string(), &world.journal());
        let talk = server.talk();
        panic!("{}, seed {seed}: {error}\nfiles: {}\n{history}\n{talk}", kind.name, kept.display());
    }
    let mut counts = world.counts();
    for (what, line) in [("pack: switched", ": packed from"), ("pack: begun anew", "the pack begins anew")] {
        counts.insert(what.into(), server.log().matches(line).count() as u64);
    }
    println!("{}, seed {seed}: {counts:?}", kind.name);
    counts
}

fn prepare(kind: &Kind, world: &World, records: &[(Oid, Vec<u8>)]) -> io::Result<()> {
    if kind.has_base {
        return Ok(());
    }
    let mut peer = Peer::register(world.address, Speaks::Z5)?;
    peer.begin(None);
    for (oid, data) in records {
        peer.store(*oid, 0, data);
    }
    peer.vote()?.map_err(io::Error::other)?;
    peer.finish()?;
    Ok(())
}

/// Runs all clients, until the time is over or one has a finding.
fn run(world: &World, seed: u64, lasting: Duration) -> io::Result<()> {
    let until = Instant::now() + lasting;
    thread::scope(|scope| {
        let mut threads = vec![scope.spawn(move || client::audits(world, Dice::new(seed, 100)))];
        threads.extend((0..2).map(|no| scope.spawn(move || packs(world, Dice::new(seed, 200 + no), no > 0))));
        threads
            .extend((0..CLIENTS).map(|no| scope.spawn(move || client::visits(world, Dice::new(seed, no)))));
        while Instant::now() < until && threads.iter().all(|thread| !thread.is_finished()) {
            thread::sleep(Duration::from_millis(20));
        }
        world.stop();
        let ends: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        ends.into_iter().try_for_each(|end| end.unwrap_or_else(|_| finding("a client panicked".into())))
    })
}

/// Packs continuously, or at intervals.
fn packs(world: &World, mut dice: Dice, is_second: bool) -> io::Result<()> {
    let mut peer = Peer::register(world.address, Speaks::Z5)?;
    while world.goes_on() {
        // Transactions between two packs can be undone during the second.
        let millis = if is_second { 50 + dice.below(400) } else { dice.of(&[0, 0, 10, 40, 120]) };
        thread::sleep(Duration::from_millis(millis));
        let now = ids::Tid::now().to_unix();
        let recent = world.recent();
        // It removed objects that were garbage as of an undone transaction.
        let undone = recent.iter().find_map(|done| done.undoes.first().copied());
        let time = match dice.below(14) {
            0..5 => now,
            5..7 => now - dice.below(600) as f64 / 1000.0,
            7 => now - 2.0,
            8 => now + 0.2,
            9..12 => undone.map_or(now, |tid| ids::Tid(tid).to_unix()),
            _ if recent.is_empty() => now,
            _ => ids::Tid(recent[dice.below(recent.len() as u64) as usize].tid).to_unix(),
        };
        pack(world, &mut peer, time)?;
    }
    Ok(())
}

/// Allowed error answers of a pack.
const PACK_REFUSALS: [&str; 4] = [
    "Already packing",
    "became reachable again",
    "were always between vote and finish",
    "Already packed to a later time",
];

fn pack(world: &World, peer: &mut Peer, time: f64) -> io::Result<()> {
    let begun = ids::Tid::now();
    let answer = peer.call("pack", vec![Value::Float(time), Value::Bool(true)])?;
    let (to, ended) = (ids::Tid::from_unix(time), ids::Tid::now());
    world.note(format!("{ended} pack to {to}, begun at {begun}: {answer:?}"));
    match answer {
        Ok(_) => world.count("pack"),
        Err(error) => match PACK_REFUSALS.iter().find(|known| error.contains(*known)) {
            Some(known) => world.count(&format!("pack: {known}")),
            None => return finding(format!("the pack to {to}, begun at {begun}, failed: {error}")),
        },
    }
    Ok(())
}

/// Checks the storage after all clients have ended.
fn check(world: &World) -> io::Result<()> {
    let mut peer = Peer::register(world.address, Speaks::Z5)?;
    for when in ["at the end", "after the last pack"] {
        let root = peer.load(ROOT)?.map_or_else(|| finding("there is no root".into()), Ok)?;
        let walked = match peer.walk([(ROOT, root)])? {
            Ok(walked) => walked,
            Err(missing) => return finding(format!("{when}, an object cannot be loaded: {missing}")),
        };
        for (oid, serial) in walked.blobs() {
            if let Err(error) = peer.check_blob(oid, serial)? {
                return finding(format!("{when}, the blob of 0x{oid:016x} (of {serial:016x}): {error}"));
            }
        }
        // Later than the tid of any copy.
        pack(world, &mut peer, ids::Tid::now().to_unix() + 1.0)?;
    }
    Ok(())
}

/// Checks the files of a server that has ended, or was killed.
fn check_without_server(kind: &Kind, server: &mut Server, seed: u64) -> io::Result<()> {
    if server.log().contains("Mismatch between data and backpointer") {
        return finding("a copy was not taken for one".into());
    }
    match kind.open {
        Some(_) if seed.is_multiple_of(2) => server.kill(),
        _ if server.stop().success() => {}
        _ => return finding("the server did not end well".into()),
    }
    let Some(open) = kind.open else { return Ok(()) };
    let directory = server.directory();
    for index in ["Data.fs.index", "changes.fs.index"] {
        if directory.join(index).exists() {
            fs::remove_file(directory.join(index))?;
        }
    }
    let error = |error: StorageError| io::Error::other(format!("the files without a server: {error}"));
    let storage = open(directory).map_err(error)?;
    let load = |oid: &Oid| -> io::Result<Option<State>> {
        let mut data = Vec::new();
        match storage.load_before(ids::Oid(*oid), ids::Tid::MAX, 0, &mut data) {
            Ok(Some(found)) => Ok(Some(State::new(found.serial.0, &data[found.start..]))),
            Ok(None) | Err(StorageError::PosKey(_)) => Ok(None),
            Err(other) => Err(error(other)),
        }
    };
    let root = load(&ROOT)?.map_or_else(|| finding("there is no root in the files".into()), Ok)?;
    let walked = match walk::walk([(ROOT, root)], |oids| oids.iter().map(load).collect())? {
        Ok(walked) => walked,
        Err(missing) => {
            return finding(format!("in the files without their index, nothing is found: {missing}"));
        }
    };
    for (oid, serial) in walked.blobs() {
        let blob = storage
            .require_blobs()
            .map_err(error)?
            .load_blob(ids::Oid(oid), ids::Tid(serial))
            .map_err(error)?;
        let mut content = vec![0; blob.len as usize];
        blob.read_at(&mut content, 0)?;
        if !is_content_of(oid, &content) {
            return finding(format!("in the files, the blob of 0x{oid:016x} has another content"));
        }
    }
    storage.close().map_err(error)
}

/// Keeps a copy of the server's files, for debugging.
fn keep(server: &Server, kind: &Kind, seed: u64) -> PathBuf {
    let name = format!("reachable-{}-{seed}", kind.name.replace(' ', "-"));
    let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&to);
    copy_all(server.directory(), &to).expect("the files are kept");
    to
}

fn copy_all(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy_all(&entry.path(), &to)?,
            false => drop(fs::copy(entry.path(), to)?),
        }
    }
    Ok(())
}

/// The journal's lines about the objects in a text, and about packs.
fn about(text: &str, journal: &[String]) -> String {
    let names: BTreeSet<&str> = text
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| word.len() == 18 && word.starts_with("0x"))
        .collect();
    let mut lines: Vec<&str> = journal
        .iter()
        .map(String::as_str)
        .filter(|line| line.contains(" pack to ") || names.iter().any(|name| line.contains(name)))
        .collect();
    lines.drain(..lines.len().saturating_sub(120));
    lines.join("\n")
}

#[test]
fn all_that_is_reachable_can_be_loaded() {
    let seed = env::var("RUNZEO_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let lasting = test_seconds(7);
    let until = Instant::now() + lasting;
    let shares: u32 = KINDS.iter().map(|kind| kind.share).sum();
    let share = (lasting / shares).clamp(Duration::from_millis(200), Duration::from_millis(2500));
    let mut total = Counts::new();
    let mut seeds = seed..;
    while let Some(seed) = seeds.next() {
        for kind in &KINDS {
            let counts = round(kind, seed, share * kind.share);
            assert!(counts.contains_key("link") && counts.contains_key("pack"), "{}: {counts:?}", kind.name);
            for (what, count) in counts {
                *total.entry(what).or_default() += count;
            }
        }
        if Instant::now() >= until {
            println!("seeds {}..{}: {total:?}", seed, seeds.start);
            return;
        }
    }
}
