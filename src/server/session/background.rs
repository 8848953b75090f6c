//! Background jobs: calls that take long (undo logs, packs) are done by another thread, while the session goes on.
//! They have pools of their own, so that no vote waits behind them.
//!
//! The number of jobs of one client is limited. A session that has reached the limit waits, and reads nothing, until
//! a job has ended.

use std::time::Duration;

use crate::base::sync::Arc;
use crate::server::job_panic::contained;
use crate::server::registered::Registered;
use crate::server::session::Session;
use crate::server::session::jobs::JobGuard;
use crate::server::slow::Step;
use crate::server::workers::Workers;

/// Jobs of one client at the same time.
const JOBS_MAX: usize = 8;
/// Interval at which a session that waits checks whether the client or the server has gone.
const PAUSE: Duration = Duration::from_millis(100);

impl Session {
    /// Reads for one call in another thread, and notes if that took long.
    pub(super) fn read_in_background(
        &self,
        registered: &Registered,
        method: &'static str,
        read: impl FnOnce() + Send + 'static,
    ) {
        let mut call = registered.begin_call(method);
        let registered = registered.clone();
        self.run_in_background(&registered.hosted.workers.background.clone(), move || {
            call.mark(Step::Queue, registered.hosted.clock.now());
            read();
            call.mark(Step::Read, registered.hosted.clock.now());
            registered.note_slow(registered.end_call(&call));
        });
    }

    /// Runs `job` in a thread of `pool`, as soon as this client may have one more.
    pub(super) fn run_in_background(&self, pool: &Workers, job: impl FnOnce() + Send + 'static) {
        let mut running = self.background_jobs.running.lock();
        while *running >= JOBS_MAX {
            if self.connection.outbox.is_closed() || self.server.is_stopping() {
                return;
            }
            running = self.background_jobs.ended.wait_timeout(running, PAUSE);
        }
        *running += 1;
        drop(running);
        let guard = JobGuard(Arc::clone(&self.background_jobs));
        let connection = Arc::clone(&self.connection);
        pool.run(move || {
            let _guard = guard;
            contained(&connection, job);
        });
    }
}
