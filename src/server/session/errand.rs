//! Calls that take long (undo logs, packs): another thread does them, while the session goes on. So many at a time for one
//! client; with the next it waits, and reads nothing meanwhile. They have pools of their own: nobody's vote waits behind them.

use std::time::Duration;

use crate::base::sync::{Arc, Condvar, Mutex, rank};
use crate::server::session::Session;
use crate::server::session::contain::contained;
use crate::server::workers::Workers;

const ERRANDS_MAX: usize = 8;
/// How soon it is noticed that the client, or the server, has gone meanwhile.
const PAUSE: Duration = Duration::from_millis(100);

/// The errands of one client.
#[derive(Debug, Default)]
pub struct Errands {
    running: Mutex<usize, rank::SessionJobs>,
    done: Condvar,
}

/// One of them, until it is dropped: also if it panics.
struct Running(Arc<Errands>);

impl Session {
    /// Run `errand` in a thread of `pool`, as soon as this client may have one more.
    pub(super) fn run_errand(&self, pool: &Workers, errand: impl FnOnce() + Send + 'static) {
        let mut running = self.errands.running.lock();
        while *running >= ERRANDS_MAX {
            if self.connection.outbox.is_closed() || self.server.is_stopping() {
                return;
            }
            running = self.errands.done.wait_timeout(running, PAUSE);
        }
        *running += 1;
        drop(running);
        let running = Running(Arc::clone(&self.errands));
        let connection = Arc::clone(&self.connection);
        pool.run(move || {
            let _running = running;
            contained(&connection, errand);
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        *self.0.running.lock() -= 1;
        self.0.done.notify_all();
    }
}
