//! Reading the configuration again while the server runs, and applying what has changed.
//!
//! Invariants: everything that can fail is done before anything is changed, so a reload that fails leaves all as it
//! was. What is not applied is reported, never passed over: [`changes`](crate::config::changes) compares all keys.
//!
//! What is compared with is, for keys that a reload applies, the configuration of the last reload, and for the others
//! the one of the start: they are reported again until the restart.

pub(super) mod jobs;
mod report;

use arc_swap::ArcSwap;

use self::jobs::Jobs;
use self::report::{LOG, ReloadReport, in_words};
use crate::base::sync::{Arc, Mutex, rank};
use crate::commands::admin_socket::Caller;
use crate::commands::backups::BackupChanges;
use crate::commands::doors::Doors;
use crate::commands::given::Given;
use crate::commands::http::Http;
use crate::commands::listening::{self, Certificates, Common};
use crate::commands::supervised::Supervised;
use crate::config::changes::Change;
use crate::config::changes::effects::Effect;
use crate::config::{Config, HttpConfig, ListenerConfig, Reading, Written};
use crate::logging::LogHandle;
use crate::server::Server;
use crate::server::limits::Limits;
use crate::server::policy::Authentication;
use crate::server::renewal::Renewed;

/// How a change names the section, and the beginning of the names of those in it.
const HTTP: &str = "<http>";

/// Reloads the configuration of a server.
pub(super) struct Reloader {
    given: Arc<Given>,
    log: LogHandle,
    manager: Supervised,
    /// In use for new connections.
    certificates: ArcSwap<Certificates>,
    /// The lines of `--check` of the configuration that is in use.
    described: Mutex<String, rank::ReloadFacts>,
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
    /// What is in use: the configuration of the start with what reloads have changed.
    config: Config,
    doors: Doors,
    /// What `<http>` had at the start; `None`: it was not there.
    http: Option<Arc<Http>>,
    common: Common,
    /// `None` when they were stopped.
    jobs: Option<Jobs>,
}

/// A configuration that was read, with what it needs from outside.
struct ReadAgain {
    config: Box<Config>,
    written: Written,
    authentication: Option<Arc<Authentication>>,
    certificates: Arc<Certificates>,
}

impl Reloader {
    pub(super) fn new(
        given: &Arc<Given>,
        log: &LogHandle,
        config: &Config,
        certificates: Arc<Certificates>,
        manager: &Supervised,
    ) -> Arc<Reloader> {
        Arc::new(Reloader {
            given: Arc::clone(given),
            log: log.clone(),
            manager: manager.clone(),
            certificates: ArcSwap::new(certificates),
            described: Mutex::new(config.describe()),
            running: Mutex::new(None),
        })
    }

    /// The certificates that are in use.
    pub(super) fn certificates(&self) -> Arc<Certificates> {
        self.certificates.load_full()
    }

    /// The lines of `--check` of the configuration that is in use.
    pub(super) fn described(&self) -> String {
        self.described.lock().clone()
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
        if !is_dry_run {
            self.manager.reloads();
        }
        let reloaded = self.prepare(running).and_then(|prepared| match is_dry_run {
            true => running.try_out(&prepared),
            false => self.apply(running, prepared),
        });
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
        if !is_dry_run {
            self.manager.has_reloaded(&server);
        }
        Ok(reloaded)
    }

    /// Reads the configuration, the passwords and the certificates.
    fn prepare(&self, running: &Running) -> Result<ReadAgain, String> {
        let (mut config, written) = match self.given.read() {
            Ok(Reading::Config { config, written, .. }) => (config, written),
            // Not for the command line of a server that runs.
            Ok(Reading::Print(_)) => return Err("the command line of the server has no configuration".into()),
            Err(error) => return Err(error.message),
        };
        let authentication = listening::authentication(&self.given.extensions.protocols, &config.zeo)
            .map_err(|failure| failure.message)?;
        if running.http_waits(&written) {
            config.http = running.config.http.clone();
        }
        let certificates = Certificates::load(&config.zeo.listeners, config.http.as_ref())
            .map_err(|failure| failure.message)?;
        Ok(ReadAgain { config, written, authentication, certificates: Arc::new(certificates) })
    }

