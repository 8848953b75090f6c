//! Kinds of storage that a program adds to those of the configuration file.

use std::fmt::{self, Display};
use std::str::FromStr;
use std::sync::Arc;

use super::Storage;

/// A kind of storage with a section type of its own: `<NAME> ... </NAME>` may stand wherever `<filestorage>` may.
///
/// ```
/// # use runzeo::storage::{Storage, StorageKind, StorageSettings};
/// # use std::sync::Arc;
/// # fn open(_: &StorageSettings) -> Result<Arc<dyn Storage>, String> { Err(String::new()) }
/// let kind = StorageKind { name: "memorystorage", package: None, keys: &["size-max"], is_layer: false, open };
/// ```
#[derive(Clone, Copy, Debug)]
pub struct StorageKind {
    /// The type of the section, in lower case. Those of this server cannot be replaced.
    pub name: &'static str,
    /// The package whose `%import` is accepted in the file. It is accepted, not required.
    pub package: Option<&'static str>,
    /// The keys that the section may have, in lower case, each at most once. Others are refused with their line.
    pub keys: &'static [&'static str],
    /// Whether the section contains the section of one other storage: [`StorageSettings::base`].
    pub is_layer: bool,
    /// Opens the storage. Called at the start of the server, when its addresses are bound and before clients are
    /// served. An error ends the start with exit code 1; it is logged and printed with the line of the section.
    pub open: fn(&StorageSettings) -> Result<Arc<dyn Storage>, String>,
}

/// The section of a [`StorageKind`] in a configuration file.
#[derive(Clone, Default)]
pub struct StorageSettings {
    /// The name in the section's first line, in lower case: `<memorystorage NAME>`. Clients ask for the storage by it.
    pub name: Option<String>,
    /// The keys as they are written in [`StorageKind::keys`], and their texts, in which `$NAME` (of `%define`) and
    /// `$(VARIABLE)` (of the environment) are replaced.
    pub values: Vec<(&'static str, String)>,
    /// The storage inside the section; `Some` if and only if the kind is a layer. It is open. The layer closes it in
    /// its own [`Storage::close`].
    pub base: Option<Arc<dyn Storage>>,
}

impl fmt::Debug for StorageSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base = self.base.as_ref().map(|base| base.name());
        f.debug_struct("StorageSettings")
            .field("name", &self.name)
            .field("values", &self.values)
            .field("base", &base)
            .finish()
    }
}

impl StorageSettings {
    /// The text of a key; `None` if the section does not have it.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.values.iter().find(|(name, _)| *name == key).map(|(_, text)| text.as_str())
    }

    /// The text of a key as a number, an address or the like. The error names the key and quotes the text.
    pub fn parse<T: FromStr<Err: Display>>(&self, key: &str) -> Result<Option<T>, String> {
        let parsed = |text: &str| text.parse().map_err(|error| format!("{key}: '{text}': {error}"));
        self.text(key).map(parsed).transpose()
    }
}

/// The kinds of storage that a program adds; none unless it registers some.
#[derive(Clone, Debug, Default)]
pub struct StorageKinds(Vec<StorageKind>);

impl StorageKinds {
    /// Adds one. It replaces another of the same name.
    pub fn register(&mut self, kind: StorageKind) {
        self.0.retain(|known| known.name != kind.name);
        self.0.push(kind);
    }

    /// The kind of this name.
    pub fn get(&self, name: &str) -> Option<&StorageKind> {
        self.0.iter().find(|kind| kind.name == name)
    }

    /// All kinds.
    pub fn iter(&self) -> impl Iterator<Item = &StorageKind> {
        self.0.iter()
    }

    /// Whether one of the kinds belongs to this package.
    pub fn have_package(&self, package: &str) -> bool {
        self.0.iter().any(|kind| kind.package == Some(package))
    }
}
