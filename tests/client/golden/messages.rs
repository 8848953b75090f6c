//! Messages of a connection that is in use: loads, commits, what the server sends unasked, and the end.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use runzeo::ids::{Oid, Tid};
use runzeo::internal::base::cancel::Cancel;
use runzeo::internal::base::clock::TimeSource;
use runzeo::internal::client::dial::{DialOptions, dial};
use runzeo::internal::client::library::{Client, Done};
use runzeo::internal::client::link::{LinkOptions, Silence, start};
use runzeo::storage::prelude::*;
use runzeo::storage::{StorageError, TransactionMeta};

use super::connecting::{connected, hear, wait_for};
use super::peer::{Codec, Peer, revision, with_each_codec};
use crate::link::Watcher;
use crate::support::pickle::{Value, id};

/// The object as a view of now has it, loaded by another thread.
fn load(client: &Client, oid: Oid) -> thread::JoinHandle<Vec<u8>> {
    let view = client.view();
    thread::spawn(move || view.load(oid).expect("a load").expect("a revision").data.to_vec())
}

/// Commits in another thread.
fn commit(
    client: &Client,
    stores: &'static [(Oid, Tid, &[u8])],
) -> thread::JoinHandle<Result<Done, StorageError>> {
    let client = client.clone();
    thread::spawn(move || {
        let mut transaction = client.transaction(TransactionMeta::default());
        for (oid, serial, data) in stores {
            transaction.store(*oid, *serial, data).expect("memory");
        }
        client.commit(transaction)
    })
}

#[test]
fn what_is_loaded_is_asked_for_once() {
    with_each_codec(|codec| {
        let peer = Peer::new(codec);
        let (client, mut session) = connected(&peer, Tid(100));
        let old = client.view();
        let loading = load(&client, Oid(1));
        session.expect_load(Oid(1), Tid(101), b"old", Tid(100), None);
        assert_eq!(loading.join().expect("no panic"), b"old");
        // The next one is answered by the cache.
        assert_eq!(load(&client, Oid(1)).join().expect("no panic"), b"old");
        session.expect_nothing();

        session.invalidate(Tid(200), &[Oid(1)]);
        wait_for("the transaction", || client.last_transaction() == Tid(200));
        // Two that ask at the same time share a call.
        let loading = [load(&client, Oid(1)), load(&client, Oid(1))];
        let number = session.expect("loadBefore", &[id(1), id(201)]);
        session.expect_nothing();
        session.reply(number, revision(b"new", Tid(200), None));
        loading.into_iter().for_each(|loading| assert_eq!(loading.join().expect("no panic"), b"new"));

        // The former revision is still in the cache, with its end.
        let former = old.load(Oid(1)).expect("a load").expect("a revision");
        assert_eq!((&*former.data, former.serial, former.end), (&b"old"[..], Tid(100), Some(Tid(200))));
        session.expect_nothing();
        // One before it is not.
        let loading = thread::spawn({
            let client = client.clone();
            move || {
                let mut out = Vec::new();
                client.load_before(Oid(1), Tid(100), 0, &mut out).expect("a load").map(|found| found.serial)
            }
        });
        session.expect_load(Oid(1), Tid(100), b"older", Tid(90), Some(Tid(100)));
        assert_eq!(loading.join().expect("no panic"), Some(Tid(90)));
    });
}

#[test]
fn a_commit_fills_the_cache_when_it_is_answered() {
    with_each_codec(|codec| {
        let peer = Peer::new(codec);
        let (client, mut session) = connected(&peer, Tid(100));
        let heard = hear(&client);
        let loading = load(&client, Oid(1));
        session.expect_load(Oid(1), Tid(101), b"first", Tid(50), None);
        assert_eq!(loading.join().expect("no panic"), b"first");

        let stores: &[(Oid, Tid, &[u8])] =
            &[(Oid(2), Tid(0), b"two"), (Oid(1), Tid(50), b"one"), (Oid(4), Tid(0), b"four")];
        let committing = commit(
            &client,
            &[(Oid(2), Tid(0), b"two"), (Oid(1), Tid(50), b"one"), (Oid(4), Tid(0), b"four")],
        );
        // The server has merged one of them: the client does not know its state.
        let finish = session.expect_commit(stores, &[Oid(1)]);
        assert_eq!(load(&client, Oid(1)).join().expect("no panic"), b"first");
        assert_eq!(client.last_transaction(), Tid(100));
        session.reply(finish, id(200));
        session.expect_last_transaction(Tid(200));
        let done = committing.join().expect("no panic").expect("a commit");
        assert_eq!((done.tid, &done.merged[..]), (Tid(200), &[Oid(1)][..]));
        assert_eq!(client.last_transaction(), Tid(200));
        assert_eq!(heard.lock().unwrap().last().map(String::as_str), Some("200"));
        assert_eq!(load(&client, Oid(2)).join().expect("no panic"), b"two");
        assert_eq!(load(&client, Oid(4)).join().expect("no panic"), b"four");
        session.expect_nothing();
        let loading = load(&client, Oid(1));
        session.expect_load(Oid(1), Tid(201), b"merged", Tid(200), None);
        assert_eq!(loading.join().expect("no panic"), b"merged");
    });
}

