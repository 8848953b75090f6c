//! Damaged files: each byte changed, and cut at each length. Every command ends, without a panic, and what is not
//! damaged is seen.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::files::{fixtures, json, made, zeofs};
use crate::tools::{of_ours, of_python};

/// A file with each byte changed, with the position of the change.
pub fn changed(whole: &[u8], dir: &Path, by: u8) -> Vec<(usize, PathBuf)> {
    (4..whole.len())
        .map(|at| {
            let mut bytes = whole.to_vec();
            bytes[at] ^= by;
            let path = dir.join(format!("changed-{at}.fs"));
            std::fs::write(&path, bytes).unwrap();
            (at, path)
        })
        .collect()
}

/// The file cut at each length.
pub fn cut(whole: &[u8], dir: &Path) -> Vec<(usize, PathBuf)> {
    (0..whole.len())
        .map(|len| {
            let path = dir.join(format!("cut-{len}.fs"));
            std::fs::write(&path, &whole[..len]).unwrap();
            (len, path)
        })
        .collect()
}

/// A finding of `zeofs test` that is not about the content of a pickle; `None` if there is no such. What is wrong
/// inside pickles is copied as it is.
pub fn unexpected_finding(path: &Path) -> Option<String> {
    let (lines, _) = json("test", &[], path);
    let findings = lines.iter().filter(|line| line["kind"] == "finding");
    let mut texts = findings.map(|finding| finding["what"].as_str().unwrap().to_string());
    texts.find(|what| {
        !what.starts_with("the record of the object cannot be read") && !what.starts_with("the extension")
    })
}

/// Start and end of each transaction.
fn transactions(path: &Path) -> Vec<(usize, usize)> {
    let (lines, _) = json("dump", &[], path);
    let transactions = lines.iter().filter(|line| line["kind"] == "transaction");
    let number = |value: &serde_json::Value| usize::try_from(value.as_u64().unwrap()).unwrap();
    transactions.map(|line| (number(&line["pos"]), number(&line["pos"]) + number(&line["len"]) + 8)).collect()
}

/// A change in one transaction hides no other one.
#[test]
fn what_is_behind_damage_is_seen() {
    for made in made() {
        let small = made.file("small.fs");
        let whole = std::fs::read(&small).unwrap();
        let all = transactions(&small);
        let dir = tempfile::tempdir().unwrap();
        for by in [0xff, 1] {
            for (at, path) in changed(&whole, dir.path(), by) {
                let found = transactions(&path);
                for txn in all.iter().filter(|(start, end)| !(*start..*end).contains(&at)) {
                    assert!(found.contains(txn), "{at} {by}: {txn:?} of {all:?} is not in {found:?}");
                }
            }
        }
        for (len, path) in cut(&whole, dir.path()).into_iter().skip(4) {
            let expected: Vec<_> = all.iter().filter(|(_, end)| *end <= len).copied().collect();
            assert_eq!(transactions(&path), expected, "{len}");
            let (_, status) = zeofs(&["dump", path.to_str().unwrap()]);
            let is_whole = len == 4 || all.iter().any(|(_, end)| *end == len);
            assert_eq!(status, if is_whole { 0 } else { 4 }, "{len}");
        }
    }
}

/// Every command ends with one of its statuses.
#[test]
fn every_command_ends() {
    let (_, fixture) = fixtures().into_iter().find(|(name, _)| name == "zeo4-py27").unwrap();
    // Without the large records.
    let whole = &std::fs::read(&fixture).unwrap()[..1100];
    let undamaged = fixture.to_str().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut files = changed(whole, dir.path(), 0xff);
    files.extend(cut(whole, dir.path()));
    for (at, path) in files {
        let path = path.to_str().unwrap();
        for command in [
            "dump", "tail", "test", "stats", "refs", "trees", "fsdump", "fstail", "fstest", "analyze",
            "fsrefs",
        ] {
            let (_, status) = zeofs(&[command, path]);
            assert!([0, 1, 4].contains(&status), "{at} {command}: {status}");
        }
        let commands = [&["dump", "--refs", path][..], &["oid", path, "0"], &["fsoids", path, "0", "1"]];
        for arguments in
            commands.into_iter().chain([&["diff", path, undamaged][..], &["diff", undamaged, path]])
        {
            let (_, status) = zeofs(arguments);
            assert!([0, 1, 4].contains(&status), "{at} {arguments:?}: {status}");
        }
    }
}

/// Where Python's tool works on a damaged file, this program prints the same. Where it crashes, this one has printed at
/// least as much, or has found the damage sooner. The tools follow back-pointers without looking where they lead.
#[test]
fn fsdump_of_damaged_files_is_pythons() {
    for made in made() {
        let whole = std::fs::read(made.file("small.fs")).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut files = changed(&whole, dir.path(), 0x11);
        files.extend(cut(&whole, dir.path()).into_iter().skip(5));
        let paths: Vec<PathBuf> = files.iter().map(|(_, path)| path.clone()).collect();
        let Some(expected) = of_python(made.environment, "ZODB.FileStorage.fsdump", &["FILE"], &paths) else {
            continue;
        };
        let (mut same, mut sooner) = (0, 0);
        for ((at, path), (text, status)) in files.iter().zip(expected) {
            let (our_text, our_status) = of_ours("fsdump", &["FILE"], path);
            match (status, our_status) {
                (0, 0) => {
                    assert_eq!(
                        String::from_utf8_lossy(&our_text),
                        String::from_utf8_lossy(&text),
                        "{} {at}",
                        made.environment
                    );
                    same += 1;
                }
                (0, 1) => {
                    assert!(text.starts_with(&our_text), "{at}");
                    sooner += 1;
                }
                (1, 0 | 1) => {}
                other => panic!("{at}: {other:?}"),
            }
        }
        assert!(same > whole.len() && sooner < 40, "{same} {sooner}");
    }
}

