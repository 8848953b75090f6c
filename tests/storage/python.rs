//! Files are exchanged with Python, and both read the same from them.
//!
//! Files from Python are in `python-fixtures/data-fs`, with their content as Python reads it. Tests of this server's
//! files need Python: they are skipped with a message if its virtual environments are missing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::pythons::python;
use crate::support::storage::*;
use runzeo::ids::{Oid, Tid};
use runzeo::internal::storage::file::parse_index;
use runzeo::storage::file::{FileStorage, FileStorageOptions};
use runzeo::storage::prelude::*;
use runzeo::storage::{Staged, StorageError};

fn hexed(bytes: &[u8]) -> String {
    if bytes.is_empty() { "-".into() } else { bytes.iter().map(|b| format!("{b:02x}")).collect() }
}

fn short(data: &[u8]) -> String {
    let mut crc = flate2::Crc::new();
    crc.update(data);
    format!("{}:{:08x}", data.len(), crc.sum())
}

/// The output of `python-fixtures/data-fs/dump.py`, from this server. Extensions are compared only by presence if
/// `by_presence`.
fn dump(storage: &FileStorage, by_presence: bool) -> String {
    let mut out = String::new();
    let last = storage.last_transaction();
    writeln!(out, "N {} {} {last}", storage.object_count(), storage.size()).unwrap();
    let mut tids = Vec::new();
    let mut it = storage.iterate(None, None).unwrap();
    while let Some(txn) = it.next_transaction().unwrap() {
        let extension = match (by_presence, txn.meta.extension.is_empty()) {
            (true, false) => "dict".into(),
            _ => hexed(&txn.meta.extension),
        };
        let (user, description) = (hexed(&txn.meta.user), hexed(&txn.meta.description));
        writeln!(out, "T {} {:02x} {user} {description} {extension}", txn.tid, txn.status).unwrap();
        tids.push(txn.tid);
        let mut records = it.records().unwrap();
        while let Some(r) = records.next_record().unwrap() {
            let data_txn = r.data_txn.map_or("-".into(), |tid| tid.to_string());
            let data = r.data.map_or("-".into(), |data| short(&data));
            writeln!(out, "R {} {} {data_txn} {data}", r.oid, r.tid).unwrap();
        }
    }
    tids.push(Tid(last.0 + 1));
    // Without record_iternext, which stops at objects that are gone.
    let mut oids = std::collections::BTreeSet::new();
    let mut it = storage.iterate(None, None).unwrap();
    while it.next_transaction().unwrap().is_some() {
        let mut records = it.records().unwrap();
        while let Some(r) = records.next_record().unwrap() {
            oids.insert(r.oid);
        }
    }
    for Oid(oid) in oids {
        let name = Oid(oid);
        match load(storage, oid) {
            Ok((data, tid)) => writeln!(out, "L {name} {tid} {}", short(&data)).unwrap(),
            Err(StorageError::PosKey(_)) => writeln!(out, "L {name} POSKeyError").unwrap(),
            Err(error) => panic!("{error}"),
        }
        for &before in &tids {
            match load_before(storage, oid, before) {
                Ok(Some((data, tid, end))) => {
                    let end = end.map_or("-".into(), |end| end.to_string());
                    writeln!(out, "B {name} {before} {tid} {end} {}", short(&data)).unwrap();
                }
                Ok(None) => writeln!(out, "B {name} {before} None").unwrap(),
                Err(StorageError::PosKey(_)) => writeln!(out, "B {name} {before} POSKeyError").unwrap(),
                Err(error) => panic!("{error}"),
            }
        }
        let history = storage.history(name, 100).unwrap();
        let history: String = history.iter().map(|h| format!(" {}:{}", h.tid, h.size)).collect();
        writeln!(out, "H {name}{history}").unwrap();
    }
    out
}

