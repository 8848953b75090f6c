//! The output of `--check`: a summary of the configuration in a few lines.

use std::fmt::Write;

use super::schema::limits::unusual;
use super::zconfig::datatypes::Unit;
use super::{
    AuditConfig, AuthenticationConfig, BackupConfig, BeforeTime, Config, FileStorageConfig, HttpConfig,
    ListenerConfig, NetworkConfig, SslConfig, StorageConfig, ZeoConfig, replication,
};
use crate::auth::Settings;
use crate::backup::repository::retention::Retention;
use crate::base::address::Address;
use crate::base::level;
use crate::client::options::{ClientOptions, TlsOptions};
use crate::logging::{Destination, HandlerSetup, LogSetup, Rotation, When};
use crate::net::tls::{Files, Peers};
use crate::postgres::dsn::Target;
use crate::replication::cluster::options::{ClusterOptions, Level, OnTimeout};
use crate::server::access::{AccessRules, Who};
use crate::server::rates::Rates;
use crate::storage::file::NewFileFormat;
use crate::storage::postgres::options::PostgresOptions;
use crate::wire::protocol::Greeting;

impl Config {
    /// One line for each configured item, `LABEL: TEXT`.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        let mut line = |label: &str, what: String| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{:<10}{what}", format!("{label}:"));
        };
        let (sections, own) = self.zeo.listeners.iter().partition::<Vec<_>, _>(|one| one.section.is_some());
        own.iter().for_each(|one| line("address", address(&one.address) + &socket_access(one)));
        let Greeting { generation, msgpack } = self.zeo.greeting;
        let codec = if msgpack { "msgpack" } else { "pickle" };
        let mode = if self.zeo.hosted.read_only { "read-only" } else { "read and write" };
        let protocol = match generation == Greeting::new(msgpack).generation {
            true => String::new(),
            false => format!(", announced as {}", generation),
        };
        line("protocol", format!("{codec}{protocol}, {mode}"));
        if let Some(ssl) = &self.zeo.ssl {
            line("TLS", tls(ssl));
        }
        if let Some(authentication) = &self.zeo.authentication {
            let AuthenticationConfig { protocol, settings: Settings { database, realm }, .. } =
                authentication;
            let realm = realm.as_ref().map(|realm| format!(", realm '{realm}'")).unwrap_or_default();
            line("users", format!("{protocol}, in {}{realm}", database.display()));
        }
        if let Some(networks) = own.iter().find_map(|one| one.allow.as_ref()) {
            line("allowed", format!("clients from {networks}"));
        }
        if let Some(proxies) = own.iter().map(|one| &one.proxies).find(|proxies| !proxies.is_empty()) {
            line("proxies", proxies.to_string());
        }
        sections.iter().for_each(|one| line("listen", describe_listener(one, &self.zeo)));
        if let Some(monitor) = &self.zeo.monitor_address {
            line("monitor", address(monitor));
        }
        if let Some(path) = &self.zeo.admin_socket {
            line("admin", path.display().to_string());
        }
        if let Some(http) = &self.http {
            line("http", describe_http(http));
        }
        if let Some(timeout) = self.zeo.hosted.transaction_timeout {
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
        for (name, AccessRules(rules)) in &self.access.0 {
            rules.iter().for_each(|rule| line("access", format!("'{name}' {rule}")));
            if rules.last().is_none_or(|last| last.who != Who::Everyone) {
                line("access", format!("'{name}' others: none"));
            }
        }
        self.networks.iter().for_each(|network| line("network", describe_network(network)));
        for backup in &self.backups {
            line("backup", describe_backup(backup));
        }
        if let Some(cluster) = &self.replication {
            line("cluster", describe_replication(cluster));
        }
        if let Some(AuditConfig { file, events }) = &self.audit {
            let names: Vec<_> = events.iter().map(|event| event.name()).collect();
            line("audit", format!("{}: {}", file.path.display(), names.join(", ")));
        }
        handlers(&self.log).into_iter().for_each(|handler| line("log", handler));
        for origin in &self.origins {
            line("set", origin.clone());
        }
        for warning in &self.warnings {
            line("warning", warning.clone());
        }
        text
    }
}

