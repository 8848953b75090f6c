//! A scanned record: its values, the place of each in the bytes, and their references to each other. Flat tables, which
//! [`super::scan`] fills.
//!
//! Separate from [`crate::pickle::value`]: a merge needs the bytes of a value more than the value itself.

use std::cell::Cell;
use std::iter::zip;

/// Longest value whose comparison is not counted as steps: a shared value may be compared for every key.
const QUICK_LEN: u32 = 256;
/// Upper bound on nesting, in comparing and writing.
pub const DEPTH_MAX: u32 = 48;

pub type NodeId = u32;

/// A value.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    pub kind: Kind,
    /// Offset of its first byte.
    pub start: u32,
    /// Offset behind its last byte; a memo opcode may be inside or after.
    pub end: u32,
}

/// What a value is.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    None,
    Bool(bool),
    Int(i64),
    /// An integer beyond 64 bits, in two's complement, little endian.
    BigInt(Part),
    /// An integer in decimal digits.
    Digits(Part),
    Float(f64),
    /// `bytes` of Python 3.
    Bytes(Part),
    /// `str` of Python 2.
    Str(Part),
    /// `unicode` of Python 2, `str` of Python 3.
    Text(Part),
    /// A value in a form of protocol 0, or a class in the extension registry: equal only to itself.
    Odd(Part),
    Tuple(Part),
    List(Chain),
    Dict(Chain),
    /// A set; it has its own opcodes from protocol 4 on.
    Set(Chain),
    /// Two lines: module and name.
    Global(Part),
    /// Two values: module and name.
    GlobalOf(NodeId, NodeId),
    /// A persistent reference.
    Reference(NodeId),
    /// The parts of an instance: class and arguments, then its state, items and pairs.
    Object(Chain),
}

/// A range of the record's bytes or of [`Shape::kids`].
#[derive(Clone, Copy, Debug)]
pub struct Part {
    pub at: u32,
    pub len: u32,
}

/// A chain of ranges of [`Shape::kids`]: containers are filled in steps.
#[derive(Clone, Copy, Debug)]
pub struct Chain {
    pub first: u32,
    pub last: u32,
}

/// A step in which a container was filled.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub opcode: u8,
    pub kids: Part,
    /// Index of the next step, 0 if there is none.
    pub next: u32,
}

/// A value inside another value.
#[derive(Clone, Copy, Debug)]
pub struct Kid {
    pub node: NodeId,
    /// Offset of its bytes at this place, which differ from the node's if it is a reference to an earlier value.
    pub start: u32,
}

/// Bytes that cannot be copied unchanged.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    pub pos: u32,
    pub len: u8,
    pub what: What,
    pub node: NodeId,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum What {
    /// Puts the preceding value into the memo.
    Put,
    /// Gets a value from the memo.
    Get,
    /// Has no meaning inside another pickle.
    Drop,
}

/// A scanned record.
pub struct Shape<'a> {
    pub source: &'a [u8],
    pub tables: &'a Tables,
    pub class: NodeId,
    pub state: NodeId,
    /// Offset behind the first pickle.
    pub class_end: usize,
    /// The protocol of the state.
    pub protocol: u8,
    /// There is a float that does not equal itself.
    pub has_nan: bool,
    /// Length of the beginning that is common to the records scanned together.
    pub common_end: u32,
}

/// Marks a missing node.
pub const NOWHERE: NodeId = NodeId::MAX;
/// The tables of one record.
#[derive(Default)]
pub struct Tables {
    pub nodes: Vec<Node>,
    pub kids: Vec<Kid>,
    pub steps: Vec<Step>,
    pub events: Vec<Event>,
    /// Positions of the events that are not [`What::Put`].
    pub odd_events: Vec<u32>,
    /// Whether a value is referred to again, by node.
    pub shared: Vec<bool>,
    pub stack: Vec<Kid>,
    /// Height of the stack and position at each MARK.
    pub marks: Vec<(u32, u32)>,
    pub memo: Vec<NodeId>,
    /// The memo after the first pickle.
    pub class_memo: Vec<NodeId>,
}

