//! Opens a configured storage. Only this file names every kind of storage.

use std::path::Path;
use std::sync::OnceLock;
use std::{fs, io};

use crate::base::ids::Tid;
use crate::base::sync::Arc;
use crate::client::storage::ClientStorage;
use crate::config::{BeforeTime, DemoStorageConfig, OwnStorageConfig, StorageConfig, ZrsConfig};
use crate::replication::zrs::primary::Primary;
use crate::replication::zrs::secondary::Secondary;
use crate::storage::before::Before;
use crate::storage::demo::DemoStorage;
use crate::storage::file::{FileStorage, FileStorageOptions};
use crate::storage::mapping::MappingStorage;
use crate::storage::postgres::PostgresStorage;
use crate::storage::temporary::TemporaryStorage;
use crate::storage::transform::Transform;
use crate::storage::transform::zlib::Zlib;
use crate::storage::{Storage, StorageError, StorageSettings};

/// The time of `startup` in `<before>`: set when the first storage is prepared.
static STARTUP: OnceLock<Tid> = OnceLock::new();

/// The name of this kind of storage in Python's log.
pub fn kind(config: &StorageConfig) -> &'static str {
    match config {
        StorageConfig::File(_) => "FileStorage",
        StorageConfig::Mapping { .. } => "MappingStorage",
        StorageConfig::Temporary { .. } => "TemporaryStorage",
        StorageConfig::Demo(_) => "DemoStorage",
        StorageConfig::Blob(_) => "BlobStorage",
        StorageConfig::Zlib(zlib) if zlib.by_clients => "ServerZlibStorage",
        StorageConfig::Zlib(_) => "ZlibStorage",
        StorageConfig::Before(_) => "Before",
        StorageConfig::Zrs(_) => "ZRS",
        StorageConfig::Client(_) => "ClientStorage",
        StorageConfig::Postgres(_) => "RelStorage",
        StorageConfig::Own(own) => own.kind.name,
    }
}

