//! Which formats are refused, and which text never passes through a format.

use proptest::prelude::*;

use super::super::entry::Entry;
use super::{Formatter, Layout, Style};
use crate::base::level;

fn check(format: &str, style: Style) -> Result<(), String> {
    let layout = Layout { format: format.into(), style, ..Layout::default() };
    Formatter::new(&layout).map(drop).map_err(|error| error.problem)
}

fn check_all(style: Style, good: &[&str], bad: &[&str]) {
    for format in good {
        assert_eq!(check(format, style), Ok(()), "{format}");
    }
    for format in bad {
        assert!(check(format, style).is_err(), "{format}");
    }
}

#[test]
fn classic() {
    check_all(
        Style::Classic,
        &[
            "%(asctime)s %(message)s",
            "plain",
            "100%%",
            "%(levelno)02d",
            "%(levelname)-8.3s|",
            "%(created).3f %(msecs)d %(lineno)5ld",
            "%(process)x",
            "%(exc_info)s",
            "%(name)%",
        ],
        &[
            "100%",
            "%(message)",
            "%(message",
            "%(nothing)s",
            "%(message)d",
            "%(created)x",
            "%s",
            "%(message)y",
            "%(a(b)s",
        ],
    );
}

#[test]
fn format() {
    check_all(
        Style::Format,
        &[
            "{asctime} {message}",
            "{{}}",
            "{levelno:05d}",
            "{name!r:>20}",
            "{message:.10}",
            "{created:,.2f}",
            "{levelno:*^9x}",
        ],
        &[
            "{}",
            "{0}",
            "{",
            "}",
            "{message",
            "{nothing}",
            "{message:d}",
            "{message!x}",
            "{levelno:.2}",
            "{name:=5}",
            "{exc_info:5}",
        ],
    );
}

#[test]
fn template() {
    check_all(
        Style::Template,
        &["$asctime ${message}x", "$$", "plain"],
        &["$", "$ x", "${message", "$nothing", "${1}", "$1"],
    );
    check_all(Style::SafeTemplate, &["$", "$nothing", "${"], &[]);
}

/// Only messages that pass through here reach a log; the format does not matter.
#[test]
fn a_message_is_one_entry_in_every_style() {
    let forged = "x\n------\n2026-11-26T00:00:00 CRITICAL ZEO forged\r";
    for (format, style) in [
        ("%(message)s", Style::Classic),
        ("{message}", Style::Format),
        ("$message", Style::Template),
        ("$message", Style::SafeTemplate),
    ] {
        let layout = Layout { format: format.into(), style, ..Layout::default() };
        let formatter = Formatter::new(&layout).unwrap();
        let line = formatter.render(&Entry::now("name", level::INFO, format_args!("{forged}")));
        assert_eq!(line, "x\n  ------\n  2026-11-26T00:00:00 CRITICAL ZEO forged\\r", "{format}");
    }
}

proptest! {
    #[test]
    fn no_format_panics(format in "[%(){}$a.:!#0-9é]{0,12}") {
        for style in [Style::Classic, Style::Format, Style::Template, Style::SafeTemplate] {
            let _ = check(&format, style);
        }
    }
}

/// Keys and order are what programs read; whatever is in a message, it is one line and one object.
#[test]
fn json() {
    let layout = Layout { style: Style::Json, ..Layout::default() };
    let formatter = Formatter::new(&layout).expect("it needs no format");
    let entry = Entry {
        created: std::time::Duration::from_millis(1_796_000_000_042),
        process: 7,
        ..Entry::now("ZEO", level::WARNING, format_args!("a \"b\"\nc"))
    };
    assert_eq!(
        formatter.render(&entry),
        format!(
            "{{\"time\":\"2026-11-30T00:53:20.042Z\",\"level\":\"WARNING\",\"logger\":\"ZEO\",\
             \"message\":\"a \\\"b\\\"\\n  c\",\"process\":7,\"thread\":{:?}}}",
            entry.thread_name
        )
    );
}
