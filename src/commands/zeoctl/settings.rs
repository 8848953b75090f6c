//! The command line of `zeoctl`, combined with `<runner>` of the configuration file. The command line wins.
//!
//! Options and messages are those of Python's `zeoctl`; long options are not abbreviated.

use std::ffi::OsString;
use std::path::PathBuf;

use getopts::{HasArg, Matches, Occur, Options, ParsingStyle};

use crate::base::level::WARNING;
use crate::config::options::explain;
use crate::config::zconfig::{datatypes, quoted};
use crate::config::{Runner, runner, runner_of};
use crate::logging::LogSetup;
use crate::storage::StorageKinds;

/// Bytes of a path that fit into the address of a Unix socket.
const SOCKET_NAME_LEN_MAX: usize = 107;

/// Short and long name, and whether there is a value.
const OPTIONS: &[(&str, &str, bool)] = &[
    ("h", "help", false),
    ("", "version", false),
    ("C", "configure", true),
    ("X", "", true),
    ("S", "schema", true),
    ("p", "program", true),
    ("s", "socket-name", true),
    ("d", "daemon", false),
    ("z", "directory", true),
    ("b", "backoff-limit", true),
    ("f", "forever", false),
    ("x", "exit-codes", true),
    ("T", "start-timeout", true),
    ("u", "user", true),
    ("m", "umask", true),
    ("l", "logfile", true),
    ("t", "transcript", true),
];

/// A command line.
pub(super) enum CommandLine {
    Help,
    Version,
    Run(Box<Settings>),
}

/// What to do, and with what.
pub(super) struct Settings {
    /// The configuration file.
    pub configuration: Option<String>,
    pub runner: Runner,
    /// Where the daemon manager logs.
    pub log: LogSetup,
    /// Variables for the program.
    pub environment: Vec<(String, String)>,
    pub action: String,
    /// What follows the action; for `start` and `fg` more arguments of the program.
    pub arguments: Vec<String>,
}

impl CommandLine {
    /// Reads the command line, without the program's name, and the configuration file. An error is a message.
    pub(super) fn read(arguments: &[OsString]) -> Result<CommandLine, String> {
        let arguments: Option<Vec<String>> =
            arguments.iter().map(|argument| argument.to_str().map(String::from)).collect();
        let arguments = arguments.ok_or("the command line is not UTF-8 text")?;
        let mut options = Options::new();
        options.parsing_style(ParsingStyle::StopAtFirstFree);
        for (short, long, takes_value) in OPTIONS {
            let has_value = if *takes_value { HasArg::Yes } else { HasArg::No };
            options.opt(short, long, "", "", has_value, Occur::Multi);
        }
        let matches = options.parse(&arguments).map_err(|problem| explain(&problem))?;
        if matches.opt_present("help") {
            return Ok(CommandLine::Help);
        }
        if matches.opt_present("version") {
            return Ok(CommandLine::Version);
        }
        Settings::of(&matches).map(|settings| CommandLine::Run(Box::new(settings)))
    }
}

impl Settings {
    fn of(matches: &Matches) -> Result<Settings, String> {
        if matches.opt_present("S") {
            return Err("option -S is not supported: the schema is the one of the ZEO server".into());
        }
        let configuration = once(matches, "C")?;
        let overrides = matches.opt_strs("X");
        let (in_file, log, variables) = match &configuration {
            None if !overrides.is_empty() => {
                return Err("configuration overrides (-X) cannot be used without a configuration file".into());
            }
            None => (None, None, Vec::new()),
            Some(file) => {
                let environment = |name: &str| std::env::var(name).ok();
                let started = runner_of(&StorageKinds::default(), file, &overrides, &environment)?;
                (started.runner, Some(started.log), started.environment)
            }
        };
        let runner = with_options(in_file.unwrap_or_default(), matches)?;
        if runner.program.is_empty() {
            return Err(match &configuration {
                None => "no program specified; use -p or -C".into(),
                Some(file) => format!("{file} has no <runner> section with a program; add one, or use -p"),
            });
        }
        let socket_len = runner.socket_name.as_os_str().len();
        if socket_len > SOCKET_NAME_LEN_MAX {
            return Err(format!(
                "the path of the control socket ({}) has {socket_len} bytes, and a socket's has at most \
                 {SOCKET_NAME_LEN_MAX}: give another socket-name",
                runner.socket_name.display()
            ));
        }
        let [action, arguments @ ..] = matches.free.as_slice() else {
            return Err("an action argument is required".into());
        };
        Ok(Settings {
            configuration,
            log: manager_log(&runner, log),
            environment: variables,
            runner,
            action: action.clone(),
            arguments: arguments.to_vec(),
        })
    }
}

/// The log of `<runner>`; without one, the log of the server. If there is neither, what is wrong goes to the
/// transcript.
fn manager_log(runner: &Runner, of_server: Option<LogSetup>) -> LogSetup {
    let configured = of_server.filter(|log| log.configured);
    runner.log.clone().or(configured).unwrap_or_else(|| LogSetup { level: WARNING, ..LogSetup::default() })
}

fn with_options(in_file: Runner, matches: &Matches) -> Result<Runner, String> {
    let path = |text: &str| Ok(PathBuf::from(text));
    let runner = Runner {
        program: of(matches, "p", |text| Ok(runner::words(text)))?.unwrap_or(in_file.program),
        socket_name: of(matches, "s", datatypes::existing_parent_dirpath)?.unwrap_or(in_file.socket_name),
        daemon: matches.opt_present("d") || in_file.daemon,
        directory: of(matches, "z", datatypes::existing_parent_directory)?.or(in_file.directory),
        backoff_limit: of(matches, "b", runner::seconds)?.unwrap_or(in_file.backoff_limit),
        forever: matches.opt_present("f") || in_file.forever,
        exit_codes: of(matches, "x", runner::exit_codes)?.unwrap_or(in_file.exit_codes),
        start_timeout: of(matches, "T", runner::seconds)?.unwrap_or(in_file.start_timeout),
        user: of(matches, "u", datatypes::string)?.or(in_file.user),
        umask: of(matches, "m", runner::umask)?.unwrap_or(in_file.umask),
        logfile: of(matches, "l", path)?.or(in_file.logfile),
        transcript: of(matches, "t", path)?.or(in_file.transcript),
        start_test_program: in_file.start_test_program,
        stop_timeout: in_file.stop_timeout,
        log: in_file.log,
    };
    Ok(runner)
}

/// The value of an option, converted.
fn of<T>(
    matches: &Matches,
    short: &str,
    convert: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, String> {
    let Some(text) = once(matches, short)? else { return Ok(None) };
    convert(&text)
        .map(Some)
        .map_err(|reason| format!("invalid value for -{short} {}: {reason}", quoted(&text)))
}

/// The text of an option. If it is given again, it must be the same.
fn once(matches: &Matches, short: &str) -> Result<Option<String>, String> {
    let values = matches.opt_strs(short);
    let mut others = values.iter().filter(|value| Some(*value) != values.first());
    match others.next() {
        Some(_) => Err(format!("conflicting command line option '-{short}'")),
        None => Ok(values.first().cloned()),
    }
}
