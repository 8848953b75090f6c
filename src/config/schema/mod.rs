//! What may stand in the server's configuration file, and what becomes of it.
//!
//! The tables are the union of what the schemas of ZEO 4 and ZEO 6 allow: a file that either takes is
//! taken here. What would need an ability that the server does not have is refused with its line,
//! never ignored; `<runner>` alone is checked and then left to zdaemon.

pub mod eventlog;
mod log_format;
pub mod runner;
pub mod storages;
pub mod zeo;

use super::zconfig::matcher::{Child, Content, SectionType};
use super::zconfig::{ConfigError, Section};

/// The whole file.
pub static FILE: SectionType = SectionType {
    name: "",
    content: Content::Checked(&[
        Child::Slot { what: "<zeo> section", types: &[&zeo::ZEO], required: true, multiple: false },
        Child::Slot { what: "<runner> section", types: &[&runner::RUNNER], required: false, multiple: false },
        Child::Slot {
            what: "storage section such as <filestorage>",
            types: storages::STORAGES,
            required: true,
            multiple: true,
        },
        Child::Slot {
            what: "<eventlog> section",
            types: &[&eventlog::EVENTLOG],
            required: false,
            multiple: false,
        },
    ]),
};

/// Packages whose sections are all known without `%import`.
const KNOWN_PACKAGES: &[&str] =
    &["ZODB", "ZEO", "zdaemon", "ZConfig.components.basic", "ZConfig.components.logger"];

/// Whether `%import PACKAGE` brings nothing that would be missing here.
pub fn import(package: &str) -> Result<(), String> {
    if KNOWN_PACKAGES.contains(&package) {
        Ok(())
    } else {
        Err(format!("%import {package}: the sections of this package are not supported yet"))
    }
}

/// The error for what a later version brings.
fn not_supported_yet(location: &super::zconfig::Location, what: &str) -> ConfigError {
    ConfigError::at(location, format!("{what} is not supported yet"))
}

/// Refuse a key wherever it is given.
fn refuse(section: &Section, key: &str, what: &str) -> Result<(), ConfigError> {
    match section.value(key) {
        Some(value) => Err(not_supported_yet(&value.location, &format!("'{key}' ({what})"))),
        None => Ok(()),
    }
}