    fn apply(&self, running: &mut Running, prepared: ReadAgain) -> Result<ReloadReport, String> {
        let certificates = Arc::clone(&prepared.certificates);
        let levels = prepared.config.log.clone();
        let report = running.apply(prepared)?;
        self.certificates.store(certificates);
        self.log.set_configured_levels(&levels);
        *self.described.lock() = running.config.describe();
        Ok(report)
    }
}

impl Running {
    pub(super) fn new(
        server: &Arc<Server>,
        config: &Config,
        written: &Written,
        doors: Doors,
        http: Option<Arc<Http>>,
        common: Common,
        jobs: Jobs,
    ) -> Running {
        Running {
            server: Arc::clone(server),
            started: written.clone(),
            applied: written.clone(),
            config: config.clone(),
            doors,
            http,
            common,
            jobs: Some(jobs),
        }
    }

    /// Ends backups and checks of files, and waits for that.
    pub(super) fn stop_jobs(&mut self) {
        self.jobs.take().into_iter().for_each(Jobs::stop);
    }

    /// What a reload would do. New addresses are bound for a moment.
    fn try_out(&self, prepared: &ReadAgain) -> Result<ReloadReport, String> {
        let wanted = &prepared.config.zeo.listeners;
        listening::bind_more(&self.doors.changes(wanted).added, wanted).map_err(|failure| failure.message)?;
        Ok(self.plan(prepared))
    }

    /// Whether `<http>` has come or gone since the start. The restart has it listen or end, and nothing in it is
    /// applied before.
    fn http_waits(&self, written: &Written) -> bool {
        self.started.changes(written).iter().any(|change| change.section == HTTP && change.key.is_none())
    }

    /// What differs.
    fn plan(&self, ReadAgain { config, written, .. }: &ReadAgain) -> ReloadReport {
        let (are_inherited, http_waits) = (self.doors.are_inherited(), self.http_waits(written));
        let changes = |before: &Written, is_restart: bool| {
            let mut changes = before.changes(written);
            // The sockets are the service manager's; or those of `<http>` are not there.
            let waits = |change: &Change| {
                are_inherited && is_address(change) || http_waits && change.section.starts_with(HTTP)
            };
            let waiting = changes.iter_mut().filter(|change| waits(change));
            waiting.for_each(|change| change.effect = Effect::Restart);
            changes.retain(|change| (change.effect == Effect::Restart) == is_restart);
            changes
        };
        let mut all = changes(&self.applied, false);
        all.extend(changes(&self.started, true));
        let new = config.warnings.iter().filter(|warning| !self.config.warnings.contains(warning));
        ReloadReport { changes: all, warnings: new.cloned().collect(), notes: Vec::new() }
    }

    fn apply(&mut self, prepared: ReadAgain) -> Result<ReloadReport, String> {
        let mut report = self.plan(&prepared);
        let ReadAgain { config, written, authentication, certificates } = prepared;
        let authentication = self.kept_or(authentication, &config);
        let now = self.server.clock().now();
        let common = Common::new(&config, authentication, now, Some(&self.common));
        let policy = |listener: &ListenerConfig| common.policy(listener);

        let wanted = &config.zeo.listeners;
        let door_changes = self.doors.changes(wanted);
        let listeners = listening::bind_more(&door_changes.added, wanted)
            .and_then(|bound| bound.listen(wanted, &certificates))
            .map_err(|failure| failure.message)?;
        let opened = Doors::open(&self.server, listeners, policy)
            .map_err(|error| format!("a thread for a listener cannot be started: {error}"))?;
        let changes = match self.set_hosted_options(&config).and_then(|()| self.prepare_jobs(&config)) {
            Ok(changes) => changes,
            Err(error) => {
                opened.close(&self.server);
                return Err(format!("a thread cannot be started: {error}"));
            }
        };

        // From here on nothing fails.
        if let Some((jobs, changes)) = self.jobs.as_mut().zip(changes) {
            jobs.apply(&self.server, changes, &config);
        }
        self.server.set_limits(config.zeo.limits.clone());
        report.notes = self.doors.apply(&self.server, door_changes, opened, &certificates, policy);
        report.notes.extend(about_clients(&self.server.renew_rights()));
        self.common = common;
        self.take_over(*config);
        if let Some((http, config)) = self.http.as_ref().zip(self.config.http.as_ref()) {
            http.follow(config, &certificates);
        }
        self.applied = written;
        Ok(report)
    }

