//! Threads, descriptors, memory or disk space run out at any moment: acknowledged changes are durable, and the server
//! continues.
//!
//! A client commits, stores and loads blobs, undoes, packs, iterates and waits for a lock. Meanwhile the n-th system
//! call of one kind fails, alone or with all later ones, for each n. In each case nothing hangs, another client is
//! served normally, the counters return to zero, and all acknowledged changes are there after a `kill -9`.
//!
//! `RUNZEO_TEST_SECONDS` limits the time for each kind: then only every k-th call fails.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::support::client::{Incoming, RawClient, Speaks, record, undo_id};
use crate::support::faults::{Faults, Kind};
use crate::support::pickle::{Value, id, text};
use crate::support::process::{Server, test_seconds};

/// Longer than any operation on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Time limit of the greeting while calls fail. A client without a greeting gives up.
const WHILE_CALLS_FAIL: Duration = Duration::from_millis(500);
const ZEO: &str = "transaction-memory 64KB";
const STORAGE: &str = "<filestorage 1>\npath Data.fs\nblob-dir blobs\n</filestorage>";
const BLOB: &[u8] = b"cZODB.blob\nBlob\nq\x01.N.";
/// Longer than a blob that is sent without a thread of its own.
const BLOB_LEN: usize = 1_200_000;

/// Objects of the client that meets the faults.
const PLAIN: u64 = 1;
const LARGE: u64 = 2;
const WITH_BLOB: u64 = 3;
const CONTESTED: u64 = 4;
/// Objects of the other client.
const OTHERS: u64 = 5;

/// The expected state: for each object the last acknowledged data, and data that may be later.
#[derive(Default)]
struct Right {
    acknowledged: BTreeMap<u64, (u64, Vec<u8>)>,
    /// Data of commits with unknown outcome.
    doubtful: BTreeMap<u64, Vec<Vec<u8>>>,
}

impl Right {
    fn serial(&self, oid: u64) -> u64 {
        self.acknowledged.get(&oid).map_or(0, |(tid, _)| *tid)
    }

    fn doubt(&mut self, oid: u64, data: &[u8]) {
        self.doubtful.entry(oid).or_default().push(data.to_vec());
    }

    fn is_committed(&mut self, oid: u64, tid: u64, data: &[u8]) {
        self.acknowledged.insert(oid, (tid, data.to_vec()));
        self.doubtful.remove(&oid);
    }
}

fn register(server: &Server) -> io::Result<RawClient> {
    register_within(server, TIMEOUT)
}

/// The same, with a time limit for the greeting: while calls fail the server may not be able to accept clients.
fn register_within(server: &Server, timeout: Duration) -> io::Result<RawClient> {
    let mut client = RawClient::connect_within(server.address, Speaks::Z5, timeout)?;
    client.set_read_timeout(TIMEOUT);
    let answer = client.call("register", vec![text("1"), Value::Bool(false)])?;
    answer.map(|_| client).map_err(|(class, _)| io::Error::other(class))
}

/// Checks an error of a connection: it may end, but must not leave its client without an answer.
fn check_not_hanging(what: &str, server: &Server, error: &io::Error) {
    let hangs = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
    assert!(!hangs, "no answer to {what}: {}", server.talk());
}

/// The client that meets the faults. Each step may fail, with an error or the end of the connection.
struct Victim<'a> {
    server: &'a Server,
    client: Option<RawClient>,
    right: &'a mut Right,
    txn: i64,
}

