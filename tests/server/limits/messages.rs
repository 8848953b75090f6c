//! `max-message-size`, `max-unsent`, `dead-peer-timeout`: the traffic of one connection.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use super::{MB, beside_an_honest_client, client, closed_after, commit_something, greeted, is_closed, words};
use crate::support::client::{RawClient, record};
use crate::support::pickle::Value;
use crate::support::process::Server;

#[test]
fn a_message_may_have_so_many_bytes() {
    beside_an_honest_client("max-message-size 1MB", 16 * MB, |server| {
        let mut storer = client(server);
        let oid = storer.new_oids(1).expect("connected")[0];
        let fits = record(&vec![b'x'; (MB - 1000) as usize]);
        storer.commit(&[(oid, 0, &fits)]).expect("connected").expect("commit");
        // The vote reports the error, and the connection stays open.
        let long = record(&vec![b'x'; 40 * MB as usize]);
        let (class, detail) = storer.commit(&[(oid, 0, &long)]).expect("connected").expect_err("too long");
        assert_eq!(class, "ZODB.POSException.StorageError");
        assert!(words(&detail).contains("max-message-size is 1048576"), "{detail:?}");
        commit_something(&mut storer);
        // Outside a transaction no vote could report it.
        let message =
            "a message of 1048577 bytes, the limit is 1048576 (max-message-size); the connection is closed";
        storer.queue_raw(&(MB as u32 + 1).to_be_bytes());
        storer.flush().expect("send");
        closed_after(&mut storer.stream().try_clone().expect("clone"));
        server.wait_for_log(message);
        // An unregistered client has a smaller limit, and the line does not mention the key.
        let mut connection = greeted(server);
        connection.write_all(&(65_u32 << 10).to_be_bytes()).expect("send");
        closed_after(&mut connection);
        server.wait_for_log("a message of 66560 bytes, the limit is 65536; the connection is closed");
    });
}

/// Half a message takes memory for its received bytes, not for its announced length.
#[test]
fn half_messages_of_registered_clients_cost_what_has_arrived() {
    beside_an_honest_client("", 96 * MB, |server| {
        let mut slow: Vec<_> = (0..20).map(|_| client(server)).collect();
        for client in &mut slow {
            client.queue_raw(&(200_u32 << 20).to_be_bytes());
            client.queue_raw(&vec![b'x'; MB as usize]);
            client.flush().expect("send");
        }
        thread::sleep(Duration::from_millis(500));
    });
}

/// Makes the server queue more and more invalidations for `silent`.
pub fn flood_with_invalidations(server: &Server, until: impl Fn() -> bool) {
    let mut writer = client(server);
    let oids = writer.new_oids(10_000).expect("oids");
    let data = record(b"x");
    let mut tid = 0;
    let deadline = Instant::now() + Duration::from_secs(300);
    while !until() {
        let stores: Vec<_> = oids.iter().map(|oid| (*oid, tid, data.as_slice())).collect();
        tid = writer.commit(&stores).expect("connected").expect("commit");
        assert!(Instant::now() < deadline, "{}", server.talk());
    }
}

#[test]
fn a_client_that_does_not_read_is_closed_at_max_unsent() {
    let mut server = Server::start_with("max-unsent 2MB");
    let silent = client(&server);
    flood_with_invalidations(&server, || server.log().contains("does not read what it is sent (max-unsent)"));
    drop(silent);
    commit_something(&mut client(&server));
    assert!(server.stop().success());
}

/// Requested replies do not count: invalidations may be queued beside them.
#[test]
fn a_large_reply_is_not_mistaken_for_a_client_that_does_not_read() {
    let mut server = Server::start_with("max-unsent 2MB");
    let mut reader = client(&server);
    let oid = reader.new_oids(1).expect("oid")[0];
    let large = record(&vec![b'x'; 12 << 20]);
    reader.commit(&[(oid, 0, &large)]).expect("connected").expect("commit");
    let loads: Vec<i64> = (0..3).map(|_| reader.queue_load(oid)).collect();
    reader.flush().expect("send");
    // Another client commits a little.
    let mut writer = client(&server);
    for _ in 0..20 {
        commit_something(&mut writer);
        thread::sleep(Duration::from_millis(20));
    }
    for load in loads {
        let loaded = reader.answer(load).expect("connected").expect("load");
        assert_eq!(loaded.tuple()[0].bytes().len(), large.len());
    }
    assert!(server.stop().success());
}

/// Stores an object and a second transaction, open and not voted, that conflicts with its newest revision.
fn open_conflict(client: &mut RawClient, len: usize) {
    let oid = client.new_oids(1).expect("oid")[0];
    let data = |byte| record(&vec![byte; len]);
    let first = client.commit(&[(oid, 0, &data(b'a'))]).expect("connected").expect("commit");
    client.commit(&[(oid, first, &data(b'b'))]).expect("connected").expect("commit");
    client.queue_begin(9);
    client.queue_store(oid, first, &data(b'c'), 9);
}

/// The reply to vote has the records for the client to merge. It was counted as an unasked message: a reply longer than
/// max-unsent ended the connection although the client was reading, and again at each retry.
#[test]
fn a_vote_whose_reply_is_longer_than_max_unsent_is_answered() {
    let mut server = Server::start_with("max-unsent 2MB\nclient-conflict-resolution true");
    let mut client = client(&server);
    let len = 12 << 20;
    open_conflict(&mut client, len);
    let conflicts = client.call("vote", vec![Value::Int(9)]).expect("connected").expect("conflicts");
    let Value::List(conflicts) = conflicts else { panic!("{conflicts:?}") };
    assert_eq!(conflicts.len(), 1);
    client.call("tpc_abort", vec![Value::Int(9)]).expect("connected").expect("abort");
    commit_something(&mut client);
    assert!(server.stop().success());
}

/// A transaction with reported conflicts stays open: a client that votes repeatedly without reading must not fill the
/// memory.
#[test]
fn votes_without_reading_wait_for_their_reader() {
    let votes = 50;
    let zeo = "max-unsent 2MB\nclient-conflict-resolution true";
    beside_an_honest_client(zeo, 64 * MB, |server| {
        let mut silent = client(server);
        open_conflict(&mut silent, 4 << 20);
        let asked: Vec<i64> = (0..votes).map(|_| silent.queue_call("vote", vec![Value::Int(9)])).collect();
        silent.flush().expect("send");
        thread::sleep(Duration::from_secs(1));
        for vote in asked {
            // All except those that arrived during another one.
            let _ = silent.answer(vote).expect("connected");
        }
        silent.call("tpc_abort", vec![Value::Int(9)]).expect("connected").expect("abort");
    });
}

/// The kernel closes the connection of a peer that takes none of the sent bytes.
#[test]
fn a_peer_that_takes_nothing_is_dead() {
    let mut server = Server::start_with("dead-peer-timeout 10s");
    let silent = client(&server);
    // More than the kernel's buffers, less than max-unsent.
    let mut busy = client(&server);
    let oid = busy.new_oids(1).expect("oid")[0];
    busy.commit(&[(oid, 0, &record(&vec![b'x'; 12 << 20]))]).expect("connected").expect("commit");
    let mut silent_too = client(&server);
    silent_too.queue_load(oid);
    silent_too.flush().expect("send");
    let port = silent_too.stream().local_addr().expect("address").port();
    server.wait_for_log(&format!("(127.0.0.1:{port}) disconnected"));
    // A peer that answers the probes is alive.
    assert!(!is_closed(silent.stream()));
    assert!(server.stop().success());
}
