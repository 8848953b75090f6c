//! Writes pickles, opcode by opcode, without a memo ("fast" mode, as ZEO does).

use super::opcode::*;

/// The dialect that the peer's unpickler reads.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Dialect {
    /// Python 2 with cPickle: protocol 1, byte strings and texts are both `str`.
    Python2,
    /// Python 3, and Python 2 with zodbpickle: protocol 3, `bytes` and text.
    Python3,
}

/// Begins a pickle.
pub fn start(dialect: Dialect, out: &mut Vec<u8>) {
    if dialect == Dialect::Python3 {
        out.extend_from_slice(&[PROTO, 3]);
    }
}

/// `True` or `False`.
pub fn put_bool(dialect: Dialect, value: bool, out: &mut Vec<u8>) {
    match (dialect, value) {
        (Dialect::Python2, true) => out.extend_from_slice(b"I01\n"),
        (Dialect::Python2, false) => out.extend_from_slice(b"I00\n"),
        (Dialect::Python3, true) => out.push(NEWTRUE),
        (Dialect::Python3, false) => out.push(NEWFALSE),
    }
}

/// An integer.
pub fn put_int(dialect: Dialect, value: i64, out: &mut Vec<u8>) {
    if let Ok(value) = u8::try_from(value) {
        out.extend_from_slice(&[BININT1, value]);
    } else if let Ok(value) = u16::try_from(value) {
        let [low, high] = value.to_le_bytes();
        out.extend_from_slice(&[BININT2, low, high]);
    } else if let Ok(value) = i32::try_from(value) {
        out.push(BININT);
        out.extend_from_slice(&value.to_le_bytes());
    } else if dialect == Dialect::Python2 {
        // a 64-bit cPickle reads this as an int, a 32-bit one as a long
        out.extend_from_slice(format!("I{value}\n").as_bytes());
    } else {
        // shortest two's complement, as in CPython
        let bytes = value.to_le_bytes();
        let fill = if value < 0 { 0xff } else { 0 };
        let mut len = bytes.len();
        while let Some([.., below, top]) = bytes.get(..len)
            && *top == fill
            && (below & 0x80) == (fill & 0x80)
        {
            len -= 1;
        }
        out.extend_from_slice(&[LONG1, len.to_le_bytes()[0]]);
        out.extend_from_slice(bytes.get(..len).unwrap_or_default());
    }
}

/// An integer beyond 64 bits, in two's complement, little endian. Both Pythons read this opcode in every protocol.
pub fn put_big_int(value: &[u8], out: &mut Vec<u8>) {
    match u8::try_from(value.len()) {
        Ok(len) => {
            out.extend_from_slice(&[LONG1, len]);
            out.extend_from_slice(value);
        }
        Err(_) => put_long_counted(LONG4, value, out),
    }
}

/// A float.
pub fn put_float(value: f64, out: &mut Vec<u8>) {
    out.push(BINFLOAT);
    out.extend_from_slice(&value.to_be_bytes());
}

/// `bytes`, which is `str` in Python 2.
pub fn put_bytes(dialect: Dialect, value: &[u8], out: &mut Vec<u8>) {
    match dialect {
        Dialect::Python2 => put_counted(SHORT_BINSTRING, BINSTRING, value, out),
        Dialect::Python3 => put_counted(SHORT_BINBYTES, BINBYTES, value, out),
    }
}

/// A text: for Python 2 a `str` if it is ASCII, otherwise a `unicode`.
pub fn put_text(dialect: Dialect, value: &str, out: &mut Vec<u8>) {
    match dialect {
        Dialect::Python2 if value.is_ascii() => {
            put_counted(SHORT_BINSTRING, BINSTRING, value.as_bytes(), out);
        }
        _ => put_unicode(value, out),
    }
}

/// A text that is `unicode` in Python 2, ASCII or not.
pub fn put_unicode(value: &str, out: &mut Vec<u8>) {
    put_long_counted(BINUNICODE, value.as_bytes(), out);
}

/// A class or function.
pub fn put_global(module: &str, name: &str, out: &mut Vec<u8>) {
    out.push(GLOBAL);
    out.extend_from_slice(module.as_bytes());
    out.push(b'\n');
    out.extend_from_slice(name.as_bytes());
    out.push(b'\n');
}

/// The opcodes before the items of a tuple of `count`.
pub fn begin_tuple(dialect: Dialect, count: usize, out: &mut Vec<u8>) {
    if count > 3 || (count > 0 && dialect == Dialect::Python2) {
        out.push(MARK);
    }
}

/// The opcodes after the items of a tuple of `count`.
pub fn end_tuple(dialect: Dialect, count: usize, out: &mut Vec<u8>) {
    out.push(match (count, dialect) {
        (0, _) => EMPTY_TUPLE,
        (1, Dialect::Python3) => TUPLE1,
        (2, Dialect::Python3) => TUPLE2,
        (3, Dialect::Python3) => TUPLE3,
        _ => TUPLE,
    });
}

/// The opcodes before the items of a list of `count`.
pub fn begin_list(count: usize, out: &mut Vec<u8>) {
    out.push(EMPTY_LIST);
    if count > 1 {
        out.push(MARK);
    }
}

/// The opcodes after the items of a list of `count`.
pub fn end_list(count: usize, out: &mut Vec<u8>) {
    match count {
        0 => {}
        1 => out.push(APPEND),
        _ => out.push(APPENDS),
    }
}

/// The opcodes before the keys and values of a dict of `count` pairs.
pub fn begin_dict(count: usize, out: &mut Vec<u8>) {
    out.push(EMPTY_DICT);
    if count > 1 {
        out.push(MARK);
    }
}

/// The opcodes after the keys and values of a dict of `count` pairs.
pub fn end_dict(count: usize, out: &mut Vec<u8>) {
    match count {
        0 => {}
        1 => out.push(SETITEM),
        _ => out.push(SETITEMS),
    }
}

fn put_counted(short: u8, long: u8, value: &[u8], out: &mut Vec<u8>) {
    match u8::try_from(value.len()) {
        Ok(len) => {
            out.extend_from_slice(&[short, len]);
            out.extend_from_slice(value);
        }
        Err(_) => put_long_counted(long, value, out),
    }
}

fn put_long_counted(opcode: u8, value: &[u8], out: &mut Vec<u8>) {
    // Frames are shorter than 2 GiB, and a value is not longer than its frame.
    let len = u32::try_from(value.len()).unwrap_or(u32::MAX);
    debug_assert!(len < 1 << 31, "a value of {} bytes does not fit into a message", value.len());
    out.push(opcode);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(value);
}
