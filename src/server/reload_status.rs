//! How the last reload of the configuration has ended, for monitoring.

use std::time::SystemTime;

use crate::base::sync::{Mutex, rank};

/// The reloads of a server.
#[derive(Debug)]
pub struct ReloadStatus(Mutex<ReloadFacts, rank::ReloadFacts>);

/// What has come of them.
#[derive(Clone, Debug)]
pub struct ReloadFacts {
    /// When the configuration that is in use was read.
    pub read: SystemTime,
    /// When the last reload failed, and why. `None`: it has succeeded, or there was none.
    pub failure: Option<(SystemTime, String)>,
    /// Changes that wait for a restart, in words.
    pub waiting: Vec<String>,
}

impl ReloadStatus {
    /// `now`: the configuration of the start was read.
    pub fn new(now: SystemTime) -> ReloadStatus {
        ReloadStatus(Mutex::new(ReloadFacts { read: now, failure: None, waiting: Vec::new() }))
    }

    pub fn facts(&self) -> ReloadFacts {
        self.0.lock().clone()
    }

    /// A reload has succeeded. `waiting`: what it has left to a restart.
    pub fn succeeded(&self, now: SystemTime, waiting: Vec<String>) {
        *self.0.lock() = ReloadFacts { read: now, failure: None, waiting };
    }

    /// A reload has failed: everything is as before.
    pub fn failed(&self, now: SystemTime, why: String) {
        self.0.lock().failure = Some((now, why));
    }
}
