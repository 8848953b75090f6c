//! What happens to the servers during a round, and what is left at its end.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use runzeo::client::{Client, ClientOptions};
use runzeo::ids;
use runzeo::internal::client::cache::{Cache, CacheOptions};
use runzeo::storage::{StorageError, TransactionMeta};

use crate::check::{Attempt, Outcome, Revision, Tid};
use crate::driver::{Race, data_of, now, value_of};
use crate::ending;
use crate::library::look;
use crate::servers::tcp;
use crate::site::Site;
use crate::support::dice::Dice;
use crate::timelines::{CacheContent, Epoch};

/// Older revisions may be packed away.
const PACK_AGE: f64 = 0.3;
/// The wait for what must come.
const COMES: Duration = Duration::from_secs(60);

pub struct Plan {
    dice: Dice,
    pub packed: Tid,
    pub epochs: Vec<Epoch>,
    pub caches: Vec<CacheContent>,
    pub story: Vec<(Tid, String)>,
    /// Objects that were not the root's at the end.
    pub differing: Vec<String>,
    /// A copy of the root's file, and its last transaction.
    backup: Option<(Vec<u8>, Tid)>,
}

impl Plan {
    pub fn new(dice: Dice) -> Plan {
        Plan {
            dice,
            packed: 0,
            epochs: Vec::new(),
            caches: Vec::new(),
            story: Vec::new(),
            differing: Vec::new(),
            backup: None,
        }
    }

    fn note(&mut self, what: impl Into<String>) {
        self.story.push((now(), what.into()));
    }

    fn pause(&mut self, millis: u64) {
        thread::sleep(Duration::from_millis(self.dice.below(millis)));
    }

    /// A pause and an event.
    pub fn step(&mut self, site: &mut Site, race: &Race) {
        self.pause(500);
        let line = self.dice.below(3) as usize;
        let event = self.dice.below(24);
        // A server of Python that is killed may have lost a transaction that it has told its clients of. (With SIGTERM
        // that of ZEO 5 does not end while clients are connected and busy.)
        let event = if (9..=14).contains(&event) && !site.is_ours() { 0 } else { event };
        match event {
            0..=5 => {
                let bytes = self.dice.of(&[0, 1, 10, 100, 1000, 10_000]);
                let bytes = self.dice.below(bytes + 1);
                self.note(format!("line {line} is cut after {bytes} bytes"));
                site.lines[line].cut_after(bytes);
            }
            6..=8 => {
                self.note(format!("line {line} is closed"));
                site.lines[line].close();
                self.pause(1500);
                site.lines[line].open();
                self.note(format!("line {line} is open"));
            }
            9..=11 => {
                self.note("the root is killed");
                site.root.kill();
                if self.dice.one_in(2) {
                    self.copy_file(site);
                }
                self.pause(1000);
                site.start_root();
                self.note("the root is back");
            }
            12..=14 => self.restore(site, race),
            15..=16 => self.kill_middle(site),
            17 => {
                self.note("the middle is restarted");
                site.middle.restart();
                self.note("the middle is back");
            }
            18..=19 => {
                self.note("the one behind is killed");
                site.behind.kill();
                self.pause(500);
                site.behind.start_again();
                self.note("the one behind is back");
            }
            20 => {
                self.note("the replica is killed");
                site.replica.kill();
                site.replica.start_again();
            }
            21 => self.pack(site),
            _ => self.bulk(site, race),
        }
    }

    fn copy_file(&mut self, site: &Site) {
        if let Some(last) = read_log(&site.data_file()).last().map(|(tid, _)| *tid) {
            self.backup = Some((fs::read(site.data_file()).expect("Data.fs"), last));
            self.note(format!("a copy was made, {last:x}"));
        }
    }

    /// Puts an older file back. New transactions come before or after the middle.
    fn restore(&mut self, site: &mut Site, race: &Race) {
        let Some((copy, last)) = self.backup.take() else { return };
        let is_closed = !self.dice.one_in(4);
        if is_closed {
            site.lines[0].close();
        }
        self.note("the root is killed, for a restore");
        site.root.kill();
        let path = site.data_file();
        let log = read_log(&path);
        let lost = log.last().map_or(0, |(tid, _)| *tid);
        self.epochs.push(Epoch { log, restored: Some(last) });
        fs::write(&path, copy).expect("Data.fs");
        let _ = fs::remove_file(path.with_extension("fs.index"));
        race.undoable.lock().expect("undoable").clear();
        site.start_root();
        self.note(format!("the root is back, from {lost:x} to {last:x}"));
        if is_closed {
            self.bulk(site, race);
            self.pause(300);
            site.lines[0].open();
            self.note("line 0 is open");
        }
    }

    fn kill_middle(&mut self, site: &mut Site) {
        self.note("the middle is killed");
        site.middle.kill();
        self.read_caches("middle when it was killed", false, site.middle.directory(), site.cache_size());
        self.pause(500);
        site.middle.start_again();
        self.note("the middle is back");
    }

    /// A client of the root, with nothing in between.
    fn client(site: &Site) -> Option<Client> {
        let mut options = ClientOptions::new(vec![tcp(site.root_address())]);
        options.wait_timeout = Duration::from_secs(20);
        Client::open(options).ok()
    }

    fn pack(&mut self, site: &Site) {
        // The references of the objects are no Python 3 pickles.
        let (true, Some(client)) = (site.is_ours(), Plan::client(site)) else { return };
        let time = ids::Tid(now()).to_unix() - PACK_AGE;
        self.note("a pack");
        self.packed = self.packed.max(ids::Tid::from_unix(time).0);
        // It may be refused: the time is before the last pack.
        let _ = client.pack_at(time);
    }

