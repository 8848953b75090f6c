//! Just enough of pickle to talk to a ZEO server: protocol 3 as Python 3 peers write it, protocol 1 as Python 2's.

use std::fmt;

/// A decoded value. Text and bytes of Python 2 are both `Bytes`.
#[derive(Clone, PartialEq)]
pub enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Bytes(Vec<u8>),
    Text(String),
    Tuple(Vec<Value>),
    List(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    /// A class, `module.name`.
    Global(String),
    /// The parts of `REDUCE`, `NEWOBJ` or `BUILD`.
    Object(Box<Value>, Box<Value>),
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => write!(f, "None"),
            Self::Bool(v) => write!(f, "{v}"),
            Self::Int(v) => write!(f, "{v}"),
            Self::Float(v) => write!(f, "{v}"),
            Self::Bytes(v) if v.len() > 64 => write!(f, "<{} bytes>", v.len()),
            Self::Bytes(v) => write!(f, "b\"{}\"", v.escape_ascii()),
            Self::Text(v) => write!(f, "{v:?}"),
            Self::Tuple(v) => f.debug_set().entries(v).finish(),
            Self::List(v) => f.debug_list().entries(v).finish(),
            Self::Dict(v) => f.debug_map().entries(v.iter().map(|(k, v)| (k, v))).finish(),
            Self::Global(v) => write!(f, "<{v}>"),
            Self::Object(c, a) => write!(f, "{c:?}({a:?})"),
        }
    }
}

impl Value {
    pub fn tuple(&self) -> &[Value] {
        match self {
            Self::Tuple(items) | Self::List(items) => items,
            other => panic!("not a sequence: {other:?}"),
        }
    }

    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Text(text) => text.as_bytes(),
            other => panic!("not bytes: {other:?}"),
        }
    }

    /// An oid or tid.
    pub fn id(&self) -> u64 {
        let bytes = self.bytes();
        u64::from_be_bytes(bytes.try_into().unwrap_or_else(|_| panic!("not 8 bytes: {self:?}")))
    }

    pub fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// The dialect for writing values.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Dialect {
    Python2,
    Python3,
}

pub fn id(value: u64) -> Value {
    Value::Bytes(value.to_be_bytes().to_vec())
}

pub fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

pub fn dumps(value: &Value, dialect: Dialect) -> Vec<u8> {
    let mut out = Vec::new();
    if dialect == Dialect::Python3 {
        out.extend_from_slice(b"\x80\x03");
    }
    write(value, dialect, &mut out);
    out.push(b'.');
    out
}

fn write(value: &Value, dialect: Dialect, out: &mut Vec<u8>) {
    match value {
        Value::None => out.push(b'N'),
        Value::Bool(v) if dialect == Dialect::Python3 => out.push(if *v { 0x88 } else { 0x89 }),
        Value::Bool(v) => out.extend_from_slice(if *v { b"I01\n" } else { b"I00\n" }),
        Value::Int(v @ 0..=255) => out.extend_from_slice(&[b'K', *v as u8]),
        Value::Int(v) if i32::try_from(*v).is_ok() => {
            out.push(b'J');
            out.extend_from_slice(&(*v as i32).to_le_bytes());
        }
        Value::Int(v) => out.extend_from_slice(format!("I{v}\n").as_bytes()),
        Value::Float(v) => {
            out.push(b'G');
            out.extend_from_slice(&v.to_be_bytes());
        }
        Value::Bytes(v) => write_bytes(v, dialect, out),
        Value::Text(v) if dialect == Dialect::Python2 => write_bytes(v.as_bytes(), dialect, out),
        Value::Text(v) => {
            out.push(b'X');
            out.extend_from_slice(&(v.len() as u32).to_le_bytes());
            out.extend_from_slice(v.as_bytes());
        }
        Value::Tuple(items) => {
            out.push(b'(');
            items.iter().for_each(|item| write(item, dialect, out));
            out.push(b't');
        }
        Value::List(items) => {
            out.extend_from_slice(b"](");
            items.iter().for_each(|item| write(item, dialect, out));
            out.push(b'e');
        }
        Value::Dict(items) => {
            out.extend_from_slice(b"}(");
            for (key, value) in items {
                write(key, dialect, out);
                write(value, dialect, out);
            }
            out.push(b'u');
        }
        Value::Global(_) | Value::Object(..) => panic!("a client sends no objects"),
    }
}

fn write_bytes(bytes: &[u8], dialect: Dialect, out: &mut Vec<u8>) {
    let (short, long) = if dialect == Dialect::Python2 { (b'U', b'T') } else { (b'C', b'B') };
    if bytes.len() < 256 {
        out.extend_from_slice(&[short, bytes.len() as u8]);
    } else {
        out.push(long);
        out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    }
    out.extend_from_slice(bytes);
}

/// Reads pickles from the server; panics on anything else, which fails the test.
pub fn loads(data: &[u8]) -> Value {
    Reader { data, pos: 0, stack: Vec::new(), marks: Vec::new(), memo: Default::default() }.run()
}

