//! Plain Python data, for the rarely used calls. The calls whose speed matters (loads, stores, invalidations) never
//! build a [`Value`].

use std::borrow::Cow;

use crate::pickle::Dialect;
use crate::pickle::globals::in_message;
use crate::pickle::opcode::{LONG, LONG1, LONG4, PROTO};
use crate::pickle::read::{Accept, read};
use crate::pickle::value::{Budget, DEPTH_MAX, Node, NodeId, Object, TooMuch, Tree};

/// A Python value without code: `None`, numbers, strings and containers, independent of the codec.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// An integer beyond 64 bits, or a `long` of Python 2: two's complement, little endian. Only passed on.
    BigInt(Vec<u8>),
    Float(f64),
    /// `bytes` in Python 3, `str` in Python 2.
    Bytes(Vec<u8>),
    /// `str` in Python 3 and in msgpack; for a Python 2 peer `str` if it is ASCII, otherwise `unicode`.
    Text(String),
    /// A `str` of Python 2 in a file: Python 3 reads it as `str` if it is ASCII, otherwise as `bytes`.
    Str(Vec<u8>),
    /// A `unicode` of Python 2 in a file: a text for every peer, ASCII or not.
    Unicode(String),
    Tuple(Vec<Value>),
    List(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    /// A ZopeUndo.Prefix from the peer: matches strings that begin with this text.
    Prefix(Box<Value>),
    /// An exception inside a value: conflicts in `serialnos` (protocols before Z5).
    Exception(Box<PyException>),
}

/// A Python exception: one that the peer is to raise, or one that a server raised.
#[derive(Clone, Debug, PartialEq)]
pub struct PyException {
    /// For example `ZODB.POSException`; `BUILTINS` stands for `builtins` (Python 3) or
    /// `exceptions` (Python 2).
    pub module: Cow<'static, str>,
    /// For example `POSKeyError`.
    pub name: Cow<'static, str>,
    /// Positional arguments of the instance.
    pub args: Vec<Value>,
    /// Instance attributes (`__dict__`); empty if the class has none.
    pub attributes: Vec<(Cow<'static, str>, Value)>,
}

/// Stands for the module of the peer's built-in exceptions.
pub const BUILTINS: &str = "builtins";

impl PyException {
    /// An exception of a class that a peer has named.
    fn named(module: &str, name: &str) -> PyException {
        let module = match module {
            "exceptions" | "__builtin__" | BUILTINS => BUILTINS.into(),
            module => module.to_string().into(),
        };
        PyException { module, name: name.to_string().into(), args: Vec::new(), attributes: Vec::new() }
    }
}

impl Value {
    /// A text.
    pub fn text(s: impl Into<String>) -> Value {
        Value::Text(s.into())
    }

    /// A byte string.
    pub fn bytes(b: impl AsRef<[u8]>) -> Value {
        Value::Bytes(b.as_ref().to_vec())
    }

    /// The bytes of a string of any kind. Strings from a file are compared by bytes, because their kinds may differ.
    pub fn string(&self) -> Option<&[u8]> {
        match self {
            Value::Bytes(bytes) | Value::Str(bytes) => Some(bytes),
            Value::Text(text) | Value::Unicode(text) => Some(text.as_bytes()),
            _ => None,
        }
    }

    /// The value of a key of a dict that is a string.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let Value::Dict(items) = self else { return None };
        items.iter().find(|(name, _)| name.string() == Some(key.as_bytes())).map(|(_, value)| value)
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

/// Not representable as a [`Value`]: an instance, a value that contains itself, or one that would unfold to much more
/// than its message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NotPlain(pub &'static str);

impl Value {
    /// The value of a node, with a budget of its own.
    pub fn from_tree(tree: &Tree<'_>, id: NodeId) -> Result<Value, NotPlain> {
        Value::from_tree_within(&mut Budget::for_len(tree.len()), tree, id)
    }

