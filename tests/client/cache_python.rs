//! The same calls on a cache of ZEO's own client, of every version, and on ours: the same results, the same bytes, and
//! each goes on with the file of the other.

use std::collections::BTreeSet;
use std::path::PathBuf;

use runzeo::ids::{Oid, Tid};
use runzeo::internal::client::cache::{Cache, CacheOptions};
use serde_json::{Value, json};

use crate::history::History;
use crate::python_cache::PythonCache;
use crate::support::dice::Dice;

/// What a version of ZEO does otherwise than the present one.
#[derive(Clone, Copy)]
struct Version {
    environment: &'static str,
    /// `loadBefore` looks at the current revision too.
    before_finds_current: bool,
    /// Loads move a revision that is about to be evicted.
    rearranges: bool,
    /// Stores leave a free block behind; the size of a file can be changed.
    is_ring: bool,
}

const fn version(
    environment: &'static str,
    before_finds_current: bool,
    rearranges: bool,
    is_ring: bool,
) -> Version {
    Version { environment, before_finds_current, rearranges, is_ring }
}

const VERSIONS: &[Version] = &[
    version("zodb38-py27", false, false, false),
    version("zodb39-py27", false, false, true),
    version("zodb310-py27", false, true, true),
    version("zeo4-py27", true, true, true),
    version("zeo4-py36", true, true, true),
    version("zeo5-py38", true, true, true),
    version("zeo6-py311", true, true, true),
];

struct Pair {
    version: Version,
    python: PythonCache,
    ours: Cache,
    paths: [PathBuf; 2],
    size: u64,
    history: History,
    dice: Dice,
    /// The calls so far, for the message of a failure.
    calls: Vec<String>,
}

impl Pair {
    fn both(&mut self, call: Value, ours: impl FnOnce(&Cache)) {
        self.calls.push(call.to_string());
        self.python.call(call);
        ours(&self.ours);
    }

    fn store(&mut self, oid: u64, start: u64, end: u64) {
        let data = self.history.data(oid, start);
        let hexed: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
        let end_tid = (end != 0).then_some(Tid(end));
        self.both(json!(["store", oid, start, end, hexed]), |ours| {
            ours.store(Oid(oid), Tid(start), end_tid, &data);
        });
    }

    /// Loads, compares, and stores what was missing.
    fn load(&mut self, oid: u64, before: Option<u64>) {
        let call = match before {
            Some(before) => json!(["load_before", oid, before]),
            None => json!(["load", oid]),
        };
        self.calls.push(call.to_string());
        let pythons = self.python.call(call.clone());
        let mut out = Vec::new();
        let found = self.ours.load_before(Oid(oid), before.map_or(Tid::MAX, Tid), &mut out);
        let ours = found.map_or(Value::Null, |found| {
            let data: String = out[found.data].iter().map(|byte| format!("{byte:02x}")).collect();
            json!([found.start.0, found.end.map_or(0, |end| end.0), data])
        });
        assert_eq!(ours, pythons, "{call} after {:#?}", self.calls);
        if ours.is_null()
            && let Some((start, end)) = self.history.at(oid, before.unwrap_or(u64::MAX))
        {
            self.store(oid, start, end);
        }
    }

    fn step(&mut self) {
        let oid = self.history.some_oid(&mut self.dice);
        match self.dice.below(12) {
            0..=2 => {
                // Each once: Python's cache forgets a revision that is invalidated with its own tid.
                let count = self.dice.below(3);
                let oids: BTreeSet<u64> =
                    (0..=count).map(|_| self.history.some_oid(&mut self.dice)).collect();
                let oids = Vec::from_iter(oids);
                let tid = self.history.commit(&oids, &mut self.dice);
                for oid in oids {
                    self.both(json!(["invalidate", oid, tid]), |ours| {
                        ours.invalidate(Oid(oid), Some(Tid(tid)))
                    });
                    if self.dice.one_in(2) {
                        self.store(oid, tid, 0);
                    }
                }
                self.both(json!(["set_last_tid", tid]), |ours| ours.set_last_tid(Tid(tid)).unwrap());
            }
            3 if self.dice.one_in(3) => {
                self.both(json!(["invalidate", oid, 0]), |ours| ours.invalidate(Oid(oid), None));
            }
            4 if self.dice.one_in(60) && self.version.is_ring => self.both(json!(["clear"]), Cache::clear),
            4..=7 if self.version.rearranges => self.load(oid, None),
            _ => {
                let before = self.history.some_tid(&mut self.dice);
                let is_former = self.history.at(oid, before).is_some_and(|(_, end)| end != 0);
                if is_former || self.version.before_finds_current {
                    self.load(oid, Some(before));
                }
            }
        }
    }

