//! A `Data.fs` that is replaced while it is served.
//!
//! An operator put a backup in its place and the nightly pack came before the restart: the pack renamed its own file
//! over the backup. A shorter backup was copied over the file and the server stopped: it filled the backup with zeros
//! up to the old length. Commits went into a file without a name, without an error. Now, when the name belongs to
//! another file, no file is renamed, cut off or committed to; the storage becomes read-only, the log says what to do,
//! and after a restart the new file is served, byte for byte.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::client::{RawClient, Speaks, record};
use crate::support::pickle::Value;
use crate::support::process::Server;
use runzeo::ids::{Oid, Tid};
use runzeo::internal::pickle::refs::references;
use runzeo::storage::file::{FileStorage, FileStorageOptions};
use runzeo::storage::prelude::*;
use runzeo::storage::{PackProgress, PackRequest, Removals, Result, Staged, TidAt, TransactionMeta};

/// How the file is replaced.
#[derive(Clone, Copy, Debug)]
enum How {
    /// `mv backup Data.fs`
    Renamed,
    /// `cp backup Data.fs`
    Copied,
    /// `cp longer Data.fs`
    CopiedLonger,
    /// `truncate -s 100 Data.fs`
    Truncated,
    /// `rm Data.fs`
    Removed,
    /// `mv Data.fs elsewhere`
    MovedAway,
    /// `ln -f backup Data.fs`
    Linked,
}

const ALL: [How; 7] =
    [How::Renamed, How::Copied, How::CopiedLonger, How::Truncated, How::Removed, How::MovedAway, How::Linked];

fn exchange(dir: &Path, how: How) {
    let (file, backup) = (dir.join("Data.fs"), dir.join("backup"));
    match how {
        How::Renamed => fs::rename(&backup, &file).unwrap(),
        How::Copied => _ = fs::copy(&backup, &file).unwrap(),
        How::CopiedLonger => {
            // As from another server with the same history.
            let mut longer = fs::read(&backup).unwrap();
            let txn = longer[4..].to_vec();
            while longer.len() as u64 <= fs::metadata(&file).unwrap().len() {
                longer.extend_from_slice(&txn);
            }
            fs::write(&file, longer).unwrap();
        }
        How::Truncated => fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(100).unwrap(),
        How::Removed => fs::remove_file(&file).unwrap(),
        How::MovedAway => fs::rename(&file, dir.join("elsewhere")).unwrap(),
        How::Linked => {
            fs::remove_file(&file).unwrap();
            fs::hard_link(&backup, &file).unwrap();
        }
    }
}

/// A server whose file is longer than the backup beside it.
fn served() -> (Server, RawClient, u64) {
    let server = Server::start_storage("", "pack-keep-old false");
    let (mut client, _) = RawClient::register(server.address, Speaks::Z5).unwrap();
    let mut serial = 0;
    for n in 0..6 {
        if n == 3 {
            fs::copy(server.directory().join("Data.fs"), server.directory().join("backup")).unwrap();
        }
        serial = client.commit(&[(0, serial, &record(&[n; 500]))]).unwrap().unwrap();
    }
    (server, client, serial)
}

fn pack(client: &mut RawClient) -> std::result::Result<Value, (String, Value)> {
    client.call("pack", vec![Value::Float(4e9), Value::Bool(true)]).unwrap()
}

/// The current content of the file with this name.
fn there(server: &Server) -> Option<Vec<u8>> {
    fs::read(server.directory().join("Data.fs")).ok()
}

fn check_left_alone(mut server: Server, how: How, put_there: Option<Vec<u8>>) {
    // The first failure may have been a read.
    server.wait_for_log("exchanged while it was served");
    assert_eq!(there(&server), put_there, "{how:?}: before the stop");
    let log = server.log();
    let lines = log.lines().filter(|line| line.contains("exchanged while it was served"));
    assert_eq!(lines.filter(|line| line.contains("CRITICAL")).count(), 1, "{how:?}: {log}");
    assert!(log.contains("/proc/") && log.contains("read-only"), "{how:?}: {log}");
    server.stop();
    assert_eq!(there(&server), put_there, "{how:?}: after the stop");
    assert!(!server.directory().join("Data.fs.old").exists(), "{how:?}");
}

#[test]
fn a_pack_does_not_touch_it() {
    for how in ALL {
        let (server, mut client, _) = served();
        exchange(server.directory(), how);
        let put_there = there(&server);
        assert!(pack(&mut client).is_err(), "{how:?}");
        check_left_alone(server, how, put_there);
    }
}

#[test]
fn nothing_is_committed_to_a_file_that_nobody_will_find() {
    for how in ALL {
        let (server, mut client, serial) = served();
        exchange(server.directory(), how);
        let put_there = there(&server);
        // At once if the open file shows it, otherwise within seconds.
        let at_once = !matches!(how, How::MovedAway | How::CopiedLonger);
        if !at_once {
            server.wait_for_log("exchanged while it was served");
        }
        assert!(client.commit(&[(0, serial, &record(b"lost"))]).unwrap().is_err(), "{how:?}");
        check_left_alone(server, how, put_there);
    }
}

/// Between vote and finish, after all checks.
#[test]
fn what_has_voted_is_not_finished() {
    for how in [How::Renamed, How::Copied, How::Truncated, How::Removed, How::Linked] {
        let (server, mut client, serial) = served();
        client.queue_begin(1);
        client.queue_store(0, serial, &record(b"voted"), 1);
        client.call("vote", vec![Value::Int(1)]).unwrap().unwrap();
        exchange(server.directory(), how);
        let put_there = there(&server);
        let finished = client.call("tpc_finish", vec![Value::Int(1)]).unwrap();
        assert!(finished.is_err(), "{how:?}: {finished:?}");
        check_left_alone(server, how, put_there);
    }
}

