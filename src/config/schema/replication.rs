//! `<replication>`: this server in a cluster of servers with the same storages.

use std::path::PathBuf;
use std::time::Duration;

use super::ssl;
use super::storages::rate;
use crate::base::address::Address;
use crate::config::SslConfig;
use crate::config::zconfig::datatypes::{self, Bounds, Datatype, Unit, bounded};
use crate::config::zconfig::matcher::{Child, Content, KnownTo, SectionType, key, multikey, required_key};
use crate::config::zconfig::tree::Value;
use crate::config::zconfig::{ConfigError, Location, Section, quoted};
use crate::net::tls::Peers;
use crate::replication::cluster::options::{Level, OnTimeout, Role};

/// Replicas that a commit waits for.
static SYNCHRONOUS_REPLICAS: Bounds = Bounds { unit: Unit::Count, least: 0, most: 64, or_none: false };
/// How long it waits.
static SYNCHRONOUS_TIMEOUT: Bounds =
    Bounds { unit: Unit::Milliseconds, least: 1, most: 3_600_000, or_none: false };
const SYNCHRONOUS_TIMEOUT_DEFAULT: &str = "2s";
/// How old the state of a replica may be.
static STALENESS: Bounds = Bounds { unit: Unit::Seconds, least: 1, most: 30 * 86_400, or_none: false };
/// Shorter than it takes to ask a server that does not answer, a lease would always run out.
static LEASE: Bounds = Bounds { unit: Unit::Seconds, least: 5, most: 86_400, or_none: false };
/// Keys about the replicas that a commit waits for.
const OF_SYNCHRONOUS: [&str; 3] = ["synchronous-level", "synchronous-timeout", "on-timeout"];

pub static REPLICATION: SectionType = SectionType {
    name: "replication",
    content: Content::Own(&[
        Child::Slot { what: "<ssl> section", types: &[&ssl::SSL], required: false, multiple: false },
        key("name", Datatype::Custom(|text| name(text).map(drop))).known(KnownTo::Own),
        key("listen", Datatype::Custom(|text| own_address(text).map(drop))).known(KnownTo::Own),
        multikey("peer", Datatype::Custom(|text| datatypes::connection_address(text).map(drop)))
            .known(KnownTo::Own),
        required_key("role", Datatype::Custom(|text| role(text).map(drop))).known(KnownTo::Own),
        key("state-file", Datatype::ExistingDirpath).known(KnownTo::Own),
        key("trigger-file", Datatype::ExistingDirpath).known(KnownTo::Own),
        key("synchronous-replicas", Datatype::Bounded(&SYNCHRONOUS_REPLICAS))
            .default("0")
            .known(KnownTo::Own),
        key("synchronous-level", Datatype::Custom(|text| level(text).map(drop)))
            .default("synced")
            .known(KnownTo::Own),
        key("synchronous-timeout", Datatype::Bounded(&SYNCHRONOUS_TIMEOUT))
            .default(SYNCHRONOUS_TIMEOUT_DEFAULT)
            .known(KnownTo::Own),
        key("on-timeout", Datatype::Custom(|text| on_timeout(text).map(drop)))
            .default("degrade")
            .known(KnownTo::Own),
        key("max-staleness", Datatype::Bounded(&STALENESS)).known(KnownTo::Own),
        key("lease", Datatype::Bounded(&LEASE)).known(KnownTo::Own),
        key("max-rate", Datatype::Custom(|text| rate(text).map(drop))).known(KnownTo::Own),
        key("compress", Datatype::Boolean).default("false").known(KnownTo::Own),
        key("follow-packs", Datatype::Boolean).default("true").known(KnownTo::Own),
        key("follow-replicas", Datatype::Boolean).default("false").known(KnownTo::Own),
    ]),
};

/// The values of a section.
#[derive(Debug)]
pub struct ReplicationSection {
    /// `None`: the name of the machine.
    pub name: Option<String>,
    pub listen: Option<(Address, Location)>,
    pub peers: Vec<(Address, Location)>,
    pub role: (Role, Location),
    /// `None`: beside the first file.
    pub state: Option<PathBuf>,
    pub trigger: Option<PathBuf>,
    /// `None`: the section does not say.
    pub synchronous_replicas: Option<(usize, Location)>,
    pub level: Level,
    pub synchronous_timeout: Duration,
    pub on_timeout: OnTimeout,
    pub max_staleness: Option<Duration>,
    pub lease: Option<Duration>,
    pub max_rate: Option<u64>,
    pub compress: bool,
    pub follows_packs: bool,
    pub follows_replicas: bool,
    pub ssl: Option<SslConfig>,
    pub start: Location,
}

