//! Messages as msgpack, the encoding of M5 connections: reading and writing. [`super::pickle`] has the same functions
//! for pickles.

use super::scalars::{HEAD, Scalar, Scanned, Slot, Slots};
use crate::base::bytes::Reader;
use crate::base::ids::{Oid, Tid};
use crate::pickle::value::{Node, NodeId, Tree};

const NIL: u8 = 0xc0;
const FALSE: u8 = 0xc2;
const TRUE: u8 = 0xc3;
const BIN8: u8 = 0xc4;
const BIN16: u8 = 0xc5;
const BIN32: u8 = 0xc6;
const FLOAT32: u8 = 0xca;
const FLOAT64: u8 = 0xcb;
const UINT8: u8 = 0xcc;
const UINT16: u8 = 0xcd;
const UINT32: u8 = 0xce;
const UINT64: u8 = 0xcf;
const INT8: u8 = 0xd0;
const INT16: u8 = 0xd1;
const INT32: u8 = 0xd2;
const INT64: u8 = 0xd3;
const STR8: u8 = 0xd9;
const STR16: u8 = 0xda;
const STR32: u8 = 0xdb;
const ARRAY16: u8 = 0xdc;
const ARRAY32: u8 = 0xdd;
const MAP16: u8 = 0xde;
const MAP32: u8 = 0xdf;

// -- reading

/// Scans a message whose arguments are scalars, or a scalar in their place. `None` if one is none, or if it is no
/// message.
pub(super) fn scan<'a>(frame: &'a [u8], slots: &mut Slots<'a>) -> Option<Scanned> {
    let mut r = Reader::new(frame);
    (r.u8()? == 0x94).then_some(())?;
    for position in 0..HEAD {
        let slot = match (position, r.rest()) {
            (0, [0x92, ..]) => {
                r.u8()?;
                let oid = scalar(&mut r)?;
                let tid = scalar(&mut r)?;
                let (Scalar::Bytes(oid), Scalar::Bytes(tid)) = (oid.scalar, tid.scalar) else { return None };
                Slot { scalar: Scalar::Load(Oid::from_slice(oid)?, Tid::from_slice(tid)?), encoded: &[] }
            }
            _ => scalar(&mut r)?,
        };
        *slots.get_mut(position)? = slot;
    }
    let count = match r.rest() {
        [count @ 0x90..=0x9f, ..] => {
            r.u8()?;
            Some(usize::from(count & 0x0f))
        }
        [ARRAY16, ..] => {
            r.u8()?;
            Some(r.u16_be()?.into())
        }
        _ => None,
    };
    for slot in slots.get_mut(HEAD..HEAD + count.unwrap_or(1))? {
        *slot = scalar(&mut r)?;
    }
    r.rest().is_empty().then_some(Scanned { args: count })
}

/// Scans the front of a message (id, flag, method) into the first slots. Returns the offset of the rest.
pub(super) fn head<'a>(frame: &'a [u8], slots: &mut Slots<'a>) -> Option<usize> {
    let mut r = Reader::new(frame);
    (r.u8()? == 0x94).then_some(())?;
    for slot in slots.iter_mut().take(HEAD) {
        *slot = scalar(&mut r)?;
    }
    Some(r.pos())
}

/// Scans (tid, array of oids) at `pos`, the last value of a message. Appends to `oids`; `None` if the value has another
/// form.
pub(super) fn oids(frame: &[u8], pos: usize, oids: &mut Vec<Oid>) -> Option<Tid> {
    let mut r = Reader::new(frame);
    r.take(pos)?;
    let id8 = |r: &mut Reader<'_>| match scalar(r)?.scalar {
        Scalar::Bytes(id) => <[u8; 8]>::try_from(id).ok(),
        _ => None,
    };
    (r.u8()? == 0x92).then_some(())?;
    let tid = Tid::from_bytes(id8(&mut r)?);
    let count = match r.u8()? {
        count @ 0x90..=0x9f => usize::from(count & 0x0f),
        format @ (ARRAY16 | ARRAY32) => count(&mut r, format - ARRAY16 + 1)?,
        _ => return None,
    };
    for _ in 0..count {
        oids.push(Oid::from_bytes(id8(&mut r)?));
    }
    r.is_empty().then_some(tid)
}