/// The conflict is of an object that the cache has wrong: it is forgotten, and the transaction aborted before the next
/// begins.
#[test]
fn a_refused_vote_forgets_the_object() {
    with_each_codec(|codec| {
        let peer = Peer::new(codec);
        let (client, mut session) = connected(&peer, Tid(100));
        let loading = load(&client, Oid(1));
        session.expect_load(Oid(1), Tid(101), b"stale", Tid(50), None);
        loading.join().expect("no panic");
        let committing = commit(&client, &[(Oid(1), Tid(50), b"one")]);
        let begin = session.next();
        let txn = begin.argument.tuple()[0].clone();
        session.expect_one_way("storea", &[id(1), id(50), Value::Bytes(b"one".to_vec()), txn.clone()]);
        let vote = session.expect("vote", std::slice::from_ref(&txn));
        session.raise_conflict(vote, Oid(1), Tid(60), Tid(50));
        let abort = session.expect("tpc_abort", &[txn]);
        session.reply(abort, Value::None);
        match committing.join().expect("no panic") {
            Err(StorageError::Conflict(conflict)) => assert_eq!(conflict.oid, Oid(1)),
            other => panic!("{other:?}"),
        }
        let loading = load(&client, Oid(1));
        session.expect_load(Oid(1), Tid(101), b"right", Tid(60), None);
        assert_eq!(loading.join().expect("no panic"), b"right");
    });
}

/// The answer to a finish and the next transaction arrive in one packet.
#[test]
fn a_transaction_does_not_overtake_an_answer() {
    with_each_codec(|codec| {
        let peer = Peer::new(codec);
        let (client, mut session) = connected(&peer, Tid(100));
        let heard = hear(&client);
        let committing = commit(&client, &[(Oid(1), Tid(0), b"one")]);
        let finish = session.expect_commit(&[(Oid(1), Tid(0), b"one")], &[]);
        let together = [codec.reply(finish, id(200)), codec.invalidation(Tid(300), &[Oid(1)])].concat();
        session.send(&together);
        session.expect_last_transaction(Tid(300));
        assert_eq!(committing.join().expect("no panic").expect("a commit").tid, Tid(200));
        wait_for("the transaction", || client.last_transaction() == Tid(300));
        wait_for("the news", || heard.lock().unwrap().len() >= 2);
        let news = heard.lock().unwrap().clone();
        assert_eq!(&news[news.len() - 2..], ["200", "300"]);
        // What was committed has ended.
        let loading = load(&client, Oid(1));
        session.expect_load(Oid(1), Tid(301), b"new", Tid(300), None);
        assert_eq!(loading.join().expect("no panic"), b"new");
    });
}

/// A server of Python tells of an earlier transaction behind the answer to a finish, and of a later one before that.
#[test]
fn transactions_about_a_finish_come_in_their_order() {
    with_each_codec(|codec| {
        let peer = Peer::new(codec);
        let (client, mut session) = connected(&peer, Tid(100));
        let heard = hear(&client);
        let committing = commit(&client, &[(Oid(1), Tid(0), b"one")]);
        let finish = session.expect_commit(&[(Oid(1), Tid(0), b"one")], &[]);
        session.invalidate(Tid(300), &[Oid(1)]);
        session.reply(finish, id(200));
        session.invalidate(Tid(150), &[Oid(2)]);
        session.expect_last_transaction(Tid(300));
        assert_eq!(committing.join().expect("no panic").expect("a commit").tid, Tid(200));
        wait_for("the news", || heard.lock().unwrap().len() >= 3);
        let news = heard.lock().unwrap().clone();
        assert_eq!(&news[news.len() - 3..], ["150", "200", "300"]);
    });
}

