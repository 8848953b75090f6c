//! `<network>`: rates that all clients of some networks have together.

use super::limits;
use super::listen::networks;
use crate::config::NetworkConfig;
use crate::config::zconfig::datatypes::{Bounds, Datatype, bounded};
use crate::config::zconfig::matcher::{Content, KnownTo, SectionType, key, required_key};
use crate::config::zconfig::{ConfigError, Section};
use crate::server::rates::Rates;

/// Those of `<zeo>`, without `none`: a section replaces nothing that could be without a limit.
static REQUESTS: Bounds = Bounds { or_none: false, ..limits::REQUESTS_PER_SECOND.bounds };
/// The same.
static SENT: Bounds = Bounds { or_none: false, ..limits::SENT_PER_SECOND.bounds };

pub static NETWORK: SectionType = SectionType {
    name: "network",
    content: Content::Own(&[
        required_key("addresses", Datatype::Custom(|text| networks(text).map(drop))).known(KnownTo::Own),
        key("max-requests-per-second", Datatype::Bounded(&REQUESTS)).known(KnownTo::Own),
        key("max-sent-per-second", Datatype::Bounded(&SENT)).known(KnownTo::Own),
    ]),
};

/// Reads a section that the schema has checked.
pub fn network(section: &Section) -> Result<NetworkConfig, ConfigError> {
    let config = NetworkConfig {
        section: section.shown(),
        addresses: section.get("addresses", networks)?.unwrap_or_default(),
        rates: Rates {
            requests: section.get("max-requests-per-second", |text| bounded(text, &REQUESTS))?.flatten(),
            sent: section.get("max-sent-per-second", |text| bounded(text, &SENT))?.flatten(),
        },
        location: section.start.clone(),
    };
    if config.rates.are_unlimited() {
        let message = "neither max-requests-per-second nor max-sent-per-second: nothing would be limited";
        return Err(ConfigError::at(&section.start, message));
    }
    Ok(config)
}
