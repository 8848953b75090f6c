//! `status`, which has all clients, and `kill`, which ends the connection of one.

use std::time::Duration;

use serde_json::{Value, json};

use super::caller::LOG;
use super::exchange::{AdminCall, Exchange};
use super::steered::Steered;
use crate::base::clock::Stopwatch;

/// Longest wait for the session to give back what it holds.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Interval at which that is looked at, if no client leaves.
const PAUSE: Duration = Duration::from_millis(100);

/// What the server knows of itself: a [`ServerReport`](crate::server::status::ServerReport).
pub(super) fn status(steered: &Steered, _: &AdminCall, _: &mut Exchange) -> Result<Value, String> {
    serde_json::to_value(steered.report()).map_err(|error| format!("internal error: {error}"))
}

/// `{"client": 17}`: ends the connection of this number. Its transaction is aborted, unless it is being finished, and
/// its locks are given back. The result has `client`, `label` and `ended`, whether all of that was done in time.
pub(super) fn kill(steered: &Steered, call: &AdminCall, _: &mut Exchange) -> Result<Value, String> {
    let server = steered.server()?;
    let number = call.number("client")?.ok_or("name a client by its number")?;
    let connection = server
        .client(number as u64)
        .filter(|connection| connection.id() as f64 == number)
        .ok_or_else(|| format!("no client has the number {number}: `zeoadmin clients` lists them"))?;
    let label = connection.peer.label();
    log::warn!(target: LOG, "({label}) connection {number} is ended for {}", call.caller);
    connection.outbox.close("ended by zeoadmin");
    let waited = Stopwatch::start();
    let is_there = || server.client(connection.id()).is_some();
    while is_there() && waited.passed() < WAIT_MAX {
        server.wait_for_departure(PAUSE);
    }
    Ok(json!({ "client": connection.id(), "label": label, "ended": !is_there() }))
}
