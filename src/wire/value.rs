//! Plain Python data, as the rarely used calls exchange it. The calls that must be fast (loads, stores,
//! invalidations) never build one.

use crate::pickle::value::{Budget, DEPTH_MAX, Node, NodeId, Object, TooMuch, Tree};

/// A Python value without code: what `None`, numbers, strings and containers are in every codec.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// Python 3 `bytes`, Python 2 `str`
    Bytes(Vec<u8>),
    /// `str` in Python 3 (and in msgpack); sent to a Python 2 peer as `str` where it is ASCII, else `unicode`
    Text(String),
    Tuple(Vec<Value>),
    List(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    /// A text that the peer sent as ZopeUndo.Prefix: matches what begins with it.
    Prefix(Box<Value>),
    /// An exception inside a value: conflicts in `serialnos` (protocols before Z5).
    Exception(Box<super::exception::PyException>),
}

impl Value {
    /// A text from anything that is one.
    pub fn text(s: impl Into<String>) -> Value {
        Value::Text(s.into())
    }

    /// A byte string.
    pub fn bytes(b: impl AsRef<[u8]>) -> Value {
        Value::Bytes(b.as_ref().to_vec())
    }

    /// A dict with text keys.
    pub fn dict<const N: usize>(items: [(&str, Value); N]) -> Value {
        Value::Dict(items.into_iter().map(|(key, value)| (Value::text(key), value)).collect())
    }
}

impl From<crate::base::ids::Oid> for Value {
    fn from(oid: crate::base::ids::Oid) -> Value {
        Value::bytes(oid.to_bytes())
    }
}

impl From<crate::base::ids::Tid> for Value {
    fn from(tid: crate::base::ids::Tid) -> Value {
        Value::bytes(tid.to_bytes())
    }
}

/// A value that has no place in a [`Value`]: instances, integers beyond 64 bits, what contains itself, or what would
/// unfold to much more than its message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NotPlain(pub &'static str);

impl Value {
    /// The value of a node, as a tree of its own.
    pub fn from_tree(tree: &Tree<'_>, id: NodeId) -> Result<Value, NotPlain> {
        convert(tree, id, DEPTH_MAX, &mut Budget::for_len(tree.len()))
    }
}

fn convert(tree: &Tree<'_>, id: NodeId, depth: usize, budget: &mut Budget) -> Result<Value, NotPlain> {
    let depth = depth.checked_sub(1).ok_or(NotPlain("it is nested too deeply"))?;
    let all = |items: &[NodeId], budget: &mut Budget| {
        items.iter().map(|item| convert(tree, *item, depth, budget)).collect::<Result<Vec<Value>, NotPlain>>()
    };
    let node = tree.node(id);
    let len = match node {
        Node::Bytes(value) | Node::Str(value) | Node::Text(value) => value.len(),
        Node::ByteArray(value) => value.len(),
        _ => 0,
    };
    budget.spend(len).map_err(|TooMuch| NotPlain("it is shared too often"))?;
    Ok(match node {
        Node::None => Value::None,
        Node::Bool(value) => Value::Bool(*value),
        Node::Int(value) => Value::Int(*value),
        Node::Float(value) => Value::Float(*value),
        Node::Bytes(value) | Node::Str(value) => Value::Bytes(value.to_vec()),
        Node::ByteArray(value) => Value::Bytes(value.to_vec()),
        Node::Text(value) => Value::Text(String::from_utf8_lossy(value).into_owned()),
        Node::Tuple(items) => Value::Tuple(all(items, budget)?),
        Node::List(items) | Node::Set(items) | Node::FrozenSet(items) => Value::List(all(items, budget)?),
        Node::Dict(pairs) => Value::Dict(
            pairs
                .iter()
                .map(|(key, value)| {
                    Ok((convert(tree, *key, depth, budget)?, convert(tree, *value, depth, budget)?))
                })
                .collect::<Result<_, NotPlain>>()?,
        ),
        Node::BigInt(_) => return Err(NotPlain("it is an integer beyond 64 bits")),
        Node::Object(object) => match prefix(tree, object) {
            Some(path) => Value::Prefix(Box::new(all(path, budget).map(join)?)),
            None => return Err(NotPlain("it is an instance")),
        },
        Node::Global { .. } | Node::Extension(_) | Node::Persistent(_) => {
            return Err(NotPlain("it is no plain data"));
        }
    })
}

/// The elements of the path of a ZopeUndo.Prefix.
fn prefix<'t>(tree: &'t Tree<'_>, object: &Object) -> Option<&'t [NodeId]> {
    match tree.node(object.class) {
        Node::Global { module, .. } if module.as_ref() == b"ZopeUndo.Prefix" => {}
        _ => return None,
    }
    let Node::Dict(state) = tree.node(object.state?) else { return None };
    let is_path = |id: &NodeId| match tree.node(*id) {
        Node::Str(name) | Node::Text(name) | Node::Bytes(name) => name.as_ref() == b"path",
        _ => false,
    };
    let (_, path) = state.iter().find(|(key, _)| is_path(key))?;
    match tree.node(*path) {
        Node::List(path) => Some(path),
        _ => None,
    }
}

/// Elements of a path, joined again as they were given to ZopeUndo.Prefix.
fn join(elements: Vec<Value>) -> Value {
    let elements: Vec<Vec<u8>> = elements
        .into_iter()
        .map(|element| match element {
            Value::Bytes(element) => element,
            Value::Text(element) => element.into_bytes(),
            _ => Vec::new(),
        })
        .collect();
    Value::Bytes(elements.join(&b'/'))
}
