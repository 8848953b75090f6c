//! The ZConfig language: text with sections, keys, definitions and includes, checked against tables.
//!
//! [`parse`] turns text into a [`tree`] of sections that remember their file and line, with every
//! `%define`, `%include` and `$name` ([`define`], [`mod@include`]) resolved; [`overrides`] puts command line settings
//! (`-X`) on top; [`matcher`] compares the tree with the tables of a schema; [`datatypes`] turns texts into values.
//! Which sections and keys exist is known to `config::schema` alone. Verdicts are those of Python's ZConfig; messages
//! are our own and begin with `path:line:`.

pub mod accounts;
pub mod datatypes;
pub mod define;
mod error;
pub mod include;
pub mod matcher;
pub mod overrides;
pub mod parse;
pub mod suggest;
pub mod tree;

pub use error::ConfigError;
pub use parse::{Surroundings, load, load_path};
pub use tree::{Location, Section};

/// A text in quotes as Python's `repr` shows it, so that blanks and control characters can be seen.
pub fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut shown = String::with_capacity(text.len() + 2);
    shown.push(quote);
    for c in text.chars() {
        match c {
            '\\' => shown.push_str("\\\\"),
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            c if c == quote => {
                shown.push('\\');
                shown.push(c);
            }
            c if c.is_control() => shown.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => shown.push(c),
        }
    }
    shown.push(quote);
    shown
}

/// White space as Python's `str.isspace` and `\s` have it.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}
