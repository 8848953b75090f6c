//! The handshake: TLS where it is configured; then we announce the newest protocol, the client answers with what it
//! will speak.

use std::io;

use crate::net::tls::layer::HandshakeError;
use crate::server::Server;
use crate::server::admission::TOO_SLOW;
use crate::server::connection::Connection;
use crate::server::hosted::LOG;
use crate::server::outbox::Outbox;
use crate::wire::frame::{FrameReader, put_frame};
use crate::wire::protocol::{Answer, Generation, negotiate};

/// What the client answered.
pub(super) struct Greeted {
    pub generation: Generation,
    pub msgpack: bool,
}

/// TLS, if it is configured, and a line about who the client is. False: there is nothing more to do for this connection.
pub(super) fn secure(server: &Server, connection: &Connection) -> bool {
    let (outbox, peer) = (&connection.outbox, connection.label());
    match outbox.sink().handshake() {
        Ok(None) => true,
        Ok(Some(client)) => {
            log::info!(target: LOG, "({peer}) {}, certificate of '{}'", client.version, client.subject);
            true
        }
        // Closed from our side.
        Err(_) if outbox.is_closed() => {
            if outbox.close_reason() == Some(TOO_SLOW) {
                let hint = "; a client without <ssl> waits like that";
                server.admission().log_too_slow(connection, "no TLS: it is not done", hint);
            }
            false
        }
        // Whoever looks whether the port is open.
        Err(HandshakeError::Silent) => {
            log::debug!(target: LOG, "({peer}) no TLS: {}", HandshakeError::Silent);
            false
        }
        Err(error) => {
            let error = error.to_string();
            if server.admission().may_log_stranger(&peer, &error) {
                log::warn!(target: LOG, "({peer}) no TLS: {error}; the connection is closed");
            }
            false
        }
    }
}

/// Announce, and read the answer. `None`: there is nothing more to do for this connection.
pub(super) fn greet(
    server: &Server,
    outbox: &std::sync::Arc<Outbox>,
    frames: &mut FrameReader,
    peer: &str,
) -> io::Result<Option<Greeted>> {
    let mut frame = Vec::new();
    put_frame(&server.announcement().bytes(), &mut frame);
    outbox.send_own(outbox.place(), &frame);

    let stream = outbox.sink();
    loop {
        let answer = match frames.next() {
            Ok(Some(frame)) => negotiate(server.announcement(), frame.payload),
            Ok(None) => {
                let received = stream.recv(frames.spare()?)?;
                if received == 0 {
                    return Ok(None);
                }
                frames.filled(received);
                continue;
            }
            Err(error) => {
                let error = error.to_string();
                if server.admission().may_log_stranger(peer, &error) {
                    log::error!(target: LOG, "({peer}) bad handshake: {error}");
                }
                return Ok(None);
            }
        };
        return match answer {
            Ok(Answer::Speaks { generation, msgpack }) => {
                let first = if msgpack { "M" } else { "Z" };
                let number = generation.name().trim_start_matches('Z');
                if server.admission().may_log_greeting() {
                    log::info!(target: "ZEO.asyncio.server", "({peer}) received handshake '{first}{number}'");
                }
                Ok(Some(Greeted { generation, msgpack }))
            }
            Ok(Answer::RuOk) => {
                // No log line: load balancers ask every few seconds.
                let mut frame = Vec::new();
                put_frame(server.ruok().as_bytes(), &mut frame);
                outbox.send_own(outbox.place(), &frame);
                outbox.wait_until_sent();
                Ok(None)
            }
            Err(error) => {
                let error = error.to_string();
                if server.admission().may_log_stranger(peer, &error) {
                    log::error!(target: "ZEO.asyncio.server", "({peer}) {error}");
                }
                Ok(None)
            }
        };
    }
}
