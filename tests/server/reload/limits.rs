//! Each limit and each timeout of `<zeo>` that a reload applies, shown by what clients find.

use std::fs;
use std::time::Duration;

use super::{STORAGE, Site};
use crate::limits::{
    client, closed_after, commit_something, connect, greeted, is_closed, refusal, wait_until, words,
};
use crate::pack_cancel::filled;
use crate::rates::{burst, from, network};
use crate::support::client::{RawClient, Speaks, record};
use crate::support::pickle::{Value, id};
use crate::zeoadmin::queue_vote;

/// The number of open files that have no name.
fn files_without_names(site: &Site) -> usize {
    let files = fs::read_dir(format!("/proc/{}/fd", site.server.pid())).expect("a process");
    let targets = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    targets.filter(|target| target.to_string_lossy().ends_with("(deleted)")).count()
}

/// The number of entries that an undo log may have.
fn undo_log(client: &mut RawClient) -> usize {
    let everything = vec![Value::Int(0), Value::Int(1000), Value::None];
    match client.call("undoInfo", everything).expect("connected").expect("a list") {
        Value::List(entries) | Value::Tuple(entries) => entries.len(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn limits_on_connections() {
    let site = Site::start("", STORAGE);
    let server = &site.server;
    let mut clients = [client(server), client(server)];
    site.apply("max-connections 2", STORAGE);
    assert!(refusal(server, Speaks::Z5).1.contains("max-connections (2)"));
    assert_eq!(site.status()["connections"]["registered_max"], 2);
    // Fewer than there are: those that are there stay.
    site.apply("max-connections 1", STORAGE);
    clients.iter_mut().for_each(commit_something);
    site.apply("max-connections-per-address 2", STORAGE);
    assert!(refusal(server, Speaks::Z5).1.contains("max-connections-per-address (2)"));
    site.apply("max-connections 3", STORAGE);
    let third = client(server);
    site.apply("max-unregistered 1\nhandshake-timeout 1h", STORAGE);
    assert_eq!(site.status()["connections"]["unregistered_max"], 1);
    let mut first = greeted(server);
    let _second = greeted(server);
    closed_after(&mut first);
    // A connection that came before the timeout was set has no more time than others.
    let mut slow = connect(server);
    site.apply("handshake-timeout 1s", STORAGE);
    assert!(closed_after(&mut slow) < Duration::from_secs(30));
    drop(third);
}

#[test]
fn limits_on_transactions() {
    let site = Site::start("", STORAGE);
    let mut storer = client(&site.server);
    let oids = storer.new_oids(3).expect("oids");
    let data = record(&[b'x'; 2000]);
    let stores: Vec<_> = oids.iter().map(|oid| (*oid, 0, data.as_slice())).collect();
    let mut refused = |limit: &str| {
        site.apply(limit, STORAGE);
        let (_, detail) = storer.commit(&stores).expect("connected").expect_err(limit);
        let limit = limit.split(' ').next().unwrap();
        assert!(words(&detail).contains(limit), "{detail:?}");
    };
    refused("max-transaction-objects 2");
    refused("max-transaction-size 3KB");
    // A transaction that has begun keeps the limits of its begin.
    site.apply("", STORAGE);
    storer.queue_begin(7);
    storer.call("lastTransaction", vec![]).expect("connected").expect("an answer");
    site.apply("max-transaction-size 3KB\ntransaction-memory 0", STORAGE);
    stores.iter().for_each(|(oid, serial, data)| storer.queue_store(*oid, *serial, data, 7));
    storer.call("vote", vec![Value::Int(7)]).expect("connected").expect("a vote");
    storer.call("tpc_finish", vec![Value::Int(7)]).expect("connected").expect("a finish");
    // With `transaction-memory 0` a later one is in a file.
    let before = files_without_names(&site);
    storer.queue_begin(8);
    storer.queue_store(0, 0, &record(b"1"), 8);
    storer.call("lastTransaction", vec![]).expect("connected").expect("an answer");
    assert_eq!(files_without_names(&site), before + 1);
}

#[test]
fn limits_on_questions() {
    let site = Site::start("", STORAGE);
    let mut reader = client(&site.server);
    (0..4).for_each(|_| commit_something(&mut reader));
    assert_eq!(undo_log(&mut reader), 4);
    site.apply("max-undo-log 2", STORAGE);
    assert_eq!(undo_log(&mut reader), 2);
    let history = reader.call("history", vec![id(0), Value::Int(10)]).expect("connected");
    assert!(history.is_err(), "there is no object 0: {history:?}");
    let mut start = || reader.call("iterator_start", vec![Value::None, Value::None]).expect("connected");
    start().expect("an iterator");
    let second = start().expect("an iterator");
    site.apply("max-iterators 1", STORAGE);
    start().expect("an iterator");
    let next = reader.call("iterator_next", vec![second]).expect("connected");
    next.expect_err("the older ones are forgotten");
}

/// Also for clients that are connected.
#[test]
fn rates() {
    let site = Site::start("", STORAGE);
    let mut asker = client(&site.server);
    let line = "max-requests-per-second or max-sent-per-second, and waits for ";
    burst(&mut asker, 500);
    assert_eq!(site.server.count_in_log(line), 0);
    site.apply("max-requests-per-second 20", STORAGE);
    assert!(burst(&mut asker, 60) >= Duration::from_secs(1));
    site.server.wait_for_log(line);
}

/// What was sent before there was a limit is free: a client once had to wait for all that it had ever been sent.
#[test]
fn rates_do_not_look_back() {
    let site = Site::start("", STORAGE);
    let mut reader = client(&site.server);
    let large = record(&vec![b'x'; 500_000]);
    reader.commit(&[(0, 0, &large)]).expect("connected").expect("a commit");
    let load = reader.queue_load(0);
    reader.flush().expect("connected");
    reader.answer(load).expect("connected").expect("the object");
    site.apply("max-sent-per-second 10KB", STORAGE);
    let ping =
        |reader: &mut RawClient| drop(reader.call("ping", vec![]).expect("connected").expect("an answer"));
    (0..3).for_each(|_| ping(&mut reader));
    let line = "max-requests-per-second or max-sent-per-second, and waits for ";
    assert_eq!(site.server.count_in_log(line), 0, "{}", site.server.log());
    let load = reader.queue_load(0);
    reader.flush().expect("connected");
    reader.answer(load).expect("connected").expect("the object");
    site.server.wait_for_log(line);
}

/// Also for clients that are connected; what they have asked for counts on.
#[test]
fn rates_of_networks() {
    let site = Site::start("", STORAGE);
    let address = site.server.address;
    let (mut first, mut second, mut outside) = (from(2, address), from(3, address), from(4, address));
    burst(&mut first, 500);
    let with = |addresses: &str, rate: u64| {
        let rates = format!("max-requests-per-second {rate}");
        format!("{STORAGE}\n{}", network("office", addresses, &rates))
    };
    let said = site.apply("", &with("127.0.0.2/31", 5));
    assert_eq!(
        said,
        "applied:\n  <network office> has come: addresses 127.0.0.2/31; max-requests-per-second 5\n"
    );
    burst(&mut first, 1000);
    let line = |last: u8| {
        let log = site.server.log();
        let lines = log.lines().filter(|line| line.contains("the other clients of <network office>"));
        lines.filter(|line| line.contains(&format!("(127.0.0.{last}:"))).count()
    };
    assert_eq!((line(2), line(3)), (1, 0), "{}", site.server.log());
    assert!(burst(&mut second, 1) >= Duration::from_secs(1));
    // The other addresses have the debt of the first ones.
    let said = site.apply("", &with("127.0.0.4", 6));
    assert!(said.contains("  <network office> addresses: 127.0.0.2/31 -> 127.0.0.4\n"), "{said}");
    assert!(said.contains("  <network office> max-requests-per-second: 5 -> 6\n"), "{said}");
    assert!(burst(&mut outside, 1) >= Duration::from_secs(1));
    assert_eq!((line(2), line(3), line(4)), (1, 1, 1), "{}", site.server.log());
    let throttled = || site.status()["storages"][0]["counters"]["throttled"].as_u64().expect("a number");
    let said = site.apply("", STORAGE);
    assert_eq!(said, "applied:\n  <network office> has gone\n");
    let mut all = [first, second, outside];
    // Those that wait go on when their waits are over.
    all.iter_mut()
        .for_each(|client| drop(client.call("ping", vec![]).expect("connected").expect("an answer")));
    let before = throttled();
    all.iter_mut().for_each(|client| {
        burst(client, 500);
    });
    assert_eq!(throttled(), before);
    assert!(before >= 3, "{before}");
}

#[test]
fn timeouts() {
    let site = Site::start("", STORAGE);
    let mut holder = client(&site.server);
    let oid = holder.new_oids(1).expect("oids")[0];
    // Its locks were granted without a limit.
    holder.queue_begin(7);
    holder.queue_store(oid, 0, &record(b"1"), 7);
    holder.call("vote", vec![Value::Int(7)]).expect("connected").expect("a vote");
    assert_eq!(site.server.ruok()["1"]["timeout-thread-is-alive"], "stub");
    let said = site.apply("transaction-timeout 1", STORAGE);
    assert_eq!(
        said,
        "applied:\n  <zeo> transaction-timeout: not set -> 1 (for transactions that get their locks later)\n"
    );
    assert_eq!(site.server.ruok()["1"]["timeout-thread-is-alive"], true);
    let mut late = client(&site.server);
    let other = late.new_oids(1).expect("oids")[0];
    late.queue_begin(7);
    late.queue_store(other, 0, &record(b"1"), 7);
    late.call("vote", vec![Value::Int(7)]).expect("connected").expect("a vote");
    while late.next().is_ok() {}
    holder.call("tpc_finish", vec![Value::Int(7)]).expect("connected").expect("a finish");

    let mut idle = client(&site.server);
    idle.queue_begin(7);
    idle.call("lastTransaction", vec![]).expect("connected").expect("an answer");
    site.apply("idle-transaction-timeout 1s", STORAGE);
    while idle.next().is_ok() {}
    site.server.wait_for_log("nothing has come for its transaction for 1 s (idle-transaction-timeout)");
    assert!(!is_closed(holder.stream()), "it has no transaction");
}

/// `max-unsent` is for connections that come later.
#[test]
fn unsent_messages() {
    let site = Site::start("max-unsent 1GB", STORAGE);
    site.apply("max-unsent 2MB", STORAGE);
    let mut deaf = client(&site.server);
    deaf.call("lastTransaction", vec![]).expect("connected").expect("an answer");
    crate::limits::messages::flood_with_invalidations(&site.server, || {
        site.server.count_in_log("max-unsent") > 0
    });
}

#[test]
fn levels_of_the_log() {
    let site = Site::start("", STORAGE);
    let debug_lines = || {
        drop(connect(&site.server));
        std::thread::sleep(Duration::from_millis(200));
        site.server.count_in_log("DEBUG")
    };
    assert_eq!(debug_lines(), 0);
    site.write_logging("debug", "", STORAGE);
    assert_eq!(site.reload(&[]), (0, "applied:\n  <eventlog> level: info -> debug\n".into()));
    assert!(debug_lines() > 0);
    // What zeoadmin has set stays, unless the configured level changes.
    assert!(site.zeoadmin(&["log-level", "error"]).status.success());
    site.write_logging("debug", "max-undo-log 5", STORAGE);
    assert_eq!(site.reload(&[]).0, 0);
    let level = site.zeoadmin(&["log-level"]);
    assert_eq!(String::from_utf8_lossy(&level.stdout), "ERROR (configured: DEBUG)\n");
    // The level of one handler.
    let log = site.server.directory().join("zeo.log");
    let with_handler = |level: &str| {
        let address = site.server.address;
        site.write_raw(&format!(
            "<zeo>\naddress {address}\nadmin-socket admin\n</zeo>\n{STORAGE}\n<eventlog>\nlevel trace\n<logfile>\npath {}\nlevel {level}\n\
             </logfile>\n</eventlog>\n",
            log.display()
        ));
        let (code, said) = site.reload(&[]);
        assert_eq!(code, 0, "{said}");
        said
    };
    with_handler("error");
    let before = debug_lines();
    assert_eq!(debug_lines(), before);
    let shown = format!("  <eventlog> <logfile> {} level: error -> debug\n", log.display());
    assert!(with_handler("debug").contains(&shown), "{shown}");
    assert!(debug_lines() > before);
}

/// For later connections: the time after which the kernel asks a silent peer, half of it.
#[test]
fn dead_peers() {
    let site = Site::start("", STORAGE);
    let before = client(&site.server);
    site.apply("dead-peer-timeout 20s", STORAGE);
    let after = client(&site.server);
    for (client, longest) in [(&before, 150.0), (&after, 10.0)] {
        let port = client.stream().local_addr().expect("an address").port();
        wait_until("the connection is quiet", || {
            seconds_until_probe(site.server.address.port(), port)
                .is_some_and(|seconds| seconds <= longest && seconds > longest * 0.8)
        });
    }
}

/// When the kernel will probe the peer of a connection, seen from the server. `None`: something else comes before.
fn seconds_until_probe(server: u16, peer: u16) -> Option<f64> {
    let table = fs::read_to_string("/proc/net/tcp").expect("the kernel's table");
    let row = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).find(|row| {
        let is_port = |at: usize, port: u16| row[at].ends_with(&format!(":{port:04X}"));
        row.len() > 5 && is_port(1, server) && is_port(2, peer)
    })?;
    let ticks = row[5].strip_prefix("02:")?;
    Some(u64::from_str_radix(ticks, 16).expect("a number") as f64 / 100.0)
}

/// At once: how far back the server tells a client that returns what has changed.
#[test]
fn the_age_of_invalidations() {
    let site = Site::start("invalidation-queue-size 2", STORAGE);
    let (mut client, mut tids) = (client(&site.server), vec![0]);
    for _ in 0..5 {
        let last = tids[tids.len() - 1];
        tids.push(client.commit(&[(0, last, &record(b"a state"))]).expect("connected").expect("a commit"));
    }
    let mut told =
        || client.call("getInvalidations", vec![id(tids[1])]).expect("connected").expect("an answer");
    assert_eq!(told(), Value::None, "it is too long ago");
    let said = site.apply("invalidation-queue-size 2\ninvalidation-age 86400", STORAGE);
    assert!(said.contains("  <zeo> invalidation-age: not set -> 86400\n"), "{said}");
    let Value::Tuple(answer) = told() else { panic!("the newest tid and the objects") };
    assert_eq!(answer[0].id(), tids[5]);
    site.apply("invalidation-queue-size 2", STORAGE);
    assert_eq!(told(), Value::None);
}

/// For later transactions: who merges a conflict.
#[test]
fn conflicts_for_clients() {
    let site = Site::start("", STORAGE);
    let mut client = client(&site.server);
    let first = client.commit(&[(0, 0, &record(b"1"))]).expect("connected").expect("a commit");
    client.commit(&[(0, first, &record(b"2"))]).expect("connected").expect("a commit");
    let mut vote_for_old = || {
        client.queue_begin(9);
        client.queue_store(0, first, &record(b"3"), 9);
        let vote = client.call("vote", vec![Value::Int(9)]).expect("connected");
        client.call("tpc_abort", vec![Value::Int(9)]).expect("connected").expect("an abort");
        vote
    };
    let (class, _) = vote_for_old().expect_err("a conflict");
    assert!(class.contains("ConflictError"), "{class}");
    site.apply("client-conflict-resolution true", STORAGE);
    let conflicts = vote_for_old().expect("the conflict, for the client to merge");
    assert_eq!(conflicts.tuple().len(), 1);
    site.apply("client-conflict-resolution false", STORAGE);
    vote_for_old().expect_err("a conflict");
}

/// At once.
#[test]
fn slow_requests() {
    let site = Site::start("slow-request-time 1h", STORAGE);
    let (mut holder, serial) = filled(&site.server);
    let mut waiter = client(&site.server);
    let mut wait_for_locks = || {
        let held = queue_vote(&mut holder, serial, b"held");
        holder.flush().expect("connected");
        holder.answer(held).expect("connected").expect("the locks");
        let vote = queue_vote(&mut waiter, serial, b"waits");
        waiter.flush().expect("connected");
        wait_until("it waits", || site.server.ruok()["1"]["waiting"] == 1);
        std::thread::sleep(Duration::from_millis(80));
        holder.call("tpc_abort", vec![Value::Int(7)]).expect("connected").expect("an abort");
        waiter.answer(vote).expect("connected").expect("the locks");
        waiter.call("tpc_abort", vec![Value::Int(7)]).expect("connected").expect("an abort");
    };
    wait_for_locks();
    assert_eq!(site.server.count_in_log("slow vote: "), 0);
    site.apply("slow-request-time 50ms", STORAGE);
    wait_for_locks();
    site.server.wait_for_log("slow vote: ");
    site.apply("slow-request-time 1h", STORAGE);
    let before = site.server.count_in_log("slow vote: ");
    wait_for_locks();
    assert_eq!(site.server.count_in_log("slow vote: "), before);
}
