//! From a configured storage to an open one: the one file that names every kind of storage.

use crate::base::sync::Arc;
use crate::config::{FileStorageConfig, NewFileFormat, StorageConfig};
use crate::storage::file::{self, FileStorage, FileStorageOptions};
use crate::storage::{Storage, StorageError};

/// What Python's log calls this kind of storage.
pub fn kind(config: &StorageConfig) -> &'static str {
    match config {
        StorageConfig::File(_) => "FileStorage",
    }
}

/// Open it. Only now are files touched.
pub fn open(config: &StorageConfig) -> Result<Arc<dyn Storage>, StorageError> {
    match config {
        StorageConfig::File(config) => Ok(Arc::new(open_file(config)?)),
    }
}

fn open_file(config: &FileStorageConfig) -> Result<FileStorage, StorageError> {
    FileStorage::open(FileStorageOptions {
        create: config.create,
        read_only: config.read_only,
        quota: config.quota,
        new_file_format: match config.new_file_format {
            NewFileFormat::Auto => file::NewFileFormat::Auto,
            NewFileFormat::Fs21 => file::NewFileFormat::FS21,
            NewFileFormat::Fs30 => file::NewFileFormat::FS30,
        },
        ..FileStorageOptions::new(&config.path)
    })
}
