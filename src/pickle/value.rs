//! What a pickle says, as a flat list of nodes: no recursion to build, drop or share them.
//!
//! Containers hold the numbers of their items. A memo reference is the number of an existing node, so a pickle that
//! would unfold to gigabytes stays as small as it came; whoever unfolds it must count ([`Budget`]).

use std::borrow::Cow;

/// The number of a node.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct NodeId(pub(crate) u32);

/// A value in a pickle. Nothing is executed: classes are names, instances are what they would be built from.
#[derive(Clone, Debug, PartialEq)]
pub enum Node<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// An integer beyond 64 bits: two's complement, little endian.
    BigInt(Cow<'a, [u8]>),
    Float(f64),
    /// `bytes` of Python 3 (protocol 3 and later)
    Bytes(Cow<'a, [u8]>),
    /// `str` of Python 2: bytes or text, nobody knows
    Str(Cow<'a, [u8]>),
    /// A text in UTF-8, in which lone surrogates may be encoded too.
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

/// What an instance would be built from.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    pub made_by: MadeBy,
    pub class: NodeId,
    /// A tuple, except for `NEWOBJ_EX`, where it is (args, kwargs).
    pub args: NodeId,
    pub state: Option<NodeId>,
    /// Appended items
    pub items: Vec<NodeId>,
    /// Keys and values that were set
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

/// A value that was read, with all that is in it.
#[derive(Debug)]
pub struct Tree<'a> {
    source: &'a [u8],
    len: usize,
    nodes: Vec<Node<'a>>,
    /// Where in the source each node begins and ends
    spans: Vec<(usize, usize)>,
    /// Offsets of the opcodes that refer to an earlier node, ascending
    gets: Vec<usize>,
    root: NodeId,
}

impl<'a> Tree<'a> {
    /// From the nodes and their spans in the first `len` bytes of `source`, and the offsets at which it refers
    /// back to earlier nodes.
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

    pub fn root(&self) -> NodeId {
        self.root
    }

    /// Bytes that the value takes at the beginning of its source.
    #[allow(clippy::len_without_is_empty)] // no value takes none
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn node(&self, id: NodeId) -> &Node<'a> {
        // Ids are made by the reader of this tree only.
        self.nodes.get(id.0 as usize).unwrap_or(&Node::None)
    }

    /// The bytes of a value as they stand in the source, if they make sense alone (refer to nothing before).
    pub fn encoded(&self, id: NodeId) -> Option<&'a [u8]> {
        let (start, end) = *self.spans.get(id.0 as usize)?;
        let next_get = self.gets.get(self.gets.partition_point(|pos| *pos < start));
        if next_get.is_some_and(|pos| *pos < end) {
            return None;
        }
        self.source.get(start..end)
    }
}

/// A limit on what may be unfolded from shared nodes.
#[derive(Debug)]
pub struct Budget {
    left: usize,
}

/// More was shared than the length of the message justifies, or a value contains itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TooMuch;

/// How deep a value may be nested when it is turned into a tree.
pub const DEPTH_MAX: usize = 48;

impl Budget {
    /// Enough for everything that a pickle of `len` bytes says once, and for reasonable sharing.
    pub fn for_len(len: usize) -> Budget {
        Budget { left: len.saturating_mul(4).saturating_add(4096) }
    }

    /// Account for a value of `len` bytes.
    pub fn spend(&mut self, len: usize) -> Result<(), TooMuch> {
        self.left = self.left.checked_sub(len.saturating_add(1)).ok_or(TooMuch)?;
        Ok(())
    }
}