impl Victim<'_> {
    fn step<T>(
        &mut self,
        what: &str,
        step: impl FnOnce(&mut RawClient, &mut Right, i64) -> io::Result<T>,
    ) -> Option<T> {
        if self.client.is_none() {
            self.client = register_within(self.server, WHILE_CALLS_FAIL).ok();
        }
        self.txn += 1;
        let result = step(self.client.as_mut()?, self.right, self.txn);
        if let Err(error) = &result {
            check_not_hanging(what, self.server, error);
            self.client = None;
        }
        result.ok()
    }

    fn run(&mut self) {
        self.step("a commit", |client, right, txn| store(client, right, txn, PLAIN, &record(b"second")));
        self.step("a large commit", |client, right, txn| {
            store(client, right, txn, LARGE, &record(&[7; 300_000]))
        });
        self.step("a commit with a blob", |client, right, txn| {
            client.queue_begin(txn);
            client.queue_async("storeBlobStart", vec![]);
            for chunk in [b'b'; BLOB_LEN].chunks(59_000) {
                client.queue_async("storeBlobChunk", vec![Value::Bytes(chunk.to_vec())]);
            }
            let args = vec![id(WITH_BLOB), id(0), Value::Bytes(BLOB.to_vec()), Value::Int(txn)];
            client.queue_async("storeBlobEnd", args);
            vote_and_finish(client, right, txn, WITH_BLOB, BLOB)
        });
        self.step("a blob", |client, right, _| {
            let serial = right.serial(WITH_BLOB);
            if serial != 0 {
                check_blob(client, serial, false)?;
            }
            Ok(())
        });
        self.step("an undo", |client, right, txn| {
            let first = record(b"first");
            let undone = match right.acknowledged.get(&PLAIN) {
                Some((tid, data)) if *data != first => *tid,
                _ => return Ok(()),
            };
            client.queue_begin(txn);
            client.queue_async("undoa", vec![Value::Bytes(undo_id(undone).into_bytes()), Value::Int(txn)]);
            vote_and_finish(client, right, txn, PLAIN, &first)
        });
        self.step("an undo log", |client, _, _| {
            client.call("undoLog", vec![Value::Int(0), Value::Int(-20)]).map(drop)
        });
        self.step("iteration", |client, _, _| {
            let Ok(iterator) = client.call("iterator_start", vec![Value::None, Value::None])? else {
                return Ok(());
            };
            while let Ok(transaction) = client.call("iterator_next", vec![iterator.clone()])?
                && !transaction.is_none()
            {
                let args = vec![iterator.clone(), transaction.tuple()[0].clone()];
                let Ok(records) = client.call("iterator_record_start", args)? else { return Ok(()) };
                while let Ok(found) = client.call("iterator_record_next", vec![records.clone()])?
                    && !found.is_none()
                {}
            }
            Ok(())
        });
        self.contend();
        self.step("a pack", |client, _, _| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
            client.call("pack", vec![Value::Float(now + 1.0), Value::Bool(true)]).map(drop)
        });
        self.step("a commit after the pack", |client, right, txn| {
            store(client, right, txn, LARGE, &record(b"small"))
        });
    }

    /// Two clients change one object: the second waits for its lock, and votes in another thread.
    fn contend(&mut self) {
        let Ok(mut second) = register_within(self.server, WHILE_CALLS_FAIL) else { return };
        let voted = self.step("a vote", |client, right, txn| {
            client.queue_begin(txn);
            client.queue_store(CONTESTED, right.serial(CONTESTED), &record(b"one"), txn);
            Ok(client.call("vote", vec![Value::Int(txn)])?.is_ok().then_some(txn))
        });
        second.queue_begin(1);
        second.queue_store(CONTESTED, self.right.serial(CONTESTED), &record(b"two"), 1);
        let asked = second.queue_call("vote", vec![Value::Int(1)]);
        let queued = second.flush();
        if let Some(Some(txn)) = voted {
            self.step("a finish that others wait for", |client, right, _| {
                finish(client, right, txn, CONTESTED, &record(b"one"))
            });
        } else if let Some(None) = voted {
            self.client = None;
        }
        // A conflict or not, with an answer or the end of the connection.
        let answered = queued.and_then(|()| second.answer(asked)).map(drop);
        if let Err(error) = answered {
            check_not_hanging("a vote that waited", self.server, &error);
        }
    }
}

