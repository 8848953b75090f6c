//! A field's value, and how Python prints it.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::number;

/// A value to be formatted.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldValue<'a> {
    Text(Cow<'a, str>),
    Integer(i64),
    Float(f64),
    /// A value that has only a text.
    Opaque(&'static str),
}

impl<'a> FieldValue<'a> {
    pub fn text(text: &'a str) -> FieldValue<'a> {
        FieldValue::Text(Cow::Borrowed(text))
    }

    /// Appends the value as Python's `str()`.
    pub(super) fn str(&self, out: &mut String) {
        match self {
            FieldValue::Text(text) => out.push_str(text),
            FieldValue::Integer(n) => {
                let _ = write!(out, "{n}");
            }
            FieldValue::Float(x) => out.push_str(&number::repr(*x)),
            FieldValue::Opaque(text) => out.push_str(text),
        }
    }

    /// Appends the value as Python's `repr()`; with `ascii`, as its `ascii()`.
    pub(super) fn repr(&self, ascii: bool, out: &mut String) {
        let FieldValue::Text(text) = self else { return self.str(out) };
        let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
        out.push(quote);
        for c in text.chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                c if c == quote => out.extend(['\\', c]),
                ' '..='~' => out.push(c),
                c if !ascii && !c.is_control() => out.push(c),
                c => escape(c, out),
            }
        }
        out.push(quote);
    }

    /// The value as an integer; floats are truncated, as by Python's `%d`.
    pub(super) fn integer(&self) -> i64 {
        match self {
            FieldValue::Integer(n) => *n,
            #[allow(clippy::cast_possible_truncation)] // saturates, and times are far from there
            FieldValue::Float(x) => *x as i64,
            FieldValue::Text(_) | FieldValue::Opaque(_) => 0,
        }
    }

    pub(super) fn float(&self) -> f64 {
        match self {
            #[allow(clippy::cast_precision_loss)] // as in Python
            FieldValue::Integer(n) => *n as f64,
            FieldValue::Float(x) => *x,
            FieldValue::Text(_) | FieldValue::Opaque(_) => 0.0,
        }
    }
}

fn escape(c: char, out: &mut String) {
    let code = u32::from(c);
    let _ = match code {
        0..=0xff => write!(out, "\\x{code:02x}"),
        0x100..=0xffff => write!(out, "\\u{code:04x}"),
        _ => write!(out, "\\U{code:08x}"),
    };
}
