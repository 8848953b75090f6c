//! The storages to serve, and their inner storages.

use std::path::PathBuf;
use std::time::Duration;

use super::client::{self, CLIENTSTORAGE, ZEOCLIENT};
use super::relstorage::{self, RELSTORAGE};
use crate::base::address::Address;
use crate::base::ids::Tid;
use crate::base::schedule::Schedule;
use crate::config::zconfig::datatypes::{self, Bounds, Datatype, Unit};
use crate::config::zconfig::matcher::{AddedTypes, Child, Content, KnownTo, SectionType, key, required_key};
use crate::config::zconfig::{ConfigError, Location, Section, quoted};
use crate::config::{
    BeforeStorageConfig, BeforeTime, BlobStorageConfig, DemoStorageConfig, FileStorageConfig,
    OwnStorageConfig, ScrubConfig, StorageConfig, ZlibStorageConfig, ZrsConfig,
};
use crate::server::pack_schedule::{PACK_DAYS_DEFAULT, PackSchedule};
use crate::storage::file::{FileStorageOptions, NewFileFormat};
use crate::storage::{StorageKind, StorageKinds, StorageSettings};

const MAPPING_NAME: &str = "Mapping Storage";
const TEMPORARY_NAME: &str = "Temporary Storage";

pub static FILESTORAGE: SectionType = SectionType {
    name: "filestorage",
    content: Content::Checked(&[
        required_key("path", Datatype::ExistingDirpath),
        key("blob-dir", Datatype::ExistingDirpath).known(KnownTo::Since("ZODB 3.9")),
        key("create", Datatype::Boolean).default("false"),
        key("read-only", Datatype::Boolean).default("false"),
        key("quota", Datatype::ByteSize),
        key("packer", Datatype::Any).default("").known(KnownTo::Since("ZODB 3.9")),
        key("pack-gc", Datatype::Boolean).default("true").known(KnownTo::Since("ZODB 3.9")),
        key("pack-keep-old", Datatype::Boolean).default("true").known(KnownTo::Since("ZODB 3.9")),
        key("pack-refuse-large-removals", Datatype::Boolean).default("false").known(KnownTo::Own),
        key("pack-schedule", Datatype::Custom(|text| schedule(text).map(drop))).known(KnownTo::Own),
        key("pack-days", Datatype::Bounded(&PACK_DAYS)).known(KnownTo::Own),
        key("pack-max-rate", Datatype::Custom(|text| rate(text).map(drop))).known(KnownTo::Own),
        key("scrub-schedule", Datatype::Custom(|text| schedule(text).map(drop))).known(KnownTo::Own),
        key("scrub-max-rate", Datatype::Custom(|text| rate(text).map(drop))).known(KnownTo::Own),
        // Python's server writes the format of the Python that runs it.
        key("new-file-format", Datatype::Custom(|text| new_file_format(text).map(drop)))
            .default("auto")
            .known(KnownTo::Own),
    ]),
};

/// Days of history that a pack by schedule keeps.
static PACK_DAYS: Bounds = Bounds { unit: Unit::Count, least: 0, most: 36500, or_none: false };

/// Bytes of a second that a scrub reads unless `scrub-max-rate` is given: an hour for 72 GB.
const SCRUB_RATE_DEFAULT: u64 = 20 << 20;

/// The storage inside a layer.
const fn base_slot() -> Child {
    Child::Slot {
        what: "storage section such as <filestorage> inside",
        types: STORAGES,
        required: true,
        multiple: false,
    }
}

pub static MAPPINGSTORAGE: SectionType = SectionType {
    name: "mappingstorage",
    content: Content::Checked(&[key("name", Datatype::Any).default(MAPPING_NAME)]),
};

pub static DEMOSTORAGE: SectionType = SectionType {
    name: "demostorage",
    content: Content::Checked(&[
        key("name", Datatype::Any),
        Child::Slot { what: "storage section inside", types: STORAGES, required: false, multiple: true },
    ]),
};

