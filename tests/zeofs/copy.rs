//! `zeofs copy`, beside ZODB's `copyTransactionsFrom`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use runzeo::ids::Tid;
use runzeo::internal::pickle::refs::references;
use runzeo::storage::prelude::*;
use runzeo::storage::{PackProgress, PackRequest};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::files::{Made, dir_in_memory, fixtures, json, made, zeofs};
use crate::support::client::{RawClient, Speaks};
use crate::support::process::{Server, free_address};
use crate::support::pythons::python;
use crate::support::storage::{commit, load, open, referring_to, transactions};

/// Copies each file on stdin to one with `.python` at the end, as ZODB does.
const SCRIPT: &str = r"
import sys
from ZODB.FileStorage import FileStorage
for line in sys.stdin:
    path = line.rstrip('\n')
    source = FileStorage(path, read_only=True)
    target = FileStorage(path + '.python')
    target.copyTransactionsFrom(source)
    target.close()
    source.close()
";

fn copy(options: &[&str], from: &Path, to: &Path) -> (String, Option<i32>) {
    let output = Command::new(env!("CARGO_BIN_EXE_zeofs"))
        .arg("copy")
        .args(options)
        .args([from, to])
        .output()
        .expect("it runs");
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (text, output.status.code())
}

/// What the JSON object says.
fn copied(options: &[&str], from: &Path, to: &Path) -> Value {
    let (text, status) = copy(&[&["--json"], options].concat(), from, to);
    assert_eq!(status, Some(0), "{text}");
    serde_json::from_str(&text).unwrap()
}

fn diff(a: &Path, b: &Path) -> u8 {
    zeofs(&["diff", a.to_str().unwrap(), b.to_str().unwrap()]).1
}

/// The files without blobs that Python 2 or 3 can open, in a directory of their own.
fn files(magic: &[u8], dir: &Path) -> Vec<PathBuf> {
    let all =
        made().iter().flat_map(|made| made.files.clone()).chain(fixtures().into_iter().map(|(_, path)| path));
    let of_magic = all.filter(|path| fs::read(path).unwrap().starts_with(magic)).enumerate();
    of_magic
        .map(|(number, path)| {
            let copied = dir.join(format!("{number}.fs"));
            fs::copy(path, &copied).unwrap();
            copied
        })
        .collect()
}

/// A copy is byte for byte the one that ZODB makes; but for extensions of Python 2, which ZODB pickles again, and blobs
/// without files, which are left out.
#[test]
fn a_copy_is_that_of_copy_transactions_from() {
    for (environment, magic) in [("zeo6-py311", b"FS30"), ("zeo4-py27", b"FS21")] {
        let Some(python) = python(environment) else { continue };
        let dir = tempfile::tempdir().unwrap();
        let files = files(magic, dir.path());
        let mut child = Command::new(python)
            .args(["-c", SCRIPT])
            .stdin(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let paths: String = files.iter().map(|file| format!("{}\n", file.display())).collect();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), paths.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{environment}");
        let mut same = 0;
        for file in &files {
            let ours = file.with_extension("ours");
            let blobs = dir.path().join("none");
            let (text, status) = copy(
                &["--blob-dir", blobs.to_str().unwrap(), "--to-blob-dir", blobs.to_str().unwrap()],
                file,
                &ours,
            );
            assert!(status == Some(0) || status == Some(4) && text.contains("MISSING: "), "{text}");
            let theirs = PathBuf::from(format!("{}.python", file.display()));
            let is_same = fs::read(&ours).unwrap() == fs::read(&theirs).unwrap();
            same += usize::from(is_same);
            if !is_same {
                assert_eq!(environment, "zeo4-py27", "{}", file.display());
                assert_eq!(json("test", &[], &ours).1, 0);
                let (lines, _) = json("diff", &[theirs.to_str().unwrap()], &ours);
                let changed = lines.iter().filter(|line| line["kind"] == "transaction");
                for line in changed {
                    assert_eq!(line["differs"], serde_json::json!(["extension"]), "{}", file.display());
                }
            }
            assert_eq!(diff(file, &ours), 0, "{}", file.display());
        }
        assert!(same >= files.len() - 4 && same > 3, "{environment}: {same} of {}", files.len());
    }
}

