//! What the server knows of itself: reports of its storages, clients, transactions and locks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::commit_states::world::{Client, SUBJECT, TXN, World};
use crate::support::client::{LATEST, RawClient, Speaks, record};
use crate::support::pickle::{Value, id, text};
use runzeo::internal::server::status::client::TransactionState;
use runzeo::internal::server::status::json::to_json;
use runzeo::internal::server::status::storage::StorageState;
use runzeo::internal::server::status::{Phase, ServerReport};

fn report(world: &World) -> ServerReport {
    let report = ServerReport::of(&world.server);
    assert_eq!((report.phase, report.storages.len()), (Phase::Serving, 1));
    report
}

/// Begins a transaction with this description, stores into it, and asks for the vote.
fn vote(client: &mut RawClient, description: &str, oid: u64, serial: u64) -> i64 {
    let extension = Value::Dict(Vec::new());
    let args = vec![Value::Int(TXN), text("/ admin"), text(description), extension, Value::None, text(" ")];
    client.queue_async("tpc_begin", args);
    client.queue_store(oid, serial, &record(b"a state"), TXN);
    let vote = client.queue_call("vote", vec![Value::Int(TXN)]);
    client.flush().expect("sent");
    vote
}

#[test]
fn who_holds_locks_and_who_waits_is_seen() {
    let world = World::new(None, None);
    let (mut holder, mut waiter) = (world.client(Speaks::Z5), world.client(Speaks::Z4));
    holder.client.call("set_client_label", vec![text("Zope \x1b[2J1")]).expect("an answer").expect("done");
    let voted = vote(&mut holder.client, "/Plone/front-page\nedit", SUBJECT, world.tid);
    holder.answer(voted).expect("a vote");
    world.clock.advance(Duration::from_secs(40));
    let waiting = vote(&mut waiter.client, "", SUBJECT, world.tid);
    world.wait_for_waiting(1);
    world.clock.advance(Duration::from_secs(2));

    let seen = report(&world);
    let storage = &seen.storages[0];
    let [_watcher, first, second] = &storage.clients[..] else { panic!("{:?}", storage.clients) };
    assert!(first.label.starts_with("Zope \\u{1b}[2J1 127.0.0.1:"), "{}", first.label);
    assert_eq!((first.protocol, second.protocol), (Some("Z5"), Some("Z4")));
    assert!(first.can_write && first.stores == 1 && first.commits == 0 && first.received_bytes > 100);

    let open = first.transaction.as_ref().expect("a transaction");
    assert_eq!(open.state, TransactionState::Voted);
    // As in the log: the bytes of the pickle.
    assert_eq!(open.id.as_deref(), Some("K\\x07"));
    assert_eq!(open.user.as_deref(), Some("/ admin"));
    assert_eq!(open.description.as_deref(), Some("/Plone/front-page\\nedit"));
    assert_eq!(open.seconds, Some(42.0));
    let open = second.transaction.as_ref().expect("a transaction");
    assert_eq!((open.state, open.stores, open.seconds), (TransactionState::Waiting, Some(1), Some(2.0)));

    let locks = &storage.locks;
    let ([holds], [waits]) = (&locks.holders[..], &locks.waiters[..]) else { panic!("{locks:?}") };
    assert_eq!(
        (holds.client, holds.objects, holds.whole_storage, holds.seconds),
        (first.id, 1, false, Some(42.0))
    );
    assert_eq!(holds.label, first.label);
    assert_eq!(
        (waits.client, waits.objects, waits.whole_storage, waits.seconds),
        (second.id, 0, true, Some(2.0))
    );
    assert_eq!((holds.waits_for.len(), &waits.waits_for[..]), (0, &[first.id][..]));
    assert_eq!(locks.oldest_hold_seconds, Some(42.0));
    assert_eq!(storage.active_transactions, 2);

    holder.finish().expect("a finish");
    // A conflict by now: the locks are given back.
    assert!(waiter.voted(waiting).is_err());
    waiter.call("tpc_abort", vec![Value::Int(TXN)]).expect("an abort");
    let seen = report(&world);
    let locks = &seen.storages[0].locks;
    assert_eq!((locks.holders.len(), locks.waiters.len(), locks.oldest_hold_seconds), (0, 0, None));
    // Those of the first commit, the holder's, and the waiter's.
    assert_eq!(
        (locks.wait_times.counts.iter().sum::<u64>(), locks.hold_times.counts.iter().sum::<u64>()),
        (3, 3)
    );
    assert_eq!((locks.wait_times.sum, locks.hold_times.sum), (2_000_000_000, 42_000_000_000));
    assert_eq!(seen.storages[0].clients[1].commits, 1);
}