pub static BLOBSTORAGE: SectionType = SectionType {
    name: "blobstorage",
    content: Content::Checked(&[required_key("blob-dir", Datatype::Any), base_slot()]),
};

/// `%import zc.zlibstorage`
pub static ZLIBSTORAGE: SectionType = SectionType {
    name: "zlibstorage",
    content: Content::Checked(&[base_slot(), key("compress", Datatype::Boolean).default("true")]),
};

pub static SERVERZLIBSTORAGE: SectionType = SectionType {
    name: "serverzlibstorage",
    content: Content::Checked(&[base_slot(), key("compress", Datatype::Boolean).default("true")]),
};

/// `%import zc.beforestorage`
pub static BEFORE: SectionType = SectionType {
    name: "before",
    content: Content::Checked(&[
        base_slot(),
        key("before", Datatype::Any).default("now"),
        key("before-from-file", Datatype::Any),
    ]),
};

/// `%import zc.zrs`
pub static ZRS: SectionType = SectionType {
    name: "zrs",
    content: Content::Checked(&[
        base_slot(),
        key("replicate-to", Datatype::SocketBindingAddress),
        key("replicate-from", Datatype::SocketAddress),
        key("keep-alive-delay", Datatype::Integer).default("0"),
    ]),
};

/// `%import tempstorage`
pub static TEMPORARYSTORAGE: SectionType = SectionType {
    name: "temporarystorage",
    content: Content::Checked(&[key("name", Datatype::Any).default(TEMPORARY_NAME)]),
};

/// A storage of ZODB or ZEO that is not supported.
const fn not_served(name: &'static str) -> SectionType {
    SectionType { name, content: Content::Opaque }
}

static FULLSTORAGE: SectionType = not_served("fullstorage");
static MINIMALSTORAGE: SectionType = not_served("minimalstorage");

/// All storages in the schemas of ZODB and ZEO, and those of importable packages.
pub static STORAGES: &[&SectionType] = &[
    &FILESTORAGE,
    &MAPPINGSTORAGE,
    &DEMOSTORAGE,
    &BLOBSTORAGE,
    &ZEOCLIENT,
    &CLIENTSTORAGE,
    &FULLSTORAGE,
    &MINIMALSTORAGE,
    &ZLIBSTORAGE,
    &SERVERZLIBSTORAGE,
    &BEFORE,
    &ZRS,
    &TEMPORARYSTORAGE,
    &RELSTORAGE,
];

/// Sections that need the `%import` of their package.
pub static IMPORTED: &[(&str, &[&str])] = &[
    ("zc.zlibstorage", &["zlibstorage", "serverzlibstorage"]),
    ("zc.beforestorage", &["before"]),
    ("zc.zrs", &["zrs"]),
    ("tempstorage", &["temporarystorage"]),
    ("relstorage", &["relstorage"]),
    ("ZEO", &["clientstorage"]),
];

/// Spellings of the packer that FileStorage uses by default.
const DEFAULT_PACKERS: &[&str] =
    &["", "ZODB.FileStorage:FileStorage.packer", "ZODB.FileStorage.FileStorage:FileStorage.packer"];

/// Whether a section of the file is a storage.
pub fn is_storage(own: &StorageKinds, section: &Section) -> bool {
    is_builtin(&section.type_name) || own.get(&section.type_name).is_some()
}

fn is_builtin(type_name: &str) -> bool {
    STORAGES.iter().any(|storage| storage.name == type_name)
}

/// The kind of a section that this server does not have itself.
fn added<'a>(own: &'a StorageKinds, type_name: &str) -> Option<&'a StorageKind> {
    own.get(type_name).filter(|_| !is_builtin(type_name))
}

