//! The codecs against what real clients and servers of each generation said: `python-fixtures/wire/*.frames`, made
//! by the script beside them.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use super::protocol::*;
use super::request::*;

/// A recorded session.
struct Recording {
    name: String,
    /// (connection, from the client?, payload)
    frames: Vec<(usize, bool, Vec<u8>)>,
    /// Extensions of the transactions in the file
    extensions: Vec<Vec<u8>>,
}

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn recordings() -> Vec<Recording> {
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
fn calls(recording: &Recording) -> Vec<(usize, Wire, &[u8])> {
    let mut generations = HashMap::new();
    let mut wires = HashMap::new();
    let mut calls = Vec::new();
    for (connection, from_client, payload) in &recording.frames {
        if !from_client {
            continue;
        }
        let Some(&(generation, msgpack)) = generations.get(connection) else {
            match negotiate(Announcement::new(false), payload).unwrap() {
                Answer::Speaks { generation, msgpack } => {
                    generations.insert(*connection, (generation, msgpack));
                }
                Answer::RuOk => panic!(),
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
                    assert_eq!((method.as_ref(), exception.name), ("loadBefore", "TypeError"));
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
        // Not every transaction was committed; those that were are in the file, in order.
        let mut sent = sent.into_iter();
        for extension in &recording.extensions {
            assert!(sent.any(|sent| sent == *extension), "{}: {}", recording.name, extension.escape_ascii());
        }
    }
}
