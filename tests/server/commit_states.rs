//! For every event in every state of a transaction: its client is informed, other clients continue, nothing stays
//! locked, and the file has exactly the acknowledged transactions.
//!
//! A table of states and events; each case runs with old and new clients, alone and among others. The server is in this
//! process, on a disk that the test can hold (`disk.rs`).

pub mod world;

use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::support::client::{LATEST, Speaks, content, record, undo_id};
use crate::support::pickle::{Value, id};
use runzeo::ids::Oid;
use runzeo::storage::file::{FileStorage, FileStorageOptions};
use runzeo::storage::prelude::*;
use world::{Client, LONG, OTHER, SUBJECT, THIRD, TIMEOUT, TXN, World};

/// The states of a transaction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Open,
    /// The vote waits for locks.
    Waiting,
    /// The storage is voting.
    Voting,
    Voted,
    /// In a group whose sync is under way.
    Finishing,
    /// The reply to vote had a conflict; the client has to abort. Before Z5 only.
    Failed,
}

/// The events.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Event {
    Abort,
    Disconnect,
    Timeout,
    DiskFull,
    SyncFails,
    Stop,
    Pack,
}

/// The outcome of the transaction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Then {
    /// No trace of it is left.
    Nothing,
    Commits,
    /// The client gets an error, and no trace is left.
    Refused,
}

/// The table. `None`: impossible.
fn then(state: State, event: Event, old: bool) -> Option<Then> {
    use {Event::*, State::*};
    Some(match (state, event) {
        (Failed, Abort | Disconnect | Stop) if old => Then::Nothing,
        (Failed, _) => return None,
        // A finish that is under way is completed.
        (Finishing, Abort | Disconnect | Stop | Timeout) => Then::Commits,
        (_, Abort | Disconnect | Stop) => Then::Nothing,
        // The timeout runs from the grant of the locks; a waiter gets them by the holder's timeout.
        (Open | Waiting, Timeout) => Then::Commits,
        (Voting | Voted, Timeout) => Then::Nothing,
        // A voted transaction has its space reserved.
        (Voted, DiskFull) => Then::Commits,
        (_, DiskFull) => Then::Refused,
        // An old client that has voted has the whole storage, and a running vote syncs nothing.
        (Voting, SyncFails) => return None,
        (Voted, SyncFails) if old => return None,
        (_, SyncFails) => Then::Refused,
        (_, Pack) => Then::Commits,
    })
}

