//! A standby that is served read-only: what replication brings, promotions, and standbys that lack something.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use runzeo::ids::{Oid, Tid};
use runzeo::internal::pickle::refs::references;
use runzeo::internal::postgres::Dsn;
use runzeo::internal::storage::postgres::{PostgresOptions, PostgresStorage};
use runzeo::storage::prelude::*;
use runzeo::storage::{PackProgress, PackRequest, Replication, StorageError, TidAt};

use crate::support::postgres::PostgresServer;
use crate::support::storage::{
    Answers, Outcome, commit, commit_staged, finish_voted, load, load_before, staged,
};
use crate::{Sql, eventually, lost_for_good, storage};

/// Tables and indexes, and functions, that are not RelStorage's.
const OF_OURS: &str = "select count(*) from pg_class where relname like 'runzeo%'";
const FUNCTIONS: &str = "select count(*) from pg_proc where proname like 'runzeo%'";
/// What `docs/postgresql.md` says removes what is ours.
const REMOVE_OURS: &str = "drop table if exists runzeo_writers, runzeo_uploads, runzeo_pack, runzeo_last; \
     drop index if exists runzeo_blob_chunk; \
     drop function if exists runzeo_commit_1, runzeo_commit_free_1, runzeo_newest_1, runzeo_now_1";

/// The hosts in their order.
fn options(servers: &[&PostgresServer], more: &str) -> PostgresOptions {
    let hosts: Vec<_> = servers.iter().map(|server| server.socket_dir().display().to_string()).collect();
    let dsn = format!("host={} user=postgres dbname=postgres {more}", hosts.join(","));
    PostgresOptions { read_only: true, ..PostgresOptions::new(Dsn::parse(&dsn, &|_| None).expect("a dsn")) }
}

fn open(options: PostgresOptions) -> PostgresStorage {
    let storage = PostgresStorage::open(options).expect("a storage");
    storage.set_publisher(Arc::new(Answers));
    storage
}

fn refusal(options: PostgresOptions) -> String {
    match PostgresStorage::open(options) {
        Err(StorageError::Refused { message, .. }) => message,
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("it was opened"),
    }
}

/// Waits until the standby has replayed the transaction.
fn replayed(standby: &PostgresServer, table: &str, tid: Tid) {
    let mut sql = Sql::connect(standby);
    let tables = format!("select count(*) from pg_class where relname = '{table}'");
    eventually("the standby has the tables", || sql.number(&tables) == 1);
    let rows = format!("select count(*) from {table} where tid = {}", tid.0);
    eventually("the standby has the transaction", || sql.number(&rows) > 0);
}

/// Publishes it by itself, without a client that asks.
fn publishes(storage: &PostgresStorage, tid: Tid) {
    eventually("it is published", || storage.last_transaction() == tid);
}

fn is_standby(storage: &PostgresStorage) -> Option<bool> {
    storage.replication().map(|Replication { is_standby, .. }| is_standby)
}

#[test]
fn a_standby_is_followed_and_nothing_is_stored() {
    let Some(primary) = PostgresServer::start(&[]) else { return };
    let writer = storage(&primary);
    let t1 = commit(&writer, &[(1, Tid::ZERO, b"one"), (2, Tid::ZERO, b"other")]).unwrap();
    let standby = primary.standby();
    let reader = open(options(&[&standby], ""));
    assert_eq!((reader.last_transaction(), reader.is_read_only()), (t1, true));
    assert_eq!((is_standby(&reader), is_standby(&writer)), (Some(true), Some(false)));

    let t2 = commit(&writer, &[(1, t1, b"two")]).unwrap();
    publishes(&reader, t2);
    assert_eq!(load(&reader, 1).unwrap(), (b"two".to_vec(), t2));
    assert_eq!(load_before(&reader, 1, t2).unwrap(), Some((b"one".to_vec(), t1, Some(t2))));
    assert_eq!(reader.history(Oid(1), 10).unwrap().len(), 2);
    let newest = |storage: &PostgresStorage| storage.last_invalidations(10).unwrap().transactions;
    assert_eq!(newest(&reader), newest(&writer));
    let mut undoable = 0;
    let mut each = |_| {
        undoable += 1;
        ControlFlow::Continue(())
    };
    reader.undo().unwrap().undo_log(&mut each).unwrap();
    assert_eq!(undoable, 2);
    let mut transactions = reader.iteration().unwrap().iterate(None, None).unwrap();
    let mut tids = Vec::new();
    while let Some(transaction) = transactions.next_transaction().unwrap() {
        tids.push(transaction.tid);
    }
    assert_eq!(tids, [t1, t2]);
    eventually("the objects are counted", || reader.object_count() == 2);

    assert!(matches!(commit(&reader, &[(1, t2, b"three")]), Err(StorageError::ReadOnly)));
    assert!(matches!(reader.new_oids(1), Err(StorageError::ReadOnly)));
    let sessions = "select count(*) from pg_stat_activity where application_name like 'runzeo: writer%'";
    assert_eq!(Sql::connect(&standby).number(sessions), 0);
    let progress = PackProgress::default();
    let request =
        PackRequest { time: 2e9, gc: None, references: &references, progress: &progress, removals: None };
    assert!(matches!(reader.packing().unwrap().pack(&request), Err(StorageError::ReadOnly)));
    reader.close().unwrap();
    assert_eq!(Sql::connect(&standby).number(sessions), 0);
}

