//! The references in an object's record, found without building anything: what `ZODB.serialize.referencesf` returns.
//!
//! A record is two pickles, for the class and the state, that share a memo. References are persistent ids, in one of these
//! forms: an oid; a tuple of an oid and the class; a list, which is a reference of another kind: weak (`['w', (oid,)]` or
//! `[oid]`), or to another database (`['m', ...]`, `['n', ...]`). Lists keep nothing alive and are passed over.
//!
//! A machine with a stack like the unpickler's goes over the opcodes of protocols 0 to 5, but remembers of a value only whether
//! it may be a persistent id. Its memory is kept from one record to the next.
//!
//! A pack removes what no record refers to, so "no references" must never be the answer for bytes that are no record: every
//! record is read to its end, those without references too, and whatever Python's unpickler refuses is refused here (texts that
//! are not UTF-8, numbers that are none, frames that end elsewhere). `tests/wire/pickle_references.rs` compares both on damaged
//! records.

use std::cell::RefCell;
use std::collections::HashMap;

use super::opcode::*;
use crate::base::bytes::Reader;
use crate::base::ids::Oid;

/// Appends the oids that `record` refers to, each as often as it stands there. The error says why it is no record.
pub fn references(record: &[u8], oids: &mut Vec<Oid>) -> Result<(), String> {
    thread_local! {
        static MACHINE: RefCell<Machine> = RefCell::default();
    }
    MACHINE.with_borrow_mut(|machine| machine.run(record, oids))
}

/// Protocols from here on are not known.
const PROTOCOL_MAX: u8 = 5;

/// What is remembered of a value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Item {
    /// A memo number that was left out.
    Unset,
    /// An object, or what stands for one: no persistent id is like this.
    Other,
    /// A number, or a string of another length than eight.
    Plain,
    Dict,
    /// A string of eight bytes.
    Oid(Oid),
    /// A tuple, with its first part if that is an oid.
    Tuple(Option<Oid>),
    List,
}

impl Item {
    fn string(bytes: &[u8]) -> Item {
        Oid::from_slice(bytes).map_or(Item::Plain, Item::Oid)
    }

    fn tuple(items: &[Item]) -> Item {
        match items.first() {
            Some(Item::Oid(oid)) => Item::Tuple(Some(*oid)),
            _ => Item::Tuple(None),
        }
    }
}

#[derive(Default)]
struct Machine {
    stack: Vec<Item>,
    /// Lengths of the stack at each open MARK.
    marks: Vec<usize>,
    memo: Vec<Item>,
    /// Memo numbers that are greater than any pickler would give out.
    far_memo: HashMap<u64, Item>,
    /// Where the frame ends that is being read: an opcode does, too.
    frame_end: Option<usize>,
}

/// What is added to a container.
enum Addition {
    Items,
    Pairs,
}

/// The record ends too early, or an opcode finds nothing on the stack.
struct Broken;

impl Machine {
    fn run(&mut self, record: &[u8], oids: &mut Vec<Oid>) -> Result<(), String> {
        self.memo.clear();
        self.far_memo.clear();
        let mut r = Reader::new(record);
        for _ in 0..2 {
            self.stack.clear();
            self.marks.clear();
            self.frame_end = None;
            while let Some(next) = self.step(&mut r, oids).transpose() {
                next.and_then(|()| self.leave_frame(&r))
                    .map_err(|what| what.message(r.pos(), record.len()))?;
            }
            if self.frame_end.is_some_and(|end| end != r.pos()) {
                return Err(Flaw::Frame.message(r.pos(), record.len()));
            }
        }
        Ok(())
    }

