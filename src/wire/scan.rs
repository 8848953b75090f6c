//! The fast way into a message: one pass over the bytes of a message whose arguments are plain scalars, as those of
//! every call are that matters for speed. Nothing is allocated; the result borrows from the frame. A message that is
//! any different (`None`) goes the slow way through [`crate::pickle::read`] or [`super::unpack`].

use super::msgpack as mp;
use crate::base::ids::{Oid, Tid};
use crate::pickle::opcode as op;
use crate::pickle::value::NodeId;

/// An argument.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Item<'a> {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Bytes(&'a [u8]),
    /// `str` of Python 2
    Str(&'a [u8]),
    /// UTF-8 as Python writes it: not checked, may have lone surrogates
    Text(&'a [u8]),
    /// A pair of 8 bytes each, as message id
    Load(Oid, Tid),
    /// Something else, in the tree of a message that came the slow way
    Node(NodeId),
}

/// An argument and the bytes that encode it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot<'a> {
    pub item: Item<'a>,
    pub encoded: &'a [u8],
}

impl Slot<'_> {
    pub const EMPTY: Slot<'static> = Slot { item: Item::None, encoded: &[] };
}

/// Message id, flag, method, and up to eight arguments.
pub(super) type Slots<'a> = [Slot<'a>; 11];

/// What stands before the arguments.
const HEAD: usize = 3;

/// What was found in the slots.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scanned {
    /// `None` if there is `None` instead of arguments.
    pub args: Option<usize>,
}

/// Cursor over a frame.
struct Bytes<'a> {
    all: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Bytes<'a> {
    fn new(all: &'a [u8]) -> Bytes<'a> {
        Bytes { all, rest: all }
    }

    fn pos(&self) -> usize {
        self.all.len() - self.rest.len()
    }

    #[inline]
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    #[inline]
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*array)
    }

    fn line(&mut self) -> Option<&'a [u8]> {
        // only numbers are read as lines here
        let len = self.rest.iter().take(32).position(|byte| *byte == b'\n')?;
        let line = self.take(len)?;
        self.take(1)?;
        Some(line)
    }
}

/// Scan a pickle.
pub(super) fn pickle<'a>(frame: &'a [u8], slots: &mut Slots<'a>) -> Option<Scanned> {
    let mut bytes = Bytes::new(frame);
    let mut count = 0; // of slots that are filled
    let mut depth = 0; // of marks
    let mut args = None;
    loop {
        let start = bytes.pos();
        let item = match bytes.byte()? {
            op::SHORT_BINBYTES => {
                let len = bytes.byte()?;
                Item::Bytes(bytes.take(len.into())?)
            }
            op::SHORT_BINSTRING => {
                let len = bytes.byte()?;
                Item::Str(bytes.take(len.into())?)
            }
            op::BINBYTES => {
                let len = u32::from_le_bytes(bytes.array()?);
                Item::Bytes(bytes.take(usize::try_from(len).ok()?)?)
            }
            op::BINSTRING => {
                let len = u32::from_le_bytes(bytes.array()?);
                Item::Str(bytes.take(usize::try_from(len).ok()?)?)
            }
            op::BINUNICODE => {
                let len = u32::from_le_bytes(bytes.array()?);
                Item::Text(bytes.take(usize::try_from(len).ok()?)?)
            }
            op::BININT1 => Item::Int(bytes.byte()?.into()),
            op::BININT2 => Item::Int(u16::from_le_bytes(bytes.array()?).into()),
            op::BININT => Item::Int(i32::from_le_bytes(bytes.array()?).into()),
            op::LONG1 => {
                let len = bytes.byte()?;
                let digits = bytes.take(len.into())?;
                if digits.len() > 8 {
                    return None;
                }
                let fill = if digits.last().is_some_and(|top| top & 0x80 != 0) { 0xff } else { 0 };
                let mut wide = [fill; 8];
                wide.iter_mut().zip(digits).for_each(|(to, from)| *to = *from);
                Item::Int(i64::from_le_bytes(wide))
            }
            op::INT => match bytes.line()? {
                b"00" => Item::Bool(false),
                b"01" => Item::Bool(true),
                digits => Item::Int(str::from_utf8(digits).ok()?.parse().ok()?),
            },
            op::LONG => {
                let digits = bytes.line()?;
                let digits = digits.strip_suffix(b"L").unwrap_or(digits);
                Item::Int(str::from_utf8(digits).ok()?.parse().ok()?)
            }
            op::NONE => Item::None,
            op::NEWFALSE => Item::Bool(false),
            op::NEWTRUE => Item::Bool(true),
            op::BINFLOAT => Item::Float(f64::from_be_bytes(bytes.array()?)),

            op::PROTO if start == 0 => {
                bytes.byte()?;
                continue;
            }
            op::MARK if depth == 0 || (depth == 1 && count == HEAD && args.is_none()) => {
                depth += 1;
                continue;
            }
            op::EMPTY_TUPLE if depth == 1 && count == HEAD && args.is_none() => {
                args = Some(0);
                continue;
            }
            tuple @ op::TUPLE1..=op::TUPLE3 if depth == 1 && args.is_none() => {
                let items = usize::from(tuple - op::TUPLE1) + 1;
                if count == HEAD + items {
                    args = Some(items);
                } else if count == 2 && items == 2 {
                    // a pair as message id
                    let [first, second, ..] = slots;
                    let (Item::Bytes(oid), Item::Bytes(tid)) = (first.item, second.item) else { return None };
                    first.item = Item::Load(Oid::from_slice(oid)?, Tid::from_slice(tid)?);
                    count = 1;
                } else {
                    return None;
                }
                continue;
            }
            op::TUPLE if depth == 2 => {
                depth = 1;
                args = Some(count - HEAD);
                continue;
            }
            op::TUPLE if depth == 1 && args.is_some() => break,
            op::TUPLE if depth == 1 && count == HEAD + 1 => break, // `None` instead of arguments, perhaps
            op::BINPUT => {
                bytes.byte()?;
                continue;
            }
            op::LONG_BINPUT => {
                bytes.array::<4>()?;
                continue;
            }
            _ => return None,
        };
        if depth == 0 || args.is_some() {
            return None;
        }
        *slots.get_mut(count)? = Slot { item, encoded: frame.get(start..bytes.pos())? };
        count += 1;
    }
    while bytes.rest.first() == Some(&op::BINPUT) {
        bytes.take(2)?;
    }
    (bytes.rest == [op::STOP]).then_some(())?;
    if args.is_none() && slots.get(HEAD)?.item != Item::None {
        return None;
    }
    Some(Scanned { args })
}

