//! What a reload has done, for the caller and for the log.

use serde_json::{Value, json};

use crate::commands::admin_socket::Caller;
use crate::config::changes::Change;
use crate::config::changes::effects::Effect;

/// Target of log lines about reloads.
pub(super) const LOG: &str = "runzeo.admin";

/// What a reload has done, or would do.
pub(in crate::commands) struct ReloadReport {
    pub(super) changes: Vec<Change>,
    /// Warnings about the configuration that are new.
    pub(super) warnings: Vec<String>,
    /// What has become of listeners and clients.
    pub(super) notes: Vec<String>,
}

impl ReloadReport {
    /// Changes that the next start applies.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|change| change.effect == Effect::Restart)
    }

    pub(super) fn log(&self, caller: &Caller) {
        let count = self.changes.len();
        log::info!(target: LOG, "the configuration was read again for {caller}; changes: {count}");
        for change in &self.changes {
            let (what, location) = (in_words(change), &change.location);
            match change.effect {
                Effect::Applied("") => log::info!(target: LOG, "{location}: {what}"),
                Effect::Applied(to) => log::info!(target: LOG, "{location}: {what}, {to}"),
                Effect::Restart => {
                    log::warn!(target: LOG, "{location}: {what}: this takes effect at the next start");
                }
                Effect::Nothing(why) => {
                    log::warn!(target: LOG, "{location}: {what}: this has no effect: {why}");
                }
            }
        }
        self.notes.iter().for_each(|note| log::warn!(target: LOG, "{note}"));
        self.warnings.iter().for_each(|warning| log::warn!(target: LOG, "{warning}"));
    }

    pub(in crate::commands) fn to_json(&self) -> Value {
        json!({
            "error": null,
            "changes": self.changes.iter().map(to_json).collect::<Vec<_>>(),
            "notes": self.notes,
            "warnings": self.warnings,
        })
    }
}

fn to_json(change: &Change) -> Value {
    let (effect, note) = match change.effect {
        Effect::Applied(to) => ("applied", to),
        Effect::Restart => ("restart", ""),
        Effect::Nothing(why) => ("none", why),
    };
    json!({
        "section": change.section,
        "key": change.key,
        "before": change.before,
        "after": change.after,
        "effect": effect,
        "note": note,
        "location": change.location.to_string(),
        "text": in_words(change),
    })
}

/// `<zeo> transaction-timeout: 30 -> 60`, `<listen office> has come: address 8101`.
pub(super) fn in_words(change: &Change) -> String {
    let Change { section, key, before, after, .. } = change;
    match (key, before, after) {
        (Some(key), before, after) => {
            let [before, after] = [before, after].map(|text| text.as_deref().unwrap_or_default());
            format!("{section} {key}: {before} -> {after}")
        }
        (None, None, Some(content)) => format!("{section} has come: {content}"),
        (None, ..) => format!("{section} has gone"),
    }
}
