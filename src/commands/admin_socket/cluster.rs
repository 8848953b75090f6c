//! `role`, `promote`, `demote` and `follow`: this server in its cluster.

use std::time::Duration;

use serde_json::{Value, json};

use super::caller::LOG;
use super::exchange::{AdminCall, Exchange};
use super::steered::Steered;
use crate::config::zconfig::datatypes::connection_address;
use crate::replication::cluster::Promotion;

/// Longest wait of a promotion for the primary to be demoted or to go, in seconds, unless the request has another one.
const WAIT_DEFAULT: f64 = 30.0;
/// Longest that a request can have.
const WAIT_MAX: f64 = 86400.0;

/// The cluster as this server sees it: a [`ClusterStatus`](crate::server::status::cluster::ClusterStatus).
pub(super) fn role(steered: &Steered, _: &AdminCall, _: &mut Exchange) -> Result<Value, String> {
    let status = steered.member()?.status();
    serde_json::to_value(status).map_err(|error| format!("internal error: {error}"))
}

/// `{"wait": seconds, "force": false}`: makes this replica the primary. The result has `role` and `done`, a sentence.
pub(super) fn promote(steered: &Steered, call: &AdminCall, _: &mut Exchange) -> Result<Value, String> {
    let wait = call.number("wait")?.unwrap_or(WAIT_DEFAULT);
    let wait = Some(wait).filter(|wait| (0.0..=WAIT_MAX).contains(wait));
    let wait =
        wait.ok_or_else(|| format!("'wait' of the request is not between 0 and {WAIT_MAX} seconds"))?;
    let promotion = Promotion { wait: Duration::from_secs_f64(wait), force: call.flag("force")? };
    let force = if promotion.force { " by force" } else { "" };
    done(steered, call, &format!("promotion{force}"), |steered| {
        steered.member()?.cluster().promote(&promotion)
    })
}

/// Makes this primary a replica.
pub(super) fn demote(steered: &Steered, call: &AdminCall, _: &mut Exchange) -> Result<Value, String> {
    done(steered, call, "demotion", |steered| steered.member()?.cluster().demote())
}

/// `{"address": "HOST:PORT"}`: makes this server a replica of the one there.
pub(super) fn follow(steered: &Steered, call: &AdminCall, _: &mut Exchange) -> Result<Value, String> {
    let text = call.text("address")?.ok_or("name the address of the other server")?;
    let address = connection_address(text)?;
    done(steered, call, &format!("to follow {address}"), |steered| {
        steered.member()?.cluster().follow(address.clone())
    })
}

/// Does it, with a line in the log that says who has asked, and one if it is not done.
fn done(
    steered: &Steered,
    call: &AdminCall,
    what: &str,
    act: impl FnOnce(&Steered) -> Result<String, String>,
) -> Result<Value, String> {
    let member = steered.member()?;
    log::warn!(target: LOG, "{what}: asked for by {}", call.caller);
    let done = act(steered).inspect_err(|error| log::error!(target: LOG, "{what}: not done: {error}"))?;
    Ok(json!({ "role": member.status().role, "done": done }))
}
