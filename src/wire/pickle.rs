//! Messages as pickles: reading and writing. [`super::msgpack`] has the same functions for the other encoding. The rest
//! of the wire does not depend on the encoding, except where Python's two encodings differ ([`super::encoder`]).
//!
//! [`crate::pickle`] reads and writes pickles in general.

use super::scalars::{HEAD, Scalar, Scanned, Slot, Slots};
use crate::base::ids::{Oid, Tid};
use crate::pickle::lex::{Argument, Lexer};
use crate::pickle::number::widened;
use crate::pickle::opcode as op;
use crate::pickle::read::{Accept, PickleError, read};
use crate::pickle::value::Tree;
pub(super) use crate::pickle::write::*;
use crate::pickle::{Dialect, globals};

/// The allowed names and number of values of a message.
const ACCEPT: Accept = Accept { global: globals::in_message, persistent: false, nodes_max: 1 << 20 };

/// Reads a client's message with any arguments.
pub(super) fn tree(frame: &[u8]) -> Result<Tree<'_>, PickleError> {
    read(frame, ACCEPT)
}

/// Scans a message whose arguments are scalars. `None` if one is none, or if it is no message.
pub(super) fn scan<'a>(frame: &'a [u8], slots: &mut Slots<'a>) -> Option<Scanned> {
    let mut lexer = Lexer::new(frame);
    let mut count = 0; // of slots that are filled
    let mut depth = 0; // of marks
    let mut args = None;
    loop {
        let start = lexer.end();
        let opcode = lexer.opcode().ok()?;
        let scalar = match opcode {
            // The most frequent arguments. With the table of forms a load takes 107 ns instead of 46, a vote 89 instead
            // of 42.
            op::SHORT_BINBYTES => Scalar::Bytes(lexer.counted1()?),
            op::SHORT_BINSTRING => Scalar::Str(lexer.counted1()?),
            op::BINUNICODE => Scalar::Text(lexer.counted4()?),
            op::BININT1 => Scalar::Int(u8::from_le_bytes(lexer.array()?).into()),
            op::BININT2 => Scalar::Int(u16::from_le_bytes(lexer.array()?).into()),
            op::BININT => Scalar::Int(i32::from_le_bytes(lexer.array()?).into()),
            op::LONG1 => Scalar::Int(i64::from_le_bytes(widened(lexer.counted1()?)?)),
            op::BINPUT => {
                lexer.array::<1>()?;
                continue;
            }
            op::PROTO if start == 0 => {
                lexer.array::<1>()?;
                continue;
            }

            op::NONE => Scalar::None,
            op::NEWFALSE => Scalar::Bool(false),
            op::NEWTRUE => Scalar::Bool(true),
            op::MARK if depth == 0 || (depth == 1 && count == HEAD && args.is_none()) => {
                depth += 1;
                continue;
            }
            op::EMPTY_TUPLE if depth == 1 && count == HEAD && args.is_none() => {
                args = Some(0);
                continue;
            }
            op::TUPLE1..=op::TUPLE3 if depth == 1 && args.is_none() => {
                let items = usize::from(opcode - op::TUPLE1) + 1;
                if count == HEAD + items {
                    args = Some(items);
                } else if count == 2 && items == 2 {
                    // a pair as message id
                    let [first, second, ..] = slots;
                    let (Scalar::Bytes(oid), Scalar::Bytes(tid)) = (first.scalar, second.scalar) else {
                        return None;
                    };
                    first.scalar = Scalar::Load(Oid::from_slice(oid)?, Tid::from_slice(tid)?);
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
            op::LONG_BINPUT => {
                lexer.array::<4>()?;
                continue;
            }
            _ => scalar(&mut lexer, opcode)?,
        };
        if depth == 0 || args.is_some() {
            return None;
        }
        *slots.get_mut(count)? = Slot { scalar, encoded: lexer.since(start) };
        count += 1;
    }
    while lexer.rest().first() == Some(&op::BINPUT) {
        lexer.token().ok()?;
    }
    (lexer.rest() == [op::STOP]).then_some(())?;
    if args.is_none() && slots.get(HEAD)?.scalar != Scalar::None {
        return None;
    }
    Some(Scanned { args })
}

/// The argument of any opcode, if it is a scalar.
#[inline(never)]
fn scalar<'a>(lexer: &mut Lexer<'a>, opcode: u8) -> Option<Scalar<'a>> {
    match lexer.argument(opcode).ok()? {
        Argument::Bytes(bytes) => Some(Scalar::Bytes(bytes)),
        Argument::Str(bytes) => Some(Scalar::Str(bytes)),
        Argument::Text(bytes) => Some(Scalar::Text(bytes)),
        Argument::Int(value) => Some(Scalar::Int(value)),
        Argument::Bool(value) => Some(Scalar::Bool(value)),
        Argument::Float(value) => Some(Scalar::Float(value)),
        _ => None,
    }
}

/// `bytes` of an oid or a tid.
pub(super) fn put_id8(dialect: Dialect, [a, b, c, d, e, f, g, h]: [u8; 8], out: &mut Vec<u8>) {
    let opcode = match dialect {
        Dialect::Python2 => op::SHORT_BINSTRING,
        Dialect::Python3 => op::SHORT_BINBYTES,
    };
    out.extend_from_slice(&[opcode, 8, a, b, c, d, e, f, g, h]);
}

/// Bytes before the data in the reply to a load, including the frame's length but not the message id.
pub(super) fn load_header_len(dialect: Dialect) -> usize {
    // length of the frame; start of the message; flag and method; start of the result; opcode and length of
    // the data
    match dialect {
        Dialect::Python3 => 4 + 3 + 13 + 5,
        Dialect::Python2 => 4 + 1 + 10 + 1 + 5,
    }
}

/// Bytes of a message id that consists of an oid and a tid.
pub(super) fn load_id_len(dialect: Dialect) -> usize {
    match dialect {
        Dialect::Python3 => 21,
        Dialect::Python2 => 22,
    }
}

/// The part before the data in the result of a load, a tuple of `count` (0: the data alone). The length always takes
/// four bytes.
pub(super) fn begin_load(dialect: Dialect, count: usize, data_len: u32, out: &mut Vec<u8>) {
    if count > 0 {
        begin_tuple(dialect, count, out);
    }
    out.push(if dialect == Dialect::Python3 { op::BINBYTES } else { op::BINSTRING });
    out.extend_from_slice(&data_len.to_le_bytes());
}
