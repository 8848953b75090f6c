//! Views of the library across the restore of an older file, with servers of every generation.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use runzeo::client::records::ObjectsError;
use runzeo::client::{Changes, Client, ClientOptions};
use runzeo::ids::{Oid, Tid};
use runzeo::storage::{StorageError, TransactionMeta};

use crate::library::{commit, options, state};
use crate::middle::middle;
use crate::servers::{AnyServer, tcp, with_each};

const ONE: Oid = Oid(1);
const TWO: Oid = Oid(2);

/// A view that has seen a transaction which the restored file does not have reads nothing more: neither what the
/// client still has cached, nor what the server has now, and it cannot be committed from. After a refresh it can.
fn outlives_a_restore(name: &str, root: &mut AnyServer, options: ClientOptions) {
    let client = Client::open(options).expect("a connection");
    let first = commit(&client, &[(ONE, Tid::ZERO, "1"), (TWO, Tid::ZERO, "1")]).expect("a commit").tid;
    root.kill();
    let file = data_file(root);
    let copy = fs::read(&file).expect("Data.fs");
    root.start_again();

    let second = again(name, || commit(&client, &[(ONE, first, "lost")])).tid;
    let mut view = client.view();
    assert!(view.start() > second, "{name}");
    assert_eq!(state(&view, ONE), "lost", "{name}");
    let objects = client.objects();
    root.kill();
    fs::write(&file, copy).expect("Data.fs");
    let _ = fs::remove_file(file.with_extension("fs.index"));
    root.start_again();
    // A database whose last transaction is earlier than one that the client has seen is not used.
    let other = Client::open(polling_often(root)).expect("a connection");
    let serial = again(name, || commit(&other, &[(TWO, first, "2")])).tid;
    assert!(serial > second, "{name}");
    again(name, || match client.view() {
        now if now.start() > serial => Ok(()),
        _ => Err(StorageError::Disconnected("it has not seen the other one".into())),
    });

    for oid in [ONE, TWO] {
        let loaded = view.load(oid);
        assert!(matches!(loaded, Err(StorageError::Outdated(_))), "{name}: {loaded:?}");
    }
    for loaded in view.load_many(&[TWO, ONE]) {
        assert!(matches!(loaded, Err(StorageError::Outdated(_))), "{name}: {loaded:?}");
    }
    match client.commit_objects(objects, TransactionMeta::default()) {
        Err(error @ ObjectsError::Storage(StorageError::Outdated(_))) => assert!(error.is_conflict()),
        other => panic!("{name}: {other:?}"),
    }
    assert_eq!(view.refresh(), Changes::Unknown, "{name}");
    assert_eq!((state(&view, ONE), state(&view, TWO)), ("1".into(), "2".into()), "{name}");
}

fn polling_often(server: &AnyServer) -> ClientOptions {
    let mut options = options(server);
    options.disconnect_poll = POLL;
    options
}

/// Until it does not fail for a missing connection.
fn again<T>(name: &str, act: impl Fn() -> Result<T, StorageError>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match act() {
            Err(StorageError::Disconnected(_) | StorageError::ReadOnly) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(20));
            }
            result => return result.unwrap_or_else(|error| panic!("{name}: {error}")),
        }
    }
}

fn data_file(server: &AnyServer) -> PathBuf {
    server.directory().join("Data.fs")
}

#[test]
fn a_view_of_a_restored_database_is_outdated() {
    with_each(|name, mut root| {
        let options = polling_often(&root);
        outlives_a_restore(name, &mut root, options);
    });
}

/// The leaf stays connected with the middle until this has found out.
#[test]
fn a_view_behind_a_middle_of_a_restored_database_is_outdated() {
    with_each(|name, mut root| {
        let middle = middle(&root, "wait-timeout 1");
        let mut options = ClientOptions::new(vec![tcp(middle.address)]);
        options.wait_timeout = Duration::from_secs(30);
        options.read_only_fallback = true;
        options.disconnect_poll = POLL;
        outlives_a_restore(name, &mut root, options);
    });
}

/// A view of the same database goes on after a reconnect, whatever was missed.
#[test]
fn a_view_goes_on_after_a_reconnect() {
    with_each(|name, mut root| {
        let options = polling_often(&root);
        let client = Client::open(options.clone()).expect("a connection");
        let first = commit(&client, &[(ONE, Tid::ZERO, "1"), (TWO, Tid::ZERO, "1")]).expect("a commit").tid;
        let view = client.view();
        assert!(view.start() > first, "{name}");
        root.kill();
        root.start_again();
        let other = Client::open(options).expect("a connection");
        let mut serial = first;
        for n in 0..3 {
            serial = again(name, || commit(&other, &[(ONE, serial, &n.to_string())])).tid;
        }
        again(name, || match client.view() {
            now if now.start() > serial => Ok(()),
            _ => Err(StorageError::Disconnected("it has not seen the other one".into())),
        });
        assert_eq!((state(&view, ONE), state(&view, TWO)), ("1".into(), "1".into()), "{name}");
    });
}

const POLL: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(500));
