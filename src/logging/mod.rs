//! The log as in Python's runzeo: levels, line formats, handlers and SIGUSR2.
//!
//! All modules log through the macros of the `log` crate, with Python's logger name as the target:
//! `log::info!(target: "ZEO.StorageServer", "...")`; the levels that `log` lacks have macros in [`crate::base::level`].
//! `fern` dispatches a record to the handlers, each with its own level; a handler formats it ([`mod@format`]) and then
//! writes it in one piece to a file, a standard stream, syslog or systemd's journal.
//!
//! Invariants:
//! - A disabled level costs one comparison. No lock is held while an entry is formatted.
//! - A failing handler neither stops the server nor delays a thread by more than about a second per line
//!   ([`write_timeout`]). Lost lines are counted, and the count is logged when the handler works again.
//! - Reopening loses no line: a file is closed only when its successor is open.
//!
//! `config` builds a [`LogSetup`] from `<eventlog>`; this module is independent of ZConfig.

mod audit_file;
pub mod entry;
mod file;
pub mod format;
mod handler;
mod journal;
mod journald;
mod os;
mod panic;
mod reopen;
mod rotate;
mod setup;
mod syslog;
mod write_timeout;
mod writer;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use audit_file::AuditFile;
use entry::Entry;
pub use file::FileSetup;
pub use format::{FormatError, Formatter, Layout, Style};
pub use handler::Encoding;
pub use handler::lines_lost;
use handler::{Form, Handler, Sink};
pub use journald::JournalSetup;
pub use panic::{install_panic_hook, panics};
pub use reopen::LogHandle;
pub use rotate::{Rotation, When};
pub use setup::{Destination, HandlerSetup, LogSetup};
pub use syslog::{SyslogAddress, SyslogSetup};

use crate::base::level::NOTSET;

/// Why the log cannot be set up.
#[derive(Debug)]
pub enum LogError {
    /// A mistake in the configuration.
    Format(FormatError),
    Open {
        path: PathBuf,
        error: io::Error,
    },
    Syslog {
        address: SyslogAddress,
        error: io::Error,
    },
    /// This process already has a log.
    SetUpTwice,
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogError::Format(error) => error.fmt(f),
            LogError::Open { path, error } => {
                write!(f, "log file {} cannot be opened: {error}", path.display())
            }
            LogError::Syslog { address, error } => write!(f, "syslog at {address} cannot be used: {error}"),
            LogError::SetUpTwice => f.write_str("the log is set up already"),
        }
    }
}

impl std::error::Error for LogError {}

impl From<FormatError> for LogError {
    fn from(error: FormatError) -> LogError {
        LogError::Format(error)
    }
}

/// Opens the log and installs it in this process.
pub fn setup(setup: &LogSetup) -> Result<LogHandle, LogError> {
    let (dispatch, handle) = build(setup)?;
    dispatch.apply().map_err(|_| LogError::SetUpTwice)?;
    handle.skip_what_no_handler_writes();
    Ok(handle)
}

/// Writes one entry without installing a log: each handler is opened for it. For a process that has little to say, and
/// shares its files with another one, which rotates them.
pub fn write_once(
    setup: &LogSetup,
    logger: &str,
    level: u8,
    message: fmt::Arguments<'_>,
) -> Result<(), LogError> {
    entry::began();
    for handler in setup.handlers.iter().filter(|handler| level >= handler.level.max(setup.level)) {
        open(handler)?.emit(&Entry::now(logger, level, message));
    }
    Ok(())
}

/// Opens the file of `<audit>`, which `log` reopens from here on. Called once at most.
pub fn open_audit(log: &LogHandle, file: &FileSetup) -> Result<AuditFile, LogError> {
    let audit = AuditFile::new(open(&HandlerSetup {
        level: NOTSET,
        layout: Layout { format: "%(message)s".into(), dateformat: String::new(), style: Style::Classic },
        destination: Destination::File(file.clone()),
        encoding: Encoding::Utf8,
    })?);
    log.set_audit(&audit);
    Ok(audit)
}

/// Opens a log without installing it.
pub fn build(setup: &LogSetup) -> Result<(fern::Dispatch, LogHandle), LogError> {
    entry::began();
    let handlers =
        setup.handlers.iter().map(|handler| open(handler).map(Arc::new)).collect::<Result<Vec<_>, _>>()?;
    // Handlers compare levels themselves, for these may change.
    let mut dispatch = fern::Dispatch::new();
    for handler in &handlers {
        let boxed: Box<dyn log::Log> = Box::new(handler.clone());
        dispatch = dispatch.chain(boxed);
    }
    Ok((dispatch, LogHandle::new(handlers, setup)))
}

fn open(setup: &HandlerSetup) -> Result<Handler, LogError> {
    let formatter = Formatter::new(&setup.layout)?;
    let stream = |path: &str, writer: io::Result<writer::Writer>| {
        // Lines for a closed stream are dropped, as with /dev/null.
        let writer = writer.or_else(|_| writer::Writer::open(Path::new("/dev/null")));
        writer.map(Sink::Stream).map_err(|error| LogError::Open { path: path.into(), error })
    };
    let sink = match &setup.destination {
        Destination::Stdout => stream("STDOUT", writer::Writer::for_stream(io::stdout()))?,
        Destination::Stderr => {
            let journal_stream = std::env::var("JOURNAL_STREAM").ok();
            match stream("STDERR", writer::Writer::for_stream(io::stderr()))? {
                Sink::Stream(writer) if journal::is_journal(io::stderr(), journal_stream.as_deref()) => {
                    Sink::Journal(writer)
                }
                sink => sink,
            }
        }
        Destination::File(file) => {
            let opened = file::LogFile::open(file);
            Sink::File(opened.map_err(|error| LogError::Open { path: file.path.clone(), error })?)
        }
        Destination::Syslog(syslog) => {
            let opened = syslog::Syslog::open(syslog);
            let failed = |error| LogError::Syslog { address: syslog.address.clone(), error };
            Sink::Syslog(opened.map_err(failed)?)
        }
        Destination::Journal(journal) => {
            let form = Form::Fields { identifier: journal.identifier.clone() };
            let sink = Sink::Journald(journald::Journald::open(journal));
            return Ok(Handler::new(setup.level, form, sink));
        }
    };
    let form = Form::Text { formatter, encoding: setup.encoding };
    Ok(Handler::new(setup.level, form, sink))
}
