//! `zeofs recover`: it always ends, copies all that is whole, and says what is lost.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use runzeo::storage::file::{FileStorage, FileStorageOptions};
use runzeo::storage::prelude::*;
use serde_json::Value;

use crate::damage::{changed, cut, unexpected_finding};
use crate::files::{dir_in_memory, fixtures, json, made, run, zeofs};
use crate::tools::{of_ours, of_python};

/// The lines of `recover --json`, and its exit status.
fn recover(options: &[&str], from: &Path, to: &Path) -> (Vec<Value>, u8) {
    let paths = [from.to_str().unwrap(), to.to_str().unwrap()];
    let (text, status) = zeofs(&[&["recover", "--json"], options, &paths].concat());
    let text = String::from_utf8(text).unwrap();
    (text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), status)
}

fn of_kind<'a>(lines: &'a [Value], kind: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["kind"] == kind).collect()
}

/// A transaction: where it is in the file, and all of it that has no position in it.
struct Txn {
    pos: usize,
    end: usize,
    content: String,
    /// Where the data of its records is.
    data: Vec<usize>,
}

/// The transactions of a file, by tid.
fn transactions(path: &Path) -> BTreeMap<String, Txn> {
    let number = |value: &Value| usize::try_from(value.as_u64().unwrap()).unwrap();
    let mut found: BTreeMap<String, Txn> = BTreeMap::new();
    for line in json("dump", &["--refs"], path).0 {
        let Some(tid) = line["tid"].as_str() else { continue };
        if line["kind"] == "transaction" {
            let (pos, len) = (number(&line["pos"]), number(&line["len"]));
            let content = ["user", "description", "extension"].map(|field| line[field].to_string()).concat();
            found.insert(tid.into(), Txn { pos, end: pos + len + 8, content, data: Vec::new() });
        } else if let Some(txn) = found.get_mut(tid) {
            txn.content += &["oid", "class", "len", "refs"].map(|field| line[field].to_string()).concat();
            txn.data.extend(line["data_pos"].as_u64().map(|_| number(&line["data_pos"])));
        }
    }
    found
}

#[test]
fn a_whole_file_is_copied_byte_for_byte_as_by_python() {
    let files = made().iter().flat_map(|made| made.files.clone());
    for path in files.chain(fixtures().into_iter().map(|(_, path)| path)) {
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("Data.fs");
        std::fs::copy(&path, &copy).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let new = dir.path().join("Data.fs.new");
        assert_eq!(recover(&[], &copy, &new).1, 0);
        assert!(std::fs::read(&new).unwrap() == whole, "{}", path.display());
        std::fs::remove_file(&new).unwrap();

        let environment = if whole.starts_with(b"FS21") { "zeo4-py27" } else { "zeo6-py311" };
        // ZODB 4 pickles extensions again, with other bytes.
        let has_extension = json("dump", &[], &copy)
            .0
            .iter()
            .any(|line| line["extension"].as_object().is_some_and(|extension| !extension.is_empty()));
        if has_extension && environment == "zeo4-py27" {
            continue;
        }
        for options in [&[][..], &["-v", "1"], &["-p"]] {
            let arguments = [options, &["FILE", "FILE.new"]].concat();
            let Some(expected) =
                of_python(environment, "ZODB.fsrecover", &arguments, std::slice::from_ref(&copy))
            else {
                break;
            };
            std::fs::remove_file(&new).unwrap();
            let ours = [options, &["FILE", new.to_str().unwrap()]].concat();
            let shown =
                |(text, status): &(Vec<u8>, u8)| format!("{status}\n{}", String::from_utf8_lossy(text));
            let ours = of_ours("fsrecover", &ours, &copy);
            assert_eq!(shown(&ours), shown(&expected[0]), "{options:?} {}", path.display());
            assert!(std::fs::read(&new).unwrap() == whole);
            std::fs::remove_file(&new).unwrap();
        }
    }
}