fn scalar<'a>(r: &mut Reader<'a>) -> Option<Slot<'a>> {
    let start = r.pos();
    let scalar = match r.u8()? {
        small @ 0..=0x7f => Scalar::Int(small.into()),
        small @ 0xe0..=0xff => Scalar::Int(i8::from_be_bytes([small]).into()),
        len @ 0xa0..=0xbf => Scalar::Text(r.take(usize::from(len & 0x1f))?),
        NIL => Scalar::None,
        FALSE => Scalar::Bool(false),
        TRUE => Scalar::Bool(true),
        format @ (BIN8 | BIN16 | BIN32) => {
            let len = match format {
                BIN8 => r.u8()?.into(),
                BIN16 => r.u16_be()?.into(),
                _ => usize::try_from(r.u32_be()?).ok()?,
            };
            Scalar::Bytes(r.take(len)?)
        }
        format @ (STR8 | STR16 | STR32) => {
            let len = match format {
                STR8 => r.u8()?.into(),
                STR16 => r.u16_be()?.into(),
                _ => usize::try_from(r.u32_be()?).ok()?,
            };
            Scalar::Text(r.take(len)?)
        }
        UINT8 => Scalar::Int(r.u8()?.into()),
        UINT16 => Scalar::Int(r.u16_be()?.into()),
        UINT32 => Scalar::Int(r.u32_be()?.into()),
        UINT64 => Scalar::Int(i64::try_from(r.u64_be()?).ok()?),
        INT8 => Scalar::Int(i8::from_be_bytes(r.array()?).into()),
        INT16 => Scalar::Int(i16::from_be_bytes(r.array()?).into()),
        INT32 => Scalar::Int(i32::from_be_bytes(r.array()?).into()),
        INT64 => Scalar::Int(i64::from_be_bytes(r.array()?)),
        FLOAT32 => Scalar::Float(f32::from_be_bytes(r.array()?).into()),
        FLOAT64 => Scalar::Float(f64::from_be_bytes(r.array()?)),
        _ => return None,
    };
    Some(Slot { scalar, encoded: r.since(start) })
}

/// Upper bound on the values of a message, independent of its length.
const NODES_MAX: usize = 1 << 20;

/// A container that is not complete yet.
struct Open {
    start: usize,
    /// Number of missing items; for a map, twice the number of missing pairs.
    left: usize,
    is_map: bool,
    items: Vec<NodeId>,
}

/// Reads a message with any arguments into a tree, as for pickles. One pass, no recursion. The error says what is
/// wrong.
pub(super) fn tree(source: &[u8]) -> Result<Tree<'_>, String> {
    let mut nodes: Vec<Node<'_>> = Vec::new();
    let mut spans = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    let mut r = Reader::new(source);
    loop {
        let start = r.pos();
        let mut node = match token(&mut r).ok_or_else(|| format!("msgpack: broken at {start}"))? {
            Token::Value(node) => node,
            Token::Open { count: 0, is_map: false } => Node::Tuple(Vec::new()),
            Token::Open { count: 0, is_map: true } => Node::Dict(Vec::new()),
            Token::Open { count, is_map } => {
                open.push(Open { start, left: count, is_map, items: Vec::new() });
                if nodes.len() + open.len() > NODES_MAX {
                    return Err(too_many());
                }
                continue;
            }
        };
        // The value may complete its container, and this one the container around it.
        let mut start = start;
        loop {
            let id = NodeId(u32::try_from(nodes.len()).map_err(|_| "msgpack: too long")?);
            nodes.push(node);
            spans.push((start, r.pos()));
            if nodes.len() > NODES_MAX {
                return Err(too_many());
            }
            let Some(container) = open.last_mut() else {
                if !r.is_empty() {
                    return Err(format!("msgpack: {} bytes behind the message", r.rest().len()));
                }
                return Ok(Tree::new(source, source.len(), nodes, spans, Vec::new(), id));
            };
            container.items.push(id);
            container.left -= 1;
            if container.left > 0 {
                break;
            }
            let Some(container) = open.pop() else { break };
            start = container.start;
            node = if container.is_map {
                let (pairs, _) = container.items.as_chunks::<2>();
                Node::Dict(pairs.iter().map(|[key, value]| (*key, *value)).collect())
            } else {
                Node::Tuple(container.items)
            };
        }
    }
}

