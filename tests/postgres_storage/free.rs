//! A database without history: what of it is published, read, listed and packed, beside others.

use std::sync::Mutex;

use runzeo::ids::{Oid, Tid};
use runzeo::internal::pickle::refs::references;
use runzeo::internal::storage::postgres::{PostgresOptions, PostgresStorage};
use runzeo::storage::prelude::*;
use runzeo::storage::{
    Committed, Delivery, PackProgress, PackRequest, Publisher, Result, StorageError, Ticket, TidAt,
    TransactionIterator,
};

use crate::support::postgres::PostgresServer;
use crate::support::storage::{
    Answers, Outcome, commit, commit_staged, finish_voted, load, load_before, referring_to, staged,
};
use crate::{Sql, dsn, eventually, lost_for_good};

fn options(server: &PostgresServer) -> PostgresOptions {
    PostgresOptions { keep_history: false, ..PostgresOptions::new(dsn(server)) }
}

fn storage(server: &PostgresServer) -> PostgresStorage {
    let storage = PostgresStorage::open(options(server)).expect("a storage");
    storage.set_publisher(std::sync::Arc::new(Answers));
    storage
}

/// What a client of RelStorage commits, in one transaction of the database: (tid, objects with their data).
fn foreign(sql: &mut Sql, transactions: &[(Tid, &[(u64, &str)])]) {
    let mut text = "begin; select pg_advisory_xact_lock(-1);".to_owned();
    for (tid, objects) in transactions {
        for (oid, data) in *objects {
            text += &format!(
                "insert into object_state values ({oid}, {}, {}, '{data}') on conflict (zoid) do update \
                 set tid = excluded.tid, state_size = excluded.state_size, state = excluded.state;",
                tid.0,
                data.len()
            );
        }
    }
    sql.run(&(text + "commit"));
}

/// A transaction of the near future.
fn soon(number: u64) -> Tid {
    Tid(Tid::now().0 + (10 << 32) + number)
}

/// Remembers what is published.
#[derive(Default)]
struct Remembers(Mutex<Vec<(Tid, Vec<u64>)>>);

impl Remembers {
    fn take(&self) -> Vec<(Tid, Vec<u64>)> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Publisher for Remembers {
    fn publish(&self, group: Vec<Committed>, install: &mut dyn FnMut()) -> Delivery {
        let mut published = self.0.lock().unwrap();
        for entry in &group {
            let mut oids: Vec<u64> = entry.oids.iter().map(|oid| oid.0).collect();
            oids.sort_unstable();
            published.push((entry.tid, oids));
        }
        drop(published);
        Answers.publish(group, install)
    }

    fn failed(&self, ticket: Ticket, error: StorageError) {
        Answers.failed(ticket, error);
    }
}

fn remembering(server: &PostgresServer) -> (PostgresStorage, std::sync::Arc<Remembers>) {
    let (storage, published) = (PostgresStorage::open(options(server)).unwrap(), std::sync::Arc::default());
    storage.set_publisher(std::sync::Arc::<Remembers>::clone(&published));
    (storage, published)
}

/// A client that stood between the two would see the new 2 beside the old 1.
#[test]
fn transactions_of_others_are_published_as_one() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let (storage, published) = remembering(&server);
    let mut sql = Sql::connect(&server);
    let t1 = commit(&storage, &[(1, Tid::ZERO, b"one"), (2, Tid::ZERO, b"two")]).unwrap();
    published.take();
    let [first, second] = [soon(1), soon(2)];
    foreign(&mut sql, &[(first, &[(1, "1 changed"), (2, "2 changed")]), (second, &[(1, "1 again")])]);
    storage.catch_up().unwrap();
    assert_eq!(published.take(), [(second, vec![1, 2])]);
    assert_eq!(storage.last_transaction(), second);
    // Who stands at the transaction before still has what was in memory, and who would stand between gets a conflict.
    let before = |oid, tid: Tid| load_before(&storage, oid, Tid(tid.0 + 1)).unwrap();
    let end = Some(Tid(t1.0 + 1));
    assert_eq!(before(1, t1), Some((b"one".to_vec(), t1, end)));
    assert_eq!(before(2, t1), Some((b"two".to_vec(), t1, end)));
    assert_eq!(before(1, first), None);
    assert_eq!(load(&storage, 1).unwrap(), (b"1 again".to_vec(), second));
    // A commit of the server overwrites nothing that was not told: either a search or the commit itself finds it.
    let mut transaction = staged();
    transaction.store(Oid(3), Tid::ZERO, b"three").unwrap();
    let voted = storage.vote(transaction, TidAt::Finish).unwrap();
    let third = soon(3);
    foreign(&mut sql, &[(third, &[(2, "2 again")])]);
    let Outcome::Done { tid, .. } = finish_voted(&storage, voted).recv().unwrap() else {
        panic!("it failed")
    };
    assert!(tid > third);
    assert_eq!(published.take(), [(third, vec![2]), (tid, vec![3])]);
    storage.close().unwrap();
}