/// For an object that is gone, `loadBefore` of ZODB3 gives empty data; later ones raise.
fn as_newer(dump: &str) -> String {
    let lines = dump.lines().map(|line| match line.strip_suffix(" - 0:00000000") {
        Some(line) if line.starts_with("B ") => {
            format!("{} POSKeyError\n", line.rsplit_once(' ').expect("a tid is before it").0)
        }
        _ => format!("{line}\n"),
    });
    lines.collect()
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("python-fixtures/data-fs")
}

fn same(ours: &str, pythons: &str, what: &str) {
    let pythons = as_newer(pythons);
    for (n, (a, b)) in ours.lines().zip(pythons.lines()).enumerate() {
        assert_eq!(a, b, "{what}: line {}: ours, then Python's", n + 1);
    }
    assert_eq!(ours.lines().count(), pythons.lines().count(), "{what}");
}

#[test]
fn what_python_wrote() {
    let mut count = 0;
    for entry in std::fs::read_dir(fixtures()).unwrap() {
        let fixture = entry.unwrap().path();
        let Ok(expected) = std::fs::read_to_string(fixture.join("expected.txt")) else { continue };
        count += 1;
        let name = fixture.file_name().unwrap().to_string_lossy().into_owned();
        let by_presence = !name.starts_with("zeo5") && !name.starts_with("zeo6");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("Data.fs");
        std::fs::copy(fixture.join("Data.fs"), &path).unwrap();
        std::fs::copy(fixture.join("Data.fs.index"), dir.path().join("Data.fs.index")).unwrap();
        let before = std::fs::read(&path).unwrap();

        let with_index = open(&path);
        assert!(with_index.used_index(), "{name}");
        same(&dump(&with_index, by_presence), &expected, &name);
        drop(with_index);
        std::fs::remove_file(dir.path().join("Data.fs.index")).unwrap();
        let without = open(&path);
        assert!(!without.used_index());
        same(&dump(&without, by_presence), &expected, &name);
        drop(without);
        assert!(std::fs::read(&path).unwrap() == before, "{name}: the file is as it was");

        let ours = std::fs::read(dir.path().join("Data.fs.index")).unwrap();
        let pythons = std::fs::read(fixture.join("Data.fs.index")).unwrap();
        if name.starts_with("zeo") {
            // This server appends an oid mark to Python's index, so that ids of Python's clients are
            // not given out again.
            assert!(ours.starts_with(&pythons), "{name}: the index, byte for byte");
        } else {
            assert_eq!(objects(&ours), objects(&pythons), "{name}: the index");
        }
    }
    assert!(count >= 6, "fixtures are missing");
}

fn objects(index: &[u8]) -> (u64, BTreeMap<u64, u64>) {
    let parsed = parse_index(index).unwrap();
    (parsed.pos, parsed.objects().map(|(oid, pos)| (oid.0, pos)).collect())
}

fn run(python: &Path, script: &str, path: &Path) -> String {
    let mut command = Command::new(python);
    command.arg(fixtures().join(script)).arg(path).env("PYTHONDONTWRITEBYTECODE", "1");
    let output = command.output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{out}{}", String::from_utf8_lossy(&output.stderr));
    out
}

/// Writes one of each kind of record.
fn write_some(storage: &FileStorage, python2: bool) {
    let commit = |mut txn: Staged| {
        txn.set_python2(python2);
        commit_staged(storage, txn).unwrap()
    };
    let mut txn = staged();
    txn.store(Oid(0), Tid::ZERO, b"root").unwrap();
    txn.store(Oid(1), Tid::ZERO, b"one").unwrap();
    let t1 = commit(txn);
    let mut txn = Staged::new(meta("someone", "spilled"), None, b' ', 10);
    txn.store(Oid(1), t1, &[1; 70_000]).unwrap();
    txn.store(Oid(70_000), Tid::ZERO, &[0; 20_000]).unwrap();
    txn.store(Oid(1 << 40), Tid::ZERO, b"far").unwrap();
    let t2 = commit(txn);
    let mut txn = staged();
    txn.delete(Oid(1 << 40), t2).unwrap();
    txn.check_current(Oid(0), t1);
    commit(txn);
    let tid = Tid(Tid::now().0 + (1 << 20));
    let mut txn = Staged::new(meta("", ""), Some(tid), b'p', 1000);
    txn.restore(Oid(1), tid, Some(b"one"), Some(t1)).unwrap();
    txn.restore(Oid(0), tid, None, None).unwrap();
    txn.restore(Oid(5), tid, Some(b"five"), Some(t1)).unwrap();
    commit(txn);
    commit(staged());
    for n in 0..60 {
        let mut txn = staged();
        txn.store(Oid(1000 + n), Tid::ZERO, format!("object {n}").as_bytes()).unwrap();
        commit(txn);
    }
}

