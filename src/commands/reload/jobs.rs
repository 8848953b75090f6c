//! What a server does by itself, at its times: packs, checks of files, backups.

use std::io;

use crate::base::clock::TimeSource;
use crate::base::sync::Arc;
use crate::commands::backups::{BackupChanges, Backups};
use crate::commands::scrubs::Scrubs;
use crate::config::{Config, NamedStorage, databases_of};
use crate::server::Server;
use crate::server::hosted::Hosted;
use crate::server::pack_schedule::PackSchedule;

/// The threads of backups and checks.
pub(in crate::commands) struct Jobs {
    pub backups: Backups,
    pub scrubs: Scrubs,
}

impl Jobs {
    /// Starts the threads that another configuration needs. `running`: what the storages were opened with. After an
    /// error nothing has changed.
    pub(super) fn prepare(
        &mut self,
        server: &Arc<Server>,
        running: &Config,
        wanted: &Config,
    ) -> io::Result<BackupChanges> {
        let time = TimeSource::default();
        self.scrubs.prepare(running, wanted, server, &time)?;
        let databases = databases_of(running.storages.iter()).databases;
        let changes = self.backups.prepare(&wanted.backups, &databases, &time)?;
        match server.pack_by_schedule(pack_plans(wanted, server)) {
            Ok(()) => Ok(changes),
            Err(error) => {
                changes.give_up();
                Err(error)
            }
        }
    }

    /// Has them follow the other configuration.
    pub(super) fn apply(&mut self, server: &Server, changes: BackupChanges, wanted: &Config) {
        self.backups.apply(changes, server);
        self.scrubs.apply(wanted);
    }

    /// Ends them, and waits.
    pub(super) fn stop(self) {
        self.backups.stop();
        self.scrubs.stop();
    }
}

/// The storages that the server packs by itself.
pub(in crate::commands) fn pack_plans(config: &Config, server: &Server) -> Vec<(Arc<Hosted>, PackSchedule)> {
    let plan = |named: &NamedStorage| {
        let (plan, _) = named.storage.pack_schedule()?;
        Some((server.hosted(&named.name)?, *plan))
    };
    config.storages.iter().filter_map(plan).collect()
}
