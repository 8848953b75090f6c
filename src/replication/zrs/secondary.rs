//! The secondary's side: a layer that stores what its primary sends, and nothing else.

use std::ops::ControlFlow;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::follow::{LOG, follow};
use crate::base::address::Address;
use crate::base::cancel::Cancel;
use crate::base::ids::{Oid, Tid};
use crate::base::sync::{Arc, Condvar, Mutex, rank};
use crate::storage::{
    Commit, History, Load, Publisher, Remote, Replication, Result, Staged, Storage, StorageError, Ticket,
    TidAt, Undo, UndoEntry, VoteResult, Voted, forward,
};

/// The storage `base`, with the transactions of a primary. Clients can only read it.
pub struct Secondary {
    base: Arc<dyn Storage>,
    following: Arc<Following>,
    thread: Mutex<Option<JoinHandle<()>>, rank::ZrsThreads>,
}

/// What the layer and the thread that follows share.
pub struct Following {
    pub primary: Address,
    /// An empty frame is sent when the primary has sent nothing for this time.
    pub keep_alive_delay: Option<Duration>,
    /// Ends what the thread waits for in the network.
    pub cancel: Cancel,
    state: Mutex<State, rank::ZrsPrimary>,
    /// Ends its pauses.
    stopped: Condvar,
}

struct State {
    remote: Remote,
    /// Transactions that were received and are not stored yet.
    waiting: u64,
}

impl Secondary {
    /// Follows as soon as there is somebody to tell of the transactions, see [`Commit::set_publisher`].
    ///
    /// Errors: `Unsupported` if `base` cannot take copies of transactions.
    pub fn open(
        base: Arc<dyn Storage>,
        primary: Address,
        keep_alive_delay: Option<Duration>,
    ) -> Result<Secondary> {
        if base.bulk().is_none() || base.is_read_only() {
            let what = format!("{} cannot take the transactions of a primary", base.name());
            return Err(StorageError::Unsupported(what));
        }
        let remote = Remote::unknown("the primary was not reached yet");
        let following = Following {
            primary,
            keep_alive_delay,
            cancel: Cancel::default(),
            state: Mutex::new(State { remote, waiting: 0 }),
            stopped: Condvar::new(),
        };
        Ok(Secondary { base, following: Arc::new(following), thread: Mutex::new(None) })
    }

    fn end(&self) {
        self.following.stop();
        let thread = self.thread.lock().take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            log::error!(target: LOG, "the thread that follows the primary has panicked");
        }
    }
}

impl Drop for Secondary {
    fn drop(&mut self) {
        self.end();
    }
}

impl Following {
    pub fn is_stopped(&self) -> bool {
        self.cancel.is_cancelled()
    }

    fn stop(&self) {
        self.cancel.cancel();
        let _state = self.state.lock();
        self.stopped.notify_all();
    }

    /// Waits, unless the server stops.
    pub fn wait(&self, pause: Duration) {
        let state = self.state.lock();
        drop(self.stopped.wait_timeout_while(state, pause, |_| !self.is_stopped()));
    }

    /// The primary was reached.
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

    pub fn received(&self) {
        self.state.lock().waiting += 1;
    }

    pub fn stored(&self, count: u64) {
        let mut state = self.state.lock();
        state.waiting = state.waiting.saturating_sub(count);
    }
}

impl Storage for Secondary {
    forward!(
        base: name, object_count, size, interfaces, last_transaction, iteration, packing, blobs, extension_methods,
        cache_counts, sync_counts, failure, pulse, save_index, catch_up
    );

    fn is_read_only(&self) -> bool {
        true
    }

    fn new_oids(&self, _count: usize) -> Result<Vec<Oid>> {
        Err(StorageError::ReadOnly)
    }

    fn undo(&self) -> Option<&dyn Undo> {
        self.base.undo().map(|_| self as &dyn Undo)
    }

    fn remote(&self) -> Option<Remote> {
        Some(self.following.state.lock().remote.clone())
    }

    fn replication(&self) -> Option<Replication> {
        let state = self.following.state.lock();
        let is_connected = state.remote.failure.is_none();
        let behind = (is_connected && state.waiting == 0).then_some(Duration::ZERO);
        Some(Replication { is_standby: true, is_connected, behind })
    }

    fn close(&self) -> Result<()> {
        self.end();
        self.base.close()
    }
}

impl Load for Secondary {
    forward!(base: load_before, load_before_now, load_serial, expect_read, get_tid);
}

impl History for Secondary {
    forward!(base: revisions, record_iternext, last_invalidations);
}

/// Refuses every vote, so nothing is finished but what the primary has.
impl Commit for Secondary {
    forward!(base: set_resolver);

    fn set_publisher(&self, publisher: Arc<dyn Publisher>) {
        self.base.set_publisher(publisher);
        let (base, following) = (Arc::clone(&self.base), Arc::clone(&self.following));
        match thread::Builder::new().name("zrs-follow".into()).spawn(move || follow(&base, &following)) {
            Ok(started) => *self.thread.lock() = Some(started),
            Err(error) => {
                let why = format!("the thread that follows the primary cannot be started: {error}");
                log::error!(target: LOG, "{why}");
                self.following.lose(&why);
            }
        }
    }

    fn vote(&self, _staged: Staged, _tid_at: TidAt) -> VoteResult {
        Err(StorageError::ReadOnly.into())
    }

    fn finish(&self, voted: Box<dyn Voted>, _ticket: Ticket) {
        drop(voted);
    }
}

/// The log can be read.
impl Undo for Secondary {
    fn undo_log(&self, each: &mut dyn FnMut(UndoEntry) -> ControlFlow<()>) -> Result<()> {
        self.base.require_undo()?.undo_log(each)
    }

    fn undo_oids(&self, _tid: Tid) -> Result<Vec<Oid>> {
        Err(StorageError::ReadOnly)
    }

    fn undo_now(&self, _staged: &mut Staged) -> Result<(Tid, Vec<Oid>)> {
        Err(StorageError::ReadOnly)
    }
}
