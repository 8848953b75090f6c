//! Files beside the configuration file, `zeo.conf.d/*.conf`, with what this server alone knows.
//!
//! zdaemon and zeoctl read `zeo.conf` with the schema of Python's server, which refuses other keys, and they know
//! nothing of the directory. So the files may have own keys of the sections in `zeo.conf`, and own sections, and
//! nothing that Python's server needs as well: it would be missing there.
//!
//! The files are applied in the order of their names. A later value replaces an earlier one.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::schema::{self, access, audit, backup, eventlog, http, listen, network, replication, runner};
use super::zconfig::matcher::{AddedTypes, KnownTo, SectionType};
use super::zconfig::suggest::nearest;
use super::zconfig::tree::Item;
use super::zconfig::{self, ConfigError, Section, Surroundings};

/// Sections of a file that Python's server does not have. Others must be in the configuration file.
pub static OWN_SECTIONS: &[&SectionType] = &[
    &access::ACCESS,
    &audit::AUDIT,
    &backup::BACKUP,
    &http::HTTP,
    &listen::LISTEN,
    &network::NETWORK,
    &replication::REPLICATION,
];

/// The directory beside a configuration file.
pub fn directory(path: &Path) -> PathBuf {
    let mut name: OsString = path.into();
    name.push(".d");
    name.into()
}

/// Adds what the files beside `path` say to the sections of `root`. Without the directory, nothing.
pub fn apply(
    root: &mut Section,
    path: &Path,
    added: &AddedTypes,
    surroundings: &dyn Surroundings,
) -> Result<(), ConfigError> {
    let directory = directory(path);
    let files = list(&directory).map_err(|error| {
        ConfigError::nowhere(format!("the directory {} cannot be read: {error}", directory.display()))
    })?;
    let merge = Merge { path, added };
    for file in files {
        merge.section(zconfig::load_path(file, surroundings)?, root, &schema::FILE)?;
    }
    Ok(())
}

/// The files whose names end in `.conf`, without hidden ones, which editors leave behind.
fn list(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if path.extension().is_some_and(|extension| extension == "conf") && !is_hidden {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

struct Merge<'a> {
    /// The configuration file, for messages.
    path: &'a Path,
    added: &'a AddedTypes,
}

impl Merge<'_> {
    /// Adds what `addition` has to `target`, which is of the same type. What no schema knows is added as it is: the
    /// check of the whole refuses it with its line.
    fn section(
        &self,
        addition: Section,
        target: &mut Section,
        section_type: &SectionType,
    ) -> Result<(), ConfigError> {
        let mut seen: Vec<String> = Vec::new();
        for item in addition.items {
            match item {
                Item::Value(value) => {
                    let key = value.key.to_lowercase();
                    if section_type.known(&key).is_some_and(|known| known != KnownTo::Own) {
                        let message = format!(
                            "{key} is a key of Python's servers, too: it belongs in {}, where Python's tools find it",
                            self.path.display()
                        );
                        return Err(ConfigError::at(&value.location, message));
                    }
                    if seen.contains(&key) {
                        target.items.push(Item::Value(value));
                    } else {
                        seen.push(key);
                        target.set(value);
                    }
                }
                Item::Section(inner) => self.inner(inner, target, section_type)?,
            }
        }
        Ok(())
    }

    fn inner(
        &self,
        inner: Section,
        target: &mut Section,
        outer_type: &SectionType,
    ) -> Result<(), ConfigError> {
        let found = outer_type.inner_type(&inner.type_name, self.added);
        let own = OWN_SECTIONS.iter().copied().chain([&eventlog::JOURNAL, &runner::ENVIRONMENT]);
        let is_own = own.into_iter().any(|own| own.name == inner.type_name);
        let (Some((inner_type, several)), false) = (found, is_own) else {
            target.items.push(Item::Section(inner));
            return Ok(());
        };
        let name = |section: &Section| match &section.name {
            _ if !several => None,
            // Storages without a name are called 1.
            None if outer_type.name.is_empty() => Some(String::from("1")),
            name => name.clone(),
        };
        let wanted = name(&inner);
        let fits = |section: &Section| section.type_name == inner.type_name && name(section) == wanted;
        let count = target.sections().filter(|section| fits(section)).count();
        if count != 1 {
            return Err(self.no_section(&inner, target, count));
        }
        let section = target.items.iter_mut().find_map(|item| match item {
            Item::Section(section) if fits(section) => Some(section),
            _ => None,
        });
        section.map_or(Ok(()), |section| self.section(inner, section, inner_type))
    }

    fn no_section(&self, inner: &Section, target: &Section, count: usize) -> ConfigError {
        let (shown, path) = (inner.shown(), self.path.display());
        let message = match count {
            0 => format!("there is no {shown} in {path} that these keys could be added to"),
            _ => format!("there are {count} sections {shown} in {path}: give them names"),
        };
        let same_type = target.sections().filter(|section| section.type_name == inner.type_name);
        let names = same_type.filter_map(|section| section.name.as_deref());
        let wanted = inner.name.as_deref().filter(|_| count == 0);
        ConfigError::at(&inner.start, message).suggesting(wanted.and_then(|wanted| nearest(wanted, names)))
    }
}
