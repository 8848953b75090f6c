//! `<relstorage>`: a database of RelStorage in PostgreSQL. `%import relstorage`
//!
//! The section has RelStorage's keys and no others, so that Python reads the file on the way back. Keys that have no
//! meaning here are taken, with a line in the log.

use std::time::Duration;

use super::client::{PERCENT, percent, size};
use crate::config::PostgresStorageConfig;
use crate::config::zconfig::datatypes::{self, Datatype};
use crate::config::zconfig::matcher::{Child, Content, SectionType, key};
use crate::config::zconfig::{ConfigError, Section, quoted};
use crate::postgres::dsn::Dsn;
use crate::storage::postgres::options::PostgresOptions;

/// A database that is not served.
const fn other_database(name: &'static str) -> SectionType {
    SectionType { name, content: Content::Opaque }
}

static MYSQL: SectionType = other_database("mysql");
static ORACLE: SectionType = other_database("oracle");
static SQLITE3: SectionType = other_database("sqlite3");

pub static POSTGRESQL: SectionType = SectionType {
    name: "postgresql",
    content: Content::Checked(&[
        key("driver", Datatype::Custom(|text| driver(text).map(drop))).default("auto"),
        key("dsn", Datatype::Custom(|text| dsn(text).map(drop))).default(""),
    ]),
};

pub static RELSTORAGE: SectionType = SectionType {
    name: "relstorage",
    content: Content::Checked(&[
        Child::Slot {
            what: "<postgresql> section",
            types: &[&POSTGRESQL, &MYSQL, &ORACLE, &SQLITE3],
            required: true,
            multiple: false,
        },
        key("name", Datatype::Any),
        key("read-only", Datatype::Boolean).default("false"),
        key("keep-history", Datatype::Boolean).default("true"),
        key("create-schema", Datatype::Boolean).default("true"),
        key("commit-lock-timeout", Datatype::Custom(|text| lock_timeout(text).map(drop))).default("30"),
        key("commit-lock-id", Datatype::Integer),
        key("blob-dir", Datatype::Any),
        key("shared-blob-dir", Datatype::Boolean).default("false"),
        key("blob-cache-size", Datatype::ByteSize),
        key("blob-cache-size-check", PERCENT).default("10"),
        key("blob-cache-size-check-external", Datatype::Boolean),
        key("blob-chunk-size", Datatype::Custom(|text| chunk_size(text).map(drop))).default("1MB"),
        key("replica-conf", Datatype::Any),
        key("ro-replica-conf", Datatype::Any),
        key("replica-timeout", Datatype::Custom(|text| replica_timeout(text).map(drop))).default("600"),
        key("revert_when_stale", Datatype::Boolean),
        key("revert-when-stale", Datatype::Boolean),
        key("poll-interval", Datatype::Float),
        key("pack-gc", Datatype::Boolean),
        key("pack-prepack-only", Datatype::Boolean),
        key("pack-skip-prepack", Datatype::Boolean),
        key("pack-batch-timeout", Datatype::Custom(|text| batch_timeout(text).map(drop))),
        key("pack-commit-busy-delay", Datatype::Float),
        key("cache-local-mb", Datatype::Custom(|text| megabytes(text).map(drop))),
        key("cache-local-object-max", Datatype::ByteSize).default("16384"),
        key("cache-local-compression", Datatype::Any),
        key("cache-local-dir", Datatype::Any),
        key("cache-local-storage", Datatype::Any),
        key("cache-local-dir-count", Datatype::Integer),
        key("cache-local-dir-read-count", Datatype::Integer),
        key("cache-local-dir-compress", Datatype::Boolean),
        key("cache-local-dir-write-max-size", Datatype::ByteSize),
        key("cache-delta-size-limit", Datatype::Integer),
        key("cache-prefix", Datatype::Any),
        key("cache-servers", Datatype::Any),
        key("cache-module-name", Datatype::Any),
    ]),
};

