//! The encodings compared with messages of real clients and servers of each generation:
//! `python-fixtures/wire/*.frames`, made by the script in that directory.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use super::*;

/// A recorded session.
pub(super) struct Recording {
    pub name: String,
    /// (connection, whether from the client, payload).
    pub frames: Vec<(usize, bool, Vec<u8>)>,
    /// Extensions of the transactions in the file.
    extensions: Vec<Vec<u8>>,
}

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

pub(super) fn recordings() -> Vec<Recording> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("python-fixtures/wire");
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "frames") {
            continue;
        }
        let mut recording = Recording {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            frames: Vec::new(),
            extensions: Vec::new(),
        };
        for line in fs::read_to_string(&path).unwrap().lines() {
            match line.split(' ').collect::<Vec<_>>().as_slice() {
                ["ext", hex] => recording.extensions.push(unhex(hex)),
                [number, who, hex] => {
                    recording.frames.push((number.parse().unwrap(), *who == "c", unhex(hex)));
                }
                _ => panic!("{line}"),
            }
        }
        found.push(recording);
    }
    assert!(found.len() >= 8, "recordings are missing");
    found
}

/// The calls of all clients, with the wire that each connection speaks.
pub(super) fn calls(recording: &Recording) -> Vec<(usize, Wire, &[u8])> {
    let mut generations = HashMap::new();
    let mut wires = HashMap::new();
    let mut calls = Vec::new();
    for (connection, from_client, payload) in &recording.frames {
        if !from_client {
            continue;
        }
        let Some(&(generation, msgpack)) = generations.get(connection) else {
            match negotiate(Greeting::new(false), payload).unwrap() {
                GreetingAnswer::Speaks { generation, msgpack } => {
                    generations.insert(*connection, (generation, msgpack));
                }
                GreetingAnswer::RuOk => panic!(),
            }
            continue;
        };
        let wire =
            *wires.entry(*connection).or_insert_with(|| Wire::of_first_message(generation, msgpack, payload));
        calls.push((*connection, wire, payload.as_slice()));
    }
    calls
}

#[test]
fn every_call_of_every_client_is_understood() {
    for recording in recordings() {
        let mut counts: HashMap<String, usize> = HashMap::new();
        for (_, wire, payload) in calls(&recording) {
            let call =
                wire.decode(payload).unwrap_or_else(|e| panic!("{}: {e}: {payload:?}", recording.name));
            match &call.request {
                Request::Other { name, .. } => panic!("{}: unknown method {name}", recording.name),
                Request::Malformed { method, exception } => {
                    assert_eq!((method.as_ref(), &*exception.name), ("loadBefore", "TypeError"));
                }
                _ => {}
            }
            let debug = format!("{:?}", call.request);
            let name = debug.split([' ', '(']).next().unwrap().to_string();
            *counts.entry(name).or_default() += 1;
        }
        eprintln!("{}: {counts:?}", recording.name);
        for name in ["Register", "TpcBegin", "Store", "Vote", "TpcFinish", "TpcAbort", "LoadBefore", "Undo"] {
            if name == "Undo" {
                assert!(counts.contains_key("UndoLog") && counts.contains_key("UndoInfo"));
            } else {
                assert!(counts.contains_key(name), "{}: no {name}: {counts:?}", recording.name);
            }
        }
    }
}

#[test]
fn extensions_are_what_python_wrote_into_the_file() {
    for recording in recordings() {
        let mut sent = Vec::new();
        for (_, wire, payload) in calls(&recording) {
            if let Request::TpcBegin(begin) = wire.decode(payload).unwrap().request {
                sent.push(begin.extension);
            }
        }
        // The file has the committed transactions, in order; some were not committed.
        let mut sent = sent.into_iter();
        for extension in &recording.extensions {
            assert!(sent.any(|sent| sent == *extension), "{}: {}", recording.name, extension.escape_ascii());
        }
    }
}

