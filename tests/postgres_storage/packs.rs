//! Packs: what is removed, beside commits and locks of others, and after packs that were not completed.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use runzeo::ids::{Oid, Tid};
use runzeo::internal::pickle::refs::references;
use runzeo::internal::storage::postgres::PostgresStorage;
use runzeo::storage::prelude::*;
use runzeo::storage::{
    PackPlan, PackProgress, PackRequest, References, Refusal, Removals, Result, StorageError,
};

use crate::support::postgres::PostgresServer;
use crate::support::storage::{commit, commit_staged, load, load_before, referring_to, staged};
use crate::{Sql, eventually, storage};

fn later() -> f64 {
    Tid::now().to_unix() + 1.0
}

fn pack_with(storage: &PostgresStorage, time: f64, gc: bool, references: &References<'_>) -> Result<()> {
    let progress = PackProgress::default();
    storage.pack(&PackRequest { time, gc: Some(gc), references, progress: &progress, removals: None })
}

fn pack(storage: &PostgresStorage) -> Result<()> {
    pack_with(storage, later(), true, &references)
}

fn plan(storage: &PostgresStorage) -> PackPlan {
    let progress = PackProgress::default();
    let request =
        PackRequest { time: later(), gc: None, references: &references, progress: &progress, removals: None };
    storage.plan(&request).unwrap()
}

/// Objects that refer to others.
fn store(storage: &PostgresStorage, objects: &[(u64, Tid, &[u64])]) -> Tid {
    let records: Vec<_> =
        objects.iter().map(|(oid, serial, oids)| (*oid, *serial, referring_to(oids))).collect();
    let records: Vec<_> =
        records.iter().map(|(oid, serial, data)| (*oid, *serial, data.as_slice())).collect();
    commit(storage, &records).unwrap()
}

fn is_gone(storage: &PostgresStorage, oid: u64) -> bool {
    matches!(load(storage, oid), Err(StorageError::PosKey(_)))
}

fn undo(storage: &PostgresStorage, tid: Tid) -> Result<Tid> {
    let mut staged = staged();
    staged.undo(tid);
    commit_staged(storage, staged)
}

/// What must hold in every database, whatever was done to it.
fn check(sql: &mut Sql) {
    // A commit is answered before its locks are given back, and a session ends after the pack.
    let is_locked = "select count(*) from pg_locks where locktype = 'advisory'";
    eventually("no lock is left", || sql.number(is_locked) == 0);
    for wrong in [
        "select c.zoid from current_object c join (select zoid, max(tid) as tid from object_state group by zoid) m \
         on m.zoid = c.zoid where m.tid <> c.tid",
        "select zoid from object_state except select zoid from current_object",
        "select zoid from object_state where prev_tid > 0 group by zoid, prev_tid having count(*) > 1",
        "select zoid from object_state where prev_tid >= tid",
        "select s.zoid from object_state s where s.prev_tid > 0 \
         and not exists (select from object_state o where o.zoid = s.zoid and o.tid = s.prev_tid)",
        "select zoid from object_state where md5(state) <> md5 or coalesce(octet_length(state), 0) <> state_size",
        "select zoid from blob_chunk where chunk not in (select oid from pg_largeobject_metadata)",
        "select oid::bigint from pg_largeobject_metadata where oid not in (select chunk from blob_chunk)",
        "select tid from runzeo_pack",
    ] {
        assert_eq!(sql.rows(wrong), Vec::<Vec<i64>>::new(), "{wrong}");
    }
}

