//! TLS on one connection, with several sending threads and one receiving thread.
//!
//! rustls has one state for both directions, so it is behind a mutex, and no thread waits while it holds it: the
//! receiver reads the socket first and then takes the mutex, senders use non-blocking calls and poll without it.
//!
//! Encrypted bytes must be sent, and in order, but the user of a [`Sink`](crate::net::stream::Sink) passes the same
//! bytes again after `WouldBlock`. So a piece counts as sent when its last encrypted byte is sent; until then
//! `accepted` is the number of the user's bytes that are encrypted already.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::sync::{Arc, OnceLock};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::{AlertDescription, Connection, ProtocolVersion};
use sha2::{Digest, Sha256};
use socket2::Socket;

use super::certificate::Certificate;
use super::files::Role;
use crate::base::clock::IoDeadline;
use crate::base::sync::{Mutex, MutexGuard, rank};

/// Size of the receive buffer: a TLS record and a little more.
const RECEIVE_LEN: usize = 17 << 10;
/// Capacity for received bytes that an idle connection keeps.
const KEEP_LEN: usize = 4 << 10;
/// First byte of a connection that starts a TLS handshake.
const HANDSHAKE_RECORD: u8 = 22;
/// First byte of a refusal of the handshake.
const ALERT_RECORD: u8 = 21;

/// The TLS side of a connection.
pub struct Layer {
    /// Innermost of all locks.
    state: Mutex<TlsSession, rank::Tls>,
    /// The verifier's reason for refusing the peer, if it did.
    refused: Arc<OnceLock<String>>,
    /// What the peer is.
    peer: Role,
}

struct TlsSession {
    connection: Connection,
    /// Received bytes that are not decrypted yet.
    received: VecDeque<u8>,
    /// Bytes of the sender that are encrypted and not yet reported as sent.
    accepted: usize,
}

/// The peer of the handshake.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Peer {
    pub version: &'static str,
    /// The subject of the peer's certificate, for the log.
    pub subject: String,
    /// `None`: it cannot be read.
    pub certificate: Option<CertificateId>,
}

/// What tells a certificate from others.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CertificateId {
    /// The whole subject in the form of RFC 4514, as it is: not for the log.
    pub subject: String,
    /// SHA-256 of its DER form.
    pub sha256: [u8; 32],
}

/// Why the handshake failed.
#[derive(Debug)]
pub enum HandshakeError {
    /// The peer closed the connection before it sent anything: a probe.
    Silent,
    /// The peer closed the connection, or the network failed.
    Gone(io::Error),
    Refused(String),
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HandshakeError::Silent => f.write_str("the client closed the connection before it sent anything"),
            HandshakeError::Gone(error) if error.kind() == io::ErrorKind::UnexpectedEof => f.write_str(
                "the client closed the connection during the TLS handshake; its log says why (does it know the server's \
                 certificate?)",
            ),
            HandshakeError::Gone(error) => write!(f, "the connection broke: {error}"),
            HandshakeError::Refused(why) => f.write_str(why),
        }
    }
}

impl Layer {
    pub(super) fn new(connection: Connection, refused: Arc<OnceLock<String>>) -> Layer {
        let peer = match &connection {
            Connection::Client(_) => Role::Server,
            Connection::Server(_) => Role::Client,
        };
        Layer {
            state: Mutex::new(TlsSession { connection, received: VecDeque::new(), accepted: 0 }),
            refused,
            peer,
        }
    }

