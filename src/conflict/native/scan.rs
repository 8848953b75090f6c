//! Scanning a record into the flat tables of a [`Shape`]. One pass, no recursion, no allocation in the steady state. What
//! several records begin with is scanned once ([`Common`]).
//!
//! This is not [`crate::pickle::read`]: it is on the path of a commit. Both pickles of a record are one stream here,
//! because ZODB writes them with one memo: the state may refer to the class.
//!
//! Forms that no pickler writes (duplicates, pops, extending what came out of the memo) are not scanned.

use std::fmt;
use std::iter::zip;

use super::shape::{Chain, Event, Kid, Kind, NOWHERE, Node, NodeId, Part, Shape, Step, Tables, What};
use crate::pickle::opcode::*;

/// Why a record is not scanned.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NotScanned {
    /// No record, or one in a form that is not written by ZODB
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

/// Longest record that is merged.
const LEN_MAX: usize = 1 << 30;
/// Most values of a record that is merged. Buckets have a hundred or so.
const NODES_MAX: usize = 1 << 20;
/// An index of the memo that may be used in the shortest record
const MEMO_MIN: usize = 1 << 12;
/// The value on the stack came out of the memo.
const BORROWED: u32 = 1 << 31;

struct Scanner<'a> {
    source: &'a [u8],
    tables: &'a mut Tables,
    pos: usize,
    at: usize,
    /// It failed because the source ends within an opcode.
    is_cut: bool,
    pickles: Pickles,
}

/// The two pickles of a record, as far as they have been scanned.
#[derive(Clone, Copy)]
struct Pickles {
    class: NodeId,
    state: NodeId,
    class_end: usize,
    protocol: u8,
    has_nan: bool,
}

type Result<T, E = NotScanned> = std::result::Result<T, E>;

/// What some records begin with.
pub struct Common<'a>(Scanner<'a>);

impl<'a> Common<'a> {
    /// Scan what these have in common. An error is one of each of them.
    pub fn of([a, b, c]: [&'a [u8]; 3], tables: &'a mut Tables) -> Result<Common<'a>> {
        let begin = a.get(..common_len(a, b).min(common_len(a, c))).unwrap_or_default();
        let mut scanner = Scanner::new(begin, tables)?;
        match scanner.pickles() {
            Err(_) if scanner.is_cut => scanner.pos = scanner.at,
            result => result?,
        }
        Ok(Common(scanner))
    }

    /// Scan one of the records.
    pub fn go_on(&self, source: &'a [u8], tables: &'a mut Tables) -> Result<Shape<'a>> {
        if source.len() > LEN_MAX {
            return Err(NotScanned::TooLarge);
        }
        let Scanner { pos, at, pickles, .. } = self.0;
        tables.copy_from(self.0.tables);
        let mut scanner = Scanner { source, tables, pos, at, is_cut: false, pickles };
        scanner.pickles()?;
        let Scanner { tables, pickles: Pickles { class, state, class_end, protocol, has_nan }, .. } = scanner;
        Ok(Shape { source, tables, class, state, class_end, protocol, has_nan, common_end: small(pos) })
    }
}

