//! The command line of the server: the options of Python's runzeo, from ZEO 4 and ZEO 6, and some new ones.
//!
//! Rules and messages are those of Python's getopt and of zdaemon: options come first, long ones may be abbreviated
//! while unambiguous, the first error from the left is reported. `-h` and `--version` take effect as soon as they are
//! reached.

use std::ffi::OsString;
use std::fmt;

use getopts::{Fail, HasArg, Occur, ParsingStyle};

use super::zconfig::datatypes;
use super::zconfig::quoted;
use crate::base::address::Address;

/// The options of a command line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    pub configuration: Option<String>,
    /// `-X`: settings that override those of the configuration file.
    pub overrides: Vec<String>,
    pub address: Option<Address>,
    /// Storages 1, 2, ...
    pub filenames: Vec<String>,
    /// In seconds.
    pub timeout: Option<f64>,
    pub monitor: Option<Address>,
    pub http: Option<Address>,
    pub pid_file: Option<String>,
    pub auth_protocol: Option<String>,
    pub auth_database: Option<String>,
    pub auth_realm: Option<String>,
    pub exit_immediately: bool,
    /// `--check`: print a summary of the configuration, and stop.
    pub check: bool,
}

/// A command line.
#[derive(Clone, Debug, PartialEq)]
pub enum CommandLine {
    Help,
    Version,
    Run(Box<Options>),
}

/// Why the command line or the configuration cannot be used. The program exits with status 2.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UsageError {
    pub program: String,
    pub message: String,
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Error: {}", self.message)?;
        writeln!(f, "For help, use {} -h", self.program)
    }
}

impl std::error::Error for UsageError {}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Opt {
    Address,
    AuthDatabase,
    AuthProtocol,
    AuthRealm,
    Check,
    Configuration,
    Filename,
    Help,
    Http,
    Monitor,
    Override,
    PidFile,
    Test,
    Timeout,
    Version,
}

/// Which programs have an option. The first one in `KNOWN` that can complete an abbreviation decides its meaning.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Known {
    Zeo6,
    Zeo4,
    Here,
}

const KNOWN: [Known; 3] = [Known::Zeo6, Known::Zeo4, Known::Here];

struct OptionRow {
    option: Opt,
    short: &'static str,
    long: &'static str,
    takes_value: bool,
    known: Known,
}

const fn row(
    option: Opt,
    short: &'static str,
    long: &'static str,
    takes_value: bool,
    known: Known,
) -> OptionRow {
    OptionRow { option, short, long, takes_value, known }
}

const TABLE: &[OptionRow] = &[
    row(Opt::Help, "h", "help", false, Known::Zeo6),
    row(Opt::Version, "", "version", false, Known::Zeo6),
    row(Opt::Configuration, "C", "configure", true, Known::Zeo6),
    row(Opt::Configuration, "", "configuration", true, Known::Here), // so it says in the help of ZEO 4
    row(Opt::Override, "X", "", true, Known::Zeo6),
    row(Opt::Test, "", "test", false, Known::Zeo6),
    row(Opt::Address, "a", "address", true, Known::Zeo6),
    row(Opt::Filename, "f", "filename", true, Known::Zeo6),
    row(Opt::Timeout, "t", "timeout", true, Known::Zeo6),
    row(Opt::Monitor, "m", "monitor", true, Known::Zeo4),
    row(Opt::AuthProtocol, "", "auth-protocol", true, Known::Zeo4),
    row(Opt::AuthDatabase, "", "auth-database", true, Known::Zeo4),
    row(Opt::AuthRealm, "", "auth-realm", true, Known::Zeo4),
    row(Opt::PidFile, "", "pid-file", true, Known::Zeo6),
    row(Opt::Check, "", "check", false, Known::Here),
    row(Opt::Http, "", "http", true, Known::Here),
];

/// The long names of the options that only some of Python's servers have, for the documents; `true`: ZEO up to 4 has
/// it.
pub fn not_everywhere() -> impl Iterator<Item = (&'static str, bool)> {
    let rows = TABLE.iter().filter(|row| row.known != Known::Zeo6);
    rows.map(|row| (row.long, row.known == Known::Zeo4))
}

