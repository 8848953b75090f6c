//! `zeocache dump` and `zeocache check` say of a cache file what clients find when they open it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use runzeo::ids::{Oid, Tid};
use runzeo::internal::client::cache::{Cache, CacheOptions};
use serde_json::Value;

use crate::pythons::python;
use crate::support::dice::Dice;
use crate::tools::{zeocache, zeocache_with};
use crate::trace::of_python;

/// The lines of `dump --json`.
fn dumped(path: &Path, code: i32) -> Vec<Value> {
    let output = zeocache_with(&[], "dump", &["--json"], path, b"", code);
    output.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// What Python's client makes of each file: `used` or `dropped`, and the revisions.
fn opened_by_python(python: &Path, files: &[PathBuf]) -> Vec<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/client/open_caches.py");
    let output = Command::new(python).arg(script).args(files).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").lines().map(str::to_string).collect()
}

#[test]
fn a_dump_has_the_revisions_that_python_finds() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(python) = python("zeo6-py311") else { return };
    for name in ["zeo4-py27", "zodb310-py27", "zodb39-py27"] {
        let Some(trace) = of_python(dir.path(), name, "0.3", 5, "views") else { continue };
        let path = trace.with_extension("");
        let before = fs::read(&path).expect("it reads");
        let lines = dumped(&path, 0);
        let mut revisions: Vec<String> = lines
            .iter()
            .filter(|line| line["status"] == "current" || line["status"] == "former")
            .map(|line| format!("{}:{}", line["oid"].as_str().unwrap(), line["start"].as_str().unwrap()))
            .collect();
        revisions.sort();
        // Blocks cover the file.
        let mut pos = 12;
        for line in &lines[..lines.len() - 1] {
            assert_eq!(line["pos"].as_u64(), Some(pos));
            pos += line["len"].as_u64().unwrap();
        }
        let sums = &lines[lines.len() - 1];
        assert_eq!(sums["size"].as_u64(), Some(pos));
        let counted = ["current", "former"].map(|status| sums[status]["blocks"].as_u64().unwrap());
        assert_eq!(counted.iter().sum::<u64>(), revisions.len() as u64);
        assert!(counted.iter().all(|count| *count > 0), "{sums}");

        let oid = revisions[0].split(':').next().unwrap();
        let of_object = zeocache("dump", &["-o", oid, "--json"], &path);
        let expected = revisions.iter().filter(|revision| revision.starts_with(oid)).count();
        assert_eq!(of_object.lines().count(), expected + 1);
        let text = zeocache("dump", &[], &path);
        assert_eq!(text.lines().filter(|line| line.contains(" current ")).count() as u64, counted[0]);
        assert!(zeocache("dump", &["-t"], &path).lines().count() < 8);
        let verdict = zeocache("check", &[], &path);
        assert_eq!(verdict.matches("uses the file as it is").count(), 2, "{verdict}");

        assert_eq!(fs::read(&path).expect("it reads"), before);
        let theirs = opened_by_python(&python, std::slice::from_ref(&path));
        assert_eq!(theirs, [format!("used {}", revisions.join(" "))]);
    }
}

/// A small file of each kind of block.
fn small_file(path: &Path) -> Vec<u8> {
    let cache = Cache::open(CacheOptions::new(Some(path), 3000)).expect("it opens");
    for oid in 1..30 {
        cache.store(Oid(oid), Tid(10), None, &[b'x'; 60][..oid as usize]);
        if oid % 3 == 0 {
            cache.invalidate(Oid(oid), Some(Tid(20)));
            cache.store(Oid(oid), Tid(20), None, b"newer");
        }
        if oid % 7 == 0 {
            cache.invalidate(Oid(oid), None);
        }
    }
    cache.set_last_tid(Tid(20)).expect("in order");
    cache.close();
    fs::read(path).expect("it reads")
}

