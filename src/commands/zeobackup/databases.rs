//! Which databases a command is about: those of a configuration, or one file.

use std::path::PathBuf;

use getopts::{Matches, Options};

use super::super::subcommand::Trouble;
use crate::config::{Databases, NamedDatabase, databases_of, storages_of};
use crate::storage::StorageKinds;

/// The name of the storage of a server that has one file.
const ONLY: &str = "1";

/// Defines `-C`, `-f`, `-b` and `-S`.
pub(super) fn options(options: &mut Options) {
    options.optopt("C", "configure", "", "").optopt("f", "filename", "", "");
    options.optopt("b", "blob-dir", "", "").optopt("S", "storage", "", "");
}

/// The databases, of which there is at least one.
pub(super) fn of(matches: &Matches) -> Result<Databases, Trouble> {
    let (name, blob_dir) = (matches.opt_str("storage"), matches.opt_str("blob-dir").map(PathBuf::from));
    match (matches.opt_str("configure"), matches.opt_str("filename")) {
        (Some(_), Some(_)) => Err(Trouble::Usage("give either -C or -f".into())),
        (None, None) => Err(Trouble::Usage("no database is given; use -C or -f".into())),
        (None, Some(path)) => {
            let name = name.unwrap_or_else(|| ONLY.into());
            let databases = vec![NamedDatabase { name, path: path.into(), blob_dir }];
            Ok(Databases { databases, left_out: Vec::new() })
        }
        (Some(_), None) if blob_dir.is_some() => Err(Trouble::Usage(
            "-b belongs to -f; with -C the configuration names the blob directories".into(),
        )),
        (Some(file), None) => of_configuration(&file, name.as_deref()),
    }
}

/// Those of the storage that is called `wanted`, or of all.
fn of_configuration(file: &str, wanted: Option<&str>) -> Result<Databases, Trouble> {
    let environment = &|name: &str| std::env::var(name).ok();
    let storages = storages_of(&StorageKinds::default(), file, environment).map_err(Trouble::Failed)?;
    let is_wanted = |name: &str| wanted.is_none_or(|wanted| wanted == name);
    let found = databases_of(storages.iter().filter(|storage| is_wanted(&storage.name)));
    if found.databases.is_empty() {
        let which = wanted.map_or_else(String::new, |name| format!(" in a storage '{name}'"));
        return Err(Trouble::Failed(format!(
            "{file} does not have a <filestorage>{which}: there is nothing to back up"
        )));
    }
    Ok(found)
}
