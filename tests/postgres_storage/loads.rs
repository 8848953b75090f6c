//! Loads of many threads at once, which one statement answers.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use runzeo::ids::Tid;
use runzeo::internal::storage::postgres::{PostgresOptions, PostgresStorage};
use runzeo::storage::StorageError;
use runzeo::storage::prelude::*;

use crate::support::postgres::PostgresServer;
use crate::support::storage::{Answers, Found, commit, load_before};
use crate::{Sql, dsn, eventually};

const OBJECTS: u64 = 40;
const THREADS: u64 = 16;
/// Questions that the sessions cannot take up while this lock is held. They give up waiting after a second.
const HELD_UP: &str = "begin; lock table object_state in access exclusive mode; select pg_sleep(0.3); commit";
/// What the sessions have asked last.
const ASKED_TOGETHER: &str = "select count(*) from pg_stat_activity \
                              where application_name = 'runzeo: reader' and query like '%with ordinality%'";

/// What a load must find: an error of an object that is not there.
type Expected = Option<Option<Found>>;

fn check(storage: &PostgresStorage, oid: u64, before: Tid, expected: &Expected) {
    match (load_before(storage, oid, before), expected) {
        (Ok(found), Some(expected)) => assert_eq!(found, *expected, "{oid} before {before}"),
        (Err(StorageError::PosKey(missing)), None) => assert_eq!(missing.0, oid),
        (found, _) => panic!("{oid} before {before}: {found:?} instead of {expected:?}"),
    }
}

/// Loads all of `expected` by many threads, until some were asked together.
fn load_together(storage: &PostgresStorage, sql: &mut Sql, expected: &[(u64, Tid, Expected)]) {
    let (is_over, loads) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for thread in 0..THREADS as usize {
            let (is_over, loads) = (&is_over, &loads);
            scope.spawn(move || {
                for (oid, before, expected) in expected.iter().cycle().skip(thread * 7) {
                    if is_over.load(Ordering::SeqCst) {
                        return;
                    }
                    check(storage, *oid, *before, expected);
                    loads.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        eventually("some are asked together", || {
            sql.run(HELD_UP);
            sql.number(ASKED_TOGETHER) > 0
        });
        let enough = loads.load(Ordering::SeqCst) + 4 * expected.len();
        eventually("all were loaded", || loads.load(Ordering::SeqCst) > enough);
        is_over.store(true, Ordering::SeqCst);
    });
}

fn open(options: PostgresOptions) -> PostgresStorage {
    let storage = PostgresStorage::open(PostgresOptions { cache_size: 0, ..options }).expect("a storage");
    storage.set_publisher(std::sync::Arc::new(Answers));
    storage
}

#[test]
fn each_thread_gets_its_own_record() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let (storage, mut sql) = (open(PostgresOptions::new(dsn(&server))), Sql::connect(&server));
    let data = |oid: u64, which: &str| format!("{which} of {oid}").repeat(oid as usize).into_bytes();
    let mut expected = Vec::new();
    for oid in 1..=OBJECTS {
        let first = commit(&storage, &[(oid, Tid::ZERO, &data(oid, "first"))]).unwrap();
        let second = commit(&storage, &[(oid, first, &data(oid, "second"))]).unwrap();
        expected.push((oid, first, Some(None)));
        expected.push((oid, second, Some(Some((data(oid, "first"), first, Some(second))))));
        expected.push((oid, Tid::MAX, Some(Some((data(oid, "second"), second, None)))));
        expected.push((1000 + oid, Tid::MAX, None));
    }
    load_together(&storage, &mut sql, &expected);
}

#[test]
fn each_thread_gets_its_own_record_without_history() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let options = PostgresOptions { keep_history: false, ..PostgresOptions::new(dsn(&server)) };
    let (storage, mut sql) = (open(options), Sql::connect(&server));
    let mut expected = Vec::new();
    for oid in 1..=OBJECTS {
        let data = format!("{oid}").repeat(oid as usize).into_bytes();
        let tid = commit(&storage, &[(oid, Tid::ZERO, &data)]).unwrap();
        expected.push((oid, Tid::MAX, Some(Some((data, tid, None)))));
        expected.push((1000 + oid, Tid::MAX, None));
    }
    load_together(&storage, &mut sql, &expected);
}
