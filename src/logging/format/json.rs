//! Entries as JSON, one object on a line: for programs that collect logs.

use std::borrow::Cow;
use std::time::UNIX_EPOCH;

use serde::Serialize;

use super::super::entry::Entry;
use super::field::Field;
use super::value::FieldValue;
use crate::base::level;
use crate::base::timestamp::iso_utc;

/// The keys, in their order.
#[derive(Serialize)]
struct JsonLine<'a> {
    /// UTC, ISO 8601, with milliseconds.
    time: String,
    level: Cow<'a, str>,
    logger: Cow<'a, str>,
    message: Cow<'a, str>,
    process: i64,
    thread: &'a str,
}

/// The line for `entry`, without a line feed at its end.
pub fn render(entry: &Entry<'_>) -> String {
    let line = JsonLine {
        time: iso_utc(UNIX_EPOCH + entry.created),
        level: level::name(entry.level),
        logger: text(entry.value(Field::Name)),
        message: text(entry.value(Field::Message)),
        process: entry.process,
        thread: &entry.thread_name,
    };
    // Text keys, text and numbers: nothing can go wrong.
    serde_json::to_string(&line).unwrap_or_else(|error| format!("\"{error}\""))
}

fn text(value: FieldValue<'_>) -> Cow<'_, str> {
    match value {
        FieldValue::Text(text) => text,
        _ => Cow::Borrowed(""),
    }
}
