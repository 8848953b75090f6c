//! The keys of `<zeo>` that limit the resources of clients. Python's servers have none of them.

use std::time::Duration;

use crate::config::zconfig::datatypes::{Bounds, Datatype, Unit, bounded};
use crate::config::zconfig::matcher::{Child, KnownTo, key};
use crate::config::zconfig::{ConfigError, Section};
use crate::server::limits::Limits;

/// One key: its bounds, and its field of [`Limits`].
pub struct Limit {
    name: &'static str,
    /// The value in [`Limits::default`], as written in a file.
    default: &'static str,
    pub bounds: Bounds,
    get: fn(&Limits) -> Option<u64>,
    /// Called with a number within the bounds, or `None` if they permit it.
    set: fn(&mut Limits, Option<u64>),
}

impl Limit {
    pub const fn key(&'static self) -> Child {
        key(self.name, Datatype::Bounded(&self.bounds)).default(self.default).known(KnownTo::Own)
    }

    /// The limit as written in a file.
    fn show(&self, limits: &Limits) -> String {
        let value = (self.get)(limits).map_or_else(|| "none".into(), |number| self.bounds.unit.show(number));
        format!("{} {value}", self.name)
    }
}

const YEAR: u64 = 366 * 86400;
/// Larger than any memory, and small enough for sums not to overflow.
const MEMORY_MAX: u64 = 1 << 46;

pub static MESSAGE_SIZE: Limit = Limit {
    name: "max-message-size",
    default: "256MB",
    // The length of a message has 31 bits, one of which clients of ZEO 4 do not use.
    bounds: Bounds { unit: Unit::Bytes, least: 64 << 10, most: 1 << 30, or_none: false },
    get: |limits| Some(limits.message_size as u64),
    set: |limits, value| limits.message_size = number(value),
};

pub static HANDSHAKE_TIMEOUT: Limit = Limit {
    name: "handshake-timeout",
    default: "30s",
    bounds: Bounds { unit: Unit::Seconds, least: 1, most: YEAR, or_none: true },
    get: |limits| seconds(limits.handshake_timeout),
    set: |limits, value| limits.handshake_timeout = value.map(Duration::from_secs),
};

pub static DEAD_PEER_TIMEOUT: Limit = Limit {
    name: "dead-peer-timeout",
    default: "5m",
    // The kernel's probes are seconds apart, and begin after 32767 seconds at the latest.
    bounds: Bounds { unit: Unit::Seconds, least: 10, most: 18 * 3600, or_none: true },
    get: |limits| seconds(limits.dead_peer_timeout),
    set: |limits, value| limits.dead_peer_timeout = value.map(Duration::from_secs),
};

pub static CONNECTIONS: Limit = Limit {
    name: "max-connections",
    default: "none",
    bounds: Bounds { unit: Unit::Count, least: 1, most: 1 << 30, or_none: true },
    get: |limits| limits.connections.map(|count| count as u64),
    set: |limits, value| limits.connections = value.map(|count| number(Some(count))),
};

pub static CONNECTIONS_PER_ADDRESS: Limit = Limit {
    name: "max-connections-per-address",
    default: "none",
    bounds: Bounds { unit: Unit::Count, least: 1, most: 1 << 30, or_none: true },
    get: |limits| limits.connections_per_address.map(|count| count as u64),
    set: |limits, value| limits.connections_per_address = value.map(|count| number(Some(count))),
};

pub static UNREGISTERED: Limit = Limit {
    name: "max-unregistered",
    default: "1000",
    bounds: Bounds { unit: Unit::Count, least: 1, most: 1 << 20, or_none: false },
    get: |limits| Some(limits.unregistered as u64),
    set: |limits, value| limits.unregistered = number(value),
};

pub static TRANSACTION_MEMORY: Limit = Limit {
    name: "transaction-memory",
    default: "8MB",
    bounds: Bounds { unit: Unit::Bytes, least: 0, most: MEMORY_MAX, or_none: false },
    get: |limits| Some(limits.transaction_memory as u64),
    set: |limits, value| limits.transaction_memory = number(value),
};

pub static TRANSACTION_SIZE: Limit = Limit {
    name: "max-transaction-size",
    default: "none",
    bounds: Bounds { unit: Unit::Bytes, least: 1, most: u64::MAX >> 1, or_none: true },
    get: |limits| limits.transaction_size,
    set: |limits, value| limits.transaction_size = value,
};

pub static TRANSACTION_OBJECTS: Limit = Limit {
    name: "max-transaction-objects",
    default: "10000000",
    bounds: Bounds { unit: Unit::Count, least: 1, most: MEMORY_MAX, or_none: true },
    get: |limits| limits.transaction_objects,
    set: |limits, value| limits.transaction_objects = value,
};

pub static UNSENT: Limit = Limit {
    name: "max-unsent",
    default: "16MB",
    // A client may have a megabyte of replies under way at any time.
    bounds: Bounds { unit: Unit::Bytes, least: 2 << 20, most: MEMORY_MAX, or_none: false },
    get: |limits| Some(limits.unsent as u64),
    set: |limits, value| limits.unsent = number(value),
};

