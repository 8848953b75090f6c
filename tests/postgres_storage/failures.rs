//! Sessions that end, servers that take over, and a database that is cleared.

use std::sync::mpsc::Receiver;
use std::time::Duration;

use runzeo::ids::{Oid, Tid};
use runzeo::internal::postgres::Dsn;
use runzeo::internal::storage::postgres::{PostgresOptions, PostgresStorage};
use runzeo::storage::prelude::*;
use runzeo::storage::{StorageError, TidAt};

use crate::support::postgres::PostgresServer;
use crate::support::storage::{Answers, Outcome, commit, finish_voted, load, staged};
use crate::{LONG, Sql, dsn, eventually, lost_for_good, storage, storage_of};

const END_ALL: &str =
    "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'runzeo:%'";

/// A vote survives its session: the locks are taken again on the next one.
#[test]
fn a_voted_transaction_survives_its_session() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let storage = storage(&server);
    let mut sql = Sql::connect(&server);
    let t1 = commit(&storage, &[(1, Tid::ZERO, b"one")]).unwrap();
    let mut transaction = staged();
    transaction.store(Oid(1), t1, b"two").unwrap();
    let voted = storage.vote(transaction, TidAt::Finish).unwrap();
    sql.run(END_ALL);
    eventually("the lock is held again", || {
        sql.number("select count(*) from pg_locks where locktype = 'advisory' and objid = 1") == 1
    });
    match finish_voted(&storage, voted).recv().unwrap() {
        Outcome::Done { tid, .. } => assert_eq!(load(&storage, 1).unwrap(), (b"two".to_vec(), tid)),
        Outcome::Failed(error) => panic!("{error}"),
    }
    storage.close().unwrap();
}

/// Symptom: clients of ZEO 4 lost their connections, or stood still for ever, when others committed through another
/// server: an invalidation came between the vote and the answer to the finish. From a vote that promises an id on no
/// other transaction can be committed; those of before must be published before its answer.
#[test]
fn a_vote_that_promises_an_id_has_published_all_before() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let [here, there] = [storage(&server), storage(&server)];
    let mut serial = Tid::ZERO;
    for oid in 10..60 {
        let mut transaction = staged();
        transaction.store(Oid(oid), Tid::ZERO, b"own").unwrap();
        serial = commit(&there, &[(1, serial, b"other")]).unwrap();
        let voted = here.vote(transaction, TidAt::Vote).unwrap();
        assert_eq!(here.last_transaction(), serial);
        match finish_voted(&here, voted).recv().unwrap() {
            Outcome::Done { tid, .. } => assert!(tid > serial),
            Outcome::Failed(error) => panic!("{error}"),
        }
    }
}

/// What another client has changed while the locks were lost is not overwritten.
#[test]
fn a_vote_whose_object_was_changed_meanwhile_is_not_finished() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let [here, there] = [storage(&server), storage(&server)];
    let mut sql = Sql::connect(&server);
    let t1 = commit(&here, &[(1, Tid::ZERO, b"one")]).unwrap();
    there.catch_up().unwrap();
    let mut transaction = staged();
    transaction.store(Oid(1), t1, b"lost").unwrap();
    let voted = here.vote(transaction, TidAt::Finish).unwrap();
    // As a client of RelStorage changes it that takes no locks: an undo.
    sql.run(
        "begin; select pg_advisory_xact_lock(-1); \
         insert into transaction (tid, username, description, extension) \
             select max(tid) + 1, '', '', '' from transaction; \
         insert into object_state (zoid, tid, prev_tid, md5, state_size, state) \
             select 1, t.tid, c.tid, md5('undone'::bytea), 6, 'undone' \
             from (select max(tid) as tid from transaction) t, current_object c where c.zoid = 1; \
         update current_object set tid = (select max(tid) from transaction) where zoid = 1; commit",
    );
    match finish_voted(&here, voted).recv().unwrap() {
        Outcome::Failed(StorageError::Conflict(conflict)) => assert_eq!(conflict.oid, Oid(1)),
        other => panic!("{other:?}"),
    }
    here.catch_up().unwrap();
    assert_eq!(load(&here, 1).unwrap().0, b"undone");
    // The locks are free again.
    let t2 = load(&there, 1).map(|(_, tid)| tid);
    there.catch_up().unwrap();
    let t2 = load(&there, 1).map(|(_, tid)| tid).or(t2).unwrap();
    commit(&there, &[(1, t2, b"three")]).unwrap();
}