#[test]
fn blobs_come_along() {
    for made in made() {
        for name in ["plain", "packed"] {
            let dir = tempfile::tempdir().unwrap();
            let (from, to) = (made.file(&format!("{name}.fs")), dir.path().join("Data.fs"));
            let blobs = made.file(&format!("blobs-{name}"));
            let to_blobs = dir.path().join("blobs");
            let [blobs, to_blobs] = [&blobs, &to_blobs].map(|path| path.to_str().unwrap());
            let (text, status) = copy(&["--blob-dir", blobs], &from, &to);
            assert!(status == Some(1) && text.contains("--to-blob-dir"), "{text}");
            let (text, status) = copy(&["--to-blob-dir", to_blobs], &from, &to);
            assert!(status == Some(1) && text.contains("(--blob-dir)"), "{text}");
            // What was copied before the blob is there.
            let sums = copied(&["--blob-dir", blobs, "--to-blob-dir", to_blobs], &from, &to);
            assert!(!sums["behind"].is_null(), "{sums}");
            assert_eq!((sums["blobs"].as_u64(), sums["missing_blobs"].as_u64()), (Some(1), Some(0)));
            assert_eq!(diff(&from, &to), 0);
            assert_eq!(json("test", &["-b", to_blobs], &to).1, 0);

            let other = dir.path().join("other.fs");
            let none = dir.path().join("none");
            let none = none.to_str().unwrap();
            let (text, status) = copy(&["--blob-dir", none, "--to-blob-dir", none], &from, &other);
            assert!(status == Some(4) && text.contains("\nMISSING: the file of the blob 0x"), "{text}");
        }
    }
}

/// Whatever the target has already, the rest follows, and the copy is the same file.
#[test]
fn a_copy_goes_on_behind_what_is_there() {
    for made in made() {
        for name in ["small.fs", "unusual.fs", "unpacked.fs"] {
            let from = made.file(name);
            let whole = fs::read(&from).unwrap();
            let dir = dir_in_memory();
            let complete = dir.path().join("complete.fs");
            let all = copied(&[], &from, &complete)["transactions"].as_u64().unwrap();
            let expected = fs::read(&complete).unwrap();
            for (number, end) in transactions(&whole).into_iter().enumerate() {
                let part = dir.path().join(format!("part-{number}.fs"));
                fs::write(&part, &whole[..end]).unwrap();
                let to = dir.path().join(format!("to-{number}.fs"));
                copied(&[], &part, &to);
                let sums = copied(&[], &from, &to);
                assert_eq!(sums["transactions"].as_u64(), Some(all - number as u64), "{name} {number}");
                assert!(fs::read(&to).unwrap() == expected, "{name} {number}");
            }
            assert_eq!(copied(&[], &from, &complete)["transactions"], 0);
        }
    }
}

#[test]
fn a_kill_costs_nothing_but_time() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from.fs"), dir.path().join("to.fs"));
    let storage = open(&from);
    let mut serial = Tid::ZERO;
    for _ in 0..400 {
        serial = commit(&storage, &[(0, serial, &referring_to(&[1]))]).unwrap();
    }
    storage.close().unwrap();
    // Killed before the first byte was written.
    fs::write(&to, "").unwrap();
    let mut kills = 0;
    for millis in (5..200).step_by(15) {
        let mut child =
            Command::new(env!("CARGO_BIN_EXE_zeofs")).arg("copy").args([&from, &to]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(millis));
        child.kill().unwrap();
        kills += u32::from(!child.wait().unwrap().success());
    }
    let (text, status) = copy(&[], &from, &to);
    assert_eq!(status, Some(0), "{text}");
    assert!(kills > 0 && fs::read(&from).unwrap() == fs::read(&to).unwrap());
}

