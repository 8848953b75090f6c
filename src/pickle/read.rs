//! Reads pickles of protocols 0 to 5 from borrowed bytes. One pass, no recursion; the work and the memory are
//! proportional to the bytes that were read.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use super::opcode::*;
use super::value::{MadeBy, Node, NodeId, Object, Tree};

/// Why a pickle cannot be read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PickleError {
    /// Offset of the opcode
    pub pos: usize,
    pub what: String,
}

impl fmt::Display for PickleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pickle: at {}: {}", self.pos, self.what)
    }
}

impl std::error::Error for PickleError {}

/// What a reader accepts.
#[derive(Clone, Copy)]
pub struct Accept {
    /// May this class or function be named?
    pub global: fn(module: &[u8], name: &[u8]) -> bool,
    /// May there be persistent references?
    pub persistent: bool,
    /// At most so many values, whatever the length.
    pub nodes_max: usize,
}

/// So many opcodes for each value that is accepted: marks, duplicates and memo entries make no values, yet take memory.
const OPCODES_PER_NODE: usize = 4;

impl Accept {
    /// Every name, as in records of objects; nothing is imported.
    pub const RECORD: Accept = Accept { global: |_, _| true, persistent: true, nodes_max: 1 << 20 };
}

/// Read one pickle from the beginning of `source`. How long it is, is in [`Tree::len`].
pub fn read(source: &[u8], accept: Accept) -> Result<Tree<'_>> {
    Reader {
        rest: source,
        source,
        accept,
        pos: 0,
        nodes: Vec::new(),
        spans: Vec::new(),
        gets: Vec::new(),
        memo: HashMap::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        copied: 0,
    }
    .run()
}

type Result<T, E = PickleError> = std::result::Result<T, E>;

struct Reader<'a> {
    source: &'a [u8],
    rest: &'a [u8],
    accept: Accept,
    /// Offset of the current opcode
    pos: usize,
    nodes: Vec<Node<'a>>,
    spans: Vec<(usize, usize)>,
    gets: Vec<usize>,
    memo: HashMap<u32, NodeId>,
    stack: Vec<NodeId>,
    /// Height of the stack and offset at each MARK
    marks: Vec<(usize, usize)>,
    /// Pairs copied by `dict(...)` and bytes of names copied by STACK_GLOBAL: together not more than there are bytes.
    copied: usize,
}