#[test]
fn the_past_and_garbage_are_removed_and_nothing_else() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let (storage, mut sql) = (storage(&server), Sql::connect(&server));
    let t1 = store(
        &storage,
        &[(0, Tid::ZERO, &[1, 2]), (1, Tid::ZERO, &[]), (2, Tid::ZERO, &[3]), (3, Tid::ZERO, &[])],
    );
    let t2 = store(&storage, &[(1, t1, &[])]);
    let t3 = store(&storage, &[(1, t2, &[])]);
    let t4 = store(&storage, &[(0, t1, &[1])]);
    let planned = plan(&storage);
    let count = "select (select count(*) from current_object), (select count(*) from object_state), \
                 (select count(*) from transaction)";
    assert_eq!(sql.rows(count), [[4, 7, 5]], "a plan changes nothing");
    pack(&storage).unwrap();
    check(&mut sql);
    assert_eq!(sql.rows(count), [[2, 2, 3]]);
    let removed = (planned.objects.removed, planned.revisions.removed, planned.transactions.removed);
    assert_eq!(removed, (2, 5, 2));
    assert_eq!(load(&storage, 1).unwrap().1, t3);
    assert_eq!(load_before(&storage, 1, t3).unwrap(), None);
    assert!(is_gone(&storage, 2) && is_gone(&storage, 3), "also from memory");
    assert!(matches!(undo(&storage, t4), Err(StorageError::Undo { .. })), "it is packed");
    assert_eq!(storage.object_count(), 2);
    let planned = plan(&storage);
    assert_eq!((planned.objects.removed, planned.revisions.removed, planned.transactions.removed), (0, 0, 0));
    pack(&storage).unwrap();
}

#[test]
fn without_garbage_collection_no_record_is_read() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let (storage, mut sql) = (storage(&server), Sql::connect(&server));
    let t1 = store(&storage, &[(0, Tid::ZERO, &[]), (1, Tid::ZERO, &[]), (2, Tid::ZERO, &[])]);
    let mut deletion = staged();
    deletion.delete(Oid(2), t1).unwrap();
    commit_staged(&storage, deletion).unwrap();
    store(&storage, &[(0, t1, &[])]);
    pack_with(&storage, later(), false, &|_, _| panic!("not asked for")).unwrap();
    check(&mut sql);
    assert_eq!(
        sql.rows("select zoid from object_state order by zoid"),
        [[0], [1]],
        "1 is garbage, 2 was deleted"
    );
}

/// A client has kept an object that is garbage at the pack time, and stores a reference to it while the pack runs.
#[test]
fn garbage_that_is_linked_in_during_the_search_survives() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let (storage, mut sql) = (storage(&server), Sql::connect(&server));
    let t1 = store(
        &storage,
        &[(0, Tid::ZERO, &[5]), (5, Tid::ZERO, &[6]), (6, Tid::ZERO, &[]), (7, Tid::ZERO, &[])],
    );
    let t2 = store(&storage, &[(0, t1, &[])]);
    let once = Mutex::new(Some(t2));
    let link = |data: &[u8], oids: &mut Vec<Oid>| {
        if let Some(serial) = once.lock().unwrap().take() {
            store(&storage, &[(0, serial, &[5])]);
        }
        references(data, oids)
    };
    pack_with(&storage, later(), true, &link).unwrap();
    check(&mut sql);
    assert!(load(&storage, 5).is_ok() && load(&storage, 6).is_ok());
    assert!(is_gone(&storage, 7));
}

#[test]
fn objects_that_change_after_the_pack_time_stay_as_they_were() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let (storage, mut sql) = (storage(&server), Sql::connect(&server));
    // 1 is garbage at the pack time and refers to 2. 3 is deleted then, and its deletion is undone later.
    let t1 = store(
        &storage,
        &[
            (0, Tid::ZERO, &[]),
            (1, Tid::ZERO, &[2]),
            (2, Tid::ZERO, &[]),
            (3, Tid::ZERO, &[]),
            (4, Tid::ZERO, &[]),
        ],
    );
    let mut deletion = staged();
    deletion.delete(Oid(3), t1).unwrap();
    let t2 = commit_staged(&storage, deletion).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(5));
    let time = Tid::now().to_unix();
    std::thread::sleep(std::time::Duration::from_millis(5));
    let t3 = store(&storage, &[(1, t1, &[])]);
    let t4 = undo(&storage, t2).unwrap();
    pack_with(&storage, time, true, &references).unwrap();
    check(&mut sql);
    assert_eq!(load_before(&storage, 1, t3).unwrap(), Some((referring_to(&[2]), t1, Some(t3))));
    assert!(load(&storage, 2).is_ok(), "an undo of the later transaction needs it");
    assert_eq!(load(&storage, 3).unwrap().1, t4);
    assert_eq!(load_before(&storage, 3, t4).unwrap(), None);
    assert!(is_gone(&storage, 4));
    let before = undo(&storage, t3).unwrap();
    assert_eq!(load(&storage, 1).unwrap(), (referring_to(&[2]), before));
}

