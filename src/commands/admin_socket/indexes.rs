//! `save-index`: saves what makes a start after a crash quick.

use serde_json::{Value, json};

use super::exchange::{AdminCall, Exchange};
use super::steered::{Steered, unknown_storage};
use crate::base::clock::Stopwatch;

/// `{"storage": "1"}`, or all storages. The result has for each of them `storage`, `saved` (false: it keeps no index),
/// `seconds`, and `error` (null if there was none).
pub(super) fn save(steered: &Steered, call: &AdminCall, exchange: &mut Exchange) -> Result<Value, String> {
    let server = steered.server()?;
    let only = call.text("storage")?;
    if let Some(name) = only
        && server.hosted(name).is_none()
    {
        return Err(unknown_storage(name, server));
    }
    let mut saved = Vec::new();
    for hosted in server.storages().filter(|hosted| only.is_none_or(|name| hosted.name == name)) {
        exchange.progress(json!({ "storage": hosted.name }));
        let took = Stopwatch::start();
        let result = hosted.storage.save_index();
        saved.push(json!({
            "storage": hosted.name,
            "saved": result.as_ref().is_ok_and(|saved| *saved),
            "seconds": took.passed().as_secs_f64(),
            "error": result.err().map(|error| error.to_string()),
        }));
    }
    Ok(Value::Array(saved))
}
