//! `<listen>`: an address at which clients are served, with keys of its own. What it does not say, `<zeo>` says.

use super::{limits, ssl};
use crate::base::address::Address;
use crate::base::network::Networks;
use crate::config::SslConfig;
use crate::config::zconfig::datatypes::{self, Datatype};
use crate::config::zconfig::matcher::{Child, Content, KnownTo, SectionType, key, required_key};
use crate::config::zconfig::{ConfigError, Location, Section, quoted};

pub static LISTEN: SectionType = SectionType {
    name: "listen",
    content: Content::Own(&[
        Child::Slot { what: "<ssl> section", types: &[&ssl::SSL], required: false, multiple: false },
        required_key("address", Datatype::SocketBindingAddress).known(KnownTo::Own),
        key("ssl", Datatype::Boolean).known(KnownTo::Own),
        key("authentication", Datatype::Custom(|text| passwords(text).map(drop))).known(KnownTo::Own),
        key("read-only", Datatype::Boolean).known(KnownTo::Own),
        key("storages", Datatype::Custom(|text| storages(text).map(drop))).known(KnownTo::Own),
        ALLOW,
        PROXY_PROTOCOL,
        key("max-connections", Datatype::Bounded(&limits::CONNECTIONS.bounds)).known(KnownTo::Own),
        key("max-requests-per-second", Datatype::Bounded(&limits::REQUESTS_PER_SECOND.bounds))
            .known(KnownTo::Own),
        key("max-sent-per-second", Datatype::Bounded(&limits::SENT_PER_SECOND.bounds)).known(KnownTo::Own),
        key("priority", Datatype::Custom(|text| is_low(text).map(drop))).known(KnownTo::Own),
        SOCKET_MODE,
        SOCKET_GROUP,
    ]),
};

/// Of `<zeo>`, too.
pub const ALLOW: Child = key("allow", Datatype::Custom(|text| networks(text).map(drop))).known(KnownTo::Own);
/// The same.
pub const PROXY_PROTOCOL: Child =
    key("proxy-protocol", Datatype::Custom(|text| networks(text).map(drop))).known(KnownTo::Own);

/// The same.
pub const SOCKET_MODE: Child =
    key("socket-mode", Datatype::Custom(|text| mode(text).map(drop))).known(KnownTo::Own);
/// The same.
pub const SOCKET_GROUP: Child =
    key("socket-group", Datatype::Custom(|text| datatypes::group(text).map(drop))).known(KnownTo::Own);

/// The values of a section. `None`: it does not say.
#[derive(Debug)]
pub struct ListenSection {
    pub name: Option<String>,
    pub address: Address,
    /// `Some(None)`: no TLS.
    pub ssl: Option<Option<SslConfig>>,
    /// The same as in `<zeo>`, which must have one.
    pub ssl_of_zeo: Option<Location>,
    /// Whether clients need a password.
    pub passwords: Option<(bool, Location)>,
    pub read_only: Option<(bool, Location)>,
    pub storages: Option<(Vec<String>, Location)>,
    pub access: ListenAccess,
    /// `Some(None)`: no limit of its own.
    pub connections: Option<Option<u64>>,
    /// `Some(None)`: no limit.
    pub requests_per_second: Option<Option<u64>>,
    /// The same, in bytes.
    pub sent_per_second: Option<Option<u64>>,
    /// Its clients stand back behind others.
    pub low_priority: Option<(bool, Location)>,
    /// Of the key `address`.
    pub location: Location,
}

/// The keys that `<zeo>` has as well.
#[derive(Debug, Default)]
pub struct ListenAccess {
    pub allow: Option<(Networks, Location)>,
    pub proxies: Option<(Networks, Location)>,
    pub socket_mode: Option<(u32, Location)>,
    /// Name and id.
    pub socket_group: Option<((String, u32), Location)>,
}

impl ListenAccess {
    /// Refuses keys that do not fit the address.
    pub fn check(&self, is_unix: bool) -> Result<(), String> {
        let refuse = |location: &Location, why: String| Err(format!("{location}: {why}"));
        match self {
            ListenAccess { allow: Some((_, location)), .. } if is_unix => refuse(location, for_tcp("allow")),
            ListenAccess { proxies: Some((_, location)), .. } if is_unix => {
                refuse(location, for_tcp("proxy-protocol"))
            }
            ListenAccess { socket_mode: Some((_, location)), .. } if !is_unix => {
                refuse(location, for_unix("socket-mode"))
            }
            ListenAccess { socket_group: Some((_, location)), .. } if !is_unix => {
                refuse(location, for_unix("socket-group"))
            }
            _ => Ok(()),
        }
    }
}

