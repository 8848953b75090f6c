//! Blobs on the wire, message by message, in ways that no real client uses.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::client::{Incoming, RawClient, Speaks};
use crate::support::pickle::{Value, id, text};
use crate::support::process::Server;

const RECORD: &[u8] = b"cZODB.blob\nBlob\nq\x01.N.";
const CHUNK_LEN: usize = 59_000;

fn start() -> Server {
    Server::start_storage("", "blob-dir blobs")
}

fn register(server: &Server, speaks: Speaks) -> RawClient {
    RawClient::register(server.address, speaks).expect("register").0
}

fn bytes(data: &[u8]) -> Value {
    Value::Bytes(data.to_vec())
}

pub fn queue_blob(client: &mut RawClient, oid: u64, data: &[u8], txn: i64) {
    client.queue_async("storeBlobStart", vec![]);
    for chunk in data.chunks(CHUNK_LEN) {
        client.queue_async("storeBlobChunk", vec![bytes(chunk)]);
    }
    client.queue_async("storeBlobEnd", vec![id(oid), id(0), bytes(RECORD), Value::Int(txn)]);
}

/// Stores a blob, and returns its tid.
pub fn commit(client: &mut RawClient, oid: u64, data: &[u8], txn: i64) -> u64 {
    client.queue_begin(txn);
    queue_blob(client, oid, data, txn);
    client.call("vote", vec![Value::Int(txn)]).unwrap().expect("vote");
    client.call("tpc_finish", vec![Value::Int(txn)]).unwrap().expect("tpc_finish").id()
}

fn temporary(server: &Server) -> usize {
    fs::read_dir(server.directory().join("blobs/tmp")).unwrap().count()
}

#[test]
fn a_blob_within_a_blob_fails_that_transaction_only() {
    let server = start();
    for speaks in [Speaks::Z5, Speaks::Z4] {
        let mut client = register(&server, speaks);
        let oid = client.new_oids(1).unwrap()[0];
        client.queue_begin(1);
        client.queue_async("storeBlobStart", vec![]);
        client.queue_async("storeBlobChunk", vec![bytes(b"one")]);
        queue_blob(&mut client, oid, b"two", 1);
        let (class, _) = client.call("vote", vec![Value::Int(1)]).unwrap().expect_err("vote");
        assert!(class.contains("AssertionError"), "{class}");
        client.queue_async("tpc_abort", vec![Value::Int(1)]);
        assert_eq!(temporary(&server), 0);
        commit(&mut client, oid, b"three", 2);
    }
}

#[test]
fn what_belongs_to_no_blob_closes_the_connection() {
    let server = start();
    for (method, args) in [
        ("storeBlobChunk", vec![bytes(b"x")]),
        ("storeBlobStart", vec![]),
        ("storeBlobEnd", vec![id(1), id(0), bytes(RECORD), Value::Int(1)]),
        ("storeBlobShared", vec![id(1), id(0), bytes(RECORD), text("x.tmp"), Value::Int(1)]),
    ] {
        let mut client = register(&server, Speaks::Z5);
        client.queue_async(method, args);
        client.flush().unwrap();
        assert!(client.next().is_err(), "{method}");
    }
    assert_eq!(temporary(&server), 0);
}

#[test]
fn an_upload_that_is_cut_off_leaves_nothing() {
    let server = start();
    let mut client = register(&server, Speaks::Z5);
    client.queue_begin(1);
    client.queue_async("storeBlobStart", vec![]);
    client.queue_async("storeBlobChunk", vec![bytes(&[1; CHUNK_LEN])]);
    client.flush().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while temporary(&server) == 0 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    drop(client);
    while temporary(&server) > 0 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(temporary(&server), 0);
}

#[test]
fn loads_are_answered_in_the_midst_of_a_download() {
    let server = start();
    let mut client = register(&server, Speaks::Z5);
    let oid = client.new_oids(1).unwrap()[0];
    let data: Vec<u8> = (0..40_000_000u32).map(|n| (n / 251) as u8).collect();
    let tid = commit(&mut client, oid, &data, 1);
    let blob = client.queue_call("sendBlob", vec![id(oid), id(tid)]);
    client.flush().unwrap();
    let (mut received, mut load, mut loaded_after) = (Vec::new(), None, None);
    loop {
        match client.next().unwrap() {
            Incoming::Push { method, args } => match method.as_str() {
                "receiveBlobStart" | "receiveBlobStop" => assert_eq!(args[0].id(), oid),
                "receiveBlobChunk" => {
                    assert_eq!((args[0].id(), args[1].id()), (oid, tid));
                    received.extend_from_slice(args[2].bytes());
                    if load.is_none() {
                        load = Some(client.queue_load(oid));
                        client.flush().unwrap();
                    }
                }
                "info" => {}
                other => panic!("{other}"),
            },
            Incoming::Reply { id, .. } if Some(id) == load => loaded_after = Some(received.len()),
            Incoming::Reply { id, value } if id == blob => {
                assert!(value.is_none());
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(received == data, "{} bytes", received.len());
    let loaded_after = loaded_after.expect("the load was answered first");
    assert!(loaded_after < data.len(), "answered only after {loaded_after} bytes");
}

#[test]
fn a_client_that_does_not_read_its_blobs_holds_nobody_up() {
    let server = start();
    let mut client = register(&server, Speaks::Z5);
    let oid = client.new_oids(1).unwrap()[0];
    let tid = commit(&mut client, oid, &vec![7; 30_000_000], 1);
    let (threads, before) = (server.thread_count(), server.rss());
    // More than the number of threads.
    for _ in 0..12 {
        client.queue_call("sendBlob", vec![id(oid), id(tid)]);
    }
    client.flush().unwrap();
    let mut other = register(&server, Speaks::Z5);
    for n in 0..20 {
        let oid = other.new_oids(1).unwrap()[0];
        commit(&mut other, oid, b"small", n + 2);
    }
    let grown = server.rss().saturating_sub(before);
    assert!(grown < 24 << 20, "grown by {grown} bytes");
    drop(client);
    let deadline = Instant::now() + Duration::from_secs(60);
    while server.thread_count() > threads + 2 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(10));
    }
    assert!(server.thread_count() <= threads + 2, "{} threads are left", server.thread_count());
}

#[test]
fn a_short_blob_does_not_wait_until_long_ones_are_sent() {
    let server = start();
    let mut client = register(&server, Speaks::Z5);
    let oids = client.new_oids(2).unwrap();
    let (long, short) = (oids[0], oids[1]);
    let tid_of_long = commit(&mut client, long, &vec![7; 20_000_000], 1);
    let tid_of_short = commit(&mut client, short, &vec![8; 2_000_000], 2);
    // More than the number of threads.
    let count = 12;
    for _ in 0..count {
        client.queue_call("sendBlob", vec![id(long), id(tid_of_long)]);
    }
    let asked = client.queue_call("sendBlob", vec![id(short), id(tid_of_short)]);
    client.flush().unwrap();
    let (mut of_long, mut of_short) = (0, 0);
    loop {
        match client.next().unwrap() {
            Incoming::Push { method, args } if method == "receiveBlobChunk" => {
                let len = args[2].bytes().len();
                if args[0].id() == short { of_short += len } else { of_long += len }
            }
            Incoming::Reply { id, .. } if id == asked => break,
            _ => {}
        }
    }
    assert_eq!(of_short, 2_000_000);
    assert!(of_long < count * 20_000_000 / 2, "after {of_long} bytes of the others");
}