fn store(client: &mut RawClient, right: &mut Right, txn: i64, oid: u64, data: &[u8]) -> io::Result<()> {
    client.queue_begin(txn);
    client.queue_store(oid, right.serial(oid), data, txn);
    vote_and_finish(client, right, txn, oid, data)
}

fn vote_and_finish(
    client: &mut RawClient,
    right: &mut Right,
    txn: i64,
    oid: u64,
    data: &[u8],
) -> io::Result<()> {
    if client.call("vote", vec![Value::Int(txn)])?.is_err() {
        return client.call("tpc_abort", vec![Value::Int(txn)]).map(drop);
    }
    finish(client, right, txn, oid, data)
}

fn finish(client: &mut RawClient, right: &mut Right, txn: i64, oid: u64, data: &[u8]) -> io::Result<()> {
    right.doubt(oid, data);
    match client.call("tpc_finish", vec![Value::Int(txn)])? {
        Ok(tid) => right.is_committed(oid, tid.id(), data),
        Err(_) => drop(client.call("tpc_abort", vec![Value::Int(txn)])?),
    }
    Ok(())
}

/// Checks that the blob is complete; if `must` is false, an error is allowed.
fn check_blob(client: &mut RawClient, serial: u64, must: bool) -> io::Result<()> {
    let asked = client.queue_call("sendBlob", vec![id(WITH_BLOB), id(serial)]);
    client.flush()?;
    let mut received = Vec::new();
    loop {
        match client.next()? {
            Incoming::Push { method, args } if method == "receiveBlobChunk" => {
                received.extend_from_slice(args[2].bytes());
            }
            Incoming::Reply { id, .. } if id == asked => break,
            Incoming::Error { id, class, detail } if id == asked => {
                assert!(!must, "the blob: {class} {detail:?}");
                return Ok(());
            }
            _ => {}
        }
    }
    assert!(received == [b'b'; BLOB_LEN], "the blob is torn: {} bytes", received.len());
    Ok(())
}

/// The data and serial of an object.
fn load(client: &mut RawClient, oid: u64) -> Option<(Vec<u8>, u64)> {
    let asked = client.queue_load(oid);
    client.flush().expect("a load");
    match client.answer(asked).expect("an answer to a load") {
        Ok(Value::Tuple(found)) => Some((found[0].bytes().to_vec(), found[1].id())),
        _ => None,
    }
}

/// Checks that all acknowledged data is there.
fn check_objects(client: &mut RawClient, right: &Right, server: &Server) {
    for (&oid, (tid, data)) in &right.acknowledged {
        let found = load(client, oid);
        let newer = right.doubtful.get(&oid).map_or(&[][..], Vec::as_slice);
        let is_right = found.as_ref().is_some_and(|(now, serial)| {
            (now, serial) == (data, tid) || (serial > tid && newer.contains(now))
        });
        assert!(
            is_right,
            "object {oid}: {:?}: {}",
            found.map(|(data, tid)| (data.len(), tid)),
            server.talk()
        );
    }
    let serial = right.serial(WITH_BLOB);
    if serial != 0 {
        check_blob(client, serial, true).expect("the blob");
    }
}

fn status(client: &mut RawClient, key: &str) -> i64 {
    let status = client.call("server_status", vec![]).expect("an answer").expect("a status");
    let Value::Dict(items) = status else { panic!("{status:?}") };
    let found = items.iter().find(|(known, _)| *known == text(key)).map(|(_, value)| value.clone());
    let Some(Value::Int(count)) = found else { panic!("{key}: {found:?}") };
    count
}

