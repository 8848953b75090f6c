//! Starting the whole program: faults that do not keep it from serving, and the files that exist before the first
//! connection.

use crate::support::client::{RawClient, Speaks};
use crate::support::process::Server;
use crate::support::storage as helpers;
use runzeo::ids::Tid;
use runzeo::storage::prelude::*;

/// One record among the last 100 transactions was damaged, and the server ended with
/// `data record exceeds transaction record`: it read them to fill the queue of invalidations, which is only an
/// optimization for clients.
#[test]
fn damage_in_an_old_transaction_does_not_keep_a_server_from_starting() {
    let mut damaged_at = 0;
    let server = Server::start_any("", "<filestorage 1>\npath Data.fs\n</filestorage>", |dir| {
        let path = dir.join("Data.fs");
        let storage = helpers::open(&path);
        let mut serial = Tid::ZERO;
        for _ in 0..50 {
            serial = helpers::commit(&storage, &[(0, serial, b"root")]).unwrap();
        }
        storage.close().unwrap();
        let mut file = std::fs::read(&path).unwrap();
        damaged_at = helpers::transactions(&file)[20];
        // The length at its beginning.
        file[damaged_at + 14] ^= 1;
        std::fs::write(&path, file).unwrap();
        // Without the note, so that the changed file does not count as another one: a disk's damage would not.
        std::fs::remove_file(dir.join("Data.fs.tmp")).unwrap();
    });
    let (_client, last) = RawClient::register(server.address, Speaks::Z5).expect("a client is served");
    assert!(last.is_some());
    let log = server.log();
    let errors: Vec<&str> = log.lines().filter(|line| line.contains("ERROR")).collect();
    let [error] = errors.as_slice() else { panic!("{log}") };
    for expected in
        [&format!("Data.fs: at {damaged_at}:"), "begins with 29 transactions", "zeofs test", "zeofs recover"]
    {
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

/// A client with a shared blob directory checks it in its constructor, as soon as it is connected, and failed if it did
/// not exist yet. Connections are accepted later: here the index blocks the start, a pipe without a writer.
#[test]
fn who_can_connect_finds_the_files_though_the_storages_are_still_being_read() {
    let storages = "<filestorage 1>\npath first.fs\nblob-dir first\n</filestorage>\n\
                    <filestorage 2>\npath second.fs\nblob-dir second\n</filestorage>\n\
                    <blobstorage 3>\nblob-dir third\n<mappingstorage>\n</mappingstorage>\n</blobstorage>";
    let index = "first.fs.index";
    let server = Server::start_any("pid-filename zeo.pid", storages, |dir| {
        rustix::fs::mkfifoat(rustix::fs::CWD, dir.join(index), 0o600.into()).expect("a pipe");
    });
    check_files(&server, &["first.fs", "second.fs"], &["first", "second", "third"]);
    // It was listening all the time, and serves when the storages are open.
    let waiting = std::thread::spawn({
        let address = server.address;
        move || RawClient::register(address, Speaks::Z5).map(|_| ())
    });
    drop(std::fs::OpenOptions::new().write(true).open(server.directory().join(index)).expect("its reader"));
    waiting.join().expect("the client").expect("the client is served");
}

/// The same without a blocked start, many times.
#[test]
fn as_soon_as_the_port_accepts_the_files_are_there() {
    for _ in 0..40 {
        let storage = "<filestorage 1>\npath Data.fs\nblob-dir blobs\n</filestorage>";
        let server = Server::start_any("pid-filename zeo.pid", storage, |_| ());
        check_files(&server, &["Data.fs"], &["blobs"]);
    }
}

fn check_files(server: &Server, logs: &[&str], blobs: &[&str]) {
    let dir = server.directory();
    assert!(dir.join("zeo.pid").exists());
    for name in logs {
        assert_eq!(std::fs::read(dir.join(name)).expect(name), b"FS30");
        assert!(dir.join(format!("{name}.lock")).exists());
    }
    for name in blobs {
        assert_eq!(std::fs::read(dir.join(name).join(".layout")).expect(name), b"bushy");
        assert!(dir.join(name).join("tmp").is_dir());
    }
}
