//! Adding to a tree: the same splits as in C.
//!
//! A bucket with too many keys is split in the middle, and so is a node with too many children. The root keeps its
//! object id: if it has twice as many children as a node may have, they move into a new node, which is split.

use super::kind::TreeKind;
use super::node::{Bucket, DEPTH_MAX, Inner, Node, Part, TreePart, child_oid, damaged};
use crate::base::ids::Oid;
use crate::client::records::error::{ObjectsError, of};
use crate::client::records::objects::Objects;
use crate::client::records::record::ObjectRecord;
use crate::client::records::value::{Class, PyValue};

type Result<T> = std::result::Result<T, ObjectsError>;

/// What an insertion did.
pub struct Inserted {
    /// The value that the key had before; `None` in a set.
    pub old: Option<PyValue>,
    /// The key is new.
    pub is_new: bool,
    /// The keys or children of the part that was changed.
    size: usize,
    is_tree: bool,
}

/// Sets the value of a key in the tree or bucket `oid`. `value`: `None` for sets. Both are as they are stored.
pub fn insert(objects: &mut Objects, oid: Oid, key: &PyValue, value: Option<&PyValue>) -> Result<Inserted> {
    let loaded = TreePart::of(objects, oid)?;
    insert_into(objects, oid, loaded, key, value, 0)
}

fn insert_into(
    objects: &mut Objects,
    oid: Oid,
    mut loaded: TreePart,
    key: &PyValue,
    value: Option<&PyValue>,
    depth: usize,
) -> Result<Inserted> {
    if depth > DEPTH_MAX {
        return damaged("it is too deep").map_err(of(oid));
    }
    let kind = loaded.kind;
    let inner = match &mut loaded.part {
        Part::Leaf(bucket) => {
            let (old, is_new) = put(bucket, kind, key, value).map_err(of(oid))?;
            let size = bucket.keys.len();
            objects.store(oid, loaded.into_record())?;
            return Ok(Inserted { old, is_new, size, is_tree: false });
        }
        Part::Tree(Node::Empty) => {
            let bucket =
                Bucket { keys: vec![key.clone()], values: value.cloned().into_iter().collect(), next: None };
            loaded.part = Part::Tree(Node::Small(bucket));
            objects.store(oid, loaded.into_record())?;
            return Ok(Inserted { old: None, is_new: true, size: 1, is_tree: true });
        }
        Part::Tree(Node::Small(bucket)) => {
            let (old, is_new) = put(bucket, kind, key, value).map_err(of(oid))?;
            if bucket.keys.len() > kind.bucket_max() {
                let bucket = std::mem::take(bucket);
                loaded.part = Part::Tree(Node::Inner(two_buckets(objects, &loaded, bucket)?));
            }
            let size = loaded.size();
            objects.store(oid, loaded.into_record())?;
            return Ok(Inserted { old, is_new, size, is_tree: true });
        }
        Part::Tree(Node::Inner(inner)) => inner,
    };
    // Another transaction may not split this node at the same time.
    objects.depend_on(oid)?;
    let (at, child) = inner.search(kind, key).map_err(of(oid))?;
    let child_loaded = TreePart::child(objects, child, kind)?;
    let mut inserted = insert_into(objects, child, child_loaded, key, value, depth + 1)?;
    let size_max = if inserted.is_tree { kind.node_max() } else { kind.bucket_max() };
    if inserted.is_new && inserted.size > size_max {
        grow(objects, oid, inner, kind, at)?;
        if inner.children.len() >= 2 * kind.node_max() {
            let record = ObjectRecord { state: PyValue::None, ..loaded.record.clone() };
            split_root(objects, oid, inner, kind, record)?;
        }
        inserted.size = inner.children.len();
        objects.store(oid, loaded.into_record())?;
    } else {
        inserted.size = inner.children.len();
    }
    inserted.is_tree = true;
    Ok(inserted)
}

/// Sets a value in a bucket. Returns the former one, and whether the key is new.
fn put(
    bucket: &mut Bucket,
    kind: TreeKind,
    key: &PyValue,
    value: Option<&PyValue>,
) -> std::result::Result<(Option<PyValue>, bool), crate::client::records::error::RecordError> {
    match bucket.search(kind, key)? {
        Ok(at) => match (bucket.values.get_mut(at), value) {
            (Some(old), Some(value)) => Ok((Some(std::mem::replace(old, value.clone())), false)),
            _ => Ok((None, false)),
        },
        Err(at) => {
            bucket.keys.insert(at, key.clone());
            if let Some(value) = value {
                bucket.values.insert(at, value.clone());
            }
            Ok((None, true))
        }
    }
}

