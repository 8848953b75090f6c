//! One log entry, with every field that a format can name.

use std::borrow::Cow;
use std::fmt;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use super::format::field::Field;
use super::format::value::FieldValue;
use super::{level, os};
use crate::base::clock::since_1970;
use crate::base::untrusted;

/// The counterpart of Python's `LogRecord`.
pub struct Entry<'a> {
    pub name: &'a str,
    /// Python's number of the level.
    pub level: u8,
    pub message: fmt::Arguments<'a>,
    /// Time since 1970-01-01T00:00:00Z.
    pub created: Duration,
    /// Time since logging began.
    pub age: Duration,
    pub path: &'a str,
    pub line: u32,
    pub process: i64,
    pub thread: i64,
    pub thread_name: Cow<'a, str>,
}

impl<'a> Entry<'a> {
    pub fn from_record(record: &log::Record<'a>) -> Entry<'a> {
        Entry {
            path: record.file().unwrap_or("(unknown file)"),
            line: record.line().unwrap_or(0),
            ..Entry::now(record.target(), level::number(record), *record.args())
        }
    }

    /// An entry with the current time and thread, without a line of the source.
    pub fn now(name: &'a str, level: u8, message: fmt::Arguments<'a>) -> Entry<'a> {
        let created = since_1970();
        Entry {
            name,
            level,
            message,
            created,
            age: created.saturating_sub(began()),
            path: "(unknown file)",
            line: 0,
            process: process(),
            thread: os::thread_id(),
            thread_name: thread_name().into(),
        }
    }

    /// The value of each field except [`Field::Time`], which needs a format of its own.
    pub fn value(&self, field: Field) -> FieldValue<'_> {
        match field {
            // In log records of a conflict-resolver's helper, application code chooses the name.
            Field::Name => FieldValue::Text(untrusted::as_entry(self.name)),
            Field::LevelName => FieldValue::Text(level::name(self.level)),
            Field::LevelNumber => FieldValue::Integer(self.level.into()),
            Field::PathName => FieldValue::text(self.path),
            Field::FileName => FieldValue::Text(file_name(self.path)),
            Field::Module => FieldValue::Text(module(self.path)),
            Field::Line => FieldValue::Integer(self.line.into()),
            // Python's text for an unknown function.
            Field::Function => FieldValue::text("(unknown function)"),
            Field::Created => FieldValue::Float(self.created.as_secs_f64()),
            Field::Msecs => FieldValue::Float(self.created.subsec_millis().into()),
            Field::Age => FieldValue::Float(self.age.as_secs_f64() * 1000.0),
            Field::Thread => FieldValue::Integer(self.thread),
            Field::ThreadName => FieldValue::text(&self.thread_name),
            Field::Process => FieldValue::Integer(self.process),
            Field::ProcessName => FieldValue::text("MainProcess"),
            Field::Message => match self.message.as_str() {
                Some(message) => FieldValue::Text(untrusted::as_entry(message)),
                None => {
                    // If formatting fails, the text up to there is kept.
                    let mut message = String::new();
                    let _ = message.write_fmt(self.message);
                    FieldValue::Text(untrusted::as_entry(&message).into_owned().into())
                }
            },
            Field::Nothing | Field::Time => FieldValue::Opaque("None"),
            Field::Arguments => FieldValue::Opaque("()"),
        }
    }
}

/// The time of the first call, when logging began.
pub fn began() -> Duration {
    static BEGAN: OnceLock<Duration> = OnceLock::new();
    *BEGAN.get_or_init(since_1970)
}

/// The process id. Read once; the process never forks.
fn process() -> i64 {
    static ID: OnceLock<u32> = OnceLock::new();
    i64::from(*ID.get_or_init(std::process::id))
}

/// Python's name for the main thread, and Python's style for threads without a name.
fn thread_name() -> String {
    let thread = std::thread::current();
    match thread.name() {
        Some("main") => "MainThread".to_string(),
        Some(name) => name.to_string(),
        None => format!("Thread-{}", os::thread_id()),
    }
}

fn file_name(path: &str) -> Cow<'_, str> {
    Path::new(path).file_name().map_or(Cow::Borrowed(path), |name| name.to_string_lossy())
}

fn module(path: &str) -> Cow<'_, str> {
    Path::new(path).file_stem().map_or(Cow::Borrowed(path), |stem| stem.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line feed in a message would begin a forged entry of any level.
    #[test]
    fn a_message_is_one_entry_whatever_is_in_it() {
        let forged = "x\n------\n2026-11-26T00:00:00 CRITICAL ZEO forged\r\u{1b}[2J";
        for message in [format_args!("{forged}"), format_args!("{}", String::from(forged))] {
            let entry = Entry::now("name\nx", level::INFO, message);
            let text = "x\n  ------\n  2026-11-26T00:00:00 CRITICAL ZEO forged\\r\\u{1b}[2J";
            assert_eq!(entry.value(Field::Message), FieldValue::text(text));
            assert_eq!(entry.value(Field::Name), FieldValue::text("name\n  x"));
        }
    }
}
