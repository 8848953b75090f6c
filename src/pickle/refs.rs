//! The references in an object's record, without building values: the result of `ZODB.serialize.referencesf`.
//!
//! A record is two pickles, for the class and the state, with one memo. References are persistent ids, in one of these
//! forms: an oid; a tuple of an oid and the class; a list, which is weak (`['w', (oid,)]` or `[oid]`) or refers to
//! another database (`['m', ...]`, `['n', ...]`). Lists keep no object alive and are ignored.
//!
//! A stack machine like the unpickler's executes the opcodes of protocols 0 to 5, but keeps of each value only whether
//! it may be a persistent id. Its memory is reused for the next record.
//!
//! A pack removes objects without references to them, so invalid bytes must never look like a record without
//! references: every record is read to its end, and what Python's unpickler refuses is refused here (texts that are not
//! UTF-8, malformed numbers, frames that end in an opcode). `tests/wire/pickle_references.rs` compares both on damaged
//! records.

use std::cell::RefCell;
use std::collections::HashMap;

use super::lex::{Argument, LexError, Lexer, Token};
use super::opcode::*;
use super::text::{is_text, unescape_string, unescape_text, unquoted};
use crate::base::ids::Oid;

/// Appends each oid that `record` refers to, as often as it occurs. The error says why the record is invalid.
pub fn references(record: &[u8], oids: &mut Vec<Oid>) -> Result<(), String> {
    references_beside_lists(record, oids).map(drop)
}

/// As [`references`]. Returns whether there are also references that are lists: weak ones, or to other databases
/// ([`cross_references`](super::cross_refs::cross_references)).
pub fn references_beside_lists(record: &[u8], oids: &mut Vec<Oid>) -> Result<bool, String> {
    thread_local! {
        static MACHINE: RefCell<Machine> = RefCell::default();
    }
    MACHINE.with_borrow_mut(|machine| {
        machine.has_lists = false;
        machine.run(record, oids).map(|()| machine.has_lists)
    })
}

/// What the machine keeps of a value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Remembered {
    /// A memo index that was skipped.
    Unset,
    /// An object, or a value of another kind that is no persistent id.
    Other,
    /// A number, or a string whose length is not eight.
    Plain,
    Dict,
    /// A string of eight bytes.
    Oid(Oid),
    /// A tuple, with its first item if that is an oid.
    Tuple(Option<Oid>),
    List,
}

impl Remembered {
    fn string(bytes: &[u8]) -> Remembered {
        Oid::from_slice(bytes).map_or(Remembered::Plain, Remembered::Oid)
    }

    fn tuple(items: &[Remembered]) -> Remembered {
        match items.first() {
            Some(Remembered::Oid(oid)) => Remembered::Tuple(Some(*oid)),
            _ => Remembered::Tuple(None),
        }
    }
}

#[derive(Default)]
struct Machine {
    stack: Vec<Remembered>,
    /// Height of the stack at each open MARK.
    marks: Vec<usize>,
    memo: Vec<Remembered>,
    /// Memo entries with larger indexes than picklers use.
    far_memo: HashMap<u32, Remembered>,
    /// End of the current frame; an opcode must end there too.
    frame_end: Option<usize>,
    /// A persistent id of this record was a list.
    has_lists: bool,
}

/// What an opcode adds to a container.
enum Addition {
    Items,
    Pairs,
}

/// The record ends too early, or the stack is empty.
struct Broken;

impl Machine {
    fn run(&mut self, record: &[u8], oids: &mut Vec<Oid>) -> Result<(), String> {
        self.memo.clear();
        self.far_memo.clear();
        let mut lexer = Lexer::new(record);
        for _ in 0..2 {
            self.stack.clear();
            self.marks.clear();
            self.frame_end = None;
            while let Some(next) = self.step(&mut lexer, oids).transpose() {
                next.and_then(|()| self.leave_frame(lexer.end()))
                    .map_err(|what| what.message(lexer.end(), record.len()))?;
            }
            if self.frame_end.is_some_and(|end| end != lexer.end()) {
                return Err(Flaw::Frame.message(lexer.end(), record.len()));
            }
        }
        Ok(())
    }

