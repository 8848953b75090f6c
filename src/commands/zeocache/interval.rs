//! The option `-i MINUTES`.

use getopts::Matches;

use crate::commands::subcommand::Trouble;

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
    use getopts::Options;

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
