//! A file of lines that other code has formatted, with the rotation, reopening and counting of lost lines of log files.

use std::sync::Arc;

use super::entry::Entry;
use super::handler::Handler;
use crate::base::level::INFO;

/// A file of lines.
#[derive(Clone)]
pub struct AuditFile(Arc<Handler>);

impl AuditFile {
    /// `handler` writes messages and nothing else.
    pub(super) fn new(handler: Handler) -> AuditFile {
        AuditFile(Arc::new(handler))
    }

    pub(super) fn handler(&self) -> &Arc<Handler> {
        &self.0
    }

    /// Appends a line; not while a lock is held that forbids logging. What was chosen outside is escaped in it already.
    pub fn write(&self, line: &str) {
        self.0.emit(&Entry::now("runzeo.audit", INFO, format_args!("{line}")));
    }
}
