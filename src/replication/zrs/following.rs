//! What a secondary knows of its primary, for the thread that follows it, and for the status.

use std::time::Duration;

use crate::base::address::Address;
use crate::base::cancel::Cancel;
use crate::base::sync::{Condvar, Mutex, rank};
use crate::storage::{Remote, Replication};

/// What the layer and the thread that follows share.
pub struct Following {
    pub primary: Address,
    /// An empty frame is sent when the primary has sent nothing for this time.
    pub keep_alive_delay: Option<Duration>,
    /// Ends what the thread waits for in the network.
    pub cancel: Cancel,
    state: Mutex<Followed, rank::ZrsPrimary>,
    /// Ends its pauses.
    stopped: Condvar,
}

struct Followed {
    remote: Remote,
    /// Transactions that were received and are not stored yet.
    waiting: u64,
}

impl Following {
    pub fn new(primary: Address, keep_alive_delay: Option<Duration>) -> Following {
        let remote = Remote::unknown("the primary was not reached yet");
        Following {
            primary,
            keep_alive_delay,
            cancel: Cancel::default(),
            state: Mutex::new(Followed { remote, waiting: 0 }),
            stopped: Condvar::new(),
        }
    }

    pub fn remote(&self) -> Remote {
        self.state.lock().remote.clone()
    }

    pub fn replication(&self) -> Replication {
        let state = self.state.lock();
        let is_connected = state.remote.failure.is_none();
        let behind = (is_connected && state.waiting == 0).then_some(Duration::ZERO);
        Replication { is_standby: true, is_connected, behind }
    }

    pub fn is_stopped(&self) -> bool {
        self.cancel.is_cancelled()
    }

    pub fn stop(&self) {
        self.cancel.cancel();
        let _state = self.state.lock();
        self.stopped.notify_all();
    }

    /// Waits, unless the server stops.
    pub fn wait(&self, pause: Duration) {
        let state = self.state.lock();
        drop(self.stopped.wait_timeout_while(state, pause, |_| !self.is_stopped()));
    }

    /// The primary has accepted this secondary.
    pub fn reach(&self) {
        self.state.lock().remote.reach();
    }

    /// It cannot be reached. True: this reason is a new one.
    pub fn lose(&self, why: &str) -> bool {
        let mut state = self.state.lock();
        let is_new = state.remote.failure.as_deref() != Some(why);
        state.remote.lose(why);
        state.waiting = 0;
        is_new
    }

    /// It has sent a transaction.
    pub fn received(&self) {
        let mut state = self.state.lock();
        state.remote.reach();
        state.waiting += 1;
    }

    /// `count` more transactions are stored and published.
    pub fn stored(&self, count: u64) {
        let mut state = self.state.lock();
        state.waiting = state.waiting.saturating_sub(count);
    }
}
