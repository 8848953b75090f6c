//! `check`: what a restart would make of the configuration as it is now.

use serde_json::{Value, json};

use super::exchange::{AdminCall, Exchange};
use super::steered::Steered;
use crate::config::Invocation;

/// Reads the configuration again, with the command line and the environment of the start. The result has `error`, why
/// it cannot be used, or null; and the lines of `--check` that would go (`removed`) and come (`added`).
pub(super) fn check(steered: &Steered, _: &AdminCall, _: &mut Exchange) -> Result<Value, String> {
    let now = match steered.given.read() {
        Ok(Invocation::Serve(config) | Invocation::Check(config)) => config.describe(),
        Ok(Invocation::Print(_)) => String::new(),
        Err(error) => return Ok(json!({ "error": error.message, "removed": [], "added": [] })),
    };
    let lines_without = |text: &str, other: &str| -> Vec<String> {
        text.lines().filter(|line| !other.lines().any(|known| known == *line)).map(String::from).collect()
    };
    Ok(json!({
        "error": null,
        "removed": lines_without(&steered.described, &now),
        "added": lines_without(&now, &steered.described),
    }))
}
