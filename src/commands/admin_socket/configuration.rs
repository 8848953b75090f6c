//! `check`: what a restart would make of the configuration as it is now; `reload`, which applies it.

use serde_json::{Value, json};

use super::exchange::{AdminCall, Exchange};
use super::steered::Steered;
use crate::config::Reading;

/// `{"dry_run": true}`: reads the configuration again, and applies what can be applied, or only says what would happen.
/// The result has `error`, why it cannot be used, or null; and `changes`, each with `section`, `key`, `before`,
/// `after`, `effect` (`applied`, `restart` or `none`), a `note` about that, and `location`.
pub(super) fn reload(steered: &Steered, call: &AdminCall, _: &mut Exchange) -> Result<Value, String> {
    let is_dry_run = call.flag("dry_run")?;
    // Before the server is ready nothing can be compared.
    steered.server()?;
    Ok(match steered.reloader.reload(is_dry_run, &call.caller)? {
        Ok(report) => report.to_json(),
        Err(error) => json!({ "error": error, "changes": [], "notes": [] }),
    })
}

/// Reads the configuration again, with the command line and the environment of the start. The result has `error`, why
/// it cannot be used, or null; and the lines of `--check` that would go (`removed`) and come (`added`).
pub(super) fn check(steered: &Steered, _: &AdminCall, _: &mut Exchange) -> Result<Value, String> {
    let now = match steered.given.read() {
        Ok(Reading::Config { config, .. }) => config.describe(),
        Ok(Reading::Print(_)) => String::new(),
        Err(error) => return Ok(json!({ "error": error.message, "removed": [], "added": [] })),
    };
    let described = steered.reloader.described();
    let lines_without = |text: &str, other: &str| -> Vec<String> {
        text.lines().filter(|line| !other.lines().any(|known| known == *line)).map(String::from).collect()
    };
    Ok(json!({
        "error": null,
        "removed": lines_without(&described, &now),
        "added": lines_without(&now, &described),
    }))
}
