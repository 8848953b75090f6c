//! A connected byte stream: TCP or Unix socket, with TLS or without.
//!
//! The socket is in blocking mode; [`Sink::try_send`] uses a flag per call to not wait, so one thread can wait in
//! `recv` while others send.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::time::Duration;

use socket2::{Socket, TcpKeepalive};

use crate::base::clock::IoDeadline;
use crate::base::sync::{Action, assert_permitted};
use crate::net::peer_process::{ProcessId, peer_process};
use crate::net::proxy::{self, HeaderError, Origin};
use crate::net::tls::layer::{HandshakeError, Layer, Peer};

/// The sending side of a connection, used by an outbox.
pub trait Sink: Send + Sync {
    /// Sends the bytes that the kernel takes at once; `WouldBlock` if it takes none. The next call must begin with the
    /// bytes that were not taken: with TLS they are encrypted already.
    fn try_send(&self, chunks: &[IoSlice<'_>]) -> io::Result<usize>;
    /// Sends a part, waiting until the kernel takes one.
    fn send(&self, chunks: &[IoSlice<'_>]) -> io::Result<usize>;
    /// Shuts down both directions; waiting calls return. With TLS, close_notify is sent first, so the caller must not
    /// hold a lock that forbids [`Action::Network`].
    fn shutdown(&self);
}

/// Number of probes to a silent peer, during the second half of `dead_peer_timeout`.
const PROBES: u32 = 5;

/// One client's socket.
#[derive(Debug)]
pub struct Stream {
    socket: Socket,
    /// Boxed because it is large and most connections have none.
    tls: Option<Box<Layer>>,
}

impl Stream {
    /// Sets the socket options of every connection: no delay (with Nagle's algorithm a reply after an invalidation
    /// waits 40 ms), and an error within `dead_peer_timeout` after a peer has vanished silently: probes detect it when
    /// nothing is to be acknowledged, a time limit when sent bytes are not acknowledged.
    pub fn new(
        socket: Socket,
        is_tcp: bool,
        tls: Option<Layer>,
        dead_peer_timeout: Option<Duration>,
    ) -> io::Result<Stream> {
        if is_tcp {
            socket.set_tcp_nodelay(true)?;
            if let Some(timeout) = dead_peer_timeout {
                let probes = TcpKeepalive::new()
                    .with_time(timeout / 2)
                    .with_interval((timeout / (2 * PROBES)).max(Duration::from_secs(1)))
                    .with_retries(PROBES);
                socket.set_tcp_keepalive(&probes)?;
                socket.set_tcp_user_timeout(Some(timeout))?;
            }
        }
        Ok(Stream { socket, tls: tls.map(Box::new) })
    }

    /// The TLS handshake, before anything else. [`Sink::shutdown`] ends it, and the time limit, if it has one. `None`:
    /// no TLS.
    pub fn handshake(&self, until: Option<IoDeadline>) -> Result<Option<Peer>, HandshakeError> {
        self.tls.as_ref().map(|tls| tls.handshake(&self.socket, until)).transpose()
    }

    /// Waits for bytes; 0 at the end of the stream.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        assert_permitted(Action::Network, "receiving");
        match &self.tls {
            Some(tls) => tls.recv(&self.socket, buf, None),
            None => self.recv_plain(buf),
        }
    }

    /// The process at the other end of a Unix socket.
    pub fn peer_process(&self) -> io::Result<ProcessId> {
        peer_process(&self.socket).map(|(process, _)| process)
    }

    /// Reads the header that a proxy sends in front of everything, TLS included. [`Sink::shutdown`] ends it.
    pub fn proxy_header(&self) -> Result<Origin, HeaderError> {
        assert_permitted(Action::Network, "receiving");
        proxy::read(|buf| self.recv_plain(buf))
    }

    fn recv_plain(&self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match io::Read::read(&mut &self.socket, buf) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// Limits each wait of `recv` and `send`, which then end with `WouldBlock`. `None`: no limit, as at the start.
    pub fn set_wait_max(&self, wait_max: Option<Duration>) -> io::Result<()> {
        // Zero would mean no limit.
        let wait_max = wait_max.map(|time| time.max(Duration::from_millis(1)));
        self.socket.set_read_timeout(wait_max)?;
        self.socket.set_write_timeout(wait_max)
    }

    /// The same for `recv` alone.
    pub fn set_receive_max(&self, wait_max: Option<Duration>) -> io::Result<()> {
        self.socket.set_read_timeout(wait_max.map(|time| time.max(Duration::from_millis(1))))
    }

    /// Shuts down the receiving direction: `recv` returns 0, replies can still be sent.
    pub fn shutdown_recv(&self) {
        // An error means that the peer is gone already.
        let _ = self.socket.shutdown(Shutdown::Read);
    }

    fn send_with_flags(&self, chunks: &[IoSlice<'_>], flags: libc::c_int) -> io::Result<usize> {
        loop {
            let result = match chunks {
                [one] => self.socket.send_with_flags(one, flags),
                many => self.socket.send_vectored_with_flags(many, flags),
            };
            match result {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

impl Sink for Stream {
    fn try_send(&self, chunks: &[IoSlice<'_>]) -> io::Result<usize> {
        assert_permitted(Action::Network, "sending");
        match &self.tls {
            None => self.send_with_flags(chunks, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT),
            Some(tls) => tls.try_send(&self.socket, chunks),
        }
    }

    fn send(&self, chunks: &[IoSlice<'_>]) -> io::Result<usize> {
        assert_permitted(Action::Network, "sending");
        match &self.tls {
            None => self.send_with_flags(chunks, libc::MSG_NOSIGNAL),
            Some(tls) => tls.send(&self.socket, chunks, None),
        }
    }

    fn shutdown(&self) {
        assert_permitted(Action::Network, "shutting a connection down");
        if let Some(tls) = &self.tls {
            tls.say_goodbye(&self.socket);
        }
        // An error means that the peer is gone already.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// A vanished peer is noticed within the timeout, with or without bytes being sent.
    #[test]
    fn a_vanished_peer_is_noticed_in_both_directions() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let peer = TcpStream::connect(listener.local_addr().expect("an address")).expect("connect");
        for seconds in [10, 300, 18 * 3600] {
            let socket = Socket::from(peer.try_clone().expect("clone"));
            let timeout = Duration::from_secs(seconds);
            let stream = Stream::new(socket, true, None, Some(timeout)).expect("a stream");
            let socket = &stream.socket;
            assert_eq!(socket.tcp_user_timeout().expect("an option"), Some(timeout));
            assert!(socket.keepalive().expect("an option"));
            let probing = socket.tcp_keepalive_interval().expect("an option")
                * socket.tcp_keepalive_retries().expect("an option");
            assert_eq!(socket.tcp_keepalive_time().expect("an option") + probing, timeout);
        }
        let quiet = TcpStream::connect(listener.local_addr().expect("an address")).expect("connect");
        let stream = Stream::new(Socket::from(quiet), true, None, None).expect("a stream");
        assert!(!stream.socket.keepalive().expect("an option"));
        assert_eq!(stream.socket.tcp_user_timeout().expect("an option"), None);
    }
}
