//! The client's side against the server's: what one encodes, the other decodes, for every generation and encoding.

use std::borrow::Cow;

use super::*;
use crate::wire::answers::{Answer, FromServer, LoadAnswer, Serialno, ServerPush};
use crate::wire::availability::{ALL, Method};
use crate::wire::calls::Call as ClientCall;
use crate::wire::value::extension_dict;

const OID: Oid = Oid(0x0102_0304_0506_0708);
const SERIAL: Tid = Tid(0x1112_1314_1516_1718);
const TXN: i64 = 0x7fff_1234_5678;

/// An example of each call.
fn examples() -> Vec<ClientCall<'static>> {
    let (oid, serial, tid, txn) = (OID, SERIAL, SERIAL, TXN);
    const DATA: &[u8] = &[0x80; 300];
    let data = DATA;
    const EMPTY: &Value = &Value::Dict(Vec::new());
    let value: &'static Value = Box::leak(Box::new(Value::dict([("user_name", Value::text("u"))])));
    let args: &'static [Value] = Box::leak(Box::new([Value::Int(5), Value::text("x")]));
    vec![
        ClientCall::GetAuthProtocol,
        ClientCall::Register { storage: "main", read_only: true },
        ClientCall::Register { storage: "1", read_only: false },
        ClientCall::GetInfo,
        ClientCall::LastTransaction,
        ClientCall::Ping,
        ClientCall::ServerStatus,
        ClientCall::SetClientLabel { label: "näme" },
        ClientCall::Quiet,
        ClientCall::CancelPack { own_plan: false },
        ClientCall::CancelPack { own_plan: true },
        ClientCall::PlanPack { time: 1.5e9 },
        ClientCall::NewOids { count: 100 },
        ClientCall::GetInvalidations { tid },
        ClientCall::Verify { oid, serial },
        ClientCall::EndZeoVerify,
        ClientCall::LoadBefore { oid, before: tid },
        ClientCall::LoadEx { oid },
        ClientCall::LoadSerial { oid, serial },
        ClientCall::GetTid { oid },
        ClientCall::History { oid, count: 70_000 },
        ClientCall::RecordIternext { next: None },
        ClientCall::RecordIternext { next: Some(oid) },
        ClientCall::TpcBegin {
            txn,
            user: b"user",
            description: b"\xc3\xa4",
            extension: value,
            tid: None,
            status: ' ',
        },
        ClientCall::TpcBegin {
            txn: -1,
            user: b"",
            description: b"",
            extension: EMPTY,
            tid: Some(tid),
            status: 'p',
        },
        ClientCall::Store { oid, serial, data, txn },
        ClientCall::Restore { oid, serial, data: Some(data), prev_txn: Some(tid), txn },
        ClientCall::Restore { oid, serial, data: None, prev_txn: None, txn },
        ClientCall::DeleteObject { oid, serial, txn },
        ClientCall::CheckCurrentSerial { oid, serial, txn },
        ClientCall::Undo { undone: b"A0Bv4YtLvRE=", txn },
        ClientCall::Vote { txn },
        ClientCall::TpcFinish { txn },
        ClientCall::TpcAbort { txn },
        ClientCall::StoreBlobStart,
        ClientCall::StoreBlobChunk { chunk: data },
        ClientCall::StoreBlobEnd { oid, serial, data, txn },
        ClientCall::StoreBlobShared { oid, serial, data, filename: "0x01.tmp-", txn },
        ClientCall::SendBlob { oid, serial },
        ClientCall::UndoLog { first: 0, last: -20 },
        ClientCall::UndoInfo { first: 0, last: 20, specification: value },
        ClientCall::Pack { time: 1.5, wait: true },
        ClientCall::IteratorStart { start: None, stop: Some(tid) },
        ClientCall::IteratorNext { iterator: 7 },
        ClientCall::IteratorRecordStart { iterator: 7, tid },
        ClientCall::IteratorRecordNext { iterator: 8 },
        ClientCall::IteratorGc { iterators: &[] },
        ClientCall::IteratorGc { iterators: &[1, 2, 300] },
        ClientCall::Other { name: "auth_response", args },
    ]
}

