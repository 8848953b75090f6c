//! The format languages for log lines: Python's `%(name)s`, `{name}` and `$name`, and JSON.
//!
//! A format is parsed once. [`Formatter::new`] refuses a format that does not suit every entry; Python's server tries
//! the format on a sample. Formatting an entry cannot fail.

mod brace;
pub mod field;
mod json;
mod number;
mod percent;
mod piece;
mod template;
#[cfg(test)]
mod tests;
mod text;
pub mod value;

/// `repr` of a float in Python.
pub use self::number::repr as python_float;

use std::ffi::CString;
use std::fmt;

use super::entry::Entry;
use crate::base::local_time::LocalTime;
use field::Field;
use piece::Piece;
use value::FieldValue;

/// The format of a `<logfile>` without one, and of a server without `<eventlog>`.
pub const DEFAULT_FORMAT: &str = "------\n%(asctime)s %(levelname)s %(name)s %(message)s";

/// The date format that belongs to `DEFAULT_FORMAT`.
pub const DEFAULT_DATE_FORMAT: &str = "%Y-%m-%dT%H:%M:%S";

/// The format of lines that are JSON, as configured.
pub const JSON: &str = "json";

/// How a log line looks, as configured.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Layout {
    /// Escapes are resolved: `\n` is a line feed.
    pub format: String,
    /// In `strftime`'s language; empty: Python's own form, with milliseconds.
    pub dateformat: String,
    pub style: Style,
}

impl Default for Layout {
    fn default() -> Layout {
        Layout {
            format: DEFAULT_FORMAT.to_string(),
            dateformat: DEFAULT_DATE_FORMAT.to_string(),
            style: Style::Classic,
        }
    }
}

/// The language of [`Layout::format`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Style {
    /// `%(message)s`
    #[default]
    Classic,
    /// `{message}`
    Format,
    /// `$message`; an unknown `$` is an error.
    Template,
    /// `$message`; an unknown `$` stays as text.
    SafeTemplate,
    /// An object of its own; [`Layout::format`] has no part in it.
    Json,
}

impl Style {
    /// The format that an empty one stands for.
    pub fn default_format(self) -> &'static str {
        match self {
            Style::Classic => "%(message)s",
            Style::Format => "{message}",
            Style::Template | Style::SafeTemplate => "${message}",
            Style::Json => JSON,
        }
    }
}

/// Why a layout cannot be used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FormatError {
    /// The configuration key that is wrong.
    pub key: &'static str,
    /// Its text.
    pub text: String,
    pub problem: String,
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "log {} {:?}: {}", self.key, self.text, self.problem)
    }
}

impl std::error::Error for FormatError {}

/// A parsed [`Layout`].
#[derive(Debug)]
pub struct Formatter {
    /// `None`: JSON.
    pieces: Option<Vec<Piece<Conversion>>>,
    /// `None`: Python's own form, with milliseconds.
    dateformat: Option<CString>,
}

/// How a value is formatted.
#[derive(Debug)]
enum Conversion {
    Percent(percent::Conversion),
    Brace(brace::Conversion),
}

impl Formatter {
    pub fn new(layout: &Layout) -> Result<Formatter, FormatError> {
        let Layout { format, dateformat, style } = layout;
        let pieces = match style {
            Style::Classic => percent::parse(format)
                .map(|pieces| pieces.into_iter().map(|piece| piece.map(Conversion::Percent)).collect()),
            Style::Format => brace::parse(format)
                .map(|pieces| pieces.into_iter().map(|piece| piece.map(Conversion::Brace)).collect()),
            Style::Template => template::parse(format, template::Unknown::IsAnError),
            Style::SafeTemplate => template::parse(format, template::Unknown::StaysAsItIs),
            Style::Json => return Ok(Formatter { pieces: None, dateformat: None }),
        };
        let pieces =
            pieces.map_err(|problem| FormatError { key: "format", text: format.clone(), problem })?;
        let dateformat = match dateformat.as_str() {
            "" => None,
            text => Some(CString::new(text).map_err(|_| FormatError {
                key: "dateformat",
                text: text.to_string(),
                problem: "it contains a NUL character".to_string(),
            })?),
        };
        Ok(Formatter { pieces: Some(pieces), dateformat })
    }

    /// The line for `entry`, without a line feed at its end.
    pub fn render(&self, entry: &Entry<'_>) -> String {
        let Some(pieces) = &self.pieces else { return json::render(entry) };
        let mut line = String::with_capacity(160);
        for piece in pieces {
            match piece {
                Piece::Text(text) => line.push_str(text),
                Piece::Field(field, conversion) => {
                    self.render_field(entry, *field, conversion.as_ref(), &mut line);
                }
            }
        }
        line
    }

    fn render_field(
        &self,
        entry: &Entry<'_>,
        field: Field,
        conversion: Option<&Conversion>,
        line: &mut String,
    ) {
        let value = match (field, conversion) {
            (Field::Time, None) => return self.time(entry, line),
            (Field::Time, Some(_)) => {
                let mut time = String::new();
                self.time(entry, &mut time);
                FieldValue::Text(time.into())
            }
            _ => entry.value(field),
        };
        match conversion {
            None => value.str(line),
            Some(Conversion::Percent(conversion)) => conversion.write(&value, line),
            Some(Conversion::Brace(conversion)) => conversion.write(&value, line),
        }
    }

    fn time(&self, entry: &Entry<'_>, out: &mut String) {
        let time = LocalTime::at(i64::try_from(entry.created.as_secs()).unwrap_or(i64::MAX));
        match &self.dateformat {
            Some(format) => time.format(format, out),
            None => {
                time.format(c"%Y-%m-%d %H:%M:%S", out);
                out.push_str(&format!(",{:03}", entry.created.subsec_millis()));
            }
        }
    }
}