#[test]
fn numbers_are_those_of_ruok_and_do_not_shrink_when_clients_go() {
    let world = World::new(None, None);
    let mut client = world.client(Speaks::Z5);
    let data = record(b"a state");
    let tid = client.client.commit(&[(SUBJECT, world.tid, &data)]).expect("connected").expect("a commit");
    client.client.commit(&[(SUBJECT, world.tid, &data)]).expect("connected").expect_err("a conflict");
    for _ in 0..5 {
        client.call("loadBefore", vec![id(SUBJECT), id(LATEST)]).expect("a load");
    }
    let before = report(&world);
    let one = &before.storages[0];
    let ruok: serde_json::Value = serde_json::from_str(&world.server.ruok()).expect("JSON");
    let json: serde_json::Value = serde_json::from_str(&to_json(&before)).expect("JSON");
    for (ours, theirs) in [
        ("loads", "loads"),
        ("stores", "stores"),
        ("commits", "commits"),
        ("aborts", "aborts"),
        ("conflicts", "conflicts"),
        ("conflicts_resolved", "conflicts_resolved"),
    ] {
        assert_eq!(json["storages"][0]["counters"][ours], ruok["1"][theirs], "{ours}");
    }
    assert_eq!((one.counters.loads, one.counters.stores, one.counters.commits), (5, 6, 2));
    assert_eq!((one.counters.aborts, one.counters.conflicts), (0, 1));
    assert!(one.counters.stored_bytes > 6 * data.len() as u64 - 20, "{}", one.counters.stored_bytes);
    assert_eq!(one.last_transaction, format!("{tid:016x}"));
    assert_eq!(one.state, StorageState::Writable);
    assert_eq!(one.objects, 4);
    let syncs = one.syncs.as_ref().expect("a file is synced");
    assert_eq!((syncs.group_sizes.sum, syncs.sync_times.counts.iter().sum::<u64>()), (2, 2));

    let traffic = |report: &ServerReport| {
        let counters = &report.storages[0].counters;
        (counters.loads, counters.received_bytes, counters.sent_bytes)
    };
    let by_client: u64 = one.clients.iter().map(|client| client.received_bytes).sum();
    assert_eq!(by_client, one.counters.received_bytes);
    drop(client);
    while report(&world).storages[0].clients.len() > 1 {
        thread::sleep(Duration::from_millis(5));
    }
    let after = report(&world);
    let ((loads, received, sent), (loads_then, received_then, sent_then)) =
        (traffic(&before), traffic(&after));
    assert_eq!(loads, loads_then);
    assert!(received_then >= received && sent_then >= sent && received > 500 && sent > 500);
    assert_eq!((after.connections.registered, after.connections.accepted), (1, 2));
}

/// A counter that a scrape sees shrink is taken for one of a new server, and its whole value for an increase.
#[test]
fn counters_do_not_shrink_while_clients_come_and_go() {
    let world = World::new(None, None);
    let server = Arc::clone(&world.server);
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    let watcher = thread::spawn(move || {
        let mut last = (0, 0, 0);
        let mut looks = 0_u64;
        while is_done.try_recv().is_err() {
            let hosted = server.hosted("1").expect("a storage");
            let [received, sent] = hosted.traffic();
            let now = (hosted.loads(), received, sent);
            assert!(now.0 >= last.0 && now.1 >= last.1 && now.2 >= last.2, "{last:?} and then {now:?}");
            last = now;
            looks += 1;
        }
        (last, looks)
    });
    for _ in 0..40 {
        let mut client = Client::register(world.address, Speaks::Z5);
        for _ in 0..20 {
            client.client.queue_load(SUBJECT);
        }
        client.call("ping", vec![]).expect("an answer");
    }
    while world.server.hosted("1").expect("a storage").connection_count() > 1 {
        thread::sleep(Duration::from_millis(5));
    }
    done.send(()).expect("the watcher listens");
    let (_, looks) = watcher.join().expect("no counter has shrunk");
    assert!(looks > 100, "{looks}");
    assert_eq!(world.server.hosted("1").expect("a storage").loads(), 800);
}