    /// The TLS handshake, before anything else is sent or received. After `until` it ends with an error of kind
    /// `TimedOut`; another thread can end it by shutting down the socket.
    pub fn handshake(&self, socket: &Socket, until: Option<IoDeadline>) -> Result<Peer, HandshakeError> {
        let mut first_byte = None;
        loop {
            let waiting_for = {
                let mut state = self.state.lock();
                match state.flush(socket) {
                    Ok(()) if !state.connection.is_handshaking() => return Ok(state.peer()),
                    Ok(()) => PollFlags::IN,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => PollFlags::OUT,
                    Err(error) => return Err(HandshakeError::Gone(error)),
                }
            };
            match wait(socket, waiting_for, until) {
                Ok(()) if waiting_for == PollFlags::OUT => continue,
                Ok(()) => {}
                Err(error) => return Err(HandshakeError::Gone(error)),
            }
            let mut bytes = [0; RECEIVE_LEN];
            let count = match receive(socket, &mut bytes) {
                Ok(0) if first_byte.is_none() => return Err(HandshakeError::Silent),
                Ok(0) => return Err(HandshakeError::Gone(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => count,
                Err(error) => return Err(HandshakeError::Gone(error)),
            };
            let received = bytes.get(..count).unwrap_or_default();
            let first_byte = *first_byte.get_or_insert(received.first().copied().unwrap_or_default());
            let mut state = self.state.lock();
            state.received.extend(received);
            if let Err(error) = state.advance_handshake(socket) {
                return Err(HandshakeError::Refused(self.explain(&error, first_byte)));
            }
        }
    }

    /// The reason of a failed handshake, worded for operators.
    fn explain(&self, error: &rustls::Error, first_byte: u8) -> String {
        if let Some(why) = self.refused.get() {
            return why.clone();
        }
        match error {
            rustls::Error::AlertReceived(alert) if self.peer == Role::Server => refused_by_server(*alert),
            _ if self.peer == Role::Server
                && first_byte != HANDSHAKE_RECORD
                && first_byte != ALERT_RECORD =>
            {
                "the server does not speak TLS; does its configuration have <ssl>?".into()
            }
            rustls::Error::NoCertificatesPresented => {
                "the client shows no certificate; its <ssl> needs 'certificate' and 'key'".into()
            }
            rustls::Error::AlertReceived(alert) if is_about_certificate(*alert) => {
                format!(
                    "the client does not accept the certificate of this server ({}); its <ssl> needs it, or its \
                     authority, in 'authenticate'",
                    in_words(*alert)
                )
            }
            rustls::Error::AlertReceived(alert) => {
                format!("the client ended the TLS handshake: {}", in_words(*alert))
            }
            _ if first_byte != HANDSHAKE_RECORD => "this is not TLS; does the client have <ssl>?".into(),
            other => other.to_string(),
        }
    }

    /// A server of TLS 1.3 refuses a client after the client's part of the handshake.
    fn explain_later(&self, error: io::Error) -> io::Error {
        let alert = match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::AlertReceived(alert)) if self.peer == Role::Server => *alert,
            _ => return error,
        };
        io::Error::new(io::ErrorKind::ConnectionRefused, refused_by_server(alert))
    }

    /// Waits for bytes; 0 at the end of the stream. After `until` it ends with an error of kind `TimedOut`.
    pub fn recv(&self, socket: &Socket, buf: &mut [u8], until: Option<IoDeadline>) -> io::Result<usize> {
        loop {
            let read = self.state.lock().read(socket, buf);
            if let Some(count) = read.map_err(|error| self.explain_later(error))? {
                return Ok(count);
            }
            if until.is_some() {
                wait(socket, PollFlags::IN, until)?;
            }
            let mut bytes = [0; RECEIVE_LEN];
            let count = receive(socket, &mut bytes)?;
            if count == 0 {
                return Ok(0);
            }
            self.state.lock().received.extend(bytes.get(..count).unwrap_or_default());
        }
    }

    /// Sends a part. `WouldBlock`: nothing was sent; the same bytes must be passed again.
    pub fn try_send(&self, socket: &Socket, chunks: &[IoSlice<'_>]) -> io::Result<usize> {
        let total: usize = chunks.iter().map(|chunk| chunk.len()).sum();
        let mut sent = 0;
        while sent < total {
            let mut state = self.state.lock();
            match state.send_piece(socket, chunks, sent) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && sent > 0 => return Ok(sent),
                Err(error) => return Err(error),
            }
        }
        Ok(sent)
    }

    /// Sends a part, waiting until the socket takes one. After `until` it ends with an error of kind `TimedOut`.
    pub fn send(
        &self,
        socket: &Socket,
        chunks: &[IoSlice<'_>],
        until: Option<IoDeadline>,
    ) -> io::Result<usize> {
        loop {
            match self.try_send(socket, chunks) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
            wait(socket, PollFlags::OUT, until)?;
        }
    }

    /// Sends close_notify if the socket takes it. Does not wait.
    pub fn say_goodbye(&self, socket: &Socket) {
        let mut state: MutexGuard<'_, TlsSession> = self.state.lock();
        if !state.connection.is_handshaking() {
            state.connection.send_close_notify();
        }
        // No error if the peer is gone.
        let _ = state.flush(socket);
    }
}

impl TlsSession {
    /// Sends all encrypted bytes, without waiting.
    fn flush(&mut self, socket: &Socket) -> io::Result<()> {
        while self.connection.wants_write() {
            self.connection.write_tls(&mut Unhurried(socket))?;
        }
        Ok(())
    }

