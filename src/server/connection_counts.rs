//! Connections that were accepted and refused, for monitoring.

use crate::base::sync::{AtomicU64, Ordering};

/// Why a connection was refused, or closed before it had registered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RefusedFor {
    /// `max-connections`
    Connections,
    /// `max-connections-per-address`
    Address,
    /// `max-unregistered`: it found no room, or made room for another.
    Unregistered,
    /// `handshake-timeout`
    Slow,
    /// `allow`: its address is not in there.
    Allow,
    /// `<access>`: it may not read the storage.
    Access,
    /// `proxy-protocol`: what it has sent is no header.
    Proxy,
    /// No thread, descriptor or memory for it.
    Resources,
    /// Its TLS handshake has failed: it has no certificate that is accepted, or no TLS.
    Tls,
    /// A wrong password, or none.
    Password,
}

impl RefusedFor {
    pub const ALL: [RefusedFor; 10] = [
        RefusedFor::Connections,
        RefusedFor::Address,
        RefusedFor::Unregistered,
        RefusedFor::Slow,
        RefusedFor::Allow,
        RefusedFor::Access,
        RefusedFor::Proxy,
        RefusedFor::Resources,
        RefusedFor::Tls,
        RefusedFor::Password,
    ];

    /// Whether it is about a limit of the server or of a listener, and not about what the client has shown.
    pub fn is_a_limit(self) -> bool {
        !matches!(self, RefusedFor::Tls | RefusedFor::Password)
    }

    /// Its name in metrics: the key of the configuration that it is about, if there is one.
    pub fn name(self) -> &'static str {
        match self {
            RefusedFor::Connections => "max-connections",
            RefusedFor::Address => "max-connections-per-address",
            RefusedFor::Unregistered => "max-unregistered",
            RefusedFor::Slow => "handshake-timeout",
            RefusedFor::Allow => "allow",
            RefusedFor::Access => "access",
            RefusedFor::Proxy => "proxy-protocol",
            RefusedFor::Resources => "resources",
            RefusedFor::Tls => "tls",
            RefusedFor::Password => "password",
        }
    }
}

/// Counters of a server's connections.
#[derive(Debug, Default)]
pub struct ConnectionCounts {
    accepted: AtomicU64,
    refused: [AtomicU64; RefusedFor::ALL.len()],
}

impl ConnectionCounts {
    /// A connection has come from the kernel, whatever becomes of it.
    pub fn accept(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub fn refuse(&self, why: RefusedFor) {
        if let Some(counter) = self.refused.get(why as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    pub fn refused(&self, why: RefusedFor) -> u64 {
        self.refused.get(why as usize).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_counter_and_a_name() {
        let counts = ConnectionCounts::default();
        for (number, why) in RefusedFor::ALL.into_iter().enumerate() {
            (0..=number).for_each(|_| counts.refuse(why));
        }
        let mut names = std::collections::BTreeSet::new();
        for (number, why) in RefusedFor::ALL.into_iter().enumerate() {
            assert_eq!(counts.refused(why), number as u64 + 1);
            names.insert(why.name());
        }
        assert_eq!(names.len(), RefusedFor::ALL.len());
    }
}
