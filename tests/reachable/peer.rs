//! A connection: calls and answers, several outstanding.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;

use crate::support::client::{Incoming, RawClient, Speaks, undo_id};
use crate::support::pickle::{Value, id};
use crate::walk::{Missing, Walked, walk};
use crate::world::{BLOB, Oid, State, Tid, is_content_of};

pub struct Peer {
    client: RawClient,
    /// Answers to other calls.
    answers: HashMap<i64, Result<Value, String>>,
    /// The outcome of each store, before Z5.
    serialnos: Vec<Value>,
    /// The blob that is being received.
    blob: Vec<u8>,
    oids: Vec<Oid>,
    txn: i64,
}

/// A finding of the test, as an error that ends the round.
pub fn finding<T>(what: String) -> io::Result<T> {
    Err(io::Error::other(what))
}

impl Peer {
    pub fn register(address: SocketAddr, speaks: Speaks) -> io::Result<Peer> {
        let (client, _) = RawClient::register(address, speaks)?;
        Ok(Peer {
            client,
            answers: HashMap::new(),
            serialnos: Vec::new(),
            blob: Vec::new(),
            oids: Vec::new(),
            txn: 0,
        })
    }

    pub fn speaks(&self) -> Speaks {
        self.client.speaks
    }

    fn answer(&mut self, wanted: i64) -> io::Result<Result<Value, String>> {
        self.client.flush()?;
        loop {
            if let Some(answer) = self.answers.remove(&wanted) {
                return Ok(answer);
            }
            match self.client.next()? {
                Incoming::Reply { id, value } => drop(self.answers.insert(id, Ok(value))),
                Incoming::Error { id, class, detail } => {
                    let mut words = class;
                    texts(&detail, &mut words);
                    self.answers.insert(id, Err(words));
                }
                Incoming::Push { method, args } => match method.as_str() {
                    "serialnos" => self.serialnos.extend_from_slice(args[0].tuple()),
                    "receiveBlobChunk" => self.blob.extend_from_slice(args[2].bytes()),
                    _ => {}
                },
            }
        }
    }

    pub fn call(&mut self, method: &str, args: Vec<Value>) -> io::Result<Result<Value, String>> {
        let call = self.client.queue_call(method, args);
        self.answer(call)
    }

    // -- reads

    /// The data and the serial, if the object exists.
    fn loaded(&mut self, call: i64) -> io::Result<Option<(Vec<u8>, Tid)>> {
        match self.answer(call)? {
            Ok(value) if value.is_none() => Ok(None),
            Ok(value) => {
                let parts = value.tuple();
                Ok(Some((parts[0].bytes().to_vec(), parts[1].id())))
            }
            // The answer of a temporary storage for a collected object: try again.
            Err(error) if error.contains("POSKeyError") || error.contains("ConflictError") => Ok(None),
            Err(error) => finding(format!("a load was refused: {error}")),
        }
    }

    pub fn load_many(&mut self, oids: &[Oid]) -> io::Result<Vec<Option<State>>> {
        let calls: Vec<i64> = oids.iter().map(|oid| self.client.queue_load(*oid)).collect();
        let mut states = Vec::new();
        for call in calls {
            states.push(self.loaded(call)?.map(|(data, serial)| State::new(serial, &data)));
        }
        Ok(states)
    }

    pub fn load(&mut self, oid: Oid) -> io::Result<Option<State>> {
        Ok(self.load_many(&[oid])?.remove(0))
    }

    /// The revision that was current before transaction `tid`.
    pub fn load_before(&mut self, oid: Oid, tid: Tid) -> io::Result<Option<State>> {
        let call = self.client.queue_call("loadBefore", vec![id(oid), id(tid)]);
        Ok(self.loaded(call)?.map(|(data, serial)| State::new(serial, &data)))
    }