/// One case: brings the subject into the state, then causes the event.
fn case(state: State, event: Event, speaks: Speaks, other_speaks: Speaks) {
    let Some(then) = then(state, event, speaks.is_old()) else { return };
    println!("{state:?}, {event:?}, {speaks:?} beside {other_speaks:?}: {then:?}");
    let timeout = (event == Event::Timeout).then_some(TIMEOUT);
    let world = World::new(timeout, None);
    let both_new = !speaks.is_old() && !other_speaks.is_old();
    let data = match event {
        Event::DiskFull if state != State::Finishing && state != State::Voted => record(&vec![b's'; LONG]),
        _ => record(b"subject"),
    };
    let mut subject = world.client(speaks);
    let mut holder = world.client(Speaks::Z5);
    let mut third = world.client(Speaks::Z5);
    let mut other = world.client(other_speaks);
    let mut next = world.client(Speaks::Z5);
    let full_at_vote = |world: &World| {
        if event == Event::DiskFull {
            world.hand.order(|orders| orders.fail_reserve = true);
        }
    };

    // -- reaching the state
    let mut vote = None;
    let mut finish = None;
    let mut other_vote = None;
    let mut other_finish = None;
    let mut third_finish = None;
    if matches!(state, State::Waiting | State::Voting) {
        holder.begin(SUBJECT, world.tid, &record(b"holder"));
        let call = holder.send("vote");
        holder.voted(call).expect("the holder's vote");
    }
    let serial = if state == State::Failed { world.tid - 1 } else { world.tid };
    subject.begin(SUBJECT, serial, &data);
    if event == Event::DiskFull && matches!(state, State::Waiting | State::Voting | State::Open) {
        full_at_vote(&world);
    }
    match state {
        State::Open => {
            subject.call("lastTransaction", vec![]).expect("everything has arrived");
        }
        State::Waiting => {
            vote = Some(subject.send("vote"));
            world.wait_for_waiting(1);
        }
        State::Voting => {
            vote = Some(subject.send("vote"));
            world.wait_for_waiting(1);
            world.hand.order(|orders| orders.hold_reads = true);
            holder.send("tpc_abort");
            world.hand.wait_for_held();
        }
        State::Voted | State::Finishing => {
            let call = subject.send("vote");
            subject.voted(call).expect("vote");
        }
        State::Failed => {
            let call = subject.send("vote");
            let conflict = subject.voted(call).expect_err("a conflict");
            assert!(conflict.contains("ConflictError"), "{conflict}");
        }
    }
    if event == Event::SyncFails && matches!(state, State::Open | State::Voted) {
        third.begin(THIRD, world.tid, &record(b"third"));
        let call = third.send("vote");
        third.voted(call).expect("the third's vote");
    }
    // Another client, which votes beside it or waits for it.
    let others =
        !matches!(event, Event::Stop | Event::Timeout) && !matches!(state, State::Waiting | State::Voting);
    if others {
        other.begin(OTHER, world.tid, &record(b"other"));
        let call = other.send("vote");
        if both_new {
            other.voted(call).expect("the other's vote");
        } else {
            other_vote = Some(call);
        }
    }
    if state == State::Finishing {
        if both_new && others {
            // With an earlier group under way, both of these are in the next one.
            third.begin(THIRD, world.tid, &record(b"third"));
            let call = third.send("vote");
            third.voted(call).expect("the third's vote");
            world.hand.order(|orders| orders.hold_syncs = true);
            third_finish = Some(third.send("tpc_finish"));
            world.hand.wait_for_held();
            finish = Some(subject.send("tpc_finish"));
            other_finish = Some(other.send("tpc_finish"));
            // They are queued when the next call on their connections is answered.
            for client in [&mut subject, &mut other] {
                client.call("server_status", vec![]).expect("an answer during the sync");
            }
            if event == Event::DiskFull {
                // The first group is written; the second will not be.
                world.hand.order(|orders| orders.fail_writes = true);
            }
        } else {
            world.hand.order(|orders| {
                orders.hold_syncs = event != Event::DiskFull;
                orders.fail_writes = event == Event::DiskFull;
            });
            finish = Some(subject.send("tpc_finish"));
            if event != Event::DiskFull {
                world.hand.wait_for_held();
            }
        }
    }

    // -- the event
    let mut stopping = None;
    let mut packing = None;
    match event {
        Event::Abort => {
            let abort = subject.send("tpc_abort");
            // The session's own thread is at the disk if it votes without a wait, or leads the group.
            if state != State::Finishing {
                subject.answer(abort).expect("tpc_abort");
            }
        }
        Event::Disconnect => subject.disconnect(),
        Event::Timeout => {
            world.clock.advance(2 * TIMEOUT);
        }
        Event::DiskFull => {}
        Event::SyncFails if state == State::Finishing => {
            // The earlier group succeeds.
            let good = usize::from(third_finish.is_some());
            world.hand.order(|orders| orders.good_syncs = Some(good));
        }
        Event::SyncFails => {
            world.hand.order(|orders| orders.good_syncs = Some(0));
            let culprit = if state == State::Waiting { &mut holder } else { &mut third };
            assert_ne!(culprit.finish().expect_err("the sync fails"), "gone");
        }
        Event::Stop => {
            let server = Arc::clone(&world.server);
            stopping = Some(thread::spawn(move || server.stop()));
            while !world.server.is_stopping() {
                thread::sleep(Duration::from_millis(1));
            }
            thread::sleep(Duration::from_millis(50));
        }
        Event::Pack => {
            let mut packer = world.client(Speaks::Z5);
            packing = Some(thread::spawn(move || {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_secs_f64();
                packer.call("pack", vec![Value::Float(now), Value::Bool(true)])
            }));
            thread::sleep(Duration::from_millis(50));
        }
    }
    // The disk continues.
    world.hand.order(|orders| {
        orders.hold_reads = false;
        orders.hold_syncs = false;
    });
    if let Some(packing) = packing {
        // A pack does not wait for locks.
        packing.join().expect("the packer").expect("pack");
    }

    // -- the subject's answer
    let outcome = match (state, then) {
        (State::Finishing, _) => match (event, finish) {
            (Event::Disconnect, _) => None,
            (_, Some(finish)) => Some(subject.answer(finish).map(|tid| tid.id())),
            (_, None) => unreachable!("it was sent"),
        },
        (_, Then::Nothing) => {
            if event == Event::Timeout {
                subject.wait_for_the_end();
            }
            None
        }
        (_, Then::Commits | Then::Refused) => {
            if state == State::Waiting && matches!(event, Event::DiskFull | Event::Pack) {
                holder.call("tpc_abort", vec![Value::Int(TXN)]).expect("tpc_abort");
            } else if state == State::Waiting && event == Event::Timeout {
                holder.wait_for_the_end();
            }
            let voted = if state == State::Voted {
                Ok(())
            } else {
                let call = vote.unwrap_or_else(|| subject.send("vote"));
                // An old client waits for the other one here, which has voted already.
                if let (State::Open, false, Some(other_vote)) = (state, both_new, other_vote.take()) {
                    let finished = other.voted(other_vote).and_then(|()| other.finish());
                    assert_eq!(finished.is_err(), event == Event::SyncFails, "{finished:?}");
                    other_finish = Some(0);
                }
                subject.voted(call)
            };
            Some(match voted {
                Ok(()) => subject.finish(),
                Err(error) => {
                    subject.call("tpc_abort", vec![Value::Int(TXN)]).expect("tpc_abort");
                    Err(error)
                }
            })
        }
    };
    match (then, &outcome) {
        (Then::Commits, Some(Ok(tid))) => assert!(*tid > world.tid),
        (Then::Refused, Some(Err(error))) => assert_ne!(error, "gone"),
        (Then::Commits, None) if event == Event::Disconnect => {}
        // Too slow, but too late for an abort: it gets no answer.
        (Then::Commits, Some(Err(error))) if event == Event::Timeout && state == State::Finishing => {
            assert_eq!(error, "gone");
        }
        (Then::Nothing, None) => {}
        other => panic!("{other:?}"),
    }

    // -- the other clients continue
    if let Some(stopping) = stopping {
        stopping.join().expect("stop");
    } else {
        world.hand.order(|orders| {
            orders.fail_reserve = false;
            orders.fail_writes = false;
        });
        let broken = event == Event::SyncFails;
        if state == State::Waiting && matches!(event, Event::Abort | Event::Disconnect) {
            holder.call("tpc_abort", vec![Value::Int(TXN)]).expect("tpc_abort");
        }
        if let Some(call) = third_finish {
            third.answer(call).expect("the group before");
        }
        let group_fails = state == State::Finishing && then == Then::Refused;
        match (other_vote, other_finish) {
            (_, Some(0)) => {}
            (_, Some(call)) => match other.answer(call) {
                Ok(_) => assert!(!group_fails),
                Err(error) => assert!(group_fails && error != "gone", "{error}"),
            },
            (Some(call), None) => match other.voted(call) {
                Ok(()) => assert_eq!(other.finish().is_err(), broken),
                Err(error) => assert!(broken, "{error}"),
            },
            (None, None) if both_new && others => assert_eq!(other.finish().is_err(), broken),
            (None, None) => {}
        }
        // Nothing is locked: the next client commits the subject's object with the correct serial.
        let mut current = || {
            let loaded = next.call("loadBefore", vec![id(SUBJECT), id(LATEST)]).expect("load");
            loaded.tuple()[1].id()
        };
        let mut serial = current();
        // There is no notice of the end of its group.
        let until = Instant::now() + Duration::from_secs(60);
        while then == Then::Commits && serial == world.tid && Instant::now() < until {
            thread::sleep(Duration::from_millis(5));
            serial = current();
        }
        let is_subject = then == Then::Commits;
        assert_eq!(serial > world.tid, is_subject, "{serial:x}");
        if let Some(Ok(tid)) = outcome {
            assert_eq!(serial, tid);
        }
        let committed = next.client.commit(&[(SUBJECT, serial, &record(b"next"))]).expect("connection");
        assert_eq!(committed.is_err(), broken, "{committed:?}");
        world.wait_for_waiting(0);
        world.server.stop();
    }
    check_file(world, then, event);
}

