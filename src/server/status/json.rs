//! Reports as JSON: objects whose keys are the names of the fields.

use serde::Serialize;

/// The JSON of a report, on lines that end with a line feed.
pub fn to_json(report: &impl Serialize) -> String {
    // Reports have text keys, and numbers that JSON has, so that nothing can go wrong.
    let mut text = serde_json::to_string_pretty(report).unwrap_or_else(|error| format!("\"{error}\""));
    text.push('\n');
    text
}
