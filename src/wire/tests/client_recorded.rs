//! The client's side compared with the recorded sessions of real clients and servers.

use std::collections::BTreeMap;
use std::collections::HashMap;

use super::recorded::{Recording, calls, recordings};
use super::*;
use crate::wire::answers::{Answer, AnswerError, FromServer};
use crate::wire::calls::Call as ClientCall;
use crate::wire::value::extension_dict;

fn leak<T: ?Sized>(value: impl Into<Box<T>>) -> &'static T {
    Box::leak(value.into())
}

/// The number that a client uses as a name for its transaction.
fn number(wire: Wire, encoded: &[u8]) -> i64 {
    let mut pickle = encoded.to_vec();
    if wire.encoding != Encoding::Msgpack {
        pickle.push(b'.');
    }
    let tree = parse(wire, &pickle);
    match tree.node(tree.root()) {
        Node::Int(number) => *number,
        other => panic!("{other:?}"),
    }
}

/// The call that makes a server read this request; `None` for those that we do not make.
fn call_for(request: &Request<'_>, wire: Wire) -> Option<ClientCall<'static>> {
    let data = |data: &[u8]| leak::<[u8]>(data);
    let text = |text: &str| leak::<str>(text);
    let txn = |id: &[u8]| number(wire, id);
    Some(match request {
        Request::GetAuthProtocol => ClientCall::GetAuthProtocol,
        Request::Register { storage, read_only } => {
            ClientCall::Register { storage: text(storage), read_only: *read_only }
        }
        Request::GetInfo => ClientCall::GetInfo,
        Request::LastTransaction => ClientCall::LastTransaction,
        Request::Ping => ClientCall::Ping,
        Request::ServerStatus => ClientCall::ServerStatus,
        Request::SetClientLabel { label } => ClientCall::SetClientLabel { label: text(label) },
        Request::NewOids { count } => ClientCall::NewOids { count: u32::try_from(*count).unwrap() },
        Request::GetInvalidations { tid } => ClientCall::GetInvalidations { tid: *tid },
        &Request::Verify { oid, serial } => ClientCall::Verify { oid, serial },
        Request::EndZeoVerify => ClientCall::EndZeoVerify,
        &Request::LoadBefore { oid, before } => ClientCall::LoadBefore { oid, before },
        &Request::LoadEx { oid } => ClientCall::LoadEx { oid },
        &Request::LoadSerial { oid, serial } => ClientCall::LoadSerial { oid, serial },
        &Request::GetTid { oid } => ClientCall::GetTid { oid },
        &Request::History { oid: Some(oid), count: Some(count) } => ClientCall::History { oid, count },
        &Request::RecordIternext { next } => ClientCall::RecordIternext { next },
        Request::TpcBegin(begin) => ClientCall::TpcBegin {
            txn: txn(&begin.id),
            user: data(&begin.user),
            description: data(&begin.description),
            extension: Box::leak(Box::new(extension_dict(&begin.extension).unwrap())),
            tid: begin.tid,
            status: begin.status.into(),
        },
        Request::Store { oid, serial, data: d, id } => {
            ClientCall::Store { oid: *oid, serial: *serial, data: data(d), txn: txn(id) }
        }
        Request::Restore { oid, serial, data: d, prev_txn, id } => ClientCall::Restore {
            oid: *oid,
            serial: *serial,
            data: d.as_ref().map(|d| data(d)),
            prev_txn: *prev_txn,
            txn: txn(id),
        },
        Request::DeleteObject { oid, serial, id } => {
            ClientCall::DeleteObject { oid: *oid, serial: *serial, txn: txn(id) }
        }
        Request::CheckCurrentSerial { oid, serial, id } => {
            ClientCall::CheckCurrentSerial { oid: *oid, serial: *serial, txn: txn(id) }
        }
        Request::Undo { tid_id, id } => ClientCall::Undo { undone: data(tid_id.string()?), txn: txn(id) },
        Request::Vote { id } => ClientCall::Vote { txn: txn(id) },
        Request::TpcFinish { id } => ClientCall::TpcFinish { txn: txn(id) },
        Request::TpcAbort { id } => ClientCall::TpcAbort { txn: txn(id) },
        Request::StoreBlobStart => ClientCall::StoreBlobStart,
        Request::StoreBlobChunk { chunk } => ClientCall::StoreBlobChunk { chunk: data(chunk) },
        Request::StoreBlobEnd { oid, serial, data: d, id } => {
            ClientCall::StoreBlobEnd { oid: *oid, serial: *serial, data: data(d), txn: txn(id) }
        }
        &Request::SendBlob { oid, serial } => ClientCall::SendBlob { oid, serial },
        &Request::UndoLog { first, last } => ClientCall::UndoLog { first, last },
        &Request::Pack { time, wait: Some(wait) } => ClientCall::Pack { time, wait },
        &Request::IteratorStart { start, stop } => ClientCall::IteratorStart { start, stop },
        &Request::IteratorNext { iterator } => ClientCall::IteratorNext { iterator },
        &Request::IteratorRecordStart { iterator, tid } => ClientCall::IteratorRecordStart { iterator, tid },
        &Request::IteratorRecordNext { iterator } => ClientCall::IteratorRecordNext { iterator },
        Request::IteratorGc { iterators } => {
            ClientCall::IteratorGc { iterators: leak::<[i64]>(iterators.as_slice()) }
        }
        _ => return None,
    })
}

/// Flag, method and arguments of a message, encoded.
fn contents(wire: Wire, payload: &[u8]) -> Option<Vec<Vec<u8>>> {
    let tree = parse(wire, payload);
    let Node::Tuple(parts) = tree.node(tree.root()) else { panic!() };
    parts[1..].iter().map(|part| tree.encoded(*part).map(<[u8]>::to_vec)).collect()
}

/// Calls whose bytes differ: a flag as 0 instead of False, texts instead of byte strings, the order of dicts, an
/// argument that is left out.
const ALIKE: &[&str] = &["register", "tpc_begin", "new_oids"];

/// A request without the extension, whose long integers have several forms.
fn shown(mut request: Request<'_>) -> String {
    if let Request::TpcBegin(begin) = &mut request {
        begin.extension.clear();
    }
    format!("{request:?}")
}

#[test]
fn calls_are_those_of_pythons_clients() {
    for recording in recordings() {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for (_, wire, payload) in calls(&recording) {
            let theirs = wire.decode(payload).unwrap();
            let Some(call) = call_for(&theirs.request, wire) else { continue };
            let method = call.method(wire).unwrap();
            assert!(wire.knows(method), "{}: {method:?}", recording.name);
            assert_eq!(wire.is_one_way(method), theirs.is_async, "{}: {method:?}", recording.name);
            let mut out = Vec::new();
            wire.put_call(7, &call, &mut out);
            let ours = wire.decode(&out[4..]).unwrap();
            assert_eq!(shown(ours.request), shown(theirs.request), "{}", recording.name);
            // Clients of ZODB 3 store new objects with None as the serial that was read.
            let is_new = matches!(call, ClientCall::Store { serial: Tid::ZERO, .. });
            if !ALIKE.contains(&method.name()) && !is_new {
                assert_eq!(
                    contents(wire, &out[4..]),
                    contents(wire, payload),
                    "{}: {call:?}",
                    recording.name
                );
                *counts.entry(method.name().into()).or_default() += 1;
            }
        }
        eprintln!("{}: {counts:?}", recording.name);
        assert!(counts.len() > 8 && counts.contains_key("storea"), "{}: {counts:?}", recording.name);
    }
}

/// The id of a message.
fn id_of(wire: Wire, payload: &[u8]) -> String {
    let tree = parse(wire, payload);
    let Node::Tuple(parts) = tree.node(tree.root()) else { panic!() };
    sorted(&tree, parts[0])
}

/// The payload with a number as its id, instead of an oid and a tid.
fn with_number(wire: Wire, payload: &[u8]) -> Vec<u8> {
    let tree = parse(wire, payload);
    let Node::Tuple(parts) = tree.node(tree.root()) else { panic!() };
    let id = tree.encoded(parts[0]).unwrap();
    let start = id.as_ptr() as usize - payload.as_ptr() as usize;
    let mut number = Vec::new();
    wire.value(&Value::Int(7), &mut number);
    [&payload[..start], &number, &payload[start + id.len()..]].concat()
}

/// Decodes the answer as the type of its call.
fn read(request: &Request<'_>, answer: Answer<'_>) -> Result<&'static str, AnswerError> {
    Ok(match request {
        Request::LoadBefore { .. } | Request::LoadEx { .. } => answer.loaded().map(|_| "loaded")?,
        Request::LoadSerial { .. } => answer.bytes().map(|_| "bytes")?,
        Request::GetInvalidations { .. } => answer.invalidations().map(|_| "invalidations")?,
        Request::NewOids { .. } => answer.oids().map(|oids| assert!(!oids.is_empty())).map(|()| "oids")?,
        Request::GetTid { .. } | Request::TpcFinish { .. } => answer.tid().map(|_| "tid")?,
        Request::LastTransaction | Request::Register { .. } => {
            answer.optional_tid().map(|_| "optional tid")?
        }
        Request::Vote { .. } => answer.vote().map(|_| "vote")?,
        Request::History { .. } => {
            let entries = answer.history()?;
            assert!(entries.iter().all(|entry| entry.id.len() == 8 && entry.time > 1e9), "{entries:?}");
            "history"
        }
        Request::UndoLog { .. } | Request::UndoInfo { .. } => {
            let entries = answer.undo_log()?;
            assert!(entries.iter().all(|entry| entry.id.len() == 12 && entry.time > 1e9), "{entries:?}");
            "undo log"
        }
        Request::Undo { .. } => answer.invalidations().map(|_| "undo")?,
        Request::IteratorStart { .. } | Request::IteratorRecordStart { .. } => {
            answer.int().map(|_| "iterator")?
        }
        Request::IteratorNext { .. } => answer.iterated_transaction().map(|_| "iterated transaction")?,
        Request::IteratorRecordNext { .. } => answer.iterated_record().map(|_| "iterated record")?,
        Request::RecordIternext { .. } => answer.iterated_object().map(|_| "iterated object")?,
        Request::GetInfo | Request::ServerStatus => {
            assert!(matches!(answer.value()?, Value::Dict(_)));
            "value"
        }
        _ => answer.done().map(|()| "done")?,
    })
}