/// Checks the content of the file after it is opened again.
fn check_file(world: World, then: Then, event: Event) {
    let path = world.directory.path().join("Data.fs");
    world.storage.close().expect("close");
    let storage = FileStorage::open(FileStorageOptions::new(path)).expect("Data.fs");
    let mut transactions = storage.iterate(None, None).expect("iterate");
    let mut of_subject = Vec::new();
    while transactions.next_transaction().expect("a transaction").is_some() {
        let mut records = transactions.records().expect("records");
        while let Some(found) = records.next_record().expect("a record") {
            if found.oid == Oid(SUBJECT) {
                let data = found.data.expect("data");
                of_subject.push(String::from_utf8_lossy(content(&data)).into_owned());
            }
        }
    }
    let mut expected = vec!["first"];
    if event == Event::Pack {
        // It was not current any more and may be packed away, or is the only one.
        of_subject.retain(|content| content != "first");
        expected.clear();
    }
    if then == Then::Commits {
        expected.push("subject");
    }
    if !matches!(event, Event::SyncFails | Event::Stop) {
        expected.push("next");
    }
    assert_eq!(of_subject, expected);
}

fn all_events(state: State) {
    use Event::*;
    for event in [Abort, Disconnect, Timeout, DiskFull, SyncFails, Stop, Pack] {
        for speaks in [Speaks::Z5, Speaks::Z4] {
            for other in [Speaks::Z5, Speaks::Z4] {
                case(state, event, speaks, other);
            }
        }
    }
}

