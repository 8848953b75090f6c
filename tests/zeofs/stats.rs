//! `zeofs stats`: its sums are those of the dump, and of a pack.

use std::collections::BTreeMap;
use std::path::Path;

use runzeo::ids::Tid;
use runzeo::internal::pickle::refs::references;
use runzeo::storage::file::{FileStorage, FileStorageOptions};
use runzeo::storage::prelude::*;
use runzeo::storage::{PackProgress, PackRequest};
use serde_json::Value;

use crate::files::{fixtures, json, made, run};

fn of_kind<'a>(lines: &'a [Value], kind: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["kind"] == kind).collect()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value}"))
}

/// Bytes of a dumped record in the file.
fn record_len(line: &Value) -> u64 {
    if line["data_pos"] == line["pos"] { 42 + number(&line["len"]) } else { 50 }
}

/// Count and bytes.
type Sums = BTreeMap<String, (u64, u64)>;

fn add(sums: &mut Sums, name: &Value, bytes: u64) {
    let sum = sums.entry(name.as_str().unwrap_or_default().into()).or_default();
    *sum = (sum.0 + 1, sum.1 + bytes);
}

fn printed(lines: &[Value], kind: &str, name: &str) -> Sums {
    let sums = of_kind(lines, kind).into_iter();
    let sum = |line: &Value| {
        let sum = if line["all"].is_object() { &line["all"] } else { line };
        (number(&sum["count"]), number(&sum["bytes"]))
    };
    sums.map(|line| (line[name].as_str().unwrap().to_string(), sum(line))).collect()
}

/// The sums of all lines of a dump from the transaction `since` on.
fn check_sums(path: &Path, since: Option<&str>) {
    let times: Vec<&str> = since.iter().flat_map(|since| ["--since", *since]).collect();
    let (lines, status) = json("stats", &[&times[..], &["-n", "1000"]].concat(), path);
    assert_eq!(status, 0);
    let (dumped, _) = json("dump", &times, path);
    let (mut objects, mut users, mut descriptions) = (Sums::new(), Sums::new(), Sums::new());
    let mut records = (0, 0);
    for line in &dumped {
        if line["kind"] == "transaction" {
            let len = number(&line["len"]) + 8;
            add(&mut users, &line["user"], len);
            add(&mut descriptions, &line["description"], len);
        } else {
            add(&mut objects, &line["oid"], record_len(line));
            records = (records.0 + 1, records.1 + record_len(line));
        }
    }
    assert_eq!(printed(&lines, "object", "oid"), objects, "{}", path.display());
    let classes = printed(&lines, "class", "class");
    assert_eq!(classes.values().fold((0, 0), |all, sum| (all.0 + sum.0, all.1 + sum.1)), records);
    let sums = &lines[0];
    assert_eq!((number(&sums["records"]["count"]), number(&sums["records"]["bytes"])), records);
    let transactions: u64 = users.values().map(|sum| sum.1).sum();
    assert_eq!(number(&sums["transactions"]["bytes"]), transactions);
    // Those with unusual bytes are cut.
    if users.keys().chain(descriptions.keys()).all(|name| name.len() < 150) {
        assert_eq!(printed(&lines, "user", "name"), users);
        assert_eq!(printed(&lines, "description", "name"), descriptions);
    }
    if since.is_none() {
        assert_eq!(transactions + 4, std::fs::metadata(path).unwrap().len());
    }
}

#[test]
fn sums_are_those_of_the_dump() {
    let files = made().iter().flat_map(|made| made.files.clone());
    for path in files.chain(fixtures().into_iter().map(|(_, path)| path)) {
        check_sums(&path, None);
        let (dumped, _) = json("dump", &[], &path);
        check_sums(&path, of_kind(&dumped, "transaction")[2]["tid"].as_str());
    }
}

/// A pack takes out as many bytes as were promised.
#[test]
fn a_pack_frees_what_was_promised() {
    let files = made().iter().flat_map(|made| made.files.clone());
    for path in files.chain(fixtures().into_iter().map(|(_, path)| path)) {
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("Data.fs");
        std::fs::copy(&path, &copy).unwrap();
        let before = std::fs::metadata(&copy).unwrap().len();
        let promised = number(&json("stats", &[], &copy).0[0]["packable"]);
        let storage = FileStorage::open(FileStorageOptions::new(&copy)).unwrap();
        let progress = PackProgress::default();
        let time = Tid::now().to_unix();
        let request = PackRequest {
            time,
            gc: Some(false),
            references: &references,
            progress: &progress,
            removals: None,
        };
        storage.pack(&request).unwrap();
        storage.close().unwrap();
        let after = std::fs::metadata(&copy).unwrap().len();
        assert_eq!(promised, before - after, "{}", path.display());
        assert_eq!(number(&json("stats", &[], &copy).0[0]["packable"]), 0);
    }
}

/// A file that was packed to any of its transactions, with or without garbage collection, is as the check expects it,
/// and so is its copy, which differs in pointers to previous records alone: a pack leaves some out.
#[test]
fn packed_files_are_whole() {
    let files = made().iter().flat_map(|made| made.files.clone());
    for path in files.chain(fixtures().into_iter().map(|(_, path)| path)) {
        let (dumped, _) = json("dump", &[], &path);
        for line in of_kind(&dumped, "transaction") {
            let tid = Tid(u64::from_str_radix(line["tid"].as_str().unwrap(), 16).unwrap());
            for gc in [false, true] {
                let dir = tempfile::tempdir().unwrap();
                let copy = dir.path().join("Data.fs");
                std::fs::copy(&path, &copy).unwrap();
                let storage = FileStorage::open(FileStorageOptions::new(&copy)).unwrap();
                let progress = PackProgress::default();
                let request = PackRequest {
                    time: tid.to_unix(),
                    gc: Some(gc),
                    references: &references,
                    progress: &progress,
                    removals: None,
                };
                // It is refused if the root refers to what does not exist.
                let is_packed = storage.pack(&request).is_ok();
                assert!(is_packed || gc, "{}", path.display());
                storage.close().unwrap();
                let (lines, status) = json("test", &[], &copy);
                assert_eq!(status, 0, "{} to {tid}: {lines:?}", path.display());
                let new = dir.path().join("New.fs");
                assert_eq!(run("recover", &[copy.to_str().unwrap()], &new).1, 0);
                assert_eq!(json("test", &[], &new).1, 0);
                let len = |path| std::fs::metadata(path).unwrap().len();
                assert_eq!(len(&new), len(&copy));
            }
        }
    }
}

#[test]
fn tables_are_sorted_and_cut() {
    for made in made() {
        let path = made.file("plain.fs");
        let (text, status) =
            run("stats", &["-n", "2", "-b", made.file("blobs-plain").to_str().unwrap()], &path);
        assert_eq!(status, 0);
        assert!(
            text.contains("\nblobs (files)                                 1              900\n"),
            "{text}"
        );
        assert!(text.contains(" more classes (-n N)\n"), "{text}");
        let (lines, _) = json("stats", &["-n", "3"], &path);
        for kind in ["class", "object", "user", "description"] {
            let bytes: Vec<u64> = of_kind(&lines, kind)
                .into_iter()
                .map(|line| number(if kind == "class" { &line["all"]["bytes"] } else { &line["bytes"] }))
                .collect();
            assert!(bytes.len() == 3 && bytes.is_sorted_by(|a, b| a >= b), "{kind} {bytes:?}");
        }
    }
}