impl<'a> Reader<'a> {
    fn run(mut self) -> Result<Tree<'a>> {
        let opcodes_max = self.accept.nodes_max.saturating_mul(OPCODES_PER_NODE);
        let mut opcodes = 0;
        loop {
            self.pos = self.offset();
            opcodes += 1;
            if opcodes > opcodes_max {
                return self.fail(format!("more than {opcodes_max} opcodes"));
            }
            let opcode = self.byte()?;
            if opcode == STOP {
                let root = self.pop()?;
                let len = self.offset();
                return Ok(Tree::new(self.source, len, self.nodes, self.spans, self.gets, root));
            }
            self.step(opcode)?;
            if self.nodes.len() > self.accept.nodes_max {
                return self.fail(format!("more than {} values", self.accept.nodes_max));
            }
        }
    }

    fn step(&mut self, opcode: u8) -> Result<()> {
        match opcode {
            PROTO => match self.byte()? {
                0..=5 => Ok(()),
                other => self.fail(format!("protocol {other} is not known")),
            },
            FRAME => self.take(8).map(|_| ()),
            MARK => {
                self.marks.push((self.stack.len(), self.pos));
                Ok(())
            }
            POP => self.op_pop(),
            POP_MARK => self.pop_mark().map(|_| ()),
            DUP => {
                let top = self.top()?;
                self.gets.push(self.pos);
                self.stack.push(top);
                Ok(())
            }

            NONE => self.push(Node::None),
            NEWTRUE => self.push(Node::Bool(true)),
            NEWFALSE => self.push(Node::Bool(false)),
            INT | LONG => self.op_int_line(opcode),
            BININT => {
                let value = i32::from_le_bytes(self.array()?);
                self.push(Node::Int(value.into()))
            }
            BININT1 => {
                let value = self.byte()?;
                self.push(Node::Int(value.into()))
            }
            BININT2 => {
                let value = u16::from_le_bytes(self.array()?);
                self.push(Node::Int(value.into()))
            }
            LONG1 => {
                let len = self.byte()?;
                self.op_long(len.into())
            }
            LONG4 => {
                let len = self.len4()?;
                self.op_long(len)
            }
            FLOAT => {
                let line = self.line()?;
                let text = str::from_utf8(line).unwrap_or_default().trim();
                match text.parse() {
                    Ok(value) => self.push(Node::Float(value)),
                    Err(_) => self.fail(format!("'{}' is not a float", shown(line))),
                }
            }
            BINFLOAT => {
                let value = f64::from_be_bytes(self.array()?);
                self.push(Node::Float(value))
            }

            STRING => self.op_string_line(),
            SHORT_BINSTRING => {
                let len = self.byte()?;
                let bytes = self.take(len.into())?;
                self.push(Node::Str(bytes.into()))
            }
            BINSTRING => {
                let len = self.len4()?;
                let bytes = self.take(len)?;
                self.push(Node::Str(bytes.into()))
            }
            SHORT_BINBYTES => {
                let len = self.byte()?;
                let bytes = self.take(len.into())?;
                self.push(Node::Bytes(bytes.into()))
            }
            BINBYTES => {
                let len = self.len4()?;
                let bytes = self.take(len)?;
                self.push(Node::Bytes(bytes.into()))
            }
            BINBYTES8 => {
                let len = self.len8()?;
                let bytes = self.take(len)?;
                self.push(Node::Bytes(bytes.into()))
            }
            BYTEARRAY8 => {
                let len = self.len8()?;
                let bytes = self.take(len)?;
                self.push(Node::ByteArray(bytes))
            }
            UNICODE => self.op_unicode_line(),
            SHORT_BINUNICODE => {
                let len = self.byte()?;
                self.op_text(len.into())
            }
            BINUNICODE => {
                let len = self.len4()?;
                self.op_text(len)
            }
            BINUNICODE8 => {
                let len = self.len8()?;
                self.op_text(len)
            }

            EMPTY_TUPLE => self.push(Node::Tuple(Vec::new())),
            TUPLE1 => self.op_tuple(1),
            TUPLE2 => self.op_tuple(2),
            TUPLE3 => self.op_tuple(3),
            TUPLE => {
                let (items, start) = self.pop_mark()?;
                self.push_from(start, Node::Tuple(items))
            }
            EMPTY_LIST => self.push(Node::List(Vec::new())),
            LIST => {
                let (items, start) = self.pop_mark()?;
                self.push_from(start, Node::List(items))
            }
            APPEND => {
                let item = self.pop()?;
                self.append(vec![item])
            }
            APPENDS => {
                let (items, _) = self.pop_mark()?;
                self.append(items)
            }
            EMPTY_DICT => self.push(Node::Dict(Vec::new())),
            DICT => {
                let (items, start) = self.pop_mark()?;
                let pairs = self.pairs(&items)?;
                self.push_from(start, Node::Dict(pairs))
            }
            SETITEM => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(vec![(key, value)])
            }
            SETITEMS => {
                let (items, _) = self.pop_mark()?;
                let pairs = self.pairs(&items)?;
                self.set_items(pairs)
            }
            EMPTY_SET => self.push(Node::Set(Vec::new())),
            FROZENSET => {
                let (items, start) = self.pop_mark()?;
                self.push_from(start, Node::FrozenSet(items))
            }
            ADDITEMS => {
                let (items, _) = self.pop_mark()?;
                self.append(items)
            }

            GET => {
                let index = self.index_line()?;
                self.op_get(index)
            }
            BINGET => {
                let index = self.byte()?;
                self.op_get(index.into())
            }
            LONG_BINGET => {
                let index = u32::from_le_bytes(self.array()?);
                self.op_get(index)
            }
            PUT => {
                let index = self.index_line()?;
                self.op_put(index)
            }
            BINPUT => {
                let index = self.byte()?;
                self.op_put(index.into())
            }
            LONG_BINPUT => {
                let index = u32::from_le_bytes(self.array()?);
                self.op_put(index)
            }
            MEMOIZE => {
                let index = u32::try_from(self.memo.len()).unwrap_or(u32::MAX);
                self.op_put(index)
            }

            GLOBAL => {
                let module = self.line()?;
                let name = self.line()?;
                self.op_global(self.pos, module.into(), name.into())
            }
            STACK_GLOBAL => {
                let name = self.pop()?;
                let module = self.pop()?;
                let (Node::Text(module), Node::Text(name)) = (self.get(module), self.get(name)) else {
                    return self.fail("the name of a class is not a text");
                };
                // Texts with escapes are no part of the source. Each may name any number of classes.
                let is_copy = |name: &Cow<'_, [u8]>| matches!(name, Cow::Owned(_));
                let copies = [module, name].into_iter().filter(|name| is_copy(name));
                let copied = self.copied + copies.map(|name| name.len()).sum::<usize>();
                if copied > self.source.len() {
                    return self.fail("names of classes, without end");
                }
                let (module, name) = (module.clone(), name.clone());
                self.copied = copied;
                self.op_global(self.pos, module, name)
            }
            REDUCE => {
                let args = self.pop()?;
                let class = self.pop()?;
                self.op_object(MadeBy::Reduce, class, args, None)
            }
            NEWOBJ => {
                let args = self.pop()?;
                let class = self.pop()?;
                self.op_object(MadeBy::NewObj, class, args, None)
            }
            NEWOBJ_EX => {
                let kwargs = self.pop()?;
                let args = self.pop()?;
                let class = self.pop()?;
                self.push(Node::Tuple(vec![args, kwargs]))?;
                let args = self.pop()?;
                self.op_object(MadeBy::NewObjEx, class, args, None)
            }
            INST => {
                let (items, start) = self.pop_mark()?;
                let module = self.line()?;
                let name = self.line()?;
                self.op_global(self.pos, module.into(), name.into())?;
                let class = self.pop()?;
                self.push_from(start, Node::Tuple(items))?;
                let args = self.pop()?;
                self.op_object(MadeBy::Inst, class, args, Some(start))
            }
            OBJ => {
                let (mut items, start) = self.pop_mark()?;
                if items.is_empty() {
                    return self.fail("an instance without a class");
                }
                let class = items.remove(0);
                self.push_from(start, Node::Tuple(items))?;
                let args = self.pop()?;
                self.op_object(MadeBy::Inst, class, args, Some(start))
            }
            BUILD => {
                let state = self.pop()?;
                let object = self.top()?;
                match self.get_mut(object)? {
                    Node::Object(object) => object.state = Some(state),
                    _ => return self.fail("a state for what is no instance"),
                }
                self.extend_span(object);
                Ok(())
            }
            PERSID => {
                let line = self.line()?;
                self.push(Node::Str(line.into()))?;
                self.op_persistent()
            }
            BINPERSID => self.op_persistent(),
            EXT1 => {
                let code = self.byte()?;
                self.push(Node::Extension(code.into()))
            }
            EXT2 => {
                let code = u16::from_le_bytes(self.array()?);
                self.push(Node::Extension(code.into()))
            }
            EXT4 => {
                let code = u32::from_le_bytes(self.array()?);
                self.push(Node::Extension(code))
            }
            other => self.fail(format!("unknown opcode {other:#04x}")),
        }
    }

    fn op_pop(&mut self) -> Result<()> {
        match self.marks.last() {
            Some((height, _)) if *height == self.stack.len() => {
                self.marks.pop();
                Ok(())
            }
            _ => self.pop().map(|_| ()),
        }
    }

    fn op_int_line(&mut self, opcode: u8) -> Result<()> {
        let line = self.line()?;
        match (opcode, line) {
            (INT, b"00") => return self.push(Node::Bool(false)),
            (INT, b"01") => return self.push(Node::Bool(true)),
            _ => {}
        }
        let digits = line.strip_suffix(b"L").unwrap_or(line).trim_ascii();
        match str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()) {
            Some(value) => self.push(Node::Int(value)),
            None => match decimal(digits) {
                Some(bytes) => self.push(Node::BigInt(bytes.into())),
                None => self.fail(format!("'{}' is not an integer that can be read", shown(line))),
            },
        }
    }

    fn op_long(&mut self, len: usize) -> Result<()> {
        let bytes = self.take(len)?;
        let node = match bytes.len() {
            0..=8 => {
                let fill = if bytes.last().is_some_and(|top| top & 0x80 != 0) { 0xff } else { 0 };
                let mut wide = [fill; 8];
                wide.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
                Node::Int(i64::from_le_bytes(wide))
            }
            _ => Node::BigInt(bytes.into()),
        };
        self.push(node)
    }

    /// A quoted string with escapes, as protocol 0 has it.
    fn op_string_line(&mut self) -> Result<()> {
        let line = self.line()?.trim_ascii();
        let inner = match line {
            [b'\'', inner @ .., b'\''] | [b'"', inner @ .., b'"'] => inner,
            _ => return self.fail("a string without quotes"),
        };
        match unescape_bytes(inner) {
            Some(bytes) => self.push(Node::Str(bytes)),
            None => self.fail("a string with a broken escape"),
        }
    }

    /// A text with `\u` escapes, as protocol 0 has it. The other bytes are Latin-1.
    fn op_unicode_line(&mut self) -> Result<()> {
        let line = self.line()?;
        match unescape_text(line) {
            Some(text) => self.push(Node::Text(text.into())),
            None => self.fail("a text with a broken escape"),
        }
    }

    fn op_text(&mut self, len: usize) -> Result<()> {
        let bytes = self.take(len)?;
        if !is_text(bytes) {
            return self.fail("a text that is not UTF-8");
        }
        self.push(Node::Text(bytes.into()))
    }

    fn op_tuple(&mut self, count: usize) -> Result<()> {
        let Some(height) = self.stack.len().checked_sub(count) else {
            return self.fail("the stack is empty");
        };
        if self.marks.last().is_some_and(|(mark, _)| *mark > height) {
            return self.fail("a tuple reaches over a mark");
        }
        let items = self.stack.split_off(height);
        let start = items.first().map_or(self.pos, |first| self.span(*first).0);
        self.push_from(start, Node::Tuple(items))
    }

    fn op_get(&mut self, index: u32) -> Result<()> {
        match self.memo.get(&index) {
            Some(id) => {
                self.stack.push(*id);
                self.gets.push(self.pos);
                Ok(())
            }
            None => self.fail(format!("memo has no {index}")),
        }
    }

    fn op_put(&mut self, index: u32) -> Result<()> {
        let top = self.top()?;
        self.memo.insert(index, top);
        Ok(())
    }

    fn op_global(&mut self, start: usize, module: Cow<'a, [u8]>, name: Cow<'a, [u8]>) -> Result<()> {
        if !(self.accept.global)(&module, &name) {
            let shown = [module.as_ref(), b".", name.as_ref()].concat();
            let shown = shown.get(..200).unwrap_or(&shown).escape_ascii();
            return self.fail(format!("{shown} is not allowed"));
        }
        self.push_from(start, Node::Global { module, name })
    }

    fn op_object(
        &mut self,
        made_by: MadeBy,
        class: NodeId,
        args: NodeId,
        start: Option<usize>,
    ) -> Result<()> {
        if !matches!(self.get(class), Node::Global { .. } | Node::Extension(_)) {
            return self.fail("an instance of what is no class");
        }
        if !matches!(self.get(args), Node::Tuple(_)) {
            return self.fail("arguments that are no tuple");
        }
        let start = start.unwrap_or(self.span(class).0);
        if let Node::Global { module, name } = self.get(class)
            && matches!(&**module, b"builtins" | b"__builtin__")
            && &**name == b"dict"
        {
            let dict = self.dict_of(args)?;
            if let Node::Dict(pairs) = &dict {
                self.copied += pairs.len();
            }
            if self.copied > self.source.len() {
                return self.fail("dicts of dicts, without end");
            }
            return self.push_from(start, dict);
        }
        let object = Object { made_by, class, args, state: None, items: Vec::new(), pairs: Vec::new() };
        self.push_from(start, Node::Object(Box::new(object)))
    }

    /// `dict(args)`, as classes that pass for a dict reduce: of nothing, of a dict, of pairs.
    fn dict_of(&self, args: NodeId) -> Result<Node<'a>> {
        let Node::Tuple(args) = self.get(args) else { return self.fail("arguments that are no tuple") };
        match args.as_slice() {
            [] => Ok(Node::Dict(Vec::new())),
            [from] => match self.get(*from) {
                Node::Dict(pairs) => Ok(Node::Dict(pairs.clone())),
                Node::List(items) | Node::Tuple(items) => {
                    let pair = |item: &NodeId| match self.get(*item) {
                        Node::Tuple(pair) => match pair.as_slice() {
                            [key, value] => Some((*key, *value)),
                            _ => None,
                        },
                        _ => None,
                    };
                    match items.iter().map(pair).collect() {
                        Some(pairs) => Ok(Node::Dict(pairs)),
                        None => self.fail("a dict of what are no pairs"),
                    }
                }
                _ => self.fail("a dict of what are no pairs either"),
            },
            _ => self.fail("a dict of more than one argument"),
        }
    }

    fn op_persistent(&mut self) -> Result<()> {
        let id = self.pop()?;
        if !self.accept.persistent {
            return self.fail("a persistent reference is not allowed");
        }
        let start = self.span(id).0;
        self.push_from(start, Node::Persistent(id))
    }

    fn append(&mut self, items: Vec<NodeId>) -> Result<()> {
        let list = self.top()?;
        match self.get_mut(list)? {
            Node::List(to) | Node::Set(to) => to.extend(items),
            Node::Object(object) => object.items.extend(items),
            _ => return self.fail("items for what is no list"),
        }
        self.extend_span(list);
        Ok(())
    }

    fn set_items(&mut self, pairs: Vec<(NodeId, NodeId)>) -> Result<()> {
        let dict = self.top()?;
        match self.get_mut(dict)? {
            Node::Dict(to) => to.extend(pairs),
            Node::Object(object) => object.pairs.extend(pairs),
            _ => return self.fail("items for what is no dict"),
        }
        self.extend_span(dict);
        Ok(())
    }

    fn pairs(&mut self, items: &[NodeId]) -> Result<Vec<(NodeId, NodeId)>> {
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return self.fail("a key without a value");
        }
        Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect())
    }

    // -- nodes and stack

    fn push(&mut self, node: Node<'a>) -> Result<()> {
        self.push_from(self.pos, node)
    }

    fn push_from(&mut self, start: usize, node: Node<'a>) -> Result<()> {
        let Ok(id) = u32::try_from(self.nodes.len()) else { return self.fail("too many values") };
        self.nodes.push(node);
        self.spans.push((start, self.offset()));
        self.stack.push(NodeId(id));
        Ok(())
    }

    fn get(&self, id: NodeId) -> &Node<'a> {
        self.nodes.get(id.0 as usize).unwrap_or(&Node::None)
    }

    fn get_mut(&mut self, id: NodeId) -> Result<&mut Node<'a>> {
        let pos = self.pos;
        self.nodes
            .get_mut(id.0 as usize)
            .ok_or_else(|| PickleError { pos, what: "no such value".to_string() })
    }

    fn span(&self, id: NodeId) -> (usize, usize) {
        self.spans.get(id.0 as usize).copied().unwrap_or_default()
    }

    fn extend_span(&mut self, id: NodeId) {
        let end = self.offset();
        if let Some(span) = self.spans.get_mut(id.0 as usize) {
            span.1 = end;
        }
    }

    fn top(&mut self) -> Result<NodeId> {
        let floor = self.marks.last().map_or(0, |(height, _)| *height);
        match self.stack.last() {
            Some(id) if self.stack.len() > floor => Ok(*id),
            _ => self.fail("the stack is empty"),
        }
    }

    fn pop(&mut self) -> Result<NodeId> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_mark(&mut self) -> Result<(Vec<NodeId>, usize)> {
        match self.marks.pop() {
            Some((height, start)) if height <= self.stack.len() => Ok((self.stack.split_off(height), start)),
            _ => self.fail("no mark"),
        }
    }

    // -- bytes

    fn offset(&self) -> usize {
        self.source.len() - self.rest.len()
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        match self.rest.split_at_checked(len) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => self.fail("ends too early"),
        }
    }

    fn byte(&mut self) -> Result<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        match self.rest.split_first_chunk() {
            Some((array, rest)) => {
                self.rest = rest;
                Ok(*array)
            }
            None => self.fail("ends too early"),
        }
    }

    /// A length of four bytes. Python has it signed and refuses the negative.
    fn len4(&mut self) -> Result<usize> {
        let len = i32::from_le_bytes(self.array()?);
        usize::try_from(len).or_else(|_| self.fail("a negative length"))
    }

    fn len8(&mut self) -> Result<usize> {
        let len = u64::from_le_bytes(self.array()?);
        usize::try_from(len).or_else(|_| self.fail("a length beyond memory"))
    }

    fn line(&mut self) -> Result<&'a [u8]> {
        match self.rest.iter().position(|byte| *byte == b'\n') {
            Some(len) => {
                let line = self.take(len)?;
                self.take(1)?;
                Ok(line)
            }
            None => self.fail("a line without an end"),
        }
    }

    fn index_line(&mut self) -> Result<u32> {
        let line = self.line()?;
        match str::from_utf8(line).ok().and_then(|line| line.trim().parse().ok()) {
            Some(index) => Ok(index),
            None => self.fail("not an index of the memo"),
        }
    }

    fn fail<T>(&self, what: impl Into<String>) -> Result<T> {
        Err(PickleError { pos: self.pos, what: what.into() })
    }
}

