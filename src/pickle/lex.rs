//! The tokens of a pickle: opcodes and their arguments. Only this module decodes how many bytes an opcode takes and
//! what its argument means; the effect of opcodes on the stack is in the reader of each kind of pickle.
//!
//! The time for a token is proportional to its bytes, and it takes no memory: strings are borrowed. `pos` is the offset
//! of the current opcode, here and in all readers of pickles.

use super::number::{digits, widened};
use super::opcode::{FORMS, Form, INT};
use crate::base::bytes::Reader;

/// An opcode.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Token<'a> {
    /// Offset of the opcode.
    pub pos: usize,
    pub opcode: u8,
    pub argument: Argument<'a>,
}

/// The argument of an opcode.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Argument<'a> {
    Nothing,
    Bool(bool),
    /// An integer of up to 64 bits, in any form.
    Int(i64),
    /// A longer integer: two's complement, little endian.
    BigInt(&'a [u8]),
    /// A longer integer: decimal digits, perhaps with a sign.
    Digits(&'a [u8]),
    Float(f64),
    /// `str` of Python 2.
    Str(&'a [u8]),
    Bytes(&'a [u8]),
    ByteArray(&'a [u8]),
    /// Should be UTF-8, perhaps with surrogates; not checked.
    Text(&'a [u8]),
    /// A line, without the line feed.
    Line(&'a [u8]),
    /// Module and name of a class; not checked.
    Names {
        module: &'a [u8],
        name: &'a [u8],
    },
    /// An index of the memo.
    Index(u32),
    /// A code of the extension registry, a protocol, or the length of a frame.
    Number(u64),
}

impl Argument<'_> {
    /// A non-negative integer.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Argument::Int(value) => u64::try_from(*value).ok(),
            Argument::BigInt(bytes) => u64::try_from(i128::from_le_bytes(widened(bytes)?)).ok(),
            Argument::Digits(digits) => str::from_utf8(digits).ok()?.parse().ok(),
            _ => None,
        }
    }
}

/// Why there is no token.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LexError {
    /// The bytes end within an opcode or its argument, or before STOP.
    Cut,
    /// There is no such opcode.
    Unknown(u8),
    /// The argument does not have the form that the opcode requires: this.
    Expected(&'static str),
}

/// Reads tokens from the front of a slice.
#[derive(Clone, Copy, Debug)]
pub struct Lexer<'a> {
    reader: Reader<'a>,
}

/// The newest protocol that is read.
const PROTOCOL_MAX: u8 = 5;

impl<'a> Lexer<'a> {
    #[inline]
    pub fn new(source: &'a [u8]) -> Lexer<'a> {
        Lexer { reader: Reader::new(source) }
    }

    /// Starts in the middle of a slice, or at its end.
    #[inline]
    pub fn at(source: &'a [u8], pos: usize) -> Lexer<'a> {
        let mut reader = Reader::new(source);
        if reader.take(pos).is_none() {
            reader.take(source.len());
        }
        Lexer { reader }
    }

    /// Offset behind the last token, which is the offset of the next opcode.
    #[inline]
    pub fn end(&self) -> usize {
        self.reader.pos()
    }

    /// The rest of the slice.
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        self.reader.rest()
    }

    /// The bytes of the tokens since the offset `pos`.
    #[inline]
    pub fn since(&self, pos: usize) -> &'a [u8] {
        self.reader.since(pos)
    }

    /// The next token; none follows an error.
    // Inlined into each reader: then the compiler joins this choice of an argument with the reader's own, and
    // no token is built.
    #[inline(always)]
    pub fn token(&mut self) -> Result<Token<'a>, LexError> {
        let pos = self.reader.pos();
        let opcode = self.opcode()?;
        Ok(Token { pos, opcode, argument: self.argument(opcode)? })
    }

    /// The opcode of the next token, whose [`Lexer::argument`] is still to be read.
    #[inline(always)]
    pub fn opcode(&mut self) -> Result<u8, LexError> {
        self.reader.u8().ok_or(LexError::Cut)
    }

    /// An argument of `N` bytes, in place of [`Lexer::argument`].
    #[inline(always)]
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.reader.array()
    }

    /// An argument behind a length of one byte, in place of [`Lexer::argument`].
    #[inline(always)]
    pub fn counted1(&mut self) -> Option<&'a [u8]> {
        let len = self.reader.u8()?;
        self.reader.take(len.into())
    }

    /// An argument behind an unsigned length of four bytes, in place of [`Lexer::argument`].
    #[inline(always)]
    pub fn counted4(&mut self) -> Option<&'a [u8]> {
        let len = self.reader.u32_le()?;
        take(&mut self.reader, len.into())
    }

    /// The argument of the opcode that was read last.
    #[inline(always)]
    pub fn argument(&mut self, opcode: u8) -> Result<Argument<'a>, LexError> {
        let form = FORMS.get(usize::from(opcode)).copied().flatten().ok_or(LexError::Unknown(opcode))?;
        let r = &mut self.reader;
        let argument = match form {
            Form::Nothing => Some(Argument::Nothing),
            Form::Int1 => r.u8().map(|value| Argument::Int(value.into())),
            Form::Int2 => r.u16_le().map(|value| Argument::Int(value.into())),
            Form::Int4 => r.array().map(|bytes| Argument::Int(i32::from_le_bytes(bytes).into())),
            Form::Float8 => r.array().map(|bytes| Argument::Float(f64::from_be_bytes(bytes))),
            Form::Str1 => self.counted1().map(Argument::Str),
            Form::Str4 => signed_len(r)?.and_then(|len| r.take(len)).map(Argument::Str),
            Form::Bytes1 => self.counted1().map(Argument::Bytes),
            Form::Bytes4 => self.counted4().map(Argument::Bytes),
            Form::Bytes8 => r.u64_le().and_then(|len| take(r, len)).map(Argument::Bytes),
            Form::ByteArray8 => r.u64_le().and_then(|len| take(r, len)).map(Argument::ByteArray),
            Form::Text1 => self.counted1().map(Argument::Text),
            Form::Text4 => self.counted4().map(Argument::Text),
            Form::Text8 => r.u64_le().and_then(|len| take(r, len)).map(Argument::Text),
            Form::Index1 => r.u8().map(|index| Argument::Index(index.into())),
            Form::Index4 => r.u32_le().map(Argument::Index),
            Form::Long1 => r.u8().and_then(|len| r.take(len.into())).map(long),
            Form::Long4 => signed_len(r)?.and_then(|len| r.take(len)).map(long),
            Form::Code1 => r.u8().map(|code| Argument::Number(code.into())),
            Form::Code2 => r.u16_le().map(|code| Argument::Number(code.into())),
            Form::Code4 => r.u32_le().map(|code| Argument::Number(code.into())),
            Form::Length8 => r.u64_le().map(Argument::Number),
            Form::Protocol => match r.u8() {
                Some(protocol) if protocol > PROTOCOL_MAX => {
                    return Err(LexError::Expected("a protocol that is known"));
                }
                protocol => protocol.map(|protocol| Argument::Number(protocol.into())),
            },
            Form::Line | Form::Names | Form::IntLine | Form::LongLine | Form::FloatLine | Form::IndexLine => {
                return line(r, opcode, form);
            }
        };
        argument.ok_or(LexError::Cut)
    }
}