#[test]
fn another_history_is_refused() {
    let Some(made) = made().first() else { return };
    let from = made.file("small.fs");
    let whole = fs::read(&from).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let refused = |name: &str, bytes: &[u8], expected: &str| {
        let to = dir.path().join(name);
        fs::write(&to, bytes).unwrap();
        let (text, status) = copy(&[], &from, &to);
        assert!(
            status == Some(1) && text.contains("the histories differ: ") && text.contains(expected),
            "{name}: {text}"
        );
        assert!(fs::read(&to).unwrap() == bytes, "{name}");
    };
    let changed = |old: &[u8], new: &[u8]| {
        let at = whole.windows(old.len()).position(|window| window == old).expect("it is there");
        let mut bytes = whole.clone();
        bytes[at..at + new.len()].copy_from_slice(new);
        bytes
    };
    refused("user.fs", &changed(b"ud", b"x"), "the user of the transaction");
    refused("description.fs", &changed(b"undo", b"undx"), "the description of the transaction");
    refused("data.fs", &changed(b"changed", b"chanped"), "the object 0x01 of the transaction");
    // One that the source does not have, or not any more.
    let to = dir.path().join("to.fs");
    let storage = open(&to);
    let own = commit(&storage, &[(0, Tid::ZERO, &referring_to(&[]))]).unwrap();
    storage.close().unwrap();
    refused("own.fs", &fs::read(&to).unwrap(), &format!("own.fs has the transaction {own}"));
    let last = *transactions(&whole).last().unwrap();
    let shorter = dir.path().join("shorter.fs");
    fs::write(&shorter, &whole[..last]).unwrap();
    let longer = dir.path().join("longer.fs");
    copied(&[], &from, &longer);
    let (text, status) = copy(&[], &shorter, &longer);
    assert!(status == Some(1) && text.contains("longer.fs has the transaction "), "{text}");
    // A transaction in the middle is missing in the target.
    let positions = transactions(&whole);
    let target = made.file("unpacked.fs");
    refused("other.fs", &fs::read(target).unwrap(), "has the transaction");
    assert!(positions.len() > 3);
}

/// A copy every night goes on after a pack of either file.
#[test]
fn packs_between_two_copies_do_not_matter() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from.fs"), dir.path().join("to.fs"));
    let add = |count: u64| {
        let storage = open(&from);
        let mut serial = storage.get_tid(runzeo::ids::Oid(0)).unwrap_or(Tid::ZERO);
        for number in 0..count {
            let stores = [(0, serial, &referring_to(&[1])[..]), (number + 5, Tid::ZERO, b"cm\nD\n.N.")];
            let taken = storage.get_tid(runzeo::ids::Oid(number + 5)).is_ok();
            serial = commit(&storage, if taken { &stores[..1] } else { &stores }).unwrap();
        }
        storage.close().unwrap();
    };
    let pack = |path: &Path| {
        let storage = open(path);
        let progress = PackProgress::default();
        let time = Tid::now().to_unix() + 1.0;
        let request = PackRequest {
            time,
            gc: Some(false),
            references: &references,
            progress: &progress,
            removals: None,
        };
        storage.pack(&request).unwrap();
        storage.close().unwrap();
    };
    add(5);
    assert_eq!(copied(&[], &from, &to)["transactions"], 5);
    pack(&from);
    add(3);
    assert_eq!(copied(&[], &from, &to)["transactions"], 3);
    pack(&to);
    add(2);
    assert_eq!(copied(&[], &from, &to)["transactions"], 2);
    pack(&from);
    assert_eq!(copied(&[], &from, &to)["transactions"], 0);
    let (_, status) = zeofs(&["diff", "--objects", from.to_str().unwrap(), to.to_str().unwrap()]);
    assert_eq!(status, 0);
}

