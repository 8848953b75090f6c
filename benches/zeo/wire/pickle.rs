//! Reads pickles: a token reader for the fast paths, and a small stack machine that builds a whole [`Value`].

use super::Value;
use std::collections::HashMap;

type Result<T> = std::result::Result<T, String>;

/// The meaning of an opcode for plain data.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Token<'a> {
    Mark,
    Int(i64),
    Float(f64),
    Bytes(&'a [u8]),
    None,
    Bool(bool),
    EmptyTuple,
    EmptyList,
    EmptyDict,
    Tuple(usize),
    TupleFromMark,
    ListFromMark,
    DictFromMark,
    Append,
    Extend,
    SetItem,
    SetItems,
    Class(&'a [u8], &'a [u8]),
    ClassFromStack,
    Call,
    Build,
    Get(u32),
    Put(u32),
    Memoize,
    /// PROTO or FRAME.
    Bookkeeping,
    Stop,
}

pub struct Tokens<'a> {
    bytes: &'a [u8],
    pub pos: usize,
}

impl<'a> Tokens<'a> {
    pub fn new(bytes: &'a [u8]) -> Tokens<'a> {
        Tokens { bytes, pos: 0 }
    }

    /// The next token that carries a value (no PROTO, FRAME, PUT).
    pub fn next_value(&mut self) -> Result<Token<'a>> {
        loop {
            match self.next()? {
                Token::Bookkeeping | Token::Put(_) | Token::Memoize => {}
                token => return Ok(token),
            }
        }
    }

    pub fn next(&mut self) -> Result<Token<'a>> {
        let opcode = self.take(1)?[0];
        Ok(match opcode {
            b'(' => Token::Mark,
            b'K' => Token::Int(self.uint(1)? as i64),
            b'M' => Token::Int(self.uint(2)? as i64),
            b'J' => Token::Int(i64::from(self.uint(4)? as u32 as i32)),
            0x8a => self.long()?,
            b'I' => match self.line()? {
                b"00" => Token::Bool(false),
                b"01" => Token::Bool(true),
                line => Token::Int(decimal(line)?),
            },
            b'L' => {
                let line = self.line()?;
                Token::Int(decimal(line.strip_suffix(b"L").unwrap_or(line))?)
            }
            b'G' => Token::Float(f64::from_bits(self.uint(8)?.swap_bytes())),
            b'U' | b'C' | 0x8c => self.sized(1)?,
            b'T' | b'B' | b'X' => self.sized(4)?,
            0x8d | 0x8e => self.sized(8)?,
            b'N' => Token::None,
            0x88 => Token::Bool(true),
            0x89 => Token::Bool(false),
            b')' => Token::EmptyTuple,
            b']' => Token::EmptyList,
            b'}' => Token::EmptyDict,
            0x85..=0x87 => Token::Tuple(usize::from(opcode - 0x84)),
            b't' => Token::TupleFromMark,
            b'l' => Token::ListFromMark,
            b'd' => Token::DictFromMark,
            b'a' => Token::Append,
            b'e' => Token::Extend,
            b's' => Token::SetItem,
            b'u' => Token::SetItems,
            b'c' => Token::Class(self.line()?, self.line()?),
            0x93 => Token::ClassFromStack,
            b'R' | 0x81 => Token::Call,
            b'b' => Token::Build,
            b'q' => Token::Put(self.uint(1)? as u32),
            b'r' => Token::Put(self.uint(4)? as u32),
            b'p' => Token::Put(decimal(self.line()?)? as u32),
            b'h' => Token::Get(self.uint(1)? as u32),
            b'j' => Token::Get(self.uint(4)? as u32),
            b'g' => Token::Get(decimal(self.line()?)? as u32),
            0x94 => Token::Memoize,
            0x80 => {
                self.take(1)?;
                Token::Bookkeeping
            }
            0x95 => {
                self.take(8)?;
                Token::Bookkeeping
            }
            b'.' => Token::Stop,
            _ => return Err(format!("unsupported pickle opcode {opcode:#04x} at {}", self.pos - 1)),
        })
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let end =
            self.pos.checked_add(len).filter(|end| *end <= self.bytes.len()).ok_or("truncated pickle")?;
        let taken = &self.bytes[self.pos..end];
        self.pos = end;
        Ok(taken)
    }

    /// A little-endian number of at most 8 bytes.
    fn uint(&mut self, len: usize) -> Result<u64> {
        Ok(self.take(len)?.iter().rev().fold(0, |v, b| v << 8 | u64::from(*b)))
    }

    fn long(&mut self) -> Result<Token<'a>> {
        let len = self.uint(1)? as usize;
        let digits = self.take(len)?;
        let sign = if digits.last().is_some_and(|b| b & 0x80 != 0) { -1 } else { 0 };
        Ok(Token::Int(digits.iter().take(8).rev().fold(sign, |v, b| v << 8 | i64::from(*b))))
    }

    fn line(&mut self) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.pos..];
        let len = rest.iter().position(|b| *b == b'\n').ok_or("truncated pickle line")?;
        self.pos += len + 1;
        Ok(&rest[..len])
    }

    fn sized(&mut self, len_len: usize) -> Result<Token<'a>> {
        let len = self.uint(len_len)? as usize;
        Ok(Token::Bytes(self.take(len)?))
    }
}

