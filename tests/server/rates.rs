//! `max-requests-per-second` and `max-sent-per-second`: an address that is ahead waits, and nobody else. With
//! `<network>`: all clients of a network that is ahead, and nobody else.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::listeners::{connect_unix, listen, register as register_on};
use crate::pack_cancel::{filled, register};
use crate::support::client::{RawClient, Speaks, connect_from, record};
use crate::support::pickle::Value;
use crate::support::process::{Server, free_address};

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

/// A registered client of 127.0.0.2 and so on.
pub fn from(last: u8, address: SocketAddr) -> RawClient {
    through(last, address, b"")
}

/// The same, whose connection begins with these bytes.
fn through(last: u8, address: SocketAddr, header: &[u8]) -> RawClient {
    let mut stream = connect_from(Ipv4Addr::new(127, 0, 0, last), address).expect("connected");
    stream.write_all(header).expect("sent");
    let mut client = RawClient::greet_on(stream, Speaks::Z5).expect("greeted");
    register_on(&mut client, "1", false).expect("registered");
    client
}

pub fn network(name: &str, addresses: &str, rates: &str) -> String {
    format!("<network {name}>\naddresses {addresses}\n{rates}\n</network>\n")
}

/// The lines of waits for a network, of clients whose address in the log begins like this.
fn waits_in_network(server: &Server, name: &str, client: &str) -> usize {
    let (client, network) =
        (format!("({client}"), format!("the other clients of <network {name}>, for more"));
    server.log().lines().filter(|line| line.contains(&client) && line.contains(&network)).count()
}

/// Has a network of five requests a second ahead of them for a minute, by one client, and returns that.
fn far_ahead(last: u8, address: SocketAddr) -> RawClient {
    let mut client = from(last, address);
    burst(&mut client, 1000);
    client
}

/// At whatever listener they are; each alone asks for less than the rate.
#[test]
fn clients_of_a_network_have_one_rate() {
    let (other, directory) = (free_address(), tempfile::tempdir().unwrap());
    let socket = directory.path().join("zeo.sock");
    let sections = STORAGE.to_string()
        + &listen("other", other, "")
        + &listen("near", socket.display(), "")
        + &network("office", "127.0.0.2 127.0.0.4/31", "max-requests-per-second 5")
        + &network("loopback", "127.0.0.0/8", "max-requests-per-second 1000000");
    let server = Server::start_any("", &sections, |_| ());
    let mut second = from(5, other);
    let [mut outside, mut without_address] = [from(3, server.address), connect_unix(&socket, Speaks::Z5)];
    register_on(&mut without_address, "1", false).expect("registered");
    let _first = far_ahead(2, server.address);
    assert_eq!(waits_in_network(&server, "office", "127.0.0.2:"), 1, "{}", server.log());

    let began = Instant::now();
    (0..2).for_each(|_| drop(second.call("ping", vec![]).expect("connected").expect("no error")));
    assert!(began.elapsed() >= Duration::from_millis(1500), "{:?}", began.elapsed());
    assert_eq!(waits_in_network(&server, "office", "127.0.0.5:"), 1, "{}", server.log());

    let before = throttled(&server);
    burst(&mut outside, 5000);
    burst(&mut without_address, 5000);
    assert_eq!(throttled(&server), before, "{}", server.log());
    assert_eq!(waits_in_network(&server, "loopback", ""), 0, "{}", server.log());
}

#[test]
fn what_is_sent_to_a_network_counts_too() {
    let sections = STORAGE.to_string() + &network("office", "127.0.0.0/8", "max-sent-per-second 1KB");
    let server = Server::start_any("", &sections, |_| ());
    let mut first = from(2, server.address);
    let large = record(&vec![b'x'; 100_000]);
    first.commit(&[(1, 0, &large)]).expect("connected").expect("a commit");
    let load = first.queue_load(1);
    first.flush().expect("connected");
    first.answer(load).expect("connected").expect("the object");
    let line = "with the other clients of <network office>, for more than its max-requests-per-second";
    server.wait_for_log(line);
    let mut second = from(3, server.address);
    second.call("ping", vec![]).expect("connected").expect("no error");
    assert!(throttled(&server) >= 2, "{}", server.log());
    assert_eq!(waits_in_network(&server, "office", "127.0.0.3:"), 1, "{}", server.log());
}

/// The address of the client counts, not that of its proxy.
#[test]
fn clients_behind_a_proxy_are_in_their_own_networks() {
    let (proxied, listener) = (free_address(), "proxy-protocol 127.0.0.9");
    let sections = STORAGE.to_string()
        + &listen("proxied", proxied, listener)
        + &network("office", "10.1.0.0/16", "max-requests-per-second 5")
        + &network("proxies", "127.0.0.9", "max-requests-per-second 5");
    let server = Server::start_any("", &sections, |_| ());
    let client =
        |ip: &str| through(9, proxied, format!("PROXY TCP4 {ip} 127.0.0.1 4711 8100\r\n").as_bytes());
    let (mut inside, mut another, mut outside) = (client("10.1.0.1"), client("10.1.0.2"), client("10.2.0.1"));
    burst(&mut outside, 1000);
    assert_eq!(throttled(&server), 0, "{}", server.log());
    burst(&mut inside, 1000);
    (0..2).for_each(|_| drop(another.call("ping", vec![]).expect("connected").expect("no error")));
    for waiting in ["10.1.0.1:", "10.1.0.2:"] {
        assert_eq!(waits_in_network(&server, "office", waiting), 1, "{}", server.log());
    }
    assert_eq!(waits_in_network(&server, "proxies", ""), 0, "{}", server.log());
}

/// Others wait for its locks, of the same network or not.
#[test]
fn a_client_of_a_network_whose_transaction_is_voted_does_not_wait() {
    let sections = STORAGE.to_string() + &network("office", "127.0.0.0/8", "max-requests-per-second 1000");
    let server = Server::start_any("", &sections, |_| ());
    let (mut client, serial) = filled(&server);
    client.queue_begin(7);
    client.queue_store(0, serial, &record(b"voted"), 7);
    client.call("vote", vec![Value::Int(7)]).expect("connected").expect("the locks");
    burst(&mut client, 20_000);
    assert_eq!(throttled(&server), 0, "{}", server.log());
    client.call("tpc_finish", vec![Value::Int(7)]).expect("connected").expect("a commit");
    client.call("ping", vec![]).expect("connected").expect("no error");
    server.wait_for_log(
        "with the other clients of <network office>, for more than its max-requests-per-second",
    );
}

/// The rates of its own address count besides those of its network.
#[test]
fn an_address_in_a_network_has_its_own_rate_as_well() {
    let sections = STORAGE.to_string() + &network("all", "127.0.0.0/8", "max-requests-per-second 100000");
    let server = Server::start_any("max-requests-per-second 5", &sections, |_| ());
    let _ahead = far_ahead(2, server.address);
    server.wait_for_log("asks for more than max-requests-per-second or max-sent-per-second, and waits for ");
    let mut other = from(3, server.address);
    let before = throttled(&server);
    other.call("ping", vec![]).expect("connected").expect("no error");
    assert_eq!(throttled(&server), before, "its address has asked for little: {}", server.log());
}
