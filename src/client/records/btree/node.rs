//! The states of nodes and buckets.

use crate::base::ids::Oid;
use crate::client::records::error::{ObjectsError, RecordError, of};
use crate::client::records::objects::Objects;
use crate::client::records::record::ObjectRecord;
use crate::client::records::value::PyValue;

use super::kind::TreeKind;

type Result<T> = std::result::Result<T, RecordError>;

/// Deepest tree. One of this depth would have more items than there are object ids.
pub const DEPTH_MAX: usize = 40;

/// A bucket or set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bucket {
    /// Ascending.
    pub keys: Vec<PyValue>,
    /// One for each key, or none.
    pub values: Vec<PyValue>,
    /// A reference to the next bucket.
    pub next: Option<PyValue>,
}

/// A BTree or TreeSet, or a node below its root.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// Nothing is in it.
    Empty,
    /// A tree with one bucket, which has no record of its own.
    Small(Bucket),
    /// Children.
    Inner(Inner),
}

/// A node with children.
#[derive(Clone, Debug, PartialEq)]
pub struct Inner {
    /// A reference to the first bucket of those below.
    pub first: PyValue,
    /// References; at least one.
    pub children: Vec<PyValue>,
    /// The key between each child and the one before it.
    pub keys: Vec<PyValue>,
}

/// A record, decoded.
pub enum Part {
    /// A tree or an inner node.
    Tree(Node),
    /// A bucket or set.
    Leaf(Bucket),
}

/// What is in the record of an object, with the kind of its class.
pub struct TreePart {
    /// For storing it again.
    pub record: ObjectRecord,
    /// Its class.
    pub kind: TreeKind,
    /// Its state.
    pub part: Part,
}

impl TreePart {
    /// Loads a tree, a node or a bucket.
    pub fn of(objects: &Objects, oid: Oid) -> std::result::Result<TreePart, ObjectsError> {
        TreePart::from_record(oid, objects.load(oid)?)
    }

    /// Of the record of the object.
    pub fn from_record(oid: Oid, mut record: ObjectRecord) -> std::result::Result<TreePart, ObjectsError> {
        let unexpected = |record: &ObjectRecord| {
            let class = record.class_name().map_or_else(|| "an object".into(), |class| class.to_string());
            of(oid)(RecordError::Unexpected { wanted: "a class of the BTrees package", found: class })
        };
        let Some(kind) = record.class_name().and_then(TreeKind::of) else { return Err(unexpected(&record)) };
        let state = std::mem::replace(&mut record.state, PyValue::None);
        let part = match kind.is_tree() {
            true => Node::read(state, kind).map(Part::Tree),
            false => Bucket::read(state, kind).map(Part::Leaf),
        };
        Ok(TreePart { record, kind, part: part.map_err(of(oid))? })
    }

    /// A child of a tree of this kind.
    pub fn child(objects: &Objects, oid: Oid, tree: TreeKind) -> std::result::Result<TreePart, ObjectsError> {
        let loaded = TreePart::of(objects, oid)?;
        if !tree.has_child(loaded.kind) {
            return Err(of(oid)(RecordError::Damaged("a node of another class".into())));
        }
        if let Part::Tree(Node::Empty | Node::Small(_)) = loaded.part {
            return Err(of(oid)(RecordError::Damaged("a node without children below the root".into())));
        }
        Ok(loaded)
    }

    /// The record with the state as it is now.
    pub fn into_record(self) -> ObjectRecord {
        let state = match self.part {
            Part::Tree(node) => node.into_state(),
            Part::Leaf(bucket) => bucket.into_state(),
        };
        ObjectRecord { state, ..self.record }
    }

    /// How large it is: the keys of a bucket, the children of a node.
    pub fn size(&self) -> usize {
        match &self.part {
            Part::Leaf(bucket) => bucket.keys.len(),
            Part::Tree(Node::Inner(inner)) => inner.children.len(),
            Part::Tree(Node::Small(_)) => 1,
            Part::Tree(Node::Empty) => 0,
        }
    }
}

