//! The configuration: command line and configuration file, combined into the options of the modules below.
//!
//! Each configurable module defines its options and checks which of them exclude each other (`logging::LogSetup`,
//! `storage::file::FileStorageOptions`, ...); this module fills them in, and adds file and line to their errors.
//!
//! Invariants: nothing here opens a storage, a socket or a log, so `--help`, `--check` and every error leave the
//! machine unchanged. A [`Config`] is refused later only for reasons outside the configuration, such as a file that
//! cannot be read.

mod access;
mod assemble;
mod backup;
pub mod changes;
mod databases;
mod describe;
mod drop_ins;
pub mod environment;
mod files;
mod library;
mod listeners;
pub mod options;
mod origins;
mod reading;
mod replication;
pub mod schema;
mod storage;
pub mod zconfig;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::auth;
use crate::base::address::Address;
use crate::base::network::Networks;
use crate::conflict::HelperOptions;
use crate::logging::{FileSetup, LogSetup};
use crate::net::tls;
use crate::replication::cluster::options::ClusterOptions;
use crate::server::access::AccessRules;
use crate::server::audit::Event;
use crate::server::hosted::HostedOptions;
use crate::server::limits::Limits;
use crate::server::rates::Rates;
use crate::wire::protocol::Greeting;

pub use assemble::{admin_socket_of, authentication_of, runner_of, storages_of};
pub use backup::{BackupConfig, SendConfig};
pub use databases::{Databases, NamedDatabase, databases_of};
pub use files::files;
pub use listeners::ZEO_SOCKETS;
pub use reading::{Invocation, Reading, Written, from_command_line};
pub use schema::eventlog::level as log_level;
pub use schema::runner::{self, Runner};

pub use options::UsageError;
pub use storage::{
    BeforeStorageConfig, BeforeTime, BlobStorageConfig, ClientStorageConfig, DemoStorageConfig,
    FileStorageConfig, OwnStorageConfig, PostgresStorageConfig, ScrubConfig, StorageConfig,
    ZlibStorageConfig, ZrsConfig,
};
pub use zconfig::Location;

/// The complete configuration of a server.
#[derive(Clone, Debug)]
pub struct Config {
    /// What `<zeo>` and the command line say.
    pub zeo: ZeoConfig,
    /// In the order of the file, with unique names.
    pub storages: Vec<NamedStorage>,
    /// Who may do what with the storages that have rules.
    pub access: AccessConfig,
    /// What all clients of some networks together may ask for.
    pub networks: Vec<NetworkConfig>,
    /// What the server backs up by itself, and where to.
    pub backups: Vec<BackupConfig>,
    /// What `<audit>` says. `None`: there is no audit log.
    pub audit: Option<AuditConfig>,
    /// What `<http>` and `--http` say. `None`: nothing is served over HTTP.
    pub http: Option<HttpConfig>,
    /// What `<replication>` says. `None`: the server is on its own.
    pub replication: Option<ClusterOptions>,
    /// What `<eventlog>` says.
    pub log: LogSetup,
    /// `--test`: start, print "testing exit immediately", stop.
    pub exit_immediately: bool,
    /// The configuration file, as `-C` names it.
    pub file: Option<String>,
    /// The keys that are set outside of the configuration file, and where.
    pub origins: Vec<String>,
    /// Settings without effect, logged at the start.
    pub warnings: Vec<String>,
}

/// The `<zeo>` section with the overrides of the command line.
#[derive(Clone, Debug, PartialEq)]
pub struct ZeoConfig {
    /// Where clients connect: at one address at least. Those of `<zeo>`, or the one of the command line, come first.
    pub listeners: Vec<ListenerConfig>,
    /// Address where statistics are served as text.
    pub monitor_address: Option<Address>,
    /// The Unix socket for `zeoadmin`.
    pub admin_socket: Option<PathBuf>,
    /// If the configuration has none, it is in `INSTANCE_HOME`.
    pub pid_filename: Option<PathBuf>,
    /// `None`: no TLS.
    pub ssl: Option<SslConfig>,
    /// `None`: clients need no password.
    pub authentication: Option<AuthenticationConfig>,
    /// The offered protocol: the newest, in pickle or msgpack, or the one in `ZEO_SERVER_PROTOCOL`.
    pub greeting: Greeting,
    /// Options that apply to each storage.
    pub hosted: HostedOptions,
    /// What clients may use of the server.
    pub limits: Limits,
    /// Helper processes that merge conflicting states with the application's classes.
    pub conflict_resolver: Option<HelperOptions>,
}

