//! `zeofs tail --follow` on a file that a storage writes, packs and gets back from a backup.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use runzeo::ids::{Oid, Tid};
use runzeo::internal::pickle::refs::references;
use runzeo::storage::file::FileStorage;
use runzeo::storage::prelude::*;
use runzeo::storage::{PackProgress, PackRequest};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::storage::{commit, open, referring_to};

/// The program, and its lines.
pub struct Tail {
    child: Child,
    pub lines: Receiver<String>,
}

impl Tail {
    pub fn start(options: &[&str], path: &Path) -> Tail {
        let mut child = Command::new(env!("CARGO_BIN_EXE_zeofs"))
            .args(["tail", "-f"])
            .args(options)
            .arg(path)
            .stdout(Stdio::piped())
            .spawn()
            .expect("it runs");
        let lines = lines(child.stdout.take().expect("piped"));
        Tail { child, lines }
    }

    pub fn next(&self) -> Value {
        let line = self.lines.recv_timeout(Duration::from_secs(30)).expect("a line");
        serde_json::from_str(&line).expect("JSON")
    }

    /// The next is this transaction.
    pub fn expect(&self, tid: Tid) -> Value {
        let line = self.next();
        assert_eq!(
            (line["kind"].as_str(), line["tid"].as_str()),
            (Some("transaction"), Some(&*tid.to_string())),
            "{line}"
        );
        line
    }

    pub fn expect_nothing(&self) {
        let found = self.lines.recv_timeout(Duration::from_millis(1500));
        assert_eq!(found, Err(RecvTimeoutError::Timeout));
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Its exit status.
    pub fn wait(&mut self) -> Option<i32> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = self.child.try_wait().expect("it was started") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it does not end");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        // It may have ended.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn lines(output: ChildStdout) -> Receiver<String> {
    let (to, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines() {
            if to.send(line.expect("text")).is_err() {
                break;
            }
        }
    });
    lines
}

fn pack(storage: &FileStorage, gc: bool) {
    let progress = PackProgress::default();
    let time = Tid::now().to_unix() + 1.0;
    let request =
        PackRequest { time, gc: Some(gc), references: &references, progress: &progress, removals: None };
    storage.pack(&request).expect("it is packed");
}

/// A storage with two transactions.
fn storage() -> (TempDir, PathBuf, FileStorage, [Tid; 2]) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("Data.fs");
    let storage = open(&path);
    let first = commit(&storage, &[(0, Tid::ZERO, &referring_to(&[]))]).unwrap();
    let second = commit(&storage, &[(0, first, &referring_to(&[1])), (1, Tid::ZERO, b"cm\nD\n.N.")]).unwrap();
    (dir, path, storage, [first, second])
}

#[test]
fn each_transaction_is_shown_as_it_comes() {
    let (_dir, path, storage, [first, second]) = storage();
    let mut tail = Tail::start(&["--json", "-n", "1"], &path);
    let shown = tail.expect(second);
    assert_eq!((shown["user"].as_str(), shown["description"].as_str()), (Some("user"), Some("description")));
    assert_eq!(shown["records"], 2);
    assert_eq!(shown["objects"][0]["class"], "m.C");
    assert_eq!(shown["objects"][1], serde_json::json!({"oid": "0000000000000001", "class": "m.D", "len": 8}));
    let mut serial = second;
    for _ in 0..20 {
        serial = commit(&storage, &[(1, serial, b"cm\nD\n.N.")]).unwrap();
        tail.expect(serial);
    }
    tail.expect_nothing();
    tail.signal(Signal::TERM);
    assert_eq!(tail.wait(), Some(0));
    let tail = Tail::start(&["--json", "-n", "99"], &path);
    tail.expect(first);
    tail.expect(second);
}