fn check_answers(recording: &Recording) -> BTreeMap<String, usize> {
    let wires: HashMap<usize, Wire> =
        calls(recording).into_iter().map(|(connection, wire, _)| (connection, wire)).collect();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut asked = HashMap::new();
    let mut greeted = Vec::new();
    for (connection, from_client, payload) in &recording.frames {
        let Some(wire) = wires.get(connection) else { continue };
        if !greeted.contains(&(connection, from_client)) {
            greeted.push((connection, from_client));
            continue;
        }
        if *from_client {
            asked.insert((*connection, id_of(*wire, payload)), wire.decode(payload).unwrap().request);
            continue;
        }
        let numbered = with_number(*wire, payload);
        match wire.from_server(&numbered).unwrap() {
            FromServer::KeepAlive => panic!(),
            FromServer::Push(push) => {
                let name = format!("{push:?}").split(' ').next().unwrap().to_string();
                *counts.entry(name).or_default() += 1;
            }
            FromServer::Reply { answer, .. } => {
                let request = &asked[&(*connection, id_of(*wire, payload))];
                let kind = match read(request, answer) {
                    Ok(kind) => kind.to_string(),
                    Err(AnswerError::Raised(exception)) => format!("{}.{}", exception.module, exception.name),
                    Err(error) => panic!("{}: {request:?}: {error}", recording.name),
                };
                *counts.entry(kind).or_default() += 1;
            }
        }
    }
    counts
}

#[test]
fn every_message_of_every_server_is_understood() {
    for recording in recordings() {
        let counts = check_answers(&recording);
        eprintln!("{}: {counts:?}", recording.name);
        for kind in ["loaded", "tid", "oids", "vote", "undo log", "ZODB.POSException.POSKeyError"] {
            assert!(counts.contains_key(kind), "{}: no {kind}: {counts:?}", recording.name);
        }
    }
}
