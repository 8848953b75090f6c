//! `zeofs copy` from a `Data.fs` to a database and back, and the bulk way into a database that it takes.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use runzeo::ids::{Oid, Tid};
use runzeo::internal::storage::postgres::{PostgresOptions, PostgresStorage};
use runzeo::storage::file::{FileStorage, FileStorageOptions};
use runzeo::storage::prelude::*;
use runzeo::storage::{DataRecord, Staged, StorageError, TransactionMeta, TransactionRecord, UndoEntry};

use crate::support::dice::Dice;
use crate::support::postgres::PostgresServer;
use crate::support::storage::{commit, commit_staged, load, open_with, staged};
use crate::{Sql, dsn, eventually, storage};

const BLOB: &[u8] = b"\x80\x03cZODB.blob\nBlob\nq\x00.\x80\x03N.";

/// Must find nothing in a database, at any time.
const BROKEN: [&str; 6] = [
    "select count(*) from current_object c where tid <> (select max(tid) from object_state s where s.zoid = c.zoid)",
    "select count(*) from object_state where zoid not in (select zoid from current_object)",
    "select count(*) from object_state s where prev_tid <> \
     (select coalesce(max(tid), 0) from object_state o where o.zoid = s.zoid and o.tid < s.tid)",
    "select count(*) from object_state where md5 is distinct from md5(state) \
     or state_size <> coalesce(octet_length(state), 0)",
    "select count(*) from blob_chunk where chunk not in (select oid from pg_largeobject_metadata) or chunk_num <> 0",
    "select count(*) from pg_largeobject_metadata where oid not in (select chunk from blob_chunk)",
];
const FOREIGN_KEYS: &str = "select count(*) from pg_constraint where contype = 'f'";
const VALID_KEYS: &str = "select count(*) from pg_constraint where contype = 'f' and convalidated";

fn check(sql: &mut Sql) {
    for query in BROKEN {
        assert_eq!(sql.number(query), 0, "{query}");
    }
    assert_eq!(sql.number(FOREIGN_KEYS), 4);
}

/// A transaction and its records, those in the order of their objects.
type Copied = (TransactionRecord, Vec<DataRecord>);

fn contents(storage: &dyn Storage) -> Vec<Copied> {
    let mut transactions = storage.require_iteration().unwrap().iterate(None, None).unwrap();
    let mut all = Vec::new();
    while let Some(transaction) = transactions.next_transaction().unwrap() {
        let (mut records, mut found) = (transactions.records().unwrap(), Vec::new());
        while let Some(record) = records.next_record().unwrap() {
            found.push(DataRecord { data_txn: None, ..record });
        }
        found.sort_by_key(|record| record.oid);
        all.push((transaction, found));
    }
    all
}

fn undo_log(storage: &dyn Storage) -> Vec<(Tid, TransactionMeta)> {
    let mut all = Vec::new();
    let each = &mut |UndoEntry { tid, meta, .. }| {
        all.push((tid, meta));
        std::ops::ControlFlow::Continue(())
    };
    storage.require_undo().unwrap().undo_log(each).unwrap();
    all
}

fn blob(storage: &dyn Storage, oid: u64, tid: Tid) -> Vec<u8> {
    let file = storage.require_blobs().unwrap().load_blob(Oid(oid), tid).unwrap();
    let mut data = vec![0; file.len as usize];
    assert_eq!(file.read_at(&mut data, 0).unwrap(), data.len());
    data
}

/// The places of one test.
struct Places {
    dir: tempfile::TempDir,
    config: PathBuf,
}

impl Places {
    /// With a configuration that names the database `db`.
    fn new(server: &PostgresServer, more: &str) -> Places {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("zeo.conf");
        let (base, dsn) = (dir.path().display(), &server.dsn());
        let text = format!(
            "%import relstorage\n<zeo>\naddress {base}/socket\n</zeo>\n<relstorage db>\n<postgresql>\ndsn {dsn}\n\
             </postgresql>\nblob-dir {base}/db.blobs\n{more}</relstorage>\n"
        );
        fs::write(&config, text).unwrap();
        Places { dir, config }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self, name: &str) -> FileStorage {
        let blob_dir = Some(self.path(&format!("{name}.blobs")));
        open_with(FileStorageOptions { blob_dir, ..FileStorageOptions::new(self.path(name)) }).unwrap()
    }

