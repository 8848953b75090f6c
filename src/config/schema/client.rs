//! `<zeoclient>` and `<clientstorage>`: the storage of another ZEO server.
//!
//! Both sections have the keys of both, in all versions of Python: a key that one version ignores has the effect that
//! it has in another one. `docs/operations.md` has the differences. What a library reads of a `zodb.conf` is here, too.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::ssl::{self, CLIENT_SSL};
use crate::base::address::Address;
use crate::client::dial::Credentials;
use crate::client::options::ClientOptions;
use crate::config::ClientStorageConfig;
use crate::config::schema::zeo::seconds;
use crate::config::zconfig::datatypes::{self, Datatype};
use crate::config::zconfig::matcher::{Child, Content, KnownTo, SectionType, key, required_multikey};
use crate::config::zconfig::tree::Value;
use crate::config::zconfig::{ConfigError, Section, quoted};

const ZODB_3_9: KnownTo = KnownTo::Since("ZODB 3.9");
const ZODB_3_10: KnownTo = KnownTo::Since("ZODB 3.10");
const ZEO_5: KnownTo = KnownTo::Since("ZEO 5.0");

const SERVER: Datatype = Datatype::Custom(|text| datatypes::connection_address(text).map(drop));
const SECONDS: Datatype = Datatype::Custom(|text| whole_seconds(text).map(drop));
pub const PERCENT: Datatype = Datatype::Custom(|text| percent(text).map(drop));

const SSL_SLOT: Child =
    Child::Slot { what: "<ssl> section", types: &[&CLIENT_SSL], required: false, multiple: false };

/// ZODB's section.
pub static ZEOCLIENT: SectionType = SectionType {
    name: "zeoclient",
    content: Content::Checked(&[
        SSL_SLOT,
        required_multikey("server", SERVER),
        key("storage", Datatype::Any).default("1"),
        key("cache-size", Datatype::ByteSize).default("20MB"),
        key("cache-path", Datatype::Any).known(KnownTo::Own),
        key("client", Datatype::Any),
        key("var", Datatype::Any),
        key("name", Datatype::Any).default(""),
        key("client-label", Datatype::Any).known(ZODB_3_10),
        key("read-only", Datatype::Boolean).default("off"),
        key("read-only-fallback", Datatype::Boolean).default("off"),
        key("wait", Datatype::Boolean).default("on"),
        key("wait-timeout", SECONDS).default("30").known(KnownTo::Own),
        key("min-disconnect-poll", SECONDS).default("5"),
        key("max-disconnect-poll", SECONDS).default("300"),
        key("username", Datatype::Any),
        key("password", Datatype::Any),
        key("realm", Datatype::Any),
        key("blob-dir", Datatype::Any),
        key("shared-blob-dir", Datatype::Boolean).default("no"),
        key("blob-cache-size", Datatype::ByteSize).known(ZODB_3_9),
        key("blob-cache-size-check", PERCENT).default("10").known(ZODB_3_9),
        key("server-sync", Datatype::Boolean).default("off").known(KnownTo::Own),
        key("drop-cache-rather-verify", Datatype::Boolean).default("off").known(ZODB_3_9),
    ]),
};