    /// One opcode. `None` after STOP.
    fn step(&mut self, r: &mut Reader<'_>, oids: &mut Vec<Oid>) -> Result<Option<()>, Flaw> {
        let opcode = r.u8().ok_or(Flaw::Short)?;
        match opcode {
            STOP => {
                self.pop()?;
                return Ok(None);
            }
            MARK => self.marks.push(self.stack.len()),
            POP => match self.marks.last() {
                Some(&mark) if mark == self.stack.len() => _ = self.marks.pop(),
                _ => _ = self.pop()?,
            },
            POP_MARK => self.pop_to_mark()?,
            DUP => {
                let top = self.top()?;
                self.stack.push(top);
            }

            NONE | EMPTY_SET => self.stack.push(Item::Other),
            NEWTRUE | NEWFALSE => self.stack.push(Item::Plain),
            EMPTY_DICT => self.stack.push(Item::Dict),
            BININT1 => self.skip(r, 1)?,
            BININT2 => self.skip(r, 2)?,
            BININT => self.skip(r, 4)?,
            // Numbers for classes that only the application has registered.
            EXT1 | EXT2 | EXT4 => return Err(Flaw::Value("a class with its name")),
            BINFLOAT => self.skip(r, 8)?,
            INT | LONG | FLOAT => {
                let line = r.line().ok_or(Flaw::Short)?;
                if !is_number(opcode, line) {
                    return Err(Flaw::Value("a number"));
                }
                self.stack.push(Item::Plain);
            }
            LONG1 => {
                let len = u64::from(r.u8().ok_or(Flaw::Short)?);
                self.skip(r, len)?;
            }
            LONG4 => {
                let len = u64::from(r.u32_le().ok_or(Flaw::Short)?);
                self.skip(r, len)?;
            }
            BYTEARRAY8 => {
                let len = u64_le(r)?;
                self.skip(r, len)?;
            }

            SHORT_BINSTRING | SHORT_BINBYTES => {
                let len = u64::from(r.u8().ok_or(Flaw::Short)?);
                self.string(r, len)?;
            }
            BINSTRING | BINBYTES => {
                let len = u64::from(r.u32_le().ok_or(Flaw::Short)?);
                self.string(r, len)?;
            }
            BINBYTES8 => {
                let len = u64_le(r)?;
                self.string(r, len)?;
            }
            SHORT_BINUNICODE => {
                let len = u64::from(r.u8().ok_or(Flaw::Short)?);
                self.text(r, len)?;
            }
            BINUNICODE => {
                let len = u64::from(r.u32_le().ok_or(Flaw::Short)?);
                self.text(r, len)?;
            }
            BINUNICODE8 => {
                let len = u64_le(r)?;
                self.text(r, len)?;
            }
            STRING => {
                let line = r.line().ok_or(Flaw::Short)?;
                let inner = unquoted(line).ok_or(Flaw::Value("a string in quotes"))?;
                self.stack.push(escaped_oid(inner, BACKSLASH_STRING)?);
            }
            UNICODE => {
                let line = r.line().ok_or(Flaw::Short)?;
                self.stack.push(escaped_oid(line, BACKSLASH_UNICODE)?);
            }

            EMPTY_TUPLE => self.stack.push(Item::Tuple(None)),
            TUPLE1 => self.tuple(1)?,
            TUPLE2 => self.tuple(2)?,
            TUPLE3 => self.tuple(3)?,
            TUPLE => {
                let mark = self.mark()?;
                let tuple = Item::tuple(self.stack.get(mark..).unwrap_or_default());
                self.stack.truncate(mark);
                self.stack.push(tuple);
            }
            EMPTY_LIST => self.stack.push(Item::List),
            LIST => {
                self.pop_to_mark()?;
                self.stack.push(Item::List);
            }
            DICT => {
                self.pop_to_mark()?;
                self.stack.push(Item::Dict);
            }
            FROZENSET | OBJ => {
                self.pop_to_mark()?;
                self.stack.push(Item::Other);
            }
            APPEND => {
                self.pop()?;
                self.can_take(Addition::Items)?;
            }
            APPENDS => {
                self.pop_to_mark()?;
                self.can_take(Addition::Items)?;
            }
            SETITEM => {
                self.pop_many(2)?;
                self.can_take(Addition::Pairs)?;
            }
            SETITEMS => {
                let len = self.stack.len();
                self.pop_to_mark()?;
                if !(len - self.stack.len()).is_multiple_of(2) {
                    return Err(Flaw::Value("an even number of keys and values"));
                }
                self.can_take(Addition::Pairs)?;
            }
            ADDITEMS => self.pop_to_mark()?,
            BUILD => _ = self.pop()?,

            GLOBAL => {
                class_names(r)?;
                self.stack.push(Item::Other);
            }
            INST => {
                class_names(r)?;
                self.pop_to_mark()?;
                self.stack.push(Item::Other);
            }
            REDUCE | NEWOBJ | STACK_GLOBAL => {
                self.pop_many(2)?;
                self.stack.push(Item::Other);
            }
            NEWOBJ_EX => {
                self.pop_many(3)?;
                self.stack.push(Item::Other);
            }

            PERSID => {
                let line = r.line().ok_or(Flaw::Short)?;
                refer(Item::string(line), oids)?;
                self.stack.push(Item::Other);
            }
            BINPERSID => {
                let id = self.pop()?;
                refer(id, oids)?;
                self.stack.push(Item::Other);
            }

            PUT => {
                let no = decimal(r)?;
                self.put(no)?;
            }
            BINPUT => {
                let no = u64::from(r.u8().ok_or(Flaw::Short)?);
                self.put(no)?;
            }
            LONG_BINPUT => {
                let no = u64::from(r.u32_le().ok_or(Flaw::Short)?);
                self.put(no)?;
            }
            MEMOIZE => self.put((self.memo.len() + self.far_memo.len()) as u64)?,
            GET => {
                let no = decimal(r)?;
                self.get(no)?;
            }
            BINGET => {
                let no = u64::from(r.u8().ok_or(Flaw::Short)?);
                self.get(no)?;
            }
            LONG_BINGET => {
                let no = u64::from(r.u32_le().ok_or(Flaw::Short)?);
                self.get(no)?;
            }

            PROTO => match r.u8().ok_or(Flaw::Short)? {
                0..=PROTOCOL_MAX => {}
                _ => return Err(Flaw::Value("a protocol that is known")),
            },
            FRAME => {
                let len = u64_le(r)?;
                let len =
                    usize::try_from(len).ok().filter(|&len| len <= r.rest().len()).ok_or(Flaw::Short)?;
                if self.frame_end.replace(r.pos() + len).is_some() {
                    return Err(Flaw::Frame);
                }
            }
            NEXT_BUFFER | READONLY_BUFFER => return Err(Flaw::Value("data that is part of the record")),
            unknown => return Err(Flaw::Unknown(unknown)),
        }
        Ok(Some(()))
    }

