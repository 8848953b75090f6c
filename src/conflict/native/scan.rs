//! Scans a record into the flat tables of a [`Shape`], in one pass, without recursion; the tables are reused, so
//! usually nothing is allocated. The common beginning of three records is scanned once ([`Common`]).
//!
//! Separate from [`crate::pickle::read`], because it is on the path of a commit. Both pickles of a record are scanned
//! as one stream, because ZODB writes them with one memo: the state may refer to the class.
//!
//! Forms that no pickler writes (duplicates, pops, items added to a container from the memo) are not scanned.

use std::fmt;
use std::iter::zip;

use super::scan_fast::{BORROWED, LEN_MAX, NODES_MAX, end_reference, narrow, plain_values};
use super::shape::{Chain, Event, Kid, Kind, NOWHERE, Node, NodeId, Part, Shape, Step, Tables, What};
use crate::pickle::lex::{Argument, LexError, Lexer, Token};
use crate::pickle::opcode::*;

/// Why a record cannot be scanned.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NotScanned {
    /// Offset of bytes that are no record, or are in a form that ZODB does not write.
    At(usize),
    TooLarge,
}

impl fmt::Display for NotScanned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotScanned::At(pos) => write!(f, "a pickle that is unusual at {pos}"),
            NotScanned::TooLarge => f.write_str("too large"),
        }
    }
}

/// Lower bound on the limit of memo indexes, for short records.
const MEMO_MIN: usize = 1 << 12;
struct Scanner<'a> {
    source: &'a [u8],
    tables: &'a mut Tables,
    lexer: Lexer<'a>,
    /// Offset of the current opcode.
    pos: usize,
    /// The scan failed because the source ends within an opcode.
    is_cut: bool,
    pickles: Pickles,
}

/// The two pickles of a record, as far as they are scanned.
#[derive(Clone, Copy)]
struct Pickles {
    class: NodeId,
    state: NodeId,
    class_end: usize,
    protocol: u8,
    has_nan: bool,
}

type Result<T, E = NotScanned> = std::result::Result<T, E>;

/// The scanned common beginning of three records.
pub struct Common<'a>(Scanner<'a>);

impl<'a> Common<'a> {
    /// Scans the common beginning of three records. An error holds for each of the records.
    pub fn of([a, b, c]: [&'a [u8]; 3], tables: &'a mut Tables) -> Result<Common<'a>> {
        let begin = a.get(..common_len(a, b).min(common_len(a, c))).unwrap_or_default();
        let mut scanner = Scanner::new(begin, tables)?;
        match scanner.pickles() {
            Err(_) if scanner.is_cut => scanner.lexer = Lexer::at(begin, scanner.pos),
            result => result?,
        }
        Ok(Common(scanner))
    }

    /// Scans the rest of one of the records.
    pub fn go_on(&self, source: &'a [u8], tables: &'a mut Tables) -> Result<Shape<'a>> {
        if source.len() > LEN_MAX {
            return Err(NotScanned::TooLarge);
        }
        let Scanner { lexer, pickles, .. } = self.0;
        let end = lexer.end();
        tables.copy_from(self.0.tables);
        let lexer = Lexer::at(source, end);
        let mut scanner = Scanner { source, tables, lexer, pos: end, is_cut: false, pickles };
        scanner.pickles()?;
        let Scanner { tables, pickles: Pickles { class, state, class_end, protocol, has_nan }, .. } = scanner;
        Ok(Shape { source, tables, class, state, class_end, protocol, has_nan, common_end: narrow(end) })
    }
}

/// Length of the common beginning of two slices.
pub fn common_len(a: &[u8], b: &[u8]) -> usize {
    const BLOCK: usize = 32;
    let ((blocks_a, _), (blocks_b, _)) = (a.as_chunks::<BLOCK>(), b.as_chunks::<BLOCK>());
    let len = zip(blocks_a, blocks_b).take_while(|(a, b)| a == b).count() * BLOCK;
    let rest = zip(a.iter().skip(len), b.iter().skip(len));
    len + rest.take_while(|(a, b)| a == b).count()
}

