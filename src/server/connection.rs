//! The part of a connection that other threads use: where to send, its name in the log, and its open transaction. The
//! rest belongs to the session thread.

use std::sync::OnceLock;
use std::time::SystemTime;

use crate::base::sync::{Arc, AtomicBool, AtomicU64, Ordering};
use crate::exceptions;
use crate::server::access::ClientIdentity;
use crate::server::outbox::Outbox;
use crate::server::peer::Peer;
use crate::server::policy::Policy;
use crate::server::request_counts::RequestCounts;
use crate::server::rights::HeldRights;
use crate::server::transaction::state::TransactionSlot;
use crate::wire::exception::PyException;
use crate::wire::protocol::{Encoding, Greeting, Wire};
use crate::wire::request::MsgId;

/// What the rights of a client follow from.
pub struct Registration {
    pub storage: String,
    pub client: ClientIdentity,
    pub policy: Arc<Policy>,
    pub read_only: bool,
}

/// A client's connection.
pub struct Connection {
    pub peer: Arc<Peer>,
    pub outbox: Arc<Outbox>,
    pub transaction: TransactionSlot,
    /// Number of loads, written by its session only; `server_status` adds them up.
    pub loads: AtomicU64,
    /// Numbers of requests of all kinds, written by its session only.
    pub requests: RequestCounts,
    /// Number of stores, and of transactions that were committed; for monitoring, as the numbers behind them.
    pub stores: AtomicU64,
    pub commits: AtomicU64,
    /// Bytes that were received, without those of TLS; written by its session only.
    pub received: AtomicU64,
    /// When it was accepted.
    pub since: SystemTime,
    /// Whether it may write; set when it registers.
    pub can_write: AtomicBool,
    /// None before it registers.
    pub rights: HeldRights,
    /// Known when it registers.
    registration: OnceLock<Registration>,
    /// Number of messages that belonged to a transaction; written by its session only, read by the thread that looks
    /// for idle transactions.
    pub progress: AtomicU64,
    /// It was refused as a writer, because its storage was read-only then.
    pub wanted_to_write: AtomicBool,
    /// [`Hosted::writable_again`](super::hosted::Hosted::writable_again) at that time; used by its session only.
    pub refused_at: AtomicU64,
    /// What it has shown of itself when it registered.
    identity: OnceLock<String>,
    /// The client's wire; known from its first message on.
    wire: OnceLock<Wire>,
}

impl Connection {
    /// `id` is never used again. `address` is `host:port`, or the path of the Unix socket. `since`: now.
    pub fn new(id: u64, outbox: Arc<Outbox>, address: String, since: SystemTime) -> Connection {
        Connection {
            peer: Arc::new(Peer::new(id, address)),
            outbox,
            transaction: TransactionSlot::default(),
            loads: AtomicU64::new(0),
            requests: RequestCounts::default(),
            stores: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            received: AtomicU64::new(0),
            since,
            can_write: AtomicBool::new(false),
            rights: HeldRights::default(),
            registration: OnceLock::new(),
            progress: AtomicU64::new(0),
            wanted_to_write: AtomicBool::new(false),
            refused_at: AtomicU64::new(0),
            identity: OnceLock::new(),
            wire: OnceLock::new(),
        }
    }

    /// Number of the connection, unique in the life of the server.
    pub fn id(&self) -> u64 {
        self.peer.id
    }

    /// Set when it registers. Later calls change nothing.
    pub fn set_registration(&self, registration: Registration) {
        let _ = self.registration.set(registration);
    }

    /// What its rights follow from. `None`: it has not registered.
    pub fn registration(&self) -> Option<&Registration> {
        self.registration.get()
    }

    /// Set when it registers, for monitoring. Later calls change nothing.
    pub fn set_identity(&self, identity: String) {
        let _ = self.identity.set(identity);
    }

    /// User, certificate, or user and group of its process. `None`: it has shown none of these, or has not registered.
    pub fn identity(&self) -> Option<&str> {
        self.identity.get().map(String::as_str)
    }

    /// Set when the peer's first message has come. Later calls change nothing.
    pub fn set_wire(&self, wire: Wire) {
        let _ = self.wire.set(wire);
    }

    /// The wire; before the first message of the peer, one that any peer can read.
    pub fn wire(&self) -> Wire {
        self.wire.get().copied().unwrap_or(Wire::BEFORE_FIRST_MESSAGE)
    }

    /// The protocol as in the handshake, such as `Z5`. `None` before the first message of the peer.
    pub fn protocol(&self) -> Option<&'static str> {
        let Wire { generation, encoding } = *self.wire.get()?;
        let greeting = Greeting { generation, msgpack: encoding == Encoding::Msgpack };
        std::str::from_utf8(greeting.bytes()).ok()
    }

    /// Notes that bytes were received. For its session.
    pub fn has_received(&self, bytes: usize) {
        self.received.store(self.received.load(Ordering::Relaxed) + bytes as u64, Ordering::Relaxed);
    }

    /// Notes that a message for the open transaction has come.
    pub fn progresses(&self) {
        self.progress.store(self.progress.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Appends the error of a call. If the storage is another server's that cannot be reached, the connection ends
    /// instead: an exception would reach the application, while the client tries again by itself after a lost
    /// connection.
    pub fn put_error(&self, id: MsgId<'_>, exception: &PyException, out: &mut Vec<u8>) {
        match exceptions::is_upstream_lost(exception) {
            true => self.outbox.close("the server of its storage cannot be reached"),
            false => self.wire().error_reply(id, exception, out),
        }
    }

    /// Queues the reply to a call of this client's behind everything else, and sends it, without waiting. For threads
    /// that must not wait for the client; the session makes room before it hands them a call, see
    /// [`Connection::wait_for_room`].
    pub fn post(&self, reply: Vec<u8>) {
        self.outbox.post_own(self.outbox.place(), reply);
    }

    /// Called before a call is handed to a thread that will [`Connection::post`] its reply: waits while the client
    /// leaves much unread.
    pub fn wait_for_room(&self) {
        self.outbox.wait_for_room();
    }
}