/// The request that a server should read.
fn expected<'a>(call: &ClientCall<'a>, wire: Wire) -> Request<'a> {
    let name = |txn: i64| {
        let mut out = Vec::new();
        wire.value(&Value::Int(txn), &mut out);
        Cow::Owned(out)
    };
    let read = |value: &Value| as_read(value, wire.encoding);
    match *call {
        ClientCall::GetAuthProtocol => Request::GetAuthProtocol,
        ClientCall::Register { storage, read_only } => {
            Request::Register { storage: storage.into(), read_only }
        }
        ClientCall::GetInfo => Request::GetInfo,
        ClientCall::LastTransaction => Request::LastTransaction,
        ClientCall::Ping => Request::Ping,
        ClientCall::ServerStatus => Request::ServerStatus,
        ClientCall::SetClientLabel { label } => Request::SetClientLabel { label: label.into() },
        ClientCall::Quiet => Request::Quiet,
        ClientCall::CancelPack { own_plan } => Request::CancelPack { own_plan },
        ClientCall::PlanPack { time } => Request::PlanPack { time },
        ClientCall::NewOids { count } => Request::NewOids { count: count.into() },
        ClientCall::GetInvalidations { tid } => Request::GetInvalidations { tid },
        ClientCall::Verify { oid, serial } => Request::Verify { oid, serial },
        ClientCall::EndZeoVerify => Request::EndZeoVerify,
        ClientCall::LoadBefore { oid, before } => Request::LoadBefore { oid, before },
        ClientCall::LoadEx { oid } => Request::LoadEx { oid },
        ClientCall::LoadSerial { oid, serial } => Request::LoadSerial { oid, serial },
        ClientCall::GetTid { oid } => Request::GetTid { oid },
        ClientCall::History { oid, count } => Request::History { oid: Some(oid), count: Some(count) },
        ClientCall::RecordIternext { next } => Request::RecordIternext { next },
        ClientCall::TpcBegin { txn, user, description, tid, status, .. } => Request::TpcBegin(TpcBegin {
            id: name(txn),
            user: user.into(),
            description: description.into(),
            extension: Vec::new(), // compared by itself
            tid,
            status: status as u8,
        }),
        ClientCall::Store { oid, serial, data, txn } => {
            Request::Store { oid, serial, data: data.into(), id: name(txn) }
        }
        ClientCall::Restore { oid, serial, data, prev_txn, txn } => {
            Request::Restore { oid, serial, data: data.map(Cow::from), prev_txn, id: name(txn) }
        }
        ClientCall::DeleteObject { oid, serial, txn } => Request::DeleteObject { oid, serial, id: name(txn) },
        ClientCall::CheckCurrentSerial { oid, serial, txn } => {
            Request::CheckCurrentSerial { oid, serial, id: name(txn) }
        }
        ClientCall::Undo { undone, txn } => Request::Undo { tid_id: Value::bytes(undone), id: name(txn) },
        ClientCall::Vote { txn } => Request::Vote { id: name(txn) },
        ClientCall::TpcFinish { txn } => Request::TpcFinish { id: name(txn) },
        ClientCall::TpcAbort { txn } => Request::TpcAbort { id: name(txn) },
        ClientCall::StoreBlobStart => Request::StoreBlobStart,
        ClientCall::StoreBlobChunk { chunk } => Request::StoreBlobChunk { chunk: chunk.into() },
        ClientCall::StoreBlobEnd { oid, serial, data, txn } => {
            Request::StoreBlobEnd { oid, serial, data: data.into(), id: name(txn) }
        }
        ClientCall::StoreBlobShared { oid, serial, data, filename, txn } => Request::StoreBlobShared {
            oid,
            serial,
            data: data.into(),
            filename: filename.into(),
            id: name(txn),
        },
        ClientCall::SendBlob { oid, serial } => Request::SendBlob { oid, serial },
        ClientCall::UndoLog { first, last } => Request::UndoLog { first, last },
        ClientCall::UndoInfo { first, last, specification } => {
            Request::UndoInfo { first, last, specification: read(specification) }
        }
        ClientCall::Pack { time, wait } => Request::Pack { time, wait: Some(wait) },
        ClientCall::IteratorStart { start, stop } => Request::IteratorStart { start, stop },
        ClientCall::IteratorNext { iterator } => Request::IteratorNext { iterator },
        ClientCall::IteratorRecordStart { iterator, tid } => Request::IteratorRecordStart { iterator, tid },
        ClientCall::IteratorRecordNext { iterator } => Request::IteratorRecordNext { iterator },
        ClientCall::IteratorGc { iterators } => Request::IteratorGc { iterators: iterators.to_vec() },
        ClientCall::Other { name, args } => {
            Request::Other { name: name.into(), args: args.iter().map(read).collect() }
        }
    }
}