/// `%import ZEO`
pub static CLIENTSTORAGE: SectionType = SectionType {
    name: "clientstorage",
    content: Content::Checked(&[
        SSL_SLOT,
        required_multikey("server", SERVER).known(ZEO_5),
        key("storage", Datatype::Any).default("1").known(ZEO_5),
        key("cache-size", Datatype::ByteSize).default("20MB").known(ZEO_5),
        key("cache-path", Datatype::Any).known(ZEO_5),
        key("client", Datatype::Any).known(KnownTo::Own),
        key("var", Datatype::Any).known(KnownTo::Own),
        key("name", Datatype::Any).default("").known(ZEO_5),
        key("client-label", Datatype::Any).known(ZEO_5),
        key("read-only", Datatype::Boolean).default("off").known(ZEO_5),
        key("read-only-fallback", Datatype::Boolean).default("off").known(ZEO_5),
        key("wait", Datatype::Boolean).default("on").known(KnownTo::Own),
        key("wait-timeout", SECONDS).default("30").known(ZEO_5),
        key("min-disconnect-poll", SECONDS).default("5").known(KnownTo::Own),
        key("max-disconnect-poll", SECONDS).default("300").known(KnownTo::Own),
        key("username", Datatype::Any).known(KnownTo::Own),
        key("password", Datatype::Any).known(KnownTo::Own),
        key("realm", Datatype::Any).known(KnownTo::Own),
        key("blob-dir", Datatype::Any).known(ZEO_5),
        key("shared-blob-dir", Datatype::Boolean).default("no").known(ZEO_5),
        key("blob-cache-size", Datatype::ByteSize).known(ZEO_5),
        key("blob-cache-size-check", PERCENT).default("10").known(ZEO_5),
        key("server-sync", Datatype::Boolean).default("off").known(ZEO_5),
        key("drop-cache-rather-verify", Datatype::Boolean).default("off").known(KnownTo::Own),
    ]),
};

/// Either section, which the schema has checked.
pub fn client_storage(section: &Section) -> Result<ClientStorageConfig, ConfigError> {
    let mut options = ClientOptions::new(addresses(section)?);
    options.tls = section.sections().next().map(ssl::client_ssl).transpose()?;
    if let Some(storage) = section.value("storage") {
        options.storage = storage.text.clone();
    }
    options.name = text(section, "name").unwrap_or_default();
    options.label = text(section, "client-label");
    if let Some(size) = section.get("cache-size", size)? {
        options.cache_size = size;
    }
    options.credentials = credentials(section)?;
    options.blob_dir = section.value("blob-dir").map(|value| value.text.clone().into());
    options.blob_cache_size = section.get("blob-cache-size", size)?;
    if let Some(check) = section.get("blob-cache-size-check", percent)? {
        options.blob_cache_size_check = check;
    }
    set_flags(section, &mut options)?;
    set_times(section, &mut options)?;
    let mut warnings = Vec::new();
    options.cache_path = cache_path(section, &options.storage, &mut warnings)?;
    options.check().map_err(|error| {
        let location = section.value(error.key).map_or(&section.start, |value| &value.location);
        ConfigError::at(location, error.to_string())
    })?;
    for ignored in options.without_effect() {
        let location = section.value(ignored.key).map_or(&section.start, |value| &value.location);
        warnings.push(format!("{location}: {} has no effect: {}", ignored.key, ignored.message()));
    }
    if let (None, Some(check)) = (options.blob_cache_size, section.value("blob-cache-size-check")) {
        warnings.push(format!(
            "{}: blob-cache-size-check has no effect: there is no blob-cache-size",
            check.location
        ));
    }
    Ok(ClientStorageConfig { options, location: section.start.clone(), warnings })
}

fn addresses(section: &Section) -> Result<Vec<Address>, ConfigError> {
    let servers = section.values().filter(|value| value.key.eq_ignore_ascii_case("server"));
    let address = |value: &Value| {
        datatypes::connection_address(&value.text)
            .map_err(|reason| ConfigError::at(&value.location, format!("server: {reason}")))
    };
    servers.map(address).collect()
}

fn set_flags(section: &Section, options: &mut ClientOptions) -> Result<(), ConfigError> {
    for (key, flag) in [
        ("read-only", &mut options.read_only),
        ("read-only-fallback", &mut options.read_only_fallback),
        ("wait", &mut options.wait),
        ("shared-blob-dir", &mut options.shared_blob_dir),
        ("server-sync", &mut options.server_sync),
        ("drop-cache-rather-verify", &mut options.drop_cache_rather_verify),
    ] {
        if let Some(value) = section.get(key, datatypes::boolean)? {
            *flag = value;
        }
    }
    Ok(())
}

