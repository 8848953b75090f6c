//! Listening sockets: TCP on one or all interfaces, both IP versions, and Unix sockets.

use std::fs::{self, Permissions};
use std::io::{self, PipeReader, PipeWriter, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Mode;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::base::address::Address;
use crate::net::tls::Tls;

/// Length of the accept queue: a thousand clients may reconnect at once. The kernel may lower it (`somaxconn`).
const BACKLOG: i32 = 4096;
/// Time limit of a probe for a live server at an address.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// A socket that clients can connect to.
#[derive(Debug)]
pub struct Listener {
    pub socket: Socket,
    pub endpoint: Endpoint,
    /// `None`: no TLS. A reload replaces it.
    tls: ArcSwapOption<Tls>,
    /// No connection is accepted any more.
    has_ended: AtomicBool,
    /// Of a socket that belongs to another process, too.
    inherited: Option<Wake>,
}

/// Ends the wait for a connection.
#[derive(Debug)]
struct Wake {
    waits: PipeReader,
    ends: PipeWriter,
}

impl Listener {
    fn own(socket: Socket, endpoint: Endpoint) -> Listener {
        Listener {
            socket,
            endpoint,
            tls: ArcSwapOption::empty(),
            has_ended: AtomicBool::new(false),
            inherited: None,
        }
    }

    /// A socket that another process listens on and has passed to this one. The other process goes on listening when
    /// this one ends, so the socket is left as it is. Errors say what is wrong with it.
    pub fn inherited(fd: OwnedFd) -> Result<Listener, String> {
        let socket = Socket::from(fd);
        let failed = |error: io::Error| format!("is no socket that can be used: {error}");
        if socket.r#type().map_err(failed)? != Type::STREAM || !socket.is_listener().map_err(failed)? {
            return Err("is no stream socket that listens".into());
        }
        let address = socket.local_addr().map_err(failed)?;
        let endpoint = match (address.as_socket(), address.as_pathname()) {
            (Some(tcp), _) => Endpoint::Tcp { host: tcp.ip().to_string(), port: tcp.port() },
            (None, Some(path)) => Endpoint::Unix(path.into()),
            (None, None) if address.is_unix() => {
                let name = address.as_abstract_namespace().unwrap_or_default();
                Endpoint::Unix(PathBuf::from(format!("@{}", name.escape_ascii())))
            }
            (None, None) => return Err("is neither a TCP nor a Unix socket".into()),
        };
        let (waits, ends) = io::pipe().map_err(failed)?;
        Ok(Listener { inherited: Some(Wake { waits, ends }), ..Listener::own(socket, endpoint) })
    }

    /// The certificate of connections that come now. `None`: no TLS.
    pub fn tls(&self) -> Option<Arc<Tls>> {
        self.tls.load_full()
    }

    /// Sets it for later connections.
    pub fn set_tls(&self, tls: Option<Arc<Tls>>) {
        self.tls.store(tls);
    }

    /// Whether [`Listener::end`] was called.
    pub fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::SeqCst)
    }

    /// Whether another process listens on the socket, too.
    pub fn is_inherited(&self) -> bool {
        self.inherited.is_some()
    }

    /// The next connection. Fails after [`Listener::end`].
    pub fn accept(&self) -> io::Result<(Socket, SockAddr)> {
        let Some(wake) = &self.inherited else { return self.socket.accept() };
        loop {
            let mut both =
                [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(&wake.waits, PollFlags::IN)];
            poll(&mut both, None)?;
            let [_, woken] = &both;
            if !woken.revents().is_empty() {
                return Err(io::Error::other("the server stops"));
            }
            match self.socket.accept() {
                // systemd's sockets do not block; the client may be gone.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                accepted => return accepted,
            }
        }
    }

    /// Ends a call of [`Listener::accept`] and all later ones.
    pub fn end(&self) {
        self.has_ended.store(true, Ordering::SeqCst);
        match &self.inherited {
            // On a socket that listens this may be refused, which changes nothing.
            None => drop(self.socket.shutdown(Shutdown::Both)),
            // The pipe is empty, and its reader is there.
            Some(wake) => drop((&wake.ends).write_all(b"x")),
        }
    }
}

/// Where it listens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Endpoint {
    /// The configured host (empty: every interface) and the actual port.
    Tcp {
        host: String,
        port: u16,
    },
    Unix(PathBuf),
}