#[test]
fn a_server_reads_every_call() {
    for wire in all_wires() {
        let mut called = Vec::new();
        for call in examples() {
            let method = call.method(wire);
            if method.is_some_and(|method| !wire.knows(method)) {
                continue;
            }
            called.extend(method);
            let mut out = b"an earlier frame".to_vec();
            let start = out.len();
            wire.put_call(700, &call, &mut out);
            let mut read = wire.decode(&out[start + 4..]).unwrap();
            if let (Request::TpcBegin(begin), ClientCall::TpcBegin { extension, .. }) =
                (&mut read.request, &call)
            {
                let written = extension_dict(&std::mem::take(&mut begin.extension));
                let (Some(Value::Dict(written)), Value::Dict(sent)) = (written, extension) else { panic!() };
                let text = |value: &Value| value.string().map(<[u8]>::to_vec);
                for ((key, value), sent) in written.iter().zip(sent) {
                    assert_eq!((text(key), text(value)), (text(&sent.0), text(&sent.1)));
                }
                assert_eq!(written.len(), sent.len());
            }
            assert_eq!(
                format!("{:?}", read.request),
                format!("{:?}", expected(&call, wire)),
                "{wire:?} {call:?}"
            );
            let one_way = method.is_some_and(|method| wire.is_one_way(method));
            assert_eq!((read.is_async, read.id), (one_way, MsgId::Int(if one_way { 0 } else { 700 })));
        }
        for method in ALL {
            assert_eq!(wire.knows(*method), called.contains(method), "{wire:?}: an example of {method:?}");
        }
        let mut out = Vec::new();
        wire.put_keep_alive(&mut out);
        assert!(matches!(wire.decode(&out[4..]).unwrap().request, Request::KeepAlive));
    }
}

/// The table of calls in `docs/protocol.md` is the one in force.
#[test]
fn the_documented_calls_are_those_in_force() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/protocol.md");
    let docs = std::fs::read_to_string(path).unwrap();
    let (_, section) = docs.split_once("\n## What a client calls\n").expect("the section");
    let table: Vec<Vec<&str>> = section
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let [head, _, lines @ ..] = table.as_slice() else { panic!("no table") };
    let mut documented = Vec::new();
    for line in lines {
        for name in line[0].split('`').skip(1).step_by(2) {
            let name = name.split('(').next().unwrap();
            let method = ALL.iter().find(|method| method.name() == name).unwrap_or_else(|| panic!("{name}"));
            documented.push(*method);
            for (generations, cell) in head[1..].iter().zip(&line[1..]) {
                for generation in generations.split(' ') {
                    let generation = Generation::parse(generation.as_bytes()).unwrap();
                    let wire = Wire { generation, encoding: Encoding::Msgpack };
                    let taken = match (wire.knows(*method), wire.is_one_way(*method)) {
                        (false, _) => "",
                        (true, true) => "one-way",
                        (true, false) => "reply",
                    };
                    assert_eq!(*cell, taken, "{name} of {generation}");
                }
            }
        }
    }
    documented.sort_by_key(|method| method.name());
    let mut all: Vec<Method> = ALL.to_vec();
    all.sort_by_key(|method| method.name());
    assert_eq!(documented, all);
}

fn answer<'a>(wire: Wire, frame: &'a [u8]) -> Answer<'a> {
    match wire.from_server(&frame[4..]) {
        Ok(FromServer::Reply { id: 7, answer }) => answer,
        other => panic!("{wire:?}: {other:?}: {}", frame.escape_ascii()),
    }
}

fn replied(wire: Wire, value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    wire.reply(MsgId::Int(7), value, &mut out);
    out
}

