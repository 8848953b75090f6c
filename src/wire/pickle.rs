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

/// Reads a server's message with any result. Its exceptions may be of any class; nothing is imported or called.
pub(super) fn tree_of_server(frame: &[u8]) -> Result<Tree<'_>, PickleError> {
    read(frame, Accept { global: |_, _| true, persistent: false, nodes_max: 1 << 22 })
}

/// Scans a message whose arguments are scalars, or a scalar in their place. `None` if one is none, or if it is no
/// message.
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
            op::TUPLE if depth == 1 && count == HEAD + 1 => break, // a scalar instead of arguments
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
    (lexer.rest() == [op::STOP]).then_some(Scanned { args })
}

/// Scans the front of a message (id, flag, method) into the first slots. Returns the offset of the rest.
pub(super) fn head<'a>(frame: &'a [u8], slots: &mut Slots<'a>) -> Option<usize> {
    let mut lexer = Lexer::new(frame);
    let mut is_open = false;
    let mut count = 0;
    while count < HEAD {
        let start = lexer.end();
        match lexer.opcode().ok()? {
            op::MARK if !is_open => is_open = true,
            opcode if is_note(opcode) => _ = lexer.argument(opcode).ok()?,
            opcode => {
                let scalar = scalar(&mut lexer, opcode).filter(|_| is_open)?;
                *slots.get_mut(count)? = Slot { scalar, encoded: lexer.since(start) };
                count += 1;
            }
        }
    }
    Some(lexer.end())
}

/// Opcodes without an effect on the stack.
fn is_note(opcode: u8) -> bool {
    matches!(opcode, op::PROTO | op::FRAME | op::PUT | op::BINPUT | op::LONG_BINPUT | op::MEMOIZE)
}

/// Whether the value at `pos` begins with a class, perhaps as the first item of a tuple.
pub(super) fn is_class(frame: &[u8], pos: usize) -> bool {
    let mut lexer = Lexer::at(frame, pos);
    match lexer.opcode() {
        Ok(op::MARK) => lexer.opcode() == Ok(op::GLOBAL),
        opcode => opcode == Ok(op::GLOBAL),
    }
}

/// Scans (tid, list of oids) at `pos`, the last value of a message. Each oid may be in a pair with an empty version.
/// Appends to `oids`; `None` if the value has another form.
pub(super) fn oids(frame: &[u8], pos: usize, oids: &mut Vec<Oid>) -> Option<Tid> {
    let mut lexer = Lexer::at(frame, pos);
    let mut next = || {
        loop {
            let opcode = lexer.opcode().ok()?;
            if opcode == op::MARK || !is_note(opcode) {
                return Some((opcode, lexer.argument(opcode).ok()?));
            }
            lexer.argument(opcode).ok()?;
        }
    };
    let mut first = next()?;
    let has_mark = first.0 == op::MARK;
    if has_mark {
        first = next()?;
    }
    let (Argument::Bytes(tid) | Argument::Str(tid)) = first.1 else { return None };
    let tid = Tid::from_slice(tid)?;
    (next()?.0 == op::EMPTY_LIST).then_some(())?;

    let mut marks = [0; 2]; // length of `oids` at each open mark
    let mut depth = 0; // of open marks
    let mut appended = oids.len(); // oids that are in the list
    let mut has_version = false; // the last oid is followed by its version
    let end = loop {
        match next()? {
            (_, Argument::Bytes([]) | Argument::Str([]) | Argument::Text([])) if !has_version => {
                (oids.len() > appended).then_some(())?;
                has_version = true;
            }
            (_, Argument::Bytes(oid) | Argument::Str(oid)) if !has_version => {
                oids.push(Oid::from_slice(oid)?)
            }
            (op::MARK, _) if !has_version => {
                *marks.get_mut(depth)? = oids.len();
                depth += 1;
            }
            (op::TUPLE2, _) if has_version => has_version = false,
            (op::TUPLE, _) if has_version => {
                depth = depth.checked_sub(1)?;
                (oids.len() == marks.get(depth)? + 1).then_some(())?;
                has_version = false;
            }
            (op::APPENDS, _) if !has_version && depth == 1 && marks.first() == Some(&appended) => {
                depth = 0;
                appended = oids.len();
            }
            (op::APPEND, _) if !has_version && depth == 0 && oids.len() == appended + 1 => appended += 1,
            (end @ (op::TUPLE | op::TUPLE2), _) if !has_version && depth == 0 && oids.len() == appended => {
                break end;
            }
            _ => return None,
        }
    };
    ((end == op::TUPLE) == has_mark && next()?.0 == op::TUPLE && next()?.0 == op::STOP).then_some(tid)
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
        _ => match opcode {
            op::NONE => Some(Scalar::None),
            op::NEWFALSE => Some(Scalar::Bool(false)),
            op::NEWTRUE => Some(Scalar::Bool(true)),
            _ => None,
        },
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