/// How many bytes two slices have in common at their beginning.
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
        Ok(Scanner { source, tables, pos: 0, at: 0, is_cut: false, pickles })
    }

    /// Scan both pickles of a record, or what is left of them.
    fn pickles(&mut self) -> Result<()> {
        if self.pickles.class == NOWHERE {
            self.pickles.class = self.pickle()?;
            self.pickles.class_end = self.pos;
            self.pickles.protocol = 0;
            let tables = &mut *self.tables;
            tables.class_memo.extend_from_slice(&tables.memo);
        }
        if self.pickles.state == NOWHERE {
            self.pickles.state = self.pickle()?;
        }
        Ok(())
    }

    /// Scan one pickle; the node of its value.
    fn pickle(&mut self) -> Result<NodeId> {
        loop {
            self.plain_values();
            if self.tables.nodes.len() > NODES_MAX {
                return Err(NotScanned::TooLarge);
            }
            self.at = self.pos;
            let opcode = self.byte()?;
            if opcode == STOP {
                return match (
                    self.tables.stack.pop(),
                    self.tables.stack.is_empty(),
                    self.tables.marks.is_empty(),
                ) {
                    (Some(root), true, true) => Ok(root.node & !BORROWED),
                    _ => self.fail(),
                };
            }
            self.step(opcode)?;
        }
    }

    /// Scan strings and numbers as long as there are any: most of a record. The last bytes of the source are left to
    /// [`Scanner::step`].
    fn plain_values(&mut self) {
        let tables = &mut *self.tables;
        let mut pos = self.pos;
        while let Some(head) = self.source.get(pos..).and_then(<[u8]>::first_chunk::<9>) {
            if tables.nodes.len() > NODES_MAX {
                break;
            }
            // A jump by the opcode would be guessed wrongly where numbers of different lengths take turns.
            let [opcode, a, b, c, d, ..] = *head;
            let form = int_form(opcode);
            if form.len > 0 {
                let bits = u32::from_le_bytes([a, b, c, d]) & form.mask;
                let start = small(pos);
                let end = start + form.len;
                let node = small(tables.nodes.len());
                tables.nodes.push(Node { kind: Kind::Int(bits.cast_signed().into()), start, end });
                tables.stack.push(Kid { node, start });
                pos = end as usize;
                continue;
            }
            let string = |head: usize, len: u32| Part { at: small(pos + head), len };
            let (kind, len) = match *head {
                [BINFLOAT, ref bytes @ ..] => {
                    let value = f64::from_be_bytes(*bytes);
                    self.pickles.has_nan |= value.is_nan();
                    (Kind::Float(value), 9)
                }
                [NONE, ..] => (Kind::None, 1),
                [BINUNICODE, a, b, c, d, ..] => {
                    let len = u32::from_le_bytes([a, b, c, d]);
                    (Kind::Text(string(5, len)), 5 + len as usize)
                }
                [SHORT_BINBYTES, len, ..] => (Kind::Bytes(string(2, len.into())), 2 + usize::from(len)),
                [SHORT_BINSTRING, len, ..] => (Kind::Str(string(2, len.into())), 2 + usize::from(len)),
                _ => break,
            };
            let end = pos + len;
            if end > self.source.len() {
                break;
            }
            let node = small(tables.nodes.len());
            let start = small(pos);
            tables.nodes.push(Node { kind, start, end: small(end) });
            tables.stack.push(Kid { node, start });
            pos = end;
            // Strings are nearly always remembered.
            if let Some([BINPUT, index]) = self.source.get(end..).and_then(<[u8]>::first_chunk)
                && usize::from(*index) == tables.memo.len()
            {
                tables.memo.push(node);
                tables.events.push(Event { pos: small(end), len: 2, what: What::Put, node });
                pos += 2;
            }
        }
        self.pos = pos;
    }

    fn step(&mut self, opcode: u8) -> Result<()> {
        match opcode {
            BINPUT => {
                let index = self.byte()?;
                self.put(index.into())
            }
            BINGET => {
                let index = self.byte()?;
                self.get(index.into())?;
                self.end_reference();
                Ok(())
            }
            SHORT_BINSTRING => {
                let len = self.byte()?;
                let part = self.part(len.into())?;
                self.push(Kind::Str(part))
            }
            BINUNICODE => {
                let part = self.part4()?;
                self.push(Kind::Text(part))
            }
            SHORT_BINBYTES => {
                let len = self.byte()?;
                let part = self.part(len.into())?;
                self.push(Kind::Bytes(part))
            }
            BININT => {
                let value = i32::from_le_bytes(self.array()?);
                self.push(Kind::Int(value.into()))
            }
            BININT1 => {
                let value = self.byte()?;
                self.push(Kind::Int(value.into()))
            }
            BININT2 => {
                let value = u16::from_le_bytes(self.array()?);
                self.push(Kind::Int(value.into()))
            }
            BINFLOAT => {
                let value = f64::from_be_bytes(self.array()?);
                self.pickles.has_nan |= value.is_nan();
                self.push(Kind::Float(value))
            }
            NONE => self.push(Kind::None),
            NEWTRUE => self.push(Kind::Bool(true)),
            NEWFALSE => self.push(Kind::Bool(false)),
            MARK => {
                let height = self.tables.stack.len();
                self.tables.marks.push((small(height), small(self.at)));
                Ok(())
            }
            TUPLE => {
                let (kids, start) = self.pop_mark()?;
                self.push_from(start, Kind::Tuple(kids))
            }
            EMPTY_TUPLE => self.push(Kind::Tuple(Part { at: 0, len: 0 })),
            TUPLE1 => self.tuple(1),
            TUPLE2 => self.tuple(2),
            TUPLE3 => self.tuple(3),
            GLOBAL => {
                let start = self.pos;
                self.line()?;
                self.line()?;
                self.push(Kind::Global(Part { at: small(start), len: small(self.pos - start) }))
            }
            BINPERSID => {
                let id = self.pop()?;
                self.push_from(id.start, Kind::Reference(id.node))
            }

            BINSTRING => {
                let part = self.part4()?;
                self.push(Kind::Str(part))
            }
            BINBYTES => {
                let part = self.part4()?;
                self.push(Kind::Bytes(part))
            }
            BINBYTES8 => {
                let part = self.part8()?;
                self.push(Kind::Bytes(part))
            }
            SHORT_BINUNICODE => {
                let len = self.byte()?;
                let part = self.part(len.into())?;
                self.push(Kind::Text(part))
            }
            BINUNICODE8 => {
                let part = self.part8()?;
                self.push(Kind::Text(part))
            }
            BYTEARRAY8 => {
                self.part8()?;
                self.push_odd()
            }
            INT | LONG => self.int_line(opcode),
            LONG1 => {
                let len = self.byte()?;
                self.long(len.into())
            }
            LONG4 => {
                let len = u32::from_le_bytes(self.array()?);
                self.long(len as usize)
            }
            FLOAT | STRING | UNICODE | PERSID => {
                self.line()?;
                self.push_odd()
            }
            EXT1 => self.skip_odd(1),
            EXT2 => self.skip_odd(2),
            EXT4 => self.skip_odd(4),

            EMPTY_LIST => self.push_container(opcode, Kind::List),
            EMPTY_DICT => self.push_container(opcode, Kind::Dict),
            EMPTY_SET => self.push_container(opcode, Kind::Set),
            LIST | DICT | FROZENSET => {
                let (kids, start) = self.pop_mark()?;
                if opcode == DICT && kids.len % 2 != 0 {
                    return self.fail();
                }
                let chain = self.chain(opcode, kids)?;
                let kind = match opcode {
                    LIST => Kind::List(chain),
                    DICT => Kind::Dict(chain),
                    _ => Kind::Object(chain),
                };
                self.push_from(start, kind)
            }
            APPEND | BUILD => {
                let kids = self.take_top(1)?;
                self.fill(opcode, kids)
            }
            SETITEM => {
                let kids = self.take_top(2)?;
                self.fill(opcode, kids)
            }
            APPENDS | ADDITEMS => {
                let (kids, _) = self.pop_mark()?;
                self.fill(opcode, kids)
            }
            SETITEMS => {
                let (kids, _) = self.pop_mark()?;
                if kids.len % 2 != 0 {
                    return self.fail();
                }
                self.fill(opcode, kids)
            }

            STACK_GLOBAL => {
                let name = self.pop()?;
                let module = self.pop()?;
                self.push_from(module.start, Kind::GlobalOf(module.node, name.node))
            }
            REDUCE | NEWOBJ => self.object(opcode, 2),
            NEWOBJ_EX => self.object(opcode, 3),
            OBJ => {
                let (kids, start) = self.pop_mark()?;
                let chain = self.chain(opcode, kids)?;
                self.push_from(start, Kind::Object(chain))
            }
            INST => {
                let lines = self.pos;
                self.line()?;
                self.line()?;
                let end = self.pos;
                let (kids, start) = self.pop_mark()?;
                // The class is a value in its own right, as in the other forms.
                let class = Kind::Global(Part { at: small(lines), len: small(end - lines) });
                self.push(class)?;
                let class = self.take_top(1)?;
                let chain = self.chain(opcode, kids)?;
                let last = self.add_step(opcode, class)?;
                self.link(chain.last, last);
                self.push_from(start, Kind::Object(Chain { first: chain.first, last }))
            }

            PUT => {
                let index = self.index_line()?;
                self.put(index)
            }
            GET => {
                let index = self.index_line()?;
                self.get(index)
            }
            LONG_BINPUT => {
                let index = u32::from_le_bytes(self.array()?);
                self.put(index)
            }
            LONG_BINGET => {
                let index = u32::from_le_bytes(self.array()?);
                self.get(index)
            }
            MEMOIZE => {
                let index = small(self.tables.memo.len());
                self.put(index)
            }
            PROTO => {
                let version = self.byte()?;
                if version > 5 {
                    return self.fail();
                }
                self.pickles.protocol = self.pickles.protocol.max(version);
                self.event(What::Drop, NOWHERE);
                Ok(())
            }
            FRAME => {
                let _: [u8; 8] = self.array()?;
                self.event(What::Drop, NOWHERE);
                Ok(())
            }
            _ => self.fail(),
        }
    }

    // -- values

    fn push(&mut self, kind: Kind) -> Result<()> {
        self.push_from(small(self.at), kind)
    }

    fn push_from(&mut self, start: u32, kind: Kind) -> Result<()> {
        let node = small(self.tables.nodes.len());
        self.tables.nodes.push(Node { kind, start, end: small(self.pos) });
        self.tables.stack.push(Kid { node, start });
        Ok(())
    }

    /// Scan what stands behind the class in a persistent reference, if that is where this is: a record may have a hundred
    /// of them.
    fn end_reference(&mut self) {
        let Some([tuple, BINPUT, index, BINPERSID, ..]) = self.source.get(self.pos..) else { return };
        let tables = &mut *self.tables;
        let Some(height) = tables.stack.len().checked_sub(2) else { return };
        let Some(&[oid, class]) = tables.stack.get(height..) else { return };
        let mark = tables.marks.last().copied();
        let start = match (*tuple, mark) {
            (TUPLE, Some((marked, pos))) if marked as usize == height => pos,
            (TUPLE2, Some((marked, _))) if marked as usize > height => return,
            (TUPLE2, _) => oid.start,
            _ => return,
        };
        if usize::from(*index) != tables.memo.len() {
            return;
        }
        if *tuple == TUPLE {
            tables.marks.pop();
        }
        let (kids, node, pos) = (small(tables.kids.len()), small(tables.nodes.len()), small(self.pos));
        tables.kids.extend([oid, class].map(|kid| Kid { node: kid.node & !BORROWED, start: kid.start }));
        tables.nodes.push(Node { kind: Kind::Tuple(Part { at: kids, len: 2 }), start, end: pos + 1 });
        tables.nodes.push(Node { kind: Kind::Reference(node), start, end: pos + 4 });
        tables.memo.push(node);
        tables.events.push(Event { pos: pos + 1, len: 2, what: What::Put, node });
        tables.stack.truncate(height);
        tables.stack.push(Kid { node: node + 1, start });
        self.pos += 4;
    }

    fn push_odd(&mut self) -> Result<()> {
        let part = Part { at: small(self.at), len: small(self.pos - self.at) };
        self.push(Kind::Odd(part))
    }

    fn skip_odd(&mut self, len: usize) -> Result<()> {
        self.part(len)?;
        self.push_odd()
    }

    fn push_container(&mut self, opcode: u8, kind: fn(Chain) -> Kind) -> Result<()> {
        let chain = self.chain(opcode, Part { at: 0, len: 0 })?;
        self.push(kind(chain))
    }

    fn object(&mut self, opcode: u8, count: usize) -> Result<()> {
        let kids = self.take_top(count)?;
        let start = self.tables.kids(kids).first().map_or(0, |class| class.start);
        let chain = self.chain(opcode, kids)?;
        self.push_from(start, Kind::Object(chain))
    }

    fn int_line(&mut self, opcode: u8) -> Result<()> {
        let start = self.pos;
        let line = self.line()?;
        let digits = line.strip_suffix(b"L").unwrap_or(line);
        let kind = match (opcode, line) {
            (INT, b"00") => Kind::Bool(false),
            (INT, b"01") => Kind::Bool(true),
            _ => match str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()) {
                Some(value) => Kind::Int(value),
                None => Kind::Digits(Part { at: small(start), len: small(digits.len()) }),
            },
        };
        self.push(kind)
    }

    fn long(&mut self, len: usize) -> Result<()> {
        let part = self.part(len)?;
        let bytes = part.of(self.source);
        let kind = match bytes.len() {
            0..=8 => {
                let fill = if bytes.last().is_some_and(|top| top & 0x80 != 0) { 0xff } else { 0 };
                let mut wide = [fill; 8];
                wide.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
                Kind::Int(i64::from_le_bytes(wide))
            }
            _ => Kind::BigInt(part),
        };
        self.push(kind)
    }

    // -- containers

    fn tuple(&mut self, count: usize) -> Result<()> {
        let kids = self.take_top(count)?;
        let start = self.tables.kids(kids).first().map_or(0, |first| first.start);
        self.push_from(start, Kind::Tuple(kids))
    }

    fn chain(&mut self, opcode: u8, kids: Part) -> Result<Chain> {
        let first = self.add_step(opcode, kids)?;
        Ok(Chain { first, last: first })
    }

    fn add_step(&mut self, opcode: u8, kids: Part) -> Result<u32> {
        self.tables.steps.push(Step { opcode, kids, next: 0 });
        Ok(small(self.tables.steps.len() - 1))
    }

    fn link(&mut self, from: u32, to: u32) {
        if let Some(step) = self.tables.steps.get_mut(from as usize) {
            step.next = to;
        }
    }

    /// Put something into the container on top of the stack. One that came out of the memo is elsewhere in the
    /// bytes: its bytes would not be all of it.
    fn fill(&mut self, opcode: u8, kids: Part) -> Result<()> {
        let floor = self.floor();
        let top = match self.tables.stack.last() {
            Some(top) if self.tables.stack.len() > floor && top.node & BORROWED == 0 => top.node,
            _ => return self.fail(),
        };
        let step = self.add_step(opcode, kids)?;
        let end = small(self.pos);
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

    /// Move the topmost values of the stack to the kids.
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
        Part { at: small(at), len: small(self.tables.kids.len() - at) }
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
        // Picklers count from 0 or 1; but a record that was merged may be shorter than those that it is made of.
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
        self.event(What::Put, top);
        Ok(())
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
                self.tables.stack.push(Kid { node: node | BORROWED, start: small(self.at) });
                if self.tables.shared.len() <= node as usize {
                    self.tables.shared.resize(self.tables.nodes.len(), false);
                }
                if let Some(shared) = self.tables.shared.get_mut(node as usize) {
                    *shared = true;
                }
                self.event(What::Get, node);
                Ok(())
            }
            _ => self.fail(),
        }
    }

    fn event(&mut self, what: What, node: NodeId) {
        // The longest is an index in decimal digits.
        let len = u8::try_from(self.pos - self.at).unwrap_or(u8::MAX);
        self.tables.events.push(Event { pos: small(self.at), len, what, node });
        if what != What::Put {
            self.tables.odd_events.push(small(self.at));
        }
    }

    // -- bytes

    fn byte(&mut self) -> Result<u8> {
        match self.source.get(self.pos) {
            Some(byte) => {
                self.pos += 1;
                Ok(*byte)
            }
            None => self.cut(),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        match self.source.get(self.pos..).and_then(|rest| rest.first_chunk()) {
            Some(array) => {
                self.pos += N;
                Ok(*array)
            }
            None => self.cut(),
        }
    }

    fn part(&mut self, len: usize) -> Result<Part> {
        let start = self.pos;
        match start.checked_add(len) {
            Some(end) if end <= self.source.len() => {
                self.pos = end;
                Ok(Part { at: small(start), len: small(len) })
            }
            _ => self.cut(),
        }
    }

    fn part4(&mut self) -> Result<Part> {
        let len = u32::from_le_bytes(self.array()?);
        self.part(len as usize)
    }

    fn part8(&mut self) -> Result<Part> {
        let len = u64::from_le_bytes(self.array()?);
        match usize::try_from(len) {
            Ok(len) => self.part(len),
            Err(_) => self.fail(),
        }
    }

    fn line(&mut self) -> Result<&'a [u8]> {
        let rest = self.source.get(self.pos..).unwrap_or_default();
        match rest.iter().position(|byte| *byte == b'\n') {
            Some(len) => {
                self.pos += len + 1;
                Ok(rest.get(..len).unwrap_or_default())
            }
            None => self.cut(),
        }
    }

    fn index_line(&mut self) -> Result<u32> {
        let line = self.line()?;
        match str::from_utf8(line).ok().filter(|_| line.len() <= 10).and_then(|line| line.parse().ok()) {
            Some(index) => Ok(index),
            None => self.fail(),
        }
    }

    /// The source ends too early.
    fn cut<T>(&mut self) -> Result<T> {
        self.is_cut = true;
        self.fail()
    }

    fn fail<T>(&self) -> Result<T> {
        Err(NotScanned::At(self.at))
    }
}

/// How an integer stands behind its opcode.
#[derive(Clone, Copy)]
struct IntForm {
    /// Bytes with the opcode; 0 if it is no integer, or one of another form
    len: u32,
    /// Those of four bytes that belong to it
    mask: u32,
}

fn int_form(opcode: u8) -> IntForm {
    const OTHER: IntForm = IntForm { len: 0, mask: 0 };
    #[allow(clippy::indexing_slicing)] // the compiler looks
    const FORMS: [IntForm; 256] = {
        let mut forms = [OTHER; 256];
        forms[BININT1 as usize] = IntForm { len: 2, mask: 0xff };
        forms[BININT2 as usize] = IntForm { len: 3, mask: 0xffff };
        forms[BININT as usize] = IntForm { len: 5, mask: u32::MAX };
        forms
    };
    FORMS.get(usize::from(opcode)).copied().unwrap_or(OTHER)
}

/// A position in a record, or a count of what is in it: shorter than [`LEN_MAX`].
#[allow(clippy::cast_possible_truncation)]
fn small(value: usize) -> u32 {
    debug_assert!(value <= LEN_MAX);
    value as u32
}
