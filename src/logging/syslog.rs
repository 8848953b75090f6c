//! A `<syslog>` handler: datagrams as Python's SysLogHandler frames them, `<priority>text` and a NUL.
//!
//! A missing syslog daemon is no error at the start; each line tries to reach it again. One difference from Python,
//! which sends BLATHER and TRACE as warnings because it does not know them: here they are debug messages.

use std::fmt;
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;

use super::write_timeout::WriteTimeout;
use crate::base::level;

/// The options of a `<syslog>` section.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SyslogSetup {
    /// One of the names in Python's SysLogHandler.
    pub facility: String,
    pub address: SyslogAddress,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SyslogAddress {
    Unix(PathBuf),
    Udp { host: String, port: u16 },
}

impl fmt::Display for SyslogAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SyslogAddress::Unix(path) => write!(f, "{}", path.display()),
            SyslogAddress::Udp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            SyslogAddress::Udp { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

#[derive(Debug)]
pub struct Syslog {
    /// The facility, shifted to its place in a priority.
    facility: u8,
    address: SyslogAddress,
    socket: Option<Socket>,
    timeout: WriteTimeout,
}

/// A non-blocking socket.
#[derive(Debug)]
enum Socket {
    Udp(UdpSocket, SocketAddr),
    Datagram(UnixDatagram),
    /// For daemons that listen only on a stream socket.
    Stream(UnixStream),
}

impl Syslog {
    /// A host without an address is an error; a daemon that does not listen is none.
    pub fn open(setup: &SyslogSetup) -> io::Result<Syslog> {
        let facility = facility(&setup.facility).ok_or_else(|| {
            let text = format!("{:?} is not a syslog facility", setup.facility);
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })?;
        let socket = match &setup.address {
            SyslogAddress::Udp { .. } => Some(Socket::connect(&setup.address)?),
            SyslogAddress::Unix(_) => Socket::connect(&setup.address).ok(),
        };
        let address = setup.address.clone();
        Ok(Syslog { facility: facility << 3, address, socket, timeout: WriteTimeout::default() })
    }

    pub fn send(&mut self, level: u8, line: &str) -> io::Result<()> {
        let message = format!("<{}>{line}\0", self.facility | severity(level));
        if let Some(socket) = &mut self.socket {
            match socket.send(message.as_bytes(), &mut self.timeout) {
                // The daemon may have been restarted.
                Err(error) if error.kind() != io::ErrorKind::TimedOut => self.socket = None,
                other => return other,
            }
        }
        let mut socket = Socket::connect(&self.address)?;
        socket.send(message.as_bytes(), &mut self.timeout)?;
        self.socket = Some(socket);
        Ok(())
    }
}

impl Socket {
    fn connect(address: &SyslogAddress) -> io::Result<Socket> {
        match address {
            SyslogAddress::Udp { host, port } => {
                let found = (host.as_str(), *port).to_socket_addrs()?.next();
                let peer = found.ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))?;
                let socket = match peer {
                    SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?,
                    SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?,
                };
                socket.set_nonblocking(true)?;
                Ok(Socket::Udp(socket, peer))
            }
            SyslogAddress::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                if socket.connect(path).is_ok() {
                    socket.set_nonblocking(true)?;
                    return Ok(Socket::Datagram(socket));
                }
                let socket = UnixStream::connect(path)?;
                socket.set_nonblocking(true)?;
                Ok(Socket::Stream(socket))
            }
        }
    }

    fn send(&mut self, message: &[u8], timeout: &mut WriteTimeout) -> io::Result<()> {
        match self {
            Socket::Udp(socket, peer) => {
                send_in_time(socket, timeout, |socket| socket.send_to(message, *peer)).map(drop)
            }
            Socket::Datagram(socket) => {
                send_in_time(socket, timeout, |socket| socket.send(message)).map(drop)
            }
            Socket::Stream(socket) => {
                let mut rest = message;
                while !rest.is_empty() {
                    let sent = send_in_time(socket, timeout, |mut socket| socket.write(rest))?;
                    if sent == 0 {
                        return Err(io::ErrorKind::WriteZero.into());
                    }
                    rest = rest.get(sent..).unwrap_or_default();
                }
                Ok(())
            }
        }
    }
}

/// Sends, waiting for the receiver up to the write timeout.
pub(super) fn send_in_time<S: AsFd>(
    socket: &S,
    timeout: &mut WriteTimeout,
    send: impl Fn(&S) -> io::Result<usize>,
) -> io::Result<usize> {
    match send(socket) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            timeout.wait(socket)?;
            send(socket)
        }
        other => other,
    }
}

pub fn severity(level: u8) -> u8 {
    match level {
        level::CRITICAL.. => 2,
        level::ERROR.. => 3,
        level::WARNING.. => 4,
        level::INFO.. => 6,
        _ => 7,
    }
}

fn facility(name: &str) -> Option<u8> {
    Some(match name {
        "kern" => 0,
        "user" => 1,
        "mail" => 2,
        "daemon" => 3,
        "auth" => 4,
        "syslog" => 5,
        "lpr" => 6,
        "news" => 7,
        "uucp" => 8,
        "cron" => 9,
        "authpriv" => 10,
        "security" => 13,
        "local0" => 16,
        "local1" => 17,
        "local2" => 18,
        "local3" => 19,
        "local4" => 20,
        "local5" => 21,
        "local6" => 22,
        "local7" => 23,
        _ => return None,
    })
}
