//! A conflict that a helper process merges slowly delays only its own transaction: loads of the same client, on the
//! same connection, are answered meanwhile. A merge whose client is gone delays no transaction.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::client::{Incoming, RawClient, Speaks, content, record};
use crate::support::pickle::Value;
use crate::support::process::Server;

/// Stands in for ZODB: reports each request, and answers on command.
const ZODB: &str = r#"
import os, time
here = os.path.dirname(__file__)
class ConflictError(Exception): pass
class ConflictResolvingStorage(object):
    def tryToResolveConflict(self, oid, committed_serial, old_serial, new, committed=b''):
        open(here + '/asked', 'w').close()
        while not os.path.exists(here + '/go'): time.sleep(0.01)
        return new.replace(b'mine', b'both')
"#;

/// A directory with an interpreter that finds the stand-in.
pub fn site() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let package = dir.path().join("ZODB");
    fs::create_dir(&package).unwrap();
    fs::write(package.join("__init__.py"), "").unwrap();
    fs::write(package.join("ConflictResolution.py"), ZODB).unwrap();
    fs::write(package.join("POSException.py"), "from ZODB.ConflictResolution import ConflictError\n")
        .unwrap();
    let interpreter = dir.path().join("python");
    let script = format!("#!/bin/sh\nPYTHONPATH={} exec python3 \"$@\"\n", dir.path().display());
    fs::write(&interpreter, script).unwrap();
    fs::set_permissions(&interpreter, fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

pub fn wait_for(path: &Path) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !path.exists() {
        assert!(Instant::now() < deadline, "there is no {}", path.display());
        thread::sleep(Duration::from_millis(5));
    }
}

pub fn length(count: u8) -> Vec<u8> {
    [&b"cBTrees.Length\nLength\nq\x01.K"[..], &[count], b"."].concat()
}

pub fn has_python() -> bool {
    let found = Command::new("python3").arg("--version").output().is_ok_and(|out| out.status.success());
    if !found {
        eprintln!("SKIPPED: there is no python3");
    }
    found
}

#[test]
fn loads_go_on_while_a_helper_merges() {
    if !has_python() {
        return;
    }
    let site = site();
    let server = Server::start_with(&format!("conflict-resolver {}", site.path().join("python").display()));
    let package = site.path().join("ZODB");
    for speaks in [Speaks::Z5, Speaks::Z4] {
        let (mut client, _) = RawClient::register(server.address, speaks).unwrap();
        let oids = client.new_oids(2).unwrap();
        let (counter, shelf) = (oids[0], oids[1]);
        let first =
            client.commit(&[(counter, 0, &length(5)), (shelf, 0, &record(b"old!"))]).unwrap().unwrap();
        let _ = client
            .commit(&[(counter, first, &length(6)), (shelf, first, &record(b"hers"))])
            .unwrap()
            .unwrap();

        // The counter is merged at once, but has no effect before the helper's answer.
        client.queue_begin(1);
        client.queue_store(counter, first, &length(8), 1);
        client.queue_store(shelf, first, &record(b"mine"), 1);
        let vote = client.queue_call("vote", vec![Value::Int(1)]);
        client.flush().unwrap();
        wait_for(&package.join("asked"));
        for _ in 0..3 {
            let load = client.queue_load(shelf);
            client.flush().unwrap();
            let loaded = loop {
                match client.next().unwrap() {
                    Incoming::Reply { id, value } if id == load => break value,
                    Incoming::Reply { id, .. } | Incoming::Error { id, .. } => {
                        assert_ne!(id, vote, "the vote was answered before its conflict was merged");
                    }
                    Incoming::Push { .. } => {}
                }
            };
            assert_eq!(content(loaded.tuple()[0].bytes()), b"hers");
        }
        fs::write(package.join("go"), "").unwrap();
        client.answer(vote).unwrap().expect("vote");
        client.call("tpc_finish", vec![Value::Int(1)]).unwrap().expect("tpc_finish");
        for (oid, expected) in [(counter, length(9)), (shelf, record(b"both"))] {
            let load = client.queue_load(oid);
            client.flush().unwrap();
            assert_eq!(client.answer(load).unwrap().unwrap().tuple()[0].bytes(), expected);
        }
        fs::remove_file(package.join("asked")).unwrap();
        fs::remove_file(package.join("go")).unwrap();
    }
}

/// A `_p_resolveConflict` hung, its client left, and all transactions on the object waited until the helper's 30
/// seconds were over: the voting thread checked for an abort only after the merge. Now the abort ends the merge. The
/// merge here takes for ever, and the other client would wait as long as the test may take.
#[test]
fn locks_are_free_when_the_client_of_a_merge_that_hangs_is_gone() {
    if !has_python() {
        return;
    }
    let site = site();
    let resolver = format!("conflict-resolver {}", site.path().join("python").display());
    let asked = site.path().join("ZODB").join("asked");
    for (how, keys) in
        [("aborts", ""), ("loses its connection", ""), ("is timed out", "\n  transaction-timeout 5")]
    {
        let server = Server::start_with(&format!("{resolver}{keys}"));
        for speaks in [Speaks::Z5, Speaks::Z4] {
            let (mut other, _) = RawClient::register(server.address, speaks).unwrap();
            let shelf = other.new_oids(1).unwrap()[0];
            let first = other.commit(&[(shelf, 0, &record(b"old!"))]).unwrap().unwrap();
            let second = other.commit(&[(shelf, first, &record(b"hers"))]).unwrap().unwrap();
            let (mut client, _) = RawClient::register(server.address, speaks).unwrap();
            client.queue_begin(1);
            client.queue_store(shelf, first, &record(b"mine"), 1);
            client.queue_call("vote", vec![Value::Int(1)]);
            client.flush().unwrap();
            wait_for(&asked);
            match how {
                "aborts" => {
                    client.queue_call("tpc_abort", vec![Value::Int(1)]);
                    client.flush().unwrap();
                }
                "loses its connection" => drop(client),
                _ => {}
            }
            let third = other.commit(&[(shelf, second, &record(b"next"))]).unwrap();
            assert!(third.is_ok(), "{how}: {third:?}");
            fs::remove_file(&asked).unwrap();
        }
        let log = server.log();
        assert!(log.contains("a client has given up its transaction"), "{how}: {log}");
        assert!(!log.contains("gave no answer"), "{how}: {log}");
    }
}
