//! The public face of BTrees.

use std::ops::{Bound, RangeBounds};

use super::check::check;
use super::find::{bucket_of, last_bucket};
use super::insert::insert;
use super::kind::TreeKind;
use super::range::Items;
use super::remove::remove;
use crate::base::ids::Oid;
use crate::client::records::error::{ObjectsError, RecordError, of};
use crate::client::records::format::Format;
use crate::client::records::objects::Objects;
use crate::client::records::record::ObjectRecord;
use crate::client::records::value::{Class, PyValue};

type Result<T> = std::result::Result<T, ObjectsError>;

/// A BTree, TreeSet, Bucket or Set of any family of the BTrees package, by its object id.
///
/// Keys are `None`, integers, texts, bytes and tuples of them, as far as the family takes them; others, which only
/// their class can compare, are an error. Classes that derive from these are not supported.
///
/// Changes are those that Python would make, node by node, so that conflicts of transactions are found, and merged, as
/// between Python programs. A change that fails leaves [`Objects`] as it was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BTree {
    oid: Oid,
    kind: TreeKind,
}

impl BTree {
    /// The BTree of this object id.
    ///
    /// Errors: it is none.
    pub fn open(objects: &Objects, oid: Oid) -> Result<BTree> {
        let record = objects.load(oid)?;
        match record.class_name().and_then(TreeKind::of) {
            Some(kind) => Ok(BTree { oid, kind }),
            None => {
                let found =
                    record.class_name().map_or_else(|| record.class.type_name(), |class| class.to_string());
                Err(of(oid)(RecordError::Unexpected { wanted: "a class of the BTrees package", found }))
            }
        }
    }

    /// A new, empty BTree or TreeSet. `class`: such as `OOBTree` or `IITreeSet`. Something must refer to it: see
    /// [`Objects::reference`].
    pub fn create(objects: &mut Objects, class: &str, format: Format) -> Result<BTree> {
        let family = class.get(..2).unwrap_or_default();
        let class = Class::new(&format!("BTrees.{family}BTree"), class);
        let Some(kind) = TreeKind::of(&class).filter(|kind| kind.is_tree()) else {
            let found = class.to_string();
            return Err(of(Oid::ZERO)(RecordError::Unexpected { wanted: "a BTree or TreeSet", found }));
        };
        let oid = objects.add(ObjectRecord::new(class, PyValue::None, format))?;
        Ok(BTree { oid, kind })
    }

    /// The object id.
    pub fn oid(&self) -> Oid {
        self.oid
    }

    /// Whether it has values: it is a BTree or Bucket.
    pub fn has_values(&self) -> bool {
        self.kind.has_values()
    }

    /// The value of a key; `None` if the key is not there. For a set: `PyValue::None` if it is there.
    pub fn get(&self, objects: &Objects, key: &PyValue) -> Result<Option<PyValue>> {
        let key = self.key(key)?;
        let Some(found) = bucket_of(objects, self.oid, self.kind, &key)? else { return Ok(None) };
        let at = found.bucket.search(self.kind, &key).map_err(of(found.oid))?;
        Ok(at.ok().map(|at| found.bucket.values.get(at).cloned().unwrap_or(PyValue::None)))
    }

    /// Whether there is this key.
    pub fn contains(&self, objects: &Objects, key: &PyValue) -> Result<bool> {
        Ok(self.get(objects, key)?.is_some())
    }

    /// All items, ascending.
    pub fn items<'o>(&self, objects: &'o Objects) -> Result<Items<'o>> {
        self.range(objects, ..)
    }

    /// The items between two keys, ascending. Buckets are loaded one by one.
    pub fn range<'o>(&self, objects: &'o Objects, keys: impl RangeBounds<PyValue>) -> Result<Items<'o>> {
        let bound = |bound: Bound<&PyValue>| {
            Ok::<_, ObjectsError>(match bound {
                Bound::Unbounded => Bound::Unbounded,
                Bound::Included(key) => Bound::Included(self.key(key)?),
                Bound::Excluded(key) => Bound::Excluded(self.key(key)?),
            })
        };
        let (lower, upper) = (bound(keys.start_bound())?, bound(keys.end_bound())?);
        Items::new(objects, self.oid, self.kind, lower, upper)
    }

    /// The largest key.
    pub fn last_key(&self, objects: &Objects) -> Result<Option<PyValue>> {
        Ok(last_bucket(objects, self.oid)?.and_then(|found| found.bucket.keys.into_iter().next_back()))
    }

    /// The number of keys. Loads all buckets; applications keep a [`Length`](super::super::Length) beside large trees.
    pub fn count(&self, objects: &Objects) -> Result<usize> {
        let mut count = 0;
        for item in self.items(objects)? {
            item?;
            count += 1;
        }
        Ok(count)
    }

    /// Sets the value of a key. Returns the former one; `None`: the key is new. In a set, where `value` is ignored, the
    /// former value is `PyValue::None`.
    ///
    /// Errors: the key or the value is not of the family's type.
    pub fn insert(&self, objects: &mut Objects, key: PyValue, value: PyValue) -> Result<Option<PyValue>> {
        let key = self.key(&key)?;
        let value = match self.has_values() {
            true => Some(self.kind.value(&value).map_err(of(self.oid))?),
            false => None,
        };
        let inserted = objects.in_one_step(|objects| insert(objects, self.oid, &key, value.as_ref()))?;
        Ok((!inserted.is_new).then(|| inserted.old.unwrap_or(PyValue::None)))
    }

    /// Adds a key to a set. Returns whether it is new.
    pub fn add(&self, objects: &mut Objects, key: PyValue) -> Result<bool> {
        Ok(self.insert(objects, key, PyValue::None)?.is_none())
    }

    /// Removes a key. Returns its value, `PyValue::None` for a set; `None`: it is not there.
    pub fn remove(&self, objects: &mut Objects, key: &PyValue) -> Result<Option<PyValue>> {
        let key = self.key(key)?;
        let removed = objects.in_one_step(|objects| remove(objects, self.oid, &key))?;
        Ok(removed.map(|removed| removed.value.unwrap_or(PyValue::None)))
    }

    /// Reads all of it and verifies the order of its keys and the references between its nodes, as `BTrees.check.check`
    /// does, and that keys and values are of the family's types. Returns the number of keys.
    ///
    /// Errors: [`RecordError::Damaged`].
    pub fn check(&self, objects: &Objects) -> Result<usize> {
        check(objects, self.oid)
    }

    fn key(&self, key: &PyValue) -> Result<PyValue> {
        self.kind.key(key).map_err(of(self.oid))
    }
}
