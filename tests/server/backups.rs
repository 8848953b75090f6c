//! Backups that the server makes by itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::client::{RawClient, Speaks, record};
use crate::support::process::Server;
use crate::support::storage::{commit, open};
use runzeo::ids::Tid;
use runzeo::storage::prelude::*;

pub const FILE: &str = "<filestorage 1>\npath Data.fs\n</filestorage>";

pub fn zeobackup(dir: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_zeobackup"))
        .current_dir(dir)
        .args(arguments)
        .output()
        .expect("a run");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().expect("an exit code"), text(&output.stdout), text(&output.stderr))
}

/// A repository in the directory, of an empty database.
pub fn with_repository(dir: &Path) {
    fs::write(dir.join("Data.fs"), "FS30").expect("a file");
    assert_eq!(zeobackup(dir, &["create", "-q", "-r", "repo", "-f", "Data.fs"]).0, 0);
}

/// The names of the backups.
fn backups(server: &Server) -> Vec<String> {
    let dir = server.directory().join("repo/backups");
    let mut names: Vec<String> = fs::read_dir(dir)
        .expect("the directory")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .collect();
    names.sort();
    names
}

pub fn wait_for(server: &Server, what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}: {}", server.talk());
        thread::sleep(Duration::from_millis(20));
    }
}

/// The bytes that a restore of the newest backup makes.
fn restored(server: &Server) -> Vec<u8> {
    let path: PathBuf = server.directory().join("Restored.fs");
    let restore = || zeobackup(server.directory(), &["restore", "-r", "repo", "-f", "Restored.fs"]);
    // The server may be making a backup.
    wait_for(server, "the repository is free", || match restore() {
        (0, ..) => true,
        (code, _, error) if !error.contains("is in use") => panic!("{code}: {error}"),
        _ => false,
    });
    fs::read(path).expect("the file")
}

#[test]
fn what_is_committed_is_backed_up_within_the_interval() {
    let section = format!("{FILE}\n<backup>\n  repository repo\n  continuous 1s\n</backup>");
    let server = Server::start_any("", &section, with_repository);
    let (mut client, _) = RawClient::register(server.address, Speaks::Z5).expect("a connection");
    let mut serial = 0;
    for _ in 0..3 {
        let last = backups(&server).pop();
        serial = client.commit(&[(0, serial, &record(&[b'x'; 1000]))]).expect("connected").expect("a commit");
        wait_for(&server, "a later backup", || backups(&server).pop() != last);
    }
    // The backup of the start may have been the first of the later ones, so that the last one is still to come.
    let file = fs::read(server.directory().join("Data.fs")).expect("the file");
    wait_for(&server, "everything is backed up", || restored(&server) == file);
    // The first one stays, and of the continuous ones the newest.
    wait_for(&server, "two backups", || backups(&server).len() == 2);
    let names = backups(&server);
    assert!(!names[0].ends_with(".until-next.json") && names[1].ends_with(".until-next.json"), "{names:?}");
    // Nothing is committed: nothing is made.
    thread::sleep(Duration::from_millis(2500));
    assert_eq!(backups(&server), names);
}

