//! Whether a tree is as it should be: what the C code's `_check` and `BTrees.check.check` verify, and that each node
//! can be loaded.
//!
//! A [`TreeCheck`] goes on behind what is wrong, as far as it can: what is below a missing node is not known.

use std::collections::HashMap;

use super::kind::TreeKind;
use super::node::{Bucket, DEPTH_MAX, Inner, Node, Part, TreePart, child_oid, damaged};
use crate::base::ids::Oid;
use crate::client::records::error::{ObjectsError, RecordError, of};
use crate::client::records::objects::Objects;
use crate::client::records::record::ObjectRecord;
use crate::client::records::value::PyValue;
use crate::storage::StorageError;

/// Reads the whole tree or bucket `oid`. Returns the number of keys.
///
/// Errors: `Damaged` with the object whose record is wrong.
pub fn check(objects: &Objects, oid: Oid) -> Result<usize, ObjectsError> {
    let mut seen = HashMap::new();
    let sums = TreeCheck::new(objects, &mut seen, &mut |flaw| Err(flaw.error)).check(oid)?;
    Ok(usize::try_from(sums.keys).unwrap_or(usize::MAX))
}

/// The nodes and buckets that a record refers to as parts of its tree. None, if it is no inner node or cannot be read.
pub fn children_of(data: &[u8]) -> Vec<Oid> {
    let part = ObjectRecord::decode(data)
        .map_err(of(Oid::ZERO))
        .and_then(|record| TreePart::from_record(Oid::ZERO, record));
    match part.map(|part| part.part) {
        Ok(Part::Tree(Node::Inner(inner))) => inner.children.iter().filter_map(PyValue::as_oid).collect(),
        _ => Vec::new(),
    }
}

/// Something that is wrong.
pub struct TreeFlaw<'a> {
    /// From the root of the tree to the node that is wrong, or missing.
    pub path: &'a [Oid],
    /// What is wrong. `Incomparable`: only the application can tell whether the keys of this node are in order.
    pub error: ObjectsError,
}

/// What a check has read.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TreeSums {
    /// InMemory: the root, nodes and buckets.
    pub records: u64,
    /// Keys in buckets.
    pub keys: u64,
}

/// The check of one tree. `E`: why the caller ends it.
pub struct TreeCheck<'o, 'f, E> {
    objects: &'o Objects,
    seen: &'f mut HashMap<Oid, Oid>,
    found: &'f mut dyn FnMut(TreeFlaw<'_>) -> Result<(), E>,
    is_part: bool,
    path: Vec<Oid>,
    /// The bucket before, with its path, and what it refers to as the next one; `None`: it is not known.
    before: Option<(Vec<Oid>, Option<Oid>)>,
    sums: TreeSums,
}