    /// The authentication in use, if it is the same as before: its file is read again by itself when it changes.
    fn kept_or(&self, new: Option<Arc<Authentication>>, config: &Config) -> Option<Arc<Authentication>> {
        let [before, after] = [&self.config, config].map(|config| config.zeo.authentication.as_ref());
        let is_same = before.zip(after).is_some_and(|(before, after)| {
            (&before.protocol, &before.settings) == (&after.protocol, &after.settings)
        });
        if is_same { self.common.authentication().cloned() } else { new }
    }

    /// After an error all is as before.
    fn set_hosted_options(&self, config: &Config) -> std::io::Result<()> {
        let set = |config: &Config| {
            self.server.storages().try_for_each(|hosted| hosted.set_options(&config.zeo.hosted))
        };
        set(config).inspect_err(|_| {
            // The threads that the options of before need are there.
            let _ = set(&self.config);
        })
    }

    /// Starts what the schedules need. After an error all is as before.
    fn prepare_jobs(&mut self, config: &Config) -> std::io::Result<Option<BackupChanges>> {
        let Some(jobs) = &mut self.jobs else { return Ok(None) };
        let prepared = jobs.prepare(&self.server, &self.config, config);
        prepared.map(Some).inspect_err(|_| {
            // The threads that the options of before need are there.
            let _ = self.set_hosted_options(&self.config);
        })
    }

    /// Notes what is in use now.
    fn take_over(&mut self, new: Config) {
        let before = &mut self.config;
        let hosted = &before.zeo.hosted;
        let (read_only, invalidation_queue_size) = (hosted.read_only, hosted.invalidation_queue_size);
        before.zeo.hosted =
            crate::server::hosted::HostedOptions { read_only, invalidation_queue_size, ..new.zeo.hosted };
        before.zeo.limits = Limits { message_size: before.zeo.limits.message_size, ..new.zeo.limits };
        if !self.doors.are_inherited() {
            before.zeo.listeners = new.zeo.listeners;
        }
        before.zeo.ssl = new.zeo.ssl;
        before.zeo.authentication = new.zeo.authentication;
        before.access = new.access;
        before.networks = new.networks;
        if let Some((http, new)) = before.http.as_mut().zip(new.http) {
            let HttpConfig { address, socket_mode, .. } = http.clone();
            *http = HttpConfig { address, socket_mode, ..new };
        }
        before.log.level = new.log.level;
        before.backups = new.backups;
        for named in &mut before.storages {
            let other = new.storages.iter().find(|other| other.name == named.name);
            other.iter().for_each(|other| named.storage.take_schedules(&other.storage));
        }
        before.origins = new.origins;
        before.warnings = new.warnings;
    }
}

/// Whether the change is one of the addresses.
fn is_address(change: &Change) -> bool {
    let section = change.section.as_str();
    let is_listen = section.starts_with("<listen");
    match change.key.as_deref() {
        None => is_listen,
        Some(key) => key == "address" && (is_listen || section == "<zeo>"),
    }
}

/// What is said about the clients that are connected.
fn about_clients(renewed: &Renewed) -> Vec<String> {
    let line = |clients: &[u64], what: &str| {
        let shown: Vec<String> = clients.iter().take(SHOWN_MAX).map(u64::to_string).collect();
        let more = clients.len().saturating_sub(SHOWN_MAX);
        let more = if more > 0 { format!(" and {more} others") } else { String::new() };
        (!clients.is_empty()).then(|| format!("{what}: {}{more}", shown.join(", ")))
    };
    let Renewed { restricted, ended, staying } = renewed;
    let lines = [
        line(ended, "clients that may not read any more, and are disconnected"),
        line(restricted, "clients that may do less than before"),
        line(staying, "clients that stay, and could not connect now (zeoadmin kill ends them)"),
    ];
    lines.into_iter().flatten().collect()
}

/// Clients that are named.
const SHOWN_MAX: usize = 20;
