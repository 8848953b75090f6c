//! `<zeo>`: the server itself.

use std::path::PathBuf;
use std::time::Duration;

use super::listen::{self, ListenAccess};
use super::{limits, ssl};
use crate::base::address::Address;
use crate::config::SslConfig;
use crate::config::zconfig::datatypes::{self, Datatype};
use crate::config::zconfig::matcher::{Child, Content, KnownTo, SectionType, key, required_multikey};
use crate::config::zconfig::tree::Value;
use crate::config::zconfig::{ConfigError, Location, Section};
use crate::conflict::User;
use crate::server::limits::Limits;

pub const DEFAULT_INVALIDATION_QUEUE_SIZE: usize = 100;

/// The keys of ZEO 4 and ZEO 6, and those of this server.
pub static ZEO: SectionType = SectionType {
    name: "zeo",
    content: Content::Checked(&[
        Child::Slot { what: "<ssl> section", types: &[&ssl::SSL], required: false, multiple: false },
        required_multikey("address", Datatype::SocketBindingAddress),
        key("read-only", Datatype::Boolean).default("false"),
        key("invalidation-queue-size", Datatype::Integer).default("100"),
        key("invalidation-age", Datatype::Float).known(KnownTo::Since("ZODB 3.9")),
        key("monitor-address", Datatype::SocketBindingAddress).known(KnownTo::Until("ZEO 4")),
        key("admin-socket", Datatype::ExistingDirpath).known(KnownTo::Own),
        key("transaction-timeout", Datatype::Integer),
        key("authentication-protocol", Datatype::Any).default("none").known(KnownTo::Until("ZEO 4")),
        key("authentication-database", Datatype::Any).known(KnownTo::Until("ZEO 4")),
        key("authentication-realm", Datatype::Any).known(KnownTo::Until("ZEO 4")),
        key("pid-filename", Datatype::ExistingDirpath),
        key("drop-cache-rather-verify", Datatype::Boolean)
            .default("false")
            .known(KnownTo::Between("ZODB 3.9", "ZEO 4")),
        key("client-conflict-resolution", Datatype::Boolean)
            .default("false")
            .known(KnownTo::Since("ZEO 5.0")),
        key("conflict-resolver", Datatype::Custom(|text| interpreter(text).map(drop))).known(KnownTo::Own),
        key("conflict-resolver-user", Datatype::Custom(|text| user(text).map(drop))).known(KnownTo::Own),
        key("conflict-resolver-allow", Datatype::Custom(|text| names(text).map(drop))).known(KnownTo::Own),
        key("msgpack", Datatype::Boolean).default("false").known(KnownTo::Since("ZEO 5.1")),
        listen::SOCKET_MODE,
        listen::SOCKET_GROUP,
        listen::ALLOW,
        listen::PROXY_PROTOCOL,
        limits::MESSAGE_SIZE.key(),
        limits::HANDSHAKE_TIMEOUT.key(),
        limits::DEAD_PEER_TIMEOUT.key(),
        limits::CONNECTIONS.key(),
        limits::CONNECTIONS_PER_ADDRESS.key(),
        limits::UNREGISTERED.key(),
        limits::TRANSACTION_MEMORY.key(),
        limits::TRANSACTION_SIZE.key(),
        limits::TRANSACTION_OBJECTS.key(),
        limits::UNSENT.key(),
        limits::IDLE_TRANSACTION_TIMEOUT.key(),
        limits::ITERATORS.key(),
        limits::UNDO_LOG.key(),
        limits::REQUESTS_PER_SECOND.key(),
        limits::SENT_PER_SECOND.key(),
        limits::SLOW_REQUEST_TIME.key(),
    ]),
};

/// The values of the section, before the overrides of the command line.
#[derive(Debug, Default)]
pub struct ZeoSection {
    pub addresses: Vec<(Address, Location)>,
    pub read_only: Option<bool>,
    pub invalidation_queue_size: Option<usize>,
    pub invalidation_age: Option<Duration>,
    pub monitor_address: Option<Address>,
    pub admin_socket: Option<(PathBuf, Location)>,
    pub transaction_timeout: Option<Duration>,
    pub pid_filename: Option<PathBuf>,
    pub drop_cache_rather_verify: Option<bool>,
    pub client_conflict_resolution: Option<bool>,
    pub conflict_resolver: ConflictResolverSection,
    pub msgpack: Option<bool>,
    pub authentication_protocol: Option<(String, Location)>,
    pub authentication_database: Option<String>,
    pub authentication_realm: Option<String>,
    pub ssl: Option<SslConfig>,
    pub access: ListenAccess,
    pub limits: Limits,
}