/// The rules of the storages that have some, by the storage's name. Others are open to every client.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AccessConfig(pub BTreeMap<String, AccessRules>);

/// Rates that all clients of some networks have together.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkConfig {
    /// The first line of its section.
    pub section: String,
    pub addresses: Networks,
    /// One of them at least is limited.
    pub rates: Rates,
    /// Where the section begins, for messages.
    pub location: Location,
}

impl NetworkConfig {
    /// What the log calls it, and what tells it from others: its section, and the addresses if that has no name.
    pub fn name(&self) -> String {
        match self.section.contains(' ') {
            true => self.section.clone(),
            false => format!("{} {}", self.section, self.addresses),
        }
    }
}

/// An address at which clients are served, and what holds there.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerConfig {
    /// The first line of its section; `None`: the address of `<zeo>` or of the command line.
    pub section: Option<String>,
    /// Where it listens.
    pub address: Address,
    /// The mode of the Unix socket; `None`: by the umask.
    pub socket_mode: Option<u32>,
    /// The group of the Unix socket; `None`: the process's.
    pub socket_group: Option<SocketGroup>,
    /// `None`: no TLS.
    pub ssl: Option<SslConfig>,
    /// Clients need a password of [`ZeoConfig::authentication`].
    pub passwords: bool,
    /// Its section says that no client can write or pack; [`HostedOptions::read_only`] is for all listeners.
    pub read_only: bool,
    /// The storages that are served; `None`: all.
    pub storages: Option<Vec<String>>,
    /// Where clients may connect from; `None`: from everywhere.
    pub allow: Option<Networks>,
    /// Proxies that send a PROXY header.
    pub proxies: Networks,
    /// Upper bound on its registered clients.
    pub connections: Option<usize>,
    /// What one address may ask for here.
    pub rates: Rates,
    /// Its clients, which cannot write, stand back behind others.
    pub low_priority: bool,
    /// Where the address was configured, for messages.
    pub location: Location,
}

impl ListenerConfig {
    /// The name that its section has: the one of its sockets at the service manager.
    pub fn name(&self) -> Option<&str> {
        let header = self.section.as_deref()?.strip_prefix('<')?.strip_suffix('>')?;
        Some(header.split_once(' ').map_or(header, |(_, name)| name))
    }
}

/// A group of this machine.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SocketGroup {
    /// As it was written.
    pub name: String,
    /// Its number.
    pub id: u32,
}

/// `authentication-protocol` and the keys that belong to it.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthenticationConfig {
    /// Its name. `commands` knows the available protocols.
    pub protocol: String,
    pub settings: auth::Settings,
    /// Where the protocol was configured, for messages.
    pub location: Location,
}

/// The audit log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AuditConfig {
    /// The file, and how it is rotated.
    pub file: FileSetup,
    /// What it has lines about.
    pub events: BTreeSet<Event>,
}

/// Probes and metrics over HTTP.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpConfig {
    /// Where it listens.
    pub address: Address,
    /// The mode of the Unix socket; `None`: by the umask.
    pub socket_mode: Option<u32>,
    /// The networks whose connections are answered; `None`: all. A Unix socket has no networks.
    pub allow: Option<Networks>,
    /// The names that it is asked under, beside those that are known without that.
    pub hosts: Vec<String>,
    /// `None`: no TLS.
    pub ssl: Option<SslConfig>,
}

/// The `<ssl>` section.
#[derive(Clone, Debug, PartialEq)]
pub struct SslConfig {
    pub files: tls::Files,
    /// Where the section begins, for messages.
    pub location: Location,
}

/// A storage and the name that clients use for it.
#[derive(Clone, Debug)]
pub struct NamedStorage {
    /// The name by which clients ask for it.
    pub name: String,
    /// The storage.
    pub storage: StorageConfig,
}
