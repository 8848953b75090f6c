//! `<runner>`: how `zeoctl`, this program's or zdaemon's, starts the server of the same file.
//!
//! The server itself checks the section, as Python's runzeo does, and does nothing with it.

use std::path::PathBuf;
use std::time::Duration;

use super::eventlog;
use crate::config::zconfig::datatypes::{self, Datatype};
use crate::config::zconfig::matcher::{Child, Content, SectionType, key, required_key};
use crate::config::zconfig::tree::Value;
use crate::config::zconfig::{ConfigError, Section, is_space, quoted};
use crate::logging::LogSetup;

pub static RUNNER: SectionType = SectionType {
    name: "runner",
    content: Content::Checked(&[
        Child::Slot {
            what: "<eventlog> section",
            types: &[&eventlog::EVENTLOG, &eventlog::LOGGER],
            required: false,
            multiple: false,
        },
        required_key("program", Datatype::StringList),
        key("python", Datatype::ExistingPath),
        key("zdrun", Datatype::ExistingPath),
        key("socket-name", Datatype::ExistingParentDirpath).default("zdsock"),
        key("daemon", Datatype::Boolean).default("on"),
        key("directory", Datatype::ExistingParentDirectory),
        key("backoff-limit", Datatype::Integer).default("10"),
        key("forever", Datatype::Boolean).default("false"),
        key("exit-codes", Datatype::IntegerList).default("0,2"),
        key("start-test-program", Datatype::StringList),
        key("start-timeout", Datatype::Integer).default("300"),
        key("stop-timeout", Datatype::Integer).default("300"),
        key("user", Datatype::Any),
        key("umask", Datatype::Octal).default("022"),
        key("hang-around", Datatype::Boolean).default("false"),
        key("default-to-interactive", Datatype::Boolean).default("true"),
        key("logfile", Datatype::ExistingDirpath),
        key("transcript", Datatype::ExistingDirpath),
        key("prompt", Datatype::Any),
    ]),
};

/// `<environment>`: variables for the server that `zeoctl` starts. zdaemon has the section, and the schema of Python's
/// server does not.
pub static ENVIRONMENT: SectionType = SectionType { name: "environment", content: Content::Opaque };

/// The variables of `<environment>`, in the order of the file.
pub fn environment(section: &Section) -> Result<Vec<(String, String)>, ConfigError> {
    if let Some(inner) = section.sections().next() {
        let message = format!("{} cannot stand in <environment>", inner.shown());
        return Err(ConfigError::at(&inner.start, message));
    }
    let variable = |value: &Value| match value.key.contains(['=', '\0']) || value.text.contains('\0') {
        true => Err(ConfigError::at(&value.location, "an environment variable has no = in its name")),
        false => Ok((value.key.clone(), value.text.clone())),
    };
    section.values().map(variable).collect()
}

/// Upper bound on lengths of time.
const SECONDS_MAX: i128 = 366 * 86400;

/// How the server is started and kept running. `python`, `zdrun`, `prompt`, `default-to-interactive` and `hang-around`
/// have no effect: the first two are zdaemon's files, and today's zdaemon does nothing with the others either.
#[derive(Clone, Debug, PartialEq)]
pub struct Runner {
    /// The command; the first word is the program.
    pub program: Vec<String>,
    /// The control socket.
    pub socket_name: PathBuf,
    /// Whether it runs in the background.
    pub daemon: bool,
    /// Where it runs; `None`: where `zeoctl` is called.
    pub directory: Option<PathBuf>,
    /// Upper bound on the pause before a restart; a program that ran longer has not crashed at its start.
    pub backoff_limit: Duration,
    /// It is restarted however often it crashes at its start.
    pub forever: bool,
    /// Exit codes after which it is not restarted.
    pub exit_codes: Vec<i32>,
    /// The command that exits with 0 as soon as the program serves; empty: there is none.
    pub start_test_program: Vec<String>,
    /// How long `zeoctl start` waits.
    pub start_timeout: Duration,
    /// SIGKILL follows SIGTERM after this time; `None`: never.
    pub stop_timeout: Option<Duration>,
    /// A name or a number; `None`: the user that calls `zeoctl`.
    pub user: Option<String>,
    pub umask: u32,
    /// The file that `zeoctl logtail` shows.
    pub logfile: Option<PathBuf>,
    /// The file that gets the program's output; `None`: it is thrown away.
    pub transcript: Option<PathBuf>,
    /// `<eventlog>` or `<logger>` in the section.
    pub log: Option<LogSetup>,
}