/// The section types of the storages that a program adds.
///
/// Schemas are constants, so these stay until the process ends. It reads its configuration once.
pub fn added_types(own: &StorageKinds) -> AddedTypes {
    let section_type = |kind: &StorageKind| -> &'static SectionType {
        let keys = kind.keys.iter().map(|name| key(name, Datatype::Any).known(KnownTo::Own));
        let children: Vec<Child> = keys.chain(kind.is_layer.then(base_slot)).collect();
        Box::leak(Box::new(SectionType { name: kind.name, content: Content::Checked(children.leak()) }))
    };
    AddedTypes { types: own.iter().map(section_type).collect(), beside: FILESTORAGE.name }
}

/// A section that [`is_storage`], which the schema has checked. `own`: the kinds of storage that the program adds.
pub fn storage(own: &StorageKinds, section: &Section) -> Result<StorageConfig, ConfigError> {
    Ok(match section.type_name.as_str() {
        "filestorage" => StorageConfig::File(file_storage(section)?),
        "mappingstorage" => StorageConfig::Mapping { name: name(section).unwrap_or(MAPPING_NAME.into()) },
        "temporarystorage" => {
            StorageConfig::Temporary { name: name(section).unwrap_or(TEMPORARY_NAME.into()) }
        }
        "demostorage" => StorageConfig::Demo(demo_storage(own, section)?),
        "blobstorage" => StorageConfig::Blob(blob_storage(own, section)?),
        "zlibstorage" => StorageConfig::Zlib(zlib_storage(own, section, false)?),
        "serverzlibstorage" => StorageConfig::Zlib(zlib_storage(own, section, true)?),
        "before" => StorageConfig::Before(before_storage(own, section)?),
        "zrs" => StorageConfig::Zrs(zrs(own, section)?),
        "relstorage" => StorageConfig::Postgres(Box::new(relstorage::relstorage(section)?)),
        "zeoclient" | "clientstorage" => StorageConfig::Client(Box::new(client::client_storage(section)?)),
        other => match added(own, other) {
            Some(kind) => StorageConfig::Own(own_storage(own, kind, section)?),
            None => {
                return Err(ConfigError::at(
                    &section.start,
                    format!("<{other}> is not supported: ZODB no longer has the Berkeley DB storages"),
                ));
            }
        },
    })
}

fn name(section: &Section) -> Option<String> {
    section.value("name").map(|value| value.text.clone())
}

/// The one inner storage.
fn base(own: &StorageKinds, section: &Section) -> Result<Box<StorageConfig>, ConfigError> {
    match section.sections().next() {
        Some(inner) => storage(own, inner).map(Box::new),
        None => Err(ConfigError::at(&section.end, format!("<{}> has no storage in it", section.type_name))),
    }
}

fn demo_storage(own: &StorageKinds, section: &Section) -> Result<DemoStorageConfig, ConfigError> {
    let mut demo = DemoStorageConfig { name: name(section), base: None, changes: None };
    for inner in section.sections() {
        let storage = Box::new(storage(own, inner)?);
        // Names are unique, so at most one has this name.
        if inner.name.as_deref() == Some("changes") {
            demo.changes = Some(storage);
            continue;
        }
        refuse_pack_schedule(&storage, "the base of a <demostorage> is never packed")?;
        if demo.base.replace(storage).is_some() {
            return Err(ConfigError::at(
                &inner.start,
                "too many base storages; name the one for changes 'changes'",
            ));
        }
    }
    Ok(demo)
}

fn blob_storage(own: &StorageKinds, section: &Section) -> Result<BlobStorageConfig, ConfigError> {
    let blob_dir = section.value("blob-dir").map(|value| value.text.clone()).unwrap_or_default();
    if blob_dir.is_empty() {
        return Err(ConfigError::at(&section.start, "the blob-dir of a <blobstorage> is empty"));
    }
    let base = base(own, section)?;
    check_keeps_blobs(&base).map_err(|what| {
        ConfigError::at(&section.start, format!("<blobstorage> with blob-dir {blob_dir}: {what}"))
    })?;
    Ok(BlobStorageConfig { blob_dir: blob_dir.into(), location: section.start.clone(), base })
}

