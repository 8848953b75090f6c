//! The encodings of every generation, with made-up values and messages; [`recorded`] has messages of real clients and
//! servers,
//! [`client`] and [`client_recorded`] have the
//! client's side.

mod client;
mod client_recorded;
mod recorded;

use proptest::prelude::*;

use super::decode::decode_tree;
use super::exception::{BUILTINS, PyException};
use super::msgpack;
use super::protocol::*;
use super::push::Push;
use super::reply::LoadShape;
use super::request::*;
use super::value::Value;
use crate::base::ids::{Oid, Tid};
use crate::pickle::read::{Accept, read};
use crate::pickle::value::{DEPTH_MAX, Node, NodeId, Tree};

/// The value with the pairs of dicts sorted, because Python 2 orders dicts differently.
fn sorted(tree: &Tree<'_>, id: NodeId) -> String {
    let all = |items: &[NodeId]| items.iter().map(|id| sorted(tree, *id)).collect::<Vec<_>>();
    match tree.node(id) {
        Node::Tuple(items) => format!("({})", all(items).join(", ")),
        Node::List(items) => format!("[{}]", all(items).join(", ")),
        Node::Dict(pairs) => {
            let mut pairs: Vec<_> =
                pairs.iter().map(|(k, v)| format!("{}: {}", sorted(tree, *k), sorted(tree, *v))).collect();
            pairs.sort();
            format!("{{{}}}", pairs.join(", "))
        }
        Node::Object(object) => {
            assert!(object.state.is_none());
            format!("{:?}<{}>{}", object.made_by, sorted(tree, object.class), sorted(tree, object.args))
        }
        // ZEO 4 in Python 2 has the name of a class as `unicode`
        Node::Text(text) if text.is_ascii() => format!("{:?}", Node::Str(text.clone())),
        other => format!("{other:?}"),
    }
}

fn parse(wire: Wire, payload: &[u8]) -> Tree<'_> {
    match wire.encoding {
        Encoding::Pickle(_) => read(payload, Accept::RECORD).unwrap(),
        Encoding::Msgpack => msgpack::tree(payload).unwrap(),
    }
}

/// Every combination of generation and encoding.
fn all_wires() -> Vec<Wire> {
    let mut wires = vec![Wire { generation: Generation::Z5, encoding: Encoding::Msgpack }];
    for name in ["Z200", "Z201", "Z303", "Z308", "Z309", "Z310", "Z3101", "Z4", "Z5"] {
        let generation = Generation::parse(name.as_bytes()).unwrap();
        for dialect in [Dialect::Python2, Dialect::Python3] {
            wires.push(Wire { generation, encoding: Encoding::Pickle(dialect) });
        }
    }
    wires
}

