//! Text from outside on its way to a log line: from a client, a record, a certificate, a helper process.
//!
//! Such text must not be able to begin a line of its own, to send commands to the terminal that shows the log, to
//! reverse the text after it, or to fill the log with one line. So it is [`Untrusted`] from where it is decoded, whose
//! `Display` escapes and cuts it. Lines about a client are made by [`one_line`] as a whole. As a last protection every
//! message passes [`as_entry`].

use std::borrow::Cow;
use std::fmt::{self, Write};

/// Maximal length of [`Untrusted`], in bytes. Usual labels and names of storages, classes and users are shorter.
pub const LEN_MAX: usize = 200;

/// Prefix of each line of an entry except the first, so that none looks like the first line of an entry.
const CONTINUATION: &str = "  ";

/// Text from outside. `{}` shows it on one line, escaped and cut to about [`LEN_MAX`] bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Untrusted<'a>(pub &'a str);

impl fmt::Display for Untrusted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&one_line(LEN_MAX, format_args!("{}", self.0)))
    }
}

/// As [`Untrusted`] for bytes: those that are not printable ASCII are escaped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct UntrustedBytes<'a>(pub &'a [u8]);

impl fmt::Display for UntrustedBytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&one_line(LEN_MAX, format_args!("{}", self.0.escape_ascii())))
    }
}

/// The message as a single line of at most about `len_max` bytes. The rest is not even formatted.
pub fn one_line(len_max: usize, message: fmt::Arguments<'_>) -> String {
    let mut line = OneLine { text: String::new(), len_max };
    // An error means that the line is full.
    let _ = line.write_fmt(message);
    line.text
}

struct OneLine {
    text: String,
    len_max: usize,
}

impl Write for OneLine {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        for c in more.chars() {
            if self.text.len() >= self.len_max {
                self.text.push('…');
                return Err(fmt::Error);
            }
            push(c, &mut self.text);
        }
        Ok(())
    }
}

/// A whole message for the log. Line feeds and tabs stay, for tracebacks, but each further line is indented.
pub fn as_entry(message: &str) -> Cow<'_, str> {
    // The usual case.
    if message.chars().all(|c| !is_active(c)) {
        return Cow::Borrowed(message);
    }
    let mut shown = String::with_capacity(message.len() + 16);
    for c in message.chars() {
        match c {
            '\n' => shown.extend(["\n", CONTINUATION]),
            '\t' => shown.push('\t'),
            c => push(c, &mut shown),
        }
    }
    Cow::Owned(shown)
}

fn push(c: char, out: &mut String) {
    if is_active(c) { out.extend(c.escape_default()) } else { out.push(c) }
}

/// Whether a character has an effect on the text around it: control characters, line separators, and marks of
/// direction, which reverse the text after them.
fn is_active(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}')
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_writes_lines_of_the_log_but_us() {
        let shown = |text: &str| Untrusted(text).to_string();
        assert_eq!(shown("Zope 4, größer"), "Zope 4, größer");
        assert_eq!(shown("a\n2026-11-26 CRITICAL x\r\u{85}"), "a\\n2026-11-26 CRITICAL x\\r\\u{85}");
        assert_eq!(shown("\u{1b}[2J\u{202e}\u{2028}\t"), "\\u{1b}[2J\\u{202e}\\u{2028}\\t");
        let long = shown(&"é".repeat(1 << 20));
        assert!(long.len() < LEN_MAX + 10 && long.ends_with("é…"), "{}", long.len());
        assert_eq!(shown(&"x".repeat(LEN_MAX)), "x".repeat(LEN_MAX));
        assert_eq!(UntrustedBytes(b"a\n\xff").to_string(), "a\\n\\xff");
        assert!(UntrustedBytes(&[0; 1 << 20]).to_string().len() < LEN_MAX + 10);
    }

    #[test]
    fn an_entry_of_several_lines_is_one_entry() {
        assert_eq!(as_entry("größer, 5 %"), "größer, 5 %");
        assert!(matches!(as_entry("plain"), Cow::Borrowed(_)));
        assert_eq!(
            as_entry("error\nTraceback:\n\tx\r\n------\n2026-11-26 CRITICAL forged\u{1b}[2J"),
            "error\n  Traceback:\n  \tx\\r\n  ------\n  2026-11-26 CRITICAL forged\\u{1b}[2J"
        );
    }

    #[test]
    fn a_line_is_not_made_beyond_its_end() {
        struct Endless;
        impl fmt::Display for Endless {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                loop {
                    f.write_str("x\n")?;
                }
            }
        }
        assert_eq!(one_line(6, format_args!("a{Endless}b")), "ax\\nx\\n…");
    }
}
