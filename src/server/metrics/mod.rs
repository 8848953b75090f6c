//! `/metrics`: what a server knows of itself, for Prometheus. Everything is read from a [`ServerReport`], so that no
//! number is counted for the metrics alone; how it is written is in [`text`].
//!
//! Names and units follow Prometheus' rules: base units, points in time as Unix times, counters that only grow. The
//! values of labels come from the configuration or from lists in the program: never from a client, for each value is a
//! series of its own in the database of the metrics. `docs/monitoring.md` has a row for each family.

mod cluster;
mod process;
mod storages;
pub mod text;

use std::time::SystemTime;

use self::text::FamilyKind::{Counter, Gauge, Info};
use self::text::{MetricsText, Number, TextForm};
use crate::server::status::ServerReport;
use crate::server::status::storage::DiskReport;
use crate::server::status::work::{AttemptsReport, BackupReport};

/// What is known beside the report.
#[derive(Clone, Copy, Debug)]
pub struct Scrape {
    pub form: TextForm,
    /// When the process began.
    pub began: SystemTime,
    /// Whether `/ready` says so.
    pub is_ready: bool,
}

/// All metrics as text.
pub fn metrics(report: &ServerReport, scrape: Scrape) -> String {
    let mut out = MetricsText::new(scrape.form);
    out.family(Info, "zeo_build", "The version of the program.").add(&[("version", report.version)], 1_u64);
    out.family(Gauge, "zeo_start_time_seconds", "When the storages were open and the server began to serve.")
        .add_if_known(&[], report.started);
    out.family(Gauge, "zeo_ready", "Whether /ready says that clients are served.").add(&[], scrape.is_ready);
    reloads(&mut out, report);
    connections(&mut out, report);
    let help = "When the certificate of a listener expires.";
    let mut expiry = out.family(Gauge, "zeo_tls_certificate_expiry_timestamp_seconds", help);
    for listener in &report.listeners {
        expiry.add_if_known(&[("listener", &*listener.address)], listener.certificate_expires);
    }
    storages::add(&mut out, &report.storages);
    cluster::add(&mut out, report.cluster.as_ref());
    backups(&mut out, &report.backups);
    disks(&mut out, report);
    out.family(Counter, "zeo_panics", "Panics, each of them a bug: the log has its place.")
        .add(&[], report.panics);
    out.family(Counter, "zeo_log_lines_lost", "Lines of the log that could not be written.")
        .add(&[], report.log_lines_lost);
    process::add(&mut out, scrape.began);
    out.finish()
}

/// The configuration. The first reading is a success.
fn reloads(out: &mut MetricsText, report: &ServerReport) {
    let Some(reloads) = &report.reloads else { return };
    let help = "Whether the configuration could be used when it was read last.";
    out.family(Gauge, "zeo_config_last_reload_successful", help).add(&[], reloads.failed.is_none());
    let help = "When the configuration that is in use was read.";
    out.family(Gauge, "zeo_config_last_reload_success_timestamp_seconds", help).add(&[], reloads.read);
    let help = "Changes of the configuration that wait for a restart.";
    out.family(Gauge, "zeo_config_changes_waiting", help).add(&[], reloads.waiting.len());
}

