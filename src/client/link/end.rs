//! How a link ends, and how its keeper learns that it has.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use crate::base::clock::TimeSource;
use crate::base::sync::{Arc, Condvar, Mutex, rank};

/// Why a link has ended.
#[derive(Clone, Debug)]
pub enum EndCause {
    /// `Link::close`
    Closed,
    /// The server closed the connection.
    ByServer,
    /// The network failed.
    Network(Arc<io::Error>),
    /// The server did not show a sign of life for this long.
    Silent(Duration),
    /// The server sent what this client does not understand, or `Link::fail` was called.
    Protocol(Arc<str>),
}

impl fmt::Display for EndCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EndCause::Closed => f.write_str("the connection was closed"),
            EndCause::ByServer => f.write_str("the server closed the connection"),
            EndCause::Network(error) => write!(f, "the connection broke: {error}"),
            EndCause::Silent(time) => {
                write!(f, "the server did not answer for {} seconds", time.as_secs())
            }
            EndCause::Protocol(what) => write!(f, "unexpected message of the server: {what}"),
        }
    }
}

/// Why a call has no answer.
#[derive(Clone, Debug)]
pub enum LinkError {
    /// The link has ended. Whether the server has handled the call is not known.
    Ended(EndCause),
    /// There was no answer in time. The link goes on.
    TimedOut,
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkError::Ended(cause) => cause.fmt(f),
            LinkError::TimedOut => f.write_str("the server did not answer in time"),
        }
    }
}

impl std::error::Error for LinkError {}

/// Whether the link has ended, for the thread that keeps it alive.
#[derive(Default)]
pub(super) struct EndNotice {
    has_ended: Mutex<bool, rank::LinkKeeper>,
    changed: Condvar,
}

impl EndNotice {
    pub fn give(&self) {
        *self.has_ended.lock() = true;
        self.changed.notify_all();
    }

    /// Waits for the notice, at most until `until`. Whether it was given.
    pub fn wait_until(&self, time: &TimeSource, until: Instant) -> bool {
        let mut has_ended = self.has_ended.lock();
        while !*has_ended && time.now() < until {
            has_ended = time.wait_until(&self.changed, has_ended, until);
        }
        *has_ended
    }
}