/// A length of four bytes, which is signed in Python and refused if negative.
#[inline(always)]
fn signed_len(r: &mut Reader<'_>) -> Result<Option<usize>, LexError> {
    match r.array().map(i32::from_le_bytes).map(usize::try_from) {
        Some(Err(_)) => Err(LexError::Expected("a length that is not negative")),
        len => Ok(len.and_then(Result::ok)),
    }
}

#[inline(always)]
fn take<'a>(r: &mut Reader<'a>, len: u64) -> Option<&'a [u8]> {
    r.take(usize::try_from(len).ok()?)
}

#[inline(always)]
fn long(bytes: &[u8]) -> Argument<'_> {
    widened(bytes).map_or(Argument::BigInt(bytes), |wide| Argument::Int(i64::from_le_bytes(wide)))
}

/// The arguments of protocol 0: text up to a line feed.
#[inline(never)]
fn line<'a>(r: &mut Reader<'a>, opcode: u8, form: Form) -> Result<Argument<'a>, LexError> {
    let line = r.line().ok_or(LexError::Cut)?;
    let text = || str::from_utf8(line.trim_ascii()).ok();
    match form {
        Form::Names => {
            let name = r.line().ok_or(LexError::Cut)?;
            Ok(Argument::Names { module: line, name })
        }
        Form::FloatLine => text()
            .and_then(|text| text.parse().ok())
            .map(Argument::Float)
            .ok_or(LexError::Expected("a float")),
        Form::IndexLine => text()
            .and_then(|text| text.parse().ok())
            .map(Argument::Index)
            .ok_or(LexError::Expected("an index of the memo")),
        Form::IntLine | Form::LongLine => match (opcode, line) {
            (INT, b"00") => Ok(Argument::Bool(false)),
            (INT, b"01") => Ok(Argument::Bool(true)),
            _ => {
                let digits = digits(line, form == Form::LongLine).ok_or(LexError::Expected("an integer"))?;
                let number = str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
                Ok(number.map_or(Argument::Digits(digits), Argument::Int))
            }
        },
        _ => Ok(Argument::Line(line)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(pickle: &[u8]) -> Result<Argument<'_>, LexError> {
        Lexer::new(pickle).token().map(|token| token.argument)
    }

    #[test]
    fn integers_of_every_form() {
        for (pickle, expected) in [
            (&b"K\xff"[..], 255),
            (b"M\xff\xff", 0xffff),
            (b"J\xff\xff\xff\xff", -1),
            (b"I-5\n", -5),
            (b"L7L\n", 7),
            (b"L7\n", 7),
            (b"\x8a\x00", 0),
            (b"\x8a\x01\xff", -1),
            (b"\x8a\x02\xff\x00", 255),
            (b"\x8b\x01\0\0\0\x80", -128),
        ] {
            assert_eq!(one(pickle), Ok(Argument::Int(expected)), "{}", pickle.escape_ascii());
        }
        let big = one(b"\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\0").unwrap();
        assert_eq!((big.as_u64(), one(b"J\xff\xff\xff\xff").unwrap().as_u64()), (Some(u64::MAX), None));
        assert_eq!(one(b"L18446744073709551615L\n").unwrap().as_u64(), Some(u64::MAX));
        assert_eq!(one(b"I00\n"), Ok(Argument::Bool(false)));
        assert_eq!(one(b"L01\n"), Ok(Argument::Int(1)));
        for pickle in [&b"I5L\n"[..], b"I\n", b"L-\n", b"L1x\n"] {
            assert_eq!(one(pickle), Err(LexError::Expected("an integer")), "{}", pickle.escape_ascii());
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        for cut in
            [&b""[..], b"K", b"U\x05abcd", b"cm\nC", b"\x8a\x02\x01", b"X\xff\xff\xff\xff", b"G1234567"]
        {
            assert_eq!(one(cut), Err(LexError::Cut), "{}", cut.escape_ascii());
        }
        assert_eq!(one(b"\xff"), Err(LexError::Unknown(0xff)));
        assert_eq!(one(b"\x80\x06"), Err(LexError::Expected("a protocol that is known")));
        assert_eq!(one(b"T\xff\xff\xff\xff"), Err(LexError::Expected("a length that is not negative")));
        let mut lexer = Lexer::at(b"N.K\x05", 2);
        assert_eq!(lexer.token().map(|token| (token.pos, token.opcode)), Ok((2, b'K')));
        assert_eq!((lexer.end(), lexer.since(2)), (4, &b"K\x05"[..]));
        assert_eq!(Lexer::at(b"N", 9).token(), Err(LexError::Cut));
    }
}
