//! Which response belongs to which path.

use std::time::SystemTime;

use super::head::Head;
use super::page::page;
use super::reply::Reply;
use crate::base::clock::TimeSource;
use crate::base::sync::{Arc, AtomicBool, Mutex, Ordering, rank};
use crate::server::Server;
use crate::server::metrics::text::TextForm;
use crate::server::metrics::{Scrape, metrics};
use crate::server::status::cluster::{ClusterRole, ClusterStatus};
use crate::server::status::json::to_json;
use crate::server::status::{Phase, ServerReport};

const OPENMETRICS: &str = "application/openmetrics-text";
const PATHS: &str = "/, /live, /startup, /ready, /primary, /replica, /metrics, /status.json";

/// Says how far the opening of the storages has come, such as `opening 1: 43 % of Data.fs`.
pub type OpeningText = dyn Fn() -> String + Send + Sync;

/// The server, as HTTP shows it.
pub struct Site {
    opening: Box<OpeningText>,
    /// `None`: the storages are not open yet.
    server: Mutex<Option<Arc<Server>>, rank::HttpSite>,
    is_stopping: AtomicBool,
    /// When the process began.
    began: SystemTime,
}

/// Whether it is a path of a probe, which is answered whatever name it is asked under: load balancers and Kubernetes
/// have names of their own, and the answer has nothing that must be kept from others.
pub fn is_probe(path: &str) -> bool {
    matches!(
        path,
        "/live"
            | "/livez"
            | "/startup"
            | "/startupz"
            | "/ready"
            | "/readyz"
            | "/health"
            | "/primary"
            | "/replica"
    )
}

/// The response of a probe. `obstacles`: why it is none of yes, a line for each reason.
fn yes_or_no(obstacles: Vec<String>) -> Reply {
    match &obstacles[..] {
        [] => Reply::text(200, "ok"),
        obstacles => Reply::text(503, &obstacles.join("\n")),
    }
}

impl Site {
    /// A server that opens its storages.
    pub fn new(opening: Box<OpeningText>) -> Arc<Site> {
        let began = TimeSource::SYSTEM.system_time();
        Arc::new(Site { opening, server: Mutex::default(), is_stopping: AtomicBool::new(false), began })
    }

    /// Clients are served from now on.
    pub fn serves(&self, server: &Arc<Server>) {
        *self.server.lock() = Some(Arc::clone(server));
    }

    /// The server has begun to stop.
    pub fn stops(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    /// The response to a request.
    pub fn answer(&self, head: &Head) -> Reply {
        match head.path.as_str() {
            // Whatever else is the matter: who asks restarts the process if there is no answer.
            "/live" | "/livez" => Reply::text(200, "ok"),
            "/startup" | "/startupz" => match self.server() {
                Some(_) => Reply::text(200, "ok"),
                None => Reply::text(503, &(self.opening)()),
            },
            "/ready" | "/readyz" | "/health" => yes_or_no(self.obstacles()),
            "/primary" => yes_or_no(self.not_primary()),
            "/replica" => yes_or_no(self.not_replica()),
            "/" => Reply::page(page(&self.report())),
            "/metrics" => self.metrics(head),
            "/status.json" => Reply::new(200, "application/json", to_json(&self.report())),
            _ => Reply::text(404, &format!("There is no such page. There are {PATHS}.")),
        }
    }

    fn server(&self) -> Option<Arc<Server>> {
        self.server.lock().clone()
    }

    fn report(&self) -> ServerReport {
        let mut report = match self.server() {
            Some(server) => ServerReport::of(&server),
            None => ServerReport::of_opening((self.opening)(), TimeSource::SYSTEM.system_time()),
        };
        if self.is_stopping.load(Ordering::Relaxed) {
            report.phase = Phase::Stopping;
        }
        report
    }

    /// Why clients are not served, a line for each reason.
    fn obstacles(&self) -> Vec<String> {
        let Some(server) = self.server() else { return vec![(self.opening)()] };
        let is_stopping = server.is_stopping() || self.is_stopping.load(Ordering::Relaxed);
        let failed = server.storages().filter_map(|hosted| {
            let failure = hosted.storage.failure()?;
            Some(format!("storage {}: {failure}", hosted.name))
        });
        let mut obstacles: Vec<String> =
            is_stopping.then(|| "stopping".into()).into_iter().chain(failed).collect();
        obstacles.extend(server.cluster().iter().flat_map(ClusterStatus::too_stale));
        obstacles
    }

    /// Why clients that want to write must go to another server.
    fn not_primary(&self) -> Vec<String> {
        let mut obstacles = self.obstacles();
        let Some(server) = self.server() else { return obstacles };
        match server.cluster() {
            Some(cluster) => obstacles.extend(cluster.not_primary()),
            None if server.storages().all(|hosted| hosted.is_read_only()) => {
                obstacles.push("read-only".into());
            }
            None => {}
        }
        obstacles
    }

    /// Why clients that want to read what another server has stored must go elsewhere.
    fn not_replica(&self) -> Vec<String> {
        let mut obstacles = self.obstacles();
        let Some(server) = self.server() else { return obstacles };
        match server.cluster() {
            Some(cluster) if cluster.role == ClusterRole::Replica => {}
            Some(_) => obstacles.push("the primary".into()),
            None => obstacles.push("in no cluster: there is no <replication>".into()),
        }
        obstacles
    }

    fn metrics(&self, head: &Head) -> Reply {
        // Prometheus names it if it can read it; that it prefers it is no question.
        let form = match head.accept.contains(OPENMETRICS) {
            true => TextForm::OpenMetrics,
            false => TextForm::Prometheus,
        };
        let content_type = match form {
            TextForm::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            TextForm::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        };
        let scrape = Scrape { form, began: self.began, is_ready: self.obstacles().is_empty() };
        Reply::new(200, content_type, metrics(&self.report(), scrape))
    }
}