fn too_many() -> String {
    format!("msgpack: more than {NODES_MAX} values")
}

enum Token<'a> {
    Value(Node<'a>),
    Open { count: usize, is_map: bool },
}

fn token<'a>(r: &mut Reader<'a>) -> Option<Token<'a>> {
    let format = r.u8()?;
    let node = match format {
        0..=0x7f => Node::Int(format.into()),
        0xe0..=0xff => Node::Int(i8::from_be_bytes([format]).into()),
        0x80..=0x8f => return Some(Token::Open { count: 2 * usize::from(format & 0x0f), is_map: true }),
        0x90..=0x9f => return Some(Token::Open { count: usize::from(format & 0x0f), is_map: false }),
        ARRAY16 | ARRAY32 => {
            let count = count(r, format - ARRAY16 + 1)?;
            return Some(Token::Open { count, is_map: false });
        }
        MAP16 | MAP32 => {
            let count = count(r, format - MAP16 + 1)?;
            return Some(Token::Open { count: count.checked_mul(2)?, is_map: true });
        }
        0xa0..=0xbf => text(r, usize::from(format & 0x1f))?,
        STR8 | STR16 | STR32 => {
            let len = count(r, format - STR8)?;
            text(r, len)?
        }
        BIN8 | BIN16 | BIN32 => {
            let len = count(r, format - BIN8)?;
            Node::Bytes(r.take(len)?.into())
        }
        NIL => Node::None,
        FALSE => Node::Bool(false),
        TRUE => Node::Bool(true),
        UINT8 => Node::Int(r.u8()?.into()),
        UINT16 => Node::Int(r.u16_be()?.into()),
        UINT32 => Node::Int(r.u32_be()?.into()),
        UINT64 => {
            let bytes = r.array()?;
            match i64::try_from(u64::from_be_bytes(bytes)) {
                Ok(value) => Node::Int(value),
                Err(_) => Node::BigInt(bytes.iter().rev().chain(&[0]).copied().collect::<Vec<u8>>().into()),
            }
        }
        INT8 => Node::Int(i8::from_be_bytes(r.array()?).into()),
        INT16 => Node::Int(i16::from_be_bytes(r.array()?).into()),
        INT32 => Node::Int(i32::from_be_bytes(r.array()?).into()),
        INT64 => Node::Int(i64::from_be_bytes(r.array()?)),
        FLOAT32 => Node::Float(f32::from_be_bytes(r.array()?).into()),
        FLOAT64 => Node::Float(f64::from_be_bytes(r.array()?)),
        _ => return None,
    };
    Some(Token::Value(node))
}

fn text<'a>(r: &mut Reader<'a>, len: usize) -> Option<Node<'a>> {
    let bytes = r.take(len)?;
    str::from_utf8(bytes).ok()?;
    Some(Node::Text(bytes.into()))
}

/// A count of 1, 2 or 4 bytes, for `size` 0, 1 or 2.
fn count(r: &mut Reader<'_>, size: u8) -> Option<usize> {
    match size {
        0 => Some(r.u8()?.into()),
        1 => Some(r.u16_be()?.into()),
        _ => usize::try_from(r.u32_be()?).ok(),
    }
}

// -- writing