fn damage(dice: &mut Dice, whole: &[u8]) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    match dice.below(4) {
        0 => bytes.truncate(dice.below(whole.len() as u64) as usize),
        1 => {
            // A byte of the header of some block.
            let starts: Vec<usize> = (12..bytes.len()).filter(|at| bytes[*at] == b'a').collect();
            let at = starts[dice.below(starts.len() as u64) as usize] + dice.below(33) as usize;
            if let Some(byte) = bytes.get_mut(at) {
                *byte = [0, 1, b'a', b'f', b'3', 0x80, 0xff][dice.below(7) as usize];
            }
        }
        2 => {
            let at = dice.below(bytes.len() as u64) as usize;
            bytes[at] = dice.below(256) as u8;
        }
        _ => {
            // One block in the place of another.
            let (from, to) = (dice.below(2000) as usize + 12, dice.below(2000) as usize + 12);
            let piece = bytes[from..from + 100].to_vec();
            bytes[to..to + 100].copy_from_slice(&piece);
        }
    }
    bytes
}

#[test]
fn a_verdict_is_what_clients_do() {
    let dir = tempfile::tempdir().expect("a directory");
    let whole = small_file(&dir.path().join("whole"));
    let mut dice = Dice::new(20, 0);
    let (mut files, mut verdicts) = (Vec::new(), Vec::new());
    let (mut dropped_by_both, mut dropped_by_one) = (0, 0);
    for number in 0..400 {
        let bytes = damage(&mut dice, &whole);
        let path = dir.path().join(format!("{number}"));
        fs::write(&path, &bytes).expect("writable");
        let output =
            Command::new(env!("CARGO_BIN_EXE_zeocache")).arg("check").arg(&path).output().expect("it runs");
        let text = String::from_utf8(output.stdout).expect("text");
        assert_eq!(fs::read(&path).expect("it reads"), bytes, "{number}");
        let ours = text.contains("this program: drops");
        let theirs = text.contains("ZEO's client: drops");
        let hangs = text.contains("ZEO's client: does not start");
        assert_eq!(output.status.code(), Some(i32::from(ours || theirs || hangs)), "{number} {text}");
        dropped_by_both += u32::from(ours && theirs);
        dropped_by_one += u32::from(ours != theirs);

        let own = dir.path().join(format!("{number}-own"));
        fs::write(&own, &bytes).expect("writable");
        drop(Cache::open(CacheOptions::new(Some(&own), bytes.len() as u64)).expect("it opens"));
        let is_dropped = dir.path().join(format!("{number}-own.bad")).exists();
        assert_eq!(is_dropped, ours, "{number}: {text}");
        if !hangs {
            files.push(path);
            verdicts.push(theirs);
        }
    }
    assert!(dropped_by_both > 50 && dropped_by_one > 20, "{dropped_by_both} {dropped_by_one}");
    let Some(python) = python("zeo6-py311") else { return };
    for ((file, line), theirs) in files.iter().zip(opened_by_python(&python, &files)).zip(verdicts) {
        assert_eq!(line.starts_with("dropped"), theirs, "{}: {line}", file.display());
    }
}

#[test]
fn a_file_in_use_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("used");
    small_file(&path);
    let cache = Cache::open(CacheOptions::new(Some(&path), 3000)).expect("it opens");
    let output = zeocache("check", &[], &path);
    assert!(output.contains(&format!("in use by process {}", std::process::id())), "{output}");
    drop(cache);
    let output = zeocache("check", &[], &path);
    assert!(!output.contains("in use"), "{output}");
}

#[test]
fn what_is_no_cache_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("c");
    for content in [&b""[..], b"ZEC3", b"ZEC2\0\0\0\0\0\0\0\0", b"anything else that is long enough"] {
        fs::write(&path, content).expect("writable");
        let output = zeocache_with(&[], "check", &[], &path, b"", 1);
        assert_eq!(output.matches("drops the file: it is no cache file").count(), 2, "{output}");
        let output = zeocache_with(&[], "dump", &[], &path, b"", 1);
        assert!(output.contains("is no cache file"), "{output}");
    }
    fs::remove_file(&path).expect("it was there");
    for command in ["check", "dump"] {
        let output = zeocache_with(&[], command, &[], &path, b"", 1);
        assert!(output.contains("cannot read"), "{output}");
    }
    zeocache_with(&[], "dump", &["-o", "xyz"], &path, b"", 2);
}
