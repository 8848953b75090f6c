//! A connection of HTTP, with TLS or without. Each call has a time limit: a peer that sends or takes a byte now and
//! then does not hold a thread for longer.

use std::io::{self, IoSlice, Read};
use std::net::Shutdown;
use std::time::Duration;

use socket2::Socket;

use crate::base::clock::IoDeadline;
use crate::net::tls::layer::{HandshakeError, Layer};

/// Bytes after the head of a request that are read and thrown away: a body that is refused.
const THROWN_AWAY_MAX: usize = 64 << 10;

/// A connection.
pub struct HttpConnection {
    socket: Socket,
    tls: Option<Layer>,
}

impl HttpConnection {
    pub fn new(socket: Socket, tls: Option<Layer>) -> HttpConnection {
        HttpConnection { socket, tls }
    }

    /// The handshake of TLS, before anything else.
    pub fn handshake(&self, until: IoDeadline) -> Result<(), HandshakeError> {
        self.tls.as_ref().map_or(Ok(()), |tls| tls.handshake(&self.socket, Some(until)).map(drop))
    }

    /// Waits for bytes; 0 at the end. After the time limit the error is of kind `TimedOut` or `WouldBlock`.
    pub fn receive(&self, piece: &mut [u8], until: IoDeadline) -> io::Result<usize> {
        if let Some(tls) = &self.tls {
            return tls.recv(&self.socket, piece, Some(until));
        }
        loop {
            if until.is_over() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.socket.set_read_timeout(Some(at_least_some(until)))?;
            match Read::read(&mut &self.socket, piece) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                received => return received,
            }
        }
    }

    pub fn send_all(&self, mut bytes: &[u8], until: IoDeadline) -> io::Result<()> {
        while !bytes.is_empty() {
            if until.is_over() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            bytes = bytes.get(self.send(bytes, until)?..).unwrap_or_default();
        }
        Ok(())
    }

    /// Sends a part.
    fn send(&self, bytes: &[u8], until: IoDeadline) -> io::Result<usize> {
        if let Some(tls) = &self.tls {
            return tls.send(&self.socket, &[IoSlice::new(bytes)], Some(until));
        }
        self.socket.set_write_timeout(Some(at_least_some(until)))?;
        match self.socket.send_with_flags(bytes, libc::MSG_NOSIGNAL) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            sent => sent,
        }
    }

    /// The peer has everything when it closes its side. What it still sends is read, because a connection that is
    /// closed with unread bytes is reset, and the response may be lost.
    pub fn end(&self, until: IoDeadline) {
        self.tls.iter().for_each(|tls| tls.say_goodbye(&self.socket));
        if self.socket.shutdown(Shutdown::Write).is_err() {
            return;
        }
        let mut left = THROWN_AWAY_MAX;
        let mut piece = [0; 4096];
        while left > 0 && !until.is_over() && self.socket.set_read_timeout(Some(at_least_some(until))).is_ok()
        {
            match Read::read(&mut &self.socket, &mut piece) {
                Ok(0) | Err(_) => return,
                Ok(count) => left = left.saturating_sub(count),
            }
        }
    }
}

/// The time that is left; zero would mean no limit.
fn at_least_some(until: IoDeadline) -> Duration {
    until.left().max(Duration::from_millis(1))
}