/// Whatever byte is changed, and wherever the file is cut: all transactions that do not have the change in them, or in
/// what they point to, are in the copy, and the copy is a whole file that a storage opens.
#[test]
fn all_that_is_whole_is_copied() {
    for made in made() {
        let small = made.file("small.fs");
        let whole = std::fs::read(&small).unwrap();
        let all = transactions(&small);
        let dir = dir_in_memory();
        let new = dir.path().join("New.fs");
        let (mut damaged, mut losses) = (cut(&whole, dir.path()).split_off(4), 0);
        for by in [0xff, 1] {
            let dir = dir.path().join(by.to_string());
            std::fs::create_dir(&dir).unwrap();
            damaged.extend(changed(&whole, &dir, by).into_iter().step_by(if by == 1 { 5 } else { 1 }));
        }
        // The files differ in their pickles alone.
        let step = if made.environment == "zeo6-py311" { 1 } else { 7 };
        for (at, path) in damaged.into_iter().step_by(step) {
            let is_cut = path.file_name().unwrap().to_str().unwrap().starts_with("cut");
            for options in [&["-f"][..], &["-f", "--partial"]].into_iter().skip(at % 2) {
                let (lines, status) = recover(options, &path, &new);
                let sums = lines.last().unwrap();
                let is_all_right = sums["lost"] == 0 && sums["mended"] == 0;
                assert_eq!(status, if is_all_right { 0 } else { 4 }, "{at}");
                let is_hit =
                    |pos: usize, end: usize| if is_cut { end > at } else { (pos..end).contains(&at) };
                let found = transactions(&new);
                let txn_at = |pos: usize| all.values().find(|txn| (txn.pos..txn.end).contains(&pos)).unwrap();
                for (tid, txn) in &all {
                    let mut parts = txn.data.iter().map(|pos| txn_at(*pos)).chain([txn]);
                    if !parts.any(|txn| is_hit(txn.pos, txn.end)) {
                        let copied = found.get(tid).map(|txn| &txn.content);
                        assert_eq!(copied, Some(&txn.content), "{} {tid} {at}", made.environment);
                    }
                }
                losses += usize::from(found.len() < all.len());
                assert_eq!(unexpected_finding(&new), None, "{at}");
                let storage = FileStorage::open(FileStorageOptions {
                    read_only: true,
                    ..FileStorageOptions::new(&new)
                });
                storage.unwrap_or_else(|error| panic!("{at}: {error}")).close().unwrap();
            }
        }
        assert!(losses > 100, "{losses}");
    }
}

/// `plain.fs` with some bytes replaced.
fn with_bytes(dir: &Path, whole: &[u8], changes: &[(usize, &[u8])]) -> PathBuf {
    let mut bytes = whole.to_vec();
    for (at, new) in changes {
        bytes[*at..at + new.len()].copy_from_slice(new);
    }
    let path = dir.join("Damaged.fs");
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Python's tool drops everything behind a transaction whose tid is too high.
#[test]
fn one_wrong_tid_does_not_take_the_others_with_it() {
    for made in made() {
        let plain = made.file("plain.fs");
        let whole = std::fs::read(&plain).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let new = dir.path().join("New.fs");
        let all = transactions(&plain);
        let positions: Vec<usize> = all.values().map(|txn| txn.pos).collect();
        let (dumped, _) = json("dump", &[], &plain);
        for (number, (tid, txn)) in all.iter().enumerate() {
            for wrong in [[0x7f; 8], [0, 0, 0, 0, 0, 0, 0, 1]] {
                // In the header alone: the records know better.
                let path = with_bytes(dir.path(), &whole, &[(positions[number], &wrong)]);
                let (lines, status) = recover(&["-f"], &path, &new);
                let of_records =
                    dumped.iter().any(|line| line["kind"] == "record" && line["tid"] == tid.as_str());
                assert!(of_records && status == 4);
                // The first one may have any lower tid.
                if number > 0 || wrong[0] != 0 {
                    assert_eq!(of_kind(&lines, "lost").len(), 0, "{number} {lines:?}");
                    assert!(std::fs::read(&new).unwrap() == whole, "{number}");
                }
                // In its records, too: it is the odd one out.
                let mut changes: Vec<(usize, &[u8])> = vec![(positions[number], &wrong)];
                for line in &dumped {
                    if line["kind"] == "record" && line["tid"] == tid.as_str() {
                        let pos = usize::try_from(line["pos"].as_u64().unwrap()).unwrap();
                        changes.push((pos + 8, &wrong));
                    }
                }
                let path = with_bytes(dir.path(), &whole, &changes);
                let (lines, _) = recover(&["-f"], &path, &new);
                let found = transactions(&new);
                for (other, other_txn) in all.iter().filter(|(other, _)| *other != tid) {
                    let copied = found.get(other).map(|txn| &txn.content);
                    assert_eq!(copied, Some(&other_txn.content), "{number} {lines:?}");
                }
                assert!(found.len() + of_kind(&lines, "lost").len() == all.len(), "{}", txn.pos);
            }
        }
    }
}

/// What is lost, and what is current again.
#[test]
fn what_is_lost_is_said() {
    for made in made() {
        let plain = made.file("plain.fs");
        let whole = std::fs::read(&plain).unwrap();
        let all = transactions(&plain);
        let dir = tempfile::tempdir().unwrap();
        let new = dir.path().join("New.fs");
        let tids: Vec<&String> = all.keys().collect();
        // The fourth transaction has the blob, the trees, and a new root; later ones change the root again.
        let (dumped, _) = json("dump", &[], &plain);
        let records: Vec<&Value> = dumped
            .iter()
            .filter(|line| line["kind"] == "record" && line["tid"] == tids[4].as_str())
            .collect();
        let first = usize::try_from(records[0]["pos"].as_u64().unwrap()).unwrap();
        // The first record of the fifth transaction belongs to no transaction any more.
        let path = with_bytes(dir.path(), &whole, &[(first + 24, &[0xff; 8])]);
        let (lines, status) = recover(&[], &path, &new);
        let lost = of_kind(&lines, "lost");
        assert_eq!((lost.len(), status), (1, 4));
        assert_eq!(lost[0]["tid"].as_str(), Some(tids[4].as_str()));
        assert_eq!(lost[0]["records"].as_u64(), Some(records.len() as u64 - 1));
        let newest = |path: &Path| -> BTreeMap<String, String> {
            let lines = json("dump", &[], path).0;
            let records = lines.iter().filter(|line| line["kind"] == "record");
            let text = |value: &Value| value.as_str().unwrap().to_string();
            records.map(|line| (text(&line["oid"]), text(&line["tid"]))).collect()
        };
        let (before, after) = (newest(&plain), newest(&new));
        for record in &records[1..] {
            let oid = record["oid"].as_str().unwrap();
            let said = of_kind(&lines, "object").into_iter().find(|line| line["oid"] == oid);
            if before[oid] == *tids[4] {
                let said = said.unwrap();
                assert_eq!(said["current"].as_str(), after.get(oid).map(String::as_str), "{oid}");
            } else {
                assert_eq!(said, None, "{oid}");
            }
        }
        // All but that record.
        let (lines, status) = recover(&["-f", "-p"], &path, &new);
        assert_eq!((of_kind(&lines, "lost").len(), of_kind(&lines, "mended").len(), status), (0, 1, 4));
        let partial = json("dump", &[], &new).0;
        let of_txn: Vec<&Value> = partial.iter().filter(|line| line["tid"] == tids[4].as_str()).collect();
        assert_eq!(of_txn.len(), records.len());
        assert_eq!(of_txn[0]["status"], "p");
    }
}

#[test]
fn a_copy_ends_at_a_time() {
    for made in made() {
        let plain = made.file("plain.fs");
        let whole = std::fs::read(&plain).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let new = dir.path().join("New.fs");
        for (tid, txn) in transactions(&plain) {
            assert_eq!(recover(&["-f", "--to-time", &tid], &plain, &new).1, 0);
            assert!(std::fs::read(&new).unwrap() == whole[..txn.end]);
        }
        assert_eq!(recover(&["-f", "--to-time", "2000-01-01"], &plain, &new).1, 0);
        assert_eq!(std::fs::read(&new).unwrap(), whole[..4]);
    }
}

#[test]
fn nothing_is_overwritten_unasked() {
    let (_, path) = &fixtures()[0];
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("Data.fs");
    std::fs::copy(path, &copy).unwrap();
    let new = dir.path().join("New.fs");
    std::fs::write(&new, "mine").unwrap();
    std::fs::write(dir.path().join("New.fs.index"), "old").unwrap();
    assert_eq!(recover(&[], &copy, &new).1, 1);
    assert_eq!(std::fs::read(&new).unwrap(), b"mine");
    assert_eq!(recover(&["-f"], &copy, &copy).1, 1);
    assert_eq!(std::fs::read(&copy).unwrap(), std::fs::read(path).unwrap());
    assert_eq!(recover(&["-f"], &copy, &new).1, 0);
    assert_eq!(std::fs::read(&new).unwrap(), std::fs::read(path).unwrap());
    // No index of another file, and nothing else.
    let mut names: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["Data.fs", "New.fs"]);
    assert_eq!(recover(&[], &copy, Path::new("/nonexistent/New.fs")).1, 1);
    // Not even if asked, while a server has it.
    let served = FileStorage::open(FileStorageOptions::new(&new)).unwrap();
    assert_eq!(recover(&["-f"], &copy, &new).1, 1);
    served.close().unwrap();
    assert_eq!(recover(&["-f"], &copy, &new).1, 0);
    assert_eq!(run("recover", &[], &copy).1, 2);
}