    /// One of several values of a message, with a common budget for unfolding.
    pub fn from_tree_within(budget: &mut Budget, tree: &Tree<'_>, id: NodeId) -> Result<Value, NotPlain> {
        Converter { tree, origin: Origin::Message, budget }.value(id, DEPTH_MAX)
    }
}

/// A value in a server's message.
pub(super) fn of_server(dialect: Dialect, tree: &Tree<'_>, id: NodeId) -> Result<Value, NotPlain> {
    let budget = &mut Budget::for_len(tree.len());
    Converter { tree, origin: Origin::Server(dialect), budget }.value(id, DEPTH_MAX)
}

/// The exception in a reply of a server, a pair: class and pickled instance; or, since Z5, `module.Class` and the
/// arguments or the attributes. `None` if it is no such pair.
pub(super) fn raised_by_server(dialect: Dialect, tree: &Tree<'_>, id: NodeId) -> Option<PyException> {
    let (Node::Tuple(pair) | Node::List(pair)) = tree.node(id) else { return None };
    let &[class, content] = pair.as_slice() else { return None };
    let budget = &mut Budget::for_len(tree.len());
    let mut converter = Converter { tree, origin: Origin::Server(dialect), budget };
    let mut exception = match tree.node(class) {
        Node::Text(class) | Node::Str(class) | Node::Bytes(class) => {
            let class = String::from_utf8_lossy(class);
            let (module, name) = class.rsplit_once('.').unwrap_or(("", &class));
            PyException::named(module, name)
        }
        _ => converter.class(class).ok()?,
    };
    match tree.node(content) {
        Node::Tuple(args) | Node::List(args) => exception.args = converter.shown(args, DEPTH_MAX).ok()?,
        Node::Dict(pairs) => converter.attributes(pairs, DEPTH_MAX, &mut exception).ok()?,
        Node::Object(object) => {
            if let Ok(instance) = converter.exception(object, DEPTH_MAX) {
                exception = instance;
            }
        }
        _ => {}
    }
    Some(exception)
}

/// The origin of a pickle, which determines the types of its strings.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Origin {
    /// A client's message.
    Message,
    /// A server's message, which may have exceptions; strings of Python 2 are passed on as they are.
    Server(Dialect),
    /// Written into a file by Python 2; its readers get the types that were written.
    Python2,
    /// Written into a file by Python 3.
    Python3,
}

/// The recursion is as deep as the value; leaves are converted in another function, to keep the stack frames small.
struct Converter<'t, 'a> {
    tree: &'t Tree<'a>,
    origin: Origin,
    budget: &'t mut Budget,
}

impl Converter<'_, '_> {
    fn value(&mut self, id: NodeId, depth: usize) -> Result<Value, NotPlain> {
        let Some(depth) = depth.checked_sub(1) else { return Err(NotPlain("it is nested too deeply")) };
        match self.tree.node(id) {
            Node::Tuple(items) => Ok(Value::Tuple(self.items(items, depth)?)),
            Node::List(items) | Node::Set(items) | Node::FrozenSet(items) => {
                Ok(Value::List(self.items(items, depth)?))
            }
            Node::Dict(pairs) => self.pairs(pairs, depth),
            Node::Object(object) => {
                // Many instances may share a long state, and each searches it.
                if let Some(Node::Dict(state)) = object.state.map(|state| self.tree.node(state)) {
                    self.spend(state.len())?;
                }
                match (self.origin, prefix(self.tree, object)) {
                    (Origin::Server(_), _) => Ok(Value::Exception(Box::new(self.exception(object, depth)?))),
                    (_, Some(path)) => Ok(Value::Prefix(Box::new(join(self.items(path, depth)?)))),
                    (_, None) => Err(NotPlain("it is an instance")),
                }
            }
            _ => self.leaf(id),
        }
    }

    fn spend(&mut self, len: usize) -> Result<(), NotPlain> {
        self.budget.spend(len).map_err(|TooMuch| NotPlain("it is shared too often"))
    }

    fn items(&mut self, items: &[NodeId], depth: usize) -> Result<Vec<Value>, NotPlain> {
        // Counted before the allocation: a list that contains itself occurs at every depth.
        self.spend(items.len())?;
        let mut values = Vec::with_capacity(items.len());
        for item in items {
            values.push(self.value(*item, depth)?);
        }
        Ok(values)
    }

    fn pairs(&mut self, pairs: &[(NodeId, NodeId)], depth: usize) -> Result<Value, NotPlain> {
        self.spend(pairs.len())?;
        let mut values = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            let key = self.value(*key, depth)?;
            values.push((key, self.value(*value, depth)?));
        }
        Ok(Value::Dict(values))
    }

    /// A pickled exception: a class called with arguments, or ZODB's `_recon` called with the class and its state.
    fn exception(&mut self, object: &Object, depth: usize) -> Result<PyException, NotPlain> {
        let Node::Tuple(args) = self.tree.node(object.args) else {
            return Err(NotPlain("it is an instance"));
        };
        let mut exception = self.class(object.class)?;
        let state = match args.as_slice() {
            [class, state] if exception.module == "ZODB.POSException" && exception.name == "_recon" => {
                exception = self.class(*class)?;
                Some(*state)
            }
            args => {
                exception.args = self.shown(args, depth)?;
                object.state
            }
        };
        let pairs = match state.map(|state| self.tree.node(state)) {
            Some(Node::Dict(pairs)) => pairs.as_slice(),
            _ => &[],
        };
        self.attributes(pairs, depth, &mut exception)?;
        Ok(exception)
    }

    /// An exception of this class.
    fn class(&mut self, id: NodeId) -> Result<PyException, NotPlain> {
        let Node::Global { module, name } = self.tree.node(id) else {
            return Err(NotPlain("it is an instance"));
        };
        self.spend(module.len() + name.len())?;
        Ok(PyException::named(&String::from_utf8_lossy(module), &String::from_utf8_lossy(name)))
    }