/// One run. Returns the number of calls of the kind; `None` if calls cannot be made to fail here.
fn run(kind: Kind, first: u64, count: u64) -> Option<u64> {
    let faults = Faults::default();
    let mut server = Server::start_failing(&faults, ZEO, STORAGE)?;
    let mut other = register(&server).expect("the other client");
    let mut right = Right::default();
    for (txn, oid) in [PLAIN, CONTESTED, OTHERS].into_iter().enumerate() {
        let done = store(&mut other, &mut right, txn as i64, oid, &record(b"first"));
        done.expect("a commit before the faults");
    }
    // A pack keeps reachable objects, so the root refers to all of them.
    let root = [b"cpersistent.mapping\nPersistentMapping\nq\x01.}".as_slice(), &references(), b"."].concat();
    store(&mut other, &mut right, 50, 0, &root).expect("the root");
    let client = register(&server).expect("a client");
    faults.order(kind, first, count);
    let mut victim = Victim { server: &server, client: Some(client), right: &mut right, txn: 100 };
    victim.run();
    drop(victim);
    let calls = faults.end();

    assert!(server.is_alive(), "{kind:?} {first}: {}", server.talk());
    check_objects(&mut other, &right, &server);
    let log = server.log();
    assert!(!log.contains("panicked"), "{log}");
    // After a failed sync the storage stays read-only, and the log says so.
    let is_read_only = log.contains("read-only");
    assert!(kind == Kind::Disk || !is_read_only, "{log}");
    if !is_read_only {
        store(&mut other, &mut right, 51, OTHERS, &record(b"afterwards")).expect("a commit afterwards");
        assert_eq!(
            load(&mut other, OTHERS).expect("it is there").0,
            record(b"afterwards"),
            "{}",
            server.talk()
        );
    }
    let started = Instant::now();
    while status(&mut other, "connections") > 1 {
        assert!(started.elapsed() < TIMEOUT, "connections stay: {}", server.talk());
        thread::sleep(Duration::from_millis(5));
    }
    for key in ["active_txns", "waiting"] {
        assert_eq!(status(&mut other, key), 0, "{key}, {kind:?} {first}: {}", server.talk());
    }
    if !is_read_only {
        drop(register(&server).expect("a new client"));
    }

    server.kill();
    server.start_again();
    let mut client = register(&server).expect("a client of the next server");
    check_objects(&mut client, &right, &server);
    store(&mut client, &mut right, 52, OTHERS, &record(b"at last")).expect("a commit");
    assert_eq!(right.acknowledged[&OTHERS].1, record(b"at last"), "{}", server.talk());
    Some(calls)
}

/// A list of references to all objects.
fn references() -> Vec<u8> {
    let mut list = b"U\x04data](".to_vec();
    for oid in [PLAIN, LARGE, WITH_BLOB, CONTESTED, OTHERS] {
        list.extend_from_slice(b"U\x08");
        list.extend_from_slice(&oid.to_be_bytes());
        list.extend_from_slice(b"cpersistent.mapping\nPersistentMapping\n\x86Q");
    }
    list.extend_from_slice(b"es");
    list
}

/// Runs for each n, or for a part of them if time is short.
fn at_every_call(kind: Kind) {
    let Some(calls) = run(kind, u64::MAX, 0) else { return };
    assert!(calls > 0, "no call of {kind:?}");
    let ends = Instant::now() + test_seconds(12);
    let next = AtomicU64::new(0);
    // Far apart at first, so that a short run covers all parts.
    let step = (1..).map(|n| calls * 618 / 1000 + n).find(|step| gcd(*step, calls) == 1).unwrap_or(1);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= 2 * calls || Instant::now() > ends {
                        return;
                    }
                    let first = number / 2 * step % calls + 1;
                    let count = if number.is_multiple_of(2) { 1 } else { u64::MAX };
                    let _ = run(kind, first, count);
                }
            });
        }
    });
    println!("{kind:?}: {} of {} runs", next.into_inner().min(2 * calls), 2 * calls);
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[test]
fn no_thread_can_be_started() {
    at_every_call(Kind::Threads);
}

#[test]
fn no_descriptor_is_left() {
    at_every_call(Kind::Descriptors);
}

#[test]
fn the_disk_is_full_or_broken() {
    at_every_call(Kind::Disk);
}

#[test]
fn no_memory_is_left_for_what_is_large() {
    at_every_call(Kind::Memory);
}