fn tls(ssl: &SslConfig) -> String {
    let clients = match &ssl.files.peers {
        Peers::Listed(path) => path.display().to_string(),
        Peers::Signed => "any authority that this machine trusts".into(),
    };
    let certificate = ssl.files.certificate.display();
    format!("as {certificate}, for clients with certificates of {clients}")
}

/// Mode and group of a Unix socket.
fn socket_access(listener: &ListenerConfig) -> String {
    let mode = listener.socket_mode.map(|mode| format!(", mode {mode:03o}")).unwrap_or_default();
    let group = listener.socket_group.as_ref().map(|group| format!(", group {}", group.name));
    mode + &group.unwrap_or_default()
}

/// All that holds at the address of a `<listen>` section.
fn describe_listener(listener: &ListenerConfig, zeo: &ZeoConfig) -> String {
    let mut parts = vec![format!("{}{}", address(&listener.address), socket_access(listener))];
    parts.push(listener.ssl.as_ref().map_or_else(|| "no TLS".into(), |ssl| format!("TLS {}", tls(ssl))));
    parts.push(if listener.passwords { "with passwords".into() } else { "no passwords".into() });
    parts.push(if listener.read_only || zeo.hosted.read_only {
        "read-only".into()
    } else {
        "read and write".into()
    });
    parts.extend(listener.storages.as_ref().map(|names| format!("only storages {}", names.join(" "))));
    parts.extend(listener.allow.as_ref().map(|networks| format!("only clients from {networks}")));
    if !listener.proxies.is_empty() {
        parts.push(format!("proxies {}", listener.proxies));
    }
    parts.extend(listener.low_priority.then(|| "low priority".into()));
    parts.extend(listener.connections.map(|max| format!("at most {max} clients")));
    if listener.rates != zeo.limits.rates {
        let Rates { requests, sent } = listener.rates;
        let shown =
            |rate: Option<u64>, unit: Unit| rate.map_or_else(|| "any number".into(), |rate| unit.show(rate));
        let (requests, sent) = (shown(requests, Unit::Count), shown(sent, Unit::Bytes));
        parts.push(format!("an address has {requests} requests and {sent} of answers a second"));
    }
    format!("{} {}", listener.section.as_deref().unwrap_or_default(), parts.join("; "))
}

/// What its clients have together.
fn describe_network(network: &NetworkConfig) -> String {
    let NetworkConfig { section, addresses, rates: Rates { requests, sent }, .. } = network;
    let requests = requests.map(|rate| format!("{} requests", Unit::Count.show(rate)));
    let sent = sent.map(|rate| format!("{} of answers", Unit::Bytes.show(rate)));
    let rates: Vec<String> = requests.into_iter().chain(sent).collect();
    format!("{section} {addresses}; all together have {} a second", rates.join(" and "))
}

fn describe_http(http: &HttpConfig) -> String {
    let mut text = address(&http.address);
    if http.ssl.is_some() {
        text += ", TLS";
    }
    if let Some(mode) = http.socket_mode {
        text += &format!(", mode {mode:03o}");
    }
    if let Some(networks) = &http.allow {
        text += &format!(", only from {networks}");
    }
    if !http.hosts.is_empty() {
        text += &format!(", called {}", http.hosts.join(" "));
    }
    text
}

fn describe_backup(backup: &BackupConfig) -> String {
    let mut text = format!("to {}", backup.repository.display());
    // Writing to a String cannot fail.
    let mut add = |what: std::fmt::Arguments<'_>| {
        let _ = write!(text, ", {what}");
    };
    if let Some(schedule) = backup.schedule {
        add(format_args!("{schedule}"));
    }
    if let Some(interval) = backup.continuous {
        add(format_args!("within {} of each commit", Unit::Seconds.show(interval.as_secs())));
    }
    if let Some(rate) = backup.rate_max {
        add(format_args!("at most {rate} bytes a second"));
    }
    if let Some(Retention { last, daily, weekly, monthly }) = backup.retention {
        let kept = [(last, "last"), (daily, "daily"), (weekly, "weekly"), (monthly, "monthly")];
        let kept = kept.iter().filter(|(count, _)| *count > 0).map(|(count, kind)| format!("{count} {kind}"));
        add(format_args!("keeps {}", kept.collect::<Vec<_>>().join(", ")));
    }
    if let Some(send) = &backup.send {
        let timeout = Unit::Seconds.show(send.timeout.as_secs());
        add(format_args!("sent with '{}', given up after {timeout} without progress", send.command));
    }
    text
}

