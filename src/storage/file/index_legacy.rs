//! Index files of older ZODBs: one pickle of a mapping `{"index": fsIndex or dict, "pos": int}`.
//!
//! | written by  | the mapping is | and the index is |
//! |-------------|----------------|------------------|
//! | before 3.2  | a dict         | a dict: oid -> position |
//! | ZODB3 3.8   | a dict         | an fsIndex whose `_data` is a BTree of prefixes and fsBuckets |
//! | ZODB3 3.9   | an OOBucket    | the same, but its buckets stand in front of it, under `_buckets` |
//! | some 3.10   | a dict         | an fsIndex whose `_data` is a list of prefixes and strings |
//!
//! A small reader of just the pickles that these are: whatever else it meets makes the index unreadable, and then it is
//! rebuilt from the data, as Python does.

use std::collections::HashMap;
use std::rc::Rc;

use super::index::Index;
use super::index_saved::{SavedIndex, fill};
use crate::base::bytes::Reader;
use crate::base::ids::Oid;

/// Tuples and instances that one file may be made of, and containers that are put into others afterwards, which bounds how
/// deeply they nest. Enough for tens of millions of objects; a larger index in such a layout is rebuilt.
const VALUES_MAX: usize = 4000;

#[derive(Clone, Debug)]
enum Value {
    Mark,
    Nothing,
    Int(u64),
    Bytes(Rc<[u8]>),
    /// Tuples, lists and dicts (keys and values in turn): all a sequence of values.
    Items(Rc<Vec<Value>>),
    /// An instance of whatever class: only its state matters.
    Object(Rc<Value>),
}

/// Reads the bytes of an index file in an older layout.
pub fn parse(bytes: &[u8]) -> Result<SavedIndex, String> {
    let mut top = unpickle(bytes).ok_or("not an index: its pickle cannot be read")?;
    if let Value::Object(state) = &top
        && let Value::Items(items) = &**state
        && let Some(pairs) = items.first()
    {
        top = pairs.clone();
    }
    let pos = match member(&top, b"pos") {
        Some(Value::Int(pos)) => *pos,
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
        Value::Items(items) => plain(&index, items, pos)?,
        Value::Object(state) => match member(state, b"_data") {
            // fsIndex with state_version 1: a list of (prefix, string).
            Some(Value::Items(pairs)) => found.buckets(pairs, 0)?,
            // fsIndex without: a BTree of prefixes and buckets.
            Some(Value::Object(tree)) => found.buckets(std::slice::from_ref(tree), 0)?,
            _ => return Err("not an index: it has no data".into()),
        },
        _ => return Err("not an index: its data is of no known kind".into()),
    }
    if index.is_empty() {
        return Err("it is empty".into());
    }
    Ok(SavedIndex { pos, index, oid_mark: None })
}

fn member<'a>(value: &'a Value, name: &[u8]) -> Option<&'a Value> {
    let Value::Items(items) = value else { return None };
    let (pairs, _) = items.as_chunks::<2>();
    pairs.iter().find_map(|[key, value]| match key {
        Value::Bytes(key) if **key == *name => Some(value),
        _ => None,
    })
}

