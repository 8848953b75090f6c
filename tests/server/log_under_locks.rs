//! A log line can wait for a reader of the log that does not read, so none is written while a lock is held that commits
//! need.
//!
//! A debug build of the server panics if this happens (`base::sync::assert_permitted`), which ends the connection with
//! a line about it. So each call here causes a line that was once written under such a lock.

use crate::support::client::{RawClient, Speaks, record};
use crate::support::pickle::{Value, id};
use crate::support::process::Server;

/// A server that logs everything.
fn server(zeo: &str) -> Server {
    Server::start_logging("all", zeo, "<filestorage 1>\npath Data.fs\n</filestorage>", |_| ())
}

fn client(server: &Server) -> RawClient {
    RawClient::register(server.address, Speaks::Z5).expect("connect").0
}

/// Checks that the line is there, and that the server continues.
#[track_caller]
fn check(server: &Server, client: &mut RawClient, lines: &[&str]) {
    client.call("lastTransaction", vec![]).expect("the connection").expect("an answer");
    let log = server.log();
    assert!(!log.contains("panic"), "{log}");
    for line in lines {
        assert!(log.contains(line), "{line}: {log}");
    }
}

/// A returning client kept all commits from being published while its line was written.
#[test]
fn what_a_returning_client_is_told() {
    let server = server("invalidation-queue-size 2");
    let mut client = client(&server);
    let mut serial = 0;
    for n in 0..5_u8 {
        serial = client.commit(&[(0, serial, &record(&[n]))]).expect("the connection").expect("a commit");
    }
    client.call("getInvalidations", vec![id(1)]).expect("the connection").expect("None");
    client.call("getInvalidations", vec![id(serial)]).expect("the connection").expect("nothing");
    let up_to = format!("Return 0 invalidations up to tid {serial}");
    check(&server, &mut client, &["tid to old for invq 1", &up_to]);
    assert_eq!(server.log().matches("Return").count(), 1, "each answer is one line");
}

#[test]
fn calls_for_another_transaction_than_the_open_one() {
    let server = server("");
    let mut client = client(&server);
    for (method, args) in [("vote", vec![Value::Int(1)]), ("tpc_finish", vec![Value::Int(1)])] {
        // The calls that are errors, and the one that is ignored.
        let _ = client.call(method, args).expect("the connection");
    }
    client.queue_begin(2);
    client.queue_begin(2);
    let error = client.call("vote", vec![Value::Int(3)]).expect("the connection").expect_err("another one");
    assert!(error.0.contains("StorageTransactionError"), "{error:?}");
    let lines = [
        "no current transaction: vote()",
        "no current transaction: tpc_finish()",
        "duplicate tpc_begin(",
        ") invalid; current transaction = ",
    ];
    check(&server, &mut client, &lines);
}

#[test]
fn transactions_that_are_too_large() {
    let server = server("max-transaction-size 1KB\nmax-message-size 1MB");
    let mut client = client(&server);
    for (txn, len) in [(1, 2000), (2, 2 << 20)] {
        client.queue_begin(txn);
        client.queue_store(7, 0, &vec![b'x'; len], txn);
        let error =
            client.call("vote", vec![Value::Int(txn)]).expect("the connection").expect_err("too large");
        assert!(error.0.contains("StorageError"), "{error:?}");
    }
    check(&server, &mut client, &["max-transaction-size is 1024 bytes", "max-message-size is 1048576"]);
}

#[test]
fn locks_that_are_waited_for() {
    let server = server("");
    let (mut first, mut second) = (client(&server), client(&server));
    for (client, data) in [(&mut first, b"a"), (&mut second, b"b")] {
        client.queue_begin(1);
        client.queue_store(7, 0, &record(data), 1);
    }
    first.call("vote", vec![Value::Int(1)]).expect("the connection").expect("a vote");
    let vote = second.queue_call("vote", vec![Value::Int(1)]);
    second.queue_call("lastTransaction", vec![]);
    second.flush().expect("the connection");
    while !server.log().contains("queue lock") {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    first.call("tpc_finish", vec![Value::Int(1)]).expect("the connection").expect("a finish");
    second.answer(vote).expect("the connection").expect_err("a conflict");
    check(&server, &mut second, &["lock: transactions waiting: 0", "queue lock: transactions waiting: 1"]);
}
