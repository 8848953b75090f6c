//! `<http>`: probes and metrics for operators.

use super::listen::{ALLOW, ListenAccess, SOCKET_MODE, access};
use super::ssl;
use crate::base::address::Address;
use crate::config::zconfig::datatypes::{self, Datatype};
use crate::config::zconfig::matcher::{Child, Content, KnownTo, SectionType, required_key};
use crate::config::zconfig::{ConfigError, Section};
use crate::config::{HttpConfig, SslConfig};

pub static HTTP: SectionType = SectionType {
    name: "http",
    content: Content::Own(&[
        Child::Slot { what: "<ssl> section", types: &[&ssl::SSL], required: false, multiple: false },
        required_key("address", Datatype::SocketBindingAddress).known(KnownTo::Own),
        ALLOW,
        SOCKET_MODE,
    ]),
};

/// The values of the section, before `--http`.
#[derive(Debug, Default)]
pub struct HttpSection {
    address: Option<Address>,
    access: ListenAccess,
    ssl: Option<SslConfig>,
}

impl HttpSection {
    pub fn from_section(section: &Section) -> Result<HttpSection, ConfigError> {
        Ok(HttpSection {
            address: section.get("address", datatypes::socket_address)?,
            access: access(section)?,
            ssl: section.sections().next().map(ssl::ssl).transpose()?,
        })
    }

    /// The configuration, with the address of `--http`. `None`: nothing is served over HTTP.
    pub fn with_option(self, option: Option<Address>) -> Result<Option<HttpConfig>, String> {
        let Some(address) = option.or(self.address) else { return Ok(None) };
        self.access.check(matches!(address, Address::Unix(_)))?;
        let ListenAccess { allow, socket_mode, .. } = self.access;
        let allow = allow.map(|(networks, _)| networks);
        let socket_mode = socket_mode.map(|(mode, _)| mode);
        Ok(Some(HttpConfig { address, socket_mode, allow, ssl: self.ssl }))
    }
}
