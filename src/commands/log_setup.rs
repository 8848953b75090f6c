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

/// `arbitrary-fields` ends here: it only lets the configuration pass. Where a field that no entry has would cost
/// every line (all styles but one), opening the log is refused.
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn line_layout(style: FormatStyle) -> LineLayout {
        LineLayout {
            format: "$message $nope".to_string(),
            dateformat: "%H:%M".to_string(),
            style,
            arbitrary_fields: true,
        }
    }

    #[test]
    fn without_a_section_the_default() {
        assert_eq!(log_setup(None), LogSetup::default());
    }

    #[test]
    fn everything_of_a_section_arrives() {
        let logfile = LogFileConfig {
            target: LogTarget::Path(PathBuf::from("zeo.log")),
            level: 15,
            layout: line_layout(FormatStyle::SafeTemplate),
            rotation: Rotation::Time { when: RotateWhen::Weekday(6), interval: 2, old_files: 3 },
            delay: true,
            encoding: LogEncoding::Latin1,
        };
        let syslog = SyslogConfig {
            facility: "local7".to_string(),
            address: Address::Tcp { host: None, port: None },
            level: 0,
            layout: line_layout(FormatStyle::Template),
        };
        let handlers = vec![HandlerConfig::LogFile(logfile), HandlerConfig::Syslog(syslog)];
        let setup = log_setup(Some(&EventLogConfig { level: 5, handlers }));
        let layout =
            |style| Layout { format: "$message $nope".to_string(), dateformat: "%H:%M".to_string(), style };
        let file = FileSetup {
            path: PathBuf::from("zeo.log"),
            rotation: logging::Rotation::Time { when: When::Weekday(6), interval: 2, old_files: 3 },
            delay: true,
        };
        let address = SyslogAddress::Udp { host: "localhost".to_string(), port: 514 };
        let expected = LogSetup {
            level: 5,
            handlers: vec![
                HandlerSetup {
                    level: 15,
                    layout: layout(Style::SafeTemplate),
                    destination: Destination::File(file),
                    encoding: logging::Encoding::Latin1,
                },
                HandlerSetup {
                    level: 0,
                    layout: layout(Style::Template),
                    destination: Destination::Syslog(logging::SyslogSetup {
                        facility: "local7".to_string(),
                        address,
                    }),
                    encoding: logging::Encoding::Utf8,
                },
            ],
            configured: true,
        };
        assert_eq!(setup, expected);
        let problem = logging::check(&setup).unwrap_err().problem;
        assert!(problem.contains("no field \"nope\""), "{problem}");
    }
}
