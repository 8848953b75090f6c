//! The cache of a client that is in use: what it tells about itself, and another size.

use runzeo::ids::{Oid, Tid};
use runzeo::internal::client::library::Client;
use runzeo::internal::client::options::ClientOptions;
use runzeo::storage::TransactionMeta;
use runzeo::storage::prelude::*;

use crate::library::{commit, options, refresh_to, state, with_cache};
use crate::middle::middle;
use crate::servers::{AnyServer, tcp};
use crate::support::process::Server;

/// Objects with a state of each's own.
fn objects(client: &Client, count: usize) -> (Vec<Oid>, Tid) {
    let oids = client.new_oids(count).expect("oids");
    let texts: Vec<String> = (0..count).map(|n| format!("state {n}")).collect();
    let stores: Vec<(Oid, Tid, &str)> =
        oids.iter().zip(&texts).map(|(oid, text)| (*oid, Tid::ZERO, text.as_str())).collect();
    let tid = commit(client, &stores).expect("a commit").tid;
    (oids, tid)
}

/// A load is one hit or one miss, however often the server looks for it.
#[test]
fn the_log_of_a_middle_says_how_its_cache_does() {
    let root = AnyServer::Ours(Server::start());
    let writer = Client::open(options(&root)).expect("a connection");
    let (oids, tid) = objects(&writer, 10);
    let mut middle = middle(&root, "cache-size 1MB");
    for _ in 0..4 {
        let leaf = Client::open(ClientOptions::new(vec![tcp(middle.address)])).expect("a connection");
        let mut view = leaf.view();
        refresh_to(&mut view, tid);
        for (n, oid) in oids.iter().enumerate() {
            assert_eq!(state(&view, *oid), format!("state {n}"));
        }
    }
    middle.stop();
    let log = middle.log();
    let line = log.lines().find(|line| line.contains(" loads were hits")).expect("a line about the cache");
    let begin = line.find("cache: ").expect("its text");
    assert!(
        line[begin..].starts_with("cache: 75.0 % of 40 loads were hits, 10 stored, 0 evicted, in "),
        "{line}"
    );
    assert!(line.ends_with(" s; 0.0 MB of 1.0 MB are used, by 10 revisions"), "{line}");
    assert!(line.contains("INFO ZEO.ClientStorage ("), "{line}");
    assert_eq!(log.matches(" loads were hits").count(), 1, "{log}");
}

#[test]
fn counters_of_the_library() {
    let root = AnyServer::Ours(Server::start());
    let writer = Client::open(options(&root)).expect("a connection");
    let (oids, tid) = objects(&writer, 10);
    let client = Client::open(options(&root)).expect("a connection");
    assert_eq!((client.cache_stats().loads, client.cache_stats().hit_rate()), (0, None));
    let mut view = client.view();
    refresh_to(&mut view, tid);
    view.load_many(&oids).into_iter().for_each(|loaded| assert!(loaded.expect("a load").is_some()));
    let cold = client.cache_stats();
    assert_eq!((cold.loads, cold.hits, cold.stores, cold.revisions), (10, 0, 10, 10));
    for oid in oids.iter().chain(&oids).chain(&oids) {
        view.load(*oid).expect("a load");
    }
    let warm = client.cache_stats();
    assert_eq!((warm.loads, warm.hits, warm.misses(), warm.hit_rate()), (40, 30, 10, Some(0.75)));
    assert_eq!((warm.size, warm.used, warm.evictions), (20 << 20, cold.used, 0));
}

/// The cache becomes larger and smaller while it is used: nothing is lost that has room, and nothing is wrong.
#[test]
fn another_size_while_it_is_used() {
    const OBJECTS: u64 = 60;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("client.zec");
    let root = AnyServer::Ours(Server::start());
    let with_size = |size| {
        let mut options = with_cache(&root, &path);
        options.cache_size = size;
        Client::open(options).expect("a connection")
    };
    let writer = Client::open(options(&root)).expect("a connection");
    let data = |oid: u64, byte: u8| vec![byte.wrapping_add(oid as u8); 1000];
    let store = |serial: Tid, byte: u8| {
        let mut transaction = writer.transaction(TransactionMeta::default());
        for oid in 1..=OBJECTS {
            transaction.store(Oid(oid), serial, &data(oid, byte)).expect("memory");
        }
        writer.commit(transaction).expect("a commit").tid
    };
    let first = store(Tid::ZERO, 1);
    let client = with_size(40_000);
    let mut view = client.view();
    refresh_to(&mut view, first);
    // Returns the number of misses.
    let load_all = |client: &Client, byte: u8| {
        let (before, view) = (client.cache_stats().misses(), client.view());
        for oid in 1..=OBJECTS {
            let revision = view.load(Oid(oid)).expect("a load").expect("a revision");
            assert_eq!(*revision.data, *data(oid, byte), "{oid}");
        }
        client.cache_stats().misses() - before
    };
    assert_eq!(load_all(&client, 1), OBJECTS);
    assert!(client.cache_stats().evictions > 20, "38 have room");
    let kept = client.cache_stats().revisions;

    client.set_cache_size(200_000);
    let larger = client.cache_stats();
    assert_eq!((larger.size, larger.revisions), (200_000, kept));
    assert_eq!(std::fs::metadata(&path).expect("the file").len(), 200_000);
    assert_eq!(load_all(&client, 1), OBJECTS - kept, "what was there still is");
    assert_eq!(load_all(&client, 1), 0, "all have room now");
    assert_eq!(client.cache_stats().evictions, larger.evictions);

    client.set_cache_size(30_000);
    let smaller = client.cache_stats();
    assert!(smaller.revisions > 0 && smaller.used <= 30_000, "{smaller:?}");
    assert_eq!(std::fs::metadata(&path).expect("the file").len(), 30_000);
    let misses = load_all(&client, 1);
    assert!((OBJECTS - smaller.revisions..=OBJECTS).contains(&misses), "{misses}, {smaller:?}");
    let second = store(first, 77);
    let mut view = client.view();
    refresh_to(&mut view, second);
    load_all(&client, 77);
    let kept = client.cache_stats().revisions;
    client.close().expect("closed");

    let client = with_size(30_000);
    assert_eq!(client.cache_stats().revisions, kept);
    refresh_to(&mut client.view(), second);
    load_all(&client, 77);
}