    /// Closes both, compares, and goes on with each other's files.
    fn reopen(&mut self, size: u64) {
        self.both(json!(["close"]), Cache::close);
        let [pythons, ours] = self.paths.clone().map(|path| std::fs::read(path).unwrap());
        let difference = pythons.iter().zip(&ours).position(|(a, b)| a != b);
        assert!(
            pythons.len() == ours.len() && difference.is_none(),
            "{} differs at {difference:?}, lengths {} and {}, after {:#?}",
            self.version.environment,
            pythons.len(),
            ours.len(),
            self.calls
        );
        self.paths.reverse();
        let has_grown = size > self.size;
        self.size = size;
        let call = json!(["open", self.paths[0], size]);
        self.calls.push(call.to_string());
        let last_tid = self.python.call(call);
        self.ours = Cache::open(CacheOptions::new(Some(&self.paths[1]), size)).unwrap();
        assert_eq!(last_tid, json!(self.ours.last_tid().map_or(0, |tid| tid.0)));
        if has_grown {
            // Python gives the new free block a wrong length, and drops the file if its last block is in use.
            self.python.call(json!(["close"]));
            self.ours.close();
            std::fs::copy(&self.paths[1], &self.paths[0]).unwrap();
            // Or ours would know where it wrote last, and Python not.
            std::fs::remove_file(self.paths[1].with_extension("zec.sums")).unwrap();
            self.python.call(json!(["open", self.paths[0], size]));
            self.ours = Cache::open(CacheOptions::new(Some(&self.paths[1]), size)).unwrap();
        }
        let ours = self.ours.current_contents();
        let ours: Vec<[u64; 2]> = ours.into_iter().map(|(oid, start)| [oid.0, start.0]).collect();
        assert_eq!(self.python.call(json!(["contents"])), json!(ours));
        assert_eq!(self.python.call(json!(["count"])), json!(self.ours.count()));
    }
}

fn run(version: Version, seed: u64, steps: u64) {
    let Some(mut python) = PythonCache::start(version.environment) else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut dice = Dice::new(seed, 7);
    let sizes = [3000, 10_000, 40_000, 40_001, 40_004, 1_000_000];
    // Version 3.8 differs when the file is full.
    let size = if version.is_ring { dice.of(&sizes) } else { 4_000_000 };
    let paths = ["a.zec", "b.zec"].map(|name| dir.path().join(name));
    python.call(json!(["open", paths[0], size]));
    let ours = Cache::open(CacheOptions::new(Some(&paths[1]), size)).unwrap();
    let history = History::new(40, 1200);
    let mut pair = Pair { version, python, ours, paths, size, history, dice, calls: Vec::new() };
    for step in 1..=steps {
        pair.step();
        if step % 150 == 0 && version.is_ring {
            let size = if pair.dice.one_in(2) { pair.size } else { pair.dice.of(&sizes) };
            pair.reopen(size);
        }
    }
    pair.reopen(pair.size);
}

#[test]
fn the_same_calls_give_the_same_bytes() {
    for version in VERSIONS {
        for seed in 0..6 {
            run(*version, seed, if version.is_ring { 900 } else { 400 });
        }
    }
}

/// Ours is killed, Python goes on with the file, and then ours again: nothing that is beside the file is believed.
#[test]
fn python_uses_the_file_of_a_killed_client() {
    for (round, version) in VERSIONS.iter().enumerate() {
        let Some(mut python) = PythonCache::start(version.environment) else { continue };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("client.zec");
        let size = 100_000;
        let ours = Cache::open(CacheOptions::new(Some(&path), size)).unwrap();
        ours.set_identity(b"this database");
        for oid in 0..20 {
            ours.store(Oid(oid), Tid(10 + oid), None, b"data of ours");
        }
        ours.set_last_tid(Tid(40)).unwrap();
        ours.sync();
        // Another time: then nothing that was announced is from before the first last tid.
        ours.store(Oid(20), Tid(40), None, b"data of ours");
        ours.sync();
        ours.invalidate(Oid(1), Some(Tid(50)));
        ours.set_last_tid(Tid(50)).unwrap();
        drop(ours);
        // The header has the last tid of the sync, the note beside it the one of the invalidation.
        if round % 2 == 0 {
            let ours = Cache::open(CacheOptions::new(Some(&path), size)).unwrap();
            assert_eq!((ours.last_tid(), ours.identity()), (Some(Tid(50)), Some(b"this database".to_vec())));
            drop(ours);
        }
        assert_eq!(python.call(json!(["open", path, size])), json!(40));
        python.call(json!(["invalidate", 2, 60]));
        python.call(json!(["store", 3000, 60, 0, "abcd"]));
        python.call(json!(["set_last_tid", 60]));
        python.call(json!(["close"]));
        let ours = Cache::open(CacheOptions::new(Some(&path), size)).unwrap();
        // As Python left it, or earlier if Python was quick.
        let last_tid = ours.last_tid().unwrap();
        assert!([40, 50, 60].contains(&last_tid.0), "{last_tid}");
        assert_eq!(ours.identity(), None, "Python may have had another database");
        assert_eq!((ours.current_start(Oid(2)), ours.current_start(Oid(3000))), (None, Some(Tid(60))));
        assert!(ours.contents().contains(&(Oid(2), Tid(12), Some(Tid(60)))));
        // Version 3.8 begins at the start of the file again, where object 0 is.
        assert_eq!(ours.count(), if version.is_ring { 22 } else { 21 });
        ours.close();
    }
}
