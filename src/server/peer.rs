//! The client at the other end of a connection: its address, and the name that it has given itself.
//!
//! The lines about it are in [`client_log`](super::client_log).

use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;

use crate::base::address::Host;
use crate::base::sync::{Mutex, rank};
use crate::base::untrusted::Untrusted;

/// A client as in the log and in the lock table.
#[derive(Debug)]
pub struct Peer {
    /// Number of the connection, unique in the life of the server. The owner of its locks on oids.
    pub id: u64,
    /// `host:port`, or the path of the Unix socket.
    address: String,
    /// `None` for a Unix socket.
    ip: Option<IpAddr>,
    /// The client, if the connection is a proxy's.
    client: OnceLock<SocketAddr>,
    label: Mutex<String, rank::Label>,
}

impl Peer {
    pub fn new(id: u64, address: String) -> Peer {
        Peer {
            id,
            ip: address.parse().ok().map(|address: SocketAddr| address.ip()),
            client: OnceLock::new(),
            label: Mutex::new(address.clone()),
            address,
        }
    }

    /// The address it connects from, which may be told by a proxy; `None` for a Unix socket.
    pub fn ip(&self) -> Option<IpAddr> {
        self.client.get().map(SocketAddr::ip).or(self.ip)
    }

    /// The host it connects from; `None` for a Unix socket.
    pub fn host(&self) -> Option<Host> {
        self.ip().map(Host::from)
    }

    /// The address of the client, as its proxy has told it: what is logged from here on. Later calls change nothing.
    pub fn set_client(&self, client: SocketAddr) {
        if self.client.set(client).is_ok() {
            *self.label.lock() = client.to_string();
        }
    }

    /// `host:port`, or the path of the Unix socket.
    pub fn address(&self) -> String {
        self.client.get().map_or_else(|| self.address.clone(), SocketAddr::to_string)
    }

    /// Its name in the log: its label, if it has set one, and the address.
    pub fn label(&self) -> String {
        self.label.lock().clone()
    }

    /// Sets the client's own name for itself, escaped and cut to what fits into a line of the log.
    pub fn set_label(&self, label: &str) {
        *self.label.lock() = format!("{} {}", Untrusted(label), self.address());
    }
}