/// A transaction and the answer to a call arrive in one packet: with the answer the caller sees the transaction.
#[test]
fn an_answer_does_not_overtake_a_transaction() {
    with_each_codec(|codec| {
        let peer = Peer::new(codec);
        let (client, mut session) = connected(&peer, Tid(100));
        for round in 1..20 {
            let mut view = client.view();
            let refreshing = thread::spawn(move || view.refresh_from_server().map(|_| view.start()));
            let asked = session.expect("lastTransaction", &[]);
            let tid = Tid(100 + round);
            session.send(&[codec.invalidation(tid, &[Oid(1)]), codec.reply(asked, id(tid.0))].concat());
            assert_eq!(refreshing.join().expect("no panic").expect("an answer"), Tid(tid.0 + 1));
        }
    });
}

/// What is under way when the connection breaks: a load is sent again, a vote has failed, and of a finish nobody knows.
#[test]
fn the_connection_breaks() {
    with_each_codec(|codec| {
        let peer = Peer::new(codec);
        let (client, mut session) = connected(&peer, Tid(100));
        let loading = load(&client, Oid(1));
        session.expect("loadBefore", &[id(1), id(101)]);
        session.end();
        let mut session = peer.accept_ready(Tid(100));
        session.expect_load(Oid(1), Tid(101), b"one", Tid(50), None);
        assert_eq!(loading.join().expect("no panic"), b"one");

        let committing = commit(&client, &[(Oid(2), Tid(0), b"two")]);
        assert_eq!(session.next().method, "tpc_begin");
        assert_eq!(session.next().method, "storea");
        assert_eq!(session.next().method, "vote");
        session.end();

        // The whole transaction comes again.
        let (mut session, register) = peer.accept_registering();
        session.reply(register, id(100));
        session.expect_same_database(Oid(1), Tid(50));
        session.expect_get_info();
        session.expect_commit(&[(Oid(2), Tid(0), b"two")], &[]);
        session.end();
        let failed = committing.join().expect("no panic").expect_err("no answer");
        assert!(matches!(failed, StorageError::OutcomeUnknown(_)), "{failed}");
        // It was committed: the client learns of it from verification, with what it has stored.
        let (mut session, register) = peer.accept_registering();
        session.reply(register, id(200));
        let asked = session.expect("getInvalidations", &[id(100)]);
        session.reply(asked, Value::Tuple(vec![id(200), Value::List(vec![id(2)])]));
        session.expect_same_database(Oid(1), Tid(50));
        session.expect_get_info();
        wait_for("the transaction", || client.last_transaction() == Tid(200));
        let loading = load(&client, Oid(2));
        session.expect_load(Oid(2), Tid(201), b"two", Tid(200), None);
        assert_eq!(loading.join().expect("no panic"), b"two");
    });
}

/// Pieces of a blob that nobody has asked for do no harm; what no client knows ends the connection.
#[test]
fn messages_that_cannot_be_handled() {
    with_each_codec(|codec| {
        let peer = Peer::new(codec);
        let (client, mut session) = connected(&peer, Tid(100));
        let blob = [id(1), id(100)];
        let chunk = [id(1), id(100), Value::Bytes(vec![b'x'; 99_999])];
        let together = [
            codec.push("receiveBlobStart", blob.to_vec()),
            codec.push("receiveBlobChunk", chunk.to_vec()),
            codec.push("receiveBlobStop", blob.to_vec()),
            codec.reply(4711, Value::None),
            codec.invalidation(Tid(101), &[Oid(1)]),
        ];
        session.send(&together.concat());
        wait_for("the transaction", || client.last_transaction() == Tid(101));
        session.expect_nothing();

        session.send(&[codec.push("noSuchMethod", vec![]), codec.invalidation(Tid(102), &[])].concat());
        session.expect_end();
        let (mut session, register) = peer.accept_registering();
        assert_eq!(client.last_transaction(), Tid(101), "what follows is not believed");
        session.reply(register, id(101));
        session.expect_get_info();
    });
}