/// fsrecover packs the copy if it is told to, and never loops: Python's does if the last transaction is cut by a byte.
#[test]
fn fsrecover_ends_and_packs() {
    for made in made() {
        let plain = made.file("plain.fs");
        let whole = std::fs::read(&plain).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let cut = dir.path().join("Cut.fs");
        let new = dir.path().join("New.fs");
        let last = transactions(&plain).into_values().map(|txn| txn.pos).max().unwrap();
        for by in [1, 30, 100] {
            std::fs::write(&cut, &whole[..whole.len() - by]).unwrap();
            let (text, status) = of_ours("fsrecover", &["-f", "FILE", new.to_str().unwrap()], &cut);
            let removed = whole.len() - by - last;
            let text = String::from_utf8(text).unwrap();
            assert!(
                status == 0 && text.ends_with(&format!("\n{removed} bytes removed during recovery\n")),
                "{text}"
            );
            assert!(std::fs::read(&new).unwrap() == whole[..last]);
        }
        let (text, status) = of_ours("fsrecover", &["-f", "-P", "0", "FILE", new.to_str().unwrap()], &plain);
        assert!(status == 0 && String::from_utf8(text).unwrap().ends_with("\nPacking ...\n"));
        let packed = std::fs::read(&new).unwrap();
        assert!(packed.len() < whole.len());
        assert_eq!(json("test", &[], &new).1, 0);
        assert_eq!(of_ours("fsrecover", &["FILE", new.to_str().unwrap()], &plain).1, 1);
    }
}