    /// After an opcode.
    fn leave_frame(&mut self, r: &Reader<'_>) -> Result<(), Flaw> {
        match self.frame_end {
            Some(end) if r.pos() > end => return Err(Flaw::Frame),
            Some(end) if r.pos() == end => self.frame_end = None,
            _ => {}
        }
        Ok(())
    }

    fn top(&self) -> Result<Item, Broken> {
        let floor = self.marks.last().copied().unwrap_or(0);
        self.stack.get(floor..).and_then(<[Item]>::last).copied().ok_or(Broken)
    }

    fn pop(&mut self) -> Result<Item, Broken> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_many(&mut self, count: usize) -> Result<(), Broken> {
        let left = self.stack.len().checked_sub(count).ok_or(Broken)?;
        self.stack.truncate(left);
        Ok(())
    }

    fn mark(&mut self) -> Result<usize, Broken> {
        self.marks.pop().filter(|&mark| mark <= self.stack.len()).ok_or(Broken)
    }

    fn pop_to_mark(&mut self) -> Result<(), Broken> {
        let mark = self.mark()?;
        self.stack.truncate(mark);
        Ok(())
    }

    fn tuple(&mut self, count: usize) -> Result<(), Broken> {
        let from = self.stack.len().checked_sub(count).ok_or(Broken)?;
        let tuple = Item::tuple(self.stack.get(from..).unwrap_or_default());
        self.stack.truncate(from);
        self.stack.push(tuple);
        Ok(())
    }

