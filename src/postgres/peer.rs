//! Where a server is: a socket in the file system, or an address of a host.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, TcpKeepalive, Type};

use crate::base::clock::IoDeadline;

/// A server that is or was connected to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Peer {
    /// The host as it was given: a name, or the directory of the socket.
    pub host: String,
    pub port: u16,
    pub place: SocketPlace,
}

/// What a socket connects to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SocketPlace {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} port {}", self.host, self.port)?;
        match &self.place {
            SocketPlace::Tcp(address) if address.ip().to_string() != self.host => {
                write!(f, " ({})", address.ip())
            }
            _ => Ok(()),
        }
    }
}

/// How a connection notices that the other side is gone.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct KeepAlive {
    /// `keepalives=0`
    pub is_off: bool,
    /// The system's own values if they are `None`.
    pub idle: Option<Duration>,
    pub interval: Option<Duration>,
    pub count: Option<u32>,
    /// `tcp_user_timeout`
    pub user_timeout: Option<Duration>,
}

impl Peer {
    /// A connected socket.
    pub fn connect(&self, keep_alive: &KeepAlive, until: Option<IoDeadline>) -> io::Result<Socket> {
        let address = match &self.place {
            SocketPlace::Unix(path) => {
                let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
                // Fails at once where a connection over TCP would wait.
                socket.connect(&SockAddr::unix(path)?)?;
                return Ok(socket);
            }
            SocketPlace::Tcp(address) => *address,
        };
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_tcp_nodelay(true)?;
        keep_alive.set(&socket)?;
        match until {
            None => socket.connect(&address.into())?,
            Some(until) if until.is_over() => return Err(io::ErrorKind::TimedOut.into()),
            Some(until) => socket.connect_timeout(&address.into(), until.left())?,
        }
        Ok(socket)
    }
}

impl KeepAlive {
    fn set(&self, socket: &Socket) -> io::Result<()> {
        if !self.is_off {
            let mut settings = TcpKeepalive::new();
            if let Some(idle) = self.idle {
                settings = settings.with_time(idle);
            }
            if let Some(interval) = self.interval {
                settings = settings.with_interval(interval);
            }
            if let Some(count) = self.count {
                settings = settings.with_retries(count);
            }
            socket.set_tcp_keepalive(&settings)?;
            socket.set_keepalive(true)?;
        }
        if self.user_timeout.is_some() {
            socket.set_tcp_user_timeout(self.user_timeout)?;
        }
        Ok(())
    }
}