    /// Encrypts and sends the piece of `chunks` that begins after `skip` bytes; returns its length.
    fn send_piece(&mut self, socket: &Socket, chunks: &[IoSlice<'_>], skip: usize) -> io::Result<usize> {
        if self.accepted == 0 {
            self.accepted = match chunks {
                [one] => self.connection.writer().write(one.get(skip..).unwrap_or_default())?,
                many => self.connection.writer().write_vectored(&after(many, skip))?,
            };
            if self.accepted == 0 && !self.connection.wants_write() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
        self.flush(socket)?;
        Ok(std::mem::take(&mut self.accepted))
    }

    /// Decrypts into `buf`. `None`: more must be received first. 0: the peer has sent close_notify.
    fn read(&mut self, socket: &Socket, buf: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match self.connection.reader().read(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result.map(Some),
            }
            if self.received.is_empty() {
                if self.received.capacity() > KEEP_LEN {
                    self.received = VecDeque::new();
                }
                return Ok(None);
            }
            self.process(socket).map_err(io::Error::other)?;
        }
    }

    fn advance_handshake(&mut self, socket: &Socket) -> Result<(), rustls::Error> {
        while self.connection.is_handshaking() && !self.received.is_empty() {
            self.process(socket)?;
        }
        Ok(())
    }

    /// Passes some of the received bytes to rustls.
    fn process(&mut self, socket: &Socket) -> Result<(), rustls::Error> {
        self.connection
            .read_tls(&mut self.received)
            .map_err(|error| rustls::Error::General(format!("more data than the buffer takes: {error}")))?;
        let processed = self.connection.process_new_packets();
        // Sends an alert, or the answer to a key update. The rest goes out with the next message.
        let _ = self.flush(socket);
        processed.map(drop)
    }

    fn peer(&self) -> Peer {
        let version = match self.connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
            _ => "TLS 1.3",
        };
        let first = self.connection.peer_certificates().and_then(|certificates| certificates.first());
        let parsed = first.and_then(|der| Some((der, Certificate::parse(der).ok()?)));
        let (subject, certificate) = parsed.map_or_else(Default::default, |(der, certificate)| {
            let id = CertificateId { subject: certificate.name, sha256: Sha256::digest(der).into() };
            (certificate.subject, Some(id))
        });
        Peer { version, subject, certificate }
    }
}

/// The rest of `chunks` after `skip` bytes.
fn after<'a>(chunks: &'a [IoSlice<'_>], mut skip: usize) -> Vec<IoSlice<'a>> {
    let mut rest = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        if let Some(bytes) = chunk.get(skip..).filter(|bytes| !bytes.is_empty()) {
            rest.push(IoSlice::new(bytes));
        }
        skip = skip.saturating_sub(chunk.len());
    }
    rest
}

/// Why a server ended the handshake, worded for operators.
fn refused_by_server(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired => {
            "the server demands a certificate; <ssl> needs 'certificate' and 'key'".into()
        }
        alert if is_about_certificate(alert) => format!(
            "the server does not accept the certificate of this client ({}); its <ssl> needs it, or its authority, in \
             'authenticate'; its log says more",
            in_words(alert)
        ),
        alert => format!("the server ended the TLS handshake: {}", in_words(alert)),
    }
}

/// An alert in the words of Python's ssl module: `unknown ca`.
fn in_words(alert: AlertDescription) -> String {
    let name = format!("{alert:?}");
    let mut words = String::new();
    let mut was_lower = false;
    for c in name.chars() {
        if c.is_ascii_uppercase() && was_lower {
            words.push(' ');
        }
        was_lower = c.is_ascii_lowercase();
        words.push(c.to_ascii_lowercase());
    }
    words
}

fn is_about_certificate(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
    )
}

