//! From an address to a connected socket.

use std::fmt;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::path::Path;

use socket2::{Domain, SockAddr, Socket, Type};

use crate::base::address::Address;
use crate::base::cancel::Cancel;
use crate::base::clock::IoDeadline;
use crate::net::resolve::{ResolveError, resolve};

/// The host of an address without one, as in Python.
const DEFAULT_HOST: &str = "localhost";

/// A connected socket.
pub struct Reached {
    pub socket: Socket,
    pub is_tcp: bool,
    /// For the log.
    pub peer: String,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum ConnectError {
    /// The name is not known, or nothing answers at the address.
    Unreachable(io::Error),
    /// The text is what was waited for.
    TimedOut(&'static str),
    /// Ended by `Cancel::cancel`.
    Cancelled,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectError::Unreachable(error) => write!(f, "{error}"),
            ConnectError::TimedOut(what) => write!(f, "timed out waiting for {what}"),
            ConnectError::Cancelled => f.write_str("cancelled"),
        }
    }
}

impl std::error::Error for ConnectError {}

/// Connects to the first of the addresses of a name that answers.
pub fn connect(address: &Address, until: IoDeadline, cancel: &Cancel) -> Result<Reached, ConnectError> {
    match address {
        Address::Unix(path) => connect_unix(path),
        Address::Tcp { host, port } => {
            let host = host.as_deref().filter(|host| !host.is_empty()).unwrap_or(DEFAULT_HOST);
            let port = port.ok_or_else(|| {
                let what = format!("the address {address} has no port");
                ConnectError::Unreachable(io::Error::new(io::ErrorKind::InvalidInput, what))
            })?;
            let found = resolve(host, port, until, cancel).map_err(|error| match error {
                ResolveError::Failed(error) => ConnectError::Unreachable(error),
                ResolveError::Cancelled => ConnectError::Cancelled,
                ResolveError::TimedOut => ConnectError::TimedOut("the address of the host"),
            })?;
            connect_tcp(&found, until, cancel)
        }
    }
}

fn connect_unix(path: &Path) -> Result<Reached, ConnectError> {
    let connect = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // Fails at once where a connection over TCP would wait.
        socket.connect(&SockAddr::unix(path)?)?;
        Ok(Reached { socket, is_tcp: false, peer: path.display().to_string() })
    };
    connect().map_err(ConnectError::Unreachable)
}

/// Tries each address in turn. Each has an equal share of the time that is left, so that one that drops packets leaves
/// time for the others.
fn connect_tcp(
    addresses: &[SocketAddr],
    until: IoDeadline,
    cancel: &Cancel,
) -> Result<Reached, ConnectError> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for (tried, address) in addresses.iter().enumerate() {
        let share = until.left() / u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        if share.is_zero() {
            return Err(ConnectError::TimedOut("a connection"));
        }
        match connect_one(address, share, cancel) {
            Ok(socket) => {
                let peer = format!("('{}', {})", address.ip(), address.port());
                return Ok(Reached { socket, is_tcp: true, peer });
            }
            Err(_) if cancel.is_cancelled() => return Err(ConnectError::Cancelled),
            Err(error) => failure = error,
        }
    }
    match failure.kind() {
        io::ErrorKind::TimedOut => Err(ConnectError::TimedOut("a connection")),
        _ => Err(ConnectError::Unreachable(failure)),
    }
}

fn connect_one(address: &SocketAddr, time_max: std::time::Duration, cancel: &Cancel) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(*address), Type::STREAM, None)?;
    let other = socket.try_clone()?;
    // Ends the wait; without a connection shutting down is an error that does not matter.
    let _ending = cancel.on_cancel(move || drop(other.shutdown(Shutdown::Both)));
    socket.connect_timeout(&(*address).into(), time_max)?;
    Ok(socket)
}