#[test]
fn open() {
    all_events(State::Open);
}

#[test]
fn waiting_for_locks() {
    all_events(State::Waiting);
}

#[test]
fn being_voted() {
    all_events(State::Voting);
}

#[test]
fn voted() {
    all_events(State::Voted);
}

#[test]
fn in_a_group_that_is_synced() {
    all_events(State::Finishing);
}

#[test]
fn failed() {
    all_events(State::Failed);
}

/// Transactions that have voted when the quota is exceeded commit; every later vote is refused, even after a wait for
/// locks, and nothing stays locked.
#[test]
fn the_quota_is_exceeded() {
    for speaks in [Speaks::Z5, Speaks::Z4] {
        let world = World::new(None, Some(100_000));
        let begun = |speaks, oid, data: &[u8]| {
            let mut client = world.client(speaks);
            client.begin(oid, world.tid, &record(data));
            let vote = client.send("vote");
            (client, vote)
        };
        let (mut holder, vote) = begun(Speaks::Z5, THIRD, b"holder");
        holder.voted(vote).expect("vote");
        let (mut voted, vote) = begun(Speaks::Z5, OTHER, b"voted");
        voted.voted(vote).expect("vote");
        let (mut large, vote) = begun(Speaks::Z5, SUBJECT, &vec![b'h'; 200_000]);
        large.voted(vote).expect("it begins before the quota");
        let (mut waiting, vote) = begun(speaks, THIRD, b"waiting");
        world.wait_for_waiting(1);

        let tid = large.finish().expect("finish");
        let tid = tid.max(voted.finish().expect("what has been voted commits"));
        holder.call("tpc_abort", vec![Value::Int(TXN)]).expect("tpc_abort");
        let refused = |error: Result<(), String>| {
            let error = error.expect_err("the quota");
            assert!(error.contains("Quota"), "{error}");
        };
        refused(waiting.voted(vote));
        if speaks.is_old() {
            waiting.call("tpc_abort", vec![Value::Int(TXN)]).expect("tpc_abort");
        }
        for speaks in [Speaks::Z5, Speaks::Z4] {
            let (mut later, vote) = begun(speaks, THIRD, b"later");
            refused(later.voted(vote));
            if speaks.is_old() {
                later.call("tpc_abort", vec![Value::Int(TXN)]).expect("tpc_abort");
            }
        }
        world.wait_for_waiting(0);
        let last = world.client(speaks).call("lastTransaction", vec![]).expect("lastTransaction");
        assert_eq!(last.id(), tid, "nothing came after");
        world.server.stop();
        world.storage.close().expect("close");
    }
}