fn connections(out: &mut MetricsText, report: &ServerReport) {
    let connections = &report.connections;
    let mut clients = out.family(Gauge, "zeo_clients", "Connections by protocol and state.");
    for storage in &report.storages {
        let mut protocols: Vec<&str> = storage.clients.iter().filter_map(|client| client.protocol).collect();
        protocols.sort_unstable();
        for same in protocols.chunk_by(|one, other| one == other) {
            let protocol = same.first().copied().unwrap_or_default();
            let labels = [("storage", &*storage.name), ("protocol", protocol), ("state", "registered")];
            clients.add(&labels, same.len());
        }
    }
    clients.add(&[("state", "unregistered")], connections.unregistered);
    let mut limits = out.family(Gauge, "zeo_connections_limit", "Upper bound on the connections in a state.");
    limits.add(&[("state", "registered")], connections.registered_max);
    limits.add(&[("state", "unregistered")], connections.unregistered_max);
    out.family(Counter, "zeo_connections_accepted", "Connections that have come.")
        .add(&[], connections.accepted);
    let help = "Connections that were refused or closed because of a limit, by its key.";
    let mut refused = out.family(Counter, "zeo_connections_refused", help);
    connections.refused.iter().for_each(|(reason, count)| refused.add(&[("reason", reason)], *count));
    let mut failures =
        out.family(Counter, "zeo_auth_failures", "TLS handshakes and passwords that have failed.");
    failures.add(&[("kind", "tls")], connections.tls_failures);
    failures.add(&[("kind", "password")], connections.password_failures);
}

/// The file systems of the storages, and the one of temporary files.
fn disks(out: &mut MetricsText, report: &ServerReport) {
    let mut each = |name, help, value: fn(&DiskReport) -> Option<Number>| {
        let mut family = out.family(Gauge, name, help);
        for disk in report.storages.iter().flat_map(|storage| &storage.disks) {
            let storage = disk.storage.as_deref().unwrap_or_default();
            family.add_if_known(&[("storage", storage), ("what", disk.usage)], value(disk));
        }
        if let Some(disk) = &report.temporary_directory {
            family.add_if_known(&[("what", disk.usage)], value(disk));
        }
    };
    each("zeo_filesystem_free_bytes", "Free space in the file system of a directory.", |disk| {
        disk.free_bytes.map(Into::into)
    });
    each("zeo_filesystem_size_bytes", "Size of the file system of a directory.", |disk| {
        disk.total_bytes.map(Into::into)
    });
    each(
        "zeo_filesystem_checked_timestamp_seconds",
        "When the file system was asked: stands still if one hangs.",
        |disk| disk.time.map(Into::into),
    );
}

fn backups(out: &mut MetricsText, backups: &[BackupReport]) {
    let mut each = |name, kind, help, value: fn(&AttemptsReport) -> Option<Number>| {
        let mut family = out.family(kind, name, help);
        for backup in backups {
            let stages = [("make", Some(&backup.making)), ("send", backup.sending.as_ref())];
            for (stage, attempts) in stages {
                let value = attempts.and_then(value);
                family.add_if_known(&[("repository", &backup.repository), ("stage", stage)], value);
            }
        }
    };
    each("zeo_backup_running", Gauge, "Whether a backup is being made or sent.", |attempts| {
        Some(attempts.running_since.is_some().into())
    });
    each(
        "zeo_backup_last_success_timestamp_seconds",
        Gauge,
        "When a backup was last made or sent.",
        |attempts| attempts.last_success.map(Into::into),
    );
    each(
        "zeo_backup_last_failure_timestamp_seconds",
        Gauge,
        "When making or sending a backup has last failed.",
        |attempts| attempts.last_failure.map(Into::into),
    );
    each(
        "zeo_backup_last_duration_seconds",
        Gauge,
        "Time that making or sending the last backup has taken.",
        |attempts| attempts.last_seconds.map(Into::into),
    );
    each(
        "zeo_backup_last_bytes",
        Gauge,
        "Bytes that the last backup has added, or that were sent.",
        |attempts| attempts.last_bytes.map(Into::into),
    );
    each("zeo_backup_successes", Counter, "Backups that were made or sent.", |attempts| {
        Some(attempts.successes.into())
    });
    each("zeo_backup_failures", Counter, "Attempts to make or send a backup that have failed.", |attempts| {
        Some(attempts.failures.into())
    });
    let mut next =
        out.family(Gauge, "zeo_backup_next_timestamp_seconds", "When the next backup by schedule is due.");
    for backup in backups {
        next.add_if_known(&[("repository", &backup.repository)], backup.next);
    }
}
