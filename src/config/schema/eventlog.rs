//! `<eventlog>`: destinations and formats of log lines.

use std::path::PathBuf;

use crate::base::address::Address;
use crate::base::level::{ALL, BLATHER, CRITICAL, DEBUG, ERROR, INFO, NOTSET, TRACE, WARNING};
use crate::config::zconfig::datatypes::{self, Datatype};
use crate::config::zconfig::matcher::{Child, Content, KnownTo, SectionType, key, required_key};
use crate::config::zconfig::{ConfigError, Section, quoted};
use crate::logging::format::{DEFAULT_DATE_FORMAT, JSON};
use crate::logging::{
    Destination, Encoding, FileSetup, Formatter, HandlerSetup, JournalSetup, Layout, LogSetup, Rotation,
    Style, SyslogAddress, SyslogSetup, When,
};

/// [`DEFAULT_FORMAT`](crate::logging::format::DEFAULT_FORMAT) as the configuration writes it.
const LOGFILE_FORMAT: &str = r"------\n%(asctime)s %(levelname)s %(name)s %(message)s";
const DEFAULT_SYSLOG_FORMAT: &str = "%(name)s %(message)s";
const DEFAULT_SYSLOG_FACILITY: &str = "user";
/// Default host of a syslog address.
const SYSLOG_HOST: &str = "localhost";
const SYSLOG_PORT: u16 = 514;
/// The socket of systemd's journal.
const JOURNAL_PATH: &str = "/run/systemd/journal/socket";
const JOURNAL_IDENTIFIER: &str = "runzeo";
/// Upper bound on the bytes of a path of a Unix socket.
const SOCKET_PATH_LEN_MAX: usize = 107;

const ZCONFIG_3_4: KnownTo = KnownTo::Since("ZConfig 3.4");

const LEVEL: Datatype = Datatype::Custom(|text| level(text).map(drop));
const STYLE: Datatype = Datatype::Custom(|text| style(text).map(drop));
const FACILITY: Datatype = Datatype::Custom(|text| facility(text).map(drop));

/// The keys of all handlers, and those of one kind.
macro_rules! handler {
    ($name:literal, $format:expr, $($child:expr),* $(,)?) => {
        SectionType {
            name: $name,
            content: Content::Checked(&[
                key("formatter", Datatype::DottedName).default("logging.Formatter"),
                key("dateformat", Datatype::Any).default(DEFAULT_DATE_FORMAT),
                key("level", LEVEL).default("notset"),
                key("style", STYLE).default("classic").known(ZCONFIG_3_4),
                key("arbitrary-fields", Datatype::Boolean).default("false").known(ZCONFIG_3_4),
                key("format", Datatype::Any).default($format),
                $($child),*
            ]),
        }
    };
}

pub static LOGFILE: SectionType = handler![
    "logfile",
    LOGFILE_FORMAT,
    required_key("path", Datatype::Any),
    key("old-files", Datatype::Integer).default("0"),
    key("max-size", Datatype::ByteSize).default("0"),
    key("when", Datatype::Any).default(""),
    key("interval", Datatype::Integer).default("0"),
    key("encoding", Datatype::Any).default("utf-8").known(ZCONFIG_3_4),
    key("delay", Datatype::Boolean).default("false").known(ZCONFIG_3_4),
];

pub static SYSLOG: SectionType = handler![
    "syslog",
    DEFAULT_SYSLOG_FORMAT,
    key("facility", FACILITY).default(DEFAULT_SYSLOG_FACILITY),
    key("address", Datatype::SocketAddress).default("localhost:514"),
];

/// A section of our own: Python's servers know no such handler.
pub static JOURNAL: SectionType = SectionType {
    name: "journal",
    content: Content::Own(&[
        key("level", LEVEL).default("notset").known(KnownTo::Own),
        key("identifier", Datatype::Custom(|text| identifier(text).map(drop)))
            .default("runzeo")
            .known(KnownTo::Own),
        key("path", Datatype::Custom(|text| journal_path(text).map(drop)))
            .default(JOURNAL_PATH)
            .known(KnownTo::Own),
    ]),
};

pub static WIN32_EVENTLOG: SectionType = handler!["win32-eventlog", "", key("appname", Datatype::Any)];

pub static HTTP_LOGGER: SectionType = handler![
    "http-logger",
    "",
    key("url", Datatype::Custom(http_url)),
    key("method", Datatype::Custom(http_method))
];

