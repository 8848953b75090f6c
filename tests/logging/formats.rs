//! Log lines equal those of Python's logging with the same format, which `compat-tests/logging/formats.py` records.
//! Formats that Python refuses are refused.

use std::process::Command;
use std::time::Duration;

use runzeo::internal::base::level;
use runzeo::internal::logging::entry::Entry;
use runzeo::internal::logging::{Formatter, Layout, Style};

#[test]
fn lines_are_those_of_python() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/compat-tests/logging/formats.py");
    let Ok(output) = Command::new("python3").arg(script).output() else {
        eprintln!("SKIPPED: no python3 to compare log formats with");
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let cases = String::from_utf8(output.stdout).unwrap();
    let mut wrong = Vec::new();
    let mut count = 0;
    for case in cases.split('\x1e') {
        let fields: Vec<&str> = case.split('\x1f').collect();
        let [style, format, dateformat, verdict, expected] = fields[..] else { panic!("{case:?}") };
        count += 1;
        let style = match style {
            "classic" => Style::Classic,
            "format" => Style::Format,
            "template" => Style::Template,
            _ => Style::SafeTemplate,
        };
        let layout = Layout { format: format.to_string(), dateformat: dateformat.to_string(), style };
        let ours = match Formatter::new(&layout) {
            Ok(formatter) => ("ok", formatter.render(&entry(format_args!("it's \"5\" \u{2260} %s\\")))),
            Err(error) => ("error", error.to_string()),
        };
        if ours.0 != verdict || (verdict == "ok" && ours.1 != expected) {
            wrong.push(format!("{format:?} {dateformat:?}: Python {verdict} {expected:?}, we {ours:?}"));
        }
    }
    assert!(count > 5000, "only {count} cases");
    assert!(wrong.is_empty(), "{} of {count} differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// The record that the script logs.
fn entry(message: std::fmt::Arguments<'_>) -> Entry<'_> {
    Entry {
        name: "ZEO.StorageServer",
        level: level::CRITICAL,
        message,
        created: Duration::from_micros(1_763_805_906_250_000),
        age: Duration::from_micros(1_500_500),
        path: "src/server/hosted.rs",
        line: 42,
        process: 815,
        thread: 4711,
        thread_name: "session-1".into(),
    }
}
