//! Combines command line, configuration file and environment.
//!
//! The command line overrides this server's own variables (`RUNZEO_...`, see [`environment`](super::environment)),
//! which override the files of `zeo.conf.d` ([`drop_ins`]), which override the configuration file, which overrides the
//! variables that Python's server has (`ZEO_MSGPACK`, `INSTANCE_HOME`). A file is read and checked in full even if the
//! command line replaces all of it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::options::Options;
use super::schema::access::{self as access_schema, AccessSection};
use super::schema::http::HttpSection;
use super::schema::listen::{self, ListenSection};
use super::schema::replication::ReplicationSection;
use super::schema::runner::{self, RUNNER, Runner};
use super::schema::zeo::{ConflictResolverSection, DEFAULT_INVALIDATION_QUEUE_SIZE, ZeoSection};
use super::schema::{
    self, audit, backup, eventlog, network, replication as replication_schema, storages, zeo,
};
use super::zconfig::tree::Item;
use super::zconfig::{self, ConfigError, Location, Section, Surroundings, include, matcher, overrides};
use super::{
    AuditConfig, AuthenticationConfig, BackupConfig, Config, FileStorageConfig, ListenerConfig, NamedStorage,
    NetworkConfig, StorageConfig, ZeoConfig, access, databases_of, drop_ins, environment as variables, files,
    listeners, origins, replication,
};
use crate::auth::Settings;
use crate::base::address::Address;
use crate::conflict::HelperOptions;
use crate::logging::LogSetup;
use crate::server::hosted::HostedOptions;
use crate::storage::StorageKinds;
use crate::storage::file::FileStorageOptions;
use crate::wire::protocol::Greeting;

/// Upper bound on the bytes of a file, which also refuses endless devices.
const FILE_LEN_MAX: u64 = 256 << 20;

/// Looks up an environment variable.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Reads the configuration of a command line: how it is written, and what it means.
pub(super) fn read(
    own: &StorageKinds,
    options: Options,
    environment: Environment<'_>,
) -> Result<(Section, Config), String> {
    let (root, file) = FileConfig::of(own, &options, environment)?;
    Ok((root, assemble(file, options, environment)?))
}

fn assemble(file: FileConfig, options: Options, environment: Environment<'_>) -> Result<Config, String> {
    let set = |name: &str| environment(name).filter(|value| !value.is_empty());
    let hosted = hosted_options(&file.zeo, options.timeout);
    let mut warnings = Vec::new();
    let (addresses, sections) = match options.address {
        Some(address) => {
            warnings.extend(not_served(&file.listens));
            (vec![(address, Location::CommandLine)], Vec::new())
        }
        None if file.zeo.addresses.is_empty() => {
            return Err("no server address specified; use -a or -C".into());
        }
        None => (file.zeo.addresses, file.listens),
    };
    let (mut storages, starts) = storages(file.storages, options.filenames)?;
    warnings.extend(files::check(&storages)?);
    warnings.extend(storages.iter().flat_map(|named| named.storage.warnings()));
    let read_only = hosted.read_only;
    check_databases(&mut storages, read_only).map_err(|error| error.to_string())?;
    let pid_filename = options.pid_file.map(PathBuf::from).or(file.zeo.pid_filename);
    let instance_pid_filename = || Some(Path::new(&set("INSTANCE_HOME")?).join("var/ZEO.pid"));
    warnings.extend(without_effect(file.zeo.drop_cache_rather_verify, set("ZEO_MTACCEPTOR").is_some()));
    let authentication = Demanded {
        protocol: options
            .auth_protocol
            .map(|protocol| (protocol, Location::CommandLine))
            .or(file.zeo.authentication_protocol),
        database: options.auth_database.or(file.zeo.authentication_database),
        realm: options.auth_realm.or(file.zeo.authentication_realm),
    }
    .check(&mut warnings)?;
    let of_zeo = listeners::OfZeo {
        access: &file.zeo.access,
        ssl: file.zeo.ssl.as_ref(),
        authentication: authentication.as_ref(),
        read_only,
        rates: file.zeo.limits.rates,
    };
    let names: Vec<&str> = storages.iter().map(|named| named.name.as_str()).collect();
    let listeners = listeners::listeners(addresses, sections, of_zeo, &names)?;
    let of_server =
        replication::OfServer { storages: &storages, starts: &starts, listeners: &listeners, read_only };
    let replication =
        file.replication.map(|section| replication::options(section, &of_server)).transpose()?;
    let access = access::access(file.access, &listeners, &names, &mut warnings)?;
    warnings.extend(listeners::without_clients(&file.networks, &listeners));
    let msgpack = file.zeo.msgpack.unwrap_or_else(|| set("ZEO_MSGPACK").is_some());
    let admin_socket = file.zeo.admin_socket.map(|socket| admin_socket(socket, &listeners)).transpose()?;
    let zeo = ZeoConfig {
        listeners,
        monitor_address: options.monitor.or(file.zeo.monitor_address),
        admin_socket,
        // A read-only server may run beside the server whose process id is in the file.
        pid_filename: named_or(pid_filename, instance_pid_filename).filter(|_| !read_only),
        ssl: file.zeo.ssl,
        authentication,
        greeting: greeting(set("ZEO_SERVER_PROTOCOL"), msgpack)?,
        hosted,
        limits: file.zeo.limits,
        conflict_resolver: conflict_resolver(file.zeo.conflict_resolver)?,
    };
    check_backups(&file.backups, &storages)?;
    Ok(Config {
        zeo,
        storages,
        access,
        networks: file.networks,
        backups: file.backups,
        audit: file.audit,
        replication,
        http: file.http.with_option(options.http)?,
        log: file.log,
        exit_immediately: options.exit_immediately,
        file: options.configuration,
        origins: file.origins,
        warnings,
    })
}