/// The sessions of a standby go on as those of the primary.
#[test]
fn a_standby_that_is_promoted_is_served_on() {
    let Some(primary) = PostgresServer::start(&[]) else { return };
    let writer = storage(&primary);
    let t1 = commit(&writer, &[(1, Tid::ZERO, b"one")]).unwrap();
    let standby = primary.standby();
    let reader = open(options(&[&standby], ""));
    assert_eq!(load(&reader, 1).unwrap(), (b"one".to_vec(), t1));
    drop(writer);
    primary.stop("immediate");
    standby.promote();
    let writer = storage(&standby);
    let t2 = commit(&writer, &[(1, t1, b"two")]).unwrap();
    publishes(&reader, t2);
    assert_eq!(load(&reader, 1).unwrap(), (b"two".to_vec(), t2));
    eventually("it knows that it reads the primary", || is_standby(&reader) == Some(false));
    assert!(matches!(commit(&reader, &[(1, t2, b"three")]), Err(StorageError::ReadOnly)));
    assert_eq!(lost_for_good(&reader), None);
}

/// Clients have seen a transaction from one standby, and the next one does not have it yet: reads wait for it.
#[test]
fn a_standby_that_is_behind_is_waited_for() {
    for keeps_history in [true, false] {
        let Some(primary) = PostgresServer::start(&["--set", "log_connections=on"]) else { return };
        let table = if keeps_history { "transaction" } else { "object_state" };
        let of_primary =
            PostgresOptions { read_only: false, keep_history: keeps_history, ..options(&[&primary], "") };
        let writer = open(of_primary);
        let t1 = commit(&writer, &[(1, Tid::ZERO, b"one")]).unwrap();
        let [first, second] = [primary.standby(), primary.standby()];
        replayed(&second, table, t1);
        let reader = open(PostgresOptions { keep_history: keeps_history, ..options(&[&first, &second], "") });
        let mut sql = Sql::connect(&second);
        sql.run("select pg_wal_replay_pause()");
        eventually("the replay stands still", || {
            sql.number("select (pg_get_wal_replay_pause_state() = 'paused')::int::bigint") == 1
        });
        let t2 = commit(&writer, &[(1, t1, b"two")]).unwrap();
        publishes(&reader, t2);
        first.stop("immediate");
        std::thread::scope(|scope| {
            let loaded = scope.spawn(|| load(&reader, 1));
            eventually("the reader has looked at the second one, and again", || {
                second.log().matches("application_name=runzeo: follower").count() >= 2
            });
            assert!(!loaded.is_finished(), "{:?}", loaded.join().unwrap());
            sql.run("select pg_wal_replay_resume()");
            assert_eq!(loaded.join().unwrap().unwrap(), (b"two".to_vec(), t2));
        });
        assert_eq!(lost_for_good(&reader), None);
        let t3 = commit(&writer, &[(1, t2, b"three")]).unwrap();
        publishes(&reader, t3);
    }
}

