//! Fast paths of [`super::scan`] for the most frequent values in a bucket's record: numbers, strings, and persistent
//! references. The result is the same as the general scanner's, which scans everything else.

use super::shape::{Event, Kid, Kind, Node, Part, Tables, What};
use crate::pickle::opcode::*;

/// Upper bound on the length of a record that is merged, in bytes.
pub const LEN_MAX: usize = 1 << 30;
/// Upper bound on the values of a record that is merged. Buckets usually have about a hundred.
pub const NODES_MAX: usize = 1 << 20;
/// Flag: the value on the stack came from the memo.
pub const BORROWED: u32 = 1 << 31;

/// A position or count in a record as 32 bits: records are not longer than [`LEN_MAX`].
#[allow(clippy::cast_possible_truncation)]
#[inline]
pub fn narrow(value: usize) -> u32 {
    debug_assert!(value <= LEN_MAX);
    value as u32
}

/// Scans the strings and numbers from `end` on. Returns the offset of the first byte that is not scanned; the last
/// bytes of the source are left to the general scanner. `has_nan` is set if there is a float that does not equal
/// itself.
pub fn plain_values(tables: &mut Tables, source: &[u8], end: usize, has_nan: &mut bool) -> usize {
    let mut pos = end;
    while let Some(head) = source.get(pos..).and_then(<[u8]>::first_chunk::<9>) {
        if tables.nodes.len() > NODES_MAX {
            break;
        }
        // A table instead of a branch: the branch predictor fails where numbers of different lengths alternate.
        let [opcode, a, b, c, d, ..] = *head;
        let form = int_form(opcode);
        if form.len > 0 {
            let bits = u32::from_le_bytes([a, b, c, d]) & form.mask;
            let start = narrow(pos);
            let end = start + form.len;
            let node = narrow(tables.nodes.len());
            tables.nodes.push(Node { kind: Kind::Int(bits.cast_signed().into()), start, end });
            tables.stack.push(Kid { node, start });
            pos = end as usize;
            continue;
        }
        let string = |head: usize, len: u32| Part { at: narrow(pos + head), len };
        let (kind, len) = match *head {
            [BINFLOAT, ref bytes @ ..] => {
                let value = f64::from_be_bytes(*bytes);
                *has_nan |= value.is_nan();
                (Kind::Float(value), 9)
            }
            [NONE, ..] => (Kind::None, 1),
            [BINUNICODE, a, b, c, d, ..] => {
                let len = u32::from_le_bytes([a, b, c, d]);
                (Kind::Text(string(5, len)), 5 + len as usize)
            }
            [SHORT_BINBYTES, len, ..] => (Kind::Bytes(string(2, len.into())), 2 + usize::from(len)),
            [SHORT_BINSTRING, len, ..] => (Kind::Str(string(2, len.into())), 2 + usize::from(len)),
            _ => break,
        };
        let end = pos + len;
        if end > source.len() {
            break;
        }
        let node = narrow(tables.nodes.len());
        let start = narrow(pos);
        tables.nodes.push(Node { kind, start, end: narrow(end) });
        tables.stack.push(Kid { node, start });
        pos = end;
        // Picklers put nearly all strings into the memo.
        if let Some([BINPUT, index]) = source.get(end..).and_then(<[u8]>::first_chunk)
            && usize::from(*index) == tables.memo.len()
        {
            tables.memo.push(node);
            tables.events.push(Event { pos: narrow(end), len: 2, what: What::Put, node });
            pos += 2;
        }
    }
    pos
}

/// Scans the rest of a persistent reference after its class, if it is at `end`. Returns the offset behind the
/// reference.
pub fn end_reference(tables: &mut Tables, source: &[u8], end: usize) -> Option<usize> {
    let Some([tuple, BINPUT, index, BINPERSID, ..]) = source.get(end..) else { return None };
    let height = tables.stack.len().checked_sub(2)?;
    let Some(&[oid, class]) = tables.stack.get(height..) else { return None };
    let mark = tables.marks.last().copied();
    let start = match (*tuple, mark) {
        (TUPLE, Some((marked, pos))) if marked as usize == height => pos,
        (TUPLE2, Some((marked, _))) if marked as usize > height => return None,
        (TUPLE2, _) => oid.start,
        _ => return None,
    };
    if usize::from(*index) != tables.memo.len() {
        return None;
    }
    if *tuple == TUPLE {
        tables.marks.pop();
    }
    let (kids, node, pos) = (narrow(tables.kids.len()), narrow(tables.nodes.len()), narrow(end));
    tables.kids.extend([oid, class].map(|kid| Kid { node: kid.node & !BORROWED, start: kid.start }));
    tables.nodes.push(Node { kind: Kind::Tuple(Part { at: kids, len: 2 }), start, end: pos + 1 });
    tables.nodes.push(Node { kind: Kind::Reference(node), start, end: pos + 4 });
    tables.memo.push(node);
    tables.events.push(Event { pos: pos + 1, len: 2, what: What::Put, node });
    tables.stack.truncate(height);
    tables.stack.push(Kid { node: node + 1, start });
    Some(end + 4)
}

/// The form of an integer's opcode.
#[derive(Clone, Copy)]
struct IntForm {
    /// Bytes with the opcode; 0 if the opcode is none of these integers.
    len: u32,
    /// Mask of the four bytes after the opcode: those that belong to the integer.
    mask: u32,
}

fn int_form(opcode: u8) -> IntForm {
    const OTHER: IntForm = IntForm { len: 0, mask: 0 };
    #[allow(clippy::indexing_slicing)] // the compiler looks
    const FORMS: [IntForm; 256] = {
        let mut forms = [OTHER; 256];
        forms[BININT1 as usize] = IntForm { len: 2, mask: 0xff };
        forms[BININT2 as usize] = IntForm { len: 3, mask: 0xffff };
        forms[BININT as usize] = IntForm { len: 5, mask: u32::MAX };
        forms
    };
    FORMS.get(usize::from(opcode)).copied().unwrap_or(OTHER)
}
