//! From the greeting to the moment when a connection is in use.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use runzeo::ids::{Oid, Tid};
use runzeo::internal::client::cache::{Cache, CacheOptions};
use runzeo::internal::client::library::{Changed, Client};
use runzeo::internal::client::options::ClientOptions;
use runzeo::storage::StorageError;
use runzeo::storage::prelude::*;

use super::peer::{Codec, Peer, with_each_codec};
use crate::support::pickle::{Value, id};

/// A client of these servers, which tries again soon.
pub fn options(peers: &[&Peer]) -> ClientOptions {
    let mut options = ClientOptions::new(peers.iter().map(|peer| peer.address()).collect());
    options.wait_timeout = Duration::from_secs(60);
    options.disconnect_poll = (Duration::from_millis(300), Duration::from_millis(300));
    options
}

/// The same, changed.
pub fn options_with(peers: &[&Peer], change: impl FnOnce(&mut ClientOptions)) -> ClientOptions {
    let mut options = options(peers);
    change(&mut options);
    options
}

/// Opens a client, which waits for its server.
pub fn open(options: ClientOptions) -> JoinHandle<Client> {
    thread::spawn(|| Client::open(options).expect("a connection"))
}

/// A client that is connected, its server's last transaction being `last`.
pub fn connected(peer: &Peer, last: Tid) -> (Client, super::peer::Session) {
    let opening = open(options(&[peer]));
    let session = peer.accept_ready(last);
    (opening.join().expect("no panic"), session)
}

/// A cache with these current revisions.
pub fn fill(path: &Path, last: Tid, revisions: &[(Oid, Tid)]) {
    let cache = Cache::open(CacheOptions::new(Some(path), 1 << 20)).expect("a cache");
    revisions.iter().for_each(|(oid, tid)| cache.store(*oid, *tid, None, b"cached"));
    cache.set_last_tid(last).expect("a later tid");
    cache.close();
}

/// What the cache of the client has of these objects, without its server.
pub fn kept(path: &Path, oids: &[Oid]) -> Vec<Oid> {
    let cache = Cache::open(CacheOptions::new(Some(path), 1 << 20)).expect("a cache");
    oids.iter().copied().filter(|oid| cache.current_start(*oid).is_some()).collect()
}

pub fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < until, "{what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Notes the tid of each transaction that the client is told of, and `missed` for several.
pub fn hear(client: &Client) -> Arc<Mutex<Vec<String>>> {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hearing = Arc::clone(&heard);
    client.on_change(move |changed| {
        hearing.lock().unwrap().push(match changed {
            Changed::Transaction { tid, .. } => format!("{}", tid.0),
            Changed::Missed { last, oids } => format!("up to {}: {}", last.0, oids.len()),
            Changed::Anything { last } => format!("anything up to {}", last.0),
            _ => "something new".into(),
        });
    });
    heard
}

#[test]
fn registration_comes_first_and_get_info_last() {
    with_each_codec(|codec| {
        let peer = Peer::new(codec);
        let opening = open(options(&[&peer]));
        let mut session = peer.accept();
        // The server speaks first; a newer one is answered with what the client speaks.
        session.expect_nothing();
        session.greet("9");
        let register = session.expect_register(false);
        session.expect_nothing();
        // Servers before ZEO 5 answer without a tid.
        session.reply(register, Value::None);
        session.expect_last_transaction(Tid(100));
        let info = session.expect("get_info", &[]);
        session.expect_nothing();
        assert!(!opening.is_finished(), "connected before the server has described its storage");
        session.reply(info, Value::Dict(vec![(crate::support::pickle::text("length"), Value::Int(42))]));
        let client = opening.join().expect("no panic");
        assert_eq!((client.last_transaction(), client.object_count()), (Tid(100), 42));
    });
}

#[test]
fn the_tid_of_register_is_the_last_transaction() {
    with_each_codec(|codec| {
        let peer = Peer::new(codec);
        let (client, session) = connected(&peer, Tid(100));
        assert_eq!(client.last_transaction(), Tid(100));
        let heard = hear(&client);
        session.end();
        // Nothing was missed.
        let mut session = peer.accept_ready(Tid(100));
        session.invalidate(Tid(101), &[Oid(1)]);
        wait_for("the transaction", || client.last_transaction() == Tid(101));
        assert!(!heard.lock().unwrap().iter().any(|heard| heard.starts_with("anything")), "{heard:?}");
    });
}

