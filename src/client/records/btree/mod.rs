//! BTrees of the BTrees package: all families, and their TreeSets, Buckets and Sets.
//!
//! `kind` has the families: what keys and values they take, and how large their nodes grow. `node` translates states.
//! `find` goes down a tree, `insert` and `remove` change it, with the same splits, and the same pointers between
//! buckets, as the C code makes; `check` is what its `_check` and `BTrees.check.check` verify. `tree` is the public
//! face.
//!
//! A tree is a root and nodes below it, all of one class, and at the bottom buckets (sets, for trees without values). A
//! node has children and between them keys: what is in the child behind a key is not less than it. Each bucket refers
//! to the next one, each node to the first bucket below it. A tree with one bucket keeps the bucket in its own record.

mod check;
mod find;
mod insert;
mod kind;
mod node;
mod range;
mod remove;
mod tree;

pub(crate) use self::check::{TreeCheck, TreeFlaw, TreeSums, children_of};
pub use self::range::Items;
pub use self::tree::BTree;
