//! The two storages of a copy: files, sections of a configuration, or addresses of servers.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::served::names::Names;
use crate::base::ids::Tid;
use crate::base::sync::Arc;
use crate::commands::open::{bare, prepare};
use crate::commands::subcommand::Trouble;
use crate::config::{FileStorageConfig, StorageConfig};
use crate::inspect::data_file::DataFile;
use crate::inspect::tail::newest;
use crate::storage::Storage;
use crate::storage::file::format::MAGIC_LEN;
use crate::storage::file::{FileFormat, FileStorageOptions};

/// Longest record of a copied object. Clients cannot store longer ones either, unless their server has a larger
/// `max-message-size`.
const RECORD_MAX: usize = 256 << 20;

/// A storage to copy from or to.
pub(super) struct End {
    /// As the user has written it.
    pub(super) name: String,
    pub(super) storage: Arc<dyn Storage>,
    /// Which Python can open the file in it; `None`: there is no file, or it has no transactions.
    pub(super) format: Option<FileFormat>,
    /// It is another server's, which takes no copies of blobs.
    pub(super) is_server: bool,
}

/// The storage of this name; otherwise the file. `blob_dir` belongs to a file.
fn config(
    names: &Names,
    name: &str,
    blob_dir: Option<PathBuf>,
    option: &str,
) -> Result<StorageConfig, Trouble> {
    match (names.find(name)?, blob_dir) {
        (Some(_), Some(_)) => Err(Trouble::Usage(format!(
            "{option} belongs to a Data.fs; of '{name}' the configuration has the blob directory"
        ))),
        (Some(config), None) => Ok(config),
        (None, blob_dir) => {
            let options = FileStorageOptions { blob_dir, ..FileStorageOptions::new(name) };
            Ok(StorageConfig::File(FileStorageConfig::of_command_line(options)))
        }
    }
}

impl End {
    /// Opens the storage to copy from: it is only read, and may be in use.
    pub(super) fn source(names: &Names, name: &str, blob_dir: Option<PathBuf>) -> Result<End, Trouble> {
        let mut config = config(names, name, blob_dir, "--blob-dir")?;
        only_read(&mut config)?;
        End::open(name, &config)
    }

    /// Opens the storage to copy to.
    pub(super) fn target(names: &Names, name: &str, blob_dir: Option<PathBuf>) -> Result<End, Trouble> {
        let mut config = config(names, name, blob_dir, "--to-blob-dir")?;
        can_be_target(&mut config)?;
        let before = match file_of(&config) {
            Some(path) if has_content(&path) => last_tid(&path)?,
            _ => None,
        };
        let end = End::open(name, &config)?;
        // A storage that finds another file than it left notes that in a transaction of its own.
        if let Some(before) = before
            && end.storage.last_transaction() != before
        {
            end.close()?;
            return Err(Trouble::Failed(format!(
                "{name} was exchanged or moved since a server had it: on opening it got a transaction that the \
                 other one does not have"
            )));
        }
        Ok(end)
    }

    fn open(name: &str, config: &StorageConfig) -> Result<End, Trouble> {
        let format = match file_of(config) {
            Some(path) if has_content(&path) => {
                Some(DataFile::open(&path)?).filter(|file| file.end() > MAGIC_LEN)
            }
            _ => None,
        };
        let storage = prepare(config, RECORD_MAX)?(&bare)?;
        let format = format.map(|file| file.format());
        Ok(End { name: name.into(), storage, format, is_server: !config.clients().is_empty() })
    }

    pub(super) fn close(&self) -> Result<(), Trouble> {
        Ok(self.storage.close()?)
    }
}

/// Whether the file is there, and not just made: a copy that ended at once leaves an empty one.
fn has_content(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.len() > 0)
}

fn last_tid(path: &Path) -> Result<Option<Tid>, Trouble> {
    let file = DataFile::open(path)?;
    Ok(newest(&file, 1)?.first().map(|txn| txn.header.tid))
}

/// The file in which the records are.
fn file_of(config: &StorageConfig) -> Option<PathBuf> {
    match config {
        StorageConfig::File(file) => Some(file.options.path.clone()),
        StorageConfig::Blob(blob) => file_of(&blob.base),
        StorageConfig::Zlib(zlib) => file_of(&zlib.base),
        StorageConfig::Before(before) => file_of(&before.base),
        StorageConfig::Demo(demo) => demo.base.as_deref().and_then(file_of),
        _ => None,
    }
}

fn only_read(config: &mut StorageConfig) -> Result<(), Trouble> {
    match config {
        StorageConfig::File(file) => (file.options.read_only, file.options.create) = (true, false),
        StorageConfig::Blob(blob) => only_read(&mut blob.base)?,
        StorageConfig::Zlib(zlib) => only_read(&mut zlib.base)?,
        StorageConfig::Before(before) => only_read(&mut before.base)?,
        StorageConfig::Zrs(zrs) => {
            // Replicating is the server's.
            *config = (*zrs.base).clone();
            only_read(config)?;
        }
        StorageConfig::Client(client) => (client.options.read_only, client.options.wait) = (true, true),
        StorageConfig::Postgres(database) => database.options.read_only = true,
        StorageConfig::Demo(demo) => {
            for part in [&mut demo.base, &mut demo.changes] {
                let in_memory =
                    || Trouble::Failed("the base or the changes of the storage are in memory".into());
                only_read(part.as_deref_mut().ok_or_else(in_memory)?)?;
            }
        }
        _ => return Err(Trouble::Failed("what is in memory cannot be copied from".into())),
    }
    Ok(())
}

fn can_be_target(config: &mut StorageConfig) -> Result<(), Trouble> {
    match config {
        StorageConfig::File(file) if file.options.read_only || file.options.stop.is_some() => {
            return Err(Trouble::Failed("the storage to copy to is read-only".into()));
        }
        StorageConfig::File(file) => file.options.create = false,
        StorageConfig::Blob(blob) => can_be_target(&mut blob.base)?,
        StorageConfig::Zlib(zlib) => can_be_target(&mut zlib.base)?,
        StorageConfig::Zrs(zrs) if zrs.replicate_from.is_some() => {
            return Err(Trouble::Failed(
                "the storage to copy to is a secondary: only its primary changes it".into(),
            ));
        }
        StorageConfig::Zrs(zrs) => {
            *config = (*zrs.base).clone();
            can_be_target(config)?;
        }
        StorageConfig::Client(client) => client.options.wait = true,
        StorageConfig::Postgres(database) if database.options.read_only => {
            return Err(Trouble::Failed("the storage to copy to is read-only".into()));
        }
        StorageConfig::Postgres(_) => {}
        _ => {
            let what = "the storage to copy to must be a file, with or without compression, a database, or another server";
            return Err(Trouble::Failed(what.into()));
        }
    }
    Ok(())
}