#[test]
fn a_cache_that_is_behind_asks_what_has_changed() {
    with_each_codec(|codec| {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.zec");
        fill(&path, Tid(100), &[(Oid(2), Tid(100)), (Oid(4), Tid(100))]);
        let peer = Peer::new(codec);
        let opening = open(options_with(&[&peer], |options| options.cache_path = Some(path.clone())));
        let (mut session, register) = peer.accept_registering();
        session.reply(register, Value::None);
        session.expect_last_transaction(Tid(500));
        let asked = session.expect("getInvalidations", &[id(100)]);
        session.expect_nothing();
        session.reply(asked, Value::Tuple(vec![id(500), Value::List(vec![id(4)])]));
        session.expect_same_database(Oid(2), Tid(100));
        session.expect_get_info();
        let client = opening.join().expect("no panic");
        assert_eq!(client.last_transaction(), Tid(500));
        drop(client);
        assert_eq!(kept(&path, &[Oid(2), Oid(4)]), [Oid(2)]);
    });
}

#[test]
fn a_cache_that_is_far_behind_is_emptied() {
    with_each_codec(|codec| {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.zec");
        fill(&path, Tid(100), &[(Oid(4), Tid(100))]);
        let peer = Peer::new(codec);
        let opening = open(options_with(&[&peer], |options| options.cache_path = Some(path.clone())));
        let (mut session, register) = peer.accept_registering();
        session.reply(register, id(500));
        let asked = session.expect("getInvalidations", &[id(100)]);
        session.reply(asked, Value::None);
        session.expect_get_info();
        let client = opening.join().expect("no panic");
        assert_eq!(client.last_transaction(), Tid(500));
        drop(client);
        assert_eq!(kept(&path, &[Oid(4)]), []);
    });
}

/// The client tries again nine seconds later, and the cache is as before.
#[test]
fn a_server_that_is_older_than_the_cache_is_tried_again_later() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.zec");
    fill(&path, Tid(200), &[(Oid(4), Tid(100))]);
    let peer = Peer::new(Codec::Pickle);
    let opening = open(options_with(&[&peer], |options| options.cache_path = Some(path.clone())));
    let (mut session, register) = peer.accept_registering();
    session.reply(register, id(100));
    session.expect_end();
    let refused = Instant::now();
    let (mut session, register) = peer.accept_registering();
    assert!(refused.elapsed() > Duration::from_secs(7), "after {:?}", refused.elapsed());
    session.reply(register, id(200));
    session.expect_same_database(Oid(4), Tid(100));
    session.expect_get_info();
    drop(opening.join().expect("no panic"));
    assert_eq!(kept(&path, &[Oid(4)]), [Oid(4)]);
}

#[test]
fn all_addresses_are_tried_at_once_and_none_after_a_connection() {
    with_each_codec(|codec| {
        let (one, two) = (Peer::new(codec), Peer::new(codec));
        let opening = open(options(&[&one, &two]));
        let (first, mut session) = (one.accept(), two.accept());
        // One that fails is tried again as long as there is no connection.
        first.end();
        let first = one.accept();
        session.greet("5");
        let register = session.expect_register(false);
        session.reply(register, id(100));
        session.expect_get_info();
        drop(opening.join().expect("no panic"));
        first.expect_end();
        one.expect_no_connection(Duration::from_millis(700));
    });
}

/// Two servers answer: registration and verification are made with one of them only, and if that succeeds the other
/// connection is closed.
#[test]
fn one_server_is_registered_with_at_a_time() {
    with_each_codec(|codec| {
        let (one, two) = (Peer::new(codec), Peer::new(codec));
        let opening = open(options(&[&one, &two]));
        let (mut first, mut second) = (one.accept(), two.accept());
        first.greet("5");
        let register = first.expect_register(false);
        second.greet("5");
        second.expect_nothing();
        first.reply(register, Value::None);
        first.expect_last_transaction(Tid(100));
        second.expect_nothing();
        first.expect_get_info();
        let client = opening.join().expect("no panic");
        second.expect_end();
        first.invalidate(Tid(101), &[]);
        wait_for("the transaction", || client.last_transaction() == Tid(101));
    });
}

#[test]
fn a_server_that_only_reads_is_left_for_one_that_can_be_written() {
    with_each_codec(|codec| {
        let (reader, writer) = (Peer::new(codec), Peer::new(codec));
        let opening = open(options_with(&[&reader, &writer], |options| options.read_only_fallback = true));
        let (mut reading, register) = reader.accept_registering();
        reading.raise(register, "ZODB.POSException.ReadOnlyError", "");
        // No other server is there.
        writer.accept().end();
        let register = reading.expect_register(true);
        reading.reply(register, Value::None);
        reading.expect_last_transaction(Tid(100));
        reading.expect_get_info();
        let client = opening.join().expect("no panic");
        assert!(client.is_read_only());

        let (mut writing, register) = writer.accept_registering();
        writing.reply(register, Value::None);
        // Until its cache is verified with the new server, the client has the old one.
        let last = writing.expect("lastTransaction", &[]);
        let view = client.view();
        let loading = thread::spawn(move || view.load(Oid(1)).expect("a load"));
        reading.expect_load(Oid(1), Tid(101), b"one", Tid(50), None);
        assert!(loading.join().expect("no panic").is_some());
        assert!(client.is_read_only());
        writing.reply(last, id(100));
        writing.expect_same_database(Oid(1), Tid(50));
        writing.expect_get_info();
        reading.expect_end();
        wait_for("a client that writes", || !client.is_read_only());
        // The cache is still good.
        assert!(client.view().load(Oid(1)).expect("a load").is_some());
        writing.expect_nothing();
    });
}

