//! The first messages of a connection: the server's greeting, the client's answer, and before Z5 the question which
//! authentication the server demands.
//!
//! | generation | messages |
//! |---|---|
//! | Z308 to Z4 | greeting, answer, `getAuthProtocol`, with `digest` two calls more |
//! | Z5, M5 | greeting, answer |

use std::io;

use super::outcome::{Credentials, DialError, DialOptions, Dialled, Macs};
use crate::auth::digest;
use crate::base::clock::IoDeadline;
use crate::net::stream::{Sink, Stream};
use crate::wire::answers::{AnswerError, FromServer};

use crate::wire::calls::{Call, CallIds};
use crate::wire::decode::DecodeError;
use crate::wire::frame::{FRAME_LEN_MAX, FrameReader, put_frame};
use crate::wire::mac::RunningMac;
use crate::wire::protocol::{Generation, Wire, wire_for};
use crate::wire::value::Value;

/// The oldest servers that have all calls that a client needs.
const OLDEST: Generation = Generation::Z308;
/// Longest message before the client has registered, in bytes.
const EARLY_LEN_MAX: usize = 64 << 10;
/// Longest answer to `ruok`, in bytes: a server may have thousands of storages.
const STATUS_LEN_MAX: usize = 16 << 20;
/// Bytes of a foreign greeting that are shown.
const SHOWN_MAX: usize = 60;

/// The stream during the handshake.
struct Opening {
    stream: Stream,
    frames: FrameReader,
    until: IoDeadline,
}

/// Everything after the connection to the end of authentication.
pub(super) fn shake(
    stream: Stream,
    peer: String,
    options: &DialOptions,
    until: IoDeadline,
) -> Result<Dialled, DialError> {
    let mut opening = Opening { stream, frames: FrameReader::with_limit(EARLY_LEN_MAX), until };
    let greeting = opening.receive("the greeting of a ZEO server")?;
    let (wire, answer) = agree(&greeting, options.generation)?;
    let mut out = Vec::new();
    put_frame(answer, &mut out);
    opening.send(&out)?;
    let mut dialogue = Dialogue { opening, wire, ids: CallIds::default() };
    let macs =
        if wire.knows_authentication() { dialogue.authenticate(options.credentials.as_ref())? } else { None };
    let Dialogue { opening: Opening { stream, mut frames, .. }, wire, ids } = dialogue;
    frames.set_limit(FRAME_LEN_MAX);
    stream.set_wait_max(None).map_err(DialError::Lost)?;
    Ok(Dialled { stream, frames, wire, macs, ids, peer })
}

/// The answer to `ruok`, which takes the place of the answer to the greeting.
pub(super) fn ask_status(stream: Stream, until: IoDeadline) -> Result<Vec<u8>, DialError> {
    let mut opening = Opening { stream, frames: FrameReader::with_limit(STATUS_LEN_MAX), until };
    let mut out = Vec::new();
    put_frame(b"ruok", &mut out);
    opening.send(&out)?;
    opening.receive("the greeting of a ZEO server")?;
    opening.receive("the answer to ruok")
}

/// The protocol for a greeting, and the answer to it. `newest`: see [`DialOptions::generation`].
fn agree(greeting: &[u8], newest: Option<Generation>) -> Result<(Wire, &'static [u8]), DialError> {
    match wire_for(greeting) {
        Some((wire, _)) if newest.is_some_and(|newest| wire.generation > newest) => {
            let generation = newest.unwrap_or(wire.generation);
            let answer = generation.name().as_bytes();
            Ok(wire_for(answer).unwrap_or((wire, answer)))
        }
        Some((wire, _)) if wire.generation < OLDEST => Err(DialError::Protocol(format!(
            "the server speaks {}, the protocol of ZODB 3.7 or older; this client needs ZODB 3.8 or later",
            wire.generation
        ))),
        Some(agreed) => Ok(agreed),
        None => {
            let shown = greeting.get(..SHOWN_MAX).unwrap_or(greeting);
            Err(DialError::Protocol(format!(
                "the server's handshake is '{}', which is not of a known ZEO protocol",
                shown.escape_ascii()
            )))
        }
    }
}

impl Opening {
    fn send(&self, mut bytes: &[u8]) -> Result<(), DialError> {
        self.stream.set_wait_max(Some(self.until.left())).map_err(DialError::Lost)?;
        while !bytes.is_empty() {
            match self.stream.send(&[io::IoSlice::new(bytes)]) {
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(error) if is_timeout(&error) => return Err(DialError::TimedOut("the server to read")),
                Err(error) => return Err(DialError::Lost(error)),
            }
        }
        Ok(())
    }

