//! Whether a tree is as it should be: what the C code's `_check` and `BTrees.check.check` verify.

use std::collections::HashSet;

use super::kind::TreeKind;
use super::node::{Bucket, DEPTH_MAX, Node, Part, TreePart, child_oid, damaged};
use crate::base::ids::Oid;
use crate::client::records::error::{ObjectsError, RecordError, of};
use crate::client::records::objects::Objects;
use crate::client::records::value::PyValue;

type Result<T> = std::result::Result<T, ObjectsError>;

/// Reads the whole tree or bucket `oid`. Returns the number of keys.
///
/// Errors: `Damaged` with the object whose record is wrong.
pub fn check(objects: &Objects, oid: Oid) -> Result<usize> {
    let loaded = TreePart::of(objects, oid)?;
    let mut walk = Walk { objects, kind: loaded.kind, seen: HashSet::new(), buckets: Vec::new(), len: 0 };
    match &loaded.part {
        // Others may follow it.
        Part::Leaf(bucket) => walk.keys(bucket, None, None).map_err(of(oid))?,
        Part::Tree(Node::Empty) => {}
        Part::Tree(Node::Small(bucket)) if bucket.next.is_some() => {
            return damaged("a bucket follows the only one").map_err(of(oid));
        }
        Part::Tree(Node::Small(bucket)) => walk.keys(bucket, None, None).map_err(of(oid))?,
        Part::Tree(Node::Inner(_)) => {
            walk.node(oid, loaded, None, None, 0)?;
            walk.links()?;
        }
    }
    Ok(walk.len)
}

struct Walk<'o> {
    objects: &'o Objects,
    kind: TreeKind,
    seen: HashSet<Oid>,
    /// The buckets in order, with what each refers to as the next one.
    buckets: Vec<(Oid, Option<Oid>)>,
    len: usize,
}

impl Walk<'_> {
    /// The part of the tree that has the keys from `low` to before `high`.
    fn node(
        &mut self,
        oid: Oid,
        loaded: TreePart,
        low: Option<&PyValue>,
        high: Option<&PyValue>,
        depth: usize,
    ) -> Result<()> {
        if !self.seen.insert(oid) || depth > DEPTH_MAX {
            return damaged("a node occurs twice, or too deep").map_err(of(oid));
        }
        let inner = match loaded.part {
            Part::Leaf(bucket) => {
                self.keys(&bucket, low, high).map_err(of(oid))?;
                let next = bucket.next.as_ref().map(child_oid).transpose().map_err(of(oid))?;
                self.buckets.push((oid, next));
                return Ok(());
            }
            Part::Tree(Node::Inner(inner)) => inner,
            Part::Tree(_) => return damaged("a node without children").map_err(of(oid)),
        };
        let first_place = self.buckets.len();
        let mut are_buckets = None;
        for at in 0..inner.children.len() {
            let child = inner.child(at).map_err(of(oid))?;
            let loaded = TreePart::child(self.objects, child, self.kind)?;
            let is_bucket = matches!(loaded.part, Part::Leaf(_));
            if are_buckets.replace(is_bucket).is_some_and(|before| before != is_bucket) {
                return damaged("buckets and nodes are mixed").map_err(of(oid));
            }
            let low = at.checked_sub(1).and_then(|before| inner.keys.get(before)).or(low);
            let high = inner.keys.get(at).or(high);
            self.node(child, loaded, low, high, depth + 1)?;
        }
        let first = child_oid(&inner.first).map_err(of(oid))?;
        match self.buckets.get(first_place) {
            Some((found, _)) if *found == first => Ok(()),
            _ => damaged("the first bucket is another one").map_err(of(oid)),
        }
    }

    fn keys(
        &mut self,
        bucket: &Bucket,
        low: Option<&PyValue>,
        high: Option<&PyValue>,
    ) -> std::result::Result<(), RecordError> {
        if bucket.keys.is_empty() && !self.seen.is_empty() {
            return damaged("an empty bucket");
        }
        for pair in bucket.keys.windows(2) {
            if let [a, b] = pair
                && !self.kind.order(a, b)?.is_lt()
            {
                return damaged("keys are not ascending");
            }
        }
        if let (Some(low), Some(first)) = (low, bucket.keys.first())
            && self.kind.order(first, low)?.is_lt()
        {
            return damaged("a key is less than the one before its bucket");
        }
        if let (Some(high), Some(last)) = (high, bucket.keys.last())
            && !self.kind.order(last, high)?.is_lt()
        {
            return damaged("a key is not less than the one behind its bucket");
        }
        self.len += bucket.keys.len();
        Ok(())
    }

    fn links(&self) -> Result<()> {
        let following = self.buckets.iter().skip(1).map(|(oid, _)| Some(*oid)).chain([None]);
        for ((oid, next), following) in self.buckets.iter().zip(following) {
            if *next != following {
                return damaged("it refers to another bucket than the next one").map_err(of(*oid));
            }
        }
        Ok(())
    }
}
