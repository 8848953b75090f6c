//! The languages in which an operator says how a log line looks: Python's `%(name)s`, `{name}` and `$name`.
//!
//! A format is taken apart once, at start; whatever could go wrong with it goes wrong there. Rendering
//! an entry cannot fail.

mod brace;
mod number;
mod percent;
mod template;
mod value;

use std::ffi::CString;
use std::fmt;
use std::fmt::Write as _;

use super::entry::{Entry, Field};
use super::os::LocalTime;
pub use value::Value;

/// The format of a `<logfile>` that gives none, and of a server without `<eventlog>`.
pub const DEFAULT_FORMAT: &str = "------\n%(asctime)s %(levelname)s %(name)s %(message)s";

/// The date format that goes with it.
pub const DEFAULT_DATE_FORMAT: &str = "%Y-%m-%dT%H:%M:%S";

/// How a log line looks, as configured.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Layout {
    /// Control characters in place: `\n` is a line feed already.
    pub format: String,
    /// In `strftime`'s language; empty means Python's own form, with milliseconds.
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
    /// `$message`; what is not a field is an error.
    Template,
    /// `$message`; what is not a field is left as it stands.
    SafeTemplate,
}

/// Why a format cannot be used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FormatError {
    pub format: String,
    pub problem: String,
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "log format {:?}: {}", self.format, self.problem)
    }
}

impl std::error::Error for FormatError {}

/// A format taken apart.
#[derive(Debug)]
pub struct Formatter {
    pieces: Vec<Piece>,
    /// `None`: Python's own form, with milliseconds.
    dateformat: Option<CString>,
}

#[derive(Debug)]
enum Piece {
    Text(String),
    Field(Field, Shape),
}

/// What is done with a field's value on its way into the line.
#[derive(Debug)]
enum Shape {
    Plain,
    Percent(percent::Conversion),
    Brace(brace::Conversion),
}

impl Formatter {
    pub fn new(layout: &Layout) -> Result<Formatter, FormatError> {
        let fail = |problem: String| FormatError { format: layout.format.clone(), problem };
        let pieces = match layout.style {
            Style::Classic => percent::parse(&layout.format),
            Style::Format => brace::parse(&layout.format),
            Style::Template => template::parse(&layout.format, template::Unknown::IsAnError),
            Style::SafeTemplate => template::parse(&layout.format, template::Unknown::StaysAsItIs),
        };
        let dateformat = match layout.dateformat.as_str() {
            "" => None,
            text => Some(CString::new(text).map_err(|_| fail("NUL in dateformat".to_string()))?),
        };
        Ok(Formatter { pieces: pieces.map_err(fail)?, dateformat })
    }

    /// The line for `entry`, without a line feed at its end.
    pub fn render(&self, entry: &Entry<'_>) -> String {
        let mut line = String::with_capacity(160);
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => line.push_str(text),
                Piece::Field(field, shape) => self.render_field(entry, *field, shape, &mut line),
            }
        }
        line
    }

    fn render_field(&self, entry: &Entry<'_>, field: Field, shape: &Shape, line: &mut String) {
        let value = match (field, shape) {
            // The most frequent two go straight into the line. A message that fails to print leaves its beginning.
            (Field::Message, Shape::Plain) => return line.write_fmt(entry.message).unwrap_or_default(),
            (Field::Time, Shape::Plain) => return self.time(entry, line),
            (Field::Time, _) => {
                let mut time = String::new();
                self.time(entry, &mut time);
                Value::Text(time.into())
            }
            _ => entry.value(field),
        };
        match shape {
            Shape::Plain => value.str(line),
            Shape::Percent(conversion) => conversion.write(&value, line),
            Shape::Brace(conversion) => conversion.write(&value, line),
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

/// The pieces of a format as a parser finds them.
#[derive(Default)]
struct Pieces {
    done: Vec<Piece>,
    text: String,
}

impl Pieces {
    fn field(&mut self, field: Field, shape: Shape) {
        self.end_text();
        self.done.push(Piece::Field(field, shape));
    }

    fn end_text(&mut self) {
        if !self.text.is_empty() {
            self.done.push(Piece::Text(std::mem::take(&mut self.text)));
        }
    }

    fn finish(mut self) -> Vec<Piece> {
        self.end_text();
        self.done
    }
}

/// The field of that name. An unknown one is refused even with `arbitrary-fields`: no entry will ever
/// have it, and Python accepts it only to lose every line later.
fn field(name: &str) -> Result<Field, String> {
    Field::from_name(name).ok_or_else(|| {
        format!("log entries have no field {name:?}; see the fields of logging.LogRecord in Python's manual")
    })
}

/// `text` in a field `width` characters wide.
fn pad(text: &str, width: usize, align: Align, fill: char, out: &mut String) {
    let missing = width.saturating_sub(text.chars().count());
    let before = match align {
        Align::Left => 0,
        Align::Right => missing,
        Align::Center => missing / 2,
    };
    out.extend(std::iter::repeat_n(fill, before));
    out.push_str(text);
    out.extend(std::iter::repeat_n(fill, missing - before));
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Align {
    Left,
    Right,
    Center,
}

/// Widths and precisions beyond this are typing errors, and would be memory.
const WIDTH_MAX: usize = 10_000;

/// A run of digits at the start of `chars`; `None` if there is none.
fn digits(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Option<usize>, String> {
    let mut number = None;
    while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
        chars.next();
        let longer = number.unwrap_or(0) * 10 + digit as usize;
        if longer > WIDTH_MAX {
            return Err(format!("width or precision above {WIDTH_MAX}"));
        }
        number = Some(longer);
    }
    Ok(number)
}
