//! A connection to a ZEO server of any generation, ours or Python's, for tools. It keeps no cache and ignores what
//! the server sends unasked.

use std::io;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use socket2::Socket;

use crate::base::address::Address;
use crate::base::clock::IoDeadline;
use crate::wire::call::{Incoming, wire_for};
use crate::wire::frame::{FrameReader, put_frame};
use crate::wire::protocol::Wire;
use crate::wire::value::Value;

/// Longest message, in bytes. The replies are short, but invalidations need not be.
const FRAME_LEN_MAX: usize = 256 << 20;
/// Interval of keep-alive messages: firewalls drop a connection on which nothing is sent.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// Longest wait for the handshake, which a server sends at once.
const GREETING_MAX: Duration = Duration::from_secs(30);

/// A connection to a ZEO server.
pub struct Connection {
    socket: Socket,
    frames: FrameReader,
    wire: Wire,
    next_id: i64,
    /// When the next keep-alive message is due, if nothing else is sent.
    keep_alive_at: IoDeadline,
}

/// Why a call has no value.
#[derive(Debug)]
pub enum CallError {
    /// The connection is lost.
    Io(io::Error),
    /// The server raised an exception.
    Raised(String),
}

impl From<io::Error> for CallError {
    fn from(error: io::Error) -> CallError {
        CallError::Io(error)
    }
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CallError::Io(error) => write!(f, "the connection is lost: {error}"),
            CallError::Raised(exception) => write!(f, "the server raised {exception}"),
        }
    }
}

impl Connection {
    /// Connects and agrees on a protocol.
    pub fn open(address: &Address) -> io::Result<Connection> {
        let socket: Socket = match address {
            Address::Tcp { host, port } => {
                let host = host.as_deref().filter(|host| !host.is_empty()).unwrap_or("localhost");
                let stream = TcpStream::connect((host, port.unwrap_or(0)))?;
                stream.set_nodelay(true)?;
                stream.into()
            }
            Address::Unix(path) => UnixStream::connect(path)?.into(),
        };
        let frames = FrameReader::with_limit(FRAME_LEN_MAX);
        // Until the server has said what it speaks.
        let (wire, _) = wire_for(b"Z5").ok_or(io::ErrorKind::Unsupported)?;
        let keep_alive_at = IoDeadline::after(KEEP_ALIVE);
        let mut connection = Connection { socket, frames, wire, next_id: 1, keep_alive_at };
        let no_greeting = || {
            io::Error::new(
                io::ErrorKind::TimedOut,
                "the server has not begun the handshake; is it a ZEO server?",
            )
        };
        let greeting = connection.frame(IoDeadline::after(GREETING_MAX))?.ok_or_else(no_greeting)?;
        let Some((wire, answer)) = wire_for(&greeting) else {
            let what = format!(
                "the server's handshake is '{}', which is not of a known ZEO protocol",
                greeting.escape_ascii()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        };
        connection.wire = wire;
        let mut out = Vec::new();
        put_frame(&answer, &mut out);
        connection.send(&out)?;
        Ok(connection)
    }

    /// Chooses a storage, for reading.
    pub fn register(&mut self, storage: &str) -> Result<(), CallError> {
        let id = self.call("register", &[Value::text(storage), Value::Bool(true)])?;
        self.answer(id).map(drop)
    }

    /// Whether the server knows `server_status`; others would close the connection.
    pub fn knows_status(&self) -> bool {
        !self.wire.pickles_exceptions()
    }

    /// Sends a call. Returns its number, which the answer has.
    pub fn call(&mut self, method: &str, args: &[Value]) -> io::Result<i64> {
        let id = self.next_id;
        self.next_id += 1;
        let mut out = Vec::new();
        self.wire.call(id, method, args, &mut out);
        self.send(&out)?;
        Ok(id)
    }

    /// Waits for the answer to a call, however long it takes. Other answers are ignored.
    pub fn answer(&mut self, wanted: i64) -> Result<Option<Value>, CallError> {
        loop {
            if let Some((id, result)) = self.any_answer(KEEP_ALIVE)?
                && id == wanted
            {
                return result.map_err(CallError::Raised);
            }
        }
    }

    /// The next answer to any call: its number, and the value or the exception in words. `None`: there was none in
    /// time.
    #[allow(clippy::type_complexity)] // said above
    pub fn any_answer(
        &mut self,
        wait_max: Duration,
    ) -> io::Result<Option<(i64, Result<Option<Value>, String>)>> {
        let until = IoDeadline::after(wait_max);
        loop {
            if self.keep_alive_at.is_over() {
                let mut out = Vec::new();
                self.wire.keep_alive(&mut out);
                self.send(&out)?;
            }
            let Some(payload) = self.frame(until.min(self.keep_alive_at))? else {
                if until.is_over() {
                    return Ok(None);
                }
                continue;
            };
            let incoming = self.wire.incoming(&payload);
            match incoming.map_err(|what| io::Error::new(io::ErrorKind::InvalidData, what))? {
                Incoming::Reply { id, result } => return Ok(Some((id, result))),
                Incoming::Push => {}
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        io::Write::write_all(&mut &self.socket, bytes)?;
        self.keep_alive_at = IoDeadline::after(KEEP_ALIVE);
        Ok(())
    }

    /// The next frame; `None`: it did not come in time.
    fn frame(&mut self, until: IoDeadline) -> io::Result<Option<Vec<u8>>> {
        loop {
            let next =
                self.frames.next().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            if let Some(frame) = next {
                return Ok(Some(frame.payload.to_vec()));
            }
            let left = until.left();
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(left))?;
            match io::Read::read(&mut &self.socket, self.frames.spare()?) {
                Ok(0) => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the server closed the connection",
                    ));
                }
                Ok(count) => self.frames.filled(count),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted => {}
                    _ => return Err(error),
                },
            }
        }
    }
}
