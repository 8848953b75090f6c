//! A database: as it was when the command began, what was committed since, and the storage to delete from.

use std::path::PathBuf;

use super::super::commit::Committer;
use super::super::selection::OpenedFile;
use super::super::served::connection::Client;
use super::super::served::fetch::fetch;
use super::super::served::names::{Names, Subject};
use crate::base::ids::Tid;
use crate::commands::open::{bare, prepare};
use crate::commands::subcommand::Trouble;
use crate::config::{FileStorageConfig, StorageConfig};
use crate::inspect::data_file::DataFile;
use crate::inspect::tail::newest;
use crate::storage::file::FileStorageOptions;
use crate::storage::file::format::MAGIC_LEN;
use crate::storage::media::MediaFile;

/// Longest record of the storage; nothing is stored here.
const RECORD_MAX: usize = 256 << 20;

pub(super) struct Database {
    /// Its name in references.
    pub(super) name: String,
    pub(super) file: OpenedFile,
    place: Whereabouts,
    /// The storage to delete from, and the open one.
    config: StorageConfig,
    committer: Option<Committer>,
}

enum Whereabouts {
    File(PathBuf),
    Server(Client),
}

impl Database {
    /// `text`: a file, a server or a storage of the configuration. `copy`: a file with the transactions of a server, so
    /// that they need not be fetched.
    pub(super) fn open(
        names: &Names,
        name: &str,
        text: &str,
        copy: Option<&str>,
    ) -> Result<Database, Trouble> {
        let config = names.find(text)?.unwrap_or_else(|| {
            StorageConfig::File(FileStorageConfig::of_command_line(FileStorageOptions::new(text)))
        });
        let (file, place) = match (names.source(text)?, copy) {
            (Subject::File(_), Some(_)) => {
                return Err(Trouble::Usage(format!("--read {name}=...: '{text}' is a file already")));
            }
            (Subject::File(path), None) => (OpenedFile::open(&path)?, Whereabouts::File(path.into())),
            (Subject::Served { name: server, options }, copy) => {
                let client = Client::open(&server, &options, true)?;
                let file = match copy {
                    Some(path) => copy_of(&client, path)?,
                    None => OpenedFile::fetched_from(&client.require_served()?, Tid(u64::MAX))?,
                };
                (file, Whereabouts::Server(client))
            }
        };
        Ok(Database { name: name.into(), file, place, config, committer: None })
    }

    /// Opens the storage to delete from.
    pub(super) fn open_to_delete(&mut self) -> Result<(), Trouble> {
        match &mut self.config {
            StorageConfig::File(file) => file.options.create = false,
            StorageConfig::Client(client) => client.options.wait = true,
            _ => {}
        }
        self.committer = Some(Committer::new(prepare(&self.config, RECORD_MAX)?(&bare)?));
        Ok(())
    }

    /// The storage to delete from.
    pub(super) fn committer(&self) -> Result<&Committer, Trouble> {
        self.committer.as_ref().ok_or_else(|| Trouble::Failed(format!("{} is not open", self.name)))
    }

    pub(super) fn close(&self) -> Result<(), Trouble> {
        match &self.committer {
            Some(committer) => Ok(committer.storage.close()?),
            None => Ok(()),
        }
    }

    /// The database as it is now, or a part of it, and a position in it before everything that was committed since
    /// transaction `last`.
    pub(super) fn as_it_is(&self, last: Tid) -> Result<(DataFile, u64), Trouble> {
        match &self.place {
            Whereabouts::File(path) => {
                let now = DataFile::open(path)?;
                let is_same = is_same_file(now.log().file(), self.file.data.log().file());
                let from = if is_same { self.file.data.end() } else { MAGIC_LEN };
                Ok((now, from))
            }
            Whereabouts::Server(client) => {
                let later = fetch(&client.require_served()?, Tid(last.0.saturating_add(1)), Tid(u64::MAX))?;
                Ok((later, MAGIC_LEN))
            }
        }
    }
}

/// A file with the transactions of a server. Errors: it is another database, or a later state of it.
fn copy_of(client: &Client, path: &str) -> Result<OpenedFile, Trouble> {
    let file = OpenedFile::open(path)?;
    let served = client.require_served()?;
    let last = newest(&file.data, 1)?.first().map_or(Tid::ZERO, |txn| txn.header.tid);
    if served.transactions(last, last)?.next_transaction()?.is_none() {
        return Err(Trouble::Failed(format!(
            "{path} is not the file of {}, which does not have its last transaction {last}",
            served.name
        )));
    }
    Ok(file)
}

/// Whether a pack has not put another file in its place.
fn is_same_file(one: &dyn MediaFile, other: &dyn MediaFile) -> bool {
    match (one.identity(), other.identity()) {
        (Ok(one), Ok(other)) => (one.device, one.inode, one.born) == (other.device, other.inode, other.born),
        _ => false,
    }
}
