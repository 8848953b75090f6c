//! The storages to serve.

use super::{not_supported_yet, refuse};
use crate::config::zconfig::datatypes::{self, Datatype};
use crate::config::zconfig::matcher::{Content, SectionType, key, required_key};
use crate::config::zconfig::{ConfigError, Section, quoted};
use crate::config::{FileStorageConfig, NewFileFormat, StorageConfig};

static FILESTORAGE: SectionType = SectionType {
    name: "filestorage",
    content: Content::Checked(&[
        required_key("path", Datatype::ExistingDirpath),
        key("blob-dir", Datatype::ExistingDirpath),
        key("create", Datatype::Boolean),
        key("read-only", Datatype::Boolean),
        key("quota", Datatype::ByteSize),
        key("packer", Datatype::Any),
        key("pack-gc", Datatype::Boolean),
        key("pack-keep-old", Datatype::Boolean),
        // Ours: Python writes the format of the Python that runs it.
        key("new-file-format", Datatype::Custom(|text| new_file_format(text).map(drop))),
    ]),
};

/// A storage of ZODB or ZEO that cannot be served yet.
const fn later(name: &'static str) -> SectionType {
    SectionType { name, content: Content::Opaque }
}

static MAPPINGSTORAGE: SectionType = later("mappingstorage");
static DEMOSTORAGE: SectionType = later("demostorage");
static BLOBSTORAGE: SectionType = later("blobstorage");
static ZEOCLIENT: SectionType = later("zeoclient");
static CLIENTSTORAGE: SectionType = later("clientstorage");
static FULLSTORAGE: SectionType = later("fullstorage");
static MINIMALSTORAGE: SectionType = later("minimalstorage");

/// All storages that the schemas of ZODB and ZEO know.
pub static STORAGES: &[&SectionType] = &[
    &FILESTORAGE,
    &MAPPINGSTORAGE,
    &DEMOSTORAGE,
    &BLOBSTORAGE,
    &ZEOCLIENT,
    &CLIENTSTORAGE,
    &FULLSTORAGE,
    &MINIMALSTORAGE,
];

/// Ways to write the packer that FileStorage uses anyway.
const DEFAULT_PACKERS: &[&str] =
    &["", "ZODB.FileStorage:FileStorage.packer", "ZODB.FileStorage.FileStorage:FileStorage.packer"];

/// Whether a section of the file is a storage.
pub fn is_storage(section: &Section) -> bool {
    STORAGES.iter().any(|storage| storage.name == section.type_name)
}

pub fn storage(section: &Section) -> Result<StorageConfig, ConfigError> {
    match section.type_name.as_str() {
        "filestorage" => file_storage(section).map(StorageConfig::File),
        "fullstorage" | "minimalstorage" => Err(ConfigError::at(
            &section.start,
            format!("<{}> is not supported: the Berkeley DB storages are dead", section.type_name),
        )),
        other => Err(not_supported_yet(&section.start, &format!("<{other}>"))),
    }
}

fn file_storage(section: &Section) -> Result<FileStorageConfig, ConfigError> {
    if section.value("blob-dir").is_some_and(|value| !value.text.is_empty()) {
        refuse(section, "blob-dir", "blobs")?;
    }
    if let Some(packer) = section.value("packer")
        && !DEFAULT_PACKERS.contains(&packer.text.as_str())
    {
        return Err(ConfigError::at(
            &packer.location,
            format!(
                "packer: {} cannot be loaded; only the default packer is supported",
                quoted(&packer.text)
            ),
        ));
    }
    let path = section.get("path", datatypes::existing_dirpath)?.unwrap_or_default();
    if path.as_os_str().is_empty() {
        return Err(ConfigError::at(&section.start, "the path of a <filestorage> is empty"));
    }
    Ok(FileStorageConfig {
        path,
        create: section.get("create", datatypes::boolean)?.unwrap_or(false),
        read_only: section.get("read-only", datatypes::boolean)?.unwrap_or(false),
        quota: section
            .get("quota", datatypes::byte_size)?
            .map(|quota| u64::try_from(quota.max(0)).unwrap_or(u64::MAX)),
        pack_gc: section.get("pack-gc", datatypes::boolean)?.unwrap_or(true),
        pack_keep_old: section.get("pack-keep-old", datatypes::boolean)?.unwrap_or(true),
        new_file_format: section.get("new-file-format", new_file_format)?.unwrap_or_default(),
        location: section.start.clone(),
    })
}

fn new_file_format(text: &str) -> Result<NewFileFormat, String> {
    match text.to_lowercase().as_str() {
        "auto" => Ok(NewFileFormat::Auto),
        "fs21" => Ok(NewFileFormat::Fs21),
        "fs30" => Ok(NewFileFormat::Fs30),
        _ => Err(format!("{} is not a format; use auto, FS21 (Python 2) or FS30 (Python 3)", quoted(text))),
    }
}
