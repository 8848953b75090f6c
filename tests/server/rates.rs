//! `max-requests-per-second` and `max-sent-per-second`: an address that is ahead waits, and nobody else.

use std::time::{Duration, Instant};

use crate::listeners::{connect_unix, listen, register as register_on};
use crate::pack_cancel::{filled, register};
use crate::support::client::{RawClient, Speaks, record};
use crate::support::pickle::Value;
use crate::support::process::Server;

const STORAGE: &str = "<filestorage 1>\npath Data.fs\n</filestorage>\n";

/// Asks this often at once, and returns when the next question was answered.
pub fn burst(client: &mut RawClient, count: usize) -> Duration {
    let began = Instant::now();
    let calls: Vec<i64> = (0..count).map(|_| client.queue_call("ping", vec![])).collect();
    client.flush().expect("connected");
    calls.into_iter().for_each(|call| drop(client.answer(call).expect("connected").expect("no error")));
    client.call("ping", vec![]).expect("connected").expect("no error");
    began.elapsed()
}

fn throttled(server: &Server) -> u64 {
    server.count_in_log("max-requests-per-second or max-sent-per-second, and waits for ") as u64
}

#[test]
fn an_address_that_asks_for_more_waits_and_others_do_not() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("zeo.sock");
    let own = listen("near", socket.display(), "max-requests-per-second none");
    let server = Server::start_any("max-requests-per-second 50", &format!("{STORAGE}{own}"), |_| ());
    let mut far = register(&server, Speaks::Z5);
    assert_eq!(throttled(&server), 0);
    let mut near = connect_unix(&socket, Speaks::Z5);
    register_on(&mut near, "1", false).expect("registered");
    // A second's worth is free; so is everything at the other address.
    burst(&mut far, 20);
    burst(&mut near, 5000);
    assert_eq!(throttled(&server), 0, "{}", server.talk());

    let began = Instant::now();
    let calls: Vec<i64> = (0..150).map(|_| far.queue_call("ping", vec![])).collect();
    far.flush().expect("connected");
    calls.into_iter().for_each(|call| drop(far.answer(call).expect("connected").expect("no error")));
    let last = far.queue_call("ping", vec![]);
    far.flush().expect("connected");
    burst(&mut near, 100);
    server.wait_for_log("asks for more than max-requests-per-second or max-sent-per-second, and waits for ");
    far.answer(last).expect("connected").expect("no error");
    // At least a hundred were more than a second's worth.
    assert!(began.elapsed() >= Duration::from_millis(1500), "{:?}", began.elapsed());
    // Clients of the same address share its rate.
    let mut another = register(&server, Speaks::M5);
    assert!(burst(&mut another, 100) >= Duration::from_millis(800));
}

#[test]
fn what_is_sent_counts_too() {
    let server = Server::start_with("max-sent-per-second 20KB");
    let mut client = register(&server, Speaks::Z5);
    let large = record(&vec![b'x'; 50_000]);
    client.commit(&[(1, 0, &large)]).expect("connected").expect("a commit");
    assert_eq!(throttled(&server), 0, "what comes is not limited");
    let began = Instant::now();
    for _ in 0..2 {
        let load = client.queue_load(1);
        client.flush().expect("connected");
        client.answer(load).expect("connected").expect("the object");
    }
    assert!(began.elapsed() >= Duration::from_millis(1000), "{:?}", began.elapsed());
    server.wait_for_log("max-requests-per-second or max-sent-per-second, and waits for ");
}

/// Others wait for its locks.
#[test]
fn a_client_whose_transaction_is_voted_does_not_wait() {
    let server = Server::start_with("max-requests-per-second 1000");
    let (mut client, serial) = filled(&server);
    client.queue_begin(7);
    client.queue_store(0, serial, &record(b"voted"), 7);
    client.call("vote", vec![Value::Int(7)]).expect("connected").expect("the locks");
    burst(&mut client, 20_000);
    assert_eq!(throttled(&server), 0, "{}", server.talk());
    client.call("tpc_finish", vec![Value::Int(7)]).expect("connected").expect("a commit");
    client.call("ping", vec![]).expect("connected").expect("no error");
    server.wait_for_log("max-requests-per-second or max-sent-per-second, and waits for ");
}