pub static EMAIL_NOTIFIER: SectionType = handler![
    "email-notifier",
    "",
    required_key("from", Datatype::Any),
    Child::Key {
        name: "to",
        datatype: Datatype::Any,
        required: true,
        multiple: true,
        default: None,
        known: KnownTo::Always,
    },
    key("subject", Datatype::Any),
    key("smtp-server", Datatype::InetAddress),
    key("smtp-username", Datatype::Any),
    key("smtp-password", Datatype::Any),
];

const HANDLERS: Child = Child::Slot {
    what: "log handler section",
    types: &[&LOGFILE, &SYSLOG, &JOURNAL, &WIN32_EVENTLOG, &HTTP_LOGGER, &EMAIL_NOTIFIER],
    required: false,
    multiple: true,
};

pub static EVENTLOG: SectionType = SectionType {
    name: "eventlog",
    content: Content::Checked(&[key("level", LEVEL).default("info"), HANDLERS]),
};

/// A logger other than the root; allowed in `<runner>` only.
pub static LOGGER: SectionType = SectionType {
    name: "logger",
    content: Content::Checked(&[
        key("level", LEVEL),
        HANDLERS,
        key("propagate", Datatype::Boolean),
        key("name", Datatype::DottedName),
    ]),
};

pub fn log_setup(section: &Section) -> Result<LogSetup, ConfigError> {
    Ok(LogSetup {
        level: section.get("level", level)?.unwrap_or(INFO),
        handlers: section.sections().map(handler).collect::<Result<_, _>>()?,
        configured: true,
    })
}

fn handler(section: &Section) -> Result<HandlerSetup, ConfigError> {
    match section.type_name.as_str() {
        "logfile" => log_file(section),
        "syslog" => syslog(section),
        "journal" => journal(section),
        other => Err(ConfigError::at(
            &section.start,
            format!("<{other}> is not supported; there are <logfile>, <syslog> and <journal>"),
        )),
    }
}

fn log_file(section: &Section) -> Result<HandlerSetup, ConfigError> {
    let path = section.get("path", datatypes::string)?.unwrap_or_default();
    if path.is_empty() {
        return Err(ConfigError::at(&section.start, "the path of a <logfile> is empty"));
    }
    let refused = |reason: &str| ConfigError::at(&section.start, format!("<logfile>: {reason}"));
    let wanted = RotationWanted::from_section(section)?;
    let delay = section.get("delay", datatypes::boolean)?.unwrap_or(false);
    let (destination, encoding) = match path.as_str() {
        "STDOUT" | "STDERR" => {
            wanted.check_stream().map_err(refused)?;
            if delay {
                return Err(refused("standard output cannot be opened later; drop delay"));
            }
            if section.value("encoding").is_some_and(|value| !value.text.is_empty()) {
                return Err(refused("standard output has its own encoding; drop encoding"));
            }
            let is_stdout = path == "STDOUT";
            (if is_stdout { Destination::Stdout } else { Destination::Stderr }, Encoding::default())
        }
        _ => {
            let rotation = wanted.rotation().map_err(refused)?;
            let encoding = section.get("encoding", encoding)?.unwrap_or_default();
            (Destination::File(FileSetup { path: path.into(), rotation, delay }), encoding)
        }
    };
    let layout = layout(section, LOGFILE_FORMAT)?;
    if layout.style == Style::Json && encoding != Encoding::Utf8 {
        return Err(refused("JSON is UTF-8; drop encoding, or format json"));
    }
    Ok(HandlerSetup { level: section.get("level", level)?.unwrap_or(NOTSET), layout, destination, encoding })
}

/// How the file of a section is rotated. The inner error says what is wrong with the keys together.
pub fn rotation(section: &Section) -> Result<Result<Rotation, &'static str>, ConfigError> {
    RotationWanted::from_section(section).map(|wanted| wanted.rotation())
}

/// The rotation keys as configured.
struct RotationWanted {
    old_files: i128,
    max_size: i128,
    when: Option<When>,
    interval: i128,
}

impl RotationWanted {
    fn from_section(section: &Section) -> Result<RotationWanted, ConfigError> {
        Ok(RotationWanted {
            old_files: section.get("old-files", datatypes::integer)?.unwrap_or(0),
            max_size: section.get("max-size", datatypes::byte_size)?.unwrap_or(0),
            when: section.get("when", rotate_when)?.flatten(),
            interval: section.get("interval", datatypes::integer)?.unwrap_or(0),
        })
    }

