//! `<zeo>`: the server itself.

use std::path::PathBuf;
use std::time::Duration;

use super::{not_supported_yet, refuse};
use crate::base::address::Address;
use crate::config::zconfig::datatypes::{self, Datatype};
use crate::config::zconfig::matcher::{Child, Content, SectionType, key, required_key};
use crate::config::zconfig::{ConfigError, Section};

static SSL: SectionType = SectionType {
    name: "ssl",
    content: Content::Checked(&[
        required_key("certificate", Datatype::ExistingDirpath),
        key("key", Datatype::ExistingDirpath),
        key("password-function", Datatype::Any),
        required_key("authenticate", Datatype::Any),
    ]),
};

/// Keys of ZEO 4 and ZEO 6 together.
pub static ZEO: SectionType = SectionType {
    name: "zeo",
    content: Content::Checked(&[
        Child::Slot { what: "<ssl> section", types: &[&SSL], required: false, multiple: false },
        required_key("address", Datatype::SocketBindingAddress),
        key("read-only", Datatype::Boolean),
        key("invalidation-queue-size", Datatype::Integer),
        key("invalidation-age", Datatype::Float),
        key("monitor-address", Datatype::SocketBindingAddress),
        key("transaction-timeout", Datatype::Integer),
        key("authentication-protocol", Datatype::Any),
        key("authentication-database", Datatype::Any),
        key("authentication-realm", Datatype::Any),
        key("pid-filename", Datatype::ExistingDirpath),
        key("drop-cache-rather-verify", Datatype::Boolean),
        key("client-conflict-resolution", Datatype::Boolean),
        key("msgpack", Datatype::Boolean),
    ]),
};

/// What the section says; the command line may say otherwise.
#[derive(Debug, Default)]
pub struct ZeoSection {
    pub address: Option<Address>,
    pub read_only: Option<bool>,
    pub invalidation_queue_size: Option<usize>,
    pub invalidation_age: Option<Duration>,
    pub monitor_address: Option<Address>,
    pub transaction_timeout: Option<Duration>,
    pub pid_filename: Option<PathBuf>,
    pub drop_cache_rather_verify: Option<bool>,
    pub msgpack: Option<bool>,
}

impl ZeoSection {
    pub fn from_section(section: &Section) -> Result<ZeoSection, ConfigError> {
        if let Some(ssl) = section.sections().next() {
            return Err(not_supported_yet(&ssl.start, "<ssl>"));
        }
        for authentication in ["authentication-protocol", "authentication-database", "authentication-realm"] {
            refuse(section, authentication, "authentication")?;
        }
        if section.get("client-conflict-resolution", datatypes::boolean)? == Some(true) {
            refuse(section, "client-conflict-resolution", "leaving conflicts to the client")?;
        }
        let transaction_timeout = section.get("transaction-timeout", datatypes::integer)?;
        Ok(ZeoSection {
            address: section.get("address", datatypes::socket_address)?,
            read_only: section.get("read-only", datatypes::boolean)?,
            invalidation_queue_size: section
                .get("invalidation-queue-size", datatypes::integer)?
                .map(|count| usize::try_from(count.max(0)).unwrap_or(usize::MAX)),
            // As in Python, an age of zero is none, and no client is younger than a negative one.
            invalidation_age: section
                .get("invalidation-age", datatypes::float)?
                .filter(|age| *age > 0.0)
                .map(seconds),
            monitor_address: section.get("monitor-address", datatypes::socket_address)?,
            transaction_timeout: transaction_timeout.map(|timeout| seconds(timeout as f64)),
            pid_filename: section.get("pid-filename", datatypes::existing_dirpath)?,
            drop_cache_rather_verify: section.get("drop-cache-rather-verify", datatypes::boolean)?,
            msgpack: section.get("msgpack", datatypes::boolean)?,
        })
    }
}

/// A length of time within bounds that can be added to a clock: 0 to some thirty years.
pub fn seconds(seconds: f64) -> Duration {
    let bounded = if seconds.is_nan() { 0.0 } else { seconds.clamp(0.0, 1e9) };
    Duration::from_secs_f64(bounded)
}
