//! Which databases a command is about: those of a configuration, or one file.

use std::path::{Path, PathBuf};

use getopts::{Matches, Options};

use super::super::subcommand::Trouble;
use crate::config::{NamedStorage, StorageConfig, storages_of};
use crate::storage::StorageKinds;

/// Defines `-C`, `-f`, `-b` and `-S`.
pub(super) fn options(options: &mut Options) {
    options.optopt("C", "configure", "", "").optopt("f", "filename", "", "");
    options.optopt("b", "blob-dir", "", "").optopt("S", "storage", "", "");
}

/// A `Data.fs`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct NamedDatabase {
    /// As the storage is called in the server; `None`: `-f` without `-S`.
    pub(super) name: Option<String>,
    pub(super) path: PathBuf,
    pub(super) blob_dir: Option<PathBuf>,
}

/// The name of the storage of a server that has one file.
pub(super) const ONLY: &str = "1";

/// The databases, and what is said about storages that are none.
pub(super) fn of(matches: &Matches) -> Result<(Vec<NamedDatabase>, Vec<String>), Trouble> {
    let (name, blob_dir) = (matches.opt_str("storage"), matches.opt_str("blob-dir").map(PathBuf::from));
    match (matches.opt_str("configure"), matches.opt_str("filename")) {
        (Some(_), Some(_)) => Err(Trouble::Usage("give either -C or -f".into())),
        (None, None) => Err(Trouble::Usage("no database is given; use -C or -f".into())),
        (None, Some(path)) => Ok((vec![NamedDatabase { name, path: path.into(), blob_dir }], Vec::new())),
        (Some(_), None) if blob_dir.is_some() => Err(Trouble::Usage(
            "-b belongs to -f; with -C the configuration names the blob directories".into(),
        )),
        (Some(file), None) => {
            let environment = &|name: &str| std::env::var(name).ok();
            let storages =
                storages_of(&StorageKinds::default(), &file, environment).map_err(Trouble::Failed)?;
            of_storages(&file, &storages, name.as_deref())
        }
    }
}

fn of_storages(
    file: &str,
    storages: &[NamedStorage],
    wanted: Option<&str>,
) -> Result<(Vec<NamedDatabase>, Vec<String>), Trouble> {
    let mut found = Collected::default();
    for storage in storages.iter().filter(|storage| wanted.is_none_or(|wanted| storage.name == wanted)) {
        found.storage(&storage.name, &storage.storage, None);
    }
    if found.databases.is_empty() {
        let which = wanted.map_or_else(
            || "a <filestorage>".into(),
            |name| format!("a <filestorage> in a storage '{name}'"),
        );
        return Err(Trouble::Failed(format!("{file} does not have {which}: there is nothing to back up")));
    }
    Ok((found.databases, found.left_out))
}

#[derive(Default)]
struct Collected {
    databases: Vec<NamedDatabase>,
    left_out: Vec<String>,
}

impl Collected {
    /// `blobs`: the directory of a `<blobstorage>` around this storage.
    fn storage(&mut self, name: &str, config: &StorageConfig, blobs: Option<&Path>) {
        match config {
            StorageConfig::File(config) => self.databases.push(NamedDatabase {
                name: Some(name.into()),
                path: config.options.path.clone(),
                blob_dir: config.options.blob_dir.clone().or_else(|| blobs.map(Path::to_owned)),
            }),
            StorageConfig::Blob(config) => self.storage(name, &config.base, Some(&config.blob_dir)),
            StorageConfig::Zlib(config) => self.storage(name, &config.base, blobs),
            StorageConfig::Before(config) => self.storage(name, &config.base, blobs),
            #[cfg(feature = "test-storages")]
            StorageConfig::Test { base, .. } => self.storage(name, base, blobs),
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
            StorageConfig::Client(_) => {
                self.left_out
                    .push(format!("storage {name} is left out: it is another server's; back it up there"));
            }
        }
    }
}