#[test]
fn a_schedule_makes_up_for_what_was_missed_and_prunes() {
    // Made at the start: the last one is of long ago.
    let section =
        format!("{FILE}\n<backup>\n  repository repo\n  schedule daily 03:00\n  keep-last 2\n</backup>");
    let prepare = |dir: &Path| {
        with_repository(dir);
        let backups = dir.join("repo/backups");
        let made = fs::read_dir(&backups).expect("it").next().expect("one").expect("one").path();
        for day in 1..5 {
            fs::copy(&made, backups.join(format!("2020-01-0{day}T03-00-00.000Z.json"))).expect("a copy");
        }
        fs::remove_file(made).expect("removed");
        // Something that is not backed up yet.
        let storage = open(&dir.join("Data.fs"));
        commit(&storage, &[(0, Tid::ZERO, b"new")]).expect("a commit");
        storage.close().expect("closed");
    };
    let mut server = Server::start_any("", &section, prepare);
    wait_for(&server, "a new backup", || {
        backups(&server).last().is_some_and(|name| !name.starts_with("2020"))
    });
    wait_for(&server, "a prune", || backups(&server).len() == 2);
    assert_eq!(backups(&server)[0], "2020-01-04T03-00-00.000Z.json");
    wait_for(&server, "its line", || server.count_in_log("3 older backups were removed") == 1);
    assert!(server.log().contains(" was made in "), "{}", server.log());
    // It is not due again.
    server.restart();
    thread::sleep(Duration::from_millis(500));
    assert_eq!(server.count_in_log(" was made in "), 1, "{}", server.log());
}

/// A share that is not mounted leaves an empty directory: nothing must be written there.
#[test]
fn no_repository_is_made() {
    let section = format!("{FILE}\n<backup>\n  repository repo\n  continuous 1s\n</backup>");
    let server =
        Server::start_any("", &section, |dir| fs::create_dir(dir.join("repo")).expect("a directory"));
    let (mut client, _) = RawClient::register(server.address, Speaks::Z5).expect("a connection");
    client.commit(&[(0, 0, &record(b"x"))]).expect("connected").expect("a commit");
    wait_for(&server, "an error", || server.count_in_log("it is no repository of zeobackup") == 1);
    assert_eq!(fs::read_dir(server.directory().join("repo")).expect("it").count(), 0);
    // It works as soon as there is one, and the error is not repeated before.
    client.commit(&[(1, 0, &record(b"x"))]).expect("connected").expect("a commit");
    thread::sleep(Duration::from_millis(1500));
    assert_eq!(server.count_in_log("it is no repository of zeobackup"), 1, "{}", server.log());
    assert_eq!(zeobackup(server.directory(), &["create", "-q", "-r", "repo", "-f", "Data.fs"]).0, 0);
    client.commit(&[(2, 0, &record(b"x"))]).expect("connected").expect("a commit");
    wait_for(&server, "a backup", || server.count_in_log("works again") == 1);
    // The backup that works again may have begun before the commit.
    let file = fs::read(server.directory().join("Data.fs")).expect("the file");
    wait_for(&server, "everything is backed up", || restored(&server) == file);
}

/// Restored after the disk was lost: the server goes on behind everything that clients can have seen.
#[test]
fn after_a_lost_disk_clients_notice() {
    let section = format!("{FILE}\n<backup>\n  repository repo\n  continuous 1s\n</backup>");
    let mut server = Server::start_any("", &section, with_repository);
    let (mut client, _) = RawClient::register(server.address, Speaks::Z5).expect("a connection");
    let first = client.commit(&[(0, 0, &record(b"first"))]).expect("connected").expect("a commit");
    wait_for(&server, "a backup", || backups(&server).len() == 2);
    server.kill();
    for name in ["Data.fs", "Data.fs.index", "Data.fs.tmp", "Data.fs.lock"] {
        let _ = fs::remove_file(server.directory().join(name));
    }
    let (code, out, error) = zeobackup(server.directory(), &["restore", "-r", "repo", "-C", "zeo.conf"]);
    assert!(code == 0 && out.contains("Data.fs: "), "{out} {error}");
    let restored = fs::read(server.directory().join("Data.fs")).expect("the file");
    server.start_again();
    let (mut client, last) = RawClient::register(server.address, Speaks::Z5).expect("a connection");
    let now = fs::read(server.directory().join("Data.fs")).expect("the file");
    assert!(now.starts_with(&restored) && now.len() > restored.len(), "there is no marker");
    assert!(last > Some(first), "{last:?} {first}");
    client.commit(&[(0, first, &record(b"second"))]).expect("connected").expect("a commit");
}