/// The same, but the transaction will never come: another standby has become the primary without it.
#[test]
fn a_standby_of_another_history_is_not_served() {
    let Some(primary) = PostgresServer::start(&[]) else { return };
    let writer = storage(&primary);
    let t1 = commit(&writer, &[(1, Tid::ZERO, b"one")]).unwrap();
    let [first, second] = [primary.standby(), primary.standby()];
    replayed(&second, "transaction", t1);
    let reader = open(options(&[&first, &second], ""));
    second.stop("fast");
    let t2 = commit(&writer, &[(1, t1, b"two")]).unwrap();
    publishes(&reader, t2);
    drop(writer);
    primary.stop("immediate");
    first.stop("immediate");
    second.again();
    second.promote();
    eventually("it is noticed", || lost_for_good(&reader).is_some());
    let why = lost_for_good(&reader).unwrap();
    assert!(why.contains("is not in the database any more"), "{why}");
    assert!(matches!(load(&reader, 1), Err(StorageError::Closed(_))));
}

/// New sessions for reading go where the others are, not to the first host that answers.
#[test]
fn all_sessions_are_at_one_server() {
    let Some(primary) = PostgresServer::start(&[]) else { return };
    let writer = storage(&primary);
    let t1 = commit(&writer, &[(1, Tid::ZERO, b"one")]).unwrap();
    let [first, second] = [primary.standby(), primary.standby()];
    replayed(&second, "transaction", t1);
    first.stop("fast");
    let reader = open(options(&[&first, &second], ""));
    first.again();
    Sql::connect(&first);
    let mut sql = Sql::connect(&second);
    sql.run(
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'runzeo: reader'",
    );
    for round in 0..3 {
        let tid = commit(&writer, &[(2 + round, Tid::ZERO, b"new")]).unwrap();
        publishes(&reader, tid);
        assert_eq!(load(&reader, 2 + round).unwrap(), (b"new".to_vec(), tid));
    }
    let readers = "select count(*) from pg_stat_activity where application_name = 'runzeo: reader'";
    assert_ne!(sql.number(readers), 0);
    assert_eq!(Sql::connect(&first).number(readers), 0);
}

/// A database that only RelStorage has written: nothing of ours is there, and nothing is added.
#[test]
fn a_standby_of_a_database_that_only_relstorage_writes() {
    for keeps_history in [true, false] {
        let Some(primary) = PostgresServer::start(&[]) else { return };
        let of_primary =
            PostgresOptions { read_only: false, keep_history: keeps_history, ..options(&[&primary], "") };
        let writer = open(of_primary);
        let t1 = commit(&writer, &[(1, Tid::ZERO, b"one")]).unwrap();
        writer.close().unwrap();
        let mut sql = Sql::connect(&primary);
        sql.run(REMOVE_OURS);
        let standby = primary.standby();
        let servers: [&[&PostgresServer]; 2] = [&[&standby], &[&primary]];
        let readers = servers
            .map(|servers| open(PostgresOptions { keep_history: keeps_history, ..options(servers, "") }));
        for reader in &readers {
            assert_eq!(load(reader, 1).unwrap(), (b"one".to_vec(), t1));
        }
        // As RelStorage commits, as far as readers see it.
        let insert = if keeps_history {
            "insert into transaction (tid, username, description, extension) \
                 select max(tid) + 1, '', '', '' from transaction; \
             insert into object_state (zoid, tid, prev_tid, md5, state_size, state) \
                 select 1, max(t.tid), max(c.tid), md5('two'::bytea), 3, 'two' from transaction t, current_object c; \
             update current_object set tid = (select max(tid) from transaction)"
        } else {
            "update object_state set tid = tid + 1, state = 'two'"
        };
        sql.run(&format!("begin; {insert}; commit"));
        let t2 = Tid(t1.0 + 1);
        for reader in &readers {
            publishes(reader, t2);
            assert_eq!(load(reader, 1).unwrap(), (b"two".to_vec(), t2));
            let mut transactions = reader.iteration().unwrap().iterate(None, None).unwrap();
            assert_eq!(transactions.next_transaction().unwrap().map(|one| one.tid >= t1), Some(true));
        }
        assert_eq!((sql.number(OF_OURS), sql.number(FUNCTIONS)), (0, 0));
        for reader in readers {
            reader.close().unwrap();
        }
        assert_eq!((sql.number(OF_OURS), sql.number(FUNCTIONS)), (0, 0));
    }
}

