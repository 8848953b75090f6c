//! ZEO's scripts read the traces that the cache writes, and the reader those of ZEO's cache.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use runzeo::ids::{Oid, Tid};
use runzeo::internal::base::clock::TimeSource;
use runzeo::internal::client::cache::trace::{Trace, TraceItem, TraceReader};

use crate::pythons::python;

/// Lets ZEO's cache of an environment work (`make_trace.py`) and write its trace. `None` without the environment.
pub fn of_python(dir: &Path, environment: &str, megabytes: &str, seed: u64, kind: &str) -> Option<PathBuf> {
    let python = python(environment)?;
    let cache = dir.join(format!("{environment}-{megabytes}-{seed}-{kind}"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/client/make_trace.py");
    let output = Command::new(python)
        .arg(script)
        .arg(&cache)
        .args([megabytes, &seed.to_string(), kind])
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{environment}: {}", String::from_utf8_lossy(&output.stderr));
    Some(PathBuf::from(format!("{}.trace", cache.display())))
}

/// The output of one of ZEO's scripts.
pub fn run_script(python: &Path, script: &str, arguments: &[&str], trace: &Path) -> String {
    let output = Command::new(python)
        .args(["-m", &format!("ZEO.scripts.{script}")])
        .args(arguments)
        .arg(trace)
        .output()
        .expect("it runs");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} {script}: {complaint}", python.display());
    String::from_utf8(output.stdout).expect("text")
}

fn write(cache: &Path) {
    let trace = Trace::open(cache, TimeSource::SYSTEM).expect("writable");
    trace.missed(Oid(0x1a), Tid::MAX);
    trace.stored(Oid(0x1a), Tid(5), 77);
    trace.hit(Oid(0x1a), Tid(5), 77);
    trace.missed(Oid(0x1b), Tid(8));
    trace.stored(Oid(0x1b), Tid(6), 20 << 20);
    trace.missed_former(Oid(0x1a), Tid(4));
    trace.stored_former(Oid(0x1a), Tid(3), Tid(5), 1);
    trace.hit_former(Oid(0x1a), Tid(3));
    trace.invalidated(Oid(0x1a), Tid(9));
    trace.invalidated_nothing(Oid(0x1c), Tid(9));
    trace.dropped(Oid(0x1b));
}

#[test]
fn pythons_scripts_read_our_traces() {
    let dir = tempfile::tempdir().expect("a directory");
    write(&dir.path().join("c"));
    let file = dir.path().join("c.trace");
    let zero = "0000000000000000";
    let id = |tid: u64| format!("{tid:016x}");
    let expected = [
        format!("20 {:>16} {zero} {zero} -", "1a"),
        format!("52 {:>16} {} {zero} - 77", "1a", id(5)),
        format!("22 {:>16} {} {zero} - 77", "1a", id(5)),
        format!("20 {:>16} {zero} {} -", "1b", id(8)),
        format!("52 {:>16} {} {zero} - 8388607", "1b", id(6)),
        format!("24 {:>16} {zero} {} -", "1a", id(4)),
        format!("54 {:>16} {} {} - 1", "1a", id(3), id(5)),
        format!("26 {:>16} {zero} {} -", "1a", id(3)),
        format!("1c {:>16} {} {zero} -", "1a", id(9)),
        format!("10 {:>16} {} {zero} -", "1c", id(9)),
        format!("1e {:>16} {zero} {zero} -", "1b"),
    ];
    for name in ["zodb310-py27", "zeo4-py27", "zeo5-py38", "zeo6-py311"] {
        let Some(python) = python(name) else { continue };
        let stats = run_script(&python, "cache_stats", &["-v"], &file);
        let records: Vec<&str> =
            stats.lines().filter_map(|line| line.get(16..)).filter(|line| line.contains(" -")).collect();
        assert_eq!(records[1..], expected, "{name}:\n{stats}");
        assert!(stats.contains("Hit rate:   40.0%"), "{name}:\n{stats}");
        let simulated = run_script(&python, "cache_simul", &[], &file);
        assert!(simulated.contains("CircularCacheSimulation"), "{name}:\n{simulated}");
    }
}

/// The number of records of each code, as `cache_stats` prints them.
fn counts(trace: &Path) -> BTreeMap<String, u64> {
    let mut reader = TraceReader::new(File::open(trace).expect("it opens"));
    let mut counts = BTreeMap::new();
    while let Some(item) = reader.next_item().expect("it reads") {
        let TraceItem::Record(record) = item else { panic!("{item:?} in {}", trace.display()) };
        *counts.entry(format!("{:02x}", record.code.0)).or_default() += 1;
    }
    counts
}

#[test]
fn traces_of_pythons_cache_are_read() {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, kind) in [
        ("zodb38-py27", "current"),
        ("zodb39-py27", "views"),
        ("zodb310-py27", "views"),
        ("zeo4-py27", "views"),
        ("zeo6-py311", "current"),
    ] {
        let Some(trace) = of_python(dir.path(), name, "0.5", 3, kind) else { continue };
        // The scripts of 3.8 and 3.9 are elsewhere; every generation reads the traces of all.
        let Some(reader) = python("zeo4-py27") else { continue };
        let stats = run_script(&reader, "cache_stats", &["-q"], &trace);
        let table = stats.lines().skip_while(|line| !line.ends_with("Function (action)")).skip(1);
        let expected: BTreeMap<String, u64> = table
            .map(|line| {
                let mut words = line.split_whitespace();
                let mut word = || words.next().expect("two columns").replace(',', "");
                let count = word().parse().expect("a number");
                (word(), count)
            })
            .collect();
        assert!(expected.len() > 4, "{stats}");
        assert_eq!(counts(&trace), expected, "{name}");
    }
}
