//! Sessions of whole connections as text: the messages of clients and server, frame by frame, in order.
//!
//! `sessions/*.txt` are documentation: they show rules R1 to R6 of docs/architecture.md for clients of several
//! generations. A line is a comment (`#`), opens a connection (`A opens Z5`), or is a frame. `>` is a frame of the
//! client, `<` of the server:
//!
//! - `A > 3 vote(7)` is a call with message id 3; without a number no reply is wanted.
//! - `A < 3 = value` is the reply, `A < 3 ! class detail` an error reply, `A < method(arguments)` is sent unasked.
//! - `@1` is an oid; `$1`, `$2` ... are tids in the order of their first appearance, `latest` the largest.
//!   `record("x")` is an object record with x in it. `{length, size}` and other values are written as in Python.
//!
//! Frames of the server are read from the connection at their line; at the end each client stops sending, and frames
//! without a line are shown. `UPDATE_SESSIONS=1` rewrites the server's lines; in a new file they can be `A < ?`.

mod value;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::client::{Incoming, RawClient, Speaks};
use crate::support::process::Server;
use value::{Names, parse_call};

/// The dialect of a protocol, by its name in the handshake.
fn speaks(protocol: &str) -> Speaks {
    match protocol {
        "Z200" | "Z201" | "Z303" | "Z308" => Speaks::Z308,
        "Z309" => Speaks::Z309,
        "Z310" | "Z3101" => Speaks::Z3101,
        "Z4" => Speaks::Z4,
        "Z5" => Speaks::Z5,
        "M5" => Speaks::M5,
        other => panic!("no protocol {other}"),
    }
}

struct Session {
    server: Server,
    clients: BTreeMap<String, RawClient>,
    names: Names,
}

impl Session {
    /// The actual text of a line of the file.
    fn play(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.splitn(3, ' ').collect();
        match words[..] {
            [] | [""] => String::new(),
            [mark, ..] if mark.starts_with('#') => line.to_string(),
            [name, "opens", protocol] => {
                let client = RawClient::connect_announcing(self.server.address, speaks(protocol), protocol);
                self.clients.insert(name.to_string(), client.expect("connect"));
                line.to_string()
            }
            [name, ">", call] => format!("{name} > {}", self.send(name, call)),
            [name, "<", _] => format!("{name} < {}", self.receive(name)),
            _ => panic!("no line of a session: {line:?}"),
        }
    }

    fn send(&mut self, name: &str, call: &str) -> String {
        let client = self.clients.get_mut(name).expect("an open connection");
        let (numbered, call) = match call.split_once(' ') {
            Some((id, rest)) if id.bytes().all(|b| b.is_ascii_digit()) => (true, rest),
            _ => (false, call),
        };
        let (method, args) = parse_call(call, &self.names);
        let shown = format!("{method}({})", self.names.show_list(&args));
        let shown = if numbered {
            format!("{} {shown}", client.queue_call(&method, args))
        } else {
            client.queue_async(&method, args);
            shown
        };
        client.flush().expect("send");
        shown
    }

    fn receive(&mut self, name: &str) -> String {
        let client = self.clients.get_mut(name).expect("an open connection");
        match client.next() {
            Ok(incoming) => self.show(&incoming),
            Err(error) => format!("nothing: {error}"),
        }
    }

    fn show(&mut self, incoming: &Incoming) -> String {
        match incoming {
            Incoming::Reply { id, value } => format!("{id} = {}", self.names.show(value)),
            Incoming::Error { id, class, detail } => {
                format!("{id} ! {} {}", class.trim_matches(['<', '>']), self.names.show(detail))
            }
            Incoming::Push { method, args } => format!("{method}({})", self.names.show_list(args)),
        }
    }

    /// The frames without a line.
    fn rest(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        for name in self.clients.keys().cloned().collect::<Vec<_>>() {
            let client = self.clients.get_mut(&name).expect("it is there");
            client.half_close();
            client.set_read_timeout(Duration::from_secs(60));
            loop {
                match self.clients.get_mut(&name).expect("it is there").next() {
                    Ok(incoming) => lines.push(format!("{name} < {}", self.show(&incoming))),
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                    Err(error) => panic!("{name}: the server does not close: {error}"),
                }
            }
        }
        lines
    }
}

/// All lines of both texts, with `-` and `+` before differing ones.
fn differences(expected: &str, got: &str) -> String {
    let (expected, got): (Vec<_>, Vec<_>) = (expected.lines().collect(), got.lines().collect());
    let mut shown = String::new();
    for number in 0..expected.len().max(got.len()) {
        let (old, new) = (expected.get(number), got.get(number));
        if old == new {
            shown += &format!("    {}\n", old.expect("one of them is there"));
            continue;
        }
        for (mark, line) in [("-", old), ("+", new)] {
            if let Some(line) = line {
                shown += &format!("{mark}   {line}\n");
            }
        }
    }
    shown
}

fn files() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/server/sessions");
    let entries = fs::read_dir(dir).expect("the sessions").map(|entry| entry.expect("readable").path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "txt")).collect();
    files.sort();
    files
}

#[test]
fn every_session_is_as_it_is_written() {
    let files = files();
    assert!(files.len() >= 8, "{files:?}");
    let mut failures = String::new();
    for path in files {
        let expected = fs::read_to_string(&path).expect("readable");
        let server = Server::start();
        let mut session = Session { server, clients: BTreeMap::new(), names: Names::default() };
        let mut got: Vec<String> = expected.lines().map(|line| session.play(line)).collect();
        got.extend(session.rest());
        let got = got.join("\n") + "\n";
        if std::env::var_os("UPDATE_SESSIONS").is_some() {
            fs::write(&path, got).expect("write");
        } else if got != expected {
            failures += &format!("{}:\n{}\n", path.display(), differences(&expected, &got));
        }
    }
    assert!(
        failures.is_empty(),
        "sessions that went otherwise (- is the file, + what happened):\n{failures}"
    );
}
