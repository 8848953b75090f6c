//! `%(name)s`: Python's printf-like formatting of a mapping.

use std::iter::Peekable;
use std::str::Chars;

use super::field::{Field, FieldType};
use super::number;
use super::piece::{Piece, Pieces};
use super::text::{Align, digits, pad};
use super::value::FieldValue;

/// The part after the name in `%(name)-8.3s`.
#[derive(Debug, Default)]
pub struct Conversion {
    left: bool,
    plus: bool,
    blank: bool,
    zero: bool,
    alternate: bool,
    width: usize,
    precision: Option<usize>,
    /// The conversion letter.
    kind: char,
}

pub fn parse(format: &str) -> Result<Vec<Piece<Conversion>>, String> {
    let mut pieces = Pieces::new();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            pieces.text.push(c);
            continue;
        }
        let name = match chars.next_if_eq(&'(') {
            Some(_) => Some(name(&mut chars)?),
            None => None,
        };
        let conversion = Conversion::parse(&mut chars)?;
        match (name, conversion.kind) {
            (_, '%') => pieces.text.push('%'),
            (None, kind) => {
                return Err(format!("'%{kind}' names no field; write '%(message){kind}' or the like"));
            }
            (Some(name), kind) => {
                let field = Field::named(&name)?;
                if !conversion.suits(field.kind()) {
                    return Err(format!("'%({name}){kind}' does not suit this field; use '%({name})s'"));
                }
                pieces.field(field, (!conversion.is_plain()).then_some(conversion));
            }
        }
    }
    Ok(pieces.finish())
}

/// The name up to its closing parenthesis. Nested parentheses are counted, as in Python.
fn name(chars: &mut Peekable<Chars<'_>>) -> Result<String, String> {
    let mut name = String::new();
    let mut depth = 1;
    for c in chars {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Ok(name);
        }
        name.push(c);
    }
    Err("a '%(' lacks its ')'".to_string())
}

impl Conversion {
    fn parse(chars: &mut Peekable<Chars<'_>>) -> Result<Conversion, String> {
        let mut conversion = Conversion::default();
        while let Some(flag) = chars.peek() {
            match flag {
                '-' => conversion.left = true,
                '+' => conversion.plus = true,
                ' ' => conversion.blank = true,
                '0' => conversion.zero = true,
                '#' => conversion.alternate = true,
                _ => break,
            }
            chars.next();
        }
        conversion.width = digits(chars)?.unwrap_or(0);
        if chars.next_if_eq(&'.').is_some() {
            conversion.precision = Some(digits(chars)?.unwrap_or(0));
        }
        // One length modifier is allowed and ignored.
        let _ = chars.next_if(|c| matches!(c, 'h' | 'l' | 'L'));
        match chars.next() {
            Some(kind) if "diouxXeEfFgGcrsa%".contains(kind) => conversion.kind = kind,
            Some(kind) => {
                return Err(format!("'%{kind}' is no conversion; write '%%' for a per cent sign"));
            }
            None => {
                return Err("it ends within a '%' conversion; write '%%' for a per cent sign".to_string());
            }
        }
        Ok(conversion)
    }

    fn suits(&self, value: FieldType) -> bool {
        match self.kind {
            'r' | 's' | 'a' => true,
            'd' | 'i' | 'u' | 'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
                matches!(value, FieldType::Integer | FieldType::Float)
            }
            _ => value == FieldType::Integer,
        }
    }

    fn is_plain(&self) -> bool {
        self.kind == 's' && self.width == 0 && self.precision.is_none()
    }

    pub fn write(&self, value: &FieldValue<'_>, out: &mut String) {
        let mut text = String::new();
        match self.kind {
            's' => value.str(&mut text),
            'r' => value.repr(false, &mut text),
            'a' => value.repr(true, &mut text),
            'c' => {
                let code = u32::try_from(value.integer()).ok();
                text.push(code.and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            _ => return self.write_number(value, out),
        }
        if let Some(precision) = self.precision.filter(|_| self.kind != 'c') {
            text = text.chars().take(precision).collect();
        }
        pad(&text, self.width, if self.left { Align::Left } else { Align::Right }, ' ', out);
    }

    fn write_number(&self, value: &FieldValue<'_>, out: &mut String) {
        let (negative, prefix, digits) = match self.kind {
            'd' | 'i' | 'u' | 'o' | 'x' | 'X' => {
                let n = value.integer();
                let size = n.unsigned_abs();
                let (prefix, digits) = match self.kind {
                    'o' => ("0o", format!("{size:o}")),
                    'x' => ("0x", format!("{size:x}")),
                    'X' => ("0X", format!("{size:X}")),
                    _ => ("", size.to_string()),
                };
                let prefix = if self.alternate { prefix } else { "" };
                (n < 0, prefix, format!("{digits:0>width$}", width = self.precision.unwrap_or(0)))
            }
            _ => {
                let x = value.float();
                let precision = self.precision.unwrap_or(6);
                let size = x.abs();
                let digits = match self.kind.to_ascii_lowercase() {
                    'e' => number::exponential(size, precision, self.alternate),
                    'g' => number::general(size, precision, self.alternate),
                    _ => number::fixed(size, precision, self.alternate),
                };
                let digits =
                    if self.kind.is_ascii_uppercase() { digits.to_ascii_uppercase() } else { digits };
                (x.is_sign_negative(), "", digits)
            }
        };
        let sign = match (negative, self.plus, self.blank) {
            (true, _, _) => "-",
            (false, true, _) => "+",
            (false, false, true) => " ",
            (false, false, false) => "",
        };
        if self.zero && !self.left {
            let width = self.width.saturating_sub(sign.len() + prefix.len());
            out.extend([sign, prefix]);
            pad(&digits, width, Align::Right, '0', out);
        } else {
            let align = if self.left { Align::Left } else { Align::Right };
            pad(&format!("{sign}{prefix}{digits}"), self.width, align, ' ', out);
        }
    }
}
