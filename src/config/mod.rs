//! What the operator asked for: command line and configuration file, merged into the options of the modules below.
//!
//! A module that can be configured defines its options and which of them exclude each other (`logging::LogSetup`,
//! `storage::file::FileStorageOptions`, ...); this one fills them in, and adds file and line to what they refuse.
//!
//! Invariants: nothing here opens a storage, a socket or a log, so `--help`, `--check` and every error leave the
//! machine as it was. What reaches [`Config`] is refused later only for reasons outside of the configuration, such as a
//! file that cannot be read.

mod assemble;
mod describe;
mod files;
pub mod options;
pub mod schema;
mod storage;
pub mod zconfig;

use std::path::PathBuf;

use crate::auth;
use crate::base::address::Address;
use crate::conflict::HelperOptions;
use crate::logging::LogSetup;
use crate::net::tls;
use crate::server::hosted::HostedOptions;
use crate::server::limits::Limits;
use crate::wire::protocol::Greeting;

pub use assemble::{Environment, Invocation, authentication_of, from_command_line};

pub use options::UsageError;
#[cfg(feature = "test-storages")]
pub use storage::TestStorage;
pub use storage::{
    BeforeStorageConfig, BeforeTime, BlobStorageConfig, DemoStorageConfig, FileStorageConfig, StorageConfig,
    ZlibStorageConfig,
};
pub use zconfig::Location;

/// All that the server needs to know before it starts.
#[derive(Clone, Debug)]
pub struct Config {
    pub zeo: ZeoConfig,
    /// In the order of the file; names are unique.
    pub storages: Vec<NamedStorage>,
    pub log: LogSetup,
    /// `--test`: start, say "testing exit immediately", stop.
    pub exit_immediately: bool,
    /// Settings without effect, to be logged at the start.
    pub warnings: Vec<String>,
}

/// The `<zeo>` section and its command line overrides.
#[derive(Clone, Debug, PartialEq)]
pub struct ZeoConfig {
    pub address: Address,
    /// The mode of the Unix socket; `None`: what the umask leaves.
    pub socket_mode: Option<u32>,
    /// Where statistics are served as text.
    pub monitor_address: Option<Address>,
    /// `INSTANCE_HOME` is put in where the configuration names none.
    pub pid_filename: Option<PathBuf>,
    /// `None`: no TLS.
    pub ssl: Option<SslConfig>,
    /// `None`: clients need no password.
    pub authentication: Option<AuthenticationConfig>,
    /// The protocol that clients are offered: the newest, in pickle or msgpack, or what `ZEO_SERVER_PROTOCOL` says.
    pub greeting: Greeting,
    /// What concerns each storage.
    pub hosted: HostedOptions,
    pub limits: Limits,
    /// Helper processes that merge conflicting states with the application's classes.
    pub conflict_resolver: Option<HelperOptions>,
}

/// `authentication-protocol` and what belongs to it.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthenticationConfig {
    /// Its name. `commands` knows which protocols there are.
    pub protocol: String,
    pub settings: auth::Settings,
    /// Where the protocol was configured, for messages.
    pub location: Location,
}

/// The `<ssl>` section.
#[derive(Clone, Debug, PartialEq)]
pub struct SslConfig {
    pub files: tls::Files,
    /// Where the section begins, for messages.
    pub location: Location,
}

/// A storage and the name that clients ask for.
#[derive(Clone, Debug)]
pub struct NamedStorage {
    pub name: String,
    pub storage: StorageConfig,
}
