//! The states of a connection's transaction, and the moves from one to the next.
//!
//! ```text
//!               tpc_begin          vote              locks granted          vote done
//!      None ───────────────> Open ──────> Waiting ─────────────────> Voting ─────────> Voted
//!       ^                     │  ^                                     │  │               │ tpc_finish
//!       │                     │  └─────────────────────────────────────┘  └──> Failed     v
//!       └── from every state ─┘    an undo was answered, or conflicts       (before ZEO 5) Finishing ──> None
//!           by tpc_abort           that the client merges
//! ```
//!
//! (`Open -> Voting` without waiting: the objects of an undo are looked up before locks are requested.)
//!
//! An abort in `Voting` cannot stop the storage: it is noted, and takes effect where the thread that votes leaves
//! this state ([`TransactionSlot::lock_unless_aborted`], the only place that looks at it). An abort in `Finishing`
//! has no effect.
//!
//! The resources of a state are released when the state is dropped: locks ([`OidLocks`]), the storage's vote
//! ([`StorageVote`]), the count of active transactions ([`TransactionId`]). Releasing logs and takes other locks, so no
//! state is dropped while the slot is locked.

use std::time::{Duration, SystemTime};

use crate::base::cancel::Cancel;
use crate::base::clock::TimeSource;
use crate::base::sync::{Arc, AtomicBool, AtomicU64, Condvar, Mutex, MutexGuard, Ordering, rank};
use crate::server::audit::commit::CommitFacts;
use crate::server::oid_locks::OidLocks;
use crate::server::slow::CallTimes;
use crate::storage::{Staged, Storage, Ticket, TransactionMeta, Voted};
use crate::wire::exception::PyException;
use crate::wire::request::OwnedMsgId;

/// Interval at which a wait for a finish checks whether the connection was closed.
const CLOSED_PAUSE: Duration = Duration::from_millis(100);

/// Bytes of a transaction's user and of its description that monitoring shows.
const SHOWN_MAX: usize = 200;

/// The client's name for a transaction, and what monitoring shows of it in all its states. It is counted among the
/// active transactions for as long as this lives.
pub struct TransactionId {
    name: Box<[u8]>,
    /// When it began.
    pub since: SystemTime,
    /// The first [`SHOWN_MAX`] bytes.
    pub user: Box<[u8]>,
    pub description: Box<[u8]>,
    active: Arc<AtomicU64>,
}

impl TransactionId {
    /// A transaction that begins now. `active` is the number of active transactions.
    pub fn new(
        name: &[u8],
        meta: &TransactionMeta,
        active: &Arc<AtomicU64>,
        clock: &TimeSource,
    ) -> Arc<TransactionId> {
        active.fetch_add(1, Ordering::Relaxed);
        let shown = |text: &[u8]| Box::from(text.get(..SHOWN_MAX).unwrap_or(text));
        Arc::new(TransactionId {
            name: name.into(),
            since: clock.system_time(),
            user: shown(&meta.user),
            description: shown(&meta.description),
            active: Arc::clone(active),
        })
    }

    /// The client's name for it.
    pub fn name(&self) -> &[u8] {
        &self.name
    }
}

