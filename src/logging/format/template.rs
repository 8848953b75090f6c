//! `$name` and `${name}`: Python's `string.Template`.

use super::{Piece, Pieces, Shape, field};

/// What becomes of a `$` that names no field.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unknown {
    IsAnError,
    StaysAsItIs,
}

pub fn parse(format: &str, unknown: Unknown) -> Result<Vec<Piece>, String> {
    let mut pieces = Pieces::default();
    let mut rest = format;
    while let Some((text, after)) = rest.split_once('$') {
        pieces.text.push_str(text);
        if let Some(after) = after.strip_prefix('$') {
            pieces.text.push('$');
            rest = after;
            continue;
        }
        let named = braced(after).or_else(|| {
            let name = after.get(..identifier_len(after)).filter(|name| !name.is_empty())?;
            Some((name, name.len()))
        });
        let (found, len) = match named {
            Some((name, len)) => (field(name), len),
            None => (Err("a '$' that names no field; write $$ for a dollar sign".to_string()), 0),
        };
        match (found, unknown) {
            (Ok(field), _) => pieces.field(field, Shape::Plain),
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

/// The name in `{name}`, and the length with its braces.
fn braced(text: &str) -> Option<(&str, usize)> {
    let inner = text.strip_prefix('{')?;
    let len = identifier_len(inner);
    let name = inner.get(..len).filter(|name| !name.is_empty())?;
    inner.get(len..)?.starts_with('}').then_some((name, len + 2))
}

fn identifier_len(text: &str) -> usize {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return 0;
    }
    text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len())
}
