//! Blobs of a storage in PostgreSQL: large objects, which are in `blob_chunk` or in `runzeo_uploads` whatever happens,
//! or files in a shared directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use crate::blobs::{files, read};
use crate::support::postgres::PostgresServer;
use crate::support::storage::{Outcome, commit_staged, finish_voted, meta};
use runzeo::ids::{Oid, Tid};
use runzeo::internal::postgres::{Batch, Connection, Dsn, Login, Statement};
use runzeo::internal::storage::postgres::{PostgresOptions, PostgresStorage};
use runzeo::storage::prelude::*;
use runzeo::storage::{Committed, Delivery, Publisher, Result, Staged, StorageError, Ticket, TidAt, Voted};

const RECORD: &[u8] = b"\x80\x03cZODB.blob\nBlob\nq\x00.\x80\x03N.";
const PIECE: usize = 64 << 10;
/// A bound on what a test waits for.
const LONG: Duration = Duration::from_secs(60);

static LARGE_OBJECTS: Statement =
    Statement { sql: "select count(*) from pg_largeobject_metadata", types: &[] };
static ROWS: Statement = Statement { sql: "select count(*) from blob_chunk", types: &[] };
static UPLOADS: Statement = Statement { sql: "select count(*) from runzeo_uploads", types: &[] };
static DANGLING: Statement = Statement {
    sql: "select count(*) from blob_chunk b where chunk_num <> 0 \
          or not exists (select from pg_largeobject_metadata m where m.oid = b.chunk)",
    types: &[],
};
static ORPHANS: Statement = Statement {
    sql: "select count(*) from pg_largeobject_metadata m \
          where not exists (select from blob_chunk b where b.chunk = m.oid) \
          and not exists (select from runzeo_uploads u where u.chunk = m.oid)",
    types: &[],
};
static END_SESSIONS: Statement = Statement {
    sql: "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name like 'runzeo: blobs%'",
    types: &[],
};

fn server(settings: &[&str]) -> PostgresServer {
    PostgresServer::start(settings).expect("PostgreSQL; scripts/postgres says how to get it")
}

fn options(server: &PostgresServer, blob_dir: &Path) -> PostgresOptions {
    let dsn = Dsn::parse(&server.dsn(), &|_| None).unwrap();
    PostgresOptions { blob_dir: Some(blob_dir.into()), blob_chunk_size: PIECE, ..PostgresOptions::new(dsn) }
}

fn open_with(options: PostgresOptions) -> PostgresStorage {
    let storage = PostgresStorage::open(options).unwrap();
    storage.set_publisher(Arc::new(OwnAnswers));
    storage
}

fn open(server: &PostgresServer, blob_dir: &Path) -> PostgresStorage {
    open_with(options(server, blob_dir))
}

/// Answers commits through a channel that is the ticket. Those of other servers have none.
struct OwnAnswers;

impl Publisher for OwnAnswers {
    fn publish(&self, group: Vec<Committed>, install: &mut dyn FnMut()) -> Delivery {
        install();
        Box::new(move || {
            for Committed { tid, oids, object_count, size, ticket, .. } in group {
                if let Ok(to) = ticket.downcast::<Sender<Outcome>>() {
                    to.send(Outcome::Done { tid, oids, object_count, size }).unwrap();
                }
            }
        })
    }

    fn failed(&self, ticket: Ticket, error: StorageError) {
        ticket.downcast::<Sender<Outcome>>().unwrap().send(Outcome::Failed(error)).unwrap();
    }
}

fn finish(storage: &dyn Storage, voted: Box<dyn Voted>) -> Result<Tid> {
    match finish_voted(storage, voted).recv().unwrap() {
        Outcome::Done { tid, .. } => Ok(tid),
        Outcome::Failed(error) => Err(error),
    }
}

struct Sql(Connection);

impl Sql {
    fn new(server: &PostgresServer) -> Sql {
        let login =
            Login { application_name: "test".into(), settings: Vec::new(), connect_timeout: Some(LONG) };
        Sql(Connection::open(&Dsn::parse(&server.dsn(), &|_| None).unwrap(), &login).unwrap())
    }