#[test]
fn files_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from.fs"), dir.path().join("to.fs"));
    let storage = open(&from);
    commit(&storage, &[(0, Tid::ZERO, &referring_to(&[]))]).unwrap();
    assert_eq!(copied(&[], &from, &to)["transactions"], 1);
    let (text, status) = copy(&[], &to, &from);
    assert!(status == Some(1) && text.contains("is another server running?"), "{text}");
    for (arguments, expected) in [(&["a"][..], 2), (&["a", "b", "c"], 2), (&["/nonexistent/a", "b"], 1)] {
        let mut command = vec!["copy"];
        command.extend(arguments);
        assert_eq!(zeofs(&command).1, expected, "{arguments:?}");
    }
}

/// Sections of a configuration: compressed, and other servers on both sides.
#[test]
fn storages_of_a_configuration() {
    made().iter().for_each(check_storages_of_a_configuration);
}

fn check_storages_of_a_configuration(made: &Made) {
    let from = made.file("unpacked.fs");
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start();
    let (path, port) = (dir.path().display(), server.address.port());
    let conf = dir.path().join("zeo.conf");
    let text = format!(
        "%import zc.zlibstorage\n<zeo>\naddress 1\n</zeo>\n\
         <zlibstorage compressed>\n<filestorage>\npath {path}/compressed.fs\n</filestorage>\n</zlibstorage>\n\
         <zeoclient served>\nserver 127.0.0.1:{port}\n</zeoclient>\n<mappingstorage memory>\n</mappingstorage>\n"
    );
    fs::write(&conf, text).unwrap();
    let conf = conf.to_str().unwrap();
    let named = |from: &Path, to: &str| copied(&["-C", conf], from, Path::new(to))["transactions"].as_u64();
    let all = named(&from, "compressed");
    assert!(all > Some(5));
    assert_eq!(named(Path::new("compressed"), "served"), all);
    let back = dir.path().join("back.fs");
    assert_eq!(named(Path::new("served"), back.to_str().unwrap()), all);
    // A server gets the extension as a dict, and pickles it again.
    let (lines, _) = json("diff", &[from.to_str().unwrap()], &back);
    for line in lines.iter().filter(|line| line["kind"] != "sums") {
        assert_eq!(line["differs"], serde_json::json!(["extension"]), "{line}");
    }
    for source in [from.as_path(), Path::new("compressed"), &back] {
        assert_eq!(named(source, "served"), Some(0));
    }
    assert_eq!(named(Path::new("served"), "compressed"), Some(0));
    let compressed = dir.path().join("compressed.fs");
    assert!(fs::read(&compressed).unwrap().windows(2).any(|bytes| bytes == b".z"), "records are compressed");

    for (from, to, status) in [("compressed", "memory", 1), ("memory", "compressed", 1)] {
        assert_eq!(copy(&["-C", conf], Path::new(from), Path::new(to)).1, Some(status));
    }
    let (text, status) = copy(&["-C", conf, "--to-blob-dir", "blobs"], &back, Path::new("compressed"));
    assert!(status == Some(2) && text.contains("--to-blob-dir belongs to a Data.fs"), "{text}");
    let with_blobs = made.file("plain.fs");
    let blobs = made.file("blobs-plain");
    let options = ["-C", conf, "--blob-dir", blobs.to_str().unwrap()];
    let server = Server::start();
    let text = fs::read_to_string(conf)
        .unwrap()
        .replace(&format!(":{port}"), &format!(":{}", server.address.port()));
    fs::write(conf, text).unwrap();
    let (text, status) = copy(&options, &with_blobs, Path::new("served"));
    assert!(status == Some(1) && text.contains("the protocol has no copies of blobs"), "{text}");
}