/// What differs from the defaults, after the role.
fn describe_replication(cluster: &ClusterOptions) -> String {
    let mut text = format!("at first {}", cluster.first_role.as_str());
    let mut add = |part: String| {
        text.push_str(", ");
        text.push_str(&part);
    };
    if cluster.name != replication::machine_name() {
        add(format!("called {}", cluster.name));
    }
    cluster.listen.iter().for_each(|listen| add(format!("replicas connect to {}", address(listen))));
    if !cluster.peers.is_empty() {
        let peers: Vec<String> = cluster.peers.iter().map(ToString::to_string).collect();
        add(format!("the others are {}", peers.join(" and ")));
    }
    add(format!("state in {}", cluster.state.display()));
    if let Some(trigger) = &cluster.trigger {
        add(format!("promoted by {}", trigger.display()));
    }
    if cluster.synchronous_replicas > 0 {
        let level = match cluster.level {
            Level::Received => "received",
            Level::Synced => "synced",
            Level::Published => "published",
        };
        let after = Unit::Milliseconds
            .show(u64::try_from(cluster.synchronous_timeout.as_millis()).unwrap_or(u64::MAX));
        let then = match cluster.on_timeout {
            OnTimeout::Degrade => format!("goes on without them after {after}"),
            OnTimeout::Block => format!("waits for them (a CRITICAL line after {after})"),
        };
        let replicas = match cluster.synchronous_replicas {
            1 => "1 replica has".into(),
            count => format!("{count} replicas have"),
        };
        add(format!("a commit waits until {replicas} {level} it, and {then}"));
    }
    if let Some(staleness) = cluster.max_staleness {
        add(format!("serves no clients if more than {} behind", Unit::Seconds.show(staleness.as_secs())));
    }
    if let Some(lease) = cluster.lease {
        add(format!("commits need an answer of most servers within {}", Unit::Seconds.show(lease.as_secs())));
    }
    if let Some(rate) = cluster.max_rate {
        add(format!("at most {} a second to a replica", Unit::Bytes.show(rate)));
    }
    if cluster.compress {
        add("compressed".into());
    }
    if !cluster.follows_packs {
        add("does not follow packs".into());
    }
    if cluster.follows_replicas {
        add("follows other replicas as well".into());
    }
    if let Some(Files { certificate, peers, .. }) = &cluster.tls {
        let others = match peers {
            Peers::Listed(path) => path.display().to_string(),
            Peers::Signed => "any authority that this machine trusts".into(),
        };
        add(format!("TLS as {}, with certificates of {others}", certificate.display()));
    }
    text
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

/// A storage, with its inner storages in brackets.
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
                BeforeTime::FromFile(path) => format!("the time in {}", path.display()),
            };
            format!("Before {time} ({})", describe_storage(&before.base))
        }
        StorageConfig::Zrs(zrs) => {
            let to = zrs
                .replicate_to
                .as_ref()
                .map(|address| format!("to secondaries at {}", self::address(address)));
            let from = zrs.replicate_from.as_ref().map(|address| format!("from the primary at {address}"));
            let ways: Vec<String> = from.into_iter().chain(to).collect();
            format!("ZRS {} ({})", ways.join(" and "), describe_storage(&zrs.base))
        }
        StorageConfig::Client(client) => client_storage(&client.options),
        StorageConfig::Postgres(database) => database_storage(&database.options),
        StorageConfig::Own(own) => {
            let name = own.settings.name.as_ref().map_or_else(String::new, |name| format!(" '{name}'"));
            let base = own.base.as_ref().map(|base| format!(" ({})", describe_storage(base)));
            format!("{}{name}, added by this program{}", own.kind.name, base.unwrap_or_default())
        }
    }
}