#[test]
fn a_client_reads_every_load() {
    for wire in all_wires() {
        for data in [&b""[..], b"d", &[7; 300], &[7; 70_000]] {
            for (shape, end) in [
                (LoadShape::Before, None),
                (LoadShape::Before, Some(Tid(9))),
                (LoadShape::Load, None),
                (LoadShape::LoadEx, None),
            ] {
                let headroom = wire.load_headroom(MsgId::Int(7));
                let mut out = [&vec![0; headroom], data].concat();
                wire.load_reply(shape, MsgId::Int(7), SERIAL, end, &mut out, 0, headroom);
                let loaded = answer(wire, &out).loaded().unwrap();
                assert_eq!(loaded, Some(LoadAnswer { data, serial: SERIAL, end }), "{wire:?} {shape:?}");
                assert!(answer(wire, &out).tid().is_err() && answer(wire, &out).bytes().is_err());
            }
            let headroom = wire.load_headroom(MsgId::Int(7));
            let mut out = [&vec![0; headroom], data].concat();
            wire.load_reply(LoadShape::Serial, MsgId::Int(7), SERIAL, None, &mut out, 0, headroom);
            assert_eq!(answer(wire, &out).bytes().unwrap(), data);
            assert!(answer(wire, &out).loaded().is_err());
        }
        let mut out = Vec::new();
        wire.none_reply(MsgId::Int(7), &mut out);
        assert_eq!(answer(wire, &out).loaded().unwrap(), None);
        assert_eq!(answer(wire, &out).optional_tid().unwrap(), None);
        assert_eq!(answer(wire, &out).invalidations().unwrap(), None);
        assert_eq!(answer(wire, &out).value().unwrap(), Value::None);
        assert!(answer(wire, &out).tid().is_err());
        answer(wire, &out).done().unwrap();
        out.clear();
        wire.tid_reply(MsgId::Int(7), SERIAL, &mut out);
        assert_eq!(answer(wire, &out).tid().unwrap(), SERIAL);
        assert_eq!(answer(wire, &replied(wire, &Value::Int(300))).int().unwrap(), 300);
    }
}

#[test]
fn a_client_reads_every_list_of_invalidations() {
    for wire in all_wires() {
        for count in [0, 1, 2, 3, 15, 16, 1000, 1001, 70_000] {
            let oids: Vec<Oid> = (0..count).map(|oid| Oid(oid << 8)).collect();
            let mut out = Vec::new();
            wire.invalidations_reply(MsgId::Int(7), SERIAL, &oids, &mut out);
            assert_eq!(
                answer(wire, &out).invalidations().unwrap(),
                Some((SERIAL, oids.clone())),
                "{wire:?} {count}"
            );
            out.clear();
            wire.push(&Push::Invalidate { tid: SERIAL, oids: &oids }, &mut out);
            let Ok(FromServer::Push(ServerPush::Invalidate { tid, oids: read })) =
                wire.from_server(&out[4..])
            else {
                panic!("{:?}", wire.from_server(&out[4..]))
            };
            assert_eq!((tid, &read), (SERIAL, &oids));
            if count < 1002 {
                // as Python may send it
                let items = oids.iter().map(|oid| Value::from(*oid)).collect();
                let out = replied(wire, &Value::Tuple(vec![SERIAL.into(), Value::Tuple(items)]));
                assert_eq!(answer(wire, &out).invalidations().unwrap(), Some((SERIAL, oids)));
            }
        }
    }
}

/// Python's pickler appends the items of a list a thousand at a time.
#[test]
fn lists_may_be_appended_in_parts() {
    let z5 = Wire { generation: Generation::Z5, encoding: Encoding::Pickle(Dialect::Python3) };
    let oid = |n: u8| [b"C\x08\0\0\0\0\0\0\0", &[n][..]].concat();
    let parts = [
        &b"\x80\x03(K\x07K\x00X\x06\0\0\0.reply"[..],
        &oid(9),
        b"](",
        &oid(1),
        &oid(2),
        b"e(",
        &oid(3),
        b"e",
        &oid(4),
        b"a\x86t.",
    ];
    let frame = [b"\0\0\0\0", &parts.concat()[..]].concat();
    let expected = (Tid(9), vec![Oid(1), Oid(2), Oid(3), Oid(4)]);
    assert_eq!(answer(z5, &frame).invalidations().unwrap(), Some(expected));
    // oids that are never appended, and lists within
    for broken in [&b"\x86t."[..], b"(\x86t.", b"](e\x86t.", b"a"] {
        let frame = [b"\0\0\0\0", &parts[..5].concat()[..], broken].concat();
        assert!(answer(z5, &frame).invalidations().is_err(), "{}", broken.escape_ascii());
    }
}