/// Checks that the storage inside a `<blobstorage>` can keep blobs. It keeps them itself, as safely as its records.
fn check_keeps_blobs(storage: &StorageConfig) -> Result<(), &'static str> {
    match storage {
        StorageConfig::File(file) if file.options.blob_dir.is_some() => {
            Err("the <filestorage> in it has a blob-dir of its own")
        }
        StorageConfig::File(_) | StorageConfig::Mapping { .. } => Ok(()),
        StorageConfig::Demo(demo) => demo.changes.as_deref().map_or(Ok(()), check_keeps_blobs),
        StorageConfig::Zlib(zlib) => check_keeps_blobs(&zlib.base),
        StorageConfig::Zrs(zrs) => check_keeps_blobs(&zrs.base),
        StorageConfig::Before(_) => Err("the <before> storage in it is never written"),
        StorageConfig::Blob(_) => Err("the storage in it is a <blobstorage> already"),
        StorageConfig::Temporary { .. } => Err("the <temporarystorage> in it does not support blobs"),
        StorageConfig::Client(_) => {
            Err("the server of the client in it keeps the blobs: give the client a blob-dir instead")
        }
        StorageConfig::Postgres(_) => Err("the database in it keeps the blobs"),
        StorageConfig::Own(_) => Err("the storage in it does not support blobs"),
    }
}

fn zlib_storage(
    own: &StorageKinds,
    section: &Section,
    by_clients: bool,
) -> Result<ZlibStorageConfig, ConfigError> {
    let compress = section.get("compress", datatypes::boolean)?.unwrap_or(true);
    let base = base(own, section)?;
    if matches!(*base, StorageConfig::Temporary { .. }) {
        return Err(ConfigError::at(
            &section.start,
            format!(
                "<temporarystorage> reads the references in records, which <{}> compresses: it cannot be in it",
                section.type_name
            ),
        ));
    }
    Ok(ZlibStorageConfig { compress, by_clients, base })
}

fn before_storage(own: &StorageKinds, section: &Section) -> Result<BeforeStorageConfig, ConfigError> {
    let path = section.value("before-from-file").filter(|value| !value.text.is_empty());
    let before = match (section.value("before").filter(|value| !value.text.is_empty()), path) {
        (Some(before), Some(_)) => {
            return Err(ConfigError::at(
                &before.location,
                "only one of 'before' and 'before-from-file' can be given",
            ));
        }
        (None, Some(path)) => BeforeTime::FromFile(path.text.as_str().into()),
        (None, None) => BeforeTime::Now,
        (Some(before), None) => match before.text.to_lowercase().as_str() {
            "now" => BeforeTime::Now,
            "startup" => BeforeTime::Startup,
            _ => BeforeTime::At(
                Tid::from_iso(&before.text)
                    .map_err(|reason| ConfigError::at(&before.location, format!("before: {reason}")))?,
            ),
        },
    };
    let base = base(own, section)?;
    refuse_pack_schedule(&base, "the storage in <before> is never packed")?;
    Ok(BeforeStorageConfig { before, base })
}