/// A storage whose files and directories exist and are locked. Opening it reads its files, which may take minutes.
pub type Prepared = Box<dyn FnOnce(FileLayer<'_>) -> Result<Arc<dyn Storage>, StorageError>>;

/// What is put around each `FileStorage`, inside of all other layers.
pub type FileLayer<'a> = &'a dyn Fn(Arc<dyn Storage>) -> Result<Arc<dyn Storage>, StorageError>;

/// No layer.
pub fn bare(file: Arc<dyn Storage>) -> Result<Arc<dyn Storage>, StorageError> {
    Ok(file)
}

/// Prepares a storage; files are touched from here on. `record_len_max`: longest record that a message can carry
/// (`max-message-size`).
pub fn prepare(config: &StorageConfig, record_len_max: usize) -> Result<Prepared, StorageError> {
    STARTUP.get_or_init(Tid::now);
    prepare_with(config, None, record_len_max)
}

/// A storage in memory, which opens at once.
fn at_once(storage: Arc<dyn Storage>) -> Prepared {
    Box::new(move |_| Ok(storage))
}

/// `blobs`: the directory of a `<blobstorage>` around this storage. The configuration allows it only for storages that
/// keep blobs.
fn prepare_with(
    config: &StorageConfig,
    blobs: Option<&Path>,
    record_len_max: usize,
) -> Result<Prepared, StorageError> {
    match config {
        StorageConfig::File(config) => {
            let options = config.options.clone();
            let blob_dir = options.blob_dir.or_else(|| blobs.map(Path::to_owned));
            let file = FileStorage::prepare(FileStorageOptions { blob_dir, ..options })?;
            Ok(Box::new(move |layer| {
                let file: Arc<dyn Storage> = Arc::new(file.open()?);
                layer(Arc::clone(&file)).inspect_err(|_| close_unused(&file))
            }))
        }
        StorageConfig::Mapping { name } => Ok(at_once(mapping(name, blobs)?)),
        StorageConfig::Demo(config) => prepare_demo(config, blobs, record_len_max),
        StorageConfig::Zlib(config) => {
            let base = prepare_with(&config.base, blobs, record_len_max)?;
            let (codec, by_clients) = (Arc::new(Zlib { compress: config.compress }), config.by_clients);
            Ok(Box::new(move |layer| {
                Ok(Arc::new(Transform::new(base(layer)?, codec, by_clients).with_len_max(record_len_max)))
            }))
        }
        StorageConfig::Before(config) => {
            // Before the inner storage is opened and changed.
            let before = before(&config.before)?;
            let base = prepare(&config.base, record_len_max)?;
            Ok(Box::new(move |layer| Ok(Arc::new(Before::new(base(layer)?, before)))))
        }
        StorageConfig::Zrs(config) => prepare_zrs(config, blobs, record_len_max),
        StorageConfig::Client(config) => {
            let mut options = config.options.clone();
            options.serves_clients = true;
            Ok(Box::new(move |_| Ok(Arc::new(ClientStorage::open(options)?))))
        }
        StorageConfig::Postgres(config) => {
            let options = config.options.clone();
            Ok(Box::new(move |_| Ok(Arc::new(PostgresStorage::open(options)?))))
        }
        StorageConfig::Own(config) => prepare_own(config, record_len_max),
        StorageConfig::Blob(config) => prepare_with(&config.base, Some(&config.blob_dir), record_len_max),
        StorageConfig::Temporary { name } => Ok(at_once(Arc::new(TemporaryStorage::new(name.clone())))),
    }
}

fn mapping(name: &str, blobs: Option<&Path>) -> Result<Arc<dyn Storage>, StorageError> {
    let storage = MappingStorage::new(name.into());
    Ok(Arc::new(match blobs {
        Some(dir) => storage.with_blobs(dir)?,
        None => storage,
    }))
}

fn prepare_demo(
    config: &DemoStorageConfig,
    blobs: Option<&Path>,
    record_len_max: usize,
) -> Result<Prepared, StorageError> {
    let base = match config.base.as_deref() {
        Some(base) => prepare(base, record_len_max)?,
        None => at_once(mapping("MappingStorage", None)?),
    };
    let changes = match (config.changes.as_deref(), blobs) {
        (Some(changes), _) => prepare_with(changes, blobs, record_len_max)?,
        (None, Some(_)) => at_once(mapping("MappingStorage", blobs)?),
        (None, None) => {
            let changes = MappingStorage::new("MappingStorage".into()).with_temporary_blobs()?;
            at_once(Arc::new(changes))
        }
    };
    let (name, temporary) = (config.name.clone(), config.changes.is_none());
    Ok(Box::new(move |layer| {
        let base = base(layer)?;
        let changes = match changes(layer) {
            Ok(changes) => changes,
            Err(error) => {
                close_unused(&base);
                return Err(error);
            }
        };
        Ok(Arc::new(DemoStorage::new(name, base, changes, temporary)))
    }))
}

/// The primary is inside, so that it also sends on what the secondary gets.
fn prepare_zrs(
    config: &ZrsConfig,
    blobs: Option<&Path>,
    record_len_max: usize,
) -> Result<Prepared, StorageError> {
    let base = prepare_with(&config.base, blobs, record_len_max)?;
    let ZrsConfig { replicate_to, replicate_from, keep_alive_delay, location, .. } = config.clone();
    Ok(Box::new(move |layer| {
        let mut storage = base(layer)?;
        let failed = |storage: &Arc<dyn Storage>, error: StorageError| {
            close_unused(storage);
            StorageError::Unsupported(format!("{location}: {error}"))
        };
        if let Some(address) = &replicate_to {
            storage = match Primary::open(Arc::clone(&storage), address) {
                Ok(primary) => Arc::new(primary),
                Err(error) => return Err(failed(&storage, error)),
            };
        }
        if let Some(primary) = replicate_from {
            storage = match Secondary::open(Arc::clone(&storage), primary, keep_alive_delay) {
                Ok(secondary) => Arc::new(secondary),
                Err(error) => return Err(failed(&storage, error)),
            };
        }
        Ok(storage)
    }))
}

/// A storage that the program adds.
fn prepare_own(config: &OwnStorageConfig, record_len_max: usize) -> Result<Prepared, StorageError> {
    let base = config.base.as_deref().map(|base| prepare(base, record_len_max)).transpose()?;
    let OwnStorageConfig { kind, settings, location, .. } = config.clone();
    Ok(Box::new(move |layer| {
        let base = base.map(|base| base(layer)).transpose()?;
        (kind.open)(&StorageSettings { base: base.clone(), ..settings }).map_err(|message| {
            base.iter().for_each(close_unused);
            StorageError::Unsupported(format!("{location}: {message}"))
        })
    }))
}

/// Closes a storage whose layer cannot be opened, which releases its lock.
fn close_unused(storage: &Arc<dyn Storage>) {
    if let Err(error) = storage.close() {
        log::error!(target: "runzeo", "closing {}: {error}", storage.name());
    }
}

/// The tid of a point in time.
fn before(time: &BeforeTime) -> Result<Tid, StorageError> {
    match time {
        BeforeTime::Now => Ok(Tid::now()),
        BeforeTime::Startup => Ok(*STARTUP.get_or_init(Tid::now)),
        BeforeTime::At(tid) => Ok(*tid),
        BeforeTime::FromFile(path) => before_from_file(path),
    }
}

/// The time in the file; if it is missing, it is written with the current time in whole seconds.
fn before_from_file(path: &Path) -> Result<Tid, StorageError> {
    let doing = || StorageError::io(format!("before-from-file {}", path.display()));
    match fs::read_to_string(path) {
        Ok(text) => Tid::from_iso(&text).map_err(|reason| {
            StorageError::Unsupported(format!("before-from-file {}: {reason}", path.display()))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let now = Tid::from_unix(Tid::now().to_unix().floor());
            fs::write(path, now.to_iso()).map_err(doing())?;
            Ok(now)
        }
        Err(error) => Err(doing()(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Location;
    use crate::storage::StorageKind;

    fn layer(open: fn(&StorageSettings) -> Result<Arc<dyn Storage>, String>) -> StorageConfig {
        StorageConfig::Own(OwnStorageConfig {
            kind: StorageKind { name: "layer", package: None, keys: &[], is_layer: true, open },
            settings: StorageSettings::default(),
            base: Some(Box::new(StorageConfig::Mapping { name: "inner".into() })),
            location: Location::File { path: "zeo.conf".into(), line: 7 },
        })
    }

    #[test]
    fn a_layer_of_the_program_gets_the_storage_inside_it() {
        let opened = layer(|settings| settings.base.clone().ok_or_else(|| "no base".into()));
        let storage = prepare(&opened, 1 << 20).and_then(|prepared| prepared(&bare)).unwrap();
        assert_eq!(storage.name(), "inner");
    }

    #[test]
    fn what_it_refuses_is_told_with_its_line() {
        let refused = layer(|_| Err("there is no disk".into()));
        let error = prepare(&refused, 1 << 20).and_then(|prepared| prepared(&bare)).err().unwrap();
        assert_eq!(error.to_string(), "zeo.conf:7: there is no disk");
    }
}
