//! A connected byte stream: TCP or Unix socket.
//!
//! The socket is in blocking mode; [`Sink::try_send`] asks the kernel per call not to wait, so that one
//! thread can wait in `recv` while others send.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::time::Duration;

use socket2::{Socket, TcpKeepalive};

/// Where an outbox sends to.
pub trait Sink: Send + Sync {
    /// Sends what the kernel takes at once; `WouldBlock` if that is nothing.
    fn try_send(&self, chunks: &[IoSlice<'_>]) -> io::Result<usize>;
    /// Sends a part, waiting until the kernel takes one.
    fn send(&self, chunks: &[IoSlice<'_>]) -> io::Result<usize>;
    /// Ends both directions; whoever waits in a call returns.
    fn shutdown(&self);
}

/// One client's socket.
#[derive(Debug)]
pub struct Stream {
    socket: Socket,
}

impl Stream {
    /// Sets what every connection of ours wants: no delay (Nagle's algorithm makes a reply behind an
    /// invalidation wait 40 ms), and keep-alive probes that find a dead peer within minutes.
    pub fn new(socket: Socket, is_tcp: bool) -> io::Result<Stream> {
        if is_tcp {
            socket.set_tcp_nodelay(true)?;
            let probes = TcpKeepalive::new()
                .with_time(Duration::from_secs(120))
                .with_interval(Duration::from_secs(30))
                .with_retries(6);
            socket.set_tcp_keepalive(&probes)?;
        }
        Ok(Stream { socket })
    }

    /// Waits for bytes; 0 at the end of the stream.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match io::Read::read(&mut &self.socket, buf) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// Ends what comes in: `recv` returns 0, replies can still go out.
    pub fn shutdown_recv(&self) {
        // The peer may have gone already: nothing to be done about it.
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
        self.send_with_flags(chunks, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT)
    }

    fn send(&self, chunks: &[IoSlice<'_>]) -> io::Result<usize> {
        self.send_with_flags(chunks, libc::MSG_NOSIGNAL)
    }

    fn shutdown(&self) {
        // The peer may have gone already: nothing to be done about it.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}
