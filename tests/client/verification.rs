//! What a client does with the cache of its last run, with servers of every generation.

use std::path::Path;
use std::time::Duration;

use runzeo::ids::{Oid, Tid};
use runzeo::internal::client::library::Client;
use runzeo::internal::client::options::ClientOptions;
use runzeo::storage::prelude::*;
use runzeo::storage::{StorageError, TransactionMeta};

use crate::library::{commit, options, record, state, with_cache};
use crate::servers::{AnyServer, PYTHONS, PythonServer, with_each, with_each_having};
use crate::support::process::Server;

/// Transactions that servers remember in the tests of this file.
const QUEUE: &str = "invalidation-queue-size 5";

/// Commits `oids` with state "1" and loads them into the cache at `path`.
fn fill(server: &AnyServer, path: &Path, oids: &[Oid]) -> Tid {
    let client = Client::open(with_cache(server, path)).expect("a connection");
    let stores: Vec<_> = oids.iter().map(|oid| (*oid, Tid::ZERO, "1")).collect();
    let tid = commit(&client, &stores).expect("a commit").tid;
    oids.iter().for_each(|oid| assert_eq!(state(&client.view(), *oid), "1"));
    tid
}

/// A client that was away for longer than the server remembers: servers before ZEO 5 check each object, and what has
/// not changed stays in the cache; with others everything is dropped. Nothing stale is read.
#[test]
fn a_client_that_was_away_for_long() {
    for drop_rather in [false, true] {
        with_each_having(QUEUE, |name, mut server| {
            let dir = tempfile::tempdir().expect("a directory");
            let path = dir.path().join("a.zec");
            let oids = [Oid(1), Oid(2), Oid(3)];
            let first = fill(&server, &path, &oids);
            let other = Client::open(options(&server)).expect("a connection");
            let second = commit(&other, &[(oids[1], first, "2")]).expect("a commit").tid;
            let mut serial = Tid::ZERO;
            for _ in 0..20 {
                serial = commit(&other, &[(Oid(9), serial, "x")]).expect("a commit").tid;
            }
            drop(other);

            let mut with_cache = with_cache(&server, &path);
            with_cache.drop_cache_rather_verify = drop_rather;
            with_cache.wait_timeout = Duration::from_secs(20);
            let client = Client::open(with_cache).expect("a connection");
            let view = client.view();
            assert!(view.start() > serial, "{name}");
            assert_eq!(state(&view, oids[1]), "2", "{name}");
            assert_eq!(view.load(oids[1]).expect("a load").expect("a revision").serial, second, "{name}");
            drop(client);

            // What is left in the file, without a server.
            server.kill();
            let left = Client::open(alone(&path)).expect("the cache");
            let is_there = |oid: &Oid| left.view().load(*oid).is_ok_and(|found| found.is_some());
            let kept: Vec<bool> = oids.iter().map(is_there).collect();
            let can_check =
                !name.starts_with("ours") && !name.starts_with("zeo5") && !name.starts_with("zeo6");
            let expected = if can_check && !drop_rather { [true, true, true] } else { [false, true, false] };
            assert_eq!(kept, expected, "{name}, drop-cache-rather-verify {drop_rather}");
        });
    }
}

/// A client of a cache without any server.
fn alone(path: &Path) -> ClientOptions {
    let mut options = ClientOptions::new(vec![crate::servers::tcp(crate::support::process::free_address())]);
    options.cache_path = Some(path.to_path_buf());
    options.wait = false;
    options.wait_timeout = Duration::ZERO;
    options
}

/// A server that knows the time of the cache's last transaction from a database of its own answers what has changed
/// since. Python's clients go on with the states of the other database.
#[test]
fn a_cache_of_another_database_is_dropped() {
    let mut pairs =
        vec![("ours".to_string(), [AnyServer::Ours(Server::start()), AnyServer::Ours(Server::start())])];
    for &(environment, msgpack) in PYTHONS.iter().filter(|(_, msgpack)| !msgpack) {
        assert!(!msgpack);
        let start = || PythonServer::start(environment, "", |_| ()).map(AnyServer::Python);
        if let (Some(one), Some(two)) = (start(), start()) {
            pairs.push((environment.into(), [one, two]));
        }
    }
    for (name, [one, two]) in pairs {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.zec");
        let client = Client::open(options(&two)).expect("a connection");
        let serial =
            commit(&client, &[(Oid(1), Tid::ZERO, "two"), (Oid(2), Tid::ZERO, "x")]).expect("a commit").tid;
        fill(&one, &path, &[Oid(1)]);
        commit(&client, &[(Oid(2), serial, "y")]).expect("a commit");
        let client = Client::open(with_cache(&two, &path)).expect("a connection");
        assert_eq!(state(&client.view(), Oid(1)), "two", "{name}");
    }
}

/// The server has an older last transaction than the cache: it is not used with it, and the error says what to do.
#[test]
fn a_cache_that_is_newer_than_the_server_is_not_used() {
    let (old, new) = (AnyServer::Ours(Server::start()), AnyServer::Ours(Server::start()));
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.zec");
    let client = Client::open(options(&old)).expect("a connection");
    commit(&client, &[(Oid(1), Tid::ZERO, "old")]).expect("a commit");
    fill(&new, &path, &[Oid(1)]);
    let mut options = with_cache(&old, &path);
    options.wait_timeout = Duration::from_secs(2);
    match Client::open(options) {
        Err(StorageError::Disconnected(why)) => assert!(why.contains("remove its file"), "{why}"),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("the cache is used"),
    }
    // It is as before.
    assert_eq!(state(&Client::open(with_cache(&new, &path)).expect("a connection").view(), Oid(1)), "1");
}

/// What was read is checked at commit, also by servers that have no call for it.
#[test]
fn dependencies_are_checked_with_every_server() {
    with_each(|name, server| {
        let client = Client::open(options(&server)).expect("a connection");
        let first =
            commit(&client, &[(Oid(1), Tid::ZERO, "1"), (Oid(2), Tid::ZERO, "1")]).expect("a commit").tid;
        let second = commit(&client, &[(Oid(1), first, "2")]).expect("a commit").tid;
        let depending = |read| {
            let mut transaction = client.transaction(TransactionMeta::default());
            transaction.check_current(Oid(1), read);
            transaction.store(Oid(2), first, &record("3")).expect("memory");
            client.commit(transaction)
        };
        match depending(first) {
            Err(StorageError::ReadConflict(conflict)) => assert_eq!(conflict.oid, Oid(1), "{name}"),
            other => panic!("{name}: {other:?}"),
        }
        // The refused transaction is gone, and the next one can be committed.
        let third = depending(second).unwrap_or_else(|error| panic!("{name}: {error}")).tid;
        assert_eq!(client.get_tid(Oid(2)).expect("a tid"), third, "{name}");
    });
}
