//! `<backup>`: backups that the server makes by itself.

use std::path::PathBuf;
use std::time::Duration;

use super::storages::{rate, schedule};
use crate::backup::repository::retention::Retention;
use crate::config::zconfig::datatypes::{self, Bounds, Datatype, Unit, expand_user};
use crate::config::zconfig::matcher::{Child, Content, KnownTo, SectionType, key, required_key};
use crate::config::zconfig::{ConfigError, Section, quoted};
use crate::config::{BackupConfig, SendConfig};

/// Number of backups of a kind that are kept.
static KEEP: Bounds = Bounds { unit: Unit::Count, least: 0, most: 100_000, or_none: false };
/// Time without any progress after which a command is killed.
static COMMAND_TIMEOUT: Bounds = Bounds { unit: Unit::Seconds, least: 1, most: 7 * 86_400, or_none: false };
const COMMAND_TIMEOUT_DEFAULT: &str = "10m";
const KEEP_KEYS: [&str; 4] = ["keep-last", "keep-daily", "keep-weekly", "keep-monthly"];

pub static BACKUP: SectionType = SectionType {
    name: "backup",
    content: Content::Own(&[
        required_key("repository", Datatype::Any),
        key("schedule", Datatype::Custom(|text| schedule(text).map(drop))).known(KnownTo::Own),
        key("continuous", Datatype::Custom(|text| interval(text).map(drop))).known(KnownTo::Own),
        key("max-rate", Datatype::Custom(|text| rate(text).map(drop))).known(KnownTo::Own),
        key("command", Datatype::Any).known(KnownTo::Own),
        key("command-timeout", Datatype::Bounded(&COMMAND_TIMEOUT))
            .default(COMMAND_TIMEOUT_DEFAULT)
            .known(KnownTo::Own),
        keep("keep-last"),
        keep("keep-daily"),
        keep("keep-weekly"),
        keep("keep-monthly"),
    ]),
};

const fn keep(name: &'static str) -> Child {
    key(name, Datatype::Bounded(&KEEP)).known(KnownTo::Own)
}

/// Reads the section.
pub fn backup(section: &Section) -> Result<BackupConfig, ConfigError> {
    let repository = section.get("repository", |text| Ok(expand_user(text)))?;
    let config = BackupConfig {
        repository: repository.unwrap_or_else(PathBuf::new),
        schedule: section.get("schedule", schedule)?,
        continuous: section.get("continuous", interval)?,
        rate_max: section.get("max-rate", rate)?,
        retention: retention(section)?,
        send: send(section)?,
        location: section.start.clone(),
    };
    if config.repository.as_os_str().is_empty() {
        return Err(ConfigError::at(&section.start, "repository: the name of a directory is needed"));
    }
    if config.schedule.is_none() && config.continuous.is_none() {
        let message = "neither a schedule nor continuous: no backup would be made";
        return Err(ConfigError::at(&section.start, message));
    }
    if config.schedule.is_none()
        && let Some(value) = KEEP_KEYS.iter().find_map(|name| section.value(name))
    {
        let message = format!("{} is for the backups of a schedule, which is not given", value.key);
        return Err(ConfigError::at(&value.location, message));
    }
    Ok(config)
}

fn send(section: &Section) -> Result<Option<SendConfig>, ConfigError> {
    let timeout = section.get("command-timeout", |text| datatypes::bounded(text, &COMMAND_TIMEOUT))?;
    let Some(command) = section.value("command") else {
        return match section.value("command-timeout") {
            Some(value) => Err(ConfigError::at(
                &value.location,
                "command-timeout is for the command that backups are sent with, which is not given",
            )),
            None => Ok(None),
        };
    };
    if command.text.trim().is_empty() {
        return Err(ConfigError::at(&command.location, "command: a command is needed"));
    }
    let default = || datatypes::bounded(COMMAND_TIMEOUT_DEFAULT, &COMMAND_TIMEOUT).ok().flatten();
    let timeout = Duration::from_secs(timeout.flatten().or_else(default).unwrap_or(COMMAND_TIMEOUT.most));
    Ok(Some(SendConfig { command: command.text.clone(), timeout }))
}

fn retention(section: &Section) -> Result<Option<Retention>, ConfigError> {
    let count = |name: &str| -> Result<usize, ConfigError> {
        let count = section.get(name, |text| datatypes::bounded(text, &KEEP))?.flatten();
        // The bound is far below.
        Ok(count.map_or(0, |count| usize::try_from(count).unwrap_or(usize::MAX)))
    };
    let [last, daily, weekly, monthly] = KEEP_KEYS.map(count);
    let retention = Retention { last: last?, daily: daily?, weekly: weekly?, monthly: monthly? };
    Ok((retention != Retention::default()).then_some(retention))
}

/// At least a second.
fn interval(text: &str) -> Result<Duration, String> {
    match u64::try_from(datatypes::time_interval(text)?) {
        Ok(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("{} is no interval; use a number of seconds, or 10s, 5m", quoted(text))),
    }
}
