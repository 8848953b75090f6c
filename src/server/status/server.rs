//! A server, and its connections.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;

use super::client::ClientReport;
use super::cluster::ClusterStatus;
use super::reloads::ReloadsReport;
use super::storage::{DiskReport, StorageReport};
use super::time::unix;
use super::warnings::{self, Warning};
use super::work::BackupReport;
use crate::base::numbers::span;
use crate::base::sync::Arc;
use crate::base::untrusted::Untrusted;
use crate::logging;
use crate::net::listen::Listener;
use crate::server::Server;
use crate::server::connection_counts::RefusedFor;

/// Registered clients, in percent of their upper bound, that are worth a warning.
const FULL_PERCENT: usize = 90;
/// A certificate that expires sooner than this is worth a warning.
const CERTIFICATE_SECONDS_MIN: f64 = 14.0 * 86400.0;

/// A server.
#[derive(Clone, Debug, Serialize)]
pub struct ServerReport {
    pub version: &'static str,
    /// The name of the machine.
    pub host: String,
    pub pid: u32,
    pub phase: Phase,
    /// The configuration file; `None`: there is none, or the storages are being opened.
    pub configuration: Option<String>,
    /// How far the opening of the storages has come; absent when they are open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opening: Option<String>,
    /// When this report was made.
    pub time: f64,
    /// When the storages were open; `None` before.
    pub started: Option<f64>,
    /// Where clients connect, `monitor-address`, and `<http>`.
    pub listeners: Vec<ListenerReport>,
    pub connections: ConnectionsReport,
    pub panics: u64,
    /// Lines of the log that could not be written.
    pub log_lines_lost: u64,
    pub temporary_directory: Option<DiskReport>,
    pub storages: Vec<StorageReport>,
    /// Connections that have not registered.
    pub unregistered: Vec<ClientReport>,
    pub backups: Vec<BackupReport>,
    /// `None` while the storages are opened.
    pub reloads: Option<ReloadsReport>,
    /// `None`: there is no `<replication>`, or the storages are being opened.
    pub cluster: Option<ClusterStatus>,
    /// What is not as it should be.
    pub warnings: Vec<Warning>,
}

/// What a server does.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It opens its storages; clients wait.
    Opening,
    Serving,
    Stopping,
}

/// An address at which a server listens.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ListenerReport {
    /// As in the log.
    pub address: String,
    /// When its certificate expires; `None`: it has no TLS.
    pub certificate_expires: Option<u64>,
}

/// The connections of a server.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ConnectionsReport {
    pub registered: usize,
    /// Upper bound, by `max-connections` or by the limit of open files.
    pub registered_max: usize,
    pub unregistered: usize,
    pub unregistered_max: usize,
    /// Connections that have come, since the start.
    pub accepted: u64,
    /// Those that were refused or closed because of limits, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// TLS handshakes that have failed.
    pub tls_failures: u64,
    /// Wrong passwords, and clients without one.
    pub password_failures: u64,
}

impl ServerReport {
    /// A server that opens its storages; `opening` says how far it is.
    pub fn of_opening(opening: String, now: SystemTime) -> ServerReport {
        ServerReport { opening: Some(opening), ..ServerReport::of_process(Phase::Opening, now) }
    }

    /// A server whose storages are open.
    pub fn of(server: &Server) -> ServerReport {
        let now = server.clock().system_time();
        let phase = if server.is_stopping() { Phase::Stopping } else { Phase::Serving };
        let disks: Vec<DiskReport> = server.disks().all().iter().map(DiskReport::of).collect();
        let storages: Vec<StorageReport> =
            server.storages().map(|hosted| StorageReport::of(&hosted, &disks, now)).collect();
        let registered = |id: u64| storages.iter().any(|storage| storage.has_client(id));
        let others = server.clients().into_iter().filter(|connection| !registered(connection.id()));
        let mut report = ServerReport {
            started: Some(unix(server.started())),
            configuration: server.configuration().map(Into::into),
            reloads: Some(ReloadsReport::of(server.reloads())),
            listeners: ListenerReport::all_of(server),
            connections: ConnectionsReport::of(server),
            temporary_directory: disks.iter().find(|disk| disk.storage.is_none()).cloned(),
            unregistered: others.map(|connection| ClientReport::of(&connection, now)).collect(),
            backups: server.backups().iter().map(|backup| BackupReport::of(backup)).collect(),
            cluster: server.cluster(),
            storages,
            ..ServerReport::of_process(phase, now)
        };
        report.warnings = report.warn();
        report
    }

