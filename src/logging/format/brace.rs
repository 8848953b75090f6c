//! `{name!r:>10}`: Python's `str.format` with its mini-language.

use super::field::{Field, FieldType};
use super::number;
use super::piece::{Piece, Pieces};
use super::text::{Align, digits, pad};
use super::value::FieldValue;

/// The part after the name in `{name!r:>10}`.
#[derive(Debug, Default)]
pub struct Conversion {
    /// `r`, `s` or `a`: conversion to text before formatting.
    made_text: Option<char>,
    fill: Option<char>,
    align: Option<Alignment>,
    sign: Option<char>,
    alternate: bool,
    zero: bool,
    width: usize,
    separator: Option<char>,
    precision: Option<usize>,
    kind: Option<char>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Alignment {
    Text(Align),
    /// Between the sign and the digits.
    AfterSign,
}

pub fn parse(format: &str) -> Result<Vec<Piece<Conversion>>, String> {
    let mut pieces = Pieces::new();
    let mut rest = format;
    while let Some(brace) = rest.find(['{', '}']) {
        let (text, from_brace) = rest.split_at(brace);
        pieces.text.push_str(text);
        if let Some(after) = from_brace.strip_prefix("{{") {
            pieces.text.push('{');
            rest = after;
            continue;
        }
        if let Some(after) = from_brace.strip_prefix("}}") {
            pieces.text.push('}');
            rest = after;
            continue;
        }
        let (inner, after) = from_brace
            .strip_prefix('{')
            .ok_or("a '}' stands alone; write '}}' for a brace")?
            .split_once('}')
            .ok_or("a '{' lacks its '}'; write '{{' for a brace")?;
        let (field, conversion) = replacement(inner)?;
        pieces.field(field, conversion);
        rest = after;
    }
    pieces.text.push_str(rest);
    Ok(pieces.finish())
}

/// Parses the text between two braces. A nested field is not supported: it is neither a name nor a specification.
fn replacement(inner: &str) -> Result<(Field, Option<Conversion>), String> {
    let (head, spec) = inner.split_once(':').unwrap_or((inner, ""));
    let (name, made_text) = match head.split_once('!') {
        Some((name, "r")) => (name, Some('r')),
        Some((name, "s")) => (name, Some('s')),
        Some((name, "a")) => (name, Some('a')),
        Some((_, other)) => return Err(format!("'!{other}' is no conversion; use !r, !s or !a")),
        None => (head, None),
    };
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(format!("'{{{head}}}' does not name its field; write '{{message}}' or the like"));
    }
    let field = Field::named(name)?;
    let kind = if made_text.is_some() { FieldType::Text } else { field.kind() };
    let conversion = Conversion::parse(spec)?.filter(|conversion| conversion.suits(kind));
    let Some(conversion) = conversion else {
        return Err(format!("':{spec}' does not suit the field '{name}'"));
    };
    let is_plain = spec.is_empty() && matches!(made_text, None | Some('s'));
    Ok((field, (!is_plain).then_some(Conversion { made_text, ..conversion })))
}

impl Conversion {
    /// `None` if it is no specification.
    fn parse(spec: &str) -> Result<Option<Conversion>, String> {
        let mut conversion = Conversion::default();
        let mut chars = spec.chars().peekable();
        let mut ahead = spec.chars();
        let (first, second) = (ahead.next(), ahead.next());
        if let (Some(fill), Some(align)) = (first, second.and_then(alignment)) {
            conversion.fill = Some(fill);
            conversion.align = Some(align);
            chars.nth(1);
        } else if let Some(align) = first.and_then(alignment) {
            conversion.align = Some(align);
            chars.next();
        }
        conversion.sign = chars.next_if(|c| matches!(c, '+' | '-' | ' '));
        conversion.alternate = chars.next_if_eq(&'#').is_some();
        conversion.zero = chars.next_if_eq(&'0').is_some();
        conversion.width = digits(&mut chars)?.unwrap_or(0);
        conversion.separator = chars.next_if(|c| matches!(c, ',' | '_'));
        if chars.next_if_eq(&'.').is_some() {
            let Some(precision) = digits(&mut chars)? else { return Ok(None) };
            conversion.precision = Some(precision);
        }
        conversion.kind = chars.next();
        Ok(chars.next().is_none().then_some(conversion))
    }

    /// Whether Python accepts this specification for such a value.
    fn suits(&self, value: FieldType) -> bool {
        match (value, self.kind) {
            (FieldType::Text, None | Some('s')) => {
                self.sign.is_none()
                    && !self.alternate
                    && self.separator.is_none()
                    && self.align != Some(Alignment::AfterSign)
            }
            (FieldType::Integer, None | Some('d' | 'n' | 'b' | 'o' | 'x' | 'X' | 'c')) => {
                let may_be_grouped = match self.separator {
                    None => true,
                    Some(',') => matches!(self.kind, None | Some('d')),
                    Some(_) => !matches!(self.kind, Some('n' | 'c')),
                };
                let is_bare_character = self.kind != Some('c') || self.sign.is_none() && !self.alternate;
                self.precision.is_none() && may_be_grouped && is_bare_character
            }
            (FieldType::Integer, Some('e' | 'E' | 'f' | 'F' | 'g' | 'G' | '%'))
            | (FieldType::Float, None | Some('e' | 'E' | 'f' | 'F' | 'g' | 'G' | 'n' | '%')) => {
                self.separator.is_none() || self.kind != Some('n')
            }
            (FieldType::Opaque, None) => self.is_empty(),
            _ => false,
        }
    }