    fn skip(&mut self, r: &mut Reader<'_>, len: u64) -> Result<(), Flaw> {
        take(r, len)?;
        self.stack.push(Item::Plain);
        Ok(())
    }

    fn string(&mut self, r: &mut Reader<'_>, len: u64) -> Result<(), Flaw> {
        let item = Item::string(take(r, len)?);
        self.stack.push(item);
        Ok(())
    }

    /// Whether the value on top of the stack may get items, or keys with values.
    fn can_take(&self, addition: Addition) -> Result<(), Flaw> {
        match (self.top()?, addition) {
            (Item::Other, _) | (Item::List, Addition::Items) | (Item::Dict, Addition::Pairs) => Ok(()),
            _ => Err(Flaw::Value("a container")),
        }
    }

    fn text(&mut self, r: &mut Reader<'_>, len: u64) -> Result<(), Flaw> {
        let bytes = take(r, len)?;
        if !is_text(bytes) {
            return Err(Flaw::Value("text in UTF-8"));
        }
        self.stack.push(Item::string(bytes));
        Ok(())
    }

    fn put(&mut self, no: u64) -> Result<(), Broken> {
        let item = self.top()?;
        match usize::try_from(no) {
            Ok(no) if no < self.memo.len() => {
                if let Some(slot) = self.memo.get_mut(no) {
                    *slot = item;
                }
            }
            Ok(no) if no == self.memo.len() => self.memo.push(item),
            // Python 2 counts from 1, and some leave numbers out.
            Ok(no) if no <= self.memo.len() + 16 => {
                self.memo.resize(no, Item::Unset);
                self.memo.push(item);
            }
            _ => _ = self.far_memo.insert(no, item),
        }
        Ok(())
    }

    fn get(&mut self, no: u64) -> Result<(), Broken> {
        let near = usize::try_from(no).ok().and_then(|no| self.memo.get(no));
        let item = near.or_else(|| self.far_memo.get(&no)).copied();
        let item = item.filter(|item| *item != Item::Unset).ok_or(Broken)?;
        self.stack.push(item);
        Ok(())
    }
}

/// A persistent id was met.
fn refer(id: Item, oids: &mut Vec<Oid>) -> Result<(), Flaw> {
    match id {
        Item::Oid(oid) | Item::Tuple(Some(oid)) => oids.push(oid),
        // Weak, or to another database.
        Item::List => {}
        Item::Other | Item::Plain | Item::Dict | Item::Unset | Item::Tuple(None) => return Err(Flaw::NoOid),
    }
    Ok(())
}

/// Why a record cannot be read.
enum Flaw {
    Short,
    Stack,
    Unknown(u8),
    NoOid,
    Frame,
    /// An argument is not what its opcode demands: this.
    Value(&'static str),
}

impl From<Broken> for Flaw {
    fn from(_: Broken) -> Flaw {
        Flaw::Stack
    }
}

impl Flaw {
    fn message(&self, pos: usize, len: usize) -> String {
        match self {
            Flaw::Short => format!("its {len} bytes end before its second pickle does"),
            Flaw::Stack => {
                format!("at byte {pos}: there is nothing on the stack or in the memo for this opcode")
            }
            Flaw::Unknown(opcode) => format!("at byte {pos}: no pickle has the opcode {opcode:#04x}"),
            Flaw::NoOid => {
                format!("at byte {pos}: a persistent id is neither an oid nor (oid, class) nor a list")
            }
            Flaw::Frame => format!("at byte {pos}: a frame ends within an opcode or is not read to its end"),
            Flaw::Value(expected) => format!("at byte {pos}: {expected} is expected"),
        }
    }
}

fn take<'a>(r: &mut Reader<'a>, len: u64) -> Result<&'a [u8], Flaw> {
    usize::try_from(len).ok().and_then(|len| r.take(len)).ok_or(Flaw::Short)
}

fn u64_le(r: &mut Reader<'_>) -> Result<u64, Flaw> {
    let bytes = r.take(8).and_then(<[u8]>::first_chunk).ok_or(Flaw::Short)?;
    Ok(u64::from_le_bytes(*bytes))
}