/// A value or exception from a Python server, to be encoded again.
fn value_of(tree: &Tree<'_>, id: NodeId) -> Value {
    let all = |items: &[NodeId]| items.iter().map(|id| value_of(tree, *id)).collect();
    match tree.node(id) {
        Node::Tuple(items) => Value::Tuple(all(items)),
        Node::List(items) => Value::List(all(items)),
        Node::Dict(pairs) => {
            Value::Dict(pairs.iter().map(|(k, v)| (value_of(tree, *k), value_of(tree, *v))).collect())
        }
        Node::Object(_) => Value::Exception(Box::new(exception_of(tree, id))),
        _ => Value::from_tree(tree, id).unwrap(),
    }
}

fn leak(text: &[u8]) -> &'static str {
    Box::leak(String::from_utf8(text.to_vec()).unwrap().into_boxed_str())
}

fn text_of(value: &Value) -> &'static str {
    match value {
        Value::Text(text) => leak(text.as_bytes()),
        Value::Bytes(text) => leak(text),
        other => panic!("{other:?}"),
    }
}

fn class_of(tree: &Tree<'_>, id: NodeId) -> (&'static str, &'static str) {
    match tree.node(id) {
        Node::Global { module, .. } if module.as_ref() == b"exceptions" => {
            let Node::Global { name, .. } = tree.node(id) else { panic!() };
            (BUILTINS, leak(name))
        }
        Node::Global { module, name } => (leak(module), leak(name)),
        other => panic!("{other:?}"),
    }
}

/// An exception from a pickled instance.
fn exception_of(tree: &Tree<'_>, id: NodeId) -> PyException {
    let Node::Object(object) = tree.node(id) else { panic!("{:?}", tree.node(id)) };
    let Node::Tuple(args) = tree.node(object.args) else { panic!() };
    let (class, state) = match class_of(tree, object.class) {
        (_, "_recon") => (class_of(tree, args[0]), Some(args[1])),
        class => (class, None),
    };
    let mut exception = PyException::new(class.0, class.1, Vec::new());
    match state {
        Some(state) => {
            let Value::Dict(pairs) = value_of(tree, state) else { panic!() };
            for (name, value) in pairs {
                match text_of(&name) {
                    "args" => {
                        let Value::Tuple(args) = value else { panic!() };
                        exception.args = args;
                    }
                    name => exception.attributes.push((name.into(), value)),
                }
            }
        }
        None => exception.args = args.iter().map(|id| value_of(tree, *id)).collect(),
    }
    exception
}