/// Threads commit at the same time, in groups, while packs exchange the file: each transaction is shown once, in order.
#[test]
fn none_is_missed_or_shown_twice() {
    let (_dir, path, storage, [_, second]) = storage();
    let tail = Tail::start(&["--json", "-n", "1"], &path);
    tail.expect(second);
    let (storage, mut tids) = (&storage, Vec::new());
    thread::scope(|scope| {
        let committers: Vec<_> = (0..4)
            .map(|number| {
                scope.spawn(move || {
                    let (oid, mut serial, mut tids) = (10 + number, Tid::ZERO, Vec::new());
                    for _ in 0..150 {
                        serial = commit(storage, &[(oid, serial, &vec![b'x'; 3000])]).unwrap();
                        tids.push(serial);
                    }
                    tids
                })
            })
            .collect();
        while committers.iter().any(|committer| !committer.is_finished()) {
            thread::sleep(Duration::from_millis(20));
            // Nothing can be taken out: it ends before these transactions.
            let progress = PackProgress::default();
            let time = second.to_unix() + 0.000_001;
            let request = PackRequest {
                time,
                gc: Some(false),
                references: &references,
                progress: &progress,
                removals: None,
            };
            storage.pack(&request).expect("it is packed");
        }
        tids = committers.into_iter().flat_map(|committer| committer.join().unwrap()).collect();
    });
    tids.sort_unstable();
    let mut replaced = 0;
    for tid in tids {
        let mut line = tail.next();
        while line["kind"] == "replaced" {
            replaced += 1;
            line = tail.next();
        }
        assert_eq!(
            (line["kind"].as_str(), line["tid"].as_str()),
            (Some("transaction"), Some(&*tid.to_string())),
            "{line}"
        );
    }
    // The last one may come behind the last transaction.
    while let Ok(line) = tail.lines.recv_timeout(Duration::from_secs(1)) {
        assert!(line.contains("\"replaced\""), "{line}");
        replaced += 1;
    }
    assert!(replaced > 0);
}

#[test]
fn an_empty_file_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let storage = open(&path);
    let mut tail = Tail::start(&["--json"], &path);
    tail.expect_nothing();
    let tid = commit(&storage, &[(0, Tid::ZERO, &referring_to(&[]))]).unwrap();
    tail.expect(tid);
    tail.signal(Signal::INT);
    assert_eq!(tail.wait(), Some(0));
}

/// A transaction that came just before the pack, and that the pack has taken out, is in the former file.
#[test]
fn a_pack_hides_nothing() {
    let (_dir, path, storage, [_, second]) = storage();
    let tail = Tail::start(&["--json", "-n", "1"], &path);
    tail.expect(second);
    tail.signal(Signal::STOP);
    let packed_away = commit(&storage, &[(1, second, b"cm\nD\n.N.")]).unwrap();
    let third = commit(&storage, &[(1, packed_away, b"cm\nE\n.N.")]).unwrap();
    pack(&storage, false);
    assert!(storage.load_serial(Oid(1), packed_away, 0, &mut Vec::new()).is_err());
    let fourth = commit(&storage, &[(1, third, b"cm\nE\n.N.")]).unwrap();
    tail.signal(Signal::CONT);
    tail.expect(packed_away);
    tail.expect(third);
    let line = tail.next();
    assert_eq!(
        (line["kind"].as_str(), line["found"].as_str()),
        (Some("replaced"), Some(&*third.to_string()))
    );
    let shown = tail.expect(fourth);
    assert_eq!(shown["objects"][0]["class"], "m.E");
    // The last transaction that was shown is packed away.
    let fifth = commit(&storage, &[(2, Tid::ZERO, b"cm\nD\n.N.")]).unwrap();
    tail.expect(fifth);
    pack(&storage, true);
    let line = tail.next();
    assert_eq!(
        (line["kind"].as_str(), line["found"].as_str()),
        (Some("replaced"), Some(&*fourth.to_string()))
    );
    let sixth = commit(&storage, &[(1, fourth, b"cm\nE\n.N.")]).unwrap();
    tail.expect(sixth);
}

#[test]
fn a_restored_file_is_said_and_followed() {
    for in_place in [false, true] {
        let (dir, path, storage, [_, second]) = storage();
        let backup = dir.path().join("backup.fs");
        fs::copy(&path, &backup).unwrap();
        let lost = commit(&storage, &[(1, second, b"cm\nD\n.N.")]).unwrap();
        let tail = Tail::start(&["--json", "-n", "1"], &path);
        tail.expect(lost);
        storage.close().unwrap();
        if in_place {
            fs::copy(&backup, &path).unwrap();
        } else {
            fs::rename(&backup, &path).unwrap();
        }
        let line = tail.next();
        assert_eq!(line["kind"], "restored", "{line}");
        assert_eq!(
            (line["last"].as_str(), line["found"].as_str()),
            (Some(&*lost.to_string()), Some(&*second.to_string()))
        );
        tail.expect_nothing();
        fs::remove_file(dir.path().join("Data.fs.index")).unwrap();
        let storage = open(&path);
        let new = commit(&storage, &[(1, second, b"cm\nF\n.N.")]).unwrap();
        // The storage has noticed it, too.
        let note = tail.next();
        assert!(note["description"].as_str().unwrap().contains("restored"), "{note}");
        assert_eq!(tail.expect(new)["objects"][0]["class"], "m.F");
    }
}

