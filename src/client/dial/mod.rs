//! One attempt to reach one server: name, socket, TLS, handshake, authentication. One time limit covers all of it, and
//! another thread can end it. What comes after (`register`, verification) is not here: see [`super::link`].

mod connect;
mod handshake;
mod outcome;

use crate::base::address::Address;
use crate::base::cancel::Cancel;
use crate::base::clock::IoDeadline;
use crate::net::stream::Stream;
pub use outcome::{Credentials, DialError, DialOptions, Dialled};

/// Dials. `cancel` ends it at any time.
pub fn dial(address: &Address, options: &DialOptions, cancel: &Cancel) -> Result<Dialled, DialError> {
    let until = IoDeadline::after(options.time_max);
    let reached = connect::connect(address, until, cancel)?;
    let other = reached.socket.try_clone().map_err(DialError::Unreachable)?;
    // An error means that the peer is gone already.
    let _ending = cancel.on_cancel(move || drop(other.shutdown(std::net::Shutdown::Both)));
    let stream = Stream::new(reached.socket, reached.is_tcp, None, options.dead_peer_timeout)
        .map_err(DialError::Lost)?;
    let dialled = handshake::shake(stream, reached.peer, options, until);
    match dialled {
        Err(_) if cancel.is_cancelled() => Err(DialError::Cancelled),
        other => other,
    }
}
