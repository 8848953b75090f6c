//! Reopening the log files (SIGUSR2) after `logrotate` or an operator moved them.

use std::sync::Arc;

use super::handler::Handler;

/// Python's logger for reopening.
const LOG: &str = "ZEO.runzeo";

/// The handlers of the log while it is in use.
#[derive(Clone)]
pub struct LogHandle {
    handlers: Arc<[Arc<Handler>]>,
    /// See [`super::LogSetup::configured`].
    configured: bool,
}

impl LogHandle {
    pub(super) fn new(handlers: Vec<Arc<Handler>>, configured: bool) -> LogHandle {
        LogHandle { handlers: handlers.into(), configured }
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
