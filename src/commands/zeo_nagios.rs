//! `zeo-nagios`: what a server says to `ruok`, as plug-ins of Nagios, Icinga and others print it.
//!
//! Options, output and exit codes are those of Python's `zeo-nagios`; limits (`-w`, `-c`), a time limit and TLS are
//! new. Exit codes: 0 OK; 1 warning; 2 critical, also if the server does not answer; 3 unknown: the command line is
//! wrong.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use getopts::{Matches, Options, ParsingStyle};
use serde_json::{Map, Value};

use crate::base::address::Address;
use crate::base::clock::since_1970;
use crate::base::ids::Tid;
use crate::base::untrusted::one_line;
use crate::client::dial::{DialError, DialOptions, ask_status};
use crate::client::options::ClientOptions;
use crate::logging::format::python_float;
use crate::net::tls::ClientTls;

const TIMEOUT: Duration = Duration::from_secs(10);
const UNKNOWN: u8 = 3;
/// Metrics that are numbers of now, and those of which rates are printed; as in Python.
const NOW: [&str; 3] = ["active_txns", "connections", "waiting"];
const RATES: [&str; 6] = ["aborts", "commits", "conflicts", "conflicts_resolved", "loads", "stores"];
/// What a limit may be for, besides [`NOW`].
const SECONDS: [&str; 2] = ["lock", "idle"];
const UNITS: [(&str, f64); 4] = [("seconds", 1.0), ("minutes", 60.0), ("hours", 3600.0), ("days", 86400.0)];

/// The command line.
struct NagiosCheck {
    addresses: Vec<Address>,
    dialling: DialOptions,
    with_metrics: bool,
    status_path: Option<String>,
    /// Seconds of the unit of rates.
    unit: f64,
    /// Upper bounds by name, for a warning and for an alarm.
    warning: BTreeMap<String, f64>,
    critical: BTreeMap<String, f64>,
}

/// The outcome: exit code, messages, metrics.
#[derive(Default)]
struct Finding {
    level: u8,
    messages: Vec<String>,
    metrics: Vec<String>,
}

/// The program. `program` is its name as called; `arguments` do not have it.
pub fn run(program: &str, arguments: &[OsString]) -> ExitCode {
    let check = match read_command_line(arguments) {
        Ok(Some(check)) => check,
        Ok(None) => {
            print!("{}", help(program));
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            println!(
                "UNKNOWN: {}",
                one_line(1000, format_args!("{message}; for help, use {program} --help"))
            );
            return ExitCode::from(UNKNOWN);
        }
    };
    let finding = match ask(&check) {
        Ok(status) => check.judge(&status),
        Err(message) => Finding { level: 2, messages: vec![message], ..Finding::default() },
    };
    print!("{}", finding.text());
    ExitCode::from(finding.level)
}

fn help(program: &str) -> String {
    format!(
        "\
Ask a ZEO server how it is, for Nagios, Icinga and others.

Usage: {program} [options] ADDRESS
       {program} [options] --config FILE

ADDRESS is HOST:PORT, [IPV6]:PORT, or the path of a Unix socket.

  -m, --output-metrics     numbers behind the message, as performance data
  -s, --status-path FILE   keep the counters in FILE, for rates since the last
                           call; with -m
  -u, --time-units UNIT    of the rates: seconds, minutes (default), hours, days
  -w, --warning NAME=MAX   exit with 1 if a number of a storage is larger:
                           waiting (transactions that wait for locks), connections,
                           active_txns, lock (seconds that the oldest locks have
                           been held), idle (seconds since the last transaction)
  -c, --critical NAME=MAX  exit with 2 if it is
      --timeout SECONDS    longest wait for the server (default: 10)
      --config FILE        a file with a <zeoclient> section, for TLS
  -h, --help; --version    print this, or the version

-w and -c may be repeated. Without them the output is Python's.
Exit status: 0 OK; 1 a warning: a limit, an empty storage, no storages; 2 the
server cannot be reached or does not answer, or a limit; 3 the command line is
wrong.
"
    )
}

/// `None`: help is requested.
fn read_command_line(arguments: &[OsString]) -> Result<Option<NagiosCheck>, String> {
    let mut options = Options::new();
    options.parsing_style(ParsingStyle::FloatingFrees);
    options.optflag("h", "help", "").optflag("", "version", "").optflag("m", "output-metrics", "");
    options.optopt("s", "status-path", "", "").optopt("u", "time-units", "", "");
    options.optmulti("w", "warning", "", "").optmulti("c", "critical", "", "");
    options.optopt("", "timeout", "", "").optopt("", "config", "", "");
    let matches = options.parse(arguments).map_err(|problem| problem.to_string())?;
    if matches.opt_present("help") {
        return Ok(None);
    }
    if matches.opt_present("version") {
        println!("zeo-nagios {}", env!("CARGO_PKG_VERSION"));
        std::process::exit(0);
    }
    let time_max = match matches.opt_str("timeout") {
        None => TIMEOUT,
        Some(text) => match text.parse().ok().map(Duration::try_from_secs_f64) {
            Some(Ok(timeout)) if !timeout.is_zero() => timeout,
            _ => return Err(format!("--timeout: '{text}' is not a number of seconds")),
        },
    };
    let unit = matches.opt_str("time-units").unwrap_or_else(|| "minutes".into());
    let unit = UNITS.iter().find(|(name, _)| *name == unit);
    let (_, unit) = unit.ok_or("-u: use seconds, minutes, hours or days")?;
    let (addresses, tls) = server(&matches)?;
    Ok(Some(NagiosCheck {
        addresses,
        dialling: DialOptions { tls, time_max, ..DialOptions::default() },
        with_metrics: matches.opt_present("output-metrics"),
        status_path: matches.opt_str("status-path"),
        unit: *unit,
        warning: limits("-w", matches.opt_strs("warning"))?,
        critical: limits("-c", matches.opt_strs("critical"))?,
    }))
}