fn set_times(section: &Section, options: &mut ClientOptions) -> Result<(), ConfigError> {
    // For Python's client, too, 0 is the default.
    if let Some(timeout) = section.get("wait-timeout", whole_seconds)?.filter(|timeout| !timeout.is_zero()) {
        options.wait_timeout = timeout;
    }
    let poll = &mut options.disconnect_poll;
    match (
        section.get("min-disconnect-poll", whole_seconds)?,
        section.get("max-disconnect-poll", whole_seconds)?,
    ) {
        (Some(min), Some(max)) => *poll = (min, max),
        (Some(min), None) => *poll = (min, poll.1.max(min)),
        (None, Some(max)) => *poll = (poll.0.min(max), max),
        (None, None) => {}
    }
    Ok(())
}

/// `cache-path`, or `<var>/<client>-<storage>.zec`.
fn cache_path(
    section: &Section,
    storage: &str,
    warnings: &mut Vec<String>,
) -> Result<Option<PathBuf>, ConfigError> {
    let given = |key| section.value(key).filter(|value| !value.text.is_empty());
    let var = given("var");
    match (given("cache-path"), given("client")) {
        (Some(path), Some(client)) => Err(ConfigError::at(
            &client.location,
            format!(
                "client names a cache file in the directory var, and cache-path ({}) another one: give only one of \
                 them",
                path.location
            ),
        )),
        (Some(path), None) => {
            if let Some(var) = var {
                warnings.push(format!(
                    "{}: var has no effect: cache-path is the whole path of the cache file",
                    var.location
                ));
            }
            Ok(Some(path.text.clone().into()))
        }
        (None, Some(client)) => {
            let name = format!("{}-{storage}.zec", client.text);
            Ok(Some(var.map_or(Path::new(""), |var| Path::new(&var.text)).join(name)))
        }
        (None, None) => {
            if let Some(var) = var {
                warnings.push(format!(
                    "{}: var has no effect without client: the cache is a temporary file",
                    var.location
                ));
            }
            Ok(None)
        }
    }
}

/// `username`, `password` and `realm`. One that cannot be used without another one is refused.
fn credentials(section: &Section) -> Result<Option<Credentials>, ConfigError> {
    let given = |key| section.value(key).filter(|value| !value.text.is_empty());
    let realm = given("realm");
    let lacks = |value: &Value, what: &str| {
        Err(ConfigError::at(&value.location, format!("{} has no effect without a {what}", value.key)))
    };
    match (given("username"), given("password")) {
        (Some(username), Some(password)) => Ok(Some(Credentials {
            username: username.text.clone(),
            password: password.text.clone(),
            realm: realm.map(|realm| realm.text.clone()),
        })),
        (Some(username), None) => lacks(username, "password"),
        (None, Some(password)) => lacks(password, "username"),
        (None, None) => realm.map_or(Ok(None), |realm| lacks(realm, "username")),
    }
}

/// The text of a key, unless it is empty.
fn text(section: &Section, key: &str) -> Option<String> {
    section.value(key).map(|value| value.text.clone()).filter(|text| !text.is_empty())
}

/// Bytes. What is below 0 is 0, as for Python's client.
pub fn size(text: &str) -> Result<u64, String> {
    Ok(u64::try_from(datatypes::byte_size(text)?.max(0)).unwrap_or(u64::MAX))
}

fn whole_seconds(text: &str) -> Result<Duration, String> {
    match datatypes::integer(text)? {
        number if number >= 0 => Ok(seconds(number as f64)),
        _ => Err(format!("{} is not a number of seconds", quoted(text))),
    }
}

pub fn percent(text: &str) -> Result<u8, String> {
    match u8::try_from(datatypes::integer(text)?) {
        Ok(percent @ 0..=99) => Ok(percent),
        _ => Err(format!("{} is not a percentage between 0 and 99", quoted(text))),
    }
}