/// Ten clients requested undo logs of a long file, and the vote of another client, which had to look up its undo,
/// waited for 30 s in the same pool; so did a pack.
#[test]
fn an_undo_and_a_pack_do_not_wait_behind_undo_logs() {
    let world = World::new(None, None);
    let (gate, held) = (Arc::new(Mutex::new(())), mpsc::channel::<()>());
    let closed = gate.lock().expect("the gate");
    let hosted = world.server.hosted("1").expect("the storage");
    for _ in 0..100 {
        let (gate, begun) = (Arc::clone(&gate), held.0.clone());
        hosted.workers.background.run(move || {
            let _ = begun.send(());
            drop(gate.lock());
        });
    }
    held.1.recv().expect("undo logs are under way");
    let mut client = world.client(Speaks::Z5);
    client.begin(SUBJECT, world.tid, &record(b"second"));
    let vote = client.send("vote");
    client.answer(vote).expect("vote");
    let finish = client.send("tpc_finish");
    let tid = client.answer(finish).expect("tpc_finish").id();
    client.client.queue_begin(TXN);
    let undone = Value::Bytes(undo_id(tid).into_bytes());
    client.client.queue_async("undoa", vec![undone, Value::Int(TXN)]);
    let vote = client.send("vote");
    client.answer(vote).expect("the vote of an undo");
    let finish = client.send("tpc_finish");
    client.answer(finish).expect("tpc_finish");
    client.call("pack", vec![Value::Float(0.0), Value::Bool(true)]).expect("a pack");
    drop(closed);
}

/// A bug in the storage ends the connection of its client, in each of the threads that can vote; the locks are
/// released.
#[test]
fn a_vote_that_panics_gives_its_locks_back() {
    let world = World::new(None, None);
    for is_waiting in [false, true] {
        let mut holder = world.client(Speaks::Z5);
        let (_, serial) = loaded(&mut holder);
        if is_waiting {
            holder.begin(SUBJECT, serial, &record(b"held"));
            let vote = holder.send("vote");
            holder.answer(vote).expect("vote");
        }
        let mut client = world.client(Speaks::Z5);
        client.begin(SUBJECT, serial, &record(&vec![1; LONG]));
        world.hand.order(|orders| orders.panic_at_reserve = true);
        let vote = client.send("vote");
        if is_waiting {
            world.wait_for_waiting(1);
            let abort = holder.send("tpc_abort");
            holder.answer(abort).expect("tpc_abort");
        }
        assert_eq!(client.answer(vote), Err("gone".into()), "waiting: {is_waiting}");
        world.hand.order(|orders| orders.panic_at_reserve = false);
        holder.client.commit(&[(SUBJECT, serial, &record(b"next"))]).expect("connected").expect("committed");
    }
}

fn loaded(client: &mut Client) -> (Vec<u8>, u64) {
    let found = client.call("loadBefore", vec![id(SUBJECT), id(LATEST)]).expect("a record");
    (found.tuple()[0].bytes().to_vec(), found.tuple()[1].id())
}