/// The addresses of the server, and how TLS is done there.
fn server(matches: &Matches) -> Result<(Vec<Address>, Option<Arc<ClientTls>>), String> {
    match (matches.opt_str("config"), matches.free.as_slice()) {
        (Some(path), []) => {
            let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
            let client = ClientOptions::from_zconfig(&text).map_err(|error| format!("{path}: {error}"))?;
            let tls = client.tls.as_ref().map(|tls| ClientTls::load(&tls.files, tls.host.clone()));
            let tls = tls.transpose().map_err(|error| format!("{path}: <ssl>: {error}"))?;
            Ok((client.addresses, tls.map(Arc::new)))
        }
        (Some(_), _) => Err("--config has the address: leave it out".into()),
        (None, [address]) => Ok((vec![address_of(address)], None)),
        (None, []) => Err("no address is given".into()),
        (None, _) => Err("give one address".into()),
    }
}

/// As Python's program takes an address: what has no port is the path of a Unix socket.
pub(super) fn address_of(text: &str) -> Address {
    let unix = || Address::Unix(text.into());
    let Some((host, port)) = text.rsplit_once(':') else { return unix() };
    let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse().ok().filter(|_| is_number && !host.is_empty() && !host.contains(char::is_whitespace)) {
        Some(port) => {
            let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
            Address::Tcp { host: Some(inner.unwrap_or(host).into()), port: Some(port) }
        }
        None => unix(),
    }
}

/// `NAME=MAX` of each option.
fn limits(option: &str, texts: Vec<String>) -> Result<BTreeMap<String, f64>, String> {
    let limit = |text: String| {
        let (name, max) =
            text.split_once('=').ok_or_else(|| format!("{option}: '{text}' is not NAME=MAX"))?;
        if !NOW.contains(&name) && !SECONDS.contains(&name) {
            let names = [&NOW[..], &SECONDS].concat().join(", ");
            return Err(format!("{option}: '{name}' is not one of {names}"));
        }
        match max.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok((name.to_string(), number)),
            _ => Err(format!("{option}: '{max}' is not a number")),
        }
    };
    texts.into_iter().map(limit).collect()
}

/// The status of each storage. An error is the message.
fn ask(check: &NagiosCheck) -> Result<Map<String, Value>, String> {
    let mut failure = "Can't connect: there is no address".to_string();
    for address in &check.addresses {
        match ask_status(address, &check.dialling) {
            Ok(answer) => {
                return match serde_json::from_slice(&answer) {
                    Ok(Value::Object(status)) => Ok(status),
                    _ => Err("the answer is not a ZEO server's to ruok".into()),
                };
            }
            Err(error) => failure = cannot_connect(&error),
        }
    }
    Err(one_line(1000, format_args!("{failure}")))
}

/// As Python prints an error of the system.
pub(super) fn cannot_connect(error: &DialError) -> String {
    match error {
        DialError::Unreachable(error) => match error.raw_os_error() {
            Some(number) => {
                let text = io::Error::from_raw_os_error(number).to_string();
                let text = text.split(" (os error").next().unwrap_or_default();
                format!("Can't connect [Errno {number}] {text}")
            }
            None => format!("Can't connect {error}"),
        },
        other => format!("no answer: {other}"),
    }
}

impl NagiosCheck {
    fn judge(&self, status: &Map<String, Value>) -> Finding {
        if status.is_empty() {
            return Finding { level: 1, messages: vec!["No storages".into()], ..Finding::default() };
        }
        let mut finding = Finding::default();
        if self.with_metrics {
            for (storage, facts) in status {
                for name in NOW {
                    let limits = self.limits_text(name);
                    finding.metric(storage, name, &format!("{}{limits}", number_text(facts.get(name))));
                }
            }
            if let Some(path) = &self.status_path
                && let Err(error) = self.rates(Path::new(path), status, &mut finding)
            {
                finding.level = 1;
                finding.messages.push(format!("{path}: {error}"));
            }
        }
        for (storage, facts) in status {
            self.compare(storage, facts, &mut finding);
            if facts.get("last-transaction").and_then(Value::as_str) == Some("0000000000000000") {
                finding.messages.push(format!("Empty storage {}", python_text(storage)));
                finding.level = finding.level.max(1);
            }
        }
        if finding.messages.is_empty() {
            finding.messages.push("OK".into());
        }
        finding
    }

