//! Connection strings of the form `key = value key = 'a value'`.

use std::iter::Peekable;
use std::str::Chars;

use super::DsnError;

/// The pairs in their order. The same rules as libpq's: blanks around `=` are permitted, a value in quotes may have
/// blanks, a backslash takes the next character as it is. Errors name keys and positions, for a part that seems to be
/// a key may be the rest of a password.
pub fn parse(text: &str) -> Result<Vec<(String, String)>, DsnError> {
    let mut pairs = Vec::new();
    let mut rest = Scanner { chars: text.chars().peekable(), read: 0 };
    loop {
        rest.skip_blanks();
        if rest.chars.peek().is_none() {
            return Ok(pairs);
        }
        let start = rest.read + 1;
        let key = rest.key();
        rest.skip_blanks();
        if rest.next() != Some('=') {
            return Err(DsnError(format!(
                "the word that begins at character {start} has no '=' behind it; a value with blanks stands in single \
                 quotes"
            )));
        }
        rest.skip_blanks();
        let value = match rest.chars.peek() {
            Some('\'') => rest.quoted().ok_or_else(|| {
                DsnError(format!("the value of '{key}' begins with a quote and has none at its end"))
            })?,
            _ => rest.plain(),
        };
        pairs.push((key, value));
    }
}

struct Scanner<'a> {
    chars: Peekable<Chars<'a>>,
    /// Characters that are read.
    read: usize,
}

impl Scanner<'_> {
    fn next(&mut self) -> Option<char> {
        let next = self.chars.next();
        self.read += usize::from(next.is_some());
        next
    }

    fn next_if(&mut self, wanted: impl Fn(char) -> bool) -> Option<char> {
        if self.chars.peek().is_some_and(|c| wanted(*c)) { self.next() } else { None }
    }

    fn skip_blanks(&mut self) {
        while self.next_if(is_blank).is_some() {}
    }

    fn key(&mut self) -> String {
        let mut key = String::new();
        while let Some(c) = self.next_if(|c| c != '=' && !is_blank(c)) {
            key.push(c);
        }
        key
    }

    /// A value without quotes ends at a blank.
    fn plain(&mut self) -> String {
        let mut value = String::new();
        while let Some(c) = self.next_if(|c| !is_blank(c)) {
            // A backslash at the end stands for nothing.
            value.extend(if c == '\\' { self.next() } else { Some(c) });
        }
        value
    }

    fn quoted(&mut self) -> Option<String> {
        let mut value = String::new();
        self.next();
        loop {
            match self.next()? {
                '\'' => return Some(value),
                '\\' => value.extend(self.next()),
                c => value.push(c),
            }
        }
    }
}

/// What C's `isspace` takes for a blank.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\u{b}' | '\u{c}' | '\r')
}