#[test]
fn loads_are_completed_in_place() {
    let ids = [
        MsgId::Int(0),
        MsgId::Int(255),
        MsgId::Int(65_535),
        MsgId::Int(1 << 30),
        MsgId::Int(i64::MAX),
        MsgId::Int(-7),
        MsgId::Load(Oid(5), Tid(6)),
    ];
    let (serial, end) = (Tid(0x0102), Tid(0x0304));
    for wire in all_wires() {
        for id in ids {
            for (shape, end) in [
                (LoadShape::Before, None),
                (LoadShape::Before, Some(end)),
                (LoadShape::Load, None),
                (LoadShape::LoadEx, None),
                (LoadShape::ZeoLoad, None),
                (LoadShape::Serial, None),
            ] {
                for extra in [0, 1, 42, 500, usize::MAX] {
                    let data: Vec<u8> = (0..=255).cycle().take(700).collect();
                    let mut out = b"an earlier frame".to_vec();
                    let frame_start = out.len();
                    // usize::MAX stands for less headroom than required
                    let headroom = wire.load_headroom(id).checked_add(extra).unwrap_or(3);
                    out.resize(frame_start + headroom, 0xaa);
                    out.extend_from_slice(&data);
                    wire.load_reply(shape, id, serial, end, &mut out, frame_start, frame_start + headroom);

                    let (s, e) = (Value::from(serial), end.map_or(Value::None, Value::from));
                    let d = Value::Bytes(data);
                    let expected = match shape {
                        LoadShape::Before => Value::Tuple(vec![d, s, e]),
                        LoadShape::Load => Value::Tuple(vec![d, s]),
                        LoadShape::LoadEx if wire.knows_versions() => {
                            Value::Tuple(vec![d, s, Value::text("")])
                        }
                        LoadShape::LoadEx => Value::Tuple(vec![d, s]),
                        LoadShape::ZeoLoad => {
                            Value::Tuple(vec![d, s, Value::text(""), Value::None, Value::None])
                        }
                        LoadShape::Serial => d,
                    };
                    let mut plain = Vec::new();
                    wire.reply(id, &expected, &mut plain);
                    assert_eq!(&out[..frame_start], b"an earlier frame");
                    let frame = &out[frame_start..];
                    assert_eq!(frame.len() - 4, u32::from_be_bytes(frame[..4].try_into().unwrap()) as usize);
                    if wire.encoding == Encoding::Msgpack {
                        let (ours, theirs) = (parse(wire, &frame[4..]), parse(wire, &plain[4..]));
                        assert_eq!(sorted(&ours, ours.root()), sorted(&theirs, theirs.root()));
                    } else {
                        assert_eq!(frame, plain, "{wire:?} {id:?} {shape:?} {extra}");
                    }
                }
            }
        }
    }
}

#[test]
fn headroom_of_a_load_of_zeo_5_takes_a_data_header() {
    // A file storage reads the 42 bytes of its own header into the headroom, and nothing is moved.
    for encoding in [Encoding::Pickle(Dialect::Python3), Encoding::Msgpack] {
        let wire = Wire { generation: Generation::Z5, encoding };
        let headroom = wire.load_headroom(MsgId::Load(Oid(1), Tid(2)));
        assert!((42..50).contains(&headroom), "{headroom}");
        let mut out = vec![0; headroom];
        out.extend_from_slice(&[7; 300]);
        wire.load_reply(LoadShape::Before, MsgId::Load(Oid(1), Tid(2)), Tid(3), None, &mut out, 0, headroom);
        assert_eq!(out[headroom..headroom + 300], [7; 300]);
    }
}

#[test]
fn ids_are_accepted_in_every_form() {
    let z5 = Wire { generation: Generation::Z5, encoding: Encoding::Pickle(Dialect::Python3) };
    let check = |payload: &[u8]| match z5.decode(payload).unwrap() {
        Call { id: MsgId::Int(7), is_async: false, request: Request::GetTid { oid: Oid(0x41ff) } } => {}
        other => panic!("{}: {other:?}", payload.escape_ascii()),
    };
    check(b"\x80\x03(K\x07\x89X\x06\0\0\0getTidC\x08\0\0\0\0\0\0\x41\xff\x85t.");
    // method as bytes, id as `str` of Python 2
    check(b"(K\x07I00\nU\x06getTid(U\x08\0\0\0\0\0\0\x41\xfftt.");
    // id as text of Latin-1 characters
    check(b"\x80\x03(K\x07\x89C\x06getTidX\x09\0\0\0\0\0\0\0\0\0\x41\xc3\xbf\x85t.");
    // memo, protocol 4, protocol 0
    check(b"\x80\x02(K\x07K\x00U\x06getTidq\x01U\x08\0\0\0\0\0\0\x41\xffq\x02\x85q\x03tq\x04.");
    check(b"\x80\x04\x95\x20\0\0\0\0\0\0\0(K\x07\x89\x8c\x06getTid\x94C\x08\0\0\0\0\0\0\x41\xff\x94\x85\x94t\x94.");
    check(b"(I7\nI00\nS'getTid'\np0\n(S'\\x00\\x00\\x00\\x00\\x00\\x00A\\xff'\np1\ntp2\ntp3\n.");
    // the id is a reference to the memo
    check(b"\x80\x03(K\x07\x89X\x06\0\0\0getTidC\x08\0\0\0\0\0\0\x41\xffq\x050h\x05\x85t.");
}