#[test]
fn what_another_server_has_just_committed_is_read() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let [here, there] = [storage(&server), storage(&server)];
    let mut tid = commit(&here, &[(1, Tid::ZERO, b"0"), (2, Tid::ZERO, b"0")]).unwrap();
    for n in 1..100 {
        let data = n.to_string().into_bytes();
        let (writer, reader) = if n % 2 == 0 { (&here, &there) } else { (&there, &here) };
        writer.catch_up().unwrap();
        tid = commit(writer, &[(1, tid, &data)]).unwrap();
        // In the reader's memory is the state of before, until it is published; in the database is none.
        let (found, serial) = load(reader, 1).unwrap();
        assert!(serial <= reader.last_transaction(), "nothing is read that is not published");
        assert!((&found, serial) == (&data, tid) || serial < tid);
        reader.catch_up().unwrap();
        assert_eq!(load(reader, 1).unwrap(), (data, tid));
        assert_eq!(reader.get_tid(Oid(1)).unwrap(), tid);
        assert_eq!(reader.history(Oid(1), 5).unwrap().len(), 1);
    }
    here.close().unwrap();
    there.close().unwrap();
}

#[test]
fn a_transaction_without_objects_is_known_to_others() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let [here, there] = [storage(&server), storage(&server)];
    let empty = commit_staged(&here, staged()).unwrap();
    there.catch_up().unwrap();
    assert_eq!(there.last_transaction(), empty);
    here.close().unwrap();
    there.close().unwrap();
    let again = storage(&server);
    assert_eq!(again.last_transaction(), empty);
    assert!(commit(&again, &[(1, Tid::ZERO, b"one")]).unwrap() > empty);
    again.close().unwrap();
}

/// A pack of RelStorage removes the newest transaction, which had written only garbage.
#[test]
fn a_last_transaction_that_is_packed_away_is_remembered() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let mut sql;
    let garbage = soon(1);
    {
        let storage = storage(&server);
        sql = Sql::connect(&server);
        commit(&storage, &[(0, Tid::ZERO, b"root")]).unwrap();
        foreign(&mut sql, &[(garbage, &[(9, "garbage")])]);
        storage.catch_up().unwrap();
        eventually("it is noted", || sql.number("select tid from runzeo_last") == garbage.0 as i64);
        sql.run("delete from object_state where zoid = 9");
        storage.catch_up().unwrap();
        assert_eq!(storage.last_transaction(), garbage);
        assert!(load(&storage, 0).is_ok());
        storage.close().unwrap();
    }
    let storage = storage(&server);
    assert_eq!(storage.last_transaction(), garbage);
    assert!(commit(&storage, &[(1, Tid::ZERO, b"one")]).unwrap() > garbage);
    storage.close().unwrap();
}

#[test]
fn a_cleared_database_is_not_served() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let storage = storage(&server);
    let mut sql = Sql::connect(&server);
    commit(&storage, &[(0, Tid::ZERO, b"root")]).unwrap();
    sql.run("truncate object_state cascade");
    eventually("it is noticed", || lost_for_good(&storage).is_some());
    assert!(matches!(load(&storage, 0), Err(StorageError::Closed(_))));
    storage.close().unwrap();
}