impl<'o, 'f, E: From<ObjectsError>> TreeCheck<'o, 'f, E> {
    /// A check of one tree. `seen`: the nodes of the trees that were checked, each with the one that it is a child of.
    /// `found` gets what is wrong.
    pub fn new(
        objects: &'o Objects,
        seen: &'f mut HashMap<Oid, Oid>,
        found: &'f mut dyn FnMut(TreeFlaw<'_>) -> Result<(), E>,
    ) -> TreeCheck<'o, 'f, E> {
        let sums = TreeSums::default();
        TreeCheck { objects, seen, found, is_part: false, path: Vec::new(), before: None, sums }
    }

    /// What is checked may be an inner node of a tree, so that another bucket may follow its last one.
    pub fn of_part(self) -> TreeCheck<'o, 'f, E> {
        TreeCheck { is_part: true, ..self }
    }

    /// Checks a tree or a bucket.
    ///
    /// Errors: what `found` returns, and errors of the storage that are no damage.
    pub fn check(mut self, oid: Oid) -> Result<TreeSums, E> {
        self.path.push(oid);
        let loaded = match TreePart::of(self.objects, oid) {
            Ok(loaded) => loaded,
            Err(error) => {
                self.failed(error)?;
                return Ok(self.sums);
            }
        };
        let kind = loaded.kind;
        match loaded.part {
            // Others may follow it.
            Part::Leaf(bucket) => self.bucket(kind, &bucket, None, None)?,
            Part::Tree(Node::Empty) => self.sums.records += 1,
            Part::Tree(Node::Small(bucket)) => {
                if bucket.next.is_some() {
                    self.flaw("a bucket follows the only one")?;
                }
                self.bucket(kind, &bucket, None, None)?;
            }
            Part::Tree(Node::Inner(inner)) => {
                self.inner(kind, &inner, None, None)?;
                if !self.is_part {
                    self.link_to(None)?;
                }
            }
        }
        Ok(self.sums)
    }

    /// The part of the tree that has the keys from `low` to before `high`. Returns its first bucket, if that is known.
    fn inner(
        &mut self,
        kind: TreeKind,
        inner: &Inner,
        low: Option<&PyValue>,
        high: Option<&PyValue>,
    ) -> Result<Option<Oid>, E> {
        self.sums.records += 1;
        if let Err(error) = ascending(kind, &inner.keys, low, high) {
            self.record(error)?;
        }
        let mut are_buckets = None;
        let mut first = None;
        for (at, child) in inner.children.iter().enumerate() {
            let low = at.checked_sub(1).and_then(|before| inner.keys.get(before)).or(low);
            let high = inner.keys.get(at).or(high);
            let Ok(child) = child_oid(child) else { continue };
            let found = match self.child(kind, child)? {
                None => {
                    self.before = None;
                    None
                }
                Some(Part::Leaf(bucket)) => {
                    self.same_level(&mut are_buckets, true)?;
                    self.leaf(kind, child, &bucket, low, high)?;
                    Some(child)
                }
                Some(Part::Tree(node)) => {
                    self.same_level(&mut are_buckets, false)?;
                    self.path.push(child);
                    let found = match &node {
                        Node::Inner(inner) => self.inner(kind, inner, low, high)?,
                        Node::Empty | Node::Small(_) => None,
                    };
                    self.path.pop();
                    found
                }
            };
            if at == 0 {
                first = found;
            }
        }
        let named = child_oid(&inner.first).ok();
        if first.is_some() && named != first {
            self.flaw("its first bucket is not the first one of those below it")?;
        }
        Ok(first)
    }

    /// Loads a child of the node at the end of the path, unless something is wrong with it.
    fn child(&mut self, kind: TreeKind, child: Oid) -> Result<Option<Part>, E> {
        let parent = self.path.last().copied().unwrap_or(Oid::ZERO);
        let is_root = self.path.first() == Some(&child);
        let other = self.seen.get(&child).copied().or(is_root.then_some(parent));
        self.path.push(child);
        let loaded = match other {
            Some(_) if is_root => self.flaw("the root of the tree is a node of itself").map(|()| None),
            Some(other) if other == parent => self.flaw("its node has it twice").map(|()| None),
            Some(other) => {
                let what = format!("it is a child of two nodes: the other one is {}", repr(other));
                self.flaw(&what).map(|()| None)
            }
            None if self.path.len() > DEPTH_MAX => self.flaw("the tree is too deep").map(|()| None),
            None => {
                self.seen.insert(child, parent);
                match TreePart::child(self.objects, child, kind) {
                    Ok(loaded) => Ok(Some(loaded.part)),
                    Err(error) => self.failed(error).map(|()| None),
                }
            }
        };
        self.path.pop();
        loaded
    }

    fn same_level(&mut self, are_buckets: &mut Option<bool>, is_bucket: bool) -> Result<(), E> {
        if are_buckets.replace(is_bucket).is_some_and(|before| before != is_bucket) {
            self.flaw("buckets and nodes are mixed")?;
        }
        Ok(())
    }

    fn leaf(
        &mut self,
        kind: TreeKind,
        oid: Oid,
        bucket: &Bucket,
        low: Option<&PyValue>,
        high: Option<&PyValue>,
    ) -> Result<(), E> {
        self.link_to(Some(oid))?;
        self.path.push(oid);
        if bucket.keys.is_empty() {
            self.flaw("an empty bucket")?;
        }
        self.bucket(kind, bucket, low, high)?;
        let next = bucket.next.as_ref().and_then(PyValue::as_oid);
        let mut path = self.before.take().map_or_else(Vec::new, |(path, _)| path);
        path.clone_from(&self.path);
        self.before = Some((path, next));
        self.path.pop();
        Ok(())
    }

    /// The bucket before must refer to this one as the next.
    fn link_to(&mut self, following: Option<Oid>) -> Result<(), E> {
        let Some((path, next)) = self.before.as_ref().filter(|(_, next)| *next != following) else {
            return Ok(());
        };
        let name = |oid: Option<Oid>| oid.map_or("none".into(), repr);
        let what = format!("the next bucket is {}, it refers to {}", name(following), name(*next));
        let oid = path.last().copied().unwrap_or(Oid::ZERO);
        let error = of(oid)(RecordError::Damaged(what));
        (self.found)(TreeFlaw { path, error })
    }

    fn bucket(
        &mut self,
        kind: TreeKind,
        bucket: &Bucket,
        low: Option<&PyValue>,
        high: Option<&PyValue>,
    ) -> Result<(), E> {
        self.sums.records += 1;
        self.sums.keys += bucket.keys.len() as u64;
        let types = bucket.keys.iter().try_for_each(|key| kind.is_key(key));
        let types =
            types.and_then(|()| bucket.values.iter().try_for_each(|value| kind.value(value).map(drop)));
        // Keys of a wrong type have no order.
        match types.and_then(|()| ascending(kind, &bucket.keys, low, high)) {
            Ok(()) => Ok(()),
            Err(error) => self.record(error),
        }
    }

    fn flaw(&mut self, what: &str) -> Result<(), E> {
        self.record(RecordError::Damaged(what.into()))
    }

    fn record(&mut self, error: RecordError) -> Result<(), E> {
        let oid = self.path.last().copied().unwrap_or(Oid::ZERO);
        (self.found)(TreeFlaw { path: &self.path, error: of(oid)(error) })
    }

    /// The node at the end of the path cannot be loaded.
    fn failed(&mut self, error: ObjectsError) -> Result<(), E> {
        match error {
            ObjectsError::Storage(StorageError::Corrupt { .. } | StorageError::PosKey(_))
            | ObjectsError::Record { .. }
            | ObjectsError::NotInView(_) => (self.found)(TreeFlaw { path: &self.path, error }),
            error => Err(error.into()),
        }
    }
}

