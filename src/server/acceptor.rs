//! The accept loop of one listening socket: a thread for each client.

use std::io;
use std::thread;
use std::time::Duration;

use crate::base::address::Host;
use crate::base::level::{ERROR, WARNING};
use crate::base::sync::Arc;
use crate::net::listen::{Endpoint, Listener};
use crate::net::stream::Stream;
use crate::server::Server;
use crate::server::client_log::LOG;
use crate::server::client_log::{self, log_without_peer};
use crate::server::connection::Connection;
use crate::server::connection_counts::RefusedFor;
use crate::server::outbox::Outbox;
use crate::server::peer::Peer;
use crate::server::policy::Policy;
use crate::server::session;

/// Bytes of stack for a session. Its frames are on the heap, so that ten thousand idle clients do not cost gigabytes
/// of stack.
// Without optimization the compressor of zlib builds its tables on the stack, and more than once.
const SESSION_STACK: usize = if cfg!(debug_assertions) { 1 << 20 } else { 256 << 10 };
/// Longest pause after an error that will not go away at once (no descriptors left): a client that leaves ends it.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Accept clients until the server stops, or the listener ends.
pub fn accept_loop(server: &Arc<Server>, listener: &Listener, policy: &Arc<Policy>) {
    let mut is_logged = false;
    let is_over = || server.is_stopping() || listener.has_ended();
    while !is_over() {
        let (socket, address) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error)
                if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) =>
            {
                continue;
            }
            Err(_) if is_over() => return,
            Err(error) => {
                // Logged once: the error comes back ten times a second until a client leaves.
                if !std::mem::replace(&mut is_logged, true) {
                    let message = format_args!("Can't accept a client on {}: {error}", listener.endpoint);
                    log_without_peer(&client_log::NOT_SERVED, ERROR, message);
                }
                server.wait_for_departure(ERROR_PAUSE);
                continue;
            }
        };
        is_logged = false;
        server.counts().accept();
        let peer = match (&listener.endpoint, address.as_socket()) {
            (_, Some(address)) => address.to_string(),
            (endpoint, None) => endpoint.to_string(),
        };
        let ip = address.as_socket().map(|address| address.ip());
        let is_proxied = ip.is_some_and(|ip| policy.is_proxy(ip));
        if ip.is_some_and(|ip| !is_proxied && !policy.allows(ip)) {
            server.counts().refuse(RefusedFor::Allow);
            refuse(&Peer::new(0, peer), listener);
            continue;
        }
        // The host of a proxy's client is known once its header has come.
        let source = ip.filter(|_| !is_proxied).map(Host::from);
        let tls = match listener.tls().map(|tls| tls.begin()).transpose() {
            Ok(tls) => tls,
            Err(error) => {
                let message = format_args!("({peer}) TLS can't begin: {error}; the connection is closed");
                server.counts().refuse(RefusedFor::Resources);
                log_without_peer(&client_log::NOT_SERVED, ERROR, message);
                continue;
            }
        };
        let is_tcp = matches!(listener.endpoint, Endpoint::Tcp { .. });
        let stream = match Stream::new(socket, is_tcp, tls, server.limits().dead_peer_timeout) {
            Ok(stream) => stream,
            Err(error) => {
                log::debug!(target: LOG, "new connection {peer} is gone already: {error}");
                continue;
            }
        };
        log::debug!(target: LOG, "new connection {peer}");
        let id = server.next_connection_id();
        let outbox = Arc::new(Outbox::new(stream, server.limits().unsent));
        let connection = Arc::new(Connection::new(id, outbox, peer, server.clock().system_time()));
        let Some(admission) = server.admission().admit(&connection, source, policy) else { continue };
        let served_by = Arc::clone(server);
        let spawned = thread::Builder::new()
            .name(format!("zeo-{id}"))
            .stack_size(SESSION_STACK)
            .spawn(move || session::serve(&served_by, connection, admission));
        if let Err(error) = spawned {
            let message = format_args!("Can't start a thread for a client: {error}");
            server.counts().refuse(RefusedFor::Resources);
            log_without_peer(&client_log::NOT_SERVED, ERROR, message);
            server.wait_for_departure(ERROR_PAUSE);
        }
    }
}

/// Logs a client that `allow` does not admit. Its connection is closed when its socket is dropped, unread.
fn refuse(peer: &Peer, listener: &Listener) {
    let endpoint = &listener.endpoint;
    let message = format_args!("refused: 'allow' of {endpoint} does not have this address");
    peer.log(&client_log::NOT_ALLOWED, WARNING, message);
}
