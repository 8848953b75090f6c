//! `log-level`: what the log has, for as long as the server runs.

use serde_json::{Value, json};

use super::caller::LOG;
use super::exchange::{AdminCall, Exchange};
use super::steered::Steered;
use crate::base::level::name;
use crate::config::log_level;

/// `{"level": "debug"}`: a level of `<eventlog>`, or `default`, the configured one; without a level nothing is
/// changed. The result has the names `level` and `configured`.
pub(super) fn set(steered: &Steered, call: &AdminCall, _: &mut Exchange) -> Result<Value, String> {
    let log = &steered.log;
    let level = match call.text("level")? {
        None => None,
        Some("default") => Some(log.configured_level()),
        Some(text) => Some(log_level(text)?),
    };
    if let Some(level) = level {
        let [before, after] = [log.level(), level].map(name);
        let line = format!("the level of the log is set from {before} to {after} for {}", call.caller);
        // Both the log of before and the one of after should have it.
        if level > log.level() {
            log::warn!(target: LOG, "{line}");
            log.set_level(level);
        } else {
            log.set_level(level);
            log::warn!(target: LOG, "{line}");
        }
    }
    Ok(json!({ "level": name(log.level()), "configured": name(log.configured_level()) }))
}
