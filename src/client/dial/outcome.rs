//! What dialling needs, and what comes of it.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::net::connect::ConnectError;
use crate::net::stream::Stream;
use crate::net::tls::ClientTls;
use crate::wire::calls::CallIds;
use crate::wire::frame::FrameReader;
use crate::wire::mac::RunningMac;
use crate::wire::protocol::{Generation, Wire};

/// How to dial.
#[derive(Clone, Debug)]
pub struct DialOptions {
    /// For servers that ask for a password, which those of Z5 cannot; see [`WITH_PASSWORDS`]. Others ignore it.
    pub credentials: Option<Credentials>,
    /// `None`: without TLS.
    pub tls: Option<Arc<ClientTls>>,
    /// For everything, from the look-up of the name to the end of authentication.
    pub time_max: Duration,
    /// A peer that the network does not reach is noticed within this time, later too. `None`: by no means of TCP.
    pub dead_peer_timeout: Option<Duration>,
    /// The newest protocol that this client speaks; `None`: all that it knows.
    pub generation: Option<Generation>,
}

impl Default for DialOptions {
    fn default() -> DialOptions {
        DialOptions {
            credentials: None,
            tls: None,
            time_max: Duration::from_secs(30),
            dead_peer_timeout: Some(Duration::from_secs(60)),
            generation: None,
        }
    }
}

/// The newest protocol that has passwords. This program's server speaks newer ones, too, and refuses their clients if
/// it demands a password.
pub const WITH_PASSWORDS: Generation = Generation::Z4;

/// A user of a server that speaks Z4 or an older protocol.
#[derive(Clone, Eq, PartialEq)]
pub struct Credentials {
    /// Name of the user.
    pub username: String,
    /// As plain text; only a hash is sent.
    pub password: String,
    /// The realm that the server must have, exactly. `None`: it must have none.
    pub realm: Option<String>,
}

impl fmt::Debug for Credentials {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .field("realm", &self.realm)
            .finish_non_exhaustive()
    }
}

/// A connection on which the client may register.
#[derive(Debug)]
pub struct Dialled {
    /// The connected stream.
    pub stream: Stream,
    /// With what was received already.
    pub frames: FrameReader,
    /// Of a Z5 server, the dialect is known after its first reply only; until then it is one that every server reads.
    pub wire: Wire,
    /// `None`: messages have no codes.
    pub macs: Option<Macs>,
    /// The numbers of the next calls.
    pub ids: CallIds,
    /// The address that answered, for the log: `('127.0.0.1', 8100)` or a path.
    pub peer: String,
}

/// The message authentication codes of both directions.
#[derive(Debug)]
pub struct Macs {
    pub sent: RunningMac,
    pub received: RunningMac,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum DialError {
    /// The name is not known, or nothing answers at the address.
    Unreachable(io::Error),
    /// The connection broke before the client could register.
    Lost(io::Error),
    /// The server did not answer within the time limit. The text is what was waited for.
    TimedOut(&'static str),
    /// The peer speaks no protocol that this client speaks.
    Protocol(String),
    /// The server demands a password, and this client has none, or not the right one.
    Authentication(String),
    /// TLS failed.
    Tls(String),
    /// Ended by `Cancel::cancel`.
    Cancelled,
}

impl From<ConnectError> for DialError {
    fn from(error: ConnectError) -> DialError {
        match error {
            ConnectError::Unreachable(error) => DialError::Unreachable(error),
            ConnectError::TimedOut(what) => DialError::TimedOut(what),
            ConnectError::Cancelled => DialError::Cancelled,
        }
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DialError::Unreachable(error) => write!(f, "{error}"),
            DialError::Lost(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                f.write_str("the server closed the connection during the handshake")
            }
            DialError::Lost(error) => write!(f, "the connection broke: {error}"),
            DialError::TimedOut(what) => write!(f, "timed out waiting for {what}"),
            DialError::Protocol(what) | DialError::Authentication(what) | DialError::Tls(what) => {
                f.write_str(what)
            }
            DialError::Cancelled => f.write_str("cancelled"),
        }
    }
}

impl std::error::Error for DialError {}
