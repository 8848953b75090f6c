//! The library against servers of all generations: views, commits, caches over restarts.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use runzeo::ids::{Oid, Tid};
use runzeo::internal::client::library::{Changed, Client, Done};
use runzeo::internal::client::options::ClientOptions;
use runzeo::internal::client::view::{Changes, View};
use runzeo::storage::prelude::*;
use runzeo::storage::{StorageError, TransactionMeta};

use crate::servers::{AnyServer, with_each};
use crate::support::process::Server;

/// A record that each server takes: a class without a module of its own, and a state.
pub fn record(state: &str) -> Vec<u8> {
    let mut data = b"cpersistent.mapping\nPersistentMapping\nq\x01.".to_vec();
    data.extend_from_slice(
        format!("}}q\x02U\x01aq\x03U{}{state}s.", char::from(state.len() as u8)).as_bytes(),
    );
    data
}

pub fn options(server: &AnyServer) -> ClientOptions {
    let mut options = ClientOptions::new(vec![server.address()]);
    options.wait_timeout = Duration::from_secs(30);
    options
}

pub fn with_cache(server: &AnyServer, path: &Path) -> ClientOptions {
    let mut options = options(server);
    options.cache_path = Some(path.to_path_buf());
    options
}

pub fn commit(client: &Client, stores: &[(Oid, Tid, &str)]) -> Result<Done, StorageError> {
    let mut transaction = client.transaction(TransactionMeta {
        user: b"me".to_vec(),
        description: b"a test".to_vec(),
        extension: Vec::new(),
    });
    for (oid, serial, state) in stores {
        transaction.store(*oid, *serial, &record(state)).expect("memory");
    }
    client.commit(transaction)
}

/// Refreshes until the view has the transaction.
pub fn refresh_to(view: &mut View, tid: Tid) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while view.start() <= tid {
        assert!(Instant::now() < deadline, "the view does not see {tid}");
        view.refresh();
    }
}

pub fn state(view: &View, oid: Oid) -> String {
    let revision = view.load(oid).expect("a load").expect("a revision");
    let text = revision.data.rsplit(|byte| *byte == b'U').next().expect("a state");
    String::from_utf8_lossy(&text[1..text.len() - 2]).into_owned()
}