pub static IDLE_TRANSACTION_TIMEOUT: Limit = Limit {
    name: "idle-transaction-timeout",
    default: "1h",
    bounds: Bounds { unit: Unit::Seconds, least: 1, most: YEAR, or_none: true },
    get: |limits| seconds(limits.idle_transaction_timeout),
    set: |limits, value| limits.idle_transaction_timeout = value.map(Duration::from_secs),
};

pub static ITERATORS: Limit = Limit {
    name: "max-iterators",
    default: "256",
    bounds: Bounds { unit: Unit::Count, least: 1, most: 1 << 20, or_none: false },
    get: |limits| Some(limits.iterators as u64),
    set: |limits, value| limits.iterators = number(value),
};

pub static UNDO_LOG: Limit = Limit {
    name: "max-undo-log",
    default: "10000",
    bounds: Bounds { unit: Unit::Count, least: 1, most: 1 << 30, or_none: false },
    get: |limits| Some(limits.undo_log as u64),
    set: |limits, value| limits.undo_log = number(value),
};

pub static REQUESTS_PER_SECOND: Limit = Limit {
    name: "max-requests-per-second",
    default: "none",
    bounds: Bounds { unit: Unit::Count, least: 1, most: 1 << 30, or_none: true },
    get: |limits| limits.rates.requests,
    set: |limits, value| limits.rates.requests = value,
};

pub static SENT_PER_SECOND: Limit = Limit {
    name: "max-sent-per-second",
    default: "none",
    bounds: Bounds { unit: Unit::Bytes, least: 1 << 10, most: MEMORY_MAX, or_none: true },
    get: |limits| limits.rates.sent,
    set: |limits, value| limits.rates.sent = value,
};

pub static SLOW_REQUEST_TIME: Limit = Limit {
    name: "slow-request-time",
    default: "1s",
    bounds: Bounds { unit: Unit::Milliseconds, least: 1, most: 86_400_000, or_none: true },
    get: |limits| limits.slow_request_time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
    set: |limits, value| limits.slow_request_time = value.map(Duration::from_millis),
};

/// In the order of the documentation.
static ALL: [&Limit; 16] = [
    &CONNECTIONS,
    &CONNECTIONS_PER_ADDRESS,
    &UNREGISTERED,
    &HANDSHAKE_TIMEOUT,
    &DEAD_PEER_TIMEOUT,
    &MESSAGE_SIZE,
    &UNSENT,
    &TRANSACTION_MEMORY,
    &TRANSACTION_SIZE,
    &TRANSACTION_OBJECTS,
    &IDLE_TRANSACTION_TIMEOUT,
    &ITERATORS,
    &UNDO_LOG,
    &REQUESTS_PER_SECOND,
    &SENT_PER_SECOND,
    &SLOW_REQUEST_TIME,
];

/// The limits in the section, and the defaults for the others.
pub fn limits(section: &Section) -> Result<Limits, ConfigError> {
    let mut limits = Limits::default();
    for limit in ALL {
        if let Some(value) = section.get(limit.name, |text| bounded(text, &limit.bounds))? {
            (limit.set)(&mut limits, value);
        }
    }
    Ok(limits)
}

/// The limits that differ from the defaults, as written in a file.
pub fn unusual(limits: &Limits) -> Vec<String> {
    let usual = Limits::default();
    let differs = |limit: &&&Limit| (limit.get)(limits) != (limit.get)(&usual);
    ALL.iter().filter(differs).map(|limit| limit.show(limits)).collect()
}

/// For counts of things in memory. Their bounds exclude `None` and numbers that do not fit.
fn number(value: Option<u64>) -> usize {
    usize::try_from(value.unwrap_or(u64::MAX)).unwrap_or(usize::MAX)
}

fn seconds(time: Option<Duration>) -> Option<u64> {
    time.map(|time| time.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each row sets the field that it reads, and its default is within the bounds.
    #[test]
    fn every_limit_can_be_set_to_what_it_shows() {
        for limit in ALL {
            let mut limits = Limits::default();
            assert_eq!(limit.show(&limits), format!("{} {}", limit.name, limit.default));
            if let Some(usual) = (limit.get)(&limits) {
                assert!((limit.bounds.least..=limit.bounds.most).contains(&usual), "{}", limit.name);
            } else {
                assert!(limit.bounds.or_none, "{}", limit.name);
            }
            for value in [limit.bounds.least, limit.bounds.least + 1, limit.bounds.most] {
                let shown = limit.bounds.unit.show(value);
                assert_eq!(bounded(&shown, &limit.bounds), Ok(Some(value)), "{}", limit.name);
                (limit.set)(&mut limits, Some(value));
                assert_eq!((limit.get)(&limits), Some(value), "{}", limit.name);
                assert_eq!(unusual(&limits), [format!("{} {shown}", limit.name)]);
            }
            let too_much = (limit.bounds.most + 1).to_string();
            assert!(bounded(&too_much, &limit.bounds).is_err(), "{}", limit.name);
            assert_eq!(bounded("none", &limit.bounds).is_ok(), limit.bounds.or_none, "{}", limit.name);
        }
        assert!(unusual(&Limits::default()).is_empty());
    }
}
