//! What the commands look at and change: the server, once its storages are open, and the log.

use std::sync::OnceLock;

use super::exchange::AdminCall;
use crate::base::clock::TimeSource;
use crate::base::sync::Arc;
use crate::commands::cluster::Member;
use crate::commands::given::Given;
use crate::commands::opening::Opening;
use crate::commands::reload::Reloader;
use crate::logging::LogHandle;
use crate::server::Server;
use crate::server::hosted::Hosted;
use crate::server::status::ServerReport;

/// What the commands look at and change.
pub(in crate::commands) struct Steered {
    pub(super) given: Arc<Given>,
    opening: Arc<Opening>,
    pub(super) log: LogHandle,
    pub(super) reloader: Arc<Reloader>,
    /// Once all storages are open.
    server: OnceLock<Arc<Server>>,
    /// The cluster that it is in, once it is followed or follows. `None`: there is no `<replication>`.
    member: OnceLock<Option<Member>>,
}

impl Steered {
    pub(in crate::commands) fn new(
        given: &Arc<Given>,
        opening: &Arc<Opening>,
        log: &LogHandle,
        reloader: &Arc<Reloader>,
    ) -> Steered {
        let (given, opening, reloader) = (Arc::clone(given), Arc::clone(opening), Arc::clone(reloader));
        Steered {
            given,
            opening,
            log: log.clone(),
            reloader,
            server: OnceLock::new(),
            member: OnceLock::new(),
        }
    }

    /// All storages are open. Called once.
    pub(super) fn set_server(&self, server: &Arc<Server>, member: Option<&Member>) {
        let _ = self.member.set(member.cloned());
        let _ = self.server.set(Arc::clone(server));
    }

    /// This server in its cluster.
    pub(super) fn member(&self) -> Result<&Member, String> {
        self.server()?;
        let member = self.member.get().and_then(Option::as_ref);
        member.ok_or_else(|| "this server is in no cluster: its configuration has no <replication>".into())
    }

    /// The server, or what it still does.
    pub(super) fn server(&self) -> Result<&Arc<Server>, String> {
        self.server.get().ok_or_else(|| format!("the server is not ready: {}", self.opening()))
    }

    /// What the server knows of itself.
    pub(super) fn report(&self) -> ServerReport {
        match self.server.get() {
            Some(server) => ServerReport::of(server),
            None => ServerReport::of_opening(self.opening(), TimeSource::default().system_time()),
        }
    }

    fn opening(&self) -> String {
        self.opening.shown().unwrap_or_else(|| "starting".into())
    }

    /// The storage that a request names. It need not name the only one.
    pub(super) fn storage(&self, call: &AdminCall) -> Result<Arc<Hosted>, String> {
        let server = self.server()?;
        if let Some(name) = call.text("storage")? {
            return server.hosted(name).ok_or_else(|| unknown_storage(name, server));
        }
        let mut storages = server.storages();
        match (storages.next(), storages.next()) {
            (Some(only), None) => Ok(only),
            _ => Err(format!("name a storage: {}", names(server))),
        }
    }
}

fn names(server: &Server) -> String {
    server.storages().map(|hosted| hosted.name.clone()).collect::<Vec<_>>().join(", ")
}

/// Why a storage of this name is not looked at.
pub(super) fn unknown_storage(name: &str, server: &Server) -> String {
    format!("there is no storage '{name}', but {}", names(server))
}