/// Reads a section that the schema has checked.
pub fn replication(section: &Section) -> Result<ReplicationSection, ConfigError> {
    let at = |key| section.value(key).map_or(section.start.clone(), |value| value.location.clone());
    let Some(role) = section.get("role", role)? else {
        return Err(ConfigError::at(&section.start, "<replication> lacks the required key 'role'"));
    };
    let synchronous = section.get("synchronous-replicas", |text| bounded(text, &SYNCHRONOUS_REPLICAS))?;
    let synchronous = synchronous.flatten().and_then(|count| usize::try_from(count).ok());
    if synchronous.is_none()
        && let Some(value) = OF_SYNCHRONOUS.iter().find_map(|key| section.value(key))
    {
        let what = format!("{} is for synchronous-replicas, which is not given", value.key);
        return Err(ConfigError::at(&value.location, what));
    }
    let timeout = section.get("synchronous-timeout", |text| bounded(text, &SYNCHRONOUS_TIMEOUT))?.flatten();
    let default = || bounded(SYNCHRONOUS_TIMEOUT_DEFAULT, &SYNCHRONOUS_TIMEOUT).ok().flatten();
    let timeout = timeout.or_else(default).unwrap_or(SYNCHRONOUS_TIMEOUT.most);
    Ok(ReplicationSection {
        name: section.get("name", name)?,
        listen: section.get("listen", own_address)?.map(|address| (address, at("listen"))),
        peers: peers(section)?,
        role: (role, at("role")),
        state: section.get("state-file", datatypes::existing_dirpath)?.filter(|path| is_path(path)),
        trigger: section.get("trigger-file", datatypes::existing_dirpath)?.filter(|path| is_path(path)),
        synchronous_replicas: synchronous.map(|count| (count, at("synchronous-replicas"))),
        level: section.get("synchronous-level", level)?.unwrap_or(Level::Synced),
        synchronous_timeout: Duration::from_millis(timeout),
        on_timeout: section.get("on-timeout", on_timeout)?.unwrap_or(OnTimeout::Degrade),
        max_staleness: section
            .get("max-staleness", |text| bounded(text, &STALENESS))?
            .flatten()
            .map(Duration::from_secs),
        lease: section.get("lease", |text| bounded(text, &LEASE))?.flatten().map(Duration::from_secs),
        max_rate: section.get("max-rate", rate)?,
        compress: section.get("compress", datatypes::boolean)?.unwrap_or(false),
        follows_packs: section.get("follow-packs", datatypes::boolean)?.unwrap_or(true),
        follows_replicas: section.get("follow-replicas", datatypes::boolean)?.unwrap_or(false),
        ssl: section.sections().next().map(certificates).transpose()?,
        start: section.start.clone(),
    })
}

/// An empty path means none, as in other sections.
fn is_path(path: &std::path::Path) -> bool {
    !path.as_os_str().is_empty()
}

/// The addresses of the other servers.
fn peers(section: &Section) -> Result<Vec<(Address, Location)>, ConfigError> {
    let all = section.values().filter(|value| value.key.eq_ignore_ascii_case("peer"));
    let mut peers: Vec<(Address, Location)> = Vec::new();
    for Value { key, text, location } in all {
        let address = datatypes::connection_address(text)
            .map_err(|reason| ConfigError::at(location, format!("{key}: {reason}")))?;
        if let Some((_, first)) = peers.iter().find(|(known, _)| *known == address) {
            let what = format!("peer {address} is given twice (first at {first})");
            return Err(ConfigError::at(location, what));
        }
        peers.push((address, location.clone()));
    }
    Ok(peers)
}

/// The own certificate, and those that the other servers must have.
fn certificates(section: &Section) -> Result<SslConfig, ConfigError> {
    let ssl = ssl::ssl(section)?;
    if ssl.files.peers == Peers::Signed {
        let location = section.value("authenticate").map_or(&section.start, |value| &value.location);
        let what = "authenticate SIGNED: every server with a certificate of a public authority could get all data, \
                    and become the primary; name a file or a directory with the certificates of the cluster";
        return Err(ConfigError::at(location, what));
    }
    Ok(ssl)
}

/// Where it listens. The others have to know the port.
fn own_address(text: &str) -> Result<Address, String> {
    match datatypes::socket_address(text)? {
        Address::Tcp { port: None | Some(0), .. } => {
            Err(format!("{} has no port that other servers could connect to", quoted(text)))
        }
        address => Ok(address),
    }
}

/// A word: it stands in lines of the log and in labels of metrics.
fn name(text: &str) -> Result<String, String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match text.len() {
        1..=100 if text.chars().all(is_part) => Ok(text.into()),
        _ => Err(format!("{} is no name; use up to 100 letters, digits, '-', '_' and '.'", quoted(text))),
    }
}

fn role(text: &str) -> Result<Role, String> {
    match text.to_lowercase().as_str() {
        "primary" => Ok(Role::Primary),
        "replica" => Ok(Role::Replica),
        _ => Err(format!("{} is neither 'primary' nor 'replica'", quoted(text))),
    }
}

fn level(text: &str) -> Result<Level, String> {
    match text.to_lowercase().as_str() {
        "received" => Ok(Level::Received),
        "synced" => Ok(Level::Synced),
        "published" => Ok(Level::Published),
        _ => Err(format!("{} is neither 'received', 'synced' nor 'published'", quoted(text))),
    }
}

fn on_timeout(text: &str) -> Result<OnTimeout, String> {
    match text.to_lowercase().as_str() {
        "degrade" => Ok(OnTimeout::Degrade),
        "block" => Ok(OnTimeout::Block),
        _ => Err(format!("{} is neither 'degrade' nor 'block'", quoted(text))),
    }
}
