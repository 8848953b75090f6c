//! Damaged files: each byte changed, and cut at each length. Every command ends, without a panic, and what is not
//! damaged is seen.

use std::path::{Path, PathBuf};

use crate::files::{fixtures, json, made, zeofs};
use crate::tools::{of_ours, of_python};

/// A file with each byte changed, with the position of the change.
fn changed(whole: &[u8], dir: &Path, by: u8) -> Vec<(usize, PathBuf)> {
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
fn cut(whole: &[u8], dir: &Path) -> Vec<(usize, PathBuf)> {
    (0..whole.len())
        .map(|len| {
            let path = dir.join(format!("cut-{len}.fs"));
            std::fs::write(&path, &whole[..len]).unwrap();
            (len, path)
        })
        .collect()
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
    let whole = &std::fs::read(fixture).unwrap()[..1100];
    let dir = tempfile::tempdir().unwrap();
    let mut files = changed(whole, dir.path(), 0xff);
    files.extend(cut(whole, dir.path()));
    for (at, path) in files {
        let path = path.to_str().unwrap();
        for arguments in [&["dump", "--refs"][..], &["tail"], &["fsdump"], &["fstail"]] {
            let (_, status) = zeofs(&[arguments, &[path]].concat());
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