/// The storages of the file or of the command line, and where each of them begins in the file.
fn storages(
    sections: Vec<StorageSection>,
    filenames: Vec<String>,
) -> Result<(Vec<NamedStorage>, Vec<Location>), String> {
    if !filenames.is_empty() {
        return Ok((filenames.into_iter().enumerate().map(numbered).collect(), Vec::new()));
    }
    let starts = sections.iter().map(|section| section.location.clone()).collect();
    let storages = named(sections).map_err(|error| error.to_string())?;
    match storages.is_empty() {
        true => Err("no storages specified; use -f or -C".into()),
        false => Ok((storages, starts)),
    }
}

/// What a server without writes does not write. `read_only`: of `<zeo>`.
fn check_databases(storages: &mut [NamedStorage], read_only: bool) -> Result<(), ConfigError> {
    storages.iter_mut().try_for_each(|named| {
        if read_only {
            named.storage.set_read_only();
        }
        named.storage.check_replicas()
    })
}

/// A warning about `<listen>` sections that an address of the command line replaces.
fn not_served(sections: &[ListenSection]) -> Option<String> {
    let first = sections.first()?;
    let count = sections.len();
    Some(format!(
        "-a replaces all addresses: those of the <listen> sections ({count}, the first at {}) are not served",
        first.location
    ))
}

/// The path, if it is one, or else another.
fn named_or(path: Option<PathBuf>, other: impl FnOnce() -> Option<PathBuf>) -> Option<PathBuf> {
    path.filter(|path| !path.as_os_str().is_empty()).or_else(other)
}

/// The options of every storage. `timeout`: of the command line, in seconds.
fn hosted_options(zeo: &ZeoSection, timeout: Option<f64>) -> HostedOptions {
    HostedOptions {
        read_only: zeo.read_only.unwrap_or(false),
        invalidation_queue_size: zeo.invalidation_queue_size.unwrap_or(DEFAULT_INVALIDATION_QUEUE_SIZE),
        invalidation_age: zeo.invalidation_age,
        transaction_timeout: timeout.map(zeo::seconds).or(zeo.transaction_timeout),
        client_conflict_resolution: zeo.client_conflict_resolution.unwrap_or(false),
        transaction_objects: zeo.limits.transaction_objects,
    }
}