/// What Python's tool finds, and with these words.
#[test]
fn fstest_finds_what_pythons_does() {
    for made in made() {
        let whole = std::fs::read(made.file("small.fs")).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut files = cut(&whole, dir.path());
        for by in [0xff, 1] {
            let dir = dir.path().join(by.to_string());
            std::fs::create_dir(&dir).unwrap();
            files.extend(changed(&whole, &dir, by).into_iter().step_by(3));
        }
        let paths: Vec<PathBuf> = files.iter().map(|(_, path)| path.clone()).collect();
        let Some(expected) = of_python(made.environment, "ZODB.scripts.fstest", &["-vv", "FILE"], &paths)
        else {
            continue;
        };
        let mut found = 0;
        for (path, (text, status)) in paths.iter().zip(expected) {
            let ours =
                Command::new(env!("CARGO_BIN_EXE_zeofs")).args(["fstest", "-vv"]).arg(path).output().unwrap();
            let shown = String::from_utf8(ours.stdout).unwrap() + &String::from_utf8(ours.stderr).unwrap();
            let text = String::from_utf8(text).unwrap();
            // A length beyond 2^63 is an OverflowError of Python's, without a word.
            if status == 1 && !text.contains(path.to_str().unwrap()) && !text.contains("file") {
                assert!(shown.starts_with(&text), "{shown}\n{text}");
            } else {
                assert_eq!(shown, text, "{}", path.display());
            }
            assert_eq!(ours.status.code(), Some(status.into()));
            found += u32::from(status == 1);
        }
        assert!(found > 1000, "{found}");
    }
}

/// The bytes that the check compares with others: all of the headers and pointers but oids, which nothing else has if
/// the object was stored once.
fn checked_bytes(path: &Path) -> BTreeSet<usize> {
    let (lines, _) = json("dump", &[], path);
    let number = |value: &serde_json::Value| usize::try_from(value.as_u64().unwrap()).unwrap();
    let mut bytes = BTreeSet::new();
    for line in &lines {
        let pos = number(&line["pos"]);
        if line["kind"] == "transaction" {
            bytes.extend(pos..pos + 23);
            bytes.extend(pos + number(&line["len"])..pos + number(&line["len"]) + 8);
        } else {
            bytes.extend(pos + 8..pos + 42);
            if line["data_pos"] != line["pos"] {
                bytes.extend(pos + 42..pos + 50);
            }
        }
    }
    bytes
}

#[test]
fn test_finds_each_change_of_what_it_compares() {
    for made in made() {
        let small = made.file("small.fs");
        let whole = std::fs::read(&small).unwrap();
        let checked = checked_bytes(&small);
        assert!(checked.len() > 300 && checked.len() < whole.len() * 2 / 3);
        let dir = tempfile::tempdir().unwrap();
        let mut others = 0;
        for by in [0xff, 1] {
            for (at, path) in changed(&whole, dir.path(), by) {
                let (lines, status) = json("test", &[], &path);
                let (sums, findings) = lines.split_last().unwrap();
                assert_eq!(sums["findings"].as_u64(), Some(findings.len() as u64));
                assert_eq!(status, if findings.is_empty() { 0 } else { 4 });
                if checked.contains(&at) {
                    assert_eq!(status, 4, "{} {at} {by}", made.environment);
                } else {
                    others += usize::from(status == 4);
                }
            }
        }
        // Opcodes of pickles.
        assert!(others > 100, "{others}");
        for (len, path) in cut(&whole, dir.path()).into_iter().skip(4) {
            let (lines, status) = json("test", &[], &path);
            let is_whole = lines.last().unwrap()["unfinished"] == 0;
            assert_eq!(status, if is_whole { 0 } else { 4 }, "{len}");
        }
    }
}

/// The transactions, records and objects of a whole file are counted, and nothing is found; but for a blob without
/// file.
#[test]
fn test_finds_nothing_in_whole_files() {
    let files: Vec<PathBuf> = made()
        .iter()
        .flat_map(|made| made.files.clone())
        .chain(fixtures().into_iter().map(|(_, path)| path))
        .collect();
    for path in files {
        let (lines, status) = json("test", &[], &path);
        let (dumped, _) = json("dump", &[], &path);
        let count = |kind: &str| dumped.iter().filter(|line| line["kind"] == kind).count() as u64;
        let oids: BTreeSet<&str> = dumped.iter().filter_map(|line| line["oid"].as_str()).collect();
        assert_eq!((lines.len(), status), (1, 0), "{}: {lines:?}", path.display());
        assert_eq!(lines[0]["transactions"].as_u64(), Some(count("transaction")));
        assert_eq!(lines[0]["records"].as_u64(), Some(count("record")));
        assert_eq!(lines[0]["objects"].as_u64(), Some(oids.len() as u64));
    }
    for made in made() {
        let path = made.file("plain.fs");
        let blobs = made.file("blobs-plain");
        assert_eq!(json("test", &["-b", blobs.to_str().unwrap()], &path).1, 0);
        let (lines, status) = json("test", &["-b", made.dir.path().join("none").to_str().unwrap()], &path);
        assert_eq!((lines.len(), status), (2, 4));
        assert!(lines[0]["what"].as_str().unwrap().starts_with("the blob has no file "));
    }
}
