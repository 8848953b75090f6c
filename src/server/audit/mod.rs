//! The audit log (`<audit>`): who has connected and was refused, what was committed, undone and packed, and what was
//! done over the admin socket. One JSON object on each line.
//!
//! Lines are written after the client has its answer, so a slow disk of the audit log delays no client. Commits of
//! different groups may change places: each line has its tid. Lines about connections have a rate limit, as lines of
//! the log have: clients can cause any number.

pub mod commit;
mod event;

use std::collections::BTreeSet;
use std::sync::OnceLock;

pub use event::Event;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::base::clock::TimeSource;
use crate::base::sync::Arc;
use crate::base::timestamp::iso_utc;
use crate::logging::AuditFile;
use crate::server::client_log::AUDITED_CONNECTIONS;
use crate::server::connection::Connection;

/// The audit log of a server.
pub struct AuditLog {
    file: AuditFile,
    events: BTreeSet<Event>,
    clock: TimeSource,
}

/// Where a server and its storages have their audit log, if there is one.
#[derive(Clone, Default)]
pub struct AuditSlot(Arc<OnceLock<AuditLog>>);

#[derive(Serialize)]
struct AuditLine<'a> {
    time: String,
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    storage: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<AuditedClient>,
    #[serde(flatten)]
    facts: Map<String, Value>,
}

#[derive(Serialize)]
struct AuditedClient {
    id: u64,
    label: String,
    address: String,
    identity: Option<String>,
}

impl AuditLog {
    pub fn new(file: AuditFile, events: BTreeSet<Event>, clock: TimeSource) -> AuditLog {
        AuditLog { file, events, clock }
    }
}

impl AuditSlot {
    /// Sets the log. Later calls change nothing.
    pub fn set(&self, log: AuditLog) {
        let _ = self.0.set(log);
    }

    /// Whether lines about this are wanted.
    pub fn wants(&self, event: Event) -> bool {
        self.0.get().is_some_and(|log| log.events.contains(&event))
    }

    /// Writes a line, if lines about this are wanted. `facts`: what only this kind of event has. Not while a lock is
    /// held that forbids logging.
    pub fn note(
        &self,
        event: Event,
        storage: Option<&str>,
        client: Option<&Connection>,
        facts: impl FnOnce(&mut Map<String, Value>),
    ) {
        let Some(log) = self.0.get().filter(|log| log.events.contains(&event)) else { return };
        let is_of_connections = matches!(event, Event::Register | Event::Refused | Event::Disconnect);
        if is_of_connections
            && let Some(connection) = client
            && !AUDITED_CONNECTIONS.admits(connection.peer.host(), event.name())
        {
            return;
        }
        let client = client.map(|connection| AuditedClient {
            id: connection.id(),
            label: connection.peer.label(),
            address: connection.peer.address(),
            identity: connection.identity().map(str::to_string),
        });
        let mut map = Map::new();
        facts(&mut map);
        let time = iso_utc(log.clock.system_time());
        let line = AuditLine { time, event: event.name(), storage, client, facts: map };
        // Text keys, text and numbers: nothing can go wrong.
        log.file.write(&serde_json::to_string(&line).unwrap_or_else(|error| format!("\"{error}\"")));
    }
}
