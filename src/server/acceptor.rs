//! The accept loop of one listening socket: a thread for each client.

use std::io;
use std::thread;
use std::time::Duration;

use crate::base::sync::Arc;
use crate::net::listen::{Kind, Listener};
use crate::net::stream::Stream;
use crate::server::Server;
use crate::server::hosted::LOG;
use crate::server::session;

/// A session's frames are on the heap; ten thousand idle clients must not cost gigabytes of stack.
const SESSION_STACK: usize = 256 << 10;
/// Pause after an error that will not go away at once (no descriptors left).
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Accept clients until the server stops.
pub fn accept_loop(server: &Arc<Server>, listener: &Listener) {
    let mut complained = false;
    while !server.is_stopping() {
        let (socket, address) = match listener.socket.accept() {
            Ok(accepted) => accepted,
            Err(error)
                if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) =>
            {
                continue;
            }
            Err(_) if server.is_stopping() => return,
            Err(error) => {
                // Once per episode: it comes back a hundred times a second until a client leaves.
                if !std::mem::replace(&mut complained, true) {
                    log::error!(target: LOG, "Can't accept a client on {}: {error}", listener.kind);
                }
                thread::sleep(ERROR_PAUSE);
                continue;
            }
        };
        complained = false;
        let peer = match (&listener.kind, address.as_socket()) {
            (_, Some(address)) => address.to_string(),
            (kind, None) => kind.to_string(),
        };
        let stream = match Stream::new(socket, matches!(listener.kind, Kind::Tcp { .. })) {
            Ok(stream) => stream,
            Err(error) => {
                log::debug!(target: LOG, "new connection {peer} is gone already: {error}");
                continue;
            }
        };
        log::debug!(target: LOG, "new connection {peer}");
        let (id, server) = (server.next_connection_id(), Arc::clone(server));
        let spawned = thread::Builder::new()
            .name(format!("zeo-{id}"))
            .stack_size(SESSION_STACK)
            .spawn(move || session::serve(&server, stream, id, peer));
        if let Err(error) = spawned {
            log::error!(target: LOG, "Can't start a thread for a client: {error}");
            thread::sleep(ERROR_PAUSE);
        }
    }
}