#[test]
fn unreadable_records_matter_only_where_they_are_kept() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let (storage, mut sql) = (storage(&server), Sql::connect(&server));
    let t1 =
        commit(&storage, &[(0, Tid::ZERO, &referring_to(&[1])), (1, Tid::ZERO, b"\xff\xffnot a pickle")])
            .unwrap();
    let t2 = store(&storage, &[(1, t1, &[])]);
    pack(&storage).unwrap();
    assert_eq!(sql.number("select count(*) from object_state"), 2, "the old state did not stop it");
    let t3 = commit(&storage, &[(1, t2, b"\xff\xffnot a pickle")]).unwrap();
    let refused = pack(&storage).unwrap_err();
    let message = refused.to_string();
    assert!(matches!(refused, StorageError::Refused { what: Refusal::Pack, .. }), "{message}");
    assert!(message.contains("0x0000000000000001") && message.contains("unchanged"), "{message}");
    assert_eq!(sql.number("select count(*) from object_state"), 3);
    pack_with(&storage, later(), false, &references).unwrap();
    assert_eq!(load(&storage, 1).unwrap().1, t3);
    check(&mut sql);
}

#[test]
fn a_reference_to_what_does_not_exist_ends_the_pack() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let (storage, mut sql) = (storage(&server), Sql::connect(&server));
    let t1 = store(&storage, &[(0, Tid::ZERO, &[1, 9]), (1, Tid::ZERO, &[]), (2, Tid::ZERO, &[])]);
    let planned = plan(&storage);
    assert_eq!(
        (planned.dangling_count, planned.dangling[0].from, planned.dangling[0].to),
        (1, Some(Oid(0)), Oid(9))
    );
    assert!(matches!(pack(&storage), Err(StorageError::Missing(Oid(9)))));
    assert_eq!(sql.number("select count(*) from object_state"), 3);
    assert_eq!(sql.number("select count(*) from transaction where packed"), 0);
    store(&storage, &[(0, t1, &[1])]);
    pack(&storage).unwrap();
    check(&mut sql);
    assert!(is_gone(&storage, 2));
}

#[test]
fn one_pack_at_a_time() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let (storage, mut sql) = (storage(&server), Sql::connect(&server));
    store(&storage, &[(0, Tid::ZERO, &[]), (1, Tid::ZERO, &[])]);
    sql.run("select pg_advisory_lock(-2)");
    let refused = pack(&storage).unwrap_err();
    assert!(matches!(refused, StorageError::Refused { what: Refusal::PackRunning, .. }), "{refused}");
    sql.run("select pg_advisory_unlock(-2)");
    pack(&storage).unwrap();
    check(&mut sql);
}

#[test]
fn a_cancelled_pack_says_what_it_leaves() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let (storage, mut sql) = (storage(&server), Sql::connect(&server));
    store(&storage, &[(0, Tid::ZERO, &[]), (1, Tid::ZERO, &[])]);
    let progress = PackProgress::default();
    let cancel = |data: &[u8], oids: &mut Vec<Oid>| {
        progress.cancel();
        references(data, oids)
    };
    let request = PackRequest {
        time: later(),
        gc: Some(true),
        references: &cancel,
        progress: &progress,
        removals: None,
    };
    let refused = storage.pack(&request).unwrap_err();
    assert!(matches!(refused, StorageError::Refused { what: Refusal::PackCancelled, .. }), "{refused}");
    assert!(refused.to_string().contains("unchanged"));
    assert_eq!(sql.number("select count(*) from object_state"), 2);
    check(&mut sql);
}

