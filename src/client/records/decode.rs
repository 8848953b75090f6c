//! From the nodes of a pickle to values. Recursive, with a limit on the depth; time is proportional to the nodes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::error::RecordError;
use super::value::{Class, Construction, Instance, PyValue, Reference};
use crate::base::ids::Oid;
use crate::pickle::opcode::{LONG, LONG1, LONG4};
use crate::pickle::value::{MadeBy, Node, NodeId, Object, Tree};

/// Deepest nesting.
pub const DEPTH_MAX: usize = 200;
/// Upper bound on the values of a record, if those that occur several times are counted each time. It bounds the
/// work of a walk through a value.
const UNFOLDED_MAX: usize = 1 << 22;

type Result<T> = std::result::Result<T, RecordError>;

/// How often each node occurs in others.
pub struct Uses {
    counts: HashMap<NodeId, u32>,
    /// There is a `str` of Python 2.
    pub has_str: bool,
}

impl Uses {
    /// Of the nodes below these.
    pub fn of(tree: &Tree<'_>, roots: &[NodeId]) -> Uses {
        let mut uses = Uses { counts: HashMap::new(), has_str: false };
        let mut todo = roots.to_vec();
        while let Some(id) = todo.pop() {
            let count = uses.counts.entry(id).or_default();
            *count += 1;
            if *count > 1 {
                continue;
            }
            match tree.node(id) {
                Node::Str(_) => uses.has_str = true,
                Node::Tuple(items) | Node::List(items) | Node::Set(items) | Node::FrozenSet(items) => {
                    todo.extend(items);
                }
                Node::Dict(pairs) => todo.extend(pairs.iter().flat_map(|(key, value)| [*key, *value])),
                Node::Persistent(id) => todo.push(*id),
                Node::Object(object) => {
                    todo.extend([object.class, object.args]);
                    todo.extend(object.state);
                    todo.extend(&object.items);
                    todo.extend(object.pairs.iter().flat_map(|(key, value)| [*key, *value]));
                }
                _ => {}
            }
        }
        uses
    }
}

/// Makes values of the nodes of one record.
pub struct Decoder<'t, 'a> {
    tree: &'t Tree<'a>,
    uses: Uses,
    is_python2: bool,
    /// Those that occur several times, with the number of values in them.
    shared: HashMap<NodeId, (Arc<PyValue>, usize)>,
    /// Those that are being made.
    open: HashSet<NodeId>,
    /// Values made so far; see [`UNFOLDED_MAX`].
    count: usize,
}

impl<'t, 'a> Decoder<'t, 'a> {
    /// A decoder of the values of `tree`.
    pub fn new(tree: &'t Tree<'a>, uses: Uses, is_python2: bool) -> Decoder<'t, 'a> {
        Decoder { tree, uses, is_python2, shared: HashMap::new(), open: HashSet::new(), count: 0 }
    }

    /// The value of a node.
    pub fn value(&mut self, id: NodeId) -> Result<PyValue> {
        if let Some((shared, count)) = self.shared.get(&id) {
            let (shared, count) = (Arc::clone(shared), *count);
            self.add(count)?;
            return Ok(PyValue::Shared(shared));
        }
        let before = self.count;
        self.add(1)?;
        if let Some(scalar) = self.scalar(id)? {
            return Ok(scalar);
        }
        if self.open.len() >= DEPTH_MAX {
            return Err(RecordError::TooDeep);
        }
        if !self.open.insert(id) {
            return Err(RecordError::Cyclic);
        }
        let value = self.container(id)?;
        self.open.remove(&id);
        let is_empty_tuple = matches!(&value, PyValue::Tuple(items) if items.is_empty());
        if self.uses.counts.get(&id).is_none_or(|count| *count < 2) || is_empty_tuple {
            return Ok(value);
        }
        let value = Arc::new(value);
        self.shared.insert(id, (Arc::clone(&value), self.count - before));
        Ok(PyValue::Shared(value))
    }

    fn add(&mut self, count: usize) -> Result<()> {
        self.count += count;
        if self.count > UNFOLDED_MAX { Err(RecordError::TooLarge) } else { Ok(()) }
    }

    fn scalar(&mut self, id: NodeId) -> Result<Option<PyValue>> {
        Ok(Some(match self.tree.node(id) {
            Node::None => PyValue::None,
            Node::Bool(value) => PyValue::Bool(*value),
            Node::Int(value) => {
                let opcode = self.tree.encoded(id).and_then(|bytes| bytes.first());
                match opcode {
                    Some(&(LONG | LONG1 | LONG4)) if self.is_python2 => PyValue::Long(*value),
                    _ => PyValue::Int(*value),
                }
            }
            Node::BigInt(bytes) => PyValue::BigInt(bytes.as_ref().into()),
            Node::Float(value) => PyValue::Float(*value),
            Node::Bytes(bytes) => PyValue::Bytes(bytes.as_ref().into()),
            Node::Str(bytes) => PyValue::Str(bytes.as_ref().into()),
            Node::Text(bytes) => match str::from_utf8(bytes) {
                Ok(text) => PyValue::text(text),
                Err(_) => PyValue::Surrogates(bytes.as_ref().into()),
            },
            Node::ByteArray(bytes) => PyValue::ByteArray((*bytes).into()),
            Node::Global { module, name } => PyValue::Class(class(module, name)?),
            Node::Extension(code) => PyValue::Extension(*code),
            _ => return Ok(None),
        }))
    }

