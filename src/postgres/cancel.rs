//! The request to end what a session does. It goes over a connection of its own.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use super::peer::{KeepAlive, Peer};
use super::transport::Transport;
use crate::base::clock::IoDeadline;

/// Ends what a session does, from any thread.
#[derive(Clone, Debug)]
pub struct CancelToken {
    peer: Peer,
    pid: i32,
    key: i32,
}

impl CancelToken {
    pub(super) fn new(peer: Peer, pid: i32, key: i32) -> CancelToken {
        CancelToken { peer, pid, key }
    }

    /// Asks the server to end the session's present statement, which then fails with 57014 `query_canceled`. No error
    /// if there is none; an error if the server could not be reached within the time. Returns when the server has
    /// passed the request on. As with libpq before version 17, the request is not encrypted: the key is good for
    /// nothing but a cancel.
    pub fn cancel(&self, timeout: Duration) -> io::Result<()> {
        let until = IoDeadline::after(timeout);
        let mut transport = Transport::new(self.peer.connect(&KeepAlive::default(), Some(until))?)?;
        let mut message = BytesMut::new();
        frontend::cancel_request(self.pid, self.key, &mut message);
        // It fits into the buffer of a new socket.
        if transport.try_write(&message)? != Some(message.len()) {
            return Err(io::ErrorKind::WriteZero.into());
        }
        // The server closes the connection when it has passed the request on.
        loop {
            transport.wait(false, None, Some(until))?;
            match transport.try_read(&mut [0; 64]) {
                Ok(Some(0)) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
                Ok(_) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
