//! `zrs-nagios`: how far a secondary or a replica is behind its primary, for Nagios, Icinga and others.
//!
//! Both servers are asked with `ruok` for their last transactions, whose times are compared: a primary that has no
//! commits has no lag, whatever its replica does. Options, output and exit codes are those of zc.zrs's program; the
//! time limit is new.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use getopts::{Options, ParsingStyle};
use serde_json::Value;

use super::zeo_nagios::{address_of, cannot_connect, python_text};
use crate::base::ids::Tid;
use crate::base::untrusted::one_line;
use crate::client::dial::{DialOptions, ask_status};
use crate::logging::format::python_float;

const TIMEOUT: Duration = Duration::from_secs(10);
const WARNING: u8 = 1;
const CRITICAL: u8 = 2;

/// The command line.
#[derive(Debug)]
struct LagCheck {
    primary: String,
    secondary: String,
    with_metrics: bool,
    /// Upper bounds in seconds; 0: there is none.
    warning: i64,
    error: i64,
    time_max: Duration,
}

/// The times of the last transactions, by storage.
type Times = BTreeMap<String, f64>;

/// The program. `program` is its name as called; `arguments` do not have it.
pub fn run(program: &str, arguments: &[OsString]) -> ExitCode {
    let (level, text) = match read_command_line(program, arguments) {
        Ok(check) => check.outcome(),
        Err((level, text)) => (level, text),
    };
    print!("{text}");
    ExitCode::from(level)
}

fn help(program: &str) -> String {
    format!(
        "\
Compare the last transactions of a primary and of a server that follows it, for
Nagios, Icinga and others.

Usage: {program} [options] PRIMARY_ADDRESS SECONDARY_ADDRESS

The addresses are those of clients: HOST:PORT, [IPV6]:PORT, or the path of a
Unix socket. One of -m, -w and -e is needed.

  -m, --output-metrics   the lag behind the message, as performance data
  -w, --warning SECONDS  exit with 1 if the lag is larger
  -e, --error SECONDS    exit with 2 if it is
      --timeout SECONDS  longest wait for each server (default: 10)
  -h, --help; --version  print this, or the version

Exit status: 0 OK; 1 a warning; 2 an error: a limit, a storage that only one of
them has, a primary that is behind, a server that cannot be reached, or the
command line is wrong.
"
    )
}

/// An error is the exit code and what is printed, as for help.
fn read_command_line(program: &str, arguments: &[OsString]) -> Result<LagCheck, (u8, String)> {
    let mut options = Options::new();
    options.parsing_style(ParsingStyle::FloatingFrees);
    options.optflag("h", "help", "").optflag("", "version", "").optflag("m", "output-metrics", "");
    options.optopt("w", "warning", "", "").optopt("e", "error", "", "").optopt("", "timeout", "", "");
    let usage = || (CRITICAL, "Usage: zrs-nagios [options] PRIMARY_ADDRESS SECONDARY_ADDRESS\n".to_string());
    let wrong = |what: String| (CRITICAL, format!("{}\n", one_line(1000, format_args!("{what}"))));
    let matches = options.parse(arguments).map_err(|problem| wrong(problem.to_string()))?;
    if matches.opt_present("help") {
        return Err((0, help(program)));
    }
    if matches.opt_present("version") {
        return Err((0, format!("zrs-nagios {}\n", env!("CARGO_PKG_VERSION"))));
    }
    let seconds = |name: &str| match matches.opt_str(name) {
        None => Ok(0),
        Some(text) => text.parse().map_err(|_| wrong(format!("--{name}: '{text}' is no whole number"))),
    };
    let (warning, error) = (seconds("warning")?, seconds("error")?);
    let with_metrics = matches.opt_present("output-metrics");
    let time_max = match matches.opt_str("timeout") {
        None => TIMEOUT,
        Some(text) => match text.parse().ok().map(Duration::try_from_secs_f64) {
            Some(Ok(timeout)) if !timeout.is_zero() => timeout,
            _ => return Err(wrong(format!("--timeout: '{text}' is not a number of seconds"))),
        },
    };
    match matches.free.as_slice() {
        [primary, secondary] if with_metrics || warning != 0 || error != 0 => Ok(LagCheck {
            primary: primary.clone(),
            secondary: secondary.clone(),
            with_metrics,
            warning,
            error,
            time_max,
        }),
        _ => Err(usage()),
    }
}