    /// What is wrong with it: storages first.
    fn warn(&self) -> Vec<Warning> {
        let mut warnings: Vec<Warning> = self.storages.iter().flat_map(warnings::of_storage).collect();
        warnings.extend(self.cluster.iter().flat_map(ClusterStatus::warn));
        warnings.extend(self.backups.iter().flat_map(warnings::of_backup));
        warnings.extend(self.temporary_directory.as_ref().and_then(warnings::of_disk));
        let ConnectionsReport { registered, registered_max, .. } = self.connections;
        if registered > 0 && registered >= registered_max.saturating_mul(FULL_PERCENT) / 100 {
            warnings.push(Warning::new(
                format!("{registered} clients are registered, and at most {registered_max} can be"),
                "Look for clients that connect again and again, or raise max-connections and the limit of open files.",
            ));
        }
        warnings.extend(self.reloads.as_ref().and_then(ReloadsReport::warn));
        warnings.extend(self.listeners.iter().filter_map(|listener| listener.warn(self.time)));
        if self.log_lines_lost > 0 {
            warnings.push(Warning::new(
                format!("{} lines of the log could not be written", self.log_lines_lost),
                "Look whether the disk of the log is full, and whether what reads the log still runs.",
            ));
        }
        if self.panics > 0 {
            warnings.push(Warning::new(
                format!("{} internal errors: the log has them as CRITICAL", self.panics),
                "Report them as a bug, with these lines.",
            ));
        }
        warnings
    }

    fn of_process(phase: Phase, now: SystemTime) -> ServerReport {
        ServerReport {
            version: env!("CARGO_PKG_VERSION"),
            host: Untrusted(&rustix::system::uname().nodename().to_string_lossy()).to_string(),
            pid: std::process::id(),
            phase,
            configuration: None,
            opening: None,
            time: unix(now),
            started: None,
            listeners: Vec::new(),
            connections: ConnectionsReport::default(),
            reloads: None,
            panics: logging::panics(),
            log_lines_lost: logging::lines_lost(),
            temporary_directory: None,
            storages: Vec::new(),
            unregistered: Vec::new(),
            backups: Vec::new(),
            cluster: None,
            warnings: Vec::new(),
        }
    }
}

impl ListenerReport {
    /// Whether its certificate has expired, or will soon.
    fn warn(&self, now: f64) -> Option<Warning> {
        let left = self.certificate_expires? as f64 - now;
        let when = match left {
            _ if left <= 0.0 => "has expired, and clients refuse it".into(),
            _ if left < CERTIFICATE_SECONDS_MIN => format!("expires in {}", span(left)),
            _ => return None,
        };
        Some(Warning::new(
            format!("the certificate of {} {when}", self.address),
            "Put a renewed one in its place, and send the server SIGUSR2, or call zeoadmin reload.",
        ))
    }

    /// One address may have a socket for each IP version.
    fn all_of(server: &Server) -> Vec<ListenerReport> {
        let report = |listener: &Arc<Listener>| ListenerReport {
            address: listener.endpoint.to_string(),
            certificate_expires: listener.tls().map(|tls| tls.expires().as_secs()),
        };
        let mut listeners: Vec<ListenerReport> = server.listeners().iter().map(report).collect();
        listeners.dedup();
        listeners
    }
}

impl ConnectionsReport {
    fn of(server: &Server) -> ConnectionsReport {
        let (admission, counts) = (server.admission(), server.counts());
        let [unregistered, registered] = admission.admitted();
        let [unregistered_max, registered_max] = admission.limits();
        let by_limits = RefusedFor::ALL.into_iter().filter(|why| why.is_a_limit());
        ConnectionsReport {
            registered,
            registered_max,
            unregistered,
            unregistered_max,
            accepted: counts.accepted(),
            refused: by_limits.map(|why| (why.name(), counts.refused(why))).collect(),
            tls_failures: counts.refused(RefusedFor::Tls),
            password_failures: counts.refused(RefusedFor::Password),
        }
    }
}
