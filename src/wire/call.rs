//! The client's side of the protocol: encodes calls and decodes replies, for tools that query a server. Works with each
//! generation, which the server's greeting names.

use super::encoder;
use super::msgpack;
use super::protocol::{Encoding, Generation, Wire};
use super::value::Value;
use crate::pickle::Dialect;
use crate::pickle::read::{Accept, read};
use crate::pickle::value::{Node, NodeId, Tree};

/// Upper bound on the characters of an exception that are shown.
const SHOWN_MAX: usize = 2000;
/// Upper bound on the nesting of values that are shown.
const DEPTH_MAX: usize = 8;

/// A message from a server.
#[derive(Clone, Debug, PartialEq)]
pub enum Incoming {
    Reply {
        id: i64,
        /// The value, or `None` if it contains instances, which are not needed here; an exception as text.
        result: Result<Option<Value>, String>,
    },
    /// A call to the client, such as an invalidation.
    Push,
}

/// The wire for a server's greeting, and the answer to the greeting. `None` if it is no ZEO server.
pub fn wire_for(greeting: &[u8]) -> Option<(Wire, Vec<u8>)> {
    if let Some(generation) = Generation::parse_msgpack(greeting) {
        return Some((Wire { generation, encoding: Encoding::Msgpack }, greeting.to_vec()));
    }
    let generation = Generation::parse(greeting).or_else(|| {
        // A later server also speaks the newest generation here.
        let newest = Generation::NEWEST.name().as_bytes();
        let is_later = greeting.len() == newest.len() && greeting.first() == Some(&b'Z') && greeting > newest;
        is_later.then_some(Generation::NEWEST)
    })?;
    // Every server, on Python 2 and 3, reads protocol 1 and strings of Python 2.
    let wire = Wire { generation, encoding: Encoding::Pickle(Dialect::Python2) };
    Some((wire, generation.name().as_bytes().to_vec()))
}

impl Wire {
    /// Appends one frame: a call that expects an answer.
    pub fn call(&self, id: i64, method: &str, args: &[Value], out: &mut Vec<u8>) {
        encoder::frame(*self, out, |e| {
            e.begin_request(id, method);
            e.begin_tuple(args.len());
            args.iter().for_each(|arg| e.value(arg));
            e.end_tuple(args.len());
        });
    }

    /// Appends one frame: a keep-alive message, which servers do not answer.
    pub fn keep_alive(&self, out: &mut Vec<u8>) {
        encoder::frame(*self, out, |e| {
            e.begin_reply(super::request::MsgId::Int(-1), 0);
            e.none();
        });
    }

    /// Decodes a message from the server.
    pub fn incoming(&self, payload: &[u8]) -> Result<Incoming, String> {
        let tree = match self.encoding {
            Encoding::Pickle(_) => read(payload, Accept::RECORD).map_err(|error| error.to_string())?,
            Encoding::Msgpack => msgpack::tree(payload)?,
        };
        let (Node::Tuple(parts) | Node::List(parts)) = tree.node(tree.root()) else {
            return Err("a message is no tuple".into());
        };
        let &[id, flag, method, result] = parts.as_slice() else {
            return Err(format!("a message has {} parts instead of 4", parts.len()));
        };
        let (Node::Text(name) | Node::Str(name) | Node::Bytes(name)) = tree.node(method) else {
            return Err("the name of a method is no string".into());
        };
        let (b".reply", Node::Int(id)) = (&name[..], tree.node(id)) else { return Ok(Incoming::Push) };
        let error = match (tree.node(flag), tree.node(result)) {
            // Since Z5: (class, arguments)
            (Node::Int(2), Node::Tuple(pair) | Node::List(pair)) => match pair.as_slice() {
                &[class, args] => Some(format!("{}: {}", name_of(&tree, class), show(&tree, args))),
                _ => Some(show(&tree, result)),
            },
            (Node::Int(2), _) => Some(show(&tree, result)),
            // Before: (class, instance)
            (_, Node::Tuple(pair)) if self.pickles_exceptions() => match pair.as_slice() {
                &[class, instance] if matches!(tree.node(class), Node::Global { .. }) => {
                    Some(show(&tree, instance))
                }
                _ => None,
            },
            _ => None,
        };
        let result = match error {
            Some(error) => Err(error),
            None => Ok(Value::from_tree(&tree, result).ok()),
        };
        Ok(Incoming::Reply { id: *id, result })
    }
}

