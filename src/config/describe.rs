//! What `--check` prints: what would be served, in a few lines.

use std::fmt::Write;

use super::schema::limits::unusual;
use super::{
    AuthenticationConfig, BeforeTime, ClientCertificates, Config, EventLogConfig, FileStorageConfig,
    HandlerConfig, LogTarget, NewFileFormat, RotateWhen, Rotation, StorageConfig, ZeoConfig,
};
use crate::base::address::Address;

impl Config {
    /// What would be served, for people.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        let mut line = |label: &str, what: String| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{:<10}{what}", format!("{label}:"));
        };
        let mode = self.zeo.socket_mode.map(|mode| format!(", mode {mode:03o}")).unwrap_or_default();
        line("address", address(&self.zeo.address) + &mode);
        let codec = if self.zeo.msgpack { "msgpack" } else { "pickle" };
        let mode = if self.zeo.read_only { "read-only" } else { "read and write" };
        let protocol = match &self.zeo.announced_protocol {
            Some(protocol) => format!(", announced as {protocol}"),
            None => String::new(),
        };
        line("protocol", format!("{codec}{protocol}, {mode}"));
        if let Some(ssl) = &self.zeo.ssl {
            let clients = match &ssl.clients {
                ClientCertificates::Listed(path) => path.display().to_string(),
                ClientCertificates::Signed => "any authority that this machine trusts".into(),
            };
            line(
                "TLS",
                format!("as {}, for clients with certificates of {clients}", ssl.certificate.display()),
            );
        }
        if let Some(authentication) = &self.zeo.authentication {
            let AuthenticationConfig { protocol, database, realm, .. } = authentication;
            let realm = realm.as_ref().map(|realm| format!(", realm '{realm}'")).unwrap_or_default();
            line("users", format!("{protocol}, in {}{realm}", database.display()));
        }
        if let Some(monitor) = &self.zeo.monitor_address {
            line("monitor", address(monitor));
        }
        if let Some(timeout) = self.zeo.transaction_timeout {
            line("timeout", format!("{} s from vote to finish", timeout.as_secs_f64()));
        }
        unusual(&self.zeo.limits).into_iter().for_each(|limit| line("limit", limit));
        if let Some(who) = merging(&self.zeo) {
            line("merging", who);
        }
        if let Some(path) = &self.zeo.pid_filename {
            line("pid file", path.display().to_string());
        }
        for storage in &self.storages {
            line("storage", format!("'{}' {}", storage.name, describe_storage(&storage.storage)));
        }
        match &self.eventlog {
            None => line("log", "standard error, info".into()),
            Some(eventlog) => handlers(eventlog).into_iter().for_each(|handler| line("log", handler)),
        }
        for warning in &self.warnings {
            line("warning", warning.clone());
        }
        text
    }
}

fn address(address: &Address) -> String {
    match address {
        Address::Unix(path) => format!("{} (Unix socket)", path.display()),
        Address::Tcp { host: None, port: Some(port) } => format!("port {port} on every interface"),
        Address::Tcp { host: None, port: None } => "any free port on every interface".into(),
        Address::Tcp { host: Some(_), port: Some(_) } => address.to_string(),
        Address::Tcp { host: Some(host), port: None } => format!("any free port on {host}"),
    }
}

/// A storage, and in brackets what is inside it.
fn describe_storage(storage: &StorageConfig) -> String {
    match storage {
        StorageConfig::File(file) => file_storage(file),
        StorageConfig::Mapping { name } => format!("MappingStorage '{name}', in memory"),
        StorageConfig::Temporary { name } => format!("TemporaryStorage '{name}', in memory, without history"),
        StorageConfig::Demo(demo) => {
            let part = |part: &Option<Box<StorageConfig>>| {
                part.as_deref().map_or_else(|| "in memory".into(), describe_storage)
            };
            let name = demo.name.as_ref().map_or_else(String::new, |name| format!(" '{name}'"));
            format!("DemoStorage{name} (base: {}; changes: {})", part(&demo.base), part(&demo.changes))
        }
        StorageConfig::Blob(blob) => {
            format!("BlobStorage {} ({})", blob.blob_dir.display(), describe_storage(&blob.base))
        }
        StorageConfig::Zlib(zlib) => {
            let kind = if zlib.by_clients { "ServerZlibStorage" } else { "ZlibStorage" };
            let compress = if zlib.compress { "" } else { ", only decompressing" };
            format!("{kind}{compress} ({})", describe_storage(&zlib.base))
        }
        StorageConfig::Before(before) => {
            let time = match &before.before {
                BeforeTime::Now => "now".into(),
                BeforeTime::Startup => "the start".into(),
                BeforeTime::At(tid) => tid.to_iso(),
                BeforeTime::FromFile(path) => format!("what {} says", path.display()),
            };
            format!("Before {time} ({})", describe_storage(&before.base))
        }
        #[cfg(feature = "test-storages")]
        StorageConfig::Test { kind, base } => format!("{kind:?} ({})", describe_storage(base)),
    }
}

