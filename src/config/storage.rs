//! The storages of the configuration file; layers contain their inner storage.

use std::path::PathBuf;
use std::time::Duration;

use super::Location;
use super::zconfig::ConfigError;
use crate::base::address::Address;
use crate::base::ids::Tid;
use crate::base::schedule::Schedule;
use crate::client::options::ClientOptions;
use crate::server::pack_schedule::PackSchedule;
use crate::storage::file::FileStorageOptions;
use crate::storage::postgres::RO_REPLICA_CONF;
use crate::storage::postgres::options::PostgresOptions;
use crate::storage::{StorageKind, StorageSettings};

/// The kinds of storage that can be served.
#[derive(Clone, Debug)]
pub enum StorageConfig {
    /// `<filestorage>`, or `-f`.
    File(FileStorageConfig),
    /// `<mappingstorage>`: in memory.
    Mapping {
        /// What `getName` returns.
        name: String,
    },
    /// `<temporarystorage>`: in memory, without history.
    Temporary {
        /// What `getName` returns.
        name: String,
    },
    /// `<demostorage>`
    Demo(DemoStorageConfig),
    /// `<blobstorage>`
    Blob(BlobStorageConfig),
    /// `<zlibstorage>` or `<serverzlibstorage>`
    Zlib(ZlibStorageConfig),
    /// `<before>`
    Before(BeforeStorageConfig),
    /// `<zrs>`
    Zrs(ZrsConfig),
    /// `<zeoclient>` or `<clientstorage>`: the storage of another ZEO server.
    Client(Box<ClientStorageConfig>),
    /// `<relstorage>`: a database in PostgreSQL.
    Postgres(Box<PostgresStorageConfig>),
    /// A storage that the program adds to those of this server.
    Own(OwnStorageConfig),
}

impl StorageConfig {
    /// When the server packs this storage by itself. It is a key of the file in it, but it is this storage, with all
    /// its layers, that is packed.
    pub fn pack_schedule(&self) -> Option<&(PackSchedule, Location)> {
        match self {
            StorageConfig::File(file) => file.pack_schedule.as_ref(),
            StorageConfig::Demo(demo) => {
                // One of the base is refused: a pack of a demo storage packs its changes.
                [&demo.base, &demo.changes].into_iter().flatten().find_map(|part| part.pack_schedule())
            }
            StorageConfig::Blob(blob) => blob.base.pack_schedule(),
            StorageConfig::Zlib(zlib) => zlib.base.pack_schedule(),
            StorageConfig::Before(before) => before.base.pack_schedule(),
            StorageConfig::Zrs(zrs) => zrs.base.pack_schedule(),
            StorageConfig::Own(own) => own.base.as_ref().and_then(|base| base.pack_schedule()),
            StorageConfig::Mapping { .. }
            | StorageConfig::Temporary { .. }
            | StorageConfig::Client(_)
            | StorageConfig::Postgres(_) => None,
        }
    }

    /// Takes over the schedules of the same files in another configuration.
    pub fn take_schedules(&mut self, other: &StorageConfig) {
        match self {
            StorageConfig::File(file) => {
                let files = super::files(other);
                let same = files.into_iter().find(|known| known.options.path == file.options.path);
                file.pack_schedule = same.and_then(|same| same.pack_schedule.clone());
                file.scrub = same.and_then(|same| same.scrub);
            }
            StorageConfig::Demo(demo) => {
                let parts = [&mut demo.base, &mut demo.changes];
                parts.into_iter().flatten().for_each(|part| part.take_schedules(other));
            }
            StorageConfig::Blob(blob) => blob.base.take_schedules(other),
            StorageConfig::Zlib(zlib) => zlib.base.take_schedules(other),
            StorageConfig::Before(before) => before.base.take_schedules(other),
            StorageConfig::Zrs(zrs) => zrs.base.take_schedules(other),
            StorageConfig::Own(own) => own.base.iter_mut().for_each(|base| base.take_schedules(other)),
            StorageConfig::Mapping { .. }
            | StorageConfig::Temporary { .. }
            | StorageConfig::Client(_)
            | StorageConfig::Postgres(_) => {}
        }
    }