impl Default for Runner {
    fn default() -> Runner {
        Runner {
            program: Vec::new(),
            socket_name: "zdsock".into(),
            daemon: true,
            directory: None,
            backoff_limit: Duration::from_secs(10),
            forever: false,
            exit_codes: vec![0, 2],
            start_test_program: Vec::new(),
            start_timeout: Duration::from_secs(300),
            stop_timeout: Some(Duration::from_secs(300)),
            user: None,
            umask: 0o22,
            logfile: None,
            transcript: None,
            log: None,
        }
    }
}

impl Runner {
    pub fn from_section(section: &Section) -> Result<Runner, ConfigError> {
        let default = Runner::default();
        let stop_timeout = section.get("stop-timeout", seconds)?;
        Ok(Runner {
            program: section.get("program", |text| Ok(words(text)))?.unwrap_or_default(),
            socket_name: section
                .get("socket-name", datatypes::existing_parent_dirpath)?
                .unwrap_or(default.socket_name),
            daemon: section.get("daemon", datatypes::boolean)?.unwrap_or(default.daemon),
            directory: section.get("directory", datatypes::existing_parent_directory)?,
            backoff_limit: section.get("backoff-limit", seconds)?.unwrap_or(default.backoff_limit),
            forever: section.get("forever", datatypes::boolean)?.unwrap_or(default.forever),
            exit_codes: section.get("exit-codes", exit_codes)?.unwrap_or(default.exit_codes),
            start_test_program: section
                .get("start-test-program", |text| Ok(words(text)))?
                .unwrap_or_default(),
            start_timeout: section.get("start-timeout", seconds)?.unwrap_or(default.start_timeout),
            stop_timeout: stop_timeout
                .map_or(default.stop_timeout, |time| Some(time).filter(|t| !t.is_zero())),
            user: section.get("user", datatypes::string)?,
            umask: section.get("umask", umask)?.unwrap_or(default.umask),
            logfile: section.get("logfile", datatypes::existing_dirpath)?,
            transcript: section.get("transcript", datatypes::existing_dirpath)?,
            log: section.sections().next().map(eventlog::log_setup).transpose()?,
        })
    }
}

/// The words of a command: blanks separate them, and there are no quotes.
pub fn words(text: &str) -> Vec<String> {
    text.split(is_space).filter(|word| !word.is_empty()).map(String::from).collect()
}

/// A number of seconds.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = datatypes::integer(text)?;
    let in_bounds = u64::try_from(seconds).ok().filter(|_| seconds <= SECONDS_MAX);
    in_bounds
        .map(Duration::from_secs)
        .ok_or_else(|| format!("{} is not between 0 and {SECONDS_MAX} seconds", quoted(text)))
}

/// Exit codes of programs, with commas.
pub fn exit_codes(text: &str) -> Result<Vec<i32>, String> {
    let codes = datatypes::integer_list(text)?;
    let codes: Option<Vec<i32>> = codes.into_iter().map(|code| i32::try_from(code).ok()).collect();
    codes.ok_or_else(|| format!("{}: exit codes are between 0 and 255", quoted(text)))
}

/// A mask of the modes of new files.
pub fn umask(text: &str) -> Result<u32, String> {
    let mask = datatypes::octal(text)?;
    let in_bounds = u32::try_from(mask).ok().filter(|mask| *mask <= 0o777);
    in_bounds.ok_or_else(|| format!("{} is not between 0 and 777", quoted(text)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::zconfig::Location;
    use crate::config::zconfig::tree::Item;

    fn runner(key: &str, text: &str) -> Result<Runner, String> {
        let mut section = Section::new("runner", None, Location::CommandLine);
        let value = Value { key: key.into(), text: text.into(), location: Location::CommandLine };
        section.items.push(Item::Value(value));
        Runner::from_section(&section).map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_of_the_table_are_those_of_the_options() {
        let mut count = 0;
        for child in RUNNER.children() {
            if let Child::Key { name, default: Some(text), .. } = child {
                assert_eq!(runner(name, text), Ok(Runner::default()), "{name}");
                count += 1;
            }
        }
        assert_eq!(count, 10);
    }

    #[test]
    fn values_arrive_and_have_bounds() {
        let default = Runner::default();
        assert_eq!(runner("stop-timeout", "0").unwrap().stop_timeout, None);
        assert_eq!(runner("backoff-limit", "3").unwrap().backoff_limit, Duration::from_secs(3));
        assert_eq!(runner("exit-codes", "").unwrap(), Runner { exit_codes: vec![], ..default.clone() });
        assert_eq!(runner("umask", "77").unwrap(), Runner { umask: 0o77, ..default });
        assert_eq!(runner("program", " a  b\tc ").unwrap().program, ["a", "b", "c"]);
        for (key, text) in [("start-timeout", "-1"), ("umask", "1000"), ("exit-codes", "99999999999")] {
            assert!(runner(key, text).is_err(), "{key} {text}");
        }
    }
}
