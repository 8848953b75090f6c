//! Signals by name and by number, as `zeoctl kill` has them.

use rustix::process::Signal;
use signal_hook::low_level::signal_name;

/// Names that signals have besides those that the system prefers.
const OTHER_NAMES: &[(&str, i32)] =
    &[("SIGIOT", libc::SIGABRT), ("SIGCLD", libc::SIGCHLD), ("SIGPOLL", libc::SIGIO)];

/// The signal that a text means: a number, or a name with or without `SIG` in letters of any case.
pub(super) fn parse(text: &str) -> Option<Signal> {
    if let Ok(number) = text.trim().parse() {
        return Signal::from_named_raw(number);
    }
    let name = text.to_uppercase();
    let name = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
    let other = OTHER_NAMES.iter().find(|(other, _)| *other == name).map(|(_, number)| *number);
    let number = other.or_else(|| (1..32).find(|number| signal_name(*number) == Some(&name)))?;
    Signal::from_named_raw(number)
}

/// `SIGTERM`, or `signal 40`.
pub(super) fn name(number: i32) -> String {
    signal_name(number).map_or_else(|| format!("signal {number}"), String::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_as_zdaemon_takes_them() {
        for (text, expected) in [
            ("sighup", Some(1)),
            ("Hup", Some(1)),
            ("1", Some(1)),
            ("USR2", Some(12)),
            ("IOT", Some(6)),
            ("SIGPOLL", Some(29)),
            ("woohoo", None),
            ("SIG_DFL", None),
            ("-234", None),
            ("0", None),
            ("65", None),
            ("", None),
        ] {
            assert_eq!(parse(text).map(Signal::as_raw), expected, "{text}");
        }
        assert_eq!(name(15), "SIGTERM");
        assert_eq!(name(40), "signal 40");
    }
}