pub(super) fn put_int(value: i64, out: &mut Vec<u8>) {
    if let Ok(small) = i8::try_from(value)
        && small >= -32
    {
        out.extend_from_slice(&small.to_be_bytes());
    } else if let Ok(value) = u8::try_from(value) {
        out.extend_from_slice(&[UINT8, value]);
    } else if let Ok(value) = i8::try_from(value) {
        out.push(INT8);
        out.extend_from_slice(&value.to_be_bytes());
    } else if let Ok(value) = u16::try_from(value) {
        out.push(UINT16);
        out.extend_from_slice(&value.to_be_bytes());
    } else if let Ok(value) = i16::try_from(value) {
        out.push(INT16);
        out.extend_from_slice(&value.to_be_bytes());
    } else if let Ok(value) = u32::try_from(value) {
        out.push(UINT32);
        out.extend_from_slice(&value.to_be_bytes());
    } else if let Ok(value) = i32::try_from(value) {
        out.push(INT32);
        out.extend_from_slice(&value.to_be_bytes());
    } else if let Ok(value) = u64::try_from(value) {
        out.push(UINT64);
        out.extend_from_slice(&value.to_be_bytes());
    } else {
        out.push(INT64);
        out.extend_from_slice(&value.to_be_bytes());
    }
}

pub(super) fn put_float(value: f64, out: &mut Vec<u8>) {
    out.push(FLOAT64);
    out.extend_from_slice(&value.to_be_bytes());
}

pub(super) fn put_bytes(value: &[u8], out: &mut Vec<u8>) {
    put_count(value.len(), [Some(BIN8), Some(BIN16), Some(BIN32)], out);
    out.extend_from_slice(value);
}

pub(super) fn put_text(value: &str, out: &mut Vec<u8>) {
    match u8::try_from(value.len()) {
        Ok(len) if len < 32 => out.push(0xa0 | len),
        _ => put_count(value.len(), [Some(STR8), Some(STR16), Some(STR32)], out),
    }
    out.extend_from_slice(value.as_bytes());
}

pub(super) fn begin_array(count: usize, out: &mut Vec<u8>) {
    match u8::try_from(count) {
        Ok(count) if count < 16 => out.push(0x90 | count),
        _ => put_count(count, [None, Some(ARRAY16), Some(ARRAY32)], out),
    }
}

pub(super) fn begin_map(count: usize, out: &mut Vec<u8>) {
    match u8::try_from(count) {
        Ok(count) if count < 16 => out.push(0x80 | count),
        _ => put_count(count, [None, Some(MAP16), Some(MAP32)], out),
    }
}

/// A count in the shortest available form of 1, 2 and 4 bytes.
fn put_count(count: usize, [one, two, four]: [Option<u8>; 3], out: &mut Vec<u8>) {
    if let (Some(format), Ok(count)) = (one, u8::try_from(count)) {
        out.extend_from_slice(&[format, count]);
    } else if let (Some(format), Ok(count)) = (two, u16::try_from(count)) {
        out.push(format);
        out.extend_from_slice(&count.to_be_bytes());
    } else if let Some(format) = four {
        // a value is not longer than its frame, which is shorter than 2 GiB
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        out.push(format);
        out.extend_from_slice(&count.to_be_bytes());
    }
}

/// Bytes before the data in the reply to a load, including the frame's length but not the message id: length of the
/// frame; start of the message; flag and method; start of the result; format and length of the data.
pub(super) const LOAD_HEADER_LEN: usize = 4 + 1 + 8 + 3 + 5;

/// Bytes of a message id that consists of an oid and a tid.
pub(super) const LOAD_ID_LEN: usize = 21;

/// The part before the data in the result of a load, a tuple of `count` (0: the data alone). The length always takes
/// four bytes.
pub(super) fn begin_load(count: usize, data_len: u32, out: &mut Vec<u8>) {
    if let (1.., Ok(count)) = (count, u16::try_from(count)) {
        // With the long form this header is as long as a data header of FileStorage, and the data is read into its
        // place: then nothing has to be moved.
        out.push(ARRAY16);
        out.extend_from_slice(&count.to_be_bytes());
    }
    out.push(BIN32);
    out.extend_from_slice(&data_len.to_be_bytes());
}

pub(super) fn put_none(out: &mut Vec<u8>) {
    out.push(NIL);
}

pub(super) fn put_bool(value: bool, out: &mut Vec<u8>) {
    out.push(if value { TRUE } else { FALSE });
}

/// `bytes` of an oid or a tid.
pub(super) fn put_id8([a, b, c, d, e, f, g, h]: [u8; 8], out: &mut Vec<u8>) {
    out.extend_from_slice(&[BIN8, 8, a, b, c, d, e, f, g, h]);
}