#[test]
fn what_we_write_python_reads() {
    for name in ["zodb310-py27", "zeo4-py27", "zeo5-py38", "zeo6-py311"] {
        let Some(python) = python(name) else { continue };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("Data.fs");
        let storage = open(&path);
        write_some(&storage, name.ends_with("py27"));
        let by_presence = true;
        let ours = dump(&storage, by_presence);
        // At the same time as this server, without its lock or index.
        same(&ours, &run(&python, "dump.py", &path), name);
        storage.close().unwrap();
        let index = std::fs::read(dir.path().join("Data.fs.index")).unwrap();
        same(&ours, &run(&python, "dump.py", &path), name);
        assert_eq!(run(&python, "reopen.py", &path), "used index: 1\n", "{name}");
        let pythons = std::fs::read(dir.path().join("Data.fs.index")).unwrap();
        if name.starts_with("zeo") {
            assert_eq!(index, pythons, "{name}: the index, byte for byte");
        }
        let again = open(&path);
        assert!(again.used_index());
        same(&dump(&again, by_presence), &ours, name);
    }
}

#[test]
fn python_sees_what_survives_a_kill() {
    for name in ["zeo4-py27", "zeo6-py311"] {
        let Some(python) = python(name) else { continue };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("Data.fs");
        let storage = open(&path);
        write_some(&storage, name.ends_with("py27"));
        let copy = dir.path().join("Copy.fs");
        for suffix in ["", ".tmp", ".index"] {
            let from = format!("{}{suffix}", path.display());
            std::fs::copy(from, format!("{}{suffix}", copy.display())).unwrap();
        }
        // The index of an empty file is there, and refused.
        let said = run(&python, "reopen.py", &copy);
        assert!(said.contains("Ignoring index") && said.contains("used index: 0"), "{name}: {said}");
        same(&dump(&storage, true), &run(&python, "dump.py", &copy), name);
    }
}

#[test]
fn python_and_we_lock_each_other_out() {
    for name in ["zodb310-py27", "zeo4-py27", "zeo6-py311"] {
        let Some(python) = python(name) else { continue };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("Data.fs");
        let storage = open(&path);
        let mut txn = staged();
        txn.set_python2(name.ends_with("py27"));
        txn.store(Oid(0), Tid::ZERO, b"x").unwrap();
        commit_staged(&storage, txn).unwrap();
        let script = "import sys; from ZODB.FileStorage import FileStorage; s = FileStorage(sys.argv[1]); \
                      sys.stdout.write('open\\n'); sys.stdout.flush(); sys.stdin.readline()";
        let start = || {
            let mut command = Command::new(&python);
            command.args(["-c", script]).arg(&path);
            command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
            command.stderr(std::process::Stdio::piped()).spawn().unwrap()
        };
        let output = start().wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("LockError"), "{name}: {said}");
        storage.close().unwrap();
        let mut child = start();
        let mut line = [0; 5];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
        let error = FileStorage::open(FileStorageOptions::new(&path)).err().unwrap().to_string();
        assert!(error.contains(&format!("process {}", child.id())), "{name}: {error}");
        drop(child.stdin.take());
        child.wait().unwrap();
        open(&path);
    }
}