/// Nobody is told of a transaction before the cache is verified, and then only of those that verification has not
/// found.
#[test]
fn transactions_that_arrive_during_verification_wait() {
    with_each_codec(|codec| {
        let peer = Peer::new(codec);
        let (client, session) = connected(&peer, Tid(100));
        let heard = hear(&client);
        session.end();

        let (mut session, register) = peer.accept_registering();
        session.invalidate(Tid(101), &[Oid(1)]);
        session.reply(register, id(101));
        let asked = session.expect("getInvalidations", &[id(100)]);
        session.invalidate(Tid(102), &[Oid(2)]);
        session.invalidate(Tid(103), &[Oid(3)]);
        session.reply(asked, Value::Tuple(vec![id(102), Value::List(vec![id(1), id(2)])]));
        let info = session.expect("get_info", &[]);
        session.invalidate(Tid(104), &[Oid(4)]);
        session.expect_nothing();
        assert_eq!(client.last_transaction(), Tid(100));
        // The connection breaks: nothing has happened.
        session.end();
        let _ = info;

        let (mut session, register) = peer.accept_registering();
        session.invalidate(Tid(103), &[Oid(3)]);
        session.reply(register, id(103));
        let asked = session.expect("getInvalidations", &[id(100)]);
        session.invalidate(Tid(104), &[Oid(4)]);
        session.invalidate(Tid(105), &[Oid(5)]);
        let changed = Value::List([1, 2, 3, 4].map(id).to_vec());
        session.reply(asked, Value::Tuple(vec![id(104), changed]));
        session.expect_get_info();
        wait_for("the transaction", || client.last_transaction() == Tid(105));
        wait_for("the news", || heard.lock().unwrap().len() >= 2);
        let news: Vec<String> =
            heard.lock().unwrap().iter().filter(|news| !news.starts_with("anything")).cloned().collect();
        assert_eq!(news, ["up to 104: 4", "105"]);
    });
}

#[test]
fn protocols_that_the_client_does_not_speak() {
    for greeting in ["Z200", "Z303", "M4", "X5", "Z99999", "hello", ""] {
        let peer = Peer::new(Codec::Pickle);
        let opening = thread::spawn({
            let options = options_with(&[&peer], |options| options.wait_timeout = Duration::from_millis(500));
            move || Client::open(options).err().expect("no connection")
        });
        let mut session = peer.accept();
        session.send_greeting(greeting);
        session.expect_end();
        match opening.join().expect("no panic") {
            StorageError::Disconnected(why) => assert!(why.contains(&peer.address().to_string()), "{why}"),
            other => panic!("{other}"),
        }
    }
}

/// Register raises what is no read-only server: the connection is closed and tried again, not at once.
#[test]
fn a_refused_registration_is_tried_again_later() {
    with_each_codec(|codec| {
        let peer = Peer::new(codec);
        let options = options_with(&[&peer], |options| options.wait = false);
        let client = Client::open(options).expect("a cache");
        let (mut session, register) = peer.accept_registering();
        session.raise(register, "builtins.ValueError", "unknown storage");
        session.expect_end();
        peer.expect_no_connection(Duration::from_millis(700));
        // A close does not wait for the next attempt.
        let begun = Instant::now();
        drop(client);
        assert!(begun.elapsed() < Duration::from_secs(5));
    });
}

#[test]
fn without_a_connection_a_call_waits_its_time() {
    let peer = Peer::new(Codec::Pickle);
    let client = Client::open(options_with(&[&peer], |options| {
        options.wait = false;
        options.wait_timeout = Duration::from_millis(400);
    }))
    .expect("a cache");
    let mut session = peer.accept();
    let begun = Instant::now();
    let why = client.view().load(Oid(1)).expect_err("no connection");
    assert!(matches!(&why, StorageError::Disconnected(_)), "{why}");
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    // From then on none waits, until there is a connection.
    session.greet("5");
    let register = session.expect_register(false);
    assert!(client.view().load(Oid(1)).is_err());
    session.reply(register, id(100));
    session.expect_get_info();
    wait_for("the connection", || client.last_transaction() == Tid(100));
    let loading = thread::spawn({
        let client = client.clone();
        move || client.view().load(Oid(1)).expect("a load").is_some()
    });
    session.expect_load(Oid(1), Tid(101), b"one", Tid(50), None);
    assert!(loading.join().expect("no panic"));
}
