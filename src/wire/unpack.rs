//! Reads msgpack of any shape into the same tree that pickles are read into. One pass, no recursion.

use super::msgpack as mp;
use crate::pickle::value::{Node, NodeId, Tree};

/// At most so many values in a message.
const NODES_MAX: usize = 1 << 20;

/// A container that is not complete.
struct Open {
    start: usize,
    /// Items that are still to come: for a map twice the number of its pairs
    left: usize,
    is_map: bool,
    items: Vec<NodeId>,
}

/// Read a message. The error says what is wrong.
pub(super) fn unpack(source: &[u8]) -> Result<Tree<'_>, String> {
    let mut nodes: Vec<Node<'_>> = Vec::new();
    let mut spans = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    let mut rest = source;
    loop {
        let start = source.len() - rest.len();
        let mut node = match token(&mut rest).ok_or_else(|| format!("msgpack: broken at {start}"))? {
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
        // The value may be the last item of its container, and that of the one around it.
        let mut start = start;
        loop {
            let id = NodeId(u32::try_from(nodes.len()).map_err(|_| "msgpack: too long")?);
            nodes.push(node);
            spans.push((start, source.len() - rest.len()));
            if nodes.len() > NODES_MAX {
                return Err(too_many());
            }
            let Some(container) = open.last_mut() else {
                if !rest.is_empty() {
                    return Err(format!("msgpack: {} bytes behind the message", rest.len()));
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

fn token<'a>(rest: &mut &'a [u8]) -> Option<Token<'a>> {
    let [format] = array(rest)?;
    let node = match format {
        0..=0x7f => Node::Int(format.into()),
        0xe0..=0xff => Node::Int(i8::from_be_bytes([format]).into()),
        0x80..=0x8f => return Some(Token::Open { count: 2 * usize::from(format & 0x0f), is_map: true }),
        0x90..=0x9f => return Some(Token::Open { count: usize::from(format & 0x0f), is_map: false }),
        mp::ARRAY16 | mp::ARRAY32 => {
            let count = count(rest, format - mp::ARRAY16 + 1)?;
            return Some(Token::Open { count, is_map: false });
        }
        mp::MAP16 | mp::MAP32 => {
            let count = count(rest, format - mp::MAP16 + 1)?;
            return Some(Token::Open { count: count.checked_mul(2)?, is_map: true });
        }
        0xa0..=0xbf => text(rest, usize::from(format & 0x1f))?,
        mp::STR8 | mp::STR16 | mp::STR32 => {
            let len = count(rest, format - mp::STR8)?;
            text(rest, len)?
        }
        mp::BIN8 | mp::BIN16 | mp::BIN32 => {
            let len = count(rest, format - mp::BIN8)?;
            Node::Bytes(take(rest, len)?.into())
        }
        mp::NIL => Node::None,
        mp::FALSE => Node::Bool(false),
        mp::TRUE => Node::Bool(true),
        mp::UINT8 => Node::Int(u8::from_be_bytes(array(rest)?).into()),
        mp::UINT16 => Node::Int(u16::from_be_bytes(array(rest)?).into()),
        mp::UINT32 => Node::Int(u32::from_be_bytes(array(rest)?).into()),
        mp::UINT64 => {
            let bytes = array(rest)?;
            match i64::try_from(u64::from_be_bytes(bytes)) {
                Ok(value) => Node::Int(value),
                Err(_) => Node::BigInt(bytes.iter().rev().chain(&[0]).copied().collect::<Vec<u8>>().into()),
            }
        }
        mp::INT8 => Node::Int(i8::from_be_bytes(array(rest)?).into()),
        mp::INT16 => Node::Int(i16::from_be_bytes(array(rest)?).into()),
        mp::INT32 => Node::Int(i32::from_be_bytes(array(rest)?).into()),
        mp::INT64 => Node::Int(i64::from_be_bytes(array(rest)?)),
        mp::FLOAT32 => Node::Float(f32::from_be_bytes(array(rest)?).into()),
        mp::FLOAT64 => Node::Float(f64::from_be_bytes(array(rest)?)),
        _ => return None,
    };
    Some(Token::Value(node))
}

fn text<'a>(rest: &mut &'a [u8], len: usize) -> Option<Node<'a>> {
    let bytes = take(rest, len)?;
    str::from_utf8(bytes).ok()?;
    Some(Node::Text(bytes.into()))
}

/// A count of 1, 2 or 4 bytes, for `size` 0, 1 or 2.
fn count(rest: &mut &[u8], size: u8) -> Option<usize> {
    match size {
        0 => Some(u8::from_be_bytes(array(rest)?).into()),
        1 => Some(u16::from_be_bytes(array(rest)?).into()),
        _ => usize::try_from(u32::from_be_bytes(array(rest)?)).ok(),
    }
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(len)?;
    *rest = left;
    Some(taken)
}

fn array<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, left) = rest.split_first_chunk()?;
    *rest = left;
    Some(*taken)
}
