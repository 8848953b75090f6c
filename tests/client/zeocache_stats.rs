//! `zeocache stats` prints what ZEO's `cache_stats` prints, and does not fail where that does.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

use runzeo::ids::{Oid, Tid};
use runzeo::internal::base::clock::TimeSource;
use runzeo::internal::client::cache::trace::Trace;

use crate::pythons::python;
use crate::tools::{count_after, upstream, zeocache, zeocache_with};
use crate::trace::{of_python, run_script};

/// What may differ: how long the reading took; Python 2 prints the empty oid of code 00 without a `b`.
fn comparable(output: &str) -> String {
    let mut text = String::new();
    for line in output.lines() {
        let line = match line.split_once(" bytes) in ") {
            Some((before, _)) => before.to_string(),
            None => line.replace(" 00 b'' ", " 00 '' "),
        };
        text.push_str(&line);
        text.push('\n');
    }
    text
}

#[test]
fn the_output_is_pythons() {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, kind) in [("zodb310-py27", "current"), ("zodb310-py27", "views"), ("zeo6-py311", "current")] {
        let Some(trace) = of_python(dir.path(), name, "1", 11, kind) else { continue };
        let python = python(name).expect("it was there");
        for options in [
            &[][..],
            &["-q"],
            &["-v"],
            &["-s"],
            &["-h"],
            &["-S"],
            &["-X"],
            &["-i", "5"],
            &["-h", "-s", "-S", "-q"],
            &["-i", "0"],
            &["-i", "90"],
        ] {
            let theirs = run_script(&python, "cache_stats", options, &trace);
            let ours = zeocache("stats", options, &trace);
            assert_eq!(comparable(&ours), comparable(&theirs), "{name} {kind} {options:?}");
        }
    }
}

/// Clients of ZEO 4.2 and later write two records for a miss. `cache_stats` counts two loads.
#[test]
fn a_miss_with_two_records_is_one_load() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(trace) = of_python(dir.path(), "zeo4-py27", "1", 11, "views") else { return };
    let python = python("zeo4-py27").expect("it was there");
    let theirs = run_script(&python, "cache_stats", &["-q"], &trace);
    let ours = zeocache("stats", &["-q"], &trace);
    let table = |text: &str| text.split("Count Code").nth(1).expect("a table of codes").to_string();
    assert_eq!(table(&ours), table(&theirs));
    let [missed, hit, missed_former, hit_former] =
        ["20  load", "22  load", "24  load", "26  load"].map(|code| {
            let line = ours.lines().find(|line| line.contains(code)).expect(code);
            line.split_whitespace().next().expect("a count").replace(',', "").parse::<u64>().expect("a count")
        });
    let doubled = count_after(&ours, "Misses:");
    // A miss whose current revision is too new has one record.
    assert!(doubled > 1000 && doubled <= missed && doubled + 50 > missed_former, "{ours}");
    let loads = missed + missed_former - doubled + hit + hit_former;
    let rate = 100.0 * (hit + hit_former) as f64 / loads as f64;
    assert!(ours.contains(&format!("Hit rate:   {rate:.1}%")), "{rate} {ours}");
    let histogram = zeocache("stats", &["-q", "-S", "-h"], &trace);
    assert_eq!(count_after(&histogram, "Total loads:"), loads);
}

/// The expectation of a doctest, in which `...` stands for any text.
fn matches(output: &str, expected: &str) -> bool {
    let expected = expected.replace("<BLANKLINE>\n", "\n");
    let mut rest = output;
    for (index, part) in expected.split("...").enumerate() {
        match rest.find(part) {
            Some(0) => rest = &rest[part.len()..],
            Some(at) if index > 0 => rest = &rest[at + part.len()..],
            _ => return false,
        }
    }
    rest.is_empty()
}

#[test]
fn the_expectations_of_upstreams_doctest_hold() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut checked = 0;
    for (arguments, expected) in upstream(dir.path()) {
        if arguments[0] != "stats" {
            continue;
        }
        let (trace, options) = arguments[1..].split_last().expect("a trace");
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        // The doctest has the times of a zone four hours west.
        let output = zeocache_with(&[("TZ", "EDT4")], "stats", &options, &dir.path().join(trace), b"", 0);
        let times = |text: &str| comparable(text).replace("<BLANKLINE>", "");
        let (output, expected) = (times(&output), times(&expected));
        assert!(matches(&output, &expected), "{arguments:?}: {output}\nexpected: {expected}");
        checked += 1;
    }
    assert!(checked == 0 || checked == 10, "{checked}");
}

