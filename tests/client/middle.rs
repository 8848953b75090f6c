//! A server whose storage is another server's: `<zeoclient>`.

use std::io::Read;
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use runzeo::ids::{Oid, Tid};
use runzeo::internal::base::address::Address;
use runzeo::internal::client::library::Client;
use runzeo::internal::client::options::ClientOptions;
use runzeo::storage::StorageError;
use runzeo::storage::prelude::*;

use crate::library::{commit, options, refresh_to, state};
use crate::servers::{AnyServer, tcp, with_each};
use crate::support::process::{Server, free_address};

/// A middle server in front of `root`. `keys`: more keys of its `<zeoclient>`.
pub fn middle(root: &AnyServer, keys: &str) -> Server {
    let Address::Tcp { host: Some(host), port: Some(port) } = root.address() else { panic!("a TCP address") };
    let storage = format!(
        "<zeoclient 1>\nserver {host}:{port}\nmin-disconnect-poll 1\nmax-disconnect-poll 1\n{keys}\n</zeoclient>"
    );
    Server::start_any("", &storage, |_| ())
}

pub fn leaf(middle: &Server) -> Client {
    let mut options = ClientOptions::new(vec![tcp(middle.address)]);
    options.wait_timeout = Duration::from_secs(30);
    // While its root is away, a middle is read-only.
    options.read_only_fallback = true;
    Client::open(options).expect("a connection to the middle")
}

#[test]
fn leaves_of_a_middle_and_clients_of_the_root_see_each_other() {
    with_each(|name, root| {
        eprintln!("-- {name}");
        let middle = middle(&root, "");
        let (one, two) = (leaf(&middle), leaf(&middle));
        let direct = Client::open(options(&root)).expect("a connection to the root");
        let oid = one.new_oids(1).expect("oids")[0];
        let mut serial = commit(&one, &[(oid, Tid::ZERO, "0")]).expect("a commit").tid;
        let mut view = two.view();
        view.refresh_from_server().expect("the server");
        for n in 1..=30 {
            let writer = [&one, &two, &direct][n % 3];
            // It has seen the last one.
            let mut own = writer.view();
            refresh_to(&mut own, serial);
            let text = n.to_string();
            serial =
                commit(writer, &[(oid, serial, &text)]).unwrap_or_else(|e| panic!("{name}: {n}: {e}")).tid;
            for reader in [&one, &two, &direct] {
                let mut view = reader.view();
                refresh_to(&mut view, serial);
                assert_eq!(state(&view, oid), text, "{name}");
            }
        }
        let history: Vec<Tid> = two.history(oid, 100).expect("a history").iter().map(|e| e.tid).collect();
        assert_eq!((history.len(), history[0]), (31, serial), "{name}");
    });
}

/// The root is killed and comes back: leaves read what the middle has, and are not cut off when it returns with news.
#[test]
fn a_root_that_restarts() {
    let mut root = AnyServer::Ours(Server::start());
    let middle = middle(&root, "wait-timeout 1");
    let reader = leaf(&middle);
    let oid = Oid::ZERO;
    let first = commit(&reader, &[(oid, Tid::ZERO, "1")]).expect("a commit").tid;
    let mut view = reader.view();
    refresh_to(&mut view, first);
    assert_eq!(state(&view, oid), "1");
    let AnyServer::Ours(server) = &mut root else { unreachable!() };
    server.kill();
    // In the cache of the middle, for a leaf without a cache.
    let fresh = leaf(&middle);
    assert_eq!(state(&fresh.view(), oid), "1");
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hearing = Arc::clone(&heard);
    reader.on_change(move |changed| hearing.lock().expect("a lock").push(format!("{changed:?}")));
    server.start_again();
    let direct = Client::open(options(&root)).expect("a connection to the root");
    let second = commit(&direct, &[(oid, first, "2")]).expect("a commit").tid;
    let deadline = Instant::now() + Duration::from_secs(60);
    for client in [&reader, &fresh] {
        let mut view = client.view();
        while view.start() <= second {
            assert!(Instant::now() < deadline, "the leaf does not see the root's transaction");
            view.refresh();
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(state(&view, oid), "2");
    }
    // What had to read at first may write now.
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut serial = second;
    loop {
        match commit(&fresh, &[(oid, serial, "3")]) {
            Ok(done) => break serial = done.tid,
            Err(StorageError::ReadOnly | StorageError::Disconnected(_)) => assert!(Instant::now() < deadline),
            Err(error) => panic!("{error}"),
        }
    }
    let mut view = reader.view();
    refresh_to(&mut view, serial);

    // It has stayed connected, and what its middle has missed has come as one transaction.
    let expected = format!("Transaction {{ tid: {second:?}, oids: [{oid:?}] }}");
    assert_eq!(heard.lock().expect("a lock").first(), Some(&expected));
    assert_eq!(heard.lock().expect("a lock").len(), 2);
}

#[test]
fn monitoring_shows_what_the_cache_of_a_middle_does() {
    let root = AnyServer::Ours(Server::start());
    let monitor = free_address();
    let Address::Tcp { host: Some(host), port: Some(port) } = root.address() else { panic!("a TCP address") };
    let storage = format!("<zeoclient 1>\nserver {host}:{port}\ncache-size 1MB\n</zeoclient>");
    let middle = Server::start_any(&format!("monitor-address {monitor}"), &storage, |_| ());
    assert_eq!(middle.ruok()["1"].get("cache"), None, "nothing to tell yet, as with Python's server");
    let writer = Client::open(options(&root)).expect("a connection to the root");
    let oid = writer.new_oids(1).expect("oids")[0];
    let tid = commit(&writer, &[(oid, Tid::ZERO, "1")]).expect("a commit").tid;
    // The first load is a miss.
    for _ in 0..3 {
        let leaf = leaf(&middle);
        let mut view = leaf.view();
        refresh_to(&mut view, tid);
        assert_eq!(state(&view, oid), "1");
    }
    let cache = &middle.ruok()["1"]["cache"];
    assert_eq!((&cache["loads"], &cache["hits"]), (&3.into(), &2.into()), "{cache}");
    assert!(cache["used"].as_u64() > Some(0) && cache["size"] == 1 << 20, "{cache}");
    let mut text = String::new();
    TcpStream::connect(monitor).and_then(|mut socket| socket.read_to_string(&mut text)).expect("a text");
    assert!(text.contains("Cache loads: 3\nCache hits: 2\nCache bytes used: "), "{text}");
    assert!(text.contains("Cache bytes: 1048576\n"), "{text}");
}