    /// Nothing is stored: a database is not changed by opening it, and may be at a standby.
    pub fn set_read_only(&mut self) {
        match self {
            StorageConfig::Postgres(database) => database.options.read_only = true,
            StorageConfig::Demo(demo) => {
                [&mut demo.base, &mut demo.changes]
                    .into_iter()
                    .flatten()
                    .for_each(|part| part.set_read_only());
            }
            StorageConfig::Blob(blob) => blob.base.set_read_only(),
            StorageConfig::Zlib(zlib) => zlib.base.set_read_only(),
            StorageConfig::Before(before) => before.base.set_read_only(),
            StorageConfig::Zrs(zrs) => zrs.base.set_read_only(),
            StorageConfig::Own(own) => own.base.iter_mut().for_each(|base| base.set_read_only()),
            // A file may be opened for writing by a server that does not write, as Python's.
            StorageConfig::File(_)
            | StorageConfig::Mapping { .. }
            | StorageConfig::Temporary { .. }
            | StorageConfig::Client(_) => {}
        }
    }

    /// The storages in it that have no other storage in them.
    fn leaves(&self) -> Vec<&StorageConfig> {
        match self {
            StorageConfig::File(_)
            | StorageConfig::Mapping { .. }
            | StorageConfig::Temporary { .. }
            | StorageConfig::Client(_)
            | StorageConfig::Postgres(_) => vec![self],
            StorageConfig::Demo(demo) => {
                [&demo.base, &demo.changes].into_iter().flatten().flat_map(|part| part.leaves()).collect()
            }
            StorageConfig::Blob(blob) => blob.base.leaves(),
            StorageConfig::Zlib(zlib) => zlib.base.leaves(),
            StorageConfig::Before(before) => before.base.leaves(),
            StorageConfig::Zrs(zrs) => zrs.base.leaves(),
            StorageConfig::Own(own) => own.base.iter().flat_map(|base| base.leaves()).collect(),
        }
    }

    /// The clients of other servers in it.
    pub fn clients(&self) -> Vec<&ClientStorageConfig> {
        let clients = self.leaves().into_iter().filter_map(|leaf| match leaf {
            StorageConfig::Client(client) => Some(&**client),
            _ => None,
        });
        clients.collect()
    }

    /// Refuses what only a storage without writes can do. Whether it has any depends on `<zeo>`, too.
    pub fn check_replicas(&self) -> Result<(), ConfigError> {
        for leaf in self.leaves() {
            if let StorageConfig::Postgres(database) = leaf
                && let Some(location) =
                    database.ro_replica_conf.as_ref().filter(|_| !database.options.read_only)
            {
                return Err(ConfigError::at(location, RO_REPLICA_CONF));
            }
        }
        Ok(())
    }

    /// Keys without effect, with their lines.
    pub fn warnings(&self) -> Vec<String> {
        let warnings = self.leaves().into_iter().flat_map(|leaf| match leaf {
            StorageConfig::Client(client) => client.warnings.clone(),
            StorageConfig::Postgres(database) => {
                database.warnings.iter().cloned().chain(database.idle_timeout()).collect()
            }
            _ => Vec::new(),
        });
        warnings.collect()
    }
}

/// A `<filestorage>` section, or `-f`.
#[derive(Clone, Debug)]
pub struct FileStorageConfig {
    /// What the section says.
    pub options: FileStorageOptions,
    /// When the server packs it by itself, if it does, and where that was configured.
    pub pack_schedule: Option<(PackSchedule, Location)>,
    /// When the server checks it, if it does.
    pub scrub: Option<ScrubConfig>,
    /// Where it was configured, for messages.
    pub location: Location,
}

impl FileStorageConfig {
    /// A file that is named on the command line.
    pub fn of_command_line(options: FileStorageOptions) -> FileStorageConfig {
        FileStorageConfig { options, pack_schedule: None, scrub: None, location: Location::CommandLine }
    }
}

/// The keys `scrub-schedule` and `scrub-max-rate`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScrubConfig {
    /// When the whole file is checked.
    pub schedule: Schedule,
    /// Bytes of a second, at least 1.
    pub rate_max: u64,
}

