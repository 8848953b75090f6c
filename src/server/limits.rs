//! Limits on what one client, or all of them together, can take of the machine.
//!
//! Plain numbers; each names the file that enforces it. `config/schema/limits.rs` has their keys and bounds.

use std::time::Duration;

use crate::server::rates::Rates;

/// The limits of a server. `None`: no limit.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Bytes of one message from a client (`wire/frame.rs`).
    pub message_size: usize,
    /// From accepting a connection to the end of its `register`, TLS and authentication included
    /// (`server/admission.rs`).
    pub handshake_timeout: Option<Duration>,
    /// Upper bound on the time that a peer may leave TCP unanswered (`net/stream.rs`).
    pub dead_peer_timeout: Option<Duration>,
    /// Registered clients. `None`: as many as there are descriptors for (`server/admission.rs`).
    pub connections: Option<usize>,
    /// Registered clients from one address; as many more may be about to register.
    pub connections_per_address: Option<usize>,
    /// Connections that have not registered yet.
    pub unregistered: usize,
    /// Bytes of a transaction that are kept in memory before it votes; the rest goes to a temporary file
    /// (`storage/staged.rs`).
    pub transaction_memory: usize,
    /// Bytes of a transaction's records and blobs together (`server/session/store.rs`).
    pub transaction_size: Option<u64>,
    /// Operations of a transaction: a few dozen bytes of each stay in memory.
    pub transaction_objects: Option<u64>,
    /// Bytes that may be queued for a client that does not read (`server/outbox/slow_client.rs`).
    pub unsent: usize,
    /// Upper bound on the time between two messages for a transaction that has not voted (`server/watch.rs`).
    pub idle_transaction_timeout: Option<Duration>,
    /// Iterators over transactions; of those over records there may be four times as many
    /// (`server/session/iterate.rs`).
    pub iterators: usize,
    /// Entries in one answer to undoLog, undoInfo or history.
    pub undo_log: usize,
    /// What one address may ask for in a second; a `<listen>` section may have its own (`server/rates.rs`).
    pub rates: Rates,
    /// A request that takes longer is logged (`server/slow`).
    pub slow_request_time: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            message_size: 256 << 20,
            handshake_timeout: Some(Duration::from_secs(30)),
            dead_peer_timeout: Some(Duration::from_secs(300)),
            connections: None,
            connections_per_address: None,
            unregistered: 1000,
            transaction_memory: 8 << 20,
            transaction_size: None,
            transaction_objects: Some(10_000_000),
            unsent: 16 << 20,
            idle_transaction_timeout: Some(Duration::from_secs(3600)),
            iterators: 256,
            undo_log: 10_000,
            rates: Rates::default(),
            slow_request_time: Some(Duration::from_secs(1)),
        }
    }
}
