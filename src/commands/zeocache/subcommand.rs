//! What the commands have in common: how they are described, their arguments, why they end early.

use std::io::{self, Write};

use getopts::{Matches, Options};

/// Why a command ends early.
pub(super) enum Trouble {
    Usage(String),
    /// The message is the reason, with the name of the file.
    Failed(String),
    /// The output cannot be written. A pipe whose reader is gone is no error to report.
    Output(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::Output(error)
    }
}

/// What a command does: reads its arguments, writes its report. The code is 0 or 1.
pub(super) type Command = fn(&mut dyn Write, &Matches) -> Result<u8, Trouble>;

/// A command, its options and its help.
pub(super) struct Subcommand {
    pub(super) name: &'static str,
    pub(super) options: fn(&mut Options),
    /// After `Usage: zeocache NAME `.
    pub(super) help: &'static str,
    pub(super) run: Command,
}

/// The only free argument.
pub(super) fn file_argument(matches: &Matches) -> Result<&str, Trouble> {
    match matches.free.as_slice() {
        [file] => Ok(file),
        [] => Err(Trouble::Usage("no file is given".into())),
        _ => Err(Trouble::Usage("give one file".into())),
    }
}

/// `-i MINUTES`, in seconds: from one minute to one hour, as ZEO's scripts take it.
pub(super) fn interval_argument(matches: &Matches) -> Result<u32, Trouble> {
    let Some(text) = matches.opt_str("interval") else { return Ok(15 * 60) };
    match text.parse::<f64>() {
        Ok(minutes) if minutes.is_finite() => {
            let seconds = (minutes * 60.0) as i64;
            Ok(if seconds <= 0 { 60 } else { seconds.min(3600) as u32 })
        }
        _ => Err(Trouble::Usage(format!("-i: '{text}' is not a number of minutes"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals() {
        let mut options = Options::new();
        options.optopt("i", "interval", "", "");
        let seconds = |text: &str| {
            let matches = options.parse(["-i", text]).unwrap();
            interval_argument(&matches).ok()
        };
        let expected = [
            ("5", Some(300)),
            ("0.5", Some(30)),
            ("0", Some(60)),
            ("-3", Some(60)),
            ("99", Some(3600)),
            ("x", None),
            ("nan", None),
        ];
        for (text, expected) in expected {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }
}