    /// Changes many objects at once, while a line is closed or not.
    fn bulk(&mut self, site: &Site, race: &Race) {
        let line = self.dice.below(2) as usize;
        let is_closed = self.dice.one_in(2);
        if is_closed {
            self.note(format!("line {line} is closed"));
            site.lines[line].close();
        }
        if let Some(client) = Plan::client(site) {
            let view = client.view();
            let mut attempt = Attempt::default();
            let mut staged = client.transaction(TransactionMeta::default());
            let found = look(&view, site.bulk[0]).expect("the root");
            let serial = found.expect("it exists").tid;
            for oid in &site.bulk {
                let value = race.new_value();
                attempt.writes.insert(*oid, (serial, value));
                staged.store(ids::Oid(*oid), ids::Tid(serial), &data_of(value, 0)).expect("memory");
            }
            let number = race.attempt(attempt);
            match client.commit(staged) {
                Ok(done) => {
                    race.settle(number, Outcome::Acknowledged(done.tid.0));
                    self.note(format!("many objects are changed by {:x}", done.tid.0));
                }
                Err(StorageError::OutcomeUnknown(_)) => race.settle(number, Outcome::Unknown),
                Err(error) => self.note(format!("many objects are not changed: {error}")),
            }
        }
        if is_closed {
            self.pause(300);
            site.lines[line].open();
            self.note(format!("line {line} is open"));
        }
    }

    /// All come to see the last transaction; then what the file and the caches hold is read.
    pub fn end(&mut self, site: &mut Site, race: &Race) {
        site.open_lines();
        self.note("the end begins");
        let client = Plan::client(site).expect("the root");
        // Later than any that a restore has cut.
        let mut staged = client.transaction(TransactionMeta::default());
        let oid = site.first_mark + 19;
        let serial = look(&client.view(), oid).expect("the root").map_or(0, |found| found.tid);
        let value = race.new_value();
        staged.store(ids::Oid(oid), ids::Tid(serial), &data_of(value, 0)).expect("memory");
        let number = race.attempt(Attempt { writes: [(oid, (serial, value))].into(), ..Attempt::default() });
        let last = client.commit(staged).expect("the last transaction").tid;
        race.settle(number, Outcome::Acknowledged(last.0));
        let all: Vec<u64> = [&site.hot, &site.cold, &site.bulk].into_iter().flatten().copied().collect();
        let servers = [&site.middle, &site.behind, &site.replica];
        for (name, server) in ["the middle", "the one behind", "the replica"].iter().zip(servers) {
            let begun = Instant::now();
            let mut options = ClientOptions::new(vec![tcp(server.address)]);
            options.read_only = true;
            let mine =
                Client::open(options).unwrap_or_else(|error| panic!("{name}: {error}\n{}", site.talk()));
            let mut view = mine.view();
            while view.start() <= last {
                assert!(
                    begun.elapsed() < COMES,
                    "{name} does not see the last transaction {last}\n{}",
                    site.talk()
                );
                view.refresh();
                thread::sleep(Duration::from_millis(5));
            }
            self.note(format!("{name} is up to date"));
            let (there, here) = (client.view(), view);
            for oid in all.iter().take(200) {
                let strip = |found: Option<Revision>| found.map(|found| (found.tid, found.value));
                let of_root = strip(look(&there, *oid).expect("the root"));
                let of_server = strip(look(&here, *oid).expect("a server"));
                if of_server != of_root {
                    self.differing.push(format!(
                        "at the end {oid} is {of_server:x?} at {name}, {of_root:x?} at the root"
                    ));
                }
            }
        }
        drop(client);
        for server in [&mut site.behind, &mut site.middle, &mut site.replica] {
            assert!(server.stop().success(), "{}", server.talk());
        }
        for (name, directory) in
            ["middle", "behind", "replica", "clients"].iter().zip(site.cache_directories())
        {
            self.read_caches(name, true, directory, site.cache_size());
        }
        site.root.kill();
        self.epochs.push(Epoch { log: read_log(&site.data_file()), restored: None });
    }

    /// Reads copies of the cache files of a directory.
    fn read_caches(&mut self, label: &str, is_closed: bool, directory: &Path, size: u64) {
        let copies = tempfile::tempdir().expect("a directory");
        let mut files = Vec::new();
        for entry in fs::read_dir(directory).expect("a directory").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.contains(".zec") && !name.ends_with(".lock") {
                let copy = copies.path().join(&name);
                fs::copy(entry.path(), &copy).expect("a copy");
                files.extend(name.ends_with(".zec").then_some(copy));
            }
        }
        for file in files {
            let name = file.file_name().map(|name| name.to_string_lossy().into_owned());
            let cache = Cache::open(CacheOptions::new(Some(&file), size)).expect("a cache");
            let mut revisions = Vec::new();
            for (oid, start, end) in cache.contents() {
                let mut data = Vec::new();
                // It may be one that was evicted in between, if the file is being changed; here it is not.
                let found = cache.load_before(oid, ids::Tid(start.0 + 1), &mut data);
                let Some(found) = found.filter(|found| found.start == start && oid.0 != 0) else { continue };
                let value = value_of(&data[found.data]);
                revisions.push((oid.0, Revision { tid: start.0, value, end: end.map(|end| end.0) }));
            }
            let label = format!("{}, {label}, at {:x}", name.unwrap_or_default(), now());
            self.caches.push(CacheContent {
                label,
                is_closed,
                last: cache.last_tid().map(|last| last.0),
                revisions,
            });
        }
    }
}

/// The transactions of a file whose server is not running.
fn read_log(path: &Path) -> Vec<(Tid, crate::check::Changes)> {
    let directory = tempfile::tempdir().expect("a directory");
    let copy = directory.path().join("Data.fs");
    fs::copy(path, &copy).expect("a copy");
    ending::log_of_file(&copy)
}