/// Settings of Python's server that have no effect here.
fn without_effect(drop_cache_rather_verify: Option<bool>, has_mtacceptor: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    if has_mtacceptor {
        warnings.push("ZEO_MTACCEPTOR has no effect: the server is multi-threaded anyway; unset it".into());
    }
    if drop_cache_rather_verify == Some(true) {
        let what =
            "drop-cache-rather-verify has no effect in a server, as in Python's: set it in the clients";
        warnings.push(what.into());
    }
    warnings
}

/// Refuses a `<backup>` that has nothing to do.
fn check_backups(backups: &[BackupConfig], storages: &[NamedStorage]) -> Result<(), String> {
    match backups.first() {
        Some(backup) if databases_of(storages.iter()).databases.is_empty() => {
            Err(format!("{}: <backup>: there is no <filestorage> that could be backed up", backup.location))
        }
        _ => Ok(()),
    }
}

/// The newest protocol, or the one of `ZEO_SERVER_PROTOCOL`.
fn greeting(name: Option<String>, msgpack: bool) -> Result<Greeting, String> {
    let Some(name) = name else { return Ok(Greeting::new(msgpack)) };
    Greeting::from_env(&name, msgpack)
        .ok_or_else(|| format!("ZEO_SERVER_PROTOCOL: no such protocol: '{name}'"))
}

/// The settings of authentication, from the file and the command line.
struct Demanded {
    protocol: Option<(String, Location)>,
    database: Option<String>,
    realm: Option<String>,
}

impl Demanded {
    /// Checks that both a protocol and a database are given, or neither.
    fn check(self, warnings: &mut Vec<String>) -> Result<Option<AuthenticationConfig>, String> {
        // An empty path means none, as in Python.
        let database = self.database.filter(|path| !path.is_empty());
        let realm = self.realm.filter(|realm| !realm.is_empty());
        let protocol = self.protocol.filter(|(protocol, _)| !protocol.is_empty() && protocol != "none");
        let Some((protocol, location)) = protocol else {
            if database.is_some() || realm.is_some() {
                let what = "authentication-database and -realm have no effect without authentication-protocol: \
                            everybody may connect";
                warnings.push(what.into());
            }
            return Ok(None);
        };
        let Some(database) = database else {
            return Err(format!(
                "{location}: authentication-protocol '{protocol}' needs an authentication-database"
            ));
        };
        let settings = Settings { database: database.into(), realm };
        Ok(Some(AuthenticationConfig { protocol, settings, location }))
    }
}

/// The keys that belong to `conflict-resolver`. A user or a name without an interpreter is refused.
fn conflict_resolver(section: ConflictResolverSection) -> Result<Option<HelperOptions>, String> {
    let ConflictResolverSection { interpreter, user, allowed } = section;
    let (user, user_at) = user.unzip();
    let (allowed, allowed_at) = allowed.unzip();
    let at = [("conflict-resolver-user", user_at), ("conflict-resolver-allow", allowed_at)];
    match (interpreter, at) {
        (Some(interpreter), _) => {
            Ok(Some(HelperOptions { interpreter, user, allowed: allowed.unwrap_or_default() }))
        }
        (None, [(key, Some(location)), _] | [_, (key, Some(location))]) => {
            Err(format!("{location}: {key} is for the helpers of conflict-resolver, which is not given"))
        }
        (None, _) => Ok(None),
    }
}

/// The path of `admin-socket`, which must be another one than those of clients.
fn admin_socket(
    (path, location): (PathBuf, Location),
    listeners: &[ListenerConfig],
) -> Result<PathBuf, String> {
    let is_for_clients =
        |listener: &ListenerConfig| matches!(&listener.address, Address::Unix(clients) if *clients == path);
    match listeners.iter().any(is_for_clients) {
        true => Err(format!("{location}: admin-socket is the socket of the clients: give another path")),
        false => Ok(path),
    }
}

/// The authentication in a configuration file, for `zeopasswd`. `None` if there is none.
pub fn authentication_of(
    own: &StorageKinds,
    reference: &str,
    environment: Environment<'_>,
) -> Result<Option<AuthenticationConfig>, String> {
    let file = FileConfig::read(own, reference, environment).map_err(|error| error.to_string())?;
    let demanded = Demanded {
        protocol: file.zeo.authentication_protocol,
        database: file.zeo.authentication_database,
        realm: file.zeo.authentication_realm,
    };
    demanded.check(&mut Vec::new())
}