    /// Checks the keys for standard output and standard error.
    fn check_stream(&self) -> Result<(), &'static str> {
        if self.max_size != 0 || self.old_files != 0 || self.when.is_some() {
            return Err("standard output cannot be rotated; drop max-size, when and old-files");
        }
        Ok(())
    }

    fn rotation(&self) -> Result<Rotation, &'static str> {
        if self.when.is_none() && self.max_size == 0 && self.old_files == 0 && self.interval == 0 {
            return Ok(Rotation::Never);
        }
        let old_files = u32::try_from(self.old_files.min(i128::from(u32::MAX))).unwrap_or(0);
        if old_files == 0 {
            return Err("rotation needs old-files, the number of old files to keep, greater than 0");
        }
        match self.when {
            Some(_) if self.max_size != 0 => Err("max-size and when exclude each other"),
            Some(_) if self.interval < 0 => Err("interval cannot be negative"),
            Some(when) => {
                let interval = u32::try_from(self.interval.max(1)).unwrap_or(u32::MAX);
                Ok(Rotation::Time { when, interval, old_files })
            }
            None if self.max_size != 0 => {
                // In Python a negative size is never reached.
                Ok(Rotation::Size { max_size: u64::try_from(self.max_size).unwrap_or(0), old_files })
            }
            None => Err("rotation needs max-size or when"),
        }
    }
}

fn syslog(section: &Section) -> Result<HandlerSetup, ConfigError> {
    let address = match section.get("address", datatypes::socket_address)? {
        Some(Address::Unix(path)) => SyslogAddress::Unix(path),
        Some(Address::Tcp { host, port }) => SyslogAddress::Udp {
            host: host.unwrap_or_else(|| SYSLOG_HOST.into()),
            port: port.unwrap_or(SYSLOG_PORT),
        },
        None => SyslogAddress::Udp { host: SYSLOG_HOST.into(), port: SYSLOG_PORT },
    };
    let facility = section.get("facility", facility)?.unwrap_or_else(|| DEFAULT_SYSLOG_FACILITY.into());
    Ok(HandlerSetup {
        level: section.get("level", level)?.unwrap_or(NOTSET),
        layout: layout(section, DEFAULT_SYSLOG_FORMAT)?,
        destination: Destination::Syslog(SyslogSetup { facility, address }),
        encoding: Encoding::Utf8,
    })
}

fn journal(section: &Section) -> Result<HandlerSetup, ConfigError> {
    let path = section.get("path", journal_path)?.unwrap_or_else(|| JOURNAL_PATH.into());
    let identifier = section.get("identifier", identifier)?.unwrap_or_else(|| JOURNAL_IDENTIFIER.into());
    Ok(HandlerSetup {
        level: section.get("level", level)?.unwrap_or(NOTSET),
        layout: Layout::default(),
        destination: Destination::Journal(JournalSetup { path, identifier }),
        encoding: Encoding::Utf8,
    })
}

/// An absolute path that fits into the address of a socket.
fn journal_path(text: &str) -> Result<PathBuf, String> {
    match text.starts_with('/') && text.len() <= SOCKET_PATH_LEN_MAX {
        true => Ok(text.into()),
        false => Err(format!("{} is no absolute path of at most {SOCKET_PATH_LEN_MAX} bytes", quoted(text))),
    }
}

/// The name under which `journalctl` shows lines.
fn identifier(text: &str) -> Result<String, String> {
    match text.is_empty() || text.contains(char::is_control) {
        true => Err(format!("{} is no name for log lines", quoted(text))),
        false => Ok(text.into()),
    }
}

/// The keys of a line's layout. `arbitrary-fields` has no effect: an unknown field is refused even with it.
fn layout(section: &Section, default_format: &str) -> Result<Layout, ConfigError> {
    // zope.exceptions' formatter differs only in tracebacks, and there are none here.
    if let Some(formatter) = section.value("formatter")
        && !matches!(formatter.text.as_str(), "logging.Formatter" | "zope.exceptions.log.Formatter")
    {
        return Err(ConfigError::at(
            &formatter.location,
            format!("formatter: {} cannot be loaded; only logging.Formatter is supported", formatter.text),
        ));
    }
    if let Some(format) = section.value("format").filter(|value| value.text == JSON) {
        if section.value("dateformat").is_some() || section.value("style").is_some() {
            let reason = "format json has a time and a form of its own; drop dateformat and style";
            return Err(ConfigError::at(&format.location, reason));
        }
        return Ok(Layout { format: JSON.into(), dateformat: String::new(), style: Style::Json });
    }
    let style = section.get("style", style)?.unwrap_or_default();
    let format = match section.value("format").map_or(default_format, |value| &value.text) {
        "" => style.default_format().into(),
        format => unescape(format),
    };
    let dateformat =
        section.get("dateformat", datatypes::string)?.unwrap_or_else(|| DEFAULT_DATE_FORMAT.into());
    let layout = Layout { format, dateformat, style };
    Formatter::new(&layout).map_err(|error| {
        let location = section.value(error.key).map_or(&section.start, |value| &value.location);
        ConfigError::at(location, format!("{}: {}", error.key, error.problem))
    })?;
    Ok(layout)
}

