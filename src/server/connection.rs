//! What other threads know of a connection: where to send, whom to name in the log, and the transaction that it
//! has open. The session thread has the rest to itself.

use std::sync::OnceLock;
use std::time::Duration;

use crate::base::cancel::Cancel;
use crate::base::sync::{Arc, AtomicU64, Mutex, MutexGuard, Ordering};
use crate::server::outbox::{Chunk, Outbox};
use crate::server::timeout::Running;
use crate::storage::{Staged, Voted};
use crate::wire::exception::PyException;
use crate::wire::protocol::Wire;
use crate::wire::push::Push;
use crate::wire::request::OwnedMsgId;

/// Pauses of a session that waits for its own finish: a fraction of a sync.
const SETTLE_PAUSE: Duration = Duration::from_micros(50);

/// Labels, names of storages and of users are shorter.
const PRINTABLE_LEN_MAX: usize = 200;

/// A client's connection.
pub struct Connection {
    /// Never used again; owns locks.
    pub id: u64,
    pub outbox: Arc<Outbox>,
    /// Lock order: see `hosted.rs`. Never held while sending, syncing or logging: the transaction's publisher takes it.
    pub transaction: Mutex<Transaction>,
    /// Loads of this connection, written by its session only; summed up for `server_status`.
    pub loads: AtomicU64,
    /// Counts what has come for transactions; written by its session only, read by the one who looks for idle ones.
    pub progress: AtomicU64,
    /// What the client speaks; known from its first message on.
    wire: OnceLock<Wire>,
    peer: String,
    label: Mutex<String>,
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
    /// The storage is looking at it, in this or another thread. `aborted`: the client gave up meanwhile;
    /// `cancel` tells the storage.
    Voting { id: Box<[u8]>, aborted: bool, cancel: Cancel },
    /// Can be finished.
    Voted { id: Box<[u8]>, voted: Box<dyn Voted>, running: Running },
    /// Vote told the client which stores failed; it has to abort.
    Failed { id: Box<[u8]> },
    /// On its way to the disk; can no longer be aborted.
    Finishing { id: Box<[u8]> },
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
    pub id: Box<[u8]>,
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
            Transaction::Open(open) | Transaction::Waiting { open, .. } => Some(&open.id),
            Transaction::Voting { id, .. }
            | Transaction::Voted { id, .. }
            | Transaction::Failed { id }
            | Transaction::Finishing { id } => Some(id),
        }
    }

    /// Leaves `None` behind.
    pub fn take(&mut self) -> Transaction {
        std::mem::take(self)
    }
}

/// A text that a client has chosen, for a line of the log: not long, and without what would begin a line of its own or
/// command a terminal.
pub fn printable(text: &str) -> String {
    let mut shown = String::new();
    for c in text.chars() {
        if shown.len() >= PRINTABLE_LEN_MAX {
            shown.push('…');
            break;
        }
        // Right-to-left marks and their like turn what follows around.
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        let breaks = c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
        if turns || breaks { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

impl Connection {
    pub fn new(id: u64, outbox: Arc<Outbox>, peer: String) -> Connection {
        Connection {
            id,
            outbox,
            transaction: Mutex::brief(Transaction::default()),
            loads: AtomicU64::new(0),
            progress: AtomicU64::new(0),
            wire: OnceLock::new(),
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
        self.wire.get().copied().unwrap_or(Wire {
            generation: crate::wire::protocol::Generation::Z5,
            codec: crate::wire::protocol::Codec::Pickle(crate::wire::protocol::Dialect::Python3),
        })
    }

    /// How the log names this client: its label, if it has set one, and its address.
    pub fn label(&self) -> String {
        self.label.lock().clone()
    }

    /// The client's name for itself, as far as it fits into a line of the log.
    pub fn set_label(&self, label: &str) {
        *self.label.lock() = format!("{} {}", printable(label), self.peer);
    }

    /// Something has come for the open transaction.
    pub fn progresses(&self) {
        self.progress.store(self.progress.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// The transaction, once nobody else is about to end the last one: a client that does not wait for its answers may
    /// begin the next while that is being synced.
    pub fn settled_transaction(&self) -> MutexGuard<'_, Transaction> {
        loop {
            let transaction = self.transaction.lock();
            match *transaction {
                Transaction::Finishing { .. } | Transaction::Voting { aborted: true, .. } => {}
                _ => return transaction,
            }
            drop(transaction);
            std::thread::sleep(SETTLE_PAUSE);
        }
    }

    /// Queue frames behind all others and send them, without waiting.
    pub fn post(&self, frames: Vec<u8>) {
        self.outbox.place().push(Chunk::Own(frames));
        self.outbox.flush();
    }

    pub fn post_push(&self, push: &Push<'_>) {
        let mut frame = Vec::new();
        self.wire().push(push, &mut frame);
        self.post(frame);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_writes_lines_of_the_log_but_us() {
        assert_eq!(printable("Zope 4, größer"), "Zope 4, größer");
        assert_eq!(printable("a\n2026-11-26 CRITICAL x\r\u{85}"), "a\\n2026-11-26 CRITICAL x\\r\\u{85}");
        assert_eq!(printable("\u{1b}[2J\u{202e}\u{2028}"), "\\u{1b}[2J\\u{202e}\\u{2028}");
        let long = printable(&"é".repeat(1 << 20));
        assert!(long.len() < PRINTABLE_LEN_MAX + 10 && long.ends_with("é…"), "{}", long.len());
    }
}