/// The beginning of a line, for the log.
fn shown(line: &[u8]) -> impl fmt::Display + '_ {
    line.get(..60).unwrap_or(line).escape_ascii()
}

/// Longest integer that is read from decimal digits: the conversion is quadratic.
const DIGITS_MAX: usize = 400;

/// Two's complement, little endian, of a decimal number.
fn decimal(digits: &[u8]) -> Option<Vec<u8>> {
    let (negative, digits) = match digits {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || digits.len() > DIGITS_MAX || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut bytes: Vec<u8> = Vec::new();
    for digit in digits {
        let mut carry = u16::from(digit - b'0');
        for byte in &mut bytes {
            let [low, high] = (u16::from(*byte) * 10 + carry).to_le_bytes();
            *byte = low;
            carry = high.into();
        }
        bytes.extend(carry.to_le_bytes().first().filter(|byte| **byte > 0));
    }
    bytes.push(0);
    if negative {
        let mut carry = true;
        for byte in &mut bytes {
            (*byte, carry) = (!*byte).overflowing_add(carry.into());
        }
    }
    Some(bytes)
}

/// Undo the escapes of Python 2's `repr` of a string.
fn unescape_bytes(inner: &[u8]) -> Option<Cow<'_, [u8]>> {
    if !inner.contains(&b'\\') {
        return Some(inner.into());
    }
    let mut out = Vec::with_capacity(inner.len());
    let mut rest = inner.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match rest.next()? {
            b'\n' => {}
            b'a' => out.push(7),
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'v' => out.push(11),
            b'x' => {
                let high = char::from(rest.next()?).to_digit(16)?;
                let low = char::from(rest.next()?).to_digit(16)?;
                out.push(u8::try_from(16 * high + low).ok()?);
            }
            digit @ b'0'..=b'7' => {
                let mut value = u32::from(digit - b'0');
                for _ in 0..2 {
                    let Some(digit) = rest.next_if(|digit| (b'0'..=b'7').contains(digit)) else { break };
                    value = 8 * value + u32::from(digit - b'0');
                }
                out.push((value & 0xff).to_le_bytes()[0]);
            }
            quoted @ (b'\\' | b'\'' | b'"') => out.push(quoted),
            other => out.extend([b'\\', other]),
        }
    }
    Some(out.into())
}