impl std::fmt::Display for Endpoint {
    /// The format of Python's server.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Endpoint::Tcp { host, port } => write!(f, "('{host}', {port})"),
            Endpoint::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Who may connect to a Unix socket. `None`: as the umask and the process have it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SocketAccess {
    pub mode: Option<u32>,
    /// The id of its group.
    pub group: Option<u32>,
}

/// Why an address cannot be listened on.
#[derive(Debug)]
pub enum ListenError {
    /// A live server answers there.
    InUse,
    Io(io::Error),
}

impl From<rustix::io::Errno> for ListenError {
    fn from(error: rustix::io::Errno) -> ListenError {
        ListenError::Io(error.into())
    }
}

impl From<io::Error> for ListenError {
    fn from(error: io::Error) -> ListenError {
        match error.kind() {
            io::ErrorKind::AddrInUse => ListenError::InUse,
            _ => ListenError::Io(error),
        }
    }
}

/// A bound address. Connections are refused until [`Bound::listen`].
#[derive(Debug)]
pub enum Bound {
    Tcp(Vec<Listener>),
    /// Nothing is created yet: clients take a socket file without a listener for the one of a dead server.
    Unix(PathBuf, SocketAccess),
    /// Sockets that another process listens on already.
    Inherited(Vec<Listener>),
}

/// Binds an address. A host name, or an empty host, may need several sockets, all with one port. `access`: for a Unix
/// socket.
pub fn bind(address: &Address, access: SocketAccess) -> Result<Bound, ListenError> {
    match address {
        Address::Unix(path) => Ok(Bound::Unix(path.clone(), access)),
        Address::Tcp { host, port } => bind_all(host.as_deref().unwrap_or(""), port.unwrap_or(0)),
    }
}

impl Bound {
    /// From now on the kernel accepts connections; they wait for `accept`.
    pub fn listen(self) -> Result<Vec<Listener>, ListenError> {
        match self {
            Bound::Tcp(listeners) => {
                listeners.iter().try_for_each(|listener| listener.socket.listen(BACKLOG))?;
                Ok(listeners)
            }
            Bound::Inherited(listeners) => Ok(listeners),
            Bound::Unix(path, access) => Ok(vec![listen_unix(&path, access)?]),
        }
    }
}

/// Binds and listens.
pub fn listen(address: &Address, access: SocketAccess) -> Result<Vec<Listener>, ListenError> {
    bind(address, access)?.listen()
}

fn bind_all(host: &str, port: u16) -> Result<Bound, ListenError> {
    let mut port = port;
    let mut listeners: Vec<Listener> = Vec::new();
    let mut failure = None;
    for address in addresses(host)? {
        match bind_tcp(SocketAddr::new(address, port)) {
            Ok(socket) => {
                port = socket.local_addr()?.as_socket().map_or(port, |bound| bound.port());
                let endpoint = Endpoint::Tcp { host: host.to_string(), port };
                listeners.push(Listener::own(socket, endpoint));
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(ListenError::InUse),
            // A machine without IPv6 has no `::`; one address is enough.
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) if listeners.is_empty() => Err(ListenError::Io(error)),
        _ => Ok(Bound::Tcp(listeners)),
    }
}

/// The addresses to bind for a configured host; an empty host: all interfaces.
fn addresses(host: &str) -> io::Result<Vec<IpAddr>> {
    if host.is_empty() {
        return Ok(vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)]);
    }
    let mut addresses: Vec<IpAddr> = (host, 0).to_socket_addrs()?.map(|address| address.ip()).collect();
    addresses.dedup();
    Ok(addresses)
}

fn bind_tcp(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // A restarted server must not wait until connections of its predecessor time out.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // The IPv4 side has a socket of its own.
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn listen_unix(path: &Path, access: SocketAccess) -> Result<Listener, ListenError> {
    let SocketAccess { mode, group } = access;
    if fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) {
        if UnixStream::connect(path).is_ok() {
            return Err(ListenError::InUse);
        }
        // No server answers: the file was left by a killed server.
        fs::remove_file(path)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Linux creates the file with the mode of the socket, less the umask, so it is never more permissive than `mode`.
    if let Some(mode) = mode {
        rustix::fs::fchmod(&socket, Mode::from_raw_mode(mode))?;
    }
    socket.bind(&SockAddr::unix(path)?)?;
    // Until the socket listens, no client can connect.
    if let Err(error) = permit(path, mode, group).and_then(|()| socket.listen(BACKLOG)) {
        // An error means that the file is gone already.
        let _ = fs::remove_file(path);
        return Err(error.into());
    }
    Ok(Listener::own(socket, Endpoint::Unix(path.to_path_buf())))
}

fn permit(path: &Path, mode: Option<u32>, group: Option<u32>) -> io::Result<()> {
    if let Some(group) = group {
        std::os::unix::fs::chown(path, None, Some(group)).map_err(|error| {
            let message = format!("the socket cannot be given to the group {group} (socket-group): {error}");
            io::Error::new(error.kind(), message)
        })?;
    }
    match mode {
        Some(mode) => fs::set_permissions(path, Permissions::from_mode(mode)),
        None => Ok(()),
    }
}

/// Whether a live server answers at this address. Python's runzeo checks this before it opens anything.
pub fn is_in_use(address: &Address) -> bool {
    match address {
        Address::Unix(path) => UnixStream::connect(path).is_ok(),
        Address::Tcp { host, port: Some(port) } => {
            let host = host.as_deref().filter(|host| !host.is_empty()).unwrap_or("localhost");
            let Ok(addresses) = (host, *port).to_socket_addrs() else { return false };
            addresses.into_iter().any(|a| std::net::TcpStream::connect_timeout(&a, PROBE_TIMEOUT).is_ok())
        }
        Address::Tcp { port: None, .. } => false,
    }
}