/// The output of `--help`, which fits on a screen.
pub fn help(program: &str) -> String {
    format!(
        "\
Serve ZODB storages to ZEO clients.

Usage: {program} -C FILE [options]
       {program} -a ADDRESS -f FILE [options]

What to serve:
  -C, --configure FILE    configuration file (ZConfig): a path or a file: URL
  -X SECTION/KEY=VALUE    use VALUE instead of what the configuration file says
  -f, --filename FILE     serve this FileStorage, created if missing; may be
                          repeated: the storages are named 1, 2, and so on
Where to listen (-a replaces all addresses of the file):
  -a, --address ADDRESS   PORT, HOST:PORT, or the PATH (with a /) of a socket
  -m, --monitor ADDRESS   offer statistics as text there (default: nowhere)
      --http ADDRESS      offer probes and metrics there (default: nowhere)
Who may connect (default: everybody; clients from ZEO 5 on know no passwords):
      --auth-protocol NAME, --auth-database FILE, --auth-realm REALM
                          digest, the file that zeopasswd writes, and its realm
How to run:
  -t, --timeout SECONDS   longest time from vote to finish (default: no limit)
      --pid-file FILE     where to write the process id (default:
                          $INSTANCE_HOME/var/ZEO.pid if INSTANCE_HOME is set)
      --check             say what would be served, open nothing
      --test              start, and stop at once
  -h, --help; --version   print this, or the version
Options win over the configuration file. Without -C, -a and -f are required.
Environment: ZEO_MSGPACK not empty: speak msgpack, for clients set to it.
Exit status: 0 stopped by SIGTERM or SIGINT; 1 failed, or stopped by SIGHUP;
2 the command line or the configuration cannot be used.
"
    )
}

/// Parses the arguments, without the program's name.
pub fn parse(program: &str, arguments: &[OsString]) -> Result<CommandLine, UsageError> {
    let fail = |message: String| UsageError { program: program.into(), message };
    let arguments = arguments
        .iter()
        .map(|argument| argument.to_str().map(String::from))
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| fail("the command line is not UTF-8 text".into()))?;
    let line = Unabbreviated::from_arguments(arguments).map_err(fail)?;
    let matches = table_for_getopts().parse(&line.arguments).map_err(|problem| fail(explain(&problem)))?;
    if !matches.free.is_empty() {
        return Err(fail("positional arguments are not supported".into()));
    }
    // getopts sorts by option; errors and help must come from left to right.
    let mut given = Vec::new();
    for row in TABLE {
        let name = if row.long.is_empty() { row.short } else { row.long };
        if row.takes_value {
            let values = matches.opt_strs_pos(name);
            given.extend(values.into_iter().map(|(position, value)| (position, row, value)));
        } else {
            let positions = matches.opt_positions(name);
            given.extend(positions.into_iter().map(|position| (position, row, String::new())));
        }
    }
    given.sort_by_key(|(position, ..)| *position);
    let mut options = Options::default();
    for (position, row, value) in given {
        let written = match line.is_long.get(position) {
            Some(true) => format!("--{}", row.long),
            _ => format!("-{}", row.short),
        };
        match row.option {
            Opt::Help => return Ok(CommandLine::Help),
            Opt::Version => return Ok(CommandLine::Version),
            _ => options.take(row.option, &written, value).map_err(fail)?,
        }
    }
    Ok(CommandLine::Run(Box::new(options)))
}

impl Options {
    fn take(&mut self, option: Opt, written: &str, value: String) -> Result<(), String> {
        let invalid = |reason: String| format!("invalid value for {written} {}: {reason}", quoted(&value));
        match option {
            Opt::Address => self.address = Some(datatypes::socket_address(&value).map_err(invalid)?),
            Opt::Http => self.http = Some(datatypes::socket_address(&value).map_err(invalid)?),
            Opt::Monitor => self.monitor = Some(datatypes::socket_address(&value).map_err(invalid)?),
            Opt::Timeout => {
                let timeout = datatypes::float(&value).map_err(invalid)?;
                if timeout.is_nan() {
                    return Err(invalid("it is not a length of time".into()));
                }
                set_once(&mut self.timeout, timeout, written)?;
            }
            Opt::Configuration => set_once(&mut self.configuration, value, written)?,
            Opt::PidFile => set_once(&mut self.pid_file, value, written)?,
            Opt::Override => self.overrides.push(value),
            Opt::Filename => self.filenames.push(value),
            Opt::AuthProtocol => set_once(&mut self.auth_protocol, value, written)?,
            Opt::AuthDatabase => set_once(&mut self.auth_database, value, written)?,
            Opt::AuthRealm => set_once(&mut self.auth_realm, value, written)?,
            Opt::Test => self.exit_immediately = true,
            Opt::Check => self.check = true,
            Opt::Help | Opt::Version => {}
        }
        Ok(())
    }
}

