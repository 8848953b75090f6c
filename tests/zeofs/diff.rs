//! `zeofs diff`, beside what dumps of both files say.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::damage::changed;
use crate::files::{fixtures, json, made, zeofs};

fn diff(options: &[&str], a: &Path, b: &Path) -> (Vec<Value>, u8) {
    let paths = [a, b].map(|path| path.to_str().unwrap());
    let arguments = [&["diff", "--json", "-n", "9999"], options, &paths].concat();
    let (text, status) = zeofs(&arguments);
    let text = String::from_utf8(text).unwrap();
    (text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), status)
}

#[test]
fn a_file_is_the_same_as_itself() {
    let files = made().iter().flat_map(|made| made.files.clone());
    for path in files.chain(fixtures().into_iter().map(|(_, path)| path)) {
        let (dumped, _) = json("dump", &[], &path);
        let count = dumped.iter().filter(|line| line["kind"] == "transaction").count();
        let (lines, status) = diff(&[], &path, &path);
        assert_eq!((lines.len(), status), (1, 0), "{}: {lines:?}", path.display());
        assert_eq!(lines[0]["same_transactions"].as_u64(), Some(count as u64));
        assert_eq!(lines[0]["same_objects"].as_u64(), Some(newest(&path).len() as u64));
    }
}

/// The transaction of the newest record of each object that is there.
fn newest(path: &Path) -> BTreeMap<String, String> {
    let (lines, _) = json("dump", &[], path);
    let mut found = BTreeMap::new();
    for line in lines.iter().filter(|line| line["kind"] == "record") {
        let oid = line["oid"].as_str().unwrap().to_string();
        match line["class"].as_str() {
            Some(_) => _ = found.insert(oid, line["tid"].as_str().unwrap().to_string()),
            None => _ = found.remove(&oid),
        }
    }
    found
}

fn tids(path: &Path) -> BTreeSet<String> {
    let (lines, _) = json("dump", &[], path);
    let transactions = lines.iter().filter(|line| line["kind"] == "transaction");
    transactions.map(|line| line["tid"].as_str().unwrap().to_string()).collect()
}

fn of_kind<'a>(lines: &'a [Value], kind: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["kind"] == kind).collect()
}

/// A file before and after a pack: the current state is the same without GC, and lacks garbage with it; the histories
/// differ by the transactions that the pack took out or shortened.
#[test]
fn a_packed_file_has_the_same_objects() {
    for made in made() {
        let (packed, unpacked) = (made.file("unusual.fs"), made.file("unpacked.fs"));
        let (lines, status) = diff(&["--objects"], &packed, &unpacked);
        assert_eq!((lines.len(), status), (1, 0), "{lines:?}");

        for (packed, unpacked) in [(packed, unpacked), (made.file("packed.fs"), made.file("packed.fs.old"))] {
            let (lines, status) = diff(&[], &packed, &unpacked);
            assert_eq!(status, 4);
            let (a, b) = (tids(&packed), tids(&unpacked));
            let found: BTreeSet<(String, String)> = of_kind(&lines, "transaction")
                .iter()
                .filter(|line| line["in"] != "both")
                .map(|line| (line["in"].as_str().unwrap().into(), line["tid"].as_str().unwrap().into()))
                .collect();
            let only = |name: &str, these: &BTreeSet<String>, those: &BTreeSet<String>| -> Vec<_> {
                these.difference(those).map(|tid| (name.to_string(), tid.clone())).collect()
            };
            let expected = [only("a", &a, &b), only("b", &b, &a)].concat();
            assert_eq!(found, expected.into_iter().collect(), "{}", made.environment);
            let first = of_kind(&lines, "transaction")[0]["tid"].clone();
            assert_eq!(lines.last().unwrap()["parting"], first);

            let (a, b) = (newest(&packed), newest(&unpacked));
            let found: BTreeSet<(&str, Option<&str>, Option<&str>)> = of_kind(&lines, "object")
                .iter()
                .map(|line| (line["oid"].as_str().unwrap(), line["a"].as_str(), line["b"].as_str()))
                .collect();
            let oids: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            let expected = oids
                .into_iter()
                .map(|oid| (oid.as_str(), a.get(oid).map(String::as_str), b.get(oid).map(String::as_str)))
                .filter(|(_, a, b)| a != b)
                .collect();
            assert_eq!(found, expected, "{}", made.environment);
        }
    }
}

/// Each byte of the file counts, but for pointers, lengths that are there twice, and statuses.
#[test]
fn each_change_is_a_difference() {
    for made in made() {
        let small = made.file("small.fs");
        let whole = fs::read(&small).unwrap();
        let number = |value: &Value| usize::try_from(value.as_u64().unwrap()).unwrap();
        let mut ignored: BTreeSet<usize> = (0..4).collect();
        for line in &json("dump", &[], &small).0 {
            let pos = number(&line["pos"]);
            if line["kind"] == "transaction" {
                ignored.extend(pos + 8..pos + 17);
                ignored.extend(pos + number(&line["len"])..pos + number(&line["len"]) + 8);
            } else {
                ignored.extend(pos + 16..pos + 24);
            }
        }
        assert!(ignored.len() < whole.len() / 3);
        let dir = tempfile::tempdir().unwrap();
        for (at, path) in changed(&whole, dir.path(), 0xff) {
            let (lines, status) = diff(&[], &small, &path);
            assert!(status == 4 || ignored.contains(&at), "{} {at}: {lines:?}", made.environment);
            // From the other side, too.
            assert_eq!(diff(&[], &path, &small).1, status, "{} {at}", made.environment);
        }
    }
}

#[test]
fn words_for_people() {
    for made in made() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (made.file("small.fs"), dir.path().join("b.fs"));
        let mut bytes = fs::read(&a).unwrap();
        let at = |text: &[u8]| memchr(&bytes, text);
        let (user, data) = (at(b"ud"), at(b"two"));
        bytes[user] = b'x';
        bytes[data] = b'x';
        let last = *crate::support::storage::transactions(&bytes).last().unwrap();
        bytes.truncate(last);
        fs::write(&b, &bytes).unwrap();
        let (text, status) = zeofs(&["diff", a.to_str().unwrap(), b.to_str().unwrap()]);
        let text = String::from_utf8(text).unwrap();
        assert_eq!(status, 4);
        assert!(text.contains("\ndifferent: 2026-"), "{text}");
        assert!(text.contains("  user, data of 1 records: 0x02\n"), "{text}");
        assert!(text.contains(&format!("\nonly in {}: 2026-", a.display())), "{text}");
        assert!(
            text.contains("\nthe histories part at ") && text.contains("; the same before: 1\n"),
            "{text}"
        );
        assert!(
            text.contains("\n0x02 persistent.mapping.PersistentMapping: different data in the same "),
            "{text}"
        );
        assert!(!text.contains("\nthe same\n"), "{text}");
        let (text, _) = zeofs(&["diff", "-n", "0", a.to_str().unwrap(), b.to_str().unwrap()]);
        assert!(String::from_utf8(text).unwrap().contains("\n... and 2 more\n"));
        let (text, status) = zeofs(&["diff", a.to_str().unwrap(), a.to_str().unwrap()]);
        assert!(status == 0 && String::from_utf8(text).unwrap().ends_with("\nthe same\n"));
        assert_eq!(zeofs(&["diff", a.to_str().unwrap()]).1, 2);
        assert_eq!(zeofs(&["diff", a.to_str().unwrap(), "/nonexistent"]).1, 1);
    }
}

fn memchr(bytes: &[u8], text: &[u8]) -> usize {
    bytes.windows(text.len()).position(|window| window == text).expect("it is there")
}
