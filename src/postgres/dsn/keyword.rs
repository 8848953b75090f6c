//! Connection strings of the form `key = value key = 'a value'`.

use std::iter::Peekable;
use std::str::Chars;

use super::error::DsnError;
use super::keys;
use crate::base::untrusted::Untrusted;

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

/// Refuses keys that there are not. A key that stands behind a password may be a part of it, so it is not shown.
pub fn check_keys(pairs: &[(String, String)]) -> Result<(), DsnError> {
    let mut is_behind_password = false;
    for (at, (key, _)) in pairs.iter().enumerate() {
        if !keys::exists(key) {
            return Err(DsnError(match is_behind_password {
                true => format!(
                    "setting {} has an unknown key; a password with blanks or quotes must stand in single quotes, with \
                     a backslash in front of quotes and backslashes in it",
                    at + 1
                ),
                false => format!("unknown key '{}'", Untrusted(key)),
            }));
        }
        is_behind_password |= key == "password" || key == "sslpassword";
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_backslashes_are_libpqs() {
        let pairs = |text: &str| {
            let pairs = parse(text).expect(text);
            pairs.into_iter().map(|(key, value)| format!("{key}|{value}")).collect::<Vec<_>>().join(" ; ")
        };
        assert_eq!(pairs(""), "");
        assert_eq!(pairs("host=a port = 5 user= b"), "host|a ; port|5 ; user|b");
        assert_eq!(pairs(r"password='it\'s \\ here' user=a\ b"), r"password|it's \ here ; user|a b");
        assert_eq!(pairs("dbname='' user='x'host=y"), "dbname| ; user|x ; host|y");
        assert_eq!(pairs("a=b=c\td=\n'e\nf'"), "a|b=c ; d|e\nf");
        assert_eq!(pairs("a=b'c a=\\"), "a|b'c ; a|");
    }

    #[test]
    fn errors_show_no_password() {
        for text in [
            "password=my secret",
            "password=my se=cret",
            "password='secret",
            "secret",
            "password=x secret=y",
            "host=a password='x' secret",
        ] {
            let error = parse(text).and_then(|pairs| check_keys(&pairs)).expect_err(text);
            assert!(!error.0.contains("secret") && !error.0.contains("se="), "{text}: {error}");
        }
        let error = check_keys(&parse("hots=a password=x").expect("pairs")).expect_err("no such key");
        assert_eq!(error.0, "unknown key 'hots'");
    }
}