#[test]
fn a_client_reads_every_push() {
    let conflict = PyException::new("ZODB.POSException", "ConflictError", Vec::new()).with([
        ("message", Value::text("database conflict error")),
        ("oid", OID.into()),
        ("serials", Value::Tuple(vec![SERIAL.into(), SERIAL.into()])),
    ]);
    for wire in all_wires() {
        let read = |push: &Push<'_>| {
            let mut out = Vec::new();
            wire.push(push, &mut out);
            match wire.from_server(Box::leak(out[4..].into())) {
                Ok(FromServer::Push(push)) => push,
                other => panic!("{wire:?}: {other:?}"),
            }
        };
        let (oid, serial) = (OID, SERIAL);
        assert_eq!(read(&Push::EndVerify), ServerPush::EndVerify);
        assert_eq!(read(&Push::InvalidateVerify { oid }), ServerPush::InvalidateVerify { oid });
        assert_eq!(read(&Push::BlobStart { oid, serial }), ServerPush::BlobStart { oid, serial });
        assert_eq!(read(&Push::BlobStop { oid, serial }), ServerPush::BlobStop { oid, serial });
        for len in [0, 1, 59_000] {
            let mut out = Vec::new();
            let start = wire.blob_chunk(oid, serial, len, &mut out);
            out[start..start + len].fill(0x55);
            match wire.from_server(&out[4..]) {
                Ok(FromServer::Push(ServerPush::BlobChunk { oid: OID, serial: SERIAL, chunk })) => {
                    assert_eq!(chunk, vec![0x55; len]);
                }
                other => panic!("{other:?}"),
            }
        }
        match read(&Push::Info(Value::dict([("length", Value::Int(70_000))]))) {
            ServerPush::Info(Value::Dict(pairs)) => {
                assert_eq!((pairs[0].0.string(), &pairs[0].1), (Some(&b"length"[..]), &Value::Int(70_000)));
            }
            other => panic!("{other:?}"),
        }
        if wire.sends_serialnos() {
            let exception = Value::Exception(Box::new(conflict.clone()));
            let pairs = vec![(oid, serial.into()), (Oid(2), Value::text("rs")), (Oid(3), exception)];
            let ServerPush::Serialnos(read) = read(&Push::Serialnos(pairs)) else { panic!() };
            assert_eq!(read[..2], [(oid, Serialno::Stored(serial)), (Oid(2), Serialno::Resolved)]);
            let (Oid(3), Serialno::Raised(raised)) = &read[2] else { panic!("{:?}", read[2]) };
            assert_eq!((&*raised.module, &*raised.name), ("ZODB.POSException", "ConflictError"));
            let oid = raised.attributes.iter().find(|(name, _)| name == "oid").unwrap();
            assert_eq!(oid.1.string(), Some(&OID.to_bytes()[..]));
        }
    }
    let z5 = Wire { generation: Generation::Z5, encoding: Encoding::Msgpack };
    assert!(z5.from_server(b"\x94\x00\xc3\xa4boom\x90").is_err());
    assert!(matches!(z5.from_server(b"\x94\xff\x00\xa6.reply\xc0"), Ok(FromServer::KeepAlive)));
}

