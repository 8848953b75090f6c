//! `<eventlog>`: where log lines go and how they look.

use super::log_format;
use crate::config::zconfig::datatypes::{self, Datatype};
use crate::config::zconfig::matcher::{Child, Content, SectionType, key, required_key};
use crate::config::zconfig::{ConfigError, Section, quoted};
use crate::config::{
    EventLogConfig, FormatStyle, HandlerConfig, LineLayout, LogEncoding, LogFileConfig, LogTarget,
    RotateWhen, Rotation, SyslogConfig,
};

const LEVEL_INFO: i32 = 20;
const DEFAULT_DATEFORMAT: &str = "%Y-%m-%dT%H:%M:%S";
/// Of `<logfile>`, and of stderr where no log is configured.
const DEFAULT_FILE_FORMAT: &str = "------\\n%(asctime)s %(levelname)s %(name)s %(message)s";
const DEFAULT_SYSLOG_FORMAT: &str = "%(name)s %(message)s";
const DEFAULT_SYSLOG_ADDRESS: &str = "localhost:514";

const LEVEL: Datatype = Datatype::Custom(|text| level(text).map(drop));
const STYLE: Datatype = Datatype::Custom(|text| style(text).map(drop));
const FACILITY: Datatype = Datatype::Custom(|text| facility(text).map(drop));

/// Keys that all handlers have, and then some.
macro_rules! handler {
    ($name:literal, $($child:expr),* $(,)?) => {
        SectionType {
            name: $name,
            content: Content::Checked(&[
                key("formatter", Datatype::DottedName),
                key("dateformat", Datatype::Any),
                key("level", LEVEL),
                key("style", STYLE),
                key("arbitrary-fields", Datatype::Boolean),
                key("format", Datatype::Any),
                $($child),*
            ]),
        }
    };
}

static LOGFILE: SectionType = handler![
    "logfile",
    required_key("path", Datatype::Any),
    key("old-files", Datatype::Integer),
    key("max-size", Datatype::ByteSize),
    key("when", Datatype::Any),
    key("interval", Datatype::Integer),
    key("encoding", Datatype::Any),
    key("delay", Datatype::Boolean),
];

static SYSLOG: SectionType =
    handler!["syslog", key("facility", FACILITY), key("address", Datatype::SocketAddress)];

static WIN32_EVENTLOG: SectionType = handler!["win32-eventlog", key("appname", Datatype::Any)];

static HTTP_LOGGER: SectionType = handler![
    "http-logger",
    key("url", Datatype::Custom(http_url)),
    key("method", Datatype::Custom(http_method))
];

static EMAIL_NOTIFIER: SectionType = handler![
    "email-notifier",
    required_key("from", Datatype::Any),
    Child::Key { name: "to", datatype: Datatype::Any, required: true, multiple: true },
    key("subject", Datatype::Any),
    key("smtp-server", Datatype::InetAddress),
    key("smtp-username", Datatype::Any),
    key("smtp-password", Datatype::Any),
];

const HANDLERS: Child = Child::Slot {
    what: "log handler section",
    types: &[&LOGFILE, &SYSLOG, &WIN32_EVENTLOG, &HTTP_LOGGER, &EMAIL_NOTIFIER],
    required: false,
    multiple: true,
};

pub static EVENTLOG: SectionType =
    SectionType { name: "eventlog", content: Content::Checked(&[key("level", LEVEL), HANDLERS]) };

/// A logger other than the root; stands in `<runner>` only.
pub static LOGGER: SectionType = SectionType {
    name: "logger",
    content: Content::Checked(&[
        key("level", LEVEL),
        HANDLERS,
        key("propagate", Datatype::Boolean),
        key("name", Datatype::DottedName),
    ]),
};

pub fn event_log(section: &Section) -> Result<EventLogConfig, ConfigError> {
    Ok(EventLogConfig {
        level: section.get("level", level)?.unwrap_or(LEVEL_INFO),
        handlers: section.sections().map(handler).collect::<Result<_, _>>()?,
    })
}

