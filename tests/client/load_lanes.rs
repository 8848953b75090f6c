//! Loads of several threads at once: each has a connection of its own, and no answer is wrong because of that.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use runzeo::ids::{Oid, Tid};
use runzeo::internal::client::library::Client;
use runzeo::internal::client::options::ClientOptions;
use runzeo::storage::prelude::*;
use runzeo::storage::{TidAt, TransactionMeta};

use crate::library::{commit, record, refresh_to, state};
use crate::proxy::Proxy;
use crate::servers::{PythonServer, tcp};
use crate::support::client::{RawClient, Speaks};
use crate::support::pickle::Value;
use crate::support::process::{Server, test_seconds};

const OBJECTS: usize = 1500;
const THREADS: usize = 4;

/// A client that has hardly any cache, so that its loads reach the server, and a proxy in front of its server.
fn start(server: std::net::SocketAddr) -> (Proxy, Client) {
    let proxy = Proxy::start(server, Duration::ZERO);
    let mut options = ClientOptions::new(vec![tcp(proxy.address)]);
    (options.cache_size, options.memory_size) = (64 << 10, 0);
    options.disconnect_poll = (Duration::from_secs(1), Duration::from_secs(1));
    let client = Client::open(options).expect("a connection");
    (proxy, client)
}

/// Objects whose state is their number and a filling.
fn fill(client: &Client) -> Vec<Oid> {
    let oids = client.new_oids(OBJECTS).expect("oids");
    for (some, first) in oids.chunks(500).zip((0..).step_by(500)) {
        let states: Vec<String> = (first..first + some.len()).map(content).collect();
        let stores: Vec<_> =
            some.iter().zip(&states).map(|(oid, state)| (*oid, Tid::ZERO, state.as_str())).collect();
        commit(client, &stores).expect("a commit");
    }
    oids
}

fn content(number: usize) -> String {
    format!("{number:0120}")
}

/// Threads load all objects again and again until `is_enough`. All answers must be right.
fn load(client: &Client, oids: &[Oid], is_enough: impl Fn() -> bool + Sync) -> usize {
    let (over, loads) = (AtomicBool::new(false), AtomicUsize::new(0));
    let deadline = Instant::now() + Duration::from_secs(60);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (over, loads, is_enough) = (&over, &loads, &is_enough);
            scope.spawn(move || {
                let view = client.view();
                let mut at = thread * oids.len() / THREADS;
                while !over.load(Ordering::Relaxed) {
                    assert_eq!(state(&view, oids[at]), content(at));
                    at = (at + 1) % oids.len();
                    loads.fetch_add(1, Ordering::Relaxed);
                    if thread == 0 && is_enough() {
                        over.store(true, Ordering::Relaxed);
                    }
                    assert!(Instant::now() < deadline, "it goes on for too long");
                }
            });
        }
    });
    loads.into_inner()
}

#[test]
fn threads_that_load_at_once_get_connections_of_their_own() {
    let server = Server::start();
    let (proxy, client) = start(server.address);
    let oids = fill(&client);
    // One thread has no use for another connection.
    let before = proxy.count();
    let view = client.view();
    for (oid, number) in oids.iter().zip(0..) {
        assert_eq!(state(&view, *oid), content(number));
    }
    assert_eq!(proxy.count(), before);
    load(&client, &oids, || proxy.count() > before);

    // Only the first one hears of the transactions of others.
    let writer = Client::open(ClientOptions::new(vec![tcp(server.address)])).expect("a connection");
    let sent = proxy.sent_on_others();
    let mut tid = writer.get_tid(oids[0]).expect("a tid");
    for _ in 0..100 {
        tid = commit(&writer, &[(oids[0], tid, "new")]).expect("a commit").tid;
    }
    refresh_to(&mut client.view(), tid);
    // One may just have been opened: that is some hundred bytes. The transactions would be thousands on each.
    let sent = proxy.sent_on_others() - sent;
    assert!(sent < 2000, "{sent} bytes");
}

#[test]
fn loads_at_a_server_of_python_share_one_connection() {
    let Some(server) = PythonServer::start("zeo6-py311", "", |_| ()) else { return };
    let (proxy, client) = start(server.address);
    let oids = fill(&client);
    let loads = AtomicUsize::new(0);
    load(&client, &oids, || loads.fetch_add(1, Ordering::Relaxed) > 600);
    assert_eq!(proxy.count(), 1);
}

#[test]
fn loads_go_on_when_their_connections_are_cut() {
    let server = Server::start();
    let (proxy, client) = start(server.address);
    let oids = fill(&client);
    load(&client, &oids, || proxy.count() > 1);
    // The answers of all but the first connection are kept back; then they are cut.
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        (1..proxy.count()).for_each(|connection| proxy.hold(connection));
        let loading = scope.spawn(|| load(&client, &oids, || enough.load(Ordering::Relaxed)));
        proxy.wait_until_any_is_kept_back();
        (1..proxy.count()).for_each(|connection| proxy.cut(connection));
        enough.store(true, Ordering::Relaxed);
        loading.join().expect("no failed load");
    });
    assert!(client.is_connected());
}