/// The one bucket of a tree becomes two, with records of their own.
fn two_buckets(objects: &mut Objects, tree: &TreePart, mut bucket: Bucket) -> Result<Inner> {
    let Some(class) = tree.record.class_name() else {
        return damaged("it has no class").map_err(of(Oid::ZERO));
    };
    let class = tree.kind.bucket_class(class);
    let right = bucket.split();
    let key = right.keys.first().cloned();
    let right = add_bucket(objects, tree, &class, right)?;
    bucket.next = Some(right.clone());
    let left = add_bucket(objects, tree, &class, bucket)?;
    Ok(Inner { first: left.clone(), children: vec![left, right], keys: key.into_iter().collect() })
}

fn add_bucket(objects: &mut Objects, tree: &TreePart, class: &Class, bucket: Bucket) -> Result<PyValue> {
    let record = ObjectRecord::new(class.clone(), PyValue::None, tree.record.format);
    let loaded = TreePart { record, kind: tree.kind.bucket(), part: Part::Leaf(bucket) };
    let oid = objects.add(loaded.into_record())?;
    Ok(PyValue::reference(oid, class))
}

/// Splits a child.
fn grow(objects: &mut Objects, parent: Oid, inner: &mut Inner, kind: TreeKind, at: usize) -> Result<()> {
    let oid = inner.child(at).map_err(of(parent))?;
    let mut left = TreePart::child(objects, oid, kind)?;
    let (key, right) = match &mut left.part {
        Part::Leaf(bucket) => {
            let right = bucket.split();
            (right.keys.first().cloned(), Part::Leaf(right))
        }
        Part::Tree(Node::Inner(node)) => {
            let at = node.children.len() / 2;
            let children = node.children.split_off(at);
            let mut keys = node.keys.split_off(at.saturating_sub(1));
            let key = (!keys.is_empty()).then(|| keys.remove(0));
            let first = first_of(objects, oid, children.first(), kind)?;
            (key, Part::Tree(Node::Inner(Inner { first, children, keys })))
        }
        Part::Tree(_) => return damaged("a node without children below the root").map_err(of(oid)),
    };
    let Some(key) = key else { return damaged("a node of one child is split").map_err(of(oid)) };
    let record = ObjectRecord { state: PyValue::None, ..left.record.clone() };
    let right = TreePart { record, kind: left.kind, part: right }.into_record();
    let right = objects.add(right)?;
    let right = objects.reference(right)?;
    if let Part::Leaf(bucket) = &mut left.part {
        bucket.next = Some(right.clone());
    }
    objects.store(oid, left.into_record())?;
    inner.keys.insert(at, key);
    inner.children.insert(at + 1, right);
    Ok(())
}

/// The first bucket of a child.
fn first_of(objects: &Objects, parent: Oid, child: Option<&PyValue>, kind: TreeKind) -> Result<PyValue> {
    let Some(child) = child else { return damaged("a node without children").map_err(of(parent)) };
    let oid = child_oid(child).map_err(of(parent))?;
    match TreePart::child(objects, oid, kind)?.part {
        Part::Leaf(_) => Ok(child.clone()),
        Part::Tree(Node::Inner(inner)) => Ok(inner.first),
        Part::Tree(_) => damaged("a node without children below the root").map_err(of(oid)),
    }
}

/// Moves the children of a root into a new node, and splits that. `record`: of the new node, without its state.
fn split_root(
    objects: &mut Objects,
    oid: Oid,
    root: &mut Inner,
    kind: TreeKind,
    record: ObjectRecord,
) -> Result<()> {
    let moved = Inner {
        first: root.first.clone(),
        children: std::mem::take(&mut root.children),
        keys: std::mem::take(&mut root.keys),
    };
    let node = TreePart { record, kind, part: Part::Tree(Node::Inner(moved)) }.into_record();
    let node = objects.add(node)?;
    root.children.push(objects.reference(node)?);
    grow(objects, oid, root, kind, 0)
}
