//! A failed allocation ends the call or the connection that needed it, never the process.

use crate::support::client::{RawClient, Speaks, record};
use crate::support::process::Server;
use crate::support::storage::{commit, open};
use runzeo::ids::Tid;
use runzeo::storage::prelude::*;

const MB: usize = 1 << 20;
/// Memory limit of the server, besides its code and its files.
const MEMORY_KB: u64 = 160 << 10;
const FILE: &str = "<filestorage 1>\npath Data.fs\n</filestorage>";

fn client(server: &Server) -> RawClient {
    RawClient::register(server.address, Speaks::Z5).expect("register").0
}

/// The process was aborted when a buffer could not grow.
#[test]
fn a_message_for_which_there_is_no_memory_ends_its_connection() {
    let mut server = Server::start_with_memory(MEMORY_KB, "", FILE, |_| ());
    let mut honest = client(&server);
    let first = honest.commit(&[(1, 0, &record(b"first"))]).expect("connected").expect("commit");
    let mut large = client(&server);
    let answer = large.commit(&[(2, 0, &vec![b'x'; 200 * MB])]);
    assert!(answer.is_err(), "{:?}", answer.map(|answer| answer.is_ok()));
    assert!(server.log().contains("no memory for"), "{}", server.talk());
    assert!(server.is_alive(), "{}", server.talk());
    honest.commit(&[(1, first, &record(b"second"))]).expect("connected").expect("commit");
    server.restart();
    let mut again = client(&server);
    let load = again.queue_load(1);
    again.flush().expect("send");
    let loaded = again.answer(load).expect("connected").expect("load");
    assert_eq!(loaded.tuple()[0].bytes(), record(b"second"));
    assert!(server.stop().success(), "{}", server.talk());
}

#[test]
fn a_record_for_which_there_is_no_memory_is_an_error_of_its_load() {
    let long = vec![b'x'; 200 * MB];
    let mut server = Server::start_with_memory(MEMORY_KB, "", FILE, |directory| {
        let storage = open(&directory.join("Data.fs"));
        commit(&storage, &[(1, Tid::ZERO, &long), (2, Tid::ZERO, b"small")]).expect("commit");
        storage.close().expect("close");
    });
    let mut reader = client(&server);
    for _ in 0..3 {
        let loads = [reader.queue_load(1), reader.queue_load(2)];
        reader.flush().expect("send");
        let (class, _) = reader.answer(loads[0]).expect("connected").expect_err("no memory");
        assert!(class.ends_with("OSError"), "{class}");
        assert_eq!(reader.answer(loads[1]).expect("connected").expect("small").tuple()[0].bytes(), b"small");
    }
    assert!(server.log().contains("no memory for"), "{}", server.talk());
    assert!(server.is_alive() && server.stop().success(), "{}", server.talk());
}