/// The name of a class, which Z5 sends as text.
fn name_of(tree: &Tree<'_>, id: NodeId) -> String {
    match tree.node(id) {
        Node::Text(name) | Node::Str(name) | Node::Bytes(name) => String::from_utf8_lossy(name).into_owned(),
        _ => show(tree, id),
    }
}

fn show(tree: &Tree<'_>, id: NodeId) -> String {
    let mut out = String::new();
    put(tree, id, 0, &mut out);
    out
}

/// Appends the value much as Python shows it.
fn put(tree: &Tree<'_>, id: NodeId, depth: usize, out: &mut String) {
    if depth > DEPTH_MAX || out.len() > SHOWN_MAX {
        out.push_str("...");
        return;
    }
    let list = |items: &[NodeId], out: &mut String| {
        for (n, item) in items.iter().enumerate() {
            out.push_str(if n == 0 { "" } else { ", " });
            put(tree, *item, depth + 1, out);
        }
    };
    match tree.node(id) {
        Node::None => out.push_str("None"),
        Node::Bool(value) => out.push_str(if *value { "True" } else { "False" }),
        Node::Int(value) => out.push_str(&value.to_string()),
        Node::Float(value) => out.push_str(&format!("{value:?}")),
        Node::Text(text) => out.push_str(&format!("'{}'", String::from_utf8_lossy(text))),
        Node::Bytes(bytes) | Node::Str(bytes) => out.push_str(&format!("'{}'", bytes.escape_ascii())),
        Node::Tuple(items) | Node::List(items) => {
            out.push('(');
            list(items, out);
            out.push(')');
        }
        Node::Dict(items) => {
            for (n, (key, value)) in items.iter().enumerate() {
                out.push_str(if n == 0 { "" } else { ", " });
                put(tree, *key, depth + 1, out);
                out.push_str(": ");
                put(tree, *value, depth + 1, out);
            }
        }
        Node::Global { module, name } => {
            out.push_str(&format!("{}.{}", String::from_utf8_lossy(module), String::from_utf8_lossy(name)));
        }
        Node::Object(object) => {
            put(tree, object.class, depth + 1, out);
            out.push_str(": ");
            put(tree, object.args, depth + 1, out);
            if let Some(state) = object.state {
                out.push(' ');
                put(tree, state, depth + 1, out);
            }
        }
        Node::BigInt(_)
        | Node::ByteArray(_)
        | Node::Set(_)
        | Node::FrozenSet(_)
        | Node::Extension(_)
        | Node::Persistent(_) => out.push_str("..."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::exception::PyException;
    use crate::wire::request::{MsgId, Request};

    #[test]
    fn what_one_side_sends_the_other_reads() {
        for greeting in [&b"Z5"[..], b"M5", b"Z4", b"Z3101", b"Z309", b"Z308"] {
            let (wire, answer) = wire_for(greeting).unwrap();
            assert_eq!(answer, greeting);
            let mut out = Vec::new();
            wire.call(7, "pack", &[Value::Float(1.5), Value::Bool(true)], &mut out);
            let call = wire.decode(&out[4..]).unwrap();
            assert!(!call.is_async && matches!(call.request, Request::Pack { time: 1.5, wait: Some(true) }));
            out.clear();
            wire.keep_alive(&mut out);
            assert!(matches!(wire.decode(&out[4..]).unwrap().request, Request::KeepAlive));

            out.clear();
            wire.reply(MsgId::Int(7), &Value::dict([("done", Value::Int(3))]), &mut out);
            let Ok(Incoming::Reply { id: 7, result: Ok(Some(Value::Dict(items))) }) =
                wire.incoming(&out[4..])
            else {
                panic!("{:?}", wire.incoming(&out[4..]));
            };
            assert_eq!((items[0].0.string(), &items[0].1), (Some(&b"done"[..]), &Value::Int(3)));
            out.clear();
            let exception = PyException::builtin("ValueError", "unknown storage: x");
            wire.error_reply(MsgId::Int(8), &exception, &mut out);
            let Ok(Incoming::Reply { id: 8, result: Err(error) }) = wire.incoming(&out[4..]) else {
                panic!("{:?}", wire.incoming(&out[4..]));
            };
            assert!(error.contains("ValueError: ('unknown storage: x')"), "{error}");
            out.clear();
            wire.push(&crate::wire::push::Push::EndVerify, &mut out);
            assert_eq!(wire.incoming(&out[4..]), Ok(Incoming::Push));
        }
        assert_eq!(wire_for(b"Z7").unwrap().1, b"Z5");
        assert!(wire_for(b"HTTP/1.1").is_none() && wire_for(b"").is_none());
    }
}