#[test]
fn refusals_are_pythons() {
    let z5 = Wire { generation: Generation::Z5, encoding: Encoding::Pickle(Dialect::Python3) };
    let py2 = Wire { generation: Generation::Z4, encoding: Encoding::Pickle(Dialect::Python2) };
    let check = |wire: Wire, payload: &[u8], class: &str, message: &str| {
        let Request::Malformed { exception, .. } = wire.decode(payload).unwrap().request else { panic!() };
        assert_eq!(exception.name, class);
        assert_eq!(exception.args, [Value::text(message)]);
    };
    check(
        z5,
        b"\x80\x03(K\x07\x89X\x0a\0\0\0loadBefore)t.",
        "TypeError",
        "ZEOStorage.loadBefore() missing 2 required positional arguments: 'oid' and 'tid'",
    );
    check(
        z5,
        b"\x80\x03(K\x07\x89X\x04\0\0\0pack(NNNtt.",
        "TypeError",
        "ZEOStorage.pack() takes from 2 to 3 positional arguments but 4 were given",
    );
    check(z5, b"\x80\x03(K\x07\x89X\x06\0\0\0getTidN\x85t.", "TypeError", "invalid oid None");
    check(py2, b"(K\x07K\x00U\x06getTid)t.", "TypeError", "getTid() takes exactly 2 arguments (1 given)");
    check(py2, b"(K\x07K\x00U\x04pack)t.", "TypeError", "pack() takes at least 2 arguments (1 given)");
    check(py2, b"(K\x07K\x00U\x04undo(U\x01aK\x01tt.", "NotImplementedError", "");
    let old = Wire { generation: Generation::Z308, ..py2 };
    check(
        old,
        b"(K\x07K\x00U\x06loadEx(U\x08\0\0\0\0\0\0\0\x01U\x01vtt.",
        "StorageServerError",
        "Versions aren't supported.",
    );
    let Request::Malformed { exception, .. } =
        z5.decode(b"\x80\x03(K\x07\x89X\x06\0\0\0getTidC\x02ab\x85t.").unwrap().request
    else {
        panic!()
    };
    assert_eq!((&*exception.name, exception.args), ("POSKeyError", vec![Value::bytes("ab")]));
    for method in [&b"load"[..], b"loadEx", b"getAuthProtocol", b"__class__", b"get_size_info"] {
        let payload = [b"\x80\x03(K\x07\x89U", &[method.len() as u8][..], method, b")t."].concat();
        let request = z5.decode(&payload).unwrap().request;
        assert!(matches!(request, Request::Other { .. }), "{request:?}");
    }
    for broken in [
        &b""[..],
        b".",
        b"N.",
        b"(K\x07K\x00U\x04pingt.",
        b"(K\x07K\x00K\x05)t.",
        b"(K\x07K\x00U\x04ping(cos\nsystem\n(U\x02lsttRtt.",
        b"(K\x07K\x00U\x04pingT\xff\xff\xff\xff",
    ] {
        assert!(z5.decode(broken).is_err(), "{}", broken.escape_ascii());
    }
}

/// Values that every encoding can represent.
fn plain_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::None),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<i32>().prop_map(|i| Value::Int(i.into())),
        (-300i64..70_000).prop_map(Value::Int),
        (-1e9..1e9f64).prop_map(Value::Float),
        prop::collection::vec(any::<u8>(), 0..400).prop_map(Value::Bytes),
        ".{0,40}".prop_map(Value::Text),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Tuple),
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::List),
            prop::collection::vec((inner.clone(), inner), 0..5).prop_map(Value::Dict),
        ]
    })
}