/// A session that writes its transaction to a file on a disk that hangs holds up its own transaction, and no report.
#[test]
fn a_transaction_that_is_worked_on_is_not_waited_for() {
    let world = World::new(None, None);
    let mut client = world.client(Speaks::Z5);
    client.begin(SUBJECT, world.tid, &record(b"a state"));
    client.call("ping", vec![]).expect("an answer");
    let connections = world.server.hosted("1").expect("a storage").connections();
    let newest = connections.iter().max_by_key(|connection| connection.id()).expect("a connection");
    let guard = newest.transaction.lock();
    let server = Arc::clone(&world.server);
    let seen = thread::spawn(move || ServerReport::of(&server)).join().expect("a report");
    drop(guard);
    let state = |report: &ServerReport| {
        report.storages[0].clients.last().and_then(|client| client.transaction.as_ref()).map(|txn| txn.state)
    };
    assert_eq!(state(&seen), Some(TransactionState::Busy));
    assert_eq!(state(&report(&world)), Some(TransactionState::Open));
}

/// The headings in the documents, and the types whose fields they list.
const TABLES: [(&str, &str); 33] = [
    ("A slow request", "SlowReport"),
    ("A step", "StepReport"),
    ("What it was behind", "WaitedForReport"),
    ("The last hour", "HistoryReport"),
    ("A warning", "Warning"),
    ("A conflict", "ConflictReport"),
    ("The server", "ServerReport"),
    ("A listener", "ListenerReport"),
    ("Connections", "ConnectionsReport"),
    ("A storage", "StorageReport"),
    ("Counters", "Counters"),
    ("A client", "ClientReport"),
    ("Reloads", "ReloadsReport"),
    ("A transaction", "TransactionReport"),
    ("Locks", "LockReport"),
    ("A request for locks", "LockEntry"),
    ("Packs", "PackReport"),
    ("A running pack", "PackRun"),
    ("The last pack", "LastPackReport"),
    ("Checks of the file", "ScrubReport"),
    ("The last check", "LastScrubReport"),
    ("The cache of a zeoclient", "CacheCounters"),
    ("The server of a database", "ReplicationReport"),
    ("A secondary", "SecondaryReport"),
    ("The server that a storage has its data from", "RemoteReport"),
    ("The cluster", "ClusterStatus"),
    ("A storage of the cluster", "ClusterStorage"),
    ("What a replica follows", "Following"),
    ("A replica", "ReplicaStatus"),
    ("A lag", "LagStatus"),
    ("A file system", "DiskReport"),
    ("A backup", "BackupReport"),
    ("Attempts", "AttemptsReport"),
];

#[test]
fn each_field_is_in_the_documents() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut fields: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in fs::read_dir(root.join("src/server/status")).expect("the directory") {
        let text = fs::read_to_string(file.expect("a file").path()).expect("readable");
        for part in text.split("Serialize)]\n").skip(1) {
            let Some((name, body)) =
                part.strip_prefix("pub struct ").and_then(|part| part.split_once(" {\n"))
            else {
                continue;
            };
            let body = body.split("\n}").next().unwrap_or_default();
            let shown = body.replace("#[serde(skip)]\n    pub ", "");
            let keys = shown.lines().filter_map(|line| line.trim().strip_prefix("pub ")?.split_once(':'));
            fields.insert(name.into(), keys.map(|(key, _)| key.to_string()).collect());
        }
    }
    let page = fs::read_to_string(root.join("docs/monitoring.md")).expect("the page");
    let documented = TABLES.map(|(heading, name)| {
        let (_, section) =
            page.split_once(&format!("\n### {heading}\n")).unwrap_or_else(|| panic!("{heading}"));
        let section = section.split("\n#").next().unwrap_or_default();
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        (name.to_string(), rows.map(|(key, _)| key.to_string()).collect())
    });
    assert_eq!(fields, BTreeMap::from(documented));
}