/// Waits until a vote waits for another one.
fn wait_for_waiting(server: &Server) {
    let (mut observer, _) = RawClient::register(server.address, Speaks::Z5).expect("a connection");
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let status = observer.call("server_status", vec![]).expect("an answer").expect("a status");
        let Value::Dict(pairs) = status else { panic!("{status:?}") };
        let waiting =
            pairs.iter().find(|(key, _)| key.bytes() == b"waiting").expect("the number of those that wait");
        if !matches!(waiting.1, Value::Int(0)) {
            return;
        }
        assert!(Instant::now() < deadline, "no vote waits");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The answer to a load is kept back on one connection, while the first one tells of a transaction that changed the
/// object. What the answer has is not current any more, and must not be cached as if it were.
#[test]
fn an_answer_is_overtaken_by_a_transaction_on_the_first_connection() {
    let server = Server::start();
    let (proxy, client) = start(server.address);
    let oids = fill(&client);
    load(&client, &oids, || proxy.count() > 1);
    let writer = Client::open(ClientOptions::new(vec![tcp(server.address)])).expect("a connection");
    // On a busy machine the vote may find the first connection in use, and take another one. Then it is done again.
    let is_overtaken = (0..20).any(|_| overtake(&server, &proxy, &client, &writer, oids[0]));
    assert!(is_overtaken, "the first connection was never busy");
}

/// False: the load has taken the first connection.
fn overtake(server: &Server, proxy: &Proxy, client: &Client, writer: &Client, locked: Oid) -> bool {
    // One object that the client has never loaded, and one that is locked.
    let changed = writer.new_oids(1).expect("oids")[0];
    let locked_at = writer.get_tid(locked).expect("a tid");
    let changed_at = commit(writer, &[(changed, Tid::ZERO, "old")]).expect("a commit").tid;
    let vote = |client: &Client| {
        let mut transaction = client.transaction(TransactionMeta::default());
        transaction.store(locked, locked_at, &record("another")).expect("memory");
        client.vote(transaction, TidAt::Finish)
    };
    let holder = vote(writer).expect("a vote");
    thread::scope(|scope| {
        // A vote that waits for that of the other client: the first connection is busy, and loads take the others.
        let waiting = scope.spawn(|| vote(client).map(drop));
        wait_for_waiting(server);
        (1..proxy.count()).for_each(|connection| proxy.hold(connection));
        let mut view = client.view();
        refresh_to(&mut view, changed_at);
        let before = view.clone();
        let loading = scope.spawn(move || state(&before, changed));
        while !loading.is_finished() && !proxy.is_any_kept_back() {
            thread::sleep(Duration::from_millis(5));
        }
        let is_kept_back = !loading.is_finished();
        let tid = commit(writer, &[(changed, changed_at, "new")]).expect("a commit").tid;
        while client.last_transaction() < tid {
            thread::sleep(Duration::from_millis(5));
        }
        (1..proxy.count()).for_each(|connection| proxy.release(connection));
        assert_eq!(loading.join().expect("no panic"), "old");
        view.refresh();
        assert_eq!(state(&view, changed), "new");
        writer.abort(holder);
        waiting.join().expect("no panic").expect("a vote");
        is_kept_back
    })
}

/// Pairs of objects are always changed together, by another client. Whatever connection an answer takes, a view has
/// both states of one transaction, and never an older one than before.
#[test]
fn answers_of_all_connections_fit_together_while_others_commit() {
    let server = Server::start();
    let (proxy, client) = start(server.address);
    let oids = fill(&client);
    let writer = Client::open(ClientOptions::new(vec![tcp(server.address)])).expect("a connection");
    let pairs: Vec<(Oid, Oid)> = oids.chunks(2).map(|pair| (pair[0], pair[1])).collect();
    // The states of both are equal from here on.
    let mut tids = vec![Tid::ZERO; pairs.len()];
    let (until, over) = (Instant::now() + test_seconds(4), AtomicBool::new(false));
    let change = |pair: usize, round: usize, tids: &mut [Tid]| {
        let view = writer.view();
        let serial = |oid| view.load(oid).expect("a load").expect("a revision").serial;
        let (one, two) = pairs[pair];
        let serials =
            if tids[pair] == Tid::ZERO { (serial(one), serial(two)) } else { (tids[pair], tids[pair]) };
        let text = content(round);
        let stores = [(one, serials.0, text.as_str()), (two, serials.1, text.as_str())];
        tids[pair] = commit(&writer, &stores).expect("no conflict: there is one writer").tid;
    };
    // Few, so that each is changed often; all others push them out of the cache.
    let hot = 5;
    (0..hot).for_each(|pair| change(pair, 1, &mut tids));
    let loads = thread::scope(|scope| {
        let readers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (client, pairs, oids, over) = (&client, &pairs, &oids, &over);
                scope.spawn(move || {
                    let mut view = client.view();
                    view.refresh_from_server().expect("the server");
                    let (mut seen, mut loads, mut cold) = (vec![1; hot], 0_usize, thread * 300);
                    while !over.load(Ordering::Relaxed) {
                        view.refresh();
                        for (pair, seen) in seen.iter_mut().enumerate() {
                            let number = |oid| state(&view, oid).parse::<usize>().expect("a number");
                            let (one, two) = (number(pairs[pair].0), number(pairs[pair].1));
                            assert_eq!(one, two, "two states that never were at the same time");
                            assert!(one >= *seen, "{one} after {seen}");
                            *seen = one;
                            for _ in 0..10 {
                                cold = (cold + 1) % (oids.len() - 2 * hot);
                                view.load(oids[2 * hot + cold]).expect("a load").expect("a revision");
                                loads += 1;
                            }
                        }
                    }
                    loads
                })
            })
            .collect();
        let mut round = 2;
        while Instant::now() < until || proxy.count() < 2 {
            assert!(Instant::now() < until + Duration::from_secs(60), "no further connection");
            change(round % hot, round, &mut tids);
            round += 1;
        }
        over.store(true, Ordering::Relaxed);
        let loads = readers.into_iter().map(|reader| reader.join().expect("no failed check")).sum::<usize>();
        eprintln!("{round} commits beside {loads} loads, {} connections", proxy.count());
        loads
    });
    assert!(loads > 0);
}