    fn command(&self, options: &[&str], from: &str, to: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_zeofs"));
        command.args(["copy", "-C"]).arg(&self.config).args(options).args([from, to]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn blob_option(&self, name: &str) -> String {
        self.path(&format!("{name}.blobs")).display().to_string()
    }

    fn copy_in(&self, name: &str) -> Command {
        let path = self.path(name).display().to_string();
        self.command(&["--blob-dir", &self.blob_option(name)], &path, "db")
    }

    fn copy_out(&self, name: &str) -> Command {
        let path = self.path(name).display().to_string();
        self.command(&["--to-blob-dir", &self.blob_option(name)], "db", &path)
    }
}

/// Runs it to its end. What it prints, and its status.
fn run(mut command: Command) -> (String, Option<i32>) {
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (text, output.status.code())
}

fn succeed(command: Command) -> String {
    let (text, status) = run(command);
    assert_eq!(status, Some(0), "{text}");
    text
}

/// Stores an object with a blob.
fn store_blob(storage: &dyn Storage, oid: u64, serial: Tid, data: &[u8]) -> Tid {
    let mut staged = staged();
    let mut upload = storage.blobs().unwrap().dir().unwrap().begin().unwrap();
    upload.write(data).unwrap();
    staged.store_blob(Oid(oid), serial, BLOB, upload.end(Oid(oid)).unwrap()).unwrap();
    commit_staged(storage, staged).unwrap()
}

/// Everything that a history can have. Returns the objects with blobs.
fn fill(file: &dyn Storage) -> Vec<(u64, Tid, Vec<u8>)> {
    let first =
        commit(file, &[(0, Tid::ZERO, b"root"), (1, Tid::ZERO, b"one"), (5000, Tid::ZERO, b"five")]).unwrap();
    let mut extended = staged();
    extended.meta.extension = b"\x80\x03}q\x00X\x01\x00\x00\x00xq\x01K\x01s.".to_vec();
    extended.meta.user = b"/somebody \xff".to_vec();
    extended.store(Oid(1), first, b"one again").unwrap();
    extended.store(Oid(2), Tid::ZERO, &vec![7; 100_000]).unwrap();
    let second = commit_staged(file, extended).unwrap();
    let mut undo = staged();
    undo.undo(second);
    let undone = commit_staged(file, undo).unwrap();
    // Object 2 is not created any more.
    assert_eq!(load(file, 1).unwrap(), (b"one".to_vec(), undone));
    let mut deletion = staged();
    deletion.delete(Oid(5000), first).unwrap();
    commit_staged(file, deletion).unwrap();
    commit_staged(file, staged()).unwrap();
    let large: Vec<u8> = (0..5_000_000_u32).map(|at| (at.wrapping_mul(7919) >> 8) as u8).collect();
    let old = store_blob(file, 7, Tid::ZERO, b"a small blob");
    let new = store_blob(file, 7, old, &large);
    let mut undo = staged();
    undo.undo(new);
    let again = commit_staged(file, undo).unwrap();
    let empty = store_blob(file, 8, Tid::ZERO, b"");
    commit(file, &[(0, first, b"root again"), (40_000, Tid::ZERO, b"far away")]).unwrap();
    let small = b"a small blob".to_vec();
    vec![(7, old, small.clone()), (7, new, large), (7, again, small), (8, empty, Vec::new())]
}

fn there_and_back(more: &str) {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let places = Places::new(&server, more);
    let file = places.file("Data.fs");
    let blobs = fill(&file);
    let text = succeed(places.copy_in("Data.fs"));
    assert_eq!(text, "copied: 10 transactions, 14 records, 4 blobs\n");
    let mut sql = Sql::connect(&server);
    check(&mut sql);
    assert_eq!(sql.number(VALID_KEYS), 4);
    let in_directory = more.contains("shared-blob-dir");
    assert_eq!(sql.number("select count(*) from blob_chunk"), if in_directory { 0 } else { 4 });
    assert_eq!(
        sql.number(
            "select count(*) from pg_largeobject_metadata where oid not in (select chunk from blob_chunk)"
        ),
        0
    );

    let options = PostgresOptions {
        blob_dir: Some(places.path("db.blobs")),
        shared_blob_dir: in_directory,
        ..PostgresOptions::new(dsn(&server))
    };
    let database = PostgresStorage::open(options).unwrap();
    assert_eq!(contents(&database), contents(&file));
    assert_eq!(undo_log(&database), undo_log(&file));
    for (oid, tid, data) in &blobs {
        assert_eq!(blob(&database, *oid, *tid), *data, "{oid}");
    }
    assert!(database.new_oids(1).unwrap()[0] > Oid(40_000));
    eventually("the objects are counted", || database.object_count() == 7);

    // Nothing is left to copy.
    let text = succeed(places.copy_in("Data.fs"));
    assert!(text.ends_with("copied: 0 transactions, 0 records, 0 blobs\n"), "{text}");
    let text = succeed(places.copy_out("back.fs"));
    assert_eq!(text, "copied: 10 transactions, 14 records, 4 blobs\n");
    let back = places.file("back.fs");
    assert_eq!(contents(&back), contents(&file));
    assert_eq!(undo_log(&back), undo_log(&file));
    for (oid, tid, data) in &blobs {
        assert_eq!(blob(&back, *oid, *tid), *data, "{oid}");
    }
}

#[test]
fn a_file_comes_back_from_a_database_as_it_was() {
    there_and_back("");
}

#[test]
fn blobs_in_a_shared_directory_come_back_too() {
    there_and_back("shared-blob-dir true\n");
}

/// Many transactions, of which some are large.
fn fill_much(file: &FileStorage, dice: &mut Dice) {
    let mut serials = vec![commit(file, &[(0, Tid::ZERO, b"root")]).unwrap()];
    for number in 0..400 {
        let mut transaction = staged();
        transaction.meta.description = format!("transaction {number}").into_bytes();
        let mut changed = Vec::new();
        let (count, len) = if number % 100 == 50 { (40, 900_000) } else { (4, 40_000) };
        for _ in 0..=dice.below(count) {
            let oid = (dice.below(serials.len() as u64 + 2) as usize).min(serials.len());
            if changed.contains(&oid) {
                continue;
            }
            let serial = serials.get(oid).copied().unwrap_or(Tid::ZERO);
            if oid == serials.len() {
                serials.push(Tid::ZERO);
            }
            let data = vec![dice.below(256) as u8; dice.below(len) as usize];
            transaction.store(Oid(oid as u64), serial, &data).unwrap();
            changed.push(oid);
        }
        let tid = commit_staged(file, transaction).unwrap();
        changed.into_iter().for_each(|oid| serials[oid] = tid);
    }
}

/// Ends it after some time. Whether it had ended by itself.
fn kill_after(mut child: Child, time: Duration) -> bool {
    std::thread::sleep(time);
    let ended = child.try_wait().unwrap().is_some();
    child.kill().unwrap();
    child.wait().unwrap();
    ended
}

#[test]
fn a_copy_that_is_killed_goes_on_where_it_was() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let places = Places::new(&server, "");
    let file = places.file("Data.fs");
    let mut dice = Dice::new(20, 0);
    fill_much(&file, &mut dice);
    let mut sql = Sql::connect(&server);
    let mut seen = 0;
    for _ in 0..12 {
        let child = places.copy_in("Data.fs").spawn().unwrap();
        let ended = kill_after(child, Duration::from_millis(100 + dice.below(900)));
        // Nothing of it is there any more, and nothing is committed later.
        let sessions = "select count(*) from pg_stat_activity where application_name like 'runzeo:%'";
        eventually("the sessions have ended", || sql.number(sessions) == 0);
        if sql.number("select count(*) from pg_tables where tablename = 'object_state'") == 0 {
            continue;
        }
        check(&mut sql);
        let count = sql.number("select count(*) from transaction where tid > 0");
        assert!(count >= seen, "{count} transactions, and {seen} before");
        seen = count;
        if ended {
            break;
        }
    }
    succeed(places.copy_in("Data.fs"));
    check(&mut sql);
    assert_eq!(sql.number(VALID_KEYS), 4);
    assert_eq!(contents(&storage(&server)), contents(&file));

    // And back.
    for _ in 0..4 {
        let child = places.copy_out("back.fs").spawn().unwrap();
        if kill_after(child, Duration::from_millis(100 + dice.below(600))) {
            break;
        }
    }
    succeed(places.copy_out("back.fs"));
    assert_eq!(contents(&places.file("back.fs")), contents(&file));
}

/// A transaction with its own id.
fn copied(tid: u64, records: &[(u64, &[u8])]) -> Staged {
    let mut staged = Staged::new(TransactionMeta::default(), Some(Tid(tid)), b' ', 1 << 20);
    for (oid, data) in records {
        staged.restore(Oid(*oid), Tid(tid), Some(data), None).unwrap();
    }
    staged
}

#[test]
fn a_large_transaction_is_there_as_a_whole_or_not_at_all() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let storage = storage(&server);
    let mut sql = Sql::connect(&server);
    let data = vec![1; 30_000];
    let large: Vec<(u64, &[u8])> = (0..1000).map(|oid| (oid, data.as_slice())).collect();
    let mut copy = storage.bulk().unwrap().begin().unwrap();
    copy.add(copied(1000, &[(3, b"before"), (3, b"the last record counts")])).unwrap();
    // A part of it is sent when this is found at its end.
    let mut wrong = copied(2000, &large);
    wrong.store(Oid(5000), Tid::ZERO, b"no copied record").unwrap();
    assert!(matches!(copy.add(wrong), Err(StorageError::Unsupported(_))));
    assert_eq!(sql.number("select count(*) from object_state"), 0);
    drop(copy);
    eventually("the session has ended", || {
        sql.number("select count(*) from pg_stat_activity where application_name = 'runzeo: copy'") == 0
    });
    check(&mut sql);
    assert_eq!(sql.number("select count(*) from transaction"), 1);