    /// `;5;20`, behind a number that has limits.
    fn limits_text(&self, name: &str) -> String {
        let of = |limits: &BTreeMap<String, f64>| limits.get(name).map(f64::to_string).unwrap_or_default();
        match (of(&self.warning), of(&self.critical)) {
            (warning, critical) if warning.is_empty() && critical.is_empty() => String::new(),
            (warning, critical) => format!(";{warning};{critical}"),
        }
    }

    /// Compares the numbers of a storage with their limits.
    fn compare(&self, storage: &str, facts: &Value, finding: &mut Finding) {
        let names: Vec<&String> = self.warning.keys().chain(self.critical.keys()).collect();
        for name in
            [&NOW[..], &SECONDS].concat().into_iter().filter(|name| names.iter().any(|other| other == name))
        {
            let Some(value) = value_of(facts, name) else { continue };
            if self.with_metrics && SECONDS.contains(&name) {
                finding.metric(storage, name, &format!("{value:.0}s{}", self.limits_text(name)));
            }
            let over = |limits: &BTreeMap<String, f64>| limits.get(name).copied().filter(|max| value > *max);
            let (level, word, max) = match (over(&self.critical), over(&self.warning)) {
                (Some(max), _) => (2, "CRITICAL", max),
                (None, Some(max)) => (1, "WARNING", max),
                (None, None) => continue,
            };
            finding.level = finding.level.max(level);
            let storage = python_text(storage);
            finding
                .messages
                .push(format!("{word}: storage {storage}: {name} is {value:.0}, more than {max}"));
        }
    }

    /// Prints rates since the last call, whose counters are in the file, and keeps those of now there.
    fn rates(&self, path: &Path, status: &Map<String, Value>, finding: &mut Finding) -> io::Result<()> {
        let now = since_1970().as_secs_f64();
        let mut kept = status.clone();
        match fs::metadata(path).and_then(|meta| meta.modified()) {
            Ok(before) => {
                let passed = now - before.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
                if passed > 0.0 {
                    let old: Map<String, Value> = serde_json::from_slice(&fs::read(path)?)?;
                    self.print_rates(&old, status, passed / self.unit, finding);
                }
                for facts in kept.values_mut().filter_map(Value::as_object_mut) {
                    // Spelt as in Python.
                    facts.insert("sameple-time".into(), now.into());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        // In one step: a call that is killed leaves the file of before.
        let directory =
            path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        io::Write::write_all(&mut file, Value::Object(kept).to_string().as_bytes())?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    }

    fn print_rates(
        &self,
        old: &Map<String, Value>,
        status: &Map<String, Value>,
        units: f64,
        finding: &mut Finding,
    ) {
        for (storage, facts) in status {
            let Some(before) = old.get(storage) else { continue };
            for name in RATES {
                let of = |facts: &Value| facts.get(name).and_then(Value::as_f64).unwrap_or_default();
                finding.metric(storage, name, &python_float((of(facts) - of(before)) / units));
            }
        }
    }
}

/// A number of a storage that may have a limit. `None`: there is none, such as the age of locks that are not held.
fn value_of(facts: &Value, name: &str) -> Option<f64> {
    let since = |at: f64| (since_1970().as_secs_f64() - at).max(0.0);
    match name {
        "lock" => facts.get("lock_time").and_then(Value::as_f64).map(since),
        "idle" => {
            let last = facts.get("last-transaction").and_then(Value::as_str)?;
            let last = Tid(u64::from_str_radix(last, 16).ok()?);
            (last > Tid::ZERO).then(|| since(last.to_unix()))
        }
        _ => facts.get(name).and_then(Value::as_f64),
    }
}

fn number_text(value: Option<&Value>) -> String {
    value.map_or_else(|| "0".into(), Value::to_string)
}

/// `repr` of a name of a storage, which is text for a terminal.
pub(super) fn python_text(text: &str) -> String {
    format!("'{}'", one_line(300, format_args!("{text}")))
}

impl Finding {
    fn metric(&mut self, storage: &str, name: &str, value: &str) {
        let storage = one_line(300, format_args!("{storage}"));
        self.metrics.push(match storage.as_str() {
            "1" => format!("{name}={value}"),
            other if other.contains(' ') => format!("'{other}:{name}'={value}"),
            other => format!("{other}:{name}={value}"),
        });
    }

    /// The first message and the first metric are on the first line.
    fn text(&self) -> String {
        let mut lines: Vec<String> = self.messages.iter().map(|message| message.replace('|', " ")).collect();
        if let Some((first, rest)) = self.metrics.split_first() {
            if let Some(line) = lines.first_mut() {
                *line += &format!("|{first}");
            }
            if !rest.is_empty() {
                lines.push(format!("| {}", rest.join("\n ")));
            }
        }
        lines.join("\n") + "\n"
    }
}
