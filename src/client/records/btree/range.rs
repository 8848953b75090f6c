//! The items of a tree in order, bucket after bucket.

use std::ops::Bound;

use super::find::{BucketPlace, bucket_of, first_bucket, next_bucket};
use super::kind::TreeKind;
use super::node::{Bucket, child_oid, damaged};
use crate::base::ids::Oid;
use crate::client::records::error::{ObjectsError, RecordError, of};
use crate::client::records::objects::Objects;
use crate::client::records::value::PyValue;

/// Keys and values in ascending order; the values of a set are `None`. Ends after an error.
pub struct Items<'o> {
    objects: &'o Objects,
    kind: TreeKind,
    /// The object that has the bucket.
    oid: Oid,
    bucket: Bucket,
    at: usize,
    upper: Bound<PyValue>,
    is_done: bool,
}

impl<'o> Items<'o> {
    /// The items of the tree or bucket `root` between two keys.
    pub(super) fn new(
        objects: &'o Objects,
        root: Oid,
        kind: TreeKind,
        lower: Bound<PyValue>,
        upper: Bound<PyValue>,
    ) -> Result<Items<'o>, ObjectsError> {
        let found = match &lower {
            Bound::Unbounded => first_bucket(objects, root)?,
            Bound::Included(key) | Bound::Excluded(key) => bucket_of(objects, root, kind, key)?,
        };
        let Some(BucketPlace { oid, bucket }) = found else {
            let bucket = Bucket::default();
            return Ok(Items { objects, kind, oid: root, bucket, at: 0, upper, is_done: true });
        };
        let place = |key| bucket.search(kind, key).map_err(of(oid));
        let at = match &lower {
            Bound::Unbounded => 0,
            Bound::Included(key) => place(key)?.unwrap_or_else(|at| at),
            Bound::Excluded(key) => place(key)?.map_or_else(|at| at, |at| at + 1),
        };
        Ok(Items { objects, kind, oid, bucket, at, upper, is_done: false })
    }

    fn step(&mut self) -> Result<Option<(PyValue, PyValue)>, ObjectsError> {
        if self.at >= self.bucket.keys.len() && !self.follow()? {
            return Ok(None);
        }
        let Some(key) = self.bucket.keys.get(self.at) else { return Ok(None) };
        let order = |other| self.kind.order(key, other).map_err(of(self.oid));
        let is_inside = match &self.upper {
            Bound::Unbounded => true,
            Bound::Included(upper) => order(upper)?.is_le(),
            Bound::Excluded(upper) => order(upper)?.is_lt(),
        };
        if !is_inside {
            return Ok(None);
        }
        let value = self.bucket.values.get(self.at).cloned().unwrap_or(PyValue::None);
        let item = (key.clone(), value);
        self.at += 1;
        Ok(Some(item))
    }

    /// Goes to the next bucket. False: there is none.
    fn follow(&mut self) -> Result<bool, ObjectsError> {
        let Some(next) = &self.bucket.next else { return Ok(false) };
        let oid = child_oid(next).map_err(of(self.oid))?;
        let bucket = next_bucket(self.objects, oid, self.kind)?;
        // So the walk ends, wherever a damaged tree leads.
        let is_ascending = match (self.bucket.keys.last(), bucket.keys.first()) {
            (Some(last), Some(first)) => self.kind.order(last, first).map_err(of(oid))?.is_lt(),
            (None, Some(_)) => true,
            (_, None) => return damaged("an empty bucket").map_err(of(oid)),
        };
        if !is_ascending {
            return Err(of(oid)(RecordError::Damaged("keys are not ascending".into())));
        }
        (self.oid, self.bucket, self.at) = (oid, bucket, 0);
        Ok(true)
    }
}

impl Iterator for Items<'_> {
    type Item = Result<(PyValue, PyValue), ObjectsError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done {
            return None;
        }
        let item = self.step().transpose();
        self.is_done = !matches!(item, Some(Ok(_)));
        item
    }
}
