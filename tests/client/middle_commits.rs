//! Transactions of one client that are at the server at the same time: those of a middle's leaves.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use runzeo::ids::{Oid, Tid};
use runzeo::internal::client::library::{Changed, Client};
use runzeo::internal::client::options::ClientOptions;
use runzeo::storage::prelude::*;
use runzeo::storage::{Staged, StorageError, TidAt, TransactionMeta, Voted};

use crate::library::{commit, options, record, refresh_to, state};
use crate::middle::{leaf, middle};
use crate::proxy::Proxy;
use crate::servers::{AnyServer, tcp};
use crate::support::client::{Incoming, RawClient, Speaks, undo_id};
use crate::support::pickle::Value;
use crate::support::process::Server;

fn staged(client: &Client, oid: Oid, serial: Tid, state: &str) -> Staged {
    let mut staged = client.transaction(TransactionMeta::default());
    staged.store(oid, serial, &record(state)).expect("memory");
    staged
}

fn vote(client: &Client, oid: Oid, serial: Tid, state: &str) -> Box<dyn Voted> {
    client.vote(staged(client, oid, serial, state), TidAt::Finish).expect("a vote")
}

/// What a client hears, as (tid, objects).
type Heard = Arc<Mutex<Vec<(Tid, Vec<Oid>)>>>;

fn listen(client: &Client) -> Heard {
    let heard = Heard::default();
    let hearing = Arc::clone(&heard);
    client.on_change(move |changed| match changed {
        Changed::Transaction { tid, oids } => hearing.lock().expect("a lock").push((*tid, oids.to_vec())),
        other => panic!("{other:?}"),
    });
    heard
}

#[test]
fn a_leaf_that_has_voted_does_not_keep_another_from_committing() {
    let root = AnyServer::Ours(Server::start());
    let middle = middle(&root, "");
    let (one, two) = (leaf(&middle), leaf(&middle));
    let oids = one.new_oids(2).expect("oids");
    let voted = vote(&one, oids[0], Tid::ZERO, "1");
    let first = commit(&two, &[(oids[1], Tid::ZERO, "2")]).expect("a commit");
    let second = commit(&two, &[(oids[1], first.tid, "22")]).expect("a commit");
    let heard = listen(&two);
    one.finish(voted, Box::new(()));
    let mut view = two.view();
    let deadline = Instant::now() + Duration::from_secs(60);
    while heard.lock().expect("a lock").is_empty() {
        assert!(Instant::now() < deadline, "the transaction is not published");
        thread::sleep(Duration::from_millis(5));
    }
    let (tid, changed) = heard.lock().expect("a lock")[0].clone();
    assert_eq!(changed, [oids[0]]);
    assert!(tid > second.tid);
    refresh_to(&mut view, tid);
    assert_eq!((state(&view, oids[0]), state(&view, oids[1])), ("1".into(), "22".into()));
}