fn zrs(own: &StorageKinds, section: &Section) -> Result<ZrsConfig, ConfigError> {
    let address = |key| match section.get(key, datatypes::socket_address)? {
        Some(Address::Tcp { port: None, .. }) => {
            let location = section.value(key).map_or(&section.start, |value| &value.location);
            Err(ConfigError::at(location, format!("{key} needs a port")))
        }
        address => Ok(address),
    };
    let (replicate_to, replicate_from) = (address("replicate-to")?, address("replicate-from")?);
    if replicate_to.is_none() && replicate_from.is_none() {
        let what = "<zrs> needs replicate-to (a primary), replicate-from (a secondary), or both";
        return Err(ConfigError::at(&section.start, what));
    }
    if replicate_to == replicate_from {
        let what = "<zrs> cannot replicate from itself: replicate-to and replicate-from are the same";
        return Err(ConfigError::at(&section.start, what));
    }
    let delay = section.get("keep-alive-delay", delay)?.unwrap_or_default();
    let base = base(own, section)?;
    if replicate_from.is_some() {
        check_takes_copies(&base)
            .map_err(|what| ConfigError::at(&section.start, format!("<zrs>: {what}")))?;
    }
    Ok(ZrsConfig {
        replicate_to,
        replicate_from,
        keep_alive_delay: Some(delay).filter(|delay| !delay.is_zero()),
        location: section.start.clone(),
        base,
    })
}

/// Checks that a storage can take the transactions of a primary.
fn check_takes_copies(storage: &StorageConfig) -> Result<(), &'static str> {
    match storage {
        StorageConfig::File(file) if file.options.read_only => {
            Err("a file that is only read cannot follow a primary")
        }
        StorageConfig::File(_) => Ok(()),
        StorageConfig::Postgres(_) => Err("a database is replicated by PostgreSQL"),
        StorageConfig::Blob(blob) => check_takes_copies(&blob.base),
        StorageConfig::Zrs(zrs) if zrs.replicate_from.is_none() => check_takes_copies(&zrs.base),
        StorageConfig::Zrs(_) => Err("the storage in it follows a primary already"),
        StorageConfig::Zlib(_) => {
            Err("records come as the primary has them: put the zlibstorage around <zrs>")
        }
        StorageConfig::Mapping { .. }
        | StorageConfig::Temporary { .. }
        | StorageConfig::Demo(_)
        | StorageConfig::Before(_)
        | StorageConfig::Client(_)
        | StorageConfig::Own(_) => Err("the storage in it cannot follow a primary; a <filestorage> can"),
    }
}

/// A number of seconds.
fn delay(text: &str) -> Result<Duration, String> {
    let seconds = u64::try_from(datatypes::integer(text)?);
    seconds.map(Duration::from_secs).map_err(|_| format!("{} is no number of seconds", quoted(text)))
}

fn own_storage(
    own: &StorageKinds,
    kind: &StorageKind,
    section: &Section,
) -> Result<OwnStorageConfig, ConfigError> {
    let values = kind.keys.iter().filter_map(|key| Some((*key, section.value(key)?.text.clone())));
    Ok(OwnStorageConfig {
        kind: *kind,
        settings: StorageSettings { name: section.name.clone(), values: values.collect(), base: None },
        base: if kind.is_layer { Some(base(own, section)?) } else { None },
        location: section.start.clone(),
    })
}

fn file_storage(section: &Section) -> Result<FileStorageConfig, ConfigError> {
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
    let defaults = FileStorageOptions::new(path);
    let options = FileStorageOptions {
        blob_dir: blob_dir(section)?,
        create: section.get("create", datatypes::boolean)?.unwrap_or(defaults.create),
        read_only: section.get("read-only", datatypes::boolean)?.unwrap_or(defaults.read_only),
        quota: section
            .get("quota", datatypes::byte_size)?
            .map(|quota| u64::try_from(quota.max(0)).unwrap_or(u64::MAX)),
        pack_gc: section.get("pack-gc", datatypes::boolean)?.unwrap_or(defaults.pack_gc),
        pack_keep_old: section.get("pack-keep-old", datatypes::boolean)?.unwrap_or(defaults.pack_keep_old),
        pack_refuse_large_removals: section
            .get("pack-refuse-large-removals", datatypes::boolean)?
            .unwrap_or(defaults.pack_refuse_large_removals),
        pack_max_rate: section.get("pack-max-rate", rate)?,
        new_file_format: section.get("new-file-format", new_file_format)?.unwrap_or_default(),
        ..defaults
    };
    options.check().map_err(|error| ConfigError::at(&section.start, format!("<filestorage>: {error}")))?;
    let pack_schedule = pack_schedule(section, options.read_only)?;
    let scrub = scrub(section, options.read_only)?;
    Ok(FileStorageConfig { options, pack_schedule, scrub, location: section.start.clone() })
}