    /// The next message. `what`: for the error when the time is over.
    fn receive(&mut self, what: &'static str) -> Result<Vec<u8>, DialError> {
        loop {
            match self.frames.next() {
                Ok(Some(frame)) => return Ok(frame.payload.to_vec()),
                Ok(None) => {}
                Err(error) => {
                    return Err(DialError::Protocol(format!("{error}; is it a ZEO server?")));
                }
            }
            if self.until.is_over() {
                return Err(DialError::TimedOut(what));
            }
            self.stream.set_wait_max(Some(self.until.left())).map_err(DialError::Lost)?;
            match self.stream.recv(self.frames.spare().map_err(DialError::Lost)?) {
                Ok(0) => return Err(DialError::Lost(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => self.frames.filled(count),
                Err(error) if is_timeout(&error) => {}
                // What a TLS layer says.
                Err(error) if error.get_ref().is_some() => return Err(DialError::Tls(error.to_string())),
                Err(error) => return Err(DialError::Lost(error)),
            }
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Calls one after the other, before the link works.
struct Dialogue {
    opening: Opening,
    wire: Wire,
    ids: CallIds,
}

impl Dialogue {
    /// Asks whether a password is needed, and shows that this client has it. Learns the dialect of the server.
    fn authenticate(&mut self, credentials: Option<&Credentials>) -> Result<Option<Macs>, DialError> {
        let protocol = self.call("getAuthProtocol", &Call::GetAuthProtocol)?;
        let Some(protocol) = protocol.string() else { return Ok(None) };
        if protocol != digest::KIND.name.as_bytes() {
            return Err(DialError::Authentication(format!(
                "the server demands authentication by '{}', which this client does not have",
                protocol.escape_ascii()
            )));
        }
        let Some(credentials) = credentials else {
            return Err(DialError::Authentication(
                "the server demands a password, and no 'username' and 'password' are configured".into(),
            ));
        };
        let [get_challenge, respond] = digest::CLIENT_METHODS;
        let challenge = self.call(get_challenge, &Call::Other { name: get_challenge, args: &[] })?;
        let (Value::Tuple(parts) | Value::List(parts)) = challenge else { return Err(no_challenge()) };
        let [realm, challenge, nonce] = parts.as_slice() else { return Err(no_challenge()) };
        if realm.string() != credentials.realm.as_deref().map(str::as_bytes) {
            return Err(DialError::Authentication(format!(
                "expected realm {}, got realm {}",
                in_quotes(credentials.realm.as_deref().map(str::as_bytes)),
                in_quotes(realm.string())
            )));
        }
        let (Some(sent), Some(nonce)) = (challenge.string(), nonce.string()) else {
            return Err(no_challenge());
        };
        let realm = credentials.realm.as_deref();
        let made = digest::respond(&credentials.username, realm, &credentials.password, sent, nonce);
        let response = [Value::Tuple(vec![
            Value::text(&credentials.username),
            challenge.clone(),
            Value::text(&made.response),
        ])];
        if self.call(respond, &Call::Other { name: respond, args: &response })? != Value::Bool(true) {
            return Err(DialError::Authentication(format!(
                "the server does not accept the password of '{}'",
                credentials.username.escape_debug()
            )));
        }
        let mac = RunningMac::new(&made.session_key);
        Ok(Some(Macs { sent: mac.clone(), received: mac }))
    }

    /// The result of a call. `what`: for the error when the time is over.
    fn call(&mut self, what: &'static str, call: &Call<'_>) -> Result<Value, DialError> {
        let number = self.ids.take();
        let mut out = Vec::new();
        self.wire.put_call(number, call, &mut out);
        self.opening.send(&out)?;
        loop {
            let payload = self.opening.receive(what)?;
            let broken = |error: DecodeError| DialError::Protocol(error.to_string());
            match self.wire.from_server(&payload).map_err(broken)? {
                FromServer::Reply { id, answer } if id == number => {
                    self.wire = self.wire.of_first_reply(&payload);
                    return answer.value().map_err(|error| match error {
                        AnswerError::Raised(_) => DialError::Authentication(format!("{what}: {error}")),
                        AnswerError::Broken(error) => broken(error),
                    });
                }
                _ => {}
            }
        }
    }
}

fn no_challenge() -> DialError {
    DialError::Protocol("the server's challenge is not (realm, challenge, nonce)".into())
}

/// `'a realm'` or `None`, as Python shows it.
fn in_quotes(realm: Option<&[u8]>) -> String {
    realm.map_or("None".into(), |realm| format!("'{}'", realm.escape_ascii()))
}
