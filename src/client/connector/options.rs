//! How to connect.

use std::time::Duration;

use super::retry::RetryLimits;
use crate::base::clock::TimeSource;
use crate::client::dial::DialOptions;
use crate::client::link::LinkOptions;

/// How a connector connects.
#[derive(Clone, Debug)]
pub struct ConnectorOptions {
    /// The name of the client in the log.
    pub name: String,
    /// One attempt.
    pub dial: DialOptions,
    /// The connection.
    pub link: LinkOptions,
    /// The pauses between attempts.
    pub retry: RetryLimits,
    /// Whether the connection only reads.
    pub read_only: bool,
    /// Whether a server that only reads will do until there is another one. Prevails over `read_only`.
    pub read_only_fallback: bool,
    /// How long a server that only reads waits for an answer of the other addresses.
    pub fallback_after: Duration,
    /// The time for pauses and deadlines.
    pub time: TimeSource,
}

impl Default for ConnectorOptions {
    fn default() -> ConnectorOptions {
        ConnectorOptions {
            name: String::new(),
            dial: DialOptions::default(),
            link: LinkOptions::default(),
            retry: RetryLimits::default(),
            read_only: false,
            read_only_fallback: false,
            fallback_after: Duration::from_secs(5),
            time: TimeSource::SYSTEM,
        }
    }
}