/// The keys `scrub-schedule` and `scrub-max-rate`.
fn scrub(section: &Section, read_only: bool) -> Result<Option<ScrubConfig>, ConfigError> {
    let rate_max = section.get("scrub-max-rate", rate)?;
    let at = |key: &str| section.value(key).map_or(&section.start, |value| &value.location);
    match section.get("scrub-schedule", schedule)? {
        Some(_) if read_only => {
            let what =
                "scrub-schedule: nothing is written beside a file that is only read, so it has no checksums";
            Err(ConfigError::at(at("scrub-schedule"), what))
        }
        Some(schedule) => {
            Ok(Some(ScrubConfig { schedule, rate_max: rate_max.unwrap_or(SCRUB_RATE_DEFAULT) }))
        }
        None if rate_max.is_some() => {
            let what = "scrub-max-rate is for the checks of scrub-schedule, which is not given";
            Err(ConfigError::at(at("scrub-max-rate"), what))
        }
        None => Ok(None),
    }
}

/// The keys `pack-schedule` and `pack-days`.
fn pack_schedule(
    section: &Section,
    read_only: bool,
) -> Result<Option<(PackSchedule, Location)>, ConfigError> {
    let days = section.get("pack-days", |text| datatypes::bounded(text, &PACK_DAYS))?.flatten();
    let Some(schedule) = section.get("pack-schedule", schedule)? else {
        return match section.value("pack-days") {
            Some(days) => Err(ConfigError::at(
                &days.location,
                "pack-days is for the packs of pack-schedule, which is not given",
            )),
            None => Ok(None),
        };
    };
    let location = section.value("pack-schedule").map_or(&section.start, |value| &value.location);
    if read_only {
        return Err(ConfigError::at(location, "pack-schedule: a file that is only read cannot be packed"));
    }
    // The bound of the key is far below.
    let days = days.map_or(PACK_DAYS_DEFAULT, |days| u32::try_from(days).unwrap_or(u32::MAX));
    Ok(Some((PackSchedule { schedule, days }, location.clone())))
}

pub fn schedule(text: &str) -> Result<Schedule, String> {
    text.parse().map_err(|why| format!("{} is not a schedule: {why}", quoted(text)))
}

/// Refuses a schedule in a storage for which it would have no effect.
fn refuse_pack_schedule(storage: &StorageConfig, why: &str) -> Result<(), ConfigError> {
    match storage.pack_schedule() {
        Some((_, location)) => Err(ConfigError::at(location, format!("pack-schedule: {why}"))),
        None => Ok(()),
    }
}

/// The blob directory. An empty path means none, as in Python.
fn blob_dir(section: &Section) -> Result<Option<PathBuf>, ConfigError> {
    Ok(section.get("blob-dir", datatypes::existing_dirpath)?.filter(|path| !path.as_os_str().is_empty()))
}

/// Bytes a second.
pub fn rate(text: &str) -> Result<u64, String> {
    match u64::try_from(datatypes::byte_size(text)?) {
        Ok(rate) if rate > 0 => Ok(rate),
        _ => Err(format!("{} is no rate; use a number of bytes for each second, such as 20MB", quoted(text))),
    }
}

fn new_file_format(text: &str) -> Result<NewFileFormat, String> {
    match text.to_lowercase().as_str() {
        "auto" => Ok(NewFileFormat::Auto),
        "fs21" => Ok(NewFileFormat::FS21),
        "fs30" => Ok(NewFileFormat::FS30),
        _ => Err(format!("{} is not a format; use auto, FS21 (Python 2) or FS30 (Python 3)", quoted(text))),
    }
}