/// The session ends after the search; then the pack that follows does everything.
#[test]
fn a_lost_session_ends_the_pack_and_the_next_one_goes_on() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let (storage, mut sql) = (storage(&server), Sql::connect(&server));
    let t1 = store(&storage, &[(0, Tid::ZERO, &[]), (1, Tid::ZERO, &[])]);
    store(&storage, &[(0, t1, &[])]);
    let killer = Mutex::new(Sql::connect(&server));
    let end = |data: &[u8], oids: &mut Vec<Oid>| {
        killer.lock().unwrap().run(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'runzeo: pack'",
        );
        references(data, oids)
    };
    let lost = pack_with(&storage, later(), true, &end).unwrap_err();
    assert!(
        matches!(lost, StorageError::Disconnected(_)) && lost.to_string().contains("Pack again"),
        "{lost}"
    );
    pack(&storage).unwrap();
    check(&mut sql);
    assert_eq!(sql.rows("select zoid from object_state"), [[0]]);
}

/// What is locked stays, and the pack is not complete until a later one has removed it.
#[test]
fn what_transactions_have_locked_is_left_to_the_next_pack() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let (storage, mut sql) = (storage(&server), Sql::connect(&server));
    let t1 = store(
        &storage,
        &[(0, Tid::ZERO, &[1]), (1, Tid::ZERO, &[]), (2, Tid::ZERO, &[]), (3, Tid::ZERO, &[])],
    );
    store(&storage, &[(0, t1, &[1]), (1, t1, &[])]);
    let time = later();
    let mut other = Sql::connect(&server);
    other.run("select pg_advisory_lock(1), pg_advisory_lock_shared(2), pg_advisory_lock_shared(0)");
    pack_with(&storage, time, true, &references).unwrap();
    let left = "select zoid, count(*) from object_state group by zoid order by zoid";
    assert_eq!(sql.rows(left), [[0, 1], [1, 2], [2, 1]]);
    assert_eq!(sql.number("select count(*) from runzeo_pack"), 1);
    other.run("select pg_advisory_unlock_all()");
    pack_with(&storage, time, true, &references).unwrap();
    assert_eq!(sql.rows(left), [[0, 1], [1, 1]]);
    check(&mut sql);
}

/// A deletion by RelStorage holds the commit lock while it waits for its objects. A pack that was about to remove the
/// same objects held them while it waited for the commit lock; PostgreSQL ended the wait by failing another client's
/// commit.
#[test]
fn a_pack_locks_no_object_while_it_waits_for_the_commit_lock() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let (storage, mut sql) = (storage(&server), Sql::connect(&server));
    let t1 = store(&storage, &[(0, Tid::ZERO, &[1]), (1, Tid::ZERO, &[])]);
    store(&storage, &[(0, t1, &[])]);
    let mut other = Sql::connect(&server);
    std::thread::scope(|scope| {
        other.run("select pg_advisory_lock(-1)");
        let packing = scope.spawn(|| pack(&storage));
        let waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted";
        eventually("the pack waits", || sql.number(waiting) == 1);
        let is_locked = other.number("select (not pg_try_advisory_lock(1))::int::bigint");
        other.run("select pg_advisory_unlock_all()");
        packing.join().unwrap().unwrap();
        assert_eq!(is_locked, 0);
    });
    pack(&storage).unwrap();
    assert!(is_gone(&storage, 1));
    check(&mut sql);
}

/// What was current at the earlier time may be gone already. That is no reference to a missing object.
#[test]
fn a_pack_to_an_earlier_time_than_one_that_was_not_completed() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let (storage, mut sql) = (storage(&server), Sql::connect(&server));
    let t1 = store(&storage, &[(0, Tid::ZERO, &[1]), (1, Tid::ZERO, &[])]);
    std::thread::sleep(std::time::Duration::from_millis(5));
    let early = Tid::now().to_unix();
    std::thread::sleep(std::time::Duration::from_millis(5));
    let t2 = store(&storage, &[(1, t1, &[])]);
    // As a RelStorage client leaves it that is killed while it packs to a later time.
    sql.run(&format!(
        "update object_state set prev_tid = 0 where zoid = 1 and tid = {}; delete from object_state where zoid = 1 \
         and tid = {}",
        t2.0, t1.0
    ));
    pack_with(&storage, early, true, &references).unwrap();
    assert_eq!(load(&storage, 1).unwrap().1, t2);
    pack(&storage).unwrap();
    check(&mut sql);
}

