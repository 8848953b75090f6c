//! Who holds the locks of a storage, and who waits for them.

use std::time::SystemTime;

use serde::Serialize;

use super::client::ClientReport;
use super::time::{passed, unix};
use crate::base::histogram::Distribution;
use crate::server::hosted::Hosted;
use crate::server::oid_locks::LockRequest;

/// The locks of a storage.
#[derive(Clone, Debug, Serialize)]
pub struct LockReport {
    /// For how long the oldest holder has had its locks; `None`: no locks are held.
    pub oldest_hold_seconds: Option<f64>,
    /// Transactions that hold locks, in the order of their requests.
    pub holders: Vec<LockEntry>,
    /// Transactions that wait, in the order of their requests.
    pub waiters: Vec<LockEntry>,
    /// For how long transactions have waited for their locks, and have held them.
    #[serde(skip)]
    pub wait_times: Distribution,
    #[serde(skip)]
    pub hold_times: Distribution,
}

/// A transaction that holds locks or waits for them.
#[derive(Clone, Debug, Serialize)]
pub struct LockEntry {
    /// Number of the connection, whose transaction is in the list of clients.
    pub client: u64,
    /// Its label; empty if it has gone at this moment.
    pub label: String,
    /// Since when it has held its locks, or has waited. `None` at the moment of the grant.
    pub since: Option<f64>,
    pub seconds: Option<f64>,
    /// Number of objects that it locks.
    pub objects: usize,
    /// It locks all objects: a copy, an undo or a commit of a client before ZEO 5.
    pub whole_storage: bool,
    /// Numbers of the connections that it waits for, as far as they were looked for.
    pub waits_for: Vec<u64>,
}

impl LockReport {
    pub(super) fn of(hosted: &Hosted, clients: &[ClientReport], now: SystemTime) -> LockReport {
        let entry = |request: LockRequest| LockEntry {
            client: request.owner,
            label: clients
                .iter()
                .find(|client| client.id == request.owner)
                .map(|client| client.label.clone())
                .unwrap_or_default(),
            since: request.since.map(unix),
            seconds: request.since.map(|since| passed(since, now)),
            objects: request.objects,
            whole_storage: request.objects == 0,
            waits_for: request.behind,
        };
        let (waiters, holders): (Vec<_>, Vec<_>) =
            hosted.locks.requests().into_iter().partition(|request| request.is_waiting);
        let [wait_times, hold_times] = hosted.locks.times();
        LockReport {
            oldest_hold_seconds: hosted.locks.locked_for().map(|held| held.as_secs_f64()),
            holders: holders.into_iter().map(entry).collect(),
            waiters: waiters.into_iter().map(entry).collect(),
            wait_times,
            hold_times,
        }
    }
}