/// Keys without effect, and why.
const IGNORED: &[(&str, &str)] = &[
    ("commit-lock-id", "it is for Oracle"),
    ("poll-interval", "new transactions are looked for all the time"),
    ("pack-commit-busy-delay", "packs do not wait for commits"),
    ("blob-cache-size-check-external", "no other process checks it"),
    ("cache-local-compression", "the records in memory are not compressed"),
    ("cache-local-dir", "clients of ZEO have cache files of their own"),
    ("cache-local-storage", "clients of ZEO have cache files of their own"),
    ("cache-local-dir-count", "clients of ZEO have cache files of their own"),
    ("cache-local-dir-read-count", "clients of ZEO have cache files of their own"),
    ("cache-local-dir-compress", "clients of ZEO have cache files of their own"),
    ("cache-local-dir-write-max-size", "clients of ZEO have cache files of their own"),
    ("cache-delta-size-limit", "the records in memory need no such list"),
    ("cache-prefix", "memcached is not used"),
    ("cache-servers", "memcached is not used"),
    ("cache-module-name", "memcached is not used"),
];

const STALE: &str =
    "a server cannot take back what its clients have seen; it waits for a standby that is behind";
const ONE_PHASE: &str = "packs have one phase";
/// Switches whose effect users rely on, and which this server does not have.
const UNSUPPORTED_WHEN_TRUE: &[(&str, &str)] = &[
    ("pack-prepack-only", ONE_PHASE),
    ("pack-skip-prepack", ONE_PHASE),
    ("revert_when_stale", STALE),
    ("revert-when-stale", STALE),
];

/// A section that the schema has checked.
pub fn relstorage(section: &Section) -> Result<PostgresStorageConfig, ConfigError> {
    let Some(adapter) = section.sections().next() else {
        return Err(ConfigError::at(&section.end, "<relstorage> has no <postgresql> in it"));
    };
    if adapter.type_name != POSTGRESQL.name {
        let what = format!(
            "<{}>: of RelStorage's databases only PostgreSQL is supported; copy this one with zodbconvert",
            adapter.type_name
        );
        return Err(ConfigError::at(&adapter.start, what));
    }
    for (name, why) in UNSUPPORTED_WHEN_TRUE {
        if section.get(name, datatypes::boolean)? == Some(true) {
            let location = section.value(name).map_or(&section.start, |value| &value.location);
            return Err(ConfigError::at(location, format!("{name} of <relstorage> is not supported: {why}")));
        }
    }
    let mut options = PostgresOptions::new(
        adapter
            .get("dsn", dsn)?
            .map_or_else(|| dsn(""), Ok)
            .map_err(|reason| ConfigError::at(&adapter.start, format!("dsn: {reason}")))?,
    );
    options.name = section.value("name").map(|value| value.text.clone());
    options.read_only = read_only(section, &options.dsn)?;
    let path = |name| section.value(name).map(|value| value.text.clone().into());
    (options.replica_conf, options.ro_replica_conf) = (path("replica-conf"), path("ro-replica-conf"));
    let own_timeout =
        section.get("replica-timeout", replica_timeout)?.filter(|own| *own != options.replica_timeout);
    options.replica_timeout = own_timeout.unwrap_or(options.replica_timeout);
    options.keep_history = section.get("keep-history", datatypes::boolean)?.unwrap_or(options.keep_history);
    options.create_schema =
        section.get("create-schema", datatypes::boolean)?.unwrap_or(options.create_schema);
    options.lock_timeout = section.get("commit-lock-timeout", lock_timeout)?.unwrap_or(options.lock_timeout);
    options.cache_size = section.get("cache-local-mb", megabytes)?.unwrap_or(options.cache_size);
    if let Some(size) = section.get("cache-local-object-max", datatypes::byte_size)? {
        options.cache_record_max = usize::try_from(size).unwrap_or(0);
    }
    blobs(section, &mut options)?;
    options.pack_gc = section.get("pack-gc", datatypes::boolean)?.unwrap_or(options.pack_gc);
    options.pack_batch_timeout =
        section.get("pack-batch-timeout", batch_timeout)?.unwrap_or(options.pack_batch_timeout);
    let warnings = IGNORED.iter().filter_map(|(name, why)| {
        let value = section.value(name)?;
        Some(format!("{}: {name} has no effect: {why}", value.location))
    });
    Ok(PostgresStorageConfig {
        options,
        location: section.start.clone(),
        ro_replica_conf: section.value("ro-replica-conf").map(|value| value.location.clone()),
        replica_timeout: section
            .value("replica-timeout")
            .filter(|_| own_timeout.is_some())
            .map(|value| value.location.clone()),
        warnings: warnings.collect(),
    })
}

