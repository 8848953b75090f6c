//! `<replication>` together with the rest of the configuration: which storages can be replicated, and what a role
//! needs.

use std::path::{Path, PathBuf};

use super::schema::replication::ReplicationSection;
use super::{ListenerConfig, Location, NamedStorage, SslConfig, StorageConfig};
use crate::replication::cluster::options::{ClusterOptions, Role};

/// What the server has beside the section.
pub struct OfServer<'a> {
    pub storages: &'a [NamedStorage],
    /// Where each of them begins. Those of the command line are not in it.
    pub starts: &'a [Location],
    pub listeners: &'a [ListenerConfig],
    /// Whether `<zeo>` is read-only.
    pub read_only: bool,
}

/// The options of the cluster. Errors have file and line.
pub fn options(section: ReplicationSection, of_server: &OfServer<'_>) -> Result<ClusterOptions, String> {
    let refused = |location: &Location, why: String| Err(format!("{location}: {why}"));
    if of_server.read_only {
        let why = "<replication>: <zeo> has 'read-only true'; leave that out: a replica is read-only until it is promoted";
        return refused(&section.start, why.into());
    }
    for (index, named) in of_server.storages.iter().enumerate() {
        if let Err(why) = check_storage(&named.storage) {
            let location = of_server.starts.get(index).unwrap_or(&Location::CommandLine);
            return refused(location, format!("storage '{}' cannot be replicated: {why}", named.name));
        }
    }
    check_role(&section)?;
    check_addresses(&section, of_server.listeners)?;
    let count = check_synchronous(&section)?;
    let first = of_server.storages.iter().find_map(|named| super::files(&named.storage).into_iter().next());
    let beside =
        || first.map_or_else(|| PathBuf::from(".replication"), |file| state_beside(&file.options.path));
    Ok(ClusterOptions {
        name: section.name.unwrap_or_else(machine_name),
        listen: section.listen.map(|(address, _)| address),
        peers: section.peers.into_iter().map(|(address, _)| address).collect(),
        first_role: section.role.0,
        state: section.state.unwrap_or_else(beside),
        trigger: section.trigger,
        synchronous_replicas: count,
        level: section.level,
        synchronous_timeout: section.synchronous_timeout,
        on_timeout: section.on_timeout,
        max_staleness: section.max_staleness,
        lease: section.lease,
        max_rate: section.max_rate,
        compress: section.compress,
        follows_packs: section.follows_packs,
        follows_replicas: section.follows_replicas,
        tls: section.ssl.map(|SslConfig { files, .. }| files),
    })
}

/// The name of this machine.
pub fn machine_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Checks that a storage is a file, in layers that pass its records on unchanged.
fn check_storage(storage: &StorageConfig) -> Result<(), &'static str> {
    match storage {
        StorageConfig::File(file) if file.options.read_only => Err("its file is only read"),
        StorageConfig::File(file) if file.options.create => {
            Err("its file is emptied at each start ('create true')")
        }
        StorageConfig::File(_) => Ok(()),
        StorageConfig::Blob(blob) => check_storage(&blob.base),
        StorageConfig::Zlib(zlib) => check_storage(&zlib.base),
        StorageConfig::Zrs(_) => Err("<zrs> replicates it already; use one of the two"),
        StorageConfig::Postgres(_) => Err("a database is replicated by PostgreSQL"),
        StorageConfig::Client(_) => Err("its data is at another server"),
        StorageConfig::Mapping { .. }
        | StorageConfig::Temporary { .. }
        | StorageConfig::Demo(_)
        | StorageConfig::Before(_)
        | StorageConfig::Own(_) => Err("only a <filestorage> can be"),
    }
}

/// Checks that the server can do what its first role needs.
fn check_role(section: &ReplicationSection) -> Result<(), String> {
    let (role, location) = &section.role;
    match role {
        Role::Primary if section.listen.is_none() => {
            Err(format!("{location}: role primary: replicas connect to the primary, so it needs 'listen'"))
        }
        Role::Replica if section.peers.is_empty() => {
            Err(format!("{location}: role replica: name the servers that can be the primary with 'peer'"))
        }
        _ => Ok(()),
    }
}

/// Checks that the addresses are of different servers.
fn check_addresses(section: &ReplicationSection, listeners: &[ListenerConfig]) -> Result<(), String> {
    let Some((listen, location)) = &section.listen else { return Ok(()) };
    if let Some(other) = listeners.iter().find(|other| other.address == *listen) {
        return Err(format!(
            "{location}: listen: {listen} is an address of clients ({}); the other servers need one of their own",
            other.location
        ));
    }
    match section.peers.iter().find(|(peer, _)| peer == listen) {
        Some((peer, location)) => {
            Err(format!("{location}: peer {peer} is this server itself: name only the others"))
        }
        None => Ok(()),
    }
}

/// How many replicas a commit waits for.
fn check_synchronous(section: &ReplicationSection) -> Result<usize, String> {
    let Some((count, location)) = &section.synchronous_replicas else { return Ok(0) };
    let peers = section.peers.len();
    if *count > 0 && section.listen.is_none() {
        return Err(format!(
            "{location}: synchronous-replicas: replicas connect to this server, so it needs 'listen'"
        ));
    }
    if *count > peers {
        return Err(format!(
            "{location}: a commit would wait for {count} replicas (synchronous-replicas), and 'peer' names {peers} other \
             servers: no commit would succeed"
        ));
    }
    Ok(*count)
}

/// The file beside another one.
fn state_beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".replication");
    name.into()
}
