//! Requests that took long.

use serde::Serialize;

use super::time::unix;
use crate::server::slow::{SlowRequest, Step, WaitedFor};

/// A request that took longer than `slow-request-time`.
#[derive(Clone, Debug, Serialize)]
pub struct SlowReport {
    /// When it ended.
    pub time: f64,
    pub method: &'static str,
    /// Number and label of the client.
    pub client: u64,
    pub label: String,
    pub seconds: f64,
    pub steps: Vec<StepReport>,
    /// Whose locks it had to wait for first; `None`: for those of no other.
    pub behind: Option<WaitedForReport>,
    /// The object that it was for, in hex; `None`: it was not for one.
    pub oid: Option<String>,
    /// The transaction that it has committed, in hex.
    pub tid: Option<String>,
    /// Of its transaction; `None`: it belongs to none.
    pub user: Option<String>,
    pub description: Option<String>,
}

/// What the time of a request has gone into.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    /// `queue`, `locks`, `read`, `check`, `merge`, `write`, `sync` or `send`.
    pub step: &'static str,
    pub seconds: f64,
}

/// The transaction whose locks a request had to wait for.
#[derive(Clone, Debug, Serialize)]
pub struct WaitedForReport {
    /// Number and label of the client; its label is `None` if it has gone.
    pub client: u64,
    pub label: Option<String>,
    /// The object, in hex; `None`: the whole storage.
    pub oid: Option<String>,
}

impl SlowReport {
    pub(super) fn of(request: SlowRequest) -> SlowReport {
        let SlowRequest { at, method, client, label, took, steps, behind, oid, tid, transaction } = request;
        let [user, description] = transaction.map_or([None, None], |texts| texts.map(Some));
        let step = |(step, took): (Step, std::time::Duration)| StepReport {
            step: step.name(),
            seconds: took.as_secs_f64(),
        };
        let behind = behind.map(|WaitedFor { client, label, oid }| WaitedForReport {
            client,
            label,
            oid: oid.map(|oid| format!("{:#x}", oid.0)),
        });
        SlowReport {
            time: unix(at),
            method,
            client,
            label,
            seconds: took.as_secs_f64(),
            steps: steps.into_iter().map(step).collect(),
            behind,
            oid: oid.map(|oid| format!("{:#x}", oid.0)),
            tid: tid.map(|tid| tid.to_string()),
            user,
            description,
        }
    }
}