impl Drop for TransactionId {
    fn drop(&mut self) {
        self.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The one transaction that a client may have open.
#[derive(Default)]
pub enum Transaction {
    #[default]
    None,
    /// The client stores into it.
    Open(OpenTransaction),
    /// Vote, or an undo that is answered at once, was asked for and waits for its locks.
    Waiting { open: OpenTransaction, reply_to: OwnedMsgId },
    /// The storage works on it, in this or another thread. `aborted`: the client has given up since; `cancel` tells
    /// the storage.
    Voting { id: Arc<TransactionId>, aborted: bool, cancel: Cancel },
    /// Can be finished.
    Voted { id: Arc<TransactionId>, vote: StorageVote, locks: Option<OidLocks> },
    /// The reply to vote named the stores that failed; the client has to abort.
    Failed { id: Arc<TransactionId> },
    /// On its way to the disk; can no longer be aborted.
    Finishing { id: Arc<TransactionId> },
}

/// A transaction between tpc_begin and vote.
pub struct OpenTransaction {
    pub id: Arc<TransactionId>,
    pub staged: Staged,
    /// Bytes of the blobs that have come for it.
    pub blob_len: u64,
    /// Why vote will fail: a store that wanted no reply was refused.
    pub refused: Option<PyException>,
    /// Its requested or held locks: while it waits, while the storage votes, and after the first undo that was answered
    /// at once.
    pub locks: Option<OidLocks>,
    /// Of the vote, or the undo, that is under way.
    pub call: Option<CallTimes>,
}

impl OpenTransaction {
    pub fn new(id: Arc<TransactionId>, staged: Staged) -> OpenTransaction {
        OpenTransaction { id, staged, blob_len: 0, refused: None, locks: None, call: None }
    }

    /// The state in which the storage works on it.
    pub fn voting(&self) -> Transaction {
        Transaction::Voting { id: self.id.clone(), aborted: false, cancel: self.staged.cancel.clone() }
    }
}

/// The vote of the storage. Aborted in the storage when it is dropped.
pub struct StorageVote {
    storage: Arc<dyn Storage>,
    voted: Option<Box<dyn Voted>>,
    /// For the audit log.
    facts: Option<Box<CommitFacts>>,
}

impl StorageVote {
    pub fn new(
        storage: &Arc<dyn Storage>,
        voted: Box<dyn Voted>,
        facts: Option<Box<CommitFacts>>,
    ) -> StorageVote {
        StorageVote { storage: Arc::clone(storage), voted: Some(voted), facts }
    }

    /// What the audit log has of the transaction, for one caller.
    pub fn take_facts(&mut self) -> Option<Box<CommitFacts>> {
        self.facts.take()
    }

    /// Whether the transaction undoes others.
    pub fn undoes(&self) -> bool {
        self.voted.as_ref().is_some_and(|voted| !voted.undone().is_empty())
    }

    /// Lets the storage finish it; the outcome goes to the storage's publisher with `ticket`.
    pub fn finish(mut self, ticket: Ticket) {
        if let Some(voted) = self.voted.take() {
            self.storage.finish(voted, ticket);
        }
    }
}

impl Drop for StorageVote {
    fn drop(&mut self) {
        if let Some(voted) = self.voted.take() {
            self.storage.abort(voted);
        }
    }
}

impl Transaction {
    /// The client's name for the open transaction.
    pub fn id(&self) -> Option<&[u8]> {
        match self {
            Transaction::None => None,
            Transaction::Open(open) | Transaction::Waiting { open, .. } => Some(&open.id.name),
            Transaction::Voting { id, .. }
            | Transaction::Voted { id, .. }
            | Transaction::Failed { id }
            | Transaction::Finishing { id } => Some(&id.name),
        }
    }

    /// Leaves `None` behind.
    pub fn take(&mut self) -> Transaction {
        std::mem::take(self)
    }
}

/// A connection's transaction.
pub struct TransactionSlot {
    /// Lock order: see `hosted.rs`. Never held while sending, syncing or logging: the storage's publisher takes it.
    state: Mutex<Transaction, rank::Transaction>,
    /// Notified when a transaction has ended.
    ended: Condvar,
    /// The vote is or will be answered, and the transaction has not ended. For the publication, which cannot wait for
    /// `state`.
    is_voted: Arc<AtomicBool>,
}

impl Default for TransactionSlot {
    fn default() -> TransactionSlot {
        TransactionSlot {
            state: Mutex::new(Transaction::default()),
            ended: Condvar::new(),
            is_voted: Arc::default(),
        }
    }
}

impl TransactionSlot {
    /// The transaction, in whichever state it is.
    pub fn lock(&self) -> MutexGuard<'_, Transaction> {
        self.state.lock()
    }

    /// The transaction, unless a thread works on it at this moment: its session may be writing to a file.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, Transaction>> {
        self.state.try_lock()
    }

    /// Whether the client has a transaction that was voted for and has not ended.
    pub fn is_voted(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_voted)
    }

    /// The transaction, once no other thread is about to end the last one: a client that does not wait for its
    /// answers may begin the next while that is being synced.
    pub fn settled(&self) -> MutexGuard<'_, Transaction> {
        let mut state = self.state.lock();
        while matches!(*state, Transaction::Finishing { .. } | Transaction::Voting { aborted: true, .. }) {
            state = self.ended.wait(state);
        }
        state
    }

    /// Waits until the transaction is not being finished any more, so that its reply is queued; or until `is_closed`.
    pub fn wait_for_finish(&self, is_closed: impl Fn() -> bool) {
        let mut state = self.state.lock();
        while matches!(*state, Transaction::Finishing { .. }) && !is_closed() {
            state = self.ended.wait_timeout(state, CLOSED_PAUSE);
        }
    }

    /// `Voting -> next`. False: the client has aborted the transaction; what `next` held was given back, and the
    /// transaction has ended.
    #[must_use]
    pub fn leave_voting(&self, next: Transaction) -> bool {
        let Some((mut state, next)) = self.lock_unless_aborted(next) else { return false };
        self.is_voted.store(matches!(next, Transaction::Voted { .. }), Ordering::SeqCst);
        *state = next;
        true
    }

    /// The state `Voting`, to be left for another. `None`: the client has aborted the transaction; `held` was given
    /// back, and the transaction has ended.
    pub fn lock_unless_aborted<T>(&self, held: T) -> Option<(MutexGuard<'_, Transaction>, T)> {
        let state = self.state.lock();
        if !matches!(*state, Transaction::Voting { aborted: true, .. }) {
            return Some((state, held));
        }
        drop(state);
        // The locks first: until they are given back the client's next transaction must not ask for any.
        drop(held);
        self.end();
        None
    }

    /// `Voting -> None`, if it is there: for a vote that was ended by a panic. Its resources were released while the
    /// stack was unwound.
    pub fn end_voting(&self) {
        let is_voting = matches!(*self.state.lock(), Transaction::Voting { .. });
        if is_voting {
            self.end();
        }
    }

    /// The transaction has ended, in whichever way.
    pub fn end(&self) {
        let ended = {
            let mut state = self.state.lock();
            self.is_voted.store(false, Ordering::SeqCst);
            state.take()
        };
        drop(ended);
        self.ended.notify_all();
    }

    /// tpc_abort, or the end of the connection. False: there was nothing to abort.
    pub fn abort(&self) -> bool {
        let mut state = self.state.lock();
        match state.take() {
            Transaction::None => return false,
            finishing @ Transaction::Finishing { .. } => {
                *state = finishing;
                return false;
            }
            Transaction::Voting { id, cancel, .. } => {
                *state = Transaction::Voting { id, aborted: true, cancel: cancel.clone() };
                drop(state);
                cancel.cancel();
            }
            ended => {
                self.is_voted.store(false, Ordering::SeqCst);
                drop(state);
                drop(ended);
            }
        }
        true
    }
}