impl Bucket {
    fn read(state: PyValue, kind: TreeKind) -> Result<Bucket> {
        let mut parts = tuple(state)?.into_iter();
        let (Some(items), next, None) = (parts.next(), parts.next(), parts.next()) else {
            return damaged("a bucket without items");
        };
        let items = tuple(items)?;
        let mut bucket = Bucket { next: next.filter(|next| *next != PyValue::None), ..Bucket::default() };
        if let Some(next) = &bucket.next {
            child_oid(next)?;
        }
        if !kind.has_values() {
            bucket.keys = items;
            return Ok(bucket);
        }
        if items.len() % 2 != 0 {
            return damaged("a key without a value");
        }
        let mut items = items.into_iter();
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            bucket.keys.push(key);
            bucket.values.push(value);
        }
        Ok(bucket)
    }

    fn into_state(self) -> PyValue {
        let items = match self.values.is_empty() {
            true => self.keys,
            false => self.keys.into_iter().zip(self.values).flat_map(|(key, value)| [key, value]).collect(),
        };
        let mut state = vec![PyValue::Tuple(items)];
        state.extend(self.next);
        PyValue::Tuple(state)
    }

    /// Where the key is (`Ok`), or would be inserted (`Err`).
    pub fn search(&self, kind: TreeKind, key: &PyValue) -> Result<std::result::Result<usize, usize>> {
        let (mut low, mut high) = (0, self.keys.len());
        while let Some(other) = self.keys.get(usize::midpoint(low, high)).filter(|_| low < high) {
            let middle = usize::midpoint(low, high);
            match kind.order(other, key)? {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Ok(Ok(middle)),
            }
        }
        Ok(Err(low))
    }

    /// Moves the second half into a new bucket, which follows this one; its `next` is still to be set.
    pub fn split(&mut self) -> Bucket {
        let at = self.keys.len() / 2;
        Bucket {
            keys: self.keys.split_off(at),
            values: if self.values.is_empty() { Vec::new() } else { self.values.split_off(at) },
            next: self.next.take(),
        }
    }
}

impl Node {
    fn read(state: PyValue, kind: TreeKind) -> Result<Node> {
        if *state.plain() == PyValue::None {
            return Ok(Node::Empty);
        }
        let mut parts = tuple(state)?.into_iter();
        match (parts.next(), parts.next(), parts.next()) {
            (Some(items), None, None) => match <[PyValue; 1]>::try_from(tuple(items)?) {
                Ok([bucket]) => Ok(Node::Small(Bucket::read(bucket, kind)?)),
                Err(_) => damaged("a tree of one bucket with more than one"),
            },
            (Some(items), Some(first), None) => {
                let items = tuple(items)?;
                let mut inner = Inner { first, children: Vec::new(), keys: Vec::new() };
                for (at, item) in items.into_iter().enumerate() {
                    if at % 2 == 0 { inner.children.push(item) } else { inner.keys.push(item) }
                }
                if inner.children.len() != inner.keys.len() + 1 {
                    return damaged("a node whose children and keys do not alternate");
                }
                child_oid(&inner.first)?;
                inner.children.iter().try_for_each(|child| child_oid(child).map(drop))?;
                Ok(Node::Inner(inner))
            }
            _ => damaged("a node without items"),
        }
    }

    fn into_state(self) -> PyValue {
        match self {
            Node::Empty => PyValue::None,
            Node::Small(bucket) => PyValue::Tuple(vec![PyValue::Tuple(vec![bucket.into_state()])]),
            Node::Inner(inner) => {
                let mut children = inner.children.into_iter();
                let mut items: Vec<PyValue> = children.next().into_iter().collect();
                items.extend(inner.keys.into_iter().zip(children).flat_map(|(key, child)| [key, child]));
                PyValue::Tuple(vec![PyValue::Tuple(items), inner.first])
            }
        }
    }
}

impl Inner {
    /// The number of the child for a key, and the child.
    pub fn search(&self, kind: TreeKind, key: &PyValue) -> Result<(usize, Oid)> {
        let (mut low, mut high) = (0, self.keys.len());
        while let Some(other) = self.keys.get(usize::midpoint(low, high)).filter(|_| low < high) {
            let middle = usize::midpoint(low, high);
            if kind.order(other, key)?.is_gt() { high = middle } else { low = middle + 1 }
        }
        Ok((low, self.child(low)?))
    }

    /// A child.
    pub fn child(&self, at: usize) -> Result<Oid> {
        self.children.get(at).map_or_else(|| damaged("a node without children"), child_oid)
    }
}

/// The object of a reference to a node or bucket.
pub fn child_oid(reference: &PyValue) -> Result<Oid> {
    match reference.as_oid() {
        Some(oid) => Ok(oid),
        None => damaged(&format!("{} where a bucket or node should be", reference.type_name())),
    }
}

/// A tree contradicts itself.
pub fn damaged<T>(what: &str) -> Result<T> {
    Err(RecordError::Damaged(what.into()))
}

fn tuple(value: PyValue) -> Result<Vec<PyValue>> {
    let found = value.type_name();
    match value {
        PyValue::Tuple(items) => Ok(items),
        PyValue::Shared(shared) => tuple(shared.plain().clone()),
        _ => Err(RecordError::Unexpected { wanted: "a tuple", found }),
    }
}