fn small_trace(dir: &Path, first: u64) -> Vec<u8> {
    let cache = dir.join(format!("small-{first}"));
    let trace = Trace::open(&cache, TimeSource::SYSTEM).expect("writable");
    for oid in first..first + 20 {
        trace.missed(Oid(oid), Tid::MAX);
        trace.stored(Oid(oid), Tid(7), 200);
        trace.hit(Oid(oid), Tid(7), 200);
    }
    drop(trace);
    fs::read(dir.join(format!("small-{first}.trace"))).expect("the trace")
}

/// A client was killed, and its trace ends in a part of a record. The next client appended to it.
#[test]
fn nothing_behind_damage_is_misread() {
    let dir = tempfile::tempdir().expect("a directory");
    let (one, two) = (small_trace(dir.path(), 100), small_trace(dir.path(), 200));
    let path = dir.path().join("damaged.trace");
    for lost in 1..34 {
        let kept = one.len() - lost;
        fs::write(&path, [&one[..kept], &two].concat()).expect("writable");
        let output = zeocache("stats", &[], &path);
        let last_record = one.len() - 34;
        let skipped = format!("Skipping {} bytes at offset {last_record}", kept - last_record);
        assert!(output.contains(&skipped), "{lost}: {output}");
        assert!(output.contains("Read 121 trace records"), "{lost}: {output}");
        assert!(!zeocache("stats", &["-q"], &path).contains("Skipping"));
    }
}

#[test]
fn compressed_files_and_the_standard_input() {
    let dir = tempfile::tempdir().expect("a directory");
    let bytes = small_trace(dir.path(), 1);
    let plain = dir.path().join("small-1.trace");
    let expected = zeocache("stats", &[], &plain);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&bytes).expect("in memory");
    let compressed = encoder.finish().expect("in memory");
    let path = dir.path().join("small.trace.gz");
    fs::write(&path, &compressed).expect("writable");
    assert_eq!(comparable(&zeocache("stats", &[], &path)), comparable(&expected));
    let from_input = zeocache_with(&[], "stats", &[], Path::new("-"), &bytes, 0);
    assert_eq!(comparable(&from_input), comparable(&expected));
    // Cut in the middle: what was read, and the reason why there is no more.
    fs::write(&path, &compressed[..compressed.len() / 2]).expect("writable");
    let output = zeocache_with(&[], "stats", &[], &path, b"", 1);
    assert!(output.contains("cannot read on"), "{output}");
}

#[test]
fn traces_without_records_or_data() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("c.trace");
    fs::write(&path, b"").expect("writable");
    for command in ["stats", "simulate"] {
        let output = zeocache_with(&[], command, &[], &path, b"", 1);
        assert!(output.contains("No records processed"), "{output}");
    }
    fs::remove_file(&path).expect("it was there");
    let missing = zeocache_with(&[], "stats", &[], &path, b"", 1);
    assert!(missing.contains("cannot read"), "{missing}");
    // ZEO's script fails with a ZeroDivisionError.
    drop(Trace::open(&dir.path().join("c"), TimeSource::SYSTEM));
    let output = zeocache("stats", &["-h", "-s"], &path);
    assert!(output.contains("Data recs:  0 (0.0%), average size 0 bytes"), "{output}");
}

#[test]
fn wrong_command_lines() {
    let path = Path::new("x.trace");
    for (command, options) in [
        ("stats", &["-q", "-v"][..]),
        ("stats", &["-i", "x"]),
        ("stats", &["--what"]),
        ("stats", &["y.trace"]),
        ("simulate", &["-s", "x"]),
        ("simulate", &["-r", "-1"]),
        ("simulate", &["-a", "-s", "3"]),
        ("nothing", &[]),
    ] {
        let output = zeocache_with(&[], command, options, path, b"", 2);
        assert!(output.contains("For help, use"), "{output}");
    }
}