/// A pack of a RelStorage client was killed: what it has noted says that a live object is garbage, and a transaction
/// has lost its records but is there.
#[test]
fn the_notes_of_an_interrupted_pack_are_not_trusted() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let (storage, mut sql) = (storage(&server), Sql::connect(&server));
    let t1 = store(&storage, &[(0, Tid::ZERO, &[1]), (1, Tid::ZERO, &[])]);
    let t2 = store(&storage, &[(1, t1, &[])]);
    let t3 = store(&storage, &[(1, t2, &[]), (2, Tid::ZERO, &[])]);
    sql.run(&format!(
        "insert into object_refs_added values ({t1}), ({t2}), ({t3}); \
         insert into object_ref values (0, {t1}, 2), (5, {t2}, 6); \
         insert into pack_object values (0, true, {t1}, true), (1, false, {t1}, false), (2, true, {t3}, true); \
         insert into pack_state values ({t1}, 1), ({t3}, 1); insert into pack_state_tid values ({t1}), ({t3}); \
         update transaction set packed = true where tid <= {t2}; \
         delete from object_state where zoid = 1 and tid = {t2};",
        t1 = t1.0,
        t2 = t2.0,
        t3 = t3.0
    ));
    pack(&storage).unwrap();
    check(&mut sql);
    let (t1, t3) = (t1.0 as i64, t3.0 as i64);
    assert_eq!(
        sql.rows("select zoid, tid, prev_tid from object_state order by zoid"),
        [[0, t1, 0], [1, t3, 0]]
    );
    assert_eq!(sql.rows("select tid from transaction order by tid"), [[0], [t1], [t3]]);
    assert_eq!(
        sql.number("select count(*) from object_ref where tid not in (select tid from transaction)"),
        0
    );
}

/// Between each search and the removal somebody commits, so in the end commits are held up for a batch.
#[test]
fn a_pack_ends_although_others_commit_all_the_time() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let (storage, mut sql) = (storage(&server), Sql::connect(&server));
    let garbage: Vec<(u64, Tid, &[u64])> = (10..4000).map(|oid| (oid, Tid::ZERO, [].as_slice())).collect();
    let mut serial = store(&storage, &[(0, Tid::ZERO, &[1]), (1, Tid::ZERO, &[])]);
    store(&storage, &garbage);
    let time = later() - 1.0;
    std::thread::sleep(std::time::Duration::from_millis(5));
    let is_over = AtomicBool::new(false);
    let commits = std::thread::scope(|scope| {
        let committing = scope.spawn(|| {
            let mut commits = 0;
            while !is_over.load(Ordering::SeqCst) {
                serial = store(&storage, &[(1, serial, &[0])]);
                commits += 1;
            }
            commits
        });
        let packed = pack_with(&storage, time, true, &references);
        is_over.store(true, Ordering::SeqCst);
        let commits = committing.join().unwrap();
        packed.map(|()| commits)
    });
    assert!(commits.unwrap() > 1);
    check(&mut sql);
    assert_eq!(sql.rows("select zoid from current_object order by zoid"), [[0], [1]]);
}

/// Collects what is reported.
#[derive(Default)]
struct Reported {
    left_out: Mutex<Vec<(Oid, Option<Tid>)>>,
    order: Mutex<Vec<&'static str>>,
}

impl Removals for Reported {
    fn left_out(&self, oid: Oid, tid: Option<Tid>, data: &[u8]) -> Result<()> {
        assert!(!data.is_empty());
        self.left_out.lock().unwrap().push((oid, tid));
        Ok(())
    }

    fn complete(&self) -> Result<()> {
        self.order.lock().unwrap().push("complete");
        Ok(())
    }

    fn packed(&self) -> Result<()> {
        self.order.lock().unwrap().push("packed");
        Ok(())
    }
}