#[test]
fn a_client_reads_every_exception() {
    let undo = PyException::new("ZODB.POSException", "UndoError", vec![Value::text("why"), OID.into()])
        .with([("_reason", Value::text("why")), ("_oid", OID.into())]);
    let exceptions = [
        PyException::builtin("ValueError", "unknown storage: x"),
        PyException::new(BUILTINS, "KeyError", vec![OID.into()]),
        PyException::new("ZODB.POSException", "POSKeyError", vec![OID.into()]),
        PyException::new("ZODB.POSException", "ReadOnlyError", Vec::new()),
        PyException::new("ZODB.POSException", "ConflictError", Vec::new()).with([
            ("message", Value::text("database conflict error")),
            ("oid", OID.into()),
            ("class_name", Value::None),
            ("serials", Value::Tuple(vec![SERIAL.into(), Tid(5).into()])),
        ]),
        PyException::new("ZODB.POSException", "MultipleUndoErrors", Vec::new()).with([(
            "_errs",
            Value::List(vec![Value::Tuple(vec![OID.into(), Value::Exception(Box::new(undo))])]),
        )]),
    ];
    for wire in all_wires() {
        for exception in &exceptions {
            let mut out = Vec::new();
            wire.error_reply(MsgId::Int(7), exception, &mut out);
            let raised =
                answer(wire, &out).raised().unwrap().unwrap_or_else(|| panic!("{wire:?} {exception:?}"));
            assert_eq!((&raised.module, &raised.name), (&exception.module, &exception.name));
            // Sent again, it is the same message: nothing is lost.
            let mut again = Vec::new();
            wire.error_reply(MsgId::Int(7), &raised, &mut again);
            let same = |frame: &[u8]| {
                let tree = parse(wire, &frame[4..]);
                sorted_tree(&tree)
            };
            if exception.name != "MultipleUndoErrors" || wire.encoding != Encoding::Msgpack {
                assert_eq!(same(&again), same(&out), "{wire:?}");
            }
            let error = answer(wire, &out).value().unwrap_err().to_string();
            assert!(error.contains(&*exception.name), "{error}");
            assert!(answer(wire, &out).loaded().is_err() && answer(wire, &out).done().is_err());
        }
    }
}

fn sorted_tree(tree: &Tree<'_>) -> String {
    let Node::Tuple(parts) = tree.node(tree.root()) else { panic!() };
    format!("{:?}", parts.iter().map(|id| loose(tree, *id)).collect::<Vec<_>>())
}

/// Like `sorted`, with states.
fn loose(tree: &Tree<'_>, id: NodeId) -> String {
    match tree.node(id) {
        Node::Object(object) => {
            let state = object.state.map(|state| loose(tree, state));
            format!("{}({}){state:?}", loose(tree, object.class), loose(tree, object.args))
        }
        Node::Tuple(items) | Node::List(items) => {
            format!("{:?}", items.iter().map(|id| loose(tree, *id)).collect::<Vec<_>>())
        }
        Node::Dict(pairs) => {
            let mut pairs: Vec<_> =
                pairs.iter().map(|(key, value)| (loose(tree, *key), loose(tree, *value))).collect();
            pairs.sort();
            format!("{pairs:?}")
        }
        other => format!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn values_from_a_server_are_those_that_were_sent(value in plain_value()) {
        for wire in all_wires() {
            let out = replied(wire, &value);
            let expected = as_sent(&value, wire.encoding);
            prop_assert_eq!(answer(wire, &out).value().unwrap(), expected);
        }
    }

    #[test]
    fn garbage_from_a_server_is_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0..60usize) {
        for wire in all_wires() {
            let mut out = Vec::new();
            wire.invalidations_reply(MsgId::Int(7), SERIAL, &[OID, OID], &mut out);
            let mut message = out.split_off(4);
            message.truncate(cut);
            message.extend_from_slice(&bytes);
            for message in [&message, &bytes] {
                if let Ok(FromServer::Reply { answer, .. }) = wire.from_server(message) {
                    let _ = (answer.loaded(), answer.optional_tid(), answer.invalidations(), answer.value());
                }
            }
        }
    }
}

/// A value as [`Answer::value`] gives it: strings of Python 2 keep their types.
fn as_sent(value: &Value, encoding: Encoding) -> Value {
    let all = |items: &[Value]| items.iter().map(|item| as_sent(item, encoding)).collect();
    match (value, encoding) {
        (Value::Text(text), Encoding::Pickle(Dialect::Python2)) if text.is_ascii() => {
            Value::Str(text.as_bytes().to_vec())
        }
        (Value::Text(text), Encoding::Pickle(Dialect::Python2)) => Value::Unicode(text.clone()),
        (Value::Bytes(bytes), Encoding::Pickle(Dialect::Python2)) => Value::Str(bytes.clone()),
        (Value::List(items), Encoding::Msgpack) => Value::Tuple(all(items)),
        (Value::List(items), _) => Value::List(all(items)),
        (Value::Tuple(items), _) => Value::Tuple(all(items)),
        (Value::Dict(pairs), _) => {
            Value::Dict(pairs.iter().map(|(k, v)| (as_sent(k, encoding), as_sent(v, encoding))).collect())
        }
        (other, _) => other.clone(),
    }
}
