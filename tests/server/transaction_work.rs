//! The time of a vote, during which locks are held, is proportional to the messages of its transaction, and so is the
//! memory of a transaction.
//!
//! Work is processor time of the server for a transaction and for one sixteen times as long; quadratic work takes 256
//! times as long.

use std::time::Duration;

use crate::support::client::{RawClient, Speaks, record, undo_id};
use crate::support::pickle::{Value, id, text};
use crate::support::process::Server;

const MB: u64 = 1 << 20;
const FEW: u64 = 2000;
const MANY: u64 = 16 * FEW;
/// Factor that sixteen times the length may take.
const LONGER: u32 = 48;
/// Shorter times are not compared.
const SHORT: Duration = Duration::from_millis(40);

const FILE: &str = "<filestorage 1>\npath Data.fs\n</filestorage>";

fn client(server: &Server, speaks: Speaks) -> RawClient {
    RawClient::register(server.address, speaks).expect("register").0
}

/// The state of a BTrees.Length.
fn length(value: u8) -> Vec<u8> {
    [b"\x80\x02cBTrees.Length\nLength\n.\x80\x02K", [value].as_slice(), b"."].concat()
}

/// Stores `count` objects from `first` on, and sends the vote.
fn vote(client: &mut RawClient, first: u64, count: u64, serial: u64, data: &[u8]) -> Value {
    client.queue_begin(7);
    for oid in first..first + count {
        client.queue_store(oid, serial, data, 7);
        if oid % 1000 == 0 {
            client.flush().expect("send");
        }
    }
    client.call("vote", vec![Value::Int(7)]).expect("connected").expect("vote")
}

fn finish(client: &mut RawClient) -> u64 {
    client.call("tpc_finish", vec![Value::Int(7)]).expect("connected").expect("finish").id()
}

fn check(what: &str, server: &Server, mut work: impl FnMut(u64)) {
    let mut timed = |count| {
        let begun = server.cpu_time();
        work(count);
        server.cpu_time() - begun
    };
    let (short, long) = (timed(FEW), timed(MANY));
    assert!(long <= SHORT.max(short) * LONGER, "{what}: {short:?} for {FEW}, {long:?} for {MANY}");
}

/// For each stored object the list of merged objects was searched from its beginning, and vice versa.
#[test]
fn many_merged_objects_hold_the_locks_for_long() {
    for speaks in [Speaks::Z5, Speaks::Z4] {
        let server = Server::start_any("", FILE, |_| ());
        let mut first = 1;
        check("merges", &server, |count| {
            let mut storer = client(&server, Speaks::Z5);
            vote(&mut storer, first, count, 0, &length(1));
            let old = finish(&mut storer);
            vote(&mut storer, first, count, old, &length(2));
            finish(&mut storer);
            let mut merging = client(&server, speaks);
            let merged = vote(&mut merging, first, count, old, &length(3));
            if speaks == Speaks::Z5 {
                assert_eq!(merged.tuple().len() as u64, count);
            }
            finish(&mut merging);
            first += count;
        });
    }
}

/// For each conflict that a client is to merge, the earlier ones were searched.
#[test]
fn many_conflicts_for_a_client_hold_the_locks_for_long() {
    let server = Server::start_any("client-conflict-resolution true", FILE, |_| ());
    let mut storer = client(&server, Speaks::Z5);
    let mut first = 1;
    check("conflicts", &server, |count| {
        vote(&mut storer, first, count, 0, &length(1));
        let old = finish(&mut storer);
        let conflicts = vote(&mut storer, first, count, 5, &length(3));
        assert_eq!(conflicts.tuple().len() as u64, count);
        // Merged objects are stored again, and the conflicts of their earlier stores are ignored.
        for oid in first..first + count {
            storer.queue_store(oid, old, &length(4), 7);
        }
        let none = storer.call("vote", vec![Value::Int(7)]).expect("connected").expect("vote");
        assert_eq!(none.tuple(), []);
        finish(&mut storer);
        first += count;
    });
}

/// A `<demostorage>` removed checks from a transaction one by one, each time moving all later ones.
#[test]
fn many_checks_of_a_demo_storage_hold_the_locks_for_long() {
    let demo = "<demostorage 1>\n<filestorage>\npath Data.fs\n</filestorage>\n</demostorage>";
    let server = Server::start_any("", demo, |_| ());
    let mut storer = client(&server, Speaks::Z5);
    let tid = storer.commit(&[(1, 0, &length(1))]).expect("connected").expect("commit");
    check("checks", &server, |count| {
        storer.queue_begin(7);
        for _ in 0..4 * count {
            storer.queue_async("checkCurrentSerialInTransaction", vec![id(1), id(tid), Value::Int(7)]);
        }
        for oid in 0..4 * count {
            storer.queue_store(100 + oid, 0, &length(1), 7);
        }
        storer.call("vote", vec![Value::Int(7)]).expect("connected").expect("vote");
        storer.call("tpc_abort", vec![Value::Int(7)]).expect("connected").expect("abort");
    });
}