    fn container(&mut self, id: NodeId) -> Result<PyValue> {
        let tree = self.tree;
        Ok(match tree.node(id) {
            Node::Tuple(items) => PyValue::Tuple(self.values(items)?),
            Node::List(items) => PyValue::List(self.values(items)?),
            Node::Set(items) => PyValue::Set(self.values(items)?),
            Node::FrozenSet(items) => PyValue::FrozenSet(self.values(items)?),
            Node::Dict(pairs) => PyValue::Dict(self.pairs(pairs)?),
            Node::Persistent(id) => PyValue::Reference(Arc::new(self.reference(*id)?)),
            Node::Object(object) => self.object(object)?,
            _ => PyValue::None,
        })
    }

    fn values(&mut self, ids: &[NodeId]) -> Result<Vec<PyValue>> {
        ids.iter().map(|id| self.value(*id)).collect()
    }

    fn pairs(&mut self, pairs: &[(NodeId, NodeId)]) -> Result<Vec<(PyValue, PyValue)>> {
        pairs.iter().map(|(key, value)| Ok((self.value(*key)?, self.value(*value)?))).collect()
    }

    fn object(&mut self, object: &Object) -> Result<PyValue> {
        let construction = match object.made_by {
            MadeBy::NewObj => Construction::New,
            MadeBy::NewObjEx => Construction::NewWithKeywords,
            MadeBy::Reduce => Construction::Call,
            MadeBy::Inst => Construction::Classic,
        };
        let instance = Instance {
            construction,
            class: self.value(object.class)?,
            args: match self.tree.node(object.args) {
                Node::Tuple(args) => self.values(args)?,
                _ => Vec::new(),
            },
            state: object.state.map(|state| self.value(state)).transpose()?,
            items: self.values(&object.items)?,
            pairs: self.pairs(&object.pairs)?,
        };
        Ok(set_of(&instance).unwrap_or_else(|| PyValue::Instance(Box::new(instance))))
    }

    fn reference(&mut self, id: NodeId) -> Result<Reference> {
        let id = self.value(id)?;
        Ok(known_reference(&id).unwrap_or(Reference::Unknown(id)))
    }
}

fn class(module: &[u8], name: &[u8]) -> Result<Class> {
    match (str::from_utf8(module), str::from_utf8(name)) {
        (Ok(module), Ok(name)) => Ok(Class::new(module, name)),
        _ => Err(RecordError::Unsupported("the name of a class that is not UTF-8".into())),
    }
}

/// A set, which has no opcode before protocol 4.
fn set_of(instance: &Instance) -> Option<PyValue> {
    let PyValue::Class(class) = &instance.class else { return None };
    let is_plain = instance.construction == Construction::Call
        && instance.state.is_none()
        && instance.items.is_empty()
        && instance.pairs.is_empty();
    if !is_plain || !matches!(&*class.module, "builtins" | "__builtin__") {
        return None;
    }
    let items = match instance.args.as_slice() {
        [] => Vec::new(),
        [PyValue::List(items)] => items.clone(),
        _ => return None,
    };
    match &*class.name {
        "set" => Some(PyValue::Set(items)),
        "frozenset" => Some(PyValue::FrozenSet(items)),
        _ => None,
    }
}

fn oid_of(value: &PyValue) -> Option<Oid> {
    match value.plain() {
        PyValue::Bytes(bytes) | PyValue::Str(bytes) => Oid::from_slice(bytes),
        // Python 3 reads ASCII of Python 2 as text.
        PyValue::Text(text) => Oid::from_slice(text.as_bytes()),
        _ => None,
    }
}

fn known_reference(id: &PyValue) -> Option<Reference> {
    if let Some(oid) = oid_of(id) {
        return Some(Reference::Object { oid, class: None });
    }
    match id.plain() {
        PyValue::Tuple(parts) => match parts.as_slice() {
            [oid, class] => Some(Reference::Object { oid: oid_of(oid)?, class: Some(class.clone()) }),
            _ => None,
        },
        PyValue::List(parts) => match parts.as_slice() {
            [oid] => Some(Reference::Weak { oid: oid_of(oid)?, database: None }),
            [form, args] => match (form.as_text()?, args.as_items()?) {
                ("w", [oid]) => Some(Reference::Weak { oid: oid_of(oid)?, database: None }),
                ("w", [oid, database]) => {
                    Some(Reference::Weak { oid: oid_of(oid)?, database: Some(database.clone()) })
                }
                ("n", [database, oid]) => {
                    Some(Reference::Foreign { database: database.clone(), oid: oid_of(oid)?, class: None })
                }
                ("m", [database, oid, class]) => Some(Reference::Foreign {
                    database: database.clone(),
                    oid: oid_of(oid)?,
                    class: Some(class.clone()),
                }),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}
