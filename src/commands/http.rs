//! Probes and metrics over HTTP, from before the storages are open until after they are closed: `<http>`.

use std::io;
use std::iter;

use crate::base::fs::dir_of;
use crate::base::network::Networks;
use crate::base::sync::Arc;
use crate::commands::opening::Opening;
use crate::config::{Config, databases_of};
use crate::net::listen::Listener;
use crate::server::Server;
use crate::server::disk_space::{DiskPlace, DiskUse};
use crate::server::http::HttpServer;
use crate::server::http::site::Site;

/// What is served over HTTP. It ends when this is dropped.
pub(super) struct Http {
    site: Arc<Site>,
    _server: HttpServer,
}

impl Http {
    /// Begins to answer those whose addresses are in `allow`: the storages are being opened.
    pub(super) fn start(
        listeners: Vec<Listener>,
        allow: Option<Networks>,
        opening: &Arc<Opening>,
    ) -> io::Result<Http> {
        let opening = Arc::clone(opening);
        let site = Site::new(Box::new(move || opening.shown().unwrap_or_else(|| "starting".into())));
        Ok(Http { _server: HttpServer::start(listeners, allow, &site)?, site })
    }

    /// Clients are served from now on.
    pub(super) fn serves(&self, server: &Arc<Server>) {
        self.site.serves(server);
    }

    /// The server stops.
    pub(super) fn stops(&self) {
        self.site.stops();
    }
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
