//! `<http>`: probes and metrics for operators.

use super::listen::mode;
use crate::base::address::Address;
use crate::config::HttpConfig;
use crate::config::zconfig::datatypes::{self, Datatype};
use crate::config::zconfig::matcher::{Content, KnownTo, SectionType, key, required_key};
use crate::config::zconfig::{ConfigError, Location, Section};

pub static HTTP: SectionType = SectionType {
    name: "http",
    content: Content::Checked(&[
        required_key("address", Datatype::SocketBindingAddress),
        key("socket-mode", Datatype::Custom(|text| mode(text).map(drop))).known(KnownTo::Own),
    ]),
};

/// The values of the section, before `--http`.
#[derive(Debug, Default)]
pub struct HttpSection {
    address: Option<Address>,
    socket_mode: Option<(u32, Location)>,
}

impl HttpSection {
    pub fn from_section(section: &Section) -> Result<HttpSection, ConfigError> {
        let socket_mode = section.value("socket-mode").zip(section.get("socket-mode", mode)?);
        Ok(HttpSection {
            address: section.get("address", datatypes::socket_address)?,
            socket_mode: socket_mode.map(|(value, mode)| (mode, value.location.clone())),
        })
    }

    /// The configuration, with the address of `--http`. `None`: nothing is served over HTTP.
    pub fn with_option(self, option: Option<Address>) -> Result<Option<HttpConfig>, String> {
        let Some(address) = option.or(self.address) else { return Ok(None) };
        match self.socket_mode {
            Some((_, location)) if !matches!(address, Address::Unix(_)) => {
                Err(format!("{location}: socket-mode is for Unix sockets, and the address is none"))
            }
            mode => Ok(Some(HttpConfig { address, socket_mode: mode.map(|(mode, _)| mode) })),
        }
    }
}