/// Reads go on when their sessions end, and commits are seen by the other server at once.
#[test]
fn sessions_that_end_are_replaced() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let [here, there] = [storage(&server), storage(&server)];
    let mut sql = Sql::connect(&server);
    let mut tid = commit(&here, &[(1, Tid::ZERO, b"0")]).unwrap();
    for round in 1..6 {
        sql.run(END_ALL);
        tid = commit(&here, &[(1, tid, format!("{round}").as_bytes())]).unwrap();
        there.catch_up().unwrap();
        assert_eq!(there.last_transaction(), tid);
        assert_eq!(load(&there, 1).unwrap(), (format!("{round}").into_bytes(), tid));
    }
    assert_eq!(here.history(Oid(1), 100).unwrap().len(), 6);
    for storage in [&here, &there] {
        eventually("it is connected", || storage.failure().is_none());
        let interruptions = storage.remote().expect("a database").interruptions;
        assert!((1..=5).contains(&interruptions), "{interruptions}");
    }
    let groups = here.sync_counts().expect("groups").group_sizes;
    assert!(groups.counts.iter().sum::<u64>() >= 1, "{groups:?}");
}

/// The standby that takes over is read, too: reads from the primary of before would miss what is committed now.
#[test]
fn a_standby_takes_over() {
    let Some(primary) = PostgresServer::start(&[]) else { return };
    let standby = primary.standby();
    let [first, second] = [&primary, &standby].map(|server| server.socket_dir().display().to_string());
    let dsn = Dsn::parse(&format!("host={first},{second} user=postgres dbname=postgres"), &|_| None).unwrap();
    let storage = PostgresStorage::open(PostgresOptions::new(dsn)).unwrap();
    storage.set_publisher(std::sync::Arc::new(Answers));
    let t1 = commit(&storage, &[(1, Tid::ZERO, b"one"), (2, Tid::ZERO, b"other")]).unwrap();
    assert_eq!(load(&storage, 1).unwrap(), (b"one".to_vec(), t1));
    let mut sql = Sql::connect(&standby);
    eventually("the standby has the tables", || {
        sql.number("select count(*) from pg_class where relname = 'zoid_seq'") == 1
    });
    eventually("the standby has it", || {
        sql.number(&format!("select count(*) from transaction where tid = {}", t1.0)) == 1
    });
    primary.stop("immediate");
    standby.promote();
    let t2 = commit(&storage, &[(1, t1, b"two")]).unwrap();
    assert_eq!(load(&storage, 1).unwrap(), (b"two".to_vec(), t2));
    assert_eq!(load(&storage, 2).unwrap(), (b"other".to_vec(), t1));
    eventually("it is connected", || storage.failure().is_none());
}

/// A commit of object 1 that waits for the commit lock, which `sql` holds.
fn a_commit_that_waits(storage: &PostgresStorage, sql: &mut Sql) -> Receiver<Outcome> {
    let t1 = commit(storage, &[(1, Tid::ZERO, b"one")]).unwrap();
    let mut transaction = staged();
    transaction.store(Oid(1), t1, b"two").unwrap();
    let voted = storage.vote(transaction, TidAt::Finish).unwrap();
    sql.run("select pg_advisory_lock(-1)");
    let outcome = finish_voted(storage, voted);
    let waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted";
    eventually("the commit waits", || sql.number(waiting) == 1);
    outcome
}

/// Without the row that tells whether the last group was committed the outcome is not guessed.
#[test]
fn an_outcome_that_cannot_be_looked_up_is_not_guessed() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let storage = storage(&server);
    let mut sql = Sql::connect(&server);
    let outcome = a_commit_that_waits(&storage, &mut sql);
    sql.run(&format!("delete from runzeo_writers; {END_ALL}"));
    let outcome = outcome.recv().unwrap();
    assert!(matches!(outcome, Outcome::Failed(StorageError::OutcomeUnknown(_))), "{outcome:?}");
    sql.run("select pg_advisory_unlock(-1)");
    // What follows has a row again.
    let (_, tid) = load(&storage, 1).unwrap();
    commit(&storage, &[(1, tid, b"three")]).unwrap();
}