/// In hexadecimal digits, as Python shows it.
fn repr(oid: Oid) -> String {
    let digits = format!("{:x}", oid.0);
    if digits.len() % 2 == 1 { format!("0x0{digits}") } else { format!("0x{digits}") }
}

/// Whether the keys ascend, and are between `low` and `high`.
fn ascending(
    kind: TreeKind,
    keys: &[PyValue],
    low: Option<&PyValue>,
    high: Option<&PyValue>,
) -> Result<(), RecordError> {
    for (at, pair) in keys.windows(2).enumerate() {
        if let [a, b] = pair
            && !kind.order(a, b)?.is_lt()
        {
            return damaged(&format!("keys are not ascending: number {} of {}", at + 2, keys.len()));
        }
    }
    if let (Some(low), Some(first)) = (low, keys.first())
        && kind.order(first, low)?.is_lt()
    {
        return damaged("a key is less than the one before its node");
    }
    if let (Some(high), Some(last)) = (high, keys.last())
        && !kind.order(last, high)?.is_lt()
    {
        return damaged("a key is not less than the one behind its node");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::Tid;
    use crate::client::records::objects::ObjectSource;
    use crate::client::records::{Class, Format};

    /// InMemory by oid, from 1 on.
    struct InMemory(Vec<Vec<u8>>);

    impl ObjectSource for InMemory {
        fn load(&self, oid: Oid) -> crate::storage::Result<Option<(Vec<u8>, Tid)>> {
            let at = usize::try_from(oid.0).unwrap().checked_sub(1);
            Ok(at.and_then(|at| self.0.get(at)).map(|data| (data.clone(), Tid(1))))
        }

        fn new_oid(&self) -> crate::storage::Result<Oid> {
            unreachable!("nothing is added")
        }
    }

    const FORMAT: Format = Format { is_python2: false, protocol: 3 };

    fn record(class: &str, state: PyValue) -> Vec<u8> {
        let class = Class::new(&format!("BTrees.{}BTree", &class[..2]), class);
        ObjectRecord::new(class, state, FORMAT).encode().unwrap()
    }

    fn tuple(items: &[PyValue]) -> PyValue {
        PyValue::Tuple(items.to_vec())
    }

    fn to(oid: u64) -> PyValue {
        PyValue::reference(Oid(oid), &Class::new("BTrees.IOBTree", "IOBucket"))
    }

    fn tree(items: &[PyValue]) -> PyValue {
        tuple(&[tuple(items), items[0].clone()])
    }

    fn bucket(items: &[PyValue], next: Option<u64>) -> PyValue {
        PyValue::Tuple([tuple(items)].into_iter().chain(next.map(to)).collect())
    }

    /// What is wrong with the first of the records, with the node.
    fn flaws(records: &[(&str, PyValue)]) -> Vec<(u64, String)> {
        let records = records.iter().map(|(class, state)| record(class, state.clone())).collect();
        let objects = Objects::new(InMemory(records));
        let mut found = Vec::new();
        let mut seen = HashMap::new();
        let mut add = |flaw: TreeFlaw<'_>| {
            found.push((flaw.path.last().unwrap().0, flaw.error.to_string()));
            Ok::<_, ObjectsError>(())
        };
        TreeCheck::new(&objects, &mut seen, &mut add).check(Oid(1)).unwrap();
        found
    }

    #[test]
    fn nodes_that_the_package_refuses_to_load() {
        let int = PyValue::Int;
        let text = PyValue::text("x");
        let above = ("IOBTree", tree(&[to(2), int(5), to(3)]));
        let first = ("IOBucket", bucket(&[int(1), text.clone()], Some(3)));
        let last = ("IOBucket", bucket(&[int(5), text.clone()], None));
        let of = |second: (&str, PyValue)| flaws(&[above.clone(), second, last.clone()]);
        assert_eq!(of(first.clone()), []);
        for (second, what) in [
            (("OOBucket", first.1.clone()), "a node of another class"),
            (("IOSet", first.1.clone()), "a node of another class"),
            (("IOBTree", PyValue::None), "a node without children below the root"),
            (("IOBucket", bucket(&[text.clone(), text.clone()], Some(3))), "integers of 32 bits"),
            (("IOBucket", bucket(&[int(1 << 40), text.clone()], Some(3))), "integers of 32 bits"),
            (("IOBucket", bucket(&[int(1)], Some(3))), "a key without a value"),
            (("IOBucket", text.clone()), "a tuple is expected"),
            (("IOBucket", bucket(&[], Some(3))), "an empty bucket"),
        ] {
            let found = of(second);
            assert!(found.len() == 1 && found[0].0 == 2 && found[0].1.contains(what), "{what}: {found:?}");
        }
        let node = ("IOBTree", tree(&[to(4)]));
        let below = ("IOBucket", bucket(&[int(1), text.clone()], Some(3)));
        let found = flaws(&[above.clone(), node, last.clone(), below]);
        let what: Vec<&str> = found.iter().map(|(_, what)| what.as_str()).collect();
        assert!(what.iter().any(|what| what.contains("buckets and nodes are mixed")), "{what:?}");
        // The chain behind a missing node is not known.
        let found = flaws(&[("IOBTree", tree(&[to(2), int(3), to(7), int(5), to(3)])), first, last]);
        assert_eq!(found.iter().map(|(oid, _)| *oid).collect::<Vec<_>>(), [7], "{found:?}");
    }

    #[test]
    fn a_tree_that_is_too_deep_ends() {
        let node = |child: u64| ("IOBTree", tree(&[to(child)]));
        let nodes: Vec<_> = (2..100).map(node).collect();
        let found = flaws(&nodes);
        assert!(found.len() == 1 && found[0].1.contains("too deep"), "{found:?}");
        let found = flaws(&[node(2), node(3), node(2)]);
        assert!(found.len() == 1 && found[0].1.contains("a child of two nodes"), "{found:?}");
    }
}