#[test]
fn the_kind_that_is_configured_must_be_that_of_the_tables() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    storage(&server).close().unwrap();
    let refusal = |options| PostgresStorage::open(options).err().expect("a refusal").to_string();
    let message = refusal(PostgresOptions::new(dsn(&server)));
    assert!(
        message.contains("keeps no history, and keep-history is true: set keep-history false"),
        "{message}"
    );
    let Some(other) = PostgresServer::start(&[]) else { return };
    crate::storage(&other).close().unwrap();
    let message = refusal(options(&other));
    assert!(message.contains("keeps history, and keep-history is false: set keep-history true"), "{message}");
}

fn listed(mut transactions: Box<dyn TransactionIterator>) -> Result<Vec<(Tid, Vec<u64>)>> {
    let mut listed = Vec::new();
    while let Some(transaction) = transactions.next_transaction()? {
        let (mut records, mut oids) = (transactions.records()?, Vec::new());
        while let Some(record) = records.next_record()? {
            oids.push(record.oid.0);
        }
        listed.push((transaction.tid, oids));
    }
    Ok(listed)
}

/// A copy that is made of such a list has all objects.
#[test]
fn a_list_of_transactions_is_of_one_moment() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let storage = storage(&server);
    let all: Vec<_> = (0..500).map(|oid| (oid, Tid::ZERO, &b"data"[..])).collect();
    let t1 = commit(&storage, &all).unwrap();
    let list = || storage.iteration().unwrap().iterate(None, None).unwrap();
    let (before, kept) = (list(), list());
    let t2 = commit(&storage, &[(499, t1, b"moved"), (3, t1, b"moved")]).unwrap();
    let oids: Vec<u64> = (0..500).collect();
    assert_eq!(listed(before).unwrap(), [(t1, oids)]);
    let now = listed(list()).unwrap();
    assert_eq!((now.len(), &now[1]), (2, &(t2, vec![3, 499])));
    // What others have committed, and is not published, is not left out.
    let mut sql = Sql::connect(&server);
    let t3 = soon(1);
    foreign(&mut sql, &[(t3, &[(4, "moved")])]);
    assert!(listed(list()).unwrap().contains(&(t3, vec![4])));
    // Lists that nobody reads do not keep the database for ever.
    let open: Vec<_> = (0..8).map(|_| list()).collect();
    assert!(matches!(listed(kept), Err(StorageError::Disconnected(_))));
    assert_eq!(open.into_iter().filter_map(|one| listed(one).ok()).count(), 8);
    storage.close().unwrap();
}

fn pack(storage: &PostgresStorage, time: Tid, gc: Option<bool>) {
    let progress = PackProgress::default();
    let time = time.to_unix() + 1e-3;
    storage
        .pack(&PackRequest { time, gc, references: &references, progress: &progress, removals: None })
        .unwrap();
}

#[test]
fn a_pack_removes_garbage_and_nothing_else() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let storage = storage(&server);
    let mut sql = Sql::connect(&server);
    let nothing = referring_to(&[]);
    let t1 = commit(
        &storage,
        &[
            (0, Tid::ZERO, &referring_to(&[1])),
            (1, Tid::ZERO, &nothing),
            (2, Tid::ZERO, &referring_to(&[3])),
            (3, Tid::ZERO, &nothing),
            (4, Tid::ZERO, &nothing),
            (5, Tid::ZERO, &nothing),
        ],
    )
    .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(3));
    let time = Tid::now();
    std::thread::sleep(std::time::Duration::from_millis(3));
    // Later than the pack time, so it stays, and what it refers to.
    let t2 = commit(&storage, &[(4, t1, &referring_to(&[5]))]).unwrap();
    // What RelStorage has noted is not believed, and goes with its objects.
    sql.run(
        "insert into object_ref values (2, 3, 1), (1, 2, 1); insert into object_refs_added values (2, 1)",
    );
    let left = |sql: &mut Sql| sql.rows("select zoid from object_state order by 1").concat();
    let planned = |gc| {
        let progress = PackProgress::default();
        let time = time.to_unix() + 1e-3;
        let request = PackRequest { time, gc, references: &references, progress: &progress, removals: None };
        let plan = storage.plan(&request).unwrap();
        (plan.objects.before, plan.objects.removed, plan.revisions.removed)
    };
    assert_eq!([planned(Some(false)), planned(None)], [(6, 0, 0), (6, 2, 2)]);
    pack(&storage, time, Some(false));
    assert_eq!(left(&mut sql), [0, 1, 2, 3, 4, 5], "without garbage collection there is nothing to do");
    pack(&storage, time, None);
    assert_eq!(left(&mut sql), [0, 1, 4, 5]);
    assert_eq!(sql.rows("select zoid, to_zoid from object_ref"), [[1, 2]]);
    assert_eq!(sql.number("select count(*) from object_refs_added"), 0);
    assert!(matches!(load(&storage, 2), Err(StorageError::PosKey(_))), "also from memory");
    assert_eq!(load(&storage, 4).unwrap().1, t2);
    assert_eq!(storage.object_count(), 4);
    // The newest transaction has written only garbage now.
    pack(&storage, soon(0), None);
    assert_eq!(left(&mut sql), [0, 1]);
    assert_eq!(storage.last_transaction(), t2);
    storage.catch_up().unwrap();
    assert!(storage.failure().is_none());
    eventually("no lock is left", || {
        sql.number("select count(*) from pg_locks where locktype = 'advisory'") == 0
    });
    storage.close().unwrap();
    assert_eq!(self::storage(&server).last_transaction(), t2);
}