    /// Adds what is in the state of an exception: its arguments and attributes.
    fn attributes(
        &mut self,
        pairs: &[(NodeId, NodeId)],
        depth: usize,
        exception: &mut PyException,
    ) -> Result<(), NotPlain> {
        self.spend(pairs.len())?;
        for (key, value) in pairs {
            let (Node::Text(key) | Node::Str(key) | Node::Bytes(key)) = self.tree.node(*key) else {
                continue;
            };
            self.spend(key.len())?;
            match (&**key, self.tree.node(*value)) {
                (b"args", Node::Tuple(args)) => exception.args = self.shown(args, depth)?,
                _ => {
                    let value = self.shown(&[*value], depth)?.pop().unwrap_or(Value::None);
                    exception.attributes.push((String::from_utf8_lossy(key).into_owned().into(), value));
                }
            }
        }
        Ok(())
    }

    /// Values for an exception's text. For an instance, and for what is nested too deeply, there is a text in its
    /// place.
    fn shown(&mut self, items: &[NodeId], depth: usize) -> Result<Vec<Value>, NotPlain> {
        self.spend(items.len())?;
        Ok(items
            .iter()
            .map(|item| {
                self.value(*item, depth).unwrap_or_else(|NotPlain(what)| Value::text(format!("({what})")))
            })
            .collect())
    }

    fn leaf(&mut self, id: NodeId) -> Result<Value, NotPlain> {
        let node = self.tree.node(id);
        let len = match node {
            Node::Bytes(value) | Node::Str(value) | Node::Text(value) => value.len(),
            Node::ByteArray(value) => value.len(),
            Node::BigInt(value) => value.len(),
            _ => 0,
        };
        self.spend(len)?;
        let is_python2 = matches!(self.origin, Origin::Python2 | Origin::Server(Dialect::Python2));
        Ok(match node {
            Node::None => Value::None,
            Node::Bool(value) => Value::Bool(*value),
            Node::Int(value) if self.origin == Origin::Python2 && is_long(self.tree, id) => {
                Value::BigInt(value.to_le_bytes().to_vec())
            }
            Node::Int(value) => Value::Int(*value),
            Node::BigInt(value) => Value::BigInt(value.to_vec()),
            Node::Float(value) => Value::Float(*value),
            Node::Str(value) if is_python2 => Value::Str(value.to_vec()),
            Node::Bytes(value) | Node::Str(value) => Value::Bytes(value.to_vec()),
            Node::ByteArray(value) => Value::Bytes(value.to_vec()),
            Node::Text(value) => {
                let text = String::from_utf8_lossy(value).into_owned();
                if is_python2 { Value::Unicode(text) } else { Value::Text(text) }
            }
            _ => return Err(NotPlain("it is no plain data")),
        })
    }
}

/// Whether Python 2 reads this integer as a `long`.
fn is_long(tree: &Tree<'_>, id: NodeId) -> bool {
    tree.encoded(id).and_then(<[u8]>::first).is_some_and(|opcode| matches!(*opcode, LONG | LONG1 | LONG4))
}

/// The elements of the path in a ZopeUndo.Prefix.
fn prefix<'t>(tree: &'t Tree<'_>, object: &Object) -> Option<&'t [NodeId]> {
    let is_prefix = |id: NodeId| matches!(tree.node(id), Node::Global { module, .. } if module.as_ref() == b"ZopeUndo.Prefix");
    if !is_prefix(object.class) {
        // A class that derives from `object`, pickled by Python 2 in a protocol before 2.
        match (tree.node(object.class), tree.node(object.args)) {
            (Node::Global { name, .. }, Node::Tuple(args)) if name.as_ref() == b"_reconstructor" => {
                args.first().copied().filter(|class| is_prefix(*class))?;
            }
            _ => return None,
        }
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

/// The elements of a path, joined as they were given to ZopeUndo.Prefix.
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
/// undoLog and iteration. Empty bytes are the empty dict. `None` if it is no dict of plain data: malformed, or with
/// instances, which a client would refuse to unpickle.
pub fn extension_dict(pickled: &[u8]) -> Option<Value> {
    if pickled.is_empty() {
        return Some(Value::Dict(Vec::new()));
    }
    unpickled(pickled).filter(|value| matches!(value, Value::Dict(_)))
}

/// The value of a pickle. `None` if it is malformed, or no plain data.
pub fn unpickled(pickled: &[u8]) -> Option<Value> {
    let tree = read(pickled, Accept { global: in_message, persistent: false, nodes_max: 1 << 17 }).ok()?;
    let origin = match pickled {
        [PROTO, 3..=u8::MAX, ..] => Origin::Python3,
        _ => Origin::Python2,
    };
    let mut budget = Budget::for_len(tree.len());
    (Converter { tree: &tree, origin, budget: &mut budget }).value(tree.root(), DEPTH_MAX).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions() {
        assert_eq!(extension_dict(b""), Some(Value::Dict(Vec::new())));
        let dict = Value::Dict(vec![(Value::Str(b"a".to_vec()), Value::Int(1))]);
        assert_eq!(extension_dict(b"}q\x01U\x01aK\x01s."), Some(dict));
        let dict =
            Value::Dict(vec![(Value::Unicode("a".into()), Value::BigInt(1i64.to_le_bytes().to_vec()))]);
        assert_eq!(extension_dict(b"}q\x01X\x01\0\0\0aL1L\ns."), Some(dict));
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