thread_local! {
    static SPARE: Cell<Option<Box<[Tables; 4]>>> = const { Cell::new(None) };
}

/// Larger tables are not kept for reuse: buckets have a few hundred values.
const SPARE_NODES_MAX: usize = 2048;

/// The tables of three records and of their common beginning. They are kept for the next merge of this thread.
pub struct Workspace(Option<Box<[Tables; 4]>>);

impl Workspace {
    pub fn take() -> Workspace {
        Workspace(SPARE.take())
    }

    pub fn tables(&mut self) -> &mut [Tables; 4] {
        self.0.get_or_insert_default()
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if let Some(tables) = &mut self.0 {
            tables.iter_mut().for_each(Tables::clear);
        }
        SPARE.set(self.0.take());
    }
}

impl Part {
    pub fn of<T>(self, all: &[T]) -> &[T] {
        all.get(self.at as usize..(self.at + self.len) as usize).unwrap_or_default()
    }
}

impl Tables {
    pub fn kids(&self, part: Part) -> &[Kid] {
        part.of(&self.kids)
    }

    fn clear(&mut self) {
        let largest = self.nodes.capacity().max(self.kids.capacity()).max(self.memo.capacity());
        if largest.max(self.events.capacity()) > SPARE_NODES_MAX {
            *self = Tables::default();
            return;
        }
        self.nodes.clear();
        self.kids.clear();
        self.steps.clear();
        self.events.clear();
        self.odd_events.clear();
        self.shared.clear();
        self.stack.clear();
        self.marks.clear();
        self.memo.clear();
        self.class_memo.clear();
    }

    /// Copies the tables of another record into these, which are empty.
    pub fn copy_from(&mut self, other: &Tables) {
        self.nodes.extend_from_slice(&other.nodes);
        self.kids.extend_from_slice(&other.kids);
        self.steps.extend_from_slice(&other.steps);
        self.events.extend_from_slice(&other.events);
        self.odd_events.extend_from_slice(&other.odd_events);
        self.shared.extend_from_slice(&other.shared);
        self.stack.extend_from_slice(&other.stack);
        self.marks.extend_from_slice(&other.marks);
        self.memo.extend_from_slice(&other.memo);
        self.class_memo.extend_from_slice(&other.class_memo);
    }
}

impl<'a> Shape<'a> {
    /// Bytes that cannot be copied unchanged, in order.
    pub fn events(&self) -> &[Event] {
        &self.tables.events
    }

    /// The memo after the first pickle.
    pub fn class_memo(&self) -> &[NodeId] {
        &self.tables.class_memo
    }

    pub fn node_count(&self) -> usize {
        self.tables.nodes.len()
    }

    #[inline]
    pub fn node(&self, id: NodeId) -> Node {
        // Ids are made by the scanner of this record only.
        self.tables.nodes.get(id as usize).copied().unwrap_or(Node { kind: Kind::None, start: 0, end: 0 })
    }

    #[inline]
    pub fn kind(&self, id: NodeId) -> Kind {
        self.tables.nodes.get(id as usize).map_or(Kind::None, |node| node.kind)
    }

    /// Whether two values are obviously the same: equal bytes of a value without parts, or a reference to such a value.
    #[inline]
    pub fn same(&self, id: NodeId, other: &Shape<'_>, other_id: NodeId) -> bool {
        let (a, b) = (self.node(id), other.node(other_id));
        match (a.kind, b.kind) {
            (Kind::Int(x), Kind::Int(y)) => x == y,
            (Kind::Reference(x), Kind::Reference(y)) => match (self.kind(x), other.kind(y)) {
                (Kind::Tuple(x), Kind::Tuple(y)) => {
                    let (x, y) = (self.kids(x), other.kids(y));
                    x.len() == 2
                        && y.len() == 2
                        && zip(x, y)
                            .all(|(x, y)| self.same_leaf(self.node(x.node), other, other.node(y.node)))
                }
                _ => self.same_leaf(self.node(x), other, other.node(y)),
            },
            _ => self.same_leaf(a, other, b),
        }
    }