/// During a pack's copying: the pack does not take over the name.
#[test]
fn a_pack_that_is_under_way_does_not_take_its_name() {
    struct Exchange<'a>(&'a Path, How, AtomicBool);
    impl Removals for Exchange<'_> {
        fn left_out(&self, _: Oid, _: Option<Tid>, _: &[u8]) -> Result<()> {
            if !self.2.swap(true, Ordering::Relaxed) {
                exchange(self.0, self.1);
            }
            Ok(())
        }

        fn packed(&self) -> Result<()> {
            panic!("it was packed");
        }
    }
    for how in [How::Renamed, How::Removed, How::MovedAway, How::Linked] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("Data.fs");
        let storage = FileStorage::open(FileStorageOptions::new(&path)).unwrap();
        let mut serial = Tid::ZERO;
        for n in 0..5u8 {
            let mut txn = Staged::new(TransactionMeta::default(), None, b' ', 1 << 20);
            txn.store(Oid(0), serial, &record(&[n; 100])).unwrap();
            // Without a publisher, a single finish is done when it returns.
            storage.finish(storage.vote(txn, TidAt::Finish).unwrap(), Box::new(()));
            serial = storage.last_transaction();
            if n == 2 {
                fs::copy(&path, dir.path().join("backup")).unwrap();
            }
        }
        let exchange = Exchange(dir.path(), how, AtomicBool::new(false));
        let progress = PackProgress::default();
        let packed = storage.pack(&PackRequest {
            time: Tid::now().to_unix() + 1.0,
            gc: Some(false),
            references: &references,
            progress: &progress,
            removals: Some(&exchange),
        });
        assert!(packed.is_err() && exchange.2.load(Ordering::Relaxed), "{how:?}: {packed:?}");
        let put_there = fs::read(&path).ok();
        let expected = match how {
            How::Removed | How::MovedAway => None,
            How::Linked => fs::read(dir.path().join("backup")).ok(),
            _ => put_there.clone(),
        };
        assert_eq!(put_there, expected, "{how:?}");
        assert!(storage.is_read_only() && !dir.path().join("Data.fs.pack").exists(), "{how:?}");
        storage.close().unwrap();
        assert_eq!(fs::read(&path).ok(), put_there, "{how:?}");
    }
}

#[test]
fn it_is_noticed_without_a_commit_too() {
    let servers: Vec<_> = ALL
        .iter()
        .map(|how| {
            let (server, client, _) = served();
            exchange(server.directory(), *how);
            (*how, there(&server), server, client)
        })
        .collect();
    for (how, put_there, server, _client) in servers {
        server.wait_for_log("exchanged while it was served");
        check_left_alone(server, how, put_there);
    }
}

#[test]
fn a_stop_leaves_it_as_it_is() {
    for how in ALL {
        let (mut server, client, _) = served();
        exchange(server.directory(), how);
        let put_there = there(&server);
        drop(client);
        server.stop();
        assert_eq!(there(&server), put_there, "{how:?}");
    }
}

/// A copy of the same file: nothing is lost yet, and on file systems with invented inode numbers it looks like the same
/// file. The first commit, which the copy does not get, reveals it.
#[test]
fn a_copy_is_told_from_the_file_by_the_next_commit() {
    let (server, mut client, serial) = served();
    let dir = server.directory();
    fs::rename(dir.join("Data.fs"), dir.join("elsewhere")).unwrap();
    fs::copy(dir.join("elsewhere"), dir.join("Data.fs")).unwrap();
    std::thread::sleep(Duration::from_millis(2500));
    assert!(!server.log().contains("exchanged"), "{}", server.log());
    client.commit(&[(0, serial, &record(b"not in the copy"))]).unwrap().unwrap();
    server.wait_for_log("exchanged while it was served");
}

/// The new file is served after a restart, and clients notice that its history differs.
#[test]
fn after_a_restart_the_backup_is_served() {
    for how in [How::Renamed, How::Copied, How::Linked] {
        let (mut server, client, serial) = served();
        let backup = fs::read(server.directory().join("backup")).unwrap();
        exchange(server.directory(), how);
        drop(client);
        server.restart();
        // It listens before the storage is open.
        let (mut client, last) = RawClient::register(server.address, Speaks::Z5).unwrap();
        let file = there(&server).unwrap();
        assert!(file.starts_with(&backup) && file.len() > backup.len(), "{how:?}: with a marker");
        assert!(last.unwrap() > serial, "{how:?}");
        let answer =
            client.call("getInvalidations", vec![crate::support::pickle::id(serial)]).unwrap().unwrap();
        assert!(answer.is_none(), "{how:?}: {answer:?}");
        assert!(server.log().contains("is not in storage '1'"), "{}", server.log());
    }
}

/// A missing mount: a new database took the place of the missing one.
#[test]
fn a_missing_file_beside_its_index_is_an_error() {
    let (mut server, client, _) = served();
    drop(client);
    server.stop();
    let file = server.directory().join("Data.fs");
    fs::rename(&file, server.directory().join("elsewhere")).unwrap();
    let ended = server.run_to_its_end();
    assert!(!ended.success(), "{}", server.talk());
    let talk = server.talk() + &server.log();
    assert!(
        talk.contains("Data.fs is missing") && talk.contains("Data.fs.index is of a file of at least"),
        "{talk}"
    );
    assert!(!file.exists());
}