/// Sets an option. If it is given again, the value must be the same.
fn set_once<T: PartialEq>(option: &mut Option<T>, value: T, written: &str) -> Result<(), String> {
    if option.as_ref().is_some_and(|first| *first != value) {
        return Err(format!("conflicting command line option '{written}'"));
    }
    *option = Some(value);
    Ok(())
}

/// The arguments with unabbreviated long options, as getopts requires.
struct Unabbreviated {
    arguments: Vec<String>,
    /// For each option argument (without separate values), whether it is a long one.
    is_long: Vec<bool>,
}

impl Unabbreviated {
    fn from_arguments(arguments: Vec<String>) -> Result<Unabbreviated, String> {
        let mut line = Unabbreviated { arguments: Vec::new(), is_long: Vec::new() };
        let mut rest = arguments.into_iter();
        while let Some(argument) = rest.next() {
            let value_follows;
            if let Some(long) = argument.strip_prefix("--").filter(|long| !long.is_empty()) {
                let (written, value) = match long.split_once('=') {
                    Some((written, value)) => (written, Some(value)),
                    None => (long, None),
                };
                let row = unabbreviate(written)?;
                value_follows = row.takes_value && value.is_none();
                let value = value.map(|value| format!("={value}")).unwrap_or_default();
                line.arguments.push(format!("--{}{value}", row.long));
                line.is_long.push(true);
            } else if let Some(shorts) = argument.strip_prefix('-').filter(|s| !s.is_empty() && *s != "-") {
                // The value of the first option with a value is the rest of the argument, or the next one.
                let taker = shorts.char_indices().find(|(_, c)| takes_value(*c));
                value_follows = taker.is_some_and(|(index, c)| index + c.len_utf8() == shorts.len());
                line.arguments.push(argument);
                line.is_long.push(false);
            } else {
                line.arguments.push(argument);
                line.arguments.extend(rest);
                break;
            }
            if value_follows {
                line.arguments.extend(rest.next());
            }
        }
        Ok(line)
    }
}

fn takes_value(short: char) -> bool {
    TABLE.iter().any(|row| row.takes_value && row.short.starts_with(short))
}

fn unabbreviate(written: &str) -> Result<&'static OptionRow, String> {
    if let Some(row) = TABLE.iter().find(|row| !row.long.is_empty() && row.long == written) {
        return Ok(row);
    }
    for known in KNOWN {
        let mut candidates = TABLE
            .iter()
            .filter(|row| row.known == known && !row.long.is_empty() && row.long.starts_with(written));
        match (candidates.next(), candidates.next()) {
            (Some(only), None) => return Ok(only),
            (Some(_), Some(_)) => return Err(format!("option --{written} not a unique prefix")),
            (None, _) => {}
        }
    }
    Err(format!("option --{written} not recognized"))
}

fn table_for_getopts() -> getopts::Options {
    let mut table = getopts::Options::new();
    table.parsing_style(ParsingStyle::StopAtFirstFree);
    for row in TABLE {
        let has_value = if row.takes_value { HasArg::Yes } else { HasArg::No };
        table.opt(row.short, row.long, "", "", has_value, Occur::Multi);
    }
    table
}

