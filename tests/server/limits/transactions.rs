//! The resources of one transaction, and the time for which it may be open.

use super::{MB, beside_an_honest_client, client, closed_after, commit_something, is_closed, words};
use crate::support::client::record;
use crate::support::pickle::{Value, id, text};

#[test]
fn a_transaction_may_have_so_many_bytes() {
    beside_an_honest_client("max-transaction-size 2MB\ntransaction-memory 1MB", 64 * MB, |server| {
        let mut storer = client(server);
        let oids = storer.new_oids(4).expect("oids");
        let data = record(&vec![b'x'; 900 << 10]);
        let store = |count| oids.iter().take(count).map(|oid| (*oid, 0, data.as_slice())).collect::<Vec<_>>();
        let (class, detail) = storer.commit(&store(3)).expect("connected").expect_err("too large");
        assert_eq!(class, "ZODB.POSException.StorageError");
        assert!(words(&detail).contains("max-transaction-size is 2097152 bytes"), "{detail:?}");
        assert_eq!(server.count_in_log("max-transaction-size is 2097152 bytes"), 1);
        // The connection and the objects are unchanged.
        storer.commit(&store(2)).expect("connected").expect("commit");
        // Stores beyond the limit take neither memory nor disk.
        let descriptors = server.fd_count();
        storer.queue_begin(7);
        for _ in 0..200 {
            storer.queue_store(oids[0], 0, &data, 7);
        }
        storer.call("lastTransaction", vec![]).expect("connected").expect("answer");
        assert_eq!(server.fd_count(), descriptors, "the temporary file is gone");
        storer.call("vote", vec![Value::Int(7)]).expect("connected").expect_err("too large");
    });
}

#[test]
fn a_transaction_may_have_so_many_objects() {
    beside_an_honest_client("max-transaction-objects 100", 64 * MB, |server| {
        let mut storer = client(server);
        let oids = storer.new_oids(101).expect("oids");
        let data = record(b"1");
        let stores: Vec<_> = oids.iter().map(|oid| (*oid, 0, data.as_slice())).collect();
        let (_, detail) = storer.commit(&stores).expect("connected").expect_err("too many");
        assert!(words(&detail).contains("max-transaction-objects is 100"), "{detail:?}");
        storer.commit(&stores[..100]).expect("connected").expect("commit");
        // Checks count too.
        storer.queue_begin(7);
        for _ in 0..101 {
            storer.queue_async("checkCurrentSerialInTransaction", vec![id(oids[0]), id(1), Value::Int(7)]);
        }
        storer.call("vote", vec![Value::Int(7)]).expect("connected").expect_err("too many");
    });
}

#[test]
fn a_transaction_is_kept_in_a_file_without_a_name() {
    beside_an_honest_client("transaction-memory 0", 64 * MB, |server| {
        let descriptors = server.fd_count();
        let mut storer = client(server);
        let oids = storer.new_oids(2).expect("oids");
        let data = record(b"1");
        storer.queue_begin(7);
        storer.queue_store(oids[0], 0, &data, 7);
        storer.call("lastTransaction", vec![]).expect("connected").expect("answer");
        assert_eq!(server.fd_count(), descriptors + 2, "a socket and a file");
        storer.call("tpc_abort", vec![Value::Int(7)]).expect("connected").expect("answer");
        assert_eq!(server.fd_count(), descriptors + 1);
        storer.commit(&[(oids[0], 0, &data), (oids[1], 0, &data)]).expect("connected").expect("commit");
    });
}

#[test]
fn a_description_without_end_is_no_transaction() {
    beside_an_honest_client("", 64 * MB, |server| {
        let mut storer = client(server);
        let long = "x".repeat(2 << 20);
        let args =
            vec![Value::Int(1), text(&long), text(""), Value::Dict(Vec::new()), Value::None, text(" ")];
        let (class, _) = storer.call("tpc_begin", args).expect("connected").expect_err("too long");
        assert_eq!(class, "ZODB.POSException.StorageTransactionError");
        commit_something(&mut storer);
    });
}

/// What counts as progress is in `timeouts.rs`.
#[test]
fn a_transaction_for_which_nothing_comes_ends() {
    beside_an_honest_client("idle-transaction-timeout 1s", 64 * MB, |server| {
        let mut idle = client(server);
        let without = client(server);
        let oid = idle.new_oids(1).expect("oid")[0];
        idle.queue_begin(7);
        idle.queue_store(oid, 0, &record(b"1"), 7);
        idle.flush().expect("send");
        closed_after(&mut idle.stream().try_clone().expect("clone"));
        assert!(!is_closed(without.stream()));
        assert_eq!(
            server.count_in_log("nothing has come for its transaction for 1 s (idle-transaction-timeout)"),
            1
        );
        server.wait_for_log("disconnected during unlocked transaction: idle transaction");
    });
}
