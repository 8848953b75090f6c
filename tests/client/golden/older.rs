//! Servers before ZEO 5: another order of the first calls, full verification, serials before the answer to vote.

use std::thread;

use runzeo::ids::{Oid, Tid};
use runzeo::storage::prelude::*;
use runzeo::storage::{StorageError, TransactionMeta};

use super::connecting::{fill, hear, kept, open, options, options_with, wait_for};
use super::peer::{Codec, Peer, Session, revision};
use crate::support::pickle::{Value, id, text};

const PROTOCOLS: [&str; 5] = ["Z308", "Z309", "Z310", "Z3101", "Z4"];

/// Runs a session with each protocol.
fn with_each_protocol(session: impl Fn(&'static str, Codec)) {
    for protocol in PROTOCOLS {
        eprintln!("-- {protocol}");
        session(protocol, Codec::Old(protocol));
    }
}

/// The next connection, up to the moment when verification begins.
fn accept(peer: &Peer, last: Tid) -> Session {
    let mut session = peer.accept();
    session.greet("");
    let authentication = session.expect("getAuthProtocol", &[]);
    session.expect_nothing();
    session.reply(authentication, Value::None);
    let register = session.expect_register(false);
    session.reply(register, Value::None);
    session.expect_last_transaction(last);
    session
}

/// The label is sent to servers that know it, before they are asked for anything.
#[test]
fn registration() {
    with_each_protocol(|protocol, codec| {
        let peer = Peer::new(codec);
        let opening = open(options_with(&[&peer], |options| options.label = Some("a label".into())));
        let mut session = peer.accept();
        session.greet("");
        let authentication = session.expect("getAuthProtocol", &[]);
        session.reply(authentication, Value::None);
        let register = session.expect_register(false);
        session.reply(register, Value::None);
        if !matches!(protocol, "Z308" | "Z309") {
            session.expect_one_way("set_client_label", &[Value::Bytes(b"a label".to_vec())]);
        }
        session.expect_last_transaction(Tid(100));
        session.expect_get_info();
        assert_eq!(opening.join().expect("no panic").last_transaction(), Tid(100));
    });
}

/// What has changed is named while the client names what it has, and in between a transaction arrives.
#[test]
fn full_verification() {
    with_each_protocol(|protocol, codec| {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.zec");
        let cached = [(Oid(1), Tid(90)), (Oid(2), Tid(80)), (Oid(3), Tid(70))];
        fill(&path, Tid(100), &cached);
        let peer = Peer::new(codec);
        let opening = open(options_with(&[&peer], |options| options.cache_path = Some(path.clone())));
        let mut session = accept(&peer, Tid(500));
        let asked = session.expect("getInvalidations", &[id(100)]);
        session.reply(asked, Value::None);
        let mut named = Vec::new();
        for _ in cached {
            let message = session.next();
            assert!(message.is_one_way && message.method == "verify", "{message:?}");
            let args = message.argument.tuple();
            assert_eq!(args.len(), if protocol == "Z308" { 3 } else { 2 });
            named.push((Oid(args[0].id()), Tid(args[args.len() - 1].id())));
        }
        named.sort_unstable();
        assert_eq!(named, cached);
        session.expect_one_way("endZeoVerify", &[]);
        // Its answer comes after all that the server has found.
        let last = session.expect("lastTransaction", &[]);
        session.send(&codec.push("invalidateVerify", vec![codec.oid(Oid(1))]));
        session.invalidate(Tid(501), &[Oid(3)]);
        session.send(&codec.push("endVerify", vec![]));
        session.expect_nothing();
        session.reply(last, id(501));
        session.expect_get_info();
        let client = opening.join().expect("no panic");
        assert_eq!(client.last_transaction(), Tid(501));
        drop(client);
        assert_eq!(kept(&path, &[Oid(1), Oid(2), Oid(3)]), [Oid(2)]);
    });
}

/// A server that does not say that it has checked all is not believed: the cache is emptied.
#[test]
fn a_verification_without_an_end() {
    with_each_protocol(|_, codec| {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.zec");
        fill(&path, Tid(100), &[(Oid(1), Tid(90))]);
        let peer = Peer::new(codec);
        let opening = open(options_with(&[&peer], |options| options.cache_path = Some(path.clone())));
        let mut session = accept(&peer, Tid(500));
        let asked = session.expect("getInvalidations", &[id(100)]);
        session.reply(asked, Value::None);
        assert_eq!(session.next().method, "verify");
        session.expect_one_way("endZeoVerify", &[]);
        let last = session.expect("lastTransaction", &[]);
        session.reply(last, id(500));
        session.expect_get_info();
        drop(opening.join().expect("no panic"));
        assert_eq!(kept(&path, &[Oid(1)]), []);
    });
}

/// A reply to a load that was computed before a transaction, and sent after its invalidation.
#[test]
fn a_reply_that_is_late() {
    with_each_protocol(|_, codec| {
        let peer = Peer::new(codec);
        let opening = open(options(&[&peer]));
        let mut session = accept(&peer, Tid(100));
        session.expect_get_info();
        let client = opening.join().expect("no panic");
        let view = client.view();
        let loading = thread::spawn(move || view.load(Oid(1)).expect("a load").expect("a revision"));
        let number = session.expect("loadBefore", &[id(1), id(101)]);
        let late =
            [codec.invalidation(Tid(200), &[Oid(1)]), codec.reply(number, revision(b"old", Tid(50), None))];
        session.send(&late.concat());
        let old = loading.join().expect("no panic");
        assert_eq!((&*old.data, old.end), (&b"old"[..], Some(Tid(200))));
        wait_for("the transaction", || client.last_transaction() == Tid(200));
        // It is no current revision.
        let view = client.view();
        let loading = thread::spawn(move || view.load(Oid(1)).expect("a load").expect("a revision"));
        session.expect_load(Oid(1), Tid(201), b"new", Tid(200), None);
        assert_eq!(&*loading.join().expect("no panic").data, b"new");
    });
}

/// ZODB before 4 answers a load of an object that was deleted with an empty record. It is not cached.
#[test]
fn a_deleted_object_is_an_empty_record() {
    with_each_protocol(|_, codec| {
        let peer = Peer::new(codec);
        let opening = open(options(&[&peer]));
        let mut session = accept(&peer, Tid(100));
        session.expect_get_info();
        let client = opening.join().expect("no panic");
        for _ in 0..2 {
            let view = client.view();
            let loading = thread::spawn(move || view.load(Oid(1)));
            session.expect_load(Oid(1), Tid(101), b"", Tid(90), None);
            let missing = loading.join().expect("no panic");
            assert!(matches!(missing, Err(StorageError::PosKey(Oid(1)))), "{missing:?}");
        }
    });
}

/// Serials come before the answer to vote. One that the server has merged is loaded again.
#[test]
fn serials_before_the_answer_to_vote() {
    with_each_protocol(|protocol, codec| {
        let peer = Peer::new(codec);
        let opening = open(options(&[&peer]));
        let mut session = accept(&peer, Tid(100));
        session.expect_get_info();
        let client = opening.join().expect("no panic");
        let heard = hear(&client);
        let committing = thread::spawn({
            let client = client.clone();
            move || {
                let mut transaction = client.transaction(TransactionMeta::default());
                transaction.store(Oid(1), Tid(50), b"one").expect("memory");
                transaction.store(Oid(2), Tid(0), b"two").expect("memory");
                client.commit(transaction)
            }
        });
        let begin = session.next();
        assert_eq!(begin.method, "tpc_begin");
        // Before ZODB 3.10 it has an answer.
        let is_answered = matches!(protocol, "Z308" | "Z309");
        assert_eq!(!begin.is_one_way, is_answered);
        if is_answered {
            session.reply(begin.number, Value::None);
        }
        let txn = begin.argument.tuple()[0].clone();
        for (oid, serial, data) in [(1, 50, b"one"), (2, 0, b"two")] {
            let mut args = vec![id(oid), id(serial), Value::Bytes(data.to_vec())];
            args.extend((protocol == "Z308").then(|| Value::Bytes(Vec::new())));
            args.push(txn.clone());
            session.expect_one_way("storea", &args);
        }
        let vote = session.expect("vote", std::slice::from_ref(&txn));
        let serials =
            [(1, text("rs")), (2, id(200))].map(|(oid, serial)| Value::Tuple(vec![id(oid), serial]));
        session.send(&codec.push("serialnos", vec![Value::List(serials.to_vec())]));
        session.reply(vote, Value::None);
        let finish = session.expect("tpc_finish", &[txn]);
        session.reply(finish, id(200));
        let done = committing.join().expect("no panic").expect("a commit");
        assert_eq!((done.tid, &done.merged[..]), (Tid(200), &[Oid(1)][..]));
        assert_eq!(heard.lock().unwrap().last().map(String::as_str), Some("200"));
        let view = client.view();
        assert_eq!(&*view.load(Oid(2)).expect("a load").expect("a revision").data, b"two");
        let loading = thread::spawn(move || view.load(Oid(1)).expect("a load").expect("a revision"));
        session.expect_load(Oid(1), Tid(201), b"merged", Tid(200), None);
        assert_eq!(&*loading.join().expect("no panic").data, b"merged");
    });
}
