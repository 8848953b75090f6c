//! Plain Python data, as the rarely used calls exchange it. The calls that must be fast (loads, stores,
//! invalidations) never build one.

use crate::pickle::globals::in_message;
use crate::pickle::read::{Accept, read};
use crate::pickle::value::{Budget, DEPTH_MAX, Node, NodeId, Object, TooMuch, Tree};

/// A Python value without code: what `None`, numbers, strings and containers are in every codec.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// An integer beyond 64 bits: two's complement, little endian. Only passed on.
    BigInt(Vec<u8>),
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

/// A value that has no place in a [`Value`]: instances, what contains itself, or what would unfold to much more than
/// its message.
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
        Node::BigInt(value) => value.len(),
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
        Node::BigInt(value) => Value::BigInt(value.to_vec()),
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

/// The extension dict of a transaction from its pickled bytes, as Python's servers put it into the replies of history,
/// undoLog and iteration. Nothing stands for the empty dict. `None` if it is no dict of plain data: broken, or with
/// instances, which a client would refuse to unpickle.
pub fn extension_dict(pickled: &[u8]) -> Option<Value> {
    if pickled.is_empty() {
        return Some(Value::Dict(Vec::new()));
    }
    let tree = read(pickled, Accept { global: in_message, persistent: false, nodes_max: 1 << 17 }).ok()?;
    match Value::from_tree(&tree, tree.root()) {
        Ok(dict @ Value::Dict(_)) => Some(dict),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions() {
        assert_eq!(extension_dict(b""), Some(Value::Dict(Vec::new())));
        let dict = Value::Dict(vec![(Value::bytes("a"), Value::Int(1))]);
        assert_eq!(extension_dict(b"}q\x01U\x01aK\x01s."), Some(dict));
        let dict = Value::Dict(vec![(Value::text("a"), Value::Int(1))]);
        assert_eq!(extension_dict(b"\x80\x03}q\x00X\x01\x00\x00\x00aq\x01K\x01s."), Some(dict));
        assert_eq!(extension_dict(b"N."), None);
        assert_eq!(extension_dict(b"}U\x01acos\nsystem\ns."), None);
        assert_eq!(extension_dict(b"}q\x01U\x01ah\x01s."), None, "contains itself");
        assert_eq!(extension_dict(b"}"), None);
    }

    #[test]
    fn an_exploding_pickle_is_refused() {
        // each list holds the one before ten times
        let mut pickle = b"(lq\x00".to_vec();
        for level in 1..40u8 {
            pickle.extend_from_slice(b"](");
            for _ in 0..10 {
                pickle.extend_from_slice(&[b'h', level - 1]);
            }
            pickle.extend_from_slice(&[b'e', b'q', level]);
        }
        pickle.push(b'.');
        let tree = read(&pickle, Accept::RECORD).unwrap();
        assert_eq!(Value::from_tree(&tree, tree.root()), Err(NotPlain("it is shared too often")));
    }
}
