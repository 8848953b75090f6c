//! What can be done with the log while it is in use: reopening its files (SIGUSR2) after `logrotate` or an operator
//! moved them, and another level.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::handler::Handler;
use crate::base::level;

/// Python's logger for reopening.
const LOG: &str = "ZEO.runzeo";

/// The handlers of the log while it is in use.
#[derive(Clone)]
pub struct LogHandle {
    handlers: Arc<[Arc<Handler>]>,
    /// See [`super::LogSetup::configured`].
    configured: bool,
    /// [`super::LogSetup::level`].
    first_level: u8,
    /// The level now.
    level: Arc<AtomicU8>,
}

impl LogHandle {
    pub(super) fn new(handlers: Vec<Arc<Handler>>, configured: bool, level: u8) -> LogHandle {
        handlers.iter().for_each(|handler| handler.set_level(level));
        let now = Arc::new(AtomicU8::new(level));
        LogHandle { handlers: handlers.into(), configured, first_level: level, level: now }
    }

    /// The level of the log: Python's number. Handlers may have higher levels of their own.
    pub fn level(&self) -> u8 {
        self.level.load(Ordering::Relaxed)
    }

    /// The level that the configuration has set.
    pub fn configured_level(&self) -> u8 {
        self.first_level
    }

    /// Sets the level for all loggers of this process.
    pub fn set_level(&self, level: u8) {
        self.level.store(level, Ordering::Relaxed);
        self.handlers.iter().for_each(|handler| handler.set_level(level));
        self.skip_what_no_handler_writes();
    }

    /// Sets the level below which the macros of `log` do not even ask the handlers.
    pub(super) fn skip_what_no_handler_writes(&self) {
        let lowest = self.handlers.iter().map(|handler| handler.threshold()).min();
        log::set_max_level(lowest.map_or(log::LevelFilter::Off, level::filter));
    }

    /// Reopens every log file; a file with a rotation is rotated. Logs the outcome in Python's words; `true` if all
    /// files were reopened.
    ///
    /// A file that cannot be reopened stays in use.
    pub fn reopen(&self) -> bool {
        let pid = std::process::id();
        if !self.configured {
            log::warn!(target: LOG, "({pid}) received SIGUSR2, but it was not handled!");
            return false;
        }
        // All files first, so that the lines about it go to the new files.
        let failures: Vec<_> = self.handlers.iter().filter_map(|handler| handler.reopen().err()).collect();
        for (path, error) in &failures {
            let path = path.display();
            log::error!(
                target: LOG,
                "({pid}) log file {path} cannot be reopened: {error}; lines go on into the file that was open"
            );
        }
        if failures.is_empty() {
            log::info!(target: LOG, "({pid}) Log files reopened successfully");
        }
        failures.is_empty()
    }

    /// Lines that are lost and not reported yet, of all handlers.
    pub fn lost(&self) -> u64 {
        self.handlers.iter().map(|handler| handler.lost()).sum()
    }
}
