//! The parts of a message whose arguments are plain scalars, as in all calls whose speed matters. Scanned in one pass
//! over the frame, without allocating; the result borrows from the frame. [`super::pickle::scan`] and
//! [`super::msgpack::scan`] fill it; a message with any other argument is read into a tree.

use crate::base::ids::{Oid, Tid};
use crate::pickle::value::NodeId;

/// An argument.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scalar<'a> {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Bytes(&'a [u8]),
    /// `str` of Python 2.
    Str(&'a [u8]),
    /// UTF-8 as Python writes it; not checked, may have lone surrogates.
    Text(&'a [u8]),
    /// A pair of 8 bytes each, the message id of a load.
    Load(Oid, Tid),
    /// No scalar: a node in the tree of the message.
    Node(NodeId),
}

/// An argument and the bytes that encode it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot<'a> {
    pub scalar: Scalar<'a>,
    pub encoded: &'a [u8],
}

impl Slot<'_> {
    pub const EMPTY: Slot<'static> = Slot { scalar: Scalar::None, encoded: &[] };
}

/// Message id, flag, method, and up to eight arguments.
pub(super) type Slots<'a> = [Slot<'a>; 11];

/// Number of slots before the arguments.
pub(super) const HEAD: usize = 3;

/// The result of a scan: the slots are filled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scanned {
    /// Number of arguments; `None` if the message has `None` instead of arguments.
    pub args: Option<usize>,
}
