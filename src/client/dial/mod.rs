//! One attempt to reach one server: name, socket, TLS, handshake, authentication. One time limit covers all of it, and
//! another thread can end it. What comes after (`register`, verification) is not here: see [`super::link`].

mod handshake;
mod outcome;

use std::io;

use socket2::Socket;

use crate::base::address::Address;
use crate::base::cancel::Cancel;
use crate::base::clock::IoDeadline;
use crate::net::connect::connect;
use crate::net::stream::Stream;
use crate::net::tls::layer::HandshakeError;
pub use outcome::{Credentials, DialError, DialOptions, Dialled, WITH_PASSWORDS};

/// The status of a server, JSON (`ruok`). Servers since ZEO 4.1 have it; it needs no password.
pub fn ask_status(address: &Address, options: &DialOptions) -> Result<Vec<u8>, DialError> {
    let until = IoDeadline::after(options.time_max);
    let reached = connect(address, until, &Cancel::default())?;
    let stream = stream_of(reached.socket, reached.is_tcp, address, options)?;
    secure(&stream, until).and_then(|()| handshake::ask_status(stream, until))
}

/// Dials. `cancel` ends it at any time.
pub fn dial(address: &Address, options: &DialOptions, cancel: &Cancel) -> Result<Dialled, DialError> {
    let until = IoDeadline::after(options.time_max);
    let reached = connect(address, until, cancel)?;
    let other = reached.socket.try_clone().map_err(DialError::Unreachable)?;
    // An error means that the peer is gone already.
    let _ending = cancel.on_cancel(move || drop(other.shutdown(std::net::Shutdown::Both)));
    let stream = stream_of(reached.socket, reached.is_tcp, address, options)?;
    let dialled =
        secure(&stream, until).and_then(|()| handshake::shake(stream, reached.peer, options, until));
    match dialled {
        Err(_) if cancel.is_cancelled() => Err(DialError::Cancelled),
        // A server of TLS 1.3 looks at the client's certificate after the client's part of the handshake.
        Err(DialError::Lost(error))
            if options.tls.is_some() && error.kind() == io::ErrorKind::UnexpectedEof =>
        {
            Err(DialError::Tls(
                "the server closed the connection after the TLS handshake; its log says why (does it know this \
                 client's certificate?)"
                    .into(),
            ))
        }
        other => other,
    }
}

/// The stream of a socket, with TLS if that is wanted.
fn stream_of(
    socket: Socket,
    is_tcp: bool,
    address: &Address,
    options: &DialOptions,
) -> Result<Stream, DialError> {
    let host = match address {
        Address::Tcp { host, .. } => Some(host.as_deref().unwrap_or("localhost")),
        Address::Unix(_) => None,
    };
    let tls = options.tls.as_ref().map(|tls| tls.begin(host)).transpose();
    let tls = tls.map_err(|error| DialError::Tls(error.to_string()))?;
    Stream::new(socket, is_tcp, tls, options.dead_peer_timeout).map_err(DialError::Lost)
}

/// The handshake of TLS, if the stream has TLS.
fn secure(stream: &Stream, until: IoDeadline) -> Result<(), DialError> {
    let closed = "the server closed the connection during the TLS handshake; its log says why";
    match stream.handshake(Some(until)) {
        Ok(_) => Ok(()),
        Err(HandshakeError::Gone(error)) if error.kind() == io::ErrorKind::TimedOut => {
            Err(DialError::TimedOut("the TLS handshake; does the server have <ssl>?"))
        }
        Err(HandshakeError::Gone(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(DialError::Tls(closed.into()))
        }
        Err(HandshakeError::Silent) => Err(DialError::Tls(closed.into())),
        Err(HandshakeError::Gone(error)) => Err(DialError::Lost(error)),
        Err(HandshakeError::Refused(why)) => Err(DialError::Tls(why)),
    }
}