/// Why a key does not fit an address of TCP.
pub fn for_unix(key: &str) -> String {
    format!("{key} is for Unix sockets, and the address is none")
}

/// Why a key does not fit a Unix socket.
pub fn for_tcp(key: &str) -> String {
    format!(
        "{key} is for addresses of IP, and a Unix socket has none; its file says who may connect (socket-mode)"
    )
}

/// Reads a section that the schema has checked.
pub fn listen(section: &Section) -> Result<ListenSection, ConfigError> {
    let Some(address) = section.get("address", datatypes::socket_address)? else {
        return Err(ConfigError::at(&section.start, "<listen> lacks the required key 'address'"));
    };
    let at = |key| section.value(key).map_or(section.start.clone(), |value| value.location.clone());
    let own = section.sections().next().map(ssl::ssl).transpose()?;
    let said = section.get("ssl", datatypes::boolean)?;
    let (ssl, ssl_of_zeo) = match (own, said) {
        (Some(_), Some(_)) => {
            let message = "ssl: there is a section <ssl> as well; leave out one of them";
            return Err(ConfigError::at(&at("ssl"), message));
        }
        (Some(own), None) => (Some(Some(own)), None),
        (None, Some(false)) => (Some(None), None),
        (None, Some(true)) => (None, Some(at("ssl"))),
        (None, None) => (None, None),
    };
    Ok(ListenSection {
        name: section.name.clone(),
        ssl,
        ssl_of_zeo,
        passwords: with_location(section, "authentication", passwords)?,
        read_only: with_location(section, "read-only", datatypes::boolean)?,
        storages: with_location(section, "storages", storages)?,
        access: access(section)?,
        connections: section
            .get("max-connections", |text| datatypes::bounded(text, &limits::CONNECTIONS.bounds))?,
        requests_per_second: section.get("max-requests-per-second", |text| {
            datatypes::bounded(text, &limits::REQUESTS_PER_SECOND.bounds)
        })?,
        sent_per_second: section
            .get("max-sent-per-second", |text| datatypes::bounded(text, &limits::SENT_PER_SECOND.bounds))?,
        low_priority: with_location(section, "priority", is_low)?,
        location: at("address"),
        address,
    })
}

/// The keys that `<zeo>` has as well.
pub fn access(section: &Section) -> Result<ListenAccess, ConfigError> {
    Ok(ListenAccess {
        allow: with_location(section, "allow", networks)?,
        proxies: with_location(section, "proxy-protocol", networks)?,
        socket_mode: with_location(section, "socket-mode", mode)?,
        socket_group: with_location(section, "socket-group", datatypes::group)?,
    })
}

/// The value of a key, and where it is.
pub fn with_location<T>(
    section: &Section,
    key: &str,
    convert: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<(T, Location)>, ConfigError> {
    let value = section.get(key, convert)?;
    Ok(value.zip(section.value(key).map(|value| value.location.clone())))
}

/// Addresses and networks, with blanks between them.
pub(super) fn networks(text: &str) -> Result<Networks, String> {
    text.parse()
}

/// Whether a password is needed.
fn passwords(text: &str) -> Result<bool, String> {
    match text.to_lowercase().as_str() {
        "passwords" => Ok(true),
        "none" => Ok(false),
        _ => Err(format!(
            "{} is neither 'passwords', those of authentication-database in <zeo>, nor 'none'",
            quoted(text)
        )),
    }
}

/// Whether the priority is low.
fn is_low(text: &str) -> Result<bool, String> {
    match text.to_lowercase().as_str() {
        "low" => Ok(true),
        "normal" => Ok(false),
        _ => Err(format!("{} is neither 'low' nor 'normal'", quoted(text))),
    }
}

/// Names of storages, in lower case as those of sections are.
fn storages(text: &str) -> Result<Vec<String>, String> {
    let names: Vec<String> = text.split_whitespace().map(str::to_lowercase).collect();
    match names.is_empty() {
        true => Err("there is no name; write the names of storages, with blanks between them".into()),
        false => Ok(names),
    }
}

/// The mode of a Unix socket.
pub(super) fn mode(text: &str) -> Result<u32, String> {
    match u32::try_from(datatypes::octal(text)?) {
        Ok(mode @ 0..=0o777) => Ok(mode),
        _ => Err(format!("'{text}' is not a mode between 0 and 777, such as 660")),
    }
}