fn handler(section: &Section) -> Result<HandlerConfig, ConfigError> {
    match section.type_name.as_str() {
        "logfile" => log_file(section).map(HandlerConfig::LogFile),
        "syslog" => syslog(section).map(HandlerConfig::Syslog),
        other => Err(ConfigError::at(
            &section.start,
            format!("<{other}> is not supported; there are <logfile> and <syslog>"),
        )),
    }
}

fn log_file(section: &Section) -> Result<LogFileConfig, ConfigError> {
    let target = match section.get("path", datatypes::string)?.unwrap_or_default().as_str() {
        "STDOUT" => LogTarget::Stdout,
        "STDERR" => LogTarget::Stderr,
        "" => return Err(ConfigError::at(&section.start, "the path of a <logfile> is empty")),
        path => LogTarget::Path(path.into()),
    };
    let wanted = RotationWanted::from_section(section)?;
    let delay = section.get("delay", datatypes::boolean)?.unwrap_or(false);
    let encoding_given = section.value("encoding").is_some_and(|value| !value.text.is_empty());
    let rotation = match target {
        LogTarget::Path(_) => wanted.rotation(),
        LogTarget::Stdout | LogTarget::Stderr => {
            if wanted.max_size != 0 || wanted.old_files != 0 || wanted.when.is_some() {
                Err("standard output cannot be rotated; drop max-size, when and old-files".into())
            } else if delay {
                Err("standard output cannot be opened later; drop delay".into())
            } else if encoding_given {
                Err("standard output has its own encoding; drop encoding".into())
            } else {
                Ok(Rotation::Never)
            }
        }
    };
    let rotation =
        rotation.map_err(|reason: String| ConfigError::at(&section.start, format!("<logfile>: {reason}")))?;
    let encoding = match target {
        LogTarget::Path(_) => section.get("encoding", encoding)?.unwrap_or_default(),
        LogTarget::Stdout | LogTarget::Stderr => LogEncoding::default(),
    };
    Ok(LogFileConfig {
        target,
        level: section.get("level", level)?.unwrap_or(0),
        layout: layout(section, DEFAULT_FILE_FORMAT)?,
        rotation,
        delay,
        encoding,
    })
}

/// The rotation keys as given.
struct RotationWanted {
    old_files: i128,
    max_size: i128,
    when: Option<RotateWhen>,
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

    fn rotation(&self) -> Result<Rotation, String> {
        if self.when.is_none() && self.max_size == 0 && self.old_files == 0 && self.interval == 0 {
            return Ok(Rotation::Never);
        }
        let old_files = u32::try_from(self.old_files.min(i128::from(u32::MAX))).unwrap_or(0);
        if old_files == 0 {
            return Err("rotation needs old-files, the number of old files to keep, greater than 0".into());
        }
        match self.when {
            Some(_) if self.max_size != 0 => Err("max-size and when exclude each other".into()),
            Some(_) if self.interval < 0 => Err("interval cannot be negative".into()),
            Some(when) => {
                let interval = u32::try_from(self.interval.max(1)).unwrap_or(u32::MAX);
                Ok(Rotation::Time { when, interval, old_files })
            }
            None if self.max_size != 0 => {
                // A negative size is never reached in Python.
                Ok(Rotation::Size { max_size: u64::try_from(self.max_size).unwrap_or(0), old_files })
            }
            None => Err("rotation needs max-size or when".into()),
        }
    }
}

fn syslog(section: &Section) -> Result<SyslogConfig, ConfigError> {
    let default_address = datatypes::socket_address(DEFAULT_SYSLOG_ADDRESS)
        .map_err(|reason| ConfigError::at(&section.start, reason))?;
    Ok(SyslogConfig {
        facility: section.get("facility", facility)?.unwrap_or_else(|| "user".into()),
        address: section.get("address", datatypes::socket_address)?.unwrap_or(default_address),
        level: section.get("level", level)?.unwrap_or(0),
        layout: layout(section, DEFAULT_SYSLOG_FORMAT)?,
    })
}

