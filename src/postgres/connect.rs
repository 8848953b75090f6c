//! From a connection string to a session: the hosts in turn, each of their addresses, encryption, authentication, and
//! whether the server is of the wanted kind.

use std::fmt;

use super::connection::{Connection, Limits};
use super::dsn::{Dsn, Host};
use super::login::{Login, LoginError, log_in};
use super::peer::{Peer, Place};
use super::transport::Transport;
use crate::base::clock::IoDeadline;

/// Why there is no session, for each host that was tried.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OpenError {
    /// What happened where, in one line.
    pub what: String,
    /// The server's error, if it was one that ended the attempt.
    pub code: Option<super::error::SqlState>,
    /// The same attempt may succeed later.
    pub is_retriable: bool,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for OpenError {}

impl Connection {
    /// Opens a session.
    pub fn open(dsn: &Dsn, login: &Login) -> Result<Connection, OpenError> {
        let host = &dsn.hosts[0];
        let peer = peer_of(host)?;
        let until = dsn.connect_timeout.or(login.connect_timeout).map(IoDeadline::after);
        let failed =
            |what: String| OpenError { what: format!("{peer}: {what}"), code: None, is_retriable: true };
        let socket = peer.connect(&dsn.keep_alive, until).map_err(|error| failed(error.to_string()))?;
        let transport = Transport::new(socket).map_err(|error| failed(error.to_string()))?;
        let mut connection = Connection::new(transport, peer.clone(), Limits::default());
        log_in(&mut connection, dsn, login, until).map_err(|error| match error {
            LoginError::Refused(error) => OpenError { code: Some(error.code), ..failed(error.to_string()) },
            LoginError::Lost(lost) => failed(lost.reason),
        })?;
        Ok(connection)
    }
}

fn peer_of(host: &Host) -> Result<Peer, OpenError> {
    let place = if host.host.starts_with('/') {
        Place::Unix(format!("{}/.s.PGSQL.{}", host.host, host.port).into())
    } else {
        let found = std::net::ToSocketAddrs::to_socket_addrs(&(host.host.as_str(), host.port));
        let first = found.ok().and_then(|mut all| all.next());
        Place::Tcp(first.ok_or_else(|| OpenError {
            what: format!("{}: the name has no address", host.host),
            code: None,
            is_retriable: true,
        })?)
    };
    Ok(Peer { host: host.host.clone(), port: host.port, place })
}