struct Reader<'a> {
    data: &'a [u8],
    pos: usize,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: std::collections::HashMap<usize, Value>,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> &'a [u8] {
        let part = &self.data[self.pos..self.pos + len];
        self.pos += len;
        part
    }

    fn number<const N: usize>(&mut self) -> usize {
        let mut bytes = [0; 8];
        bytes[..N].copy_from_slice(self.take(N));
        u64::from_le_bytes(bytes) as usize
    }

    fn line(&mut self) -> &'a str {
        let len = self.data[self.pos..].iter().position(|b| *b == b'\n').expect("a line");
        let line = std::str::from_utf8(self.take(len)).expect("text");
        self.pos += 1;
        line
    }

    fn pop(&mut self) -> Value {
        self.stack.pop().expect("stack")
    }

    fn since_mark(&mut self) -> Vec<Value> {
        let mark = self.marks.pop().expect("mark");
        self.stack.split_off(mark)
    }

    fn pairs(items: Vec<Value>) -> Vec<(Value, Value)> {
        let mut items = items.into_iter();
        let mut pairs = Vec::new();
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            pairs.push((key, value));
        }
        pairs
    }

    fn string(&mut self, len: usize) {
        let bytes = self.take(len).to_vec();
        self.stack.push(Value::Bytes(bytes));
    }

    fn text(&mut self, len: usize) {
        let text = String::from_utf8(self.take(len).to_vec()).expect("UTF-8");
        self.stack.push(Value::Text(text));
    }

    fn run(mut self) -> Value {
        loop {
            let opcode = self.take(1)[0];
            match opcode {
                b'.' => {
                    assert_eq!(self.stack.len(), 1, "one value a pickle");
                    assert_eq!(self.pos, self.data.len(), "nothing after the pickle");
                    return self.pop();
                }
                0x80 => drop(self.take(1)),
                b'N' => self.stack.push(Value::None),
                0x88 => self.stack.push(Value::Bool(true)),
                0x89 => self.stack.push(Value::Bool(false)),
                b'I' => {
                    let line = self.line();
                    self.stack.push(match line {
                        "00" => Value::Bool(false),
                        "01" => Value::Bool(true),
                        number => Value::Int(number.parse().expect("a number")),
                    });
                }
                b'L' => {
                    let line = self.line().trim_end_matches('L');
                    self.stack.push(Value::Int(line.parse().expect("a number")));
                }
                b'K' => {
                    let v = self.number::<1>();
                    self.stack.push(Value::Int(v as i64));
                }
                b'M' => {
                    let v = self.number::<2>();
                    self.stack.push(Value::Int(v as i64));
                }
                b'J' => {
                    let v = self.number::<4>() as u32 as i32;
                    self.stack.push(Value::Int(v.into()));
                }
                0x8a => {
                    let len = self.number::<1>();
                    let bytes = self.take(len);
                    let mut full = [if bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 }; 8];
                    full[..len].copy_from_slice(bytes);
                    self.stack.push(Value::Int(i64::from_le_bytes(full)));
                }
                b'G' => {
                    let bytes: [u8; 8] = self.take(8).try_into().expect("8");
                    self.stack.push(Value::Float(f64::from_be_bytes(bytes)));
                }
                b'U' | b'C' => {
                    let len = self.number::<1>();
                    self.string(len);
                }
                b'T' | b'B' => {
                    let len = self.number::<4>();
                    self.string(len);
                }
                0x8c => {
                    let len = self.number::<1>();
                    self.text(len);
                }
                b'X' => {
                    let len = self.number::<4>();
                    self.text(len);
                }
                b'(' => self.marks.push(self.stack.len()),
                b'0' => drop(self.pop()),
                b')' => self.stack.push(Value::Tuple(Vec::new())),
                b']' => self.stack.push(Value::List(Vec::new())),
                b'}' => self.stack.push(Value::Dict(Vec::new())),
                b't' => {
                    let items = self.since_mark();
                    self.stack.push(Value::Tuple(items));
                }
                0x85..=0x87 => {
                    let at = self.stack.len() - usize::from(opcode - 0x84);
                    let items = self.stack.split_off(at);
                    self.stack.push(Value::Tuple(items));
                }
                b'l' => {
                    let items = self.since_mark();
                    self.stack.push(Value::List(items));
                }
                b'd' => {
                    let items = Self::pairs(self.since_mark());
                    self.stack.push(Value::Dict(items));
                }
                b'e' | b'a' => {
                    let new = if opcode == b'e' { self.since_mark() } else { vec![self.pop()] };
                    match self.stack.last_mut() {
                        Some(Value::List(items)) => items.extend(new),
                        other => panic!("append to {other:?}"),
                    }
                }
                b'u' | b's' => {
                    let new = if opcode == b'u' {
                        self.since_mark()
                    } else {
                        let value = self.pop();
                        vec![self.pop(), value]
                    };
                    match self.stack.last_mut() {
                        Some(Value::Dict(items)) => items.extend(Self::pairs(new)),
                        other => panic!("setitem on {other:?}"),
                    }
                }
                b'q' | b'r' => {
                    let key = if opcode == b'q' { self.number::<1>() } else { self.number::<4>() };
                    self.memo.insert(key, self.stack.last().expect("stack").clone());
                }
                0x94 => drop(self.memo.insert(self.memo.len(), self.stack.last().expect("stack").clone())),
                b'h' | b'j' => {
                    let key = if opcode == b'h' { self.number::<1>() } else { self.number::<4>() };
                    self.stack.push(self.memo[&key].clone());
                }
                b'c' => {
                    let name = format!("{}.{}", self.line(), self.line());
                    self.stack.push(Value::Global(name));
                }
                b'R' | 0x81 | b'b' => {
                    let argument = Box::new(self.pop());
                    let callee = Box::new(self.pop());
                    self.stack.push(Value::Object(callee, argument));
                }
                other => panic!("opcode {other:#x} at {}", self.pos - 1),
            }
        }
    }
}