    #[inline]
    fn same_leaf(&self, a: Node, other: &Shape<'_>, b: Node) -> bool {
        let is_leaf = match a.kind {
            Kind::Text(_) | Kind::Str(_) | Kind::Bytes(_) | Kind::Int(_) | Kind::Bool(_) | Kind::None => true,
            Kind::Global(_) => true,
            Kind::Float(value) => !value.is_nan(),
            _ => false,
        };
        // The class of all references is in the common beginning of the records.
        let is_common = a.start == b.start && a.end == b.end && a.end <= self.common_end;
        is_leaf
            && a.end - a.start == b.end - b.start
            && a.end - a.start <= QUICK_LEN
            && (is_common
                || self.source.get(a.start as usize..a.end as usize)
                    == other.source.get(b.start as usize..b.end as usize))
    }

    #[inline]
    pub fn bytes(&self, part: Part) -> &'a [u8] {
        part.of(self.source)
    }

    pub fn kids(&self, part: Part) -> &[Kid] {
        self.tables.kids(part)
    }

    pub fn step(&self, index: u32) -> Option<Step> {
        if index == 0 { None } else { self.tables.steps.get(index as usize).copied() }
    }

    /// The steps that filled a container.
    pub fn steps(&self, chain: Chain) -> impl Iterator<Item = Step> + '_ {
        std::iter::successors(self.step(chain.first), |step| self.step(step.next))
    }

    /// The values in a container, in the order of the steps.
    pub fn contents(&self, chain: Chain) -> impl Iterator<Item = NodeId> + '_ {
        self.steps(chain).flat_map(|step| self.kids(step.kids).iter().map(|kid| kid.node))
    }

    pub fn tuple(&self, id: NodeId) -> Option<&[Kid]> {
        match self.kind(id) {
            Kind::Tuple(kids) => Some(self.kids(kids)),
            _ => None,
        }
    }

    /// Whether nothing between these positions refers to another value, so that the bytes mean the same in another
    /// record.
    pub fn stands_alone(&self, start: u32, end: u32) -> bool {
        !self.tables.odd_events.iter().any(|pos| (start..end).contains(pos))
    }

    /// Whether a memo opcode, or another opcode that cannot be copied unchanged, is between these positions.
    pub fn has_events(&self, start: u32, end: u32) -> bool {
        self.tables.events.iter().rev().take_while(|event| event.pos >= start).any(|event| event.pos < end)
    }

    /// Whether the value is referred to again.
    pub fn is_shared(&self, id: NodeId) -> bool {
        self.tables.shared.get(id as usize).copied().unwrap_or(false)
    }

    /// Module and name of the record's class. `None` for a class with arguments: no class that is merged here has any.
    pub fn class(&self) -> Option<(&'a [u8], &'a [u8])> {
        match self.kind(self.class) {
            Kind::Tuple(parts) => match self.kids(parts) {
                [class, args] if self.is_nothing(args.node) => match self.tuple(class.node) {
                    Some([module, name]) => Some((self.string(module.node)?, self.string(name.node)?)),
                    Some(_) => None,
                    None => self.global(class.node),
                },
                _ => None,
            },
            _ => self.global(self.class),
        }
    }

    /// Module and name of a class or function.
    pub fn global(&self, id: NodeId) -> Option<(&'a [u8], &'a [u8])> {
        match self.kind(id) {
            Kind::Global(part) => {
                let lines = self.bytes(part).strip_suffix(b"\n")?;
                let middle = lines.iter().position(|byte| *byte == b'\n')?;
                Some((lines.get(..middle)?, lines.get(middle + 1..)?))
            }
            Kind::GlobalOf(module, name) => Some((self.string(module)?, self.string(name)?)),
            _ => None,
        }
    }

    pub fn string(&self, id: NodeId) -> Option<&'a [u8]> {
        match self.kind(id) {
            Kind::Str(part) | Kind::Text(part) | Kind::Bytes(part) => Some(self.bytes(part)),
            _ => None,
        }
    }

    fn is_nothing(&self, id: NodeId) -> bool {
        match self.kind(id) {
            Kind::None => true,
            Kind::Tuple(kids) => kids.len == 0,
            _ => false,
        }
    }
}
