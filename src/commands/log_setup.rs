//! `<eventlog>` as configured -> the log as it is set up.

use crate::base::address::Address;
use crate::config::{
    EventLogConfig, FormatStyle, HandlerConfig, LineLayout, LogEncoding, LogFileConfig, LogTarget,
    RotateWhen, Rotation, SyslogConfig,
};
use crate::logging::{
    self, Destination, FileSetup, HandlerSetup, Layout, LogSetup, Style, SyslogAddress, When,
};

/// Where syslog listens if the address leaves it open.
const SYSLOG_HOST: &str = "localhost";
const SYSLOG_PORT: u16 = 514;

/// `None`: there is no `<eventlog>`.
pub fn log_setup(config: Option<&EventLogConfig>) -> LogSetup {
    let Some(config) = config else { return LogSetup::default() };
    let handlers = config
        .handlers
        .iter()
        .map(|handler| match handler {
            HandlerConfig::LogFile(logfile) => logfile_setup(logfile),
            HandlerConfig::Syslog(syslog) => syslog_setup(syslog),
        })
        .collect();
    LogSetup { level: level(config.level), handlers, configured: true }
}

fn logfile_setup(config: &LogFileConfig) -> HandlerSetup {
    let destination = match &config.target {
        LogTarget::Stdout => Destination::Stdout,
        LogTarget::Stderr => Destination::Stderr,
        LogTarget::Path(path) => Destination::File(FileSetup {
            path: path.clone(),
            rotation: rotation(&config.rotation),
            delay: config.delay,
        }),
    };
    let encoding = match config.encoding {
        LogEncoding::Utf8 => logging::Encoding::Utf8,
        LogEncoding::Ascii => logging::Encoding::Ascii,
        LogEncoding::Latin1 => logging::Encoding::Latin1,
    };
    HandlerSetup { level: level(config.level), layout: layout(&config.layout), destination, encoding }
}

fn syslog_setup(config: &SyslogConfig) -> HandlerSetup {
    let address = match &config.address {
        Address::Unix(path) => SyslogAddress::Unix(path.clone()),
        Address::Tcp { host, port } => SyslogAddress::Udp {
            host: host.clone().unwrap_or_else(|| SYSLOG_HOST.to_string()),
            port: port.unwrap_or(SYSLOG_PORT),
        },
    };
    HandlerSetup {
        level: level(config.level),
        layout: layout(&config.layout),
        destination: Destination::Syslog(logging::SyslogSetup { facility: config.facility.clone(), address }),
        encoding: logging::Encoding::Utf8,
    }
}

fn layout(config: &LineLayout) -> Layout {
    let style = match config.style {
        FormatStyle::Classic => Style::Classic,
        FormatStyle::Format => Style::Format,
        FormatStyle::Template => Style::Template,
        FormatStyle::SafeTemplate => Style::SafeTemplate,
    };
    Layout { format: config.format.clone(), dateformat: config.dateformat.clone(), style }
}

fn rotation(config: &Rotation) -> logging::Rotation {
    match *config {
        Rotation::Never => logging::Rotation::Never,
        Rotation::Size { max_size, old_files } => logging::Rotation::Size { max_size, old_files },
        Rotation::Time { when, interval, old_files } => {
            let when = match when {
                RotateWhen::Second => When::Second,
                RotateWhen::Minute => When::Minute,
                RotateWhen::Hour => When::Hour,
                RotateWhen::Day => When::Day,
                RotateWhen::Midnight => When::Midnight,
                RotateWhen::Weekday(day) => When::Weekday(day),
            };
            logging::Rotation::Time { when, interval, old_files }
        }
    }
}

/// The configuration allows 0 to 50.
fn level(number: i32) -> u8 {
    u8::try_from(number.max(0)).unwrap_or(u8::MAX)
}
