//! Index files of older ZODBs: one pickle of a mapping `{"index": fsIndex or dict, "pos": int}`.
//!
//! | written by  | the mapping is | and the index is |
//! |-------------|----------------|------------------|
//! | before 3.2  | a dict         | a dict: oid -> position |
//! | ZODB3 3.8   | a dict         | an fsIndex whose `_data` is a BTree of prefixes and fsBuckets |
//! | ZODB3 3.9   | an OOBucket    | the same, but its buckets stand in front of it, under `_buckets` |
//! | some 3.10   | a dict         | an fsIndex whose `_data` is a list of prefixes and strings |
//!
//! The reader accepts only these pickles. With anything else in the file the index is unreadable; it is then rebuilt
//! from the data, as in Python.

#![cfg_attr(not(test), deny(clippy::cast_possible_truncation))]

use std::collections::HashMap;
use std::rc::Rc;

use super::index::Index;
use super::index_saved::{SavedIndex, fill};
use crate::base::ids::Oid;
use crate::pickle::lex::{Argument, Lexer, Token};
use crate::pickle::opcode::*;

/// Upper bound on tuples and instances in one file, and on containers that are put into others later. Bounds the depth
/// of nesting. Enough for tens of millions of objects; a larger index in such a layout is rebuilt.
const VALUES_MAX: usize = 4000;

#[derive(Clone, Debug)]
enum Unpickled {
    Mark,
    Nothing,
    Int(u64),
    Bytes(Rc<[u8]>),
    /// Tuples, lists and dicts (keys and values alternating): all are a sequence of values.
    Items(Rc<Vec<Unpickled>>),
    /// An instance of any class: only its state is kept.
    Object(Rc<Unpickled>),
}

/// Reads the bytes of an index file in an older layout.
pub fn parse(bytes: &[u8]) -> Result<SavedIndex, String> {
    let mut top = unpickle(bytes).ok_or("not an index: its pickle cannot be read")?;
    if let Unpickled::Object(state) = &top
        && let Unpickled::Items(items) = &**state
        && let Some(pairs) = items.first()
    {
        top = pairs.clone();
    }
    let pos = match member(&top, b"pos") {
        Some(Unpickled::Int(pos)) => *pos,
        _ => return Err("not an index: it has no position".into()),
    };
    let index = Index::new();
    let left = bytes.len().saturating_mul(4).saturating_add(4096);
    let mut found = Finder { index: &index, end: pos, left };
    match member(&top, b"index").ok_or("not an index: it has no index")? {
        _ if member(&top, b"_buckets").is_some() => {
            found.buckets(member(&top, b"_buckets").map_or(&[], std::slice::from_ref), 0)?;
        }
        // A plain dict: oid -> position.
        Unpickled::Items(items) => plain(&index, items, pos)?,
        Unpickled::Object(state) => match member(state, b"_data") {
            // fsIndex with state_version 1: a list of (prefix, string).
            Some(Unpickled::Items(pairs)) => found.buckets(pairs, 0)?,
            // fsIndex without state_version: a BTree of prefixes and buckets.
            Some(Unpickled::Object(tree)) => found.buckets(std::slice::from_ref(tree), 0)?,
            _ => return Err("not an index: it has no data".into()),
        },
        _ => return Err("not an index: its data is of no known kind".into()),
    }
    if index.is_empty() {
        return Err("it is empty".into());
    }
    Ok(SavedIndex { pos, index, oid_mark: None })
}

fn member<'a>(value: &'a Unpickled, name: &[u8]) -> Option<&'a Unpickled> {
    let Unpickled::Items(items) = value else { return None };
    let (pairs, _) = items.as_chunks::<2>();
    pairs.iter().find_map(|[key, value]| match key {
        Unpickled::Bytes(key) if **key == *name => Some(value),
        _ => None,
    })
}

fn plain(index: &Index, items: &[Unpickled], end: u64) -> Result<(), String> {
    let (pairs, _) = items.as_chunks::<2>();
    for pair in pairs {
        match pair {
            [Unpickled::Bytes(oid), Unpickled::Int(pos)] if (4..end).contains(pos) => {
                let oid = Oid::from_slice(oid).ok_or("an oid is not 8 bytes long")?;
                index.fill(oid, [((oid.0 & 0xfff) as u16, *pos)].into_iter());
            }
            _ => return Err("an entry is not an oid and a position in the file".into()),
        }
    }
    Ok(())
}