/// A socket with non-blocking calls.
struct Unhurried<'a>(&'a Socket);

impl Write for Unhurried<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, chunks: &[IoSlice<'_>]) -> io::Result<usize> {
        loop {
            match self.0.send_vectored_with_flags(chunks, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits for bytes from the socket.
fn receive(mut socket: &Socket, bytes: &mut [u8]) -> io::Result<usize> {
    loop {
        match socket.read(bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Waits until the socket is ready or has an error. After `until` it does not, whatever has come.
fn wait(socket: &Socket, ready_for: PollFlags, until: Option<IoDeadline>) -> io::Result<()> {
    loop {
        // A peer that always has one more byte would go on for ever.
        if until.is_some_and(|until| until.is_over()) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let left = until.map(|until| Timespec::try_from(until.left())).transpose();
        match poll(&mut [PollFd::new(socket, ready_for)], left.ok().flatten().as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
        }
    }
}

impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Layer")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::tls::{Files, Peers, Tls};

    /// A server whose own certificate is also its only listed client.
    fn tls() -> Tls {
        let directory = tempfile::tempdir().expect("a directory");
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("a certificate");
        let path = directory.path().join("server.pem");
        std::fs::write(&path, made.cert.pem() + &made.signing_key.serialize_pem()).expect("write");
        Tls::load(Files { certificate: path.clone(), key: None, password: None, peers: Peers::Listed(path) })
            .expect("certificates")
    }

    fn pair() -> (Socket, std::os::unix::net::UnixStream) {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("sockets");
        (Socket::from(std::os::fd::OwnedFd::from(ours)), theirs)
    }

    /// Another thread can end a handshake in each of its states.
    #[test]
    fn a_shutdown_ends_a_handshake() {
        for hello in [&b""[..], &[22, 3, 1, 0x20, 0, 1, 0, 0x1f, 0xfc]] {
            let (socket, mut peer) = pair();
            peer.write_all(hello).expect("write");
            let (layer, other) = (tls().begin().expect("a layer"), socket.try_clone().expect("clone"));
            let ended = std::thread::scope(|scope| {
                let handshake = scope.spawn(|| layer.handshake(&socket, None));
                std::thread::sleep(std::time::Duration::from_millis(100));
                assert!(!handshake.is_finished());
                layer.say_goodbye(&other);
                other.shutdown(std::net::Shutdown::Both).expect("shutdown");
                handshake.join().expect("no panic")
            });
            assert!(ended.is_err(), "{ended:?}");
        }
    }

    #[test]
    fn what_is_not_tls_is_called_that() {
        for garbage in [&b"GET / HTTP/1.0\r\n\r\n"[..], b"\0\0\0\x02Z5", &[0xff; 20_000]] {
            let (socket, mut peer) = pair();
            peer.write_all(garbage).expect("write");
            let error = tls().begin().expect("a layer").handshake(&socket, None).expect_err("garbage");
            assert!(error.to_string().contains("this is not TLS"), "{error}");
        }
        let (socket, peer) = pair();
        drop(peer);
        let result = tls().begin().expect("a layer").handshake(&socket, None);
        assert!(matches!(result, Err(HandshakeError::Silent)), "{result:?}");
        let (socket, mut peer) = pair();
        peer.write_all(&[22, 3, 1, 0]).expect("write");
        drop(peer);
        let result = tls().begin().expect("a layer").handshake(&socket, None);
        assert!(matches!(result, Err(HandshakeError::Gone(_))), "{result:?}");
    }

    #[test]
    fn alerts_are_named_in_words() {
        for (alert, words) in [
            (AlertDescription::UnknownCA, "unknown ca"),
            (AlertDescription::BadCertificate, "bad certificate"),
            (AlertDescription::ProtocolVersion, "protocol version"),
        ] {
            assert_eq!(in_words(alert), words);
        }
    }

    #[test]
    fn pieces_after_a_part() {
        let chunks = [IoSlice::new(b"abc"), IoSlice::new(b""), IoSlice::new(b"de"), IoSlice::new(b"f")];
        for skip in 0..=7 {
            let rest: Vec<u8> = after(&chunks, skip).iter().flat_map(|chunk| chunk.to_vec()).collect();
            assert_eq!(rest, b"abcdef"[skip.min(6)..], "{skip}");
        }
    }
}