    fn is_empty(&self) -> bool {
        self.align.is_none()
            && self.sign.is_none()
            && !self.alternate
            && !self.zero
            && self.width == 0
            && self.separator.is_none()
            && self.precision.is_none()
    }

    pub fn write(&self, value: &FieldValue<'_>, out: &mut String) {
        let mut text = String::new();
        match (self.made_text, value) {
            (Some('r'), value) => value.repr(false, &mut text),
            (Some('a'), value) => value.repr(true, &mut text),
            (Some(_), value) => value.str(&mut text),
            (None, FieldValue::Text(value)) => text.push_str(value),
            (None, FieldValue::Opaque(value)) => text.push_str(value),
            (None, FieldValue::Integer(_) | FieldValue::Float(_)) => return self.write_number(value, out),
        }
        if let Some(precision) = self.precision {
            text = text.chars().take(precision).collect();
        }
        let align = match self.align {
            Some(Alignment::Text(align)) => align,
            _ => Align::Left,
        };
        pad(&text, self.width, align, self.fill_char(), out);
    }

    fn fill_char(&self) -> char {
        self.fill.unwrap_or(if self.zero { '0' } else { ' ' })
    }

    fn write_number(&self, value: &FieldValue<'_>, out: &mut String) {
        let negative = value.float().is_sign_negative();
        let sign = match (negative, self.sign) {
            (true, _) => "-",
            (false, Some('+')) => "+",
            (false, Some(' ')) => " ",
            (false, _) => "",
        };
        let (prefix, mut digits) = match (value, self.kind) {
            (FieldValue::Integer(n), None | Some('d' | 'n')) => ("", n.unsigned_abs().to_string()),
            (FieldValue::Integer(n), Some('b')) => ("0b", format!("{:b}", n.unsigned_abs())),
            (FieldValue::Integer(n), Some('o')) => ("0o", format!("{:o}", n.unsigned_abs())),
            (FieldValue::Integer(n), Some('x')) => ("0x", format!("{:x}", n.unsigned_abs())),
            (FieldValue::Integer(n), Some('X')) => ("0X", format!("{:X}", n.unsigned_abs())),
            (FieldValue::Integer(n), Some('c')) => {
                let c = u32::try_from(*n).ok().and_then(char::from_u32);
                ("", c.unwrap_or(char::REPLACEMENT_CHARACTER).to_string())
            }
            _ => ("", self.float_digits(value.float().abs())),
        };
        let prefix = if self.alternate { prefix } else { "" };
        let after_sign = self.align == Some(Alignment::AfterSign) || (self.zero && self.align.is_none());
        if let Some(separator) = self.separator {
            // Leading zeros are grouped with the number.
            let by = if matches!(self.kind, Some('b' | 'o' | 'x' | 'X')) { 4 } else { 3 };
            let room = self.width.saturating_sub(sign.len() + prefix.len());
            let zeros = after_sign && self.fill_char() == '0';
            digits = number::group(&digits, separator, by, if zeros { room } else { 0 });
        }
        if after_sign {
            out.extend([sign, prefix]);
            let width = self.width.saturating_sub(sign.len() + prefix.len());
            pad(&digits, width, Align::Right, self.fill_char(), out);
        } else {
            let align = match self.align {
                Some(Alignment::Text(align)) => align,
                // A character is text here.
                _ if self.kind == Some('c') => Align::Left,
                _ => Align::Right,
            };
            pad(&format!("{sign}{prefix}{digits}"), self.width, align, self.fill_char(), out);
        }
    }

    fn float_digits(&self, size: f64) -> String {
        let precision = self.precision.unwrap_or(6);
        let digits = match self.kind.unwrap_or('r').to_ascii_lowercase() {
            'e' => number::exponential(size, precision, self.alternate),
            'f' => number::fixed(size, precision, self.alternate),
            '%' => number::fixed(size * 100.0, precision, self.alternate) + "%",
            'r' => match self.precision {
                None => number::repr(size),
                Some(precision) => number::general_with_point(size, precision, self.alternate),
            },
            _ => number::general(size, precision, self.alternate),
        };
        if self.kind.is_some_and(|kind| kind.is_ascii_uppercase()) {
            digits.to_ascii_uppercase()
        } else {
            digits
        }
    }
}

fn alignment(c: char) -> Option<Alignment> {
    Some(match c {
        '<' => Alignment::Text(Align::Left),
        '>' => Alignment::Text(Align::Right),
        '^' => Alignment::Text(Align::Center),
        '=' => Alignment::AfterSign,
        _ => return None,
    })
}