#[test]
fn layers_get_what_is_left_out() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let storage = storage(&server);
    let t1 = store(&storage, &[(0, Tid::ZERO, &[1]), (1, Tid::ZERO, &[]), (2, Tid::ZERO, &[])]);
    let t2 = store(&storage, &[(1, t1, &[]), (2, t1, &[])]);
    store(&storage, &[(1, t2, &[])]);
    let (progress, reported) = (PackProgress::default(), Reported::default());
    let request = PackRequest {
        time: later(),
        gc: None,
        references: &references,
        progress: &progress,
        removals: Some(&reported),
    };
    storage.pack(&request).unwrap();
    let left_out = reported.left_out.into_inner().unwrap();
    assert_eq!(left_out, [(Oid(1), Some(t1)), (Oid(1), Some(t2)), (Oid(2), None), (Oid(2), None)]);
    assert_eq!(reported.order.into_inner().unwrap(), ["complete", "packed"]);
}

/// Large objects go with the last row that names them, whether or not RelStorage's trigger is there, in batches that
/// fit into a small table of locks.
#[test]
fn blobs_go_with_their_revisions() {
    for (has_trigger, count) in [(false, 10_000), (true, 500)] {
        let settings = ["--set", "max_locks_per_transaction=64"];
        let Some(server) = PostgresServer::start(&settings) else { return };
        let (storage, mut sql) = (storage(&server), Sql::connect(&server));
        if has_trigger {
            sql.run(
                "create function unlink_1() returns trigger language plpgsql as $$ begin \
                 if (select count(*) from blob_chunk where chunk = old.chunk) = 1 then perform lo_unlink(old.chunk); \
                 end if; return old; end $$; \
                 create trigger blob_chunk_delete before delete on blob_chunk for each row execute function unlink_1();",
            );
        }
        let garbage: Vec<(u64, Tid, &[u64])> =
            (10..10 + count).map(|oid| (oid, Tid::ZERO, [].as_slice())).collect();
        let t1 = store(&storage, &[(0, Tid::ZERO, &[1, 2]), (1, Tid::ZERO, &[]), (2, Tid::ZERO, &[])]);
        store(&storage, &garbage);
        let t2 = store(&storage, &[(1, t1, &[]), (2, t1, &[])]);
        for part in 0..10 {
            sql.run(&format!(
                "insert into blob_chunk select zoid, tid, 0, lo_from_bytea(0, 'blob') from object_state \
                 where zoid > 0 and zoid % 10 = {part}"
            ));
        }
        // An undo shares the large object of the revision whose state it brings back.
        sql.run(&format!(
            "select lo_unlink(chunk) from blob_chunk where zoid = 2 and tid = {0}; update blob_chunk b set chunk = \
             (select chunk from blob_chunk where zoid = 2 and tid = {1}) where zoid = 2 and tid = {0}",
            t2.0, t1.0
        ));
        assert_eq!(plan(&storage).blobs, count + 1, "one that is shared stays");
        pack(&storage).unwrap();
        check(&mut sql);
        assert_eq!(
            sql.rows("select zoid, tid from blob_chunk order by zoid"),
            [[1, t2.0 as i64], [2, t2.0 as i64]]
        );
    }
}

/// Of an object with very many revisions not all are removed at once.
#[test]
fn a_long_past_is_removed_in_pieces() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let (storage, mut sql) = (storage(&server), Sql::connect(&server));
    let t1 = store(&storage, &[(0, Tid::ZERO, &[])]);
    let t2 = store(&storage, &[(0, t1, &[])]);
    sql.run(&format!(
        "insert into transaction (tid, username, description) \
         select {0} - n, '', '' from generate_series(1, 5000) n; \
         insert into object_state (zoid, tid, prev_tid, md5, state_size, state) select 0, {0} - n, \
         case when n = 5000 then {1} else {0} - n - 1 end, s.md5, s.state_size, s.state \
         from generate_series(1, 5000) n, object_state s where s.tid = {1}; \
         update object_state set prev_tid = {0} - 1 where tid = {0}",
        t2.0, t1.0
    ));
    let planned = plan(&storage);
    assert_eq!((planned.revisions.removed, planned.transactions.removed), (5001, 5001));
    pack(&storage).unwrap();
    check(&mut sql);
    assert_eq!(sql.rows("select zoid, tid, prev_tid from object_state"), [[0, t2.0 as i64, 0]]);
    assert_eq!(
        sql.rows("select tid, packed::int::bigint from transaction order by tid"),
        [[0, 0], [t2.0 as i64, 1]]
    );
}