/// Where conflicts are merged, besides the server itself.
fn merging(zeo: &ZeoConfig) -> Option<String> {
    let clients = zeo.hosted.client_conflict_resolution.then(|| "by clients of ZEO 5 and later".to_string());
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
    let options = &file.options;
    let mut text = format!("FileStorage {}", options.path.display());
    let mut add = |part: &str| {
        text.push_str(", ");
        text.push_str(part);
    };
    if let Some(blob_dir) = &options.blob_dir {
        add(&format!("blobs in {}", blob_dir.display()));
    }
    if options.read_only {
        add("read-only");
    }
    if options.create {
        add("emptied at start");
    }
    if let Some(quota) = options.quota {
        add(&format!("at most {quota} bytes"));
    }
    if !options.pack_gc {
        add("pack without garbage collection");
    }
    if !options.pack_keep_old {
        add("pack keeps no old file");
    }
    if options.pack_refuse_large_removals {
        add("pack refuses to remove most of it");
    }
    if let Some(rate) = options.pack_max_rate {
        add(&format!("pack reads at most {rate} bytes a second"));
    }
    if let Some((pack, _)) = &file.pack_schedule {
        add(&format!("packed {}, keeping {}", pack.schedule, pack.kept()));
    }
    if let Some(scrub) = &file.scrub {
        add(&format!("checked {}, reading at most {} bytes a second", scrub.schedule, scrub.rate_max));
    }
    match options.new_file_format {
        NewFileFormat::Auto => {}
        NewFileFormat::FS21 => add("FS21 if new"),
        NewFileFormat::FS30 => add("FS30 if new"),
    }
    text
}

/// What differs from the defaults, after the addresses and the cache.
fn client_storage(options: &ClientOptions) -> String {
    let addresses: Vec<String> = options.addresses.iter().map(ToString::to_string).collect();
    let mut text = format!("ClientStorage '{}' at {}", options.storage, addresses.join(" or "));
    let mut add = |part: String| {
        text.push_str(", ");
        text.push_str(&part);
    };
    let size = Unit::Bytes.show(options.cache_size);
    match &options.cache_path {
        Some(path) => add(format!("cache of {size} in {}", path.display())),
        None => add(format!("temporary cache of {size}")),
    }
    if !options.name.is_empty() {
        add(format!("named '{}'", options.name));
    }
    if let Some(label) = &options.label {
        add(format!("labelled '{label}'"));
    }
    if options.read_only {
        add("read-only".into());
    }
    if options.read_only_fallback {
        add("read-only while no server can write".into());
    }
    if let Some(user) = &options.credentials {
        let realm = user.realm.as_ref().map(|realm| format!(", realm '{realm}'")).unwrap_or_default();
        add(format!("as user '{}'{realm}", user.username));
    }
    options.tls.iter().for_each(|tls| add(client_tls(tls)));
    let defaults = ClientOptions::new(Vec::new());
    if !options.wait {
        add("starts without a server".into());
    }
    if options.wait_timeout != defaults.wait_timeout {
        add(format!("waits {} s for a server", options.wait_timeout.as_secs()));
    }
    let (min, max) = options.disconnect_poll;
    if (min, max) != defaults.disconnect_poll {
        add(format!("tries to connect every {} to {} s", min.as_secs(), max.max(min).as_secs()));
    }
    if let Some(blob_dir) = &options.blob_dir {
        let whose = if options.shared_blob_dir { "blobs of the server in" } else { "blobs in" };
        let size = options.blob_cache_size.map(|size| {
            format!(", up to {}, checked every {}%", Unit::Bytes.show(size), options.blob_cache_size_check)
        });
        add(format!("{whose} {}{}", blob_dir.display(), size.unwrap_or_default()));
    }
    if options.server_sync {
        add("transactions begin with a call".into());
    }
    if options.drop_cache_rather_verify {
        add("drops its cache rather than verify it".into());
    }
    text
}