#[test]
fn two_clients_see_each_others_commits() {
    with_each(|name, server| {
        eprintln!("-- {name}");
        let writer = Client::open(options(&server)).expect("a connection");
        let reader = Client::open(options(&server)).expect("a connection");
        let oids = writer.new_oids(2).expect("oids");
        let (one, two) = (oids[0], oids[1]);
        let first = commit(&writer, &[(one, Tid::ZERO, "1"), (two, Tid::ZERO, "2")]).expect("a commit");
        let mut view = reader.view();
        // A server before ZEO 5 does not tell of new objects only.
        view.refresh_from_server().expect("a view");
        let second = commit(&writer, &[(one, first.tid, "11")]).expect("a commit");
        refresh_to(&mut view, second.tid);
        assert_eq!((state(&view, one), state(&view, two)), ("11".into(), "2".into()), "{name}");

        // The writer's view has its own commit at once; an old view keeps its state.
        let old = writer.view();
        let third = commit(&writer, &[(one, second.tid, "111")]).expect("a commit");
        assert_eq!(state(&old, one), "11", "{name}");
        assert_eq!(state(&writer.view(), one), "111", "{name}");
        let before = view.clone();
        refresh_to(&mut view, third.tid);
        assert_eq!((state(&before, one), state(&view, one)), ("11".into(), "111".into()), "{name}");

        // What changed is told.
        let mut place = reader.view();
        assert_eq!(place.refresh(), Changes::Objects(vec![]), "{name}");
        let fourth = commit(&writer, &[(two, first.tid, "22")]).expect("a commit");
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match place.refresh() {
                Changes::Objects(oids) if oids.is_empty() => assert!(Instant::now() < deadline),
                changes => break assert_eq!(changes, Changes::Objects(vec![two]), "{name}"),
            }
        }
        assert_eq!(state(&place, two), "22");
        assert!(fourth.merged.is_empty());

        // A conflict is an error, and the next attempt from the new state succeeds.
        match commit(&reader, &[(one, first.tid, "x")]) {
            Err(StorageError::Conflict(conflict)) => assert_eq!(conflict.oid, one, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
        commit(&reader, &[(one, third.tid, "1111")]).expect("a commit");

        // What there is not.
        let missing = Oid(0x7777);
        assert!(matches!(view.load(missing), Err(StorageError::PosKey(oid)) if oid == missing), "{name}");
    });
}

/// Servers before ZEO 5 do not tell of a transaction that only creates objects.
#[test]
fn a_refresh_from_the_server_sees_transactions_of_which_nothing_was_sent() {
    with_each(|name, server| {
        let writer = Client::open(options(&server)).expect("a connection");
        let reader = Client::open(options(&server)).expect("a connection");
        assert!(reader.is_connected());
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hearing = Arc::clone(&heard);
        reader.on_change(move |changed| {
            if let Changed::Transaction { tid, oids } = changed {
                hearing.lock().expect("a lock").push((*tid, oids.len()));
            }
        });
        let oids = writer.new_oids(2).expect("oids");
        let first = commit(&writer, &[(oids[0], Tid::ZERO, "1")]).expect("a commit").tid;
        let mut view = reader.view();
        view.refresh_from_server().expect("a view");
        assert!(view.start() > first, "{name}: {} is not behind {first}", view.start());
        assert_eq!(state(&view, oids[0]), "1", "{name}");
        let second = commit(&writer, &[(oids[1], Tid::ZERO, "2")]).expect("a commit").tid;
        view.refresh_from_server().expect("a view");
        assert_eq!((view.start(), state(&view, oids[1])), (Tid(second.0 + 1), "2".into()), "{name}");
        // Once more: nothing is told twice.
        view.refresh_from_server().expect("a view");
        let third = commit(&writer, &[(oids[0], first, "11")]).expect("a commit").tid;
        let changes = view.refresh_from_server().expect("a view");
        assert_eq!(
            (changes, state(&view, oids[0])),
            (Changes::Objects(vec![oids[0]]), "11".into()),
            "{name}"
        );
        let heard = heard.lock().expect("a lock").clone();
        let tids: Vec<Tid> = heard.iter().map(|(tid, _)| *tid).collect();
        assert_eq!(tids, [first, second, third], "{name}: {heard:?}");

        // Of ZEO 5 and 6 with uvloop, one answer in ten comes before an invalidation that was queued earlier.
        let mut serial = third;
        for _ in 0..60 {
            serial = commit(&writer, &[(oids[0], serial, "111")]).expect("a commit").tid;
            view.refresh_from_server().expect("a view");
            assert!(view.start() > serial, "{name}: {} is not behind {serial}", view.start());
        }
    });
}

#[test]
fn histories_transactions_undo_and_packs() {
    with_each(|name, server| {
        eprintln!("-- {name}");
        let client = Client::open(options(&server)).expect("a connection");
        // The root, which is no garbage.
        let oid = Oid::ZERO;
        let first = commit(&client, &[(oid, Tid::ZERO, "1")]).expect("a commit").tid;
        let second = commit(&client, &[(oid, first, "2")]).expect("a commit").tid;

        let history: Vec<Tid> =
            client.history(oid, 10).expect("a history").iter().map(|entry| entry.tid).collect();
        assert_eq!(history, [second, first], "{name}");
        let mut data = Vec::new();
        client.load_serial(oid, first, 0, &mut data).expect("a revision");
        assert_eq!(data, record("1"), "{name}");
        assert_eq!(client.get_tid(oid).expect("a tid"), second, "{name}");

        if let Some(iteration) = client.iteration() {
            let mut transactions = iteration.iterate(Some(first), None).expect("an iterator");
            let mut seen = Vec::new();
            while let Some(transaction) = transactions.next_transaction().expect("a transaction") {
                assert_eq!(transaction.meta.user, b"me", "{name}");
                let mut records = transactions.records().expect("records");
                while let Some(record) = records.next_record().expect("a record") {
                    seen.push((transaction.tid, record.oid, record.data));
                }
            }
            assert_eq!(seen, [(first, oid, Some(record("1"))), (second, oid, Some(record("2")))], "{name}");
        } else {
            assert!(name.contains("38"), "{name} lists its transactions");
        }

        let undo = client.undo().expect("undo");
        let mut entry = None;
        undo.undo_log(&mut |undoable| {
            entry = Some(undoable);
            ControlFlow::Break(())
        })
        .expect("an undo log");
        let entry = entry.expect("an entry");
        assert_eq!((entry.tid, &*entry.meta.description), (second, &b"a test"[..]), "{name}");
        let mut transaction = client.transaction(TransactionMeta::default());
        transaction.undo(second);
        let undone = client.commit(transaction).expect("an undo");
        assert_eq!(state(&client.view(), oid), "1", "{name}");

        std::thread::sleep(Duration::from_millis(10)); // The pack is for a later time than the last transaction.
        client.pack_now().expect("a pack");
        assert_eq!(state(&client.view(), oid), "1", "{name}: after {}", undone.tid);
    });
}

#[test]
fn a_cache_file_is_used_again() {
    with_each(|name, server| {
        eprintln!("-- {name}");
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.zec");
        let client = Client::open(with_cache(&server, &path)).expect("a connection");
        let oids = client.new_oids(3).expect("oids");
        let stores: Vec<_> = oids.iter().map(|oid| (*oid, Tid::ZERO, "1")).collect();
        let first = commit(&client, &stores).expect("a commit").tid;
        oids.iter().for_each(|oid| assert_eq!(state(&client.view(), *oid), "1"));
        client.close().expect("a close");
        drop(client);

        // Nothing missed: all three are there without the server.
        let mut alone = with_cache(&server, &path);
        alone.addresses =
            vec![crate::support::process::free_address()].into_iter().map(crate::servers::tcp).collect();
        alone.wait = false;
        alone.wait_timeout = Duration::ZERO;
        let client = Client::open(alone).expect("the cache");
        oids.iter().for_each(|oid| assert_eq!(state(&client.view(), *oid), "1", "{name}"));
        drop(client);

        // Something missed: it is found when the client returns.
        let other = Client::open(options(&server)).expect("a connection");
        let second = commit(&other, &[(oids[1], first, "2")]).expect("a commit").tid;
        let client = Client::open(with_cache(&server, &path)).expect("a connection");
        let view = client.view();
        assert!(view.start() > second, "{name}");
        let states: Vec<String> = oids.iter().map(|oid| state(&view, *oid)).collect();
        assert_eq!(states, ["1", "2", "1"], "{name}");
    });
}

#[test]
fn listeners_hear_every_transaction_in_order() {
    let server = AnyServer::Ours(Server::start());
    let writer = Client::open(options(&server)).expect("a connection");
    let reader = Client::open(options(&server)).expect("a connection");
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hearing = Arc::clone(&heard);
    reader.on_change(move |changed| {
        if let Changed::Transaction { tid, .. } = changed {
            hearing.lock().expect("a lock").push(*tid);
        }
    });
    let oid = writer.new_oids(1).expect("oids")[0];
    let mut serial = Tid::ZERO;
    let mut tids = Vec::new();
    for n in 0..50 {
        let client = if n % 5 == 4 { &reader } else { &writer };
        serial = commit(client, &[(oid, serial, "x")]).expect("a commit").tid;
        tids.push(serial);
    }
    let mut view = reader.view();
    refresh_to(&mut view, serial);
    assert_eq!(*heard.lock().expect("a lock"), tids);
}

#[test]
fn the_example_describes_a_database() {
    let server = AnyServer::Ours(Server::start());
    let client = Client::open(options(&server)).expect("a connection");
    let described = crate::zeo_client::describe(&client).expect("a description");
    assert!(described.contains("there is no root yet"), "{described}");
    let done = commit(&client, &[(Oid::ZERO, Tid::ZERO, "1")]).expect("a commit");
    let described = crate::zeo_client::describe(&client).expect("a description");
    let expected = format!(
        "1 objects, {} bytes\nlast transaction {}\nthe root is persistent.mapping.PersistentMapping,",
        client.size(),
        done.tid
    );
    assert!(described.contains(&expected), "{described}");
}