    /// Executes one opcode. `None` after STOP.
    fn step(&mut self, lexer: &mut Lexer<'_>, oids: &mut Vec<Oid>) -> Result<Option<()>, Flaw> {
        let Token { opcode, argument, .. } = lexer.token()?;
        match argument {
            Argument::Nothing if opcode == STOP => {
                self.pop()?;
                return Ok(None);
            }
            Argument::Nothing => self.op(opcode, oids)?,
            Argument::Bool(_)
            | Argument::Int(_)
            | Argument::BigInt(_)
            | Argument::Digits(_)
            | Argument::Float(_)
            | Argument::ByteArray(_) => self.stack.push(Remembered::Plain),
            Argument::Str(bytes) | Argument::Bytes(bytes) => self.stack.push(Remembered::string(bytes)),
            Argument::Text(bytes) if is_text(bytes) => self.stack.push(Remembered::string(bytes)),
            Argument::Text(_) => return Err(Flaw::Value("text in UTF-8")),
            Argument::Line(line) => self.op_line(opcode, line, oids)?,
            Argument::Names { module, name } => {
                if !is_text(module) || !is_text(name) {
                    return Err(Flaw::Value("the name of a class"));
                }
                if opcode == INST {
                    self.pop_to_mark()?;
                }
                self.stack.push(Remembered::Other);
            }
            Argument::Index(index) => match opcode {
                PUT | BINPUT | LONG_BINPUT => self.put(index)?,
                _ => self.get(index)?,
            },
            Argument::Number(len) if opcode == FRAME => {
                let left = lexer.rest().len();
                let len = usize::try_from(len).ok().filter(|&len| len <= left).ok_or(Flaw::Short)?;
                if self.frame_end.replace(lexer.end() + len).is_some() {
                    return Err(Flaw::Frame);
                }
            }
            Argument::Number(_) if opcode == PROTO => {}
            // Codes of classes that only the application has registered.
            Argument::Number(_) => return Err(Flaw::Value("a class with its name")),
        }
        Ok(Some(()))
    }

