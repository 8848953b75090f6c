//! Reading the configuration again while the server runs, and applying what has changed.
//!
//! Invariants: everything that can fail is done before anything is changed, so a reload that fails leaves all as it
//! was. What is not applied is reported, never passed over: [`changes`](crate::config::changes) compares all keys.
//!
//! What is compared with is, for keys that a reload applies, the configuration of the last reload, and for the others
//! the one of the start: they are reported again until the restart.

mod report;

use self::report::{LOG, ReloadReport, in_words};
use crate::base::sync::{Arc, Mutex, rank};
use crate::commands::admin_socket::Caller;
use crate::commands::given::Given;
use crate::config::changes::Change;
use crate::config::changes::effects::Effect;
use crate::config::{Config, Reading, Written};
use crate::logging::LogHandle;
use crate::server::Server;

/// Reloads the configuration of a server.
pub(super) struct Reloader {
    given: Arc<Given>,
    log: LogHandle,
    /// `None` before the server serves, and when it stops.
    running: Mutex<Option<Running>, rank::Reload>,
}

/// What a reload compares with and changes.
pub(super) struct Running {
    server: Arc<Server>,
    /// The configuration of the start.
    started: Written,
    /// The configuration of the last reload, or of the start.
    applied: Written,
    /// The warnings that were logged.
    warnings: Vec<String>,
}

impl Reloader {
    pub(super) fn new(given: &Arc<Given>, log: &LogHandle) -> Arc<Reloader> {
        Arc::new(Reloader { given: Arc::clone(given), log: log.clone(), running: Mutex::new(None) })
    }

    /// The server serves.
    pub(super) fn begin(&self, running: Running) {
        *self.running.lock() = Some(running);
    }

    /// The server stops. Waits for a reload that goes on.
    pub(super) fn end(&self) -> Option<Running> {
        self.running.lock().take()
    }

    /// Reloads, or says what that would do. The outer error: the server does not do it now; the inner one: the
    /// configuration cannot be used. A second reload waits for the first one.
    pub(super) fn reload(
        &self,
        is_dry_run: bool,
        caller: &Caller,
    ) -> Result<Result<ReloadReport, String>, String> {
        let mut running = self.running.lock();
        let running = running.as_mut().ok_or("the server stops, or does not serve yet")?;
        let server = Arc::clone(&running.server);
        let now = || server.clock().system_time();
        let reloaded = match self.read() {
            Ok((config, written)) if is_dry_run => Ok(running.plan(&config, &written)),
            Ok((config, written)) => running.apply(&self.log, config, written),
            Err(error) => Err(error),
        };
        match &reloaded {
            _ if is_dry_run => {}
            Ok(report) => {
                report.log(caller);
                let waiting = report.waiting().map(in_words).collect();
                server.reloads().succeeded(now(), waiting);
            }
            Err(error) => {
                log::error!(
                    target: LOG,
                    "the configuration cannot be used, and the one that was read before stays in use: {error} \
                     (reload for {caller})"
                );
                server.reloads().failed(now(), error.clone());
            }
        }
        Ok(reloaded)
    }

    fn read(&self) -> Result<(Box<Config>, Written), String> {
        match self.given.read() {
            Ok(Reading::Config { config, written, .. }) => Ok((config, written)),
            // Not for the command line of a server that runs.
            Ok(Reading::Print(_)) => Err("the command line of the server has no configuration".into()),
            Err(error) => Err(error.message),
        }
    }
}

impl Running {
    pub(super) fn new(server: &Arc<Server>, config: &Config, written: &Written) -> Running {
        Running {
            server: Arc::clone(server),
            started: written.clone(),
            applied: written.clone(),
            warnings: config.warnings.clone(),
        }
    }

    /// What a reload would do.
    fn plan(&self, config: &Config, written: &Written) -> ReloadReport {
        let is_restart = |change: &Change| change.effect == Effect::Restart;
        let mut changes = self.applied.changes(written);
        changes.retain(|change| !is_restart(change));
        changes.extend(self.started.changes(written).into_iter().filter(is_restart));
        let new = config.warnings.iter().filter(|warning| !self.warnings.contains(warning));
        ReloadReport { changes, warnings: new.cloned().collect() }
    }

    fn apply(
        &mut self,
        log: &LogHandle,
        config: Box<Config>,
        written: Written,
    ) -> Result<ReloadReport, String> {
        let report = self.plan(&config, &written);
        for hosted in self.server.storages() {
            hosted
                .set_options(&config.zeo.hosted)
                .map_err(|error| format!("the thread of transaction-timeout cannot be started: {error}"))?;
        }
        self.server.set_limits(config.zeo.limits.clone());
        log.set_configured_levels(&config.log);
        self.applied = written;
        self.warnings = config.warnings;
        Ok(report)
    }
}
