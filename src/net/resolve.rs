//! The addresses of a host.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::mpsc;
use std::thread;

use crate::base::cancel::Cancel;
use crate::base::clock::IoDeadline;

/// Why there is no address.
#[derive(Debug)]
pub enum ResolveError {
    Failed(io::Error),
    Cancelled,
    TimedOut,
}

/// Looks a name up. The look-up has no time limit of its own, so a thread makes it, which goes on alone if it takes too
/// long.
pub fn resolve(
    host: &str,
    port: u16,
    until: IoDeadline,
    cancel: &Cancel,
) -> Result<Vec<SocketAddr>, ResolveError> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let (found, wait) = mpsc::sync_channel::<Option<io::Result<Vec<SocketAddr>>>>(2);
    let cancelled = found.clone();
    // Nobody waits any more if the channel is closed.
    let _ending = cancel.on_cancel(move || drop(cancelled.try_send(None)));
    let name = host.to_string();
    thread::Builder::new()
        .name("zeo-resolve".into())
        .spawn(move || {
            let addresses = (name.as_str(), port).to_socket_addrs().map(Iterator::collect);
            drop(found.try_send(Some(addresses)));
        })
        .map_err(ResolveError::Failed)?;
    match wait.recv_timeout(until.left()) {
        Ok(Some(addresses)) => addresses.map_err(ResolveError::Failed),
        Ok(None) => Err(ResolveError::Cancelled),
        Err(_) => Err(ResolveError::TimedOut),
    }
}