/// Blobs come from the standby's large objects.
#[test]
fn blobs_are_read_from_a_standby() {
    let Some(primary) = PostgresServer::start(&[]) else { return };
    let [here, there] = [0, 1].map(|_| tempfile::tempdir().unwrap());
    let of_primary =
        PostgresOptions { read_only: false, blob_dir: Some(here.path().into()), ..options(&[&primary], "") };
    let writer = open(of_primary);
    let blob: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    let mut upload = writer.blobs().unwrap().dir().unwrap().begin().unwrap();
    upload.write(&blob).unwrap();
    let mut transaction = staged();
    transaction.store_blob(Oid(1), Tid::ZERO, b"a blob", upload.end(Oid(1)).unwrap()).unwrap();
    let t1 = commit_staged(&writer, transaction).unwrap();
    let standby = primary.standby();
    let reader = open(PostgresOptions { blob_dir: Some(there.path().into()), ..options(&[&standby], "") });
    let file = reader.blobs().unwrap().load_blob(Oid(1), t1).unwrap();
    assert_eq!(std::fs::read(&file.path).unwrap(), blob);
    let mut transaction = staged();
    let mut upload = reader.blobs().unwrap().dir().unwrap().begin().unwrap();
    upload.write(b"more").unwrap();
    transaction.store_blob(Oid(2), Tid::ZERO, b"a blob", upload.end(Oid(2)).unwrap()).unwrap();
    let refused = commit_staged(&reader, transaction);
    assert!(matches!(refused, Err(StorageError::ReadOnly)), "{refused:?}");
}

/// What cannot be served says what to do.
#[test]
fn refusals_at_the_start() {
    let Some(primary) = PostgresServer::start(&[]) else { return };
    let standby = primary.standby();
    // There are no tables yet, and a reader makes none.
    for server in [&primary, &standby] {
        let why = refusal(options(&[server], ""));
        assert!(why.contains("tables are missing: blob_chunk,"), "{why}");
        assert!(why.contains("a read-only storage creates none"), "{why}");
    }
    let writer = storage(&primary);
    let t1 = commit(&writer, &[(1, Tid::ZERO, b"one")]).unwrap();
    replayed(&standby, "transaction", t1);
    let writing = |more: &str| PostgresOptions { read_only: false, ..options(&[&standby], more) };
    for more in ["", "target_session_attrs=read-write", "target_session_attrs=primary"] {
        let why = refusal(writing(more));
        assert!(why.contains("is a standby, which cannot be written"), "{why}");
        assert!(why.contains("target_session_attrs=read-write, or set read-only true"), "{why}");
    }
    let why = refusal(PostgresOptions { keep_history: false, ..options(&[&standby], "") });
    assert!(why.contains("set keep-history true"), "{why}");
    // A connection string that asks for a standby says enough.
    for target in ["standby", "prefer-standby", "read-only"] {
        let reader = open(writing(&format!("target_session_attrs={target}")));
        assert_eq!((reader.is_read_only(), reader.last_transaction()), (true, t1), "{target}");
    }
    let preferred = options(&[&primary], "target_session_attrs=prefer-standby");
    let reader = open(PostgresOptions { read_only: false, ..preferred });
    assert_eq!((reader.is_read_only(), is_standby(&reader)), (true, Some(false)));
}

/// A file as of RelStorage's `replica-conf`.
fn write_list(path: &Path, servers: &[&PostgresServer]) {
    let lines = servers.iter().map(|server| format!("{}\n", server.socket_dir().display()));
    // Put in place as a whole: half a list would be read, too.
    let new = path.with_extension("new");
    std::fs::write(&new, lines.collect::<String>()).unwrap();
    std::fs::rename(&new, path).unwrap();
}

fn is_at(server: &PostgresServer, what: &str) -> bool {
    let sessions =
        format!("select count(*) from pg_stat_activity where application_name like 'runzeo: {what}%'");
    Sql::connect(server).number(&sessions) > 0
}

