//! What an operator finds in the log of what clients do.

mod common;

use common::client::{RawClient, Speaks};
use common::pickle::{Value, text};
use common::process::Server;

/// A client that wanted to write to a read-only storage was refused without a line in the log.
#[test]
fn who_is_refused_as_read_only_leaves_one_line() {
    let server = Server::start_with("read-only true");
    for _ in 0..3 {
        let mut client = RawClient::connect(server.address, Speaks::Z5).expect("connect");
        let refused = client.call("register", vec![text("1"), Value::Bool(false)]).expect("the connection");
        assert!(refused.expect_err("the server is read-only").0.contains("ReadOnlyError"));
    }
    let mut reader = RawClient::connect(server.address, Speaks::Z5).expect("connect");
    let registered = reader.call("register", vec![text("1"), Value::Bool(true)]).expect("the connection");
    registered.expect("to read is permitted");
    let log = server.log();
    let line = ") refused: it wants to write, and storage '1' is read-only";
    assert_eq!(log.matches(line).count(), 1, "{log}");
    assert!(log.contains("(127.0.0.1:") && log.contains(") received handshake 'Z5'"), "{log}");
}

/// The undo of what is no transaction id ended in an AssertionError without a word, and a line about an internal error.
#[test]
fn an_undo_of_no_transaction_id_is_an_undo_error() {
    let server = Server::start();
    let (mut client, _) = RawClient::register(server.address, Speaks::Z5).expect("connect");
    for wrong in [&b"AAAA"[..], b"AQIDBAUGBwg", b""] {
        client.queue_begin(1);
        client.queue_async("undoa", vec![Value::Bytes(wrong.to_vec()), Value::Int(1)]);
        let error = client.call("vote", vec![Value::Int(1)]).expect("the connection").expect_err("no id");
        assert!(error.0.contains("UndoError"), "{error:?}");
        client.call("tpc_abort", vec![Value::Int(1)]).expect("the connection").expect("an abort");
    }
    assert!(!server.log().contains("ERROR"), "{}", server.log());
}