fn layout(section: &Section, default_format: &str) -> Result<LineLayout, ConfigError> {
    // zope.exceptions' formatter differs in the tracebacks only, and there are none here.
    if let Some(formatter) = section.value("formatter")
        && !matches!(formatter.text.as_str(), "logging.Formatter" | "zope.exceptions.log.Formatter")
    {
        return Err(ConfigError::at(
            &formatter.location,
            format!("formatter: {} cannot be loaded; only logging.Formatter is supported", formatter.text),
        ));
    }
    let style = section.get("style", style)?.unwrap_or_default();
    let arbitrary_fields = section.get("arbitrary-fields", datatypes::boolean)?.unwrap_or(false);
    let location = section.value("format").map_or(&section.start, |value| &value.location);
    let written = section.value("format").map_or(default_format, |value| value.text.as_str());
    let format = match log_format::unescape(written) {
        format if format.is_empty() => log_format::default_format(style).into(),
        format => format,
    };
    log_format::check(&format, style, arbitrary_fields)
        .map_err(|reason| ConfigError::at(location, format!("format: {reason}")))?;
    Ok(LineLayout {
        format,
        dateformat: section
            .get("dateformat", datatypes::string)?
            .unwrap_or_else(|| DEFAULT_DATEFORMAT.into()),
        style,
        arbitrary_fields,
    })
}

fn level(text: &str) -> Result<i32, String> {
    match text.to_lowercase().as_str() {
        "critical" | "fatal" => Ok(50),
        "error" => Ok(40),
        "warn" | "warning" => Ok(30),
        "info" => Ok(LEVEL_INFO),
        "blather" => Ok(15),
        "debug" => Ok(10),
        "trace" => Ok(5),
        "all" => Ok(1),
        "notset" => Ok(0),
        number => match datatypes::integer(number).map(i32::try_from) {
            Ok(Ok(level @ 0..=50)) => Ok(level),
            _ => Err(format!(
                "{} is not a level; use critical, error, warning, info, blather, debug, trace, all, notset or 0 to 50",
                quoted(text)
            )),
        },
    }
}

fn style(text: &str) -> Result<FormatStyle, String> {
    match text.to_lowercase().as_str() {
        "classic" => Ok(FormatStyle::Classic),
        "format" => Ok(FormatStyle::Format),
        "template" => Ok(FormatStyle::Template),
        "safe-template" => Ok(FormatStyle::SafeTemplate),
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

fn rotate_when(text: &str) -> Result<Option<RotateWhen>, String> {
    match text.to_uppercase().as_str() {
        "" => Ok(None),
        "S" => Ok(Some(RotateWhen::Second)),
        "M" => Ok(Some(RotateWhen::Minute)),
        "H" => Ok(Some(RotateWhen::Hour)),
        "D" => Ok(Some(RotateWhen::Day)),
        "MIDNIGHT" => Ok(Some(RotateWhen::Midnight)),
        other => match other.as_bytes() {
            [b'W', day @ b'0'..=b'6'] => Ok(Some(RotateWhen::Weekday(day - b'0'))),
            _ => {
                Err(format!("{} is not a time; use S, M, H, D, midnight, or W0 (Monday) to W6", quoted(text)))
            }
        },
    }
}

/// The encodings that a server log is written in, under the names that Python has for them.
fn encoding(text: &str) -> Result<LogEncoding, String> {
    match text.to_lowercase().replace(['-', ' '], "_").as_str() {
        "utf_8" | "utf8" | "u8" | "utf" | "cp65001" => Ok(LogEncoding::Utf8),
        "ascii" | "us_ascii" | "646" => Ok(LogEncoding::Ascii),
        "latin_1" | "latin1" | "latin" | "l1" | "iso_8859_1" | "iso8859_1" | "8859" | "cp819" => {
            Ok(LogEncoding::Latin1)
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