/// What is there is no transaction as long as its end is missing.
#[test]
fn a_transaction_is_shown_when_it_is_whole() {
    let (dir, path, storage, [_, second]) = storage();
    let before = fs::read(&path).unwrap();
    let third = commit(&storage, &[(1, second, b"cm\nD\n.N.")]).unwrap();
    storage.close().unwrap();
    let whole = fs::read(&path).unwrap();
    let copy = dir.path().join("copy.fs");
    fs::write(&copy, &before).unwrap();
    let tail = Tail::start(&["--json", "-n", "1"], &copy);
    tail.expect(second);
    let grow = |bytes: &[u8]| {
        use std::io::Write;
        fs::OpenOptions::new().append(true).open(&copy).unwrap().write_all(bytes).unwrap();
    };
    let rest = &whole[before.len()..];
    for part in [&rest[..10], &rest[10..50], &rest[50..rest.len() - 1]] {
        grow(part);
        tail.expect_nothing();
    }
    grow(&rest[rest.len() - 1..]);
    tail.expect(third);
    // Voted, and finished later.
    let mut voted = rest.to_vec();
    voted[16] = b'c';
    let tid = Tid(third.0 + 1);
    voted[..8].copy_from_slice(&tid.to_bytes());
    let tpos = whole.len();
    grow(&voted);
    tail.expect_nothing();
    use std::os::unix::fs::FileExt;
    fs::OpenOptions::new().write(true).open(&copy).unwrap().write_all_at(b" ", tpos as u64 + 16).unwrap();
    tail.expect(tid);
}

/// What others follow, and still cannot be read after some seconds, is damage.
#[test]
fn damage_is_said_and_passed() {
    let (dir, path, storage, [_, second]) = storage();
    let third = commit(&storage, &[(1, second, b"cm\nD\n.N.")]).unwrap();
    let fourth = commit(&storage, &[(1, third, b"cm\nD\n.N.")]).unwrap();
    let positions = crate::support::storage::transactions(&fs::read(&path).unwrap());
    storage.close().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[positions[2] + 8..positions[2] + 60].fill(0xff);
    let copy = dir.path().join("copy.fs");
    fs::write(&copy, &bytes[..positions[2]]).unwrap();
    let tail = Tail::start(&["--json", "-n", "1"], &copy);
    tail.expect(second);
    fs::write(&copy, &bytes).unwrap();
    let line = tail.next();
    assert_eq!(
        (line["kind"].as_str(), line["pos"].as_u64()),
        (Some("damage"), Some(positions[2] as u64)),
        "{line}"
    );
    tail.expect(fourth);
}

/// As `zeofs tail -f Data.fs | head -1`: the end of the reader ends it, also if nothing is committed any more.
#[test]
fn it_ends_with_its_reader() {
    let (_dir, path, _storage, _) = storage();
    let mut child = Command::new(env!("CARGO_BIN_EXE_zeofs"))
        .args(["tail", "-f"])
        .arg(&path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 5];
    let mut output = child.stdout.take().unwrap();
    output.read_exact(&mut first).unwrap();
    drop(output);
    let (_to, lines) = channel();
    let mut tail = Tail { child, lines };
    assert_eq!(tail.wait(), Some(0));
}

#[test]
fn words_for_people() {
    let (dir, path, storage, [_, second]) = storage();
    let backup = dir.path().join("backup.fs");
    fs::copy(&path, &backup).unwrap();
    let mut tail = Tail::start(&["-n", "0"], &path);
    let line = || tail.lines.recv_timeout(Duration::from_secs(30)).expect("a line");
    assert!(line().contains(", in use by process "));
    let stores: Vec<(u64, Tid, &[u8])> = (10..35).map(|oid| (oid, Tid::ZERO, &b"cm\nD\n.N."[..])).collect();
    let third = commit(&storage, &stores).unwrap();
    let text: Vec<String> = (0..26).map(|_| line()).collect();
    assert!(text[1].contains(&third.to_string()), "{text:?}");
    assert_eq!(
        text[2..5],
        ["    user \"user\"", "    description \"description\"", "    records: 25 (25 m.D)"]
    );
    assert_eq!(text[5], "        0x0a  m.D  8 bytes");
    assert_eq!(text[25], "        ... and 5 more");
    pack(&storage, false);
    assert_eq!(line(), "");
    assert!(line().contains(" is a new file, as after a pack; going on behind "));
    storage.close().unwrap();
    fs::rename(&backup, &path).unwrap();
    let text: Vec<String> = (0..3).map(|_| line()).collect();
    assert!(
        text[1].contains(&format!("{third} is not in it")) && text[1].contains(" was RESTORED: "),
        "{text:?}"
    );
    assert!(text[2].ends_with(&second.to_string()), "{text:?}");
    tail.signal(Signal::INT);
    assert_eq!(tail.wait(), Some(0));
    let output =
        Command::new(env!("CARGO_BIN_EXE_zeofs")).args(["tail", "-f", "/nonexistent"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
}