/// Leaves and a client of the root commit as fast as they can: each hears each transaction once, in order, with its
/// objects; its own with the tid of its answer.
#[test]
fn all_hear_the_same_in_the_same_order() {
    const LEAVES: usize = 4;
    const COMMITS: usize = 25;
    let root = AnyServer::Ours(Server::start());
    let middle = middle(&root, "");
    let mut clients: Vec<Client> = (0..LEAVES).map(|_| leaf(&middle)).collect();
    clients.push(Client::open(options(&root)).expect("a connection to the root"));
    let heard: Vec<Heard> = clients.iter().map(listen).collect();
    let shared = clients[0].new_oids(1).expect("oids")[0];
    let threads: Vec<_> = clients
        .iter()
        .cloned()
        .map(|client| {
            thread::spawn(move || {
                let own = client.new_oids(1).expect("oids")[0];
                let (mut serial, mut tids) = (Tid::ZERO, Vec::new());
                while tids.len() < COMMITS {
                    // Every fifth transaction changes an object of all of them, too.
                    let view = client.view();
                    let text = format!("{}", tids.len());
                    let mut stores = vec![(own, serial, text.as_str())];
                    if tids.len() % 5 == 0 {
                        let current = view.load(shared).ok().flatten();
                        let read = current.map_or(Tid::ZERO, |revision| revision.serial);
                        stores.push((shared, read, text.as_str()));
                    }
                    match commit(&client, &stores) {
                        Ok(done) => {
                            serial = done.tid;
                            tids.push((
                                done.tid,
                                stores.iter().map(|store| store.0).collect::<BTreeSet<_>>(),
                            ));
                        }
                        // Another one was faster.
                        Err(StorageError::Conflict(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                tids
            })
        })
        .collect();
    let mut expected: Vec<_> =
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect();
    expected.sort();
    let last = expected.last().expect("transactions").0;
    for (client, heard) in clients.iter().zip(&heard) {
        refresh_to(&mut client.view(), last);
        // A view sees a transaction before the listener has returned.
        let deadline = Instant::now() + Duration::from_secs(60);
        while heard.lock().expect("a lock").len() < expected.len() {
            assert!(Instant::now() < deadline, "not all was heard");
            thread::sleep(Duration::from_millis(5));
        }
        let heard = heard.lock().expect("a lock");
        let heard: Vec<_> = heard.iter().map(|(tid, oids)| (*tid, oids.iter().copied().collect())).collect();
        assert_eq!(heard, expected);
    }
}

/// A client whose main connection is the first one of the proxy, and has a transaction that was voted; the next one
/// goes over the second connection.
struct TwoConnections {
    proxy: Proxy,
    client: Client,
    oids: Vec<Oid>,
    on_main: Option<Box<dyn Voted>>,
}

impl TwoConnections {
    fn start(root: &Server) -> TwoConnections {
        let proxy = Proxy::start(root.address, Duration::ZERO);
        let mut options = ClientOptions::new(vec![tcp(proxy.address)]);
        options.disconnect_poll = (Duration::from_secs(1), Duration::from_secs(1));
        let client = Client::open(options).expect("a connection");
        let oids = client.new_oids(3).expect("oids");
        let on_main = Some(vote(&client, oids[0], Tid::ZERO, "0"));
        assert_eq!(proxy.count(), 1);
        TwoConnections { proxy, client, oids, on_main }
    }
}

#[test]
fn the_main_connection_is_cut_before_it_tells_of_a_transaction_that_is_finished() {
    let root = Server::start();
    let mut two = TwoConnections::start(&root);
    let first = commit(&two.client, &[(two.oids[1], Tid::ZERO, "1")]).expect("a commit").tid;
    assert_eq!(two.proxy.count(), 2);
    two.proxy.hold(0);
    let voted = vote(&two.client, two.oids[1], first, "11");
    let committing = {
        let client = two.client.clone();
        let oid = two.oids[2];
        thread::spawn(move || commit(&client, &[(oid, Tid::ZERO, "2")]))
    };
    two.client.finish(voted, Box::new(()));
    two.proxy.wait_until_kept_back(0);
    // Not before its connection has told it.
    assert_eq!(two.client.last_transaction(), first);
    two.proxy.cut(0);
    // The second may have been committed or not; the first one has, and comes with the next connection, as it does for
    // all others.
    let outcome = committing.join().expect("no panic");
    assert!(
        matches!(outcome, Ok(_) | Err(StorageError::OutcomeUnknown(_) | StorageError::Disconnected(_))),
        "{outcome:?}"
    );
    two.proxy.release(0);
    let on_main = two.on_main.take().expect("voted");
    two.client.abort(on_main);
    let mut view = two.client.view();
    let deadline = Instant::now() + Duration::from_secs(60);
    while view.start() <= first || state(&view, two.oids[1]) != "11" {
        assert!(Instant::now() < deadline, "the transaction is lost");
        view.refresh();
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_comes_behind_a_transaction_waits_until_its_finish_is_answered() {
    let root = Server::start();
    let two = TwoConnections::start(&root);
    let direct = Client::open(ClientOptions::new(vec![tcp(root.address)])).expect("a connection to the root");
    let first = commit(&two.client, &[(two.oids[1], Tid::ZERO, "1")]).expect("a commit").tid;
    let heard = listen(&two.client);
    let voted = vote(&two.client, two.oids[1], first, "11");
    two.proxy.hold(1);
    two.client.finish(voted, Box::new(()));
    two.proxy.wait_until_kept_back(1);
    // It is committed, and so is this one, of another client.
    let mut view = direct.view();
    view.refresh_from_server().expect("the server");
    assert_eq!(state(&view, two.oids[1]), "11");
    let foreign = commit(&direct, &[(two.oids[2], Tid::ZERO, "2")]).expect("a commit").tid;
    // An answer to a load comes behind both.
    let (loaded, answer) = mpsc::channel();
    let loading = two.client.clone();
    let oid = two.oids[2];
    thread::spawn(move || loaded.send(loading.get_tid(oid).map_err(|error| error.to_string())));
    assert!(
        answer.recv_timeout(Duration::from_millis(300)).is_err(),
        "the answer has overtaken a transaction"
    );
    assert_eq!(two.client.last_transaction(), first);
    assert!(heard.lock().expect("a lock").is_empty());
    two.proxy.release(1);
    let _answer = answer.recv_timeout(Duration::from_secs(60)).expect("an answer");
    let mut view = two.client.view();
    refresh_to(&mut view, foreign);
    assert_eq!((state(&view, two.oids[1]), state(&view, two.oids[2])), ("11".into(), "2".into()));
    let objects: Vec<Vec<Oid>> = heard.lock().expect("a lock").iter().map(|(_, oids)| oids.clone()).collect();
    assert_eq!(objects, [vec![two.oids[1]], vec![two.oids[2]]]);
}

/// The value of a reply, and the serials that came before it.
fn answer(client: &mut RawClient, call: i64) -> (Value, Vec<Value>) {
    client.flush().expect("sent");
    let mut serials = Vec::new();
    loop {
        match client.next().expect("a message") {
            Incoming::Push { method, args } if method == "serialnos" => {
                serials.extend(args[0].tuple().iter().map(|pair| pair.tuple()[1].clone()));
            }
            Incoming::Push { .. } => {}
            Incoming::Reply { id, value } if id == call => return (value, serials),
            Incoming::Reply { .. } => {}
            other @ Incoming::Error { .. } => panic!("{other:?}"),
        }
    }
}

/// Votes and finishes. Returns the tid of the finish, and the serials of the vote.
fn finish(client: &mut RawClient) -> (u64, Vec<Value>) {
    let vote = client.queue_call("vote", vec![Value::Int(1)]);
    let (_, serials) = answer(client, vote);
    let finish = client.queue_call("tpc_finish", vec![Value::Int(1)]);
    (answer(client, finish).0.id(), serials)
}

/// Commits one object. Returns the tid.
fn store(client: &mut RawClient, oid: u64, serial: u64, state: &str) -> u64 {
    client.queue_begin(1);
    client.queue_store(oid, serial, &record(state), 1);
    let (tid, serials) = finish(client);
    assert_eq!(serials.iter().map(Value::id).collect::<Vec<_>>(), [tid], "{:?}", client.speaks);
    tid
}

/// Clients of ZEO 4 and older keep what they have stored only if the vote gives the serial that the finish gives, too.
#[test]
fn old_leaves_have_serials_at_vote() {
    let root = AnyServer::Ours(Server::start());
    let middle = middle(&root, "");
    for speaks in [Speaks::Z308, Speaks::Z309, Speaks::Z3101, Speaks::Z4] {
        let (mut client, _) = RawClient::register(middle.address, speaks).expect("a connection");
        let oid = 100 + speaks as u64;
        let first = store(&mut client, oid, 0, "1");
        assert!(store(&mut client, oid, first, "2") > first, "{speaks:?}");
    }
}

/// Clients of ZODB 3.8 and 3.9 have the tid, and the objects, in the answer to an undo.
#[test]
fn old_leaves_undo() {
    let root = AnyServer::Ours(Server::start());
    let middle = middle(&root, "");
    let reader = leaf(&middle);
    for speaks in [Speaks::Z308, Speaks::Z309] {
        let (mut client, _) = RawClient::register(middle.address, speaks).expect("a connection");
        let oid = 100 + speaks as u64;
        let first = store(&mut client, oid, 0, "1");
        let second = store(&mut client, oid, first, "2");
        let undo = |client: &mut RawClient, tid: u64| {
            client.queue_begin(1);
            let undo = client.queue_call("undo", vec![Value::Text(undo_id(tid)), Value::Int(1)]);
            let (value, _) = answer(client, undo);
            assert_eq!(value.tuple()[1].tuple()[0].id(), oid);
            value.tuple()[0].id()
        };
        // Given up once, then committed, together with a store.
        undo(&mut client, second);
        client.queue_async("tpc_abort", vec![Value::Int(1)]);
        let promised = undo(&mut client, second);
        client.queue_store(oid + 10, 0, &record("new"), 1);
        let (tid, serials) = finish(&mut client);
        assert_eq!((tid, serials.iter().map(Value::id).collect::<Vec<_>>()), (promised, vec![tid]));
        let mut view = reader.view();
        refresh_to(&mut view, Tid(tid));
        assert_eq!((state(&view, Oid(oid)), state(&view, Oid(oid + 10))), ("1".into(), "new".into()));
    }
}

/// The methods of what the server sends until the answer to `call`, or until the connection ends.
fn pushes_until(client: &mut RawClient, call: i64) -> (Vec<String>, Option<Value>) {
    let mut pushes = Vec::new();
    loop {
        match client.next() {
            Ok(Incoming::Push { method, .. }) => pushes.push(method),
            Ok(Incoming::Reply { id, value }) if id == call => return (pushes, Some(value)),
            Ok(other) => panic!("{other:?}"),
            Err(_) => return (pushes, None),
        }
    }
}

/// A middle before a root whose first connection, over a proxy, is the main one; and a leaf of ZEO 4, for which the
/// middle has another one.
fn old_leaf(root: &Server) -> (Proxy, Server, RawClient) {
    let proxy = Proxy::start(root.address, Duration::ZERO);
    let section = format!(
        "<zeoclient 1>\nserver {}\nmin-disconnect-poll 1\nmax-disconnect-poll 1\n</zeoclient>",
        proxy.address
    );
    let middle = Server::start_any("", &section, |_| ());
    let (mut leaf, _) = RawClient::register(middle.address, Speaks::Z4).expect("a connection");
    store(&mut leaf, 100, 0, "1");
    assert_eq!(proxy.count(), 2);
    (proxy, middle, leaf)
}

/// A client of ZEO 4 hangs for ever if it gets an invalidation between its tpc_finish and the answer: what was
/// committed before its vote must come before the answer to that.
#[test]
fn an_old_leaf_hears_of_earlier_transactions_before_its_vote_is_answered() {
    let root = Server::start();
    let (proxy, _middle, mut leaf) = old_leaf(&root);
    let direct = Client::open(ClientOptions::new(vec![tcp(root.address)])).expect("a connection to the root");
    for (round, undoes) in [false, true].into_iter().enumerate() {
        let undone = store(&mut leaf, 101 + round as u64, 0, "1");
        proxy.hold(0);
        commit(&direct, &[(Oid(200 + round as u64), Tid::ZERO, "2")]).expect("a commit");
        proxy.wait_until_kept_back(0);
        leaf.queue_begin(1);
        if undoes {
            leaf.queue_async("undoa", vec![Value::Text(undo_id(undone)), Value::Int(1)]);
        } else {
            leaf.queue_store(110, 0, &record("11"), 1);
        }
        let vote = leaf.queue_call("vote", vec![Value::Int(1)]);
        leaf.flush().expect("sent");
        // Time for a wrong answer.
        thread::sleep(Duration::from_millis(300));
        proxy.release(0);
        let (pushes, answer) = pushes_until(&mut leaf, vote);
        assert!(answer.is_some());
        assert!(pushes.iter().any(|method| method == "invalidateTransaction"), "{pushes:?}");
        // No other transaction can come now.
        let others = {
            let direct = direct.clone();
            thread::spawn(move || commit(&direct, &[(Oid(300 + round as u64), Tid::ZERO, "3")]))
        };
        thread::sleep(Duration::from_millis(300));
        let finish = leaf.queue_call("tpc_finish", vec![Value::Int(1)]);
        leaf.flush().expect("sent");
        let (pushes, answer) = pushes_until(&mut leaf, finish);
        assert!(answer.is_some_and(|tid| tid.id() > undone));
        assert!(!pushes.iter().any(|method| method == "invalidateTransaction"), "{pushes:?}");
        others.join().expect("no panic").expect("a commit");
        let next = leaf.queue_call("lastTransaction", vec![]);
        leaf.flush().expect("sent");
        assert!(pushes_until(&mut leaf, next).1.is_some());
    }
}

/// The root's line is lost after the vote: the transaction cannot be finished any more, and others are committed. The
/// leaf is disconnected rather than told.
#[test]
fn an_old_leaf_that_has_voted_is_disconnected_by_a_transaction_of_others() {
    let root = Server::start();
    let (proxy, _middle, mut leaf) = old_leaf(&root);
    let direct = Client::open(ClientOptions::new(vec![tcp(root.address)])).expect("a connection to the root");
    leaf.queue_begin(1);
    leaf.queue_store(110, 0, &record("11"), 1);
    let vote = leaf.queue_call("vote", vec![Value::Int(1)]);
    leaf.flush().expect("sent");
    assert!(pushes_until(&mut leaf, vote).1.is_some());
    proxy.cut(0);
    commit(&direct, &[(Oid(200), Tid::ZERO, "2")]).expect("a commit");
    let (pushes, answer) = pushes_until(&mut leaf, -1);
    assert!(answer.is_none());
    assert!(!pushes.iter().any(|method| method == "invalidateTransaction"), "{pushes:?}");
}
