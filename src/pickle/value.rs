//! The values in a pickle as a flat list of nodes, without recursion to build, drop or share them.
//!
//! Containers hold the numbers of their items. A memo reference is the number of an existing node, so a pickle that
//! would unfold to gigabytes stays small; code that unfolds it must use a [`Budget`].

use std::borrow::Cow;

/// The number of a node.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct NodeId(pub(crate) u32);

/// A value in a pickle. Nothing is executed: classes are names, instances are their parts.
#[derive(Clone, Debug, PartialEq)]
pub enum Node<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// An integer beyond 64 bits: two's complement, little endian.
    BigInt(Cow<'a, [u8]>),
    Float(f64),
    /// `bytes` of Python 3 (protocol 3 and later).
    Bytes(Cow<'a, [u8]>),
    /// `str` of Python 2: bytes or text, which cannot be told apart.
    Str(Cow<'a, [u8]>),
    /// A text in UTF-8, perhaps with encoded lone surrogates.
    Text(Cow<'a, [u8]>),
    ByteArray(&'a [u8]),
    Tuple(Vec<NodeId>),
    List(Vec<NodeId>),
    Dict(Vec<(NodeId, NodeId)>),
    Set(Vec<NodeId>),
    FrozenSet(Vec<NodeId>),
    Global {
        module: Cow<'a, [u8]>,
        name: Cow<'a, [u8]>,
    },
    /// An object in the extension registry.
    Extension(u32),
    /// A persistent reference.
    Persistent(NodeId),
    Object(Box<Object>),
}

/// The parts of an instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    pub made_by: MadeBy,
    pub class: NodeId,
    /// A tuple, except for `NEWOBJ_EX`, where it is (args, kwargs).
    pub args: NodeId,
    pub state: Option<NodeId>,
    /// Appended items.
    pub items: Vec<NodeId>,
    /// Keys and values that were set.
    pub pairs: Vec<(NodeId, NodeId)>,
}

/// The opcode that makes an instance.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MadeBy {
    Reduce,
    NewObj,
    NewObjEx,
    Inst,
}

/// A value with all its parts.
#[derive(Debug)]
pub struct Tree<'a> {
    source: &'a [u8],
    len: usize,
    nodes: Vec<Node<'a>>,
    /// Start and end of each node in the source.
    spans: Vec<(usize, usize)>,
    /// Offsets of the opcodes that refer to an earlier node, ascending.
    gets: Vec<usize>,
    root: NodeId,
}

impl<'a> Tree<'a> {
    /// Built from the nodes, their spans in the first `len` bytes of `source`, and the offsets of references to earlier
    /// nodes.
    pub fn new(
        source: &'a [u8],
        len: usize,
        nodes: Vec<Node<'a>>,
        spans: Vec<(usize, usize)>,
        gets: Vec<usize>,
        root: NodeId,
    ) -> Tree<'a> {
        Tree { source, len, nodes, spans, gets, root }
    }

    /// The same with other values in the place of some, in the order of [`Tree::nodes`].
    pub fn replace(mut self, others: impl IntoIterator<Item = Option<Node<'a>>>) -> Tree<'a> {
        for (node, other) in self.nodes.iter_mut().zip(others) {
            if let Some(other) = other {
                *node = other;
            }
        }
        self
    }

    pub fn root(&self) -> NodeId {
        self.root
    }

    /// Length of the pickle in its source.
    #[allow(clippy::len_without_is_empty)] // no value takes none
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn node(&self, id: NodeId) -> &Node<'a> {
        // Ids come only from the reader of this tree.
        self.nodes.get(id.0 as usize).unwrap_or(&Node::None)
    }

    /// All values, in no particular order.
    pub fn nodes(&self) -> &[Node<'a>] {
        &self.nodes
    }

    /// The bytes of a value in the source; `None` if they refer to earlier values.
    pub fn encoded(&self, id: NodeId) -> Option<&'a [u8]> {
        let (start, end) = *self.spans.get(id.0 as usize)?;
        let next_get = self.gets.get(self.gets.partition_point(|pos| *pos < start));
        if next_get.is_some_and(|pos| *pos < end) {
            return None;
        }
        self.source.get(start..end)
    }
}

/// A limit on unfolding shared nodes.
#[derive(Debug)]
pub struct Budget {
    left: usize,
}

/// More was unfolded than the length of the message justifies, or a value contains itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TooMuch;

/// Deepest nesting of a value that is turned into a tree.
pub const DEPTH_MAX: usize = 48;

impl Budget {
    /// Enough for each value of a pickle of `len` bytes once, and for reasonable sharing.
    pub fn for_len(len: usize) -> Budget {
        Budget { left: len.saturating_mul(4).saturating_add(4096) }
    }

    /// Counts a value of `len` bytes.
    pub fn spend(&mut self, len: usize) -> Result<(), TooMuch> {
        self.left = self.left.checked_sub(len.saturating_add(1)).ok_or(TooMuch)?;
        Ok(())
    }
}
