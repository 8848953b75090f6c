//! The handshake: the header of a proxy and TLS, where they are configured; then the server offers its newest protocol,
//! and the client answers with the one that it will speak.

use std::io;

use crate::base::address::Host;
use crate::base::level::{ERROR, INFO, WARNING};
use crate::net::proxy::{HeaderError, Origin};
use crate::net::tls::layer::HandshakeError;
use crate::server::Server;
use crate::server::access::ClientIdentity;
use crate::server::admission::TOO_SLOW;
use crate::server::client_log;
use crate::server::client_log::LOG;
use crate::server::connection::Connection;
use crate::server::connection_counts::RefusedFor;
use crate::server::session::Session;
use crate::wire::frame::{FrameReader, put_frame};
use crate::wire::protocol::{Generation, GreetingAnswer, negotiate};

/// Python's logger for messages about the protocol.
const PROTOCOL_LOG: &str = "ZEO.asyncio.server";

/// The client's answer to the greeting.
pub(super) struct Greeted {
    pub generation: Generation,
    pub msgpack: bool,
}

impl Session {
    /// Who it is, if the connection comes from a proxy: the header names the client, whose address counts from here on.
    /// False: the connection has ended.
    pub(super) fn arrive(&mut self) -> bool {
        let connection = &self.connection;
        if connection.peer.ip().is_none() {
            // Without an answer of the kernel no rule for a user or a group fits.
            self.identity.client.process = connection.outbox.sink().peer_process().ok();
        }
        let Some(proxy) = connection.peer.ip().filter(|ip| self.policy.is_proxy(*ip)) else { return true };
        let outbox = &connection.outbox;
        let client = match outbox.sink().proxy_header() {
            Ok(Origin::Client(client)) => {
                log::debug!(target: LOG, "({}) is a proxy of {client}", connection.peer.label());
                connection.peer.set_client(client);
                client.ip()
            }
            Ok(Origin::Unsaid) => proxy,
            // Closed from our side.
            Err(_) if outbox.is_closed() => {
                if outbox.close_reason() == Some(TOO_SLOW) {
                    self.server.admission().log_too_slow(connection, "no PROXY header has come", "");
                }
                return false;
            }
            // A probe of the port.
            Err(HeaderError::Silent) => {
                log::debug!(target: LOG, "({}) {}", connection.peer.label(), HeaderError::Silent);
                return false;
            }
            Err(error) => {
                self.server.counts().refuse(RefusedFor::Proxy);
                let message = format_args!("bad PROXY header: {error}; the connection is closed");
                connection.peer.log(&client_log::UNREGISTERED, WARNING, message);
                return false;
            }
        };
        if !self.policy.allows(client) {
            self.server.counts().refuse(RefusedFor::Allow);
            let message = format_args!("refused: 'allow' does not have this address");
            connection.peer.log(&client_log::NOT_ALLOWED, WARNING, message);
            return false;
        }
        self.admission.comes_from(Host::from(client), &self.connection)
    }
}

/// TLS, if it is configured, and a log line about the certificate, which `identity` gets. False: the connection has
/// ended.
pub(super) fn secure(server: &Server, connection: &Connection, identity: &mut ClientIdentity) -> bool {
    let outbox = &connection.outbox;
    match outbox.sink().handshake(None) {
        Ok(None) => true,
        Ok(Some(client)) => {
            let message = format_args!("{}, certificate of '{}'", client.version, client.subject);
            connection.peer.log(&client_log::IDENTITIES, INFO, message);
            identity.certificate = client.certificate;
            true
        }
        // Closed from our side.
        Err(_) if outbox.is_closed() => {
            if outbox.close_reason() == Some(TOO_SLOW) {
                let hint = "; perhaps the client has no <ssl>";
                server.admission().log_too_slow(
                    connection,
                    "no TLS: the TLS handshake is not complete",
                    hint,
                );
            }
            false
        }
        // A probe of the port.
        Err(HandshakeError::Silent) => {
            log::debug!(target: LOG, "({}) no TLS: {}", connection.peer.label(), HandshakeError::Silent);
            false
        }
        Err(error) => {
            server.counts().refuse(RefusedFor::Tls);
            let message = format_args!("no TLS: {error}; the connection is closed");
            connection.peer.log(&client_log::UNREGISTERED, WARNING, message);
            false
        }
    }
}

/// Offers the newest protocol, and reads the answer. `is_shown`: the storages that `ruok` shows. `None`: the connection
/// has ended.
pub(super) fn greet(
    server: &Server,
    is_shown: impl Fn(&str) -> bool,
    connection: &Connection,
    frames: &mut FrameReader,
) -> io::Result<Option<Greeted>> {
    let outbox = &connection.outbox;
    let mut frame = Vec::new();
    put_frame(server.greeting().bytes(), &mut frame);
    outbox.send_own(outbox.place(), &frame);

    let stream = outbox.sink();
    loop {
        let answer = match frames.next() {
            Ok(Some(frame)) => negotiate(server.greeting(), frame.payload),
            Ok(None) => {
                let received = stream.recv(frames.spare()?)?;
                if received == 0 {
                    return Ok(None);
                }
                frames.filled(received);
                continue;
            }
            Err(error) => {
                connection.peer.log(&client_log::UNREGISTERED, ERROR, format_args!("bad handshake: {error}"));
                return Ok(None);
            }
        };
        return match answer {
            Ok(GreetingAnswer::Speaks { generation, msgpack }) => {
                let first = if msgpack { "M" } else { "Z" };
                let number = generation.name().trim_start_matches('Z');
                let message = format_args!("received handshake '{first}{number}'");
                connection.peer.log_as(PROTOCOL_LOG, &client_log::HANDSHAKES, INFO, message);
                Ok(Some(Greeted { generation, msgpack }))
            }
            Ok(GreetingAnswer::RuOk) => {
                // No log line: load balancers ask every few seconds.
                let mut frame = Vec::new();
                let status = server.ruok_of(is_shown);
                put_frame(status.as_bytes(), &mut frame);
                outbox.send_own(outbox.place(), &frame);
                outbox.wait_until_sent();
                Ok(None)
            }
            Err(error) => {
                connection.peer.log_as(
                    PROTOCOL_LOG,
                    &client_log::UNREGISTERED,
                    ERROR,
                    format_args!("{error}"),
                );
                Ok(None)
            }
        };
    }
}