/// The servers of the file are tried in their order, and after the timeout the first one again.
#[test]
fn a_reader_goes_back_to_the_first_of_its_replicas() {
    let Some(primary) = PostgresServer::start(&["--set", "log_connections=on"]) else { return };
    let writer = storage(&primary);
    let t1 = commit(&writer, &[(1, Tid::ZERO, b"one")]).unwrap();
    let [first, second] = [primary.standby(), primary.standby()];
    replayed(&second, "transaction", t1);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("replicas");
    write_list(&path, &[&first, &second]);
    first.stop("fast");
    // The host of the connection string does not count, nor does the list for writers.
    let reader = open(PostgresOptions {
        replica_conf: Some("/does/not/exist".into()),
        ro_replica_conf: Some(path.clone()),
        replica_timeout: Duration::from_millis(500),
        ..options(&[&primary], "")
    });
    assert!(is_at(&second, "follower"));
    first.again();
    eventually("the reader is at the first one", || is_at(&first, "follower") && !is_at(&second, "follower"));
    let t2 = commit(&writer, &[(1, t1, b"two")]).unwrap();
    publishes(&reader, t2);
    assert_eq!(load(&reader, 1).unwrap(), (b"two".to_vec(), t2));
    assert!(is_at(&first, "reader") && !is_at(&second, "reader"));

    write_list(&path, &[&second]);
    eventually("the reader is at the second one", || is_at(&second, "follower"));
    // One that lacks what was published is not gone to, and does no harm.
    first.stop("fast");
    let t3 = commit(&writer, &[(1, t2, b"three")]).unwrap();
    publishes(&reader, t3);
    drop(writer);
    primary.stop("immediate");
    first.again();
    first.promote();
    let visits = || first.log().matches("application_name=runzeo: follower").count();
    let before = visits();
    write_list(&path, &[&first, &second]);
    eventually("the reader has looked at the first one, and again", || visits() >= before + 2);
    assert_eq!(load(&reader, 1).unwrap(), (b"three".to_vec(), t3));
    assert!(is_at(&second, "follower"));
    assert_eq!(lost_for_good(&reader), None);
}

/// A writer finds the primary among the servers of the file, and leaves one that is not in it any more.
#[test]
fn a_writer_finds_the_primary_among_its_replicas() {
    let Some(primary) = PostgresServer::start(&[]) else { return };
    let standby = primary.standby();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("replicas");
    write_list(&path, &[&standby, &primary]);
    let writer = open(PostgresOptions {
        read_only: false,
        replica_conf: Some(path.clone()),
        replica_timeout: Duration::from_millis(1),
        ..options(&[&standby], "")
    });
    let t1 = commit(&writer, &[(1, Tid::ZERO, b"one")]).unwrap();
    let mut transaction = staged();
    transaction.store(Oid(1), t1, b"two").unwrap();
    let voted = writer.vote(transaction, TidAt::Finish).unwrap();
    replayed(&standby, "transaction", t1);
    // A planned switch: the former primary still runs.
    standby.promote();
    write_list(&path, &[&standby]);
    eventually("the writer is at the new primary", || is_at(&standby, "writer"));
    let t2 = match finish_voted(&writer, voted).recv().unwrap() {
        Outcome::Done { tid, .. } => tid,
        Outcome::Failed(error) => panic!("{error}"),
    };
    assert_eq!(load(&writer, 1).unwrap(), (b"two".to_vec(), t2));
    replayed(&standby, "transaction", t2);
    eventually("nothing is left at the former one", || {
        !is_at(&primary, "writer") && !is_at(&primary, "reader")
    });
}

#[test]
fn refusals_of_replicas() {
    let Some(primary) = PostgresServer::start(&[]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("replicas");
    let of_writer = PostgresOptions { read_only: false, ..options(&[&primary], "") };
    let why = refusal(PostgresOptions { replica_conf: Some(path.clone()), ..of_writer.clone() });
    assert!(why.contains(&format!("{}: No such file", path.display())), "{why}");
    std::fs::write(&path, "# one day\n").unwrap();
    let why = refusal(PostgresOptions { replica_conf: Some(path.clone()), ..of_writer.clone() });
    assert!(why.contains("it names no server"), "{why}");
    let why = refusal(PostgresOptions { ro_replica_conf: Some(path), ..of_writer });
    assert!(why.contains("ro-replica-conf is for a storage with read-only true"), "{why}");
}
