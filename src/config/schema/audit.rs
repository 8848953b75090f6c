//! `<audit>`: the file of the audit log, and what it has lines about.

use std::collections::BTreeSet;

use super::eventlog::rotation;
use crate::config::AuditConfig;
use crate::config::zconfig::datatypes::{self, Datatype};
use crate::config::zconfig::matcher::{Content, KnownTo, SectionType, key, required_key};
use crate::config::zconfig::{ConfigError, Section};
use crate::logging::FileSetup;
use crate::server::audit::Event;

pub static AUDIT: SectionType = SectionType {
    name: "audit",
    content: Content::Checked(&[
        required_key("path", Datatype::Any),
        key("events", Datatype::Custom(|text| events(text).map(drop)))
            .default("register refused disconnect commit pack admin")
            .known(KnownTo::Own),
        key("old-files", Datatype::Integer).default("0"),
        key("max-size", Datatype::ByteSize).default("0"),
        key("when", Datatype::Any).default(""),
        key("interval", Datatype::Integer).default("0"),
    ]),
};

pub fn audit(section: &Section) -> Result<AuditConfig, ConfigError> {
    let path = section.get("path", datatypes::string)?.unwrap_or_default();
    let refused = |reason: &str| ConfigError::at(&section.start, format!("<audit>: {reason}"));
    if matches!(path.as_str(), "" | "STDOUT" | "STDERR") {
        return Err(refused("path names no file"));
    }
    let rotation = rotation(section)?.map_err(refused)?;
    let events = section.get("events", events)?.unwrap_or_else(|| Event::ALL.into());
    Ok(AuditConfig { file: FileSetup { path: path.into(), rotation, delay: false }, events })
}

/// Names of events, with blanks between them.
fn events(text: &str) -> Result<BTreeSet<Event>, String> {
    let named = |name: &str| {
        let event = Event::ALL.into_iter().find(|event| event.name() == name);
        let names = || Event::ALL.map(Event::name).join(", ");
        event.ok_or_else(|| format!("'{name}' is no event; there are {}", names()))
    };
    let events: BTreeSet<Event> = text.split_whitespace().map(named).collect::<Result<_, _>>()?;
    if events.is_empty() { Err("it names no event".into()) } else { Ok(events) }
}
