//! Values of the server's report as people read them, and tables.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde_json::Value;

use crate::base::numbers::local;
pub(super) use crate::base::numbers::{size, span};
use crate::base::untrusted::one_line;

/// A field; null if it is not there, for the server may be of another version.
pub(super) fn field<'a>(value: &'a Value, path: &[&str]) -> &'a Value {
    path.iter().fold(value, |value, key| value.get(key).unwrap_or(&Value::Null))
}

/// The number in a field; 0 if there is none.
pub(super) fn number(value: &Value, path: &[&str]) -> f64 {
    field(value, path).as_f64().unwrap_or(0.0)
}

/// The list in a field; empty if there is none.
pub(super) fn list<'a>(value: &'a Value, path: &[&str]) -> &'a [Value] {
    field(value, path).as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Text, safe for a terminal; `-` if there is none.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => one_line(300, format_args!("{text}")),
        Value::Null => "-".into(),
        other => other.to_string(),
    }
}

/// A number of seconds, or `-`.
pub(super) fn span_of(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".into(), span)
}

/// Local time, `2026-11-29 17:01:12`; `-` if there is none.
pub(super) fn time(unix: &Value) -> String {
    unix.as_f64().map_or_else(|| "-".into(), local)
}

/// Columns; numbers stand on the right.
pub(super) struct Columns {
    /// Whether the column stands on the right.
    on_the_right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Columns {
    /// A column whose title begins with `>` stands on the right.
    pub(super) fn new(titles: &[&str]) -> Columns {
        let on_the_right = titles.iter().map(|title| title.starts_with('>')).collect();
        let titles = titles.iter().map(|title| title.trim_start_matches('>').to_string()).collect();
        Columns { on_the_right, rows: vec![titles] }
    }

    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    /// All rows, or a sentence if there are none.
    pub(super) fn print_or(&self, out: &mut dyn Write, sentence: &str) -> io::Result<()> {
        if self.rows.len() == 1 { writeln!(out, "{sentence}") } else { self.print(out, usize::MAX) }
    }

    /// At most this many rows, besides the titles.
    pub(super) fn print(&self, out: &mut dyn Write, rows_max: usize) -> io::Result<()> {
        let shown = || self.rows.iter().take(rows_max.saturating_add(1));
        let width = |column: usize| {
            shown().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.on_the_right.len()).map(width).collect();
        for row in shown() {
            let mut line = String::new();
            for ((cell, width), on_the_right) in row.iter().zip(&widths).zip(&self.on_the_right) {
                // Writing to a String cannot fail.
                let _ = match on_the_right {
                    true => write!(line, "{cell:>width$}  "),
                    false => write!(line, "{cell:<width$}  "),
                };
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        let hidden = self.rows.len().saturating_sub(1).saturating_sub(rows_max);
        if hidden > 0 {
            writeln!(out, "... and {hidden} more")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_cells() {
        let mut table = Columns::new(&[">N", "NAME"]);
        for number in [7, 1234, 5] {
            table.row([number.to_string(), format!("name {number}")]);
        }
        let mut out = Vec::new();
        table.print(&mut out, 2).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "   N  NAME\n   7  name 7\n1234  name 1234\n... and 1 more\n"
        );
    }
}