/// The path of `admin-socket` in a configuration file, for `zeoadmin`. `None` if it is not given.
pub fn admin_socket_of(
    own: &StorageKinds,
    reference: &str,
    environment: Environment<'_>,
) -> Result<Option<PathBuf>, String> {
    let file = FileConfig::read(own, reference, environment).map_err(|error| error.to_string())?;
    Ok(file.zeo.admin_socket.map(|(path, _)| path))
}

/// What a configuration file says about the start of its server, for `zeoctl`.
#[derive(Clone, Debug)]
pub struct Started {
    /// `<runner>`, if there is one.
    pub runner: Option<Runner>,
    /// What `<eventlog>` says; without one, the log that a server has by default.
    pub log: LogSetup,
    /// `<environment>`.
    pub environment: Vec<(String, String)>,
}

/// `<runner>`, `<environment>` and `<eventlog>` of a configuration file. `settings`: those of `-X`.
pub fn runner_of(
    own: &StorageKinds,
    reference: &str,
    settings: &[String],
    environment: Environment<'_>,
) -> Result<Started, String> {
    let read = || {
        let (root, file) = FileConfig::read_with(own, reference, settings, environment)?;
        let section = root.sections().find(|section| section.type_name == RUNNER.name);
        let runner = section.map(Runner::from_section).transpose()?;
        Ok(Started { runner, log: file.log, environment: file.environment })
    };
    read().map_err(|error: ConfigError| error.to_string())
}

/// The storages in a configuration file, for tools.
pub fn storages_of(
    own: &StorageKinds,
    reference: &str,
    environment: Environment<'_>,
) -> Result<Vec<NamedStorage>, String> {
    let file = FileConfig::read(own, reference, environment).map_err(|error| error.to_string())?;
    named(file.storages).map_err(|error| error.to_string())
}

/// A storage section.
struct StorageSection {
    name: Option<String>,
    storage: StorageConfig,
    location: Location,
}

/// The values of a configuration file.
#[derive(Default)]
struct FileConfig {
    zeo: ZeoSection,
    storages: Vec<StorageSection>,
    backups: Vec<BackupConfig>,
    audit: Option<AuditConfig>,
    http: HttpSection,
    listens: Vec<ListenSection>,
    access: Vec<AccessSection>,
    networks: Vec<NetworkConfig>,
    replication: Option<ReplicationSection>,
    log: LogSetup,
    /// For `zeoctl`.
    environment: Vec<(String, String)>,
    origins: Vec<String>,
}

impl FileConfig {
    /// The file of `-C`, with the environment and the settings of `-X`; the environment alone if there is none.
    fn of(
        own: &StorageKinds,
        options: &Options,
        environment: Environment<'_>,
    ) -> Result<(Section, FileConfig), String> {
        match &options.configuration {
            Some(reference) => FileConfig::read_with(own, reference, &options.overrides, environment)
                .map_err(|error| error.to_string()),
            None if !options.overrides.is_empty() => {
                Err("configuration overrides (-X) cannot be used without a configuration file".into())
            }
            None => FileConfig::of_environment(own, environment).map_err(|error| error.to_string()),
        }
    }

    /// The values of a server without a configuration file. Its address and its storages are on the command line.
    fn of_environment(
        own: &StorageKinds,
        environment: Environment<'_>,
    ) -> Result<(Section, FileConfig), ConfigError> {
        let mut root = Section::new("", None, Location::CommandLine);
        root.items.push(Item::Section(Section::new(zeo::ZEO.name, None, Location::CommandLine)));
        variables::apply(&mut root, environment)?;
        for section in root.sections() {
            match variables::section_type(&section.type_name) {
                Some(own_type) if own_type.name != zeo::ZEO.name => matcher::check_alone(section, own_type)?,
                _ => matcher::check_values(section, &zeo::ZEO)?,
            }
        }
        let file =
            FileConfig { origins: origins::outside(&root, None), ..FileConfig::from_section(own, &root)? };
        Ok((root, file))
    }