impl LagCheck {
    /// The exit code, and what is printed.
    fn outcome(&self) -> (u8, String) {
        let secondary = self.times("secondary", &self.secondary);
        let both = secondary.and_then(|secondary| Ok((self.times("primary", &self.primary)?, secondary)));
        match both {
            Ok((primary, secondary)) => self.judge(&primary, &secondary),
            Err(message) => (CRITICAL, format!("{message}\n")),
        }
    }

    /// Asks a server. An error is the message.
    fn times(&self, role: &str, address: &str) -> Result<Times, String> {
        let shown = python_text(address);
        let dialling = DialOptions { time_max: self.time_max, ..DialOptions::default() };
        let answer = ask_status(&address_of(address), &dialling).map_err(|error| {
            let why = cannot_connect(&error);
            let why = why.strip_prefix("Can't connect ").unwrap_or(&why);
            one_line(1000, format_args!("Can't connect to {role} at {shown}: {why}"))
        })?;
        let Ok(Value::Object(status)) = serde_json::from_slice(&answer) else {
            return Err(format!("The {role} at {shown} is no ZEO server"));
        };
        let time = |(storage, facts): (String, Value)| {
            let last = facts.get("last-transaction").and_then(Value::as_str);
            let last = last.and_then(|hex| u64::from_str_radix(hex, 16).ok());
            let unknown = || {
                let storage = python_text(&storage);
                format!(
                    "The {role} at {shown} does not say what the last transaction of storage {storage} is"
                )
            };
            let last = last.ok_or_else(unknown)?;
            Ok((storage, Tid(last).to_unix()))
        };
        status.into_iter().map(time).collect()
    }

    fn judge(&self, primary: &Times, secondary: &Times) -> (u8, String) {
        if primary.is_empty() && secondary.is_empty() {
            return (WARNING, "No storages\n".into());
        }
        let (mut level, mut lines, mut metrics) = (0, Vec::new(), Vec::new());
        for (storage, time) in primary {
            let Some(other) = secondary.get(storage) else {
                lines.push(format!("Storage {} in primary, but not secondary", python_text(storage)));
                level = CRITICAL;
                continue;
            };
            let lag = time - other;
            if self.with_metrics {
                let name =
                    if storage == "1" { String::new() } else { one_line(300, format_args!("{storage}")) };
                metrics.push(format!("'lag{name}'={lag:.4}seconds"));
            }
            let (own, line) = self.judge_lag(storage, lag);
            level = level.max(own);
            lines.push(line);
        }
        for storage in secondary.keys().filter(|storage| !primary.contains_key(*storage)) {
            lines.push(format!("Storage {} in secondary, but not primary", python_text(storage)));
            level = CRITICAL;
        }
        (level, text(lines, metrics))
    }

    /// The exit code and the line of a storage.
    fn judge_lag(&self, storage: &str, lag: f64) -> (u8, String) {
        let shown = if storage == "1" { String::new() } else { format!(" ({})", python_text(storage)) };
        let is_above = |max: i64| max != 0 && lag > max as f64;
        match lag {
            _ if lag < 0.0 => {
                (CRITICAL, format!("Primary{shown} behind secondary by {} seconds", python_float(lag)))
            }
            _ if lag > 0.0 => {
                let line = format!("Secondary{shown} behind primary by {lag:.4} seconds");
                match (self.error, self.warning) {
                    (max, _) if is_above(max) => (CRITICAL, format!("{line} > {max}")),
                    (_, max) if is_above(max) => (WARNING, format!("{line} > {max}")),
                    _ => (0, line),
                }
            }
            _ => (0, format!("Secondary{shown} up to date.")),
        }
    }
}

/// The first metric is on the first line, the others are behind the last one.
fn text(mut lines: Vec<String>, metrics: Vec<String>) -> String {
    if let Some((first, rest)) = metrics.split_first() {
        if let Some(line) = lines.first_mut() {
            *line += &format!("|{first}");
        }
        if !rest.is_empty() {
            if lines.len() == 1 {
                lines.push(String::new());
            }
            if let Some(line) = lines.last_mut() {
                *line += &format!("| {}", rest.join("\n "));
            }
        }
    }
    lines.join("\n") + "\n"
}
