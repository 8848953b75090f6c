//! `$name` and `${name}`: Python's `string.Template`.

use super::field::Field;
use super::piece::{Piece, Pieces};

/// How to treat a `$` that names no field.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unknown {
    IsAnError,
    StaysAsItIs,
}

/// Parses a format of this language, whose fields have no conversions; `C` is arbitrary.
pub fn parse<C>(format: &str, unknown: Unknown) -> Result<Vec<Piece<C>>, String> {
    let mut pieces = Pieces::new();
    let mut rest = format;
    while let Some((text, after)) = rest.split_once('$') {
        pieces.text.push_str(text);
        if let Some(after) = after.strip_prefix('$') {
            pieces.text.push('$');
            rest = after;
            continue;
        }
        let (found, len) = match name(after) {
            Ok((name, len)) => (Field::named(name), len),
            Err(problem) => (Err(problem), 0),
        };
        match (found, unknown) {
            (Ok(field), _) => pieces.field(field, None),
            (Err(problem), Unknown::IsAnError) => return Err(problem),
            (Err(_), Unknown::StaysAsItIs) => {
                pieces.text.push('$');
                pieces.text.push_str(after.get(..len).unwrap_or_default());
            }
        }
        rest = after.get(len..).unwrap_or_default();
    }
    pieces.text.push_str(rest);
    Ok(pieces.finish())
}

/// The name at the start of `text`, and its length in bytes including braces. `None` if there is none.
fn name(text: &str) -> Result<(&str, usize), String> {
    let braced = text.strip_prefix('{');
    let inner = braced.unwrap_or(text);
    let (name, after) = inner.split_at(identifier_len(inner));
    if name.is_empty() {
        return Err("a '$' is not followed by the name of a field; write '$$' for a dollar sign".to_string());
    }
    match braced {
        Some(_) if after.starts_with('}') => Ok((name, name.len() + 2)),
        Some(_) => Err(format!("'${{{name}' lacks its '}}'")),
        None => Ok((name, name.len())),
    }
}

fn identifier_len(text: &str) -> usize {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return 0;
    }
    text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len())
}
