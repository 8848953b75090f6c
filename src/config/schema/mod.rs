//! The sections and keys of the server's configuration file, and how their values become options.
//!
//! The tables are the union of what the schemas of ZEO 4 and ZEO 6 allow: a file that either takes is
//! taken here. A setting that needs something which the server does not have is refused with its line,
//! never ignored; `<runner>` alone is checked and then left to zdaemon. `docs/operations.md` has a row for each key.

pub mod eventlog;
pub mod limits;
pub mod runner;
mod ssl;
pub mod storages;
pub mod zeo;

use std::collections::BTreeSet;

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

/// Packages with storages that are in use, but not here.
const REFUSED_PACKAGES: &[(&str, &str)] =
    &[("zc.zrs", "replication is"), ("relstorage", "databases of RelStorage are")];

/// Whether `%import PACKAGE` brings nothing that would be missing here.
pub fn import(package: &str) -> Result<(), String> {
    if cfg!(not(feature = "test-storages")) && matches!(package, "ZODB.tests" | "ZEO.tests") {
        return Err(format!(
            "%import {package}: the storages of upstream's tests are not part of the server"
        ));
    }
    if let Some((_, what)) = REFUSED_PACKAGES.iter().find(|(known, _)| *known == package) {
        return Err(format!("%import {package}: {what} not supported"));
    }
    if KNOWN_PACKAGES.contains(&package) || storages::IMPORTED.iter().any(|(known, _)| *known == package) {
        Ok(())
    } else {
        Err(format!("%import {package}: the sections of this package are not supported"))
    }
}

/// Check that each section of a package stands in a file that imports the package.
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
