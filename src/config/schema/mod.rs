//! The sections and keys of the server's configuration file, and their conversion to options.
//!
//! The tables are the union of the schemas of ZEO 4 and ZEO 6: a file for either server is accepted. A setting for a
//! feature that this server lacks is refused with its line, never ignored; only `<runner>` and `<environment>` are
//! checked and then ignored by the server, because they are for `zeoctl`. `docs/operations.md` has a row for each key.

pub mod access;
pub mod audit;
pub mod backup;
pub mod client;
pub mod eventlog;
pub mod http;
pub mod limits;
pub mod listen;
pub mod network;
pub mod relstorage;
pub mod replication;
pub mod runner;
pub mod ssl;
pub mod storages;
pub mod zeo;

use std::collections::BTreeSet;

use super::zconfig::matcher::{Child, Content, SectionType};
use super::zconfig::{ConfigError, Section};

/// The whole file as a section type.
pub static FILE: SectionType = SectionType {
    name: "",
    content: Content::Checked(&[
        Child::Slot { what: "<zeo> section", types: &[&zeo::ZEO], required: true, multiple: false },
        Child::Slot { what: "<runner> section", types: &[&runner::RUNNER], required: false, multiple: false },
        Child::Slot {
            what: "<environment> section",
            types: &[&runner::ENVIRONMENT],
            required: false,
            multiple: false,
        },
        Child::Slot {
            what: "storage section such as <filestorage>",
            types: storages::STORAGES,
            required: true,
            multiple: true,
        },
        Child::Slot { what: "<backup> section", types: &[&backup::BACKUP], required: false, multiple: true },
        Child::Slot { what: "<access> section", types: &[&access::ACCESS], required: false, multiple: true },
        Child::Slot { what: "<audit> section", types: &[&audit::AUDIT], required: false, multiple: false },
        Child::Slot { what: "<http> section", types: &[&http::HTTP], required: false, multiple: false },
        Child::Slot { what: "<listen> section", types: &[&listen::LISTEN], required: false, multiple: true },
        Child::Slot {
            what: "<network> section",
            types: &[&network::NETWORK],
            required: false,
            multiple: true,
        },
        Child::Slot {
            what: "<replication> section",
            types: &[&replication::REPLICATION],
            required: false,
            multiple: false,
        },
        Child::Slot {
            what: "<eventlog> section",
            types: &[&eventlog::EVENTLOG],
            required: false,
            multiple: false,
        },
    ]),
};

/// Packages whose sections are known even without `%import`.
const KNOWN_PACKAGES: &[&str] =
    &["ZODB", "ZEO", "zdaemon", "ZConfig.components.basic", "ZConfig.components.logger"];

/// Checks whether `%import PACKAGE` can be ignored because this server has the package's sections.
pub fn import(package: &str) -> Result<(), String> {
    if matches!(package, "ZODB.tests" | "ZEO.tests") {
        return Err(format!(
            "%import {package}: the storages of ZODB's and ZEO's tests are not part of this server"
        ));
    }
    if KNOWN_PACKAGES.contains(&package) || storages::IMPORTED.iter().any(|(known, _)| *known == package) {
        Ok(())
    } else {
        Err(format!("%import {package}: the sections of this package are not supported"))
    }
}

/// Checks that each section of a package is in a file that imports the package.
pub fn check_imports(section: &Section, imported: &BTreeSet<String>) -> Result<(), ConfigError> {
    for inner in section.sections() {
        let package = storages::IMPORTED.iter().find(|(_, types)| types.contains(&inner.type_name.as_str()));
        if let Some((package, _)) = package
            && !imported.contains(*package)
        {
            return Err(ConfigError::at(
                &inner.start,
                format!("<{}> is known only after '%import {package}'", inner.type_name),
            ));
        }
        check_imports(inner, imported)?;
    }
    Ok(())
}
