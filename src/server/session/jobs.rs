//! The number of background jobs of one client, which `background` limits.

use crate::base::sync::{Arc, Condvar, Mutex, rank};

/// The background jobs of one client.
#[derive(Debug, Default)]
pub struct Jobs {
    /// Number of jobs.
    pub running: Mutex<usize, rank::SessionJobs>,
    pub ended: Condvar,
}

/// One job, until this is dropped: also if it panics.
pub struct JobGuard(pub Arc<Jobs>);

impl Drop for JobGuard {
    fn drop(&mut self) {
        *self.0.running.lock() -= 1;
        self.0.ended.notify_all();
    }
}