/// A connection string that asks for a standby is one of a storage that is only read.
fn read_only(section: &Section, dsn: &Dsn) -> Result<bool, ConfigError> {
    match section.get("read-only", datatypes::boolean)? {
        Some(false) if dsn.target.is_for_reading() => {
            let location = section.value("read-only").map_or(&section.start, |value| &value.location);
            let what =
                "read-only false: the target_session_attrs of the dsn asks for a server that is only read";
            Err(ConfigError::at(location, what))
        }
        read_only => Ok(read_only.unwrap_or(dsn.target.is_for_reading())),
    }
}

/// Where blobs are.
fn blobs(section: &Section, options: &mut PostgresOptions) -> Result<(), ConfigError> {
    options.blob_dir = section.value("blob-dir").map(|value| value.text.clone().into());
    options.shared_blob_dir =
        section.get("shared-blob-dir", datatypes::boolean)?.unwrap_or(options.shared_blob_dir);
    if options.shared_blob_dir && options.blob_dir.is_none() {
        let location = section.value("shared-blob-dir").map_or(&section.start, |value| &value.location);
        return Err(ConfigError::at(location, "shared-blob-dir true needs the directory, blob-dir"));
    }
    options.blob_cache_size = section.get("blob-cache-size", size)?;
    let check = section.get("blob-cache-size-check", percent)?;
    options.blob_cache_size_check = check.unwrap_or(options.blob_cache_size_check);
    options.blob_chunk_size = section.get("blob-chunk-size", chunk_size)?.unwrap_or(options.blob_chunk_size);
    Ok(())
}

/// Bytes of the pieces of a blob: small pieces take many messages, large ones fill the memory.
fn chunk_size(text: &str) -> Result<usize, String> {
    const BOUNDS: std::ops::RangeInclusive<usize> = 64 << 10..=64 << 20;
    let size = usize::try_from(datatypes::byte_size(text)?).unwrap_or(usize::MAX);
    Ok(size.clamp(*BOUNDS.start(), *BOUNDS.end()))
}

fn dsn(text: &str) -> Result<Dsn, String> {
    Dsn::parse(text, &|name| std::env::var(name).ok()).map_err(|error| error.to_string())
}

fn driver(text: &str) -> Result<(), String> {
    match text {
        "auto" | "psycopg2" | "gevent psycopg2" | "psycopg2cffi" | "pg8000" => Ok(()),
        _ => Err(format!("{} is no driver of RelStorage for PostgreSQL", quoted(text))),
    }
}

fn lock_timeout(text: &str) -> Result<Duration, String> {
    let seconds = datatypes::integer(text)?;
    match u64::try_from(seconds) {
        Ok(seconds) if seconds <= 24 * 60 * 60 => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("{} is not a number of seconds up to a day", quoted(text))),
    }
}

fn batch_timeout(text: &str) -> Result<Duration, String> {
    let seconds = datatypes::float(text)?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(timeout) if timeout <= Duration::from_secs(24 * 60 * 60) => Ok(timeout),
        _ => Err(format!("{} is not a number of seconds up to a day", quoted(text))),
    }
}

fn replica_timeout(text: &str) -> Result<Duration, String> {
    let seconds = datatypes::float(text)?;
    Duration::try_from_secs_f64(seconds).map_err(|_| format!("{} is not a number of seconds", quoted(text)))
}

fn megabytes(text: &str) -> Result<usize, String> {
    let count = datatypes::integer(text)?;
    let bytes = usize::try_from(count).ok().and_then(|count| count.checked_mul(1 << 20));
    bytes.ok_or_else(|| format!("{} is not a number of megabytes", quoted(text)))
}