    fn read(
        own: &StorageKinds,
        reference: &str,
        environment: Environment<'_>,
    ) -> Result<FileConfig, ConfigError> {
        FileConfig::read_with(own, reference, &[], environment).map(|(_, file)| file)
    }

    /// The values, and the tree that they are from. `settings`: those of `-X`.
    fn read_with(
        own: &StorageKinds,
        reference: &str,
        settings: &[String],
        environment: Environment<'_>,
    ) -> Result<(Section, FileConfig), ConfigError> {
        let process = Process { own, environment, imported: RefCell::default() };
        let path = include::top_level(reference).map_err(ConfigError::nowhere)?;
        let mut root = zconfig::load_path(path.clone(), &process)?;
        let added = storages::added_types(own);
        drop_ins::apply(&mut root, &path, &added, &process)?;
        variables::apply(&mut root, environment)?;
        overrides::apply(&mut root, settings)?;
        schema::check_imports(&root, &process.imported.borrow())?;
        matcher::check(&root, &schema::FILE, &added)?;
        let origins = origins::outside(&root, Some(&drop_ins::directory(&path)));
        let file = FileConfig { origins, ..FileConfig::from_section(own, &root)? };
        Ok((root, file))
    }

    /// The values of a file that was checked.
    fn from_section(own: &StorageKinds, root: &Section) -> Result<FileConfig, ConfigError> {
        let mut file = FileConfig::default();
        for section in root.sections() {
            match section.type_name.as_str() {
                "zeo" => file.zeo = ZeoSection::from_section(section)?,
                "eventlog" => file.log = eventlog::log_setup(section)?,
                "backup" => file.backups.push(backup::backup(section)?),
                "access" => file.access.push(access_schema::access(section)?),
                "audit" => file.audit = Some(audit::audit(section)?),
                "http" => file.http = HttpSection::from_section(section)?,
                "network" => file.networks.push(network::network(section)?),
                "replication" => file.replication = Some(replication_schema::replication(section)?),
                "listen" => file.listens.push(listen::listen(section)?),
                _ if storages::is_storage(own, section) => {
                    file.storages.push(StorageSection {
                        name: section.name.clone(),
                        storage: storages::storage(own, section)?,
                        location: section.start.clone(),
                    });
                }
                "environment" => file.environment = runner::environment(section)?,
                _ => {} // <runner> is for zeoctl, see `runner_of`
            }
        }
        Ok(file)
    }
}

/// An unnamed storage is called 1.
fn named(storages: Vec<StorageSection>) -> Result<Vec<NamedStorage>, ConfigError> {
    let mut unnamed = storages.iter().filter(|storage| storage.name.is_none());
    if let Some(first) = unnamed.next() {
        if let Some(second) = unnamed.next() {
            return Err(ConfigError::at(&second.location, "No more than one storage may be unnamed."));
        }
        if storages.iter().any(|storage| storage.name.as_deref() == Some("1")) {
            return Err(ConfigError::at(
                &first.location,
                "Can't have an unnamed storage and a storage named 1.",
            ));
        }
    }
    let with_name = |section: StorageSection| NamedStorage {
        name: section.name.unwrap_or_else(|| "1".into()),
        storage: section.storage,
    };
    Ok(storages.into_iter().map(with_name).collect())
}

/// The storages of `-f`, named by their number.
fn numbered((index, path): (usize, String)) -> NamedStorage {
    NamedStorage {
        name: (index + 1).to_string(),
        storage: StorageConfig::File(FileStorageConfig::of_command_line(FileStorageOptions::new(path))),
    }
}

/// The content of a file. More than the longest that is accepted is not read.
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_LEN_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The files and the environment of this process.
struct Process<'a> {
    own: &'a StorageKinds,
    environment: Environment<'a>,
    /// The packages in `%import` directives.
    imported: RefCell<BTreeSet<String>>,
}

impl Surroundings for Process<'_> {
    fn environment(&self, name: &str) -> Option<String> {
        (self.environment)(name)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        read_file(path)
    }

    fn import(&self, package: &str) -> Result<(), String> {
        if !self.own.have_package(package) {
            schema::import(package)?;
        }
        self.imported.borrow_mut().insert(package.into());
        Ok(())
    }
}