/// The objects of an undone transaction were collected once for each of its undos: gigabytes for some kilobytes of
/// messages.
#[test]
fn one_transaction_undone_again_and_again_takes_no_memory() {
    for (limit, refused) in
        [("max-transaction-objects none", false), ("max-transaction-objects 100000", true)]
    {
        let mut server = Server::start_with(limit);
        let mut undoer = client(&server, Speaks::Z5);
        vote(&mut undoer, 1, 10_000, 0, &record(b"same"));
        let first = finish(&mut undoer);
        vote(&mut undoer, 1, 10_000, first, &record(b"same"));
        let second = finish(&mut undoer);
        server.reset_peak();
        let before = server.rss();
        let undo_id = undo_id(if refused { second } else { first });
        undoer.queue_begin(7);
        for _ in 0..4000 {
            undoer.queue_async("undoa", vec![text(&undo_id), Value::Int(7)]);
        }
        let (class, detail) = undoer
            .call("vote", vec![Value::Int(7)])
            .expect("connected")
            .expect_err("it cannot be undone twice");
        if refused {
            // Without a limit these could be undone any number of times, each with its records.
            assert!(
                format!("{detail:?}").contains("max-transaction-objects is 100000"),
                "{class} {detail:?}"
            );
        } else {
            assert!(class.ends_with("MultipleUndoErrors"), "{class}");
        }
        let grown = server.peak_rss().saturating_sub(before);
        assert!(grown < 100 * MB, "{} MB", grown / MB);
        assert!(server.stop().success(), "{}", server.talk());
    }
}

fn active(client: &mut RawClient) -> i64 {
    let status = client.call("server_status", vec![]).expect("connected").expect("status");
    let Value::Dict(items) = status else { panic!("{status:?}") };
    match items.iter().find(|(key, _)| *key == text("active_txns")) {
        Some((_, Value::Int(count))) => *count,
        other => panic!("{other:?}"),
    }
}

/// Monitoring showed transactions that had ended: each way out had to take its own off the counter.
#[test]
fn no_transaction_is_counted_when_it_has_ended() {
    let mut server = Server::start_with("max-transaction-objects 3");
    let mut watcher = client(&server, Speaks::Z5);
    let old = watcher.commit(&[(1, 0, &record(b"1"))]).expect("connected").expect("commit");
    watcher.commit(&[(1, old, &record(b"2"))]).expect("connected").expect("commit");
    assert_eq!(active(&mut watcher), 0);
    for speaks in [Speaks::Z5, Speaks::Z4, Speaks::Z308] {
        let begun = |oids: &[u64], serial: u64| {
            let mut storer = client(&server, speaks);
            storer.queue_begin(7);
            oids.iter().for_each(|oid| storer.queue_store(*oid, serial, &record(b"x"), 7));
            storer.flush().expect("send");
            storer
        };
        // Too many objects, a conflict, an undo of nothing.
        let mut too_large = begun(&[10, 11, 12, 13], 0);
        too_large.call("vote", vec![Value::Int(7)]).expect("connected").expect_err("too large");
        let mut conflict = begun(&[1], old);
        let refused = conflict.call("vote", vec![Value::Int(7)]).expect("connected");
        if refused.is_ok() {
            conflict.call("tpc_abort", vec![Value::Int(7)]).expect("connected").expect("abort");
        }
        let mut no_undo = begun(&[], 0);
        if !speaks.answers_undo() {
            no_undo.queue_async("undoa", vec![text(&undo_id(5)), Value::Int(7)]);
        }
        let _ = no_undo.call("vote", vec![Value::Int(7)]).expect("connected");
        let _ = no_undo.call("tpc_abort", vec![Value::Int(7)]).expect("connected");
        // Disconnected while it stores, while it waits for a lock, and after its vote.
        let storing = begun(&[20], 0);
        let mut voted = begun(&[21], 0);
        voted.call("vote", vec![Value::Int(7)]).expect("connected").expect("vote");
        let mut waiting = begun(&[21], 0);
        waiting.queue_call("vote", vec![Value::Int(7)]);
        waiting.flush().expect("send");
        while active(&mut watcher) < 3 {
            std::thread::sleep(Duration::from_millis(5));
        }
        drop((storing, waiting, voted));
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while active(&mut watcher) > 0 {
            assert!(std::time::Instant::now() < deadline, "{speaks:?}: {}", server.talk());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    assert!(server.stop().success(), "{}", server.talk());
}