/// What a demo storage shows becomes one file: the base, and the changes behind it.
#[test]
fn a_demo_storage_becomes_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let base = open(&path("base.fs"));
    let first =
        commit(&base, &[(0, Tid::ZERO, &referring_to(&[1])), (1, Tid::ZERO, &referring_to(&[]))]).unwrap();
    base.close().unwrap();
    let here = dir.path().display();
    let section = format!(
        "<demostorage 1>\n<filestorage base>\npath {here}/base.fs\n</filestorage>\n\
         <filestorage changes>\npath {here}/changes.fs\n</filestorage>\n</demostorage>\n"
    );
    // The changes are those of a server.
    let server = Server::start_any("", &section, |_| {});
    let (mut client, _) = RawClient::register(server.address, Speaks::Z5).unwrap();
    let changed =
        client.commit(&[(1, first.0, &referring_to(&[2])), (2, 0, &referring_to(&[]))]).unwrap().unwrap();
    drop((client, server));

    let conf = path("zeo.conf");
    let in_memory = "<demostorage memory>\n<mappingstorage>\n</mappingstorage>\n</demostorage>\n";
    fs::write(&conf, format!("<zeo>\naddress 1\n</zeo>\n{section}{in_memory}")).unwrap();
    let options = ["-C", conf.to_str().unwrap()];
    assert_eq!(copied(&options, Path::new("1"), &path("flat.fs"))["transactions"], 2);
    let flat = open(&path("flat.fs"));
    for (oid, serial) in [(0, first), (1, Tid(changed)), (2, Tid(changed))] {
        assert_eq!(load(&flat, oid).unwrap().1, serial, "{oid}");
    }
    flat.close().unwrap();
    let (text, status) = copy(&options, Path::new("memory"), &path("other.fs"));
    assert!(status == Some(1) && text.contains("in memory"), "{text}");
}

/// Python's servers take copies and give them.
#[test]
fn storages_of_servers_of_python() {
    for made in made() {
        let dir = tempfile::tempdir().unwrap();
        let address = free_address();
        let conf = |name: &str, text: String| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let served = dir.path().join("served.fs");
        let zeo = format!(
            "<zeo>\naddress {address}\n</zeo>\n<filestorage 1>\npath {}\n</filestorage>\n",
            served.display()
        );
        let server = python(made.environment).unwrap().with_file_name("runzeo");
        let mut child = Command::new(server)
            .arg("-C")
            .arg(conf("server.conf", zeo))
            .current_dir(dir.path())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let ours = format!("<zeo>\naddress 1\n</zeo>\n<zeoclient served>\nserver {address}\n</zeoclient>\n");
        let ours = conf("zeo.conf", ours);
        let (from, back) = (made.file("unpacked.fs"), dir.path().join("back.fs"));
        let options = ["-C", ours.to_str().unwrap()];
        let there = copied(&options, &from, Path::new("served"));
        let again = copied(&options, Path::new("served"), &back);
        assert_eq!(copied(&options, &from, Path::new("served"))["transactions"], 0);
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        child.wait().unwrap();
        assert_eq!(there["transactions"], again["transactions"], "{}", made.environment);
        assert_eq!(diff(&from, &served), 0, "{}", made.environment);
        let (lines, _) = json("diff", &[from.to_str().unwrap()], &back);
        let differing = lines.iter().filter(|line| line["kind"] != "sums");
        differing.for_each(|line| assert_eq!(line["differs"], serde_json::json!(["extension"]), "{line}"));
    }
}

#[test]
fn words_for_people() {
    let Some(made) = made().first() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (made.file("small.fs"), dir.path().join("to.fs"));
    assert_eq!(copy(&[], &from, &to).0, "copied: 6 transactions, 7 records, 0 blobs\n");
    let (text, _) = copy(&[], &from, &to);
    let expected = format!("{} has the past of {} up to 2026-", to.display(), from.display());
    assert!(text.starts_with(&expected), "{text}");
    assert!(text.ends_with("\ncopied: 0 transactions, 0 records, 0 blobs\n"), "{text}");
}