/// How a peer of this encoding reads a value: msgpack has no lists beside tuples, Python 2 no texts of ASCII.
fn as_read(value: &Value, encoding: Encoding) -> Value {
    let all = |items: &[Value]| items.iter().map(|item| as_read(item, encoding)).collect();
    match (value, encoding) {
        (Value::Text(text), Encoding::Pickle(Dialect::Python2)) if text.is_ascii() => Value::bytes(text),
        (Value::List(items), Encoding::Msgpack) => Value::Tuple(all(items)),
        (Value::List(items), _) => Value::List(all(items)),
        (Value::Tuple(items), _) => Value::Tuple(all(items)),
        (Value::Dict(pairs), _) => {
            Value::Dict(pairs.iter().map(|(k, v)| (as_read(k, encoding), as_read(v, encoding))).collect())
        }
        (other, _) => other.clone(),
    }
}

/// The value for serde-pickle, or `None` for keys that cannot be hashed.
fn as_serde(value: &Value) -> Option<serde_pickle::Value> {
    use serde_pickle::Value as S;
    Some(match value {
        Value::None => S::None,
        Value::Bool(value) => S::Bool(*value),
        Value::Int(value) => S::I64(*value),
        Value::Float(value) => S::F64(*value),
        Value::Bytes(value) => S::Bytes(value.clone()),
        Value::Text(value) => S::String(value.clone()),
        Value::Tuple(items) => S::Tuple(items.iter().map(as_serde).collect::<Option<_>>()?),
        Value::List(items) => S::List(items.iter().map(as_serde).collect::<Option<_>>()?),
        _ => return None,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn values_survive_every_encoding(value in plain_value(), id in any::<i64>()) {
        for wire in all_wires() {
            let mut out = Vec::new();
            wire.reply(MsgId::Int(id), &value, &mut out);
            let tree = parse(wire, &out[4..]);
            let Node::Tuple(parts) = tree.node(tree.root()) else { panic!() };
            prop_assert_eq!(Value::from_tree(&tree, parts[0]).unwrap(), Value::Int(id));
            prop_assert_eq!(Value::from_tree(&tree, parts[3]).unwrap(), as_read(&value, wire.encoding));
        }
        // compared with another reader of pickles
        if let Some(expected) = as_serde(&value) {
            let wire = Wire { generation: Generation::Z5, encoding: Encoding::Pickle(Dialect::Python3) };
            let mut out = Vec::new();
            wire.reply(MsgId::Int(id), &value, &mut out);
            let read = serde_pickle::value_from_slice(&out[4..], serde_pickle::DeOptions::new()).unwrap();
            let serde_pickle::Value::Tuple(parts) = read else { panic!() };
            prop_assert_eq!(&parts[3], &expected);
        }
    }

    #[test]
    fn garbage_is_an_error_and_no_more(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for wire in all_wires() {
            let _ = wire.decode(&bytes);
        }
    }
}

#[test]
fn the_deepest_value_fits_the_stack_of_a_session() {
    let wire = Wire { generation: Generation::Z4, encoding: Encoding::Pickle(Dialect::Python2) };
    let nested = |depth: usize| {
        let lists = [b"](".repeat(depth), b"e".repeat(depth)].concat();
        [&b"(K\x07K\x00U\x09something("[..], &lists, b"tt."].concat()
    };
    let work = move || {
        let payload = nested(DEPTH_MAX);
        let Request::Other { args, .. } = wire.decode(&payload).unwrap().request else { panic!() };
        let mut out = Vec::new();
        wire.reply(MsgId::Int(7), &args[0], &mut out);
        assert!(out.len() > DEPTH_MAX);
        // all deeper ones are refused
        for depth in [DEPTH_MAX + 1, 100_000] {
            let payload = nested(depth);
            let Request::Malformed { exception, .. } = wire.decode(&payload).unwrap().request else {
                panic!()
            };
            assert_eq!(exception.name, "TypeError");
        }
    };
    std::thread::Builder::new().stack_size(128 << 10).spawn(work).unwrap().join().unwrap();
}
