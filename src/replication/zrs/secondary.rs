//! The secondary's side: a layer that stores what its primary sends, and nothing else.

use std::ops::ControlFlow;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::SECONDARY_LOG;
use super::follow::follow;
use super::following::Following;
use crate::base::address::Address;
use crate::base::ids::{Oid, Tid};
use crate::base::sync::{Arc, Mutex, rank};
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
        let following = Following::new(primary, keep_alive_delay);
        Ok(Secondary { base, following: Arc::new(following), thread: Mutex::new(None) })
    }

    fn end(&self) {
        self.following.stop();
        let thread = self.thread.lock().take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            log::error!(target: SECONDARY_LOG, "the thread that follows the primary has panicked");
        }
    }
}

impl Drop for Secondary {
    fn drop(&mut self) {
        self.end();
    }
}

impl Storage for Secondary {
    forward!(
        base: name, object_count, size, interfaces, last_transaction, iteration, packing, blobs, extension_methods,
        cache_counts, sync_counts, secondaries, failure, pulse, save_index, catch_up
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
        Some(self.following.remote())
    }

    fn replication(&self) -> Option<Replication> {
        Some(self.following.replication())
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
                log::error!(target: SECONDARY_LOG, "{why}");
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