/// The message of Python's getopt.
pub fn explain(problem: &Fail) -> String {
    let dashed =
        |name: &str| if name.chars().count() == 1 { format!("-{name}") } else { format!("--{name}") };
    match problem {
        Fail::ArgumentMissing(name) => format!("option {} requires argument", dashed(name)),
        Fail::UnrecognizedOption(name) => format!("option {} not recognized", dashed(name)),
        Fail::UnexpectedArgument(name) => format!("option {} must not have an argument", dashed(name)),
        Fail::OptionMissing(name) | Fail::OptionDuplicated(name) => {
            format!("option {} is missing or given twice", dashed(name))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arguments: &[&str]) -> Result<CommandLine, String> {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        parse("runzeo", &arguments).map_err(|error| error.message)
    }

    fn options(arguments: &[&str]) -> Options {
        match run(arguments) {
            Ok(CommandLine::Run(options)) => *options,
            other => panic!("{arguments:?} gave {other:?}"),
        }
    }

    #[test]
    fn reads_options() {
        let read = options(&[
            "-a",
            "8100",
            "-fData.fs",
            "--file=b=c",
            "--timeout",
            "2.5",
            "-m:9",
            "--pid",
            "p",
            "--te",
        ]);
        assert_eq!(
            read,
            Options {
                address: Some(Address::Tcp { host: None, port: Some(8100) }),
                filenames: vec!["Data.fs".into(), "b=c".into()],
                timeout: Some(2.5),
                monitor: Some(Address::Tcp { host: None, port: Some(9) }),
                pid_file: Some("p".into()),
                exit_immediately: true,
                ..Options::default()
            }
        );
        assert_eq!(
            options(&["-C", "-h"]).configuration.as_deref(),
            Some("-h"),
            "a value may begin with a dash"
        );
        assert_eq!(options(&["-C", ""]).configuration.as_deref(), Some(""));
        assert_eq!(
            options(&["--conf", "a", "-Ca"]).configuration.as_deref(),
            Some("a"),
            "the same again is fine"
        );
        assert_eq!(options(&["--configuration", "a"]).configuration.as_deref(), Some("a"));
        assert_eq!(options(&["-a1", "-a2"]).address, Some(Address::Tcp { host: None, port: Some(2) }));
        assert_eq!(options(&["-X", "a/b=c", "--"]).overrides, ["a/b=c"]);
        assert!(options(&["--check"]).check);
        assert_eq!(
            options(&["--c", "a"]).configuration.as_deref(),
            Some("a"),
            "--check shortens nothing of Python's"
        );
    }

    #[test]
    fn answers() {
        assert_eq!(run(&["-h", "-a", "a:b"]), Ok(CommandLine::Help));
        assert_eq!(run(&["--he"]), Ok(CommandLine::Help));
        assert_eq!(run(&["--version"]), Ok(CommandLine::Version));
        let help = help("runzeo");
        assert!(help.lines().count() <= 30 && help.lines().all(|line| line.len() <= 79), "{help}");
    }

    #[test]
    fn mistakes() {
        for (arguments, expected) in [
            (&["-x"] as &[&str], "option -x not recognized"),
            (&["--nonsense"], "option --nonsense not recognized"),
            (&["--t", "1"], "option --t not a unique prefix"),
            (&["-a"], "option -a requires argument"),
            (&["--address"], "option --address requires argument"),
            (&["--addr"], "option --address requires argument"),
            (&["--test=1"], "option --test must not have an argument"),
            (&["file"], "positional arguments are not supported"),
            (&["-C", "a", "b", "--nonsense"], "positional arguments are not supported"),
            (&["--", "-h"], "positional arguments are not supported"),
            (&["-"], "positional arguments are not supported"),
            (&["-Ca", "--configure=b"], "conflicting command line option '--configure'"),
            (&["-Ca", "-Cb"], "conflicting command line option '-C'"),
            (&["-t", "soon"], "invalid value for -t 'soon': 'soon' is not a number"),
            (&["-a", "host:x", "-h"], "invalid value for -a 'host:x': 'x' is not a port number (0 to 65535)"),
            (&["--auth-realm", "x", "--auth-realm=y"], "conflicting command line option '--auth-realm'"),
            (&["--auth", "x"], "option --auth not a unique prefix"),
            (&["-é"], "option -é not recognized"),
            (&["--="], "option -- not a unique prefix"),
        ] {
            assert_eq!(run(arguments), Err(expected.into()), "{arguments:?}");
        }
    }
}