    fn count(&mut self, statement: &'static Statement) -> i64 {
        let mut batch = Batch::new();
        batch.execute(statement, &[]).unwrap();
        batch.sync();
        let answer = self.0.run(&batch).unwrap().pop().unwrap().unwrap();
        answer[0].first().unwrap().required_int8(0).unwrap()
    }

    fn run(&mut self, sql: &str) {
        self.0.simple(sql).unwrap().unwrap();
    }

    fn wait_for(&mut self, statement: &'static Statement, count: i64) {
        let began = Instant::now();
        while self.count(statement) != count {
            assert!(began.elapsed() < LONG, "{} stays at {}", statement.sql, self.count(statement));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Each large object is in a table, and each row has its large object.
    fn check(&mut self) {
        assert_eq!((self.count(&DANGLING), self.count(&ORPHANS)), (0, 0));
    }
}

/// Adds a blob to a transaction.
fn add(storage: &dyn Storage, staged: &mut Staged, oid: u64, serial: Tid, data: &[u8]) {
    let mut upload = storage.blobs().unwrap().dir().unwrap().begin().unwrap();
    upload.write(data).unwrap();
    let blob = upload.end(Oid(oid)).unwrap();
    staged.store_blob(Oid(oid), serial, RECORD, blob).unwrap();
}

fn new_staged() -> Staged {
    Staged::new(meta("", ""), None, b' ', 1 << 20)
}

fn stage(storage: &dyn Storage, oid: u64, serial: Tid, data: &[u8]) -> Staged {
    let mut staged = new_staged();
    add(storage, &mut staged, oid, serial, data);
    staged
}

fn undo(storage: &PostgresStorage, tid: Tid) -> Result<Tid> {
    let mut staged = new_staged();
    staged.undo(tid);
    commit_staged(storage, staged)
}

/// Data whose pieces all differ.
fn data(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 7 + at / 70_000) as u8).collect()
}

/// Removes the copies in a cache.
fn forget(blob_dir: &Path) {
    let is_blob = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "blob");
    files(blob_dir).iter().filter(is_blob).for_each(|path| fs::remove_file(path).unwrap());
}

