//! Starting the whole program: what does not keep it from serving, and what is there once it can be connected to.

mod common;
#[path = "file_storage/helpers.rs"]
mod helpers;

use common::client::{RawClient, Speaks};
use common::process::Server;
use runzeo::base::ids::Tid;
use runzeo::storage::Storage;

/// One record among the last 100 transactions was damaged, and the server ended with `data record exceeds transaction
/// record`: it read them to fill the queue of invalidations, which only spares clients some work.
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
    });
    let (_client, last) = RawClient::register(server.address, Speaks::Z5).expect("a client is served");
    assert!(last.is_some());
    let log = server.log();
    let errors: Vec<&str> = log.lines().filter(|line| line.contains("ERROR")).collect();
    let [error] = errors.as_slice() else { panic!("{log}") };
    for expected in
        [&format!("Data.fs: at {damaged_at}:"), "begins with 29 transactions", "fstest", "fsrecover"]
    {
        assert!(error.contains(expected), "{expected}: {error}");
    }
}