fn decimal(line: &[u8]) -> Result<i64> {
    std::str::from_utf8(line).ok().and_then(|s| s.parse().ok()).ok_or_else(|| format!("bad number {line:?}"))
}

/// Reads a whole pickle.
pub fn read(bytes: &[u8]) -> Result<Value> {
    let mut machine = Machine::default();
    let mut tokens = Tokens::new(bytes);
    loop {
        match tokens.next()? {
            Token::Stop => return machine.pop(),
            token => machine.step(token)?,
        }
    }
}

#[derive(Default)]
struct Machine {
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
}

impl Machine {
    fn step(&mut self, token: Token<'_>) -> Result<()> {
        let pushed = match token {
            Token::Stop | Token::Bookkeeping => return Ok(()),
            Token::Mark => {
                self.marks.push(self.stack.len());
                return Ok(());
            }
            Token::Put(key) => return self.memoize(key),
            Token::Memoize => return self.memoize(self.memo.len() as u32),
            Token::Append | Token::Extend | Token::SetItem | Token::SetItems | Token::Build => {
                return self.change(token);
            }
            Token::Int(v) => Value::Int(v),
            Token::Float(v) => Value::Float(v),
            Token::Bytes(v) => Value::Bytes(v.to_vec()),
            Token::None => Value::None,
            Token::Bool(v) => Value::Bool(v),
            Token::EmptyTuple => Value::Tuple(vec![]),
            Token::EmptyList => Value::List(vec![]),
            Token::EmptyDict => Value::Dict(vec![]),
            Token::Tuple(len) => {
                let at = self.stack.len().checked_sub(len).ok_or("pickle stack underflow")?;
                Value::Tuple(self.stack.split_off(at))
            }
            Token::TupleFromMark => Value::Tuple(self.pop_to_mark()?),
            Token::ListFromMark => Value::List(self.pop_to_mark()?),
            Token::DictFromMark => Value::Dict(pairs(self.pop_to_mark()?)),
            Token::Class(module, name) => Value::Class(dotted(module, name)),
            Token::ClassFromStack => {
                let (name, module) = (self.pop()?, self.pop()?);
                Value::Class(dotted(module.as_bytes().unwrap_or(b"?"), name.as_bytes().unwrap_or(b"?")))
            }
            Token::Call => self.call()?,
            Token::Get(key) => self.memo.get(&key).cloned().ok_or("bad pickle memo key")?,
        };
        self.stack.push(pushed);
        Ok(())
    }

    fn pop(&mut self) -> Result<Value> {
        self.stack.pop().ok_or_else(|| "pickle stack underflow".into())
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value>> {
        let mark = self.marks.pop().ok_or("pickle without a mark")?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn memoize(&mut self, key: u32) -> Result<()> {
        // This may be the message's name, which was read before: then the stack is empty.
        self.memo.insert(key, self.stack.last().cloned().unwrap_or(Value::None));
        Ok(())
    }

    fn change(&mut self, token: Token<'_>) -> Result<()> {
        let items = match token {
            Token::Append | Token::Build => vec![self.pop()?],
            Token::SetItem => {
                let (value, key) = (self.pop()?, self.pop()?);
                vec![key, value]
            }
            _ => self.pop_to_mark()?,
        };
        match self.stack.last_mut() {
            Some(Value::List(list)) => list.extend(items),
            Some(Value::Dict(dict)) => dict.extend(pairs(items)),
            Some(Value::Object(_, state)) => state.extend(items),
            other => return Err(format!("pickle adds items to {other:?}")),
        }
        Ok(())
    }

    fn call(&mut self) -> Result<Value> {
        let (arguments, callable) = (self.pop()?, self.pop()?);
        let Value::Class(mut name) = callable else {
            return Err(format!("pickle calls {callable:?}"));
        };
        // For copy_reg._reconstructor(cls, ..) and ZODB.POSException._recon(cls, ..), the class is the first argument.
        if let Some(Value::Class(class)) = arguments.items().first()
            && (name.contains("_recon") || name.contains("__newobj__"))
        {
            name.clone_from(class);
        }
        Ok(Value::Object(name, arguments.items().to_vec()))
    }
}

fn dotted(module: &[u8], name: &[u8]) -> String {
    format!("{}.{}", String::from_utf8_lossy(module), String::from_utf8_lossy(name))
}

fn pairs(items: Vec<Value>) -> Vec<(Value, Value)> {
    let mut items = items.into_iter();
    let mut pairs = vec![];
    while let (Some(key), Some(value)) = (items.next(), items.next()) {
        pairs.push((key, value));
    }
    pairs
}
