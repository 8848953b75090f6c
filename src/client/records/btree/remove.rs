//! Removing from a tree, as in C: buckets and nodes are never merged, those that become empty are taken out.
//!
//! A bucket that was taken out is stored empty, so that a transaction that adds to it at the same time conflicts.

use super::find::{last_bucket, next_bucket};
use super::kind::TreeKind;
use super::node::{Bucket, DEPTH_MAX, Inner, Node, Part, TreePart, child_oid, damaged};
use crate::base::ids::Oid;
use crate::client::records::error::{ObjectsError, RecordError, of};
use crate::client::records::objects::Objects;
use crate::client::records::value::PyValue;

type Result<T> = std::result::Result<T, ObjectsError>;

/// What was removed.
pub struct Removed {
    /// The value; `None` in a set.
    pub value: Option<PyValue>,
    /// Nothing is left in the part from which it was removed.
    is_empty: bool,
    /// The first bucket of that part was taken out: its first bucket is this one now, or there is none. The bucket
    /// before it, which is in another part, still refers to the one that was taken out.
    new_first: Option<Option<PyValue>>,
}

/// Removes a key from the tree or bucket `oid`. `None`: it is not there.
pub fn remove(objects: &mut Objects, oid: Oid, key: &PyValue) -> Result<Option<Removed>> {
    let loaded = TreePart::of(objects, oid)?;
    remove_from(objects, oid, loaded, key, 0)
}

fn remove_from(
    objects: &mut Objects,
    oid: Oid,
    mut loaded: TreePart,
    key: &PyValue,
    depth: usize,
) -> Result<Option<Removed>> {
    if depth > DEPTH_MAX {
        return damaged("it is too deep").map_err(of(oid));
    }
    let kind = loaded.kind;
    let inner = match &mut loaded.part {
        Part::Tree(Node::Empty) => return Ok(None),
        Part::Leaf(bucket) | Part::Tree(Node::Small(bucket)) => {
            let Some(value) = take(bucket, kind, key).map_err(of(oid))? else { return Ok(None) };
            let is_empty = bucket.keys.is_empty();
            if is_empty && matches!(loaded.part, Part::Tree(_)) {
                loaded.part = Part::Tree(Node::Empty);
            }
            objects.store(oid, loaded.into_record())?;
            return Ok(Some(Removed { value, is_empty, new_first: None }));
        }
        Part::Tree(Node::Inner(inner)) => inner,
    };
    // Another transaction may not split this node at the same time.
    objects.depend_on(oid)?;
    let (at, child) = inner.search(kind, key).map_err(of(oid))?;
    let child_loaded = TreePart::child(objects, child, kind)?;
    let is_bucket = matches!(child_loaded.part, Part::Leaf(_));
    let Some(removed) = remove_from(objects, child, child_loaded, key, depth + 1)? else { return Ok(None) };
    let mut is_changed = false;
    if !removed.is_empty && replace_key(objects, inner, kind, at, key).map_err_to(oid)? {
        is_changed = true;
    }
    let mut new_first = None;
    if let Some(first) = removed.new_first {
        match at.checked_sub(1) {
            Some(before) => unlink_after(objects, inner.child(before).map_err(of(oid))?, kind)?,
            None => new_first = Some(first),
        }
    }
    if removed.is_empty {
        if is_bucket {
            match at.checked_sub(1) {
                Some(before) => unlink_after(objects, inner.child(before).map_err(of(oid))?, kind)?,
                None => new_first = Some(next_bucket(objects, child, kind)?.next),
            }
        }
        take_out(inner, at);
        is_changed = true;
    }
    if let Some(first) = &new_first {
        inner.first = first.clone().unwrap_or(PyValue::None);
        is_changed = true;
    }
    let is_empty = inner.children.is_empty();
    if !is_empty && inner.first == PyValue::None {
        return damaged("no bucket follows the first one").map_err(of(oid));
    }
    if is_empty {
        loaded.part = Part::Tree(Node::Empty);
    }
    if is_changed {
        objects.store(oid, loaded.into_record())?;
    }
    Ok(Some(Removed { value: removed.value, is_empty, new_first }))
}

/// Removes a key from a bucket. `None`: it is not there.
fn take(
    bucket: &mut Bucket,
    kind: TreeKind,
    key: &PyValue,
) -> std::result::Result<Option<Option<PyValue>>, RecordError> {
    let Ok(at) = bucket.search(kind, key)? else { return Ok(None) };
    bucket.keys.remove(at);
    Ok(Some((at < bucket.values.len()).then(|| bucket.values.remove(at))))
}

/// The key before a child is the smallest one in it, if it was the one that is removed.
fn replace_key(
    objects: &Objects,
    inner: &mut Inner,
    kind: TreeKind,
    at: usize,
    key: &PyValue,
) -> std::result::Result<bool, ReplaceError> {
    let child = inner.child(at)?;
    let Some(own) = at.checked_sub(1).and_then(|before| inner.keys.get_mut(before)) else { return Ok(false) };
    if !kind.order(own, key)?.is_eq() {
        return Ok(false);
    }
    let bucket = match TreePart::child(objects, child, kind)?.part {
        Part::Leaf(bucket) => bucket,
        Part::Tree(Node::Inner(node)) => next_bucket(objects, child_oid(&node.first)?, kind)?,
        Part::Tree(_) => return Ok(false),
    };
    match bucket.keys.into_iter().next() {
        Some(smallest) => *own = smallest,
        None => return damaged("an empty bucket").map_err(ReplaceError::Own),
    }
    Ok(true)
}

/// An error of the node itself, or of another object.
enum ReplaceError {
    Own(RecordError),
    Other(ObjectsError),
}

impl From<RecordError> for ReplaceError {
    fn from(error: RecordError) -> ReplaceError {
        ReplaceError::Own(error)
    }
}

impl From<ObjectsError> for ReplaceError {
    fn from(error: ObjectsError) -> ReplaceError {
        ReplaceError::Other(error)
    }
}

/// Names the object of an error of its own.
trait MapErrTo<T> {
    fn map_err_to(self, oid: Oid) -> Result<T>;
}

impl<T> MapErrTo<T> for std::result::Result<T, ReplaceError> {
    fn map_err_to(self, oid: Oid) -> Result<T> {
        self.map_err(|error| match error {
            ReplaceError::Own(error) => of(oid)(error),
            ReplaceError::Other(error) => error,
        })
    }
}

/// The last bucket of `child`, or the bucket itself, no longer refers to the next one but to the one behind that.
fn unlink_after(objects: &mut Objects, child: Oid, kind: TreeKind) -> Result<()> {
    let Some(found) = last_bucket(objects, child)? else {
        return damaged("a node without buckets").map_err(of(child));
    };
    let Some(next) = &found.bucket.next else { return Ok(()) };
    let next = child_oid(next).map_err(of(found.oid))?;
    let after = next_bucket(objects, next, kind)?.next;
    let mut loaded = TreePart::of(objects, found.oid)?;
    if let Part::Leaf(bucket) = &mut loaded.part {
        bucket.next = after;
    }
    objects.store(found.oid, loaded.into_record())
}

/// Takes a child out, with the key before it; for the first child, the one behind it.
fn take_out(inner: &mut Inner, at: usize) {
    inner.children.remove(at);
    let key = at.saturating_sub(1);
    if key < inner.keys.len() {
        inner.keys.remove(key);
    }
}
