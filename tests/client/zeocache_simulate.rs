//! `zeocache simulate` has the hits that a real cache has, and where ZEO's `cache_simul` is right, its output.

use std::path::Path;

use crate::pythons::python;
use crate::tools::{upstream, zeocache};
use crate::trace::{of_python, run_script};

/// Without rearrangement and former revisions, ZEO's script is right.
#[test]
fn the_output_is_pythons() {
    let dir = tempfile::tempdir().expect("a directory");
    for name in ["zodb310-py27", "zeo4-py27", "zeo6-py311"] {
        let Some(trace) = of_python(dir.path(), name, "1", 11, "current") else { continue };
        let python = python(name).expect("it was there");
        for options in [
            &["-s", "1", "-r", "1"][..],
            &["-s", "0.3", "-r", "1"],
            &["-s", "2", "-r", "1", "-i", "5"],
            &["-s", "2.5", "-r", "1", "-i", "60"],
            &["-r", "1"],
            &[],
        ] {
            let theirs = run_script(&python, "cache_simul", options, &trace);
            assert_eq!(zeocache("simulate", options, &trace), theirs, "{name} {options:?}");
        }
    }
}

/// The numbers of the intervals in a column of the output for one size.
pub fn sum(output: &str, title: &str) -> u64 {
    let mut lines = output.lines().skip(1);
    let titles = lines.next().expect("titles").replace("START TIME", "A B C");
    let column = titles.split_whitespace().position(|word| word == title).expect("a column");
    lines
        .take_while(|line| !line.starts_with("---"))
        .map(|line| line.split_whitespace().nth(column).expect("a number").parse::<u64>().expect("a number"))
        .sum()
}

/// Loads and hits as the real cache had them.
pub fn traced(trace: &Path) -> (u64, u64) {
    let stats = zeocache("stats", &["-S", "-i", "60"], trace);
    let lines = stats.lines().skip(1).filter(|line| !line.contains("Restart"));
    lines.fold((0, 0), |(loads, hits), line| {
        let mut words = line.split_whitespace().skip(3);
        let mut number = || words.next().expect("a number").parse::<u64>().expect("a number");
        (loads + number(), hits + number())
    })
}

#[test]
fn a_simulation_of_the_traced_size_has_the_hits_of_the_trace() {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, kind) in [
        ("zodb310-py27", "current"),
        ("zeo4-py27", "current"),
        ("zeo4-py27", "views"),
        ("zeo4-py36", "current"),
        ("zeo5-py38", "current"),
        ("zeo6-py311", "current"),
    ] {
        for (size, seed) in [("0.2", 1), ("1", 2), ("3", 3)] {
            let Some(trace) = of_python(dir.path(), name, size, seed, kind) else { break };
            let options = ["-i", "60", "-s", size];
            let output = zeocache("simulate", &options, &trace);
            let simulated = (sum(&output, "LOADS"), sum(&output, "HITS"));
            assert_eq!(simulated, traced(&trace), "{name} {kind} {size}: {output}");
        }
    }
}

/// The doctest of ZEO lets caches of 1, 2 and 4 MB do the same work. From the trace of the one of 2 MB, the hits of the
/// others follow.
#[test]
fn the_hits_of_other_sizes() {
    let dir = tempfile::tempdir().expect("a directory");
    let calls = upstream(dir.path());
    for (size, trace, exactly) in [("2", "cache", true), ("4", "cache4", true), ("1", "cache1", false)] {
        let Some((_, theirs)) = calls
            .iter()
            .find(|(arguments, _)| arguments[0] == "simulate" && arguments.contains(&size.into()))
        else {
            continue;
        };
        let output = zeocache("simulate", &["-s", size], &dir.path().join("cache.trace"));
        let (_, real) = traced(&dir.path().join(format!("{trace}.trace")));
        let (ours, theirs) = (sum(&output, "HITS"), sum(theirs, "HITS"));
        if exactly {
            assert_eq!(ours, real, "{size}");
        } else {
            // What a smaller cache misses comes back with the length that it had in the larger one; in this doctest
            // each load has another length.
            assert!(ours.abs_diff(real) * 100 < real, "{size}: {ours} {real}");
        }
        assert!(ours.abs_diff(real) <= theirs.abs_diff(real), "{size}: {ours} {theirs} {real}");
    }
}

#[test]
fn several_sizes_and_advice() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(trace) = of_python(dir.path(), "zeo4-py27", "1", 11, "views") else { return };
    let table = zeocache("simulate", &["-s", "0.5,1", "-s", "2"], &trace);
    let hits = |table: &str, size: &str| -> u64 {
        let line = table.lines().find(|line| line.trim_start().starts_with(&format!("{size} "))).expect(size);
        line.split_whitespace()
            .rev()
            .nth(if size == "no limit" { 3 } else { 4 })
            .expect(size)
            .parse()
            .expect(size)
    };
    for size in ["0.5", "1", "2"] {
        let one = zeocache("simulate", &["-s", size], &trace);
        assert_eq!(hits(&table, size), sum(&one, "HITS"), "{table}");
    }
    assert_eq!(hits(&table, "1"), traced(&trace).1, "{table}");
    assert!(hits(&table, "no limit") > hits(&table, "2"), "{table}");
    assert!(table.contains("None of these sizes"), "{table}");
    let advice = zeocache("simulate", &["--advise"], &trace);
    assert_eq!(hits(&advice, "4"), hits(&advice, "no limit"), "{advice}");
    assert!(
        advice.ends_with(
            "4 MB is the smallest of these sizes whose hit rate is within 1 percent point of that.\n"
        ),
        "{advice}"
    );
}