/// Who merges conflicting states, if the configuration says so.
fn merging(zeo: &ZeoConfig) -> Option<String> {
    let clients = zeo.client_conflict_resolution.then(|| "by clients of ZEO 5 and later".to_string());
    let helpers = zeo.conflict_resolver.as_ref().map(|helpers| {
        let user = helpers.user.as_ref().map_or_else(String::new, |user| format!(" as user {}", user.name));
        let allowed = match &helpers.allowed[..] {
            [] => String::new(),
            allowed => format!(", also allowed: {}", allowed.join(", ")),
        };
        format!("by {}{user}{allowed}", helpers.interpreter.display())
    });
    match (clients, helpers) {
        (Some(clients), Some(helpers)) => Some(format!("{clients}, for others {helpers}")),
        (clients, helpers) => clients.or(helpers),
    }
}

fn file_storage(file: &FileStorageConfig) -> String {
    let mut text = format!("FileStorage {}", file.path.display());
    let mut add = |part: &str| {
        text.push_str(", ");
        text.push_str(part);
    };
    if let Some(blob_dir) = &file.blob_dir {
        add(&format!("blobs in {}", blob_dir.display()));
    }
    if file.read_only {
        add("read-only");
    }
    if file.create {
        add("emptied at start");
    }
    if let Some(quota) = file.quota {
        add(&format!("at most {quota} bytes"));
    }
    if !file.pack_gc {
        add("pack without garbage collection");
    }
    if !file.pack_keep_old {
        add("pack keeps no old file");
    }
    if file.pack_refuse_large_removals {
        add("pack refuses to remove most of it");
    }
    match file.new_file_format {
        NewFileFormat::Auto => {}
        NewFileFormat::Fs21 => add("FS21 if new"),
        NewFileFormat::Fs30 => add("FS30 if new"),
    }
    text
}

fn handlers(eventlog: &EventLogConfig) -> Vec<String> {
    let level = |own: i32| level_name(own.max(eventlog.level));
    let handlers: Vec<String> = eventlog
        .handlers
        .iter()
        .map(|handler| match handler {
            HandlerConfig::LogFile(file) => {
                let target = match &file.target {
                    LogTarget::Path(path) => path.display().to_string(),
                    LogTarget::Stdout => "standard output".into(),
                    LogTarget::Stderr => "standard error".into(),
                };
                let rotation = match &file.rotation {
                    Rotation::Never => String::new(),
                    Rotation::Size { max_size, old_files } => {
                        format!(", rotated at {max_size} bytes, keeping {old_files}")
                    }
                    Rotation::Time { when, interval, old_files } => {
                        format!(", rotated every {}, keeping {old_files}", turns(*when, *interval))
                    }
                };
                format!("{target}, {}{rotation}", level(file.level))
            }
            HandlerConfig::Syslog(syslog) => {
                format!("syslog at {}, {}, {}", syslog.address, syslog.facility, level(syslog.level))
            }
        })
        .collect();
    if handlers.is_empty() { vec!["nowhere (<eventlog> has no handlers)".into()] } else { handlers }
}

/// `hour`, `6 hours`, `midnight`, `Monday`.
fn turns(when: RotateWhen, interval: u32) -> String {
    const WEEKDAYS: [&str; 7] =
        ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
    let turn = match when {
        RotateWhen::Second => "second",
        RotateWhen::Minute => "minute",
        RotateWhen::Hour => "hour",
        RotateWhen::Day => "day",
        RotateWhen::Midnight => "midnight",
        RotateWhen::Weekday(day) => WEEKDAYS.get(usize::from(day)).unwrap_or(&"week"),
    };
    if interval == 1 { turn.into() } else { format!("{interval} {turn}s") }
}

fn level_name(level: i32) -> String {
    match level {
        50 => "critical".into(),
        40 => "error".into(),
        30 => "warning".into(),
        20 => "info".into(),
        15 => "blather".into(),
        10 => "debug".into(),
        5 => "trace".into(),
        1 => "all".into(),
        0 => "everything".into(),
        level => format!("level {level}"),
    }
}
