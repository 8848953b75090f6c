//! What an argument names: a section of a configuration (`-C`), a server's storage, or a file.

use getopts::{Matches, Options};

use super::address::{client_of, is_address};
use crate::client::options::ClientOptions;
use crate::commands::subcommand::{Trouble, file_argument};
use crate::config::{ClientStorageConfig, Location, NamedStorage, StorageConfig, storages_of};
use crate::storage::StorageKinds;

/// Defines `-C`.
pub fn options(options: &mut Options) {
    options.optopt("C", "configure", "", "");
}

/// Where the names come from.
pub struct Names {
    storages: Vec<NamedStorage>,
}

/// A storage to look at.
pub enum Subject {
    /// A `Data.fs`.
    File(String),
    Served {
        /// As the user has written it.
        name: String,
        options: Box<ClientOptions>,
    },
}

impl Names {
    /// The storages of the configuration, if one is given.
    pub fn of(matches: &Matches) -> Result<Names, Trouble> {
        let environment = &|name: &str| std::env::var(name).ok();
        let storages = matches
            .opt_str("configure")
            .map(|file| storages_of(&StorageKinds::default(), &file, environment))
            .transpose()
            .map_err(Trouble::Failed)?;
        Ok(Names { storages: storages.unwrap_or_default() })
    }

    /// The section of this name, or what the address of a server stands for. `None`: it is the name of a file.
    pub fn find(&self, name: &str) -> Result<Option<StorageConfig>, Trouble> {
        if let Some(named) = self.storages.iter().find(|named| named.name == name) {
            return Ok(Some(named.storage.clone()));
        }
        if !is_address(name) {
            return Ok(None);
        }
        let options = client_of(name).map_err(Trouble::Usage)?;
        let config = ClientStorageConfig { options, location: Location::CommandLine, warnings: Vec::new() };
        Ok(Some(StorageConfig::Client(Box::new(config))))
    }

    /// What is looked at under this name.
    pub fn source(&self, name: &str) -> Result<Subject, Trouble> {
        match self.find(name)? {
            None => Ok(Subject::File(name.into())),
            Some(StorageConfig::Client(config)) => {
                let mut options = config.options;
                options.name = name.into();
                Ok(Subject::Served { name: name.into(), options: Box::new(options) })
            }
            Some(StorageConfig::File(config)) => match config.options.path.to_str() {
                Some(path) => Ok(Subject::File(path.into())),
                None => Err(Trouble::Failed(format!("the path of the storage '{name}' is no text"))),
            },
            Some(_) => Err(Trouble::Failed(format!(
                "the storage '{name}' is neither a <zeoclient> nor a <filestorage>: give its file, or the address of \
                 its server"
            ))),
        }
    }
}

/// What the only free argument names.
pub fn source(matches: &Matches) -> Result<Subject, Trouble> {
    Names::of(matches)?.source(file_argument(matches)?)
}