/// Garbage that becomes reachable during the search stays: the object that refers to it moves to a later transaction.
#[test]
fn garbage_that_is_linked_in_stays() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let storage = storage(&server);
    let nothing = referring_to(&[]);
    let t1 = commit(
        &storage,
        &[(0, Tid::ZERO, &referring_to(&[1])), (1, Tid::ZERO, &nothing), (2, Tid::ZERO, &nothing)],
    )
    .unwrap();
    let progress = PackProgress::default();
    let linked = Mutex::new(false);
    let links = |record: &[u8], oids: &mut Vec<Oid>| {
        // The first record that is read is the root's; 1, which it refers to, is read later.
        if !std::mem::replace(&mut *linked.lock().unwrap(), true) {
            commit(&storage, &[(0, t1, &referring_to(&[1, 2]))]).unwrap();
        }
        references(record, oids)
    };
    let time = Tid::now().to_unix() + 1.0;
    let request = PackRequest { time, gc: None, references: &links, progress: &progress, removals: None };
    storage.pack(&request).unwrap();
    assert!(load(&storage, 2).is_ok() && *linked.lock().unwrap());
    storage.close().unwrap();
}

/// A server that may only read, of a database that no server has written to.
#[test]
fn a_database_of_relstorage_alone_is_read() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    storage(&server).close().unwrap();
    let mut sql = Sql::connect(&server);
    sql.run(
        "drop table runzeo_last, runzeo_writers, runzeo_uploads; drop index runzeo_blob_chunk; \
         drop function runzeo_commit_free_1, runzeo_newest_1, runzeo_now_1",
    );
    let [first, second] = [soon(1), soon(2)];
    foreign(&mut sql, &[(first, &[(0, "root")])]);
    let read_only = || PostgresOptions { read_only: true, ..options(&server) };
    let reader = PostgresStorage::open(read_only()).unwrap();
    reader.set_publisher(std::sync::Arc::new(Answers));
    assert_eq!(load(&reader, 0).unwrap(), (b"root".to_vec(), first));
    foreign(&mut sql, &[(second, &[(0, "changed"), (1, "garbage")])]);
    reader.catch_up().unwrap();
    assert_eq!(load(&reader, 0).unwrap(), (b"changed".to_vec(), second));
    foreign(&mut sql, &[(soon(3), &[(2, "garbage")])]);
    reader.catch_up().unwrap();
    sql.run("delete from object_state where zoid = 2");
    reader.catch_up().unwrap();
    assert!(lost_for_good(&reader).is_none() && reader.last_transaction() > second);
    assert_eq!(
        listed(reader.iteration().unwrap().iterate(None, None).unwrap()).unwrap(),
        [(second, vec![0, 1])]
    );
    reader.close().unwrap();
    // The first server that writes makes what it needs.
    let writer = storage(&server);
    assert_eq!(writer.last_transaction(), second);
    commit(&writer, &[(0, second, b"on")]).unwrap();
    writer.close().unwrap();
}
