//! Going down a tree.

use super::kind::TreeKind;
use super::node::{Bucket, DEPTH_MAX, Inner, Node, Part, TreePart, damaged};
use crate::base::ids::Oid;
use crate::client::records::error::{ObjectsError, of};
use crate::client::records::objects::Objects;
use crate::client::records::value::PyValue;

type Result<T> = std::result::Result<T, ObjectsError>;

/// A bucket, and the object in whose record it is.
pub struct BucketPlace {
    /// The bucket's, or the tree's if that has one bucket only.
    pub oid: Oid,
    /// The bucket.
    pub bucket: Bucket,
}

/// The bucket in which a key is, if it is in the tree or bucket `root`. `None`: there is no bucket.
pub fn bucket_of(objects: &Objects, root: Oid, kind: TreeKind, key: &PyValue) -> Result<Option<BucketPlace>> {
    descend(objects, root, |inner| Ok(inner.search(kind, key)?.1))
}

/// The first bucket.
pub fn first_bucket(objects: &Objects, root: Oid) -> Result<Option<BucketPlace>> {
    descend(objects, root, |inner| inner.child(0))
}

/// The last bucket.
pub fn last_bucket(objects: &Objects, root: Oid) -> Result<Option<BucketPlace>> {
    descend(objects, root, |inner| inner.child(inner.children.len() - 1))
}

fn descend(
    objects: &Objects,
    root: Oid,
    choose: impl Fn(&Inner) -> std::result::Result<Oid, crate::client::records::error::RecordError>,
) -> Result<Option<BucketPlace>> {
    let mut oid = root;
    let mut loaded = TreePart::of(objects, root)?;
    for _ in 0..DEPTH_MAX {
        match loaded.part {
            Part::Leaf(bucket) => return Ok(Some(BucketPlace { oid, bucket })),
            Part::Tree(Node::Empty) => return Ok(None),
            Part::Tree(Node::Small(bucket)) => return Ok(Some(BucketPlace { oid, bucket })),
            Part::Tree(Node::Inner(inner)) => {
                let tree = loaded.kind;
                oid = choose(&inner).map_err(of(oid))?;
                loaded = TreePart::child(objects, oid, tree)?;
            }
        }
    }
    damaged("it is too deep").map_err(of(root))
}

/// The bucket that a reference to a next bucket refers to.
pub fn next_bucket(objects: &Objects, oid: Oid, kind: TreeKind) -> Result<Bucket> {
    let loaded = TreePart::of(objects, oid)?;
    match loaded.part {
        Part::Leaf(bucket) if loaded.kind == kind.bucket() => Ok(bucket),
        _ => damaged("the next bucket is none of this kind").map_err(of(oid)),
    }
}