/// Puts the buckets that it finds into an index.
struct Finder<'a> {
    index: &'a Index,
    /// The end of the data that the index describes.
    end: u64,
    /// Values and bytes that may still be visited. Bounds the work for memoized values, which may occur in many places
    /// inside each other.
    left: usize,
}

impl Finder<'_> {
    fn pay(&mut self, len: usize) -> Result<(), String> {
        self.left = self.left.checked_sub(len).ok_or("not an index: it refers to itself too often")?;
        Ok(())
    }

    /// Finds (prefix, bucket) pairs wherever they are: in a list, or in the nested states of a BTree.
    fn buckets(&mut self, items: &[Unpickled], depth: usize) -> Result<(), String> {
        if depth > VALUES_MAX {
            return Err("it is nested too deeply".into());
        }
        let mut at = 0;
        while let Some(item) = items.get(at) {
            self.pay(1)?;
            at += 1;
            match item {
                Unpickled::Bytes(prefix) => match items.get(at) {
                    Some(Unpickled::Bytes(bucket)) => {
                        self.fill(prefix, bucket)?;
                        at += 1;
                    }
                    Some(Unpickled::Object(state)) if prefix.len() == 6 && !self.holds_prefixes(state)? => {
                        self.bucket(prefix, state)?;
                        at += 1;
                    }
                    // A key that separates the children of a BTree.
                    _ => {}
                },
                Unpickled::Items(nested) => self.buckets(nested, depth + 1)?,
                Unpickled::Object(state) => self.buckets(std::slice::from_ref(state), depth + 1)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether this is the state of an inner node of a BTree: its innermost first item is a 6-byte prefix.
    fn holds_prefixes(&mut self, state: &Unpickled) -> Result<bool, String> {
        let mut state = state;
        for _ in 0..VALUES_MAX {
            self.pay(1)?;
            match state {
                Unpickled::Items(items) => match items.first() {
                    Some(first) => state = first,
                    None => return Ok(false),
                },
                Unpickled::Object(inner) => state = inner,
                Unpickled::Bytes(first) => return Ok(first.len() == 6),
                _ => return Ok(false),
            }
        }
        Ok(false)
    }

    /// The state of one fsBucket: a string as for `fill`, or a tuple of a tuple of alternating suffixes and positions.
    fn bucket(&mut self, prefix: &[u8], state: &Unpickled) -> Result<(), String> {
        let wrong = || "a bucket is of no known kind".to_string();
        let items = match state {
            Unpickled::Bytes(bucket) => return self.fill(prefix, bucket),
            Unpickled::Items(items) => match items.first() {
                Some(Unpickled::Items(pairs)) => pairs,
                _ => return Err(wrong()),
            },
            _ => return Err(wrong()),
        };
        self.pay(items.len())?;
        let (mut suffixes, mut positions) = (Vec::new(), Vec::new());
        let (pairs, []) = items.as_chunks::<2>() else { return Err(wrong()) };
        for pair in pairs {
            match pair {
                [Unpickled::Bytes(suffix), Unpickled::Bytes(position)]
                    if suffix.len() == 2 && position.len() == 6 =>
                {
                    suffixes.extend_from_slice(suffix);
                    positions.extend_from_slice(position);
                }
                _ => return Err(wrong()),
            }
        }
        suffixes.append(&mut positions);
        fill(self.index, prefix, &suffixes, self.end)
    }

    fn fill(&mut self, prefix: &[u8], bucket: &[u8]) -> Result<(), String> {
        self.pay(bucket.len())?;
        fill(self.index, prefix, bucket, self.end)
    }
}

fn unpickle(bytes: &[u8]) -> Option<Unpickled> {
    let mut lexer = Lexer::new(bytes);
    let mut stack: Vec<Unpickled> = Vec::new();
    let mut memo: HashMap<u32, Unpickled> = HashMap::new();
    let (mut value_count, mut put_count) = (0, 0);
    loop {
        let Token { opcode, argument, .. } = lexer.token().ok()?;
        if matches!(opcode, BUILD | TUPLE | LIST | DICT | TUPLE1 | TUPLE2 | TUPLE3) {
            value_count += 1;
            if value_count > VALUES_MAX {
                return None;
            }
        }
        match argument {
            Argument::Int(_) | Argument::BigInt(_) | Argument::Digits(_) => {
                stack.push(Unpickled::Int(argument.as_u64()?));
            }
            Argument::Str(bytes) | Argument::Bytes(bytes) | Argument::Text(bytes) => {
                stack.push(Unpickled::Bytes(bytes.into()));
            }
            // The class does not matter.
            Argument::Names { .. } if opcode == INST => {
                to_mark(&mut stack)?;
                stack.push(Unpickled::Object(Rc::new(Unpickled::Nothing)));
            }
            Argument::Names { .. } => stack.push(Unpickled::Nothing),
            Argument::Index(key) if matches!(opcode, GET | BINGET | LONG_BINGET) => {
                stack.push(memo.get(&key)?.clone());
            }
            Argument::Index(key) => memorise(&mut memo, key, stack.last()?),
            Argument::Number(_) if matches!(opcode, PROTO | FRAME) => {}
            Argument::Nothing => match opcode {
                STOP => return stack.pop(),
                MARK => stack.push(Unpickled::Mark),
                NONE => stack.push(Unpickled::Nothing),
                OBJ => {
                    to_mark(&mut stack)?;
                    stack.push(Unpickled::Object(Rc::new(Unpickled::Nothing)));
                }
                // The result of the call is an instance.
                REDUCE | NEWOBJ => {
                    stack.pop()?;
                    stack.pop()?;
                    stack.push(Unpickled::Object(Rc::new(Unpickled::Nothing)));
                }
                BUILD => {
                    let state = stack.pop()?;
                    stack.pop()?;
                    stack.push(Unpickled::Object(Rc::new(state)));
                }
                EMPTY_DICT | EMPTY_LIST | EMPTY_TUPLE => stack.push(Unpickled::Items(Rc::default())),
                TUPLE | LIST | DICT => {
                    let items = to_mark(&mut stack)?;
                    stack.push(Unpickled::Items(Rc::new(items)));
                }
                TUPLE1 | TUPLE2 | TUPLE3 => {
                    let count = usize::from(opcode - TUPLE1) + 1;
                    let items = stack.split_off(stack.len().checked_sub(count)?);
                    stack.push(Unpickled::Items(Rc::new(items)));
                }
                APPEND => {
                    let item = stack.pop()?;
                    extend(stack.last_mut()?, [item], &mut put_count)?;
                }
                SETITEM => {
                    let (value, key) = (stack.pop()?, stack.pop()?);
                    extend(stack.last_mut()?, [key, value], &mut put_count)?;
                }
                APPENDS | SETITEMS => {
                    let items = to_mark(&mut stack)?;
                    extend(stack.last_mut()?, items, &mut put_count)?;
                }
                _ => return None,
            },
            _ => return None,
        }
    }
}

/// Containers are filled after they were memoized, and are not looked up again in these files, so memoizing them would
/// only cost a copy.
fn memorise(memo: &mut HashMap<u32, Unpickled>, key: u32, value: &Unpickled) {
    let value = match value {
        Unpickled::Items(_) => Unpickled::Nothing,
        other => other.clone(),
    };
    memo.insert(key, value);
}

fn to_mark(stack: &mut Vec<Unpickled>) -> Option<Vec<Unpickled>> {
    let at = stack.iter().rposition(|value| matches!(value, Unpickled::Mark))?;
    let items = stack.split_off(at + 1);
    stack.pop();
    Some(items)
}

fn extend(
    container: &mut Unpickled,
    items: impl IntoIterator<Item = Unpickled>,
    put_count: &mut usize,
) -> Option<()> {
    let Unpickled::Items(list) = container else { return None };
    let list = Rc::get_mut(list)?;
    let begun = list.len();
    list.extend(items);
    let put = list.iter().skip(begun);
    *put_count += put.filter(|item| matches!(item, Unpickled::Items(_) | Unpickled::Object(_))).count();
    (*put_count <= VALUES_MAX).then_some(())
}