fn plain(index: &Index, items: &[Value], end: u64) -> Result<(), String> {
    let (pairs, _) = items.as_chunks::<2>();
    for pair in pairs {
        match pair {
            [Value::Bytes(oid), Value::Int(pos)] if (4..end).contains(pos) => {
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
    /// Where the data that the index is of ends
    end: u64,
    /// Values and bytes that may still be looked at. A value that is remembered may stand in many places, each of which
    /// may be in one that is remembered.
    left: usize,
}

impl Finder<'_> {
    fn pay(&mut self, len: usize) -> Result<(), String> {
        self.left = self.left.checked_sub(len).ok_or("not an index: it refers to itself too often")?;
        Ok(())
    }

    /// Finds (prefix, bucket) pairs wherever they are: in a list, or in the nested states of a BTree.
    fn buckets(&mut self, items: &[Value], depth: usize) -> Result<(), String> {
        if depth > VALUES_MAX {
            return Err("it is nested too deeply".into());
        }
        let mut at = 0;
        while let Some(item) = items.get(at) {
            self.pay(1)?;
            at += 1;
            match item {
                Value::Bytes(prefix) => match items.get(at) {
                    Some(Value::Bytes(bucket)) => {
                        self.fill(prefix, bucket)?;
                        at += 1;
                    }
                    Some(Value::Object(state)) if prefix.len() == 6 && !self.holds_prefixes(state)? => {
                        self.bucket(prefix, state)?;
                        at += 1;
                    }
                    // A key that separates the children of a BTree.
                    _ => {}
                },
                Value::Items(nested) => self.buckets(nested, depth + 1)?,
                Value::Object(state) => self.buckets(std::slice::from_ref(state), depth + 1)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether this is the state of a BTree's inner part: what it has innermost first is a 6-byte prefix.
    fn holds_prefixes(&mut self, state: &Value) -> Result<bool, String> {
        let mut state = state;
        for _ in 0..VALUES_MAX {
            self.pay(1)?;
            match state {
                Value::Items(items) => match items.first() {
                    Some(first) => state = first,
                    None => return Ok(false),
                },
                Value::Object(inner) => state = inner,
                Value::Bytes(first) => return Ok(first.len() == 6),
                _ => return Ok(false),
            }
        }
        Ok(false)
    }

    /// The state of one fsBucket: a string as `fill` takes it, or a tuple of a tuple of suffixes and positions in turn.
    fn bucket(&mut self, prefix: &[u8], state: &Value) -> Result<(), String> {
        let wrong = || "a bucket is of no known kind".to_string();
        let items = match state {
            Value::Bytes(bucket) => return self.fill(prefix, bucket),
            Value::Items(items) => match items.first() {
                Some(Value::Items(pairs)) => pairs,
                _ => return Err(wrong()),
            },
            _ => return Err(wrong()),
        };
        self.pay(items.len())?;
        let (mut suffixes, mut positions) = (Vec::new(), Vec::new());
        let (pairs, []) = items.as_chunks::<2>() else { return Err(wrong()) };
        for pair in pairs {
            match pair {
                [Value::Bytes(suffix), Value::Bytes(position)]
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

fn unpickle(bytes: &[u8]) -> Option<Value> {
    let mut r = Reader::new(bytes);
    let mut stack: Vec<Value> = Vec::new();
    let mut memo: HashMap<u64, Value> = HashMap::new();
    let (mut value_count, mut put_count) = (0, 0);
    loop {
        let opcode = r.u8()?;
        if matches!(opcode, b'b' | b't' | b'l' | b'd' | 0x85..=0x87) {
            value_count += 1;
            if value_count > VALUES_MAX {
                return None;
            }
        }
        match opcode {
            0x80 => _ = r.u8()?,
            0x95 => _ = r.take(8)?,
            b'.' => return stack.pop(),
            b'(' => stack.push(Value::Mark),
            b'N' => stack.push(Value::Nothing),
            b'K' => stack.push(Value::Int(u64::from(r.u8()?))),
            b'M' => stack.push(Value::Int(u64::from(r.u16_le()?))),
            b'J' => stack.push(Value::Int(u64::from(r.u32_le()?))),
            b'I' | b'L' => {
                let digits = std::str::from_utf8(r.line()?).ok()?;
                stack.push(Value::Int(digits.trim_end_matches('L').parse().ok()?));
            }
            0x8a => {
                let len = usize::from(r.u8()?);
                let mut number = [0; 8];
                number.get_mut(..len)?.copy_from_slice(r.take(len)?);
                stack.push(Value::Int(u64::from_le_bytes(number)));
            }
            b'U' | b'C' | 0x8c => {
                let len = usize::from(r.u8()?);
                stack.push(Value::Bytes(r.take(len)?.into()));
            }
            b'T' | b'B' | b'X' => {
                let len = r.u32_le()? as usize;
                stack.push(Value::Bytes(r.take(len)?.into()));
            }
            // GLOBAL and INST name a class: which one does not matter.
            b'c' => {
                r.line()?;
                r.line()?;
                stack.push(Value::Nothing);
            }
            b'i' => {
                r.line()?;
                r.line()?;
                to_mark(&mut stack)?;
                stack.push(Value::Object(Rc::new(Value::Nothing)));
            }
            b'o' => {
                to_mark(&mut stack)?;
                stack.push(Value::Object(Rc::new(Value::Nothing)));
            }
            // REDUCE, NEWOBJ: the call's result is an instance.
            b'R' | 0x81 => {
                stack.pop()?;
                stack.pop()?;
                stack.push(Value::Object(Rc::new(Value::Nothing)));
            }
            b'b' => {
                let state = stack.pop()?;
                stack.pop()?;
                stack.push(Value::Object(Rc::new(state)));
            }
            b'}' | b']' | b')' => stack.push(Value::Items(Rc::default())),
            b't' | b'l' | b'd' => {
                let items = to_mark(&mut stack)?;
                stack.push(Value::Items(Rc::new(items)));
            }
            0x85..=0x87 => {
                let count = usize::from(opcode - 0x84);
                let items = stack.split_off(stack.len().checked_sub(count)?);
                stack.push(Value::Items(Rc::new(items)));
            }
            b'a' => {
                let item = stack.pop()?;
                extend(stack.last_mut()?, [item], &mut put_count)?;
            }
            b's' => {
                let (value, key) = (stack.pop()?, stack.pop()?);
                extend(stack.last_mut()?, [key, value], &mut put_count)?;
            }
            b'e' | b'u' => {
                let items = to_mark(&mut stack)?;
                extend(stack.last_mut()?, items, &mut put_count)?;
            }
            b'q' => {
                let key = u64::from(r.u8()?);
                memorise(&mut memo, key, stack.last()?);
            }
            b'r' => {
                let key = u64::from(r.u32_le()?);
                memorise(&mut memo, key, stack.last()?);
            }
            b'p' => {
                let key = std::str::from_utf8(r.line()?).ok()?.parse().ok()?;
                memorise(&mut memo, key, stack.last()?);
            }
            b'h' => stack.push(memo.get(&u64::from(r.u8()?))?.clone()),
            b'j' => stack.push(memo.get(&u64::from(r.u32_le()?))?.clone()),
            b'g' => {
                let key: u64 = std::str::from_utf8(r.line()?).ok()?.parse().ok()?;
                stack.push(memo.get(&key)?.clone());
            }
            _ => return None,
        }
    }
}

/// Containers are filled after they were remembered, and never looked up again here; remembering them would only
/// cost a copy.
fn memorise(memo: &mut HashMap<u64, Value>, key: u64, value: &Value) {
    let value = match value {
        Value::Items(_) => Value::Nothing,
        other => other.clone(),
    };
    memo.insert(key, value);
}

fn to_mark(stack: &mut Vec<Value>) -> Option<Vec<Value>> {
    let at = stack.iter().rposition(|value| matches!(value, Value::Mark))?;
    let items = stack.split_off(at + 1);
    stack.pop();
    Some(items)
}

fn extend(
    container: &mut Value,
    items: impl IntoIterator<Item = Value>,
    put_count: &mut usize,
) -> Option<()> {
    let Value::Items(list) = container else { return None };
    let list = Rc::get_mut(list)?;
    let begun = list.len();
    list.extend(items);
    let put = list.iter().skip(begun);
    *put_count += put.filter(|item| matches!(item, Value::Items(_) | Value::Object(_))).count();
    (*put_count <= VALUES_MAX).then_some(())
}