    let mut copy = storage.bulk().unwrap().begin().unwrap();
    copy.add(copied(1000, &[(3, b"before"), (3, b"the last record counts")])).unwrap();
    copy.add(copied(2000, &large)).unwrap();
    copy.add(copied(3000, &[(7, b"after")])).unwrap();
    copy.complete().unwrap();
    check(&mut sql);
    assert_eq!(storage.last_transaction(), Tid(3000));
    assert_eq!(load(&storage, 7).unwrap(), (b"after".to_vec(), Tid(3000)));
    assert_eq!(contents(&storage)[0].1[0].data.as_deref(), Some(b"the last record counts".as_slice()));
    assert_eq!(contents(&storage)[1].1.len(), 1000);
}

/// With the numbers that the database has of its tables before, it would look up each object in all others.
#[test]
fn a_transaction_of_very_many_objects_follows_a_small_one() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let storage = storage(&server);
    let mut sql = Sql::connect(&server);
    let objects: Vec<(u64, &[u8])> = (0..100_000).map(|oid| (oid, b"a short record".as_slice())).collect();
    let mut copy = storage.bulk().unwrap().begin().unwrap();
    copy.add(copied(1000, &[(3, b"before")])).unwrap();
    copy.add(copied(2000, &objects)).unwrap();
    copy.add(copied(3000, &objects[..20_000])).unwrap();
    copy.complete().unwrap();
    check(&mut sql);
    assert_eq!(sql.number("select count(*) from current_object where tid = 3000"), 20_000);
    assert_eq!(sql.number("select reltuples::bigint from pg_class where relname = 'object_state'"), 120_001);
}