impl<'a> Scanner<'a> {
    fn new(source: &'a [u8], tables: &'a mut Tables) -> Result<Scanner<'a>> {
        if source.len() > LEN_MAX {
            return Err(NotScanned::TooLarge);
        }
        tables.steps.push(Step { opcode: 0, kids: Part { at: 0, len: 0 }, next: 0 });
        let pickles = Pickles { class: NOWHERE, state: NOWHERE, class_end: 0, protocol: 0, has_nan: false };
        Ok(Scanner { source, tables, lexer: Lexer::new(source), pos: 0, is_cut: false, pickles })
    }

    /// Scans both pickles of a record, or the rest of them.
    fn pickles(&mut self) -> Result<()> {
        if self.pickles.class == NOWHERE {
            self.pickles.class = self.pickle()?;
            self.pickles.class_end = self.lexer.end();
            self.pickles.protocol = 0;
            let tables = &mut *self.tables;
            tables.class_memo.extend_from_slice(&tables.memo);
        }
        if self.pickles.state == NOWHERE {
            self.pickles.state = self.pickle()?;
        }
        Ok(())
    }

    /// Scans one pickle; returns the node of its value.
    fn pickle(&mut self) -> Result<NodeId> {
        loop {
            let from = self.lexer.end();
            let end = plain_values(self.tables, self.source, from, &mut self.pickles.has_nan);
            if end > from {
                self.lexer = Lexer::at(self.source, end);
            }
            if self.tables.nodes.len() > NODES_MAX {
                return Err(NotScanned::TooLarge);
            }
            self.pos = end;
            let token = match self.lexer.token() {
                Ok(token) => token,
                Err(LexError::Cut) => return self.cut(),
                Err(LexError::Unknown(_) | LexError::Expected(_)) => return self.fail(),
            };
            if token.opcode == STOP {
                return match (
                    self.tables.stack.pop(),
                    self.tables.stack.is_empty(),
                    self.tables.marks.is_empty(),
                ) {
                    (Some(root), true, true) => Ok(root.node & !BORROWED),
                    _ => self.fail(),
                };
            }
            self.step(token)?;
        }
    }

    fn step(&mut self, token: Token<'a>) -> Result<()> {
        let kind = match token.argument {
            Argument::Nothing => return self.op(token.opcode),
            Argument::Index(index) => return self.memo(token.opcode, index),
            Argument::Float(_) if token.opcode == FLOAT => self.odd(),
            Argument::Float(value) => {
                self.pickles.has_nan |= value.is_nan();
                Kind::Float(value)
            }
            Argument::Bool(value) => Kind::Bool(value),
            Argument::Int(value) => Kind::Int(value),
            Argument::BigInt(bytes) => Kind::BigInt(self.tail(bytes)),
            Argument::Digits(digits) => self.digits(digits)?,
            Argument::Str(bytes) => Kind::Str(self.tail(bytes)),
            Argument::Bytes(bytes) => Kind::Bytes(self.tail(bytes)),
            Argument::Text(bytes) => Kind::Text(self.tail(bytes)),
            Argument::ByteArray(_) | Argument::Line(_) => self.odd(),
            Argument::Names { .. } if token.opcode == GLOBAL => Kind::Global(self.lines()),
            Argument::Names { .. } => return self.inst(),
            Argument::Number(_) if matches!(token.opcode, EXT1 | EXT2 | EXT4) => self.odd(),
            Argument::Number(number) => {
                if token.opcode == PROTO {
                    let protocol = u8::try_from(number).unwrap_or(u8::MAX);
                    self.pickles.protocol = self.pickles.protocol.max(protocol);
                }
                return self.event(What::Drop, NOWHERE);
            }
        };
        self.push(kind);
        Ok(())
    }

    /// An opcode without an argument.
    fn op(&mut self, opcode: u8) -> Result<()> {
        match opcode {
            NONE => self.push(Kind::None),
            NEWTRUE => self.push(Kind::Bool(true)),
            NEWFALSE => self.push(Kind::Bool(false)),
            MARK => {
                let height = self.tables.stack.len();
                self.tables.marks.push((narrow(height), narrow(self.pos)));
            }
            TUPLE => {
                let (kids, start) = self.pop_mark()?;
                self.push_from(start, Kind::Tuple(kids));
            }
            EMPTY_TUPLE => self.push(Kind::Tuple(Part { at: 0, len: 0 })),
            TUPLE1 => self.tuple(1)?,
            TUPLE2 => self.tuple(2)?,
            TUPLE3 => self.tuple(3)?,
            BINPERSID => {
                let id = self.pop()?;
                self.push_from(id.start, Kind::Reference(id.node));
            }
            EMPTY_LIST => self.push_container(opcode, Kind::List),
            EMPTY_DICT => self.push_container(opcode, Kind::Dict),
            EMPTY_SET => self.push_container(opcode, Kind::Set),
            LIST | DICT | FROZENSET | OBJ => {
                let (kids, start) = self.pop_mark()?;
                if opcode == DICT && kids.len % 2 != 0 {
                    return self.fail();
                }
                let chain = self.chain(opcode, kids);
                let kind = match opcode {
                    LIST => Kind::List(chain),
                    DICT => Kind::Dict(chain),
                    _ => Kind::Object(chain),
                };
                self.push_from(start, kind);
            }
            APPEND | BUILD => {
                let kids = self.take_top(1)?;
                self.fill(opcode, kids)?;
            }
            SETITEM => {
                let kids = self.take_top(2)?;
                self.fill(opcode, kids)?;
            }
            APPENDS | ADDITEMS | SETITEMS => {
                let (kids, _) = self.pop_mark()?;
                if opcode == SETITEMS && kids.len % 2 != 0 {
                    return self.fail();
                }
                self.fill(opcode, kids)?;
            }
            STACK_GLOBAL => {
                let name = self.pop()?;
                let module = self.pop()?;
                self.push_from(module.start, Kind::GlobalOf(module.node, name.node));
            }
            REDUCE | NEWOBJ => self.object(opcode, 2)?,
            NEWOBJ_EX => self.object(opcode, 3)?,
            MEMOIZE => {
                let index = narrow(self.tables.memo.len());
                self.put(index)?;
            }
            _ => return self.fail(),
        }
        Ok(())
    }

    fn memo(&mut self, opcode: u8, index: u32) -> Result<()> {
        match opcode {
            PUT | BINPUT | LONG_BINPUT => self.put(index),
            BINGET => {
                self.get(index)?;
                if let Some(end) = end_reference(self.tables, self.source, self.lexer.end()) {
                    self.lexer = Lexer::at(self.source, end);
                }
                Ok(())
            }
            _ => self.get(index),
        }
    }

    // -- values

    fn push(&mut self, kind: Kind) {
        self.push_from(narrow(self.pos), kind);
    }

    fn push_from(&mut self, start: u32, kind: Kind) {
        let node = narrow(self.tables.nodes.len());
        self.tables.nodes.push(Node { kind, start, end: narrow(self.lexer.end()) });
        self.tables.stack.push(Kid { node, start });
    }

    /// The range of `bytes`, with which the current opcode ends.
    fn tail(&self, bytes: &[u8]) -> Part {
        Part { at: narrow(self.lexer.end() - bytes.len()), len: narrow(bytes.len()) }
    }

    /// The range of the current opcode's argument.
    fn lines(&self) -> Part {
        Part { at: narrow(self.pos + 1), len: narrow(self.lexer.end() - self.pos - 1) }
    }

    /// A value that equals only itself: the range of its bytes, with the opcode.
    fn odd(&self) -> Kind {
        Kind::Odd(Part { at: narrow(self.pos), len: narrow(self.lexer.end() - self.pos) })
    }

    /// Digits directly after the opcode, as picklers write them.
    fn digits(&self, digits: &[u8]) -> Result<Kind> {
        let part = Part { at: narrow(self.pos + 1), len: narrow(digits.len()) };
        if part.of(self.source) == digits { Ok(Kind::Digits(part)) } else { self.fail() }
    }

    fn push_container(&mut self, opcode: u8, kind: fn(Chain) -> Kind) {
        let chain = self.chain(opcode, Part { at: 0, len: 0 });
        self.push(kind(chain));
    }

    fn object(&mut self, opcode: u8, count: usize) -> Result<()> {
        let kids = self.take_top(count)?;
        let start = self.tables.kids(kids).first().map_or(0, |class| class.start);
        let chain = self.chain(opcode, kids);
        self.push_from(start, Kind::Object(chain));
        Ok(())
    }

    /// An instance whose class is the argument of the opcode.
    fn inst(&mut self) -> Result<()> {
        let class = Kind::Global(self.lines());
        let (kids, start) = self.pop_mark()?;
        // The class is a value of its own, as in the other forms.
        self.push(class);
        let class = self.take_top(1)?;
        let chain = self.chain(INST, kids);
        let last = self.add_step(INST, class);
        self.link(chain.last, last);
        self.push_from(start, Kind::Object(Chain { first: chain.first, last }));
        Ok(())
    }

    // -- containers

    fn tuple(&mut self, count: usize) -> Result<()> {
        let kids = self.take_top(count)?;
        let start = self.tables.kids(kids).first().map_or(0, |first| first.start);
        self.push_from(start, Kind::Tuple(kids));
        Ok(())
    }

    fn chain(&mut self, opcode: u8, kids: Part) -> Chain {
        let first = self.add_step(opcode, kids);
        Chain { first, last: first }
    }

    fn add_step(&mut self, opcode: u8, kids: Part) -> u32 {
        self.tables.steps.push(Step { opcode, kids, next: 0 });
        narrow(self.tables.steps.len() - 1)
    }

    fn link(&mut self, from: u32, to: u32) {
        if let Some(step) = self.tables.steps.get_mut(from as usize) {
            step.next = to;
        }
    }

    /// Adds items to the container on top of the stack. Fails for a container from the memo: its bytes are at another
    /// place and would not include the items.
    fn fill(&mut self, opcode: u8, kids: Part) -> Result<()> {
        let floor = self.floor();
        let top = match self.tables.stack.last() {
            Some(top) if self.tables.stack.len() > floor && top.node & BORROWED == 0 => top.node,
            _ => return self.fail(),
        };
        let step = self.add_step(opcode, kids);
        let end = narrow(self.lexer.end());
        let Some(node) = self.tables.nodes.get_mut(top as usize) else { return self.fail() };
        let chain = match (&mut node.kind, opcode) {
            (Kind::List(chain), APPEND | APPENDS) => chain,
            (Kind::Dict(chain), SETITEM | SETITEMS) => chain,
            (Kind::Set(chain), ADDITEMS) => chain,
            (Kind::Object(chain), _) => chain,
            _ => return self.fail(),
        };
        let last = chain.last;
        chain.last = step;
        node.end = end;
        self.link(last, step);
        Ok(())
    }

    // -- stack and memo

    fn floor(&self) -> usize {
        self.tables.marks.last().map_or(0, |(height, _)| *height as usize)
    }

    fn pop(&mut self) -> Result<Kid> {
        if self.tables.stack.len() <= self.floor() {
            return self.fail();
        }
        match self.tables.stack.pop() {
            Some(kid) => Ok(Kid { node: kid.node & !BORROWED, start: kid.start }),
            None => self.fail(),
        }
    }

    /// Moves the topmost values of the stack to `kids`.
    fn take_top(&mut self, count: usize) -> Result<Part> {
        match self.tables.stack.len().checked_sub(count) {
            Some(height) if height >= self.floor() => Ok(self.take_from(height)),
            _ => self.fail(),
        }
    }

    fn take_from(&mut self, height: usize) -> Part {
        let at = self.tables.kids.len();
        let moved = self.tables.stack.get(height..).unwrap_or_default();
        self.tables.kids.extend(moved.iter().map(|kid| Kid { node: kid.node & !BORROWED, start: kid.start }));
        self.tables.stack.truncate(height);
        Part { at: narrow(at), len: narrow(self.tables.kids.len() - at) }
    }

    fn pop_mark(&mut self) -> Result<(Part, u32)> {
        match self.tables.marks.pop() {
            Some((height, start)) => Ok((self.take_from(height as usize), start)),
            None => self.fail(),
        }
    }

    fn put(&mut self, index: u32) -> Result<()> {
        let top = match self.tables.stack.last() {
            Some(top) if self.tables.stack.len() > self.floor() => top.node & !BORROWED,
            _ => return self.fail(),
        };
        let index = index as usize;
        // Picklers count from 0 or 1, but a merged record may be shorter than the records that it was made of.
        if index > self.source.len().max(MEMO_MIN) {
            return self.cut();
        }
        match index.checked_sub(self.tables.memo.len()) {
            Some(0) => self.tables.memo.push(top),
            Some(_) => {
                self.tables.memo.resize(index + 1, NOWHERE);
                self.remember(index, top);
            }
            None => self.remember(index, top),
        }
        self.event(What::Put, top)
    }

    fn remember(&mut self, index: usize, node: NodeId) {
        if let Some(entry) = self.tables.memo.get_mut(index) {
            *entry = node;
        }
    }

    fn get(&mut self, index: u32) -> Result<()> {
        match self.tables.memo.get(index as usize) {
            Some(node) if *node != NOWHERE => {
                let node = *node;
                self.tables.stack.push(Kid { node: node | BORROWED, start: narrow(self.pos) });
                if self.tables.shared.len() <= node as usize {
                    self.tables.shared.resize(self.tables.nodes.len(), false);
                }
                if let Some(shared) = self.tables.shared.get_mut(node as usize) {
                    *shared = true;
                }
                self.event(What::Get, node)
            }
            _ => self.fail(),
        }
    }

    fn event(&mut self, what: What, node: NodeId) -> Result<()> {
        // The longest one that a pickler writes is an index in decimal digits.
        let Ok(len) = u8::try_from(self.lexer.end() - self.pos) else { return self.fail() };
        self.tables.events.push(Event { pos: narrow(self.pos), len, what, node });
        if what != What::Put {
            self.tables.odd_events.push(narrow(self.pos));
        }
        Ok(())
    }

    /// Fails because the source ends too early.
    fn cut<T>(&mut self) -> Result<T> {
        self.is_cut = true;
        self.fail()
    }

    fn fail<T>(&self) -> Result<T> {
        Err(NotScanned::At(self.pos))
    }
}
