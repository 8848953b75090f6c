//! What is configured for the log.

use super::file::FileSetup;
use super::format::Layout;
use super::handler::Encoding;
use super::journald::JournalSetup;
use super::syslog::SyslogSetup;
use crate::base::level;

/// The `<eventlog>` section: the level of all loggers, and the handlers.
#[derive(Clone, Debug, PartialEq)]
pub struct LogSetup {
    /// Python's number; lines below it are not logged at all.
    pub level: u8,
    /// Empty: nothing is written.
    pub handlers: Vec<HandlerSetup>,
    /// Whether there is an `<eventlog>`; without one there is nothing to reopen.
    pub configured: bool,
}

/// A handler section, such as `<logfile>`: one destination of log lines.
#[derive(Clone, Debug, PartialEq)]
pub struct HandlerSetup {
    /// Python's number; 0: no limit besides [`LogSetup::level`].
    pub level: u8,
    pub layout: Layout,
    pub destination: Destination,
    pub encoding: Encoding,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Destination {
    Stdout,
    Stderr,
    File(FileSetup),
    /// Always UTF-8.
    Syslog(SyslogSetup),
    /// Fields instead of a line: [`HandlerSetup::layout`] has no effect.
    Journal(JournalSetup),
}

impl Destination {
    /// Whether lines go to the same place, whatever else is configured for it.
    pub(super) fn is_at(&self, other: &Destination) -> bool {
        match (self, other) {
            (Destination::File(one), Destination::File(other)) => one.path == other.path,
            (Destination::Syslog(one), Destination::Syslog(other)) => one.address == other.address,
            (Destination::Journal(one), Destination::Journal(other)) => one.path == other.path,
            (one, other) => one == other,
        }
    }
}

impl Default for LogSetup {
    /// The setup without an `<eventlog>`: INFO and above on stderr.
    fn default() -> LogSetup {
        let handler = HandlerSetup {
            level: level::NOTSET,
            layout: Layout::default(),
            destination: Destination::Stderr,
            encoding: Encoding::Utf8,
        };
        LogSetup { level: level::INFO, handlers: vec![handler], configured: false }
    }
}
