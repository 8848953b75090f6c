//! `zeofs` at a server that sends what no server does: an error, soon, and never a panic.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use crate::served::run;
use crate::support::msgpack;
use crate::support::pickle::{Value, id, text};

/// What the server says.
#[derive(Clone)]
struct Lies {
    last: u64,
    /// The transactions of an iteration, one after the other, and again the last one.
    transactions: Vec<Value>,
    /// The records of each transaction.
    records: Vec<Value>,
    /// Calls of the iteration that are answered. Then the connection ends.
    answers: usize,
}

impl Lies {
    fn new(transactions: Vec<Value>) -> Lies {
        Lies { last: 1000, transactions, records: vec![record(1, b"cm\nC\n.N.")], answers: 100_000 }
    }
}

fn transaction(tid: u64) -> Value {
    with_texts(tid, " ", Vec::new())
}

fn with_texts(tid: u64, status: &str, user: Vec<u8>) -> Value {
    Value::Tuple(vec![
        id(tid),
        text(status),
        Value::Bytes(user),
        Value::Bytes(Vec::new()),
        Value::Dict(Vec::new()),
    ])
}

fn record(oid: u64, data: &[u8]) -> Value {
    Value::Tuple(vec![id(oid), id(1), Value::Bytes(data.to_vec()), Value::None])
}

/// Serves connections of the protocol M5 until the test ends.
fn serve(lies: Lies) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let lies = lies.clone();
            // A client that goes is no error.
            thread::spawn(move || _ = talk(stream.expect("a connection"), lies));
        }
    });
    address
}

fn send(stream: &mut TcpStream, payload: &[u8]) -> std::io::Result<()> {
    let mut frame = u32::try_from(payload.len()).expect("a short one").to_be_bytes().to_vec();
    frame.extend_from_slice(payload);
    stream.write_all(&frame)
}

fn talk(mut stream: TcpStream, mut lies: Lies) -> std::io::Result<()> {
    send(&mut stream, b"M5")?;
    let mut is_greeted = false;
    let (mut next_txn, mut next_record) = (0, 0);
    loop {
        let mut len = [0; 4];
        stream.read_exact(&mut len)?;
        let mut payload = vec![0; u32::from_be_bytes(len) as usize];
        stream.read_exact(&mut payload)?;
        if !std::mem::replace(&mut is_greeted, true) {
            continue;
        }
        let message = msgpack::loads(&payload);
        let [number, is_async, method, _] = message.tuple() else { panic!("{message:?}") };
        let method = String::from_utf8_lossy(method.bytes()).into_owned();
        if method.starts_with("iterator_") {
            match lies.answers.checked_sub(1) {
                Some(answers) => lies.answers = answers,
                None => return Ok(()),
            }
        }
        let interfaces =
            Value::Tuple(vec![Value::Tuple(vec![text("ZODB.interfaces"), text("IStorageIteration")])]);
        let answer = match method.as_str() {
            "register" | "lastTransaction" => id(lies.last),
            "get_info" => Value::Dict(vec![
                (text("size"), Value::Int(1000)),
                (text("length"), Value::Int(1)),
                (text("interfaces"), interfaces),
            ]),
            "iterator_start" => {
                next_txn = 0;
                Value::Int(0)
            }
            "iterator_record_start" => {
                next_record = 0;
                Value::Int(0)
            }
            "iterator_next" => {
                let at = next_txn.min(lies.transactions.len() - 1);
                next_txn += 1;
                lies.transactions[at].clone()
            }
            "iterator_record_next" => {
                next_record += 1;
                lies.records.get(next_record - 1).cloned().unwrap_or(Value::None)
            }
            _ => Value::None,
        };
        if matches!(is_async, Value::Int(0) | Value::Bool(false)) {
            let reply = Value::Tuple(vec![number.clone(), Value::Int(0), text(".reply"), answer]);
            send(&mut stream, &msgpack::dumps(&reply))?;
        }
    }
}

#[test]
fn what_a_server_must_not_send_is_an_error() {
    let ends =
        |tids: &[u64]| tids.iter().map(|tid| transaction(*tid)).chain([Value::None]).collect::<Vec<_>>();
    let order = "where one from";
    let cases = [
        ("tids that go back", Lies::new(ends(&[5, 6, 4])), order),
        ("the same one for ever", Lies::new(vec![transaction(5)]), order),
        ("one behind the last", Lies::new(ends(&[5, 1001])), order),
        ("the last tid there is", Lies { last: u64::MAX, ..Lies::new(vec![transaction(u64::MAX)]) }, order),
        ("an unknown status", Lies::new(vec![with_texts(5, "c", Vec::new())]), "unknown status"),
        ("a long user", Lies::new(vec![with_texts(5, " ", vec![b'u'; 2 << 20])]), "more than a megabyte"),
        ("no transaction", Lies::new(vec![Value::Int(7)]), ""),
        ("a number instead of records", Lies { records: vec![Value::Int(5)], ..Lies::new(ends(&[5])) }, ""),
        (
            "an empty record",
            Lies { records: vec![record(1, b"")], ..Lies::new(ends(&[5])) },
            "an empty record",
        ),
        ("it goes", Lies { answers: 3, ..Lies::new(ends(&[5, 6])) }, ""),
    ];
    for (about, lies, expected) in cases {
        let url = format!("zeo://{}", serve(lies));
        for command in ["dump", "tail", "stats", "refs", "trees", "oid", "diff"] {
            let second = match command {
                "oid" => &["1"][..],
                "diff" => &["Other.fs"],
                _ => &[],
            };
            let (_, error, status) = run(&[&[command, &url], second].concat());
            assert_eq!(status, Some(1), "{about}: {command}: {error}");
            assert!(
                error.starts_with(&format!("Error: {url}: ")) && error.contains(expected),
                "{about}: {command}: {error}"
            );
            assert_eq!(error.lines().count(), 1, "{about}: {command}: {error}");
        }
    }
}

/// Back-pointers to transactions that are not there, or that have other data, and records that are no pickles.
#[test]
fn strange_records_are_shown() {
    let pointing =
        |data: &[u8], to: u64| Value::Tuple(vec![id(1), id(6), Value::Bytes(data.to_vec()), id(to)]);
    let records = vec![
        record(1, b"cm\nC\n.N."),
        pointing(b"cm\nD\n.N.", 1),
        pointing(b"cm\nD\n.N.", 5),
        pointing(b"other", 99),
        Value::Tuple(vec![id(2), id(0), Value::None, id(3)]),
        record(u64::MAX, &[0xff; 1000]),
    ];
    let lies = Lies { records, ..Lies::new(vec![transaction(5), transaction(6), Value::None]) };
    let url = format!("zeo://{}", serve(lies));
    for (command, expected) in [("dump", 0), ("tail", 0), ("stats", 0), ("refs", 4), ("trees", 0)] {
        let (text, error, status) = run(&[command, &url]);
        assert_eq!((error.as_str(), status), ("", Some(expected)), "{command}: {text}");
    }
}
