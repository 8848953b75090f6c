//! Probes and metrics over HTTP, from before the storages are open until after they are closed: `<http>`.

use std::io;
use std::iter;

use crate::base::address::Address;
use crate::base::fs::dir_of;
use crate::base::sync::Arc;
use crate::commands::listening::{Certificates, UnixSockets};
use crate::commands::opening::Opening;
use crate::config::{Config, HttpConfig, databases_of};
use crate::net::listen::Listener;
use crate::server::Server;
use crate::server::disk_space::{DiskPlace, DiskUse};
use crate::server::http::names::OwnNames;
use crate::server::http::site::Site;
use crate::server::http::{HttpServer, Rules};

/// What is served over HTTP. It ends when this is dropped.
pub(super) struct Http {
    site: Arc<Site>,
    server: HttpServer,
    /// Unlinked when this is dropped.
    _files: UnixSockets,
}

impl Http {
    /// Begins to answer: the storages are being opened.
    pub(super) fn start(
        config: &HttpConfig,
        listeners: Vec<Listener>,
        certificates: &Certificates,
        opening: &Arc<Opening>,
    ) -> io::Result<Http> {
        let mut files = UnixSockets::default();
        files.add(&listeners);
        let tls = certificates.of_http(config);
        listeners.iter().for_each(|listener| listener.set_tls(tls.clone()));
        let opening = Arc::clone(opening);
        let site = Site::new(Box::new(move || opening.shown().unwrap_or_else(|| "starting".into())));
        let server = HttpServer::start(listeners, rules(config), &site)?;
        Ok(Http { site, server, _files: files })
    }

    /// Clients are served from now on.
    pub(super) fn serves(&self, server: &Arc<Server>) {
        server.show_listeners(self.server.listeners());
        self.site.serves(server);
    }

    /// Has later connections follow another configuration, whose address is not looked at.
    pub(super) fn follow(&self, config: &HttpConfig, certificates: &Certificates) {
        self.server.set_rules(rules(config));
        let tls = certificates.of_http(config);
        self.server.listeners().iter().for_each(|listener| listener.set_tls(tls.clone()));
    }

    /// The server stops.
    pub(super) fn stops(&self) {
        self.site.stops();
    }
}

/// What is answered, as configured.
fn rules(config: &HttpConfig) -> Rules {
    let names = match &config.address {
        Address::Tcp { host, .. } if config.ssl.is_none() => {
            let machine = rustix::system::uname();
            let machine = machine.nodename().to_string_lossy();
            let known = [host.as_deref(), Some(&*machine)].into_iter().flatten();
            Some(OwnNames::new(known.chain(config.hosts.iter().map(String::as_str))))
        }
        Address::Tcp { .. } | Address::Unix(_) => None,
    };
    Rules { allow: config.allow.clone(), names }
}

/// The directories whose file systems must not run out of space: one of each kind for a storage.
pub(super) fn disk_places(config: &Config) -> Vec<DiskPlace> {
    let mut places: Vec<DiskPlace> = Vec::new();
    for named in &config.storages {
        // Of a demo storage the changes, which come last, are what grows.
        for database in databases_of(iter::once(named)).databases.into_iter().rev() {
            let data = dir_of(&database.path).to_path_buf();
            for (usage, directory) in [(DiskUse::Data, Some(data)), (DiskUse::Blobs, database.blob_dir)] {
                let storage = Some(named.name.clone());
                let is_known = places.iter().any(|place| place.storage == storage && place.usage == usage);
                if let Some(directory) = directory.filter(|_| !is_known) {
                    // For people who do not know where the server was started.
                    let directory = std::path::absolute(&directory).unwrap_or(directory);
                    places.push(DiskPlace { storage, usage, directory });
                }
            }
        }
    }
    places.push(DiskPlace { storage: None, usage: DiskUse::Temporary, directory: std::env::temp_dir() });
    places
}
