//! The files of the storages in a configuration, for backups.

use std::path::{Path, PathBuf};

use super::{NamedStorage, StorageConfig};

/// A `Data.fs`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NamedDatabase {
    /// The name of the storage; the files of a `<demostorage>` are called `NAME/base` and `NAME/changes`.
    pub name: String,
    pub path: PathBuf,
    pub blob_dir: Option<PathBuf>,
}

/// The files of these storages.
pub fn databases_of<'a>(storages: impl Iterator<Item = &'a NamedStorage>) -> Databases {
    let mut found = Databases::default();
    storages.for_each(|storage| found.storage(&storage.name, &storage.storage, None));
    found
}

/// Files of storages.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Databases {
    pub databases: Vec<NamedDatabase>,
    /// What is said about storages that are no files.
    pub left_out: Vec<String>,
}

impl Databases {
    /// `blobs`: the directory of a `<blobstorage>` around this storage.
    fn storage(&mut self, name: &str, config: &StorageConfig, blobs: Option<&Path>) {
        match config {
            StorageConfig::File(config) => self.databases.push(NamedDatabase {
                name: name.into(),
                path: config.options.path.clone(),
                blob_dir: config.options.blob_dir.clone().or_else(|| blobs.map(Path::to_owned)),
            }),
            StorageConfig::Blob(config) => self.storage(name, &config.base, Some(&config.blob_dir)),
            StorageConfig::Zlib(config) => self.storage(name, &config.base, blobs),
            StorageConfig::Before(config) => self.storage(name, &config.base, blobs),
            StorageConfig::Zrs(config) => self.storage(name, &config.base, blobs),
            StorageConfig::Demo(config) => {
                if let Some(base) = &config.base {
                    self.storage(&format!("{name}/base"), base, None);
                }
                if let Some(changes) = &config.changes {
                    self.storage(&format!("{name}/changes"), changes, blobs);
                }
            }
            StorageConfig::Own(config) => match &config.base {
                Some(base) => self.storage(name, base, blobs),
                None => self.left_out.push(format!("storage {name} is left out: it is no file")),
            },
            StorageConfig::Mapping { .. } | StorageConfig::Temporary { .. } => {
                self.left_out.push(format!("storage {name} is left out: it is in memory"));
            }
            StorageConfig::Postgres(_) => {
                let what = "it is in PostgreSQL; back it up there";
                self.left_out.push(format!("storage {name} is left out: {what}"));
            }
            StorageConfig::Client(_) => {
                self.left_out
                    .push(format!("storage {name} is left out: it is another server's; back it up there"));
            }
        }
    }
}
