//! The configuration that is in use, and how the last reload has ended.

use serde::Serialize;

use super::time::unix;
use super::warnings::Warning;
use crate::server::reload_status::ReloadStatus;

/// The reloads of a server.
#[derive(Clone, Debug, Serialize)]
pub struct ReloadsReport {
    /// When the configuration that is in use was read.
    pub read: f64,
    /// When the last reload has failed, and why; `None`: it has succeeded, or there was none.
    pub failed: Option<f64>,
    pub error: Option<String>,
    /// Changes that wait for a restart, as `zeoadmin reload` has said.
    pub waiting: Vec<String>,
}

impl ReloadsReport {
    pub(super) fn of(reloads: &ReloadStatus) -> ReloadsReport {
        let facts = reloads.facts();
        let (failed, error) = facts.failure.unzip();
        ReloadsReport { read: unix(facts.read), failed: failed.map(unix), error, waiting: facts.waiting }
    }

    pub(super) fn warn(&self) -> Option<Warning> {
        let error = self.error.as_ref()?;
        Some(Warning::new(
            format!("the last reload of the configuration has failed: {error}"),
            "The server goes on with what it had read before, and a restart would fail. Mend the configuration, and call \
             zeoadmin reload.",
        ))
    }
}