    pub fn load_serial(&mut self, oid: Oid, serial: Tid) -> io::Result<Option<Vec<u8>>> {
        match self.call("loadSerial", vec![id(oid), id(serial)])? {
            Ok(data) => Ok(Some(data.bytes().to_vec())),
            Err(error) if error.contains("POSKeyError") => Ok(None),
            Err(error) => finding(format!("loadSerial was refused: {error}")),
        }
    }

    /// Why the blob's content is wrong, if it is.
    pub fn check_blob(&mut self, oid: Oid, serial: Tid) -> io::Result<Result<(), String>> {
        self.blob.clear();
        let sent = self.call("sendBlob", vec![id(oid), id(serial)])?;
        Ok(match sent {
            Err(error) => Err(error),
            Ok(_) if !is_content_of(oid, &self.blob) => Err(format!("content {}", self.blob.escape_ascii())),
            Ok(_) => Ok(()),
        })
    }

    pub fn walk(
        &mut self,
        start: impl IntoIterator<Item = (Oid, State)>,
    ) -> io::Result<Result<Walked, Missing>> {
        walk(start, |oids| self.load_many(oids))
    }

    /// Loads all objects that are reachable from `oid`, which always exists. It is an error if an object cannot be
    /// loaded although all objects on the way to it are still current afterwards. `blob`: index of the blob, among
    /// those found, that is read too.
    pub fn audit(
        &mut self,
        oid: Oid,
        blob: impl FnOnce(&[(Oid, Tid)]) -> Option<(Oid, Tid)>,
    ) -> io::Result<()> {
        let Some(state) = self.load(oid)? else {
            return finding(format!("0x{oid:016x} cannot be loaded, to which the root refers"));
        };
        let walked = match self.walk([(oid, state)])? {
            Ok(walked) => walked,
            Err(missing) => {
                if !self.is_current(&missing.path)? {
                    return Ok(());
                }
                let later = if self.load(missing.oid)?.is_some() { ", for a moment" } else { "" };
                return finding(format!("an object that is reachable cannot be loaded{later}: {missing}"));
            }
        };
        if let Some((oid, serial)) = blob(&walked.blobs())
            && let Err(error) = self.check_blob(oid, serial)?
            && self.is_current(&walked.path(oid))?
        {
            return finding(format!(
                "the blob of a reachable object, 0x{oid:016x} (of {serial:016x}): {error}"
            ));
        }
        Ok(())
    }

    /// Whether all of these still have the same serials.
    fn is_current(&mut self, path: &[(Oid, Tid)]) -> io::Result<bool> {
        let oids: Vec<Oid> = path.iter().map(|(oid, _)| *oid).collect();
        let now = self.load_many(&oids)?;
        Ok(path.iter().zip(now).all(|((_, serial), now)| now.is_some_and(|now| now.serial == *serial)))
    }

    // -- transactions

    pub fn new_oid(&mut self) -> io::Result<Oid> {
        if self.oids.is_empty() {
            self.oids = self.client.new_oids(20)?;
        }
        Ok(self.oids.pop().expect("new oids"))
    }

    /// The names of the transactions that can be undone, newest first.
    pub fn undo_info(&mut self, count: i64) -> io::Result<Vec<Vec<u8>>> {
        let args = vec![Value::Int(0), Value::Int(-count), Value::Dict(Vec::new())];
        match self.call("undoInfo", args)? {
            Ok(entries) => Ok(entries.tuple().iter().map(undo_name).collect()),
            Err(error) => finding(format!("undoInfo was refused: {error}")),
        }
    }

    pub fn begin(&mut self, tid: Option<Tid>) {
        self.txn += 1;
        self.serialnos.clear();
        self.client.queue_begin_as(self.txn, tid);
    }

    pub fn store(&mut self, oid: Oid, serial: Tid, data: &[u8]) {
        self.client.queue_store(oid, serial, data, self.txn);
    }