/// The answer to a load is no revision: the connection ends, and the load is sent again on the next.
#[test]
fn an_answer_of_the_wrong_kind_ends_the_connection() {
    with_each_codec(|codec| {
        let peer = Peer::new(codec);
        let (client, mut session) = connected(&peer, Tid(100));
        let loading = load(&client, Oid(1));
        let number = session.expect("loadBefore", &[id(1), id(101)]);
        session.reply(number, Value::Int(5));
        session.expect_end();
        let mut session = peer.accept_ready(Tid(100));
        session.expect_load(Oid(1), Tid(101), b"one", Tid(50), None);
        assert_eq!(loading.join().expect("no panic"), b"one");
    });
}

#[test]
fn a_close_ends_calls_and_the_connection() {
    with_each_codec(|codec| {
        let peer = Peer::new(codec);
        let (client, mut session) = connected(&peer, Tid(100));
        let view = client.view();
        let loading = thread::spawn(move || view.load(Oid(1)).err());
        session.expect("loadBefore", &[id(1), id(101)]);
        client.close().expect("a close");
        session.expect_end();
        let failed = loading.join().expect("no panic").expect("no answer");
        assert!(matches!(failed, StorageError::Closed(_)), "{failed}");
        client.close().expect("another close");
        assert!(matches!(client.view().load(Oid(1)), Err(StorageError::Closed(_))));
        peer.expect_no_connection(Duration::from_millis(700));

        // While it is being prepared.
        let (client, session) = connected(&peer, Tid(100));
        session.end();
        let (session, _register) = peer.accept_registering();
        client.close().expect("a close");
        session.expect_end();
        peer.expect_no_connection(Duration::from_millis(700));
    });
}

/// A client that has nothing to say sends a message that is not answered, and asks a server that is silent.
#[test]
fn signs_of_life() {
    with_each_codec(|codec| {
        let peer = Peer::new(codec);
        let address = peer.address();
        let dialling = thread::spawn(move || dial(&address, &DialOptions::default(), &Cancel::default()));
        let mut session = peer.accept();
        session.greet("5");
        let dialled = dialling.join().expect("no panic").expect("a connection");
        let time = TimeSource::manual();
        let seconds = Duration::from_secs;
        let silence = Some(Silence { ask_after: seconds(100), answer_max: seconds(100) });
        let options =
            LinkOptions { keep_alive: seconds(30), silence, time: time.clone(), ..LinkOptions::default() };
        let watcher = Arc::new(Watcher::default());
        let link = start(dialled, Arc::clone(&watcher) as _, options).expect("threads");
        // The keeper looks at the time now and then; it is moved until it has seen enough of it.
        let next = |session: &mut super::peer::Session| {
            let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
            let moving = thread::spawn({
                let (time, stop) = (time.clone(), Arc::clone(&stop));
                move || {
                    while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                        time.advance(seconds(1));
                        thread::sleep(Duration::from_millis(5));
                    }
                }
            });
            let message = session.next();
            stop.store(true, std::sync::atomic::Ordering::SeqCst);
            moving.join().expect("no panic");
            message
        };
        let mut pinged = false;
        for _ in 0..8 {
            let message = next(&mut session);
            if message.method == "ping" {
                pinged = true;
                session.reply(message.number, Value::None);
                continue;
            }
            assert_eq!((message.number, &*message.method, &message.argument), (-1, ".reply", &Value::None));
            assert!(!message.is_one_way);
        }
        assert!(pinged, "a silent server is asked");
        assert!(!link.has_ended(), "{:?}", watcher.ended);
        link.close();
        session.expect_end();
    });
}

/// Also with messages of a server that are larger than what is read at once.
#[test]
fn large_messages_and_small_ones_keep_their_order() {
    let codec = Codec::Msgpack;
    let peer = Peer::new(codec);
    let (client, mut session) = connected(&peer, Tid(100));
    let heard = hear(&client);
    let many: Vec<Oid> = (0..50_000).map(Oid).collect();
    let mut all = Vec::new();
    for tid in 101..121 {
        let oids: &[Oid] = if tid % 2 == 0 { &many } else { &many[..1] };
        all.extend(codec.invalidation(Tid(tid), oids));
    }
    for piece in all.chunks(777_777) {
        session.send(piece);
    }
    wait_for("the last transaction", || client.last_transaction() == Tid(120));
    wait_for("the news", || heard.lock().unwrap().last().is_some_and(|last| last == "120"));
    let news: Vec<u64> = heard.lock().unwrap().iter().filter_map(|news| news.parse().ok()).collect();
    assert_eq!(news, (101..121).collect::<Vec<u64>>());
}