/// A `<demostorage>` section.
#[derive(Clone, Debug)]
pub struct DemoStorageConfig {
    /// `None`: composed of the names of base and changes.
    pub name: Option<String>,
    /// `None`: an empty one in memory.
    pub base: Option<Box<StorageConfig>>,
    /// `None`: kept in memory.
    pub changes: Option<Box<StorageConfig>>,
}

/// A `<blobstorage>` section: its inner storage keeps its blobs in `blob_dir`. (A section whose storage cannot is
/// refused.)
#[derive(Clone, Debug)]
pub struct BlobStorageConfig {
    pub blob_dir: PathBuf,
    /// Where it was configured, for messages.
    pub location: Location,
    pub base: Box<StorageConfig>,
}

/// A `<zlibstorage>` or `<serverzlibstorage>` section.
#[derive(Clone, Debug)]
pub struct ZlibStorageConfig {
    /// Whether records are compressed when they are stored; they are always decompressed.
    pub compress: bool,
    /// Clients compress and decompress themselves.
    pub by_clients: bool,
    pub base: Box<StorageConfig>,
}

/// A `<before>` section: a storage at a point in time.
#[derive(Clone, Debug)]
pub struct BeforeStorageConfig {
    pub before: BeforeTime,
    pub base: Box<StorageConfig>,
}

/// A `<zrs>` section: a primary, a secondary, or both.
#[derive(Clone, Debug)]
pub struct ZrsConfig {
    /// Where secondaries connect to.
    pub replicate_to: Option<Address>,
    /// The primary that it follows.
    pub replicate_from: Option<Address>,
    /// `None`: the primary is sent nothing.
    pub keep_alive_delay: Option<Duration>,
    /// Where it was configured, for messages.
    pub location: Location,
    pub base: Box<StorageConfig>,
}

/// A `<zeoclient>` or `<clientstorage>` section.
#[derive(Clone, Debug)]
pub struct ClientStorageConfig {
    /// What the section says.
    pub options: ClientOptions,
    /// Where it was configured, for messages.
    pub location: Location,
    /// Keys without effect, with their lines.
    pub warnings: Vec<String>,
}

/// A `<relstorage>` section.
#[derive(Clone, Debug)]
pub struct PostgresStorageConfig {
    /// What the section says.
    pub options: PostgresOptions,
    /// Where it was configured, for messages.
    pub location: Location,
    /// Where its `ro-replica-conf` is.
    pub ro_replica_conf: Option<Location>,
    /// Where its `replica-timeout` is, if it is not the default.
    pub replica_timeout: Option<Location>,
    /// Keys without effect, with their lines.
    pub warnings: Vec<String>,
}

impl PostgresStorageConfig {
    /// That its `replica-timeout` has no effect. Whether the storage is only read depends on `<zeo>`, too.
    fn idle_timeout(&self) -> Option<String> {
        let (location, options) = (self.replica_timeout.as_ref()?, &self.options);
        let why = match (options.read_only, options.replica_conf.is_some(), options.ro_replica_conf.is_some())
        {
            (_, false, false) => "there is no replica-conf",
            (false, ..) => "a storage that is written stays at its primary",
            (true, ..) => return None,
        };
        Some(format!("{location}: replica-timeout has no effect: {why}"))
    }
}

/// The section of a storage that the program adds.
#[derive(Clone, Debug)]
pub struct OwnStorageConfig {
    pub kind: StorageKind,
    /// What the section says; `base` is set when the storage is opened.
    pub settings: StorageSettings,
    /// The storage inside, if the kind is a layer.
    pub base: Option<Box<StorageConfig>>,
    /// For messages.
    pub location: Location,
}

/// The point in time of a [`BeforeStorageConfig`].
#[derive(Clone, Debug, PartialEq)]
pub enum BeforeTime {
    /// When the storage is opened.
    Now,
    /// When the program was started.
    Startup,
    At(Tid),
    /// The time in this file; a missing file is written with the time of opening.
    FromFile(PathBuf),
}