    pub fn store_blob(&mut self, oid: Oid, serial: Tid, content: &[u8]) {
        self.client.queue_async("storeBlobStart", vec![]);
        self.client.queue_async("storeBlobChunk", vec![Value::Bytes(content.to_vec())]);
        let mut args = vec![id(oid), id(serial), Value::Bytes(BLOB.to_vec())];
        if self.speaks().has_versions() {
            args.push(Value::Text(String::new()));
        }
        args.push(Value::Int(self.txn));
        self.client.queue_async("storeBlobEnd", args);
    }

    pub fn check_current(&mut self, oid: Oid, serial: Tid) {
        let args = vec![id(oid), id(serial), Value::Int(self.txn)];
        self.client.queue_async("checkCurrentSerialInTransaction", args);
    }

    /// Stores with the tid of the transaction, as copies do, and with a hint where the same data is.
    pub fn restore(&mut self, oid: Oid, tid: Tid, data: &[u8], from: Tid) {
        let data = Value::Bytes(data.to_vec());
        self.client.queue_async("restorea", vec![id(oid), id(tid), data, id(from), Value::Int(self.txn)]);
    }

    /// Whether it was accepted so far.
    pub fn undo(&mut self, tid: Tid) -> io::Result<bool> {
        let args = vec![Value::Bytes(undo_id(tid).into_bytes()), Value::Int(self.txn)];
        if self.speaks().answers_undo() {
            return Ok(self.call("undo", args)?.is_ok());
        }
        self.client.queue_async("undoa", args);
        Ok(true)
    }

    /// Whether the transaction may be finished.
    pub fn vote(&mut self) -> io::Result<Result<(), String>> {
        if let Err(error) = self.call("vote", vec![Value::Int(self.txn)])? {
            return Ok(Err(error));
        }
        // Before Z5 the outcome of each store is in serialnos.
        let refused = self.serialnos.iter().find(|pair| !matches!(pair.tuple()[1], Value::Bytes(_)));
        Ok(refused.map_or(Ok(()), |pair| Err(refusal(&pair.tuple()[1]))))
    }

    pub fn abort(&mut self) -> io::Result<()> {
        match self.call("tpc_abort", vec![Value::Int(self.txn)])? {
            Ok(_) => Ok(()),
            Err(error) => finding(format!("tpc_abort was refused: {error}")),
        }
    }

    pub fn finish(&mut self) -> io::Result<Tid> {
        match self.call("tpc_finish", vec![Value::Int(self.txn)])? {
            Ok(tid) if !tid.is_none() => Ok(tid.id()),
            other => finding(format!("tpc_finish after a vote that passed: {other:?}")),
        }
    }

    /// Sends tpc_finish and disconnects.
    pub fn finish_and_leave(&mut self) {
        self.client.queue_call("tpc_finish", vec![Value::Int(self.txn)]);
        // The message may be lost.
        let _ = self.client.flush();
        self.leave();
    }

    pub fn leave(&mut self) {
        let _ = self.client.stream().shutdown(std::net::Shutdown::Both);
    }
}

fn refusal(error: &Value) -> String {
    let mut words = format!("{error:?}");
    texts(error, &mut words);
    words
}

/// Adds the texts and the oids of an exception's arguments.
fn texts(detail: &Value, words: &mut String) {
    match detail {
        Value::Bytes(bytes) if bytes.len() == 8 => words.push_str(&format!(" 0x{:016x}", detail.id())),
        Value::Bytes(_) | Value::Text(_) => {
            words.push(' ');
            words.push_str(&detail.bytes().escape_ascii().to_string());
        }
        Value::Tuple(items) | Value::List(items) => items.iter().for_each(|item| texts(item, words)),
        Value::Dict(items) => items.iter().for_each(|(_, value)| texts(value, words)),
        Value::Object(_, arguments) => texts(arguments, words),
        _ => {}
    }
}

fn undo_name(entry: &Value) -> Vec<u8> {
    let Value::Dict(items) = entry else { panic!("an entry of undoInfo: {entry:?}") };
    let name = items.iter().find(|(key, _)| key.bytes() == b"id");
    name.expect("an id").1.bytes().to_vec()
}