fn decimal(r: &mut Reader<'_>) -> Result<u64, Flaw> {
    let line = r.line().ok_or(Flaw::Short)?;
    std::str::from_utf8(line).ok().and_then(|text| text.trim().parse().ok()).ok_or(Flaw::Stack)
}

/// Whether the line behind INT, LONG or FLOAT is a number as picklers write them. INT has booleans as 00 and 01.
fn is_number(opcode: u8, line: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(line.trim_ascii()) else { return false };
    let digits = |text: &str| {
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    match opcode {
        FLOAT => text.parse::<f64>().is_ok(),
        LONG => digits(text.strip_suffix(['L', 'l']).unwrap_or(text)),
        _ => digits(text),
    }
}

/// Module and name of a class, each in a line.
fn class_names(r: &mut Reader<'_>) -> Result<(), Flaw> {
    let module = r.line().ok_or(Flaw::Short)?;
    let name = r.line().ok_or(Flaw::Short)?;
    if is_text(module) && is_text(name) { Ok(()) } else { Err(Flaw::Value("the name of a class")) }
}

/// UTF-8, in which Python lets surrogates pass, too.
fn is_text(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    loop {
        let Err(error) = std::str::from_utf8(rest) else { return true };
        let Some([0xed, 0xa0..=0xbf, 0x80..=0xbf, left @ ..]) = rest.get(error.valid_up_to()..) else {
            return false;
        };
        rest = left;
    }
}

/// What STRING has between its quotes.
fn unquoted(line: &[u8]) -> Option<&[u8]> {
    let line = line.trim_ascii();
    let (&quote, rest) = line.split_first()?;
    let (&end, inner) = rest.split_last()?;
    (quote == end && matches!(quote, b'\'' | b'"')).then_some(inner)
}

/// What may follow a backslash in STRING. Another character stands for itself, and so does the backslash before it.
const BACKSLASH_STRING: &[u8] = b"\\'\"abfnrtvx01234567";
/// In UNICODE.
const BACKSLASH_UNICODE: &[u8] = b"uU";

/// A string that is written with escapes: an oid if it has eight characters below 256.
fn escaped_oid(text: &[u8], known: &[u8]) -> Result<Item, Flaw> {
    let mut oid = [0; 8];
    let mut len = 0;
    let mut r = Reader::new(text);
    while let Some(byte) = r.u8() {
        let escape = r.rest().first().copied().filter(|escape| byte == b'\\' && known.contains(escape));
        let character = match escape {
            Some(escape) => {
                r.u8();
                escaped(escape, &mut r).ok_or(Flaw::Value("an escape sequence that is whole"))?
            }
            None => u32::from(byte),
        };
        match (oid.get_mut(len), u8::try_from(character)) {
            (Some(slot), Ok(byte)) => *slot = byte,
            // Too long, or no byte: no oid, but the rest is looked at all the same.
            _ => len = oid.len(),
        }
        len += 1;
    }
    Ok(if len == oid.len() { Item::Oid(Oid::from_bytes(oid)) } else { Item::Plain })
}

/// The character of an escape sequence.
fn escaped(escape: u8, r: &mut Reader<'_>) -> Option<u32> {
    match escape {
        b'u' => number(r.take(4)?, 16),
        b'U' => number(r.take(8)?, 16).filter(|&character| character <= 0x10_ffff),
        _ => simple_escape(escape, r).map(u32::from),
    }
}

fn simple_escape(escape: u8, r: &mut Reader<'_>) -> Option<u8> {
    Some(match escape {
        b'a' => 7,
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 11,
        b'x' => u8::try_from(number(r.take(2)?, 16)?).ok()?,
        b'0'..=b'7' => {
            let mut value = u32::from(escape - b'0');
            for _ in 0..2 {
                match r.rest().first() {
                    Some(&digit @ b'0'..=b'7') => {
                        value = value * 8 + u32::from(digit - b'0');
                        r.u8()?;
                    }
                    _ => break,
                }
            }
            // As C cuts it off.
            (value & 0xff).to_le_bytes()[0]
        }
        other => other,
    })
}

fn number(digits: &[u8], radix: u32) -> Option<u32> {
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(record: &[u8]) -> Result<Vec<u64>, String> {
        let mut oids = Vec::new();
        references(record, &mut oids)?;
        Ok(oids.into_iter().map(|oid| oid.0).collect())
    }

    #[test]
    fn every_form_of_reference() {
        let check = |state: &[u8], expected: &[u64]| {
            for class in [&b"cm\nC\n."[..], b"(cm\nC\nNt.", b"\x80\x02cm\nC\nq\x01."] {
                let record = [class, state].concat();
                assert_eq!(of(&record).as_deref(), Ok(expected), "{}", record.escape_ascii());
            }
        };
        check(b"N.", &[]);
        check(b"U\x08\0\0\0\0\0\0\0\x07Q.", &[7]);
        check(b"C\x08\0\0\0\0\0\0\0\x07Q.", &[7]);
        check(b"T\x08\0\0\0\0\0\0\0\0\0\0\x07Q.", &[7]);
        check(
            b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00\x8e\x08\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x07Q.",
            &[7],
        );
        check(b"\x8c\x08\0\0\0\0\0\0\0\x07\x94Q.", &[7]);
        check(b"S'\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\n'\np1\nQ.", &[10]);
        check(b"S\"\\x00\\x00\\x00\\x00\\x00\\x00\\x00'\"\nQ.", &[39]);
        check(b"V\\u0000\\u0000\\u0000\\u0000\\u0000\\u0000\\u0000A\nQ.", &[65]);
        check(b"Pabcdefgh\n.", &[0x6162_6364_6566_6768]);
        check(b"(U\x08\0\0\0\0\0\0\0\x07q\x05cm\nC\ntQ.", &[7]);
        check(b"C\x08\0\0\0\0\0\0\0\x07cm\nC\n\x86Q.", &[7]);
        // The class of the reference is memoised, then the oid.
        check(b"(C\x08\0\0\0\0\0\0\0\x07q\x01cm\nC\nq\x02\x86q\x03Q(h\x01h\x02tQh\x03Qt.", &[7, 7, 7]);
        // Weak, in its two forms; other databases.
        check(b"](U\x01w(U\x08\0\0\0\0\0\0\0\x07teQ.", &[]);
        check(b"](U\x08\0\0\0\0\0\0\0\x07eQ.", &[]);
        check(b"](U\x01m(U\x02dbU\x08\0\0\0\0\0\0\0\x07cm\nC\nteQ.", &[]);
        check(b"](U\x01n(U\x02dbU\x08\0\0\0\0\0\0\0\x07teQ.", &[]);
        // The letters alone are none.
        check(b"U\x02PQ.", &[]);
    }

    #[test]
    fn a_memo_is_shared_by_both_pickles() {
        assert_eq!(of(b"(cm\nC\nq\x01C\x08\0\0\0\0\0\0\0\x07q\x02t.h\x02Q."), Ok(vec![7]));
        assert_eq!(of(b"N.N\x94C\x08\0\0\0\0\0\0\0\x07\x94h\x01Q."), Ok(vec![7]));
        assert_eq!(of(b"N.C\x08\0\0\0\0\0\0\0\x07r\xff\xff\xff\0Nj\xff\xff\xff\0Q."), Ok(vec![7]));
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for record in [
            &b""[..],
            b"N.",
            b"N.N",
            b"N.Q.",
            b"N.NQ.",
            b"N.K\x05Q.",
            b"N.)Q.",
            b"N.K\x05\x85Q.",
            b"N.U\x07\0\0\0\0\0\0\x07Q.",
            b"N.\xffQ.",
            b"N.h\x01Q.",
            b"N.tQ.",
            b"N.U\xffQ",
            b"N.(Q.",
        ] {
            assert!(of(record).is_err(), "{}", record.escape_ascii());
        }
    }
}