/// Another client keeps a commit from the commit lock: those that ask for the newest state, as each client does that
/// connects, do not wait with it. (They once did, until the commit was done.)
#[test]
fn clients_catch_up_while_a_commit_waits() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let storage = storage(&server);
    let mut sql = Sql::connect(&server);
    let outcome = a_commit_that_waits(&storage, &mut sql);
    std::thread::scope(|scope| {
        let (caught_up, outcome_of_it) = std::sync::mpsc::channel();
        let storage = &storage;
        scope.spawn(move || caught_up.send(storage.catch_up().is_ok()));
        let outcome_of_it = outcome_of_it.recv_timeout(Duration::from_secs(60));
        sql.run("select pg_advisory_unlock(-1)");
        assert_eq!(outcome_of_it, Ok(true));
    });
    let outcome = outcome.recv().unwrap();
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
}

/// A commit lock that another client does not give back is not waited for without end: nothing is committed, and the
/// client may try again.
#[test]
fn a_commit_that_does_not_get_the_commit_lock_fails() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let options = PostgresOptions { lock_timeout: Duration::ZERO, ..PostgresOptions::new(dsn(&server)) };
    let storage = storage_of(options);
    let mut sql = Sql::connect(&server);
    let outcome = a_commit_that_waits(&storage, &mut sql).recv_timeout(LONG).unwrap();
    assert!(matches!(outcome, Outcome::Failed(StorageError::Conflict(_))), "{outcome:?}");
    sql.run("select pg_advisory_unlock(-1)");
    // The lock on the object is free again.
    let (data, serial) = load(&storage, 1).unwrap();
    assert_eq!(data, b"one");
    commit(&storage, &[(1, serial, b"three")]).unwrap();
}

/// A database that has lost what clients have seen is not served.
#[test]
fn a_cleared_database_is_not_served() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let storage = storage(&server);
    commit(&storage, &[(1, Tid::ZERO, b"one")]).unwrap();
    let mut transaction = staged();
    transaction.store(Oid(3), Tid::ZERO, b"three").unwrap();
    let voted = storage.vote(transaction, TidAt::Finish).unwrap();
    Sql::connect(&server).run(
        "truncate object_state, current_object, transaction cascade; \
         insert into transaction (tid, username, description) values (0, '', '')",
    );
    eventually("it is noticed", || lost_for_good(&storage).is_some());
    let why = lost_for_good(&storage).unwrap();
    assert!(why.contains("is not in the database any more"), "{why}");
    assert!(matches!(load(&storage, 1), Err(StorageError::Closed(_))));
    assert!(matches!(commit(&storage, &[(2, Tid::ZERO, b"two")]), Err(StorageError::Closed(_))));
    let outcome = finish_voted(&storage, voted).recv().unwrap();
    assert!(matches!(outcome, Outcome::Failed(StorageError::Closed(_))), "{outcome:?}");
}

/// A pack by RelStorage removes a transaction of which nothing is left, the newest one, too. (Servers once took that
/// for a loss, and served nothing any more.)
#[test]
fn the_newest_transaction_may_be_removed_by_a_pack() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let storages = [storage(&server), storage(&server)];
    let [here, there] = &storages;
    let mut sql = Sql::connect(&server);
    let t1 = commit(here, &[(1, Tid::ZERO, b"one")]).unwrap();
    let garbage = commit(here, &[(2, Tid::ZERO, b"garbage")]).unwrap();
    there.catch_up().unwrap();
    sql.run(&format!(
        "delete from current_object where zoid = 2; delete from object_state where zoid = 2; \
         delete from transaction where tid = {}",
        garbage.0
    ));
    let check = || {
        for storage in &storages {
            storage.catch_up().unwrap();
            assert_eq!((lost_for_good(storage), storage.last_transaction()), (None, garbage));
            assert_eq!(load(storage, 1).unwrap(), (b"one".to_vec(), t1));
        }
    };
    check();
    sql.run(END_ALL);
    check();
    let t2 = commit(there, &[(1, t1, b"two")]).unwrap();
    assert!(t2 > garbage);
    here.catch_up().unwrap();
    assert_eq!(load(here, 1).unwrap(), (b"two".to_vec(), t2));
    // Not that all before it are gone, too.
    sql.run("truncate object_state, current_object, transaction cascade");
    eventually("it is noticed", || storages.iter().all(|storage| lost_for_good(storage).is_some()));
}