/// Replaces `\n`, `\t`, `\b`, `\f` and `\r` in a format by the control characters.
fn unescape(text: &str) -> String {
    text.replace("\\n", "\n")
        .replace("\\t", "\t")
        .replace("\\b", "\x08")
        .replace("\\f", "\x0c")
        .replace("\\r", "\r")
}

/// The number of a level.
pub fn level(text: &str) -> Result<u8, String> {
    match text.to_lowercase().as_str() {
        "critical" | "fatal" => Ok(CRITICAL),
        "error" => Ok(ERROR),
        "warn" | "warning" => Ok(WARNING),
        "info" => Ok(INFO),
        "blather" => Ok(BLATHER),
        "debug" => Ok(DEBUG),
        "trace" => Ok(TRACE),
        "all" => Ok(ALL),
        "notset" => Ok(NOTSET),
        number => match datatypes::integer(number).map(u8::try_from) {
            Ok(Ok(level @ NOTSET..=CRITICAL)) => Ok(level),
            _ => Err(format!(
                "{} is not a level; use critical, error, warning, info, blather, debug, trace, all, notset or 0 to 50",
                quoted(text)
            )),
        },
    }
}

fn style(text: &str) -> Result<Style, String> {
    match text.to_lowercase().as_str() {
        "classic" => Ok(Style::Classic),
        "format" => Ok(Style::Format),
        "template" => Ok(Style::Template),
        "safe-template" => Ok(Style::SafeTemplate),
        _ => Err(format!("{} is not a style; use classic, format, template or safe-template", quoted(text))),
    }
}

fn facility(text: &str) -> Result<String, String> {
    const FACILITIES: &[&str] = &[
        "auth", "authpriv", "cron", "daemon", "kern", "local0", "local1", "local2", "local3", "local4",
        "local5", "local6", "local7", "lpr", "mail", "news", "security", "syslog", "user", "uucp",
    ];
    let facility = text.to_lowercase();
    if FACILITIES.contains(&facility.as_str()) {
        Ok(facility)
    } else {
        Err(format!("{} is not a syslog facility; use one of {}", quoted(text), FACILITIES.join(", ")))
    }
}

fn rotate_when(text: &str) -> Result<Option<When>, String> {
    match text.to_uppercase().as_str() {
        "" => Ok(None),
        "S" => Ok(Some(When::Second)),
        "M" => Ok(Some(When::Minute)),
        "H" => Ok(Some(When::Hour)),
        "D" => Ok(Some(When::Day)),
        "MIDNIGHT" => Ok(Some(When::Midnight)),
        other => match other.as_bytes() {
            [b'W', day @ b'0'..=b'6'] => Ok(Some(When::Weekday(day - b'0'))),
            _ => {
                Err(format!("{} is not a time; use S, M, H, D, midnight, or W0 (Monday) to W6", quoted(text)))
            }
        },
    }
}

/// The encodings for server logs, by their names in Python.
fn encoding(text: &str) -> Result<Encoding, String> {
    match text.to_lowercase().replace(['-', ' '], "_").as_str() {
        "utf_8" | "utf8" | "u8" | "utf" | "cp65001" => Ok(Encoding::Utf8),
        "ascii" | "us_ascii" | "646" => Ok(Encoding::Ascii),
        "latin_1" | "latin1" | "latin" | "l1" | "iso_8859_1" | "iso8859_1" | "8859" | "cp819" => {
            Ok(Encoding::Latin1)
        }
        _ => Err(format!("{} is not supported; use utf-8, latin-1 or ascii", quoted(text))),
    }
}

fn http_url(text: &str) -> Result<(), String> {
    let location = text.strip_prefix("http://").and_then(|rest| rest.split_once('/'));
    match location {
        Some((host, _)) if !host.is_empty() => Ok(()),
        _ => Err(format!("{} is not of the form http://HOST/PATH", quoted(text))),
    }
}

fn http_method(text: &str) -> Result<(), String> {
    match text.to_uppercase().as_str() {
        "GET" | "POST" => Ok(()),
        _ => Err(format!("{} is neither GET nor POST", quoted(text))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes() {
        assert_eq!(unescape("a\\n\\tb\\\\x\\r"), "a\n\tb\\\\x\r");
    }
}
