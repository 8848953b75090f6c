//! `<http>`: probes and metrics for operators.

use super::listen::{ALLOW, ListenAccess, SOCKET_MODE, access, for_tcp, with_location};
use super::ssl;
use crate::base::address::Address;
use crate::config::zconfig::datatypes::{self, Datatype};
use crate::config::zconfig::matcher::{Child, Content, KnownTo, SectionType, key, required_key};
use crate::config::zconfig::{ConfigError, Location, Section, quoted};
use crate::config::{HttpConfig, SslConfig};

pub static HTTP: SectionType = SectionType {
    name: "http",
    content: Content::Own(&[
        Child::Slot { what: "<ssl> section", types: &[&ssl::SSL], required: false, multiple: false },
        required_key("address", Datatype::SocketBindingAddress).known(KnownTo::Own),
        ALLOW,
        key("host", Datatype::Custom(|text| names(text).map(drop))).known(KnownTo::Own),
        SOCKET_MODE,
    ]),
};

/// The values of the section, before `--http`.
#[derive(Debug, Default)]
pub struct HttpSection {
    address: Option<Address>,
    access: ListenAccess,
    ssl: Option<SslConfig>,
    hosts: Option<(Vec<String>, Location)>,
}

impl HttpSection {
    pub fn from_section(section: &Section) -> Result<HttpSection, ConfigError> {
        Ok(HttpSection {
            address: section.get("address", datatypes::socket_address)?,
            access: access(section)?,
            ssl: section.sections().next().map(ssl::ssl).transpose()?,
            hosts: with_location(section, "host", names)?,
        })
    }

    /// The configuration, with the address of `--http`. `None`: nothing is served over HTTP.
    pub fn with_option(self, option: Option<Address>) -> Result<Option<HttpConfig>, String> {
        let Some(address) = option.or(self.address) else { return Ok(None) };
        self.access.check(matches!(address, Address::Unix(_)))?;
        if let Some((_, location)) = &self.hosts {
            let is_unix = matches!(address, Address::Unix(_));
            let why = match self.ssl {
                _ if is_unix => for_tcp("host"),
                Some(_) => "host is for addresses without <ssl>: with it, browsers compare the name with the certificate".into(),
                None => String::new(),
            };
            if !why.is_empty() {
                return Err(format!("{location}: {why}"));
            }
        }
        let hosts = self.hosts.map(|(hosts, _)| hosts).unwrap_or_default();
        let ListenAccess { allow, socket_mode, .. } = self.access;
        let allow = allow.map(|(networks, _)| networks);
        let socket_mode = socket_mode.map(|(mode, _)| mode);
        Ok(Some(HttpConfig { address, socket_mode, allow, hosts, ssl: self.ssl }))
    }
}

/// Names of hosts, without ports.
fn names(text: &str) -> Result<Vec<String>, String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.';
    let names: Vec<String> = text.split_whitespace().map(str::to_string).collect();
    match names.iter().find(|name| !name.chars().all(is_part)) {
        Some(wrong) => Err(format!("{} is no name of a host; a port does not belong to it", quoted(wrong))),
        None if names.is_empty() => {
            Err("there is no name; write names of hosts, with blanks between them".into())
        }
        None => Ok(names),
    }
}