/// What differs from the defaults, after the database.
fn database_storage(options: &PostgresOptions) -> String {
    let defaults = PostgresOptions::new(options.dsn.clone());
    let mut text = format!("PostgreSQL, {}", options.dsn.describe());
    let at = match options.dsn.target {
        Target::Standby => ", at a standby",
        Target::PreferStandby => ", at a standby if there is one",
        _ => "",
    };
    if let Some(name) = &options.name {
        text.push_str(&format!(", named '{name}'"));
    }
    text.push_str(at);
    if let Some(conf) = options.replicas() {
        text.push_str(&format!(", the servers of {}", conf.path.display()));
        if options.replica_timeout != defaults.replica_timeout {
            text.push_str(&format!(", with a timeout of {} s", options.replica_timeout.as_secs_f64()));
        }
    }
    if options.read_only {
        text.push_str(", read-only");
    }
    if !options.keep_history {
        text.push_str(", without history");
    }
    if !options.create_schema {
        text.push_str(", whose tables must be there");
    }
    if options.lock_timeout != defaults.lock_timeout {
        text.push_str(&format!(", waits {} s for locked objects", options.lock_timeout.as_secs()));
    }
    let size = Unit::Bytes.show(options.cache_size as u64);
    text.push_str(&format!(", {size} of records in memory"));
    if options.cache_record_max != defaults.cache_record_max {
        text.push_str(&format!(" of up to {}", Unit::Bytes.show(options.cache_record_max as u64)));
    }
    if let Some(dir) = &options.blob_dir {
        let dir = dir.display();
        if options.shared_blob_dir {
            text.push_str(&format!(", blobs in {dir}, which others share"));
        } else {
            text.push_str(&format!(", copies of blobs in {dir}"));
            if let Some(size) = options.blob_cache_size {
                text.push_str(&format!(", about {}", Unit::Bytes.show(size)));
            }
        }
    }
    text
}

fn client_tls(TlsOptions { files, host }: &TlsOptions) -> String {
    let authorities = match &files.peers {
        Peers::Listed(path) => path.display().to_string(),
        Peers::Signed => "any authority that this machine trusts".into(),
    };
    let host = match &host.host {
        _ if host.is_off => " for any host".into(),
        Some(host) => format!(" for '{host}'"),
        None => String::new(),
    };
    let certificate = files.certificate.display();
    format!("TLS as {certificate} to servers with certificates of {authorities}{host}")
}

fn handlers(log: &LogSetup) -> Vec<String> {
    let describe = |handler: &HandlerSetup| {
        let level = level_name(handler.level.max(log.level));
        match &handler.destination {
            Destination::Stdout => format!("standard output, {level}"),
            Destination::Stderr => format!("standard error, {level}"),
            Destination::File(file) => {
                let rotation = match file.rotation {
                    Rotation::Never => String::new(),
                    Rotation::Size { max_size, old_files } => {
                        format!(", rotated at {max_size} bytes, keeping {old_files}")
                    }
                    Rotation::Time { when, interval, old_files } => {
                        format!(", rotated every {}, keeping {old_files}", turns(when, interval))
                    }
                };
                format!("{}, {level}{rotation}", file.path.display())
            }
            Destination::Syslog(syslog) => {
                format!("syslog at {}, {}, {level}", syslog.address, syslog.facility)
            }
            Destination::Journal(journal) => {
                format!("journal at {} as {}, {level}", journal.path.display(), journal.identifier)
            }
        }
    };
    let handlers: Vec<String> = log.handlers.iter().map(describe).collect();
    if handlers.is_empty() { vec!["nowhere (<eventlog> has no handlers)".into()] } else { handlers }
}

/// `hour`, `6 hours`, `midnight`, `Monday`.
fn turns(when: When, interval: u32) -> String {
    const WEEKDAYS: [&str; 7] =
        ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
    let turn = match when {
        When::Second => "second",
        When::Minute => "minute",
        When::Hour => "hour",
        When::Day => "day",
        When::Midnight => "midnight",
        When::Weekday(day) => WEEKDAYS.get(usize::from(day)).unwrap_or(&"week"),
    };
    if interval == 1 { turn.into() } else { format!("{interval} {turn}s") }
}

/// The level as written in the configuration.
fn level_name(number: u8) -> String {
    match number {
        level::NOTSET => "everything".into(),
        level::ALL => "all".into(),
        number => level::name(number).to_lowercase(),
    }
}