/// Undo `raw-unicode-escape`.
fn unescape_text(line: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(line.len());
    let mut rest = line;
    loop {
        let (code, len) = match rest {
            [] => return Some(out),
            [b'\\', b'u', digits @ ..] => (hex(digits.get(..4)?)?, 6),
            [b'\\', b'U', digits @ ..] => (hex(digits.get(..8)?)?, 10),
            [byte, ..] => (u32::from(*byte), 1),
        };
        rest = rest.get(len..)?;
        match char::from_u32(code) {
            Some(text) => out.extend_from_slice(text.encode_utf8(&mut [0; 4]).as_bytes()),
            None if code < 0x1_0000 => {
                // A surrogate, alone or half of a pair that Python 2 wrote as two: encoded as three bytes each.
                let [low, high, ..] = code.to_le_bytes();
                out.extend_from_slice(&[
                    0xe0 | (high >> 4),
                    0x80 | ((high & 0x0f) << 2) | (low >> 6),
                    0x80 | (low & 0x3f),
                ]);
            }
            None => return None,
        }
    }
}

fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |value, digit| Some(16 * value + char::from(*digit).to_digit(16)?))
}

/// Is this UTF-8, lone surrogates being allowed as Python's pickle allows them?
fn is_text(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    loop {
        match str::from_utf8(rest) {
            Ok(_) => return true,
            Err(error) => {
                let after = rest.get(error.valid_up_to()..).unwrap_or_default();
                match after {
                    [0xed, 0xa0..=0xbf, 0x80..=0xbf, more @ ..] => rest = more,
                    _ => return false,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dict_len(pickle: &[u8]) -> Option<usize> {
        let tree = read(pickle, Accept::RECORD).ok()?;
        match tree.node(tree.root()) {
            Node::Dict(pairs) => Some(pairs.len()),
            _ => None,
        }
    }

    #[test]
    fn a_class_that_passes_for_a_dict_reduces_to_one() {
        assert_eq!(dict_len(b"cbuiltins\ndict\n)R."), Some(0));
        assert_eq!(dict_len(b"c__builtin__\ndict\n(]K\x01K\x02\x86atR."), Some(1));
        assert_eq!(dict_len(b"cbuiltins\ndict\n(K\x01K\x02\x86ttR."), None, "no tuple of pairs");
        assert_eq!(dict_len(b"cbuiltins\ndict\n((K\x01K\x02\x86ttR."), Some(1));
        assert_eq!(dict_len(b"cbuiltins\ndict\n]K\x01a\x85R."), None, "no pairs");
    }

    /// `dict(dict(dict(...)))` of a large dict, a few bytes for each copy: it must not cost more than it is long.
    #[test]
    fn dicts_of_dicts_end() {
        let mut pickle = b"]}(".to_vec();
        for i in 0..200u8 {
            pickle.extend_from_slice(&[b'K', i, b'N']);
        }
        pickle.extend_from_slice(b"uq\x00a");
        for _ in 0..2000 {
            pickle.extend_from_slice(b"cbuiltins\ndict\nh\x00\x85Ra");
        }
        pickle.push(b'.');
        assert!(read(&pickle, Accept::RECORD).is_err());
    }
}