/// The server that serves a database shows what is copied into it; a commit beside the copy ends it.
#[test]
fn a_database_may_be_served_while_it_is_copied_into() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let (serving, copying) = (storage(&server), storage(&server));
    let mut sql = Sql::connect(&server);
    let mut copy = copying.bulk().unwrap().begin().unwrap();
    copy.add(copied(1000, &[(0, b"root"), (1, &vec![0; 9_000_000])])).unwrap();
    eventually("it is published", || serving.last_transaction() == Tid(1000));
    assert_eq!(load(&serving, 0).unwrap(), (b"root".to_vec(), Tid(1000)));
    let own = commit(&serving, &[(0, Tid(1000), b"changed")]).unwrap();
    copy.add(copied(2000, &[(0, b"copied")])).unwrap();
    let error = copy.complete().unwrap_err();
    assert!(matches!(&error, StorageError::Transaction(why) if why.contains(&own.to_string())), "{error}");
    check(&mut sql);
    assert_eq!(load(&serving, 0).unwrap(), (b"changed".to_vec(), own));
    assert_eq!(sql.number("select count(*) from transaction where tid > 0"), 2);
    // Transactions that are not later than the newest one are refused at once.
    let mut copy = copying.bulk().unwrap().begin().unwrap();
    assert!(matches!(copy.add(copied(2000, &[])), Err(StorageError::Transaction(_))));
}

/// A client of RelStorage keeps the tables in use as long as its transaction lasts.
#[test]
fn foreign_keys_stay_where_the_tables_are_in_use() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let storage = storage(&server);
    let (mut sql, mut other) = (Sql::connect(&server), Sql::connect(&server));
    other.run("begin; select * from object_state");
    for (tid, oid) in [(1000, 1), (2000, 2)] {
        let mut copy = storage.bulk().unwrap().begin().unwrap();
        copy.add(copied(tid, &[(oid, b"one"), (9, b"two")])).unwrap();
        copy.complete().unwrap();
        // The second copy has them for itself.
        other.run("commit");
        check(&mut sql);
        assert_eq!(sql.number(VALID_KEYS), 4);
    }
    assert_eq!(load(&storage, 9).unwrap(), (b"two".to_vec(), Tid(2000)));
}

#[test]
fn what_is_read_only_is_no_target() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let places = Places::new(&server, "read-only true\n");
    let file = places.file("Data.fs");
    commit(&file, &[(0, Tid::ZERO, b"root")]).unwrap();
    let (text, status) = run(places.copy_in("Data.fs"));
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains("the storage to copy to is read-only"), "{text}");
}
