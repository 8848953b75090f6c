//! Blobs of raw clients, message by message, in every generation.

use std::io;

use crate::support::client::{Incoming, RawClient};
use crate::support::pickle::{Value, id, text};

const RECORD: &[u8] = b"cZODB.blob\nBlob\nq\x01.N.";
const CHUNK_LEN: usize = 59_000;

/// What came of asking for a blob.
#[derive(Debug, PartialEq)]
pub enum Received {
    Blob(Vec<u8>),
    /// The class of the exception.
    Error(String),
}

/// A content that differs in each place.
pub fn content(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| (at / 256 + at * 7 + seed * 31) as u8).collect()
}

/// Queues a transaction with one blob, from `tpc_begin` to the last message before vote.
pub fn queue_commit(client: &mut RawClient, oid: u64, data: &[u8], txn: i64) {
    client.queue_begin(txn);
    client.queue_async("storeBlobStart", vec![]);
    for chunk in data.chunks(CHUNK_LEN) {
        client.queue_async("storeBlobChunk", vec![Value::Bytes(chunk.to_vec())]);
    }
    let mut args = vec![id(oid), id(0), Value::Bytes(RECORD.to_vec())];
    if client.speaks.has_versions() {
        args.push(text(""));
    }
    args.push(Value::Int(txn));
    client.queue_async("storeBlobEnd", args);
}

/// Commits a new object with a blob. Returns the tid, or the class of the exception.
pub fn commit(client: &mut RawClient, oid: u64, data: &[u8], txn: i64) -> io::Result<Result<u64, String>> {
    queue_commit(client, oid, data, txn);
    let vote = client.queue_call("vote", vec![Value::Int(txn)]);
    client.flush()?;
    // Before ZEO 5 an exception comes in place of a serial.
    let mut refused = None;
    loop {
        match client.next()? {
            Incoming::Push { method, args } if method == "serialnos" => {
                let outcomes = args[0].tuple().iter().map(|pair| &pair.tuple()[1]);
                let exception = outcomes.into_iter().find(|outcome| !matches!(outcome, Value::Bytes(_)));
                refused = refused.or(exception.map(|exception| format!("{exception:?}")));
            }
            Incoming::Reply { id, .. } if id == vote => break,
            Incoming::Error { id, class, .. } if id == vote => return Ok(Err(class)),
            _ => {}
        }
    }
    if let Some(class) = refused {
        return Ok(Err(class));
    }
    let finished = client.call("tpc_finish", vec![Value::Int(txn)])?;
    Ok(finished.map(|tid| tid.id()).map_err(|(class, _)| class))
}

/// Asks for a blob. Returns the number of the call.
pub fn ask(client: &mut RawClient, oid: u64, tid: u64) -> i64 {
    let call = client.queue_call("sendBlob", vec![id(oid), id(tid)]);
    client.flush().expect("sent");
    call
}

/// Receives what was asked for. The blob must come in order, before the reply. Returns the classes of the exceptions
/// that other calls raised before it, too; other messages are dropped.
pub fn receive_among(
    client: &mut RawClient,
    call: i64,
    oid: u64,
    tid: u64,
) -> io::Result<(Received, Vec<String>)> {
    let (mut data, mut state, mut others) = (Vec::new(), "asked", Vec::new());
    loop {
        match client.next()? {
            Incoming::Push { method, args } if method.starts_with("receiveBlob") && args[0].id() == oid => {
                assert_eq!(args[1].id(), tid);
                let before = state;
                state = match (before, method.as_str()) {
                    ("asked", "receiveBlobStart") => "started",
                    ("started", "receiveBlobChunk") => {
                        data.extend_from_slice(args[2].bytes());
                        "started"
                    }
                    ("started", "receiveBlobStop") => "stopped",
                    _ => panic!("{method} after {before}"),
                };
            }
            Incoming::Reply { id, value } if id == call => {
                assert!(value.is_none() && state == "stopped", "{value:?} after {state}");
                return Ok((Received::Blob(data), others));
            }
            Incoming::Error { id, class, .. } if id == call => return Ok((Received::Error(class), others)),
            Incoming::Error { class, .. } => others.push(class),
            _ => {}
        }
    }
}

/// The same without what others raised.
pub fn receive(client: &mut RawClient, call: i64, oid: u64, tid: u64) -> io::Result<Received> {
    receive_among(client, call, oid, tid).map(|(received, _)| received)
}

/// Asks for a blob and receives it.
pub fn get(client: &mut RawClient, oid: u64, tid: u64) -> io::Result<Received> {
    let call = ask(client, oid, tid);
    receive(client, call, oid, tid)
}
