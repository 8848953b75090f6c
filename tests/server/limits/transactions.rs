//! The resources of one transaction, and the time for which it may be open.

use std::thread;
use std::time::Duration;

use super::{
    MB, beside_an_honest_client, client, closed_after, commit_something, count_in_log, is_closed,
    wait_for_log, words,
};
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
        assert_eq!(count_in_log(server, "max-transaction-size is 2097152 bytes"), 1);
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

#[test]
fn a_transaction_for_which_nothing_comes_ends() {
    beside_an_honest_client("idle-transaction-timeout 1s", 64 * MB, |server| {
        let mut idle = client(server);
        let mut slow = client(server);
        let without = client(server);
        let oids = slow.new_oids(10).expect("oids");
        for storer in [&mut idle, &mut slow] {
            storer.queue_begin(7);
            storer.queue_store(oids[0], 0, &record(b"1"), 7);
            storer.flush().expect("send");
        }
        let mut idle_stream = idle.stream().try_clone().expect("clone");
        let reading = thread::spawn(move || closed_after(&mut idle_stream));
        for oid in &oids[1..] {
            thread::sleep(Duration::from_millis(300));
            slow.queue_store(*oid, 0, &record(b"1"), 7);
            // Loads by other threads of the same client do not count as progress.
            idle.queue_load(oids[0]);
            let _ = idle.flush();
            slow.flush().expect("send");
        }
        slow.call("vote", vec![Value::Int(7)]).expect("connected").expect("vote");
        // From the vote on `transaction-timeout` counts, and there is none.
        let took = reading.join().expect("closed");
        assert!((Duration::from_millis(900)..Duration::from_secs(10)).contains(&took), "{took:?}");
        thread::sleep(Duration::from_millis(1500));
        slow.call("tpc_finish", vec![Value::Int(7)]).expect("connected").expect("finish");
        assert!(!is_closed(without.stream()));
        assert_eq!(
            count_in_log(server, "nothing has come for its transaction for 1 s (idle-transaction-timeout)"),
            1
        );
        wait_for_log(server, "disconnected during unlocked transaction: idle transaction");
    });
}
