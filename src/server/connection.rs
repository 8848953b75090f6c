//! What other threads know of a connection: where to send, whom to name in the log, and the transaction that it
//! has open. The session thread has the rest to itself.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use crate::base::address::Host;
use crate::base::cancel::Cancel;
use crate::base::sync::{Arc, AtomicU64, Condvar, Mutex, MutexGuard, Ordering};
use crate::base::untrusted::Untrusted;
use crate::server::outbox::Outbox;
use crate::server::timeout::Running;
use crate::storage::{Staged, Voted};
use crate::wire::exception::PyException;
use crate::wire::protocol::Wire;
use crate::wire::request::OwnedMsgId;

/// How soon whoever waits for a finish notices that the connection was closed.
const CLOSED_PAUSE: Duration = Duration::from_millis(100);

/// A client's connection.
pub struct Connection {
    /// Never used again; owns locks.
    pub id: u64,
    pub outbox: Arc<Outbox>,
    /// Lock order: see `hosted.rs`. Never held while sending, syncing or logging: the transaction's publisher takes it.
    pub transaction: Mutex<Transaction>,
    /// Told when the transaction has ended.
    settled: Condvar,
    /// Loads of this connection, written by its session only; summed up for `server_status`.
    pub loads: AtomicU64,
    /// Counts what has come for transactions; written by its session only, read by the one who looks for idle ones.
    pub progress: AtomicU64,
    /// What the client speaks; known from its first message on.
    wire: OnceLock<Wire>,
    peer: String,
    host: Option<Host>,
    label: Mutex<String>,
}

/// The client's name for a transaction. Whoever is at work for the transaction has it, so it counts among the active ones for as long
/// as this lives.
pub struct TransactionId {
    name: Box<[u8]>,
    active: Arc<AtomicU64>,
}

impl TransactionId {
    /// `active` counts the transactions that there are.
    pub fn new(name: &[u8], active: &Arc<AtomicU64>) -> Arc<TransactionId> {
        active.fetch_add(1, Ordering::Relaxed);
        Arc::new(TransactionId { name: name.into(), active: Arc::clone(active) })
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
    Waiting { open: OpenTransaction, reply_to: OwnedMsgId, then: Then },
    /// The storage is looking at it, in this or another thread. `aborted`: the client gave up meanwhile; `cancel` tells the storage.
    Voting { id: Arc<TransactionId>, aborted: bool, cancel: Cancel },
    /// Can be finished.
    Voted { id: Arc<TransactionId>, voted: Box<dyn Voted>, running: Running },
    /// Vote told the client which stores failed; it has to abort.
    Failed { id: Arc<TransactionId> },
    /// On its way to the disk; can no longer be aborted.
    Finishing { id: Arc<TransactionId> },
}

/// What is done once the locks are there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Then {
    Vote,
    /// Tell the outcome of the undo that was asked for last; the transaction stays open.
    Undo,
}

/// A transaction between tpc_begin and vote.
pub struct OpenTransaction {
    /// The client's name for it, as it came.
    pub id: Arc<TransactionId>,
    pub staged: Staged,
    /// Bytes of the blobs that have come for it.
    pub blob_len: u64,
    /// A store that wanted no reply was refused: vote must not pass without it.
    pub refused: Option<PyException>,
    /// It holds the whole storage already, for the sake of an undo that was answered at once.
    pub locked: Option<Running>,
}

impl OpenTransaction {
    /// What stands for it while the storage is looking at it.
    pub fn voting(&self) -> Transaction {
        Transaction::Voting { id: self.id.clone(), aborted: false, cancel: self.staged.cancel.clone() }
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

impl Connection {
    pub fn new(id: u64, outbox: Arc<Outbox>, peer: String) -> Connection {
        Connection {
            id,
            outbox,
            transaction: Mutex::brief(Transaction::default()),
            settled: Condvar::new(),
            loads: AtomicU64::new(0),
            progress: AtomicU64::new(0),
            wire: OnceLock::new(),
            host: peer.parse().ok().map(|address: SocketAddr| address.ip().into()),
            label: Mutex::new(peer.clone()),
            peer,
        }
    }

    /// Known from the peer's first message on.
    pub fn set_wire(&self, wire: Wire) {
        let _ = self.wire.set(wire);
    }

    /// The wire; before the first message of the peer, one that any peer can read.
    pub fn wire(&self) -> Wire {
        self.wire.get().copied().unwrap_or(Wire::BEFORE_FIRST_MESSAGE)
    }

    /// Where it comes from; `None` for a Unix socket.
    pub fn host(&self) -> Option<Host> {
        self.host
    }

    /// How the log names this client: its label, if it has set one, and its address.
    pub fn label(&self) -> String {
        self.label.lock().clone()
    }

    /// The client's name for itself, as far as it fits into a line of the log.
    pub fn set_label(&self, label: &str) {
        *self.label.lock() = format!("{} {}", Untrusted(label), self.peer);
    }

    /// Something has come for the open transaction.
    pub fn progresses(&self) {
        self.progress.store(self.progress.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// The transaction, once nobody else is about to end the last one: a client that does not wait for its answers may
    /// begin the next while that is being synced.
    pub fn settled_transaction(&self) -> MutexGuard<'_, Transaction> {
        let mut transaction = self.transaction.lock();
        while matches!(
            *transaction,
            Transaction::Finishing { .. } | Transaction::Voting { aborted: true, .. }
        ) {
            transaction = self.settled.wait(transaction);
        }
        transaction
    }

    /// Waits until the transaction is not being finished any more: until then its reply is on its way.
    pub fn wait_for_finish(&self) {
        let mut transaction = self.transaction.lock();
        while matches!(*transaction, Transaction::Finishing { .. }) && !self.outbox.is_closed() {
            transaction = self.settled.wait_timeout(transaction, CLOSED_PAUSE);
        }
    }

    /// The transaction has ended, whatever came of it.
    pub fn end_transaction(&self, mut transaction: MutexGuard<'_, Transaction>) {
        *transaction = Transaction::None;
        drop(transaction);
        self.settled.notify_all();
    }

    /// Queue the reply to a call of this client's behind all else, and send it, without waiting. For threads that must not wait for
    /// it; the session makes room before it hands them a call, see [`Connection::wait_for_room`].
    pub fn post(&self, reply: Vec<u8>) {
        self.outbox.post_own(self.outbox.place(), reply);
    }

    /// Before a call is handed to a thread that will [`Connection::post`] its reply: waits while the client leaves much unread.
    pub fn wait_for_room(&self) {
        self.outbox.wait_for_room();
    }
}
