//! A connection, and the transaction that its client has open.

use std::time::SystemTime;

use serde::Serialize;

use super::time::{passed, unix};
use crate::base::sync::Ordering;
use crate::base::untrusted::{Untrusted, UntrustedBytes};
use crate::server::connection::Connection;
use crate::server::transaction::state::{OpenTransaction, Transaction, TransactionId};

/// A connection.
#[derive(Clone, Debug, Serialize)]
pub struct ClientReport {
    /// Number of the connection, unique in the life of the server.
    pub id: u64,
    /// The client's name for itself, if it has set one, and the address.
    pub label: String,
    /// `host:port`, or the path of the Unix socket.
    pub address: String,
    /// What it has shown of itself: user, certificate, or user and group of its process. `None`: nothing, or it has not
    /// registered.
    pub identity: Option<String>,
    /// As in the handshake, such as `Z5`; `None` before it.
    pub protocol: Option<&'static str>,
    /// Whether it registered as a writer.
    pub can_write: bool,
    /// When it was accepted.
    pub since: f64,
    pub loads: u64,
    pub stores: u64,
    pub commits: u64,
    /// Bytes of messages from it, and to it.
    pub received_bytes: u64,
    pub sent_bytes: u64,
    /// Bytes that are queued for it: it does not read them, or not yet.
    pub outbox_bytes: usize,
    pub transaction: Option<TransactionReport>,
}

/// A transaction that has not ended.
#[derive(Clone, Debug, Serialize)]
pub struct TransactionReport {
    pub state: TransactionState,
    /// The client's name for it, as in the log; like the others, `None` if a thread works on it at this moment.
    pub id: Option<String>,
    pub user: Option<String>,
    pub description: Option<String>,
    /// When it began.
    pub since: Option<f64>,
    /// For how long it has been going on.
    pub seconds: Option<f64>,
    /// Number of operations and bytes of their records; `None` after the vote.
    pub stores: Option<usize>,
    pub bytes: Option<u64>,
}

/// How far a transaction has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TransactionState {
    /// A thread works on it at this moment.
    Busy,
    /// The client stores into it.
    Open,
    /// It waits for its locks.
    Waiting,
    /// The storage checks it, and merges its conflicts.
    Voting,
    /// It holds its locks, and waits for the client's finish or abort.
    Voted,
    /// Its vote has failed; the client has to abort it.
    Failed,
    /// It is being written.
    Finishing,
}

impl ClientReport {
    pub(super) fn of(connection: &Connection, now: SystemTime) -> ClientReport {
        let load = connection.outbox.load();
        ClientReport {
            id: connection.id(),
            label: connection.peer.label(),
            address: connection.peer.address(),
            identity: connection.identity().map(Into::into),
            protocol: connection.protocol(),
            can_write: connection.can_write.load(Ordering::Relaxed),
            since: unix(connection.since),
            loads: connection.loads.load(Ordering::Relaxed),
            stores: connection.stores.load(Ordering::Relaxed),
            commits: connection.commits.load(Ordering::Relaxed),
            received_bytes: connection.received.load(Ordering::Relaxed),
            sent_bytes: load.sent,
            outbox_bytes: load.queued,
            transaction: transaction_of(connection, now),
        }
    }
}

/// The transaction of a connection. Its lock is not waited for: the session may write to a file while it holds it.
fn transaction_of(connection: &Connection, now: SystemTime) -> Option<TransactionReport> {
    let Some(transaction) = connection.transaction.try_lock() else {
        return Some(TransactionReport {
            state: TransactionState::Busy,
            id: None,
            user: None,
            description: None,
            since: None,
            seconds: None,
            stores: None,
            bytes: None,
        });
    };
    let (state, id, open) = match &*transaction {
        Transaction::None => return None,
        Transaction::Open(open) => (TransactionState::Open, &open.id, Some(open)),
        Transaction::Waiting { open, .. } => (TransactionState::Waiting, &open.id, Some(open)),
        Transaction::Voting { id, .. } => (TransactionState::Voting, id, None),
        Transaction::Voted { id, .. } => (TransactionState::Voted, id, None),
        Transaction::Failed { id } => (TransactionState::Failed, id, None),
        Transaction::Finishing { id } => (TransactionState::Finishing, id, None),
    };
    Some(described(state, id, open, now))
}

fn described(
    state: TransactionState,
    id: &TransactionId,
    open: Option<&OpenTransaction>,
    now: SystemTime,
) -> TransactionReport {
    TransactionReport {
        state,
        id: Some(UntrustedBytes(id.name()).to_string()),
        user: Some(text(&id.user)),
        description: Some(text(&id.description)),
        since: Some(unix(id.since)),
        seconds: Some(passed(id.since, now)),
        stores: open.map(|open| open.staged.ops().len()),
        bytes: open.map(|open| open.staged.payload_len() + open.blob_len),
    }
}

/// Clients encode users and descriptions as they like, nearly all as UTF-8. A cut may have gone through a character.
fn text(bytes: &[u8]) -> String {
    Untrusted(&String::from_utf8_lossy(bytes)).to_string()
}