#[test]
fn replies_are_those_of_pythons_server() {
    for recording in recordings() {
        let wires: HashMap<usize, Wire> =
            calls(&recording).into_iter().map(|(connection, wire, _)| (connection, wire)).collect();
        let (mut same, mut alike) = (0, 0);
        let mut greeted = Vec::new();
        for (connection, from_client, payload) in &recording.frames {
            if *from_client {
                continue;
            }
            if !greeted.contains(connection) {
                greeted.push(*connection);
                continue;
            }
            let Some(wire) = wires.get(connection) else { continue };
            let tree = parse(*wire, payload);
            let Node::Tuple(parts) = tree.node(tree.root()) else { panic!() };
            let id = match tree.node(parts[0]) {
                Node::Int(id) => MsgId::Int(*id),
                _ => MsgId::Raw(tree.encoded(parts[0]).unwrap()),
            };
            let method = text_of(&value_of(&tree, parts[2]));
            let read = |payload: &'_ [u8]| -> String {
                let tree = parse(*wire, payload);
                // Servers before 3.10 number the calls that they make; clients ignore the numbers.
                let Node::Tuple(parts) = tree.node(tree.root()) else { panic!() };
                let skip = usize::from(method != ".reply");
                parts[skip..].iter().map(|id| sorted(&tree, *id)).collect::<Vec<_>>().join(" ")
            };
            let mut ours = Vec::new();
            match (method, tree.node(parts[1])) {
                (".reply", Node::Int(2)) => {
                    let Value::Tuple(pair) = value_of(&tree, parts[3]) else { panic!() };
                    let (module, name) = text_of(&pair[0]).rsplit_once('.').unwrap();
                    let mut exception = PyException::new(module, name, Vec::new());
                    match pair[1].clone() {
                        Value::Tuple(args) => exception.args = args,
                        Value::Dict(pairs) => {
                            exception.attributes = pairs
                                .into_iter()
                                .map(|(name, value)| (text_of(&name).into(), value))
                                .collect();
                        }
                        other => panic!("{other:?}"),
                    }
                    wire.error_reply(id, &exception, &mut ours);
                }
                (".reply", _) => match tree.node(parts[3]) {
                    Node::Tuple(pair)
                        if pair.first().is_some_and(|id| matches!(tree.node(*id), Node::Global { .. })) =>
                    {
                        wire.error_reply(id, &exception_of(&tree, pair[1]), &mut ours);
                    }
                    _ => wire.reply(id, &value_of(&tree, parts[3]), &mut ours),
                },
                (push, _) => {
                    let Value::Tuple(args) = value_of(&tree, parts[3]) else { panic!() };
                    let oid_of = |value: &Value| match value {
                        Value::Bytes(oid) => Oid::from_slice(oid).unwrap(),
                        Value::Tuple(pair) => match &pair[0] {
                            Value::Bytes(oid) => Oid::from_slice(oid).unwrap(),
                            other => panic!("{other:?}"),
                        },
                        other => panic!("{other:?}"),
                    };
                    match (push, args.as_slice()) {
                        ("info", [info]) => wire.push(&Push::Info(info.clone()), &mut ours),
                        ("endVerify", []) => wire.push(&Push::EndVerify, &mut ours),
                        ("invalidateVerify", [oid]) => {
                            wire.push(&Push::InvalidateVerify { oid: oid_of(oid) }, &mut ours);
                        }
                        ("serialnos", [Value::List(pairs)]) => {
                            let serials = pairs
                                .iter()
                                .map(|pair| {
                                    let Value::Tuple(pair) = pair else { panic!() };
                                    (oid_of(&pair[0]), pair[1].clone())
                                })
                                .collect();
                            wire.push(&Push::Serialnos(serials), &mut ours);
                        }
                        (
                            "invalidateTransaction",
                            [Value::Bytes(tid), Value::List(oids) | Value::Tuple(oids)],
                        ) => {
                            let oids: Vec<Oid> = oids.iter().map(oid_of).collect();
                            let tid = Tid::from_slice(tid).unwrap();
                            wire.push(&Push::Invalidate { tid, oids: &oids }, &mut ours);
                        }
                        other => panic!("{other:?}"),
                    }
                }
            }
            let ours = &ours[4..];
            if ours == payload {
                same += 1;
            } else {
                assert_eq!(
                    read(ours),
                    read(payload),
                    "{}: ours {}, Python's {}",
                    recording.name,
                    ours.escape_ascii(),
                    payload.escape_ascii()
                );
                alike += 1;
            }
        }
        eprintln!("{}: {same} the same bytes, {alike} the same values", recording.name);
        assert!(same > 2 * alike, "{}: {same} {alike}", recording.name);
    }
}

#[test]
fn both_ways_into_a_message_agree() {
    for recording in recordings() {
        for (_, wire, payload) in calls(&recording) {
            let fast = wire.decode(payload).unwrap();
            let slow = decode_tree(wire, payload).unwrap();
            assert_eq!(format!("{:?}", fast.request), format!("{:?}", slow.request));
            assert_eq!(fast.is_async, slow.is_async);
            let mut replies = [Vec::new(), Vec::new()];
            wire.none_reply(fast.id, &mut replies[0]);
            wire.none_reply(slow.id, &mut replies[1]);
            assert_eq!(replies[0], replies[1]);
        }
    }
}

#[test]
fn a_prefix_of_undo_info_is_a_value() {
    let recording = recordings().into_iter().find(|recording| recording.name == "zodb38-py27").unwrap();
    let found = calls(&recording).into_iter().any(|(_, wire, payload)| {
        let Request::UndoInfo { specification, .. } = wire.decode(payload).unwrap().request else {
            return false;
        };
        let prefix = Value::Prefix(Box::new(Value::bytes("/path")));
        specification == Value::Dict(vec![(Value::bytes("user_name"), prefix)])
    });
    assert!(found);
}