    /// An opcode without an argument.
    fn op(&mut self, opcode: u8, oids: &mut Vec<Oid>) -> Result<(), Flaw> {
        match opcode {
            MARK => self.marks.push(self.stack.len()),
            POP => match self.marks.last() {
                Some(&mark) if mark == self.stack.len() => _ = self.marks.pop(),
                _ => _ = self.pop()?,
            },
            POP_MARK | ADDITEMS => self.pop_to_mark()?,
            DUP => {
                let top = self.top()?;
                self.stack.push(top);
            }
            NONE | EMPTY_SET => self.stack.push(Remembered::Other),
            NEWTRUE | NEWFALSE => self.stack.push(Remembered::Plain),
            EMPTY_DICT => self.stack.push(Remembered::Dict),
            EMPTY_LIST => self.stack.push(Remembered::List),
            EMPTY_TUPLE => self.stack.push(Remembered::Tuple(None)),
            TUPLE1 => self.tuple(1)?,
            TUPLE2 => self.tuple(2)?,
            TUPLE3 => self.tuple(3)?,
            TUPLE => {
                let mark = self.mark()?;
                let tuple = Remembered::tuple(self.stack.get(mark..).unwrap_or_default());
                self.stack.truncate(mark);
                self.stack.push(tuple);
            }
            LIST | DICT | FROZENSET | OBJ => {
                self.pop_to_mark()?;
                self.stack.push(match opcode {
                    LIST => Remembered::List,
                    DICT => Remembered::Dict,
                    _ => Remembered::Other,
                });
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
            BUILD => _ = self.pop()?,
            REDUCE | NEWOBJ | STACK_GLOBAL => {
                self.pop_many(2)?;
                self.stack.push(Remembered::Other);
            }
            NEWOBJ_EX => {
                self.pop_many(3)?;
                self.stack.push(Remembered::Other);
            }
            BINPERSID => {
                let id = self.pop()?;
                self.refer(id, oids)?;
                self.stack.push(Remembered::Other);
            }
            MEMOIZE => {
                let index = u32::try_from(self.memo.len() + self.far_memo.len()).map_err(|_| Broken)?;
                self.put(index)?;
            }
            NEXT_BUFFER | READONLY_BUFFER => return Err(Flaw::Value("data that is part of the record")),
            unknown => return Err(Flaw::Unknown(unknown)),
        }
        Ok(())
    }

    /// Strings of protocol 0, with escapes, and persistent references.
    fn op_line(&mut self, opcode: u8, line: &[u8], oids: &mut Vec<Oid>) -> Result<(), Flaw> {
        let mut characters = Eight::default();
        let broken = Flaw::Value("an escape sequence that is whole");
        match opcode {
            STRING => {
                let inner = unquoted(line).ok_or(Flaw::Value("a string in quotes"))?;
                unescape_string(inner, |byte| characters.push(byte.into())).ok_or(broken)?;
            }
            UNICODE => unescape_text(line, |code| characters.push(code)).ok_or(broken)?,
            _ => {
                self.refer(Remembered::string(line), oids)?;
                self.stack.push(Remembered::Other);
                return Ok(());
            }
        }
        self.stack.push(characters.item());
        Ok(())
    }

    /// Ends the frame, if it ends with the opcode that ends at `pos`.
    fn leave_frame(&mut self, pos: usize) -> Result<(), Flaw> {
        match self.frame_end {
            Some(end) if pos > end => return Err(Flaw::Frame),
            Some(end) if pos == end => self.frame_end = None,
            _ => {}
        }
        Ok(())
    }

    fn top(&self) -> Result<Remembered, Broken> {
        let floor = self.marks.last().copied().unwrap_or(0);
        self.stack.get(floor..).and_then(<[Remembered]>::last).copied().ok_or(Broken)
    }

    fn pop(&mut self) -> Result<Remembered, Broken> {
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
        let tuple = Remembered::tuple(self.stack.get(from..).unwrap_or_default());
        self.stack.truncate(from);
        self.stack.push(tuple);
        Ok(())
    }

    /// Whether the value on top of the stack accepts items, or keys with values.
    fn can_take(&self, addition: Addition) -> Result<(), Flaw> {
        match (self.top()?, addition) {
            (Remembered::Other, _)
            | (Remembered::List, Addition::Items)
            | (Remembered::Dict, Addition::Pairs) => Ok(()),
            _ => Err(Flaw::Value("a container")),
        }
    }

    fn put(&mut self, no: u32) -> Result<(), Broken> {
        let item = self.top()?;
        match usize::try_from(no) {
            Ok(no) if no < self.memo.len() => {
                if let Some(slot) = self.memo.get_mut(no) {
                    *slot = item;
                }
            }
            Ok(no) if no == self.memo.len() => self.memo.push(item),
            // Python 2 counts from 1, and some picklers skip indexes.
            Ok(no) if no <= self.memo.len() + 16 => {
                self.memo.resize(no, Remembered::Unset);
                self.memo.push(item);
            }
            _ => _ = self.far_memo.insert(no, item),
        }
        Ok(())
    }

    fn get(&mut self, no: u32) -> Result<(), Broken> {
        let near = usize::try_from(no).ok().and_then(|no| self.memo.get(no));
        let item = near.or_else(|| self.far_memo.get(&no)).copied();
        let item = item.filter(|item| *item != Remembered::Unset).ok_or(Broken)?;
        self.stack.push(item);
        Ok(())
    }

    /// Handles a persistent id.
    fn refer(&mut self, id: Remembered, oids: &mut Vec<Oid>) -> Result<(), Flaw> {
        match id {
            Remembered::Oid(oid) | Remembered::Tuple(Some(oid)) => oids.push(oid),
            Remembered::List => self.has_lists = true,
            Remembered::Other
            | Remembered::Plain
            | Remembered::Dict
            | Remembered::Unset
            | Remembered::Tuple(None) => return Err(Flaw::NoOid),
        }
        Ok(())
    }
}

/// Why a record cannot be read.
enum Flaw {
    Short,
    Stack,
    Unknown(u8),
    NoOid,
    Frame,
    /// The argument does not have the form that its opcode requires: this.
    Value(&'static str),
}

impl From<LexError> for Flaw {
    fn from(error: LexError) -> Flaw {
        match error {
            LexError::Cut => Flaw::Short,
            LexError::Unknown(opcode) => Flaw::Unknown(opcode),
            LexError::Expected(what) => Flaw::Value(what),
        }
    }
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

/// The characters of a string while it can be an oid: at most eight, each below 256.
#[derive(Default)]
struct Eight {
    bytes: [u8; 8],
    /// Number of characters; more than 8 if the string cannot be an oid.
    len: usize,
}

impl Eight {
    fn push(&mut self, character: u32) {
        match (self.bytes.get_mut(self.len), u8::try_from(character)) {
            (Some(slot), Ok(byte)) => {
                *slot = byte;
                self.len += 1;
            }
            _ => self.len = self.bytes.len() + 1,
        }
    }

    fn item(&self) -> Remembered {
        if self.len == self.bytes.len() {
            Remembered::Oid(Oid::from_bytes(self.bytes))
        } else {
            Remembered::Plain
        }
    }
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
        // The letters alone are no reference.
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