#[test]
fn a_blob_is_one_large_object_and_comes_back() {
    let (server, dir) = (server(&[]), tempfile::tempdir().unwrap());
    let blob_dir = dir.path().join("blobs");
    let storage = open(&server, &blob_dir);
    let mut sql = Sql::new(&server);
    let message = 4 << 20;
    let lens =
        [0, 1, PIECE - 1, PIECE, PIECE + 1, 256 << 10, message, message + PIECE, 2 * message + PIECE + 1];
    let mut tids = Vec::new();
    for (oid, len) in (1..).zip(lens) {
        tids.push(commit_staged(&storage, stage(&storage, oid, Tid::ZERO, &data(len))).unwrap());
        assert_eq!(
            read(&storage, oid, tids[oid as usize - 1]).unwrap(),
            data(len),
            "the copy of {len} bytes"
        );
    }
    assert_eq!((sql.count(&LARGE_OBJECTS), sql.count(&ROWS), sql.count(&UPLOADS)), (9, 9, 0));
    forget(&blob_dir);
    for ((oid, len), tid) in (1..).zip(lens).zip(&tids) {
        assert!(storage.blobs().unwrap().load_blob_now(Oid(oid), *tid).is_none(), "it must be downloaded");
        assert_eq!(read(&storage, oid, *tid).unwrap(), data(len), "{len} bytes");
        // A long one comes into the cache once it is on the disk.
        let began = Instant::now();
        while storage.blobs().unwrap().load_blob_now(Oid(oid), *tid).is_none() {
            assert!(began.elapsed() < LONG, "{len} bytes are not in the cache");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    match read(&storage, 1, tids[1]) {
        Err(StorageError::NoBlob { .. }) => {}
        other => panic!("{other:?}"),
    }
    sql.check();
    // Another server reads them, too.
    let other = open(&server, &dir.path().join("other"));
    assert_eq!(read(&other, 9, tids[8]).unwrap(), data(lens[8]));
    // The large object of a row is lost, by a mistake of an administrator.
    sql.run("select lo_unlink(chunk) from blob_chunk where zoid = 2");
    forget(&blob_dir);
    assert!(matches!(read(&storage, 2, tids[1]), Err(StorageError::NoBlob { .. })));
    let left: Vec<_> =
        files(&blob_dir).into_iter().filter(|path| path.to_string_lossy().contains("runzeo")).collect();
    assert!(left.is_empty(), "{left:?}");
    storage.close().unwrap();
    other.close().unwrap();
}

#[test]
fn what_is_not_committed_is_removed() {
    let (server, dir) = (server(&[]), tempfile::tempdir().unwrap());
    let storage = open(&server, dir.path());
    let mut sql = Sql::new(&server);
    let tid = commit_staged(&storage, stage(&storage, 1, Tid::ZERO, b"first")).unwrap();
    let voted = storage.vote(stage(&storage, 2, Tid::ZERO, &data(300_000)), TidAt::Finish).unwrap();
    assert_eq!((sql.count(&LARGE_OBJECTS), sql.count(&UPLOADS)), (2, 1));
    sql.check();
    storage.abort(voted);
    sql.wait_for(&LARGE_OBJECTS, 1);
    assert_eq!(sql.count(&UPLOADS), 0);
    // A conflict.
    let second = commit_staged(&storage, stage(&storage, 1, tid, b"second")).unwrap();
    let conflict = commit_staged(&storage, stage(&storage, 1, tid, b"conflict"));
    assert!(matches!(conflict, Err(StorageError::Conflict(_))), "{conflict:?}");
    sql.wait_for(&LARGE_OBJECTS, 2);
    // One that was given up while it is uploaded.
    let given_up = stage(&storage, 3, Tid::ZERO, &data(300_000));
    given_up.cancel.cancel();
    assert!(storage.vote(given_up, TidAt::Finish).is_err());
    sql.wait_for(&LARGE_OBJECTS, 2);
    sql.check();
    assert_eq!(read(&storage, 1, second).unwrap(), b"second");
    storage.close().unwrap();
}

#[test]
fn uploads_of_servers_that_are_gone_are_removed_and_others_stay() {
    let (server, dir) = (server(&[]), tempfile::tempdir().unwrap());
    let storage = open(&server, &dir.path().join("a"));
    let mut sql = Sql::new(&server);
    // A row without a large object, as after `zodbconvert --clear`.
    sql.run("insert into runzeo_uploads values (1, 'gone')");
    for name in ["gone", "connects again"] {
        sql.run(&format!("insert into runzeo_uploads values (lo_from_bytea(0, 'x'), '{name}')"));
    }
    let voted = storage.vote(stage(&storage, 1, Tid::ZERO, b"in time"), TidAt::Finish).unwrap();
    sql.run("update runzeo_uploads set started = now() - interval '1 day' where server <> 'connects again'");
    assert_eq!(sql.count(&UPLOADS), 4);
    let other = open(&server, &dir.path().join("b"));
    sql.wait_for(&UPLOADS, 2);
    assert_eq!(sql.count(&LARGE_OBJECTS), 2);
    let tid = finish(&storage, voted).unwrap();
    assert_eq!(read(&other, 1, tid).unwrap(), b"in time");
    sql.check();
    storage.close().unwrap();
    other.close().unwrap();
}

#[test]
fn a_transaction_whose_upload_was_removed_is_not_committed() {
    let (server, dir) = (server(&[]), tempfile::tempdir().unwrap());
    let storage = open(&server, dir.path());
    let mut sql = Sql::new(&server);
    let voted = storage.vote(stage(&storage, 1, Tid::ZERO, b"removed"), TidAt::Finish).unwrap();
    sql.run("with gone as (delete from runzeo_uploads returning chunk) select lo_unlink(chunk) from gone");
    let error = finish(&storage, voted).unwrap_err();
    assert!(error.to_string().contains("a blob of the transaction has been removed"), "{error}");
    assert_eq!((sql.count(&ROWS), sql.count(&LARGE_OBJECTS)), (0, 0));
    assert!(storage.get_tid(Oid(1)).is_err());
    commit_staged(&storage, stage(&storage, 1, Tid::ZERO, b"again")).unwrap();
    sql.check();
    storage.close().unwrap();
}

#[test]
fn many_blobs_need_few_locks_of_the_database() {
    const COUNT: u64 = 3000;
    let server = server(&["--set", "max_locks_per_transaction=10", "--set", "max_connections=20"]);
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&server, dir.path());
    let mut sql = Sql::new(&server);
    let many = |first: u64| {
        let mut staged = new_staged();
        (first..first + COUNT).for_each(|oid| add(&storage, &mut staged, oid, Tid::ZERO, &oid.to_be_bytes()));
        staged
    };
    let tid = commit_staged(&storage, many(1)).unwrap();
    assert_eq!((sql.count(&ROWS), sql.count(&LARGE_OBJECTS)), (COUNT as i64, COUNT as i64));
    storage.abort(storage.vote(many(COUNT + 1), TidAt::Finish).unwrap());
    sql.wait_for(&LARGE_OBJECTS, COUNT as i64);
    sql.wait_for(&UPLOADS, 0);
    forget(dir.path());
    for oid in [1, COUNT / 2, COUNT] {
        assert_eq!(read(&storage, oid, tid).unwrap(), oid.to_be_bytes());
    }
    sql.check();
    storage.close().unwrap();
}

/// A database without history keeps the blob that belongs to the object's only state.
#[test]
fn without_history_a_blob_replaces_the_one_before() {
    let (server, dir) = (server(&[]), tempfile::tempdir().unwrap());
    let open = |name: &str| {
        open_with(PostgresOptions { keep_history: false, ..options(&server, &dir.path().join(name)) })
    };
    let [storage, other] = ["a", "b"].map(open);
    let mut sql = Sql::new(&server);
    let first = commit_staged(&storage, stage(&storage, 1, Tid::ZERO, &data(100_000))).unwrap();
    let second = commit_staged(&storage, stage(&storage, 1, first, b"second")).unwrap();
    let third = commit_staged(&storage, stage(&storage, 2, Tid::ZERO, b"of another")).unwrap();
    assert_eq!((sql.count(&ROWS), sql.count(&LARGE_OBJECTS), sql.count(&UPLOADS)), (2, 2, 0));
    assert_eq!(read(&other, 1, second).unwrap(), b"second");
    assert_eq!(read(&other, 2, third).unwrap(), b"of another");
    // A client whose transaction has begun before may try again.
    match read(&other, 1, first) {
        Err(StorageError::ReadConflict(conflict)) => assert_eq!(conflict.committed, second),
        read => panic!("{read:?}"),
    }
    assert!(matches!(read(&other, 7, first), Err(StorageError::NoBlob { .. })));
    // Large objects go with their object, and stay with one that is stored without its blob.
    let mut deletion = new_staged();
    deletion.delete(Oid(2), third).unwrap();
    commit_staged(&storage, deletion).unwrap();
    assert_eq!((sql.count(&ROWS), sql.count(&LARGE_OBJECTS)), (1, 1));
    storage.abort(storage.vote(stage(&storage, 1, second, b"aborted"), TidAt::Finish).unwrap());
    sql.wait_for(&LARGE_OBJECTS, 1);
    assert_eq!(read(&open("c"), 1, second).unwrap(), b"second");
    sql.check();
    storage.close().unwrap();
    other.close().unwrap();
}

#[test]
fn an_undo_shares_the_large_object() {
    let (server, dir) = (server(&[]), tempfile::tempdir().unwrap());
    let blob_dir = dir.path().join("blobs");
    let storage = open(&server, &blob_dir);
    let mut sql = Sql::new(&server);
    let first = commit_staged(&storage, stage(&storage, 1, Tid::ZERO, b"first")).unwrap();
    let second = commit_staged(&storage, stage(&storage, 1, first, b"second")).unwrap();
    let undone = undo(&storage, second).unwrap();
    forget(&blob_dir);
    assert_eq!(read(&storage, 1, undone).unwrap(), b"first");
    assert_eq!((sql.count(&ROWS), sql.count(&LARGE_OBJECTS)), (3, 2));
    // A store behind the undo counts.
    let mut staged = new_staged();
    staged.undo(undone);
    add(&storage, &mut staged, 1, undone, b"third");
    let third = commit_staged(&storage, staged).unwrap();
    assert_eq!(read(&storage, 1, third).unwrap(), b"third");
    // And an undo behind a store.
    let mut staged = new_staged();
    add(&storage, &mut staged, 1, third, b"fourth");
    staged.undo(third);
    let objects = sql.count(&LARGE_OBJECTS);
    let back = commit_staged(&storage, staged).unwrap();
    assert_eq!(read(&storage, 1, back).unwrap(), b"first");
    sql.wait_for(&UPLOADS, 0);
    assert_eq!(sql.count(&LARGE_OBJECTS), objects, "that of the store is removed");
    sql.check();
    storage.close().unwrap();
    // A server without blobs undoes, too.
    let dsn = Dsn::parse(&server.dsn(), &|_| None).unwrap();
    let without = open_with(PostgresOptions::new(dsn));
    assert!(without.blobs().is_none());
    let before = undo(&without, third).unwrap();
    without.close().unwrap();
    let again = open(&server, &blob_dir);
    assert_eq!(read(&again, 1, before).unwrap(), b"first");
    let fourth = commit_staged(&again, stage(&again, 5, Tid::ZERO, b"to be undone")).unwrap();
    let fifth = undo(&again, fourth).unwrap();
    assert!(matches!(read(&again, 5, fifth), Err(StorageError::NoBlob { .. })), "it is not created any more");
    sql.check();
    again.close().unwrap();
}

#[test]
fn sessions_that_end_are_replaced() {
    let (server, dir) = (server(&[]), tempfile::tempdir().unwrap());
    let storage = open(&server, dir.path());
    let mut sql = Sql::new(&server);
    let first = commit_staged(&storage, stage(&storage, 1, Tid::ZERO, &data(1 << 20))).unwrap();
    assert_eq!(sql.count(&END_SESSIONS), 1);
    let second = commit_staged(&storage, stage(&storage, 1, first, &data(2 << 20))).unwrap();
    forget(dir.path());
    assert_eq!(read(&storage, 1, first).unwrap().len(), 1 << 20);
    assert_eq!(sql.count(&END_SESSIONS), 2);
    assert_eq!(read(&storage, 1, second).unwrap().len(), 2 << 20);
    // While it is uploaded.
    std::thread::scope(|scope| {
        let large = stage(&storage, 2, Tid::ZERO, &data(40 << 20));
        let vote = scope.spawn(|| commit_staged(&storage, large).unwrap());
        sql.wait_for(&UPLOADS, 1);
        assert!(sql.count(&END_SESSIONS) >= 1);
        let tid = vote.join().unwrap();
        forget(dir.path());
        assert_eq!(read(&storage, 2, tid).unwrap(), data(40 << 20));
    });
    sql.wait_for(&LARGE_OBJECTS, 3);
    sql.check();
    storage.close().unwrap();
}

#[test]
fn a_crash_of_the_database_after_the_vote_loses_no_blob() {
    let (server, dir) = (server(&["--durable"]), tempfile::tempdir().unwrap());
    let storage = open(&server, dir.path());
    let voted = storage.vote(stage(&storage, 1, Tid::ZERO, &data(9 << 20)), TidAt::Finish).unwrap();
    server.stop("immediate");
    assert!(server.start_again(&["--durable"]));
    let tid = finish(&storage, voted).unwrap();
    forget(dir.path());
    assert_eq!(read(&storage, 1, tid).unwrap(), data(9 << 20));
    Sql::new(&server).check();
    storage.close().unwrap();
}

#[test]
fn threads_that_want_the_same_blob_download_it_once() {
    let (server, dir) = (server(&[]), tempfile::tempdir().unwrap());
    let storage = open(&server, dir.path());
    let tid = commit_staged(&storage, stage(&storage, 1, Tid::ZERO, &data(3 << 20))).unwrap();
    forget(dir.path());
    let inode = |blob: &runzeo::storage::BlobFile| {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(&blob.path).unwrap().ino()
    };
    let inodes: Vec<u64> = std::thread::scope(|scope| {
        let load = || inode(&storage.blobs().unwrap().load_blob(Oid(1), tid).unwrap());
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(load)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(inodes.iter().all(|inode| *inode == inodes[0]), "{inodes:?}");
    storage.close().unwrap();
}

#[test]
fn a_shared_directory_has_the_blobs_themselves() {
    let (server, dir) = (server(&[]), tempfile::tempdir().unwrap());
    let shared = || PostgresOptions { shared_blob_dir: true, ..options(&server, dir.path()) };
    let (one, two) = (open_with(shared()), open_with(shared()));
    let mut sql = Sql::new(&server);
    let first = commit_staged(&one, stage(&one, 0x123, Tid::ZERO, b"first")).unwrap();
    two.catch_up().unwrap();
    assert_eq!(read(&two, 0x123, first).unwrap(), b"first");
    let second = commit_staged(&two, stage(&two, 0x123, first, b"second")).unwrap();
    one.catch_up().unwrap();
    let undone = undo(&one, second).unwrap();
    assert_eq!(read(&two, 0x123, undone).unwrap(), b"first");
    // Aborted, and in conflict.
    one.abort(one.vote(stage(&one, 5, Tid::ZERO, b"aborted"), TidAt::Finish).unwrap());
    assert!(commit_staged(&one, stage(&one, 0x123, first, b"conflict")).is_err());
    let home = dir.path().join("0x00/0x00/0x00/0x00/0x00/0x00/0x01/0x23");
    let name = |tid: Tid| home.join(format!("0x{tid}.blob"));
    let expected = [dir.path().join(".layout"), name(first), name(second), name(undone)];
    assert_eq!(files(dir.path()), expected);
    assert_eq!((sql.count(&ROWS), sql.count(&LARGE_OBJECTS)), (0, 0));
    // A tid that was promised at the vote.
    let voted = one.vote(stage(&one, 7, Tid::ZERO, b"early"), TidAt::Vote).unwrap();
    let promised = voted.tid().unwrap();
    assert_eq!(finish(&one, voted).unwrap(), promised);
    assert_eq!(read(&one, 7, promised).unwrap(), b"early");
    // The commit lock is free again.
    commit_staged(&two, stage(&two, 8, Tid::ZERO, b"later")).unwrap();
    one.close().unwrap();
    two.close().unwrap();
}

#[test]
fn a_commit_lock_that_others_hold_is_waited_for_without_files() {
    let (server, dir) = (server(&[]), tempfile::tempdir().unwrap());
    let storage = open_with(PostgresOptions { shared_blob_dir: true, ..options(&server, dir.path()) });
    let mut sql = Sql::new(&server);
    sql.run("select pg_advisory_lock(-1)");
    std::thread::scope(|scope| {
        let commit =
            scope.spawn(|| commit_staged(&storage, stage(&storage, 1, Tid::ZERO, b"waits")).unwrap());
        // Longer than one call of the database waits.
        std::thread::sleep(Duration::from_millis(1500));
        assert!(!commit.is_finished());
        let names = files(dir.path());
        assert!(
            names.iter().all(|name| name.extension().is_none_or(|extension| extension != "blob")),
            "{names:?}"
        );
        sql.run("select pg_advisory_unlock(-1)");
        let tid = commit.join().unwrap();
        assert_eq!(read(&storage, 1, tid).unwrap(), b"waits");
    });
    storage.close().unwrap();
}