/// Scan msgpack.
pub(super) fn msgpack<'a>(frame: &'a [u8], slots: &mut Slots<'a>) -> Option<Scanned> {
    let mut bytes = Bytes::new(frame);
    (bytes.byte()? == 0x94).then_some(())?;
    for position in 0..HEAD {
        let slot = match (position, bytes.rest) {
            (0, [0x92, ..]) => {
                bytes.byte()?;
                let oid = msgpack_item(&mut bytes)?;
                let tid = msgpack_item(&mut bytes)?;
                let (Item::Bytes(oid), Item::Bytes(tid)) = (oid.item, tid.item) else { return None };
                Slot { item: Item::Load(Oid::from_slice(oid)?, Tid::from_slice(tid)?), encoded: &[] }
            }
            _ => msgpack_item(&mut bytes)?,
        };
        *slots.get_mut(position)? = slot;
    }
    let count = match bytes.byte()? {
        count @ 0x90..=0x9f => usize::from(count & 0x0f),
        mp::NIL => {
            bytes.rest.is_empty().then_some(())?;
            return Some(Scanned { args: None });
        }
        _ => return None,
    };
    for slot in slots.get_mut(HEAD..HEAD + count)? {
        *slot = msgpack_item(&mut bytes)?;
    }
    bytes.rest.is_empty().then_some(Scanned { args: Some(count) })
}

fn msgpack_item<'a>(bytes: &mut Bytes<'a>) -> Option<Slot<'a>> {
    let start = bytes.pos();
    let item = match bytes.byte()? {
        small @ 0..=0x7f => Item::Int(small.into()),
        small @ 0xe0..=0xff => Item::Int(i8::from_be_bytes([small]).into()),
        len @ 0xa0..=0xbf => Item::Text(bytes.take(usize::from(len & 0x1f))?),
        mp::NIL => Item::None,
        mp::FALSE => Item::Bool(false),
        mp::TRUE => Item::Bool(true),
        format @ (mp::BIN8 | mp::BIN16 | mp::BIN32) => {
            let len = match format {
                mp::BIN8 => bytes.byte()?.into(),
                mp::BIN16 => u16::from_be_bytes(bytes.array()?).into(),
                _ => usize::try_from(u32::from_be_bytes(bytes.array()?)).ok()?,
            };
            Item::Bytes(bytes.take(len)?)
        }
        format @ (mp::STR8 | mp::STR16 | mp::STR32) => {
            let len = match format {
                mp::STR8 => bytes.byte()?.into(),
                mp::STR16 => u16::from_be_bytes(bytes.array()?).into(),
                _ => usize::try_from(u32::from_be_bytes(bytes.array()?)).ok()?,
            };
            Item::Text(bytes.take(len)?)
        }
        mp::UINT8 => Item::Int(bytes.byte()?.into()),
        mp::UINT16 => Item::Int(u16::from_be_bytes(bytes.array()?).into()),
        mp::UINT32 => Item::Int(u32::from_be_bytes(bytes.array()?).into()),
        mp::UINT64 => Item::Int(i64::try_from(u64::from_be_bytes(bytes.array()?)).ok()?),
        mp::INT8 => Item::Int(i8::from_be_bytes(bytes.array()?).into()),
        mp::INT16 => Item::Int(i16::from_be_bytes(bytes.array()?).into()),
        mp::INT32 => Item::Int(i32::from_be_bytes(bytes.array()?).into()),
        mp::INT64 => Item::Int(i64::from_be_bytes(bytes.array()?)),
        mp::FLOAT32 => Item::Float(f32::from_be_bytes(bytes.array()?).into()),
        mp::FLOAT64 => Item::Float(f64::from_be_bytes(bytes.array()?)),
        _ => return None,
    };
    Some(Slot { item, encoded: bytes.all.get(start..bytes.pos())? })
}
