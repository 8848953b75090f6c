//! What can be done with the log while it is in use: reopening its files (SIGUSR2) after `logrotate` or an operator
//! moved them, and another level.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use super::audit_file::AuditFile;
use super::handler::Handler;
use super::setup::{Destination, LogSetup};
use crate::base::level;

/// Python's logger for reopening.
const LOG: &str = "ZEO.runzeo";

/// The handlers of the log while it is in use.
#[derive(Clone)]
pub struct LogHandle {
    handlers: Arc<[Arc<Handler>]>,
    /// The file of `<audit>`, if there is one.
    audit: Arc<OnceLock<AuditFile>>,
    /// See [`super::setup::LogSetup::configured`].
    configured: bool,
    /// [`super::setup::LogSetup::level`].
    first_level: Arc<AtomicU8>,
    /// What the handlers were set up with, in their order.
    destinations: Arc<[Destination]>,
    /// The level now.
    level: Arc<AtomicU8>,
}

impl LogHandle {
    pub(super) fn new(handlers: Vec<Arc<Handler>>, setup: &LogSetup) -> LogHandle {
        let level = setup.level;
        handlers.iter().for_each(|handler| handler.set_level(level));
        let [first_level, now] = [level; 2].map(|level| Arc::new(AtomicU8::new(level)));
        LogHandle {
            handlers: handlers.into(),
            audit: Arc::default(),
            configured: setup.configured,
            first_level,
            destinations: setup.handlers.iter().map(|handler| handler.destination.clone()).collect(),
            level: now,
        }
    }

    /// The file of `<audit>` is reopened together with the log files from here on. Later calls change nothing.
    pub(super) fn set_audit(&self, audit: &AuditFile) {
        let _ = self.audit.set(audit.clone());
    }

    /// The level of the log: Python's number. Handlers may have higher levels of their own.
    pub fn level(&self) -> u8 {
        self.level.load(Ordering::Relaxed)
    }

    /// The level that the configuration has set.
    pub fn configured_level(&self) -> u8 {
        self.first_level.load(Ordering::Relaxed)
    }

    /// Takes over the levels of a configuration that was read again: those of the handlers that are there already, and
    /// the one of the log, if the configuration has changed it. Other handlers come with the next start.
    pub fn set_configured_levels(&self, setup: &LogSetup) {
        let mut unseen: Vec<_> = setup.handlers.iter().collect();
        for (handler, destination) in self.handlers.iter().zip(&*self.destinations) {
            if let Some(index) = unseen.iter().position(|one| one.destination.is_at(destination)) {
                handler.set_own_level(unseen.remove(index).level);
            }
        }
        let is_other = self.first_level.swap(setup.level, Ordering::Relaxed) != setup.level;
        self.set_level(if is_other { setup.level } else { self.level() });
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
        let audit = self.audit.get();
        if !self.configured && audit.is_none() {
            log::warn!(target: LOG, "({pid}) received SIGUSR2, but it was not handled!");
            return false;
        }
        // All files first, so that the lines about it go to the new files.
        let handlers = self.handlers.iter().chain(audit.map(AuditFile::handler));
        let failures: Vec<_> = handlers.filter_map(|handler| handler.reopen().err()).collect();
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
        let handlers = self.handlers.iter().chain(self.audit.get().map(AuditFile::handler));
        handlers.map(|handler| handler.lost()).sum()
    }
}
