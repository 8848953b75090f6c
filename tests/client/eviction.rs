//! What the cache evicts: with the same work and size it has as many hits as the cache of ZEO's own client, and
//! `zeocache simulate` says how many.
//!
//! The work is that of a trace in which nothing was evicted, so that it has each first load of a revision as a store.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use runzeo::ids::{Oid, Tid};
use runzeo::internal::client::cache::trace::{TraceItem, TraceReader, TraceRecord};
use runzeo::internal::client::cache::{Cache, CacheOptions};

use crate::pythons::python;
use crate::support::process::Server;
use crate::tools::zeocache;
use crate::trace::{of_python, run_script};
use crate::zeocache_simulate::{sum, traced};

/// The records, with one record for each load.
fn records(trace: &Path) -> Vec<TraceRecord> {
    let mut reader = TraceReader::new(File::open(trace).expect("it opens"));
    let mut records: Vec<TraceRecord> = Vec::new();
    while let Some(item) = reader.next_item().expect("it reads") {
        let TraceItem::Record(record) = item else { panic!("{item:?}") };
        // Of the two records of a miss, the second one has the time of the view.
        if record.code.0 == 0x24
            && records.last().is_some_and(|last| last.code.0 == 0x20 && last.oid == record.oid)
        {
            records.pop();
        }
        records.push(record);
    }
    records
}

/// Does the work with our cache. Returns loads and hits.
fn replay(records: &[TraceRecord], cache: &Cache) -> (u64, u64) {
    // What the server has: end and length by start.
    let mut known: HashMap<(Oid, Tid), (Option<Tid>, usize)> = HashMap::new();
    let mut current: HashMap<Oid, Tid> = HashMap::new();
    let mut out = Vec::new();
    for record in records {
        let Some(oid) = record.oid else { continue };
        let &TraceRecord { start, end, .. } = record;
        let len = record.len as usize;
        out.clear();
        match record.code.0 {
            0x20 | 0x24 => {
                let before = if end == Tid::ZERO { Tid::MAX } else { end };
                cache.load_before(oid, before, &mut out);
            }
            0x22 => {
                if cache.load_before(oid, Tid::MAX, &mut out).is_none() {
                    cache.store(oid, start, None, &vec![b'x'; len]);
                }
            }
            0x26 => {
                // The record has the start in the place of the end.
                if cache.load_before(oid, Tid(end.0 + 1), &mut out).is_none()
                    && let Some((ended, len)) = known.get(&(oid, end))
                {
                    cache.store(oid, end, *ended, &vec![b'x'; *len]);
                }
            }
            0x52 | 0x54 => {
                let end = (end != Tid::ZERO).then_some(end);
                known.insert((oid, start), (end, len));
                if end.is_none() {
                    current.insert(oid, start);
                }
                cache.store(oid, start, end, &vec![b'x'; len]);
            }
            0x10 | 0x1c | 0x1e => {
                let tid = (start != Tid::ZERO).then_some(start);
                if let Some(tid) = tid
                    && let Some(began) = current.remove(&oid)
                    && let Some((end, _)) = known.get_mut(&(oid, began))
                {
                    *end = Some(tid);
                }
                cache.invalidate(oid, tid);
            }
            code => panic!("{code:02x}"),
        }
    }
    let stats = cache.stats();
    (stats.loads, stats.hits)
}

/// Loads and hits of our cache of this size with the work of a trace.
fn ours(dir: &Path, trace: &Path, megabytes: &str) -> (u64, u64) {
    let size = (megabytes.parse::<f64>().expect("a number") * f64::from(1 << 20)) as u64;
    let path = dir.join("ours");
    _ = fs::remove_file(&path);
    let cache = Cache::open(CacheOptions::new(Some(&path), size)).expect("it opens");
    let done = replay(&records(trace), &cache);
    let used = cache.stats().used;
    cache.close();
    // A revision that was written again was once counted twice.
    let dump = zeocache("dump", &["-t"], &path);
    let bytes = |status: &str| -> u64 {
        let line = dump.lines().find(|line| line.starts_with(status)).expect(status);
        line.split_whitespace().nth(2).expect(status).replace(',', "").parse().expect(status)
    };
    assert_eq!(used, bytes("current") + bytes("former"), "{dump}");
    done
}

fn simulated(trace: &Path, megabytes: &str) -> (u64, u64) {
    let output = zeocache("simulate", &["-i", "60", "-s", megabytes], trace);
    (sum(&output, "LOADS"), sum(&output, "HITS"))
}

#[test]
fn hits_are_those_of_pythons_cache() {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, kind) in [("zeo4-py27", "views"), ("zeo6-py311", "current"), ("zodb310-py27", "current")] {
        for seed in 1..3 {
            let Some(work) = of_python(dir.path(), name, "30", seed, kind) else { break };
            for size in ["0.1", "0.7"] {
                let theirs = of_python(dir.path(), name, size, seed, kind).expect("it was there");
                let ours = ours(dir.path(), &work, size);
                assert_eq!(ours, traced(&theirs), "{name} {kind} {seed} {size}");
                assert_eq!(ours, simulated(&work, size), "{name} {kind} {seed} {size}");
                let python = python(name).expect("it was there");
                let output = run_script(&python, "cache_simul", &["-i", "60", "-s", size], &work);
                // Its model lets revisions grow, which gives it some other hits than its cache has: mostly fewer.
                let modelled = sum(&output, "HITS");
                assert!(ours.1 * 101 >= modelled * 100, "{name} {kind} {seed} {size}: {ours:?}\n{output}");
            }
        }
    }
}

/// Lets a client of ZEO work on a server of ours. Its trace.
fn of_client(dir: &Path, environment: &str, server: &Server, megabytes: &str) -> Option<PathBuf> {
    let python = python(environment)?;
    let dir = dir.join(format!("{environment}-{megabytes}"));
    fs::create_dir(&dir).expect("writable");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/client/traced_client.py");
    let output = Command::new(python)
        .arg(script)
        .arg(server.address.port().to_string())
        .arg(&dir)
        .args([megabytes, "3"])
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{environment}: {}", String::from_utf8_lossy(&output.stderr));
    Some(dir.join("traced-1.zec.trace"))
}

#[test]
fn traces_of_real_clients() {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, size) in [("zeo4-py27", "0.5"), ("zeo4-py27", "20"), ("zodb310-py27", "0.5")] {
        let server = Server::start();
        let Some(trace) = of_client(dir.path(), name, &server, size) else { continue };
        let real = traced(&trace);
        assert_eq!(simulated(&trace, size), real, "{name} {size}");
        if size != "20" {
            continue;
        }
        for size in ["0.1", "0.5", "20"] {
            assert_eq!(ours(dir.path(), &trace, size), simulated(&trace, size), "{name} {size}");
        }
    }
}