/// The keys for helper processes, with their lines.
#[derive(Debug, Default)]
pub struct ConflictResolverSection {
    pub interpreter: Option<PathBuf>,
    pub user: Option<(User, Location)>,
    pub allowed: Option<(Vec<String>, Location)>,
}

impl ZeoSection {
    pub fn from_section(section: &Section) -> Result<ZeoSection, ConfigError> {
        let at = |key| section.value(key).map(|value| value.location.clone());
        let text = |key| section.value(key).map(|value| value.text.clone());
        let transaction_timeout = section.get("transaction-timeout", datatypes::integer)?;
        Ok(ZeoSection {
            addresses: addresses(section)?,
            read_only: section.get("read-only", datatypes::boolean)?,
            invalidation_queue_size: section
                .get("invalidation-queue-size", datatypes::integer)?
                .map(|count| usize::try_from(count.max(0)).unwrap_or(usize::MAX)),
            // As in Python, an age of zero means no limit, and a negative one excludes no client.
            invalidation_age: section
                .get("invalidation-age", datatypes::float)?
                .filter(|age| *age > 0.0)
                .map(seconds),
            monitor_address: section.get("monitor-address", datatypes::socket_address)?,
            admin_socket: section
                .get("admin-socket", datatypes::existing_dirpath)?
                .filter(|path| !path.as_os_str().is_empty())
                .zip(at("admin-socket")),
            transaction_timeout: transaction_timeout.map(|timeout| seconds(timeout as f64)),
            pid_filename: section.get("pid-filename", datatypes::existing_dirpath)?,
            drop_cache_rather_verify: section.get("drop-cache-rather-verify", datatypes::boolean)?,
            client_conflict_resolution: section.get("client-conflict-resolution", datatypes::boolean)?,
            conflict_resolver: ConflictResolverSection {
                interpreter: section.get("conflict-resolver", interpreter)?,
                user: section.get("conflict-resolver-user", user)?.zip(at("conflict-resolver-user")),
                allowed: section.get("conflict-resolver-allow", names)?.zip(at("conflict-resolver-allow")),
            },
            msgpack: section.get("msgpack", datatypes::boolean)?,
            authentication_protocol: section
                .value("authentication-protocol")
                .map(|value| (value.text.clone(), value.location.clone())),
            authentication_database: text("authentication-database"),
            authentication_realm: text("authentication-realm"),
            ssl: section.sections().next().map(ssl::ssl).transpose()?,
            access: listen::access(section)?,
            limits: limits::limits(section)?,
        })
    }
}

/// An executable file. It is tested as a Python only when it is started.
fn interpreter(text: &str) -> Result<PathBuf, String> {
    use std::os::unix::fs::PermissionsExt;
    let path = datatypes::existing_path(text)?;
    match path.metadata() {
        Ok(meta) if meta.is_file() && meta.permissions().mode() & 0o111 != 0 => Ok(path),
        _ => {
            Err(format!("'{text}' is not a program; name a Python interpreter, such as /srv/app/bin/python"))
        }
    }
}

/// The user that helper processes run as.
fn user(text: &str) -> Result<User, String> {
    let (uid, gid) = datatypes::user(text)?;
    Ok(User { name: text.into(), uid, gid })
}

/// One or more `module.name` of Python identifiers, ASCII only.
fn names(text: &str) -> Result<Vec<String>, String> {
    let is_identifier = |part: &str| {
        !part.starts_with(|c: char| c.is_ascii_digit())
            && !part.is_empty()
            && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let is_name = |name: &&str| name.contains('.') && name.split('.').all(is_identifier);
    match text.split_whitespace().find(|name| !is_name(name)) {
        Some(name) => {
            Err(format!("'{name}' is not the name of a module and of what is in it, such as decimal.Context"))
        }
        None => Ok(text.split_whitespace().map(String::from).collect()),
    }
}

/// Each `address`, in the order of the file.
fn addresses(section: &Section) -> Result<Vec<(Address, Location)>, ConfigError> {
    let all = section.values().filter(|value| value.key.eq_ignore_ascii_case("address"));
    let address = |value: &Value| {
        let address = datatypes::socket_address(&value.text)
            .map_err(|reason| ConfigError::at(&value.location, format!("{}: {reason}", value.key)))?;
        Ok((address, value.location.clone()))
    };
    all.map(address).collect()
}

/// A time span within bounds that can be added to a clock: 0 to some thirty years.
pub fn seconds(seconds: f64) -> Duration {
    let bounded = if seconds.is_nan() { 0.0 } else { seconds.clamp(0.0, 1e9) };
    Duration::from_secs_f64(bounded)
}
