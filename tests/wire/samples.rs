//! Writes samples of the server's messages to clients of every kind, each with the Python expression for its value:
//! `target/wire-samples.txt`, which `compat-tests/wire/run` gives to real clients.

use std::fmt::Write as _;

use runzeo::auth::PyException;
use runzeo::auth::Value;
use runzeo::ids::{Oid, Tid};
use runzeo::internal::wire::protocol::{Dialect, Encoding, Generation, Wire};
use runzeo::internal::wire::push::Push;
use runzeo::internal::wire::reply::LoadShape;
use runzeo::internal::wire::request::MsgId;

/// The expression in Python 2 and 3 that has this value.
fn expression(value: &Value) -> String {
    let all = |items: &[Value]| items.iter().map(|item| expression(item) + ",").collect::<String>();
    match value {
        Value::None => "None".to_string(),
        Value::Bool(true) => "True".to_string(),
        Value::Bool(false) => "False".to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => format!("{value:?}"),
        Value::Bytes(value) => bytes(value),
        Value::Text(value) => format!("{}.decode('utf-8')", bytes(value.as_bytes())),
        Value::Tuple(items) => format!("({})", all(items)),
        Value::List(items) => format!("[{}]", all(items)),
        Value::Dict(pairs) => {
            let pairs = pairs.iter().map(|(k, v)| format!("{}: {},", expression(k), expression(v)));
            format!("{{{}}}", pairs.collect::<String>())
        }
        other => panic!("{other:?} has no expression"),
    }
}

fn bytes(value: &[u8]) -> String {
    value.iter().fold("b'".to_string(), |mut text, byte| {
        let _ = write!(text, "\\x{byte:02x}");
        text
    }) + "'"
}

fn values() -> Vec<Value> {
    let ints = [
        0,
        1,
        255,
        256,
        65_535,
        65_536,
        -1,
        i64::from(i32::MAX),
        i64::from(i32::MIN),
        1 << 31,
        i64::MAX,
        i64::MIN,
    ];
    vec![
        Value::None,
        Value::Tuple(vec![Value::Bool(true), Value::Bool(false), Value::Float(1.5)]),
        Value::List(ints.map(Value::Int).to_vec()),
        Value::List((0..2500).map(Value::Int).collect()),
        Value::List(vec![]),
        Value::Tuple(vec![Value::bytes(b""), Value::bytes([0xff; 300]), Value::bytes(b"\x00\x80\n")]),
        Value::Tuple(vec![Value::text(""), Value::text("abc"), Value::text("gr\u{fc}\u{df} \u{1f600}")]),
        Value::dict([("length", Value::Int(3)), ("nested", Value::dict([("a", Value::Tuple(vec![]))]))]),
        Value::Dict(vec![]),
    ]
}

fn exceptions() -> Vec<PyException> {
    let oid = || Value::from(Oid(7));
    let conflict = PyException::new("ZODB.POSException", "ConflictError", vec![]).with([
        ("message", Value::text("database conflict error")),
        ("oid", oid()),
        ("class_name", Value::text("m.C")),
        ("serials", Value::Tuple(vec![Tid(2).into(), Tid(1).into()])),
    ]);
    let read = PyException { name: "ReadConflictError".into(), ..conflict.clone() };
    vec![
        PyException::new("ZODB.POSException", "POSKeyError", vec![oid()]),
        conflict,
        read,
        PyException::new("ZODB.POSException", "ReadOnlyError", vec![]),
        PyException::new(
            "ZODB.POSException",
            "StorageTransactionError",
            vec![Value::None, Value::Int(1 << 40)],
        ),
        PyException::builtin("ValueError", "unknown storage: x"),
        PyException::builtin("TypeError", "no"),
        PyException::new("ZODB.POSException", "Unsupported", vec![Value::text("undo")]),
        PyException::new("ZODB.FileStorage.FileStorage", "FileStorageQuotaError", vec![Value::text("full")]),
        PyException::new("ZEO.Exceptions", "AuthError", vec![Value::text("no")]),
    ]
}

#[test]
fn samples() {
    let mut lines = String::new();
    let mut line = |wire: Wire, what: &str, id: &str, frame: &[u8], expected: &str| {
        let encoding = match wire.encoding {
            Encoding::Pickle(Dialect::Python2) => "2",
            Encoding::Pickle(Dialect::Python3) => "3",
            Encoding::Msgpack => "m",
        };
        let hex = frame[4..].iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        let _ = writeln!(lines, "{}\t{encoding}\t{what}\t{id}\t{hex}\t{expected}", wire.generation);
    };
    for name in ["Z308", "Z309", "Z310", "Z3101", "Z4", "Z5"] {
        let generation = Generation::parse(name.as_bytes()).unwrap();
        for encoding in
            [Encoding::Pickle(Dialect::Python2), Encoding::Pickle(Dialect::Python3), Encoding::Msgpack]
        {
            if encoding == Encoding::Msgpack && generation != Generation::Z5 {
                continue;
            }
            let wire = Wire { generation, encoding };
            for value in values() {
                let mut out = Vec::new();
                wire.reply(MsgId::Int(300), &value, &mut out);
                line(wire, "reply", "300", &out, &expression(&value));
            }
            for exception in exceptions() {
                let mut out = Vec::new();
                wire.error_reply(MsgId::Int(2), &exception, &mut out);
                let args = expression(&Value::Tuple(exception.args.clone()));
                let attributes =
                    exception.attributes.iter().map(|(name, v)| (Value::text(&**name), v.clone()));
                let attributes = expression(&Value::Dict(attributes.collect()));
                line(
                    wire,
                    "error",
                    "2",
                    &out,
                    &format!("({:?}, {:?}, {args}, {attributes})", exception.module, exception.name),
                );
            }
            for len in [0, 10, 300] {
                let id = MsgId::Load(Oid(1), Tid(2));
                let headroom = wire.load_headroom(id);
                let mut out = vec![0; headroom];
                out.resize(headroom + len, 0x99);
                wire.load_reply(LoadShape::Before, id, Tid(3), None, &mut out, 0, headroom);
                let data = Value::Tuple(vec![Value::bytes(vec![0x99; len]), Tid(3).into(), Value::None]);
                let id = expression(&Value::Tuple(vec![Oid(1).into(), Tid(2).into()]));
                line(wire, "reply", &id, &out, &expression(&data));
            }
            let oids: Vec<Oid> = (1..2000).map(Oid).collect();
            for oids in [&oids[..0], &oids[..1], &oids[..]] {
                let mut out = Vec::new();
                wire.push(&Push::Invalidate { tid: Tid(9), oids }, &mut out);
                let oid = |oid: &Oid| match wire.knows_versions() {
                    true => Value::Tuple(vec![(*oid).into(), Value::bytes("")]),
                    false => (*oid).into(),
                };
                let args = Value::Tuple(vec![Tid(9).into(), Value::List(oids.iter().map(oid).collect())]);
                line(wire, "invalidateTransaction", "0", &out, &expression(&args));
            }
        }
    }
    std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/target/wire-samples.txt"), lines).unwrap();
}
